//! What SQL says of decisions: the first one stays, it is what was told, and where a database was lost it is what the log says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use coordinator::audit::echo::Recorded;
use coordinator::engine::half;
use coordinator::store::{Owner, Row, TxStore as _};
use coordinator::transaction::{Decision, State, TransactionId};
use mq_core::log::{Log, Position};

use super::super::World;
use super::super::facts::{Book, Met, Stood};
use super::super::forgetting::Missing;
use super::super::server::Server;
use super::asked;

/// What SQL says of decisions has not changed, and agrees with what was told; where it says nothing, it was forgotten.
pub(in super::super) fn stand(
    world: &World,
    rows: &BTreeMap<TransactionId, Row>,
    missing: &Missing,
) -> Result<()> {
    let mut book = world.facts.book();
    let mut numbers = BTreeMap::new();
    for row in rows.values() {
        let (id, decided) = (row.half.id, row.decided);
        ensure!(
            row.state.is_decided() == decided.is_some(),
            "{id} is half decided"
        );
        asked::counted(row, &book)?;
        let before = book.decided.get(&id).copied();
        let now = Stood::of(row);
        ensure!(
            before.is_none() || before == now,
            "{id} was {before:?} and is {now:?}"
        );
        if let Some(now) = now {
            book.decided.insert(id, now);
        }
    }
    for id in book.decided.keys().filter(|id| !rows.contains_key(id)) {
        missing.stood(&book, *id)?;
    }
    for (id, stood) in &book.decided {
        let other = numbers.insert(stood.number, *id);
        ensure!(
            other.is_none(),
            "{id} and {other:?} are both decision {}",
            stood.number
        );
    }
    gapless(&book, &numbers)?;
    for (id, told) in &book.told {
        let state = match rows.get(id) {
            Some(row) => row.state,
            None => missing.stood(&book, *id)?.state,
        };
        let stands = match state {
            State::Committed => Decision::Commit,
            State::RolledBack => Decision::RollBack,
            other @ (State::Prepared | State::Parked) => {
                bail!("{id} was told decided and is {other:?}")
            }
        };
        ensure!(
            told.iter().all(|told| told.decision == stands),
            "{id} was told {told:?} and is {stands:?}"
        );
    }
    Ok(())
}

fn gapless(book: &Book, numbers: &BTreeMap<u64, TransactionId>) -> Result<()> {
    let last = numbers.keys().last().copied().unwrap_or(0);
    let missing = (1..=last).find(|n| !numbers.contains_key(n) && !book.skipped.contains(n));
    ensure!(
        missing.is_none(),
        "there is no decision {missing:?} of {last}"
    );
    Ok(())
}

/// A decision whose answer had left before the word of another came has the smaller number.
pub(super) fn in_order_of_words(world: &World) -> Result<()> {
    let book = world.facts.book();
    let decided = book.decided.iter();
    let mut decided: Vec<_> = decided
        .filter_map(|(id, stood)| Some((stood.number, *id, *book.spoken.get(id)?)))
        .collect();
    decided.sort_unstable_by_key(|(number, _, _)| *number);
    let mut first_acked = u64::MAX;
    for (number, id, spoken) in decided.iter().rev() {
        ensure!(
            spoken.invoked < first_acked,
            "decision {number}, of {id}, was asked for after a later one was answered"
        );
        first_acked = first_acked.min(spoken.acked);
    }
    Ok(())
}

/// What was sent behind an acknowledged COMMIT stands where its sender was told, and behind the final, unless the log could not
/// take that in its time.
pub(super) fn before_what_came_later(world: &World) -> Result<()> {
    let mut book = world.facts.book();
    for (id, told) in &book.sent {
        let stands = book.plain.get(id);
        ensure!(
            stands == Some(told),
            "the message behind {id} was acknowledged at {told:?} and stands at {stands:?}"
        );
    }
    let mut behind = 0;
    for (id, plain) in &book.plain {
        let acked = book.told.get(id).into_iter().flatten().map(|told| told.at);
        let in_time = acked.min().is_some_and(|at| book.is_durable(at));
        if book.late.contains(id) || !in_time {
            continue;
        }
        let stands = book.finals.get(id);
        ensure!(
            stands.is_some_and(|(queue, offset)| *queue == plain.0 && *offset < plain.1),
            "{id} is published at {stands:?}; what was sent when its COMMIT was acknowledged, at {plain:?}"
        );
        behind += 1;
    }
    book.counts.add_many(Met::PlainBehind, behind);
    Ok(())
}

/// After a start over a database that was put back: whatever the log has a record of is decided as that says. A decision that
/// neither the database nor the log has may be made anew, unless it was acknowledged and the log has written everything that
/// it was handed until then: the record is handed to it first.
///
/// `before` is what the owner row was before the start, if there was one.
pub(in super::super) async fn after_a_loss(
    server: &Server,
    world: &World,
    before: Option<Owner>,
) -> Result<()> {
    // A database from before its first batch ends with none.
    let (batch, decision) = before.map_or((0, 0), |owner| (owner.seq, owner.last_decision));
    let reader = world.store.reader();
    let rows = super::rows(&*reader).await?;
    let owner = reader.owner().await?.context("the store has no owner")?;
    let log: &dyn Log = &*server.log;
    let records = records(log)?;
    let missing = Missing::now(world, log.deleted()).await?;
    let mut book = world.facts.book();
    ensure!(
        batch >= book.stamped,
        "a database that ends with batch {batch} was served; the log has seen batch {}",
        book.stamped
    );
    let newest = records.keys().last().copied().unwrap_or(0);
    ensure!(
        newest <= decision,
        "a database that ends with decision {decision} was served; the log has decision {newest}"
    );
    for told in records.values() {
        let stands = match rows.get(&told.id) {
            Some(row) => Stood::of(row),
            None => Some(missing.stood(&book, told.id)?),
        };
        ensure!(
            stands.is_some_and(
                |stood| (stood.state, stood.number) == (told.decision.state(), told.number)
            ),
            "the log has {} as {:?}, decision {}; the database has {stands:?}",
            told.id,
            told.decision,
            told.number
        );
    }
    let open = |id: &TransactionId| match rows.get(id) {
        Some(row) => row.decided.is_none(),
        None => missing.stood(&book, *id).is_err(),
    };
    let lost: BTreeSet<TransactionId> = book
        .told
        .keys()
        .chain(book.decided.keys())
        .filter(|id| open(id))
        .copied()
        .collect();
    for id in lost {
        for told in book.told.remove(&id).unwrap_or_default() {
            ensure!(
                book.late.contains(&id) || !book.is_durable(told.at),
                "{id} was told {:?}, the log has synced since, and neither log nor database know of it",
                told.decision
            );
        }
        book.decided.remove(&id);
        book.spoken.remove(&id);
        book.counts.add(Met::OpenAgain);
        if book.pruned.contains(&id) {
            book.unproved.insert(id);
        }
    }
    let given: BTreeSet<u64> = book.decided.values().map(|stood| stood.number).collect();
    // None of them has a record, as was seen above.
    book.skipped = (1..=owner.last_decision)
        .filter(|number| !given.contains(number))
        .collect();
    (book.put_back, book.compared) = (false, Position(0));
    Ok(())
}

/// All decisions of which a log has a record, by number.
pub(in super::super) fn records(log: &dyn Log) -> Result<BTreeMap<u64, Recorded>> {
    let mut records = BTreeMap::new();
    for stored in log.scan(Position(0))? {
        let stored = stored?;
        let ours = stored.mark.filter(|mark| mark.owner == half::OWNER);
        if !ours.is_some_and(|mark| half::is_decision(&mark)) {
            continue;
        }
        let told = half::recorded(&stored)?;
        let other = records.insert(told.number, told);
        ensure!(
            other.is_none(),
            "decision {} has two records: {told:?} and {other:?}",
            told.number
        );
    }
    Ok(records)
}
