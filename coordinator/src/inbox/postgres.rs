//! The inbox in Postgres: its table and statements.

use sqlx::{PgConnection, PgPool, Row as _};

const TABLE: &str = include_str!("../../../sql/inbox/postgres.sql");

pub(crate) async fn ensure_table(pool: &PgPool) -> Result<(), sqlx::Error> {
    // "HMin": two instances that start at once would trip over each other.
    const ALONE: &str = "SELECT pg_advisory_xact_lock(1213163886)";
    let made = sqlx::raw_sql("SELECT to_regclass('halfmoon_inbox') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    // Who uses the table need not be allowed to make it.
    if made.try_get(0)? {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    for sql in [ALONE, TABLE] {
        sqlx::raw_sql(sql).execute(&mut *tx).await?;
    }
    tx.commit().await
}

/// Waits at most 5 s for another consumer that applies the same message, whatever the transaction's own bound is.
pub(crate) async fn enter(
    connection: &mut PgConnection,
    group: &str,
    key: &str,
    at_ms: u64,
) -> Result<bool, sqlx::Error> {
    // The parts run in this order because each hangs on the one before.
    const ENTER: &str = "WITH bound AS MATERIALIZED ( \
          SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', '5000', true) AS now \
        ), entered AS ( \
          INSERT INTO halfmoon_inbox (consumer_group, message_key, at_ms) \
          SELECT $1, $2, $3 FROM bound WHERE bound.now IS NOT NULL ON CONFLICT DO NOTHING RETURNING 1 \
        ), counted AS MATERIALIZED (SELECT count(*) AS rows FROM entered) \
        SELECT counted.rows, CASE WHEN counted.rows >= 0 THEN set_config('lock_timeout', bound.before, true) END \
        FROM counted, bound";
    let row = sqlx::query(ENTER)
        .bind(group.to_owned())
        .bind(key.to_owned())
        .bind(i64::try_from(at_ms).unwrap_or(i64::MAX))
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<i64, _>(0)? == 1)
}

pub(crate) async fn prune(pool: &PgPool, group: &str, before_ms: u64) -> Result<u64, sqlx::Error> {
    const PRUNE: &str = "DELETE FROM halfmoon_inbox WHERE consumer_group = $1 AND at_ms < $2";
    let done = sqlx::query(PRUNE)
        .bind(group.to_owned())
        .bind(i64::try_from(before_ms).unwrap_or(i64::MAX))
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

pub(crate) async fn contains(
    connection: &mut PgConnection,
    group: &str,
    key: &str,
) -> Result<bool, sqlx::Error> {
    const CONTAINS: &str = "SELECT EXISTS (SELECT 1 FROM halfmoon_inbox \
                            WHERE consumer_group = $1 AND message_key = $2)";
    sqlx::query_scalar(CONTAINS)
        .bind(group.to_owned())
        .bind(key.to_owned())
        .fetch_one(connection)
        .await
}

pub(crate) async fn forget(pool: &PgPool, group: &str, key: &str) -> Result<bool, sqlx::Error> {
    const FORGET: &str =
        "DELETE FROM halfmoon_inbox WHERE consumer_group = $1 AND message_key = $2";
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
    use sqlx::Row as _;

    #[tokio::test]
    async fn postgres_keeps_every_promise_of_an_inbox() {
        conformance::check(private_postgres::pool().await).await;
    }

    #[tokio::test]
    async fn entering_leaves_the_bound_of_the_transaction_as_it_was() {
        let pool = private_postgres::pool().await;
        super::ensure_table(&pool).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let bound = "SET LOCAL lock_timeout = '1234ms'";
        sqlx::raw_sql(bound).execute(&mut *tx).await.unwrap();
        assert!(super::enter(&mut tx, "g", "k", 1).await.unwrap());
        assert!(!super::enter(&mut tx, "g", "k", 1).await.unwrap());
        let row = sqlx::raw_sql("SHOW lock_timeout").fetch_one(&mut *tx).await;
        assert_eq!(row.unwrap().get::<String, _>(0), "1234ms");
    }
}
