//! The tables `name` and `identity` in SQLite, as far as the writer's cache of them needs to know.

use std::sync::Arc;

use sqlx::{Executor, Row, SqliteConnection};

use crate::store::Batch;
use crate::store::names::{MOST, Names};

/// Reads what the database has, as far as it fits.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Names, sqlx::Error> {
    let mut names = Names::default();
    let limit = i64::try_from(MOST).unwrap_or(i64::MAX);
    let newest = sqlx::query("SELECT id, text FROM name ORDER BY id DESC LIMIT ?").bind(limit);
    for row in connection.fetch_all(newest).await? {
        names
            .texts
            .insert(Arc::from(row.get::<&str, _>(1)), row.get(0));
    }
    let newest = sqlx::query("SELECT id, bytes FROM identity ORDER BY id DESC LIMIT ?").bind(limit);
    for row in connection.fetch_all(newest).await? {
        if let Ok(bytes) = <[u8; 16]>::try_from(row.get::<&[u8], _>(1)) {
            names
                .identities
                .insert(u128::from_be_bytes(bytes), row.get(0));
        }
    }
    names.loaded();
    Ok(names)
}

/// Finds or gives numbers for everything `batch` names.
pub(super) async fn resolve(
    names: &mut Names,
    batch: &Batch,
    connection: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    let missing = names.missing(batch);
    if !missing.texts.is_empty() && !names.texts.is_complete() {
        let known =
            sqlx::query("SELECT id, text FROM name WHERE text IN (SELECT value FROM json_each(?))");
        let wanted: Vec<&str> = missing.texts.iter().map(AsRef::as_ref).collect();
        let wanted =
            serde_json::to_string(&wanted).map_err(|error| sqlx::Error::Encode(error.into()))?;
        for row in connection.fetch_all(known.bind(wanted)).await? {
            names
                .texts
                .insert(Arc::from(row.get::<&str, _>(1)), row.get(0));
        }
    }
    if !missing.identities.is_empty() && !names.identities.is_complete() {
        let known = sqlx::query(
            "SELECT id, bytes FROM identity WHERE bytes IN (SELECT unhex(value) FROM json_each(?))",
        );
        let wanted: Vec<String> = missing
            .identities
            .iter()
            .map(|bits| format!("{bits:032x}"))
            .collect();
        let wanted =
            serde_json::to_string(&wanted).map_err(|error| sqlx::Error::Encode(error.into()))?;
        for row in connection.fetch_all(known.bind(wanted)).await? {
            if let Ok(bytes) = <[u8; 16]>::try_from(row.get::<&[u8], _>(1)) {
                names
                    .identities
                    .insert(u128::from_be_bytes(bytes), row.get(0));
            }
        }
    }
    names.number(missing);
    Ok(())
}
