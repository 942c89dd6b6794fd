//! Producers and consumers over an embedded broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::broker::clients::ConsumeFrom;
use crate::broker::filter::Filter;
use crate::broker::{Broker, Parts, Settings, TopicConfig};
use crate::clock::{Clock, TimerClock};
use crate::log::memory::MemoryLog;
use crate::log::{Log, LogId};
use crate::message::Message;
use crate::names::{GroupName, QueueId, TopicName};
use crate::random::SeededRandom;

struct World {
    log: Arc<MemoryLog>,
    clock: Arc<TimerClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TimerClock::new(1_700_000_000_000));
        let log = MemoryLog::new(LogId(1), Arc::clone(&clock) as Arc<dyn Clock>);
        Self {
            log: Arc::new(log),
            clock,
        }
    }

    async fn open(&self) -> Broker {
        let parts = Parts {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::new(self.log.range().end.0)),
            extensions: vec![],
        };
        Broker::open(
            Settings {
                retries: 2,
                ..Settings::default()
            },
            parts,
        )
        .await
        .unwrap()
    }
}

fn message(tag: &str, body: &str) -> Message {
    Message::builder("t")
        .tag(tag)
        .body(body.to_owned())
        .build()
        .unwrap()
}

fn body(delivery: &Received) -> String {
    String::from_utf8(delivery.body().to_vec()).unwrap()
}

async fn consumer(broker: &Broker, id: &str) -> Consumer {
    Consumer::builder("g")
        .subscribe("t", "*")
        .client_id(id)
        .attach(broker)
        .await
        .unwrap()
}

/// The next message within two hours, which pass at once.
async fn next(consumer: &mut Consumer) -> Delivery {
    let next = tokio::time::timeout(Duration::from_secs(7200), consumer.next());
    next.await.expect("a message comes").unwrap().unwrap()
}

/// Whether no message comes within `wait`.
async fn silent(consumer: &mut Consumer, wait: Duration) -> bool {
    tokio::time::timeout(wait, consumer.next()).await.is_err()
}

fn offset(broker: &Broker, queue: u32) -> u64 {
    let queue = QueueId::new(TopicName::new("t").unwrap(), queue);
    broker
        .offset(&GroupName::new("g").unwrap(), &queue)
        .unwrap()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_message_arrives_with_everything_it_was_sent_with() {
    let broker = World::new().open().await;
    let mut consumer = consumer(&broker, "c").await;
    let sent = Message::builder("t")
        .tag("a")
        .key("k1")
        .key("k2")
        .property("p", "v")
        .flag(7)
        .body("hello");
    let receipt = Producer::attach(&broker)
        .send(sent.build().unwrap())
        .await
        .unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(
        (delivery.topic().as_str(), delivery.tag(), delivery.flag()),
        ("t", Some("a"), 7)
    );
    assert_eq!(delivery.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!(delivery.properties().get("p"), Some("v"));
    assert_eq!(delivery.unique_key(), receipt.unique_key.as_deref());
    assert_eq!(
        (delivery.message_id(), delivery.offset_id()),
        (delivery.unique_key().unwrap(), &*receipt.message_id)
    );
    assert_eq!(
        (delivery.reconsume_times(), delivery.store_ms()),
        (0, receipt.store_ms)
    );
    delivery.ack();
    consumer.close().await.unwrap();
    assert_eq!(offset(&broker, receipt.queue.queue), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_subscribed_tags_arrive() {
    let broker = World::new().open().await;
    let builder = Consumer::builder("g").subscribe("t", "Aa || x");
    let mut consumer = builder.attach(&broker).await.unwrap();
    let producer = Producer::attach(&broker);
    // The hashes of Aa and BB are the same.
    for (tag, text) in [
        ("BB", "collides"),
        ("y", "unwanted"),
        ("Aa", "1"),
        ("x", "2"),
    ] {
        producer.send_to(0, message(tag, text)).await.unwrap();
    }
    for expected in ["1", "2"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(body(&delivery), expected);
        delivery.ack();
    }
    assert!(silent(&mut consumer, Duration::from_secs(60)).await);
    assert_eq!(offset(&broker, 0), 4, "messages for nobody are passed");
}

#[tokio::test(start_paused = true)]
async fn progress_never_passes_a_message_that_is_not_acknowledged() {
    let world = World::new();
    let broker = world.open().await;
    let producer = Producer::attach(&broker);
    for text in ["1", "2", "3"] {
        producer.send_to(0, message("a", text)).await.unwrap();
    }
    let mut first = consumer(&broker, "c").await;
    let one = next(&mut first).await;
    next(&mut first).await.ack();
    next(&mut first).await.ack();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(offset(&broker, 0), 0);
    // The process dies with one message in its hands.
    std::mem::forget(one);
    drop((first, broker));
    let broker = world.open().await;
    let mut second = consumer(&broker, "c").await;
    for expected in ["1", "2", "3"] {
        let delivery = next(&mut second).await;
        assert_eq!(body(&delivery), expected);
        delivery.ack();
    }
    second.close().await.unwrap();
    assert_eq!(offset(&broker, 0), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_is_not_lost_when_a_consumer_goes() {
    let broker = World::new().open().await;
    let producer = Producer::attach(&broker);
    for text in ["1", "2", "3"] {
        producer.send_to(0, message("a", text)).await.unwrap();
    }
    let mut first = consumer(&broker, "c").await;
    next(&mut first).await.ack();
    first.close().await.unwrap();
    let mut second = consumer(&broker, "c").await;
    let delivery = next(&mut second).await;
    assert_eq!(
        (&*body(&delivery), delivery.reconsume_times()),
        ("2", 0),
        "reading ahead is no try"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_dropped_comes_again_until_it_is_a_dead_letter() {
    let broker = World::new().open().await;
    let mut consumer = consumer(&broker, "c").await;
    let receipt = Producer::attach(&broker)
        .send_to(0, message("a", "stubborn"))
        .await
        .unwrap();
    for times in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(
            (body(&delivery), delivery.reconsume_times()),
            ("stubborn".into(), times)
        );
        assert_eq!(delivery.topic().as_str(), "t");
        assert_eq!(
            delivery.message_id(),
            receipt.unique_key.as_deref().unwrap()
        );
        drop(delivery);
    }
    assert!(silent(&mut consumer, Duration::from_secs(7200)).await);
    assert_eq!(offset(&broker, 0), 1);
    let mut dead = PullConsumer::attach(&broker, GroupName::new("undertaker").unwrap());
    let queue = dead
        .queues(&TopicName::new("%DLQ%g").unwrap())
        .await
        .unwrap()
        .remove(0);
    dead.assign([queue.clone()]).await.unwrap();
    let letters = dead.pull(&queue, Duration::ZERO).await.unwrap();
    assert_eq!(letters.iter().map(body).collect::<Vec<_>>(), ["stubborn"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_can_be_asked_for_after_a_certain_time() {
    let broker = World::new().open().await;
    let mut consumer = consumer(&broker, "c").await;
    Producer::attach(&broker)
        .send(message("a", "1"))
        .await
        .unwrap();
    next(&mut consumer).await.retry_later(2);
    let before = broker.clock().monotonic();
    let delivery = next(&mut consumer).await;
    let waited = broker.clock().monotonic() - before;
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    delivery.dead_letter();
    assert!(silent(&mut consumer, Duration::from_secs(7200)).await);
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_share_the_queues_and_take_over_from_those_who_leave() {
    let broker = World::new().open().await;
    broker
        .put_topic(TopicConfig::new(TopicName::new("t").unwrap(), 4))
        .await
        .unwrap();
    let producer = Producer::attach(&broker);
    let mut members = BTreeMap::new();
    for id in ["a", "b", "c"] {
        members.insert(id, consumer(&broker, id).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut seen = BTreeMap::new();
    for gone in ["b", "c", "a"] {
        for queue in 0..4 {
            for _ in 0..5 {
                producer
                    .send_to(queue, message("a", &format!("{gone} {queue}")))
                    .await
                    .unwrap();
            }
        }
        let mut readers: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (id, member) in &mut members {
            while let Ok(Ok(Some(delivery))) =
                tokio::time::timeout(Duration::from_secs(2), member.next()).await
            {
                *seen.entry(body(&delivery)).or_insert(0) += 1;
                readers.entry(delivery.queue().queue).or_default().push(id);
                delivery.ack();
            }
        }
        assert_eq!(readers.len(), 4);
        for (queue, ids) in &readers {
            assert!(
                ids.iter().all(|id| id == &ids[0]),
                "queue {queue} was read by {ids:?}"
            );
        }
        if gone == "b" {
            let busy: std::collections::BTreeSet<_> = readers.values().flatten().collect();
            assert_eq!(busy.len(), 3, "each member has a share");
        }
        members.remove(gone).unwrap().close().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(seen.len(), 12);
    assert!(
        seen.values().all(|times| *times == 5),
        "while nobody crashes nothing comes twice: {seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_is_delivered_by_whoever_takes_the_queue() {
    let broker = World::new().open().await;
    broker
        .put_topic(TopicConfig::new(TopicName::new("t").unwrap(), 1))
        .await
        .unwrap();
    let producer = Producer::attach(&broker);
    for text in ["1", "2", "3"] {
        producer.send(message("a", text)).await.unwrap();
    }
    let mut old = consumer(&broker, "b").await;
    let held = next(&mut old).await;
    assert_eq!(old.waiting(), 2);
    // Sorted before the other, so the only queue is its.
    let mut new = consumer(&broker, "a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    held.ack();
    for expected in ["1", "2", "3"] {
        let delivery = next(&mut new).await;
        assert_eq!(body(&delivery), expected);
        delivery.ack();
    }
    assert!(silent(&mut old, Duration::from_secs(60)).await);
    assert!(silent(&mut new, Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_after_the_consumer_is_read_at_once_and_from_its_beginning() {
    let broker = World::new().open().await;
    let builder = Consumer::builder("g")
        .subscribe("t", "*")
        .from(ConsumeFrom::Last);
    let mut consumer = builder.attach(&broker).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    Producer::attach(&broker)
        .send(message("a", "first"))
        .await
        .unwrap();
    let before = broker.clock().monotonic();
    assert_eq!(body(&*next(&mut consumer).await), "first");
    assert!(broker.clock().monotonic() - before < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_is_bounded_and_a_large_message_still_passes() {
    let broker = World::new().open().await;
    let builder = Consumer::builder("g")
        .subscribe("t", "*")
        .prefetch_bytes(1000);
    let mut consumer = builder.attach(&broker).await.unwrap();
    let producer = Producer::attach(&broker);
    for size in [400, 400, 5000, 400] {
        producer
            .send_to(0, message("a", &"x".repeat(size)))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(consumer.waiting() <= 2, "{} messages", consumer.waiting());
    for size in [400, 400, 5000, 400] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body().len(), size);
        delivery.ack();
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_ends_when_its_broker_is_closed() {
    let broker = World::new().open().await;
    Producer::attach(&broker)
        .send(message("a", "1"))
        .await
        .unwrap();
    let mut consumer = consumer(&broker, "c").await;
    next(&mut consumer).await.ack();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let before = broker.clock().monotonic();
    broker.close(Duration::from_secs(1)).await.unwrap();
    assert!(consumer.next().await.unwrap().is_none());
    assert_eq!(broker.clock().monotonic(), before);
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_dropped_leaves_its_group() {
    let broker = World::new().open().await;
    let group = GroupName::new("g").unwrap();
    let consumer = consumer(&broker, "c").await;
    assert_eq!(broker.members(&group), ["c".into()]);
    drop(consumer);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(broker.members(&group).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_is_tried_again() {
    let world = World::new();
    let broker = world.open().await;
    let mut consumer = consumer(&broker, "c").await;
    Producer::attach(&broker)
        .send_to(0, message("a", "1"))
        .await
        .unwrap();
    let delivery = next(&mut consumer).await;
    world
        .log
        .fail_next(crate::log::AppendError::Full("no space".into()));
    delivery.retry_later(1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(offset(&broker, 0), 0, "not sent back, so not finished");
    assert_eq!(next(&mut consumer).await.reconsume_times(), 1);
    assert_eq!(offset(&broker, 0), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pull_consumer_reads_where_it_wants() {
    let broker = World::new().open().await;
    let producer = Producer::attach(&broker);
    for text in ["1", "2", "3"] {
        producer.send_to(1, message(text, text)).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let group = GroupName::new("g").unwrap();
    let mut consumer = PullConsumer::attach(&broker, group.clone());
    let queues = consumer
        .queues(&TopicName::new("t").unwrap())
        .await
        .unwrap();
    assert_eq!(queues.len(), 4);
    let queue = queues[1].clone();
    assert!(matches!(
        consumer.pull(&queue, Duration::ZERO).await,
        Err(ClientError::Missing(_))
    ));
    consumer.assign(queues).await.unwrap();
    let all = consumer.pull(&queue, Duration::ZERO).await.unwrap();
    assert_eq!(all.iter().map(body).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(
        consumer
            .pull(&queue, Duration::from_secs(3))
            .await
            .unwrap()
            .is_empty()
    );
    consumer
        .seek_to_time(&queue, all[1].store_ms())
        .await
        .unwrap();
    assert_eq!(consumer.position(&queue), Ok(1));
    consumer.commit().await.unwrap();
    let filter = Filter::parse("3").unwrap();
    let mut again = PullConsumer::attach(&broker, group).filtered(filter);
    again.assign([queue.clone()]).await.unwrap();
    let rest = again.pull(&queue, Duration::from_secs(1)).await.unwrap();
    assert_eq!(rest.iter().map(body).collect::<Vec<_>>(), ["3"]);
    assert_eq!(again.range(&queue).await, Ok(0..3));
}

#[tokio::test]
async fn producers_choose_queues() {
    let broker = World::new().open().await;
    let producer = Producer::attach(&broker);
    let by_key = async |key| {
        producer
            .clone()
            .send_by_key(key, message("a", key))
            .await
            .unwrap()
            .queue
            .queue
    };
    assert_eq!(by_key("10248").await, by_key("10248").await);
    let mut turns = vec![];
    for _ in 0..4 {
        turns.push(producer.send(message("a", "")).await.unwrap().queue.queue);
    }
    turns.sort_unstable();
    assert_eq!(turns, [0, 1, 2, 3]);
    let receipts = producer
        .send_all(vec![message("a", "1"), message("a", "2")])
        .await
        .unwrap();
    assert_eq!(receipts[0].queue, receipts[1].queue);
    assert_eq!(receipts[0].queue_offset.0 + 1, receipts[1].queue_offset.0);
    assert_ne!(receipts[0].unique_key, receipts[1].unique_key);
    let missing = producer.send_to(9, message("a", "")).await;
    assert!(
        matches!(missing, Err(ClientError::Missing(_))),
        "{missing:?}"
    );
    let hidden = Message::builder("SCHEDULE_TOPIC_XXXX").build().unwrap();
    assert!(matches!(
        producer.send(hidden).await,
        Err(ClientError::Refused(_))
    ));
}

#[tokio::test]
async fn a_consumer_says_what_is_wrong_with_its_request() {
    let broker = World::new().open().await;
    for (builder, named) in [
        (Consumer::builder("g"), "subscribe()"),
        (
            Consumer::builder("").subscribe("t", "*"),
            "group name is empty",
        ),
        (Consumer::builder("g").subscribe("t/u", "*"), "'/'"),
        (
            Consumer::builder("g").subscribe("t", "||"),
            "tag expression",
        ),
    ] {
        let error = builder.attach(&broker).await.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!error.is_retryable());
    }
}

/// Stores `body` as a client that has compressed it does, with these flag bits.
async fn store_compressed(broker: &Broker, sys_flag: i32, body: &[u8]) {
    let incoming = crate::broker::Incoming {
        sys_flag,
        body: body.to_vec().into(),
        ..crate::broker::Incoming::new(&message("a", ""), Some(0), 1)
    };
    broker.send(incoming).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn compressed_bodies_are_inflated_and_those_that_cannot_be_become_dead_letters() {
    let broker = World::new().open().await;
    let mut consumer = consumer(&broker, "c").await;
    let mut deflated = Vec::with_capacity(1000);
    let mut deflate = flate2::Compress::new(flate2::Compression::new(5), true);
    deflate
        .compress_vec(
            b"one two three",
            &mut deflated,
            flate2::FlushCompress::Finish,
        )
        .unwrap();
    store_compressed(&broker, 0x101, b"something in LZ4").await;
    store_compressed(&broker, 0x1, &deflated).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(body(&delivery), "one two three");
    assert_eq!(delivery.sys_flag(), 0);
    delivery.ack();
    assert!(silent(&mut consumer, Duration::from_secs(60)).await);
    assert_eq!(offset(&broker, 0), 2, "nobody waits for the other one");
    let dead = QueueId::new(TopicName::new("%DLQ%g").unwrap(), 0);
    assert_eq!(broker.queue_range(&dead), Ok(0..1));
}
