//! Processes of the shop: started as this same program, heard until they are ready, killed, and gone when whoever started them is.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// How long a process may take until it says that it is ready, or until it has ended.
const WITHIN: Duration = Duration::from_secs(120);
/// How often a process is started that ends at once.
const STARTS: u32 = 10;
/// Between two starts.
const AGAIN: Duration = Duration::from_millis(500);

/// Ends this process as soon as its standard input does: the other end was held by whoever started it.
pub fn end_with_standard_input() {
    std::thread::spawn(|| {
        let mut input = std::io::stdin().lock();
        let mut bytes = [0; 64];
        while input.read(&mut bytes).is_ok_and(|read| read > 0) {}
        std::process::exit(1);
    });
}

/// How a process of the shop is started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What people call it.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment beside ours.
    pub variables: Vec<(&'static str, String)>,
}

/// A process of the shop. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    plan: Plan,
    child: Child,
    /// Held here, since waiting for a child closes the input that it has itself.
    _input: Option<ChildStdin>,
    /// What it said when it was ready.
    said: String,
}

impl Process {
    /// Starts it and waits until it says that it is ready. One that ends at once is started again a few times: what it needs
    /// may still be held by the last one, which is about to end.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready in time.
    pub async fn start(program: &Path, plan: Plan) -> Result<Self> {
        for _ in 1..STARTS {
            if let Some(process) = Self::start_once(program, plan.clone()).await? {
                return Ok(process);
            }
            tokio::time::sleep(AGAIN).await;
        }
        let name = plan.name;
        let last = Self::start_once(program, plan).await?;
        last.with_context(|| format!("{name} ends before it is ready"))
    }

    /// `None` when it ends before it is ready.
    async fn start_once(program: &Path, plan: Plan) -> Result<Option<Self>> {
        let mut child = Command::new(program)
            .args(&plan.arguments)
            .envs(plan.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", plan.name))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("its output was not piped")?;
        let mut lines = BufReader::new(output).lines();
        let first = tokio::time::timeout(WITHIN, lines.next_line()).await;
        let first = first.with_context(|| format!("{} is not ready in time", plan.name))?;
        let Some(said) = first? else {
            return Ok(None);
        };
        // What else it says is of no interest, and must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Some(Self {
            plan,
            child,
            _input: input,
            said,
        }))
    }

    /// What people call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.plan.name
    }

    /// The line by which it said that it is ready.
    #[must_use]
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Kills it with SIGKILL and waits until it is gone; how to start it again.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(mut self) -> Result<Plan> {
        let killed = self.child.kill().await;
        killed.with_context(|| format!("{} cannot be killed", self.plan.name))?;
        Ok(self.plan)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// It has ended by itself, or nobody can tell.
    pub fn runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended by itself: {status}", self.plan.name),
            None => Ok(()),
        }
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// It takes too long, or says that something failed.
    pub async fn end(mut self) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw);
        let id = id.with_context(|| format!("{} has ended already", self.plan.name))?;
        kill_process(id, Signal::TERM)?;
        let ended = tokio::time::timeout(WITHIN, self.child.wait()).await;
        let status = ended.with_context(|| format!("{} does not end", self.plan.name))??;
        if !status.success() {
            bail!("{} did not end well: {status}", self.plan.name);
        }
        Ok(())
    }
}
