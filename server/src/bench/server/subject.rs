//! A server that is measured: our own, started as a process, or any other that listens somewhere.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mq_core::clock::Clock;
use mq_core::remoting::client::{Connection, Limits};
use mq_core::wire::command::Command;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use super::requests::{Requests, first_broker};
use crate::bench::failed;
use crate::failure::Failure;

/// How long one answer may take that is no part of the load.
const WITHIN: Duration = Duration::from_secs(10);

/// Where a server is, and which processes it consists of.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) broker: SocketAddrV4,
    pids: Vec<u32>,
    child: Option<Child>,
    control: Connection,
    /// From its start until it answered.
    pub(super) ready: Duration,
}

impl Subject {
    /// Starts our own server on free ports, deciding in `database` or else beside its log.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start(
        data: &Path,
        memory: Option<&str>,
        database: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<Self, Failure> {
        let [nameserver, broker] = free_ports().map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(["server", "--json", "--data"])
            .arg(data)
            .args(["--nameserver-listen", &nameserver.to_string()])
            .args(["--broker-listen", &broker.to_string()]);
        if let Some(memory) = memory {
            command.args(["--memory", memory]);
        }
        // Not an argument: every user of the machine may read those, and a URL may hold a password.
        match database {
            Some(database) => command.env("HALFMOON_DATABASE", database),
            None => command.env_remove("HALFMOON_DATABASE"),
        };
        let began = clock.monotonic();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| failed("no output"))?;
        let said = BufReader::new(stdout).lines().next_line().await;
        if said.map_err(failed)?.is_none() {
            return Err(failed("the server ended before it was ready"));
        }
        let ready = clock.monotonic().saturating_sub(began);
        Ok(Self {
            broker,
            pids: child.id().into_iter().collect(),
            child: Some(child),
            control: connect(broker).await?,
            ready,
        })
    }

    /// The broker that `nameserver` names first; its processes are `pids`.
    ///
    /// # Errors
    /// Nobody answers there, or no broker is known.
    pub(super) async fn find(nameserver: SocketAddrV4, pids: &[u32]) -> Result<Self, Failure> {
        let asked = connect(nameserver).await?;
        let answer = asked
            .call(Requests::route(), WITHIN)
            .await
            .map_err(failed)?;
        let broker = first_broker(&answer.body).ok_or_else(|| {
            failed(format!(
                "the nameserver at {nameserver} knows no broker that makes topics by itself: {}",
                answer.remark
            ))
        })?;
        Ok(Self {
            broker,
            pids: pids.to_vec(),
            child: None,
            control: connect(broker).await?,
            ready: Duration::ZERO,
        })
    }

    /// Asks the broker something outside of the load.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn ask(&self, command: Command) -> Result<Command, Failure> {
        self.control.call(command, WITHIN).await.map_err(failed)
    }

    /// User and system time of its processes so far; `None` when they are not known.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let of = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            cpu_ticks(&stat)
        };
        let ticks: u64 = self.pids.iter().map(of).sum::<Option<u64>>()?;
        // The kernel counts in hundredths of a second wherever it runs today.
        (!self.pids.is_empty()).then(|| Duration::from_millis(ticks * 10))
    }

    /// Resident memory of its processes in MiB.
    pub(super) fn resident_mib(&self) -> f64 {
        let of = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.pids.iter().filter_map(of).sum::<u64>() as f64 / 1024.0
    }

    /// Ends our own server as an operator would, and waits for its end.
    ///
    /// # Errors
    /// It does not end well.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.control.close();
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw);
        kill_process(
            pid.ok_or_else(|| failed("the server is gone"))?,
            Signal::TERM,
        )
        .map_err(failed)?;
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait());
        let status = ended.await.map_err(failed)?.map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(format!("the server ended with {status}")))
        }
    }
}

async fn connect(address: SocketAddrV4) -> Result<Connection, Failure> {
    Connection::open(address, Limits::default())
        .await
        .map_err(|error| failed(format!("{address} does not answer: {error}")))
}

/// User and system time in `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name in brackets may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Two ports that are free now, the port two below the second included.
fn free_ports() -> std::io::Result<[SocketAddrV4; 2]> {
    loop {
        let bind = |port| TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let nameserver = bind(0)?;
        let broker = bind(0)?;
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let (nameserver, broker) = (port(&nameserver)?, port(&broker)?);
        if nameserver.abs_diff(broker) > 2 && bind(broker - 2).is_ok() {
            return Ok(
                [nameserver, broker].map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(100));
        assert_eq!(cpu_ticks("12"), None);
    }
}
