//! A whole shop in one process.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages are made on one thread and freed on another: this allocator takes no lock for that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    examples::one_process::main()
}
