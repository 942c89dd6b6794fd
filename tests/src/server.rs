//! The server that clients talk to: `halfmoon server` on free ports over a folder of its own, or one that runs elsewhere.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mq_core::clock::{Clock, SystemClock};
use tempfile::TempDir;

use crate::process::{Program, Running};
use crate::raw::{Connection, Frame};

/// The environment variable that names the nameserver, `host:port`, of a RocketMQ server to be judged instead of ours.
pub const ELSEWHERE: &str = "HALFMOON_TEST_NAMESERVER";

/// What is not RocketMQ's default and the clients need: a consumer may select messages by an expression.
const SETTINGS: &str = "enablePropertyFilter=true\n";

/// How long a start may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Free ports can be taken by somebody else before the server has them.
const STARTS: u32 = 3;

/// A server that is ready; ours ends with this value, and its folder is removed.
#[derive(Debug)]
pub struct Server {
    nameserver: String,
    ours: Option<(Running, TempDir)>,
}

impl Server {
    /// Starts `program`, the path of `halfmoon`, or takes the one that [`ELSEWHERE`] names.
    ///
    /// # Errors
    /// It ends or is not ready in time; the error tells what it said.
    pub fn start(program: &str) -> Result<Self> {
        if let Ok(nameserver) = std::env::var(ELSEWHERE) {
            return Ok(Self {
                nameserver,
                ours: None,
            });
        }
        let mut started = Self::start_once(program);
        for _ in 1..STARTS {
            if started.is_ok() {
                break;
            }
            started = Self::start_once(program);
        }
        started
    }

    fn start_once(program: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let nameserver = format!("127.0.0.1:{}", free_port()?);
        let broker = format!("127.0.0.1:{}", free_broker_port()?);
        let settings = folder.path().join("broker.conf");
        std::fs::write(&settings, SETTINGS).context("the settings can not be written")?;
        let running = Program::new(program)
            .variable("HALFMOON_NAMESERVER_LISTEN", &nameserver)
            .variable("HALFMOON_BROKER_LISTEN", &broker)
            .argument("server")
            .argument("-c")
            .argument(settings)
            .argument("--data")
            .argument(folder.path().join("data"))
            .spawn()?;
        wait_until_ready(&running, &nameserver)?;
        Ok(Self {
            nameserver,
            ours: Some((running, folder)),
        })
    }

    /// Where clients start: `host:port` of the nameserver.
    #[must_use]
    pub fn nameserver(&self) -> &str {
        &self.nameserver
    }

    /// Whether clients find a route to this topic (request code 105).
    #[must_use]
    pub fn has_topic(&self, topic: &str) -> bool {
        let request = Frame::request(105, &[("topic", topic)], &[]);
        body(&self.nameserver, &request).is_ok_and(|body| body.contains("\"queueDatas\""))
    }

    /// Whether it is ours: then it is held to what we promise beyond RocketMQ.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// Everything it has said so far, for a failing test to show.
    #[must_use]
    pub fn told(&self) -> String {
        let ours = self.ours.as_ref();
        ours.map_or_else(String::new, |(running, _)| running.told())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.told());
        }
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A free port whose neighbour two below is free as well: clients of 4.3.2 send there.
fn free_broker_port() -> Result<u16> {
    for _ in 0..100 {
        let port = free_port()?;
        if port > 2 && TcpListener::bind((Ipv4Addr::LOCALHOST, port - 2)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port with a free one two below it")
}

/// Waits until the nameserver knows a broker.
fn wait_until_ready(running: &Running, nameserver: &str) -> Result<()> {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    while clock.monotonic().saturating_sub(start) < READY_WITHIN {
        if knows_a_broker(nameserver) {
            return Ok(());
        }
        // A pause that its end cuts short.
        if running.hears(Duration::from_millis(50), |_| false) || running.has_ended() {
            bail!("the server ended: {}", running.told());
        }
    }
    bail!("not ready within {READY_WITHIN:?}: {}", running.told())
}

/// Asks for the cluster (request code 106) and looks for a broker's name in the answer.
fn knows_a_broker(nameserver: &str) -> bool {
    let request = Frame::request(106, &[], &[]);
    body(nameserver, &request).is_ok_and(|body| body.contains("\"brokerName\""))
}

/// The body of an answer, as text.
fn body(address: &str, request: &Frame) -> Result<String> {
    let answer = Connection::open(address)?.call(request)?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
