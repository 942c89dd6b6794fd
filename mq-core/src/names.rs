//! Topic and group names, and the rules of RocketMQ they obey.

use std::fmt;
use std::sync::Arc;

use crate::wire::reserved;

/// Longest topic name in bytes: the stored record keeps its length in one signed byte (RocketMQ `TopicValidator`).
pub const TOPIC_MAX_BYTES: usize = 127;

/// Longest group name in bytes, so that `%RETRY%` and the name still fit into a topic.
pub const GROUP_MAX_BYTES: usize = TOPIC_MAX_BYTES - reserved::RETRY_PREFIX.len();

/// A name that breaks a rule; the message quotes the name and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("the {what} name is empty")]
    Empty {
        /// `topic` or `group`.
        what: &'static str,
    },
    /// The name has more bytes than the record layout can hold.
    #[error("the {what} name {name:?} has {bytes} bytes; at most {most} are allowed")]
    TooLong {
        /// `topic` or `group`.
        what: &'static str,
        /// The name, cut to its first 40 characters.
        name: String,
        /// Length of the whole name in bytes.
        bytes: usize,
        /// The limit in bytes.
        most: usize,
    },
    /// The name has a character outside RocketMQ's set.
    #[error(
        "the {what} name {name:?} has the character {character:?}; allowed are letters, digits, '_', '-', '%' and '|'"
    )]
    Character {
        /// `topic` or `group`.
        what: &'static str,
        /// The name, cut to its first 40 characters.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `name` against the rules.
            ///
            /// # Errors
            /// [`NameError`] names the rule that is broken.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                check($what, name, $most)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::new(name).map_err(serde::de::Error::custom)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A topic: 1 to 127 of RocketMQ's name characters. Cheap to clone.
    TopicName,
    "topic",
    TOPIC_MAX_BYTES
);
name_type!(
    /// A producer or consumer group: 1 to 120 of RocketMQ's name characters. Cheap to clone.
    GroupName,
    "group",
    GROUP_MAX_BYTES
);

impl TopicName {
    /// The topic that holds what `group` has failed to consume and shall see again.
    #[must_use]
    pub fn retry_of(group: &GroupName) -> Self {
        Self(format!("{}{group}", reserved::RETRY_PREFIX).into())
    }

    /// The topic that holds what `group` has failed to consume too often.
    #[must_use]
    pub fn dead_letters_of(group: &GroupName) -> Self {
        Self(format!("{}{group}", reserved::DEAD_LETTER_PREFIX).into())
    }
}

/// One message queue of a topic on this broker.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// The topic.
    pub topic: TopicName,
    /// The queue's number, from 0.
    pub queue: u32,
}

impl QueueId {
    /// Queue number `queue` of `topic`.
    #[must_use]
    pub const fn new(topic: TopicName, queue: u32) -> Self {
        Self { topic, queue }
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.queue)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.queue)
    }
}

fn check(what: &'static str, name: &str, most: usize) -> Result<(), NameError> {
    let shown = || name.chars().take(40).collect::<String>();
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > most {
        return Err(NameError::TooLong {
            what,
            name: shown(),
            bytes: name.len(),
            most,
        });
    }
    match name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '%' | '|'))
    {
        Some(character) => Err(NameError::Character {
            what,
            name: shown(),
            character,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rocketmq_are_accepted() {
        for name in ["TopicTest", "%RETRY%group", "a|b", "A-b_9"] {
            assert_eq!(TopicName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn the_error_names_the_rule() {
        let error = TopicName::new("orders/1").unwrap_err();
        assert!(error.to_string().contains("'/'"), "{error}");
        let error = TopicName::new("x".repeat(128)).unwrap_err();
        assert!(error.to_string().contains("at most 127"), "{error}");
        assert_eq!(GroupName::new(""), Err(NameError::Empty { what: "group" }));
    }

    #[test]
    fn the_longest_group_still_has_a_retry_topic() {
        let group = GroupName::new("g".repeat(GROUP_MAX_BYTES)).unwrap();
        assert!(TopicName::new(TopicName::retry_of(&group).as_str()).is_ok());
        assert!(GroupName::new("g".repeat(GROUP_MAX_BYTES + 1)).is_err());
    }
}
