//! A server over one folder, a stock Java client that sends, answers and consumes all the time, and what both have said.

use std::path::Path;
use std::time::Duration;

use mq_core::clock::{Clock, SystemClock};
use serde::Deserialize;
use tests::checker::facts::{Answer, Reader, Received, World};
use tests::checker::{Phase, Report, check, folder};
use tests::process::{Running, pause};
use tests::server::{Plan, Server};

use crate::clients::stock::Client;
pub(super) use crate::crash::runs::On;
use crate::crash::runs::copy;

/// The topic of its messages.
const TOPIC: &str = "orders";
/// The producer group; consumers have another.
const GROUP: &str = "shop";
/// Threads that send.
const AT_ONCE: u32 = 4;
/// How long anything that must happen may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);
/// The last four segments and what was decided within a second are kept.
const TRIMMED: [(&str, &str); 3] = [
    ("HALFMOON_SEGMENT", "64KiB"),
    ("HALFMOON_KEEP_BYTES", "256KiB"),
    ("HALFMOON_KEEP_HISTORY", "1s"),
];
/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(500);

/// Everything of one test.
pub(super) struct Load {
    /// `None` only while it is exchanged.
    server: Option<Server>,
    postgres: Option<String>,
    java: Client,
    client: Running,
    /// Lines that the client had said when the server was last killed.
    said_before: usize,
    /// How often the server was killed, and how often of these half messages were stored since it was back.
    kills: (u64, u64),
    /// What earlier clients said.
    told: Vec<Told>,
}

/// What the client says, as far as it is looked at.
#[derive(Debug, Clone, Deserialize)]
struct Told {
    fact: String,
    key: Option<String>,
    queue: Option<u32>,
    offset: Option<u64>,
}

impl Load {
    /// A server without a past, and a client that has begun.
    pub(super) async fn start(on: On) -> Self {
        Self::start_with(on, &[]).await
    }

    /// The same over a log that deletes and forgets all the time.
    pub(super) async fn start_trimmed(on: On) -> Self {
        Self::start_with(on, &TRIMMED).await
    }

    async fn start_with(on: On, settings: &[(&'static str, &'static str)]) -> Self {
        // A newer client for the one, an older one for the other.
        let (version, postgres) = match on {
            On::Sqlite => ("5.3.3", None),
            On::Postgres => {
                let database = private_postgres::database().await;
                ("4.3.2", Some(private_postgres::url_of(&database)))
            }
        };
        let mut plan = Plan::of(env!("CARGO_BIN_EXE_server"))
            .variable("HALFMOON_CHECK_BACK_IMMUNITY", "500ms")
            .variable("HALFMOON_SEGMENT", "256KiB");
        if let Some(url) = &postgres {
            plan = plan.variable("HALFMOON_DATABASE", url);
        }
        for (name, value) in settings {
            plan = plan.variable(name, *value);
        }
        let plan = plan.in_one_place().expect("there are free ports");
        let server = plan.start().expect("the server starts");
        let java = Client::Java {
            version,
            binary: false,
        };
        Self {
            client: client(java, &server, AT_ONCE),
            server: Some(server),
            postgres,
            java,
            said_before: 0,
            kills: (0, 0),
            told: Vec::new(),
        }
    }

    /// Waits until the client has stored something since the last kill.
    pub(super) fn is_back(&self) {
        let is = self.has_stored(1, WITHIN);
        assert!(is, "nothing is stored: {}", last(&self.client));
    }

    /// Waits until the client has stored several half messages since the last kill.
    pub(super) fn is_served(&self) {
        let is = self.has_stored(5, WITHIN);
        assert!(is, "nothing is stored: {}", last(&self.client));
    }

    /// Whether the client has stored so many half messages since the last kill, or does so in time.
    fn has_stored(&self, count: usize, within: Duration) -> bool {
        let before = self.said_before;
        let stored = |said: &[String]| {
            let new = said.iter().skip(before);
            new.filter(|line| line.contains("\"half\"")).count() >= count
        };
        self.client.hears(within, stored)
    }

    /// Lets everything run for a while.
    pub(super) fn runs_for(&self, time: Duration) {
        let _ = self.client.hears(time, |_| false);
    }

    pub(super) fn kill(&mut self) {
        self.kills.0 += 1;
        self.kills.1 += u64::from(self.has_stored(1, Duration::ZERO));
        self.server().kill().expect("it can be killed");
        self.said_before = self.client.lines();
    }

    /// Starts the server again.
    pub(super) fn again(&mut self) {
        let server = self.server.take().expect("it is exchanged here alone");
        self.server = Some(server.again().expect("it starts again"));
    }

    /// Starts the server again and waits until it has killed itself at `step`.
    pub(super) fn again_until(&mut self, step: &str) {
        let server = self.server.take().expect("it is exchanged here alone");
        let mut server = server.again_until(step).expect("it starts again");
        let status = server
            .ended()
            .unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(status.code(), None, "{step}: {}", server.told());
        self.server = Some(server);
        self.said_before = self.client.lines();
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("it is exchanged elsewhere")
    }

    /// Judges what is there while no server runs.
    pub(super) async fn judge(&mut self, phase: Phase, after: &str) -> World {
        let world = self.world().await.expect("log and database are whole");
        let report = check(&world, phase);
        self.refuse(&report, phase, after);
        world
    }

    fn refuse(&mut self, report: &Report, phase: Phase, after: &str) {
        if report.is_clean() {
            return;
        }
        let data = self.server().data().expect("it is ours");
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = data.parent().and_then(Path::file_name);
        let kept = kept.join(folder.unwrap_or_default());
        copy(&data, &kept);
        panic!(
            "after {after}, {phase:?}, kept in {}: {report}",
            kept.display()
        );
    }

    /// Kills the client; another one of its group answers until nothing is open and everything has been received.
    pub(super) async fn settle(mut self) {
        self.is_served();
        self.client.kill().expect("it runs until it is killed");
        let told = told(&self.client);
        self.told.extend(told);
        self.client = client(self.java, self.server(), 0);
        let clock = SystemClock::new();
        let start = clock.monotonic();
        loop {
            // A log that is being written may look torn.
            let settled = self.world().await.map(|world| check(&world, Phase::Healed));
            if settled.as_ref().is_ok_and(Report::is_clean) {
                break;
            }
            if clock.monotonic().saturating_sub(start) > WITHIN {
                let report = settled.expect("log and database are whole");
                self.refuse(&report, Phase::Healed, "all kills");
            }
            pause(LOOK);
        }
        self.server().terminate().expect("it runs");
        let status = self.server().ended().expect("it ends");
        assert!(status.success(), "{}", self.server().told());
        let world = self.judge(Phase::Healed, "all kills and a clean end").await;
        let (kills, served) = self.kills;
        println!("{kills} kills, {served} of them while half messages were stored");
        assert!(served * 2 > kills, "killed before anything happened");
        conclude(&world);
    }

    /// What is there now, and what the clients have said before.
    async fn world(&mut self) -> anyhow::Result<World> {
        // First what was told: what is there must account for it.
        let now = told(&self.client);
        let data = self.server().data().expect("it is ours");
        let mut world = match &self.postgres {
            None => folder::read(&data).await?,
            Some(url) => folder::read_with_postgres(&data, url).await?,
        };
        let mut reader = Reader {
            group: format!("{GROUP}-readers"),
            topic: TOPIC.to_owned(),
            received: Vec::new(),
        };
        for told in self.told.iter().chain(&now) {
            let Some(key) = told.key.as_deref().and_then(number) else {
                continue;
            };
            match (told.fact.as_str(), told.queue, told.offset) {
                ("sent", ..) => world.answers.push(Answer::Sent(key)),
                ("half", ..) => world.answers.push(Answer::HalfOfKey(key)),
                ("received", Some(queue), Some(offset)) => {
                    reader.received.push(Received { queue, offset, key })
                }
                _ => {}
            }
        }
        world.readers.push(reader);
        // Of what nobody was told about, too.
        let keys = world.log.records.iter().filter_map(|record| {
            let message = record.message.as_ref()?;
            message.property("KEYS").and_then(number)
        });
        let says = keys.filter_map(|key| Some(Answer::Says(key, says(key)?)));
        let says: Vec<Answer> = says.collect();
        world.answers.extend(says);
        Ok(world)
    }
}

/// What the client's producers say about the half message with this key: see the scenario `endless`.
fn says(key: u128) -> Option<bool> {
    match key % 6 {
        0 | 2 | 4 => Some(true),
        1 | 3 => Some(false),
        _ => None,
    }
}

fn number(key: &str) -> Option<u128> {
    u128::from_str_radix(key, 16).ok()
}

/// Starts a client with so many threads that send, and waits until it has begun.
fn client(java: Client, server: &Server, at_once: u32) -> Running {
    let program = java
        .program()
        .argument("endless")
        .argument(server.nameserver())
        .argument(TOPIC)
        .argument(GROUP)
        .argument(at_once.to_string());
    let client = program.spawn().expect("java can be started");
    let begun = |said: &[String]| said.iter().any(|line| line.contains("\"started\""));
    assert!(client.hears(WITHIN, begun), "{}", client.told());
    client
}

fn told(client: &Running) -> Vec<Told> {
    let told = client.told();
    let facts = told.lines().filter(|line| line.starts_with('{'));
    // A line that a kill has cut was not said.
    facts
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn last(client: &Running) -> String {
    let told = client.told();
    let lines: Vec<&str> = told.lines().rev().take(20).collect();
    lines.join("\n")
}

/// Prints what happened; every kind of thing did.
fn conclude(world: &World) {
    const CHECKED: u8 = 2;
    let answers = |which: fn(&Answer) -> bool| world.answers.iter().filter(|a| which(a)).count();
    let halves = answers(|answer| matches!(answer, Answer::HalfOfKey(_)));
    let sent = answers(|answer| matches!(answer, Answer::Sent(_)));
    let received: usize = world
        .readers
        .iter()
        .map(|reader| reader.received.len())
        .sum();
    let by_checks = world.sql.events.iter().filter(|event| {
        let decided = matches!(event.to, 1 | 2);
        decided && event.actor == CHECKED
    });
    let (rows, by_checks) = (world.sql.rows.len(), by_checks.count());
    println!(
        "{halves} half messages of {rows} acknowledged, {by_checks} decided by check-backs; \
         {sent} plain ones acknowledged; {received} received"
    );
    assert!(
        halves > 20 && sent > 5 && by_checks > 5 && received > 20,
        "hardly anything happened"
    );
}
