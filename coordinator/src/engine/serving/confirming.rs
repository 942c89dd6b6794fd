//! 7300: which of these transactions are committed, so that their producer may delete their markers.

use mq_core::remoting::service::{Answer, Ticket};
use mq_core::wire::codes::response;
use mq_core::wire::command::Command;
use mq_core::wire::ids;
use mq_core::wire::reserved::MOST_COMMITTED_ASKED;

use super::super::Coordinator;
use crate::transaction::TransactionId;

/// Answers with those ids of the body whose COMMIT is in SQL.
pub(super) fn confirm(coordinator: &Coordinator, command: &Command, ticket: Ticket) {
    let asked = ids::from_bytes(&command.body).filter(|ids| ids.len() <= MOST_COMMITTED_ASKED);
    let Some(asked) = asked else {
        return ticket.answer(Answer::refused(
            response::SYSTEM_ERROR,
            format!("the body must be up to {MOST_COMMITTED_ASKED} ids of 16 bytes each"),
        ));
    };
    let Ok(permit) = coordinator.shared.aside.clone().try_acquire_owned() else {
        return ticket.answer(super::busy("too many requests like this one are under way"));
    };
    let coordinator = coordinator.clone();
    tokio::spawn(async move {
        let asked: Vec<_> = asked.into_iter().map(TransactionId).collect();
        ticket.answer(match coordinator.reader().committed(&asked).await {
            Ok(committed) => Answer::with_body(ids::to_bytes(committed.into_iter().map(|id| id.0))),
            Err(error) => super::unavailable(error.to_string()),
        });
        drop(permit);
    });
}
