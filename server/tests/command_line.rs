//! The program as people run it: what it prints, what it refuses, and its exit status.

#![expect(clippy::unwrap_used, reason = "what a test stands on may end it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coordinator::client::endpoint::{Endpoint as _, HalfRequest, Resolve};
use coordinator::embedded::{Embedded, Settings};
use coordinator::transaction::{Actor, Incarnation, MarkerIdentity, Resolution, TransactionId};
use mq_core::message::Message;
use mq_core::names::GroupName;
use serde_json::Value;

fn halfmoon(data: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halfmoon"))
        .args(arguments)
        .env("HALFMOON_DATA", data)
        .env("USER", "alice")
        .env_remove("HALFMOON_DATABASE")
        .env_remove("HALFMOON_LOG")
        .env_remove("HALFMOON_OPERATOR")
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The exit status and the one line on stderr.
fn refused(output: &Output) -> (i32, String) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    (output.status.code().unwrap(), line)
}

fn json(data: &Path, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = halfmoon(data, &arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn id(number: u128) -> String {
    TransactionId(number).to_string()
}

/// Stores half message `number` and says `resolution` about it. Odd numbers have a marker.
async fn transaction(open: &Embedded, number: u128, resolution: Option<Resolution>) {
    let group = GroupName::new("order-service").unwrap();
    let request = HalfRequest {
        id: TransactionId(number),
        group: group.clone(),
        message: Message::builder("orders").body("hello").build().unwrap(),
        queue: Some(0),
        sender: Incarnation(7),
        marker: (number % 2 == 1).then_some(MarkerIdentity(11)),
        immunity: None,
    };
    let receipt = open.coordinator().half(request).await.unwrap();
    if let Some(resolution) = resolution {
        let resolve = Resolve {
            id: receipt.id,
            group,
            position: receipt.position,
            queue_offset: receipt.queue_offset,
            resolution,
            actor: Actor::Producer,
            evidence: String::new(),
            source: "test".into(),
            broker: None,
        };
        open.coordinator().resolve(resolve).await.unwrap();
    }
}

/// A data folder with transactions 1 committed, 2 rolled back, 3 and 4 open.
async fn filled(folder: &Path) -> (PathBuf, Embedded) {
    let data = folder.join("data");
    let open = Embedded::open(&data, Settings::default()).await.unwrap();
    transaction(&open, 1, Some(Resolution::Commit)).await;
    transaction(&open, 2, Some(Resolution::RollBack)).await;
    transaction(&open, 3, None).await;
    transaction(&open, 4, None).await;
    open.coordinator().write_held().await.unwrap();
    (data, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_works_beside_a_running_process_and_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    let ids = |list: Value| -> Vec<String> {
        let transactions = list["transactions"].as_array().unwrap();
        transactions
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = [1, 2, 3, 4].map(id);
    assert_eq!(ids(json(&data, &["tx", "list"])), all);
    open.close().await.unwrap();
    assert_eq!(ids(json(&data, &["tx", "list"])), all);

    assert_eq!(
        ids(json(&data, &["tx", "list", "--state", "prepared"])),
        all[2..]
    );
    assert_eq!(
        ids(json(&data, &["tx", "list", "--state", "rolled_back"])),
        all[1..2]
    );
    assert_eq!(
        ids(json(&data, &["tx", "list", "--group", "nobody"])),
        [] as [String; 0]
    );
    assert_eq!(ids(json(&data, &["tx", "parked"])), [] as [String; 0]);
    let page = json(&data, &["tx", "list", "--limit", "3"]);
    let next = page["next"].as_str().unwrap().to_owned();
    assert_eq!(
        ids(json(&data, &["tx", "list", "--after", &next])),
        all[3..]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_shown_with_its_history_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    open.close().await.unwrap();
    let shown = json(&data, &["tx", "show", &id(1)]);
    assert_eq!(shown["transaction"]["outcome"], "published");
    let history = shown["history"].as_array().unwrap();
    assert_eq!(history.last().unwrap()["step"], "committed");
    assert!(history[0]["recorded_at"].as_str().unwrap().ends_with('Z'));

    let why = json(&data, &["tx", "why", &id(2)]);
    assert_eq!(why["steps"].as_array().unwrap().len(), 7);
    assert!(why["outcome"].as_str().unwrap().contains("rolled back"));
    let text = out(&halfmoon(&data, &["tx", "why", &id(2)]));
    assert!(text.contains("7. settled"), "{text}");
    assert!(text.contains("ROLLBACK from the producer"), "{text}");

    let (status, line) = refused(&halfmoon(&data, &["tx", "why", &id(99)]));
    assert_eq!(status, 1);
    assert!(line.contains(&id(99)), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_columns_have_no_colours_and_no_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    open.close().await.unwrap();
    let text = out(&halfmoon(&data, &["tx", "list"]));
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let counts: Vec<usize> = text
        .lines()
        .map(|line| line.split_whitespace().count())
        .collect();
    assert_eq!(counts, [8; 5], "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_decides_without_a_marker_and_only_by_force_against_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;

    let (status, line) = refused(&halfmoon(&data, &["tx", "decide", &id(4), "rollback"]));
    assert_eq!(status, 2);
    assert!(line.contains("in use by a running process"), "{line}");
    open.close().await.unwrap();

    let decided = json(&data, &["tx", "decide", &id(4), "rollback"]);
    assert_eq!(decided["answer"], "decided_now");
    let shown = json(&data, &["tx", "show", &id(4)]);
    let last = shown["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["actor"], "operator");
    assert_eq!(last["source"], "alice, halfmoon tx decide");

    let (status, line) = refused(&halfmoon(&data, &["tx", "decide", &id(3), "commit"]));
    assert_eq!(status, 1);
    assert!(line.contains("marker"), "{line}");
    assert_eq!(
        json(&data, &["tx", "show", &id(3)])["transaction"]["state"],
        "prepared"
    );
    let nobody = ["tx", "ask", &id(3), "--nameserver", "127.0.0.1:1"];
    let (status, line) = refused(&halfmoon(&data, &nobody));
    assert_eq!(status, 2);
    assert!(line.contains("127.0.0.1:1 cannot be reached"), "{line}");

    let forced = json(&data, &["tx", "decide", &id(3), "commit", "--force"]);
    assert_eq!(forced["state"], "committed");
    let shown = json(&data, &["tx", "show", &id(3)]);
    assert_eq!(
        shown["history"].as_array().unwrap().last().unwrap()["actor"],
        "operator (forced)"
    );

    let (status, line) = refused(&halfmoon(&data, &["tx", "decide", &id(3), "rollback"]));
    assert_eq!(status, 1);
    assert!(
        line.contains("committed already, decided by the operator (forced)"),
        "{line}"
    );
    let again = json(&data, &["tx", "decide", &id(3), "commit"]);
    assert_eq!(again["answer"], "already_the_same");
    assert_eq!(
        halfmoon(&data, &["tx", "decide", &id(99), "commit"])
            .status
            .code(),
        Some(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_an_untouched_history_beside_a_running_process_and_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    assert_eq!(json(&data, &["audit", "verify"])["untouched"], true);
    open.close().await.unwrap();
    let report = json(&data, &["audit", "verify"]);
    assert_eq!(report["untouched"], true);
    assert_eq!(
        (&report["events"], &report["transactions"]),
        (&4.into(), &4.into())
    );
    assert!(report["log"].is_u64(), "{report}");
    let without = json(&data, &["audit", "verify", "--without-log"]);
    assert!(without["log"].is_null(), "{without}");
    let text = out(&halfmoon(&data, &["audit", "verify"]));
    assert!(text.contains("nothing was touched"), "{text}");

    let kept = out(&halfmoon(&data, &["audit", "head"])).trim().to_owned();
    let verified = halfmoon(&data, &["audit", "verify", "--head", &kept]);
    assert!(verified.status.success(), "{verified:?}");
    let (seal, _) = kept.split_once(':').unwrap();
    let other = format!("{seal}:{}", "0".repeat(64));
    let (status, line) = refused(&halfmoon(&data, &["audit", "verify", "--head", &other]));
    assert_eq!(status, 1);
    assert!(
        line.contains(&format!("seal {seal} was written anew")),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_has_every_event_once_and_its_seal_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    open.close().await.unwrap();
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let output = halfmoon(&data, arguments);
        assert!(output.status.success(), "{output:?}");
        out(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let numbers = |lines: &[Value], field: &str| -> Vec<u64> {
        lines
            .iter()
            .filter_map(|line| line[field].as_u64())
            .collect()
    };
    let all = lines(&["audit", "export"]);
    let events = numbers(&all, "event");
    let seals = numbers(&all, "seal");
    assert_eq!(events, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(seals, (1..=seals.len() as u64).collect::<Vec<_>>());
    assert!(events.len() >= 4);
    let mut seen = 0;
    for line in &all {
        match line["event"].as_u64() {
            Some(event) => seen = event,
            None => assert_eq!(
                line["first_event"].as_u64().unwrap() + line["count"].as_u64().unwrap(),
                seen + 1,
                "a seal stands right behind its events"
            ),
        }
    }
    assert_eq!(
        numbers(
            &lines(&["audit", "export", "--from", "2", "--to", "3"]),
            "event"
        ),
        [2, 3]
    );
    assert_eq!(lines(&["audit", "export", "--from", "1000"]).len(), 0);
    let (status, _) = refused(&halfmoon(
        &data,
        &["audit", "export", "--from", "3", "--to", "2"],
    ));
    assert_eq!(status, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_data_folder_is_refused_by_name_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let (status, line) = refused(&halfmoon(&missing, &["tx", "list"]));
    assert_eq!(status, 2);
    assert!(
        line.contains("missing does not exist") && line.contains("--data"),
        "{line}"
    );
    let (status, _) = refused(&halfmoon(&missing, &["tx", "decide", &id(1), "commit"]));
    assert_eq!(status, 2);
    assert!(!missing.exists(), "a wrong name creates nothing");

    let (status, line) = refused(&halfmoon(folder.path(), &["tx", "list"]));
    assert_eq!(status, 2);
    assert!(line.contains("has no halfmoon.db"), "{line}");

    fs::write(
        folder.path().join("halfmoon.db"),
        "not a database, and longer than a header is".repeat(9),
    )
    .unwrap();
    for arguments in [["tx", "list"], ["audit", "export"]] {
        let (status, line) = refused(&halfmoon(folder.path(), &arguments));
        assert_eq!(status, 2);
        assert!(
            line.contains("halfmoon.db is not a SQLite database"),
            "{line}"
        );
    }
    let (status, line) = refused(&halfmoon(
        folder.path(),
        &["tx", "decide", &id(1), "commit"],
    ));
    assert_eq!(status, 2);
    assert!(line.contains("has no log"), "{line}");

    fs::remove_file(folder.path().join("halfmoon.db")).unwrap();
    fs::create_dir(folder.path().join("halfmoon.db")).unwrap();
    let (status, line) = refused(&halfmoon(folder.path(), &["tx", "list"]));
    assert_eq!(status, 2);
    assert!(line.contains("is not a file"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_program_is_refused_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    open.close().await.unwrap();
    let database = data.join("halfmoon.db");
    // The header of SQLite's file format keeps `user_version` as four bytes at 60.
    let mut bytes = fs::read(&database).unwrap();
    bytes[60..64].copy_from_slice(&999_u32.to_be_bytes());
    fs::write(&database, bytes).unwrap();
    for arguments in [&["tx", "list"][..], &["tx", "decide", &id(3), "commit"]] {
        let (status, line) = refused(&halfmoon(&data, arguments));
        assert_eq!(status, 2);
        assert!(
            line.contains("halfmoon.db has tables of version 999"),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_elsewhere_is_named_by_its_url() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = filled(folder.path()).await;
    open.close().await.unwrap();
    let url = format!("sqlite:{}", data.join("halfmoon.db").display());
    let nowhere = folder.path().join("nowhere");
    let list = json(&nowhere, &["tx", "list", "--database", &url]);
    assert_eq!(list["transactions"].as_array().unwrap().len(), 4);
    for wrong in ["sqlite:nowhere.db", "mysql://here"] {
        let (status, line) = refused(&halfmoon(&data, &["tx", "list", "--database", wrong]));
        assert_eq!(status, 2);
        assert!(line.contains(wrong.trim_start_matches("sqlite:")), "{line}");
    }
}

#[test]
fn usage_and_settings_that_are_wrong_end_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["tx", "show", "zz"][..],
        &["tx", "list", "--state", "lost"],
        &["nonsense"],
        &[],
    ] {
        let output = halfmoon(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_halfmoon"))
        .args(["tx", "list"])
        .env("HALFMOON_LOG", "a=b=c")
        .output()
        .unwrap();
    let (status, line) = refused(&output);
    assert_eq!(status, 2);
    assert!(line.contains("HALFMOON_LOG"), "{line}");
    let help = halfmoon(folder.path(), &["tx", "--help"]);
    assert!(help.status.success());
    assert!(out(&help).contains("Examples:"));
}

#[test]
fn a_short_bench_prints_every_figure_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let output = halfmoon(
        folder.path(),
        &[
            "bench",
            "embedded",
            "--json",
            "--seconds",
            "1",
            "--rounds",
            "1",
            "--in-flight",
            "8",
            "--only",
            "log-only,transactions",
            "--transactions",
            "200",
            "--open",
            "20",
            "--data",
            work.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["probe_fsync_per_second"].as_f64().unwrap() > 0.0);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        for figure in [
            "per_second",
            "p50_us",
            "p99_us",
            "cpu_us_each",
            "ratio_to_log",
        ] {
            assert!(run[figure].as_f64().unwrap() > 0.0, "{figure} of {run}");
        }
    }
    let checks = report["checks"].as_array().unwrap();
    for name in [
        "start_after_kill",
        "sql_bytes_per_transaction",
        "resident_idle",
    ] {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        assert!(check["value"].as_f64().unwrap() > 0.0, "{check}");
    }
    assert!(!work.exists());
}
