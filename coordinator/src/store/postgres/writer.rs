//! The one writer: takes the store over, commits batches, finds out what became of them.

use async_trait::async_trait;
use mq_core::log::{LogId, Position};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use super::encode::{self, int};
use super::session::{Place, is_refusal, read_error, text};
use super::{Postgres, names, rows, statements};
use crate::store::model::Fault;
use crate::store::names::Names;
use crate::store::{Batch, CommitError, Fate, Forgotten, Owner, Row, StoreError, TxWriter, shape};

/// The writer's connection and what it knows of the database.
#[derive(Debug)]
pub(super) struct Writer {
    store: Postgres,
    /// `None` when it was lost; the next use connects again.
    connection: Option<PgConnection>,
    /// The owner row after our last batch, with the number of our last connection: no batch of an older one counts.
    owner: Owner,
    names: Names,
    /// A commit had an unknown outcome and nobody has found out yet.
    unsure: bool,
}

/// Why a batch is not known to be written.
#[derive(Debug)]
enum Failed {
    /// The owner row is not ours, or not as it was: nothing was written.
    NotOwner,
    /// Anything else; it may be written all the same.
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Writer {
    /// Connects and raises the epoch.
    pub(super) async fn take_over(
        store: Postgres,
        log: LogId,
    ) -> Result<(Self, Owner), StoreError> {
        let place = store.shared.place.clone();
        let failed = |error: sqlx::Error| read_error(&error);
        let mut connection = place.connect().await.map_err(failed)?;
        let owner = take_over(&place, &mut connection, log).await?;
        let names = place.in_time(load_names(&place, &mut connection)).await;
        let writer = Self {
            store,
            connection: Some(connection),
            owner,
            names: names.map_err(failed)?,
            unsure: false,
        };
        Ok((writer, owner))
    }

    /// Connects if there is no connection, and makes the new one the only one whose batches count. Returns the owner row as
    /// it was found then, `None` if there was a connection.
    async fn link(&mut self) -> Result<Option<Owner>, CommitError> {
        if self.connection.is_some() {
            return Ok(None);
        }
        let place = self.store.shared.place.clone();
        let unavailable = |error: sqlx::Error| CommitError::Unavailable(text(&error));
        let mut connection = place.connect().await.map_err(unavailable)?;
        let begun = place.in_time(begin(&place, &mut connection)).await;
        begun.map_err(unavailable)?;
        // A refusal drops the connection, which rolls back.
        let locked = sqlx::query(statements::OWNER_LOCKED);
        let locked = one(&place, &mut connection, locked).await;
        let found = locked.map_err(unavailable)?.ok_or(CommitError::TakenOver)?;
        let found = rows::owner(&found);
        let found = found.map_err(|error| CommitError::Unavailable(error.to_string()))?;
        found.not_older(self.owner.epoch, self.owner.seq)?;
        if found.epoch != self.owner.epoch {
            return Err(CommitError::TakenOver);
        }
        let owner = found.linked();
        let raised = raise(&place, &mut connection, &owner).await;
        raised.map_err(unavailable)?;
        let names = place.in_time(load_names(&place, &mut connection)).await;
        self.names = names.map_err(unavailable)?;
        self.connection = Some(connection);
        self.owner.link = owner.link;
        Ok(Some(owner))
    }

    /// Closes the connection.
    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            // The next use connects again and looks at the owner row: an error here decides nothing.
            let place = &self.store.shared.place;
            let _ = place.in_time(connection.close()).await;
        }
    }

    async fn write(&mut self, batch: &Batch, after: &Owner) -> Result<(), Failed> {
        let place = self.store.shared.place.clone();
        let Some(connection) = &mut self.connection else {
            return Err(Failed::Sql(sqlx::Error::WorkerCrashed));
        };
        let written = place.in_time(async {
            if place.pooled {
                begin(&place, connection).await?;
            }
            names::resolve(&mut self.names, batch, connection).await?;
            let owners = (&self.owner, after);
            let arguments = encode::batch(batch, owners, &self.names);
            let owned = run(connection, arguments, !place.pooled).await?;
            if place.pooled {
                connection.execute("COMMIT").await?;
            }
            Ok(owned)
        });
        if written.await? {
            Ok(())
        } else {
            Err(Failed::NotOwner)
        }
    }

    /// After a failed write: looks what became of it, on a new connection.
    async fn settle(&mut self, batch: &Batch, failed: &Failed) -> Result<(), CommitError> {
        let why = match failed {
            Failed::NotOwner => "the owner row has changed".to_owned(),
            Failed::Sql(error) => text(error),
        };
        self.disconnect().await;
        let owner = match self.link().await {
            Ok(Some(owner)) => owner,
            Err(error @ (CommitError::TakenOver | CommitError::Older(_))) => return Err(error),
            Ok(None) | Err(_) => {
                self.unsure = true;
                return Err(CommitError::Unknown(why));
            }
        };
        match owner.fate_of(batch.id, self.owner.epoch, self.owner.seq)? {
            Fate::Done => {
                self.owner = owner;
                Ok(())
            }
            Fate::Redo if matches!(failed, Failed::Sql(error) if is_refusal(error)) => {
                Err(shape::refused(why))
            }
            Fate::Redo => Err(CommitError::Unavailable(why)),
        }
    }

    /// Forgets the connection as if it had broken.
    async fn lose(&mut self, when: &str) -> CommitError {
        self.disconnect().await;
        self.unsure = true;
        CommitError::Unknown(format!("the connection was lost {when} the commit"))
    }

    async fn commit_now(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let last_decision = shape::check(batch, &self.owner)?;
        // Nothing was sent yet: an error here leaves nothing unknown. What the row says is compared by the batch itself.
        self.link().await?;
        let after = self.owner.after(batch, last_decision);
        match self.write(batch, &after).await {
            Ok(()) => {
                self.names.keep();
                self.owner = after;
                Ok(())
            }
            Err(failed) => self.settle(batch, &failed).await,
        }
    }
}

#[async_trait]
impl TxWriter for Writer {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if self.unsure {
            return Err(CommitError::Unknown(
                "an earlier commit has an unknown outcome; find out first".into(),
            ));
        }
        match self.store.next_fault() {
            None => self.commit_now(batch).await,
            Some(Fault::UnknownButDone) => {
                let before = self.owner;
                self.commit_now(batch).await?;
                self.owner = before;
                Err(self.lose("after").await)
            }
            Some(Fault::UnknownNotDone) => Err(self.lose("before").await),
            Some(Fault::Unavailable) => Err(CommitError::Unavailable("the disk is full".into())),
            Some(Fault::Refused) => Err(CommitError::Refused("a constraint failed".into())),
        }
    }

    async fn find_out(&mut self, batch: u128) -> Result<Fate, CommitError> {
        // What is on its way on an older connection must never count, so there is a new one.
        self.disconnect().await;
        let owner = self.link().await?.ok_or(CommitError::TakenOver)?;
        let fate = owner.fate_of(batch, self.owner.epoch, self.owner.seq)?;
        self.owner = owner;
        self.unsure = false;
        Ok(fate)
    }

    async fn forget(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, CommitError> {
        self.link().await?;
        let place = self.store.shared.place.clone();
        let Some(connection) = &mut self.connection else {
            return Err(CommitError::Unavailable("there is no connection".into()));
        };
        let ours = [
            int(self.owner.epoch),
            int(self.owner.link),
            int(self.owner.seq),
        ];
        let bind = |sql: &'static str, two: [i64; 2]| {
            let bound = ours.into_iter().chain(two);
            bound.fold(sqlx::query(sql), |query, number| query.bind(number))
        };
        let said = bind(statements::FORGOTTEN, [int(far.event), int(far.decisions)]);
        let kept = int(kept.0.min(shape::MOST));
        let removed = bind(statements::FORGET, [kept, i64::from(limit)]);
        let forgotten = place.in_time(async {
            in_transaction(&place, connection, said).await?;
            let rows = in_transaction(&place, connection, removed).await?;
            rows.first().map(|row| row.try_get::<i64, _>(0)).transpose()
        });
        match forgotten.await {
            Ok(Some(count)) => Ok(u64::try_from(count).unwrap_or_default()),
            // The next batch finds out whose the store is.
            Ok(None) => Err(CommitError::Unavailable("the owner row has changed".into())),
            Err(error) => {
                self.disconnect().await;
                Err(CommitError::Unavailable(text(&error)))
            }
        }
    }

    async fn rows(&mut self, positions: &[Position]) -> Result<Vec<Row>, StoreError> {
        let linked = self.link().await;
        linked.map_err(shape::of_reading)?;
        let place = self.store.shared.place.clone();
        let Some(connection) = &mut self.connection else {
            return Err(StoreError::Unavailable("there is no connection".into()));
        };
        let positions: Vec<i64> = positions.iter().map(|position| int(position.0)).collect();
        let select = sqlx::query(rows::select_rows!("WHERE t.half_pos = ANY($1)"));
        let reading = in_transaction(&place, connection, select.bind(positions));
        match place.in_time(reading).await {
            Ok(found) => found.iter().map(rows::transaction).collect(),
            Err(error) => {
                self.disconnect().await;
                Err(read_error(&error))
            }
        }
    }

    async fn close(&mut self) {
        self.disconnect().await;
    }
}

/// Raises the epoch of the owner row, which is made if the store is new, and makes this connection the only one whose
/// batches count.
async fn take_over(
    place: &Place,
    connection: &mut PgConnection,
    log: LogId,
) -> Result<Owner, StoreError> {
    let failed = |error: sqlx::Error| read_error(&error);
    begin(place, connection).await.map_err(failed)?;
    // A refusal drops the connection, which rolls back.
    let pair = sqlx::query(statements::PAIR).bind(Uuid::from_u128(log.0));
    one(place, connection, pair).await.map_err(failed)?;
    let locked = sqlx::query(statements::OWNER_LOCKED);
    let locked = one(place, connection, locked).await.map_err(failed)?;
    let locked = locked.ok_or_else(|| StoreError::Damaged("the owner row is gone".into()))?;
    let found = rows::owner(&locked)?.for_log(log)?;
    let owner = found.taken_over().linked();
    raise(place, connection, &owner).await.map_err(failed)?;
    Ok(owner)
}

/// Ends the transaction that has locked the owner row with the epoch and link of `owner`. What an older connection sent and
/// is still on its way finds another link and does nothing; what was being committed, the lock has waited for.
async fn raise(
    place: &Place,
    connection: &mut PgConnection,
    owner: &Owner,
) -> Result<(), sqlx::Error> {
    let numbers = [owner.epoch, owner.link, owner.fingerprint];
    let raise = numbers
        .into_iter()
        .fold(sqlx::query(statements::RAISE), |query, number| {
            query.bind(int(number))
        });
    one(place, connection, raise).await?;
    place.in_time(connection.execute("COMMIT")).await?;
    Ok(())
}

/// One statement of a transaction, and its row, if it gives one.
async fn one(
    place: &Place,
    connection: &mut PgConnection,
    query: super::session::Query,
) -> Result<Option<PgRow>, sqlx::Error> {
    let query = query.persistent(false);
    place.in_time(query.fetch_optional(connection)).await
}

async fn begin(place: &Place, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let begin = sqlx::raw_sql(AssertSqlSafe(place.begin()));
    begin.execute(connection).await?;
    Ok(())
}

/// One statement that stands for itself: in a transaction only where a pooler needs one to stay with a session.
async fn in_transaction(
    place: &Place,
    connection: &mut PgConnection,
    query: super::session::Query,
) -> Result<Vec<PgRow>, sqlx::Error> {
    if !place.pooled {
        return query.fetch_all(connection).await;
    }
    begin(place, connection).await?;
    let rows = query.persistent(false).fetch_all(&mut *connection).await?;
    connection.execute("COMMIT").await?;
    Ok(rows)
}

async fn load_names(place: &Place, connection: &mut PgConnection) -> Result<Names, sqlx::Error> {
    if place.pooled {
        begin(place, connection).await?;
    }
    let names = names::load(connection).await?;
    if place.pooled {
        connection.execute("COMMIT").await?;
    }
    Ok(names)
}

/// Sends a batch; false when the owner row is not ours.
async fn run(
    connection: &mut PgConnection,
    arguments: PgArguments,
    keep_plan: bool,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_with(statements::BATCH, arguments).persistent(keep_plan);
    query.fetch_one(connection).await?.try_get(0)
}
