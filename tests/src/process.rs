//! Runs a program as its own process, kills it with SIGKILL where the test says, and collects what it said.
//!
//! A test gets the path of a binary of this package from `env!("CARGO_BIN_EXE_name")`, so that it never runs a stale
//! one. Every run is bounded in time, and only processes started here are ever killed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mq_core::clock::{Clock, SystemClock};
use mq_core::random::{Random, SeededRandom};
use rustix::process::{Pid, Signal, kill_process};

/// Waits before another look at a process that is not ours to command, and that tells nobody what it does.
pub fn pause(time: Duration) {
    let (_never, nothing) = std::sync::mpsc::channel::<()>();
    let _ = nothing.recv_timeout(time);
}

/// When to kill a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kill {
    /// Let it end by itself.
    Never,
    /// So long after its start.
    After(Duration),
    /// As soon as it writes a line that contains this.
    WhenItSays(String),
}

/// A program with its arguments; can be run often.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    limit: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; after a kill it has a signal and no code.
    pub status: ExitStatus,
    /// Whether it was killed here. `false` also if it ended before its time came.
    pub killed: bool,
    /// Lines of its standard output.
    pub output: Vec<String>,
    /// Lines of its standard error.
    pub errors: Vec<String>,
}

impl Ended {
    /// The last line of the standard output that is not empty.
    #[must_use]
    pub fn last_line(&self) -> &str {
        let mut lines = self.output.iter().rev();
        lines
            .find(|line| !line.trim().is_empty())
            .map_or("", |line| line)
    }

    /// Everything it said, for a failing test to show.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "{}\n{}\n{}",
            self.status,
            self.output.join("\n"),
            self.errors.join("\n")
        )
    }
}

impl Program {
    /// The program at `path`; a run may take a minute unless [`Program::limit`] says otherwise.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Sets how long a run may take.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it once.
    ///
    /// # Errors
    /// It cannot be started, or takes longer than the limit: then it was killed, and the error tells what it had said.
    pub fn run(&self, kill: &Kill) -> Result<Ended> {
        let mut child = Owned(self.start()?);
        let (sender, lines) = sync_channel(1024);
        let output = child.0.stdout.take().context("the output was not piped")?;
        let errors = child.0.stderr.take().context("the errors were not piped")?;
        let readers = [
            read(output, sender.clone(), false),
            read(errors, sender, true),
        ];
        let mut said = Said::default();
        let end = said.listen(&lines, kill, self.limit);
        let killed = !matches!(end, End::ByItself);
        if killed {
            child.0.kill().context("cannot kill the process")?;
        }
        let status = child.0.wait().context("cannot wait for the process")?;
        // What it had written before it died is still in the pipes.
        said.output_and_errors(lines.iter());
        for reader in readers {
            reader
                .join()
                .ok()
                .context("a reader of the output panicked")?;
        }
        let Said { output, errors } = said;
        let ended = Ended {
            status,
            killed,
            output,
            errors,
        };
        if matches!(end, End::TooLong) {
            bail!(
                "{} took longer than {:?}: {}",
                self.path.display(),
                self.limit,
                ended.told()
            );
        }
        Ok(ended)
    }

    /// Starts it and lets it run until the result is dropped; that kills it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self) -> Result<Running> {
        let mut child = Owned(self.start()?);
        let output = child.0.stdout.take().context("the output was not piped")?;
        let errors = child.0.stderr.take().context("the errors were not piped")?;
        let (sender, lines) = sync_channel(1024);
        read(output, sender.clone(), false);
        read(errors, sender, true);
        let said = Arc::new(Heard::default());
        let hears = Arc::clone(&said);
        // Ends when the process does, and with it both readers.
        thread::spawn(move || hears.listen(&lines));
        Ok(Running { child, said })
    }

    fn start(&self) -> Result<Child> {
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        Command::new(&self.path)
            .args(&self.arguments)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))
    }
}

/// How long the lines of a process that was killed may take.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A program that runs beside the test; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Owned,
    said: Arc<Heard>,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Waits until what it has said so far is enough, so long at most; whether it is. Ends early when the program does.
    #[must_use]
    pub fn hears(&self, at_most: Duration, enough: impl Fn(&[String]) -> bool) -> bool {
        self.said.until(at_most, enough)
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    /// It has ended already.
    pub fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child.0), Signal::TERM).context("it takes no signal")
    }

    /// Waits until it has ended, so long at most; its exit status.
    ///
    /// # Errors
    /// It lives on.
    pub fn ended(&mut self, at_most: Duration) -> Result<ExitStatus> {
        // Ends early when the program does.
        let _ = self.hears(at_most, |_| false);
        if !self.has_ended() {
            bail!("it lives on: {}", self.told());
        }
        self.child.0.wait().context("cannot wait for the process")
    }

    /// Stops it, with SIGSTOP, and waits until no thread of it runs or is inside a call of the system.
    ///
    /// # Errors
    /// It has ended, or does not stop.
    pub fn freeze(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child.0), Signal::STOP).context("it takes no signal")?;
        let threads = format!("/proc/{}/task", self.id());
        let clock = SystemClock::new();
        let start = clock.monotonic();
        while clock.monotonic().saturating_sub(start) < ENDS_WITHIN {
            if all_stopped(&threads)? {
                return Ok(());
            }
            pause(Duration::from_millis(1));
        }
        bail!("it does not stop: {}", self.told())
    }

    /// Lets it go on after [`Self::freeze`], with SIGCONT.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child.0), Signal::CONT).context("it takes no signal")
    }

    /// Kills it with SIGKILL if it has not ended, and waits until everything it said is here.
    ///
    /// # Errors
    /// It cannot be killed, or something that it started holds its output open.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.0.kill().context("cannot kill the process")?;
        self.ended(ENDS_WITHIN)
    }

    /// As [`Self::kill`], together with all processes that it has started itself: as a power cut ends them.
    ///
    /// # Errors
    /// As [`Self::kill`].
    pub fn kill_with_children(&mut self) -> Result<ExitStatus> {
        // While it is stopped it starts no more.
        let _ = kill_process(Pid::from_child(&self.child.0), Signal::STOP);
        let children = children_of(self.id())?;
        self.child.0.kill().context("cannot kill the process")?;
        for child in children {
            // One that has ended meanwhile is what we want.
            let _ = kill_process(child, Signal::KILL);
        }
        self.ended(ENDS_WITHIN)
    }

    /// Whether it has ended and everything it said is here.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.said.lock().1
    }

    /// How many lines it has said so far.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.said.lock().0.len()
    }

    /// Everything it has said so far, on standard output and standard error.
    #[must_use]
    pub fn told(&self) -> String {
        self.said.lock().0.join("\n")
    }
}

/// The processes whose parent is `parent`.
fn children_of(parent: u32) -> Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").context("there is no /proc")? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // One that has ended meanwhile is no child any more.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let behind_name = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        let mut words = behind_name.split_whitespace().skip(1);
        if words.next().and_then(|word| word.parse().ok()) == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Whether every thread in this folder of the system's is stopped.
fn all_stopped(threads: &str) -> Result<bool> {
    for thread in std::fs::read_dir(threads).context("it has ended")? {
        let state = std::fs::read_to_string(thread?.path().join("stat"));
        // The name before the state is in parentheses and may hold anything. A thread without a state has just ended.
        let state = state.unwrap_or_default();
        let after = state.rsplit_once(')').map(|(_, after)| after.trim_start());
        if after.is_some_and(|after| !after.starts_with(['T', 't'])) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a running program has said, and whether that is all.
#[derive(Debug, Default)]
struct Heard {
    said: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Heard {
    fn listen(&self, lines: &Receiver<Line>) {
        for (line, _) in lines {
            self.lock().0.push(line);
            self.more.notify_all();
        }
        self.lock().1 = true;
        self.more.notify_all();
    }

    fn until(&self, at_most: Duration, enough: impl Fn(&[String]) -> bool) -> bool {
        let missing = |(lines, ended): &mut (Vec<String>, bool)| !enough(lines) && !*ended;
        let waited = self.more.wait_timeout_while(self.lock(), at_most, missing);
        let (now, _) = waited.unwrap_or_else(PoisonError::into_inner);
        enough(&now.0)
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that does not outlive the test, also when the test panics.
#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Fails only if it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

enum End {
    ByItself,
    ItsTimeCame,
    TooLong,
}

#[derive(Debug, Default)]
struct Said {
    output: Vec<String>,
    errors: Vec<String>,
}

/// A line, and whether it came from standard error.
type Line = (String, bool);

impl Said {
    /// Collects lines until the process ends or shall be killed.
    fn listen(&mut self, lines: &Receiver<Line>, kill: &Kill, limit: Duration) -> End {
        let clock = SystemClock::new();
        let start = clock.monotonic();
        let until = match kill {
            Kill::After(time) => *time,
            Kill::Never | Kill::WhenItSays(_) => limit,
        };
        loop {
            let passed = clock.monotonic().saturating_sub(start);
            match lines.recv_timeout(until.saturating_sub(passed)) {
                Ok(line) => {
                    let now = matches!(kill, Kill::WhenItSays(text) if line.0.contains(text));
                    self.output_and_errors([line]);
                    if now {
                        return End::ItsTimeCame;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return End::ByItself,
                Err(RecvTimeoutError::Timeout) if matches!(kill, Kill::After(_)) => {
                    return End::ItsTimeCame;
                }
                Err(RecvTimeoutError::Timeout) => return End::TooLong,
            }
        }
    }

    fn output_and_errors(&mut self, lines: impl IntoIterator<Item = Line>) {
        for (line, is_error) in lines {
            if is_error {
                self.errors.push(line);
            } else {
                self.output.push(line);
            }
        }
    }
}

fn read(
    from: impl Read + Send + 'static,
    to: SyncSender<Line>,
    is_error: bool,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from
            .read_until(b'\n', &mut line)
            .is_ok_and(|bytes| bytes > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if to.send((text, is_error)).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// `count` moments between `from` and `to` at which to kill, the same for the same seed.
#[must_use]
pub fn moments(seed: u64, count: usize, from: Duration, to: Duration) -> Vec<Kill> {
    let random = SeededRandom::new(seed);
    let span = u64::try_from(to.saturating_sub(from).as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let moment = |_| Kill::After(from + Duration::from_micros(random.next_u64() % span));
    (0..count).map(moment).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ENDLESS: &str = "echo one; echo oops >&2; echo two; exec tail -f /dev/null";

    fn shell(script: &str) -> Program {
        Program::new("sh").argument("-c").argument(script)
    }

    #[test]
    fn a_program_that_ends_tells_everything() {
        let ended = shell("echo one; echo oops >&2; echo $NAME; exit 3")
            .variable("NAME", "two")
            .run(&Kill::Never)
            .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!((ended.output.len(), ended.last_line()), (2, "two"));
        assert_eq!(ended.errors, ["oops"]);
        assert!(!ended.killed);
    }

    #[test]
    fn a_program_is_killed_with_those_that_it_has_started() {
        let mut running = shell("tail -f /dev/null & echo one; wait").spawn().unwrap();
        assert!(running.hears(ENDS_WITHIN, |said| said == ["one"]));
        let children = children_of(running.id()).unwrap();
        assert_eq!(children.len(), 1);
        // It holds the output open.
        let status = running.kill_with_children().unwrap();
        assert_eq!(status.code(), None);
    }

    #[test]
    fn a_program_is_killed_when_it_says_so() {
        let ended = shell(ENDLESS).run(&Kill::WhenItSays("two".into())).unwrap();
        assert!(ended.killed && ended.status.code().is_none());
        assert_eq!(ended.output, ["one", "two"]);
    }

    #[test]
    fn a_program_is_killed_after_its_time() {
        let ended = shell(ENDLESS)
            .run(&Kill::After(Duration::from_millis(20)))
            .unwrap();
        assert!(ended.killed && ended.status.code().is_none());
    }

    #[test]
    fn a_program_that_never_ends_is_an_error() {
        let endless = shell(ENDLESS).limit(Duration::from_millis(300));
        let error = endless.run(&Kill::Never).unwrap_err().to_string();
        assert!(error.contains("took longer"), "{error}");
    }

    #[test]
    fn a_program_beside_the_test_is_heard_until_it_ends() {
        let running = shell("echo one; echo oops >&2; read line").spawn().unwrap();
        assert!(running.hears(Duration::from_secs(10), |lines| lines.len() == 2));
        assert!(!running.hears(Duration::from_secs(10), |lines| lines.len() == 3));
        assert!(running.has_ended());
        let mut told: Vec<String> = running.told().lines().map(str::to_owned).collect();
        told.sort();
        assert_eq!(told, ["one", "oops"]);
    }

    #[test]
    fn a_program_beside_the_test_ends_when_it_is_asked_to() {
        let script = "trap 'exit 7' TERM; echo one; while true; do read line; done";
        let mut running = shell(script).spawn().unwrap();
        assert!(running.hears(Duration::from_secs(10), |lines| lines.len() == 1));
        running.terminate().unwrap();
        let status = running.ended(Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(7));
        let mut running = shell(ENDLESS).spawn().unwrap();
        let error = running.ended(Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("lives on"), "{error}");
    }

    #[test]
    fn a_program_that_is_killed_has_told_everything() {
        let mut running = shell("echo one; echo two; exec tail -f /dev/null")
            .spawn()
            .unwrap();
        assert!(running.hears(Duration::from_secs(10), |lines| !lines.is_empty()));
        assert_eq!(running.kill().unwrap().code(), None);
        let mut ended = shell("echo one").spawn().unwrap();
        assert!(!ended.hears(Duration::from_secs(10), |lines| lines.len() > 1));
        assert_eq!(ended.kill().unwrap().code(), Some(0));
        assert_eq!(ended.told(), "one");
    }

    #[test]
    fn a_program_that_is_frozen_says_nothing_more_and_can_be_killed() {
        let mut running = shell("while true; do echo one; done").spawn().unwrap();
        assert!(running.hears(Duration::from_secs(10), |lines| !lines.is_empty()));
        running.freeze().unwrap();
        let threads = format!("/proc/{}/task", running.id());
        assert!(all_stopped(&threads).unwrap());
        running.thaw().unwrap();
        let before = running.lines();
        assert!(running.hears(Duration::from_secs(10), |lines| lines.len() > before + 1000));
        running.freeze().unwrap();
        assert_eq!(running.kill().unwrap().code(), None);
        assert!(running.freeze().is_err());
    }

    #[test]
    fn a_program_beside_the_test_is_killed_with_it() {
        let running = shell(ENDLESS).spawn().unwrap();
        let process = Path::new("/proc").join(running.id().to_string());
        assert!(!running.has_ended() && process.exists());
        drop(running);
        assert!(!process.exists());
    }

    #[test]
    fn a_seed_gives_the_same_moments() {
        let (from, to) = (Duration::from_millis(5), Duration::from_millis(50));
        let kills = moments(7, 20, from, to);
        assert_eq!(kills, moments(7, 20, from, to));
        assert_ne!(kills, moments(8, 20, from, to));
        assert!(
            kills
                .iter()
                .all(|kill| matches!(kill, Kill::After(at) if (from..to).contains(at)))
        );
    }
}
