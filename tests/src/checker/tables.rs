//! Reads the tables of the coordinator and of users' databases, read-only, with statements of its own.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions, Row as _};

use super::facts::{Effects, Event, Owner, Row, Seal, Sql, UserDatabase};

/// Reads the coordinator's SQLite database, as of one moment.
///
/// # Errors
/// Names the file; a database that cannot be read or has other columns than documented.
pub async fn transactions(database: &Path) -> Result<Sql> {
    let read = async {
        let mut connection = open(database).await?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        let Some(owner) = owner(&mut connection).await? else {
            return Ok(Sql::default());
        };
        anyhow::Ok(Sql {
            owned: true,
            owner,
            rows: rows(&mut connection).await?,
            events: events(&mut connection).await?,
            seals: seals(&mut connection).await?,
        })
    };
    read.await.with_context(|| database.display().to_string())
}

/// Reads the markers of a user's SQLite database. `business` is a query for the ids (16 bytes, or hex) of all
/// transactions whose business row is there.
///
/// # Errors
/// Names the file; a database that cannot be read or has other columns than documented.
pub async fn markers(database: &Path, business: Option<&'static str>) -> Result<UserDatabase> {
    let read = async {
        let mut connection = open(database).await?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        let table = "SELECT identity, horizon FROM halfmoon_marker_table WHERE only_row = 1";
        let table = sqlx::query(table).fetch_one(&mut connection).await?;
        let mut found = UserDatabase {
            identity: wide(&table, "identity")?,
            pruned: wide(&table, "horizon")? != 0,
            ..UserDatabase::default()
        };
        for row in sqlx::query("SELECT id, value FROM halfmoon_marker")
            .fetch_all(&mut connection)
            .await?
        {
            found
                .markers
                .insert(wide(&row, "id")?, long(&row, "value")? == 1);
        }
        if let Some(query) = business {
            let ids = sqlx::query(query).fetch_all(&mut connection).await?;
            found.business = Some(ids.iter().map(first_id).collect::<Result<_>>()?);
        }
        anyhow::Ok(found)
    };
    read.await.with_context(|| database.display().to_string())
}

/// Reads what `group` has applied of `topic`. `query` is given the group as `?1` and returns ids (16 bytes, or hex), each
/// with how often its effect is there.
///
/// # Errors
/// Names the file; a database that cannot be read, or ids that are none.
pub async fn effects(
    database: &Path,
    group: &str,
    topic: &str,
    query: &'static str,
) -> Result<Effects> {
    let read = async {
        let mut connection = open(database).await?;
        let mut applied = HashMap::new();
        for row in sqlx::query(query)
            .bind(group)
            .fetch_all(&mut connection)
            .await?
        {
            let times: i64 = row.try_get(1)?;
            *applied.entry(first_id(&row)?).or_default() += u64::try_from(times)?;
        }
        anyhow::Ok(Effects {
            group: group.to_owned(),
            topic: topic.to_owned(),
            applied,
        })
    };
    read.await.with_context(|| database.display().to_string())
}

/// The query for [`effects`] when the inbox row itself is the effect.
pub const INBOX: &str = "SELECT message_key, count(*) FROM halfmoon_inbox WHERE consumer_group = ?1 GROUP BY message_key";

async fn open(database: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .read_only(true);
    Ok(options.disable_statement_logging().connect().await?)
}

/// The owner row; `None` if the tables are not made yet or nobody has taken them over.
async fn owner(connection: &mut SqliteConnection) -> Result<Option<Owner>> {
    let table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'owner'";
    let tables: i64 = sqlx::query_scalar(table)
        .fetch_one(&mut *connection)
        .await?;
    if tables == 0 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT * FROM owner WHERE one = 1")
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Owner {
        log: wide(&row, "log")?,
        seq: long(&row, "seq")?,
        watermark: long(&row, "watermark")?,
        published: long(&row, "published")?,
        last_decision: long(&row, "last_decision")?,
        next_event: long(&row, "next_event")?,
        head: bytes(&row, "head")?,
    }))
}

async fn rows(connection: &mut SqliteConnection) -> Result<Vec<Row>> {
    let query = "SELECT t.*, g.text AS group_text, p.text AS topic_text, u.reason, m.bytes AS marker_bytes \
                 FROM tx t LEFT JOIN name g ON g.id = t.grp LEFT JOIN name p ON p.id = t.topic \
                 LEFT JOIN unpublished u ON u.half_pos = t.half_pos LEFT JOIN identity m ON m.id = t.marker \
                 ORDER BY t.half_pos";
    let mut rows = Vec::new();
    for row in sqlx::query(query).fetch_all(connection).await? {
        let marker: Option<Vec<u8>> = row.try_get("marker_bytes")?;
        rows.push(Row {
            position: long(&row, "half_pos")?,
            queue_offset: long(&row, "half_off")?,
            id: wide(&row, "id")?,
            group: row.try_get("group_text")?,
            topic: row.try_get("topic_text")?,
            body_len: long(&row, "body_len")?,
            state: small(&row, "status")?,
            prepared_at: long(&row, "prepared_at")?,
            decided_at: maybe(&row, "decided_at")?,
            decision: maybe(&row, "decision_no")?,
            checks: long(&row, "checks")?,
            contradictions: long(&row, "contradictions")?,
            unpublished: row.try_get("reason")?,
            marker: marker.map(|bytes| sixteen(&bytes)).transpose()?,
        });
    }
    Ok(rows)
}

async fn events(connection: &mut SqliteConnection) -> Result<Vec<Event>> {
    let query = "SELECT a.*, n.text AS source_text FROM audit a LEFT JOIN name n ON n.id = a.source ORDER BY a.event";
    let mut events = Vec::new();
    for row in sqlx::query(query).fetch_all(connection).await? {
        let from = maybe(&row, "from_step")?;
        events.push(Event {
            number: long(&row, "event")?,
            id: wide(&row, "tx")?,
            from: from.map(u8::try_from).transpose()?,
            to: small(&row, "to_step")?,
            actor: small(&row, "actor")?,
            at: long(&row, "at")?,
            then_at: maybe(&row, "then_at")?,
            source: row.try_get("source_text")?,
            evidence: row.try_get("evidence")?,
        });
    }
    Ok(events)
}

async fn seals(connection: &mut SqliteConnection) -> Result<Vec<Seal>> {
    let mut seals = Vec::new();
    for row in sqlx::query("SELECT * FROM seal ORDER BY seq")
        .fetch_all(connection)
        .await?
    {
        seals.push(Seal {
            seq: long(&row, "seq")?,
            first_event: long(&row, "first_event")?,
            count: long(&row, "count")?,
            published: long(&row, "published")?,
            wall_ms: long(&row, "wall_ms")?,
            hash: bytes(&row, "hash")?,
            leaves: row.try_get("leaves")?,
        });
    }
    Ok(seals)
}

/// SQLite's integers are signed; positions and times are kept bit by bit.
fn long(row: &SqliteRow, column: &str) -> Result<u64> {
    let value: i64 = row.try_get(column)?;
    Ok(value.cast_unsigned())
}

fn maybe(row: &SqliteRow, column: &str) -> Result<Option<u64>> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(i64::cast_unsigned))
}

fn small(row: &SqliteRow, column: &str) -> Result<u8> {
    Ok(u8::try_from(long(row, column)?)?)
}

fn bytes<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N]> {
    let value: Vec<u8> = row.try_get(column)?;
    let fits = <[u8; N]>::try_from(value).ok();
    fits.with_context(|| format!("{column} does not have {N} bytes"))
}

fn wide(row: &SqliteRow, column: &str) -> Result<u128> {
    Ok(u128::from_be_bytes(bytes(row, column)?))
}

fn sixteen(bytes: &[u8]) -> Result<u128> {
    Ok(u128::from_be_bytes(
        bytes.try_into().context("an id does not have 16 bytes")?,
    ))
}

fn first_id(row: &SqliteRow) -> Result<u128> {
    if let Ok(text) = row.try_get::<String, _>(0) {
        return u128::from_str_radix(&text, 16).with_context(|| format!("{text:?} is no id"));
    }
    sixteen(&row.try_get::<Vec<u8>, _>(0)?)
}

#[cfg(test)]
mod tests {
    use super::super::facts::COMMITTED;
    use super::super::{Phase, Promise, World, check};
    use super::*;

    /// A database with the documented tables and these rows.
    async fn made_by_hand(file: &Path, scripts: &[&'static str]) {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        for script in scripts {
            sqlx::raw_sql(*script)
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    const TRANSACTIONS: &str = include_str!("../../../sql/sqlite/0001_transactions.sql");
    const MARKERS: &str = include_str!("../../../sql/marker/sqlite.sql");
    const INBOXES: &str = include_str!("../../../sql/inbox/sqlite.sql");

    #[tokio::test]
    async fn a_commit_without_history_seal_and_final_is_found_in_a_database() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("halfmoon.db");
        let rows = "INSERT INTO name VALUES (1, 'shop'), (2, 'orders');
            INSERT INTO identity VALUES (1, x'000000000000000000000000000000DB');
            INSERT INTO tx (half_pos, id, grp, topic, marker, status, half_off, body_len, prepared_at, decided_at, decision_no)
            VALUES (4192, x'0000000000000000000000000000000A', 1, 2, 1, 1, 0, 5, 10, 20, 1);
            INSERT INTO owner VALUES (1, x'00000000000000000000000000000007', 1, 0,
            x'00000000000000000000000000000000', 5000, 1, 1, 1, zeroblob(32));";
        made_by_hand(&file, &[TRANSACTIONS, rows]).await;
        let mut world = World {
            sql: transactions(&file).await.unwrap(),
            ..World::default()
        };
        (world.log.id, world.log.end) = (7, 5000);
        let row = &world.sql.rows[0];
        assert_eq!(
            (row.id, row.state, row.marker),
            (0xA, COMMITTED, Some(0xDB))
        );
        assert_eq!((row.group.as_str(), row.topic.as_str()), ("shop", "orders"));
        let broken = check(&world, Phase::Anytime).broken();
        let expected = [
            Promise::OneFinal,
            Promise::SqlWithinTheLog,
            Promise::SealsAreWhole,
            Promise::HistoryTellsTheRow,
        ];
        assert_eq!(broken, expected);
    }

    #[tokio::test]
    async fn markers_and_business_rows_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.db");
        let rows = "UPDATE halfmoon_marker_table SET identity = x'000000000000000000000000000000DB';
            INSERT INTO halfmoon_marker VALUES (x'0000000000000000000000000000000A', 1, 0);
            INSERT INTO halfmoon_marker VALUES (x'0000000000000000000000000000000B', 0, 0);
            CREATE TABLE placed (message TEXT); INSERT INTO placed VALUES ('0000000000000000000000000000000A');";
        made_by_hand(&file, &[MARKERS, rows]).await;
        let database = markers(&file, Some("SELECT message FROM placed"))
            .await
            .unwrap();
        assert_eq!((database.identity, database.pruned), (0xDB, false));
        assert_eq!(database.markers, [(0xA, true), (0xB, false)].into());
        assert_eq!(database.business, Some([0xA].into()));
    }

    #[tokio::test]
    async fn effects_are_counted_from_the_inbox() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("warehouse.db");
        let rows = "INSERT INTO halfmoon_inbox VALUES ('warehouse', '0000000000000000000000000000000A', 0);
            INSERT INTO halfmoon_inbox VALUES ('billing', '0000000000000000000000000000000B', 0);";
        made_by_hand(&file, &[INBOXES, rows]).await;
        let found = effects(&file, "warehouse", "orders", INBOX).await.unwrap();
        assert_eq!(found.applied, [(0xA, 1)].into());
    }

    #[tokio::test]
    async fn a_file_that_is_missing_is_named() {
        let error = transactions(Path::new("nowhere/halfmoon.db"))
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("nowhere/halfmoon.db"),
            "{error:#}"
        );
    }
}
