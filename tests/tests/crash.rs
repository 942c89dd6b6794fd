//! Kills with SIGKILL: at every named step and at random moments; then the checker reads what is left, and a last run heals.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tests::checker::facts::{Answer, World};
use tests::checker::source::Source;
use tests::checker::{Phase, check, folder, tables};
use tests::process::{Ended, Kill, Program, moments};
use tests::service;

/// Where the service keeps everything but its log.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Sqlite,
    Postgres,
}

/// Runs of the service over one folder.
struct Runs {
    folder: TempDir,
    /// The URL of its database, on Postgres.
    postgres: Option<String>,
    seed: u64,
    answers: Vec<Answer>,
}

impl Runs {
    async fn new(on: On) -> Self {
        let postgres = match on {
            On::Sqlite => None,
            On::Postgres => Some(private_postgres::url_of(
                &private_postgres::database().await,
            )),
        };
        Self {
            postgres,
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            seed: 0,
            answers: Vec::new(),
        }
    }

    /// Runs the service until it ends or is killed, at `step` if there is one.
    fn run(&mut self, transactions: u32, step: &str, kill: &Kill) -> Ended {
        self.seed += 1;
        let mut program = Program::new(env!("CARGO_BIN_EXE_service"))
            .argument(self.folder.path())
            .argument(self.seed.to_string())
            .argument(transactions.to_string());
        if !step.is_empty() {
            program = program.argument(step);
        }
        if let Some(url) = &self.postgres {
            program = program.variable(service::POSTGRES, url);
        }
        let ended = program
            .run(kill)
            .expect("the service runs and ends in time");
        self.answers.extend(service::answers(&ended.output));
        let was_killed = ended.status.code().is_none();
        assert!(
            was_killed || ended.status.success(),
            "{step}: {}",
            ended.told()
        );
        ended
    }

    async fn judge(&self, phase: Phase, after: &str) {
        let world = self.world().await;
        let report = check(&world, phase);
        if !report.is_clean() {
            panic!(
                "after {after}, {phase:?}, kept in {}: {report}",
                self.keep().display()
            );
        }
    }

    async fn world(&self) -> World {
        let data = self.folder.path().join(service::DATA);
        let (world, business) = match &self.postgres {
            None => {
                let business = self.folder.path().join(service::DATABASE);
                (folder::read(&data).await, Source::from(&business))
            }
            Some(url) => (
                folder::read_with_postgres(&data, url).await,
                Source::schema(url, "public"),
            ),
        };
        let mut world = world.expect("log and database are whole");
        world.answers = self.answers.clone();
        if let Ok(markers) = tables::markers(&business, Some(service::BUSINESS)).await {
            world.databases.push(markers);
            let applied = tables::effects(
                &business,
                service::CONSUMERS,
                service::TOPIC,
                service::EFFECTS,
            );
            world
                .effects
                .push(applied.await.expect("the tables are there"));
        }
        world
    }

    /// Copies the folder where it outlives the test.
    fn keep(&self) -> std::path::PathBuf {
        let name = self.folder.path().file_name().unwrap_or_default();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        copy(self.folder.path(), &kept);
        kept
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the target folder can be made");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

fn full() -> bool {
    std::env::var_os("HALFMOON_FULL").is_some()
}

/// Kills the service at every step whose name starts with one of `prefixes`, each over a folder of its own in which an
/// earlier kill has left open transactions.
async fn killed_at_every_step(on: On, prefixes: &[&str]) {
    let steps = coordinator::steps::ALL.iter().map(|(name, _)| *name);
    for step in steps.filter(|step| prefixes.iter().any(|prefix| step.starts_with(prefix))) {
        for time in if full() { 1..6 } else { 1..2 } {
            let mut runs = Runs::new(on).await;
            runs.run(30, "local.committed:8", &Kill::Never);
            runs.judge(Phase::Anytime, "the first kill").await;
            let at = format!("{step}:{time}");
            let ended = runs.run(30, &at, &Kill::Never);
            let reached = ended.status.code().is_none();
            assert!(
                reached || time > 1,
                "{step} was not reached: {}",
                ended.told()
            );
            runs.judge(Phase::Anytime, &at).await;
            let ended = runs.run(10, "", &Kill::Never);
            assert_eq!(ended.last_line(), "settled", "{}", ended.told());
            runs.judge(Phase::Healed, &at).await;
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
