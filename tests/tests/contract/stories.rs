//! Interleavings with a network in them, in raw frames, over a server on SQLite and over one on Postgres.
//!
//! The numbers are those of `docs/interleavings.md`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator::store::{Filter, Row, TxReader, postgres, sqlite};
use coordinator::transaction::State;
use mq_core::clock::{Clock, SystemClock};
use tests::raw::{Connection, Frame};
use tests::server::{Plan, Server};
use tokio::runtime::Runtime;

use super::foreign::story_28_what_no_database_takes_as_text_costs_nobody_else_anything;
use super::frozen::story_27_a_frozen_owner_holds_nobody_up_for_ever_and_loses_nothing;
use super::member::{Half, Native, Producer, Says, everything};
use super::{CLIENT, FIRST, NEXT, QUIET, SETTINGS};
use crate::crash::runs::On;

/// Tells each story twice.
macro_rules! on_both_databases {
    ($($story:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[test]
                fn $story() -> anyhow::Result<()> {
                    super::$story(super::Stage::begin(super::On::Sqlite)?)
                }
            )+
        }
        mod on_postgres {
            $(
                #[test]
                fn $story() -> anyhow::Result<()> {
                    super::$story(super::Stage::begin(super::On::Postgres)?)
                }
            )+
        }
    };
}

on_both_databases!(
    story_16_an_orphan_of_a_lost_answer_is_asked_about_and_rolled_back,
    story_22_a_restart_or_a_cut_connection_has_nobody_else_asked_about_what_still_runs,
    story_23_a_producer_that_is_killed_before_its_row_is_stored_is_asked_about_at_once,
    story_24_what_a_producer_cannot_take_is_asked_again_and_uses_nothing_up,
    story_27_a_frozen_owner_holds_nobody_up_for_ever_and_loses_nothing,
    story_28_what_no_database_takes_as_text_costs_nobody_else_anything,
    story_34_properties_make_no_half_message,
    story_35_a_position_inside_a_body_names_no_half_message,
    story_36_two_processes_under_one_client_id_are_two_and_two_connections_are_one,
);

/// The marker table of the service.
const MARKER: u128 = 0xDB;
pub(super) const GROUP: &str = "shop";
pub(super) const TOPIC: &str = "orders";
/// How long anything that must happen may take on a busy machine.
pub(super) const WITHIN: Duration = Duration::from_secs(60);
/// Longer than a sender must be gone before another instance is asked.
const GRACE: Duration = Duration::from_secs(1);

/// A server over a database, and the service's processes.
pub(super) struct Stage {
    pub(super) server: Server,
    /// The URL of its database, on Postgres.
    pub(super) postgres: Option<String>,
    /// What speaks to the database beside the server.
    pub(super) runtime: Runtime,
}

impl Stage {
    fn begin(on: On) -> Result<Self> {
        Self::begin_with(on, &[])
    }

    /// The same with these variables in the server's environment.
    pub(super) fn begin_with(on: On, variables: &[(&'static str, &str)]) -> Result<Self> {
        let runtime = Runtime::new()?;
        let postgres = match on {
            On::Sqlite => None,
            On::Postgres => {
                let database = runtime.block_on(private_postgres::database());
                Some(private_postgres::url_of(&database))
            }
        };
        let mut plan = Plan::of(env!("CARGO_BIN_EXE_server")).settings(SETTINGS);
        if let Some(url) = &postgres {
            plan = plan.variable("HALFMOON_DATABASE", url);
        }
        for (name, value) in variables {
            plan = plan.variable(name, *value);
        }
        Ok(Self {
            server: plan.start()?,
            postgres,
            runtime,
        })
    }

    /// A process of the service, under this client id and in this life.
    fn process(&self, client: &str, incarnation: u128) -> Result<Producer> {
        self.process_at(self.server.broker(), client, incarnation)
    }

    /// The same, connected to this address.
    fn process_at(&self, address: &str, client: &str, incarnation: u128) -> Result<Producer> {
        let native = Native {
            incarnation,
            marker: MARKER,
        };
        Producer::connect_as(address, client, GROUP, TOPIC, Some(native))
    }

    /// A producer as all others are.
    pub(super) fn stranger(&self) -> Result<Producer> {
        Producer::connect(self.server.broker(), CLIENT, GROUP, TOPIC)
    }

    /// What was delivered once so much was, in order of names.
    pub(super) fn delivered(&self, count: usize) -> Result<Vec<String>> {
        let mut names = everything(self.server.broker(), TOPIC, count, WITHIN)?;
        names.sort();
        Ok(names)
    }

    /// Reads the database beside the server.
    pub(super) fn reader(&self) -> Result<std::sync::Arc<dyn TxReader>> {
        let reader = match &self.postgres {
            Some(url) => self
                .runtime
                .block_on(postgres::open_reader(url, postgres::Options::default())),
            None => {
                let data = self.server.data().context("it is ours")?;
                let file = data.join("halfmoon.db");
                self.runtime
                    .block_on(sqlite::open_reader(file, sqlite::Options::default()))
            }
        };
        Ok(reader?)
    }

    /// All transactions, once there are so many.
    pub(super) fn rows(&self, count: usize) -> Result<Vec<Row>> {
        let reader = self.reader()?;
        let all = Filter {
            limit: 10_000,
            ..Filter::default()
        };
        let clock = SystemClock::new();
        let start = clock.monotonic();
        loop {
            let rows = self.runtime.block_on(reader.list(&all))?;
            let late = clock.monotonic().saturating_sub(start) > WITHIN;
            if rows.len() >= count || late {
                return Ok(rows);
            }
        }
    }
}

fn story_16_an_orphan_of_a_lost_answer_is_asked_about_and_rolled_back(stage: Stage) -> Result<()> {
    let mut service = stage.process(CLIENT, 1)?;
    service.posts("orphan", true)?;
    drop(service);
    assert_eq!(stage.rows(1)?.len(), 1, "it is stored");
    let mut service = stage.process(CLIENT, 1)?;
    let second = service.half("second")?;
    assert_eq!(service.says(&second, Says::Commit)?.0, 0);
    // Its process has no marker of it, and plants a tombstone.
    let orphan = service.asked(FIRST).context("nobody asks")?;
    assert_eq!(orphan.unique(), "orphan");
    service.answers(&orphan, Says::RollBack)?;
    assert_eq!(stage.delivered(1)?, ["second"]);
    let (code, why) = service.says(&orphan, Says::Commit)?;
    assert!(code == 1 && why.contains("rolled back"), "{code} {why}");
    let rows = stage.rows(2)?;
    assert_eq!(rows.len(), 2, "each attempt is one");
    for (half, state) in [(&orphan, State::RolledBack), (&second, State::Committed)] {
        let row = rows
            .iter()
            .find(|row| row.half.position.0 == half.position());
        assert_eq!(row.map(|row| row.state), Some(state));
    }
    assert_eq!(stage.delivered(1)?, ["second"]);
    Ok(())
}

fn story_22_a_restart_or_a_cut_connection_has_nobody_else_asked_about_what_still_runs(
    mut stage: Stage,
) -> Result<()> {
    const MANY: usize = 200;
    let mut service = stage.process(CLIENT, 1)?;
    let mut halves = Vec::new();
    for number in 0..MANY {
        halves.push(service.half(&format!("m{number:03}"))?);
    }
    drop(service);
    stage.server = stage.server.crash()?;
    let mut service = stage.process(CLIENT, 1)?;
    let mut other = stage.process("10.0.0.2@2", 2)?;
    all_in_flight(&mut service, MANY)?;

    // Whatever stands between cuts the connection of the one alone.
    let clock = SystemClock::new();
    loop {
        let start = clock.monotonic();
        drop(service);
        service = stage.process(CLIENT, 1)?;
        // On a machine that is too busy it may have been away for longer than the grace time, rightly so.
        if clock.monotonic().saturating_sub(start) < GRACE / 4 {
            break;
        }
        while other.asked(Duration::ZERO).is_some() {}
    }
    all_in_flight(&mut service, MANY)?;
    for half in &halves {
        assert_eq!(service.says(half, Says::Commit)?.0, 0);
    }
    assert_eq!(other.asked(Duration::ZERO), None, "it would fence them");
    assert_eq!(stage.delivered(MANY)?.len(), MANY);
    Ok(())
}

/// The process itself is asked about all of them, and says that they still run.
fn all_in_flight(service: &mut Producer, many: usize) -> Result<()> {
    let mut asked = BTreeSet::new();
    let clock = SystemClock::new();
    let start = clock.monotonic();
    while asked.len() < many {
        let late = clock.monotonic().saturating_sub(start) > WITHIN;
        ensure!(!late, "it is asked about {} of {many}", asked.len());
        let question = service.asked(FIRST).context("it is not asked itself")?;
        service.answers_in_flight(&question)?;
        asked.insert(question.position());
    }
    Ok(())
}

fn story_23_a_producer_that_is_killed_before_its_row_is_stored_is_asked_about_at_once(
    stage: Stage,
) -> Result<()> {
    let mut other = stage.process("10.0.0.2@2", 2)?;
    for round in 0..10 {
        let name = format!("m{round}");
        // The row is written when the connection is gone already: it is held back for 50 ms.
        stage.process(CLIENT, 100 + round)?.posts(&name, true)?;
        let asked = other.asked(NEXT);
        let asked = asked.with_context(|| format!("nobody asks about {name}"))?;
        assert_eq!(asked.unique(), name);
        other.answers(&asked, Says::RollBack)?;
        assert_eq!(other.says(&asked, Says::Commit)?.0, 1);
        while other.asked(Duration::ZERO).is_some() {}
    }
    Ok(())
}

fn story_24_what_a_producer_cannot_take_is_asked_again_and_uses_nothing_up(
    stage: Stage,
) -> Result<()> {
    /// Java's producer holds so many questions and rejects all others.
    const HOLDS: usize = 2_000;
    const MANY: usize = HOLDS + 500;
    /// More than may be answered with UNKNOWN: see [`SETTINGS`].
    const IN_VAIN: usize = 5;
    /// No more are unanswered at a time.
    const MOST: usize = 1_000;
    let mut service = stage.stranger()?;
    for number in 0..MANY {
        service.posts(&format!("m{number:04}"), true)?;
    }
    // A half-open connection swallows whatever is asked, again and again.
    let mut about_one = 0;
    let mut first = None;
    let (mut different, mut repeats) = (BTreeSet::new(), false);
    while about_one < IN_VAIN {
        let question = service.asked(FIRST).context("nobody asks")?;
        // The first whose time is up is asked about again before there is room for another.
        repeats |= different.contains(&question.position());
        if !repeats {
            different.insert(question.position());
        }
        let first = first.get_or_insert_with(|| question.position());
        about_one += usize::from(*first == question.position());
    }
    ensure!(different.len() <= MOST, "{} at a time", different.len());
    // Then so many are held and answered, and all others are lost, in each round.
    let mut answered = BTreeSet::new();
    while answered.len() < MANY {
        let mut held = Vec::new();
        let mut at_most = FIRST;
        while let Some(question) = service.asked(at_most) {
            at_most = Duration::from_millis(100);
            if held.len() < HOLDS && answered.insert(question.position()) {
                held.push(question);
            }
            if held.len() == HOLDS {
                break;
            }
        }
        ensure!(!held.is_empty(), "{} are forgotten", MANY - answered.len());
        for question in &held {
            service.answers(question, Says::Commit)?;
        }
    }
    assert_eq!(stage.delivered(MANY)?.len(), MANY);
    let rows = stage.rows(MANY)?;
    assert!(rows.iter().all(|row| row.checks == 0), "something counted");
    Ok(())
}

fn story_34_properties_make_no_half_message(stage: Stage) -> Result<()> {
    let mut service = stage.stranger()?;
    let pretends =
        "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}shop\u{2}REAL_TOPIC\u{1}other\u{2}a\u{1}b\u{1}c\u{2}";
    let plain = service.plain(b"plain", pretends)?;
    assert_eq!(stage.delivered(1)?, ["plain"], "at once, where it was sent");
    let half = service.half("half")?;
    assert_eq!(service.says(&half, Says::Commit)?.0, 0);
    assert_eq!(stage.delivered(2)?, ["half", "plain"]);
    // Both are sent back by a consumer, as they are.
    let mut reader = Connection::open(stage.server.broker())?;
    for offset in [plain, position_of(&mut reader, 1)?] {
        let fields = [
            ("offset", &*offset.to_string()),
            ("group", "contract-readers"),
            ("delayLevel", "1"),
            ("originTopic", TOPIC),
            ("maxReconsumeTimes", "16"),
        ];
        let answer = reader.call(&Frame::request(36, &fields, b""))?;
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    let retry = "%RETRY%contract-readers";
    let mut again = everything(stage.server.broker(), retry, 2, WITHIN)?;
    again.sort();
    assert_eq!(again, ["half", "plain"]);
    assert_eq!(service.asked(QUIET), None, "asked about a whole message");
    let states: Vec<State> = stage.rows(1)?.iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Committed], "the half message alone");
    Ok(())
}

/// Where the message with this number in the queue is stored.
fn position_of(reader: &mut Connection, number: usize) -> Result<u64> {
    let records = super::member::records(reader, TOPIC, number)?;
    let position = records.get(28..36).context("a short record")?;
    Ok(u64::from_be_bytes(position.try_into()?))
}

fn story_35_a_position_inside_a_body_names_no_half_message(stage: Stage) -> Result<()> {
    /// Where the body of a record begins.
    const BODY: u64 = 88;
    let mut service = stage.stranger()?;
    let (real, other) = (service.half("real")?, service.half("other")?);
    // What is stored there looks like a half message of the group, down to its place.
    let first = service.plain(b"first", "")?;
    let mut reader = Connection::open(stage.server.broker())?;
    let size = super::member::records(&mut reader, TOPIC, 0)?.len() as u64;
    let looks = forged_record(first + size + BODY, other.offset() + 1);
    let carrier = service.plain(&looks, "")?;
    let inside = carrier + BODY;
    for half in [
        Half::forged(inside, other.offset() + 1, "forged"),
        Half::forged(inside, real.offset(), "forged"),
        Half::forged(inside, real.offset(), "real"),
        Half::forged(carrier, real.offset(), "real"),
        Half::forged(real.position() + 1, real.offset(), "real"),
        Half::forged(u64::MAX / 2, real.offset(), "real"),
        Half::forged(real.position(), other.offset(), "real"),
        Half::forged(other.position(), real.offset(), "other"),
    ] {
        for says in [Says::Commit, Says::RollBack] {
            let (code, why) = service.says(&half, says)?;
            assert!(code == 1 && !why.is_empty(), "{half:?}: {code} {why}");
        }
    }
    assert_eq!(stage.delivered(2)?.len(), 2, "the two that were sent whole");
    assert_eq!(service.says(&real, Says::Commit)?.0, 0);
    assert_eq!(stage.delivered(3)?.len(), 3);
    let states: BTreeSet<State> = stage.rows(2)?.iter().map(|row| row.state).collect();
    assert_eq!(states.len(), 2, "one is committed, the other open");
    Ok(())
}

/// A whole record, as RocketMQ stores a half message without a body.
fn forged_record(position: u64, offset: u64) -> Vec<u8> {
    let topic = b"RMQ_SYS_TRANS_HALF_TOPIC";
    let properties = format!(
        "UNIQ_KEY\u{1}forged\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{GROUP}\u{2}REAL_TOPIC\u{1}{TOPIC}\u{2}REAL_QID\u{1}0\u{2}"
    );
    let mut record = Vec::new();
    record.extend(0xDAA3_20A7_u32.to_be_bytes());
    record.extend([0; 4]); // CRC of nothing
    record.extend([0; 4]); // queue
    record.extend([0; 4]); // flag
    record.extend(offset.to_be_bytes());
    record.extend(position.to_be_bytes());
    record.extend(4_u32.to_be_bytes()); // a half message
    record.extend([0; 8]); // born
    record.extend([127, 0, 0, 1, 0, 0, 0x2A, 0x9F]);
    record.extend([0; 8]); // stored
    record.extend([127, 0, 0, 1, 0, 0, 0x2A, 0x9F]);
    record.extend([0; 4]); // consumed again
    record.extend([0; 8]); // prepared at
    record.extend([0; 4]); // no body
    record.push(topic.len() as u8);
    record.extend(topic);
    record.extend((properties.len() as u16).to_be_bytes());
    record.extend(properties.as_bytes());
    let whole = (record.len() + 4) as u32;
    let mut bytes = whole.to_be_bytes().to_vec();
    bytes.extend(record);
    bytes
}

fn story_36_two_processes_under_one_client_id_are_two_and_two_connections_are_one(
    stage: Stage,
) -> Result<()> {
    // Two containers, each of which takes itself for 10.0.0.1@1.
    let mut one = stage.process(CLIENT, 1)?;
    let mut two = stage.process(CLIENT, 2)?;
    let half = one.half("of one")?;
    assert_eq!(two.asked(2 * GRACE), None, "the sender is connected");
    drop(one);
    let asked = two.asked(FIRST).context("its client id is still there")?;
    assert_eq!(asked.position(), half.position());
    two.answers(&asked, Says::RollBack)?;

    // A process with two connections, as the clients of 4.x have them: to the port and to the one two below it. It closes
    // the one that it has sent over.
    let broker = stage.server.broker().to_owned();
    let (host, port) = broker.rsplit_once(':').context("host:port")?;
    let below = format!("{host}:{}", port.parse::<u16>()? - 2);
    let addresses = [(&below, &broker), (&broker, &below)];
    for (life, (sends, stays)) in (3..).zip(addresses) {
        let client = format!("10.0.0.3@{life}");
        let mut sent_over = stage.process_at(sends, &client, life)?;
        let kept = stage.process_at(stays, &client, life)?;
        let half = sent_over.half("of three")?;
        drop(sent_over);
        // The one before may be asked about again until the answer has arrived.
        while let Some(asked) = two.asked(2 * GRACE) {
            assert_ne!(asked.position(), half.position(), "the sender lives");
        }
        drop(kept);
        let asked = two.asked(FIRST).context("it is gone")?;
        assert_eq!(asked.position(), half.position());
        two.answers(&asked, Says::RollBack)?;
        assert_eq!(two.says(&half, Says::Commit)?.0, 1);
    }
    Ok(())
}
