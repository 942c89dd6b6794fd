//! The client programs: how to build them once, and how to run each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tests::process::{Kill, Program};

use super::facts;
pub(crate) use super::facts::Fact;

/// A stock client, as one of the programs in `tests/clients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Java {
        version: &'static str,
        /// Whether headers are in RocketMQ's own binary form instead of JSON.
        binary: bool,
    },
    Go,
    Node,
}

/// Every Java client.
pub(crate) const JAVA: &[Client] = &[
    Client::Java {
        version: "4.3.2",
        binary: false,
    },
    Client::Java {
        version: "4.3.2",
        binary: true,
    },
    Client::Java {
        version: "5.3.3",
        binary: false,
    },
    Client::Java {
        version: "5.3.3",
        binary: true,
    },
];

/// What a program is asked to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) nameserver: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) group: &'a str,
    pub(crate) count: usize,
    pub(crate) subscription: &'a str,
}

/// Java machines need a core for their start, and the clients in them give up after seconds.
static PERMITS: Permits = Permits {
    free: Mutex::new(4),
    given_back: Condvar::new(),
};

struct Permits {
    free: Mutex<u32>,
    given_back: Condvar,
}

/// Gives itself back when it is dropped.
struct Permit<'a>(&'a Permits);

impl Permits {
    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.given_back.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free += 1;
        self.0.given_back.notify_one();
    }
}

/// The programs give up by themselves; this is for one that hangs.
const GIVES_UP_AFTER: Duration = Duration::from_secs(75);
const KILLED_AFTER: Duration = Duration::from_secs(90);

impl Client {
    /// Its name in topics, groups and messages of failing tests.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Java { version, binary } => {
                let header = if binary { "binary" } else { "json" };
                format!("java-{}-{header}", version.replace('.', "_"))
            }
            Self::Go => "go".to_owned(),
            Self::Node => "node".to_owned(),
        }
    }

    /// Runs a scenario to its end and reads what happened. Panics, with everything it said, if it did not go as expected.
    pub(crate) fn play(self, order: Order<'_>) -> Vec<Fact> {
        let _permit = matches!(self, Self::Java { .. }).then(|| PERMITS.take());
        let program = self
            .program()
            .argument(order.scenario)
            .argument(order.nameserver)
            .argument(order.topic)
            .argument(order.group)
            .argument(order.count.to_string())
            .argument(order.subscription)
            .variable("CLIENT_SECONDS", GIVES_UP_AFTER.as_secs().to_string())
            .limit(KILLED_AFTER);
        let ended = program
            .run(&Kill::Never)
            .unwrap_or_else(|error| panic!("{}, {order:?}: {error}", self.name()));
        assert!(
            ended.status.success(),
            "{}, {order:?}: {}",
            self.name(),
            ended.told()
        );
        facts::read(&ended.output)
    }

    pub(crate) fn program(self) -> Program {
        match self {
            Self::Java { version, binary } => {
                let folder = built("java").join(format!("java-{version}"));
                let mut class_path = folder.join("classes").into_os_string();
                class_path.push(":");
                class_path.push(folder.join("jars").join("*"));
                let mut java = java(class_path);
                if binary {
                    java = java.argument("-Drocketmq.serialize.type=ROCKETMQ");
                }
                java.argument("Client")
            }
            Self::Go => Program::new(built("go").join("go").join("client")),
            Self::Node => Program::new("node").argument(built("node").join("node/client.js")),
        }
    }
}

/// A small Java machine with what the old clients need from it, ready for a class's name and its arguments.
pub(crate) fn java(class_path: impl Into<OsString>) -> Program {
    let mut home = OsString::from("-Duser.home=");
    // RocketMQ's clients write their logs below it.
    home.push(Path::new(env!("CARGO_TARGET_TMPDIR")));
    Program::new("java")
        .argument("-Xms16m")
        .argument("-Xmx256m")
        .argument("-XX:+UseSerialGC")
        .argument("-XX:TieredStopAtLevel=1")
        .argument("--add-opens=java.base/java.nio=ALL-UNNAMED")
        .argument(home)
        .argument("-cp")
        .argument(class_path)
}

/// The folder of the built clients, once those of `language` are built.
pub(crate) fn built(language: &str) -> PathBuf {
    static JAVA: OnceLock<()> = OnceLock::new();
    static GO: OnceLock<()> = OnceLock::new();
    static NODE: OnceLock<()> = OnceLock::new();
    let once = match language {
        "java" => &JAVA,
        "go" => &GO,
        _ => &NODE,
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the folder for temporary files is inside the target folder");
    once.get_or_init(|| {
        let prepare = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/prepare");
        let ended = Command::new(prepare)
            .arg(language)
            .env("CARGO_TARGET_DIR", target)
            .status();
        let ended = ended.expect("tests/clients/prepare can be run");
        assert!(ended.success(), "tests/clients/prepare {language}: {ended}");
    });
    target.join("clients")
}
