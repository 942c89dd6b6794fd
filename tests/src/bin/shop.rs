//! The example `one_process`, built with the tests so that they never run a stale one.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::one_process::main()
}
