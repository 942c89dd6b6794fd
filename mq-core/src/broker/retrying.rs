//! Messages that a consumer sends back: a copy for later in the group's retry topic, or among its dead letters.

use super::catalog::TopicConfig;
use super::sending::without_real_queue;
use super::{Broker, Incoming, SendBack, SendError, TopicError};
use crate::log::{AppendError, Flush, Position, ReadError};
use crate::names::{QueueId, TopicName};
use crate::wire::properties;
use crate::wire::record::RecordView;
use crate::wire::{delays, ids, reserved, system};

/// Delay level of the first retry unless the consumer asks for another: 10 s. Each later one is a level higher.
const FIRST_RETRY_LEVEL: u32 = 3;

/// Where a message that was sent back went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentBack {
    /// It will be delivered again after this delay level.
    Retry {
        /// The delay level, 1 to 18.
        level: u8,
    },
    /// It is among the group's dead letters.
    DeadLetter,
}

/// Why a message is not taken back; it stays unfinished for the consumer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendBackError {
    /// There is no message of an ordinary topic at this position.
    #[error("there is no message at position {0} that can be sent back")]
    NoMessage(Position),
    /// The log cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// The retry or dead letter topic could not be created.
    #[error("the group's topic could not be created: {0}")]
    Topic(#[from] TopicError),
    /// The copy breaks a limit.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The copy is not durable, or not known to be.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl Broker {
    /// Stores a copy of a message for the group's retry topic (or dead letters, when it was consumed too often). The
    /// caller commits the original afterwards: a crash in between delivers twice, never not at all.
    ///
    /// A future that is dropped may still store the copy.
    ///
    /// # Errors
    /// [`SendBackError`].
    pub async fn send_back(&self, request: SendBack) -> Result<SentBack, SendBackError> {
        let stored = match self.log().read(request.position) {
            Err(ReadError::NotARecord(at) | ReadError::Gone(at)) => {
                return Err(SendBackError::NoMessage(at));
            }
            read => read.map_err(SendBackError::Read)?,
        };
        let no_message = || SendBackError::NoMessage(request.position);
        let view = RecordView::parse(&stored.bytes).map_err(|_| no_message())?;
        let topic = TopicName::new(view.topic).map_err(|_| no_message())?;
        if !stored.is_message || self.is_reserved(&topic) {
            return Err(no_message());
        }
        let retries = request
            .retries
            .unwrap_or_else(|| self.retries_of(&request.group));
        let outcome = outcome(view.reconsume_times, request.delay_level, retries);
        let (target, level) = match outcome {
            SentBack::Retry { level } => (TopicName::retry_of(&request.group), level),
            SentBack::DeadLetter => (TopicName::dead_letters_of(&request.group), 0),
        };
        self.ensure_topic(TopicConfig::new(target.clone(), 1))
            .await?;
        let incoming = Incoming {
            topic: target.clone(),
            queue: None,
            flag: view.flag,
            sys_flag: view.sys_flag & !system::CLAIMABLE_FLAGS,
            born_ms: view.born_ms,
            born_host: view.born_host,
            reconsume_times: view.reconsume_times.saturating_add(1),
            properties: self.copied_properties(&view, outcome),
            body: stored.bytes.slice_ref(view.body),
        };
        let entry = self.entry(incoming, &QueueId::new(target, 0), level)?;
        self.store(vec![entry], Flush::Sync, level > 0).await?;
        if outcome == SentBack::DeadLetter {
            tracing::warn!(group = %request.group, position = %request.position, "message is a dead letter now");
        }
        Ok(outcome)
    }

    fn copied_properties(&self, view: &RecordView<'_>, outcome: SentBack) -> Vec<u8> {
        let mut copied = without_real_queue(view.properties, &[reserved::DELAY]);
        let mut add_once = |name, value: &str| {
            if view.properties.get(name).is_none() {
                properties::push(&mut copied, name, value);
            }
        };
        let id = ids::offset_id(self.host(), view.position);
        add_once(reserved::RETRY_TOPIC, view.topic);
        add_once(reserved::ORIGIN_MESSAGE_ID, &id);
        if outcome == SentBack::DeadLetter {
            let topic = view
                .properties
                .get(reserved::RETRY_TOPIC)
                .unwrap_or(view.topic);
            add_once(reserved::DEAD_LETTER_ORIGIN_TOPIC, topic);
            let id = view
                .properties
                .get(reserved::ORIGIN_MESSAGE_ID)
                .unwrap_or(&id);
            add_once(reserved::DEAD_LETTER_ORIGIN_MESSAGE_ID, id);
        }
        copied
    }
}

/// What becomes of a message that was consumed `times` before.
fn outcome(times: u32, asked: i32, retries: u32) -> SentBack {
    if asked < 0 || times >= retries {
        return SentBack::DeadLetter;
    }
    let level = match u32::try_from(asked) {
        Ok(0) | Err(_) => FIRST_RETRY_LEVEL.saturating_add(times),
        Ok(level) => level,
    };
    let last = u8::try_from(delays::LEVELS).unwrap_or(u8::MAX);
    SentBack::Retry {
        level: u8::try_from(level).map_or(last, |level| level.min(last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_retry_waits_a_level_longer_until_it_is_a_dead_letter() {
        for times in 0..16 {
            let level = u8::try_from(times + 3).unwrap().min(18);
            assert_eq!(outcome(times, 0, 16), SentBack::Retry { level });
        }
        assert_eq!(outcome(16, 0, 16), SentBack::DeadLetter);
        assert_eq!(outcome(0, -1, 16), SentBack::DeadLetter);
        assert_eq!(outcome(5, 2, 16), SentBack::Retry { level: 2 });
        assert_eq!(outcome(0, i32::MAX, 16), SentBack::Retry { level: 18 });
        assert_eq!(
            outcome(u32::MAX - 1, 0, u32::MAX),
            SentBack::Retry { level: 18 }
        );
    }
}
