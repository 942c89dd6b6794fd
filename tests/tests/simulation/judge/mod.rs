//! The invariants: what must hold at any moment, after every crash, and once everything is healed.
//!
//! | file | looks at |
//! |---|---|
//! | `visible` | what consumers can read |
//! | `decisions` | what SQL says of decisions, and what was told |
//! | `reflected` | log and SQL beside each other |
//! | `asked` | check-backs |

pub(super) mod asked;
pub(super) mod decisions;
mod reflected;
mod visible;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator::marker::Marker;
use coordinator::store::{Filter, Row, TxReader, TxStore as _};
use coordinator::transaction::{State, TransactionId};
use coordinator::verify::{Subject, verify};
use mq_core::log::Log as _;
use mq_core::log::reading::LogReader;
use sha2::{Digest as _, Sha256};

use super::World;
use super::facts::{Counts, Kind, Met};
use super::forgetting::Missing;
use super::server::Server;
use super::services::QUEUES;

/// Looks every now and then, as consumers do. Returns only if something is wrong.
pub(super) async fn watch(server: &Server, world: &World) -> Result<()> {
    loop {
        tokio::time::sleep(world.dice.time(Duration::from_millis(200))).await;
        // The disk is gone: nobody reads anything.
        if server.log.failure().borrow().is_some() {
            world.facts.book().check()?;
            continue;
        }
        look(server, world).await?;
    }
}

/// All that must hold at any moment.
async fn look(server: &Server, world: &World) -> Result<()> {
    world.facts.book().check()?;
    server.time_passes(world)?;
    markers(world)?;
    visible::look(server, world).await?;
    // The process has not noticed yet, and will say nothing any more.
    let put_back = world.facts.book().put_back;
    if !put_back {
        reflected::news(server, world).await?;
    }
    Ok(())
}

/// A marker never changes, only the library deletes any, and one says that the local transaction is committed exactly if the
/// business row stands.
fn markers(world: &World) -> Result<()> {
    let (now, business) = (world.tables.markers.all(), world.tables.business());
    let mut book = world.facts.book();
    for (id, before) in &book.markers {
        let stands = now.get(id);
        let deleted = stands.is_none() && *before == Marker::Committed && book.pruned.contains(id);
        ensure!(
            stands == Some(before) || deleted,
            "the marker of {id} was {before:?} and is {stands:?}"
        );
    }
    for (id, stands) in &now {
        // Where a marker was deleted, whoever is asked late plants a tombstone: all is decided.
        let fits = match stands {
            Marker::Committed => business.contains(id),
            Marker::Tombstone => !business.contains(id) || book.pruned.contains(id),
        };
        let has = business.contains(id);
        ensure!(
            fits,
            "the marker of {id} is {stands:?}, its business row is there: {has}"
        );
    }
    for id in &business {
        ensure!(
            now.contains_key(id) || book.pruned.contains(id),
            "{id} has a business row and no marker, and nobody has deleted one"
        );
    }
    book.markers = now;
    Ok(())
}

/// After every life: what SQL says of decisions never changes, agrees with what was told, and is as old as the log.
pub(super) async fn after_a_life(world: &World) -> Result<()> {
    world.facts.book().check()?;
    markers(world)?;
    let put_back = world.facts.book().put_back;
    if put_back {
        return Ok(());
    }
    let reader = world.store.reader();
    let rows = rows(&*reader).await?;
    let log = reflected::on_disk(world)?;
    let missing = Missing::now(world, log.start()).await?;
    decisions::stand(world, &rows, &missing)?;
    if let Some(owner) = reader.owner().await? {
        reflected::everything(world, &owner, (&rows, &missing), &log)?;
    }
    Ok(())
}

/// Once healed: nothing stored is missing, everything is decided, committed exactly if the local transaction is, published
/// exactly once and in the order of decisions, and the history proves itself. Returns a digest of what stands.
pub(super) async fn end(server: &Server, world: &World) -> Result<(String, Counts)> {
    visible::forget(server);
    look(server, world).await?;
    after_a_life(world).await?;
    let reader: Arc<dyn TxReader> = world.store.reader();
    let rows = rows(&*reader).await?;
    let missing = Missing::now(world, server.log.deleted()).await?;
    decisions::in_order_of_words(world)?;
    decisions::before_what_came_later(world)?;
    let mut digest = Sha256::new();
    let mut published = BTreeSet::new();
    for queue in 0..QUEUES {
        let mut last = 0;
        for read in server.readable(queue, 0)? {
            digest.update(format!("{queue}/{}: {:?}\n", read.offset, read.what));
            let Kind::Final(id) = read.what else { continue };
            let stood = world.facts.book().decided.get(&id).copied();
            let number = stood.context("published and undecided")?.number;
            if number > last {
                last = number;
            } else {
                // Only what the log could not take at its time may come later.
                let mut book = world.facts.book();
                ensure!(
                    book.late.contains(&id),
                    "queue {queue}: decision {number} stands behind {last}"
                );
                book.counts.add(Met::PublishedLate);
            }
            published.insert(id);
        }
    }
    let counts = agree(world, (&rows, &missing), &published, &mut digest)?;
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
    (rows, missing): (&BTreeMap<TransactionId, Row>, &Missing),
    published: &BTreeSet<TransactionId>,
    digest: &mut Sha256,
) -> Result<Counts> {
    let business = world.tables.business();
    let mut book = world.facts.book();
    let mut ends = BTreeMap::new();
    for (id, row) in rows {
        ends.insert(*id, (row.state, row.half.marker.is_some()));
        digest.update(format!("{row:?}\n"));
    }
    for id in book.stored.keys().chain(book.decided.keys()) {
        if !rows.contains_key(id) {
            let stood = missing.stood(&book, *id)?;
            ends.insert(*id, (stood.state, stood.has_marker));
            digest.update(format!("{stood:?}\n"));
        }
    }
    for (id, (state, has_marker)) in ends {
        let committed = state == State::Committed;
        ensure!(
            committed == (published.contains(&id) || book.finals.contains_key(&id)),
            "{id} is {state:?}, published: {}",
            !committed
        );
        if has_marker {
            ensure!(state != State::Parked, "{id} has a marker and is parked");
            ensure!(
                committed == business.contains(&id) || book.unproved.contains(&id),
                "{id} is {state:?}, its local transaction is otherwise"
            );
        }
        match state {
            State::Prepared => {}
            State::Committed => book.counts.add(Met::Commit),
            State::RolledBack => book.counts.add(Met::RollBack),
            State::Parked => book.counts.add(Met::Parked),
        }
    }
    Ok(book.counts.clone())
}

/// Everything that SQL has, by transaction.
pub(super) async fn rows(reader: &dyn TxReader) -> Result<BTreeMap<TransactionId, Row>> {
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
