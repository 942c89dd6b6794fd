//! The inbox in SQLite: its table and statements.

use sqlx::{SqliteConnection, SqlitePool};

const TABLE: &str = include_str!("../../../sql/inbox/sqlite.sql");

pub(crate) async fn ensure_table(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(TABLE).execute(pool).await?;
    Ok(())
}

pub(crate) async fn enter(
    connection: &mut SqliteConnection,
    group: &str,
    key: &str,
    at_ms: u64,
) -> Result<bool, sqlx::Error> {
    const ENTER: &str = "INSERT INTO main.halfmoon_inbox (consumer_group, message_key, at_ms) \
                         VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let done = sqlx::query(ENTER)
        .bind(group.to_owned())
        .bind(key.to_owned())
        .bind(i64::try_from(at_ms).unwrap_or(i64::MAX))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn prune(
    pool: &SqlitePool,
    group: &str,
    before_ms: u64,
) -> Result<u64, sqlx::Error> {
    const PRUNE: &str = "DELETE FROM main.halfmoon_inbox WHERE consumer_group = ?1 AND at_ms < ?2";
    let done = sqlx::query(PRUNE)
        .bind(group.to_owned())
        .bind(i64::try_from(before_ms).unwrap_or(i64::MAX))
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

pub(crate) async fn contains(
    connection: &mut SqliteConnection,
    group: &str,
    key: &str,
) -> Result<bool, sqlx::Error> {
    const CONTAINS: &str = "SELECT EXISTS (SELECT 1 FROM main.halfmoon_inbox \
                            WHERE consumer_group = ?1 AND message_key = ?2)";
    sqlx::query_scalar(CONTAINS)
        .bind(group.to_owned())
        .bind(key.to_owned())
        .fetch_one(connection)
        .await
}

pub(crate) async fn forget(pool: &SqlitePool, group: &str, key: &str) -> Result<bool, sqlx::Error> {
    const FORGET: &str =
        "DELETE FROM main.halfmoon_inbox WHERE consumer_group = ?1 AND message_key = ?2";
    let done = sqlx::query(FORGET)
        .bind(group.to_owned())
        .bind(key.to_owned())
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use crate::inbox::conformance;

    #[tokio::test]
    async fn sqlite_keeps_every_promise_of_an_inbox() {
        let folder = tempfile::tempdir().unwrap();
        conformance::check(crate::client::tests::double::pool(&folder, "stock.db").await).await;
    }
}
