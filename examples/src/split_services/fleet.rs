//! All processes of the shop together: started one after the other, killed one at a time, ended in the opposite order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::plans::{SERVER, plans};
use super::processes::Process;
use super::service::READY;

/// All processes. Dropping it kills them.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    /// The server first.
    processes: Vec<Process>,
    /// Where orders are taken.
    instances: watch::Sender<Vec<SocketAddr>>,
}

impl Fleet {
    /// Starts everything over `folder`, with every table in the Postgres database if there is one.
    ///
    /// # Errors
    /// A process cannot be started or is not ready in time.
    pub async fn start(folder: &Path, postgres: Option<&str>) -> Result<Self> {
        let mut fleet = Self {
            program: std::env::current_exe().context("this program cannot be found")?,
            processes: Vec::new(),
            instances: watch::Sender::new(Vec::new()),
        };
        for plan in plans(folder, postgres)? {
            let process = Process::start(&fleet.program, plan).await?;
            fleet.processes.push(process);
        }
        fleet.say_where();
        Ok(fleet)
    }

    /// Where orders are taken; empty while nobody takes any.
    #[must_use]
    pub fn instances(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.instances.subscribe()
    }

    /// How many processes there are.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.processes.len()
    }

    /// Looks whether all of them run.
    ///
    /// # Errors
    /// Names the one that has ended by itself.
    pub fn runs(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::runs)
    }

    /// Kills the process with this number, from 0, and starts it again; its name.
    ///
    /// # Errors
    /// It cannot be killed or does not start again.
    pub async fn kill(&mut self, number: usize) -> Result<&'static str> {
        let plan = self.processes.remove(number).kill().await?;
        self.say_where();
        let name = plan.name;
        let again = Process::start(&self.program, plan).await?;
        self.processes.insert(number, again);
        self.say_where();
        Ok(name)
    }

    /// Tells the customers which instances are there.
    fn say_where(&self) {
        let at = |process: &Process| {
            process
                .said()
                .strip_prefix(READY)?
                .strip_prefix(" at ")?
                .parse()
                .ok()
        };
        let services = self
            .processes
            .iter()
            .filter(|process| process.name() != SERVER);
        self.instances
            .send_replace(services.filter_map(at).collect());
    }

    /// Ends everything, the server last.
    ///
    /// # Errors
    /// A process does not end, or does not end well.
    pub async fn end(mut self) -> Result<()> {
        while let Some(process) = self.processes.pop() {
            process.end().await?;
        }
        Ok(())
    }
}
