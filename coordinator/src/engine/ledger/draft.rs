//! A batch while it is planned: what each request does to its row and to the history.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::ServerTime;
use mq_core::log::Position;

use super::{Answer, Ledger, Now, Plan, Request, What, doubled};
use crate::audit::seal::seal;
use crate::audit::{self, Event, Step, fingerprint};
use crate::store::shape::check_time;
use crate::store::{Batch, Change, Decided, Forgotten, Half, Row};
use crate::transaction::{self as protocol, Actor, Decision, Move, State, TransactionId};

/// A row while a batch is planned.
#[derive(Debug)]
struct Touched {
    row: Row,
    /// What SQL says before the batch; `None` for a row that is not there yet.
    stored: Option<Box<Row>>,
    /// When a held half message asked to be checked first.
    first_check: ServerTime,
    /// Whether the history knows the half message (or will, by an event of this batch).
    told: bool,
    overtaking: bool,
}

/// The batch as far as it is planned.
pub(super) struct Draft<'a> {
    ledger: &'a Ledger,
    now: Now,
    rows: HashMap<Position, Row>,
    /// In boxes: moving the large rows about in the map would cost more.
    touched: BTreeMap<Position, Box<Touched>>,
    events: Vec<Event>,
    decisions: Vec<(usize, Decision, u64)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(ledger: &'a Ledger, now: Now, rows: HashMap<Position, Row>) -> Self {
        Self {
            ledger,
            now,
            rows,
            touched: BTreeMap::new(),
            events: Vec::new(),
            decisions: Vec::new(),
        }
    }

    /// Does what a request says.
    pub(super) fn apply(&mut self, index: usize, request: &Request) -> Answer {
        if !self.touch(request) {
            return Answer::Forgotten;
        }
        match &request.what {
            What::Decide(decision) => {
                let number = self.ledger.owner.last_decision + 1 + self.decisions.len() as u64;
                self.decide(index, request, *decision, number)
            }
            What::Rebuild { decision, number } => self.decide(index, request, *decision, *number),
            What::Unknown {
                first_wait,
                longest_wait,
                budget,
            } => self.unknown(
                request,
                |checks| doubled(*first_wait, *longest_wait, checks),
                *budget,
            ),
            What::AskAgain { check_at } => {
                self.tell_half(request);
                if self.state(request) == Some(State::Prepared)
                    && let Some(touched) = self.touched.get_mut(&request.half.position)
                {
                    touched.row.check_at = Some(*check_at);
                }
                self.event(request, Step::AskedAgain);
                Answer::Noted
            }
            What::Unpublished { reason, .. } => {
                let step = if reason.is_some() {
                    Step::Unpublished
                } else {
                    Step::Published
                };
                if let Some(touched) = self.touched.get_mut(&request.half.position) {
                    touched.row.unpublished.clone_from(reason);
                }
                self.event(request, step);
                Answer::Noted
            }
            What::Move { to } => {
                self.tell_half(request);
                if let Some(touched) = self.touched.get_mut(&request.half.position) {
                    let before = touched.row.moved_to;
                    touched.row.moved_to = before.max(Some(*to));
                }
                Answer::Noted
            }
        }
    }

    /// Makes sure that the request's row is among the touched ones; false if it was decided and pruned.
    fn touch(&mut self, request: &Request) -> bool {
        let position = request.half.position;
        if self.touched.contains_key(&position) {
            return true;
        }
        let touched = if let Some(held) = self.ledger.held.get(&position) {
            Touched::absent(held.half.clone(), held.first_check, false)
        } else if let Some(row) = self.rows.remove(&position) {
            Touched {
                stored: Some(Box::new(row.clone())),
                row,
                first_check: self.now.at,
                told: true,
                overtaking: false,
            }
        } else if position < self.ledger.owner.watermark {
            return false;
        } else {
            Touched::absent(request.half.clone(), self.now.at, true)
        };
        self.touched.insert(position, Box::new(touched));
        true
    }

    fn state(&self, request: &Request) -> Option<State> {
        self.touched
            .get(&request.half.position)
            .map(|touched| touched.row.state)
    }

    fn decide(
        &mut self,
        index: usize,
        request: &Request,
        decision: Decision,
        number: u64,
    ) -> Answer {
        let event = match decision {
            Decision::Commit => protocol::Event::Commit,
            Decision::RollBack => protocol::Event::RollBack,
        };
        match protocol::next(self.state(request), event) {
            Move::To(state) => {
                self.decisions.push((index, decision, number));
                self.decided_event(request, decision);
                if let Some(touched) = self.touched.get_mut(&request.half.position) {
                    touched.row.state = state;
                    touched.row.decided = Some(Decided {
                        at: self.now.at,
                        number,
                    });
                    touched.row.check_at = None;
                }
                Answer::DecidedNow(number)
            }
            Move::Stay => {
                let recorded = self.ledger.recorded_contradictions;
                let before = self
                    .touched
                    .get_mut(&request.half.position)
                    .map_or(0, |touched| {
                        let before = touched.row.repeats;
                        touched.row.repeats = before.saturating_add(1);
                        before
                    });
                if before < recorded {
                    self.event(request, Step::Repeated);
                }
                Answer::AlreadyTheSame
            }
            Move::Refuse => {
                let recorded = self.ledger.recorded_contradictions;
                let before = self
                    .touched
                    .get_mut(&request.half.position)
                    .map_or(0, |touched| {
                        let before = touched.row.contradictions;
                        touched.row.contradictions = before.saturating_add(1);
                        before
                    });
                if before < recorded {
                    self.event(request, Step::Refused);
                }
                Answer::AlreadyOtherwise
            }
        }
    }

    fn unknown(
        &mut self,
        request: &Request,
        wait: impl Fn(u32) -> Duration,
        budget: u32,
    ) -> Answer {
        if self.state(request) != Some(State::Prepared) {
            return Answer::Noted;
        }
        self.tell_half(request);
        self.event(request, Step::Unknown);
        let mut parked = false;
        if let Some(touched) = self.touched.get_mut(&request.half.position) {
            touched.row.checks = touched.row.checks.saturating_add(1);
            touched.row.check_at = Some(self.now.at.after(wait(touched.row.checks)));
            if touched.row.checks >= budget
                && let Move::To(state) =
                    protocol::next(Some(touched.row.state), protocol::Event::BudgetUsed)
            {
                touched.row.state = state;
                touched.row.check_at = None;
                parked = true;
            }
        }
        if parked {
            let from = Some(Step::Prepared);
            let evidence = format!("{budget} check-backs answered with UNKNOWN");
            self.push_event(request, from, Step::Parked, Actor::Recovery, evidence);
        }
        Answer::Noted
    }

    /// The row of a held half message, written undecided.
    pub(super) fn write_held(&mut self, position: Position) {
        if self.touched.contains_key(&position) {
            return;
        }
        let Some(held) = self.ledger.held.get(&position) else {
            return;
        };
        self.touched.insert(
            position,
            Box::new(Touched::absent(held.half.clone(), held.first_check, false)),
        );
        let source: Arc<str> = "".into();
        self.prepared_event(&held.half, source);
    }

    /// Says how far history is forgotten.
    pub(super) fn forget(&mut self, far: &Forgotten) {
        self.events.push(Event {
            number: 0,
            transaction: TransactionId(0),
            from: Some(Step::Forgotten),
            to: Step::Forgotten,
            actor: Actor::Recovery,
            at: self.now.at,
            then_at: None,
            fingerprint: None,
            source: "".into(),
            evidence: audit::forgotten(far),
        });
    }

    fn prepared_event(&mut self, half: &Half, source: Arc<str>) {
        self.events.push(Event {
            number: 0,
            transaction: half.id,
            from: None,
            to: Step::Prepared,
            actor: Actor::Producer,
            at: half.prepared_at,
            then_at: None,
            fingerprint: Some(fingerprint::of_half(half)),
            source,
            evidence: String::new(),
        });
        if let Some(touched) = self.touched.get_mut(&half.position) {
            touched.told = true;
        }
    }

    /// Before a step other than a decision, the history must know the half message.
    fn tell_half(&mut self, request: &Request) {
        let untold = self
            .touched
            .get(&request.half.position)
            .filter(|t| !t.told)
            .map(|t| t.row.half.clone());
        if let Some(half) = untold {
            self.prepared_event(&half, "".into());
        }
    }

    /// The event of a decision; together with that of its half message if that is new as well.
    fn decided_event(&mut self, request: &Request, decision: Decision) {
        let Some(touched) = self.touched.get_mut(&request.half.position) else {
            return;
        };
        let to = match decision {
            Decision::Commit => Step::Committed,
            Decision::RollBack => Step::RolledBack,
        };
        let both = !std::mem::replace(&mut touched.told, true);
        let fingerprint = both.then(|| fingerprint::of_half(&touched.row.half));
        let (from, at, then_at) = if both {
            (None, touched.row.half.prepared_at, Some(self.now.at))
        } else {
            (Some(step_of(touched.row.state)), self.now.at, None)
        };
        self.events.push(Event {
            number: 0,
            transaction: request.half.id,
            from,
            to,
            actor: request.actor,
            at,
            then_at,
            fingerprint,
            source: request.source.clone(),
            evidence: request.evidence.clone(),
        });
    }

    fn event(&mut self, request: &Request, to: Step) {
        let from = self.state(request).map(step_of);
        self.push_event(request, from, to, request.actor, request.evidence.clone());
    }

    fn push_event(
        &mut self,
        request: &Request,
        from: Option<Step>,
        to: Step,
        actor: Actor,
        evidence: String,
    ) {
        self.events.push(Event {
            number: 0,
            transaction: request.half.id,
            from,
            to,
            actor,
            at: self.now.at,
            then_at: None,
            fingerprint: None,
            source: request.source.clone(),
            evidence,
        });
    }

    /// Numbers the events and seals the batch.
    pub(super) fn finish(
        mut self,
        answers: Vec<Answer>,
        check_at: impl Fn(&Half, ServerTime) -> ServerTime,
    ) -> Plan {
        let owner = &self.ledger.owner;
        let (mut new, mut changes, mut written, mut overtaking) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut scheduled = HashMap::new();
        for (position, touched) in self.touched {
            match touched.stored {
                Some(stored) => {
                    if touched.row.check_at != stored.check_at {
                        scheduled.extend(schedule(&touched.row));
                    }
                    push_changes(position, &stored, &touched.row, &mut changes);
                }
                None => {
                    if touched.overtaking {
                        overtaking.push(position)
                    } else {
                        written.push(position)
                    }
                    let mut row = touched.row;
                    if row.state == State::Prepared && row.check_at.is_none() {
                        row.check_at = Some(check_at(&row.half, touched.first_check));
                    }
                    scheduled.extend(schedule(&row));
                    let moved = row.moved_to.take();
                    changes.extend(moved.map(|to| (position, Change::Move(to))));
                    new.push(row);
                }
            }
        }
        for (event, number) in self.events.iter_mut().zip(owner.next_event..) {
            event.number = number;
        }
        // The last step that leaves a transaction open says when it is asked about next.
        for event in self.events.iter_mut().rev() {
            if !scheduled.is_empty() && event.to.schedules() {
                event.then_at = scheduled.remove(&event.transaction);
            }
        }
        let published = self.ledger.published;
        let batch = Batch {
            id: self.now.batch,
            watermark: self.ledger.watermark_without(&written),
            new,
            changes,
            seal: seal(
                owner.head,
                self.ledger.next_seq,
                published,
                self.now.wall_ms,
                owner.next_event,
                &self.events,
            ),
            events: self.events,
        };
        Plan {
            batch,
            answers,
            decisions: self.decisions,
            written,
            overtaking,
        }
    }
}

impl Touched {
    fn absent(half: Half, first_check: ServerTime, overtaking: bool) -> Self {
        let row = Row {
            half,
            state: State::Prepared,
            decided: None,
            check_at: None,
            checks: 0,
            repeats: 0,
            contradictions: 0,
            unpublished: None,
            moved_to: None,
        };
        Self {
            row,
            stored: None,
            first_check,
            told: false,
            overtaking,
        }
    }
}

/// Whose next check-back is due when, as stores keep it; `None` for a transaction that is not prepared.
fn schedule(row: &Row) -> Option<(TransactionId, ServerTime)> {
    row.check_at.map(|at| (row.half.id, check_time(at)))
}

const fn step_of(state: State) -> Step {
    match state {
        State::Prepared => Step::Prepared,
        State::Committed => Step::Committed,
        State::RolledBack => Step::RolledBack,
        State::Parked => Step::Parked,
    }
}

fn push_changes(
    position: Position,
    stored: &Row,
    row: &Row,
    changes: &mut Vec<(Position, Change)>,
) {
    let changed = match (row.state, row.decided) {
        (state, Some(decided)) if stored.decided.is_none() => {
            Some(Change::Decide { state, decided })
        }
        (State::Parked, _) if stored.state == State::Prepared => {
            Some(Change::Park { checks: row.checks })
        }
        _ => match row.check_at {
            Some(check_at) if row.check_at != stored.check_at || row.checks != stored.checks => {
                Some(Change::Check {
                    checks: row.checks,
                    check_at,
                })
            }
            _ => None,
        },
    };
    changes.extend(changed.map(|change| (position, change)));
    if (row.repeats, row.contradictions) != (stored.repeats, stored.contradictions) {
        let repeats = row.repeats - stored.repeats;
        let contradictions = row.contradictions - stored.contradictions;
        changes.push((
            position,
            Change::Count {
                repeats,
                contradictions,
            },
        ));
    }
    if row.unpublished != stored.unpublished {
        changes.push((position, Change::Unpublished(row.unpublished.clone())));
    }
    if row.moved_to != stored.moved_to {
        changes.extend(row.moved_to.map(|to| (position, Change::Move(to))));
    }
}
