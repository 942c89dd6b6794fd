//! One history: databases and logs of different days beside each other are refused, repaired, backed up and restored, with
//! real processes and SIGKILL.

pub(crate) mod kept;

use std::time::Duration;

use kept::{KeptDatabase, KeptLog};
use tests::checker::facts::Answer;
use tests::checker::{Phase, check};
use tests::process::{Ended, Kill, Program};
use tests::server::{free_broker_port, free_port};
use tests::service;

use crate::crash::runs::{On, Runs};

/// How long anything that must happen may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

/// `halfmoon` with these arguments over the data folder of `runs`.
fn halfmoon(runs: &Runs, arguments: &[&str]) -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_server")).limit(WITHIN);
    for argument in arguments {
        program = program.argument(argument);
    }
    program = program.argument("--data").argument(runs.data());
    match runs.postgres() {
        None => program,
        Some(url) => program.argument("--database").argument(url),
    }
}

/// Runs a command and expects this exit status.
fn command(runs: &Runs, arguments: &[&str], status: i32) -> Ended {
    let ended = halfmoon(runs, arguments).run(&Kill::Never);
    let ended = ended.expect("it ends");
    assert_eq!(
        ended.status.code(),
        Some(status),
        "{arguments:?}: {}",
        ended.told()
    );
    ended
}

fn server(runs: &Runs) -> Program {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let nameserver = address(free_port().expect("a free port"));
    let broker = address(free_broker_port().expect("a free port"));
    halfmoon(runs, &["server", "--json"])
        .variable("HALFMOON_NAMESERVER_LISTEN", nameserver)
        .variable("HALFMOON_BROKER_LISTEN", broker)
}

/// A server does not start, and says why in one line with all of these words.
fn is_refused(runs: &Runs, words: &[&str]) {
    let ended = server(runs).run(&Kill::Never).expect("it ends");
    let told = ended.told();
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert_eq!(ended.errors.len(), 1, "{told}");
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
    }
}

/// A server starts and ends when it is asked to.
fn starts(runs: &Runs) {
    let mut running = server(runs).spawn().expect("it can be started");
    let is_ready = |said: &[String]| said.iter().any(|line| line.starts_with('{'));
    assert!(running.hears(WITHIN, is_ready), "{}", running.told());
    running.terminate().expect("it runs");
    let status = running.ended(WITHIN).expect("it ends");
    assert!(status.success(), "{}", running.told());
}

/// The service goes on until all is decided, published and applied, and everything is compared.
async fn heals(runs: &mut Runs, after: &str) {
    let ended = runs.run(10, "", &Kill::Never);
    assert_eq!(ended.last_line(), "settled", "{}", ended.told());
    runs.judge(Phase::Healed, after).await;
}

async fn yesterdays_database(on: On) {
    let mut runs = Runs::new(on).await;
    runs.run(20, "", &Kill::Never);
    let yesterday = KeptDatabase::of(&runs.data(), runs.postgres()).await;
    runs.run(20, "", &Kill::Never);
    runs.run(20, "local.committed:8", &Kill::Never);
    yesterday.put_back(&runs.data(), runs.postgres()).await;

    let refusal = ["older than the log", "halfmoon repair"];
    is_refused(&runs, &refusal);
    let told = command(&runs, &["repair", "--dry-run", "--json"], 0).told();
    assert!(told.contains("\"whole\":false"), "{told}");
    command(&runs, &["repair"], 1);
    is_refused(&runs, &refusal);
    let told = command(&runs, &["repair", "--yes", "--json"], 0).told();
    assert!(told.contains("\"whole\":true"), "{told}");
    let told = command(&runs, &["repair", "--yes"], 0).told();
    assert!(told.contains("nothing is lacking"), "{told}");
    command(&runs, &["audit", "verify"], 0);
    starts(&runs);
    heals(&mut runs, "a repair").await;
    command(&runs, &["audit", "verify"], 0);
}

#[tokio::test]
async fn story_4_yesterdays_database_is_refused_and_repaired() {
    yesterdays_database(On::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_story_4_yesterdays_database_is_refused_and_repaired() {
    yesterdays_database(On::Postgres).await;
}

async fn yesterdays_log(on: On) {
    let mut runs = Runs::new(on).await;
    runs.run(10, "", &Kill::Never);
    let yesterday = KeptLog::of(&runs);
    runs.run(20, "local.committed:8", &Kill::Never);
    let today = KeptLog::of(&runs);
    yesterday.put_back(&runs);
    is_refused(
        &runs,
        &["the log is older than the database", "restore the log"],
    );
    let told = command(&runs, &["repair", "--yes"], 2).told();
    assert!(
        told.contains("the log is older than the database"),
        "{told}"
    );
    today.put_back(&runs);
    starts(&runs);
    heals(&mut runs, "the right log is back").await;
}

#[tokio::test]
async fn todays_database_beside_yesterdays_log_is_refused() {
    yesterdays_log(On::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_todays_database_beside_yesterdays_log_is_refused() {
    yesterdays_log(On::Postgres).await;
}

async fn foreign_log(on: On) {
    let (mut runs, mut others) = (Runs::new(on).await, Runs::new(on).await);
    runs.run(5, "", &Kill::Never);
    others.run(5, "", &Kill::Never);
    let own = KeptLog::of(&runs);
    KeptLog::of(&others).put_back(&runs);
    is_refused(&runs, &["belongs to log", "put the right two together"]);
    let told = command(&runs, &["repair", "--yes"], 2).told();
    assert!(told.contains("belongs to log"), "{told}");
    own.put_back(&runs);
    heals(&mut runs, "the own log is back").await;
}

#[tokio::test]
async fn the_log_of_another_is_refused() {
    foreign_log(On::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_the_log_of_another_is_refused() {
    foreign_log(On::Postgres).await;
}

/// What is open.
const OPEN: [&str; 5] = ["tx", "list", "--state", "prepared", "--json"];
/// Answers that a backup is taken after, and that come after it before the disk is lost.
const ANSWERS: usize = 60;

async fn backup_under_load(on: On) {
    let mut runs = Runs::new(on).await;
    runs.run(10, "local.committed:5", &Kill::Never);
    let mut running = runs.next(1_000_000, "").spawn().expect("it runs");
    let has_said = |count| move |said: &[String]| service::answers(said).len() >= count;
    assert!(
        running.hears(WITHIN, has_said(ANSWERS)),
        "{}",
        running.told()
    );
    let acknowledged = running.told();
    // What pg_dump does; a file of SQLite's is in the backup.
    let database = match on {
        On::Sqlite => None,
        On::Postgres => Some(KeptDatabase::of(&runs.data(), runs.postgres()).await),
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let backup = folder.path().join("backup");
    let into = backup.to_str().expect("text");
    command(&runs, &["backup", into], 0);
    assert!(
        running.hears(WITHIN, has_said(2 * ANSWERS)),
        "{}",
        running.told()
    );
    running.kill().expect("it runs");
    std::fs::remove_dir_all(runs.data()).expect("it is there");
    if let Some(database) = database {
        database.put_back(&runs.data(), runs.postgres()).await;
    }

    command(&runs, &["restore", into], 0);
    command(&runs, &["restore", into], 2);
    starts(&runs);
    // It never settles: it waits for the messages that were lost with the disk.
    let mut asked = runs.next(0, "").spawn().expect("it runs");
    let names_one = |line: &String| line.contains("\"prepared\"");
    while command(&runs, &OPEN, 0).output.iter().any(names_one) {
        assert!(!asked.has_ended(), "something stays open: {}", asked.told());
    }
    asked.kill().expect("it runs");
    starts(&runs);
    runs.hear(&acknowledged);
    let mut world = runs.world().await;
    // What the service did after the backup is in its database alone.
    (world.databases, world.effects) = (Vec::new(), Vec::new());
    let decided = |answer: &&Answer| matches!(answer, Answer::Decided(..));
    assert!(world.answers.iter().filter(decided).count() >= ANSWERS / 4);
    let report = check(&world, Phase::Healed);
    assert!(report.is_clean(), "{report}");
    command(&runs, &["audit", "verify"], 0);
}

#[tokio::test]
async fn a_backup_under_load_is_restored_with_all_that_was_acknowledged_before() {
    backup_under_load(On::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_a_backup_under_load_is_restored_with_all_that_was_acknowledged_before() {
    backup_under_load(On::Postgres).await;
}

#[tokio::test]
async fn a_backup_that_is_not_whole_or_would_overwrite_something_is_refused() {
    let mut runs = Runs::new(On::Sqlite).await;
    runs.run(5, "", &Kill::Never);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let backup = folder.path().join("backup");
    let into = backup.to_str().expect("text");
    command(&runs, &["backup", into], 0);
    let told = command(&runs, &["backup", into], 2).told();
    assert!(told.contains("is not empty"), "{told}");
    let told = command(&runs, &["restore", into], 2).told();
    assert!(
        told.contains("is not empty"),
        "the data folder is kept: {told}"
    );
    std::fs::remove_file(backup.join("backup.json")).expect("it is there");
    let told = command(&runs, &["restore", into], 2).told();
    assert!(told.contains("not a whole backup"), "{told}");
    heals(&mut runs, "refusals").await;
}
