//! Batches as SQL arguments: bound one by one for large batches, as JSON arrays for small ones.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Encode, Sqlite, Type};

use crate::audit::Event;
use crate::audit::seal::Seal;
use crate::store::names::Names;
use crate::store::{Batch, Change, Owner, Row, shape};

/// One or more statements and their arguments, for one round trip to the connection's thread.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) sql: String,
    pub(super) arguments: SqliteArguments,
}

impl Call {
    pub(super) fn say(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    pub(super) fn add<'a>(&mut self, value: impl Encode<'a, Sqlite> + Type<Sqlite>) {
        add(&mut self.arguments, value);
    }
}

/// Adds one argument.
pub(super) fn add<'a>(
    arguments: &mut SqliteArguments,
    value: impl Encode<'a, Sqlite> + Type<Sqlite>,
) {
    arguments
        .add(value)
        .expect("integers, texts and bytes can always be bound");
}

/// A number as SQLite keeps it. [`shape::check`] has refused everything that does not fit.
pub(super) const fn int(number: u64) -> i64 {
    number as i64
}

/// The arguments of [`super::statements::BEGIN`].
pub(super) fn begin(call: &mut Call, owner: &Owner, after: &Owner) {
    for number in [owner.epoch, owner.seq, after.seq] {
        call.add(int(number));
    }
    call.add(&after.batch.to_be_bytes()[..]);
    for number in [
        after.watermark.0,
        after.published,
        after.last_decision,
        after.next_event,
    ] {
        call.add(int(number));
    }
    call.add(&after.head.0[..]);
    call.add(int(after.fingerprint));
}

/// The arguments of [`super::statements::SEAL_AND_COMMIT`].
pub(super) fn seal(call: &mut Call, seal: &Seal) {
    for number in [
        seal.seq,
        seal.first_event,
        u64::from(seal.count),
        seal.published,
        seal.wall_ms,
    ] {
        call.add(int(number));
    }
    call.add(&seal.hash.0[..]);
    call.add(seal.leaves.as_slice());
}

/// How many arguments [`row`] adds.
pub(super) const ROW_ARGUMENTS: usize = 13;
/// How many arguments [`event`] adds.
pub(super) const EVENT_ARGUMENTS: usize = 10;

/// The arguments of a chunk of new transactions.
pub(super) fn rows(chunk: &[&Row], names: &Names) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(chunk.len() * ROW_ARGUMENTS, 0);
    for new in chunk {
        row(&mut arguments, new, names);
    }
    arguments
}

/// The arguments of a chunk of events.
pub(super) fn events(chunk: &[Event], names: &Names) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(chunk.len() * EVENT_ARGUMENTS, 0);
    for one in chunk {
        event(&mut arguments, one, names);
    }
    arguments
}

/// Adds a new transaction that was never checked, repeated, contradicted or refused by the log.
fn row(arguments: &mut SqliteArguments, row: &Row, names: &Names) {
    let half = &row.half;
    add(arguments, int(half.position.0));
    add(arguments, &half.id.to_bytes()[..]);
    add(arguments, names.text(half.group.as_str()));
    add(arguments, names.text(half.topic.as_str()));
    add(
        arguments,
        half.sender.map(|sender| names.identity(sender.0)),
    );
    add(
        arguments,
        half.marker.map(|marker| names.identity(marker.0)),
    );
    add(arguments, i64::from(row.state.number()));
    add(arguments, int(half.queue_offset.0));
    add(arguments, i64::from(half.body_len));
    add(arguments, int(half.prepared_at.0));
    add(arguments, row.decided.map(|decided| int(decided.at.0)));
    add(arguments, row.decided.map(|decided| int(decided.number)));
    add(arguments, check_at(row));
}

/// Whether [`row`] can say everything about a new transaction.
pub(super) const fn is_plain(row: &Row) -> bool {
    row.checks == 0 && row.repeats == 0 && row.contradictions == 0
}

/// Adds an event.
fn event(arguments: &mut SqliteArguments, event: &Event, names: &Names) {
    add(arguments, int(event.number));
    add(arguments, &event.transaction.to_bytes()[..]);
    add(arguments, event.from.map(|step| step as i64));
    add(arguments, event.to as i64);
    add(arguments, event.actor as i64);
    add(arguments, int(event.at.0));
    add(arguments, event.then_at.map(|at| int(at.0)));
    add(arguments, names.text(&event.source));
    if event.evidence.is_empty() {
        // As it mostly is: shared, so that nothing is allocated for it.
        add(arguments, Arc::clone(&NO_EVIDENCE));
    } else {
        add(arguments, event.evidence.as_str());
    }
    add(arguments, event.fingerprint.map(int));
}

static NO_EVIDENCE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

/// A JSON array of arrays.
#[derive(Debug)]
pub(super) struct Json {
    text: String,
    /// How many arrays are in it.
    pub(super) rows: i64,
}

impl Json {
    pub(super) fn new() -> Self {
        Self {
            text: String::from("["),
            rows: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn into_text(mut self) -> String {
        self.text.push(']');
        self.text
    }

    fn begin(&mut self) -> &mut Self {
        self.text.push_str(if self.rows == 0 { "[" } else { ",[" });
        self.rows += 1;
        self
    }

    fn end(&mut self) {
        // The comma behind the last value.
        self.text.pop();
        self.text.push(']');
    }

    fn int(&mut self, number: i64) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{number},");
        self
    }

    fn maybe(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.int(number),
            None => {
                self.text.push_str("null,");
                self
            }
        }
    }

    fn hex(&mut self, bits: u128) -> &mut Self {
        let _ = write!(self.text, "\"{bits:032x}\",");
        self
    }

    fn str(&mut self, text: &str) -> &mut Self {
        self.text
            .push_str(&serde_json::Value::from(text).to_string());
        self.text.push(',');
        self
    }
}

/// New transactions with everything they may have.
pub(super) fn row_json<'a>(rows: impl Iterator<Item = &'a Row>, names: &Names) -> Json {
    let mut json = Json::new();
    for row in rows {
        let half = &row.half;
        json.begin()
            .int(int(half.position.0))
            .hex(half.id.0)
            .int(names.text(half.group.as_str()))
            .int(names.text(half.topic.as_str()))
            .maybe(half.sender.map(|sender| names.identity(sender.0)))
            .maybe(half.marker.map(|marker| names.identity(marker.0)))
            .int(i64::from(row.state.number()))
            .int(int(half.queue_offset.0))
            .int(i64::from(half.body_len))
            .int(int(half.prepared_at.0))
            .maybe(row.decided.map(|decided| int(decided.at.0)))
            .maybe(row.decided.map(|decided| int(decided.number)))
            .maybe(check_at(row))
            .int(i64::from(row.checks))
            .int(i64::from(row.repeats))
            .int(i64::from(row.contradictions))
            .end();
    }
    json
}

/// Events.
pub(super) fn event_json(events: &[Event], names: &Names) -> Json {
    let mut json = Json::new();
    for event in events {
        json.begin()
            .int(int(event.number))
            .hex(event.transaction.0)
            .maybe(event.from.map(|step| step as i64))
            .int(event.to as i64)
            .int(event.actor as i64)
            .int(int(event.at.0))
            .maybe(event.then_at.map(|at| int(at.0)))
            .int(names.text(&event.source))
            .str(&event.evidence)
            .maybe(event.fingerprint.map(int))
            .end();
    }
    json
}

/// The new texts and identities of the batch that was resolved last.
pub(super) fn names_json(names: &Names) -> (Json, Json) {
    let (mut texts, mut identities) = (Json::new(), Json::new());
    for (id, text) in &names.new_texts {
        texts.begin().int(*id).str(text).end();
    }
    for (id, bits) in &names.new_identities {
        identities.begin().int(*id).hex(*bits).end();
    }
    (texts, identities)
}

/// The changes of a batch, by the statement that makes them.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) moves: Json,
    pub(super) counts: Json,
    pub(super) unpublished: Json,
    /// Each array holds one position.
    pub(super) published: Json,
    pub(super) moved: Json,
}

/// Sorts the changes of `batch`, and the reasons of its new rows, by statement.
pub(super) fn changes(batch: &Batch) -> Changes {
    let mut changes = Changes {
        moves: Json::new(),
        counts: Json::new(),
        unpublished: Json::new(),
        published: Json::new(),
        moved: Json::new(),
    };
    for (position, change) in &batch.changes {
        let at = int(position.0);
        match change {
            Change::Decide { state, decided } => {
                let (state, decided_at) = (i64::from(state.number()), int(decided.at.0));
                let json = changes
                    .moves
                    .begin()
                    .int(at)
                    .int(state)
                    .int(decided_at)
                    .int(int(decided.number));
                json.maybe(None).maybe(None).end();
            }
            Change::Check { checks, check_at } => {
                let check_at = int(shape::check_time(*check_at).0);
                let json = changes.moves.begin().int(at).int(0).maybe(None).maybe(None);
                json.int(check_at).int(i64::from(*checks)).end();
            }
            Change::Park { checks } => {
                let json = changes
                    .moves
                    .begin()
                    .int(at)
                    .int(3)
                    .maybe(None)
                    .maybe(None)
                    .maybe(None);
                json.int(i64::from(*checks)).end();
            }
            Change::Count {
                repeats,
                contradictions,
            } => {
                changes
                    .counts
                    .begin()
                    .int(at)
                    .int(i64::from(*repeats))
                    .int(i64::from(*contradictions))
                    .end();
            }
            Change::Unpublished(Some(reason)) => {
                changes.unpublished.begin().int(at).str(reason).end()
            }
            Change::Unpublished(None) => changes.published.begin().int(at).end(),
            Change::Move(to) => changes.moved.begin().int(at).int(int(to.0)).end(),
        }
    }
    for row in &batch.new {
        if let Some(reason) = &row.unpublished {
            changes
                .unpublished
                .begin()
                .int(int(row.half.position.0))
                .str(reason)
                .end();
        }
    }
    changes
}

fn check_at(row: &Row) -> Option<i64> {
    row.check_at.map(|at| int(shape::check_time(at).0))
}
