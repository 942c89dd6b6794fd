//! A shop in SQLite: one file for each database, opened for little memory and full durability.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use coordinator::store::database::Database;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Sqlite};

use super::{FromBoth, Kind, Layout, Statement, Tables, arguments};

/// The page cache of one connection in KiB. Small, because there are many connections and rows are few and short.
const CACHE_KIB: u32 = 256;

impl Kind for Sqlite {
    type Home = PathBuf;

    async fn open(home: &PathBuf, name: &str, tables: Tables) -> Result<SqlitePool> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(home)
            .with_context(|| format!("the folder {} cannot be created", home.display()))?;
        let path = home.join(Self::called(name));
        let tables = match tables {
            Tables::Orders => include_str!("../../../sql/orders.sql"),
            Tables::Payments => include_str!("../../../sql/payments.sql"),
            Tables::Stock => include_str!("../../../sql/stock.sql"),
        };
        let opened = open(&path, tables).await;
        opened.with_context(|| format!("the database {} cannot be used", path.display()))
    }

    async fn side_by_side(
        home: &PathBuf,
        layout: Layout,
        coordinator: &Database,
        books: String,
    ) -> Result<SqliteConnection> {
        let mut connection = SqliteConnectOptions::new()
            // What is put side by side may be large: it goes to a temporary file, not into memory.
            .pragma("temp_store", "FILE")
            .pragma("cache_size", "-1024")
            .disable_statement_logging()
            .connect()
            .await?;
        let files = layout.names().map(|(name, _)| {
            let path = home.join(Self::called(&name));
            (name, path)
        });
        let coordinator = coordinator
            .file()
            .context("a shop in SQLite has its coordinator in SQLite, too, to be read beside it")?;
        for (name, path) in files.chain([("halfmoon".into(), coordinator.to_path_buf())]) {
            let attached = attach(&mut connection, &name, &path).await;
            attached.with_context(|| format!("the database {} cannot be read", path.display()))?;
        }
        sqlx::raw_sql(AssertSqlSafe(books))
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    fn called(name: &str) -> String {
        format!("{name}.db")
    }

    async fn execute(
        connection: &mut SqliteConnection,
        statement: Statement<'_>,
    ) -> Result<u64, sqlx::Error> {
        let values = arguments::<Self>(&statement.values)?;
        let query = sqlx::query_with(statement.text, values);
        Ok(query.execute(connection).await?.rows_affected())
    }

    async fn fetch<R: FromBoth>(
        connection: &mut SqliteConnection,
        statement: Statement<'_>,
    ) -> Result<Vec<R>, sqlx::Error> {
        let values = arguments::<Self>(&statement.values)?;
        let query = sqlx::query_as_with(statement.text, values);
        query.fetch_all(connection).await
    }
}

async fn open(path: &Path, tables: &'static str) -> Result<SqlitePool> {
    let pool = SqlitePoolOptions::new()
        // One writer is all that SQLite lets in; here the others wait their turn in order.
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(60))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options(path))
        .await?;
    sqlx::raw_sql(tables).execute(&pool).await?;
    Ok(pool)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Markers insist: what was answered must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .disable_statement_logging()
}

async fn attach(connection: &mut SqliteConnection, name: &str, path: &Path) -> Result<()> {
    let path = path.to_str().context("its path is not UTF-8")?;
    let attach = sqlx::query("ATTACH DATABASE $1 AS $2").bind(path);
    attach.bind(name).execute(connection).await?;
    Ok(())
}
