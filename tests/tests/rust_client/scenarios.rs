//! What the Rust client is made to do, and what must come of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use coordinator::client::Producer as Transactions;
use coordinator::client::half::Settled;
use coordinator::marker::databases::Markers;
use mq_core::client::{Consumer, Delivery, Producer, PullConsumer};
use mq_core::message::Message;
use mq_core::names::{GroupName, TopicName};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

/// The server at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server<'a> {
    pub(super) nameserver: &'a str,
    /// Whether it is held to what we promise beyond RocketMQ.
    pub(super) is_ours: bool,
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// A stock server asks a minute after a half message at the earliest, unless it is told otherwise.
const IN_TIME: Duration = Duration::from_secs(120);

/// A name that no other topic or group has, also on a server that outlives the test.
pub(super) fn fresh(name: &str) -> String {
    static USED: AtomicU32 = AtomicU32::new(0);
    let number = USED.fetch_add(1, Ordering::Relaxed);
    format!("rust-{name}-{}-{number}", std::process::id())
}

fn message(topic: &str, tag: &str, body: &str) -> Result<Message> {
    let message = Message::builder(topic).tag(tag).key("10248");
    let message = message.property("traceparent", TRACE);
    Ok(message.body(body.to_owned()).build()?)
}

async fn next(consumer: &mut Consumer) -> Result<Delivery> {
    let next = tokio::time::timeout(IN_TIME, consumer.next()).await;
    next.context("no message comes in time")??
        .context("the consumer has ended")
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.body()).into_owned()
}

/// The next messages, whatever their order, each acknowledged.
async fn bodies(consumer: &mut Consumer, count: usize) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        let delivery = next(consumer).await?;
        assert_eq!(delivery.properties().get("traceparent"), Some(TRACE));
        seen.insert(body(&delivery));
        delivery.ack();
    }
    Ok(seen)
}

/// Sends, reads, retries, leaves and comes back.
pub(super) async fn messages(server: Server<'_>) -> Result<()> {
    let (topic, group) = (fresh("topic"), fresh("group"));
    let producer = Producer::builder(fresh("producer"));
    let producer = producer.connect(server.nameserver).await?;
    let first = producer.send(message(&topic, "a", "first")?).await?;
    assert_eq!(first.queue.topic.as_str(), topic);
    let join = || Consumer::builder(&group).subscribe(&topic, "a || b");
    let mut consumer = join().connect(server.nameserver).await?;
    assert_eq!(
        bodies(&mut consumer, 1).await?,
        BTreeSet::from(["first".into()])
    );

    let batch = ["1", "2", "3"].map(|body| message(&topic, "a", body));
    let batch: Result<Vec<Message>> = batch.into_iter().collect();
    producer.send_all(batch?).await?;
    producer.send(message(&topic, "c", "not wanted")?).await?;
    producer.send_to(0, message(&topic, "b", "4")?).await?;
    producer
        .send_by_key("k", message(&topic, "b", "5")?)
        .await?;
    let later = Message::builder(&topic).tag("a").delay_level(2).body("6");
    let later = later.property("traceparent", TRACE).build()?;
    producer.send(later).await?;
    let expected: BTreeSet<String> = (1..7).map(|n: u32| n.to_string()).collect();
    assert_eq!(bodies(&mut consumer, 6).await?, expected);

    producer.send(message(&topic, "a", "again")?).await?;
    for times in 0..2 {
        let delivery = next(&mut consumer).await?;
        assert_eq!(
            (body(&delivery), delivery.reconsume_times()),
            ("again".into(), times)
        );
        assert_eq!(delivery.topic().as_str(), topic);
        assert_eq!(delivery.properties().get("traceparent"), Some(TRACE));
        match times {
            0 => delivery.retry_later(1),
            _ => delivery.ack(),
        }
    }
    consumer.close().await?;
    producer.send(message(&topic, "a", "while away")?).await?;
    let mut consumer = join().connect(server.nameserver).await?;
    let came = bodies(&mut consumer, 1).await?;
    assert_eq!(
        came,
        BTreeSet::from(["while away".into()]),
        "nothing comes twice"
    );

    let reader = GroupName::new(fresh("reader"))?;
    let mut reader = PullConsumer::connect(server.nameserver, reader).await?;
    let queues = reader.queues(&TopicName::new(&topic)?).await?;
    reader.assign(queues.clone()).await?;
    let mut read = 0;
    for queue in &queues {
        reader.seek(queue, 0)?;
        loop {
            let some = reader.pull(queue, Duration::ZERO).await?;
            read += some.len();
            if some.is_empty() {
                break;
            }
        }
        assert_eq!(reader.position(queue), Ok(reader.range(queue).await?.end));
    }
    assert_eq!(read, 10, "whoever reads alone gets all");
    reader.commit().await?;
    Ok(())
}

/// Two members of a group read until each has had something.
pub(super) async fn sharing(server: Server<'_>) -> Result<()> {
    let (topic, group) = (fresh("topic"), fresh("group"));
    let producer = Producer::builder(fresh("producer"));
    let producer = producer.connect(server.nameserver).await?;
    producer
        .send(message(&topic, "a", "makes the topic")?)
        .await?;
    let join = async || {
        let builder = Consumer::builder(&group).subscribe(&topic, "*");
        builder.connect(server.nameserver).await
    };
    let (mut one, mut two) = (join().await?, join().await?);
    let (mut first, mut second) = (0, 0);
    let mut seen = BTreeSet::new();
    for number in 0_usize.. {
        if first > 3 && second > 3 {
            break;
        }
        assert!(number < 4000, "both have a share: {first}, {second}");
        producer
            .send(message(&topic, "a", &number.to_string())?)
            .await?;
        let (share, delivery) = tokio::select! {
            delivery = next(&mut one) => (&mut first, delivery?),
            delivery = next(&mut two) => (&mut second, delivery?),
        };
        *share += 1;
        seen.insert(body(&delivery));
        delivery.ack();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    one.close().await?;
    two.close().await?;
    Ok(())
}

/// A service with a database: whatever it does, messages and rows agree.
pub(super) async fn orders(server: Server<'_>) -> Result<()> {
    let (topic, group) = (fresh("orders"), fresh("order-service"));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("orders.db");
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    let create = sqlx::query("CREATE TABLE orders (number TEXT)");
    create.execute(&pool).await?;
    let markers = Markers::new().add(pool.clone()).await?;
    let identity = *markers
        .identities()
        .first()
        .context("one database was added")?;
    let producer = Transactions::builder(&group).markers(markers);
    let producer = producer.connect(server.nameserver).await?;
    producer
        .send(message(&topic, "a", "makes the topic")?)
        .await?;

    let mut settled = Vec::new();
    for number in ["1", "2"] {
        let mut tx = producer.begin(&pool, message(&topic, "a", number)?).await?;
        let insert = sqlx::query("INSERT INTO orders VALUES (?)").bind(number);
        insert.execute(&mut *tx).await?;
        settled.push(tx.commit().await?);
    }
    if server.is_ours {
        assert_eq!(settled, [Settled::Decided, Settled::Decided]);
    } else {
        // A stock broker never says what became of it.
        let deferred = |settled: &Settled| matches!(settled, Settled::Deferred(_));
        assert!(settled.iter().all(deferred), "{settled:?}");
    }
    let tx = producer
        .begin(&pool, message(&topic, "a", "rolled back")?)
        .await?;
    drop(tx);
    // The service dies between its COMMIT and its word, or before its transaction: the marker tells.
    let mut tx = producer.begin(&pool, message(&topic, "a", "3")?).await?;
    let insert = sqlx::query("INSERT INTO orders VALUES ('3')");
    insert.execute(&mut *tx).await?;
    sqlx::raw_sql("COMMIT").execute(&mut *tx).await?;
    std::mem::forget(tx);
    let orphan = producer.half_in(identity, message(&topic, "a", "orphan")?);
    drop(orphan.await?);

    let builder = Consumer::builder(fresh("warehouse")).subscribe(&topic, "*");
    let mut consumer = builder.connect(server.nameserver).await?;
    let expected = ["makes the topic", "1", "2", "3"].map(str::to_owned);
    assert_eq!(bodies(&mut consumer, 4).await?, BTreeSet::from(expected));
    producer.close().await;
    // A stock broker may ask again about what it has delivered, and delivers it twice then.
    let more = tokio::time::timeout(Duration::from_secs(3), consumer.next());
    if let Ok(delivery) = more.await {
        let delivery = delivery?.context("the consumer has ended")?;
        let twice = matches!(&*body(&delivery), "1" | "2" | "3");
        assert!(twice && !server.is_ours, "{delivery:?}");
    }
    consumer.close().await?;
    Ok(())
}
