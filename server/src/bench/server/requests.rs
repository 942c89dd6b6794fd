//! The requests of a measurement, as any client sends them.

use bytes::Bytes;
use mq_core::wire::codes::request;
use mq_core::wire::command::{Command, Fields, Language};
use mq_core::wire::properties;
use mq_core::wire::reserved::{
    AUTO_CREATE_TOPIC, END_TRANSACTION, FLAG_COMMIT, FLAG_PREPARED, PRODUCER_GROUP, TRAN_MSG,
    UNIQ_KEY,
};

/// Queues of the topic that is measured with.
pub(super) const QUEUES: u32 = 4;

/// Most messages that one pull asks for: what brokers give at once unless set otherwise.
const PULL_MOST: u32 = 32;

/// Requests about one topic.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    pub(super) topic: String,
    pub(super) body: Bytes,
    pub(super) wall_ms: u64,
}

impl Requests {
    /// A message; a half message when it is to be decided later.
    pub(super) fn send(&self, opaque: i32, queue: u32, unique: &str, half: bool) -> Command {
        let mut pairs = Vec::new();
        properties::push(&mut pairs, UNIQ_KEY, unique);
        properties::push(&mut pairs, "WAIT", "true");
        if half {
            properties::push(&mut pairs, TRAN_MSG, "true");
            properties::push(&mut pairs, PRODUCER_GROUP, GROUP);
        }
        let flags = if half { FLAG_PREPARED } else { 0 };
        let fields = [
            ("a", GROUP),
            ("b", &self.topic),
            ("c", AUTO_CREATE_TOPIC),
            ("d", &QUEUES.to_string()),
            ("e", &queue.to_string()),
            ("f", &flags.to_string()),
            ("g", &self.wall_ms.to_string()),
            ("h", "0"),
            ("i", &String::from_utf8_lossy(&pairs)),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        Command {
            body: self.body.clone(),
            ..command(request::SEND_MESSAGE_V2, opaque, fields)
        }
    }

    /// The COMMIT of the half message that `stored` answered.
    pub(super) fn commit(stored: &Command, opaque: i32, unique: &str) -> Option<Command> {
        let id = stored.fields.get("msgId")?;
        let position = u64::from_str_radix(id.get(id.len().checked_sub(16)?..)?, 16).ok()?;
        let fields = [
            ("producerGroup", GROUP),
            ("tranStateTableOffset", stored.fields.get("queueOffset")?),
            ("commitLogOffset", &position.to_string()),
            ("commitOrRollback", &FLAG_COMMIT.to_string()),
            ("fromTransactionCheck", "false"),
            ("msgId", unique),
            ("transactionId", unique),
        ];
        Some(command(END_TRANSACTION, opaque, fields))
    }

    /// Messages of a queue from an offset on; never held.
    pub(super) fn pull(&self, opaque: i32, queue: u32, offset: u64) -> Command {
        let fields = [
            ("consumerGroup", GROUP),
            ("topic", &self.topic),
            ("queueId", &queue.to_string()),
            ("queueOffset", &offset.to_string()),
            ("maxMsgNums", &PULL_MOST.to_string()),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("expressionType", "TAG"),
            ("subVersion", "0"),
        ];
        command(request::PULL_MESSAGE, opaque, fields)
    }

    /// Where a queue ends.
    pub(super) fn end(&self, queue: u32) -> Command {
        let fields = [("topic", &*self.topic), ("queueId", &queue.to_string())];
        command(request::GET_MAX_OFFSET, 0, fields)
    }

    /// Which broker has the topic that stands for all that are not there yet.
    pub(super) fn route() -> Command {
        let fields = [("topic", AUTO_CREATE_TOPIC)];
        command(request::GET_ROUTEINFO_BY_TOPIC, 0, fields)
    }
}

/// Producers and consumers of a measurement.
const GROUP: &str = "halfmoon-bench";

fn command<const N: usize>(code: i32, opaque: i32, fields: [(&str, &str); N]) -> Command {
    Command {
        language: Language::JAVA,
        fields: fields.into_iter().collect::<Fields>(),
        ..Command::request(code, opaque)
    }
}

/// The first broker address in the body of a route, which some brokers write with keys that are no JSON.
pub(super) fn first_broker(body: &[u8]) -> Option<std::net::SocketAddrV4> {
    let text = String::from_utf8_lossy(body);
    let (_, addresses) = text.split_once("\"brokerAddrs\"")?;
    addresses.split('"').find_map(|piece| piece.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_names_the_half_message_as_it_was_answered() {
        let mut stored = Command::request(0, 2);
        stored
            .fields
            .push("msgId", "7F00000100002A9F0000000000001000");
        stored.fields.push("queueOffset", "12");
        let commit = Requests::commit(&stored, 3, "AB").unwrap();
        assert_eq!(commit.fields.get("commitLogOffset"), Some("4096"));
        assert_eq!(commit.fields.get("tranStateTableOffset"), Some("12"));
        assert!(Requests::commit(&Command::request(0, 2), 3, "AB").is_none());
    }

    #[test]
    fn a_broker_is_found_in_routes_of_both_kinds() {
        for keys in ["0", "\"0\""] {
            let body = format!(
                r#"{{"brokerDatas":[{{"brokerAddrs":{{{keys}:"127.0.0.1:20911"}},"brokerName":"a"}}]}}"#
            );
            let address = first_broker(body.as_bytes()).unwrap();
            assert_eq!(address.port(), 20911);
        }
        assert_eq!(first_broker(b"{}"), None);
    }
}
