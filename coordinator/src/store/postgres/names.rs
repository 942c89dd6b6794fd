//! The tables `name` and `identity` in Postgres, as far as the writer's cache of them needs to know.

use std::sync::Arc;

use sqlx::types::Uuid;
use sqlx::{PgConnection, Row as _};

use super::text::{decode, encode};
use crate::store::Batch;
use crate::store::names::{MOST, Names};

/// Reads what the database has, as far as it fits.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Names, sqlx::Error> {
    let mut names = Names::default();
    let limit = i64::try_from(MOST).unwrap_or(i64::MAX);
    let newest = "SELECT id, text FROM halfmoon.name ORDER BY id DESC LIMIT $1";
    let newest = sqlx::query(newest).bind(limit).persistent(false);
    for row in newest.fetch_all(&mut *connection).await? {
        put_text(&mut names, &row)?;
    }
    let newest = "SELECT id, bytes FROM halfmoon.identity ORDER BY id DESC LIMIT $1";
    let newest = sqlx::query(newest).bind(limit).persistent(false);
    for row in newest.fetch_all(&mut *connection).await? {
        put_identity(&mut names, &row)?;
    }
    names.loaded();
    Ok(names)
}

/// Finds or gives numbers for everything `batch` names.
pub(super) async fn resolve(
    names: &mut Names,
    batch: &Batch,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let missing = names.missing(batch);
    if !missing.texts.is_empty() && !names.texts.is_complete() {
        let wanted: Vec<String> = missing
            .texts
            .iter()
            .map(|text| encode(text).into_owned())
            .collect();
        let known = "SELECT id, text FROM halfmoon.name WHERE text = ANY($1)";
        let known = sqlx::query(known).bind(wanted).persistent(false);
        for row in known.fetch_all(&mut *connection).await? {
            put_text(names, &row)?;
        }
    }
    if !missing.identities.is_empty() && !names.identities.is_complete() {
        let wanted: Vec<Uuid> = missing
            .identities
            .iter()
            .map(|bits| Uuid::from_u128(*bits))
            .collect();
        let known = "SELECT id, bytes FROM halfmoon.identity WHERE bytes = ANY($1)";
        let known = sqlx::query(known).bind(wanted).persistent(false);
        for row in known.fetch_all(&mut *connection).await? {
            put_identity(names, &row)?;
        }
    }
    names.number(missing);
    Ok(())
}

fn put_text(names: &mut Names, row: &sqlx::postgres::PgRow) -> Result<(), sqlx::Error> {
    let id: i32 = row.try_get(0)?;
    let text: &str = row.try_get(1)?;
    names.texts.insert(Arc::from(decode(text)), i64::from(id));
    Ok(())
}

fn put_identity(names: &mut Names, row: &sqlx::postgres::PgRow) -> Result<(), sqlx::Error> {
    let id: i32 = row.try_get(0)?;
    let bytes: Uuid = row.try_get(1)?;
    names.identities.insert(bytes.as_u128(), i64::from(id));
    Ok(())
}
