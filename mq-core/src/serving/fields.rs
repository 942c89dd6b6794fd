//! Reading a request's named values, and what is said when one is missing or wrong.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::wire::codes::request;
use crate::wire::command::{Command, Fields};

/// A named value that is missing or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The value must be there.
    #[error("the request has no field {0}")]
    Missing(&'static str),
    /// The body cannot be read.
    #[error("the body is not the JSON object that is expected: {0}")]
    Body(String),
    /// The value breaks a rule.
    #[error("field {name} cannot be read from {value:?}: {why}")]
    Wrong {
        /// Its name.
        name: &'static str,
        /// The value, shortened.
        value: String,
        /// What does not fit.
        why: String,
    },
}

/// The text of a field that must be there.
///
/// # Errors
/// [`FieldError::Missing`].
pub fn text<'a>(fields: &'a Fields, name: &'static str) -> Result<&'a str, FieldError> {
    fields.get(name).ok_or(FieldError::Missing(name))
}

/// A field that must be there, parsed.
///
/// # Errors
/// [`FieldError`].
pub fn parsed<T: FromStr<Err: ToString>>(
    fields: &Fields,
    name: &'static str,
) -> Result<T, FieldError> {
    let value = text(fields, name)?;
    value
        .parse()
        .map_err(|error: T::Err| wrong(name, value, error.to_string()))
}

/// A field that may be missing or empty, parsed.
///
/// # Errors
/// [`FieldError::Wrong`].
pub fn optional<T: FromStr<Err: ToString>>(
    fields: &Fields,
    name: &'static str,
) -> Result<Option<T>, FieldError> {
    match fields.get(name) {
        None | Some("") => Ok(None),
        Some(_) => parsed(fields, name).map(Some),
    }
}

/// Whether a flag is set: `true`, or `1` as the C++ client writes it. Everything else is not set.
#[must_use]
pub fn flag(fields: &Fields, name: &str) -> bool {
    matches!(fields.get(name), Some("true" | "1"))
}

/// Longest body that is read as JSON, in bytes.
const JSON_MAX_BYTES: usize = 1 << 20;

/// The members of a body that is a JSON object.
///
/// # Errors
/// [`FieldError::Body`].
pub fn body(command: &Command) -> Result<Map<String, Value>, FieldError> {
    let bytes = command.body.len();
    if bytes > JSON_MAX_BYTES {
        return Err(FieldError::Body(format!(
            "it has {bytes} bytes; at most {JSON_MAX_BYTES} are allowed"
        )));
    }
    serde_json::from_slice(&command.body).map_err(|error| FieldError::Body(error.to_string()))
}

/// The text of a member that must be there.
///
/// # Errors
/// [`FieldError::Missing`].
pub fn member<'a>(
    object: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, FieldError> {
    let value = object.get(name).and_then(Value::as_str);
    value.ok_or(FieldError::Missing(name))
}

/// The error for a value that breaks a rule.
#[must_use]
pub fn wrong(name: &'static str, value: &str, why: impl Into<String>) -> FieldError {
    FieldError::Wrong {
        name,
        value: value.chars().take(80).collect(),
        why: why.into(),
    }
}

/// The fields of a send request under one set of names: those of code 10 are long, those of 310 and 320 are one letter.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The producer group.
    pub group: &'static str,
    /// The topic.
    pub topic: &'static str,
    /// The topic whose settings an unknown topic inherits.
    pub default_topic: &'static str,
    /// How many queues an unknown topic gets.
    pub default_queues: &'static str,
    /// The queue.
    pub queue: &'static str,
    /// RocketMQ's flag bits.
    pub sys_flag: &'static str,
    /// When the producer made it.
    pub born: &'static str,
    /// The application's flag.
    pub flag: &'static str,
    /// Encoded properties.
    pub properties: &'static str,
    /// How often it was consumed.
    pub reconsume_times: &'static str,
    /// Whether it is a batch.
    pub batch: &'static str,
    /// How often it may be consumed.
    pub max_reconsume_times: &'static str,
}

impl Names {
    /// Those that `command` uses.
    #[must_use]
    pub const fn of(command: &Command) -> Self {
        if matches!(
            command.code,
            request::SEND_MESSAGE | request::SEND_REPLY_MESSAGE
        ) {
            Self {
                group: "producerGroup",
                topic: "topic",
                default_topic: "defaultTopic",
                default_queues: "defaultTopicQueueNums",
                queue: "queueId",
                sys_flag: "sysFlag",
                born: "bornTimestamp",
                flag: "flag",
                properties: "properties",
                reconsume_times: "reconsumeTimes",
                batch: "batch",
                max_reconsume_times: "maxReconsumeTimes",
            }
        } else {
            Self {
                group: "a",
                topic: "b",
                default_topic: "c",
                default_queues: "d",
                queue: "e",
                sys_flag: "f",
                born: "g",
                flag: "h",
                properties: "i",
                reconsume_times: "j",
                batch: "m",
                max_reconsume_times: "l",
            }
        }
    }
}
