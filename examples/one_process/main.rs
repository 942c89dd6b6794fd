//! A whole shop in one process.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages are made on one thread and freed on another, which the system's allocator serves at twice the cost.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    examples::one_process::main()
}
