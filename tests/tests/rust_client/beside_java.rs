//! Services in Rust and in Java at one server: they share a topic and a producer group.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Context, Result};
use coordinator::client::Producer;
use coordinator::client::half::Settled;
use coordinator::marker::databases::Markers;
use mq_core::message::Message;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use super::scenarios::fresh;
use crate::clients::facts::keys;
use crate::clients::stock::{Client, Order, built};

const JAVA: Client = Client::Java {
    version: "5.3.3",
    binary: false,
};
/// How many transactions the Java program makes, and how many of them it commits sooner or later.
const ITS: (usize, usize) = (10, 6);

#[test]
fn neither_is_asked_about_the_others_transactions_and_java_reads_what_both_commit() {
    // Both shall begin at about the same time.
    built("java");
    let server = super::server();
    let (topic, group) = (fresh("shared"), fresh("service"));
    let play = |scenario, group: &str, count| {
        JAVA.play(Order {
            scenario,
            nameserver: server.nameserver(),
            topic: &topic,
            group,
            count,
            subscription: "*",
        })
    };
    let (its, ours) = thread::scope(|scope| {
        let its = scope.spawn(|| play("transaction", &group, ITS.0));
        let ours = ours(server.nameserver(), &topic, &group);
        (its.join(), ours)
    });
    let its = its.expect("the Java program ends well");
    let ours = ours.expect("the Rust service ends well");
    let halves = keys(&its, "half");
    assert_eq!(halves.len(), ITS.0);
    let asked = keys(&its, "checked");
    assert!(asked.is_subset(&halves), "{asked:?} of {halves:?}");

    let read = play("consume", &fresh("readers"), ITS.1 + ours.len());
    let read = keys(&read, "received");
    assert!(ours.is_subset(&read), "{ours:?} in {read:?}");
    assert_eq!(read.len(), ITS.1 + ours.len(), "{read:?}");
}

/// Commits some orders, rolls one back and forgets one; the keys of those that consumers must see.
#[tokio::main(flavor = "current_thread")]
async fn ours(nameserver: &str, topic: &str, group: &str) -> Result<BTreeSet<String>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("orders.db");
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    let markers = Markers::new().add(pool.clone()).await?;
    let identities = markers.identities();
    let marker = identities.first().context("one database was added")?;
    let producer = Producer::builder(group).markers(markers);
    let producer = producer.connect(nameserver).await?;
    let message = |key: &str| {
        Message::builder(topic)
            .tag("rust")
            .key(key)
            .body(key.to_owned())
            .build()
    };

    let mut committed = BTreeSet::new();
    for number in 0..5 {
        let key = format!("rust-{number}");
        let tx = producer.begin(&pool, message(&key)?).await?;
        assert_eq!(tx.commit().await?, Settled::Decided);
        committed.insert(key);
    }
    drop(producer.begin(&pool, message("rolled-back")?).await?);
    // Nobody says what became of these two: the markers tell.
    drop(producer.half_in(*marker, message("orphan")?).await?);
    let mut tx = producer.begin(&pool, message("rust-deferred")?).await?;
    sqlx::raw_sql("COMMIT").execute(&mut *tx).await?;
    std::mem::forget(tx);
    committed.insert("rust-deferred".to_owned());

    let builder = mq_core::client::Consumer::builder(fresh("watcher")).subscribe(topic, "rust");
    let mut watcher = builder.connect(nameserver).await?;
    let mut seen = BTreeSet::new();
    while seen != committed {
        let delivery = watcher.next().await?.context("the consumer has ended")?;
        seen.extend(delivery.keys().map(str::to_owned));
        delivery.ack();
    }
    watcher.close().await?;
    producer.close().await;
    Ok(committed)
}
