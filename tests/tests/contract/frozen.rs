//! A server that is stopped in the middle of a batch, and what others may do with its database meanwhile.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator::store::{StoreError, TxStore, postgres, sqlite};
use mq_core::clock::{Clock, SystemClock};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};
use tests::process::pause;

use super::member::{Producer, Says};
use super::stories::{Stage, WITHIN};

/// How long a writer that wants the database waits for it.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// How long that may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A producer that commits one half message after the other until it is told to end.
struct Load {
    more: SyncSender<()>,
    thread: JoinHandle<Result<Vec<String>>>,
}

impl Load {
    fn begin(mut producer: Producer, name: &'static str) -> Self {
        let (more, end) = sync_channel::<()>(0);
        let thread = thread::spawn(move || commits(&mut producer, name, &end));
        Self { more, thread }
    }

    /// What was acknowledged.
    fn end(self) -> Result<Vec<String>> {
        drop(self.more);
        self.thread.join().expect("it does not panic")
    }
}

fn commits(producer: &mut Producer, name: &str, end: &Receiver<()>) -> Result<Vec<String>> {
    use std::sync::mpsc::TryRecvError;
    let mut acknowledged = Vec::new();
    while end.try_recv() == Err(TryRecvError::Empty) {
        let unique = format!("{name} {:06}", acknowledged.len());
        // A server that was killed answers nothing any more.
        let Ok(half) = producer.half(&unique) else {
            break;
        };
        let Ok((code, why)) = producer.says(&half, Says::Commit) else {
            break;
        };
        ensure!(code == 0, "{unique}: {why}");
        acknowledged.push(unique);
    }
    Ok(acknowledged)
}

impl Stage {
    /// Whether somebody holds what a batch needs.
    fn is_locked(&self) -> Result<bool> {
        self.runtime.block_on(async {
            match &self.postgres {
                None => {
                    let data = self.server.data().context("it is ours")?;
                    let options = SqliteConnectOptions::new()
                        .filename(data.join("halfmoon.db"))
                        .busy_timeout(Duration::ZERO);
                    let mut other = options.connect().await?;
                    Ok(other.execute("BEGIN IMMEDIATE").await.is_err())
                }
                Some(url) => {
                    let mut other = url.parse::<PgConnectOptions>()?.connect().await?;
                    let row = "SELECT 1 FROM halfmoon.owner FOR UPDATE NOWAIT";
                    Ok(other.execute(row).await.is_err())
                }
            }
        })
    }

    /// Stops the server. On SQLite it holds the lock of the file then; Postgres ends every batch by itself.
    fn freezes_in_a_batch(&self) -> Result<()> {
        let clock = SystemClock::new();
        let start = clock.monotonic();
        loop {
            self.server.freeze()?;
            if self.postgres.is_some() || self.is_locked()? {
                return Ok(());
            }
            self.server.thaw()?;
            let late = clock.monotonic().saturating_sub(start) > WITHIN;
            ensure!(!late, "it is never in a batch");
            pause(Duration::from_millis(3));
        }
    }

    /// Another process becomes the owner.
    fn taken_over(&self) -> Result<(), StoreError> {
        let reader = self.reader().expect("it can be read");
        self.runtime.block_on(async {
            let owner = reader.owner().await?.expect("the server has taken it over");
            let store: Box<dyn TxStore> = match &self.postgres {
                None => {
                    let data = self.server.data().expect("it is ours");
                    let options = sqlite::Options {
                        busy_timeout: LOCK_WAIT,
                        ..sqlite::Options::default()
                    };
                    Box::new(sqlite::Sqlite::open(data.join("halfmoon.db"), options).await?)
                }
                Some(url) => {
                    let options = postgres::Options {
                        lock_wait: LOCK_WAIT,
                        ..postgres::Options::default()
                    };
                    Box::new(postgres::Postgres::open(url, options).await?)
                }
            };
            let (mut writer, after) = store.take_over(owner.log).await?;
            assert_eq!(after.epoch, owner.epoch + 1);
            writer.close().await;
            store.close().await;
            Ok(())
        })
    }
}

pub(super) fn story_27_a_frozen_owner_holds_nobody_up_for_ever_and_loses_nothing(
    mut stage: Stage,
) -> Result<()> {
    // Frozen and let go: everybody is told that the database cannot be written now, and it goes on where it was.
    let load = Load::begin(stage.stranger()?, "first");
    stage.freezes_in_a_batch()?;
    if stage.postgres.is_none() {
        let clock = SystemClock::new();
        let start = clock.monotonic();
        let refused = stage.taken_over();
        let waited = clock.monotonic().saturating_sub(start);
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        assert!((LOCK_WAIT..SOON).contains(&waited), "{waited:?}");
    }
    stage.server.thaw()?;
    let mut committed = load.end()?;
    ensure!(!committed.is_empty(), "nothing was acknowledged");
    assert_eq!(stage.delivered(committed.len())?, committed);

    // Frozen and killed: the system lets its lock go.
    let load = Load::begin(stage.stranger()?, "second");
    stage.freezes_in_a_batch()?;
    stage.server.kill()?;
    stage.server = stage.server.again()?;
    let acknowledged = load.end()?;
    let delivered = stage.delivered(committed.len() + acknowledged.len())?;
    for name in committed.iter().chain(&acknowledged) {
        let times = delivered.iter().filter(|one| *one == name).count();
        assert_eq!(times, 1, "{name}");
    }
    committed = delivered;

    // Frozen and taken over: it stops as soon as it goes on, and what it says then is written nowhere.
    let mut late = stage.stranger()?;
    let half = late.half("late")?;
    stage.server.freeze()?;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    while stage.is_locked()? {
        // On SQLite it stays locked for as long as the server is frozen there.
        ensure!(clock.monotonic().saturating_sub(start) < WITHIN, "locked");
        if stage.postgres.is_none() {
            stage.server.thaw()?;
            pause(Duration::from_millis(3));
            stage.server.freeze()?;
        }
    }
    stage.taken_over()?;
    let owner = stage.reader()?;
    let before = stage.runtime.block_on(owner.owner())?;
    stage.server.thaw()?;
    let said = late.says(&half, Says::Commit);
    assert!(!matches!(said, Ok((0, _))), "{said:?}");
    let status = stage.server.ended()?;
    assert!(!status.success(), "{}", stage.server.told());
    let told = stage.server.told();
    assert!(told.contains("taken over"), "{told}");
    assert_eq!(stage.runtime.block_on(owner.owner())?, before);
    stage.server = stage.server.again()?;
    assert_eq!(stage.delivered(committed.len())?, committed);
    Ok(())
}
