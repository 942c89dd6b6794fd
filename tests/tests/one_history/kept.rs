//! What a database or a log was at one moment, to be put back later.

use std::fs;
use std::path::Path;

use coordinator::embedded::{DATABASE_FILE, LOG_FOLDER};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tempfile::TempDir;

use crate::crash::runs::{Runs, copy};

/// The coordinator's tables in Postgres; the service's own are in the same database.
const TABLES: [&str; 9] = [
    "name",
    "identity",
    "tx",
    "unpublished",
    "moved",
    "forgotten",
    "audit",
    "seal",
    "owner",
];

/// The coordinator's database.
pub(crate) enum KeptDatabase {
    /// Copies of its files.
    Files(TempDir),
    /// Copies of its tables, in a schema of their own.
    Tables,
}

impl KeptDatabase {
    /// As it is now; a file must not be in use.
    pub(crate) async fn of(data: &Path, postgres: Option<&str>) -> Self {
        let Some(url) = postgres else {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            files(data, folder.path());
            return Self::Files(folder);
        };
        let mut connection = connect(url).await;
        let mut sql = "BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE SCHEMA kept;".to_owned();
        for table in TABLES {
            sql += &format!("CREATE TABLE kept.{table} AS TABLE halfmoon.{table};");
        }
        run(&mut connection, sql + "COMMIT").await;
        Self::Tables
    }

    /// Puts it back; nobody uses the database.
    pub(crate) async fn put_back(&self, data: &Path, postgres: Option<&str>) {
        match (self, postgres) {
            (Self::Files(folder), _) => {
                remove(data);
                files(folder.path(), data);
            }
            (Self::Tables, Some(url)) => {
                let mut connection = connect(url).await;
                // Without the triggers that keep the application from this.
                let mut sql = "BEGIN; SET LOCAL session_replication_role = replica;".to_owned();
                // The last batch of a process that was killed may still be about to commit: it is waited for, or is too late.
                for table in TABLES {
                    sql += &format!("LOCK TABLE halfmoon.{table} IN ACCESS EXCLUSIVE MODE;");
                }
                for table in TABLES {
                    sql += &format!(
                        "DELETE FROM halfmoon.{table}; INSERT INTO halfmoon.{table} SELECT * FROM kept.{table};"
                    );
                }
                run(&mut connection, sql + "COMMIT").await;
            }
            (Self::Tables, None) => unreachable!("tables were copied in Postgres"),
        }
    }
}

/// The folder of the log.
pub(crate) struct KeptLog(TempDir);

impl KeptLog {
    /// As it is now; nobody uses it.
    pub(crate) fn of(runs: &Runs) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        copy(&runs.data().join(LOG_FOLDER), folder.path());
        Self(folder)
    }

    /// Puts it in the place of the log of `runs`.
    pub(crate) fn put_back(&self, runs: &Runs) {
        let log = runs.data().join(LOG_FOLDER);
        fs::remove_dir_all(&log).expect("it is there");
        copy(self.0.path(), &log);
    }
}

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    let options = options.disable_statement_logging();
    options.connect().await.expect("the server is running")
}

async fn run(connection: &mut PgConnection, sql: String) {
    let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    run.expect("the tables are there");
}

/// Copies the database's files.
fn files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(DATABASE_FILE) {
            fs::copy(entry.path(), to.join(name)).expect("copied");
        }
    }
}

/// Removes the database's files.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(DATABASE_FILE)
        {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
}
