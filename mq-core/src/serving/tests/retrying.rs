//! Messages that are sent back.

use super::*;
use crate::names::{GroupName, QueueId, TopicName};
use crate::wire::ids;

#[tokio::test]
async fn a_message_sent_back_comes_again_later_or_is_a_dead_letter() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let sent = raw.send("orders", "0", "a", "1").await;
    let (_, position) = ids::parse_offset_id(sent.fields.get("msgId").unwrap()).unwrap();
    let position = position.to_string();
    let back = |position: &str, level: &str, most: &str| {
        let fields = [
            ("offset", position),
            ("group", "g"),
            ("delayLevel", level),
            ("originTopic", "orders"),
            ("maxReconsumeTimes", most),
        ];
        command(request::CONSUMER_SEND_MSG_BACK, &fields, b"")
    };
    raw.done(&back(&position, "0", "16")).await;
    let group = GroupName::new("g").unwrap();
    assert!(server.broker.topic(&TopicName::retry_of(&group)).is_some());
    let dead = TopicName::dead_letters_of(&group);
    assert!(server.broker.topic(&dead).is_none());
    raw.done(&back(&position, "-1", "16")).await;
    raw.done(&back(&position, "0", "0")).await;
    let range = server.broker.queue_range(&QueueId::new(dead, 0)).unwrap();
    assert_eq!(range, 0..2);
    for (position, level) in [("1", "0"), ("x", "0"), (&*position, "x")] {
        let answer = raw.call(&back(position, level, "16")).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert!(!answer.remark.is_empty());
    }
}
