//! Send requests as clients write them: code 310 for one message, 320 for a batch, one letter for a name.

use bytes::Bytes;

use super::codes::request;
use super::command::Command;
use super::reserved;

/// A message to be sent to one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRequest<'a> {
    /// The producer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// How many queues the topic gets if sending creates it.
    pub default_queues: u32,
    /// The queue.
    pub queue: u32,
    /// RocketMQ's flag bits.
    pub sys_flag: i32,
    /// When the producer made it, ms since 1970.
    pub born_ms: u64,
    /// The application's own flag.
    pub flag: i32,
    /// Encoded properties.
    pub properties: &'a [u8],
    /// How often it was consumed before.
    pub reconsume_times: u32,
    /// Whether the body is a batch.
    pub batch: bool,
    /// The body.
    pub body: Bytes,
}

impl SendRequest<'_> {
    /// The request, without a number.
    #[must_use]
    pub fn command(&self) -> Command {
        let code = if self.batch {
            request::SEND_BATCH_MESSAGE
        } else {
            request::SEND_MESSAGE_V2
        };
        let properties = String::from_utf8_lossy(self.properties);
        let mut command = Command {
            body: self.body.clone(),
            ..Command::request(code, 0)
        };
        let fields = &mut command.fields;
        fields.push("a", self.group);
        fields.push("b", self.topic);
        fields.push("c", reserved::AUTO_CREATE_TOPIC);
        fields.push("d", &self.default_queues.to_string());
        fields.push("e", &self.queue.to_string());
        fields.push("f", &self.sys_flag.to_string());
        fields.push("g", &self.born_ms.to_string());
        fields.push("h", &self.flag.to_string());
        fields.push("i", &properties);
        fields.push("j", &self.reconsume_times.to_string());
        fields.push("k", "false");
        fields.push("m", if self.batch { "true" } else { "false" });
        command
    }
}
