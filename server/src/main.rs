//! The program `halfmoon`: hands its arguments to the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages are made on one thread and freed on another, which the system's allocator serves at twice the cost.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    halfmoon::run(std::env::args_os())
}
