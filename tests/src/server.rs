//! The server that clients talk to: `halfmoon server` on free ports over a folder of its own, or one that runs elsewhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mq_core::clock::{Clock, SystemClock};
use tempfile::TempDir;

use crate::process::{Program, Running};

/// The environment variable that names the nameserver, `host:port`, of a RocketMQ server to be judged instead of ours.
pub const ELSEWHERE: &str = "HALFMOON_TEST_NAMESERVER";

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
    /// Starts `program`, the path of `halfmoon`, with further arguments after `server`; or takes the one that
    /// [`ELSEWHERE`] names.
    ///
    /// # Errors
    /// It ends or is not ready in time; the error tells what it said.
    pub fn start(program: &str, arguments: &[&str]) -> Result<Self> {
        if let Ok(nameserver) = std::env::var(ELSEWHERE) {
            return Ok(Self {
                nameserver,
                ours: None,
            });
        }
        let mut started = Self::start_once(program, arguments);
        for _ in 1..STARTS {
            if started.is_ok() {
                break;
            }
            started = Self::start_once(program, arguments);
        }
        started
    }

    fn start_once(program: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let nameserver = format!("127.0.0.1:{}", free_port()?);
        let broker = format!("127.0.0.1:{}", free_broker_port()?);
        let mut server = Program::new(program)
            .variable("HALFMOON_NAMESERVER_LISTEN", &nameserver)
            .variable("HALFMOON_BROKER_LISTEN", &broker)
            .argument("server")
            .argument("--data")
            .argument(folder.path());
        for argument in arguments {
            server = server.argument(argument);
        }
        let running = server.spawn()?;
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
        let fields = format!(r#"{{"topic":"{topic}"}}"#);
        answer(&self.nameserver, 105, &fields).is_ok_and(|answer| answer.contains("\"queueDatas\""))
    }

    /// Whether it is ours: then it is held to what we promise beyond RocketMQ.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// Its data folder, if it is ours.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.ours.as_ref().map(|(_, folder)| folder.path())
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
    answer(nameserver, 106, "{}").is_ok_and(|answer| answer.contains("\"brokerName\""))
}

/// The answer to a request without a body, as text.
fn answer(address: &str, code: u32, fields: &str) -> Result<String> {
    let header = format!(
        r#"{{"code":{code},"language":"JAVA","version":253,"opaque":1,"flag":0,"serializeTypeCurrentRPC":"JSON","extFields":{fields}}}"#
    );
    let length = u32::try_from(header.len())?;
    let mut frame = (length + 4).to_be_bytes().to_vec();
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&frame)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = Vec::new();
    let rest = u64::from(u32::from_be_bytes(size));
    stream.take(rest).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
