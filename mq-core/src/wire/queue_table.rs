//! Tables by message queue, as Java's fastjson writes and reads them: each key is an object, which is not JSON by the book.

use serde_json::{Value, json};

use crate::names::QueueId;

/// A key: a queue of a broker.
#[must_use]
pub fn key(broker: &str, queue: &QueueId) -> Value {
    json!({"brokerName": broker, "queueId": queue.queue, "topic": queue.topic})
}

/// The table of `rows` on a broker: `{{"brokerName":...}:value,...}`.
pub fn table<'a>(broker: &str, rows: impl IntoIterator<Item = (&'a QueueId, Value)>) -> String {
    let mut out = String::from("{");
    for (queue, value) in rows {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&key(broker, queue).to_string());
        out.push(':');
        out.push_str(&value.to_string());
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::TopicName;

    #[test]
    fn keys_are_objects() {
        let queues = [0, 1].map(|queue| QueueId::new(TopicName::new("t").unwrap(), queue));
        let rows = queues.iter().map(|queue| (queue, json!(7)));
        assert_eq!(
            table("b", rows),
            r#"{{"brokerName":"b","queueId":0,"topic":"t"}:7,{"brokerName":"b","queueId":1,"topic":"t"}:7}"#
        );
        assert_eq!(table("b", []), "{}");
    }
}
