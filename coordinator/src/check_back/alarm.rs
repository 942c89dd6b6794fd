//! The alarm clock of sweeps: a cron expression that does nothing but wake the sweeper.
//!
//! `tokio-cron-scheduler` is used for cron expressions only: its repeated jobs stop for good when the process stalls for a
//! few seconds, and a slow job would overlap itself. So a firing only raises a flag; one task does the work.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A running alarm. Dropping it without [`Alarm::stop`] leaves its task to the runtime's end.
pub struct Alarm {
    scheduler: JobScheduler,
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alarm")
    }
}

impl Alarm {
    /// Raises `wake` whenever `cron` (six fields, seconds first) says so.
    ///
    /// # Errors
    /// The expression quoted, and what is wrong with it.
    pub async fn start(cron: &str, wake: Arc<Notify>) -> Result<Self, String> {
        let explain = |error: JobSchedulerError| {
            format!(
                "the cron expression {cron:?} cannot be used: {error}; write six fields, seconds first"
            )
        };
        let job = Job::new(cron, move |_, _| wake.notify_one()).map_err(explain)?;
        let scheduler = JobScheduler::new().await.map_err(explain)?;
        scheduler.add(job).await.map_err(explain)?;
        scheduler.start().await.map_err(explain)?;
        Ok(Self { scheduler })
    }

    /// Stops it; `wake` is not raised again.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "the alarm was stopped already");
        }
    }
}
