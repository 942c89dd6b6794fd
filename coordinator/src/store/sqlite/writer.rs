//! The one writer: takes the store over, commits batches, finds out what became of them.

use async_trait::async_trait;
use mq_core::log::{LogId, Position};
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection};

use super::encode::{self, Call, Json};
use super::statements::{self, CHUNKS};
use super::{
    CONSTRAINT, Sqlite, names, primary_code, read_error, rows, text, uniform, writer_options,
};
use crate::audit::Event;
use crate::store::model::Fault;
use crate::store::names::Names;
use crate::store::{Batch, CommitError, Fate, Forgotten, Owner, Row, StoreError, TxWriter, shape};

/// Up to so many rows a whole batch goes to SQLite in one call.
const ONE_CALL: usize = 64;

/// SQLite's codes for a batch that it will never take: ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE.
const REFUSALS: [u32; 5] = [1, 18, CONSTRAINT, 20, 25];

/// The writer's connection and what it knows of the database.
#[derive(Debug)]
pub(super) struct Writer {
    store: Sqlite,
    /// `None` when it was lost; the next use connects again.
    connection: Option<SqliteConnection>,
    /// The owner row after our last batch.
    owner: Owner,
    names: Names,
    /// A commit had an unknown outcome and nobody has found out yet.
    unsure: bool,
}

impl Writer {
    /// Connects and raises the epoch.
    pub(super) async fn take_over(store: Sqlite, log: LogId) -> Result<(Self, Owner), StoreError> {
        let mut connection = connect(&store).await.map_err(|error| read_error(&error))?;
        let owner = take_over(&mut connection, log).await?;
        let names = names::load(&mut connection)
            .await
            .map_err(|error| read_error(&error))?;
        Ok((
            Self {
                store,
                connection: Some(connection),
                owner,
                names,
                unsure: false,
            },
            owner,
        ))
    }

    /// The connection, made again if it was lost; what the caches say is then read again, too.
    async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        if self.connection.is_none() {
            let mut connection = connect(&self.store).await?;
            self.names = names::load(&mut connection).await?;
            self.connection = Some(connection);
        }
        // It was set above if it was not there.
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Closes the connection, and with it whatever transaction is open.
    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            // The next use connects again and looks at the owner row: an error here decides nothing.
            let _ = connection.close().await;
        }
    }

    async fn write(&mut self, batch: &Batch, after: &Owner) -> Result<(), sqlx::Error> {
        self.connection().await?;
        let connection = self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        names::resolve(&mut self.names, batch, connection).await?;
        let small =
            batch.new.len() + batch.changes.len() <= ONE_CALL && batch.events.len() <= 2 * ONE_CALL;
        if small {
            run(connection, one_call(batch, &self.owner, after, &self.names)).await
        } else {
            write_in_chunks(connection, batch, (&self.owner, after), &self.names).await
        }
    }

    /// After a failed write: looks what became of it, on a new connection.
    async fn settle(&mut self, batch: &Batch, error: &sqlx::Error) -> Result<(), CommitError> {
        self.disconnect().await;
        let Ok(owner) = self.read_owner().await else {
            self.unsure = true;
            return Err(CommitError::Unknown(text(error)));
        };
        match owner.fate_of(batch.id, self.owner.epoch, self.owner.seq)? {
            Fate::Done => {
                self.owner = owner;
                Ok(())
            }
            Fate::Redo if primary_code(error).is_some_and(|code| REFUSALS.contains(&code)) => {
                let why = text(error);
                let missing = "a row that it changes is missing, or decided already";
                Err(shape::refused(if why == statements::GUARD_FAILED {
                    missing.to_owned()
                } else {
                    why
                }))
            }
            Fate::Redo => Err(CommitError::Unavailable(text(error))),
        }
    }

    async fn read_owner(&mut self) -> Result<Owner, StoreError> {
        let connection = self
            .connection()
            .await
            .map_err(|error| read_error(&error))?;
        rows::owner(connection)
            .await?
            .ok_or_else(|| StoreError::Damaged("the owner row is gone".into()))
    }

    async fn forget_now(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, sqlx::Error> {
        let (epoch, seq) = (self.owner.epoch, self.owner.seq);
        let connection = self.connection().await?;
        let mut call = Call::default();
        call.say(statements::BEGIN_AS_OWNER);
        call.add(encode::int(epoch));
        call.add(encode::int(seq));
        call.say(statements::FORGOTTEN);
        call.add(encode::int(far.event));
        call.add(encode::int(far.decisions));
        run(connection, call).await?;
        let mut count = 0;
        for sql in statements::FORGET {
            let forget = sqlx::query(sql).bind(encode::int(kept.0.min(shape::MOST)));
            let forget = forget.bind(i64::from(limit));
            count += forget.execute(&mut *connection).await?.rows_affected();
        }
        let told = connection.execute(statements::FORGET_TOLD).await?;
        connection.execute("COMMIT").await?;
        Ok(count + told.rows_affected())
    }

    /// Forgets the connection as if it had broken.
    async fn lose(&mut self, when: &str) -> CommitError {
        self.disconnect().await;
        self.unsure = true;
        CommitError::Unknown(format!("the connection was lost {when} the commit"))
    }

    async fn commit_now(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let last_decision = shape::check(batch, &self.owner)?;
        let after = self.owner.after(batch, last_decision);
        match self.write(batch, &after).await {
            Ok(()) => {
                self.names.keep();
                self.owner = after;
                Ok(())
            }
            Err(error) => self.settle(batch, &error).await,
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
        let owner = self
            .read_owner()
            .await
            .map_err(|error| CommitError::Unavailable(error.to_string()))?;
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
        let forgotten = self.forget_now(far, kept, limit).await;
        match forgotten {
            Ok(count) => Ok(count),
            Err(error) => {
                // Whatever is open is rolled back with the connection; the next batch looks whose the store is.
                self.disconnect().await;
                Err(CommitError::Unavailable(text(&error)))
            }
        }
    }

    async fn rows(&mut self, positions: &[Position]) -> Result<Vec<Row>, StoreError> {
        if self.connection.is_none() {
            // The file may be another by now.
            let found = self.read_owner().await?;
            let fits = found.not_older(self.owner.epoch, self.owner.seq);
            fits.map_err(shape::of_reading)?;
        }
        let connection = self
            .connection()
            .await
            .map_err(|error| read_error(&error))?;
        rows::at(connection, positions).await
    }

    async fn close(&mut self) {
        self.disconnect().await;
    }
}

async fn connect(store: &Sqlite) -> Result<SqliteConnection, sqlx::Error> {
    writer_options(&store.shared.path, store.shared.options)
        .connect()
        .await
}

/// Raises the epoch of the owner row, which is made if the store is new.
async fn take_over(connection: &mut SqliteConnection, log: LogId) -> Result<Owner, StoreError> {
    let failed = |error: sqlx::Error| read_error(&error);
    connection
        .execute("BEGIN IMMEDIATE")
        .await
        .map_err(failed)?;
    // A refusal drops the connection, which rolls back.
    let owner = match rows::owner(connection).await? {
        Some(owner) => owner.for_log(log)?,
        None => {
            let none = Owner::of(log);
            let insert = sqlx::query(
                "INSERT INTO owner (one, log, epoch, seq, batch, watermark, published, last_decision, next_event, head, fingerprint) \
                 VALUES (1, ?, 0, 0, zeroblob(16), 0, 0, 0, 1, zeroblob(32), 0)",
            );
            insert
                .bind(&log.0.to_be_bytes()[..])
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
            none
        }
    };
    let owner = owner.taken_over();
    let raise = sqlx::query("UPDATE owner SET epoch = ?, fingerprint = ? WHERE one = 1")
        .bind(encode::int(owner.epoch))
        .bind(encode::int(owner.fingerprint));
    raise.execute(&mut *connection).await.map_err(failed)?;
    connection.execute("COMMIT").await.map_err(failed)?;
    Ok(owner)
}

async fn run(connection: &mut SqliteConnection, call: Call) -> Result<(), sqlx::Error> {
    let Call { sql, arguments } = call;
    connection
        .execute(sqlx::query_with(AssertSqlSafe(sql), arguments))
        .await?;
    Ok(())
}

/// The whole batch.
fn one_call(batch: &Batch, owner: &Owner, after: &Owner, names: &Names) -> Call {
    let mut call = Call::default();
    call.say(statements::BEGIN);
    encode::begin(&mut call, owner, after);
    add_names(&mut call, names);
    add_json(
        &mut call,
        statements::ROWS,
        encode::row_json(batch.new.iter(), names),
    );
    add_changes(&mut call, batch);
    add_json(
        &mut call,
        statements::EVENTS,
        encode::event_json(&batch.events, names),
    );
    call.say(statements::SEAL_AND_COMMIT);
    encode::seal(&mut call, &batch.seal);
    call
}

/// The batch in several calls, most of its rows bound as they are.
async fn write_in_chunks(
    connection: &mut SqliteConnection,
    batch: &Batch,
    (owner, after): (&Owner, &Owner),
    names: &Names,
) -> Result<(), sqlx::Error> {
    let mut call = Call::default();
    call.say(statements::BEGIN);
    encode::begin(&mut call, owner, after);
    add_names(&mut call, names);
    run(connection, call).await?;

    let (plain, mut rest): (Vec<_>, Vec<_>) =
        batch.new.iter().partition(|row| encode::is_plain(row));
    let (rows, events) = insert_chunks(connection, (&plain, &batch.events), names).await?;
    rest.extend_from_slice(rows);
    let mut call = Call::default();
    add_json(
        &mut call,
        statements::ROWS,
        encode::row_json(rest.into_iter(), names),
    );
    add_changes(&mut call, batch);
    add_json(
        &mut call,
        statements::EVENTS,
        encode::event_json(events, names),
    );
    call.say(statements::SEAL_AND_COMMIT);
    encode::seal(&mut call, &batch.seal);
    run(connection, call).await
}

/// Inserts as many rows and events as fill chunks; returns what is left over.
async fn insert_chunks<'rows, 'events>(
    connection: &mut SqliteConnection,
    (mut rows, mut events): (&'rows [&'rows Row], &'events [Event]),
    names: &Names,
) -> Result<(&'rows [&'rows Row], &'events [Event]), sqlx::Error> {
    for (at, size) in CHUNKS.into_iter().enumerate() {
        while let Some((chunk, behind)) = rows.split_at_checked(size) {
            rows = behind;
            // Mostly there is an event for each row.
            if let Some((told, behind)) = events.split_at_checked(size)
                && let Some(arguments) = uniform::both((chunk, told), names)
            {
                events = behind;
                insert(connection, uniform::BOTH_CHUNKS.get(at), arguments).await?;
                continue;
            }
            let (sql, arguments) = match uniform::rows(chunk, names) {
                Some(arguments) => (&uniform::ROW_CHUNKS, arguments),
                None => (&statements::ROW_CHUNKS, encode::rows(chunk, names)),
            };
            insert(connection, sql.get(at), arguments).await?;
        }
        while let Some((chunk, behind)) = events.split_at_checked(size) {
            events = behind;
            let (sql, arguments) = match uniform::events(chunk, names) {
                Some(arguments) => (&uniform::EVENT_CHUNKS, arguments),
                None => (&statements::EVENT_CHUNKS, encode::events(chunk, names)),
            };
            insert(connection, sql.get(at), arguments).await?;
        }
    }
    Ok((rows, events))
}

async fn insert(
    connection: &mut SqliteConnection,
    sql: Option<&'static String>,
    arguments: SqliteArguments,
) -> Result<(), sqlx::Error> {
    let sql = sql.expect("there is a statement for each size of chunks");
    connection
        .execute(sqlx::query_with(sql.as_str(), arguments))
        .await?;
    Ok(())
}

fn add_names(call: &mut Call, names: &Names) {
    let (texts, identities) = encode::names_json(names);
    add_json(call, statements::NAMES, texts);
    add_json(call, statements::IDENTITIES, identities);
}

fn add_changes(call: &mut Call, batch: &Batch) {
    let changes = encode::changes(batch);
    add_guarded(call, statements::MOVES, changes.moves);
    add_guarded(call, statements::COUNTS, changes.counts);
    add_json(call, statements::UNPUBLISHED, changes.unpublished);
    add_guarded(call, statements::PUBLISHED, changes.published);
    add_json(call, statements::MOVED, changes.moved);
}

/// Adds a statement with its rows, if there are any.
fn add_json(call: &mut Call, sql: &str, json: Json) {
    if !json.is_empty() {
        call.say(sql);
        call.add(json.into_text());
    }
}

/// Adds a statement that must change exactly as many rows as it is given.
fn add_guarded(call: &mut Call, sql: &str, json: Json) {
    let rows = json.rows;
    if rows > 0 {
        add_json(call, sql, json);
        call.say(statements::GUARD);
        call.add(rows);
    }
}
