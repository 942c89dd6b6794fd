//! The program `halfmoon`: hands its arguments to the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages are made on one thread and freed on another: this allocator takes no lock for that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    halfmoon::run(std::env::args_os())
}
