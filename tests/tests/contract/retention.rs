//! Half messages that stay open while the log deletes what is old and the server is killed again and again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mq_core::clock::{Clock, SystemClock};
use tests::process::{Kill, Program, pause};

use super::member::{Half, Producer, Says};
use super::stories::{Stage, WITHIN};
use super::{CLIENT, FIRST};
use crate::crash::runs::On;

/// A log of a few small segments.
const SMALL: [(&str, &str); 2] = [
    ("HALFMOON_SEGMENT", "64KiB"),
    ("HALFMOON_KEEP_BYTES", "256KiB"),
];
/// The segment in which everything begins.
const FIRST_SEGMENT: &str = "log/00000000000000000000.log";
/// How often the server is killed.
const KILLS: u32 = 6;

/// Sends messages that nobody wants, about two segments.
fn fill(stage: &Stage) -> Result<()> {
    let mut filler = Producer::connect(stage.server.broker(), "filler@1", "fillers", "filler")?;
    for _ in 0..40 {
        filler.plain(&[7; 3000], "")?;
    }
    Ok(())
}

/// Waits until the log begins later.
fn is_trimmed(stage: &Stage) -> Result<()> {
    let first = stage
        .server
        .data()
        .context("it is ours")?
        .join(FIRST_SEGMENT);
    let clock = SystemClock::new();
    let start = clock.monotonic();
    while first.exists() {
        let late = clock.monotonic().saturating_sub(start) > WITHIN;
        ensure!(!late, "the oldest segment stays: {}", stage.server.told());
        fill(stage)?;
        pause(Duration::from_millis(50));
    }
    Ok(())
}

/// Says what was decided, and the opposite.
fn is_decided(producer: &mut Producer, half: &Half, says: Says, word: &str) -> Result<()> {
    let opposite = match says {
        Says::Commit => Says::RollBack,
        Says::RollBack | Says::Unknown => Says::Commit,
    };
    let (code, why) = producer.says(half, says)?;
    ensure!(code == 0, "the same again: {why}");
    let (code, why) = producer.says(half, opposite)?;
    ensure!(
        code == 1 && why.contains(word),
        "the opposite: {code} {why}"
    );
    Ok(())
}

fn trimmed(on: On) -> Result<()> {
    let mut stage = Stage::begin_with(on, &SMALL)?;
    let mut producer = stage.stranger()?;
    let (committed, rolled_back) = (producer.half("committed")?, producer.half("rolled back")?);
    let open = producer.half("open")?;
    let broker = stage.server.broker().to_owned();
    let mut early = Producer::connect(&broker, CLIENT, "early", "early")?;
    let (published, dropped) = (early.half("published")?, early.half("dropped")?);
    ensure!(early.says(&published, Says::Commit)?.0 == 0);
    ensure!(early.says(&dropped, Says::RollBack)?.0 == 0);
    for kill in 0..KILLS {
        fill(&stage)?;
        // Every other time at once, whatever it is carrying or deleting.
        if kill % 2 == 1 {
            is_trimmed(&stage)?;
        }
        stage.server = stage.server.crash()?;
    }
    is_trimmed(&stage)?;

    let mut producer = stage.stranger()?;
    let wrong = committed.beside(&rolled_back);
    let (code, why) = producer.says(&wrong, Says::Commit)?;
    assert_eq!(code, 1, "one's position with another's offset: {why}");
    assert_eq!(producer.says(&committed, Says::Commit)?.0, 0);
    assert_eq!(producer.says(&rolled_back, Says::RollBack)?.0, 0);
    for again in [false, true] {
        if again {
            stage.server = stage.server.crash()?;
        }
        let mut producer = stage.stranger()?;
        is_decided(&mut producer, &committed, Says::Commit, "committed")?;
        is_decided(&mut producer, &rolled_back, Says::RollBack, "rolled back")?;
        let mut early = Producer::connect(stage.server.broker(), CLIENT, "early", "early")?;
        is_decided(&mut early, &published, Says::Commit, "committed")?;
        is_decided(&mut early, &dropped, Says::RollBack, "rolled back")?;
        assert_eq!(stage.delivered(1)?, ["committed"]);
    }
    let mut producer = stage.stranger()?;
    let asked = producer.asked(FIRST).context("nobody is asked")?;
    assert_eq!(asked, open, "by its first position and offset");
    producer.answers(&asked, Says::Commit)?;
    assert_eq!(stage.delivered(2)?, ["committed", "open"]);

    stage.server.kill()?;
    let data = stage.server.data().context("it is ours")?;
    let mut verify = Program::new(env!("CARGO_BIN_EXE_server"))
        .argument("audit")
        .argument("verify")
        .argument("--data")
        .argument(data);
    if let Some(url) = &stage.postgres {
        verify = verify.argument("--database").argument(url);
    }
    let verified = verify.limit(WITHIN).run(&Kill::Never)?;
    ensure!(verified.status.success(), "{}", verified.told());
    Ok(())
}

#[test]
fn story_17_a_server_that_is_killed_while_its_log_is_trimmed_decides_by_the_first_identity()
-> Result<()> {
    trimmed(On::Sqlite)
}

#[test]
fn on_postgres_story_17_a_server_that_is_killed_while_its_log_is_trimmed_decides_by_the_first_identity()
-> Result<()> {
    trimmed(On::Postgres)
}
