//! Databases of a server: made for a measurement or an example, and dropped.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::session::{state, text};
use crate::store::StoreError;

/// Creates the database `name`, letters, digits and `_`, on the server that `url` leads to, unless it is there. Returns its
/// URL.
///
/// # Errors
/// [`StoreError::Foreign`] when URL or name will not do; [`StoreError::Unavailable`] when the server cannot be reached or
/// refuses.
pub async fn create_database(url: &str, name: &str) -> Result<String, StoreError> {
    let of = url_of(url, name)?;
    match run(url, format!("CREATE DATABASE {name} ENCODING 'UTF8'")).await {
        // Duplicate database; two that create it at once trip over its name.
        Err(error) if matches!(state(&error).as_deref(), Some("42P04" | "23505")) => Ok(of),
        Err(error) => Err(StoreError::Unavailable(format!(
            "database {name} cannot be created: {}",
            text(&error)
        ))),
        Ok(()) => Ok(of),
    }
}

/// Drops the database `name` of that server, if it is there, whoever is connected to it.
///
/// # Errors
/// As [`create_database`].
pub async fn drop_database(url: &str, name: &str) -> Result<(), StoreError> {
    url_of(url, name)?;
    let dropped = run(url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    dropped.map_err(|error| {
        StoreError::Unavailable(format!(
            "database {name} cannot be dropped: {}",
            text(&error)
        ))
    })
}

async fn run(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
    let mut connection = options.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// `url` with the database `name` in the place of its own.
fn url_of(url: &str, name: &str) -> Result<String, StoreError> {
    let wrong = |why: &str| {
        StoreError::Foreign(format!(
            "{why}; write postgres://USER@HOST/DATABASE, which names a server by any database of it"
        ))
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Err(wrong("a database's name has a-z, 0-9 and _ only"));
    }
    let (scheme, behind) = url
        .split_once("://")
        .filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
        .ok_or_else(|| wrong("the URL names no Postgres"))?;
    let (place, parameters) = match behind.split_once('?') {
        Some((place, parameters)) => (place, format!("?{parameters}")),
        None => (behind, String::new()),
    };
    let host = place.split('/').next().unwrap_or_default();
    Ok(format!("{scheme}://{host}/{name}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::{Options, Postgres};

    #[test]
    fn a_url_is_turned_to_another_database() {
        let turned = |url: &str| url_of(url, "one");
        for (url, expected) in [
            ("postgres://u@h:5/d?x=y", "postgres://u@h:5/one?x=y"),
            ("postgres://u@h", "postgres://u@h/one"),
        ] {
            assert_eq!(turned(url), Ok(expected.to_owned()));
        }
        assert!(turned("mysql://h/d").is_err());
        for name in ["", "a b", "a;b", "A", "\"x\""] {
            assert!(url_of("postgres://h", name).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn databases_are_created_once_and_dropped() {
        let server = private_postgres::url();
        let name = format!("made_{}", std::process::id());
        let url = create_database(server, &name).await.unwrap();
        assert_eq!(create_database(server, &name).await, Ok(url.clone()));
        Postgres::open(&url, Options::default()).await.unwrap();
        drop_database(server, &name).await.unwrap();
        drop_database(server, &name).await.unwrap();
        let error = Postgres::open(&url, Options::default()).await.unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}
