//! What the SQL writer is asked to do, and who waits for the answer.

use std::fmt;

use tokio::sync::oneshot;

use super::forget::Forget;
use super::ledger::{Answer, Request};
use super::publish::Final;
use crate::store::Row;

/// A request and who waits for its answer.
#[derive(Debug)]
pub struct Pending {
    /// What is said.
    pub request: Request,
    /// The final, for a COMMIT.
    pub copy: Option<Final>,
    /// Told once the answer is durable; dropped if that will not be known.
    pub reply: Reply,
}

/// Who waits for an answer.
pub enum Reply {
    /// Nobody.
    Nobody,
    /// A caller in this process.
    Caller(oneshot::Sender<Answer>),
    /// Something to do with it: short, since the writer does it between two batches.
    Then(Box<dyn FnOnce(Answer) + Send>),
}

impl Reply {
    /// Tells the answer. A caller that waits no longer is fine: the outcome is in SQL all the same.
    pub fn send(self, answer: Answer) {
        match self {
            Self::Nobody => {}
            Self::Caller(caller) => {
                let _ = caller.send(answer);
            }
            Self::Then(then) => then(answer),
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Put this into the next batch.
    Say(Box<Pending>),
    /// Try again to publish what these rows say could not be published.
    PublishAgain(Vec<Row>),
    /// Forget a little of what was decided long ago, then answer how many rows and events that were.
    Forget(Forget, oneshot::Sender<u64>),
    /// Write all rows that are held back, then answer.
    WriteHeld(oneshot::Sender<()>),
}

/// The command that puts `request` into the next batch, in its box at once since it is large, and where its answer comes.
#[must_use]
pub fn say(request: Request, copy: Option<Final>) -> (Command, oneshot::Receiver<Answer>) {
    let (reply, answer) = oneshot::channel();
    let pending = Pending {
        request,
        copy,
        reply: Reply::Caller(reply),
    };
    (Command::Say(Box::new(pending)), answer)
}
