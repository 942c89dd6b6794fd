//! The program `halfmoon`: hands its arguments to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    halfmoon::run(std::env::args_os())
}
