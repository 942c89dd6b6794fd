//! Batches as arrays of columns, the arguments of one statement.

use std::collections::BTreeMap;

use sqlx::postgres::PgArguments;
use sqlx::types::Uuid;
use sqlx::{Arguments as _, Encode, Postgres, Type};

use super::text;
use crate::audit::Event;
use crate::store::names::Names;
use crate::store::{Batch, Change, Owner, Row, shape};
use crate::transaction::State;

/// A number as Postgres keeps it. [`shape::check`] has refused everything that does not fit.
pub(super) const fn int(number: u64) -> i64 {
    number as i64
}

/// The arguments of [`super::statements::BATCH`].
pub(super) fn batch(batch: &Batch, (owner, after): (&Owner, &Owner), names: &Names) -> PgArguments {
    let mut arguments = PgArguments::default();
    for number in [int(owner.epoch), int(owner.link), int(owner.seq)] {
        add(&mut arguments, number);
    }
    add(&mut arguments, Uuid::from_u128(after.batch));
    for number in [
        after.watermark.0,
        after.published,
        after.last_decision,
        after.next_event,
    ] {
        add(&mut arguments, int(number));
    }
    add(&mut arguments, after.head.0.to_vec());
    add_names(&mut arguments, names);
    add_rows(&mut arguments, &batch.new, names);
    let changes = Changes::of(batch);
    changes.add(&mut arguments);
    add_events(&mut arguments, &batch.events, names);
    let seal = &batch.seal;
    for number in [seal.first_event, u64::from(seal.count), seal.wall_ms] {
        add(&mut arguments, int(number));
    }
    add(&mut arguments, seal.leaves.clone());
    add(&mut arguments, changes.of_rows.len() as i64);
    add(&mut arguments, changes.published.len() as i64);
    add(&mut arguments, int(after.seq));
    column(&mut arguments, &changes.moved, |(position, _)| *position);
    column(&mut arguments, &changes.moved, |(_, to)| *to);
    add(&mut arguments, int(after.fingerprint));
    column(&mut arguments, &batch.events, |event| {
        event.fingerprint.map(int)
    });
    arguments
}

/// Adds one argument.
fn add<'a>(arguments: &mut PgArguments, value: impl Encode<'a, Postgres> + Type<Postgres>) {
    arguments
        .add(value)
        .expect("integers, texts, bytes and arrays of them can always be bound");
}

/// The number of a name as its column has it; 2^31 names are more than a table with unique texts ever sees.
fn small(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn column<'a, T, C>(
    arguments: &mut PgArguments,
    of: impl IntoIterator<Item = &'a T>,
    value: impl Fn(&'a T) -> C,
) where
    T: 'a,
    Vec<C>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
{
    let values: Vec<C> = of.into_iter().map(value).collect();
    add(arguments, values);
}

fn add_names(to: &mut PgArguments, names: &Names) {
    column(to, &names.new_texts, |(id, _)| small(*id));
    column(to, &names.new_texts, |(_, text)| {
        text::encode(text).into_owned()
    });
    column(to, &names.new_identities, |(id, _)| small(*id));
    column(to, &names.new_identities, |(_, bits)| {
        Uuid::from_u128(*bits)
    });
}

fn add_rows(to: &mut PgArguments, rows: &[Row], names: &Names) {
    column(to, rows, |row| int(row.half.position.0));
    column(to, rows, |row| int(row.half.queue_offset.0));
    column(to, rows, |row| Uuid::from_u128(row.half.id.0));
    column(to, rows, |row| int(row.half.prepared_at.0));
    column(to, rows, |row| row.decided.map(|decided| int(decided.at.0)));
    column(to, rows, |row| {
        row.decided.map(|decided| int(decided.number))
    });
    column(to, rows, |row| {
        row.check_at.map(|at| int(shape::check_time(at).0))
    });
    column(to, rows, |row| i64::from(row.half.body_len));
    column(to, rows, |row| i64::from(row.checks));
    column(to, rows, |row| i64::from(row.repeats));
    column(to, rows, |row| i64::from(row.contradictions));
    column(to, rows, |row| small(names.text(row.half.group.as_str())));
    column(to, rows, |row| small(names.text(row.half.topic.as_str())));
    column(to, rows, |row| {
        let sender = row.half.sender;
        sender.map(|sender| small(names.identity(sender.0)))
    });
    column(to, rows, |row| {
        let marker = row.half.marker;
        marker.map(|marker| small(names.identity(marker.0)))
    });
    column(to, rows, |row| i16::from(row.state.number()));
}

fn add_events(to: &mut PgArguments, events: &[Event], names: &Names) {
    column(to, events, |event| int(event.number));
    column(to, events, |event| int(event.at.0));
    column(to, events, |event| event.then_at.map(|at| int(at.0)));
    column(to, events, |event| Uuid::from_u128(event.transaction.0));
    column(to, events, |event| small(names.text(&event.source)));
    column(to, events, |event| event.from.map(|step| step as i16));
    column(to, events, |event| event.to as i16);
    column(to, events, |event| event.actor as i16);
    column(to, events, |event| {
        text::encode(&event.evidence).into_owned()
    });
}

/// What is to happen to one row: a statement can change a row only once.
#[derive(Debug, Default)]
struct OfRow {
    /// `None`: it stays where it is.
    status: Option<i16>,
    decided_at: Option<i64>,
    decision_no: Option<i64>,
    check_at: Option<i64>,
    checks: Option<i64>,
    repeats: i64,
    contradictions: i64,
}

/// The changes of a batch, by the part of the statement that makes them.
#[derive(Debug, Default)]
struct Changes {
    of_rows: BTreeMap<i64, OfRow>,
    unpublished: Vec<(i64, String)>,
    published: Vec<i64>,
    moved: Vec<(i64, i64)>,
}

impl Changes {
    /// Merges the changes of `batch` row by row; the reasons of its new rows are among them.
    fn of(batch: &Batch) -> Self {
        let mut changes = Self::default();
        for (position, change) in &batch.changes {
            let position = int(position.0);
            match change {
                Change::Unpublished(Some(reason)) => {
                    let reason = text::encode(reason).into_owned();
                    changes.unpublished.push((position, reason));
                }
                Change::Unpublished(None) => changes.published.push(position),
                Change::Move(to) => changes.moved.push((position, int(to.0))),
                Change::Decide { .. }
                | Change::Check { .. }
                | Change::Park { .. }
                | Change::Count { .. } => {
                    changes.of_rows.entry(position).or_default().take(change);
                }
            }
        }
        for row in &batch.new {
            if let Some(reason) = &row.unpublished {
                let reason = text::encode(reason).into_owned();
                changes.unpublished.push((int(row.half.position.0), reason));
            }
        }
        changes
    }

    fn add(&self, to: &mut PgArguments) {
        let rows: Vec<(i64, &OfRow)> = self.of_rows.iter().map(|(at, row)| (*at, row)).collect();
        column(to, &rows, |(position, _)| *position);
        column(to, &rows, |(_, row)| row.status);
        column(to, &rows, |(_, row)| row.decided_at);
        column(to, &rows, |(_, row)| row.decision_no);
        column(to, &rows, |(_, row)| row.check_at);
        column(to, &rows, |(_, row)| row.checks);
        column(to, &rows, |(_, row)| row.repeats);
        column(to, &rows, |(_, row)| row.contradictions);
        column(to, &self.unpublished, |(position, _)| *position);
        column(to, &self.unpublished, |(_, reason)| reason.clone());
        add(to, self.published.clone());
    }
}

impl OfRow {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Decide { state, decided } => {
                self.status = Some(i16::from(state.number()));
                self.decided_at = Some(int(decided.at.0));
                self.decision_no = Some(int(decided.number));
            }
            Change::Check { checks, check_at } => {
                self.status = Some(i16::from(State::Prepared.number()));
                self.check_at = Some(int(shape::check_time(*check_at).0));
                self.checks = Some(i64::from(*checks));
            }
            Change::Park { checks } => {
                self.status = Some(i16::from(State::Parked.number()));
                self.checks = Some(i64::from(*checks));
            }
            Change::Count {
                repeats,
                contradictions,
            } => {
                self.repeats = i64::from(*repeats);
                self.contradictions = i64::from(*contradictions);
            }
            // Kept apart from what happens to the row.
            Change::Unpublished(_) | Change::Move(_) => {}
        }
    }
}
