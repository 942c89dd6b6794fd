//! The server that clients talk to: `halfmoon server` on free ports over a folder of its own, or one that runs elsewhere.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mq_core::clock::{Clock, SystemClock};
use tempfile::TempDir;

use crate::process::{Program, Running};
use crate::raw::{Connection, Frame};

/// The environment variable that names the nameserver, `host:port`, of a RocketMQ server to be judged instead of ours.
pub const ELSEWHERE: &str = "HALFMOON_TEST_NAMESERVER";

/// Its data folder inside its own.
const DATA: &str = "data";
/// How long a start may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether it is ready: a start takes a tenth of a second.
const LOOK: Duration = Duration::from_millis(10);
/// How long a server may take until it has killed itself where it was told to, or ended as it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// Free ports can be taken by somebody else before the server has them.
const STARTS: u32 = 3;

/// A server that is ready; ours ends with this value, and its folder is removed.
#[derive(Debug)]
pub struct Server {
    nameserver: String,
    broker: String,
    ours: Option<Ours>,
}

/// A process of our own.
#[derive(Debug)]
struct Ours {
    running: Running,
    plan: Plan,
    folder: TempDir,
}

/// How our own server is started.
#[derive(Debug, Clone)]
pub struct Plan {
    program: String,
    settings: Option<&'static str>,
    variables: Vec<(&'static str, String)>,
    /// Nameserver and broker, if every start has the same.
    addresses: Option<(String, String)>,
    step: Option<String>,
}

impl Plan {
    /// `program`, the path of `halfmoon`, as it is without any configuration.
    #[must_use]
    pub fn of(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            settings: None,
            variables: Vec::new(),
            addresses: None,
            step: None,
        }
    }

    /// The same with this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The same, at the same addresses whenever it is started: clients that stay find it again.
    ///
    /// # Errors
    /// There are no free ports.
    pub fn in_one_place(mut self) -> Result<Self> {
        let (nameserver, broker) = (lasting_port()?, lasting_port()?);
        let at = |port| format!("127.0.0.1:{port}");
        self.addresses = Some((at(nameserver), at(broker)));
        Ok(self)
    }

    /// The same with these lines as its broker.conf.
    #[must_use]
    pub fn settings(self, lines: &'static str) -> Self {
        Self {
            settings: Some(lines),
            ..self
        }
    }

    /// The same, killing itself at a step of the protocol.
    #[must_use]
    pub fn killed_at(self, step: &str) -> Self {
        Self {
            step: Some(step.to_owned()),
            ..self
        }
    }

    /// Starts it over a fresh folder, or takes the server that [`ELSEWHERE`] names.
    ///
    /// # Errors
    /// It ends or is not ready in time; the error tells what it said.
    pub fn start(self) -> Result<Server> {
        if let Ok(nameserver) = std::env::var(ELSEWHERE) {
            let broker =
                broker_of(&nameserver)?.with_context(|| format!("{nameserver} knows no broker"))?;
            return Ok(Server {
                nameserver,
                broker,
                ours: None,
            });
        }
        self.start_over(tempfile::tempdir().context("a temporary folder")?)
    }

    /// Starts ours over `folder`.
    fn start_over(self, folder: TempDir) -> Result<Server> {
        let mut started = self.start_once(&folder);
        for _ in 1..STARTS {
            if started.is_ok() {
                break;
            }
            started = self.start_once(&folder);
        }
        let (running, nameserver, broker) = started?;
        let ours = Ours {
            running,
            plan: self,
            folder,
        };
        Ok(Server {
            nameserver,
            broker,
            ours: Some(ours),
        })
    }

    fn start_once(&self, folder: &TempDir) -> Result<(Running, String, String)> {
        let (nameserver, broker) = match &self.addresses {
            Some(addresses) => addresses.clone(),
            None => (
                format!("127.0.0.1:{}", free_port()?),
                format!("127.0.0.1:{}", free_broker_port()?),
            ),
        };
        let mut program = Program::new(&self.program)
            .variable("HALFMOON_NAMESERVER_LISTEN", &nameserver)
            .variable("HALFMOON_BROKER_LISTEN", &broker)
            .argument("server")
            .argument("--data")
            .argument(folder.path().join(DATA));
        for (name, value) in &self.variables {
            program = program.variable(name, value);
        }
        if let Some(lines) = self.settings {
            let file = folder.path().join("broker.conf");
            std::fs::write(&file, lines).context("the settings can not be written")?;
            program = program.argument("-c").argument(file);
        }
        if let Some(step) = &self.step {
            program = program.argument("--allow-crash").argument("--crash-at");
            program = program.argument(step);
        }
        let running = program.spawn()?;
        let ready = wait_until_ready(&running, &nameserver);
        // A step that belongs to the start is its end.
        if self.step.is_none() || !running.has_ended() {
            ready?;
        }
        Ok((running, nameserver, broker))
    }
}

impl Server {
    /// Where its broker listens, `host:port`.
    #[must_use]
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// Waits until it has ended, and starts it again over the same folder; this time it does not kill itself.
    ///
    /// # Errors
    /// It is not ours or lives on.
    pub fn again(mut self) -> Result<Self> {
        let mut ours = self.ours.take().context("only our own server ends")?;
        ours.running.ended(ENDS_WITHIN)?;
        let plan = Plan {
            step: None,
            ..ours.plan
        };
        plan.start_over(ours.folder)
    }

    /// The same, but this time it kills itself at a step, maybe before it is ready.
    ///
    /// # Errors
    /// As [`Self::again`].
    pub fn again_until(mut self, step: &str) -> Result<Self> {
        let mut ours = self.ours.take().context("only our own server ends")?;
        ours.running.ended(ENDS_WITHIN)?;
        ours.plan.killed_at(step).start_over(ours.folder)
    }

    /// Kills it with SIGKILL and leaves its folder for a look before [`Self::again`].
    ///
    /// # Errors
    /// It is not ours.
    pub fn kill(&mut self) -> Result<()> {
        let ours = self
            .ours
            .as_mut()
            .context("only our own server is killed")?;
        ours.running.kill()?;
        Ok(())
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    /// It is not ours or has ended.
    pub fn terminate(&self) -> Result<()> {
        let ours = self.ours.as_ref();
        let ours = ours.context("only our own server is asked to end")?;
        ours.running.terminate()
    }

    /// Stops it, with SIGSTOP, until it is told to go on.
    ///
    /// # Errors
    /// It is not ours, or has ended.
    pub fn freeze(&self) -> Result<()> {
        let ours = self.ours.as_ref();
        let ours = ours.context("only our own server is stopped")?;
        ours.running.freeze()
    }

    /// Lets it go on after [`Self::freeze`].
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn thaw(&self) -> Result<()> {
        let ours = self.ours.as_ref();
        let ours = ours.context("only our own server is stopped")?;
        ours.running.thaw()
    }

    /// Waits until it has ended; its exit status.
    ///
    /// # Errors
    /// It is not ours or lives on.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let ours = self.ours.as_mut().context("only our own server ends")?;
        ours.running.ended(ENDS_WITHIN)
    }

    /// Kills it with SIGKILL and starts it again over the same folder.
    ///
    /// # Errors
    /// It is not ours, or does not start again.
    pub fn crash(mut self) -> Result<Self> {
        let ours = self.ours.take().context("only our own server is killed")?;
        drop(ours.running);
        ours.plan.start_over(ours.folder)
    }

    /// Its data folder, if it is ours.
    #[must_use]
    pub fn data(&self) -> Option<PathBuf> {
        let ours = self.ours.as_ref()?;
        Some(ours.folder.path().join(DATA))
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
        ours.map_or_else(String::new, |ours| ours.running.told())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.told());
        }
    }
}

/// A free port.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A free port whose neighbour two below is free as well: clients of 4.3.2 send there.
///
/// # Errors
/// There is none.
pub fn free_broker_port() -> Result<u16> {
    for _ in 0..100 {
        let port = free_port()?;
        if port > 2 && TcpListener::bind((Ipv4Addr::LOCALHOST, port - 2)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port with a free one two below it")
}

/// A free port, with a free one two below it, that the system gives to nobody who does not ask for it: a client that looks
/// for a server which is not there may otherwise get the very port that it connects to, and find itself.
fn lasting_port() -> Result<u16> {
    const FIRST: u32 = 25_000;
    const PORTS: u32 = 7_000;
    const APART: u32 = 5;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        // Processes that run at the same time begin elsewhere.
        let begin = std::process::id().wrapping_mul(37);
        let port = FIRST + begin.wrapping_add(number * APART) % PORTS;
        let port = u16::try_from(port).context("the range ends below 65536")?;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port - 2) {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}

/// Waits until the nameserver knows a broker.
fn wait_until_ready(running: &Running, nameserver: &str) -> Result<()> {
    wait_until(running, || matches!(broker_of(nameserver), Ok(Some(_))))
}

/// Waits until a process that starts is `ready`.
pub(crate) fn wait_until(running: &Running, ready: impl Fn() -> bool) -> Result<()> {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    while clock.monotonic().saturating_sub(start) < READY_WITHIN {
        if ready() {
            return Ok(());
        }
        // A pause that its end cuts short.
        if running.hears(LOOK, |_| false) || running.has_ended() {
            bail!("the server ended: {}", running.told());
        }
    }
    bail!("not ready within {READY_WITHIN:?}: {}", running.told())
}

/// The first broker that a nameserver knows (request code 106).
fn broker_of(nameserver: &str) -> Result<Option<String>> {
    let text = body(nameserver, &Frame::request(106, &[], &[]))?;
    // {"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911"}, ... whose numbers may stand without quotes.
    let addresses = text.split("\"brokerAddrs\":{").nth(1);
    let address = addresses.and_then(|rest| rest.split(":\"").nth(1)?.split('"').next());
    Ok(address.map(str::to_owned))
}

/// The body of an answer, as text.
pub(crate) fn body(address: &str, request: &Frame) -> Result<String> {
    let answer = Connection::open(address)?.call(request)?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
