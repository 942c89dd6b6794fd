//! The two kinds of database that a shop can be in, SQLite and Postgres: everything that differs between them.
//!
//! The services write their SQL once, in what both understand, and are generic over a [`Kind`].

mod postgres;
mod sqlite;

use anyhow::Result;
use coordinator::marker::database::LocalDatabase;
use coordinator::store::database::Database;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Arguments as _, Encode, FromRow, Pool, Type};

use super::databases::Layout;

/// Reads the value of an option `--postgres`.
///
/// # Errors
/// It is no URL of a Postgres database; says how one is written.
pub fn postgres_url(url: &str) -> Result<String, String> {
    let database: Database = url.parse()?;
    if let Database::Postgres(url) = database {
        return Ok(url);
    }
    Err(format!(
        "{database} is no Postgres database; write postgres://USER@HOST/DATABASE"
    ))
}

/// Which tables a database of the shop holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Those of the order service.
    Orders,
    /// Those of the payment service.
    Payments,
    /// Those of the stock service.
    Stock,
}

/// A kind of database.
pub trait Kind: LocalDatabase {
    /// Where the databases of all services are: a folder with a file for each, or the URL of one database with a schema for
    /// each.
    type Home: Clone + Send + Sync + 'static;

    /// Opens the database `name` of a service, creating what is missing.
    ///
    /// # Errors
    /// Names the database that cannot be used.
    fn open(
        home: &Self::Home,
        name: &str,
        tables: Tables,
    ) -> impl Future<Output = Result<Pool<Self>>> + Send;

    /// A connection on which the tables of every service are found under the service's database name, `orders_0.orders`, those of
    /// the coordinator as `halfmoon.tx_view`, and transaction ids are read with `hex(...)` once `books` has run.
    ///
    /// # Errors
    /// Names the database that cannot be read.
    fn side_by_side(
        home: &Self::Home,
        layout: Layout,
        coordinator: &Database,
        books: String,
    ) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// What people call the database `name`.
    fn called(name: &str) -> String;

    /// Runs a statement, and returns how many rows it has changed.
    ///
    /// # Errors
    /// What the database says.
    fn execute(
        connection: &mut Self::Connection,
        statement: Statement<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs a statement, and returns its rows.
    ///
    /// # Errors
    /// What the database says, or that a row is not an `R`.
    fn fetch<R: FromBoth>(
        connection: &mut Self::Connection,
        statement: Statement<'_>,
    ) -> impl Future<Output = Result<Vec<R>, sqlx::Error>> + Send;

    /// Runs a statement that has one row of one column.
    ///
    /// # Errors
    /// As [`Kind::fetch`], or that there is no row.
    fn value<R>(
        connection: &mut Self::Connection,
        statement: Statement<'_>,
    ) -> impl Future<Output = Result<R, sqlx::Error>> + Send
    where
        (R,): FromBoth,
    {
        async move {
            let rows: Vec<(R,)> = Self::fetch(connection, statement).await?;
            let first = rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
            Ok(first.0)
        }
    }
}

/// What a row of either kind can be read as.
pub trait FromBoth:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<R> FromBoth for R where
    R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// SQL that both kinds understand, and the values for `$1`, `$2` and so on.
#[derive(Debug, Clone)]
#[must_use = "a statement does nothing until it is run"]
pub struct Statement<'a> {
    text: &'static str,
    values: Vec<Value<'a>>,
}

/// A value in a statement.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A whole number.
    Number(i64),
    /// True or false.
    Truth(bool),
    /// A text, or NULL.
    Text(Option<&'a str>),
    /// Bytes, or NULL.
    Bytes(Option<&'a [u8]>),
}

/// A statement whose values are yet to be bound.
pub const fn sql(text: &'static str) -> Statement<'static> {
    Statement {
        text,
        values: Vec::new(),
    }
}

impl<'a> Statement<'a> {
    /// Binds the next value.
    pub fn bind<'b>(self, value: impl Into<Value<'b>>) -> Statement<'b>
    where
        'a: 'b,
    {
        let mut values: Vec<Value<'b>> = self.values;
        values.push(value.into());
        Statement {
            text: self.text,
            values,
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        Self::Bytes(bytes)
    }
}

fn arguments<DB: sqlx::Database>(values: &[Value<'_>]) -> Result<DB::Arguments, sqlx::Error>
where
    i64: for<'v> Encode<'v, DB> + Type<DB>,
    bool: for<'v> Encode<'v, DB> + Type<DB>,
    for<'v> Option<&'v str>: Encode<'v, DB> + Type<DB>,
    for<'v> Option<&'v [u8]>: Encode<'v, DB> + Type<DB>,
{
    let mut arguments = DB::Arguments::default();
    for value in values {
        let added = match *value {
            Value::Number(number) => arguments.add(number),
            Value::Truth(truth) => arguments.add(truth),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
