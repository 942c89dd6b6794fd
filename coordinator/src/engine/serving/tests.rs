//! Half messages and resolutions as raw frames over a real socket.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mq_core::extension::Extension as _;
use mq_core::log::{Log, Position, QueueOffset};
use mq_core::names::{QueueId, TopicName};
use mq_core::remoting::listener::Listener;
use mq_core::serving::{BrokerService, Presence};
use mq_core::wire::codes::{request, response};
use mq_core::wire::command::{Command, FLAG_ONE_WAY, Fields};
use mq_core::wire::record::RecordView;
use mq_core::wire::{frame, ids, reserved};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::engine::tests::rig::Rig;
use crate::store::{Filter, Row, TxStore};
use crate::transaction::{Actor, Incarnation, State};

/// A server with a coordinator, and a connection to it.
struct Wire {
    rig: Rig,
    socket: TcpStream,
    buffer: BytesMut,
    _stop: watch::Sender<bool>,
}

/// What the answer to a half message says about it.
#[derive(Debug, Clone)]
struct Stored {
    position: u64,
    queue_offset: String,
    unique: String,
}

impl Wire {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.unwrap();
        let address = listener.address().unwrap();
        let presence = Presence {
            cluster: "DefaultCluster".into(),
            name: "broker-a".into(),
            advertised: SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 3), 10911),
        };
        let stop = watch::Sender::new(false);
        let service = BrokerService::new(rig.broker.clone(), presence);
        tokio::spawn(listener.serve(service, stop.subscribe()));
        Self {
            rig,
            socket: TcpStream::connect(address).await.unwrap(),
            buffer: BytesMut::new(),
            _stop: stop,
        }
    }

    async fn send(&mut self, commands: &[Command]) {
        let bytes: Vec<_> = commands.iter().map(frame::encoded).collect();
        self.socket.write_all(&bytes.concat()).await.unwrap();
    }

    async fn next(&mut self) -> Command {
        loop {
            if let Some(command) = frame::take(&mut self.buffer).unwrap() {
                return command;
            }
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0);
        }
    }

    async fn call(&mut self, command: Command) -> Command {
        self.send(&[command]).await;
        self.next().await
    }

    async fn half(&mut self, unique: &str) -> Stored {
        let answer = self.call(half(unique, &[])).await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
        stored(&answer, unique)
    }

    /// The bodies of the published messages.
    fn published(&self) -> Vec<String> {
        let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
        let log = &self.rig.log;
        let entries = log.entries(&queue, QueueOffset(0), 1000);
        let body = |position| {
            let stored = log.read(position).unwrap();
            let view = RecordView::parse(&stored.bytes).unwrap();
            String::from_utf8(view.body.to_vec()).unwrap()
        };
        let entries = entries.unwrap_or_default();
        entries.into_iter().map(|one| body(one.position)).collect()
    }

    async fn rows(&self) -> Vec<Row> {
        self.rig.coordinator.write_held().await.unwrap();
        let all = Filter {
            limit: 100,
            ..Filter::default()
        };
        self.rig.store.reader().list(&all).await.unwrap()
    }
}

fn stored(answer: &Command, unique: &str) -> Stored {
    let field = |name| answer.fields.get(name).unwrap_or_default().to_owned();
    let (host, position) = ids::parse_offset_id(&field("msgId")).unwrap();
    assert_eq!(host.to_string(), "10.1.2.3:10911", "the advertised address");
    assert_eq!(field("queueId"), "0");
    Stored {
        position,
        queue_offset: field("queueOffset"),
        unique: unique.to_owned(),
    }
}

/// A half message with body and `UNIQ_KEY` `unique`, as a Java client sends it, and more properties.
fn half(unique: &str, properties: &[(&str, &str)]) -> Command {
    let own = [
        ("TAGS", "placed"),
        ("TRAN_MSG", "true"),
        ("PGROUP", "order-service"),
        ("UNIQ_KEY", unique),
    ];
    let pairs = own.iter().chain(properties);
    let properties: String = pairs
        .map(|(name, value)| format!("{name}\u{1}{value}\u{2}"))
        .collect();
    let fields = [
        ("a", "order-service"),
        ("b", "orders"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "4"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", &properties),
        ("m", "false"),
    ];
    Command {
        fields: fields.into_iter().collect(),
        body: Bytes::copy_from_slice(unique.as_bytes()),
        ..Command::request(request::SEND_MESSAGE_V2, 7)
    }
}

fn with(command: &Command, name: &str, value: &str) -> Command {
    let mut command = command.clone();
    command.fields.push(name, value);
    command
}

/// What the producer of `stored` says about it: 8 COMMIT, 12 ROLLBACK, 0 UNKNOWN.
fn end(stored: &Stored, resolution: i32) -> Command {
    let (position, resolution) = (stored.position.to_string(), resolution.to_string());
    let fields: Fields = [
        ("producerGroup", "order-service"),
        ("tranStateTableOffset", &*stored.queue_offset),
        ("commitLogOffset", &*position),
        ("commitOrRollback", &*resolution),
        ("fromTransactionCheck", "false"),
        ("msgId", &*stored.unique),
        ("transactionId", &*stored.unique),
    ]
    .into_iter()
    .collect();
    Command {
        fields,
        ..Command::request(reserved::END_TRANSACTION, 8)
    }
}

#[tokio::test]
async fn half_messages_that_no_single_append_has_room_for_are_all_stored() {
    let mut wire = Wire::new().await;
    wire.half("FIRST").await;
    wire.rig.log.limit_appends(1_000);
    let names: Vec<String> = (0..20).map(|number| format!("M{number:02}")).collect();
    let together: Vec<Command> = (1..)
        .zip(&names)
        .map(|(opaque, name)| Command {
            opaque,
            ..half(name, &[])
        })
        .collect();
    wire.send(&together).await;
    for _ in &names {
        let answer = wire.next().await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
    }
    assert_eq!(wire.rows().await.len(), 1 + names.len());
}

#[tokio::test]
async fn a_half_message_is_decided_once_whatever_is_said_afterwards() {
    let mut wire = Wire::new().await;
    let (one, two) = (wire.half("ONE").await, wire.half("TWO").await);
    assert!(wire.published().is_empty());
    for (stored, first) in [(&one, 8), (&two, 12)] {
        assert_eq!(wire.call(end(stored, first)).await.code, 0);
        assert_eq!(wire.call(end(stored, first)).await.code, 0, "said again");
        let answer = wire.call(end(stored, 20 - first)).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        let word = if first == 8 {
            "committed"
        } else {
            "rolled back"
        };
        for part in [word, "by producer", "recorded"] {
            assert!(answer.remark.contains(part), "{}", answer.remark);
        }
    }
    assert_eq!(wire.published(), ["ONE"]);
    let rows = wire.rows().await;
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter()
            .all(|row| (row.repeats, row.contradictions) == (1, 1)),
        "{rows:?}"
    );
}

#[tokio::test]
async fn a_published_message_is_the_senders_and_nothing_of_the_servers() {
    let mut wire = Wire::new().await;
    let forged = [
        ("REAL_TOPIC", "other"),
        ("HM_SENDER", "00000000000000000000000000000001"),
        ("a", "b"),
    ];
    let answer = wire.call(half("ONE", &forged)).await;
    let one = stored(&answer, "ONE");
    assert_eq!(answer.fields.get("transactionId"), Some("ONE"));
    assert_eq!(wire.call(end(&one, 8)).await.code, 0);
    let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
    let position = wire.rig.log.find(&queue, QueueOffset(0)).unwrap();
    let bytes = wire.rig.log.read(position).unwrap().bytes;
    let view = RecordView::parse(&bytes).unwrap();
    let own = ["TAGS", "UNIQ_KEY", "a", "REAL_TOPIC", "HM_SENDER"];
    assert_eq!(
        own.map(|name| view.properties.get(name)),
        [Some("placed"), Some("ONE"), Some("b"), Some("orders"), None]
    );
    assert_eq!(
        (view.born_ms, view.sys_flag, view.prepared_position),
        (1_700_000_000_000, reserved::FLAG_COMMIT, one.position)
    );
}

#[tokio::test]
async fn story_34_properties_make_no_half_message() {
    let mut wire = Wire::new().await;
    let pretends = half("PLAIN", &[("REAL_TOPIC", "other"), ("a", "b\u{1}c")]);
    let fields = pretends.fields.iter();
    let fields = fields.map(|(name, value)| (name, if name == "f" { "0" } else { value }));
    let plain = Command {
        fields: fields.collect(),
        ..pretends.clone()
    };
    assert_eq!(wire.call(plain).await.code, 0);
    assert_eq!(wire.published(), ["PLAIN"], "at once, where it was sent");
    let one = wire.half("ONE").await;
    assert_eq!(wire.call(end(&one, 8)).await.code, 0);
    let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
    for offset in 0..2 {
        let position = wire.rig.log.find(&queue, QueueOffset(offset)).unwrap();
        let position = position.0.to_string();
        let back = Command {
            fields: [
                ("offset", &*position),
                ("group", "readers"),
                ("delayLevel", "0"),
                ("originTopic", "orders"),
                ("maxReconsumeTimes", "16"),
            ]
            .into_iter()
            .collect(),
            ..Command::request(request::CONSUMER_SEND_MSG_BACK, 9)
        };
        let answer = wire.call(back).await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
    }
    let states: Vec<State> = wire.rows().await.iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Committed], "ONE alone is a transaction");
}

#[tokio::test]
async fn a_half_message_cannot_be_looked_up_and_its_final_can() {
    let mut wire = Wire::new().await;
    let one = wire.half("ONE").await;
    let view = |position: u64| Command {
        fields: [("offset", &*position.to_string())].into_iter().collect(),
        ..Command::request(request::VIEW_MESSAGE_BY_ID, 9)
    };
    let answer = wire.call(view(one.position)).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.body.is_empty(), "it shows the half message");

    assert_eq!(wire.call(end(&one, 8)).await.code, 0);
    let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
    let position = wire.rig.log.find(&queue, QueueOffset(0)).unwrap();
    let answer = wire.call(view(position.0)).await;
    assert_eq!(answer.code, 0, "{}", answer.remark);
}

#[tokio::test]
async fn half_messages_with_one_id_are_two_transactions() {
    let mut wire = Wire::new().await;
    let (one, two) = (wire.half("SAME").await, wire.half("SAME").await);
    assert_eq!(wire.call(end(&one, 8)).await.code, 0);
    assert_eq!(wire.call(end(&two, 12)).await.code, 0);
    let states: Vec<State> = wire.rows().await.iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Committed, State::RolledBack]);
}

#[tokio::test]
async fn everything_of_one_wake_up_is_answered_in_one_append() {
    let mut wire = Wire::new().await;
    wire.half("FIRST").await;
    let many: Vec<Command> = (0..50).map(|n| half(&format!("{n}"), &[])).collect();
    wire.send(&many).await;
    let mut ends = Vec::new();
    for n in 0..50 {
        let answer = wire.next().await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
        ends.push(end(&stored(&answer, &n.to_string()), 8));
    }
    wire.send(&ends).await;
    for _ in 0..50 {
        assert_eq!(wire.next().await.code, 0);
    }
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(wire.published(), expected);
}

#[tokio::test]
async fn what_cannot_be_a_half_message_is_refused_with_the_reason() {
    let mut wire = Wire::new().await;
    let plain = half("ONE", &[]);
    let batch = Command {
        code: request::SEND_BATCH_MESSAGE,
        ..plain.clone()
    };
    let long = "v".repeat(32_000);
    for (command, code, part) in [
        (batch, 13, "batch"),
        (with(&plain, "m", "true"), 13, "batch"),
        (with(&plain, "f", "8"), 13, "flag bits 0x8"),
        (half("ONE", &[("DELAY", "3")]), 13, "delayed"),
        (
            half("ONE", &[("TIMER_DELAY_SEC", "3")]),
            13,
            "TIMER_DELAY_SEC",
        ),
        (half("ONE", &[("HM_MARKER", "xyz")]), 13, "HM_MARKER"),
        (
            half("ONE", &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "soon")]),
            13,
            "seconds",
        ),
        (half("ONE", &[("PGROUP", "a b")]), 13, "a b"),
        (
            half(
                "ONE",
                &[
                    ("a", &long),
                    ("b", "12345678901234567890"),
                    ("c", &long[..700]),
                ],
            ),
            13,
            "32767",
        ),
        (
            with(&plain, "b", "RMQ_SYS_TRANS_HALF_TOPIC"),
            16,
            "system topic",
        ),
        (with(&plain, "e", "77"), 1, "queue"),
    ] {
        wire.call(half("CREATES-THE-TOPIC", &[])).await;
        let answer = wire.call(command).await;
        assert_eq!(answer.code, code, "{part}: {}", answer.remark);
        assert!(answer.remark.contains(part), "{part}: {}", answer.remark);
    }
    let rows = wire.rows().await;
    assert_eq!(
        rows.len(),
        11,
        "only those that create the topic are stored"
    );
}

#[tokio::test]
async fn every_part_of_what_a_resolution_names_is_compared() {
    let mut wire = Wire::new().await;
    let (one, two) = (wire.half("ONE").await, wire.half("TWO").await);
    let right = end(&one, 8);
    for (name, value) in [
        ("producerGroup", "stranger"),
        ("tranStateTableOffset", "99"),
        ("tranStateTableOffset", &*two.queue_offset),
        ("commitLogOffset", &*(one.position + 60).to_string()),
        ("msgId", "TWO"),
        ("transactionId", "TWO"),
        ("commitOrRollback", "4"),
        ("commitLogOffset", "-1"),
    ] {
        let answer = wire.call(with(&right, name, value)).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "{name} {value}");
        assert!(!answer.remark.is_empty());
    }
    assert!(wire.published().is_empty());
    let by_record = ids::offset_id(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), one.position);
    assert_eq!(wire.call(with(&right, "msgId", &by_record)).await.code, 0);
    // The same from the log, once it is not a recent one any more.
    for (name, value) in [("msgId", "TWO"), ("producerGroup", "stranger")] {
        assert_eq!(wire.call(with(&right, name, value)).await.code, 1);
    }
    assert_eq!(wire.call(right).await.code, 0);
    assert_eq!(wire.published(), ["ONE"]);
}

#[tokio::test]
async fn a_one_way_resolution_is_taken_and_unknown_is_answered() {
    let mut wire = Wire::new().await;
    let one = wire.half("ONE").await;
    assert_eq!(wire.call(end(&one, 0)).await.code, 0);
    let one_way = Command {
        flag: FLAG_ONE_WAY,
        ..end(&one, 8)
    };
    wire.send(&[one_way]).await;
    let answer = wire.call(end(&one, 12)).await;
    assert_eq!(answer.code, 1, "the one-way COMMIT came first");
    assert_eq!(wire.published(), ["ONE"]);
    let row = &wire.rows().await[0];
    assert_eq!((row.checks, row.state), (0, State::Committed));
}

#[tokio::test]
async fn an_answer_to_a_check_back_is_told_apart_from_the_producers_word() {
    let mut wire = Wire::new().await;
    let one = wire.half("ONE").await;
    let asked = with(&end(&one, 12), "fromTransactionCheck", "true");
    let asked = Command {
        remark: "CHECK_THREW".into(),
        ..asked
    };
    assert_eq!(wire.call(asked).await.code, 0);
    let id = wire.rows().await[0].half.id;
    let events = wire.rig.store.reader().events(id).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!(
        (last.actor, &*last.evidence),
        (Actor::CheckBack, "CHECK_THREW")
    );
    assert!(last.source.contains("127.0.0.1"), "{last:?}");
}

#[tokio::test]
async fn a_sender_on_a_second_connection_is_found_by_the_ids_it_makes() {
    let mut wire = Wire::new().await;
    let (_connection, _) = wire.rig.connect_as("192.168.1.2@70000", 77, &[]);
    wire.half("C0A80102117073D16E937A5C5E2A0007").await;
    wire.half("C0A80103117073D16E937A5C5E2A0007").await;
    let rows = wire.rows().await;
    let senders: Vec<_> = rows.iter().map(|row| row.half.sender).collect();
    assert_eq!(senders, [Some(Incarnation(77)), None]);
}

#[tokio::test]
async fn a_half_message_is_asked_about_again_by_the_id_of_its_record() {
    let mut wire = Wire::new().await;
    let one = wire.half("ONE").await;
    wire.rig.coordinator.write_held().await.unwrap();
    let again = |id: &str| Command {
        fields: [("topic", "orders"), ("msgId", id)].into_iter().collect(),
        ..Command::request(reserved::RESUME_CHECK_HALF_MESSAGE, 9)
    };
    let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let id = ids::offset_id(host, one.position);
    let answer = wire.call(again(&id)).await;
    assert_eq!(answer.code, 1, "nobody is connected");
    assert!(answer.remark.contains("order-service"), "{}", answer.remark);
    let (_connection, asked) = wire.rig.connect(7, &[]);
    assert_eq!(wire.call(again(&id)).await.code, 0);
    while asked.count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.take(), [Position(one.position)]);
    for wrong in [ids::offset_id(host, one.position + 8), "zz".to_owned()] {
        assert_eq!(wire.call(again(&wrong)).await.code, 1);
    }
}

#[tokio::test]
async fn a_coordinator_that_has_stopped_says_so() {
    let mut wire = Wire::new().await;
    let one = wire.half("ONE").await;
    wire.rig.coordinator.stop(Duration::from_secs(5)).await;
    for command in [half("TWO", &[]), end(&one, 8)] {
        let answer = wire.call(command).await;
        assert_eq!(answer.code, response::SERVICE_NOT_AVAILABLE);
    }
}
