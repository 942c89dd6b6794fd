//! A producer and a consumer made of raw frames.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mq_core::clock::{Clock, SystemClock};
use serde_json::json;
use tests::process::pause;
use tests::raw::{Connection, Frame, bodies};

/// What a producer says: the numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Unknown = 0,
    Commit = 8,
    RollBack = 12,
}

/// What our own clients say about themselves beyond what all others do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Native {
    /// This life of the process.
    pub(super) incarnation: u128,
    /// The marker table that it can read.
    pub(super) marker: u128,
}

/// How long nobody is asked about a half message of ours unless its sender is gone or back.
const IMMUNITY_SECONDS: &str = "600";

/// A producer that is connected.
pub(super) struct Producer {
    connection: Connection,
    group: String,
    topic: String,
    native: Option<Native>,
}

/// A half message that is stored, as its producer knows it or as a check-back names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Half {
    position: u64,
    offset: u64,
    unique: String,
}

impl Half {
    /// A half message that somebody claims to have sent.
    pub(super) fn forged(position: u64, offset: u64, unique: &str) -> Self {
        Self {
            position,
            offset,
            unique: unique.to_owned(),
        }
    }

    /// Its number in the half queue.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Where it was stored.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// What the answer to a half message says.
    pub(super) fn stored(answer: &Frame, unique: &str) -> Result<Self> {
        ensure!(answer.code == 0, "half message: {answer:?}");
        let id = answer.field("msgId");
        let position = id.get(id.len().saturating_sub(16)..).unwrap_or_default();
        Ok(Self {
            position: u64::from_str_radix(position, 16).with_context(|| id.to_owned())?,
            offset: answer.number("queueOffset")?,
            unique: unique.to_owned(),
        })
    }

    /// One that is nobody's: this one's position and the number of the `other`.
    pub(super) fn beside(&self, other: &Self) -> Self {
        Self {
            offset: other.offset,
            ..self.clone()
        }
    }

    /// The sender's own id of it.
    pub(super) fn unique(&self) -> &str {
        &self.unique
    }
}

impl Producer {
    /// Connects to `broker` as a producer of `group` for `topic`, and says so.
    pub(super) fn connect(broker: &str, client: &str, group: &str, topic: &str) -> Result<Self> {
        Self::connect_as(broker, client, group, topic, None)
    }

    /// The same as one of our own clients, if it says so.
    pub(super) fn connect_as(
        broker: &str,
        client: &str,
        group: &str,
        topic: &str,
        native: Option<Native>,
    ) -> Result<Self> {
        let mut connection = Connection::open(broker)?;
        let ours = native.map(|native| {
            json!({
                "incarnation": format!("{:032X}", native.incarnation),
                "answersFor": [format!("{:032X}", native.marker)],
            })
        });
        // A member without a value is as good as none.
        let said = json!({
            "clientID": client,
            "producerDataSet": [{"groupName": group}],
            "consumerDataSet": [],
            "halfmoon": ours,
        });
        let answer = connection.call(&Frame::request(34, &[], said.to_string().as_bytes()))?;
        ensure!(answer.code == 0, "heartbeat: {answer:?}");
        Ok(Self {
            connection,
            group: group.to_owned(),
            topic: topic.to_owned(),
            native,
        })
    }

    /// Stores a half message whose body is also its unique key.
    pub(super) fn half(&mut self, unique: &str) -> Result<Half> {
        let answer = self.connection.call(&self.frame(unique, true))?;
        Half::stored(&answer, unique)
    }

    /// Sends a message, half or whole, and does not wait; returns what its answer is found by.
    pub(super) fn posts(&mut self, unique: &str, half: bool) -> Result<i64> {
        let frame = self.frame(unique, half);
        self.connection.post(&frame)
    }

    /// Says how a local transaction ended and does not wait; returns what the answer is found by.
    pub(super) fn posts_end(&mut self, half: &Half, says: Says) -> Result<i64> {
        let frame = self.end(half, says, false);
        self.connection.post(&frame)
    }

    /// Sends a message that is no half message, whatever its properties say; returns where it was stored.
    pub(super) fn plain(&mut self, body: &[u8], properties: &str) -> Result<u64> {
        let mut frame = self.frame("plain", false);
        frame.body = body.to_vec();
        let said = frame.fields.entry("i".to_owned()).or_default();
        said.push_str(properties);
        let answer = self.connection.call(&frame)?;
        Ok(Half::stored(&answer, "")?.position)
    }

    /// Answers a check-back with *in flight*: the local transaction still runs.
    pub(super) fn answers_in_flight(&mut self, half: &Half) -> Result<()> {
        let mut end = self.end(half, Says::Unknown, true);
        end.fields.insert("HM_IN_FLIGHT".into(), "true".into());
        self.connection.one_way(&end)
    }

    /// What it is connected by.
    pub(super) const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a half message to a server that is killed by it.
    pub(super) fn sends(&mut self, unique: &str) -> Result<()> {
        self.connection.one_way(&self.frame(unique, true))
    }

    fn frame(&self, unique: &str, half: bool) -> Frame {
        // The original gives up at once on half messages that were made days ago.
        let born = SystemClock::new().wall_ms().to_string();
        let mut properties = format!("UNIQ_KEY\u{1}{unique}\u{2}TAGS\u{1}a\u{2}");
        if half {
            properties += &format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{}\u{2}", self.group);
        }
        if let Some(native) = self.native.filter(|_| half) {
            properties += &format!("HM_MARKER\u{1}{:032X}\u{2}", native.marker);
            properties += &format!("CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}{IMMUNITY_SECONDS}\u{2}");
        }
        let fields = [
            ("a", &*self.group),
            ("b", &*self.topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", if half { "4" } else { "0" }),
            ("g", &*born),
            ("h", "0"),
            ("i", &*properties),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        Frame::request(310, &fields, unique.as_bytes())
    }

    /// Says how the local transaction of `half` ended; returns response code and remark.
    pub(super) fn says(&mut self, half: &Half, says: Says) -> Result<(i64, String)> {
        let answer = self.connection.call(&self.end(half, says, false))?;
        Ok((answer.code, answer.remark))
    }

    /// Answers a check-back, as all clients do it: without waiting.
    pub(super) fn answers(&mut self, half: &Half, says: Says) -> Result<()> {
        let end = self.end(half, says, true);
        self.connection.one_way(&end)
    }

    fn end(&self, half: &Half, says: Says, asked: bool) -> Frame {
        let numbers = [half.offset, half.position, says as u64].map(|number| number.to_string());
        let [offset, position, says] = &numbers;
        let fields = [
            ("producerGroup", &*self.group),
            ("tranStateTableOffset", offset),
            ("commitLogOffset", position),
            ("commitOrRollback", says),
            ("fromTransactionCheck", if asked { "true" } else { "false" }),
            ("msgId", &*half.unique),
            ("transactionId", &*half.unique),
        ];
        Frame::request(37, &fields, b"")
    }

    /// The next check-back that arrives within `at_most`.
    pub(super) fn asked(&mut self, at_most: Duration) -> Option<Half> {
        let asked = self.connection.asked(39, at_most)?;
        Some(Half {
            position: asked.number("commitLogOffset").ok()?,
            offset: asked.number("tranStateTableOffset").ok()?,
            unique: asked.field("transactionId").to_owned(),
        })
    }
}

/// All of queue 0 of `topic`, once `count` messages are there or `at_most` has passed.
pub(super) fn everything(
    broker: &str,
    topic: &str,
    count: usize,
    at_most: Duration,
) -> Result<Vec<String>> {
    let mut connection = Connection::open(broker)?;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let mut all = Vec::new();
    loop {
        let more = read(&mut connection, topic, all.len())?;
        let nothing = more.is_empty();
        all.extend(more);
        let late = clock.monotonic().saturating_sub(start) > at_most;
        if nothing && (all.len() >= count || late) {
            return Ok(all);
        }
        if nothing {
            pause(Duration::from_millis(50));
        }
    }
}

/// Asks for what comes behind all of queue 0, and does not wait: the server holds it until something comes.
pub(super) fn waits_for_more(connection: &mut Connection, topic: &str, from: usize) -> Result<i64> {
    connection.post(&pull(topic, from, Duration::from_secs(15)))
}

/// Reads queue 0 of `topic` until `count` messages are there or `at_most` has passed, and once more a little later; returns
/// their bodies.
pub(super) fn delivered(
    broker: &str,
    topic: &str,
    count: usize,
    at_most: Duration,
) -> Result<Vec<String>> {
    everything(broker, topic, count, at_most)?;
    // A second copy would follow at once.
    pause(Duration::from_millis(500));
    everything(broker, topic, count, Duration::ZERO)
}

fn pull(topic: &str, from: usize, wait: Duration) -> Frame {
    let (from, wait) = (from.to_string(), wait.as_millis().to_string());
    let fields = [
        ("consumerGroup", "contract-readers"),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", &*from),
        ("maxMsgNums", "32"),
        ("sysFlag", if wait == "0" { "4" } else { "6" }),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", &*wait),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    Frame::request(11, &fields, b"")
}

/// The answer to a pull of queue 0 of `topic` from number `from` on.
pub(super) fn pulled(connection: &mut Connection, topic: &str, from: u64) -> Result<Frame> {
    connection.call(&pull(topic, usize::try_from(from)?, Duration::ZERO))
}

/// The records of queue 0 from number `from` on, as they are stored.
pub(super) fn records(connection: &mut Connection, topic: &str, from: usize) -> Result<Vec<u8>> {
    let answer = connection.call(&pull(topic, from, Duration::ZERO))?;
    ensure!(answer.code == 0, "{answer:?}");
    Ok(answer.body)
}

fn read(connection: &mut Connection, topic: &str, from: usize) -> Result<Vec<String>> {
    let answer = connection.call(&pull(topic, from, Duration::ZERO))?;
    let text = |body: Vec<u8>| String::from_utf8_lossy(&body).into_owned();
    match answer.code {
        0 => Ok(bodies(&answer.body)?.into_iter().map(text).collect()),
        // Nothing there yet, or no such topic.
        _ => Ok(Vec::new()),
    }
}
