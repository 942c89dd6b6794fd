//! What stands behind a listener, and where its answers go.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::peer::Peer;
use crate::wire::codes::response;
use crate::wire::command::{Command, Dialect, FLAG_RESPONSE, Fields, Language, VERSION};

/// Answers the commands of a listener's connections.
#[async_trait]
pub trait Service: fmt::Debug + Send + Sync + 'static {
    /// What is kept for one connection. Dropped when the connection is gone.
    type Session: Send + 'static;

    /// A peer has connected.
    fn connected(&self, peer: &Arc<Peer>) -> Self::Session;

    /// Takes all commands that one wake-up of a connection found, in their order, responses to our own requests excepted.
    ///
    /// Each command comes with the [`Ticket`] for its one answer, which may be given now or later, from any thread. Awaits
    /// room, and what the next command of the same connection must find done, such as a heartbeat: until this returns the
    /// connection is not read, which is how a fast client is slowed down.
    async fn take(&self, session: &mut Self::Session, commands: Vec<(Command, Ticket)>);
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// A code of [`response`].
    pub code: i32,
    /// What is wrong and what to do, for people; empty for success.
    pub remark: Cow<'static, str>,
    /// The header's fields.
    pub fields: Fields,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Success, with nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::default()
    }

    /// Success with a body.
    #[must_use]
    pub fn with_body(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// A refusal.
    #[must_use]
    pub fn refused(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            remark: remark.into(),
            ..Self::default()
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.fields.push(name, &value.to_string());
        self
    }
}

/// The right to answer one request once. Dropped without an answer it says SYSTEM_BUSY; of a one-way request nothing is
/// ever sent.
#[derive(Debug)]
pub struct Ticket {
    peer: Arc<Peer>,
    opaque: i32,
    dialect: Dialect,
    open: bool,
}

impl Ticket {
    /// The ticket for `command`, which came from `peer`.
    #[must_use]
    pub fn new(peer: &Arc<Peer>, command: &Command) -> Self {
        let open = !command.is_one_way();
        if open {
            peer.owe();
        }
        Self {
            peer: Arc::clone(peer),
            opaque: command.opaque,
            dialect: command.dialect,
            open,
        }
    }

    /// Who asked.
    #[must_use]
    pub const fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Answers. Never blocks; what is answered after the connection has gone is forgotten.
    pub fn answer(mut self, answer: Answer) {
        self.give(answer);
    }

    /// Gives up the answer: nothing is sent (RocketMQ leaves some requests unanswered).
    pub fn forget(mut self) {
        if std::mem::take(&mut self.open) {
            self.peer.settle();
        }
    }

    fn give(&mut self, answer: Answer) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        self.peer.send(&Command {
            code: answer.code,
            flag: FLAG_RESPONSE,
            opaque: self.opaque,
            language: Language::JAVA,
            version: VERSION,
            remark: answer.remark.into_owned(),
            fields: answer.fields,
            body: answer.body,
            dialect: self.dialect,
        });
        self.peer.settle();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give(Answer::refused(
            response::SYSTEM_BUSY,
            "the request was dropped unanswered; try again",
        ));
    }
}
