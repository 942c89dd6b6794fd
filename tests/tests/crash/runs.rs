//! Runs of the service over one folder, and what is left after each, judged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::checker::facts::{Answer, Decided, World};
use tests::checker::source::Source;
use tests::checker::{Phase, check, folder, tables};
use tests::process::{Ended, Kill, Program};
use tests::service;

/// Where the service keeps everything but its log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// Runs of the service over one folder.
pub(crate) struct Runs {
    folder: PathBuf,
    /// Set if the folder ends with this value.
    _temporary: Option<TempDir>,
    /// The URL of its database, on Postgres.
    postgres: Option<String>,
    /// `sync` or `async` if it sends plain messages, too.
    news: Option<&'static str>,
    /// Whether it keeps little of its log and its history.
    trims: bool,
    seed: u64,
    /// What it has said it was told, in all runs.
    pub(crate) answers: Vec<Answer>,
    /// What was found decided after earlier runs.
    decided: HashMap<u128, Decided>,
}

impl Runs {
    /// Over a temporary folder.
    pub(crate) async fn new(on: On) -> Self {
        let postgres = match on {
            On::Sqlite => None,
            On::Postgres => Some(private_postgres::url_of(
                &private_postgres::database().await,
            )),
        };
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let folder = temporary.path().to_path_buf();
        Self {
            postgres,
            _temporary: Some(temporary),
            ..Self::over(folder)
        }
    }

    /// Over a folder that stays, on SQLite.
    pub(crate) fn over(folder: PathBuf) -> Self {
        Self {
            folder,
            _temporary: None,
            postgres: None,
            news: None,
            trims: false,
            seed: 0,
            answers: Vec::new(),
            decided: HashMap::new(),
        }
    }

    /// In the Postgres database at `url`.
    pub(crate) fn in_postgres(self, url: Option<String>) -> Self {
        Self {
            postgres: url,
            ..self
        }
    }

    /// With plain messages, acknowledged as `news` says.
    pub(crate) fn with_news(self, news: &'static str) -> Self {
        Self {
            news: Some(news),
            ..self
        }
    }

    /// From now on it keeps little, and each run first waits until what it finds is deleted and forgotten.
    pub(crate) fn trim(&mut self) {
        self.trims = true;
    }

    /// Halfmoon's data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join(service::DATA)
    }

    /// The URL of its database, on Postgres.
    pub(crate) fn postgres(&self) -> Option<&str> {
        self.postgres.as_deref()
    }

    /// The next run, which kills itself at `step` if there is one.
    pub(crate) fn next(&mut self, transactions: u32, step: &str) -> Program {
        self.seed += 1;
        let mut program = Program::new(env!("CARGO_BIN_EXE_service"))
            .argument(&self.folder)
            .argument(self.seed.to_string())
            .argument(transactions.to_string());
        if !step.is_empty() {
            program = program.argument(step);
        }
        if let Some(url) = &self.postgres {
            program = program.variable(service::POSTGRES, url);
        }
        if let Some(news) = self.news {
            program = program.variable(service::NEWS, news);
        }
        if self.trims {
            program = program.variable(service::TRIMS, "1");
        }
        program
    }

    /// Runs the service until it ends or is killed, at `step` if there is one.
    pub(crate) fn run(&mut self, transactions: u32, step: &str, kill: &Kill) -> Ended {
        let ended = self
            .next(transactions, step)
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

    /// Takes note of what a run said.
    pub(crate) fn hear(&mut self, told: &str) {
        let lines: Vec<String> = told.lines().map(str::to_owned).collect();
        self.answers.extend(service::answers(&lines));
    }

    /// What `halfmoon audit verify` says is what the checker says: nothing is wrong.
    pub(crate) fn is_verified(&self, after: &str) {
        let mut program = Program::new(env!("CARGO_BIN_EXE_server"))
            .argument("audit")
            .argument("verify")
            .argument("--data")
            .argument(self.data());
        if let Some(url) = &self.postgres {
            program = program.argument("--database").argument(url);
        }
        let ended = program.run(&Kill::Never).expect("it runs and ends in time");
        assert!(ended.status.success(), "after {after}: {}", ended.told());
    }

    /// Judges what is there now, and returns it. A folder that breaks a promise is kept.
    pub(crate) async fn judge(&mut self, phase: Phase, after: &str) -> World {
        let mut world = self.world().await;
        world.decided = self.decided.clone();
        let judges_all = phase != Phase::Healed || !world.databases.is_empty();
        assert!(
            judges_all,
            "the service's tables are not where they are looked for"
        );
        let report = check(&world, phase);
        if !report.is_clean() {
            panic!(
                "after {after}, {phase:?}, kept in {}: {report}",
                self.keep().display()
            );
        }
        self.decided = world.decisions();
        world
    }

    /// What is there now.
    pub(crate) async fn world(&self) -> World {
        let data = self.data();
        let (world, business) = match &self.postgres {
            None => {
                let business = self.folder.join(service::DATABASE);
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
    fn keep(&self) -> PathBuf {
        let name = self.folder.file_name().unwrap_or_default();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        copy(&self.folder, &kept);
        kept
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
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
