//! The original RocketMQ server for one test: a nameserver and a broker on free ports over a folder of their own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{Kill, Program};

/// How long a start may take where its packages have to be fetched first.
const STARTED_WITHIN: Duration = Duration::from_secs(600);
/// How long ending both processes may take.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// Free ports can be taken by somebody else before the server has them.
const STARTS: u32 = 3;
/// A nameserver's port; a broker's, with one two below and one above; two of the proxy that 5.x comes with.
const PORTS: u16 = 6;

/// A stock server that is ready; it ends with this value, and its folder is removed.
#[derive(Debug)]
pub struct Stock {
    version: &'static str,
    nameserver: String,
    folder: TempDir,
}

impl Stock {
    /// Starts one; `version` is `4.3.2`, `4.9` for 4.9.4, or `5` for 5.3.3. It asks about half messages after 2 s, every second.
    ///
    /// # Errors
    /// Java, Maven or the packages are missing, or it does not start in time; the error tells what was said.
    pub fn start(version: &'static str) -> Result<Self> {
        let mut started = Self::start_once(version);
        for _ in 1..STARTS {
            if started.is_ok() {
                break;
            }
            started = Self::start_once(version);
        }
        started
    }

    fn start_once(version: &'static str) -> Result<Self> {
        let first = free_ports()?;
        let port = |number: u16| (first + number).to_string();
        let stock = Self {
            version,
            nameserver: format!("127.0.0.1:{first}"),
            folder: tempfile::tempdir().context("a temporary folder")?,
        };
        let up = stock
            .script("up.sh")
            .variable("NS_PORT", port(0))
            .variable("BROKER_PORT", port(3))
            .variable("GRPC_PORT", port(2))
            .variable("PROXY_PORT", port(5))
            .variable("TX_TIMEOUT_MS", "2000")
            .variable("TX_INTERVAL_MS", "1000")
            .limit(STARTED_WITHIN);
        let ended = up.run(&Kill::Never)?;
        if !ended.status.success() {
            bail!("RocketMQ {version} does not start: {}", ended.told());
        }
        Ok(stock)
    }

    /// Where clients start: `host:port` of the nameserver.
    #[must_use]
    pub fn nameserver(&self) -> &str {
        &self.nameserver
    }

    fn script(&self, name: &str) -> Program {
        Program::new(scripts().join(name))
            .argument(self.version)
            .variable("DIR", self.folder.path())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let down = self.script("down.sh").variable("KILL", "1");
        // What cannot be ended is left to whoever looks at the test that has failed.
        let _ = down.limit(ENDED_WITHIN).run(&Kill::Never);
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("java-rocketmq")
}

/// The first of some ports in a row that are free.
fn free_ports() -> Result<u16> {
    for _ in 0..100 {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let first = free(0).context("no free port")?.local_addr()?.port();
        if first < u16::MAX - PORTS && (1..PORTS).all(|number| free(first + number).is_ok()) {
            return Ok(first);
        }
    }
    bail!("no {PORTS} free ports in a row")
}
