//! The store, asked until it answers: outages are waited out, and what became of a commit without an answer is found out.

use std::collections::HashMap;
use std::time::Duration;

use mq_core::log::Position;

use super::status::{Health, Status};
use crate::store::{Batch, CommitError, Fate, Forgotten, Row, StoreError, TxWriter};

/// The engine cannot go on; the status says why.
#[derive(Debug)]
pub struct Failed;

/// Longest pause between two tries of a database that does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A store that is asked again while it is out of reach. The status says so meanwhile.
#[derive(Debug)]
pub struct Retrying {
    store: Box<dyn TxWriter>,
    status: Status,
}

impl Retrying {
    /// Asks `store`, and tells `status` how that goes.
    #[must_use]
    pub const fn new(store: Box<dyn TxWriter>, status: Status) -> Self {
        Self { store, status }
    }

    /// The rows in SQL of the half messages at `positions`, as far as there are any.
    ///
    /// # Errors
    /// [`Failed`] when the database is not this writer's any more, or damaged.
    pub async fn rows(&mut self, positions: &[Position]) -> Result<HashMap<Position, Row>, Failed> {
        if positions.is_empty() {
            return Ok(HashMap::new());
        }
        let mut pause = Pause::new();
        loop {
            match self.store.rows(positions).await {
                Ok(rows) => {
                    return Ok(rows
                        .into_iter()
                        .map(|row| (row.half.position, row))
                        .collect());
                }
                Err(StoreError::Unavailable(why)) => self.wait(&why, &mut pause).await,
                Err(error) => {
                    self.status.fail(&error.to_string());
                    return Err(Failed);
                }
            }
        }
    }

    /// Commits `batch` once, whatever happens to the connection meanwhile. The inner error is a refusal: nothing of the batch
    /// is in SQL, and the reason is the database's.
    ///
    /// # Errors
    /// [`Failed`] when another process took over, or the database became an older one.
    pub async fn commit(&mut self, batch: &Batch) -> Result<Result<(), String>, Failed> {
        let mut pause = Pause::new();
        let mut unknown = false;
        loop {
            let result = if unknown {
                match self.store.find_out(batch.id).await {
                    Ok(Fate::Done) => Ok(()),
                    Ok(Fate::Redo) => {
                        unknown = false;
                        continue;
                    }
                    Err(error) => Err(error),
                }
            } else {
                self.store.commit(batch).await
            };
            match result {
                Ok(()) => {
                    self.status.set(Health::Running);
                    return Ok(Ok(()));
                }
                Err(CommitError::Refused(why)) => return Ok(Err(why)),
                Err(CommitError::Unknown(why)) => {
                    unknown = true;
                    self.wait(&why, &mut pause).await;
                }
                Err(CommitError::Unavailable(why)) => self.wait(&why, &mut pause).await,
                Err(error @ (CommitError::TakenOver | CommitError::Older(_))) => {
                    self.status.fail(&error.to_string());
                    return Err(Failed);
                }
            }
        }
    }

    /// As [`TxWriter::forget`], tried once: whatever comes of it, the same may be asked again later.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn forget(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, CommitError> {
        self.store.forget(far, kept, limit).await
    }

    /// Lets go of the store.
    pub async fn close(&mut self) {
        self.store.close().await;
    }

    async fn wait(&mut self, why: &str, pause: &mut Pause) {
        tracing::warn!(why, "the database does not take writes; trying again");
        self.status.set(Health::Waiting(why.into()));
        tokio::time::sleep(pause.next()).await;
    }
}

/// Pauses between tries: 10 ms doubling to [`LONGEST_PAUSE`].
struct Pause(Duration);

impl Pause {
    const fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST_PAUSE);
        now
    }
}
