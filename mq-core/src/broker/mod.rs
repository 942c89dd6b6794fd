//! The broker: topics, groups, offsets, sending, pulling, retry and delay over one log, without any transport.

pub mod acks;
mod catalog;
pub mod clients;
mod delayed;
mod groups;
mod journal;
mod notes;
mod offsets;
mod pulling;
mod retrying;
mod sending;
mod settings;
mod topics;

#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use crate::exchange::{Incoming, Pull, PullOutcome, Pulled, Receipt, SendBack};
pub use crate::filter;
pub use catalog::{GroupConfig, Permission, TopicConfig};
use clients::Clients;
pub use groups::GroupError;
use journal::Journal;
pub use journal::RestoreError;
pub use pulling::PullError;
pub use retrying::{SendBackError, SentBack};
pub use sending::SendError;
pub use settings::Settings;
pub use topics::{AdmitError, TopicError};

use crate::clock::Clock;
use crate::extension::{ClaimError, Claimed, Extension, StartError};
use crate::log::{AppendError, Flush, Log};
use crate::random::Random;
use crate::wire::record::EMBEDDED_HOST;

/// How often the broker looks whether its next snapshot is due; offsets have their own setting.
const SNAPSHOT_LOOK: Duration = Duration::from_secs(1);

/// How long an extension may take to stop because another one did not start.
const UNDO_WITHIN: Duration = Duration::from_secs(5);

/// What a broker is made of.
#[derive(Debug)]
pub struct Parts {
    /// The log, recovered.
    pub log: Arc<dyn Log>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// Protocols on top.
    pub extensions: Vec<Arc<dyn Extension>>,
}

/// Why a broker does not start; one line for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Two extensions claim the same, or one claims what is the broker's.
    #[error(transparent)]
    Claims(#[from] ClaimError),
    /// The broker's notes cannot be read back.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// An extension does not start.
    #[error(transparent)]
    Extension(#[from] StartError),
}

/// A handle of a running broker; cheap to clone. The broker's tasks end with its last handle, or by [`Broker::close`].
#[derive(Debug, Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    journal: Journal,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    clients: Clients,
    claimed: Claimed,
    host: OnceLock<SocketAddrV4>,
    /// One change of topics or groups at a time: each looks, then writes.
    admin: tokio::sync::Mutex<()>,
    offsets_changed: Notify,
    /// A message that waits has become durable.
    delayed: Notify,
    /// How often the topics have changed since the start.
    topics_changed: watch::Sender<u64>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Nobody waits for messages any more.
    hurry: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

/// Stops the tasks, which share everything else, when the last handle is gone.
#[derive(Debug)]
struct Alive(watch::Sender<bool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl Broker {
    /// Restores topics, groups, offsets and delays from the log's notes, starts the extensions, then the broker's tasks.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed, except by an extension that had started.
    pub async fn open(settings: Settings, parts: Parts) -> Result<Self, OpenError> {
        let claimed = Claimed::new(parts.extensions)?;
        let journal = Journal::restore(parts.log)?;
        let stop = watch::Sender::new(false);
        let shared = Shared {
            settings,
            journal,
            clients: Clients::new(Arc::clone(&parts.clock)),
            clock: parts.clock,
            random: parts.random,
            claimed,
            host: OnceLock::new(),
            admin: tokio::sync::Mutex::default(),
            offsets_changed: Notify::new(),
            delayed: Notify::new(),
            topics_changed: watch::Sender::new(0),
            tasks: Mutex::default(),
            hurry: watch::Sender::new(false),
            stop: stop.clone(),
        };
        let broker = Self {
            shared: Arc::new(shared),
            _alive: Arc::new(Alive(stop)),
        };
        broker.start_extensions().await?;
        broker.spawn(tell(Arc::clone(&broker.shared)));
        broker.spawn(keep(Arc::clone(&broker.shared)));
        broker.spawn(delayed::deliver(Arc::clone(&broker.shared)));
        Ok(broker)
    }

    /// Starts all extensions, or none: when one fails, those before it are stopped again.
    async fn start_extensions(&self) -> Result<(), StartError> {
        let mut started: Vec<&Arc<dyn Extension>> = Vec::new();
        for extension in self.shared.claimed.extensions() {
            if let Err(error) = extension.start(self.clone()).await {
                for extension in started.into_iter().rev() {
                    extension.stop(UNDO_WITHIN).await;
                }
                return Err(error);
            }
            started.push(extension);
        }
        Ok(())
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.shared.journal.log
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Chance.
    #[must_use]
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.shared.random
    }

    /// Who is connected.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.shared.clients
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The host that records are stored under and ids of messages name: the one that was advertised first, until then
    /// [`EMBEDDED_HOST`].
    #[must_use]
    pub fn host(&self) -> SocketAddrV4 {
        self.shared.host.get().copied().unwrap_or(EMBEDDED_HOST)
    }

    /// Tells under which address clients reach the broker. Only the first call counts.
    pub fn advertise(&self, host: SocketAddrV4) {
        self.shared.host.get_or_init(|| host);
    }

    /// The extension that a request with this code belongs to.
    #[must_use]
    pub fn extension_for_code(&self, code: i32) -> Option<Arc<dyn Extension>> {
        self.shared.claimed.by_code(code).cloned()
    }

    /// The extension that a message sent with these flag bits belongs to.
    #[must_use]
    pub fn extension_for_flags(&self, sys_flag: i32) -> Option<Arc<dyn Extension>> {
        self.shared.claimed.by_flag(sys_flag).cloned()
    }

    /// Whether the broker is closed or being closed.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.shared.stop.borrow()
    }

    /// Answers all who wait for messages with what there is, and from now on nobody waits: the first step to a stop.
    pub fn stop_waiting(&self) {
        self.shared.hurry.send_replace(true);
    }

    /// Stops the extensions in reverse order, each within `within`, then the tasks, and writes offsets and a snapshot, so
    /// that the next start is quick. Close consumers first: what they commit afterwards is forgotten. The log stays open: it belongs to the caller.
    ///
    /// # Errors
    /// [`AppendError`] when the last notes could not be written; nothing acknowledged is lost, the next start reads more.
    pub async fn close(&self, within: Duration) -> Result<(), AppendError> {
        for extension in self.shared.claimed.extensions().rev() {
            extension.stop(within).await;
        }
        self.shared.stop.send_replace(true);
        self.stop_waiting();
        let tasks = std::mem::take(
            &mut *self
                .shared
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for task in tasks {
            // A task that has panicked has said so; the others still end well.
            let _ = task.await;
        }
        let journal = &self.shared.journal;
        journal.write_offsets(Flush::Sync).await?;
        if journal.changed_since_snapshot() {
            journal.snapshot(&*self.shared.random).await?;
        }
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task);
        self.shared
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
    }
}

/// Tells those who wait for the log; once the broker stops, the log's thread does.
async fn tell(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = shared.journal.acks.run() => {}
    }
}

/// Writes offsets a little after they change, and a snapshot when the log has grown or wants to delete what stands before.
async fn keep(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let journal = &shared.journal;
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(SNAPSHOT_LOOK) => {}
            () = shared.offsets_changed.notified() => {
                tokio::select! {
                    // What is not written yet, close writes.
                    _ = stop.changed() => return,
                    () = tokio::time::sleep(shared.settings.offsets_interval) => {}
                }
            }
        }
        let mut kept = journal.write_offsets(Flush::Async).await;
        if kept.is_ok() && journal.behind_snapshot() >= shared.settings.snapshot_bytes {
            kept = journal.snapshot(&*shared.random).await;
        }
        if kept.is_ok() {
            kept = journal.let_go(&*shared.random).await;
        }
        match kept {
            Ok(()) => {}
            Err(error @ (AppendError::Poisoned(_) | AppendError::Closed)) => {
                tracing::error!(%error, "offsets are no longer written");
                return;
            }
            Err(error) => tracing::warn!(%error, "offsets could not be written; trying again"),
        }
    }
}
