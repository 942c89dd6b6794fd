//! A bad sample for every rule, so that each is known to be able to fail, and good ones that look alike.

use super::rules::{self, RULES};
use super::source::Source;

fn found(path: &str, text: &str) -> Vec<(&'static str, usize)> {
    let findings = rules::check(&Source::new(path, text));
    findings
        .iter()
        .map(|finding| (finding.rule, finding.line))
        .collect()
}

/// Rule, path, a file that breaks this rule only, and the line.
const BAD: &[(&str, &str, &str, usize)] = &[
    (
        "mq-core knows no transactions",
        "mq-core/src/log/mod.rs",
        "//! The log.\n/// A Transaction id.\n",
        2,
    ),
    (
        "mq-core knows no transactions",
        "mq-core/src/broker/mod.rs",
        "//! The broker.\n#[cfg(test)]\nfn a_half_message() {}\n",
        3,
    ),
    (
        "mq-core knows no transactions",
        "mq-core/src/names.rs",
        "//! Names; no SQL here.\n",
        1,
    ),
    (
        "dependencies point one way",
        "mq-core/Cargo.toml",
        "[dependencies]\ncoordinator.workspace = true\n[lints]\nworkspace = true\n",
        2,
    ),
    (
        "dependencies point one way",
        "server/Cargo.toml",
        "[dependencies]\nserde = \"1\"\n[lints]\nworkspace = true\n",
        2,
    ),
    (
        "every package takes the shared lints",
        "server/Cargo.toml",
        "[package]\nname = \"halfmoon\"\n",
        2,
    ),
    (
        "the checker stands alone",
        "tests/src/checker/log.rs",
        "//! Reads the log.\nuse mq_core::log::Log;\n",
        2,
    ),
    (
        "pure files do no I/O",
        "coordinator/src/transaction.rs",
        "//! The words.\nuse tokio::sync::mpsc;\n",
        2,
    ),
    (
        "pure files do no I/O",
        "mq-core/src/broker/offsets.rs",
        "//! Offsets: pure.\nasync fn f() {}\n",
        2,
    ),
    (
        "one door to files",
        "mq-core/src/log/writer.rs",
        "//! Writes the log.\nuse std::fs;\n",
        2,
    ),
    (
        "one door to sockets",
        "mq-core/src/broker/mod.rs",
        "//! The broker.\nuse tokio::net::TcpStream;\n",
        2,
    ),
    (
        "one door to SQL",
        "coordinator/src/engine/mod.rs",
        "//! The engine.\nuse sqlx::Row;\n",
        2,
    ),
    (
        "one door to SQL",
        "server/src/lib.rs",
        "//! The server.\nconst Q: &str = \"SELECT 1\";\n",
        2,
    ),
    (
        "one door to the clock",
        "examples/one_process/main.rs",
        "//! An example.\nlet t = std::time::Instant::now();\n",
        2,
    ),
    (
        "one door to chance",
        "coordinator/src/engine/mod.rs",
        "//! The engine.\nlet id = Uuid::new_v4();\n",
        2,
    ),
    (
        "modules have an idea in their name",
        "coordinator/src/util.rs",
        "//! Whatever was left.\n",
        1,
    ),
    (
        "modules have an idea in their name",
        "coordinator/src/lib.rs",
        "//! The library.\npub(crate) mod helpers;\n",
        2,
    ),
    (
        "types have an idea in their name",
        "coordinator/src/lib.rs",
        "//! The library.\npub struct QueueManager<T>(T);\n",
        2,
    ),
    (
        "queues are bounded",
        "mq-core/src/broker/mod.rs",
        "//! The broker.\nlet (a, b) = mpsc::unbounded_channel();\n",
        2,
    ),
    (
        "queues are bounded",
        "mq-core/src/broker/mod.rs",
        "//! The broker.\nlet (a, b) = std::sync::mpsc::channel();\n",
        2,
    ),
    (
        "every test runs",
        "mq-core/src/names.rs",
        "//! The names.\n#[cfg(test)]\n#[ignore = \"slow\"]\nfn a() {}\n",
        3,
    ),
    (
        "nothing is left for later in the source",
        "sql/README.md",
        concat!("TO", "DO: describe\n"),
        1,
    ),
    (
        "no paths of one machine",
        "README.md",
        concat!("run it in /t", "mp/x\n"),
        1,
    ),
    (
        "no package registry is named",
        "README.md",
        concat!("see crates", ".io\n"),
        1,
    ),
    (
        "no package registry is named",
        "Cargo.lock",
        "version = 4\nsource = \"registry+https://mirror.example/index\"\n",
        2,
    ),
    (
        "the project speaks of itself alone",
        "ARCHITECTURE.md",
        "# Map\nas asked in #12\n",
        2,
    ),
    (
        "the project speaks of itself alone",
        "mq-core/src/names.rs",
        "//! The names.\n// see DESIGN 4\n",
        2,
    ),
    (
        "a module says what it owns",
        "mq-core/src/names.rs",
        "use std::fmt;\n",
        1,
    ),
    (
        "no unwrap outside tests",
        "server/src/lib.rs",
        "//! The server.\nlet a = b.unwrap();\n",
        2,
    ),
    (
        "an expect says why it holds",
        "server/src/lib.rs",
        "//! The server.\nlet a = b.expect(\"\");\n",
        2,
    ),
    (
        "nobody sleeps",
        "tests/tests/crash.rs",
        "//! Kills.\nstd::thread::sleep(second);\n",
        2,
    ),
];

/// Looks like a sample above and breaks nothing.
const GOOD: &[(&str, &str)] = &[
    (
        "mq-core/src/wire/reserved.rs",
        "//! Names of a transaction on the wire.\n",
    ),
    (
        "mq-core/Cargo.toml",
        "[dependencies]\nbytes.workspace = true\n",
    ),
    (
        "mq-core/src/log/disk.rs",
        "//! The one door to files.\nuse std::fs;\n",
    ),
    (
        "mq-core/src/log/mod.rs",
        "//! Bytes.\n// std::fs is next door\nconst A: &str = \"std::fs\";\n",
    ),
    (
        "coordinator/src/store/sqlite.rs",
        "//! The SQLite store.\nuse sqlx::Row;\nconst Q: &str = \"SELECT 1\";\n",
    ),
    (
        "coordinator/src/engine/mod.rs",
        "//! The engine.\nlet (a, b) = oneshot::channel();\nlet c = mpsc::channel(64);\n",
    ),
    (
        "coordinator/src/engine/mod.rs",
        "//! The engine.\n#[cfg(test)]\nmod tests {\n    use sqlx::Row;\n    fn f() { a.unwrap(); }\n}\n",
    ),
    (
        "coordinator/src/audit/mod.rs",
        "//! The history.\npub struct Implementation;\n",
    ),
    ("ARCHITECTURE.md", "# 1 Map\n## 2 Words\nclock.rs#top\n"),
    (
        "server/src/lib.rs",
        "//! The server.\nlet a = b.expect(\"a vector of one has a first\");\nlet c = d.unwrap_or(1);\n",
    ),
    (
        "mq-core/src/wire/record.rs",
        "//! The stored record.\nuse std::net::SocketAddrV4;\n",
    ),
];

#[test]
fn every_rule_finds_its_bad_sample() {
    for (rule, path, text, line) in BAD {
        let found = found(path, text);
        assert_eq!(found, [(*rule, *line)], "{path}: {text:?}");
    }
    let long = format!("//! A long story.\n{}", "fn f() {}\n".repeat(800));
    assert_eq!(
        found("server/src/lib.rs", &long),
        [("a file has one idea", 801)]
    );
}

#[test]
fn every_rule_has_a_bad_sample() {
    for rule in RULES {
        let sampled = BAD.iter().any(|(name, ..)| *name == rule.name);
        assert!(
            sampled || rule.name == "a file has one idea",
            "{}",
            rule.name
        );
    }
}

#[test]
fn good_samples_pass() {
    for (path, text) in GOOD {
        // A lone manifest of a package has no lints to take; that rule has its own sample.
        let mut found = found(path, text);
        found.retain(|(rule, _)| *rule != "every package takes the shared lints");
        assert_eq!(found, [], "{path}: {text:?}");
    }
}

#[test]
fn a_finding_names_file_line_rule_and_reason() {
    let source = Source::new("mq-core/src/names.rs", "//! The names.\nuse tokio::fs;\n");
    let text = rules::check(&source)
        .iter()
        .map(ToString::to_string)
        .collect::<String>();
    assert!(
        text.starts_with("mq-core/src/names.rs:2: pure files do no I/O: tokio\n"),
        "{text}"
    );
    assert!(text.contains("take time and bytes as arguments"), "{text}");
}
