//! A database that stories are told over: any of the three, which stands still, refuses and loses its writer when it is told to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mq_core::log::{LogId, Position};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::watch;

use super::rig::Rig;
use crate::store::model::{Fault, Model};
use crate::store::postgres::{self, Postgres};
use crate::store::sqlite::{self, Sqlite};
use crate::store::{
    Batch, CommitError, Fate, Forgotten, Owner, Row, StoreError, TxReader, TxStore, TxWriter,
};

/// How long anything that must happen may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// How long a writer waits for a lock before it says that the database cannot be written.
const LOCK_WAIT: Duration = Duration::from_millis(200);

/// An event with this evidence is refused once [`Stage::refuse_poison`] was called.
pub(super) const POISON: &str = "poison";

/// A store of some kind. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    gate: watch::Sender<Gate>,
    refuses_poison: Mutex<bool>,
    /// How many events stood in each batch that was refused.
    refused: Mutex<Vec<usize>>,
}

#[derive(Debug)]
enum Database {
    InMemory(Model),
    Sqlite { sqlite: Sqlite, _folder: TempDir },
    Postgres(Postgres, Box<PgConnectOptions>),
}

/// What every commit passes.
#[derive(Debug, Default)]
struct Gate {
    /// Writers of an earlier life commit nothing any more: their process is dead.
    life: u64,
    /// How many commits pass; `None` is all.
    passes: Option<usize>,
    /// A commit of this life waits.
    waited_at: bool,
}

impl Stage {
    pub(super) fn in_memory() -> Self {
        Self::over(Database::InMemory(Model::new()))
    }

    pub(super) async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("halfmoon.db");
        let options = sqlite::Options {
            busy_timeout: LOCK_WAIT,
            ..sqlite::Options::default()
        };
        let sqlite = Sqlite::open(path, options).await;
        Self::over(Database::Sqlite {
            sqlite: sqlite.unwrap(),
            _folder: folder,
        })
    }

    pub(super) async fn on_postgres() -> Self {
        let database = private_postgres::database().await;
        let url = private_postgres::url_of(&database);
        let options = postgres::Options {
            lock_wait: LOCK_WAIT,
            ..postgres::Options::default()
        };
        let postgres = Postgres::open(&url, options).await;
        Self::over(Database::Postgres(postgres.unwrap(), Box::new(database)))
    }

    fn over(database: Database) -> Self {
        let shared = Shared {
            database,
            gate: watch::Sender::default(),
            refuses_poison: Mutex::default(),
            refused: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// So many commits pass from now on, then the database stands still.
    pub(super) fn passes(&self, commits: usize) {
        self.shared.gate.send_modify(|gate| {
            gate.passes = Some(commits);
            gate.waited_at = false;
        });
    }

    /// All commits pass from now on.
    pub(super) fn goes_on(&self) {
        self.shared.gate.send_modify(|gate| gate.passes = None);
    }

    /// Waits until the writer wants to commit something and the database stands still.
    pub(super) async fn is_waited_for(&self) {
        let mut gate = self.shared.gate.subscribe();
        let waits = gate.wait_for(|gate| gate.waited_at);
        tokio::time::timeout(WITHIN, waits).await.unwrap().unwrap();
    }

    /// Every writer of now dies where it stands; all commits of later ones pass.
    pub(super) fn loses_its_writer(&self) {
        self.shared.gate.send_modify(|gate| {
            *gate = Gate {
                life: gate.life + 1,
                ..Gate::default()
            };
        });
    }

    /// Makes the next commit fail.
    pub(super) fn fail_next(&self, fault: Fault) {
        match &self.shared.database {
            Database::InMemory(model) => model.fail_next(fault),
            Database::Sqlite { sqlite, .. } => sqlite.fail_next(fault),
            Database::Postgres(postgres, _) => postgres.fail_next(fault),
        }
    }

    /// Forgets a decided row, as retention does.
    pub(super) async fn prune(&self, position: Position) {
        let at = position.0;
        match &self.shared.database {
            Database::InMemory(model) => model.prune(position),
            Database::Sqlite { .. } => {
                let far = "UPDATE forgotten SET decisions = (SELECT last_decision FROM owner)";
                self.execute(far.into()).await;
                let sql = format!("DELETE FROM tx WHERE half_pos = {at}");
                self.execute(sql).await;
            }
            Database::Postgres(..) => {
                let far = "UPDATE halfmoon.forgotten SET decisions = (SELECT last_decision FROM halfmoon.owner)";
                self.execute(far.into()).await;
                let sql = format!("DELETE FROM halfmoon.tx WHERE half_pos = {at}");
                self.execute(sql).await;
            }
        }
    }

    /// Somebody has the row of a half message name a topic that is not there.
    pub(super) async fn spoils(&self, position: Position) {
        let table = match &self.shared.database {
            Database::InMemory(_) => unreachable!("it has no names"),
            Database::Sqlite { .. } => "tx",
            Database::Postgres(..) => "halfmoon.tx",
        };
        let at = position.0;
        let sql = format!("UPDATE {table} SET topic = 9999 WHERE half_pos = {at}");
        self.execute(sql).await;
    }

    /// From now on the database itself refuses whatever has [`POISON`] in it.
    pub(super) async fn refuse_poison(&self) {
        let sql = match &self.shared.database {
            Database::InMemory(_) => {
                *self.shared.refuses_poison.lock().unwrap() = true;
                return;
            }
            Database::Sqlite { .. } => format!(
                "CREATE TRIGGER poisoned BEFORE INSERT ON audit WHEN NEW.evidence = '{POISON}' \
                 BEGIN SELECT RAISE(ABORT, 'poisoned'); END"
            ),
            Database::Postgres(..) => format!(
                "CREATE TRIGGER poisoned BEFORE INSERT ON halfmoon.audit FOR EACH ROW \
                 WHEN (NEW.evidence = '{POISON}') EXECUTE FUNCTION halfmoon.refuse('poisoned')"
            ),
        };
        self.execute(sql).await;
    }

    /// Somebody else holds what every batch needs, until [`Held::let_go`].
    pub(super) async fn is_held(&self) -> Held {
        match &self.shared.database {
            Database::InMemory(model) => {
                for _ in 0..3 {
                    model.fail_next(Fault::Unavailable);
                }
                Held::ForSomeTime
            }
            Database::Sqlite { sqlite, .. } => {
                let options = SqliteConnectOptions::new().filename(sqlite.path());
                let mut other = options.connect().await.unwrap();
                other.execute("BEGIN IMMEDIATE").await.unwrap();
                Held::OnSqlite(other)
            }
            Database::Postgres(_, database) => {
                let mut other = database.connect().await.unwrap();
                let row = "BEGIN; UPDATE halfmoon.owner SET seq = seq";
                other.execute(sqlx::raw_sql(row)).await.unwrap();
                Held::OnPostgres(other)
            }
        }
    }

    /// How many events stood in each batch that was refused.
    pub(super) fn refused(&self) -> Vec<usize> {
        self.shared.refused.lock().unwrap().clone()
    }

    /// Runs a statement as somebody else does.
    async fn execute(&self, sql: String) {
        match &self.shared.database {
            Database::InMemory(_) => unreachable!("it speaks no SQL"),
            Database::Sqlite { sqlite, .. } => {
                let options = SqliteConnectOptions::new().filename(sqlite.path());
                let mut other = options.connect().await.unwrap();
                other.execute(AssertSqlSafe(sql)).await.unwrap();
            }
            Database::Postgres(_, database) => {
                let mut other = database.connect().await.unwrap();
                other.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        }
    }

    fn store(&self) -> &dyn TxStore {
        match &self.shared.database {
            Database::InMemory(model) => model,
            Database::Sqlite { sqlite, .. } => sqlite,
            Database::Postgres(postgres, _) => postgres,
        }
    }
}

/// A lock that somebody else holds.
pub(super) enum Held {
    ForSomeTime,
    OnSqlite(SqliteConnection),
    OnPostgres(PgConnection),
}

impl Held {
    pub(super) async fn let_go(self) {
        match self {
            Self::ForSomeTime => {}
            Self::OnSqlite(mut other) => drop(other.execute("ROLLBACK").await.unwrap()),
            Self::OnPostgres(mut other) => drop(other.execute("ROLLBACK").await.unwrap()),
        }
    }
}

#[async_trait]
impl TxStore for Stage {
    async fn take_over(&self, log: LogId) -> Result<(Box<dyn TxWriter>, Owner), StoreError> {
        let (writer, owner) = self.store().take_over(log).await?;
        let writer = Writer {
            stage: self.clone(),
            life: self.shared.gate.borrow().life,
            writer,
        };
        Ok((Box::new(writer), owner))
    }

    fn reader(&self) -> Arc<dyn TxReader> {
        self.store().reader()
    }

    async fn close(&self) {
        self.store().close().await;
    }
}

#[derive(Debug)]
struct Writer {
    stage: Stage,
    life: u64,
    writer: Box<dyn TxWriter>,
}

impl Stage {
    /// Waits until a commit of this life may pass; for ever if that is over.
    async fn pass(&self, life: u64) {
        let shared = &self.shared;
        let mut gate = shared.gate.subscribe();
        loop {
            let mut passes = false;
            shared.gate.send_if_modified(|gate| {
                if gate.life != life {
                    return false;
                }
                match &mut gate.passes {
                    None => passes = true,
                    Some(0) => return !std::mem::replace(&mut gate.waited_at, true),
                    Some(left) => {
                        *left -= 1;
                        passes = true;
                    }
                }
                false
            });
            if passes {
                return;
            }
            gate.changed().await.unwrap();
        }
    }

    /// What the model cannot refuse by itself.
    fn refuses(&self, batch: &Batch) -> bool {
        let refuses = self.shared.refuses_poison.lock();
        let poisoned = batch.events.iter().any(|event| event.evidence == POISON);
        *refuses.unwrap_or_else(PoisonError::into_inner) && poisoned
    }
}

#[async_trait]
impl TxWriter for Writer {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.stage.pass(self.life).await;
        let outcome = if self.stage.refuses(batch) {
            Err(CommitError::Refused("poisoned".into()))
        } else {
            self.writer.commit(batch).await
        };
        if matches!(outcome, Err(CommitError::Refused(_))) {
            let mut refused = self.stage.shared.refused.lock().unwrap();
            refused.push(batch.events.len());
        }
        outcome
    }

    async fn find_out(&mut self, batch: u128) -> Result<Fate, CommitError> {
        self.writer.find_out(batch).await
    }

    async fn forget(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, CommitError> {
        self.writer.forget(far, kept, limit).await
    }

    async fn rows(&mut self, positions: &[Position]) -> Result<Vec<Row>, StoreError> {
        self.writer.rows(positions).await
    }

    async fn close(&mut self) {
        self.writer.close().await;
    }
}

impl Rig<Stage> {
    /// The process is killed, whatever its writer is doing, and starts again over the same log and database.
    pub(super) async fn killed(self) -> Self {
        self.store.loses_its_writer();
        self.crash().await.unwrap()
    }

    /// Waits until it is so.
    pub(super) async fn until(&self, what: &str, is_so: impl AsyncFn(&Self) -> bool) {
        let waits = async {
            while !is_so(self).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(WITHIN, waits).await;
        assert!(in_time.is_ok(), "it never happens: {what}");
    }

    /// The owner row.
    pub(super) async fn owner(&self) -> Owner {
        self.store.reader().owner().await.unwrap().unwrap()
    }
}
