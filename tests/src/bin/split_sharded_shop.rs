//! The example `split_sharded`, built with the tests so that they never run a stale one.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::split_services::main(&examples::split_sharded::SPLIT_SHARDED)
}
