//! Where tables are read: a SQLite file, or a schema of a Postgres database. Both give the same plain rows.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::types::Uuid;
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, PgConnection, Row as _, SqliteConnection,
    TypeInfo as _, ValueRef as _,
};
use tempfile::TempDir;

/// Where tables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A SQLite file.
    File(PathBuf),
    /// A schema of the Postgres database with this URL.
    Schema {
        /// The database.
        url: String,
        /// The schema.
        name: String,
    },
}

impl From<&Path> for Source {
    fn from(file: &Path) -> Self {
        Self::File(file.to_path_buf())
    }
}

impl From<&PathBuf> for Source {
    fn from(file: &PathBuf) -> Self {
        Self::File(file.clone())
    }
}

impl From<&Self> for Source {
    fn from(source: &Self) -> Self {
        source.clone()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Schema { name, .. } => write!(f, "schema {name}"),
        }
    }
}

impl Source {
    /// A schema of the Postgres database at `url`.
    #[must_use]
    pub fn schema(url: &str, name: &str) -> Self {
        Self::Schema {
            url: url.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Opens it for reading, as of one moment.
    pub(super) async fn open(&self) -> Result<Reading> {
        match self {
            Self::File(file) => {
                let journal = beside(file, "-journal");
                // What was cut off before the database had its write-ahead log is rolled back by whoever reads it: a copy,
                // so that the next start finds what the last one left.
                if journal.exists() {
                    let folder = tempfile::tempdir()?;
                    let copy = folder.path().join("copy.db");
                    std::fs::copy(file, &copy)?;
                    std::fs::copy(journal, beside(&copy, "-journal"))?;
                    let options = SqliteConnectOptions::new().filename(copy);
                    return Ok(Reading::Sqlite {
                        connection: begin(options).await?,
                        _copy: Some(folder),
                    });
                }
                let options = SqliteConnectOptions::new().filename(file).read_only(true);
                Ok(Reading::Sqlite {
                    connection: begin(options).await?,
                    _copy: None,
                })
            }
            Self::Schema { url, name } => {
                const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                let options: PgConnectOptions = url.parse()?;
                let options = options.options([("search_path", name)]);
                let mut connection = options.disable_statement_logging().connect().await?;
                sqlx::raw_sql(BEGIN).execute(&mut connection).await?;
                Ok(Reading::Postgres(connection))
            }
        }
    }
}

/// The file whose name has this behind it.
fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.to_path_buf().into_os_string();
    name.push(end);
    name.into()
}

async fn begin(options: SqliteConnectOptions) -> Result<SqliteConnection> {
    let mut connection = options.disable_statement_logging().connect().await?;
    sqlx::raw_sql("BEGIN").execute(&mut connection).await?;
    Ok(connection)
}

/// A connection in a transaction that only reads.
pub(super) enum Reading {
    Sqlite {
        connection: SqliteConnection,
        /// The folder of the copy, if it is one.
        _copy: Option<TempDir>,
    },
    Postgres(PgConnection),
}

impl Reading {
    pub(super) async fn all(&mut self, query: &str) -> Result<Vec<Found>> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Sqlite { connection, .. } => {
                let rows = sqlx::query(query).fetch_all(connection).await?;
                rows.iter().map(of_sqlite).collect()
            }
            Self::Postgres(connection) => {
                let rows = sqlx::query(query).fetch_all(connection).await?;
                rows.iter().map(of_postgres).collect()
            }
        }
    }

    /// As [`Self::all`], with a text for `$1`.
    pub(super) async fn all_of(&mut self, query: &str, text: &str) -> Result<Vec<Found>> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Sqlite { connection, .. } => {
                let rows = sqlx::query(query).bind(text).fetch_all(connection).await?;
                rows.iter().map(of_sqlite).collect()
            }
            Self::Postgres(connection) => {
                let rows = sqlx::query(query).bind(text).fetch_all(connection).await?;
                rows.iter().map(of_postgres).collect()
            }
        }
    }

    pub(super) async fn one(&mut self, query: &str) -> Result<Option<Found>> {
        Ok(self.all(query).await?.into_iter().next())
    }

    pub(super) async fn has_table(&mut self, name: &str) -> Result<bool> {
        let query = match self {
            Self::Sqlite { .. } => {
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1"
            }
            Self::Postgres(_) => {
                "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema AND tablename = $1"
            }
        };
        let found = self.all_of(query, name).await?;
        let count = found.first().and_then(|row| row.0.first());
        Ok(matches!(count, Some((_, Field::Number(1)))))
    }
}

/// What stands in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row: its columns by name.
#[derive(Debug)]
pub(super) struct Found(Vec<(String, Field)>);

fn of_sqlite(row: &SqliteRow) -> Result<Found> {
    let columns = row.columns().iter().map(|column| {
        let at = column.ordinal();
        let raw = row.try_get_raw(at)?;
        let field = match raw.type_info().name() {
            // A NULL has the type of its column.
            _ if raw.is_null() => Field::Null,
            "INTEGER" => Field::Number(row.try_get_unchecked(at)?),
            "TEXT" => Field::Text(row.try_get_unchecked(at)?),
            "BLOB" => Field::Bytes(row.try_get_unchecked(at)?),
            other => bail!("column {} is {other}", column.name()),
        };
        Ok((column.name().to_owned(), field))
    });
    Ok(Found(columns.collect::<Result<_>>()?))
}

fn of_postgres(row: &PgRow) -> Result<Found> {
    let columns = row.columns().iter().map(|column| {
        let at = column.ordinal();
        let raw = row.try_get_raw(at)?;
        let field = match column.type_info().name() {
            _ if raw.is_null() => Field::Null,
            "INT2" => Field::Number(row.try_get::<i16, _>(at)?.into()),
            "INT4" => Field::Number(row.try_get::<i32, _>(at)?.into()),
            "INT8" => Field::Number(row.try_get(at)?),
            "TEXT" => Field::Text(row.try_get(at)?),
            "BYTEA" => Field::Bytes(row.try_get(at)?),
            "UUID" => Field::Bytes(row.try_get::<Uuid, _>(at)?.into_bytes().to_vec()),
            other => bail!("column {} is {other}", column.name()),
        };
        Ok((column.name().to_owned(), field))
    });
    Ok(Found(columns.collect::<Result<_>>()?))
}

impl Found {
    /// The last of this name: a name of the query's own stands behind those of `t.*`.
    fn field(&self, column: &str) -> Result<&Field> {
        let mut fields = self.0.iter().rev();
        let field = fields.find(|(name, _)| name == column);
        let (_, field) = field.with_context(|| format!("there is no column {column}"))?;
        Ok(field)
    }

    pub(super) fn is_null(&self, column: &str) -> Result<bool> {
        Ok(*self.field(column)? == Field::Null)
    }

    /// SQL's integers are signed; positions and times are kept bit by bit.
    pub(super) fn long(&self, column: &str) -> Result<u64> {
        let number = self.maybe(column)?;
        number.with_context(|| format!("{column} is NULL"))
    }

    pub(super) fn maybe(&self, column: &str) -> Result<Option<u64>> {
        match self.field(column)? {
            Field::Null => Ok(None),
            Field::Number(number) => Ok(Some(number.cast_unsigned())),
            other @ (Field::Text(_) | Field::Bytes(_)) => bail!("{column} is no number: {other:?}"),
        }
    }

    pub(super) fn small(&self, column: &str) -> Result<u8> {
        Ok(u8::try_from(self.long(column)?)?)
    }

    pub(super) fn text(&self, column: &str) -> Result<String> {
        match self.field(column)? {
            Field::Text(text) => Ok(text.clone()),
            other @ (Field::Null | Field::Number(_) | Field::Bytes(_)) => {
                bail!("{column} is no text: {other:?}")
            }
        }
    }

    pub(super) fn bytes(&self, column: &str) -> Result<&[u8]> {
        match self.field(column)? {
            Field::Bytes(bytes) => Ok(bytes),
            other @ (Field::Null | Field::Number(_) | Field::Text(_)) => {
                bail!("{column} is no bytes: {other:?}")
            }
        }
    }

    pub(super) fn exactly<const N: usize>(&self, column: &str) -> Result<[u8; N]> {
        let fits = <[u8; N]>::try_from(self.bytes(column)?).ok();
        fits.with_context(|| format!("{column} does not have {N} bytes"))
    }

    pub(super) fn wide(&self, column: &str) -> Result<u128> {
        Ok(u128::from_be_bytes(self.exactly(column)?))
    }

    /// The id in the first column: 16 bytes, or hex.
    pub(super) fn first_id(&self) -> Result<u128> {
        match self.0.first() {
            Some((_, Field::Text(text))) => {
                u128::from_str_radix(text, 16).with_context(|| format!("{text:?} is no id"))
            }
            Some((_, Field::Bytes(bytes))) => {
                let bytes = bytes.as_slice().try_into();
                Ok(u128::from_be_bytes(
                    bytes.context("an id does not have 16 bytes")?,
                ))
            }
            other => bail!("{other:?} is no id"),
        }
    }

    /// The number in the second column.
    pub(super) fn second_number(&self) -> Result<u64> {
        match self.0.get(1) {
            Some((_, Field::Number(number))) => Ok(u64::try_from(*number)?),
            other => bail!("{other:?} is no number"),
        }
    }
}
