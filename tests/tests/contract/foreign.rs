//! Bytes that no database takes as text, in everything that a half message or a resolution names.

use anyhow::{Context, Result, ensure};
use tests::raw::{Connection, Frame, bodies};

use super::CLIENT;
use super::member::{Half, Producer, Says, everything, records};
use super::stories::{GROUP, Stage, TOPIC, WITHIN};

/// Ends of fields and of properties, zero bytes, what breaks lines and SQL, and much of it.
const ODD: [&str; 8] = [
    "a\0b",
    "\0",
    "a\u{1}b",
    "a\u{2}b\u{2}",
    "'; DROP TABLE tx; --",
    "\u{7f}\r\n\t",
    "\u{FFFD}\u{10FFFF}e\u{301}",
    "",
];

/// What a half message says in one place, everything else being as usual.
fn odd_frames(unique: &str, value: &str) -> Vec<Frame> {
    let usual = |tag: &str, keys: &str, group: &str, own: &str| {
        format!(
            "UNIQ_KEY\u{1}{unique}\u{2}TAGS\u{1}{tag}\u{2}KEYS\u{1}{keys}\u{2}TRAN_MSG\u{1}true\u{2}\
             PGROUP\u{1}{group}\u{2}note\u{1}{own}\u{2}"
        )
    };
    let with = |group: &str, topic: &str, properties: &str| {
        let fields = [
            ("a", group),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", "4"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", properties),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        Frame::request(310, &fields, unique.as_bytes())
    };
    let plain = usual("a", "k", GROUP, "n");
    vec![
        with(value, TOPIC, &plain),
        with(GROUP, value, &plain),
        with(GROUP, TOPIC, &usual(value, "k", GROUP, "n")),
        with(GROUP, TOPIC, &usual("a", value, GROUP, "n")),
        with(GROUP, TOPIC, &usual("a", "k", value, "n")),
        with(GROUP, TOPIC, &usual("a", "k", GROUP, value)),
        with(GROUP, TOPIC, &format!("{plain}{value}\u{1}n\u{2}")),
        with(GROUP, TOPIC, &plain.replace(unique, value)),
        with(
            GROUP,
            TOPIC,
            &format!("{plain}HM_MARKER\u{1}{value}\u{2}HM_SENDER\u{1}{value}\u{2}"),
        ),
        with(
            GROUP,
            TOPIC,
            &format!("{plain}CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}{value}\u{2}"),
        ),
        with(GROUP, TOPIC, &format!("{plain}{value}")),
    ]
}

/// The same as request 10, whose fields have long names.
fn spelled_out(frame: &Frame) -> Frame {
    let names = [
        ("a", "producerGroup"),
        ("b", "topic"),
        ("c", "defaultTopic"),
        ("d", "defaultTopicQueueNums"),
        ("e", "queueId"),
        ("f", "sysFlag"),
        ("g", "bornTimestamp"),
        ("h", "flag"),
        ("i", "properties"),
        ("j", "reconsumeTimes"),
        ("k", "unitMode"),
        ("m", "batch"),
    ];
    let fields = names.map(|(short, long)| (long, frame.field(short)));
    Frame::request(10, &fields, &frame.body)
}

/// What became of the odd ones.
#[derive(Default)]
struct Outcome {
    refused: usize,
    committed: Vec<String>,
    /// Properties of what was committed, as they were sent: name, value, and what ends each.
    kept: Vec<String>,
}

impl Outcome {
    /// One was refused with a reason, or is taken and can be committed like any other.
    fn settle(&mut self, frame: &Frame, answer: &Frame, by: &mut Producer) -> Result<()> {
        if answer.code != 0 {
            ensure!(!answer.remark.is_empty(), "{frame:?}: no reason");
            self.refused += 1;
            return Ok(());
        }
        // Its id is what the server takes for it, as stock clients have it.
        let half = Half::stored(answer, answer.field("transactionId"))?;
        let (code, why) = by.says(&half, Says::Commit)?;
        // A group that ends at a separator is another one's: it stays open.
        ensure!(code == 0 || why.contains("group"), "{frame:?}: {why}");
        if code == 0 && frame.field("b") == TOPIC {
            let body = String::from_utf8_lossy(&frame.body);
            self.committed.push(body.into_owned());
            let pairs = frame.field("i").split_inclusive('\u{2}');
            let is_senders = |pair: &&str| {
                let names = ["TAGS", "KEYS", "note"];
                let name = pair.split_once('\u{1}').map(|(name, _)| name);
                pair.ends_with('\u{2}') && name.is_some_and(|name| names.contains(&name))
            };
            self.kept
                .extend(pairs.filter(is_senders).map(str::to_owned));
        }
        Ok(())
    }

    /// Somebody else's is committed at once.
    fn nobody_else_notices(&mut self, unique: String, service: &mut Producer) -> Result<()> {
        let half = service.half(&unique)?;
        let (code, why) = service.says(&half, Says::Commit)?;
        ensure!(code == 0, "{unique}: {why}");
        self.committed.push(unique);
        Ok(())
    }
}

/// Each is refused with a reason or taken as it is; what is taken is decided and delivered, and nobody else notices.
pub(super) fn story_28_what_no_database_takes_as_text_costs_nobody_else_anything(
    mut stage: Stage,
) -> Result<()> {
    let broker = stage.server.broker().to_owned();
    let broker = broker.as_str();
    let mut service = Producer::connect(broker, CLIENT, GROUP, TOPIC)?;
    let (mut number, mut outcome) = (0, Outcome::default());
    for value in ODD.map(str::to_owned).into_iter().chain([long()]) {
        // Its client id stands in the history, if it may have it.
        let mut odd = Producer::connect(broker, &value, GROUP, TOPIC)
            .or_else(|_| Producer::connect(broker, "10.0.0.2@2", GROUP, TOPIC))?;
        for part in 0..odd_frames("", "").len() {
            number += 1;
            let frames = odd_frames(&format!("odd{number:03}"), &value);
            let frame = frames.get(part).context("as many as before")?;
            let answer = if number % 2 == 0 {
                odd.connection().call(frame)?
            } else {
                odd.connection().call(&spelled_out(frame))?
            };
            outcome.settle(frame, &answer, &mut odd)?;
        }
        outcome.nobody_else_notices(format!("good{number:03}"), &mut service)?;
    }
    // And where the header is no UTF-8 at all: it is read as the original reads it, with U+FFFD for what is wrong.
    for frame in odd_frames("raw", "a~b") {
        number += 1;
        let frame = Frame {
            body: format!("odd{number:03}").into_bytes(),
            ..frame
        };
        let spoilt = |byte| if byte == b'~' { 0xFF } else { byte };
        let bytes: Vec<u8> = frame.encoded().into_iter().map(spoilt).collect();
        let mut connection = Connection::open(broker)?;
        connection.write(&bytes)?;
        if let Some(answer) = connection.answer(frame.opaque) {
            let mut read = frame.clone();
            for value in read.fields.values_mut() {
                *value = value.replace('~', "\u{FFFD}");
            }
            outcome.settle(&read, &answer, &mut service)?;
        }
        outcome.nobody_else_notices(format!("good{number:03}"), &mut service)?;
    }
    // Those that nobody may commit are open when the process dies, and the next one reads them from the log.
    let last = odd_frames("open", "a\0b");
    for frame in &last {
        let _ = service.connection().call(frame)?;
    }
    stage.server = stage.server.crash()?;
    let broker = stage.server.broker();
    let mut service = Producer::connect(broker, CLIENT, GROUP, TOPIC)?;
    outcome.nobody_else_notices("last".into(), &mut service)?;
    let Outcome {
        refused,
        mut committed,
        kept,
    } = outcome;
    ensure!(refused > 0, "nothing was refused");
    let mut delivered = everything(broker, TOPIC, committed.len(), WITHIN)?;
    delivered.sort();
    committed.sort();
    assert_eq!(delivered, committed);
    let stored = stored(broker, committed.len())?;
    for pair in &kept {
        let is_there = stored
            .windows(pair.len())
            .any(|bytes| bytes == pair.as_bytes());
        ensure!(is_there, "{pair:?} is not as it was sent");
    }
    ensure!(stage.rows(committed.len())?.len() >= committed.len());
    Ok(())
}

/// The records of so many messages, one behind the other.
fn stored(broker: &str, count: usize) -> Result<Vec<u8>> {
    let mut connection = Connection::open(broker)?;
    let (mut all, mut read) = (Vec::new(), 0);
    while read < count {
        let more = records(&mut connection, TOPIC, read)?;
        read += bodies(&more)?.len();
        all.extend(more);
    }
    Ok(all)
}

/// More than any name may have.
fn long() -> String {
    "x".repeat(40_000)
}
