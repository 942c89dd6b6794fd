//! The invariants: what must hold at any moment, after every crash, and once everything is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator::audit::Step;
use coordinator::store::{Filter, Row, TxReader, TxStore as _};
use coordinator::transaction::{Decision, State, TransactionId};
use coordinator::verify::{Subject, verify};
use mq_core::log::Log as _;
use mq_core::log::reading::LogReader;
use sha2::{Digest as _, Sha256};

use super::World;
use super::facts::{Counts, Met};
use super::life::Server;
use super::services::QUEUES;

/// Looks every now and then, as consumers do. Returns only if something is wrong.
pub(super) async fn watch(server: &Server, world: &World) -> Result<()> {
    loop {
        tokio::time::sleep(world.dice.time(Duration::from_millis(200))).await;
        visible(server, world).await?;
    }
}

/// No final is visible before its COMMIT is durable, none of anything else, each once, and what was read at a place stays.
async fn visible(server: &Server, world: &World) -> Result<()> {
    let reader = world.store.reader();
    let mut seen = BTreeSet::new();
    for queue in 0..QUEUES {
        let readable = match server.readable(queue) {
            Ok(readable) => readable,
            // The disk is gone: nobody reads anything.
            Err(_) if server.log.failure().borrow().is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        for (expected, (offset, id)) in (0_u64..).zip(readable) {
            ensure!(
                offset == expected,
                "queue {queue} has a gap before offset {offset}"
            );
            ensure!(seen.insert(id), "{id} is published twice");
            let known = *world.facts.book().read.entry((queue, offset)).or_insert(id);
            ensure!(
                known == id,
                "queue {queue} offset {offset} was {known} and is {id}"
            );
            let row = reader
                .transaction(id)
                .await?
                .with_context(|| format!("{id} is published without a row"))?;
            ensure!(
                row.state == State::Committed,
                "{id} is published and {:?}",
                row.state
            );
        }
    }
    Ok(())
}

/// After a crash: what SQL says of decisions never changes, and agrees with what was told.
pub(super) async fn history(world: &World) -> Result<()> {
    let rows = rows(&*world.store.reader()).await?;
    let mut book = world.facts.book();
    let mut numbers = BTreeMap::new();
    for row in rows.values() {
        let (id, decided) = (row.half.id, row.decided);
        ensure!(
            row.state.is_decided() == decided.is_some(),
            "{id} is half decided"
        );
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
    let gapless = numbers.keys().copied().eq(1..=numbers.len() as u64);
    ensure!(gapless, "decisions are not numbered without gaps");
    for (id, told) in &book.told {
        let row = rows
            .get(id)
            .with_context(|| format!("{id} was told decided and has no row"))?;
        let stands = match row.state {
            State::Committed => Decision::Commit,
            State::RolledBack => Decision::RollBack,
            other @ (State::Prepared | State::Parked) => {
                anyhow::bail!("{id} was told decided and is {other:?}")
            }
        };
        ensure!(
            told.iter().all(|told| *told == stands),
            "{id} was told {told:?} and is {stands:?}"
        );
    }
    Ok(())
}

/// Once healed: nothing stored is missing, everything is decided, committed exactly if the local transaction is, published
/// exactly once and in the order of decisions, and the history proves itself. Returns a digest of what stands.
pub(super) async fn end(server: &Server, world: &World) -> Result<(String, Counts)> {
    history(world).await?;
    visible(server, world).await?;
    let reader: Arc<dyn TxReader> = world.store.reader();
    let rows = rows(&*reader).await?;
    let mut digest = Sha256::new();
    let mut published = BTreeSet::new();
    for queue in 0..QUEUES {
        let mut last = 0;
        for (offset, id) in server.readable(queue)? {
            let number = rows
                .get(&id)
                .and_then(|row| row.decided)
                .context("published and undecided")?
                .number;
            if number > last {
                last = number;
            } else {
                // Only what the log could not take at its time may come later.
                let events = reader.events(id).await?;
                let late = events.iter().any(|event| event.to == Step::Unpublished);
                ensure!(
                    late,
                    "queue {queue}: decision {number} stands behind {last}"
                );
                world.facts.book().counts.add(Met::PublishedLate);
            }
            published.insert(id);
            digest.update(format!("{queue}/{offset}: {id}\n"));
        }
    }
    let counts = agree(world, &rows, &published, &mut digest)?;
    let log = Arc::new(LogReader::open(Arc::new(world.disk.clone()))?);
    let subject = Subject {
        reader: &reader,
        log: Some(&log),
        recorded_contradictions: 8,
    };
    let report = verify(&subject, &*world.dice, &Arc::default()).await?;
    ensure!(
        report.findings.is_empty(),
        "the history does not prove itself: {:?}",
        report.findings
    );
    let owner = report.owner.context("the store has no owner")?;
    ensure!(
        owner.watermark <= server.log.range().end,
        "SQL knows more than the log"
    );
    digest.update(format!("{owner:?}"));
    let digest = digest.finalize();
    Ok((
        digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        counts,
    ))
}

/// What was stored, decided, published and done in the services' database is the same.
fn agree(
    world: &World,
    rows: &BTreeMap<TransactionId, Row>,
    published: &BTreeSet<TransactionId>,
    digest: &mut Sha256,
) -> Result<Counts> {
    let mut book = world.facts.book();
    for id in &book.stored {
        ensure!(rows.contains_key(id), "{id} was stored and has no row");
    }
    for row in rows.values() {
        let id = row.half.id;
        let committed = row.state == State::Committed;
        ensure!(
            committed == published.contains(&id),
            "{id} is {:?}, published: {}",
            row.state,
            !committed
        );
        if row.half.marker.is_some() {
            ensure!(
                row.state != State::Parked,
                "{id} has a marker and is parked"
            );
            ensure!(
                committed == book.business.contains(&id),
                "{id} is {:?}, its local transaction is otherwise",
                row.state
            );
        }
        digest.update(format!("{row:?}\n"));
    }
    for row in rows.values() {
        match row.state {
            State::Prepared => {}
            State::Committed => book.counts.add(Met::Commit),
            State::RolledBack => book.counts.add(Met::RollBack),
            State::Parked => book.counts.add(Met::Parked),
        }
    }
    Ok(book.counts.clone())
}

async fn rows(reader: &dyn TxReader) -> Result<BTreeMap<TransactionId, Row>> {
    let all = Filter {
        limit: u32::MAX,
        ..Filter::default()
    };
    let rows = reader.list(&all).await?;
    let count = rows.len();
    let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.half.id, row)).collect();
    ensure!(rows.len() == count, "an id has two rows");
    Ok(rows)
}
