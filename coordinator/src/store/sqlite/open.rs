//! Opening a database file: whose it is, how old its tables are, and bringing them up to date.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions, Connection, Executor, Row, SqliteConnection};

use super::{
    CORRUPT, NOT_A_DATABASE, Options, READ_ONLY, connect_options, primary_code, text,
    writer_options,
};
use crate::marker::sqlite::COORDINATORS as APPLICATION_ID;
use crate::store::StoreError;

/// The oldest SQLite whose WAL is safe with several connections.
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

/// The changes to the tables, oldest first. `PRAGMA user_version` says how many a database has.
const MIGRATIONS: [(&str, &str); 4] = [
    (
        "0001_transactions",
        include_str!("../../../../sql/sqlite/0001_transactions.sql"),
    ),
    (
        "0002_moved",
        include_str!("../../../../sql/sqlite/0002_moved.sql"),
    ),
    (
        "0003_forgotten",
        include_str!("../../../../sql/sqlite/0003_forgotten.sql"),
    ),
    (
        "0004_fingerprints",
        include_str!("../../../../sql/sqlite/0004_fingerprints.sql"),
    ),
];

/// Whose a file is.
enum Found {
    /// It has nothing in it.
    Empty,
    /// Ours, with so many migrations.
    Ours(usize),
}

/// Makes sure that `path` is a database of ours with today's tables. Returns the absolute path.
pub(super) async fn prepare(path: &Path, options: Options) -> Result<PathBuf, StoreError> {
    let path = absolute(path)?;
    create_if_missing(&path)?;
    let found = look(&path, options).await?;
    let done = match found {
        Found::Empty => 0,
        Found::Ours(done) => done,
    };
    migrate(&path, options, done).await?;
    Ok(path)
}

/// Makes sure that `path` is a database of ours with today's tables, and changes nothing. Returns the absolute path.
pub(super) async fn inspect(path: &Path, options: Options) -> Result<PathBuf, StoreError> {
    let path = absolute(path)?;
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => {
            return Err(foreign(
                &path,
                "is not a file; give the path of a database file",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(foreign(
                &path,
                "does not exist; give the path of a database file",
            ));
        }
        Err(error) => return Err(unusable(&path, &error.to_string())),
    }
    match look(&path, options).await? {
        Found::Ours(done) if done == MIGRATIONS.len() => Ok(path),
        Found::Ours(done) => {
            let known = MIGRATIONS.len();
            let why = format!(
                "has tables of version {done}, this program reads {known}; start it once, which brings them up to date"
            );
            Err(foreign(&path, &why))
        }
        Found::Empty => Err(foreign(
            &path,
            "is empty; a database gets its tables when it is first opened for writing",
        )),
    }
}

/// A relative name that starts with "file:" would be read as a URI; an absolute one never is.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| {
        let shown = path.display();
        StoreError::Foreign(format!(
            "{shown}: {error}; give the path of a database file"
        ))
    })
}

/// Creates an empty file that only this user can read.
fn create_if_missing(path: &Path) -> Result<(), StoreError> {
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata =
                fs::metadata(path).map_err(|error| unusable(path, &error.to_string()))?;
            if !metadata.is_file() {
                return Err(foreign(
                    path,
                    "is not a file; give the path of a database file",
                ));
            }
            if metadata.permissions().readonly() {
                return Err(foreign(
                    path,
                    "is read-only; make it writable for this user",
                ));
            }
            Ok(())
        }
        Err(error) => Err(foreign(
            path,
            &format!("cannot be created: {error}; check the folder and its permissions"),
        )),
    }
}

/// Reads whose the file is, without changing it.
async fn look(path: &Path, options: Options) -> Result<Found, StoreError> {
    let connect = connect_options(path, options).read_only(true);
    let failed = |error: sqlx::Error| match primary_code(&error) {
        Some(NOT_A_DATABASE | CORRUPT) => {
            foreign(path, "is not a SQLite database; give another path")
        }
        Some(READ_ONLY) => foreign(path, "is read-only; make it writable for this user"),
        _ => unusable(path, &text(&error)),
    };
    let mut connection = connect.connect().await.map_err(failed)?;
    let row = connection
        .fetch_one(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
             (SELECT count(*) FROM sqlite_schema), sqlite_version()",
        )
        .await
        .map_err(failed)?;
    // An error while closing a connection that has only read changes nothing.
    let _ = connection.close().await;
    let version: String = row.get(3);
    if is_too_old(&version) {
        let [major, minor, patch] = OLDEST_SQLITE;
        let why = format!(
            "needs SQLite {major}.{minor}.{patch} or newer; this program was built with {version}"
        );
        return Err(foreign(path, &why));
    }
    judge(path, row.get(0), row.get(1), row.get(2))
}

/// Says whose a file with these marks is.
fn judge(path: &Path, application: i64, version: i64, tables: i64) -> Result<Found, StoreError> {
    if (application, version, tables) == (0, 0, 0) {
        return Ok(Found::Empty);
    }
    if application != APPLICATION_ID {
        return Err(foreign(
            path,
            "is a database of another application; give a path of its own for Halfmoon's",
        ));
    }
    match usize::try_from(version) {
        Ok(done) if done <= MIGRATIONS.len() => Ok(Found::Ours(done)),
        _ => {
            let known = MIGRATIONS.len();
            let why = format!(
                "has tables of version {version}, this program knows {known}; run a newer program"
            );
            Err(foreign(path, &why))
        }
    }
}

fn is_too_old(version: &str) -> bool {
    let numbers: Vec<u32> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    numbers.as_slice() < OLDEST_SQLITE.as_slice()
}

/// Applies what is missing after the first `done` migrations, all or nothing.
async fn migrate(path: &Path, options: Options, done: usize) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| match primary_code(&error) {
        Some(READ_ONLY) => foreign(
            path,
            "is read-only; make it and its folder writable for this user",
        ),
        _ => unusable(path, &text(&error)),
    };
    if done == MIGRATIONS.len() {
        return Ok(());
    }
    let mut connection = writer_options(path, options)
        .connect()
        .await
        .map_err(failed)?;
    let applied = apply(&mut connection).await.map_err(failed);
    // Whatever was begun is rolled back with the connection.
    let closed = connection.close().await.map_err(failed);
    applied.and(closed)
}

async fn apply(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    connection.execute("BEGIN IMMEDIATE").await?;
    // Another process may have been faster since we looked.
    let done: i64 = connection.fetch_one("PRAGMA user_version").await?.get(0);
    connection
        .execute("CREATE TABLE IF NOT EXISTS halfmoon_migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT")
        .await?;
    let all = MIGRATIONS.iter().zip(1_i64..);
    for ((name, sql), number) in all.filter(|(_, number)| *number > done) {
        connection.execute(*sql).await?;
        let noted = sqlx::query("INSERT INTO halfmoon_migration (number, name) VALUES (?, ?)");
        noted
            .bind(number)
            .bind(*name)
            .execute(&mut *connection)
            .await?;
    }
    let marks = format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}; COMMIT",
        MIGRATIONS.len()
    );
    connection.execute(sqlx::AssertSqlSafe(marks)).await?;
    Ok(())
}

fn foreign(path: &Path, why: &str) -> StoreError {
    StoreError::Foreign(format!("{} {why}", path.display()))
}

fn unusable(path: &Path, why: &str) -> StoreError {
    StoreError::Unavailable(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_too_old("3.51.2"));
        assert!(is_too_old("3.9.20"));
        assert!(is_too_old(""));
        assert!(!is_too_old("3.51.3"));
        assert!(!is_too_old("3.100.0"));
        assert!(!is_too_old("4.0.0"));
    }
}
