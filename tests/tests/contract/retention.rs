//! A log that deletes what is old: half messages that stay open meanwhile, consumers that lag behind, backups and repairs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mq_core::clock::{Clock, SystemClock};
use mq_core::random::{Random, SeededRandom};
use tests::checker::{Phase, check, folder};
use tests::process::{Ended, Kill, Program, pause};
use tests::raw::{Connection, Frame, bodies};

use super::member::{Half, Producer, Says, pulled};
use super::stories::{Stage, WITHIN};
use super::{CLIENT, FIRST};
use crate::crash::runs::On;
use crate::one_history::kept::KeptDatabase;

/// A log of a few small segments.
const SMALL: [(&str, &str); 2] = [
    ("HALFMOON_SEGMENT", "64KiB"),
    ("HALFMOON_KEEP_BYTES", "256KiB"),
];
/// How often the server is killed.
const KILLS: u32 = 6;
/// How long the server goes on at most before a kill, in milliseconds: it looks at what it deletes every few seconds.
const LATEST_MS: u64 = 2_000;

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
    begins_behind(stage, 0)
}

/// Waits until the segment with this position is deleted.
fn begins_behind(stage: &Stage, position: u64) -> Result<()> {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let mut producer = Producer::connect(stage.server.broker(), "filler@2", "fillers", "other")?;
    while oldest(stage)? <= position {
        let late = clock.monotonic().saturating_sub(start) > WITHIN;
        ensure!(!late, "the oldest segment stays: {}", stage.server.told());
        fill(stage)?;
        // The database reflects all before it.
        let half = producer.half("whatever")?;
        ensure!(producer.says(&half, Says::RollBack)?.0 == 0);
        pause(Duration::from_millis(50));
    }
    Ok(())
}

/// Where the oldest segment begins.
fn oldest(stage: &Stage) -> Result<u64> {
    let names = std::fs::read_dir(data(stage)?.join("log"))?;
    let starts = names.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".log")?.parse().ok()
    });
    starts.min().context("there is no segment")
}

fn data(stage: &Stage) -> Result<PathBuf> {
    stage.server.data().context("it is ours")
}

/// Runs `halfmoon` with these arguments over the data folder, and expects this exit status.
fn command(stage: &Stage, arguments: &[&str], status: i32) -> Result<Ended> {
    let mut program = Program::new(env!("CARGO_BIN_EXE_server")).limit(WITHIN);
    for argument in arguments {
        program = program.argument(argument);
    }
    program = program.argument("--data").argument(data(stage)?);
    if let Some(url) = &stage.postgres {
        program = program.argument("--database").argument(url);
    }
    let ended = program.run(&Kill::Never)?;
    let told = ended.told();
    ensure!(ended.status.code() == Some(status), "{arguments:?}: {told}");
    Ok(ended)
}

/// History, rows and log fit together, to the product and to a judge of our own.
fn is_clean(stage: &Stage) -> Result<()> {
    command(stage, &["audit", "verify"], 0)?;
    let data = data(stage)?;
    let world = stage.runtime.block_on(async {
        match &stage.postgres {
            None => folder::read(&data).await,
            Some(url) => folder::read_with_postgres(&data, url).await,
        }
    });
    let report = check(&world?, Phase::Anytime);
    ensure!(report.is_clean(), "{report}");
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
    let random = SeededRandom::new(17);
    for kill in 0..KILLS {
        fill(&stage)?;
        // Whatever it is carrying or deleting when it is killed.
        if kill % 2 == 1 {
            is_trimmed(&stage)?;
        }
        pause(Duration::from_millis(random.next_u64() % LATEST_MS));
        stage.server.kill()?;
        is_clean(&stage)?;
        stage.server = stage.server.again()?;
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
    is_clean(&stage)?;
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

/// What a broker says of queue 0 of a topic: 30 is the next offset, 31 the first one that is kept.
fn offset(connection: &mut Connection, code: i64, topic: &str) -> Result<u64> {
    let request = Frame::request(code, &[("topic", topic), ("queueId", "0")], b"");
    let answer = connection.call(&request)?;
    ensure!(answer.code == 0, "{answer:?}");
    answer.number("offset")
}

fn lagging(on: On) -> Result<()> {
    const MOVED: i64 = 21;
    let mut stage = Stage::begin_with(on, &SMALL)?;
    let mut quiet = Producer::connect(stage.server.broker(), CLIENT, "quiet", "quiet")?;
    for _ in 0..3 {
        quiet.plain(b"early", "")?;
    }
    is_trimmed(&stage)?;
    let mut reader = Connection::open(stage.server.broker())?;
    let end = offset(&mut reader, 30, "filler")?;
    let mut first = 0;
    for start in 0..2 {
        let kept = offset(&mut reader, 31, "filler")?;
        ensure!(first <= kept && 0 < kept && kept < end, "{kept} of {end}");
        first = kept;
        assert_eq!(offset(&mut reader, 30, "filler")?, end, "start {start}");
        for behind in [0, kept - 1] {
            let moved = pulled(&mut reader, "filler", behind)?;
            assert_eq!(moved.code, MOVED, "{moved:?}");
            assert_eq!(moved.number("nextBeginOffset")?, kept);
            assert_eq!(moved.number("minOffset")?, kept);
        }
        let next = pulled(&mut reader, "filler", kept)?;
        assert_eq!(next.code, 0, "{next:?}");
        assert_eq!(bodies(&next.body)?.first(), Some(&vec![7; 3000]));
        // Nothing is left of this one.
        for code in [30, 31] {
            assert_eq!(offset(&mut reader, code, "quiet")?, 3);
        }
        stage.server = stage.server.crash()?;
        reader = Connection::open(stage.server.broker())?;
    }
    let mut quiet = Producer::connect(stage.server.broker(), CLIENT, "quiet", "quiet")?;
    quiet.plain(b"late", "")?;
    assert_eq!(offset(&mut reader, 30, "quiet")?, 4);
    let late = pulled(&mut reader, "quiet", 3)?;
    assert_eq!(bodies(&late.body)?, [b"late"]);
    fill(&stage)?;
    assert_eq!(offset(&mut reader, 30, "filler")?, end + 40);
    Ok(())
}

#[test]
fn a_consumer_that_lags_behind_goes_on_at_the_first_message_that_is_kept() -> Result<()> {
    lagging(On::Sqlite)
}

#[test]
fn on_postgres_a_consumer_that_lags_behind_goes_on_at_the_first_message_that_is_kept() -> Result<()>
{
    lagging(On::Postgres)
}

/// Half messages that stay open, in a log that no longer keeps them where they stood first.
fn carried(on: On, names: [&str; 3]) -> Result<(Stage, [Half; 3])> {
    let stage = Stage::begin_with(on, &SMALL)?;
    let mut producer = stage.stranger()?;
    let mut half = |name| producer.half(name);
    let halves = [half(names[0])?, half(names[1])?, half(names[2])?];
    is_trimmed(&stage)?;
    Ok((stage, halves))
}

fn restored(on: On) -> Result<()> {
    let (mut stage, halves) = carried(on, ["committed", "rolled back", "open"])?;
    let [committed, rolled_back, open] = &halves;
    let (data, url) = (data(&stage)?, stage.postgres.clone());
    // What pg_dump does; a file of SQLite's is in the backup.
    let dump = url.as_deref().map(|url| {
        let kept = KeptDatabase::of(&data, Some(url));
        stage.runtime.block_on(kept)
    });
    let folder = tempfile::tempdir()?;
    let backup = folder.path().join("backup");
    let into = backup.to_str().context("text")?;
    command(&stage, &["backup", into], 0)?;
    stage.server.kill()?;
    std::fs::remove_dir_all(&data)?;
    if let Some(dump) = dump {
        stage.runtime.block_on(dump.put_back(&data, url.as_deref()));
    }
    command(&stage, &["restore", into], 0)?;
    ensure!(oldest(&stage)? > 0, "the log begins later");
    stage.server = stage.server.again()?;
    let mut producer = stage.stranger()?;
    assert_eq!(producer.says(committed, Says::Commit)?.0, 0);
    assert_eq!(producer.says(rolled_back, Says::RollBack)?.0, 0);
    is_decided(&mut producer, committed, Says::Commit, "by producer")?;
    is_decided(&mut producer, rolled_back, Says::RollBack, "by producer")?;
    assert_eq!(stage.delivered(1)?, ["committed"]);
    let asked = producer.asked(FIRST).context("nobody is asked")?;
    assert_eq!(asked, *open, "by its first position and offset");
    stage.server.kill()?;
    is_clean(&stage)
}

#[test]
fn a_backup_whose_log_was_trimmed_is_restored_and_decides_by_the_first_identity() -> Result<()> {
    restored(On::Sqlite)
}

#[test]
fn on_postgres_a_backup_whose_log_was_trimmed_is_restored_and_decides_by_the_first_identity()
-> Result<()> {
    restored(On::Postgres)
}

fn repaired(on: On) -> Result<()> {
    let (mut stage, halves) = carried(on, ["committed", "rolled back", "open"])?;
    let [committed, rolled_back, open] = &halves;
    let (data, url) = (data(&stage)?, stage.postgres.clone());
    stage.server.kill()?;
    let yesterday = KeptDatabase::of(&data, url.as_deref());
    let yesterday = stage.runtime.block_on(yesterday);
    let owner = stage.runtime.block_on(stage.reader()?.owner())?;
    let reflected = owner.context("it is owned")?.watermark.0;
    stage.server = stage.server.again()?;
    let mut producer = stage.stranger()?;
    assert_eq!(producer.says(committed, Says::Commit)?.0, 0);
    assert_eq!(producer.says(rolled_back, Says::RollBack)?.0, 0);
    assert_eq!(stage.delivered(1)?, ["committed"]);
    stage.server.kill()?;
    ensure!(oldest(&stage)? <= reflected, "no more than that is deleted");
    let put_back = yesterday.put_back(&data, url.as_deref());
    stage.runtime.block_on(put_back);
    command(&stage, &["repair", "--yes"], 0)?;
    stage.server = stage.server.again()?;
    let mut producer = stage.stranger()?;
    is_decided(&mut producer, committed, Says::Commit, "by recovery")?;
    // Its echo may have been lost: nobody waits for it.
    is_decided(&mut producer, rolled_back, Says::RollBack, "rolled back")?;
    assert_eq!(producer.says(open, Says::Commit)?.0, 0);
    assert_eq!(stage.delivered(2)?, ["committed", "open"]);
    begins_behind(&stage, reflected)?;
    stage.server.kill()?;
    is_clean(&stage)?;

    let put_back = yesterday.put_back(&data, url.as_deref());
    stage.runtime.block_on(put_back);
    let told = command(&stage, &["repair", "--yes"], 2)?.told();
    for said in [
        "the log begins at",
        "is deleted",
        "restore a newer database",
    ] {
        ensure!(told.contains(said), "{said}: {told}");
    }
    Ok(())
}

#[test]
fn story_4_yesterdays_database_is_repaired_unless_the_log_has_deleted_what_it_lacks() -> Result<()>
{
    repaired(On::Sqlite)
}

#[test]
fn on_postgres_story_4_yesterdays_database_is_repaired_unless_the_log_has_deleted_what_it_lacks()
-> Result<()> {
    repaired(On::Postgres)
}
