//! The command line: one binary, verbs; data to stdout, words and progress to stderr, faults in three parts.

pub mod arguments;
pub mod output;

use std::process::ExitCode;

use clap::Parser as _;

use crate::fault::{Exit, Fault};
use arguments::{Arguments, Command};
use output::Output;

/// Runs the command line and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    match run(arguments, &output) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(fault) => {
            output.fault(&fault);
            ExitCode::from(fault.exit as u8)
        }
    }
}

fn run(arguments: Arguments, output: &Output) -> Result<Exit, Fault> {
    if let Command::RenderFrame(render) = &arguments.command {
        return crate::frames::child(render);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Fault::because(
            Exit::Failed,
            "Cannot start.",
            "Check the limits of this user (ulimit -a).",
        ))?;
    let outcome = runtime.block_on(crate::command::run(arguments, output));
    // What still runs holds the store open: let it end before the process does.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome
}
