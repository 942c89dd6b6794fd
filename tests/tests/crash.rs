//! Kills with SIGKILL: at every named step and at random moments; then the checker reads what is left, and a last run heals.

pub(crate) mod runs;

use std::time::Duration;

use runs::{On, Runs};
use tests::checker::Phase;
use tests::process::{Kill, moments};

pub(crate) fn full() -> bool {
    std::env::var_os("HALFMOON_FULL").is_some()
}

/// Kills the service at every step whose name starts with one of `prefixes`, each over a folder of its own in which an
/// earlier kill has left open transactions.
async fn killed_at_every_step(on: On, prefixes: &[&str]) {
    killed_at_every_step_of(on, prefixes, |_| ()).await;
}

/// The same over a log that deletes what is old, and with a history that is short.
async fn killed_while_trimming(on: On, prefixes: &[&str]) {
    killed_at_every_step_of(on, prefixes, Runs::trim).await;
}

/// The how many-th times of a step at which it is killed. What the log does first, it does in the middle of nothing.
fn times(step: &str) -> Vec<u32> {
    if full() {
        (1..6).collect()
    } else if step.starts_with("log.") {
        vec![1, 5]
    } else {
        vec![1]
    }
}

async fn killed_at_every_step_of(on: On, prefixes: &[&str], begin: impl Fn(&mut Runs)) {
    let steps = coordinator::steps::ALL.iter().map(|(name, _)| *name);
    for step in steps.filter(|step| prefixes.iter().any(|prefix| step.starts_with(prefix))) {
        for time in times(step) {
            let mut runs = Runs::new(on).await;
            runs.run(30, "local.committed:8", &Kill::Never);
            runs.judge(Phase::Anytime, "the first kill").await;
            begin(&mut runs);
            let at = format!("{step}:{time}");
            let ended = runs.run(30, &at, &Kill::Never);
            let reached = ended.status.code().is_none();
            assert!(
                reached || time > 1,
                "{step} was not reached: {}",
                ended.told()
            );
            runs.judge(Phase::Anytime, &at).await;
            runs.is_verified(&at);
            let ended = runs.run(10, "", &Kill::Never);
            assert_eq!(ended.last_line(), "settled", "{}", ended.told());
            runs.judge(Phase::Healed, &at).await;
            runs.is_verified(&at);
        }
    }
}

#[tokio::test]
async fn a_kill_at_every_step_of_the_log_heals() {
    killed_at_every_step(On::Sqlite, &["log."]).await;
}

#[tokio::test]
async fn a_kill_at_every_step_of_a_half_message_and_its_local_transaction_heals() {
    killed_at_every_step(On::Sqlite, &["half.", "local."]).await;
}

#[tokio::test]
async fn a_kill_at_every_step_of_a_decision_heals() {
    killed_at_every_step(On::Sqlite, &["decision.", "final."]).await;
}

#[tokio::test]
async fn a_kill_at_every_step_of_a_check_back_or_a_start_heals() {
    killed_at_every_step(On::Sqlite, &["check_back.", "recovery."]).await;
}

#[tokio::test]
async fn a_kill_at_every_step_of_carrying_forward_heals() {
    killed_while_trimming(On::Sqlite, &["carry."]).await;
}

#[tokio::test]
async fn a_kill_at_every_step_of_a_deletion_from_the_log_heals() {
    killed_while_trimming(On::Sqlite, &["trim."]).await;
}

#[tokio::test]
async fn a_kill_at_every_step_of_forgetting_heals() {
    killed_while_trimming(On::Sqlite, &["forget."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_the_log_heals() {
    killed_at_every_step(On::Postgres, &["log."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_a_half_message_and_its_local_transaction_heals() {
    killed_at_every_step(On::Postgres, &["half.", "local."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_a_decision_heals() {
    killed_at_every_step(On::Postgres, &["decision.", "final."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_a_check_back_or_a_start_heals() {
    killed_at_every_step(On::Postgres, &["check_back.", "recovery."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_carrying_forward_heals() {
    killed_while_trimming(On::Postgres, &["carry."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_a_deletion_from_the_log_heals() {
    killed_while_trimming(On::Postgres, &["trim."]).await;
}

#[tokio::test]
async fn on_postgres_a_kill_at_every_step_of_forgetting_heals() {
    killed_while_trimming(On::Postgres, &["forget."]).await;
}

/// Half of the kills of a run of the chapter.
async fn killed_at_random_moments(on: On) {
    let (seed, count) = if full() { (2, 100) } else { (1, 25) };
    let mut runs = Runs::new(on).await;
    for kill in moments(
        seed,
        count,
        Duration::from_millis(20),
        Duration::from_millis(600),
    ) {
        runs.run(400, "", &kill);
        runs.judge(Phase::Anytime, &format!("{kill:?}")).await;
    }
    let ended = runs.run(10, "", &Kill::Never);
    assert_eq!(ended.last_line(), "settled", "{}", ended.told());
    runs.judge(Phase::Healed, "random kills").await;
    assert!(runs.answers.len() > 25, "hardly anything happened");
}

#[tokio::test]
async fn kills_at_random_moments_heal() {
    killed_at_random_moments(On::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_kills_at_random_moments_heal() {
    killed_at_random_moments(On::Postgres).await;
}
