//! What a person does about a parked transaction while the server runs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mq_core::clock::{Clock, SystemClock};
use serde_json::Value;
use tests::process::{Ended, Kill, Program};
use tests::server::{Plan, Server};

use super::member::{Producer, Says, delivered};
use super::{CLIENT, FIRST, QUIET};

const KEY: &str = "0192F3C55E7A7B3C8D9E0F1A2B3C4D5E";
const GROUP: &str = "shop";
const TOPIC: &str = "orders";
/// One answer of UNKNOWN is enough to be parked.
const PATIENT_ONCE: &str = "transactionTimeOut=200\ntransactionCheckMax=1\n";
/// How long anything that must happen may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// `halfmoon tx` about the only transaction there is.
fn tx(server: &Server, arguments: &[&str]) -> Result<Ended> {
    let mut program = Program::new(env!("CARGO_BIN_EXE_server"))
        .argument("tx")
        .argument("--json")
        .argument("--data")
        .argument(server.data().context("it is ours")?);
    for argument in arguments {
        program = program.argument(*argument);
    }
    program.run(&Kill::Never)
}

fn asks(server: &Server, id: &str) -> Result<Ended> {
    let asks = ["ask", id, "--operator", "alice", "-n", server.nameserver()];
    tx(server, &asks)
}

/// The only transaction and its history, as `tx show` prints them, once it is in this state.
fn shown(server: &Server, state: &str) -> Result<(String, Value)> {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    loop {
        let ended = tx(server, &["list"])?;
        let listed: Value = serde_json::from_str(&ended.output.join("\n"))?;
        let only = listed.pointer("/transactions/0");
        if let Some(only) = only.filter(|only| only["state"] == state) {
            let id = only["id"].as_str().context("it has an id")?;
            let shown = tx(server, &["show", id])?.output.join("\n");
            return Ok((id.to_owned(), serde_json::from_str(&shown)?));
        }
        let late = clock.monotonic().saturating_sub(start) > WITHIN;
        ensure!(!late, "it is never {state}: {}", ended.told());
    }
}

#[test]
fn a_parked_transaction_is_asked_about_for_a_person_and_decided_by_the_answer() -> Result<()> {
    let server = Plan::of(env!("CARGO_BIN_EXE_server")).settings(PATIENT_ONCE);
    let server = server.start()?;
    let mut producer = Producer::connect(server.broker(), CLIENT, GROUP, TOPIC)?;
    producer.half(KEY)?;
    let asked = producer.asked(FIRST).context("nobody asks")?;
    producer.answers(&asked, Says::Unknown)?;
    let (id, _) = shown(&server, "parked")?;
    ensure!(
        producer.asked(QUIET).is_none(),
        "asked though nobody wants it"
    );

    let answer = asks(&server, &id)?;
    ensure!(answer.status.success(), "{}", answer.told());
    ensure!(
        answer.last_line().contains("asked"),
        "{}",
        answer.last_line()
    );
    let asked = producer.asked(FIRST).context("nobody asks")?;
    ensure!(asked.unique() == KEY, "{}", asked.unique());
    let (_, history) = shown(&server, "parked")?;
    let history = history.to_string();
    ensure!(history.contains("alice, halfmoon tx ask"), "{history}");
    producer.answers(&asked, Says::Commit)?;
    shown(&server, "committed")?;
    let at_most = Duration::from_secs(10);
    ensure!(delivered(server.broker(), TOPIC, 1, at_most)? == [KEY]);

    let late = asks(&server, &id)?;
    ensure!(late.status.code() == Some(1), "{}", late.told());
    ensure!(late.told().contains("committed already"), "{}", late.told());
    Ok(())
}

#[test]
fn a_person_is_told_that_nobody_is_there_who_could_answer() -> Result<()> {
    let server = Plan::of(env!("CARGO_BIN_EXE_server")).start()?;
    let mut producer = Producer::connect(server.broker(), CLIENT, GROUP, TOPIC)?;
    producer.half(KEY)?;
    drop(producer);
    let (id, _) = shown(&server, "prepared")?;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    loop {
        // The server may see a little later that the connection is gone.
        let answer = asks(&server, &id)?;
        if answer.status.code() == Some(1) {
            let told = answer.told();
            ensure!(
                told.contains(GROUP) && told.contains("start an instance"),
                "{told}"
            );
            return Ok(());
        }
        let late = clock.monotonic().saturating_sub(start) > WITHIN;
        ensure!(!late, "{}", answer.told());
    }
}
