//! Messages: one, several, with delays, for topics that do not exist yet, and those that are refused.

use super::*;
use crate::broker::{Permission, TopicConfig};
use crate::names::TopicName;
use crate::wire::ids;
use crate::wire::record::RecordView;

fn message(topic: &'static str, more: &[(&'static str, &'static str)]) -> Command {
    let mut fields = vec![("a", "p"), ("b", topic), ("c", "TBW102"), ("d", "4")];
    fields.extend([("e", "0"), ("f", "0"), ("g", "1"), ("h", "0"), ("i", "")]);
    fields.extend(more);
    command(request::SEND_MESSAGE_V2, &fields, b"body")
}

async fn create(server: &Server, name: &str, queues: u32, permission: Permission) {
    let config = TopicConfig {
        permission,
        ..TopicConfig::new(TopicName::new(name).unwrap(), queues)
    };
    server.broker.put_topic(config).await.unwrap();
}

#[tokio::test]
async fn messages_of_one_wake_up_are_all_stored_and_each_is_answered() {
    are_all_stored_and_answered(Server::start().await).await;
}

#[tokio::test]
async fn messages_that_no_single_append_has_room_for_are_all_stored_as_well() {
    are_all_stored_and_answered(Server::over(1_000, Settings::default(), vec![]).await).await;
}

/// 50 messages that come together.
async fn are_all_stored_and_answered(server: Server) {
    let mut raw = Raw::connect(&server).await;
    let mut frames = Vec::new();
    for opaque in 0..50 {
        let command = Command {
            opaque,
            ..message("orders", &[])
        };
        frames.extend_from_slice(&frame::encoded(&command));
    }
    raw.socket.write_all(&frames).await.unwrap();
    let mut offsets = Vec::new();
    for _ in 0..50 {
        let answer = raw.next().await;
        assert_eq!(answer.code, 0, "{}", answer.remark);
        let offset: i32 = answer.fields.get("queueOffset").unwrap().parse().unwrap();
        assert_eq!(offset, answer.opaque, "in the order they came");
        offsets.push(offset);
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_id_in_the_answer_names_the_advertised_address_and_the_position() {
    let server = Server::start().await;
    let answer = Raw::connect(&server)
        .await
        .done(&message("orders", &[]))
        .await;
    let (host, position) = ids::parse_offset_id(answer.fields.get("msgId").unwrap()).unwrap();
    assert_eq!(SocketAddr::from(host), server.address);
    let stored = server
        .broker
        .log()
        .read(crate::log::Position(position))
        .unwrap();
    let view = RecordView::parse(&stored.bytes).unwrap();
    assert_eq!((view.body, view.topic), (&b"body"[..], "orders"));
    assert_eq!(view.born_ms, 1);
}

#[tokio::test]
async fn long_names_are_read_as_well() {
    let server = Server::start().await;
    let fields = [
        ("producerGroup", "p"),
        ("topic", "orders"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "2"),
        ("queueId", "1"),
        ("sysFlag", "0"),
        ("bornTimestamp", "5"),
        ("flag", "3"),
        ("properties", ""),
        ("batch", "0"),
    ];
    let send = command(request::SEND_MESSAGE, &fields, b"x");
    let answer = Raw::connect(&server).await.done(&send).await;
    assert_eq!(answer.fields.get("queueId"), Some("1"));
    assert_eq!(server.broker.topics()[0].write_queues, 2);
}

#[tokio::test]
async fn an_unknown_topic_is_made_with_the_queues_asked_for_up_to_the_brokers() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for (topic, asked, made) in [("a", "2", 2), ("b", "100", 4), ("c", "0", 1)] {
        raw.done(&message(topic, &[("d", asked)])).await;
        let config = server
            .broker
            .topic(&TopicName::new(topic).unwrap())
            .unwrap();
        assert_eq!(config.read_queues, made, "{topic}");
    }
    let answer = raw.call(&message("d", &[("c", "other")])).await;
    assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
    let answer = raw.call(&message("%DLQ%", &[])).await;
    assert_ne!(answer.code, 0);
}

#[tokio::test]
async fn without_automatic_topics_an_unknown_one_is_refused() {
    let settings = Settings {
        auto_create_topics: false,
        ..Settings::default()
    };
    let server = Server::with_settings(settings, vec![]).await;
    let answer = Raw::connect(&server).await.call(&message("a", &[])).await;
    assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
    assert!(server.broker.topics().is_empty());
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_its_code() {
    let server = Server::start().await;
    let closed = Permission {
        write: false,
        ..Permission::ALL
    };
    create(&server, "closed", 1, closed).await;
    create(&server, "open", 1, Permission::ALL).await;
    let mut raw = Raw::connect(&server).await;
    for (refused, code) in [
        (message("open", &[("e", "1")]), response::SYSTEM_ERROR),
        (message("open", &[("e", "x")]), response::SYSTEM_ERROR),
        (message("a b", &[]), response::SYSTEM_ERROR),
        (message("closed", &[]), response::NO_PERMISSION),
        (message("TBW102", &[]), response::NO_PERMISSION),
        (message("SCHEDULE_TOPIC_XXXX", &[]), response::NO_PERMISSION),
        (message("open", &[("f", "4")]), response::NO_PERMISSION),
        (
            Command {
                body: vec![0; (4 << 20) + 1].into(),
                ..message("open", &[])
            },
            response::MESSAGE_ILLEGAL,
        ),
        (
            Command {
                fields: [("b", "open"), ("e", "0"), ("i", &*"x".repeat(32_768))]
                    .into_iter()
                    .collect(),
                ..message("open", &[])
            },
            response::MESSAGE_ILLEGAL,
        ),
    ] {
        let answer = raw.call(&refused).await;
        assert_eq!(answer.code, code, "{}", answer.remark);
        assert!(!answer.remark.is_empty());
    }
    let negative = raw.done(&message("open", &[("e", "-1")])).await;
    assert_eq!(negative.fields.get("queueId"), Some("0"));
}

#[tokio::test]
async fn a_senders_flags_cannot_change_how_the_record_is_read() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.done(&message("orders", &[("f", "1")])).await;
    raw.done(&message("orders", &[("f", "243")])).await;
    let queue = crate::names::QueueId::new(TopicName::new("orders").unwrap(), 0);
    let entries = server
        .broker
        .log()
        .entries(&queue, crate::log::QueueOffset(0), 9)
        .unwrap();
    for (entry, flags) in entries.iter().zip([1, 3]) {
        let stored = server.broker.log().read(entry.position).unwrap();
        assert_eq!(RecordView::parse(&stored.bytes).unwrap().sys_flag, flags);
    }
    assert_eq!(entries.len(), 2);
}

fn batch(bodies: &[&str]) -> Bytes {
    let mut out = Vec::new();
    for body in bodies {
        let properties = format!("UNIQ_KEY\u{1}{body}\u{2}");
        let total = i32::try_from(22 + body.len() + properties.len()).unwrap();
        for number in [total, 0, 0, 9, i32::try_from(body.len()).unwrap()] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(body.as_bytes());
        out.extend_from_slice(&u16::try_from(properties.len()).unwrap().to_be_bytes());
        out.extend_from_slice(properties.as_bytes());
    }
    out.into()
}

#[tokio::test]
async fn a_batch_becomes_messages_side_by_side() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.done(&message("orders", &[])).await;
    for code in [
        request::SEND_BATCH_MESSAGE,
        request::SEND_MESSAGE_V2,
        request::SEND_MESSAGE,
    ] {
        let long = code == request::SEND_MESSAGE;
        let fields: &[_] = if long {
            &[("topic", "orders"), ("queueId", "0"), ("batch", "1")]
        } else {
            &[("b", "orders"), ("e", "0"), ("m", "true")]
        };
        let send = Command {
            body: batch(&["one", "two", "three"]),
            ..command(code, fields, b"")
        };
        let answer = raw.done(&send).await;
        assert_eq!(answer.fields.get("msgId").unwrap().split(',').count(), 3);
    }
    let queue = crate::names::QueueId::new(TopicName::new("orders").unwrap(), 0);
    let entries = server
        .broker
        .log()
        .entries(&queue, crate::log::QueueOffset(0), 99)
        .unwrap();
    assert_eq!(entries.len(), 10);
    let last = server.broker.log().read(entries[9].position).unwrap();
    let view = RecordView::parse(&last.bytes).unwrap();
    assert_eq!((view.body, view.flag), (&b"three"[..], 9));
    assert_eq!(view.properties.get("UNIQ_KEY"), Some("three"));
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_refused_as_a_whole() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let whole = batch(&["one", "two"]);
    for body in [Bytes::new(), whole.slice(..whole.len() - 1)] {
        let send = Command {
            body,
            ..message("orders", &[("m", "true")])
        };
        assert_eq!(raw.call(&send).await.code, response::MESSAGE_ILLEGAL);
    }
    let queue = crate::names::QueueId::new(TopicName::new("orders").unwrap(), 0);
    assert_eq!(server.broker.queue_range(&queue).unwrap(), 0..0);
}

#[tokio::test]
async fn a_retry_that_was_consumed_too_often_is_a_dead_letter() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let retry = |times: &'static str| {
        let more = [
            ("j", times),
            ("l", "3"),
            ("i", "DELAY\u{1}3\u{2}K\u{1}v\u{2}"),
        ];
        message("%RETRY%g", &more)
    };
    raw.done(&retry("2")).await;
    let group = crate::names::GroupName::new("g").unwrap();
    let dead = TopicName::dead_letters_of(&group);
    assert_eq!(server.broker.topic(&dead), None);
    raw.done(&retry("3")).await;
    let queue = crate::names::QueueId::new(dead, 0);
    assert_eq!(server.broker.queue_range(&queue).unwrap(), 0..1);
}

#[tokio::test]
async fn nothing_is_answered_to_a_one_way_message() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let send = Command {
        flag: crate::wire::command::FLAG_ONE_WAY,
        opaque: 1,
        ..message("orders", &[])
    };
    raw.tell(&send).await;
    let answer = raw.done(&message("orders", &[])).await;
    assert_eq!(answer.opaque, 7);
    assert_eq!(answer.fields.get("queueOffset"), Some("1"));
}
