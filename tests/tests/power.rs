//! Power cuts: log and databases on a file system of their own that is shut down under load; then the checker reads what is
//! left, and the service goes on over it.
//!
//! While a file system is shut down, Linux tells some a sync is done that was under way and did nothing: without power
//! nobody is told anything any more. So every other time the service is frozen before, and everything that it has said counts;
//! the other times it is cut in full flight, with syncs under way, and what it has said until then counts.
//!
//! `HALFMOON_CUTS` is how many cuts there are. Needs root and a loop device; where that is missing nothing is tested, and
//! a line that begins with `NOT TESTED` says so, past the capture of the test's output.

mod postgres;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use mq_core::random::{Random, SeededRandom};
use tests::checker::Phase;
use tests::checker::facts::Answer;
use tests::power::{Disk, Made};
use tests::process::{Kill, Running};

use crate::crash::full;
use crate::crash::runs::{On, Runs};
use postgres::Postgres;

/// Cuts over one folder, before everything is healed and another one begins.
const IN_A_ROW: u64 = 10;
/// How long after the start of the service, or after its first half message, the power is cut at most, in milliseconds.
const LATEST_MS: u64 = 700;
/// How long a service may take to its first half message on a busy machine.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);
/// Far more transactions than a service comes to before its cut.
const ENDLESS: u32 = 1_000_000;

/// How many cuts a test makes; there are three.
fn cuts() -> u64 {
    let given = std::env::var("HALFMOON_CUTS").ok();
    let all: u64 = match given.and_then(|given| given.parse().ok()) {
        Some(cuts) => cuts,
        None if full() => 500,
        None => 30,
    };
    all.div_ceil(3)
}

/// A disk, unless this machine cannot have one: then it says so where everybody sees it.
fn disk() -> Option<Disk> {
    match Disk::make().expect("tests/power.sh works or says why not") {
        Made::Disk(disk) => Some(disk),
        Made::Impossible(why) => {
            // Not by a macro: what those print is shown for failing tests only.
            let line = format!("NOT TESTED: {why}\n");
            let told = std::io::stderr().write_all(line.as_bytes());
            told.expect("somebody reads the errors");
            None
        }
    }
}

/// What was acknowledged, and what of it was lost.
#[derive(Debug, Default)]
struct Count {
    halves: usize,
    decisions: usize,
    sent: usize,
    seen: usize,
    /// Acknowledged before they were durable.
    written: usize,
    /// Those of them that are gone.
    lost: usize,
}

/// Cuts the power again and again, over one folder after the other.
async fn cut_again_and_again(on: On, news: &'static str) {
    let Some(disk) = disk() else { return };
    let mut machine = Machine::on(disk, on);
    let mut count = Count::default();
    let random = SeededRandom::new(news.len() as u64);
    let mut left = cuts();
    while left > 0 {
        let in_a_row = left.min(IN_A_ROW);
        left -= in_a_row;
        let name = format!("service_{news}_{left}");
        let folder = machine.disk.folder().join(&name);
        let database = machine.database(&name).await;
        let runs = Runs::over(folder.clone()).in_postgres(database);
        let mut runs = runs.with_news(news);
        for number in 0..in_a_row {
            let moment = Duration::from_millis(random.next_u64() % LATEST_MS);
            let how = How {
                moment,
                starting: number % 3 == 1,
                frozen: number % 2 == 0,
            };
            machine.cut(&mut runs, &how);
            lost(&mut runs, &mut count, moment).await;
        }
        heal(runs, &mut count).await;
        remove(folder);
        machine.remove_database(&name).await;
    }
    println!(
        "{} power cuts, {on:?}, plain messages {news}: {count:?}",
        cuts()
    );
    assert!(
        count.halves > 0 && count.decisions > 0 && count.seen > 0,
        "hardly anything happened: {count:?}"
    );
}

/// How the power is cut.
struct How {
    /// So long after the service's first half message,
    moment: Duration,
    /// or after its start.
    starting: bool,
    /// Whether the service is frozen before. A database beside it goes on, but nobody hears what it says then.
    frozen: bool,
}

/// A disk, and the Postgres on it if there is one.
struct Machine {
    /// It runs, except during a cut. Before the disk, so that it ends first.
    postgres: Option<(Running, Postgres)>,
    disk: Disk,
}

impl Machine {
    fn on(disk: Disk, on: On) -> Self {
        let postgres = (on == On::Postgres).then(|| {
            let postgres = Postgres::on(disk.folder());
            (postgres.start(), postgres)
        });
        Self { postgres, disk }
    }

    /// A new database, if there is a Postgres.
    async fn database(&self, name: &str) -> Option<String> {
        let (_, postgres) = self.postgres.as_ref()?;
        Some(postgres.database(name).await)
    }

    /// Removes it again: the disk is small.
    async fn remove_database(&self, name: &str) {
        if let Some((_, postgres)) = &self.postgres {
            postgres.drop_database(name).await;
        }
    }

    /// Starts the service, cuts the power, kills whatever has not noticed, mounts the disk again and starts what was on it.
    fn cut(&mut self, runs: &mut Runs, how: &How) {
        let mut service = runs.next(ENDLESS, "").spawn().expect("it can be started");
        let has_begun = |said: &[String]| said.iter().any(|line| line.starts_with("half"));
        if !how.starting {
            let begun = service.hears(BEGINS_WITHIN, has_begun);
            assert!(begun, "{}", service.told());
        }
        // Only its end cuts the wait short.
        let _ = service.hears(how.moment, |_| false);
        assert!(!service.has_ended(), "{}", service.told());
        if how.frozen {
            service.freeze().expect("it stops");
        }
        let told = service.told();
        self.disk.cut().expect("the power is cut");
        service.kill().expect("it ends");
        runs.hear(&if how.frozen { service.told() } else { told });
        if let Some((running, _)) = &mut self.postgres {
            // Of a Postgres that could not write, some wait for ever for others that are dead.
            running.kill_with_children().expect("it ends");
        }
        self.disk.again().expect("the disk comes back");
        if let Some((running, postgres)) = &mut self.postgres {
            *running = postgres.start();
        }
    }
}

/// Judges what is left, and takes note of what could be lost and is.
async fn lost(runs: &mut Runs, count: &mut Count, moment: Duration) {
    let after = format!("a cut after {moment:?}");
    let world = runs.judge(Phase::Anytime, &after).await;
    let before = runs.answers.len();
    let end = world.log.end;
    // Whatever is below the end was judged; what stands there later is another message.
    let was_lost =
        |answer: &Answer| matches!(answer, Answer::Written(_, position) if *position >= end);
    runs.answers.retain(|answer| !was_lost(answer));
    count.lost += before - runs.answers.len();
}

/// A last run without a cut: everything is settled and nothing is missing.
async fn heal(mut runs: Runs, count: &mut Count) {
    let ended = runs.run(10, "", &Kill::Never);
    assert_eq!(ended.last_line(), "settled", "{}", ended.told());
    runs.judge(Phase::Healed, "power cuts").await;
    for answer in &runs.answers {
        *match answer {
            Answer::Half(_) => &mut count.halves,
            Answer::Decided(..) => &mut count.decisions,
            Answer::Sent(_) => &mut count.sent,
            Answer::Seen(_) => &mut count.seen,
            Answer::Written(..) => &mut count.written,
            // Only clients that know no ids say these.
            Answer::HalfOfKey(_) | Answer::Says(..) => continue,
        } += 1;
    }
}

fn remove(folder: PathBuf) {
    std::fs::remove_dir_all(folder).expect("the disk works");
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_cuts() {
    cut_again_and_again(On::Sqlite, "sync").await;
}

#[tokio::test]
async fn with_async_flush_power_cuts_take_only_the_last_plain_messages() {
    cut_again_and_again(On::Sqlite, "async").await;
}

#[tokio::test]
async fn with_postgres_on_the_same_disk_what_was_acknowledged_survives_power_cuts() {
    cut_again_and_again(On::Postgres, "sync").await;
}
