//! Requests that an extension has claimed, by their code or by the flags of a message: on their way to it.

use std::sync::Arc;

use super::BrokerService;
use super::fields::Names;
use crate::extension::{Busy, Call, Caller, Extension};
use crate::wire::codes::request;
use crate::wire::command::Command;

/// The extension that `command` belongs to; `None` if it is the broker's own.
pub(super) fn claimant(service: &BrokerService, command: &Command) -> Option<Arc<dyn Extension>> {
    let broker = service.broker();
    match command.code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            let flags = command.fields.get(Names::of(command).sys_flag)?;
            broker.extension_for_flags(flags.parse().ok()?)
        }
        code => broker.extension_for_code(code),
    }
}

/// The claimed requests of one wake-up.
#[derive(Debug, Default)]
pub(super) struct Claimed(Vec<(Arc<dyn Extension>, Vec<Call>)>);

impl Claimed {
    /// Adds a request for `extension`.
    pub(super) fn push(&mut self, extension: Arc<dyn Extension>, call: Call) {
        match self
            .0
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, &extension))
        {
            Some((_, calls)) => calls.push(call),
            None => self.0.push((extension, vec![call])),
        }
    }

    /// Hands all of them over; waits while an extension has no room.
    pub(super) async fn hand_over(self, caller: &Arc<Caller>) {
        for (extension, mut calls) in self.0 {
            while let Err(Busy(back)) = extension.call(caller, calls) {
                calls = back;
                extension.ready().await;
            }
        }
    }
}
