//! Reads the tables of the coordinator and of users' databases, read-only, with statements of its own.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::facts::{Effects, Event, Owner, Row, Seal, Sql, UserDatabase};
use super::source::{Found, Reading, Source};

/// Reads the coordinator's database, as of one moment.
///
/// # Errors
/// Names the source; a database that cannot be read or has other columns than documented.
pub async fn transactions(database: impl Into<Source>) -> Result<Sql> {
    let database = database.into();
    let read = async {
        let mut reading = database.open().await?;
        let Some(owner) = owner(&mut reading).await? else {
            return Ok(Sql::default());
        };
        anyhow::Ok(Sql {
            owned: true,
            owner,
            rows: rows(&mut reading).await?,
            events: events(&mut reading).await?,
            seals: seals(&mut reading).await?,
        })
    };
    read.await.with_context(|| database.to_string())
}

/// Reads the markers of a user's database. `business` is a query for the ids (16 bytes, or hex) of all transactions whose
/// business row is there.
///
/// # Errors
/// As [`transactions`].
pub async fn markers(
    database: impl Into<Source>,
    business: Option<&'static str>,
) -> Result<UserDatabase> {
    let database = database.into();
    let read = async {
        let mut reading = database.open().await?;
        let table = "SELECT identity, horizon FROM halfmoon_marker_table WHERE only_row = 1";
        let table = reading.one(table).await?.context("it has no identity")?;
        let mut found = UserDatabase {
            identity: table.wide("identity")?,
            pruned: table.wide("horizon")? != 0,
            ..UserDatabase::default()
        };
        for row in reading.all("SELECT id, value FROM halfmoon_marker").await? {
            let (id, value) = (row.wide("id")?, row.long("value")?);
            found.markers.insert(id, value == 1);
        }
        if let Some(query) = business {
            let ids = reading.all(query).await?;
            found.business = Some(ids.iter().map(Found::first_id).collect::<Result<_>>()?);
        }
        anyhow::Ok(found)
    };
    read.await.with_context(|| database.to_string())
}

/// Reads what `group` has applied of `topic`. `query` is given the group as `$1` and returns ids (16 bytes, or hex), each
/// with how often its effect is there.
///
/// # Errors
/// Names the source; a database that cannot be read, or ids that are none.
pub async fn effects(
    database: impl Into<Source>,
    group: &str,
    topic: &str,
    query: &'static str,
) -> Result<Effects> {
    let database = database.into();
    let read = async {
        let mut reading = database.open().await?;
        let mut applied = HashMap::new();
        for row in reading.all_of(query, group).await? {
            *applied.entry(row.first_id()?).or_default() += row.second_number()?;
        }
        anyhow::Ok(Effects {
            group: group.to_owned(),
            topic: topic.to_owned(),
            applied,
        })
    };
    read.await.with_context(|| database.to_string())
}

/// The query for [`effects`] when the inbox row itself is the effect.
pub const INBOX: &str = "SELECT message_key, count(*) FROM halfmoon_inbox WHERE consumer_group = $1 GROUP BY message_key";

/// The owner row; `None` if the tables are not made yet or nobody has taken them over.
async fn owner(reading: &mut Reading) -> Result<Option<Owner>> {
    if !reading.has_table("owner").await? {
        return Ok(None);
    }
    let row = reading.one("SELECT * FROM owner WHERE one = 1").await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Owner {
        log: row.wide("log")?,
        seq: row.long("seq")?,
        watermark: row.long("watermark")?,
        published: row.long("published")?,
        last_decision: row.long("last_decision")?,
        next_event: row.long("next_event")?,
        head: row.exactly("head")?,
    }))
}

async fn rows(reading: &mut Reading) -> Result<Vec<Row>> {
    let query = "SELECT t.*, g.text AS group_text, p.text AS topic_text, u.reason, s.bytes AS sender_bytes, \
                 m.bytes AS marker_bytes \
                 FROM tx t LEFT JOIN name g ON g.id = t.grp LEFT JOIN name p ON p.id = t.topic \
                 LEFT JOIN unpublished u ON u.half_pos = t.half_pos LEFT JOIN identity m ON m.id = t.marker LEFT JOIN identity s ON s.id = t.sender \
                 ORDER BY t.half_pos";
    let mut rows = Vec::new();
    for row in reading.all(query).await? {
        let identity = |column: &str| match row.is_null(column)? {
            true => Ok(None),
            false => row.wide(column).map(Some),
        };
        rows.push(Row {
            position: row.long("half_pos")?,
            queue_offset: row.long("half_off")?,
            id: row.wide("id")?,
            group: row.text("group_text")?,
            topic: row.text("topic_text")?,
            body_len: row.long("body_len")?,
            state: row.small("status")?,
            prepared_at: row.long("prepared_at")?,
            decided_at: row.maybe("decided_at")?,
            decision: row.maybe("decision_no")?,
            checks: row.long("checks")?,
            contradictions: row.long("contradictions")?,
            unpublished: if row.is_null("reason")? {
                None
            } else {
                Some(row.text("reason")?)
            },
            sender: identity("sender_bytes")?,
            marker: identity("marker_bytes")?,
        });
    }
    Ok(rows)
}

async fn events(reading: &mut Reading) -> Result<Vec<Event>> {
    let query = "SELECT a.*, n.text AS source_text FROM audit a LEFT JOIN name n ON n.id = a.source ORDER BY a.event";
    let mut events = Vec::new();
    for row in reading.all(query).await? {
        let from = row.maybe("from_step")?;
        events.push(Event {
            number: row.long("event")?,
            id: row.wide("tx")?,
            from: from.map(u8::try_from).transpose()?,
            to: row.small("to_step")?,
            actor: row.small("actor")?,
            at: row.long("at")?,
            then_at: row.maybe("then_at")?,
            fingerprint: row.maybe("fingerprint")?,
            source: row.text("source_text")?,
            evidence: row.text("evidence")?,
        });
    }
    Ok(events)
}

async fn seals(reading: &mut Reading) -> Result<Vec<Seal>> {
    let mut seals = Vec::new();
    for row in reading.all("SELECT * FROM seal ORDER BY seq").await? {
        seals.push(Seal {
            seq: row.long("seq")?,
            first_event: row.long("first_event")?,
            count: row.long("count")?,
            published: row.long("published")?,
            wall_ms: row.long("wall_ms")?,
            hash: row.exactly("hash")?,
            leaves: row.bytes("leaves")?.to_vec(),
        });
    }
    Ok(seals)
}

#[cfg(test)]
mod tests {
    use super::super::facts::COMMITTED;
    use super::super::{Phase, Promise, World, check};
    use super::*;
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;
    use std::path::Path;

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
    async fn what_was_cut_off_with_a_rollback_journal_is_read_as_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let (file, left) = (folder.path().join("shop.db"), folder.path().join("left.db"));
        made_by_hand(&file, &[INBOXES]).await;
        let options = SqliteConnectOptions::new().filename(&file);
        let mut connection = options.connect().await.unwrap();
        // So small a cache writes pages before the commit.
        let half = "PRAGMA cache_size = 1; BEGIN;
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
            INSERT INTO halfmoon_inbox SELECT 'warehouse', printf('%032X', i), 0 FROM n;";
        sqlx::raw_sql(half).execute(&mut connection).await.unwrap();
        std::fs::copy(&file, &left).unwrap();
        let journal = |file: &str| folder.path().join(format!("{file}-journal"));
        std::fs::copy(journal("shop.db"), journal("left.db")).unwrap();
        let before = std::fs::read(&left).unwrap();
        let found = effects(&left, "warehouse", "orders", INBOX).await.unwrap();
        assert!(found.applied.is_empty());
        assert!(std::fs::read(&left).unwrap() == before, "it was changed");
    }

    #[tokio::test]
    async fn in_postgres_the_same_is_read() {
        const TRANSACTIONS: &str = include_str!("../../../sql/postgres/0001_transactions.sql");
        const MARKERS: &str = include_str!("../../../sql/marker/postgres.sql");
        const ROWS: &str = "INSERT INTO halfmoon.name VALUES (1, 'shop'), (2, 'orders');
            INSERT INTO halfmoon.identity VALUES (1, '000000000000000000000000000000DB');
            INSERT INTO halfmoon.tx (half_pos, id, grp, topic, marker, status, half_off, body_len, prepared_at, decided_at, decision_no)
            VALUES (4192, '0000000000000000000000000000000A', 1, 2, 1, 1, 0, 5, 10, 20, 1);
            INSERT INTO halfmoon.owner VALUES (1, '00000000000000000000000000000007', 1, 1, 0,
            '00000000000000000000000000000000', 5000, 1, 1, 1, decode(repeat('00', 32), 'hex'));
            UPDATE halfmoon_marker_table SET identity = '000000000000000000000000000000DB';
            INSERT INTO halfmoon_marker (id, at_ms, value) VALUES ('0000000000000000000000000000000A', 0, 1);
            CREATE TABLE placed (id bytea); INSERT INTO placed VALUES (decode('0000000000000000000000000000000A', 'hex'));";
        let database = private_postgres::database().await;
        let url = private_postgres::url_of(&database);
        let tables_of = Source::schema(&url, "halfmoon");
        assert!(!transactions(&tables_of).await.unwrap().owned);
        let mut connection = database.connect().await.unwrap();
        for script in ["CREATE SCHEMA halfmoon", TRANSACTIONS, MARKERS, ROWS] {
            let made = sqlx::raw_sql(script).execute(&mut connection).await;
            made.unwrap();
        }
        let mut world = World {
            sql: transactions(&tables_of).await.unwrap(),
            ..World::default()
        };
        (world.log.id, world.log.end) = (7, 5000);
        let row = &world.sql.rows[0];
        assert_eq!(
            (row.id, row.state, row.marker),
            (0xA, COMMITTED, Some(0xDB))
        );
        assert_eq!((row.group.as_str(), row.topic.as_str()), ("shop", "orders"));
        let users = Source::schema(&url, "public");
        let found = markers(&users, Some("SELECT id FROM placed")).await;
        let found = found.unwrap();
        assert_eq!((found.identity, found.pruned), (0xDB, false));
        assert_eq!(found.markers, [(0xA, true)].into());
        assert_eq!(found.business, Some([0xA].into()));
        world.databases.push(found);
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
