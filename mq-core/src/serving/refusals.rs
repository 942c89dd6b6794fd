//! Which response code each reason to refuse has.

use super::fields::FieldError;
use crate::broker::{AdmitError, GroupError, PullError, SendBackError, SendError, TopicError};
use crate::log::{AppendError, ReadError};
use crate::names::NameError;
use crate::remoting::service::Answer;
use crate::wire::codes::response;

/// What a request leads to: either is sent, an error only ends the work on the request early.
pub(super) type Answered = Result<Answer, Answer>;

fn refused(code: i32, error: &impl ToString) -> Answer {
    Answer::refused(code, error.to_string())
}

impl From<FieldError> for Answer {
    fn from(error: FieldError) -> Self {
        refused(response::SYSTEM_ERROR, &error)
    }
}

impl From<NameError> for Answer {
    fn from(error: NameError) -> Self {
        refused(response::SYSTEM_ERROR, &error)
    }
}

impl From<AppendError> for Answer {
    fn from(error: AppendError) -> Self {
        let code = match error {
            AppendError::Refused(_) => response::MESSAGE_ILLEGAL,
            AppendError::Full(_) | AppendError::Poisoned(_) | AppendError::Closed => {
                response::SERVICE_NOT_AVAILABLE
            }
        };
        refused(code, &error)
    }
}

impl From<ReadError> for Answer {
    fn from(error: ReadError) -> Self {
        refused(response::SYSTEM_ERROR, &error)
    }
}

impl From<PullError> for Answer {
    fn from(error: PullError) -> Self {
        let code = match error {
            PullError::NoSuchTopic(_) => response::TOPIC_NOT_EXIST,
            PullError::NotReadable(_) | PullError::GroupClosed(_) => response::NO_PERMISSION,
            PullError::Stopping => response::SERVICE_NOT_AVAILABLE,
            PullError::NoSuchQueue { .. } | PullError::Log(_) => response::SYSTEM_ERROR,
        };
        refused(code, &error)
    }
}

impl From<TopicError> for Answer {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Missing(_) => refused(response::TOPIC_NOT_EXIST, &error),
            TopicError::Log(error) => error.into(),
            TopicError::System(_)
            | TopicError::Queues { .. }
            | TopicError::TooMany { .. }
            | TopicError::Held(_) => refused(response::SYSTEM_ERROR, &error),
        }
    }
}

impl From<AdmitError> for Answer {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::NoSuchTopic(_) => refused(response::TOPIC_NOT_EXIST, &error),
            AdmitError::System(_) | AdmitError::NotWritable(_) => {
                refused(response::NO_PERMISSION, &error)
            }
            AdmitError::NoSuchQueue { .. } => refused(response::SYSTEM_ERROR, &error),
            AdmitError::NotCreated(error) => error.into(),
        }
    }
}

impl From<SendError> for Answer {
    fn from(error: SendError) -> Self {
        match error {
            SendError::BodyTooLong(_) | SendError::PropertiesTooLong(_) => {
                refused(response::MESSAGE_ILLEGAL, &error)
            }
            SendError::Flags(_) => refused(response::NO_PERMISSION, &error),
            SendError::Admit(error) => error.into(),
            SendError::Log(error) => error.into(),
        }
    }
}

impl From<GroupError> for Answer {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Missing(_) => refused(response::SUBSCRIPTION_GROUP_NOT_EXIST, &error),
            GroupError::TooMany { .. } | GroupError::InUse(_) => {
                refused(response::SYSTEM_ERROR, &error)
            }
            GroupError::Topic(error) => error.into(),
            GroupError::Queue(error) => error.into(),
            GroupError::Log(error) => error.into(),
        }
    }
}

impl From<SendBackError> for Answer {
    fn from(error: SendBackError) -> Self {
        match error {
            SendBackError::NoMessage(_) => refused(response::SYSTEM_ERROR, &error),
            SendBackError::Read(error) => error.into(),
            SendBackError::Topic(error) => error.into(),
            SendBackError::Send(error) => error.into(),
            SendBackError::Log(error) => error.into(),
        }
    }
}
