//! Groups: where they start, how far they are, and what of it outlives a crash.

use super::*;

#[tokio::test]
async fn nothing_stored_after_the_subscription_is_skipped() {
    // A group that starts "with the last message" subscribed, a message was stored, and only then it asked for its offset.
    let world = World::new();
    let broker = world.open().await;
    broker.send(incoming("t", "a", "old")).await.unwrap();
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), None);
    subscribe(&broker, subscribed("g", "t", ConsumeFrom::Last)).await;
    drop(broker);
    let broker = world.open().await;
    broker.send(incoming("t", "a", "new")).await.unwrap();
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), Some(1));
    subscribe(&broker, subscribed("g", "t", ConsumeFrom::Last)).await;
    assert_eq!(
        broker.offset(&group("g"), &queue("t", 0)).unwrap(),
        Some(1),
        "a later heartbeat moves nothing"
    );
    subscribe(&broker, subscribed("first", "t", ConsumeFrom::First)).await;
    assert_eq!(
        broker.offset(&group("first"), &queue("t", 0)).unwrap(),
        Some(0)
    );
}

#[tokio::test]
async fn topics_and_queues_that_come_later_are_read_from_their_beginning() {
    let broker = World::new().open().await;
    subscribe(&broker, subscribed("g", "t", ConsumeFrom::Last)).await;
    broker
        .put_topic(TopicConfig::new(topic("t"), 1))
        .await
        .unwrap();
    broker.send(incoming("t", "a", "1")).await.unwrap();
    subscribe(&broker, subscribed("g", "t", ConsumeFrom::Last)).await;
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), Some(0));
    broker
        .put_topic(TopicConfig::new(topic("t"), 2))
        .await
        .unwrap();
    broker
        .send(Incoming {
            queue: Some(1),
            ..incoming("t", "a", "2")
        })
        .await
        .unwrap();
    assert_eq!(broker.offset(&group("g"), &queue("t", 1)).unwrap(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn offsets_outlive_a_crash_after_their_interval_and_a_close_at_once() {
    let world = World::new();
    let broker = world.open().await;
    for body in ["1", "2", "3"] {
        broker.send(incoming("t", "a", body)).await.unwrap();
    }
    broker
        .commit_offset(&group("g"), &queue("t", 0), 2)
        .unwrap();
    let written = world.log.range().end;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(world.log.range().end > written);
    drop(broker);
    let broker = world.open().await;
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), Some(2));
    broker
        .commit_offset(&group("g"), &queue("t", 0), 1)
        .unwrap();
    broker.close(Duration::from_secs(1)).await.unwrap();
    let broker = world.open().await;
    assert_eq!(
        broker.offset(&group("g"), &queue("t", 0)).unwrap(),
        Some(1),
        "also backwards"
    );
    broker.close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_broker_writes_nothing() {
    let world = World::new();
    let broker = world.open().await;
    broker.send(incoming("t", "a", "1")).await.unwrap();
    broker
        .commit_offset(&group("g"), &queue("t", 0), 1)
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let end = world.log.range().end;
    broker
        .commit_offset(&group("g"), &queue("t", 0), 1)
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.log.range().end, end);
}

#[tokio::test]
async fn an_offset_behind_the_end_skips_nothing_that_comes_later() {
    let broker = World::new().open().await;
    broker.send(incoming("t", "a", "1")).await.unwrap();
    broker
        .commit_offset(&group("g"), &queue("t", 0), 1000)
        .unwrap();
    broker.send(incoming("t", "a", "2")).await.unwrap();
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), Some(1));
    assert!(
        broker
            .commit_offset(&group("g"), &queue("missing", 0), 1)
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_start_reads_only_what_follows_the_last_snapshot() {
    let world = World::new();
    let settings = Settings {
        snapshot_bytes: 2_000,
        ..Settings::default()
    };
    let broker = world.open_with(settings.clone(), vec![]).await;
    broker
        .put_topic(TopicConfig::new(topic("t"), 1))
        .await
        .unwrap();
    for number in 0..50 {
        broker
            .send(incoming("t", "a", &"x".repeat(100)))
            .await
            .unwrap();
        broker
            .commit_offset(&group("g"), &queue("t", 0), number)
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(broker);
    let bookmark = world.log.bookmark(crate::log::BROKER).unwrap();
    let end = world.log.range().end.0;
    assert!(
        end - bookmark.0 < 5_000,
        "snapshot at {bookmark}, end at {end}"
    );
    let broker = world.open_with(settings, vec![]).await;
    assert_eq!(
        broker.offset(&group("g"), &queue("t", 0)).unwrap(),
        Some(49)
    );
    assert_eq!(broker.topics().len(), 1);
}

#[tokio::test]
async fn a_deleted_topic_takes_its_offsets_and_messages_with_it() {
    let world = World::new();
    let broker = world.open().await;
    broker.send(incoming("t", "a", "1")).await.unwrap();
    broker
        .commit_offset(&group("g"), &queue("t", 0), 1)
        .unwrap();
    broker.delete_topic(&topic("t")).await.unwrap();
    broker.send(incoming("t", "a", "2")).await.unwrap();
    drop(broker);
    let broker = world.open().await;
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), None);
    subscribe(&broker, subscribed("g", "t", ConsumeFrom::First)).await;
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), Some(1));
    let pulled = broker.pull(pull(queue("t", 0), 0)).await.unwrap();
    assert_eq!(
        (pulled.outcome, pulled.next, pulled.min),
        (PullOutcome::Moved, 1, 1)
    );
}

#[tokio::test]
async fn a_group_is_set_and_deleted() {
    let world = World::new();
    let broker = world.open().await;
    let config = GroupConfig {
        name: group("g"),
        consume: false,
        retries: 3,
    };
    broker.put_group(config.clone()).await.unwrap();
    broker.send(incoming("t", "a", "1")).await.unwrap();
    let refused = broker.pull(pull(queue("t", 0), 0)).await;
    assert_eq!(refused, Err(PullError::GroupClosed(group("g"))));
    drop(broker);
    let broker = world.open().await;
    assert_eq!(broker.group(&group("g")), Some(config));
    let member = broker.clients().connect("c", 1, "c", Arc::new(NoLink));
    broker
        .announce(&member, subscribed("g", "t", ConsumeFrom::First))
        .await
        .unwrap();
    assert_eq!(
        broker.delete_group(&group("g")).await,
        Err(GroupError::InUse(group("g")))
    );
    drop(member);
    broker.delete_group(&group("g")).await.unwrap();
    assert_eq!(
        broker.delete_group(&group("g")).await,
        Err(GroupError::Missing(group("g")))
    );
    assert_eq!(broker.offset(&group("g"), &queue("t", 0)).unwrap(), None);
}
