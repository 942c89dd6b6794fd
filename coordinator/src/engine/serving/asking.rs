//! 323: a half message is to be asked about again, a parked one too. It stays parked until an answer decides it.

use std::sync::Arc;

use mq_core::extension::{Call, Caller};
use mq_core::log::Position;
use mq_core::remoting::service::Answer;
use mq_core::serving::fields::{self, FieldError};
use mq_core::wire::codes::response;
use mq_core::wire::command::Fields;
use mq_core::wire::ids;
use mq_core::wire::reserved;

use super::super::Coordinator;
use crate::store::{Filter, StoreError};
use crate::transaction::TransactionId;

/// Has the group of the half message asked that `call` names by its transaction or by its record's id, for the person it
/// names, if any.
pub(super) fn ask_again(coordinator: &Coordinator, caller: &Caller, call: Call) {
    let (command, ticket) = call;
    let id = match fields::text(&command.fields, "msgId") {
        Ok(id) => id.to_owned(),
        Err(error) => return ticket.answer(error.into()),
    };
    let source = match source(&command.fields, caller) {
        Ok(source) => source,
        Err(error) => return ticket.answer(error.into()),
    };
    let Ok(permit) = coordinator.shared.aside.clone().try_acquire_owned() else {
        return ticket.answer(super::busy("too many requests like this one are under way"));
    };
    let coordinator = coordinator.clone();
    tokio::spawn(async move {
        ticket.answer(match coordinator.named(&id).await {
            Ok(Some(id)) => match coordinator.ask_again(id, &source).await {
                Ok(()) => Answer::done(),
                Err(error) => refused(error.to_string()),
            },
            Ok(None) => refused(format!("there is no half message {id}")),
            Err(error) => refused(error.to_string()),
        });
        drop(permit);
    });
}

/// What the history says about where the wish came from.
fn source(fields: &Fields, caller: &Caller) -> Result<Arc<str>, FieldError> {
    let Some(name) = fields
        .get(reserved::OPERATOR)
        .filter(|name| !name.is_empty())
    else {
        return Ok(caller.source.clone());
    };
    if name.len() > reserved::OPERATOR_MAX_BYTES || name.chars().any(char::is_control) {
        let most = reserved::OPERATOR_MAX_BYTES;
        let why = format!("a name has at most {most} bytes and no control characters");
        return Err(fields::wrong(reserved::OPERATOR, name, why));
    }
    Ok(format!("{name}, {}", caller.source).into())
}

fn refused(why: String) -> Answer {
    Answer::refused(response::SYSTEM_ERROR, why)
}

impl Coordinator {
    /// The transaction that `id` names: its own id, or that of its half message's record.
    async fn named(&self, id: &str) -> Result<Option<TransactionId>, StoreError> {
        if let Ok(id) = id.parse()
            && self.find(id).await?.is_some()
        {
            return Ok(Some(id));
        }
        let Some((_, position)) = ids::parse_offset_id(id) else {
            return Ok(None);
        };
        let at = Filter {
            after: position.checked_sub(1).map(Position),
            limit: 1,
            ..Filter::default()
        };
        let rows = self.reader().list(&at).await?;
        let found = rows.first().map(|row| &row.half);
        let found = found.filter(|half| half.position == Position(position));
        Ok(found.map(|half| half.id))
    }
}
