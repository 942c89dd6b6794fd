//! A whole shop in one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::one_process::main()
}
