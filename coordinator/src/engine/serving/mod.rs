//! Half messages and resolutions that come over the wire: all of one wake-up at once, answered by tickets.
//!
//! | file | owns |
//! |---|---|
//! | `halves` | 10, 310, 320 with the flag of a half message |
//! | `resolutions` | 37: COMMIT, ROLLBACK, UNKNOWN |
//! | `asking` | 323: asking again |
//! | `confirming` | 7300: which transactions are committed |
//! | `sender` | which process sent a half message, where its connection does not say |

mod asking;
mod confirming;
mod halves;
mod resolutions;
mod sender;

use std::sync::Arc;

use mq_core::extension::{Busy, Call, Caller};
use mq_core::remoting::service::Answer;
use mq_core::wire::codes::response;
use mq_core::wire::reserved;

use super::Coordinator;

/// Takes the requests of one wake-up: half messages go into the log in one append, resolutions into the SQL writer's queue.
///
/// # Errors
/// [`Busy`] with those resolutions for which the SQL writer's queue has no room.
pub(super) fn take(
    coordinator: &Coordinator,
    caller: &Arc<Caller>,
    calls: Vec<Call>,
) -> Result<(), Busy> {
    let running = match coordinator.running() {
        Ok(running) => running,
        Err(why) => {
            for (_, ticket) in calls {
                ticket.answer(unavailable(why.clone()));
            }
            return Ok(());
        }
    };
    let (mut halves, mut resolutions) = (Vec::new(), Vec::new());
    for (command, ticket) in calls {
        match command.code {
            reserved::END_TRANSACTION => resolutions.push((command, ticket)),
            reserved::RESUME_CHECK_HALF_MESSAGE => {
                asking::ask_again(coordinator, caller, (command, ticket));
            }
            reserved::COMMITTED_AMONG => confirming::confirm(coordinator, &command, ticket),
            reserved::CHECK_TRANSACTION_STATE => ticket.answer(Answer::refused(
                response::REQUEST_CODE_NOT_SUPPORTED,
                "check-backs go from the server to producers",
            )),
            _ => halves.push((command, ticket)),
        }
    }
    halves::store(coordinator, &running, caller, halves);
    resolutions::decide(coordinator, &running, caller, resolutions)
}

fn busy(why: impl Into<String>) -> Answer {
    Answer::refused(response::SYSTEM_BUSY, why.into())
}

fn unavailable(why: String) -> Answer {
    Answer::refused(response::SERVICE_NOT_AVAILABLE, why)
}

#[cfg(test)]
mod tests;
