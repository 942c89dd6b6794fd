//! RocketMQ's own example programs, unchanged, with nothing but `NAMESRV_ADDR` set.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use tests::process::{Ended, Kill, Program, Running};
use tests::server::{Plan, Server};

use crate::clients::stock::{Client, Order, built, java};

/// What a program may take on a busy machine.
const LONG: Duration = Duration::from_secs(90);
/// The benchmark programs report every ten seconds.
const BENCHMARK: Duration = Duration::from_secs(60);

fn server() -> Server {
    Plan::of(env!("CARGO_BIN_EXE_server"))
        .start()
        .expect("the server starts")
}

/// The example `class` of `rocketmq-example`.
pub(crate) fn example(server: &Server, class: &str) -> Program {
    let folder = built("java").join("example");
    let mut class_path = OsString::from(folder.join("settings"));
    class_path.push(":");
    class_path.push(folder.join("jars").join("*"));
    java(class_path)
        .variable("NAMESRV_ADDR", server.nameserver())
        .argument(format!("org.apache.rocketmq.example.{class}"))
        .limit(LONG)
}

/// Runs a program that ends by itself, and gives what it did.
fn run(program: &Program) -> Ended {
    let ended = program.run(&Kill::Never).expect("it ends in time");
    assert!(ended.status.success(), "{}", ended.told());
    ended
}

/// Starts a program that does not end by itself, and waits until it has said enough.
pub(crate) fn until(program: &Program, enough: impl Fn(&[String]) -> bool) -> Running {
    let running = program.spawn().expect("java can be started");
    assert!(running.hears(LONG, enough), "{}", running.told());
    running
}

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

pub(crate) fn stored(lines: &[String]) -> usize {
    count(lines, "sendStatus=SEND_OK")
}

/// The different messages in a consumer's output.
fn unique_keys(lines: &[String]) -> BTreeSet<String> {
    let keys = lines
        .iter()
        .flat_map(|line| line.split("UNIQ_KEY=").skip(1));
    keys.map(|rest| {
        rest.chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect()
    })
    .collect()
}

/// The ids that a producer printed for its messages.
fn sent_ids(lines: &[String]) -> BTreeSet<String> {
    let ids = lines
        .iter()
        .flat_map(|line| line.split("[sendStatus=SEND_OK, msgId=").skip(1));
    ids.map(|rest| {
        rest.chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect()
    })
    .collect()
}

#[test]
fn a_thousand_messages_of_a_thousand_arrive() {
    let server = server();
    let producer = run(&example(&server, "quickstart.Producer"));
    assert_eq!(stored(&producer.output), 1000);
    let sent = sent_ids(&producer.output);
    assert_eq!(sent.len(), 1000);
    let consumer = until(&example(&server, "quickstart.Consumer"), |lines| {
        sent.is_subset(&unique_keys(lines))
    });
    assert!(consumer.told().contains("Consumer Started."));
    let told: Vec<String> = consumer.told().lines().map(str::to_owned).collect();
    // A server that was there before may have had other messages in that topic.
    if server.is_ours() {
        assert_eq!(count(&told, "Receive New Messages"), 1000);
    }
}

#[test]
fn three_of_the_ten_transactions_are_delivered() {
    let server = server();
    // It answers check-backs by its own counter: three of ten are committed, three rolled back, four never decided.
    let producer = until(
        &example(&server, "transaction.TransactionProducer"),
        |lines| stored(lines) == 10,
    );
    let facts = Client::Java {
        version: "4.3.2",
        binary: false,
    }
    .play(Order {
        scenario: "consume",
        nameserver: server.nameserver(),
        topic: "TopicTest1234",
        group: &format!("three-of-ten-{}", std::process::id()),
        count: 3,
        subscription: "*",
    });
    // The client fails if there are more, or fewer.
    assert_eq!(facts.last().map(|fact| fact.fact.as_str()), Some("done"));
    assert!(!producer.has_ended(), "{}", producer.told());
}

#[test]
fn messages_are_filtered_by_properties_and_an_expression_nobody_can_read_is_refused() {
    let server = server();
    let tags = until(&example(&server, "filter.Producer"), |lines| {
        stored(lines) >= 200
    });
    assert!(!tags.has_ended(), "{}", tags.told());
    drop(tags);
    let producer = run(&example(&server, "filter.SqlProducer"));
    assert_eq!(stored(&producer.output), 10);
    // Its expression lacks an AND, and so it ends with the server's refusal.
    let refused = until(&example(&server, "filter.SqlConsumer"), |lines| {
        count(lines, "CODE: 23") > 0
    });
    assert!(refused.told().contains("MQClientException"));
    assert!(!refused.told().contains("Consumer Started."));
}

#[test]
fn the_order_example_is_consumed_in_order() {
    let server = server();
    let producer = run(&example(&server, "ordermessage.Producer"));
    assert_eq!(stored(&producer.output), 100);
    // The example's consumer reads another topic, and there only some tags: messages 0, 2, 3, 5, 6, 8 and 9.
    let other = run(&example(&server, "filter.SqlProducer"));
    let sent = sent_ids(&other.output);
    assert_eq!(sent.len(), 10);
    let consumer = until(&example(&server, "ordermessage.Consumer"), |lines| {
        unique_keys(lines).len() >= 7
    });
    let told: Vec<String> = consumer.told().lines().map(str::to_owned).collect();
    let got = unique_keys(&told);
    // A server that was there before may have had other messages in that topic.
    if server.is_ours() {
        assert_eq!(got.len(), 7, "{}", consumer.told());
        assert!(got.is_subset(&sent), "{}", consumer.told());
    }
}

#[test]
fn the_batch_example_stores_its_three_messages() {
    let server = server();
    // It says nothing unless it fails, and does not end.
    let producer = example(&server, "batch.SimpleBatchProducer").spawn();
    let producer = producer.expect("java can be started");
    topic_appears(&server, "BatchTest", &producer);
    Client::Go.play(Order {
        scenario: "pull",
        nameserver: server.nameserver(),
        topic: "BatchTest",
        group: &format!("batch-readers-{}", std::process::id()),
        count: 3,
        subscription: "*",
    });
}

/// Waits until clients find the topic that `producer` writes to.
fn topic_appears(server: &Server, topic: &str, producer: &Running) {
    let pause = Duration::from_millis(200);
    for _ in 0..300 {
        if server.has_topic(topic) {
            return;
        }
        let ended = producer.hears(pause, |_| false) || producer.has_ended();
        assert!(!ended, "{}", producer.told());
    }
    panic!("{topic} did not appear: {}", producer.told());
}

/// The number after `name` in a line of a benchmark program.
fn figure(line: &str, name: &str) -> Option<f64> {
    let rest = line.split_once(name)?.1.trim_start();
    rest.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_benchmarks_run_without_failures() {
    let server = server();
    let plain = example(&server, "benchmark.Producer");
    let plain = ["-w", "16", "-s", "128", "-t", "BenchmarkTest"]
        .iter()
        .fold(plain, |program, argument| program.argument(argument));
    let transactions = example(&server, "benchmark.TransactionProducer");
    let transactions = ["16", "128", "false", "false"]
        .iter()
        .fold(transactions, |program, argument| program.argument(argument));
    let consumer = example(&server, "benchmark.Consumer");
    let consumer = ["-t", "BenchmarkTest", "-g", "bc1"]
        .iter()
        .fold(consumer, |program, argument| program.argument(argument));
    let plain = plain.spawn().expect("java can be started");
    topic_appears(&server, "BenchmarkTest", &plain);
    // The figures of consumer and producers are about the same ten seconds.
    let consumer = consumer.spawn().expect("java can be started");
    let transactions = transactions.spawn().expect("java can be started");
    let runs = |name: &'static str| {
        move |lines: &[String]| {
            let mut rates = lines.iter().filter_map(|line| figure(line, name));
            rates.any(|rate| rate > 0.0)
        }
    };
    for program in [&plain, &transactions] {
        let sends = program.hears(BENCHMARK, runs("Send TPS:"));
        assert!(sends, "{}", program.told());
        for line in program.told().lines() {
            for name in ["Send Failed:", "Response Failed:"] {
                assert!(
                    figure(line, name).is_none_or(|failed| failed == 0.0),
                    "{line}"
                );
            }
        }
    }
    let consumes = consumer.hears(BENCHMARK, runs("Consume TPS:"));
    assert!(consumes, "{}", consumer.told());
}
