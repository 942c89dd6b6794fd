//! Real sockets with peers that behave badly: each harms itself alone.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::remoting::service::Answer;
use crate::wire::command::Dialect;
use crate::wire::frame;

/// What is asked of [`Desk`].
const AT_ONCE: i32 = 1;
const FROM_A_THREAD: i32 = 2;
const MUCH: i32 = 3;
const WHEN_TOLD: i32 = 4;
const WHEN_ROOM: i32 = 5;

/// Answers at once, from another thread, with a large body, or when the test says so; takes some only when there is room.
#[derive(Debug, Default)]
struct Desk(Mutex<Vec<Ticket>>, Notify);

#[async_trait]
impl Service for Desk {
    type Session = ();

    fn connected(&self, _peer: &Arc<Peer>) {}

    async fn take(&self, _session: &mut (), commands: Vec<(Command, Ticket)>) {
        let mut elsewhere = Vec::new();
        for (command, ticket) in commands {
            match command.code {
                FROM_A_THREAD => elsewhere.push((command, ticket)),
                MUCH => ticket.answer(Answer::with_body(vec![7; 32 * 1024])),
                WHEN_ROOM => {
                    self.1.notified().await;
                    ticket.answer(Answer::done());
                }
                WHEN_TOLD => self.0.lock().unwrap().push(ticket),
                _ => ticket.answer(Answer::with_body(command.body)),
            }
        }
        std::thread::spawn(|| {
            for (command, ticket) in elsewhere {
                ticket.answer(Answer::with_body(command.body));
            }
        });
    }
}

struct Server {
    address: SocketAddr,
    budget: Arc<Budget>,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap()
            .with_limits(limits);
        let address = listener.address().unwrap();
        let budget = Arc::clone(&listener.budget);
        let desk = Arc::<Desk>::default();
        let stop = watch::Sender::new(false);
        let served = tokio::spawn(listener.serve(Arc::clone(&desk), stop.subscribe()));
        Self {
            address,
            budget,
            desk,
            stop,
            served,
        }
    }

    async fn connect(&self) -> Raw {
        Raw {
            socket: TcpStream::connect(self.address).await.unwrap(),
            buffer: BytesMut::new(),
        }
    }

    /// Another connection is served as ever.
    async fn works(&self) {
        let answer = self.connect().await.call(&ask(AT_ONCE)).await;
        assert_eq!(answer.unwrap().body, ask(AT_ONCE).body);
    }
}

struct Raw {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    async fn call(&mut self, command: &Command) -> Option<Command> {
        self.say(&frame::encoded(command)).await;
        self.hear().await
    }

    async fn say(&mut self, bytes: &[u8]) {
        // A connection that is closed meanwhile shows when it is read.
        let _ = self.socket.write_all(bytes).await;
    }

    /// The next answer, `None` when the connection is closed.
    async fn hear(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = frame::take(&mut self.buffer).unwrap() {
                return Some(command);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

fn ask(code: i32) -> Command {
    Command {
        body: Bytes::from_static(b"hello"),
        ..Command::request(code, code)
    }
}

#[tokio::test]
async fn a_bad_frame_costs_its_own_connection_only() {
    let server = Server::start(Limits::default()).await;
    let mut bystander = server.connect().await;
    let good = frame::encoded(&ask(AT_ONCE));
    let mut bad_header = good.to_vec();
    bad_header[9] = b'}';
    for bad in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xFF; 64],
        &[0, 0, 0, 3, 0, 0, 0, 0],
        &[0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
        &[0x16, 3, 1, 2, 0, 1, 0, 1],
        &[0, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3, 4],
        &[0, 0, 0, 8, 7, 0, 0, 1, 1, 2, 3, 4],
        &[0, 0, 0, 8, 1, 0, 0, 4, 1, 2, 3, 4],
        &bad_header,
    ] {
        let mut raw = server.connect().await;
        raw.say(&good).await;
        raw.say(bad).await;
        assert!(raw.hear().await.is_some(), "what came before is answered");
        assert_eq!(raw.hear().await, None, "{bad:?}");
        assert!(bystander.call(&ask(AT_ONCE)).await.is_some());
    }
}

#[tokio::test]
async fn frames_may_come_byte_by_byte_and_many_at_once_in_both_dialects() {
    let server = Server::start(Limits::default()).await;
    let mut raw = server.connect().await;
    let binary = Command {
        dialect: Dialect::Binary,
        ..ask(FROM_A_THREAD)
    };
    let both = [frame::encoded(&ask(AT_ONCE)), frame::encoded(&binary)].concat();
    for byte in &both {
        raw.say(&[*byte]).await;
    }
    raw.say(&both.repeat(500)).await;
    let mut dialects = [0; 2];
    for _ in 0..2 * 501 {
        let answer = raw.hear().await.unwrap();
        assert_eq!(answer.body, ask(AT_ONCE).body);
        dialects[usize::from(answer.dialect == Dialect::Binary)] += 1;
    }
    assert_eq!(dialects, [501, 501]);
    assert_eq!(server.budget.queued(), 0);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_not_read_and_others_do_not_notice() {
    let limits = Limits {
        pause_bytes: 128 * 1024,
        idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut deaf = server.connect().await;
    let questions = frame::encoded(&ask(MUCH)).repeat(16);
    // The kernel's buffers fill first; then the server reads no more, and at last it closes the connection.
    let asking = async { while deaf.socket.write_all(&questions).await.is_ok() {} };
    let watching = async {
        for _ in 0..50 {
            server.works().await;
            let queued = server.budget.queued();
            let most = limits.pause_bytes + 1024 * 32 * 1024;
            assert!(queued < most, "{queued}");
        }
    };
    tokio::join!(asking, watching);
    assert_eq!(server.budget.queued(), 0, "what waited is forgotten");
}

#[tokio::test]
async fn a_peer_for_which_too_much_waits_loses_its_connection() {
    let limits = Limits {
        outbox_bytes: 512 * 1024,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut greedy = server.connect().await;
    let questions = frame::encoded(&ask(MUCH)).repeat(4_000);
    greedy.say(&questions).await;
    let mut heard = 0;
    while greedy.hear().await.is_some() {
        heard += 1;
    }
    assert!(heard < 4_000, "{heard}");
    server.works().await;
    assert_eq!(server.budget.queued(), 0);
}

#[tokio::test]
async fn what_is_claimed_and_does_not_come_holds_up_large_frames_only_for_a_while() {
    let limits = Limits {
        large_frames_bytes: 1024 * 1024,
        large_frame_within: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut claiming = server.connect().await;
    claiming.say(&[0, 0xF0, 0, 0, 0, 0, 0, 9]).await;
    server.works().await;
    assert_eq!(claiming.hear().await, None, "it took too long");
    let large = Command {
        body: vec![1; 3 * 1024 * 1024].into(),
        ..ask(AT_ONCE)
    };
    let mut raw = server.connect().await;
    let frame = frame::encoded(&large);
    let (read, write) = raw.socket.split();
    let (mut read, mut write) = (read, write);
    let asking = async { write.write_all(&frame).await.unwrap() };
    let answer = async {
        let mut seen = vec![0; large.body.len()];
        read.read_exact(&mut seen).await.unwrap();
    };
    tokio::join!(asking, answer);
}

#[tokio::test]
async fn whoever_is_silent_or_one_too_many_is_closed() {
    let limits = Limits {
        connections: 2,
        idle: Duration::from_millis(60),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut silent = server.connect().await;
    let mut half_open = server.connect().await;
    half_open.say(&[0, 0, 1]).await;
    assert_eq!(server.connect().await.hear().await, None, "one too many");
    assert_eq!(silent.hear().await, None, "it said nothing");
    assert_eq!(half_open.hear().await, None, "it said nothing more");
    while server.connect().await.call(&ask(AT_ONCE)).await.is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stop_gives_the_answers_under_way() {
    let server = Server::start(Limits::default()).await;
    let mut raw = server.connect().await;
    raw.say(&frame::encoded(&ask(WHEN_TOLD))).await;
    raw.call(&ask(AT_ONCE)).await.unwrap();
    server.stop.send_replace(true);
    let ticket = server.desk.0.lock().unwrap().pop().unwrap();
    std::thread::spawn(|| ticket.answer(Answer::done()));
    let answer = raw.hear().await.unwrap();
    assert_eq!(answer.opaque, WHEN_TOLD);
    assert_eq!(raw.hear().await, None);
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_stop_lets_what_waits_for_room_end() {
    let server = Server::start(Limits::default()).await;
    let mut raw = server.connect().await;
    let [first, waiting] = [AT_ONCE, WHEN_ROOM].map(|code| frame::encoded(&ask(code)));
    raw.say(&[first, waiting].concat()).await;
    server.works().await;
    server.stop.send_replace(true);
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // What comes now is not read, and costs nobody an answer.
    raw.say(&frame::encoded(&ask(AT_ONCE))).await;
    server.desk.1.notify_one();
    assert_eq!(raw.hear().await.unwrap().opaque, AT_ONCE);
    let answer = raw.hear().await.unwrap();
    assert_eq!((answer.opaque, answer.code), (WHEN_ROOM, 0));
    assert_eq!(raw.hear().await, None);
    drop(raw);
    server.served.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let limits = Limits {
        stop_within: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut raw = server.connect().await;
    raw.say(&frame::encoded(&ask(WHEN_TOLD))).await;
    raw.call(&ask(AT_ONCE)).await.unwrap();
    server.stop.send_replace(true);
    server.served.await.unwrap();
    assert_eq!(raw.hear().await, None);
    assert_eq!(server.desk.0.lock().unwrap().len(), 1);
}
