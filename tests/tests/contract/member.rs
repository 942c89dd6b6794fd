//! A producer and a consumer made of raw frames.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mq_core::clock::{Clock, SystemClock};
use serde_json::json;
use tests::raw::{Connection, Frame, bodies};

/// What a producer says: the numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Unknown = 0,
    Commit = 8,
    RollBack = 12,
}

/// A producer that is connected.
pub(super) struct Producer {
    connection: Connection,
    group: String,
    topic: String,
}

/// A half message that is stored, as its producer knows it or as a check-back names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Half {
    position: u64,
    offset: u64,
    unique: String,
}

impl Half {
    /// The sender's own id of it.
    pub(super) fn unique(&self) -> &str {
        &self.unique
    }
}

impl Producer {
    /// Connects to `broker` as a producer of `group` for `topic`, and says so.
    pub(super) fn connect(broker: &str, client: &str, group: &str, topic: &str) -> Result<Self> {
        let mut connection = Connection::open(broker)?;
        let said = json!({
            "clientID": client,
            "producerDataSet": [{"groupName": group}],
            "consumerDataSet": [],
        });
        let answer = connection.call(&Frame::request(34, &[], said.to_string().as_bytes()))?;
        ensure!(answer.code == 0, "heartbeat: {answer:?}");
        Ok(Self {
            connection,
            group: group.to_owned(),
            topic: topic.to_owned(),
        })
    }

    /// Stores a half message whose body is also its unique key.
    pub(super) fn half(&mut self, unique: &str) -> Result<Half> {
        let answer = self.connection.call(&self.half_frame(unique))?;
        ensure!(answer.code == 0, "half message: {answer:?}");
        let id = answer.field("msgId");
        let position = id.get(id.len().saturating_sub(16)..).unwrap_or_default();
        Ok(Half {
            position: u64::from_str_radix(position, 16).with_context(|| id.to_owned())?,
            offset: answer.number("queueOffset")?,
            unique: unique.to_owned(),
        })
    }

    /// Sends a half message to a server that is killed by it.
    pub(super) fn sends(&mut self, unique: &str) -> Result<()> {
        self.connection.one_way(&self.half_frame(unique))
    }

    fn half_frame(&self, unique: &str) -> Frame {
        // The original gives up at once on half messages that were made days ago.
        let born = SystemClock::new().wall_ms().to_string();
        let properties = format!(
            "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{}\u{2}UNIQ_KEY\u{1}{unique}\u{2}TAGS\u{1}a\u{2}",
            self.group
        );
        let fields = [
            ("a", &*self.group),
            ("b", &*self.topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", "4"),
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

/// Reads queue 0 of `topic` until `count` messages are there or `at_most` has passed, and once more a little later; returns
/// their bodies.
pub(super) fn delivered(
    broker: &str,
    topic: &str,
    count: usize,
    at_most: Duration,
) -> Result<Vec<String>> {
    let mut connection = Connection::open(broker)?;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let late = |clock: &SystemClock| clock.monotonic().saturating_sub(start) > at_most;
    while read(&mut connection, topic)?.len() < count && !late(&clock) {
        pause(Duration::from_millis(50));
    }
    // A second copy would follow at once.
    pause(Duration::from_millis(500));
    read(&mut connection, topic)
}

/// Waits for a process that is not ours to command.
fn pause(time: Duration) {
    let (_never, nothing) = std::sync::mpsc::channel::<()>();
    let _ = nothing.recv_timeout(time);
}

fn read(connection: &mut Connection, topic: &str) -> Result<Vec<String>> {
    let fields = [
        ("consumerGroup", "contract-readers"),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    let answer = connection.call(&Frame::request(11, &fields, b""))?;
    let text = |body: Vec<u8>| String::from_utf8_lossy(&body).into_owned();
    match answer.code {
        0 => Ok(bodies(&answer.body)?.into_iter().map(text).collect()),
        // Nothing there yet, or no such topic.
        _ => Ok(Vec::new()),
    }
}
