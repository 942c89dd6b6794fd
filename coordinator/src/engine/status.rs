//! Whether the coordinator still works, as a level everyone can look at.

use std::sync::Arc;

use tokio::sync::watch;

/// What the coordinator can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Everything.
    Running,
    /// The database does not take writes right now; resolutions wait.
    Waiting(Arc<str>),
    /// It was stopped.
    Stopped,
    /// Nothing any more, for this reason: stop the process and start again.
    Failed(Arc<str>),
}

/// The level. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Status(Arc<watch::Sender<Health>>);

impl Default for Status {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Health::Running)))
    }
}

impl Status {
    /// The health now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.borrow().clone()
    }

    /// Follows the health.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    /// Whether new work may start.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self) -> Result<(), String> {
        match &*self.0.borrow() {
            Health::Running | Health::Waiting(_) => Ok(()),
            Health::Stopped => Err("the coordinator is stopped".into()),
            Health::Failed(why) => Err(why.to_string()),
        }
    }

    /// Sets the health, unless it has failed: a failure stays, the first one.
    pub(super) fn set(&self, health: Health) {
        self.0.send_if_modified(|now| {
            let change = !matches!(now, Health::Failed(_)) && *now != health;
            if change {
                *now = health;
            }
            change
        });
    }

    /// It cannot go on, for the reason `why`.
    pub(crate) fn fail(&self, why: &str) {
        tracing::error!(reason = why, "the coordinator has failed");
        self.set(Health::Failed(why.into()));
    }
}
