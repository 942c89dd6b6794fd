//! A whole shop as processes of their own, killed and started again.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages are made on one thread and freed on another: this allocator takes no lock for that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    examples::split_services::main(&examples::split_services::SPLIT_SERVICES)
}
