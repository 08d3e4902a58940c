//! The program `hie`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hie::cli::main()
}
