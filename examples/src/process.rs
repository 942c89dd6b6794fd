//! What every example's process has: its diagnostics on standard error, and threads.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

/// Writes diagnostics to standard error from here on: errors, or what `RUST_LOG` says. Call it once.
pub fn diagnose() {
    let said = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(said.unwrap_or_else(|_| "error".into()))
        .init();
}

/// Two threads for everything: an example leaves room for what else runs on the machine.
///
/// # Errors
/// The operating system's: no threads can be started.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
