//! x
use crate::cli::output::Output;
use crate::fault::{Exit, Outcome};
use crate::home::Home;
use crate::order::Order;
/// x
pub async fn stop_signal() { let _ = tokio::signal::ctrl_c().await; }
/// x
pub async fn serve(_home: &Home, _output: &Output) -> Outcome<Exit> { Ok(Exit::Done) }
/// x
pub async fn offline(_home: &Home, _order: Order, _output: &Output) -> Outcome<Exit> { Ok(Exit::Done) }
