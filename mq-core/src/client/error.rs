//! What can go wrong for a client, by what the caller can do about it.

#[cfg(feature = "engine")]
use crate::broker::{AdmitError, GroupError, PullError, SendBackError, SendError, TopicError};
#[cfg(feature = "engine")]
use crate::log::AppendError;

/// Why a request of a client failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The request breaks a rule; the same request fails again. Nothing happened.
    #[error("{0}")]
    Refused(String),
    /// There is no such topic, queue or message. Nothing happened.
    #[error("{0}")]
    Missing(String),
    /// The broker cannot do it now. Nothing happened; try again later.
    #[error("the broker cannot do this now, try again later: {0}")]
    Unavailable(String),
    /// It may have happened or not.
    #[error("it is not known whether this happened: {0}")]
    Unknown(String),
    /// The broker is stopping, or gone for good.
    #[error("the broker is closed")]
    Closed,
}

impl ClientError {
    /// Whether the same request may succeed later. After [`Self::Unknown`] that may do it twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_))
    }
}

#[cfg(feature = "engine")]
impl From<AppendError> for ClientError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full(_) => Self::Unavailable(error.to_string()),
            AppendError::Refused(_) => Self::Refused(error.to_string()),
            AppendError::Poisoned(_) => Self::Unknown(error.to_string()),
            AppendError::Closed => Self::Closed,
        }
    }
}

#[cfg(feature = "engine")]
impl From<TopicError> for ClientError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Missing(_) => Self::Missing(error.to_string()),
            TopicError::Log(error) => error.into(),
            TopicError::System(_)
            | TopicError::Queues { .. }
            | TopicError::TooMany { .. }
            | TopicError::Held(_) => Self::Refused(error.to_string()),
        }
    }
}

#[cfg(feature = "engine")]
impl From<SendError> for ClientError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Log(error) => error.into(),
            SendError::Admit(AdmitError::NotCreated(error)) => error.into(),
            SendError::Admit(AdmitError::NoSuchTopic(_) | AdmitError::NoSuchQueue { .. }) => {
                Self::Missing(error.to_string())
            }
            SendError::Admit(AdmitError::System(_) | AdmitError::NotWritable(_))
            | SendError::BodyTooLong(_)
            | SendError::PropertiesTooLong(_)
            | SendError::Flags(_) => Self::Refused(error.to_string()),
        }
    }
}

#[cfg(feature = "engine")]
impl From<PullError> for ClientError {
    fn from(error: PullError) -> Self {
        match error {
            PullError::NoSuchTopic(_) | PullError::NoSuchQueue { .. } => {
                Self::Missing(error.to_string())
            }
            PullError::NotReadable(_) | PullError::GroupClosed(_) | PullError::Log(_) => {
                Self::Refused(error.to_string())
            }
            PullError::Stopping => Self::Closed,
        }
    }
}

#[cfg(feature = "engine")]
impl From<GroupError> for ClientError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::TooMany { .. } | GroupError::InUse(_) => Self::Refused(error.to_string()),
            GroupError::Missing(_) => Self::Missing(error.to_string()),
            GroupError::Topic(error) => error.into(),
            GroupError::Queue(error) => error.into(),
            GroupError::Log(error) => error.into(),
        }
    }
}

#[cfg(feature = "engine")]
impl From<SendBackError> for ClientError {
    fn from(error: SendBackError) -> Self {
        match error {
            SendBackError::NoMessage(_) => Self::Missing(error.to_string()),
            SendBackError::Read(_) => Self::Unavailable(error.to_string()),
            SendBackError::Topic(error) => error.into(),
            SendBackError::Send(error) => error.into(),
            SendBackError::Log(error) => error.into(),
        }
    }
}
