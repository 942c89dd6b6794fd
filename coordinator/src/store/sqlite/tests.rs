//! What is SQLite's own: files that are refused, tables that guard themselves, plans, and the audit queries.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use mq_core::clock::ServerTime;
use mq_core::log::Position;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::store::conformance::draft::{Draft, id};
use crate::store::conformance::{self, Subject};
use crate::store::tests::{Question, questions, two_days};
use crate::store::{CommitError, Fate};
use crate::transaction::Decision;

async fn opened() -> (TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(folder.path().join("one.db"), Options::default())
        .await
        .unwrap();
    (folder, sqlite)
}

/// A connection of another program of the application's, with its pragmas.
async fn raw(sqlite: &Sqlite) -> SqliteConnection {
    connect_options(sqlite.path(), Options::default())
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn sqlite_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let files = AtomicU32::new(0);
    conformance::all(async || {
        let path = folder
            .path()
            .join(format!("{}.db", files.fetch_add(1, Ordering::Relaxed)));
        let sqlite = Sqlite::open(path, Options::default()).await.unwrap();
        let store = Arc::new(sqlite.clone());
        Subject {
            store,
            fail_next: Box::new(move |fault| sqlite.fail_next(fault)),
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_opens_only_what_is_there_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.db");
    let error = open_reader(&path, Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(!path.exists());

    std::fs::write(&path, "").unwrap();
    let error = open_reader(&path, Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);

    let sqlite = Sqlite::open(&path, Options::default()).await.unwrap();
    let (_writer, owner) = sqlite.take_over(LogId(5)).await.unwrap();
    let reader = open_reader(&path, Options::default()).await.unwrap();
    assert_eq!(reader.owner().await.unwrap(), Some(owner));
}

#[tokio::test]
async fn a_new_file_is_for_this_user_only() {
    let (folder, sqlite) = opened().await;
    Draft::take_over(&sqlite).await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            file.path()
        );
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let (folder, sqlite) = opened().await;
    let mut draft = Draft::take_over(&sqlite).await;
    draft.prepare(1, "g");
    draft.commit().await.unwrap();
    let owner = draft.owner();
    drop(draft);
    sqlite.close().await;
    let again = Sqlite::open(folder.path().join("one.db"), Options::default())
        .await
        .unwrap();
    assert_eq!(again.reader().owner().await.unwrap(), Some(owner));
    let mut draft = Draft::take_over(&again).await;
    draft.prepare(2, "g");
    draft.commit().await.unwrap();
    assert_eq!(
        again
            .reader()
            .transaction(id(2))
            .await
            .unwrap()
            .unwrap()
            .half
            .group
            .as_str(),
        "g"
    );
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.db");
    std::fs::write(&path, [b"not a database ".as_slice(); 100].concat()).unwrap();
    let before = std::fs::read(&path).unwrap();
    refused(&path, "is not a SQLite database").await;
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::remove_file(&path).unwrap();
    let create = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut theirs = create.connect().await.unwrap();
    theirs
        .execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        .await
        .unwrap();
    theirs.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    refused(&path, "is a database of another application").await;
    assert_eq!(std::fs::read(&path).unwrap(), before);

    refused(folder.path(), "is not a file").await;
    refused(&folder.path().join("nowhere/one.db"), "cannot be created").await;
}

#[tokio::test]
async fn a_newer_or_read_only_database_is_refused() {
    let (folder, sqlite) = opened().await;
    sqlite.close().await;
    raw(&sqlite)
        .await
        .execute("PRAGMA user_version = 99")
        .await
        .unwrap();
    refused(sqlite.path(), "has tables of version 99").await;
    raw(&sqlite)
        .await
        .execute("PRAGMA user_version = 1")
        .await
        .unwrap();
    let path = folder.path().join("one.db");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    refused(&path, "is read-only").await;
}

async fn refused(path: &Path, why: &str) {
    let error = Sqlite::open(path, Options::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Foreign(_)), "{error:?}");
    assert!(
        text.contains(why) && text.contains(path.to_str().unwrap()),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
}

#[tokio::test]
async fn history_seals_and_decisions_cannot_be_rewritten() {
    let (_folder, sqlite) = opened().await;
    let mut draft = Draft::take_over(&sqlite).await;
    draft.prepare_decided(1, "g", Decision::Commit);
    draft.commit().await.unwrap();
    let mut other = raw(&sqlite).await;
    for (sql, why) in [
        ("UPDATE audit SET actor = 4", "audit is append only"),
        ("DELETE FROM audit", "audit is append only"),
        (
            "INSERT OR REPLACE INTO audit SELECT * FROM audit",
            "audit is append only",
        ),
        ("UPDATE seal SET published = 0", "seal is append only"),
        ("DELETE FROM seal", "seal is append only"),
        (
            "INSERT OR REPLACE INTO seal SELECT * FROM seal",
            "seal is append only",
        ),
        ("UPDATE tx SET status = 2", "a decision never changes"),
        ("UPDATE tx SET decision_no = 7", "a decision never changes"),
        (
            "UPDATE tx SET status = 0, decided_at = NULL, decision_no = NULL, check_at = 1",
            "a decision never changes",
        ),
        ("DELETE FROM owner", "the owner row stays"),
        (
            "INSERT INTO unpublished VALUES (5, 'no such row')",
            "only a committed transaction can be unpublished",
        ),
        (
            "INSERT INTO tx SELECT 5, x'00', 0, 1, 1, 1, 1, 0, 0, 0, 0, NULL, NULL, 1, 0, 0, 0",
            "CHECK constraint failed",
        ),
        (
            "INSERT INTO tx SELECT 5, zeroblob(16), 0, 1, 1, 1, 1, 4, 0, 0, 0, 1, 9, NULL, 0, 0, 0",
            "CHECK constraint failed",
        ),
    ] {
        let error = other.execute(sql).await.unwrap_err().to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_indexes_carry_the_writer_and_the_sweep() {
    let (_folder, sqlite) = opened().await;
    let mut connection = raw(&sqlite).await;
    for (sql, used, avoided) in [
        (
            statements::MOVES,
            "SEARCH tx USING INTEGER PRIMARY KEY",
            "SCAN tx",
        ),
        (
            statements::COUNTS,
            "SEARCH tx USING INTEGER PRIMARY KEY",
            "SCAN tx",
        ),
        (reader::DUE, "SEARCH t USING INDEX tx_open", "TEMP B-TREE"),
        (
            reader::OPEN_OF,
            "SEARCH t USING INDEX tx_sender",
            "TEMP B-TREE",
        ),
        (
            reader::DECIDED_AFTER,
            "SEARCH t USING INDEX tx_decision",
            "TEMP B-TREE",
        ),
        (reader::COMMITTED, "SEARCH t USING INDEX tx_id", "SCAN t "),
        (
            reader::EVENTS_OF,
            "SEARCH a USING INDEX audit_tx",
            "TEMP B-TREE",
        ),
        (
            reader::OPEN_GROUPS,
            "SEARCH tx USING COVERING INDEX tx_open",
            "SCAN t",
        ),
    ] {
        let plan = connection
            .fetch_all(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .await
            .unwrap();
        let plan: String = plan
            .iter()
            .map(|row| row.get::<String, _>(3) + "\n")
            .collect();
        assert!(
            plan.contains(used) && !plan.contains(avoided),
            "{sql}\n{plan}"
        );
    }
}

#[tokio::test]
async fn a_transaction_takes_no_more_room_than_promised() {
    let (_folder, sqlite) = opened().await;
    let mut draft = Draft::take_over(&sqlite).await;
    let count = 20 * 512;
    for batch in 0..20 {
        for number in batch * 512 + 1..=batch * 512 + 512 {
            // A day of server time: the numbers are as long as they get in years.
            draft.prepare_decided(number + 100_000_000, "order-service", Decision::Commit);
            draft.events.last_mut().unwrap().evidence = "x".repeat(60);
        }
        draft.commit().await.unwrap();
    }
    drop(draft);
    sqlite.close().await;
    raw(&sqlite)
        .await
        .execute("PRAGMA wal_checkpoint(TRUNCATE)")
        .await
        .unwrap();
    let each = std::fs::metadata(sqlite.path()).unwrap().len() / count;
    assert!(
        each <= 290,
        "{each} bytes for each transaction with 60 bytes of evidence"
    );
}

#[tokio::test]
async fn a_database_that_another_process_keeps_locked_is_unavailable_and_not_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        busy_timeout: Duration::from_millis(1),
        ..Options::default()
    };
    let sqlite = Sqlite::open(folder.path().join("one.db"), options)
        .await
        .unwrap();
    let mut draft = Draft::take_over(&sqlite).await;
    let mut other = raw(&sqlite).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    for many in [1, 100] {
        (0..many).for_each(|number| draft.prepare(number, "g"));
        let batch = draft.batch();
        let outcome = draft.writer().commit(&batch).await;
        assert!(
            matches!(outcome, Err(CommitError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    other.execute("ROLLBACK").await.unwrap();
    draft.prepare(1, "g");
    draft.commit().await.unwrap();
}

/// The batch fails on a lock, and the file cannot be opened to see what became of it.
#[tokio::test]
async fn story_6_a_commit_that_cannot_be_looked_up_is_unknown_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        busy_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let (path, away) = (folder.path().join("one.db"), folder.path().join("away"));
    let sqlite = Sqlite::open(&path, options).await.unwrap();
    let mut draft = Draft::take_over(&sqlite).await;
    let mut other = raw(&sqlite).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    draft.prepare(1, "g");
    let batch = draft.batch();
    let (outcome, moved) = tokio::join!(draft.writer().commit(&batch), async {
        std::fs::rename(&path, &away)
    });
    moved.unwrap();
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let asked = draft.writer().find_out(batch.id).await;
    assert!(
        matches!(asked, Err(CommitError::Unavailable(_))),
        "{asked:?}"
    );
    let early = draft.writer().commit(&batch).await;
    assert!(matches!(early, Err(CommitError::Unknown(_))), "{early:?}");
    std::fs::rename(&away, &path).unwrap();
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(draft.writer().find_out(batch.id).await, Ok(Fate::Redo));
    draft.writer().commit(&batch).await.unwrap();
    let history = sqlite.reader().history(1, 10).await.unwrap();
    assert_eq!(history.len(), 1);
}

#[tokio::test]
async fn a_batch_of_somebody_else_stops_the_writer_although_the_epoch_is_ours() {
    for many in [1, 100] {
        let (_folder, sqlite) = opened().await;
        let mut draft = Draft::take_over(&sqlite).await;
        raw(&sqlite)
            .await
            .execute("UPDATE owner SET seq = seq + 1")
            .await
            .unwrap();
        (0..many).for_each(|number| draft.prepare(number, "g"));
        assert_eq!(draft.commit().await, Err(CommitError::TakenOver));
        assert_eq!(sqlite.reader().history(1, 10).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn story_4_a_file_that_lost_commits_is_neither_written_nor_read_by_its_writer() {
    for read in [false, true] {
        let (_folder, sqlite) = opened().await;
        let mut draft = Draft::take_over(&sqlite).await;
        draft.prepare(1, "g");
        draft.commit().await.unwrap();
        let back = "UPDATE owner SET seq = seq - 1";
        raw(&sqlite).await.execute(back).await.unwrap();
        draft.prepare(2, "g");
        if read {
            sqlite.fail_next(Fault::UnknownNotDone);
            draft.commit().await.unwrap_err();
            let rows = draft.writer().rows(&[Position(1)]).await;
            assert!(matches!(rows, Err(StoreError::Foreign(_))), "{rows:?}");
        } else {
            let outcome = draft.commit().await;
            assert!(matches!(outcome, Err(CommitError::Older(_))), "{outcome:?}");
        }
        let history = sqlite.reader().history(1, 10).await.unwrap();
        assert_eq!(history.len(), 1);
    }
}

#[tokio::test]
async fn the_error_of_a_refused_batch_says_what_is_wrong() {
    let (_folder, sqlite) = opened().await;
    let mut draft = Draft::take_over(&sqlite).await;
    draft.decide(1, Decision::Commit, ServerTime(1));
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
        twice.contains("tx.half_pos") || twice.contains("tx.id"),
        "{twice}"
    );
}

/// The answer of a query, a line for each row.
async fn ask(connection: &mut SqliteConnection, question: &Question) -> Vec<String> {
    // The driver knows numbered parameters only.
    let mut sql = audit_query(question.name).to_owned();
    for ((name, _), number) in question.parameters.iter().zip(1..) {
        assert!(
            sql.contains(&format!("-- :{name}")),
            "{name} is explained\n{sql}"
        );
        sql = sql.replace(&format!(":{name}"), &format!("?{number}"));
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

fn line(row: &SqliteRow) -> String {
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
    let (_folder, sqlite) = opened().await;
    two_days(&sqlite).await;
    let connection = &mut raw(&sqlite).await;
    for question in questions() {
        let answer = ask(connection, &question).await;
        assert_eq!(answer, question.answer, "{}", question.name);
    }
}

crate::store::tests::audit_queries!("");
