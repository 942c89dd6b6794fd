//! A shop in Postgres: one database, in which each database of the shop is a schema, and the coordinator's tables another.

use std::time::Duration;

use anyhow::{Context, Result};
use coordinator::store::database::Database;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Postgres};

use super::{FromBoth, Kind, Layout, Statement, Tables, arguments};

/// Connections of a service to each of its databases.
const CONNECTIONS: u32 = 4;

/// The one way to write a transaction id, whichever type its column has.
const HEX: &str = "CREATE FUNCTION pg_temp.hex(id bytea) RETURNS text LANGUAGE sql AS \
                   $$ SELECT upper(encode(id, 'hex')) $$; \
                   CREATE FUNCTION pg_temp.hex(id uuid) RETURNS text LANGUAGE sql AS \
                   $$ SELECT upper(replace(id::text, '-', '')) $$;";

impl Kind for Postgres {
    type Home = String;

    async fn open(home: &String, name: &str, tables: Tables) -> Result<PgPool> {
        let (tables, connections) = match tables {
            Tables::Orders => (
                include_str!("../../../sql/postgres/orders.sql"),
                CONNECTIONS,
            ),
            Tables::Payments => (
                include_str!("../../../sql/postgres/payments.sql"),
                CONNECTIONS,
            ),
            // Whoever takes several products would wait for others in a circle: the stock service works in turn.
            Tables::Stock => (include_str!("../../../sql/postgres/stock.sql"), 1),
        };
        let opened = open(home, name, tables, connections).await;
        opened.with_context(|| {
            format!(
                "the {} of {} cannot be used",
                Self::called(name),
                shown(home)
            )
        })
    }

    async fn side_by_side(
        home: &String,
        _: Layout,
        _: &Database,
        books: String,
    ) -> Result<PgConnection> {
        let read = async {
            let mut connection = options(home)?.connect().await?;
            let books = books.replace("hex(", "pg_temp.hex(");
            for text in [HEX.to_owned(), books] {
                let text = sqlx::raw_sql(AssertSqlSafe(text));
                text.execute(&mut connection).await?;
            }
            anyhow::Ok(connection)
        };
        let read = read.await;
        read.with_context(|| format!("{} cannot be read", shown(home)))
    }

    fn called(name: &str) -> String {
        format!("schema {name}")
    }

    async fn execute(
        connection: &mut PgConnection,
        statement: Statement<'_>,
    ) -> Result<u64, sqlx::Error> {
        let values = arguments::<Self>(&statement.values)?;
        let query = sqlx::query_with(statement.text, values);
        Ok(query.execute(connection).await?.rows_affected())
    }

    async fn fetch<R: FromBoth>(
        connection: &mut PgConnection,
        statement: Statement<'_>,
    ) -> Result<Vec<R>, sqlx::Error> {
        let values = arguments::<Self>(&statement.values)?;
        let query = sqlx::query_as_with(statement.text, values);
        query.fetch_all(connection).await
    }
}

async fn open(url: &str, schema: &str, tables: &'static str, connections: u32) -> Result<PgPool> {
    // "HMsh": two instances that start at once would trip over each other.
    const ALONE: &str = "SELECT pg_advisory_xact_lock(1213166440)";
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(60))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options(url)?.options([("search_path", schema)]))
        .await?;
    let mut tx = pool.begin().await?;
    sqlx::raw_sql(ALONE).execute(&mut *tx).await?;
    let create = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    sqlx::raw_sql(create).execute(&mut *tx).await?;
    sqlx::raw_sql(tables).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(pool)
}

fn options(url: &str) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.disable_statement_logging())
}

/// Without user, password and parameters.
fn shown(url: &str) -> Database {
    Database::Postgres(url.to_owned())
}
