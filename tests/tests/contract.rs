//! What a producer may rely on, whatever it says and however often: one decision for each half message.
//!
//! The tests speak in raw frames and can judge any RocketMQ: start one with `transactionTimeOut` 2 s,
//! `transactionCheckInterval` 3 s and `transactionCheckMax` 4, and name its nameserver in `HALFMOON_TEST_NAMESERVER`; see
//! CONTRIBUTING.md.

mod foreign;
mod frozen;
mod member;
mod operator;
mod retention;
mod stop;
mod stories;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use mq_core::random::{Random, SystemRandom};

use tests::server::{Plan, Server};

use self::member::{Half, Producer, Says, delivered};

/// How long a first check-back may take: immunity, the original's interval, and a busy machine.
const FIRST: Duration = Duration::from_secs(15);
/// How long the next ones may take.
const NEXT: Duration = Duration::from_secs(10);
/// The client id of the producer.
const CLIENT: &str = "10.0.0.1@1";
/// Longer than the time between two check-backs.
const QUIET: Duration = Duration::from_secs(5);

/// What the tests need of a server: check-backs soon, and few of them.
const SETTINGS: &str =
    "transactionTimeOut=2000\ntransactionCheckInterval=3000\ntransactionCheckMax=4\n";

fn server() -> Plan {
    Plan::of(env!("CARGO_BIN_EXE_server")).settings(SETTINGS)
}

/// A server, and names that nobody else uses there.
struct Story {
    server: Server,
    group: String,
    topic: String,
    producer: Producer,
}

impl Story {
    fn begin(name: &str) -> Result<Self> {
        Self::at(server().start()?, name)
    }

    fn at(server: Server, name: &str) -> Result<Self> {
        let unique = format!("{name}-{:08x}", SystemRandom.next_u64() as u32);
        let (group, topic) = (format!("group-{unique}"), format!("topic-{unique}"));
        let producer = Producer::connect(server.broker(), CLIENT, &group, &topic)?;
        Ok(Self {
            server,
            group,
            topic,
            producer,
        })
    }

    fn other(&self, client: &str) -> Result<Producer> {
        Producer::connect(self.server.broker(), client, &self.group, &self.topic)
    }

    fn delivered(&self, count: usize) -> Result<Vec<String>> {
        let at_most = Duration::from_secs(if count == 0 { 1 } else { 10 });
        delivered(self.server.broker(), &self.topic, count, at_most)
    }

    /// Waits for the first check-back.
    fn asked(&mut self) -> Result<Half> {
        self.producer.asked(FIRST).context("no check-back")
    }
}

#[test]
fn t0_a_committed_half_message_is_delivered_once() -> Result<()> {
    let mut story = Story::begin("t0")?;
    let half = story.producer.half("m")?;
    assert_eq!(story.delivered(0)?, [""; 0], "seen before it is decided");
    assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    assert_eq!(story.delivered(1)?, ["m"]);
    Ok(())
}

#[test]
fn t1_commit_twice_delivers_once() -> Result<()> {
    let mut story = Story::begin("t1")?;
    let half = story.producer.half("m")?;
    for _ in 0..2 {
        assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    }
    assert_eq!(story.delivered(1)?, ["m"]);
    Ok(())
}

#[test]
fn t2_commit_after_rollback_is_refused_and_delivers_nothing() -> Result<()> {
    let mut story = Story::begin("t2")?;
    let half = story.producer.half("m")?;
    assert_eq!(story.producer.says(&half, Says::RollBack)?.0, 0);
    let (code, remark) = story.producer.says(&half, Says::Commit)?;
    assert_eq!(story.delivered(0)?, [""; 0]);
    assert_eq!(code, 1, "{remark}");
    for part in ["rolled back", "by producer", "recorded"] {
        assert!(remark.contains(part), "{remark}");
    }
    Ok(())
}

#[test]
fn t3_a_late_commit_after_a_check_back_that_committed_delivers_once() -> Result<()> {
    let mut story = Story::begin("t3")?;
    let half = story.producer.half("m")?;
    let asked = story.asked()?;
    assert_eq!(asked.unique(), half.unique());
    story.producer.answers(&asked, Says::Commit)?;
    assert_eq!(story.delivered(1)?, ["m"]);
    assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    assert_eq!(story.delivered(1)?, ["m"]);
    Ok(())
}

#[test]
fn t4_a_late_commit_after_a_check_back_that_rolled_back_delivers_nothing() -> Result<()> {
    let mut story = Story::begin("t4")?;
    let half = story.producer.half("m")?;
    let asked = story.asked()?;
    story.producer.answers(&asked, Says::RollBack)?;
    let (code, remark) = story.producer.says(&half, Says::Commit)?;
    assert_eq!(story.delivered(0)?, [""; 0]);
    assert_eq!(code, 1, "{remark}");
    assert!(remark.contains("by check-back"), "{remark}");
    Ok(())
}

#[test]
fn t5_once_decided_nobody_is_asked_any_more() -> Result<()> {
    let mut story = Story::begin("t5")?;
    let half = story.producer.half("m")?;
    story.asked()?;
    assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    assert_eq!(story.delivered(1)?, ["m"]);
    // What was asked before the decision may still be on its way.
    while story.producer.asked(Duration::from_secs(1)).is_some() {}
    let again = story.producer.asked(QUIET);
    assert_eq!(again, None, "asked about a decided transaction");
    Ok(())
}

#[test]
fn t6a_a_transaction_that_is_parked_can_still_be_committed_once() -> Result<()> {
    let mut story = Story::begin("t6a")?;
    let half = story.producer.half("m")?;
    let mut asked = 0;
    loop {
        let at_most = match asked {
            0 => FIRST,
            1..4 => NEXT,
            _ => QUIET,
        };
        let Some(question) = story.producer.asked(at_most) else {
            break;
        };
        asked += 1;
        story.producer.answers(&question, Says::Unknown)?;
    }
    // Four answers use the budget up. On a slow machine a question is repeated before its answer has arrived.
    assert!((4..=8).contains(&asked), "asked {asked} times");
    assert_eq!(story.delivered(0)?, [""; 0]);
    for _ in 0..2 {
        assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    }
    assert_eq!(story.delivered(1)?, ["m"]);
    Ok(())
}

#[test]
fn t6b_check_backs_that_nobody_answers_use_nothing_up() -> Result<()> {
    let mut story = Story::begin("t6b")?;
    let half = story.producer.half("m")?;
    for time in 1..=5 {
        let at_most = if time == 1 { FIRST } else { NEXT };
        let asked = story.producer.asked(at_most);
        asked.with_context(|| format!("check-back {time}, of which none was answered"))?;
    }
    assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    assert_eq!(story.delivered(1)?, ["m"]);
    Ok(())
}

#[test]
fn t7_a_stranger_of_the_group_is_not_asked_while_the_sender_is_connected() -> Result<()> {
    let mut story = Story::begin("t7")?;
    let mut stranger = story.other("10.0.0.2@2")?;
    for number in 0..6 {
        story.producer.half(&format!("m{number}"))?;
    }
    let mut asked = 0;
    while let Some(half) = story.producer.asked(if asked == 0 { FIRST } else { QUIET }) {
        asked += 1;
        story.producer.answers(&half, Says::Commit)?;
    }
    let mut delivered = story.delivered(6)?;
    delivered.sort();
    assert_eq!(stranger.asked(Duration::from_millis(1)), None);
    assert_eq!(delivered, ["m0", "m1", "m2", "m3", "m4", "m5"]);
    Ok(())
}

#[test]
fn after_kill_9_the_producer_comes_back_and_answers_for_its_half_messages() -> Result<()> {
    let mut story = Story::begin("kill")?;
    if !story.server.is_ours() {
        return Ok(());
    }
    let half = story.producer.half("m")?;
    let lost = story.producer.half("lost")?;
    let server = story.server.crash()?;
    let mut story = Story {
        producer: Producer::connect(server.broker(), CLIENT, &story.group, &story.topic)?,
        server,
        ..story
    };
    // Asked again until the answer has arrived: on a slow machine twice about the same one.
    let mut waiting = vec![half.unique(), lost.unique()];
    while !waiting.is_empty() {
        let asked = story.asked()?;
        waiting.retain(|unique| *unique != asked.unique());
        let is_half = asked.unique() == half.unique();
        let says = if is_half {
            Says::Commit
        } else {
            Says::RollBack
        };
        story.producer.answers(&asked, says)?;
    }
    assert_eq!(story.delivered(1)?, ["m"]);
    assert_eq!(story.producer.says(&lost, Says::Commit)?.0, 1);
    assert_eq!(story.producer.says(&half, Says::Commit)?.0, 0);
    assert_eq!(story.delivered(1)?, ["m"]);
    Ok(())
}

/// Kills the server at `step` of a half message that is sent and committed; the producer comes back.
fn killed_at(step: &str) -> Result<()> {
    let mut story = Story::at(server().killed_at(step).start()?, "step")?;
    if step.starts_with("half.") {
        story.producer.sends("m")?;
    } else {
        let half = story.producer.half("m")?;
        story.producer.answers(&half, Says::Commit)?;
    }
    let server = story.server.again()?;
    let mut story = Story {
        producer: Producer::connect(server.broker(), CLIENT, &story.group, &story.topic)?,
        server,
        ..story
    };
    let decided = [
        "decision.committed",
        "decision.published",
        "decision.answered",
    ];
    // The batch in which the server died may have been that of the half message alone: then it is open, and asked about.
    if !decided.contains(&step) || story.delivered(1)?.is_empty() {
        let asked = story.asked().with_context(|| step.to_owned())?;
        story.producer.answers(&asked, Says::Commit)?;
    }
    assert_eq!(story.delivered(1)?, ["m"], "{step}");
    Ok(())
}

#[test]
fn a_kill_at_any_step_leads_to_one_delivery() -> Result<()> {
    let steps = [
        "half.durable",
        "decision.before_commit",
        "decision.committed",
        "decision.published",
        "decision.answered",
    ];
    let runs = steps.map(|step| thread::spawn(move || killed_at(step)));
    for run in runs {
        run.join().expect("a test that fails says why")?;
    }
    Ok(())
}
