//! When to stop: SIGTERM and SIGINT; the second of them ends the process where it stands.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Exit status of a process that was told twice to stop.
const TOLD_TWICE: i32 = 130;

/// The signals, caught from the moment this is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to catch them.
    pub(super) fn listen() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind)
                .map_err(|error| Failure::Environment(format!("signals cannot be caught: {error}")))
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// Waits for one.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// From now on one more ends the process at once; what was acknowledged is safe all the same.
    pub(super) fn end_at_the_next(mut self) {
        tokio::spawn(async move {
            self.wait().await;
            std::process::exit(TOLD_TWICE);
        });
    }
}
