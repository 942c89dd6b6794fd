//! What SQL says of decisions: the first one stays, it is what was told, and where a database was lost it is what the log says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use coordinator::audit::echo::Recorded;
use coordinator::engine::half;
use coordinator::store::{Owner, Row, TxStore as _};
use coordinator::transaction::{Decision, State, TransactionId};
use mq_core::log::{Log, Position};

use super::super::World;
use super::super::facts::{Book, Met};
use super::super::server::Server;
use super::asked;

/// What SQL says of decisions has not changed, and agrees with what was told.
pub(in super::super) fn stand(world: &World, rows: &BTreeMap<TransactionId, Row>) -> Result<()> {
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
        let now = decided.map(|decided| (row.state, decided.number));
        ensure!(
            before.is_none() || before == now,
            "{id} was {before:?} and is {now:?}"
        );
        if let Some(now) = now {
            book.decided.insert(id, now);
            let other = numbers.insert(now.1, id);
            ensure!(
                other.is_none(),
                "{id} and {other:?} are both decision {}",
                now.1
            );
        }
    }
    let gone = book.decided.keys().find(|id| !rows.contains_key(id));
    ensure!(gone.is_none(), "{gone:?} was decided and has no row");
    gapless(&book, &numbers)?;
    for (id, told) in &book.told {
        let row = rows
            .get(id)
            .with_context(|| format!("{id} was told decided and has no row"))?;
        let stands = match row.state {
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
pub(super) fn in_order_of_words(world: &World, rows: &BTreeMap<TransactionId, Row>) -> Result<()> {
    let book = world.facts.book();
    let mut decided: Vec<_> = rows
        .values()
        .filter_map(|row| Some((row.decided?.number, row.half.id)))
        .filter_map(|(number, id)| Some((number, id, *book.spoken.get(&id)?)))
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

/// After a start over a database that was put back: whatever the log has a record of is decided as that says. A decision that
/// neither the database nor the log has may be made anew, unless it was acknowledged and the log has written everything that
/// it was handed until then: the record is handed to it first.
///
/// `before` is what the owner row was before the start.
pub(in super::super) async fn after_a_loss(
    server: &Server,
    world: &World,
    before: &Owner,
) -> Result<()> {
    let reader = world.store.reader();
    let rows = super::rows(&*reader).await?;
    let owner = reader.owner().await?.context("the store has no owner")?;
    let log: &dyn Log = &*server.log;
    let records = records(log)?;
    let mut book = world.facts.book();
    ensure!(
        before.seq >= book.stamped,
        "a database that ends with batch {} was served; the log has seen batch {}",
        before.seq,
        book.stamped
    );
    let newest = records.keys().last().copied().unwrap_or(0);
    ensure!(
        newest <= before.last_decision,
        "a database that ends with decision {} was served; the log has decision {newest}",
        before.last_decision
    );
    for told in records.values() {
        let row = rows.get(&told.id);
        let stands = row.and_then(|row| Some((row.state, row.decided?.number)));
        ensure!(
            stands == Some((told.decision.state(), told.number)),
            "the log has {} as {:?}, decision {}; the database has {stands:?}",
            told.id,
            told.decision,
            told.number
        );
    }
    let open = |id: &TransactionId| rows.get(id).is_none_or(|row| row.decided.is_none());
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
    }
    let given: BTreeSet<u64> = rows
        .values()
        .filter_map(|row| Some(row.decided?.number))
        .collect();
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
