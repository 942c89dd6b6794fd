//! Sending and pulling: tags, limits, ranges, and waiting.

use super::*;

#[tokio::test]
async fn what_is_sent_is_pulled_as_stored() {
    let broker = World::new().open().await;
    let receipt = broker.send(incoming("t", "a", "hello")).await.unwrap();
    assert_eq!(receipt.queue, queue("t", 0));
    let pulled = broker.pull(pull(queue("t", 0), 0)).await.unwrap();
    assert_eq!(
        (pulled.outcome, pulled.next, pulled.min, pulled.max),
        (PullOutcome::Found, 1, 0, 1)
    );
    let view = RecordView::parse(&pulled.records[0]).unwrap();
    assert_eq!(
        (view.topic, view.body, view.position),
        ("t", &b"hello"[..], receipt.position.0)
    );
    assert_eq!(
        receipt.message_id,
        crate::wire::ids::offset_id(broker.host(), receipt.position.0)
    );
}

#[tokio::test]
async fn a_filter_lets_only_its_tags_through() {
    let broker = World::new().open().await;
    for (tag, body) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")] {
        broker.send(incoming("t", tag, body)).await.unwrap();
    }
    let filter = Filter::parse("c || b").unwrap();
    let pulled = broker
        .pull(Pull {
            filter,
            ..pull(queue("t", 0), 0)
        })
        .await
        .unwrap();
    assert_eq!((pulled.records.len(), pulled.next), (2, 4));
    let filter = Filter::parse("zzz").unwrap();
    let pulled = broker
        .pull(Pull {
            filter,
            ..pull(queue("t", 0), 1)
        })
        .await
        .unwrap();
    assert_eq!((pulled.outcome, pulled.next), (PullOutcome::NoMatch, 4));
}

#[tokio::test]
async fn an_answer_is_bounded_but_never_empty_for_a_large_message() {
    let world = World::new();
    let settings = Settings {
        pull_bytes: 1000,
        ..Settings::default()
    };
    let broker = world.open_with(settings, vec![]).await;
    broker
        .send(incoming("t", "a", &"x".repeat(5000)))
        .await
        .unwrap();
    for _ in 0..40 {
        broker.send(incoming("t", "a", "")).await.unwrap();
    }
    let first = broker.pull(pull(queue("t", 0), 0)).await.unwrap();
    assert_eq!((first.records.len(), first.next), (1, 1));
    let second = broker.pull(pull(queue("t", 0), 1)).await.unwrap();
    let bytes: usize = second.records.iter().map(bytes::Bytes::len).sum();
    assert!(
        second.records.len() > 1 && bytes <= 1000,
        "{} records, {bytes} bytes",
        second.records.len()
    );
    let three = broker
        .pull(Pull {
            most: 3,
            ..pull(queue("t", 0), 1)
        })
        .await
        .unwrap();
    assert_eq!((three.records.len(), three.next), (3, 4));
}

#[tokio::test]
async fn an_offset_outside_of_the_queue_is_moved_into_it() {
    let broker = World::new().open().await;
    broker
        .put_topic(TopicConfig::new(topic("t"), 1))
        .await
        .unwrap();
    let empty = broker.pull(pull(queue("t", 0), 0)).await.unwrap();
    assert_eq!(empty.outcome, PullOutcome::NoNew);
    let moved = broker.pull(pull(queue("t", 0), 7)).await.unwrap();
    assert_eq!((moved.outcome, moved.next), (PullOutcome::Moved, 0));
    broker.send(incoming("t", "a", "1")).await.unwrap();
    assert_eq!(
        broker.pull(pull(queue("t", 0), 1)).await.unwrap().outcome,
        PullOutcome::NoNew
    );
    let moved = broker.pull(pull(queue("t", 0), 2)).await.unwrap();
    assert_eq!((moved.outcome, moved.next), (PullOutcome::Moved, 1));
    let missing = broker.pull(pull(queue("t", 1), 0)).await;
    assert!(
        matches!(missing, Err(PullError::NoSuchQueue { queues: 1, .. })),
        "{missing:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_pull_wakes_for_a_matching_message_only() {
    let broker = World::new().open().await;
    broker
        .put_topic(TopicConfig::new(topic("t"), 1))
        .await
        .unwrap();
    let filter = Filter::parse("wanted").unwrap();
    let waiting = Pull {
        filter,
        wait: Duration::from_secs(15),
        ..pull(queue("t", 0), 0)
    };
    let answer = tokio::spawn({
        let (broker, waiting) = (broker.clone(), waiting.clone());
        async move { broker.pull(waiting).await.unwrap() }
    });
    tokio::time::advance(Duration::from_secs(5)).await;
    broker.send(incoming("t", "other", "1")).await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(!answer.is_finished());
    broker.send(incoming("t", "wanted", "2")).await.unwrap();
    let pulled = answer.await.unwrap();
    assert_eq!((pulled.records.len(), pulled.next), (1, 2));

    let started = broker.clock().monotonic();
    let pulled = broker
        .pull(Pull {
            offset: 2,
            ..waiting
        })
        .await
        .unwrap();
    assert_eq!((pulled.outcome, pulled.next), (PullOutcome::NoNew, 2));
    assert_eq!((broker.clock().monotonic() - started).as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_waits_does_not_hold_up_the_close() {
    let broker = World::new().open().await;
    broker
        .put_topic(TopicConfig::new(topic("t"), 1))
        .await
        .unwrap();
    let waiting = Pull {
        wait: Duration::from_secs(60),
        ..pull(queue("t", 0), 0)
    };
    let answer = tokio::spawn({
        let broker = broker.clone();
        async move { broker.pull(waiting).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let before = broker.clock().monotonic();
    broker.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(answer.await.unwrap().outcome, PullOutcome::NoNew);
    assert_eq!(broker.clock().monotonic(), before);
}

#[tokio::test]
async fn flag_bits_of_an_extension_are_refused_without_one() {
    let broker = World::new().open().await;
    for bits in [4, 8, 12] {
        let sent = broker
            .send(Incoming {
                sys_flag: bits | 1,
                ..incoming("t", "a", "1")
            })
            .await;
        assert_eq!(sent, Err(SendError::Flags(bits)));
    }
    assert_eq!(
        broker.topic(&topic("t")),
        None,
        "a refused message creates nothing"
    );
}

#[tokio::test]
async fn messages_of_a_batch_stand_together() {
    let broker = World::new().open().await;
    let batch = vec![
        incoming("t", "a", "1"),
        incoming("t", "a", "2"),
        incoming("t", "a", "3"),
    ];
    let receipts = broker.send_all(batch).await.unwrap();
    let offsets: Vec<_> = receipts
        .iter()
        .map(|receipt| receipt.queue_offset.0)
        .collect();
    assert_eq!(offsets, [0, 1, 2]);
    let too_long = Incoming {
        properties: vec![b'x'; 40_000],
        ..incoming("t", "a", "5")
    };
    let refused = broker
        .send_all(vec![incoming("t", "a", "4"), too_long])
        .await;
    assert_eq!(refused, Err(SendError::PropertiesTooLong(40_000)));
    assert_eq!(bodies(&broker, "t").await, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn an_offset_is_found_by_time() {
    let broker = World::new().open().await;
    let mut times = vec![];
    for body in ["1", "2", "3"] {
        times.push(
            broker
                .send(incoming("t", "a", body))
                .await
                .unwrap()
                .store_ms,
        );
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let at = |ms| broker.offset_at(&queue("t", 0), ms).unwrap();
    assert_eq!(
        (
            at(0),
            at(times[0]),
            at(times[0] + 1),
            at(times[2]),
            at(times[2] + 1)
        ),
        (0, 0, 1, 2, 3)
    );
}
