//! Messages that are sent back: later, again and again, and among the dead letters in the end.

use super::*;
use crate::log::Flush;
use crate::wire::record::NewRecord;
use crate::wire::reserved;

fn back(position: Position) -> SendBack {
    SendBack {
        group: group("g"),
        position,
        delay_level: 0,
        retries: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_again_until_it_is_a_dead_letter() {
    let world = World::new();
    let settings = Settings {
        retries: 2,
        ..Settings::default()
    };
    let broker = world.open_with(settings, vec![]).await;
    let first = broker.send(incoming("t", "a", "stubborn")).await.unwrap();
    let mut position = first.position;
    for (times, wait) in [(1, 10), (2, 30)] {
        let level = u8::try_from(times + 2).unwrap();
        assert_eq!(
            broker.send_back(back(position)).await,
            Ok(SentBack::Retry { level })
        );
        tokio::time::sleep(Duration::from_millis(wait * 1000 - 10)).await;
        let retry = queue("%RETRY%g", 0);
        let offset = u64::from(times) - 1;
        assert_eq!(
            broker
                .pull(pull(retry.clone(), offset))
                .await
                .unwrap()
                .outcome,
            PullOutcome::NoNew
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        let pulled = broker.pull(pull(retry, offset)).await.unwrap();
        let view = RecordView::parse(&pulled.records[0]).unwrap();
        assert_eq!((view.reconsume_times, view.body), (times, &b"stubborn"[..]));
        assert_eq!(view.properties.get(reserved::RETRY_TOPIC), Some("t"));
        assert_eq!(
            view.properties.get(reserved::ORIGIN_MESSAGE_ID),
            Some(&*first.message_id)
        );
        assert_eq!(view.properties.get(reserved::TAGS), Some("a"));
        position = Position(view.position);
    }
    assert_eq!(
        broker.send_back(back(position)).await,
        Ok(SentBack::DeadLetter)
    );
    let pulled = broker.pull(pull(queue("%DLQ%g", 0), 0)).await.unwrap();
    let view = RecordView::parse(&pulled.records[0]).unwrap();
    assert_eq!(
        view.properties.get(reserved::DEAD_LETTER_ORIGIN_TOPIC),
        Some("t")
    );
    assert_eq!(
        view.properties.get(reserved::DEAD_LETTER_ORIGIN_MESSAGE_ID),
        Some(&*first.message_id)
    );
    assert_eq!(view.reconsume_times, 3);
}

#[tokio::test]
async fn a_consumer_may_ask_for_the_dead_letters_or_a_level() {
    let broker = World::new().open().await;
    let sent = broker.send(incoming("t", "a", "1")).await.unwrap();
    let dead = broker
        .send_back(SendBack {
            delay_level: -1,
            ..back(sent.position)
        })
        .await;
    assert_eq!(dead, Ok(SentBack::DeadLetter));
    let level = broker
        .send_back(SendBack {
            delay_level: 1,
            ..back(sent.position)
        })
        .await;
    assert_eq!(level, Ok(SentBack::Retry { level: 1 }));
    let none = broker
        .send_back(SendBack {
            retries: Some(0),
            ..back(sent.position)
        })
        .await;
    assert_eq!(none, Ok(SentBack::DeadLetter));
}

#[tokio::test]
async fn only_messages_of_ordinary_topics_are_sent_back() {
    let world = World::new();
    let broker = world.open().await;
    let message = Message::builder("t")
        .delay_level(5)
        .body("1")
        .build()
        .unwrap();
    let waiting = broker
        .send(Incoming::new(&message, Some(0), 1))
        .await
        .unwrap()
        .position;
    let note = Position(world.log.range().start.0);
    for at in [
        waiting,
        note,
        Position(waiting.0 + 1),
        Position(0),
        Position(u64::MAX),
    ] {
        let refused = broker.send_back(back(at)).await;
        assert!(
            matches!(refused, Err(SendBackError::NoMessage(_))),
            "{at}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_copy_carries_no_flag_bits_of_an_extension() {
    let broker = World::new().open().await;
    broker
        .put_topic(TopicConfig::new(topic("t"), 1))
        .await
        .unwrap();
    // As an extension publishes it.
    let record = NewRecord {
        sys_flag: 8 | 1,
        body: b"1",
        ..NewRecord::new("t", 0)
    };
    let record = record.encode_around(bytes::Bytes::from_static(b"1"));
    let entry = sending::message(record, queue("t", 0), 0);
    let placed = broker
        .shared
        .journal
        .append(vec![entry], Flush::Sync)
        .await
        .unwrap();
    broker
        .send_back(SendBack {
            delay_level: -1,
            ..back(placed[0].position)
        })
        .await
        .unwrap();
    let pulled = broker.pull(pull(queue("%DLQ%g", 0), 0)).await.unwrap();
    assert_eq!(RecordView::parse(&pulled.records[0]).unwrap().sys_flag, 1);
}
