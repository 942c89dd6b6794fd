//! Services in Rust and in Java at one server: they share a topic and a producer group.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use coordinator::client::Producer;
use coordinator::client::half::Settled;
use coordinator::marker::databases::Markers;
use mq_core::message::Message;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tests::server::Server;

use super::scenarios::fresh;
use crate::clients::facts::keys;
use crate::clients::stock::{Client, Fact, Order, built};
use crate::quickstart::{example, stored, until};

const JAVA: Client = Client::Java {
    version: "5.3.3",
    binary: false,
};
const OLD_JAVA: Client = Client::Java {
    version: "4.3.2",
    binary: true,
};
/// How many transactions the Java program makes, and how many of them it commits sooner or later.
const ITS: (usize, usize) = (10, 6);

#[test]
fn neither_is_asked_about_the_others_transactions_and_java_reads_what_both_commit() {
    beside(JAVA);
}

#[test]
fn the_same_beside_the_java_client_of_4_3_2() {
    beside(OLD_JAVA);
}

fn play(
    java: Client,
    scenario: &str,
    server: &Server,
    (topic, group): (&str, &str),
    count: usize,
) -> Vec<Fact> {
    java.play(Order {
        scenario,
        nameserver: server.nameserver(),
        topic,
        group,
        count,
        subscription: "*",
    })
}

fn beside(java: Client) {
    // Both shall begin at about the same time.
    built("java");
    let server = super::server();
    let (topic, group) = (fresh("shared"), fresh("service"));
    let play = |scenario, group: &str, count| play(java, scenario, &server, (&topic, group), count);
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

/// What Java commits is read while what Rust left open waits for its own process, and then that one decides it.
#[test]
fn java_alone_is_not_asked_about_what_rust_has_left_open() {
    if !super::server().is_ours() {
        return;
    }
    let server = super::server();
    let (topic, group) = (fresh("shared"), fresh("service"));
    let service = Service::new().expect("a temporary folder can be made");
    let leaves = service.leaves_open(server.nameserver(), &topic, &group);
    leaves.expect("the Rust service stores its half messages");

    let its = play(JAVA, "transaction", &server, (&topic, &group), ITS.0);
    let halves = keys(&its, "half");
    let asked = keys(&its, "checked");
    assert!(asked.is_subset(&halves), "{asked:?} of {halves:?}");
    // The program fails if there is anything more.
    let read = play(JAVA, "consume", &server, (&topic, &fresh("readers")), ITS.1);
    let read = keys(&read, "received");
    assert!(read.is_subset(&halves), "{read:?} of {halves:?}");

    let back = service.comes_back(server.nameserver(), &topic, &group);
    back.expect("the Rust service is asked now");
    let read = play(
        JAVA,
        "consume",
        &server,
        (&topic, &fresh("readers")),
        ITS.1 + 1,
    );
    assert!(keys(&read, "received").contains("rust-committed"));
}

/// RocketMQ's own example stores ten half messages and is killed; a Rust service with its group's name goes on alone.
#[test]
fn rust_alone_decides_nothing_that_java_has_left_open() {
    const TOPIC: &str = "TopicTest1234";
    const GROUP: &str = "please_rename_unique_group_name";
    let server = super::server();
    if !server.is_ours() {
        return;
    }
    let example = example(&server, "transaction.TransactionProducer");
    let java = until(&example, |lines| stored(lines) == 10);
    drop(java);

    let service = Service::new().expect("a temporary folder can be made");
    let left = service.leaves_open(server.nameserver(), TOPIC, GROUP);
    left.expect("the Rust service stores its half messages");
    let back = service.comes_back(server.nameserver(), TOPIC, GROUP);
    // By then everything that is open has been looked at.
    back.expect("the Rust service is asked");
    let read = play(JAVA, "consume", &server, (TOPIC, &fresh("readers")), 1);
    assert_eq!(
        keys(&read, "received"),
        BTreeSet::from(["rust-committed".into()])
    );
}

/// A Rust service with a database, whose processes come and go.
struct Service {
    folder: TempDir,
}

impl Service {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { folder })
    }

    async fn starts(&self, nameserver: &str, group: &str) -> Result<(Markers, Producer)> {
        let markers = Markers::new().add(pool(self.folder.path()).await?).await?;
        let producer = Producer::builder(group).markers(markers.clone());
        Ok((markers, producer.connect(nameserver).await?))
    }

    /// Leaves one transaction that is committed and one that never began, and is gone without a word about either.
    #[tokio::main(flavor = "current_thread")]
    async fn leaves_open(&self, nameserver: &str, topic: &str, group: &str) -> Result<()> {
        let (markers, producer) = self.starts(nameserver, group).await?;
        let pool = pool(self.folder.path()).await?;
        let mut tx = producer
            .begin(&pool, message(topic, "rust-committed")?)
            .await?;
        sqlx::raw_sql("COMMIT").execute(&mut *tx).await?;
        std::mem::forget(tx);
        let identities = markers.identities();
        let marker = identities.first().context("one database was added")?;
        drop(
            producer
                .half_in(*marker, message(topic, "rust-orphan")?)
                .await?,
        );
        producer.close().await;
        Ok(())
    }

    /// Is there again until what it had committed is published.
    #[tokio::main(flavor = "current_thread")]
    async fn comes_back(&self, nameserver: &str, topic: &str, group: &str) -> Result<()> {
        let (_, producer) = self.starts(nameserver, group).await?;
        let builder = mq_core::client::Consumer::builder(fresh("watcher")).subscribe(topic, "rust");
        let mut watcher = builder.connect(nameserver).await?;
        let delivery = watcher.next().await?.context("the consumer has ended")?;
        assert_eq!(delivery.keys().collect::<Vec<_>>(), ["rust-committed"]);
        delivery.ack();
        watcher.close().await?;
        producer.close().await;
        Ok(())
    }
}

async fn pool(folder: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("orders.db"))
        .create_if_missing(true);
    Ok(SqlitePool::connect_with(options).await?)
}

fn message(topic: &str, key: &str) -> Result<Message> {
    let message = Message::builder(topic).tag("rust").key(key);
    Ok(message.body(key.to_owned()).build()?)
}

/// Commits some orders, rolls one back and forgets one; the keys of those that consumers must see.
#[tokio::main(flavor = "current_thread")]
async fn ours(nameserver: &str, topic: &str, group: &str) -> Result<BTreeSet<String>> {
    let folder = tempfile::tempdir()?;
    let pool = pool(folder.path()).await?;
    let markers = Markers::new().add(pool.clone()).await?;
    let identities = markers.identities();
    let marker = identities.first().context("one database was added")?;
    let producer = Producer::builder(group).markers(markers);
    let producer = producer.connect(nameserver).await?;
    let message = |key: &str| message(topic, key);

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
