//! Somebody who follows a guide: with a folder, terminals, and a server that listens where nobody else does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tests::process::{Kill, Program, Running};
use tests::server::{free_broker_port, free_port};

use super::page::{Block, Kind, blocks, is_shown};

/// Compiling everything on a busy machine.
const LONG: Duration = Duration::from_secs(1_200);
/// What programs may take to show something, check-backs included.
const SOON: Duration = Duration::from_secs(120);
/// How often a command is repeated until it shows what it should: each time takes a moment.
const TIMES: u32 = 1_000;
const SIGKILL: i32 = 9;

/// Follows one guide. Dropped, it ends whatever still runs.
pub(super) struct Reader {
    _folder: TempDir,
    /// Where the next commands are typed.
    at: PathBuf,
    /// Where the server listens.
    nameserver: String,
    broker: String,
    /// What stands in guides, and what it is here.
    here: [(&'static str, String); 4],
    /// The last command that has ended.
    commands: Option<Program>,
    /// What it said.
    said: Vec<String>,
    terminals: BTreeMap<String, Terminal>,
}

/// A terminal, in which one program runs at a time.
#[derive(Default)]
struct Terminal {
    running: Option<Running>,
    /// What earlier programs said.
    before: Vec<String>,
    /// What the guide has shown so far.
    shown: Vec<String>,
}

impl Reader {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().expect("the project is there");
        let address = |port| format!("127.0.0.1:{port}");
        let nameserver = address(free_port().expect("a port is free"));
        let broker = address(free_broker_port().expect("a port is free"));
        // Everything in which following a guide here differs from following it by hand.
        let here = [
            ("../halfmoon/", format!("{}/", root.display())),
            (
                "cargo run --release -p halfmoon --",
                env!("CARGO_BIN_EXE_server").to_owned(),
            ),
            ("127.0.0.1:9876", nameserver.clone()),
            ("127.0.0.1:10911", broker.clone()),
        ];
        // Versions of packages, and what was compiled with them, are those of this test.
        let settings = folder.path().join(".cargo");
        fs::create_dir(&settings).expect("the folder can be written to");
        fs::write(settings.join("config.toml"), profile(&root)).expect("it can be written");
        // The clone, as far as the server looks at it.
        fs::create_dir(folder.path().join("halfmoon")).expect("the folder can be written to");
        Self {
            at: folder.path().to_owned(),
            _folder: folder,
            here,
            nameserver,
            broker,
            commands: None,
            said: Vec::new(),
            terminals: BTreeMap::new(),
        }
    }

    /// Does everything in its order, and finds that what was shown once came once.
    pub(super) fn follow(mut self, page: &str) {
        for block in blocks(page) {
            let text = self.here(&block.text);
            match &block.kind {
                Kind::File(name) => self.write(name, &text),
                Kind::Commands => self.run(&text, &block),
                Kind::Typed(terminal) => self.start(terminal, &text),
                Kind::Shown(None) => self.has_said(&text, &block),
                Kind::Shown(Some(terminal)) => self.shows(terminal, &text, &block),
                Kind::Other => {}
            }
        }
        for (name, terminal) in &self.terminals {
            let lines = terminal.lines();
            for shown in &terminal.shown {
                let wanted = count(&terminal.shown, shown);
                assert_eq!(
                    count(&lines, shown),
                    wanted,
                    "{shown:?} in {name}: {lines:#?}"
                );
            }
        }
    }

    fn here(&self, text: &str) -> String {
        let replace = |text: String, (there, here): &(&str, String)| text.replace(there, here);
        self.here.iter().fold(text.to_owned(), replace)
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.at.join(name);
        let folder = file.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("the folder can be made");
        fs::write(&file, text).expect("the file can be written");
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        if name == "Cargo.toml" {
            fs::copy(lock, self.at.join("Cargo.lock")).expect("the file can be copied");
        }
    }

    /// Packages of guides have a name each, since what is compiled of them ends up in one folder.
    fn shell(&self, script: &str) -> Program {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let target = target.expect("the folder for temporary files is inside the target folder");
        Program::new("bash")
            .argument("-euc")
            .argument(format!("cd '{}'\n{script}", self.at.display()))
            .variable("CARGO_TARGET_DIR", target)
            .variable("NAMESRV_ADDR", &self.nameserver)
            .variable("HALFMOON_NAMESERVER_LISTEN", &self.nameserver)
            .variable("HALFMOON_BROKER_LISTEN", &self.broker)
            .limit(LONG)
    }

    fn run(&mut self, text: &str, block: &Block) {
        let commands = self.shell(&format!("{text}pwd"));
        self.said = said_by(&commands, block);
        let folder = self.said.pop().expect("it ends with a folder");
        self.at = folder.into();
        self.commands = Some(self.shell(text.lines().last().unwrap_or_default()));
    }

    /// Repeats the last command until it shows this.
    fn has_said(&mut self, text: &str, block: &Block) {
        let commands = self.commands.take().expect("there was a command");
        let shows = |said: &[String]| text.lines().all(|shown| count(said, shown) > 0);
        for _ in 0..TIMES {
            if shows(&self.said) {
                return;
            }
            self.said = said_by(&commands, block);
        }
        panic!("line {}: {text}in {:#?}", block.line, self.said);
    }

    fn start(&mut self, terminal: &str, text: &str) {
        let (before, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text));
        // Without a shell around it, so that what is sent to the process reaches the program.
        let program = self.shell(&format!("{before}\nexec env {last}"));
        let terminal = self.terminals.entry(terminal.to_owned()).or_default();
        terminal.stop();
        terminal.running = Some(program.spawn().expect("bash can be started"));
    }

    fn shows(&mut self, name: &str, text: &str, block: &Block) {
        let terminal = self
            .terminals
            .get_mut(name)
            .expect("its program was started");
        if text.trim_end() == CTRL_C {
            terminal.stop();
            return;
        }
        terminal.shown.extend(text.lines().map(str::to_owned));
        assert!(terminal.waits(), "line {}: {}", block.line, self.told());
    }

    fn told(&self) -> String {
        let told = |(name, terminal): (&String, &Terminal)| {
            format!("== {name}\n{}\n", terminal.lines().join("\n"))
        };
        self.terminals.iter().map(told).collect()
    }
}

impl Terminal {
    /// Everything that was said in it.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.before.clone();
        if let Some(running) = &self.running {
            lines.extend(running.told().lines().map(str::to_owned));
        }
        lines
    }

    /// Waits until all that is shown was said, `Killed` by the shell.
    fn waits(&mut self) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let (before, shown) = (&self.before, &self.shown);
        let said = |lines: &[String]| {
            let all: Vec<String> = before.iter().chain(lines).cloned().collect();
            shown
                .iter()
                .all(|line| count(&all, line) >= count(shown, line))
        };
        if shown.last().is_some_and(|line| line == KILLED) {
            self.stops_by_itself();
            return self.before.last().is_some_and(|line| line == KILLED);
        }
        running.hears(SOON, said)
    }

    fn stops_by_itself(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let status = running.ended(SOON);
        self.before
            .extend(running.told().lines().map(str::to_owned));
        if status.is_ok_and(|status| status.signal() == Some(SIGKILL)) {
            self.before.push(KILLED.to_owned());
        }
    }

    /// Ends the program that runs in it, as Ctrl-C does.
    fn stop(&mut self) {
        if let Some(running) = &self.running {
            // Fails only if it has ended already.
            let _ = running.terminate();
        }
        self.stops_by_itself();
    }
}

/// What commands that end by themselves say.
fn said_by(commands: &Program, block: &Block) -> Vec<String> {
    let ended = commands.run(&Kill::Never).expect("it ends in time");
    assert!(
        ended.status.success(),
        "line {}: {}",
        block.line,
        ended.told()
    );
    ended.output
}

/// What a terminal shows when its program is stopped.
const CTRL_C: &str = "^C";
/// What a shell says when its program was killed.
const KILLED: &str = "Killed";

/// How many lines are what `shown` says.
fn count(lines: &[String], shown: &str) -> usize {
    lines.iter().filter(|line| is_shown(shown, line)).count()
}

/// The project's profile for tests, so that what is compiled already need not be compiled again.
fn profile(root: &Path) -> String {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the project has one");
    let dev = manifest
        .split("\n\n")
        .filter(|part| part.starts_with("[profile.dev"));
    dev.collect::<Vec<_>>().join("\n")
}
