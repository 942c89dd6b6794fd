//! Delayed messages: in time, in server time only, and once.

use super::*;
use crate::wire::reserved;

fn delayed(name: &str, level: u8, body: &str) -> Incoming {
    let message = Message::builder(name)
        .tag("a")
        .delay_level(level)
        .body(body.to_owned());
    Incoming::new(&message.build().unwrap(), Some(0), 1)
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_after_its_delay_and_not_before() {
    let broker = World::new().open().await;
    broker.send(delayed("t", 2, "five seconds")).await.unwrap();
    broker.send(delayed("t", 1, "one second")).await.unwrap();
    assert_eq!(broker.delayed_messages(), 2);
    tokio::time::sleep(Duration::from_millis(990)).await;
    assert!(bodies(&broker, "t").await.is_empty());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bodies(&broker, "t").await, ["one second"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(bodies(&broker, "t").await, ["one second", "five seconds"]);
    assert_eq!(broker.delayed_messages(), 0);
    let pulled = broker.pull(pull(queue("t", 0), 0)).await.unwrap();
    let view = RecordView::parse(&pulled.records[0]).unwrap();
    assert_eq!(view.properties.get(reserved::TAGS), Some("a"));
    for gone in [reserved::DELAY, reserved::REAL_TOPIC, reserved::REAL_QUEUE] {
        assert_eq!(view.properties.get(gone), None, "{gone}");
    }
    let wanted = Filter::parse("a").unwrap();
    let pulled = broker
        .pull(Pull {
            filter: wanted,
            ..pull(queue("t", 0), 0)
        })
        .await
        .unwrap();
    assert_eq!(
        pulled.records.len(),
        2,
        "the copy has the hash of its tag again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_around_the_copy_delivers_once() {
    let world = World::new();
    let broker = world.open().await;
    for number in 0..200 {
        broker
            .send(delayed("t", 1, &number.to_string()))
            .await
            .unwrap();
    }
    // The log stops accepting while copies are on their way: the broker dies with some of them stored.
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.log.hold();
    tokio::time::sleep(Duration::from_millis(600)).await;
    drop(broker);
    world.log.release();
    tokio::task::yield_now().await;
    for _ in 0..3 {
        let broker = world.open().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(world.log.queue_range(&queue("t", 0)).end.0, 200);
        drop(broker);
    }
    let broker = world.open().await;
    broker.close(Duration::from_secs(1)).await.unwrap();
    let broker = world.open().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        world.log.queue_range(&queue("t", 0)).end.0,
        200,
        "also behind a snapshot"
    );
    assert_eq!(broker.delayed_messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_messages_than_one_append_has_room_for_come_all() {
    let world = World::new();
    let broker = world.open().await;
    world.log.limit_appends(1_000);
    for number in 0..20 {
        let body = number.to_string();
        broker.send(delayed("t", 1, &body)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(bodies(&broker, "t").await.len(), 20);
    assert_eq!(broker.delayed_messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_topic_is_gone_holds_up_nobody() {
    let broker = World::new().open().await;
    for (name, body) in [("kept", "1"), ("dropped", "2"), ("kept", "3")] {
        broker.send(delayed(name, 1, body)).await.unwrap();
    }
    broker.delete_topic(&topic("dropped")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bodies(&broker, "kept").await, ["1", "3"]);
    assert_eq!(broker.delayed_messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_delays_but_loses_nothing() {
    let world = World::new();
    let broker = world.open().await;
    broker.send(delayed("t", 1, "1")).await.unwrap();
    world.log.fail_next(AppendError::Full("no space".into()));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(bodies(&broker, "t").await.is_empty());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bodies(&broker, "t").await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_cannot_name_the_real_queue_itself() {
    let broker = World::new().open().await;
    let mut spoofed = delayed("t", 1, "1");
    let mut properties = Vec::new();
    crate::wire::properties::push(&mut properties, reserved::REAL_TOPIC, "victim");
    crate::wire::properties::push(&mut properties, reserved::REAL_QUEUE, "0");
    properties.extend_from_slice(&spoofed.properties);
    spoofed.properties = properties;
    broker
        .put_topic(TopicConfig::new(topic("victim"), 1))
        .await
        .unwrap();
    broker.send(spoofed).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bodies(&broker, "t").await, ["1"]);
    assert!(bodies(&broker, "victim").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_not_deleted_nor_is_what_the_next_start_reads() {
    let world = World::new();
    let mut broker = world.open().await;
    broker.send(delayed("t", 3, "ten seconds")).await.unwrap();
    for _ in 0..2 {
        for _ in 0..20 {
            let plain = Message::builder("u").body("plain").build().unwrap();
            broker
                .send(Incoming::new(&plain, Some(0), 1))
                .await
                .unwrap();
        }
        world.log.want(world.log.range().end);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(world.log.range().start.0 < 1_000, "it waits");
        drop(broker);
        broker = world.open().await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bodies(&broker, "t").await, ["ten seconds"]);
    let end = world.log.range().end;
    world.log.want(end);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(world.log.range().start >= end, "nobody needs it any more");
    drop(broker);
    // What was told in the part that is deleted is in the snapshot.
    let broker = world.open().await;
    let names = ["t", "u"].map(|name| broker.queue_range(&queue(name, 0)).unwrap());
    assert_eq!(names, [1..1, 40..40]);
}
