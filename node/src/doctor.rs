//! x
use crate::cli::output::Output;
use crate::fault::{Exit, Outcome};
use crate::home::Home;
/// x
pub async fn run(_home: &Home, _output: &Output) -> Outcome<Exit> { Ok(Exit::Done) }
