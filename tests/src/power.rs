//! A disk whose power a test can cut: an ext4 of its own that forgets what was not made durable, made by `tests/power.sh`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/power.sh");

/// What it says when a machine cannot do it; anything else that goes wrong is a failure.
const IMPOSSIBLE: i32 = 2;

/// A mounted file system. It is unmounted, detached and removed with this value, and also when the process dies: the
/// script that made it ends when its standard input does.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    script: Child,
    /// `None` only once this is dropped.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// A disk, or the reason why this machine has none.
#[derive(Debug)]
pub enum Made {
    /// It is mounted and empty.
    Disk(Disk),
    /// Not root, or kernel or programs lack something.
    Impossible(String),
}

impl Disk {
    /// Makes one of some hundred megabytes.
    ///
    /// # Errors
    /// The script cannot be run, or ends for another reason than that this machine cannot do it.
    pub fn make() -> Result<Made> {
        let mut script = Command::new(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("tests/power.sh can not be run")?;
        let orders = script.stdin.take();
        let answers = script.stdout.take().context("its output was not piped")?;
        let mut answers = BufReader::new(answers);
        let said = line(&mut answers)?;
        if said.starts_with('/') {
            return Ok(Made::Disk(Self {
                folder: said.into(),
                script,
                orders,
                answers,
            }));
        }
        drop(orders);
        let status = script.wait().context("cannot wait for tests/power.sh")?;
        if status.code() == Some(IMPOSSIBLE) {
            return Ok(Made::Impossible(said));
        }
        bail!("tests/power.sh: {status}: {said}");
    }

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Cuts the power: whatever was not made durable is lost, and every access fails until [`Disk::again`].
    ///
    /// # Errors
    /// What the system said.
    pub fn cut(&mut self) -> Result<()> {
        self.order("cut")
    }

    /// Mounts it again, as the next start of the machine would. Nobody may have a file on it open any more; who is about to
    /// close one is waited for.
    ///
    /// # Errors
    /// What the system said.
    pub fn again(&mut self) -> Result<()> {
        self.order("again")
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the disk is gone")?;
        writeln!(orders, "{order}").context("tests/power.sh has ended")?;
        let said = line(&mut self.answers)?;
        if said != "done" {
            bail!("{}: {said}", self.folder.display());
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Fails only if it was waited for.
        let _ = self.script.wait();
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut said = String::new();
    answers
        .read_line(&mut said)
        .context("what tests/power.sh says is no text")?;
    Ok(said.trim_end().to_owned())
}
