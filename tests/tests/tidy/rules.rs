//! The rules themselves: each looks at one file and says what breaks it and why that matters.

use std::fmt;

use super::source::{Line, Source};

/// Decisions without I/O: time and bytes come as arguments. A path ending in `/` is a folder. Files whose first line says
/// that they are pure are taken at their word and need not stand here.
pub(super) const PURE: &[&str] = &[
    "mq-core/src/wire/",
    "mq-core/src/names.rs",
    "mq-core/src/message.rs",
    "mq-core/src/broker/catalog.rs",
    "mq-core/src/exchange.rs",
    "mq-core/src/filter.rs",
    "mq-core/src/filter/",
    "mq-core/src/membership.rs",
    "mq-core/src/places.rs",
    "mq-core/src/broker/notes.rs",
    "coordinator/src/transaction.rs",
    "coordinator/src/audit/",
    "coordinator/src/check_back/plan.rs",
    "coordinator/src/engine/half.rs",
    "coordinator/src/engine/ledger.rs",
    "coordinator/src/engine/ledger/",
    "coordinator/src/store/shape.rs",
];

const DISK: &str = "mq-core/src/log/disk.rs";
const CLOCK: &str = "mq-core/src/clock.rs";
const RANDOM: &str = "mq-core/src/random.rs";
const WIRE: &str = "mq-core/src/wire/";
const SQL: &[&str] = &[
    "coordinator/src/store/",
    "coordinator/src/marker/",
    "coordinator/src/inbox/",
];

/// Files that alone may do something.
pub(super) const DOORS: &[&str] = &[DISK, CLOCK, RANDOM, WIRE, "coordinator/src/store/"];

/// One house rule.
pub(super) struct Rule {
    /// Its name, as findings show it.
    pub(super) name: &'static str,
    /// Why it is there, and what to do instead.
    reason: &'static str,
    /// What breaks it in one file.
    check: fn(&Source) -> Vec<Hit>,
}

/// Line and what was found there.
type Hit = (usize, String);

/// Something that breaks a rule.
#[derive(Debug)]
pub(super) struct Finding {
    path: String,
    /// From 1.
    pub(super) line: usize,
    /// The rule's name.
    pub(super) rule: &'static str,
    found: String,
    reason: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            found,
            reason,
        } = self;
        write!(f, "{path}:{line}: {rule}: {found}\n    {reason}")
    }
}

/// Everything in `source` that breaks a rule.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        for (line, found) in (rule.check)(source) {
            findings.push(Finding {
                path: source.path.clone(),
                line,
                rule: rule.name,
                found,
                reason: rule.reason,
            });
        }
    }
    findings
}

/// Every rule.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "mq-core knows no transactions",
        reason: "the broker engine is useful without them; say what an extension needs in the engine's own words, names from the wire stand in mq-core/src/wire/",
        check: engine_words,
    },
    Rule {
        name: "dependencies point one way",
        reason: "mq-core knows neither SQL nor the coordinator; the coordinator knows neither server nor command line; versions stand once, in the workspace",
        check: dependencies,
    },
    Rule {
        name: "every package takes the shared lints",
        reason: "add `[lints]` with `workspace = true`; unsafe code is forbidden there",
        check: shared_lints,
    },
    Rule {
        name: "the checker stands alone",
        reason: "a checker that shares code with what it checks shares its mistakes; it reads files and tables by itself",
        check: lone_checker,
    },
    Rule {
        name: "pure files do no I/O",
        reason: "decisions and codecs take time and bytes as arguments, so that they can be tested and simulated; put the I/O into the shell around them",
        check: pure_files,
    },
    Rule {
        name: "one door to files",
        reason: "only mq-core/src/log/disk.rs opens files, so that a simulated disk can stand in",
        check: file_door,
    },
    Rule {
        name: "one door to sockets",
        reason: "only listener and client modules touch sockets, so that a simulated network can stand in",
        check: socket_door,
    },
    Rule {
        name: "one door to SQL",
        reason: "only store/, marker/ and inbox/ speak SQL; everything else goes through their traits",
        check: sql_door,
    },
    Rule {
        name: "one door to the clock",
        reason: "only mq-core/src/clock.rs reads a clock; take a Clock, so that tests can move time",
        check: clock_door,
    },
    Rule {
        name: "one door to chance",
        reason: "only mq-core/src/random.rs draws random numbers; take a Random, so that a run can be repeated from its seed",
        check: random_door,
    },
    Rule {
        name: "modules have an idea in their name",
        reason: "a module named like a drawer collects everything; name what it owns",
        check: drawer_modules,
    },
    Rule {
        name: "types have an idea in their name",
        reason: "the word says nothing about what the type does; name its part",
        check: drawer_types,
    },
    Rule {
        name: "queues are bounded",
        reason: "an unbounded queue turns a slow reader into a full memory; give it a bound with a reason",
        check: unbounded,
    },
    Rule {
        name: "every test runs",
        reason: "a test that is left out protects nothing: make it run or remove it",
        check: ignored_tests,
    },
    Rule {
        name: "nothing is left for later in the source",
        reason: "finish it or leave it out; what is missing on purpose is said in the documents",
        check: unfinished,
    },
    Rule {
        name: "no paths of one machine",
        reason: "the project runs wherever it is cloned; use a temporary folder or a path the caller gives",
        check: machine_paths,
    },
    Rule {
        name: "no package registry is named",
        reason: "where packages come from is the user's setting; Cargo.lock names the default registry only",
        check: registries,
    },
    Rule {
        name: "the project speaks of itself alone",
        reason: "a reader has this tree and nothing else: say the reason itself instead of naming a ticket or a paper outside",
        check: outside_papers,
    },
    Rule {
        name: "a module says what it owns",
        reason: "the first line of a Rust file is one `//!` sentence saying what it owns",
        check: module_sentence,
    },
    Rule {
        name: "no unwrap outside tests",
        reason: "return an error, or write expect(\"the reason that proves it\")",
        check: unwraps,
    },
    Rule {
        name: "an expect says why it holds",
        reason: "the message is the proof that it cannot fail",
        check: empty_expects,
    },
    Rule {
        name: "nobody sleeps",
        reason: "time is moved or an event is waited for; a sleep is slow on good days and too short on bad ones",
        check: sleeps,
    },
    Rule {
        name: "a file has one idea",
        reason: "over 800 lines without tests there is usually a part that has earned its own name",
        check: long_files,
    },
];

fn hits(source: &Source, find: impl Fn(&Line) -> Option<String>) -> Vec<Hit> {
    source
        .lines
        .iter()
        .filter_map(|line| Some((line.number, find(line)?)))
        .collect()
}

/// The lines of product code (not tests, Rust only) in which `find` finds something.
fn product(source: &Source, find: impl Fn(&Line) -> Option<String>) -> Vec<Hit> {
    if !source.is_rust() {
        return Vec::new();
    }
    hits(source, |line| if line.is_test { None } else { find(line) })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first of `words` that stands in `text` and is not part of a longer name.
fn word(text: &str, words: &[&str]) -> Option<String> {
    let stands = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let before = text.get(..at).and_then(|t| t.chars().next_back());
            let after = text.get(at + word.len()..).and_then(|t| t.chars().next());
            let open = |edge: Option<char>, neighbour: Option<char>| {
                !(edge.is_some_and(is_name) && neighbour.is_some_and(is_name))
            };
            open(word.chars().next(), before) && open(word.chars().next_back(), after)
        })
    };
    words
        .iter()
        .find(|word| stands(word))
        .map(|word| (*word).to_owned())
}

/// The first of `parts` that stands anywhere in `text`.
fn part(text: &str, parts: &[&str]) -> Option<String> {
    parts
        .iter()
        .find(|part| text.contains(**part))
        .map(|part| (*part).to_owned())
}

fn under(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| source.path.starts_with(place))
}

fn in_core(source: &Source) -> bool {
    source.path.starts_with("mq-core/")
}

fn in_libraries(source: &Source) -> bool {
    under(source, &["mq-core/src/", "coordinator/src/"])
}

fn engine_words(source: &Source) -> Vec<Hit> {
    if !in_core(source) || under(source, &[WIRE]) {
        return Vec::new();
    }
    let parts = [
        "transaction",
        "half message",
        "half_message",
        "halfmessage",
        "half-message",
        "check-back",
        "check_back",
        "checkback",
        "check back",
        "prepared",
        "sqlx",
        "sqlite",
        "postgres",
    ];
    hits(source, |line| {
        let text = line.text.to_lowercase();
        part(&text, &parts).or_else(|| word(&text, &["sql"]))
    })
}

fn dependencies(source: &Source) -> Vec<Hit> {
    let Some(package) = source.path.strip_suffix("/Cargo.toml") else {
        return Vec::new();
    };
    let refused: &[&str] = match package {
        "mq-core" => &[
            "sqlx",
            "coordinator",
            "halfmoon",
            "examples",
            "tokio-cron-scheduler",
            "clap",
            "anyhow",
        ],
        "coordinator" => &[
            "halfmoon",
            "examples",
            "clap",
            "anyhow",
            "comfy-table",
            "indicatif",
        ],
        "server" => &["sqlx", "examples"],
        _ => &[],
    };
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for line in &source.lines {
        let text = line.text.trim();
        if text.starts_with('[') {
            in_dependencies = text.contains("dependencies");
        } else if in_dependencies && text.contains('=') && !text.starts_with('#') {
            let name = text.split(['.', ' ', '=']).next().unwrap_or_default();
            if refused.contains(&name) {
                found.push((line.number, format!("{package} depends on {name}")));
            } else if !text.contains("workspace = true") {
                found.push((line.number, format!("{name} has a version of its own")));
            }
        }
    }
    found
}

fn shared_lints(source: &Source) -> Vec<Hit> {
    let member = source.path.matches('/').count() == 1 && source.path.ends_with("/Cargo.toml");
    let mut lines = source.lines.iter().map(|line| line.text.trim());
    let taken = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    if member && !taken {
        return vec![(
            source.lines.len(),
            "no `[lints]` with `workspace = true`".to_owned(),
        )];
    }
    Vec::new()
}

fn lone_checker(source: &Source) -> Vec<Hit> {
    if !source.path.starts_with("tests/src/checker") {
        return Vec::new();
    }
    hits(source, |line| {
        word(
            &line.code,
            &["mq_core", "coordinator", "halfmoon", "examples"],
        )
    })
}

fn pure_files(source: &Source) -> Vec<Hit> {
    let first = source.lines.first().map_or("", |line| &line.text);
    let says_so = source.is_rust() && part(first, &[": pure", ". Pure", ": a pure"]).is_some();
    if !says_so && !under(source, PURE) {
        return Vec::new();
    }
    let words = [
        "std::fs",
        "std::io",
        "std::thread",
        "std::env",
        "std::process",
        "tokio",
        "sqlx",
        "rustix",
        "tracing",
        "Instant",
        "SystemTime",
        "async fn",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
    ];
    product(source, |line| word(&line.code, &words))
}

fn file_door(source: &Source) -> Vec<Hit> {
    if !source.path.starts_with("mq-core/src/") || source.path == DISK {
        return Vec::new();
    }
    let words = [
        "std::fs",
        "tokio::fs",
        "OpenOptions",
        "File::open",
        "File::create",
        "fs::",
    ];
    product(source, |line| word(&line.code, &words))
}

fn socket_door(source: &Source) -> Vec<Hit> {
    let door = ["/listener", "/client"]
        .iter()
        .any(|part| source.path.contains(part));
    if !in_libraries(source) || door {
        return Vec::new();
    }
    let words = [
        "TcpStream",
        "TcpListener",
        "TcpSocket",
        "UdpSocket",
        "UnixStream",
        "UnixListener",
    ];
    product(source, |line| word(&line.code, &words))
}

fn sql_door(source: &Source) -> Vec<Hit> {
    let inside =
        source.path.starts_with("coordinator/src/") || source.path.starts_with("server/src/");
    if !inside || under(source, SQL) {
        return Vec::new();
    }
    let statements = [
        "SELECT ",
        "INSERT INTO",
        "INSERT OR",
        "UPDATE ",
        "DELETE FROM",
        "CREATE TABLE",
        "PRAGMA ",
        "BEGIN IMMEDIATE",
    ];
    product(source, |line| {
        word(&line.code, &["sqlx"]).or_else(|| part(&line.quoted, &statements))
    })
}

fn clock_door(source: &Source) -> Vec<Hit> {
    if !source.is_rust() || source.path == CLOCK {
        return Vec::new();
    }
    let words = [
        "Instant::now",
        "SystemTime::now",
        "Utc::now",
        "Local::now",
        "UNIX_EPOCH",
    ];
    hits(source, |line| word(&line.code, &words))
}

fn random_door(source: &Source) -> Vec<Hit> {
    if !in_libraries(source) || source.path == RANDOM {
        return Vec::new();
    }
    let words = [
        "new_v4",
        "now_v7",
        "rand",
        "getrandom",
        "fastrand",
        "RandomState",
    ];
    product(source, |line| word(&line.code, &words))
}

const DRAWERS: [&str; 12] = [
    "common", "util", "utils", "utility", "types", "helper", "helpers", "manager", "managers",
    "impl", "impls", "misc",
];

fn drawer_modules(source: &Source) -> Vec<Hit> {
    if !source.is_rust() {
        return Vec::new();
    }
    let stem = source.path.trim_end_matches(".rs");
    let mut found: Vec<Hit> = stem
        .split('/')
        .filter(|piece| DRAWERS.contains(piece))
        .map(|piece| (1, format!("{piece} in the path")))
        .collect();
    found.extend(hits(source, |line| {
        let mut words = line
            .code
            .split(|c| !is_name(c))
            .skip_while(|word| *word != "mod");
        let name = words.nth(1)?;
        DRAWERS.contains(&name).then(|| format!("mod {name}"))
    }));
    found
}

fn drawer_types(source: &Source) -> Vec<Hit> {
    let ends = ["Manager", "Helper", "Helpers", "Util", "Utils", "Impl"];
    product(source, |line| {
        let mut words = line
            .code
            .split(|c| !is_name(c))
            .filter(|word| !word.is_empty());
        words.find(|word| ["struct", "enum", "trait", "type"].contains(word))?;
        let name = words.next()?;
        ends.iter()
            .any(|end| name.ends_with(end))
            .then(|| name.to_owned())
    })
}

fn unbounded(source: &Source) -> Vec<Hit> {
    product(source, |line| {
        let words = [
            "unbounded",
            "unbounded_channel",
            "UnboundedSender",
            "UnboundedReceiver",
        ];
        let plain = line.code.replace("oneshot::channel", "oneshot");
        word(&line.code, &words).or_else(|| word(&plain, &["channel()"]))
    })
}

fn ignored_tests(source: &Source) -> Vec<Hit> {
    if !source.is_rust() {
        return Vec::new();
    }
    hits(source, |line| {
        part(&line.code, &["#[ignore"]).or_else(|| part(&line.comment, &["```ignore"]))
    })
}

fn unfinished(source: &Source) -> Vec<Hit> {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
    ];
    hits(source, |line| {
        word(&line.text, &marks).or_else(|| word(&line.code, &["todo!", "unimplemented!"]))
    })
}

fn machine_paths(source: &Source) -> Vec<Hit> {
    let folders = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/t", "mp/"),
    ];
    hits(source, |line| part(&line.text, &folders))
}

fn registries(source: &Source) -> Vec<Hit> {
    if source.path == "Cargo.lock" {
        let usual = concat!(
            "source = \"registry+https://github.com/rust-lang/crates",
            ".io-index\""
        );
        return hits(source, |line| {
            let foreign = line.text.starts_with("source = ") && line.text != usual;
            foreign.then(|| line.text.clone())
        });
    }
    let hosts = [
        concat!("crates", ".io"),
        concat!("npmjs", ".org"),
        concat!("pypi", ".org"),
        concat!("proxy.golang", ".org"),
        concat!("repo.maven", ".apache"),
        concat!("repo1", ".maven"),
        concat!("arti", "factory"),
    ];
    hits(source, |line| part(&line.text.to_lowercase(), &hosts))
}

fn outside_papers(source: &Source) -> Vec<Hit> {
    if source.path == "Cargo.lock" {
        return Vec::new();
    }
    let parts = [
        "issues/",
        "issue #",
        "this issue",
        "github issue",
        "pull request",
        "/pull/",
        "fixes #",
        "closes #",
        "design.md",
        "design-review",
        "reliability.md",
        "audited-writer",
        "rust-stack",
        "style.md",
        "the brief",
    ];
    hits(source, |line| {
        let comment = &line.comment;
        let numbered = |(at, _): (usize, &str)| {
            let before = comment.get(..at).and_then(|text| text.chars().next_back());
            let after = comment.get(at + 1..).and_then(|text| text.chars().next());
            after.is_some_and(|c| c.is_ascii_digit())
                && before.is_none_or(|c| c.is_whitespace() || c == '(')
        };
        part(&comment.to_lowercase(), &parts)
            .or_else(|| part(comment, &["DESIGN "]))
            .or_else(|| {
                comment
                    .match_indices('#')
                    .any(numbered)
                    .then(|| "# and a number".to_owned())
            })
    })
}

fn module_sentence(source: &Source) -> Vec<Hit> {
    let first = source.lines.first().map_or("", |line| &line.text);
    if source.is_rust() && !first.starts_with("//! ") {
        return vec![(1, format!("{first:?}"))];
    }
    Vec::new()
}

fn unwraps(source: &Source) -> Vec<Hit> {
    product(source, |line| {
        part(&line.code, &[".unwrap()", ".unwrap_err()"])
    })
}

fn empty_expects(source: &Source) -> Vec<Hit> {
    product(source, |line| {
        part(&line.code, &[".expect(\"\")", ".expect_err(\"\")"])
    })
}

fn sleeps(source: &Source) -> Vec<Hit> {
    if !source.is_rust() {
        return Vec::new();
    }
    hits(source, |line| word(&line.code, &["thread::sleep"]))
}

fn long_files(source: &Source) -> Vec<Hit> {
    let lines = product(source, |_| Some(String::new())).len();
    if lines > 800 {
        return vec![(source.lines.len(), format!("{lines} lines"))];
    }
    Vec::new()
}
