//! The server under test: ours as a process of its own, or any RocketMQ that runs elsewhere.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tests::raw::{Connection, Frame};

/// The environment variable that names the nameserver, `host:port`, of a RocketMQ server to be judged instead of ours.
const ELSEWHERE: &str = "HALFMOON_TEST_NAMESERVER";

/// A server that takes requests.
#[derive(Debug)]
pub(super) struct Server {
    broker: String,
    ours: Option<Ours>,
}

#[derive(Debug)]
struct Ours {
    process: Process,
    folder: TempDir,
}

/// A process that ends with this value.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Ours over a fresh folder, or the one that [`ELSEWHERE`] names.
    pub(super) fn start() -> Result<Self> {
        match std::env::var(ELSEWHERE) {
            Ok(nameserver) => Ok(Self {
                broker: broker_of(&nameserver)?,
                ours: None,
            }),
            Err(_) => Self::over(tempfile::tempdir()?, None),
        }
    }

    /// Ours over `folder`; it kills itself at `step` if there is one.
    pub(super) fn over(folder: TempDir, step: Option<&str>) -> Result<Self> {
        let (process, broker) = run(folder.path(), step)?;
        let ours = Some(Ours { process, folder });
        Ok(Self { broker, ours })
    }

    /// Waits until it has killed itself, and gives its folder back.
    pub(super) fn killed_itself(self) -> Result<TempDir> {
        let mut ours = self.ours.context("only our own server kills itself")?;
        ours.process.0.wait()?;
        Ok(ours.folder)
    }

    /// Kills it with SIGKILL and starts it again over the same folder.
    pub(super) fn crash(self) -> Result<Self> {
        let Ours { process, folder } = self.ours.context("only our own server is killed")?;
        drop(process);
        Self::over(folder, None)
    }

    /// Whether it is ours, and may be killed.
    pub(super) const fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// Where its broker listens.
    pub(super) fn broker(&self) -> &str {
        &self.broker
    }
}

fn run(folder: &Path, step: Option<&str>) -> Result<(Process, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg(folder).args(step).stdout(Stdio::piped());
    let mut process = Process(command.spawn().context("the broker cannot be started")?);
    let output = process.0.stdout.take().context("its output is piped")?;
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address)?;
    Ok((process, address.trim().to_owned()))
}

/// Asks a nameserver for the one broker it knows.
fn broker_of(nameserver: &str) -> Result<String> {
    let answer = Connection::open(nameserver)?.call(&Frame::request(106, &[], b""))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    // {"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911"}, ... whose numbers may stand without quotes.
    let addresses = text.split("\"brokerAddrs\":{").nth(1);
    let address = addresses.and_then(|rest| rest.split(":\"").nth(1)?.split('"').next());
    let address = address.with_context(|| format!("no broker in {text}"))?;
    Ok(address.to_owned())
}
