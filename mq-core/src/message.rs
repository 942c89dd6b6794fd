//! A message before it is stored: topic, tag, keys, properties, body, and the limits of each.

use bytes::Bytes;

use crate::names::{NameError, TopicName};
use crate::wire::properties::{self, Properties, PropertyError};
use crate::wire::record::BODY_MAX_BYTES;
use crate::wire::reserved;

/// Why a message is refused; the message names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The topic breaks a rule of names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A property breaks a rule, or all together are too long.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The body is larger than a record may hold.
    #[error("the body has {bytes} bytes; at most {BODY_MAX_BYTES} (4 MiB) are allowed")]
    BodyTooLong {
        /// Length of the body in bytes.
        bytes: usize,
    },
    /// The property is one that the broker sets.
    #[error("the property {name} is reserved; {instead}")]
    Reserved {
        /// The property's name.
        name: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A delay level that does not exist.
    #[error("delay level {level} does not exist; levels are 1 (1 s) to 18 (2 h)")]
    DelayLevel {
        /// The level asked for.
        level: u8,
    },
}

/// A message that keeps all rules. Cheap to clone: the body is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    topic: TopicName,
    body: Bytes,
    properties: Vec<u8>,
    flag: i32,
    delay_level: u8,
}

impl Message {
    /// Starts a message for `topic`.
    ///
    /// ```
    /// use mq_core::message::Message;
    /// let message = Message::builder("orders").tag("placed").key("10248").body("{}").build()?;
    /// assert_eq!(message.tag(), Some("placed"));
    /// # Ok::<(), mq_core::message::MessageError>(())
    /// ```
    #[must_use]
    pub fn builder(topic: impl AsRef<str>) -> Builder {
        Builder {
            topic: topic.as_ref().to_owned(),
            body: Bytes::new(),
            keys: String::new(),
            properties: Vec::new(),
            flag: 0,
            delay_level: 0,
        }
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// All properties, tag, keys and delay included, encoded.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties(&self.properties)
    }

    /// The application's own flag, 0 unless set.
    #[must_use]
    pub const fn flag(&self) -> i32 {
        self.flag
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.properties().get(reserved::TAGS)
    }

    /// The delay level 1 to 18, 0 for none.
    #[must_use]
    pub const fn delay_level(&self) -> u8 {
        self.delay_level
    }
}

/// Collects the parts of a [`Message`]; [`Builder::build`] checks them.
#[derive(Debug, Clone)]
pub struct Builder {
    topic: String,
    body: Bytes,
    keys: String,
    properties: Vec<(String, String)>,
    flag: i32,
    delay_level: u8,
}

impl Builder {
    /// Sets the one tag that subscriptions select by.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.properties.retain(|(name, _)| name != reserved::TAGS);
        self.properties.push((reserved::TAGS.into(), tag.into()));
        self
    }

    /// Adds a word the message can be looked up by.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        if !self.keys.is_empty() {
            self.keys.push(' ');
        }
        self.keys.push_str(key.as_ref());
        self
    }

    /// Adds a property of the application's own.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Sets the body; at most 4 MiB.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the application's own flag.
    #[must_use]
    pub const fn flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Delivers the message later: level 1 is 1 s, 18 is 2 h (RocketMQ `messageDelayLevel`).
    #[must_use]
    pub const fn delay_level(mut self, level: u8) -> Self {
        self.delay_level = level;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`MessageError`] names the first rule that is broken.
    pub fn build(self) -> Result<Message, MessageError> {
        let topic = TopicName::new(&self.topic)?;
        if self.body.len() > BODY_MAX_BYTES {
            return Err(MessageError::BodyTooLong {
                bytes: self.body.len(),
            });
        }
        if self.delay_level > 18 {
            return Err(MessageError::DelayLevel {
                level: self.delay_level,
            });
        }
        let mut encoded = Vec::new();
        for (name, value) in &self.properties {
            if let Some(instead) = set_elsewhere(name) {
                return Err(MessageError::Reserved {
                    name: name.clone(),
                    instead,
                });
            }
            properties::check(name, value)?;
            properties::push(&mut encoded, name, value);
        }
        if !self.keys.is_empty() {
            properties::check(reserved::KEYS, &self.keys)?;
            properties::push(&mut encoded, reserved::KEYS, &self.keys);
        }
        if self.delay_level > 0 {
            properties::push(&mut encoded, reserved::DELAY, &self.delay_level.to_string());
        }
        // Room for what the broker adds: ids, group, real topic.
        const BROKER_ROOM: usize = 767;
        if encoded.len() + BROKER_ROOM > properties::MAX_BYTES {
            return Err(PropertyError::TooLong {
                bytes: encoded.len(),
            }
            .into());
        }
        Ok(Message {
            topic,
            body: self.body,
            properties: encoded,
            flag: self.flag,
            delay_level: self.delay_level,
        })
    }
}

fn set_elsewhere(name: &str) -> Option<&'static str> {
    match name {
        reserved::KEYS => Some("use key()"),
        reserved::DELAY => Some("use delay_level()"),
        name if reserved::NOT_THE_SENDERS.contains(&name) => {
            Some("the library or the broker sets it")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_in_the_error() {
        let error = Message::builder("t")
            .body(vec![0; BODY_MAX_BYTES + 1])
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("4 MiB"), "{error}");
        let error = Message::builder("t")
            .property("p", "v".repeat(32_768))
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("32767"), "{error}");
        let error = Message::builder("t")
            .property("KEYS", "v")
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("use key()"), "{error}");
        let error = Message::builder("t").delay_level(19).build().unwrap_err();
        assert!(error.to_string().contains("18"), "{error}");
    }

    #[test]
    fn keys_are_separated_by_one_space() {
        let message = Message::builder("t").key("a").key("b").build().unwrap();
        assert_eq!(message.properties().get("KEYS"), Some("a b"));
    }
}
