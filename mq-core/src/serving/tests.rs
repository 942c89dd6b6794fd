//! The broker behind a real socket, driven by raw frames.

mod locks;
mod lookup;
mod membership;
mod offsets;
mod operating;
mod pulling;
mod relays;
mod retrying;
mod sending;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::broker::{Parts, Settings};
use crate::clock::{Clock, SystemClock};
use crate::extension::{Busy, Call, Caller, Claims, Extension, StartError};
use crate::log::memory::MemoryLog;
use crate::log::{Log, LogId, OwnerId};
use crate::random::SeededRandom;
use crate::remoting::listener::Listener;
use crate::wire::command::Fields;
use crate::wire::{frame, reserved};

/// A broker that listens on a free port.
struct Server {
    address: SocketAddr,
    broker: Broker,
    stop: watch::Sender<bool>,
}

impl Server {
    async fn start() -> Self {
        Self::with(vec![]).await
    }

    async fn with(extensions: Vec<Arc<dyn Extension>>) -> Self {
        Self::with_settings(Settings::default(), extensions).await
    }

    async fn with_settings(settings: Settings, extensions: Vec<Arc<dyn Extension>>) -> Self {
        Self::over(u64::MAX, settings, extensions).await
    }

    /// Over a log with so much room for one append.
    async fn over(
        append_max_bytes: u64,
        settings: Settings,
        extensions: Vec<Arc<dyn Extension>>,
    ) -> Self {
        let clock = Arc::new(SystemClock::new());
        let log = MemoryLog::new(LogId(1), Arc::clone(&clock) as Arc<dyn Clock>);
        log.limit_appends(append_max_bytes);
        let parts = Parts {
            log: Arc::new(log) as Arc<dyn Log>,
            clock,
            random: Arc::new(SeededRandom::new(1)),
            extensions,
        };
        let broker = Broker::open(settings, parts).await.unwrap();
        let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let presence = Presence {
            cluster: "DefaultCluster".into(),
            name: "broker-a".into(),
            advertised: SocketAddrV4::new(Ipv4Addr::LOCALHOST, address.port()),
        };
        let stop = watch::Sender::new(false);
        let service = BrokerService::new(broker.clone(), presence);
        tokio::spawn(listener.serve(service, stop.subscribe()));
        Self {
            address,
            broker,
            stop,
        }
    }
}

/// A peer that speaks in raw frames.
struct Raw {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    async fn connect(server: &Server) -> Self {
        Self {
            socket: TcpStream::connect(server.address).await.unwrap(),
            buffer: BytesMut::new(),
        }
    }

    async fn call(&mut self, command: &Command) -> Command {
        self.tell(command).await;
        self.next().await
    }

    /// Sends without waiting for an answer.
    async fn tell(&mut self, command: &Command) {
        self.socket
            .write_all(&frame::encoded(command))
            .await
            .unwrap();
    }

    /// Calls, and expects success.
    async fn done(&mut self, command: &Command) -> Command {
        let answer = self.call(command).await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
        assert!(answer.is_response());
        answer
    }

    /// Stores a message in a queue.
    async fn send(&mut self, topic: &str, queue: &str, tag: &str, body: &str) -> Command {
        let properties = format!("TAGS\u{1}{tag}\u{2}");
        let fields = [
            ("a", "producers"),
            ("b", topic),
            ("d", "4"),
            ("e", queue),
            ("f", "0"),
            ("i", &properties),
        ];
        let command = Command {
            body: Bytes::copy_from_slice(body.as_bytes()),
            ..command(request::SEND_MESSAGE_V2, &fields, b"")
        };
        self.done(&command).await
    }

    /// Says that it is member `client` of group `g`, which reads `topic` from the beginning.
    async fn join(&mut self, client: &str, topic: &str, tags: &str) {
        let body = serde_json::json!({
            "clientID": client,
            "producerDataSet": [{"groupName": "CLIENT_INNER_PRODUCER"}],
            "consumerDataSet": [{
                "groupName": "g",
                "consumeType": "CONSUME_PASSIVELY",
                "messageModel": "CLUSTERING",
                "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
                "subscriptionDataSet": [{"topic": topic, "subString": tags, "subVersion": 7}],
            }],
        });
        self.heartbeat(&body.to_string()).await;
    }

    /// Sends a heartbeat, and waits for its answer; notices that come before are dropped.
    async fn heartbeat(&mut self, body: &str) {
        let heartbeat = Command {
            body: Bytes::copy_from_slice(body.as_bytes()),
            ..command(request::HEART_BEAT, &[], b"")
        };
        self.tell(&heartbeat).await;
        loop {
            let answer = self.next().await;
            if answer.is_response() {
                assert_eq!(answer.code, 0, "{}", answer.remark);
                return;
            }
            assert_eq!(answer.code, reserved::NOTIFY_CONSUMER_IDS_CHANGED);
        }
    }

    async fn next(&mut self) -> Command {
        loop {
            if let Some(command) = frame::take(&mut self.buffer).unwrap() {
                return command;
            }
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0);
        }
    }
}

fn command(code: i32, fields: &[(&str, &str)], body: &'static [u8]) -> Command {
    Command {
        fields: fields.iter().copied().collect::<Fields>(),
        body: Bytes::from_static(body),
        ..Command::request(code, 7)
    }
}

#[tokio::test]
async fn a_message_sent_as_a_frame_is_stored_and_its_place_answered() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let fields = [
        ("a", "producers"),
        ("b", "orders"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", "UNIQ_KEY\u{1}AA\u{2}"),
    ];
    let answer = raw
        .call(&command(request::SEND_MESSAGE_V2, &fields, b"hello"))
        .await;
    assert_eq!((answer.code, answer.opaque), (0, 7), "{}", answer.remark);
    assert!(answer.is_response());
    assert_eq!(answer.fields.get("queueOffset"), Some("0"));
    assert_eq!(answer.fields.get(reserved::SENT_UNIQUE_KEY), Some("AA"));
    assert_eq!(server.broker.topics().len(), 1);
    server.stop.send_replace(true);
}

#[tokio::test]
async fn a_code_that_nobody_knows_is_answered_with_3() {
    let server = Server::start().await;
    let answer = Raw::connect(&server)
        .await
        .call(&command(9_999, &[], b""))
        .await;
    assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert!(answer.remark.contains("9999"), "{}", answer.remark);
}

/// An extension that has no room for the second request of a call, until somebody waits for room.
#[derive(Debug, Default)]
struct Narrow(AtomicUsize);

#[async_trait]
impl Extension for Narrow {
    fn claims(&self) -> Claims {
        Claims {
            owner: OwnerId(9),
            request_codes: vec![7_300],
            send_flags: 4,
            hidden_topics: vec![],
        }
    }

    async fn start(&self, _broker: Broker) -> Result<(), StartError> {
        Ok(())
    }

    fn call(&self, caller: &Arc<Caller>, mut calls: Vec<Call>) -> Result<(), Busy> {
        assert!(caller.source.contains("127.0.0.1"), "{caller:?}");
        let waiting = calls.split_off(1);
        for (command, ticket) in calls {
            let waited = self.0.load(Ordering::Relaxed);
            ticket.answer(Answer::done().field("seen", format!("{} {waited}", command.code)));
        }
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(Busy(waiting))
        }
    }

    async fn ready(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    async fn stop(&self, _within: Duration) {}
}

#[tokio::test]
async fn what_an_extension_claims_goes_to_it_and_waits_for_room() {
    let server = Server::with(vec![Arc::new(Narrow::default())]).await;
    let mut raw = Raw::connect(&server).await;
    let fields = [("b", "orders"), ("e", "0"), ("f", "4")];
    let both = [
        frame::encoded(&command(7_300, &[], b"")),
        frame::encoded(&command(request::SEND_MESSAGE_V2, &fields, b"hello")),
    ]
    .concat();
    raw.socket.write_all(&both).await.unwrap();
    let seen = [raw.next().await, raw.next().await];
    let seen = seen.map(|answer| answer.fields.get("seen").map(str::to_owned));
    assert_eq!(
        seen,
        ["7300 0", "310 1"].map(|seen| Some(seen.to_owned())),
        "the second one waits for room"
    );
    assert!(server.broker.topics().is_empty(), "nothing was stored");
}
