//! Everything in one process: one data folder with a log, a database in it or elsewhere, a broker and a coordinator.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mq_core::broker::{self, Broker};
use mq_core::clock::{Clock, SystemClock};
use mq_core::log::Log;
use mq_core::log::disk::FolderDisk;
use mq_core::log::file::FileLog;
use mq_core::log::open::{OpenError as LogOpenError, Settings as LogSettings};
use mq_core::random::{Random, SystemRandom};
use mq_core::wire::reserved;
use tokio::sync::watch;

use crate::engine::recovery::StartError;
use crate::engine::repair::{self, Lacking};
use crate::engine::status::Health;
use crate::engine::{self, Coordinator, half};
use crate::steps;
use crate::store::database::{Database, Options};
use crate::store::{StoreError, TxStore};

/// Name of the log's folder inside the data folder.
pub const LOG_FOLDER: &str = "log";
/// Name of the database inside the data folder, unless the settings name another.
pub const DATABASE_FILE: &str = "halfmoon.db";

/// Settings of everything in one process.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The log. Owners, excluded topics and steps are set by [`Embedded::open`].
    pub log: LogSettings,
    /// The broker.
    pub broker: broker::Settings,
    /// The coordinator.
    pub coordinator: engine::settings::Settings,
    /// The coordinator's database; a file inside the data folder unless set.
    pub database: Option<Database>,
    /// How the database is used.
    pub store: Options,
}

/// Why it does not open. One line each, naming the folder or file and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder holds something else.
    #[error(
        "{folder} is not a data folder of Halfmoon: it holds {found:?} and no {LOG_FOLDER}; give another --data or an empty folder"
    )]
    Foreign {
        /// The data folder.
        folder: PathBuf,
        /// Something that was found in it.
        found: String,
    },
    /// The folder cannot be read.
    #[error("{folder}: {error}; give a folder that this user can read and write")]
    Folder {
        /// The data folder.
        folder: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Broker or coordinator do not start.
    #[error(transparent)]
    Broker(#[from] broker::OpenError),
    /// Database and log do not fit together, or cannot be compared.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Opening or closing the log was interrupted.
    #[error("opening or closing the log was interrupted: {0}")]
    Interrupted(String),
}

/// A broker and a coordinator over one data folder.
#[derive(Debug)]
pub struct Embedded {
    broker: Broker,
    coordinator: Coordinator,
    log: Arc<FileLog>,
    store: Arc<dyn TxStore>,
}

impl Embedded {
    /// Opens the data folder at `folder`, creating it if it is missing, and recovers whatever a crash left.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed in a folder or database that does not belong here.
    pub async fn open(folder: impl AsRef<Path>, settings: Settings) -> Result<Self, OpenError> {
        let folder = folder.as_ref().to_path_buf();
        refuse_strangers(&folder)?;
        let opened = Opened::open(&folder, settings.log, settings.database, settings.store).await?;
        let Opened {
            clock,
            random,
            log,
            store,
        } = opened;
        let coordinator = Coordinator::new(store.clone(), settings.coordinator);
        let parts = broker::Parts {
            log: log.clone() as Arc<dyn Log>,
            clock,
            random,
            extensions: vec![Arc::new(coordinator.clone())],
        };
        let broker = Broker::open(settings.broker, parts).await?;
        Ok(Self {
            broker,
            coordinator,
            log,
            store,
        })
    }

    /// The broker.
    #[must_use]
    pub const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The coordinator.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Waits until the log or the coordinator cannot go on, and says why: nothing is acknowledged any more, and opening the
    /// folder again recovers. May be dropped while it waits.
    pub async fn failed(&self) -> String {
        first_failure(self.log.failure(), self.coordinator.status().watch()).await
    }

    /// Finishes what was accepted, writes what is held back, and closes the files: the next start has nothing to recover.
    ///
    /// # Errors
    /// What could not be finished within 10 s or written; the next start recovers.
    pub async fn close(self) -> Result<(), String> {
        let closed = self
            .broker
            .close(Duration::from_secs(10))
            .await
            .map_err(|error| error.to_string());
        let log = self.log;
        let log_closed =
            tokio::task::spawn_blocking(move || log.close().map_err(|error| error.to_string()))
                .await;
        self.store.close().await;
        closed?;
        log_closed.map_err(|error| error.to_string())?
    }
}

/// Log and database of one data folder, beside which nothing runs.
#[derive(Debug)]
struct Opened {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    log: Arc<FileLog>,
    store: Arc<dyn TxStore>,
}

impl Opened {
    async fn open(
        folder: &Path,
        log: LogSettings,
        database: Option<Database>,
        store: Options,
    ) -> Result<Self, OpenError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let log_settings = LogSettings {
            owners: vec![half::OWNER],
            unindexed_topics: vec![reserved::HALF_TOPIC.into()],
            steps: Some(Arc::new(steps::reach)),
            ..log
        };
        let (path, log_clock, log_random) =
            (folder.join(LOG_FOLDER), clock.clone(), random.clone());
        let opening = tokio::task::spawn_blocking(move || -> Result<FileLog, LogOpenError> {
            let disk = FolderDisk::open(path)?;
            FileLog::open(Arc::new(disk), log_settings, log_clock, &*log_random)
        });
        let log = Arc::new(
            opening
                .await
                .map_err(|error| OpenError::Interrupted(error.to_string()))??,
        );
        let database = database.unwrap_or_else(|| folder.join(DATABASE_FILE).into());
        let store = database.open(store).await?;
        Ok(Self {
            clock,
            random,
            log,
            store,
        })
    }
}

/// Log and database of a data folder that may not fit together, opened alone to be compared and repaired.
#[derive(Debug)]
pub struct Repair {
    opened: Opened,
    lacking: Lacking,
}

impl Repair {
    /// Opens the data folder at `folder`, which must hold a log, and finds out what its database lacks. A database that is
    /// not there is made; nothing is written into one that is.
    ///
    /// # Errors
    /// [`OpenError`]: the folder is none of ours or in use, or no repair can make log and database fit.
    pub async fn open(folder: &Path, database: Option<Database>) -> Result<Self, OpenError> {
        refuse_strangers(folder)?;
        let log = LogSettings::default();
        let opened = Opened::open(folder, log, database, Options::default()).await?;
        let reader = opened.store.reader();
        let lacking = repair::survey(&*opened.log, &*reader).await?;
        Ok(Self { opened, lacking })
    }

    /// What the database lacks.
    #[must_use]
    pub const fn lacking(&self) -> &Lacking {
        &self.lacking
    }

    /// Writes what the database lacks and closes both; `done` hears how many decisions are written. After an error or a
    /// crash another repair goes on from there.
    ///
    /// # Errors
    /// [`OpenError`] naming what cannot be read or written.
    pub async fn run(self, done: impl FnMut(usize)) -> Result<(), OpenError> {
        let log: Arc<dyn Log> = self.opened.log.clone();
        let parts = repair::Parts {
            log: &log,
            store: &self.opened.store,
            clock: &self.opened.clock,
            random: &self.opened.random,
        };
        repair::repair(&parts, &self.lacking, done).await?;
        self.close().await
    }

    /// Closes both.
    ///
    /// # Errors
    /// [`OpenError::Interrupted`] when the log cannot be closed; the next start recovers.
    pub async fn close(self) -> Result<(), OpenError> {
        let log = self.opened.log;
        self.opened.store.close().await;
        let closing = tokio::task::spawn_blocking(move || log.close());
        let closed = closing.await.map_err(|error| error.to_string());
        let closed = closed.and_then(|closed| closed.map_err(|error| error.to_string()));
        closed.map_err(OpenError::Interrupted)
    }
}

async fn first_failure(
    mut log: watch::Receiver<Option<String>>,
    mut coordinator: watch::Receiver<Health>,
) -> String {
    let in_log = async {
        let reason = log.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone())
    };
    let in_coordinator = async {
        let failed = |health: &Health| matches!(health, Health::Failed(_));
        let health = coordinator.wait_for(failed).await;
        match health.as_deref() {
            Ok(Health::Failed(why)) => Some(why.to_string()),
            Ok(_) | Err(_) => None,
        }
    };
    // Whoever ends without a reason is closed, which is no failure.
    tokio::select! {
        Some(why) = in_log => format!("the log has failed: {why}"),
        Some(why) = in_coordinator => why,
        else => std::future::pending().await,
    }
}

/// Refuses a folder that has things in it and no log.
fn refuse_strangers(folder: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Folder {
        folder: folder.to_path_buf(),
        error,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut stranger = None;
    for entry in entries {
        let name = entry
            .map_err(failed)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name == LOG_FOLDER {
            return Ok(());
        }
        stranger.get_or_insert(name);
    }
    stranger.map_or(Ok(()), |found| {
        Err(OpenError::Foreign {
            folder: folder.to_path_buf(),
            found,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::endpoint::{Endpoint as _, HalfRequest, Outcome, Resolve};
    use crate::transaction::{Actor, Incarnation, Resolution, TransactionId};
    use mq_core::log::QueueOffset;
    use mq_core::message::Message;
    use mq_core::names::{GroupName, QueueId, TopicName};

    fn half(id: u128) -> HalfRequest {
        HalfRequest {
            id: TransactionId(id),
            group: GroupName::new("order-service").unwrap(),
            message: Message::builder("orders").body("hello").build().unwrap(),
            queue: Some(0),
            sender: Incarnation(7),
            marker: None,
            immunity: None,
        }
    }

    #[tokio::test]
    async fn a_transaction_goes_through_all_layers_and_survives_a_clean_stop() {
        goes_through_all_layers(&Settings::default()).await;
    }

    #[tokio::test]
    async fn on_postgres_too_a_transaction_goes_through_all_layers_and_survives_a_clean_stop() {
        let database = private_postgres::database().await;
        let settings = Settings {
            database: Some(Database::Postgres(private_postgres::url_of(&database))),
            ..Settings::default()
        };
        goes_through_all_layers(&settings).await;
        let folder = tempfile::tempdir().unwrap();
        let error = Embedded::open(folder.path(), settings).await.unwrap_err();
        assert!(error.to_string().contains("belongs to log"), "{error}");
    }

    async fn goes_through_all_layers(settings: &Settings) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let open = Embedded::open(&data, settings.clone()).await.unwrap();
        let receipt = open.coordinator().half(half(1)).await.unwrap();
        let committed = Resolve {
            id: receipt.id,
            group: GroupName::new("order-service").unwrap(),
            position: receipt.position,
            queue_offset: receipt.queue_offset,
            resolution: Resolution::Commit,
            actor: Actor::Producer,
            evidence: String::new(),
            source: "test".into(),
            broker: None,
        };
        let outcome = open.coordinator().resolve(committed.clone()).await;
        assert_eq!(outcome, Ok(Outcome::DecidedNow));
        open.coordinator().half(half(2)).await.unwrap();
        open.close().await.unwrap();

        let open = Embedded::open(&data, settings.clone()).await.unwrap();
        assert_eq!(
            open.coordinator().found(),
            engine::recovery::Found::default()
        );
        let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
        assert_eq!(
            open.broker().log().queue_range(&queue),
            QueueOffset(0)..QueueOffset(1)
        );
        let again = open.coordinator().resolve(committed).await;
        assert_eq!(again, Ok(Outcome::AlreadyTheSame));
        open.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_is_not_ours_or_in_use_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = Embedded::open(folder.path(), Settings::default())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "something was created"
        );

        let data = folder.path().join("data");
        let open = Embedded::open(&data, Settings::default()).await.unwrap();
        let error = Embedded::open(&data, Settings::default())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("data/log"), "{error}");
        assert!(!error.to_string().contains('\n'));
        open.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_log_that_fails_is_noticed_though_nobody_sends_a_half_message() {
        let (log, coordinator) = (
            watch::Sender::new(None),
            watch::Sender::new(Health::Running),
        );
        let (in_log, in_coordinator) = (log.subscribe(), coordinator.subscribe());
        let failure = tokio::spawn(first_failure(in_log, in_coordinator));
        coordinator.send_replace(Health::Waiting("the disk is full".into()));
        tokio::task::yield_now().await;
        assert!(!failure.is_finished(), "waiting is no failure");
        log.send_replace(Some("fsync failed".to_owned()));
        assert!(failure.await.unwrap().contains("fsync failed"));

        let failure = first_failure(
            watch::Sender::new(None).subscribe(),
            coordinator.subscribe(),
        );
        coordinator.send_replace(Health::Failed("taken over".into()));
        assert_eq!(failure.await, "taken over", "also when the log is closed");
    }

    #[test]
    fn every_step_of_the_log_is_in_the_list() {
        for step in mq_core::log::steps::ALL {
            assert!(
                steps::ALL.iter().any(|(name, _)| name == step),
                "{step} is missing"
            );
        }
    }
}
