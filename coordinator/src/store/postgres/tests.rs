//! What is Postgres' own: servers and schemas that are refused, tables that guard themselves, plans, lost and frozen
//! connections.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, Row as _};

use super::*;
use crate::store::conformance::draft::{self, Draft, id};
use crate::store::conformance::{self, Subject};
use crate::store::names::Names;
use crate::store::tests::{Question, questions, two_days};
use crate::store::{Batch, CommitError, Fate};
use crate::transaction::Decision;

const POOLED: &str = "&statement-cache-capacity=0";

/// A new database, and a store in it; `more` is put behind the URL.
async fn opened_with(more: &str, options: Options) -> (PgConnectOptions, Postgres) {
    let database = private_postgres::database().await;
    let url = private_postgres::url_of(&database) + more;
    (database, Postgres::open(&url, options).await.unwrap())
}

async fn opened() -> (PgConnectOptions, Postgres) {
    opened_with("", Options::default()).await
}

async fn keeps_every_promise(more: &'static str) {
    conformance::all(async || {
        let (_, postgres) = opened_with(more, Options::default()).await;
        let store = Arc::new(postgres.clone());
        Subject {
            store,
            fail_next: Box::new(move |fault| postgres.fail_next(fault)),
        }
    })
    .await;
}

#[tokio::test]
async fn postgres_keeps_every_promise() {
    keeps_every_promise("").await;
}

#[tokio::test]
async fn postgres_behind_a_pooler_keeps_every_promise() {
    keeps_every_promise(POOLED).await;
}

async fn refused(database: &PgConnectOptions, why: &str) {
    let url = private_postgres::url_of(database);
    let error = Postgres::open(&url, Options::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Foreign(_)), "{error:?}");
    assert!(text.contains(why) && !text.contains('\n'), "{text}");
    let name = database.get_database().unwrap();
    assert!(text.contains(name), "{text}");
}

async fn execute(database: &PgConnectOptions, sql: impl Into<String>) -> Result<(), String> {
    let mut connection = database.connect().await.unwrap();
    let done = connection.execute(AssertSqlSafe(sql.into())).await;
    done.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_database_that_cannot_be_ours_is_refused_and_left_alone() {
    let database = private_postgres::database().await;
    let name = database.get_database().unwrap();
    let theirs = "CREATE SCHEMA halfmoon; CREATE TABLE halfmoon.orders ()";
    execute(&database, theirs).await.unwrap();
    refused(&database, "has a schema halfmoon of another application").await;
    let things = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('halfmoon')";
    let mut connection = database.connect().await.unwrap();
    let things = connection.fetch_one(things).await.unwrap();
    assert_eq!(things.get::<i64, _>(0), 1, "nothing was created");

    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    execute(&database, read_only).await.unwrap();
    refused(&database, "is read-only").await;

    let odd = format!("{name}_odd");
    let ascii = format!("CREATE DATABASE {odd} ENCODING 'SQL_ASCII' TEMPLATE template0");
    let server = private_postgres::database().await;
    execute(&server, ascii).await.unwrap();
    refused(&server.clone().database(&odd), "is encoded as SQL_ASCII").await;
    refused(&server.database("no_such_database"), "cannot be opened").await;

    let error = Postgres::open("postgres:/what", Options::default()).await;
    assert!(error.unwrap_err().to_string().contains("postgres://"));
}

#[tokio::test]
async fn newer_tables_are_refused_and_an_empty_schema_is_taken() {
    let database = private_postgres::database().await;
    let url = private_postgres::url_of(&database);
    let error = open_reader(&url, Options::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("has no tables of ours"),
        "{error}"
    );
    execute(&database, "CREATE SCHEMA halfmoon").await.unwrap();
    let (one, two) = tokio::join!(
        Postgres::open(&url, Options::default()),
        Postgres::open(&url, Options::default())
    );
    let owner = Draft::take_over(&one.unwrap()).await.owner();
    two.unwrap();
    let reader = open_reader(&url, Options::default()).await.unwrap();
    let found = reader.owner().await.unwrap().unwrap();
    assert_eq!(draft::apart_from_link(found), owner);
    let newer = "INSERT INTO halfmoon.migration VALUES (5, '0005_future')";
    execute(&database, newer).await.unwrap();
    refused(&database, "has tables of version 5, this program knows 4").await;
}

#[tokio::test]
async fn a_user_who_may_not_create_tables_is_told_so() {
    let database = private_postgres::database().await;
    let name = database.get_database().unwrap().to_owned();
    execute(&database, format!("CREATE USER {name}_user"))
        .await
        .unwrap();
    let url = private_postgres::url_of(&database).replace("halfmoon@", &format!("{name}_user@"));
    let error = Postgres::open(&url, Options::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("cannot be given tables"),
        "{error}"
    );
}

#[tokio::test]
async fn history_seals_and_decisions_cannot_be_rewritten() {
    let (database, postgres) = opened().await;
    let mut draft = Draft::take_over(&postgres).await;
    draft.prepare_decided(1, "g", Decision::Commit);
    draft.commit().await.unwrap();
    for (sql, why) in [
        (
            "UPDATE halfmoon.audit SET actor = 4",
            "audit is append only",
        ),
        ("DELETE FROM halfmoon.audit", "audit is append only"),
        ("TRUNCATE halfmoon.audit", "audit is append only"),
        (
            "UPDATE halfmoon.seal SET published = 0",
            "seal is append only",
        ),
        ("DELETE FROM halfmoon.seal", "seal is append only"),
        ("TRUNCATE halfmoon.seal", "seal is append only"),
        (
            "UPDATE halfmoon.tx SET status = 2",
            "a decision never changes",
        ),
        (
            "UPDATE halfmoon.tx SET decision_no = 7",
            "a decision never changes",
        ),
        (
            "UPDATE halfmoon.tx SET status = 0, decided_at = NULL, decision_no = NULL, check_at = 1",
            "a decision never changes",
        ),
        ("TRUNCATE halfmoon.tx", "a decision never changes"),
        ("DELETE FROM halfmoon.owner", "the owner row stays"),
        ("TRUNCATE halfmoon.owner", "the owner row stays"),
        (
            "INSERT INTO halfmoon.unpublished VALUES (5, 'no such row')",
            "only a committed transaction can be unpublished",
        ),
        (
            "INSERT INTO halfmoon.tx (half_pos, half_off, id, prepared_at, check_at, body_len, grp, topic, status) \
             VALUES (5, 1, gen_random_uuid(), 1, 1, 1, 1, 1, 4)",
            "violates check constraint",
        ),
        (
            "INSERT INTO halfmoon.tx (half_pos, half_off, id, prepared_at, check_at, body_len, grp, topic, status) \
             VALUES (5, 1, gen_random_uuid(), 1, 1, 1, 1, 1, 2)",
            "violates check constraint",
        ),
    ] {
        let error = execute(&database, sql).await.unwrap_err();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_indexes_carry_the_writer_and_the_sweep() {
    let (_, postgres) = opened().await;
    let mut connection = postgres.shared.place.connect().await.unwrap();
    connection
        .execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    for (number, (sql, parameters, used)) in [
        (statements::BATCH, 60, "tx_pos"),
        (reader::DUE, 5, "using tx_open"),
        (reader::OPEN_OF, 3, "using tx_sender"),
        (reader::DECIDED_AFTER, 2, "using tx_decision"),
        (reader::COMMITTED, 1, "tx_id"),
        (reader::EVENTS_OF, 2, "audit_tx"),
        (reader::LIST_WINDOW, 6, "tx_pos"),
    ]
    .into_iter()
    .enumerate()
    {
        let prepare = format!("PREPARE p{number} AS {sql}");
        connection.execute(AssertSqlSafe(prepare)).await.unwrap();
        let nulls = vec!["NULL"; parameters].join(", ");
        let explain = format!("EXPLAIN EXECUTE p{number} ({nulls})");
        let plan = connection.fetch_all(AssertSqlSafe(explain)).await.unwrap();
        let plan: String = plan
            .iter()
            .map(|row| row.get::<String, _>(0) + "\n")
            .collect();
        let scans = plan.contains("Seq Scan on tx") || plan.contains("Seq Scan on audit");
        assert!(plan.contains(used) && !scans, "{sql}\n{plan}");
        assert!(!plan.contains("JIT"), "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn story_5_a_batch_of_somebody_else_stops_the_writer_although_the_epoch_is_ours() {
    for more in ["", POOLED] {
        let (database, postgres) = opened_with(more, Options::default()).await;
        let mut draft = Draft::take_over(&postgres).await;
        let other = "UPDATE halfmoon.owner SET seq = seq + 1";
        execute(&database, other).await.unwrap();
        draft.prepare(1, "g");
        assert_eq!(draft.commit().await, Err(CommitError::TakenOver));
        assert_eq!(postgres.reader().history(1, 10).await, Ok(Vec::new()));
    }
}

/// A connection that holds the owner row.
async fn holding(database: &PgConnectOptions) -> PgConnection {
    let mut connection = database.connect().await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    connection.execute(statements::OWNER_LOCKED).await.unwrap();
    connection
}

/// Goes on from the outcome of a commit until the batch is in the store, as the coordinator does. On a slow machine any
/// answer may come too late, and what was asked on a connection that was given up may still be done after the next one's.
async fn go_on(draft: &mut Draft, batch: &Batch, mut outcome: Result<(), CommitError>) {
    loop {
        outcome = match outcome {
            Ok(()) => break draft.committed(batch),
            Err(CommitError::Unavailable(_)) => draft.writer().commit(batch).await,
            Err(CommitError::Unknown(_)) => match draft.writer().find_out(batch.id).await {
                Ok(Fate::Done) => Ok(()),
                Ok(Fate::Redo) => draft.writer().commit(batch).await,
                Err(CommitError::Unavailable(why)) => Err(CommitError::Unknown(why)),
                Err(error) => Err(error),
            },
            Err(error) => panic!("{error}"),
        };
    }
}

#[tokio::test]
async fn story_6_a_batch_that_commits_after_its_connection_was_lost_is_there_once() {
    let options = Options {
        answer_time: Duration::from_millis(300),
        ..Options::default()
    };
    let (database, postgres) = opened_with("", options).await;
    let mut draft = Draft::take_over(&postgres).await;
    let mut lock = holding(&database).await;
    draft.prepare(1, "g");
    let batch = draft.batch();
    let outcome = draft.writer().commit(&batch).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    // The database still has the batch, and goes on with it once the lock is free.
    lock.execute("ROLLBACK").await.unwrap();
    go_on(&mut draft, &batch, outcome).await;
    draft.prepare(2, "g");
    let next = draft.batch();
    let outcome = draft.writer().commit(&next).await;
    go_on(&mut draft, &next, outcome).await;
    let history = postgres.reader().history(1, 10).await.unwrap();
    assert_eq!(history.len(), 2, "each once");
}

#[tokio::test]
async fn story_6_what_an_older_connection_of_the_writer_sent_does_nothing_once_there_is_a_newer_one()
 {
    let (_, postgres) = opened().await;
    let mut draft = Draft::take_over(&postgres).await;
    let before = postgres.reader().owner().await.unwrap().unwrap();
    draft.prepare(1, "g");
    let batch = draft.batch();
    // Nothing arrived, says the newer one.
    assert_eq!(draft.writer().find_out(batch.id).await, Ok(Fate::Redo));
    let mut older = postgres.shared.place.connect().await.unwrap();
    let mut names = Names::default();
    names::resolve(&mut names, &batch, &mut older)
        .await
        .unwrap();
    let after = before.after(&batch, 0);
    let arguments = encode::batch(&batch, (&before, &after), &names);
    let late = sqlx::query_with(statements::BATCH, arguments);
    let owned: bool = late.fetch_one(&mut older).await.unwrap().get(0);
    assert!(!owned);
    assert_eq!(postgres.reader().transaction(id(1)).await, Ok(None));
    draft.writer().commit(&batch).await.unwrap();
}

#[tokio::test]
async fn story_27_an_owner_that_freezes_in_a_transaction_is_let_go_by_the_database() {
    let options = Options {
        statement_time: Duration::from_millis(500),
        ..Options::default()
    };
    let (_, postgres) = opened_with(POOLED, options).await;
    let first = Draft::take_over(&postgres).await.owner();
    let place = &postgres.shared.place;
    let mut frozen = place.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(place.begin()))
        .execute(&mut frozen)
        .await
        .unwrap();
    frozen.execute(statements::OWNER_LOCKED).await.unwrap();
    let takes_over = async {
        loop {
            match postgres.take_over(first.log).await {
                Ok((_, owner)) => return owner,
                Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
            }
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(60), takes_over).await;
    let next = next.expect("the frozen owner is let go");
    assert_eq!(next.epoch, first.epoch + 1);
    assert!(frozen.execute("COMMIT").await.is_err());
}

#[tokio::test]
async fn an_owner_row_that_somebody_keeps_locked_makes_the_store_unavailable() {
    let options = Options {
        lock_wait: Duration::from_millis(50),
        ..Options::default()
    };
    let (database, postgres) = opened_with("", options).await;
    let mut draft = Draft::take_over(&postgres).await;
    let mut lock = holding(&database).await;
    draft.prepare(1, "g");
    let batch = draft.batch();
    let outcome = draft.writer().commit(&batch).await;
    // Looking needs the row as well, so nobody knows yet.
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let asked = draft.writer().find_out(batch.id).await;
    assert!(
        matches!(asked, Err(CommitError::Unavailable(_))),
        "{asked:?}"
    );
    lock.execute("ROLLBACK").await.unwrap();
    assert_eq!(draft.writer().find_out(batch.id).await, Ok(Fate::Redo));
    draft.writer().commit(&batch).await.unwrap();
}

#[tokio::test]
async fn the_error_of_a_refused_batch_says_what_is_wrong() {
    let (_, postgres) = opened().await;
    let mut draft = Draft::take_over(&postgres).await;
    draft.decide(1, Decision::Commit, mq_core::clock::ServerTime(1));
    let missing = draft.commit().await.unwrap_err().to_string();
    assert!(
        missing.contains("a row that it changes is missing, or decided already"),
        "{missing}"
    );
    draft.prepare(1, "g");
    draft.commit().await.unwrap();
    draft.prepare(1, "g");
    let twice = draft.commit().await.unwrap_err().to_string();
    assert!(
        twice.contains("tx_pos") || twice.contains("tx_id"),
        "{twice}"
    );
}

#[tokio::test]
async fn a_transaction_takes_no_more_room_than_promised() {
    let (database, postgres) = opened().await;
    let mut draft = Draft::take_over(&postgres).await;
    let count = 20 * 512;
    for batch in 0..20 {
        for number in batch * 512 + 1..=batch * 512 + 512 {
            draft.prepare_decided(number + 100_000_000, "order-service", Decision::Commit);
            draft.events.last_mut().unwrap().evidence = "x".repeat(60);
        }
        draft.commit().await.unwrap();
    }
    let size = "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class \
                WHERE relnamespace = to_regnamespace('halfmoon') AND relkind = 'r'";
    let mut connection = database.connect().await.unwrap();
    let size: i64 = connection.fetch_one(size).await.unwrap().get(0);
    let each = size / count;
    assert!(
        each <= 512,
        "{each} bytes for each transaction with 60 bytes of evidence"
    );
}

/// The answer of a query, a line for each row.
async fn ask(connection: &mut PgConnection, question: &Question) -> Vec<String> {
    // psql puts the values in; the driver numbers them.
    let mut sql = audit_query(question.name).to_owned();
    let explained: Vec<&str> = sql
        .lines()
        .filter(|line| line.starts_with("-- :"))
        .collect();
    assert_eq!(explained.len(), question.parameters.len(), "{sql}");
    for ((name, _), number) in question.parameters.iter().zip(1..) {
        sql = sql.replace(&format!(":'{name}'"), &format!("${number}::text"));
        sql = sql.replace(&format!(":{name}"), &format!("${number}::bigint"));
    }
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (_, value) in &question.parameters {
        query = match value.parse::<i64>() {
            Ok(number) => query.bind(number),
            Err(_) => query.bind(value.clone()),
        };
    }
    let rows = connection.fetch_all(query).await.unwrap();
    rows.iter().map(line).collect()
}

fn line(row: &sqlx::postgres::PgRow) -> String {
    let column = |at| match row.try_get::<Option<i64>, _>(at) {
        Ok(number) => number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
        Err(_) => row
            .get::<Option<String>, _>(at)
            .unwrap_or_else(|| "-".to_owned()),
    };
    (0..row.len()).map(column).collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn the_audit_queries_answer_what_happened() {
    let (database, postgres) = opened().await;
    two_days(&postgres).await;
    let connection = &mut database.connect().await.unwrap();
    for question in questions() {
        let answer = ask(connection, &question).await;
        assert_eq!(answer, question.answer, "{}", question.name);
    }
}

crate::store::tests::audit_queries!("postgres/");
