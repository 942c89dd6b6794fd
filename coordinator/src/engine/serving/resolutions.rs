//! 37: COMMIT, ROLLBACK and UNKNOWN; each is answered once its outcome is in SQL.
//!
//! The original never answers UNKNOWN. A one-way request gets no answer here either, and a two-way one gets success, so that
//! nobody waits in vain.

use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::extension::{Busy, Call, Caller};
use mq_core::log::{Position, QueueOffset};
use mq_core::remoting::service::{Answer, Ticket};
use mq_core::serving::fields::{self, FieldError};
use mq_core::wire::codes::response;
use mq_core::wire::command::Command as Frame;
use mq_core::wire::reserved;
use tokio::sync::mpsc::error::TrySendError;

use super::super::command::{Command, Pending, Reply};
use super::super::ledger::{self, Request, What};
use super::super::locate::{Located, Missing, NO_LONGER, Named};
use super::super::publish::Final;
use super::super::{Coordinator, Running, short};
use crate::client::endpoint::Verdict;
use crate::store::Half;
use crate::transaction::{Actor, Decision, Resolution, TransactionId};

/// What a producer says about one half message.
#[derive(Debug)]
struct Said<'a> {
    named: Named<'a>,
    resolution: Resolution,
    asked: bool,
}

/// Puts the resolutions of `calls` into the SQL writer's queue.
///
/// # Errors
/// [`Busy`] with those for which it has no room.
pub(super) fn decide(
    coordinator: &Coordinator,
    running: &Arc<Running>,
    caller: &Arc<Caller>,
    calls: Vec<Call>,
) -> Result<(), Busy> {
    let mut calls = calls.into_iter();
    while let Some((command, ticket)) = calls.next() {
        match running.commands.try_reserve() {
            Ok(room) => {
                let by = By {
                    coordinator,
                    running,
                    caller,
                };
                match by.request(&command) {
                    Ok(found) => room.send(say(coordinator, found, ticket)),
                    Err(NotNow::Answer(answer)) => ticket.answer(*answer),
                    Err(NotNow::Gone) => aside(coordinator, running, caller, (command, ticket)),
                }
            }
            Err(TrySendError::Full(())) => {
                return Err(Busy([(command, ticket)].into_iter().chain(calls).collect()));
            }
            Err(TrySendError::Closed(())) => {
                ticket.answer(super::unavailable(coordinator.why_not()));
            }
        }
    }
    Ok(())
}

/// The command that puts `request` into the next batch and answers `ticket` once it is in SQL.
fn say(
    coordinator: &Coordinator,
    (request, copy): (Request, Option<Final>),
    ticket: Ticket,
) -> Command {
    let (id, told) = (request.half.id, coordinator.clone());
    let then = move |answer| tell(&told, id, ticket, answer);
    let reply = Reply::Then(Box::new(then));
    Command::Say(Box::new(Pending {
        request,
        copy,
        reply,
    }))
}

/// Takes a resolution whose half message has to be looked for in SQL, in a task of its own.
fn aside(coordinator: &Coordinator, running: &Arc<Running>, caller: &Arc<Caller>, call: Call) {
    let (command, ticket) = call;
    let Ok(permit) = coordinator.shared.aside.clone().try_acquire_owned() else {
        return ticket.answer(super::busy("too many requests like this one are under way"));
    };
    let (coordinator, caller) = (coordinator.clone(), Arc::clone(caller));
    let running = Arc::clone(running);
    tokio::spawn(async move {
        let by = By {
            coordinator: &coordinator,
            running: &running,
            caller: &caller,
        };
        match by.request_in_sql(&command).await {
            Ok(found) => {
                let command = say(&coordinator, found, ticket);
                if running.commands.send(command).await.is_err() {
                    tracing::debug!("a resolution came while the coordinator stops");
                }
            }
            Err(NotNow::Answer(answer)) => ticket.answer(*answer),
            Err(NotNow::Gone) => {
                ticket.answer(Answer::refused(
                    response::SYSTEM_ERROR,
                    NO_LONGER.to_owned(),
                ));
            }
        }
        drop(permit);
    });
}

/// Why there is nothing to say to the SQL writer.
enum NotNow {
    /// It needs no batch.
    Answer(Box<Answer>),
    /// The half message is not where it was stored first.
    Gone,
}

impl From<Answer> for NotNow {
    fn from(answer: Answer) -> Self {
        Self::Answer(Box::new(answer))
    }
}

/// Who says something, and to whom.
struct By<'a> {
    coordinator: &'a Coordinator,
    running: &'a Running,
    caller: &'a Caller,
}

impl By<'_> {
    /// What to say to the SQL writer.
    fn request(&self, command: &Frame) -> Result<(Request, Option<Final>), NotNow> {
        let said = Said::read(command).map_err(Answer::from)?;
        let commit = said.resolution == Resolution::Commit;
        let located = self.coordinator.locate(self.running, &said.named, commit);
        let located = located.map_err(|missing| not_found(missing, &said.named))?;
        Ok(self.about(command, &said, located)?)
    }

    /// The same for a half message that is not where it was stored first.
    async fn request_in_sql(&self, command: &Frame) -> Result<(Request, Option<Final>), NotNow> {
        let said = Said::read(command).map_err(Answer::from)?;
        let commit = said.resolution == Resolution::Commit;
        let located = self
            .coordinator
            .locate_row(self.running, &said.named, commit);
        let located = located.await;
        let located = located.map_err(|missing| not_found(missing, &said.named))?;
        Ok(self.about(command, &said, located)?)
    }

    /// The request about the half message that was located; the error is the answer to what needs no batch.
    fn about(
        &self,
        command: &Frame,
        said: &Said<'_>,
        Located { half, copy }: Located,
    ) -> Result<(Request, Option<Final>), Answer> {
        let commit = said.resolution == Resolution::Commit;
        let remark = command.remark.clone();
        let (what, evidence) = match said.resolution {
            Resolution::Commit | Resolution::RollBack => {
                let decision = if commit {
                    Decision::Commit
                } else {
                    Decision::RollBack
                };
                let evidence = self.running.evidence(half.position, remark);
                (What::Decide(decision), evidence)
            }
            Resolution::Unknown | Resolution::InFlight => {
                if !self.counts(said, half.position) {
                    return Err(Answer::done());
                }
                let settings = &self.coordinator.shared.settings.check_back;
                (What::unknown(settings), short(remark))
            }
        };
        let request = Request {
            actor: self.actor(said, &half),
            half,
            what,
            source: self.caller.source.clone(),
            evidence,
        };
        Ok((request, copy))
    }

    /// Whether UNKNOWN answers a check-back; *in flight* does not count and is asked again soon.
    fn counts(&self, said: &Said<'_>, position: Position) -> bool {
        if said.resolution == Resolution::InFlight {
            let settings = &self.coordinator.shared.settings.check_back;
            let now = self.running.broker.log().now();
            self.running.attempts.in_flight(position, now, settings);
            self.running.wake.notify_one();
            return false;
        }
        let now = self.running.broker.log().now();
        said.asked && self.running.attempts.unknown(position, now)
    }

    fn actor(&self, said: &Said<'_>, half: &Half) -> Actor {
        match said.asked {
            false => Actor::Producer,
            true if self.caller.native && half.marker.is_some() => Actor::Marker,
            true => Actor::CheckBack,
        }
    }
}

impl<'a> Said<'a> {
    fn read(command: &'a Frame) -> Result<Self, FieldError> {
        let fields = &command.fields;
        let asked = fields::flag(fields, "fromTransactionCheck");
        let resolution = match fields::parsed::<i32>(fields, "commitOrRollback")? {
            reserved::FLAG_COMMIT => Resolution::Commit,
            reserved::FLAG_ROLLBACK => Resolution::RollBack,
            0 if fields::flag(fields, reserved::IN_FLIGHT) => Resolution::InFlight,
            0 => Resolution::Unknown,
            other => {
                let why = "8 is COMMIT, 12 ROLLBACK, 0 UNKNOWN";
                return Err(fields::wrong("commitOrRollback", &other.to_string(), why));
            }
        };
        let named = Named {
            group: fields::text(fields, "producerGroup")?,
            position: Position(fields::parsed(fields, "commitLogOffset")?),
            queue_offset: QueueOffset(fields::parsed(fields, "tranStateTableOffset")?),
            id: None,
            words: ["msgId", "transactionId"].map(|name| fields.get(name).unwrap_or_default()),
        };
        Ok(Self {
            named,
            resolution,
            asked,
        })
    }
}

fn not_found(missing: Missing, named: &Named<'_>) -> NotNow {
    let (position, offset) = (named.position, named.queue_offset);
    let why = match missing {
        Missing::Gone => return NotNow::Gone,
        Missing::No(why) => why,
        Missing::Broken(why) => {
            tracing::error!(%position, why, "a half message cannot be read");
            why
        }
    };
    Answer::refused(
        response::SYSTEM_ERROR,
        format!("no half message at position {position}, queue offset {offset}: {why}"),
    )
    .into()
}

/// Answers with what became of a resolution; runs in the SQL writer's task.
fn tell(coordinator: &Coordinator, id: TransactionId, ticket: Ticket, answer: ledger::Answer) {
    match answer {
        ledger::Answer::DecidedNow(_) | ledger::Answer::AlreadyTheSame | ledger::Answer::Noted => {
            ticket.answer(Answer::done());
        }
        ledger::Answer::Forgotten => ticket.answer(Answer::refused(
            response::SYSTEM_ERROR,
            format!("transaction {id} was decided, and its row is no longer kept"),
        )),
        ledger::Answer::AlreadyOtherwise => {
            let coordinator = coordinator.clone();
            tokio::spawn(async move {
                let now = coordinator.broker().map(|broker| broker.log().now());
                ticket.answer(match coordinator.verdict(id).await {
                    Ok(verdict) => contradicted(id, &verdict, now.unwrap_or(verdict.at)),
                    Err(error) => {
                        let remark = format!("transaction {id} was decided otherwise: {error}");
                        Answer::refused(response::SYSTEM_ERROR, remark)
                    }
                });
            });
        }
    }
}

/// Who has decided otherwise, and when: for people, and for clients of ours.
fn contradicted(id: TransactionId, verdict: &Verdict, now: ServerTime) -> Answer {
    let state = verdict.state.word().replace('_', " ");
    let ago = now.since(verdict.at).as_millis();
    let evidence = if verdict.evidence.is_empty() {
        String::new()
    } else {
        format!(" ({})", verdict.evidence)
    };
    let remark = format!(
        "transaction {id} is {state}, by {} {ago} ms ago{evidence}; this request changes nothing and is recorded",
        verdict.actor.word()
    );
    let [state, actor, at, evidence] = reserved::STANDS;
    Answer::refused(response::SYSTEM_ERROR, remark)
        .field(state, verdict.state.word())
        .field(actor, verdict.actor.word())
        .field(at, verdict.at.0)
        .field(evidence, &verdict.evidence)
}
