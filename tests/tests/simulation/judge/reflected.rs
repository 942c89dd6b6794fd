//! Log and SQL beside each other: what stands before the watermark is in SQL, and SQL knows nothing that the log has not.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use coordinator::engine::half;
use coordinator::store::{Owner, Row, TxStore as _};
use coordinator::transaction::{State, TransactionId};
use mq_core::log::disk::Disk;
use mq_core::log::layout::SEGMENT_HEADER_BYTES;
use mq_core::log::reading::LogReader;
use mq_core::log::{Log as _, Position, Stored};

use super::super::World;
use super::super::facts::{Book, Met};
use super::super::forgetting::Missing;
use super::super::server::Server;

/// While the server runs: compares what has come before the watermark since the last look.
pub(super) async fn news(server: &Server, world: &World) -> Result<()> {
    let reader = world.store.reader();
    let Some(owner) = reader.owner().await? else {
        return Ok(());
    };
    let (begins, begun) = (server.log.range().start, world.facts.book().log_begins);
    let missing = Missing::now(world, server.log.deleted()).await?;
    if begins > begun {
        let rows = super::rows(&*reader).await?;
        nothing_needed_is_deleted(world, &owner, (&rows, &missing), begins)?;
    }
    let from = world.facts.book().compared.max(begins);
    if from >= owner.watermark {
        return Ok(());
    }
    ensure!(
        owner.watermark <= server.log.range().end,
        "SQL knows position {} and the log ends at {}",
        owner.watermark,
        server.log.range().end
    );
    for stored in server.log.scan(from)? {
        let stored = stored?;
        if stored.position >= owner.watermark {
            break;
        }
        if let Some(id) = transaction(&stored) {
            let row = reader.transaction(id).await?;
            let book = world.facts.book();
            reflects(&stored, row.as_ref(), &owner, (&missing, &book))?;
        }
    }
    world.facts.book().compared = owner.watermark;
    Ok(())
}

/// The log on the disk.
pub(super) fn on_disk(world: &World) -> Result<LogReader> {
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    Ok(LogReader::open(disk)?)
}

/// Between two lives: compares everything before the watermark, and looks that the log reaches as far as SQL.
pub(super) fn everything(
    world: &World,
    owner: &Owner,
    (rows, missing): (&BTreeMap<TransactionId, Row>, &Missing),
    log: &LogReader,
) -> Result<()> {
    let mut end = Position(0);
    for stored in log.scan(owner.watermark) {
        let stored = stored?;
        end = stored.next;
        if stored.position < owner.watermark
            && let Some(id) = transaction(&stored)
        {
            let book = world.facts.book();
            reflects(&stored, rows.get(&id), owner, (missing, &book))?;
        }
    }
    nothing_needed_is_deleted(world, owner, (rows, missing), log.start())?;
    let last = rows.values().map(|row| row.half.position).max();
    ensure!(
        last.is_none_or(|last| last < end),
        "SQL knows a half message at {last:?} and the log ends at {end}"
    );
    Ok(())
}

/// What the log has deleted, up to `begins`, SQL reflects, and it held no half message any more that is undecided, or committed
/// and not published.
pub(super) fn nothing_needed_is_deleted(
    world: &World,
    owner: &Owner,
    (rows, missing): (&BTreeMap<TransactionId, Row>, &Missing),
    begins: Position,
) -> Result<()> {
    let mut book = world.facts.book();
    if begins <= book.log_begins || begins.0 <= SEGMENT_HEADER_BYTES {
        return Ok(());
    }
    book.log_begins = begins;
    book.counts.add(Met::Deleted);
    ensure!(
        begins <= owner.watermark,
        "the log begins at {begins} and SQL reflects what stands before {}",
        owner.watermark
    );
    for (id, at) in &book.stored {
        if *at < begins && !rows.contains_key(id) {
            missing.stood(&book, *id)?;
        }
    }
    for row in rows.values().filter(|row| row.stored_at() < begins) {
        let published = |number| number <= owner.published && row.unpublished.is_none();
        let needed = match row.decided {
            None => true,
            Some(decided) => row.state == State::Committed && !published(decided.number),
        };
        let id = row.half.id;
        ensure!(
            !needed,
            "{id} is {:?} at {}, and the log begins at {begins}",
            row.state,
            row.stored_at()
        );
    }
    Ok(())
}

/// The transaction that a record of the coordinator's is about.
fn transaction(stored: &Stored) -> Option<TransactionId> {
    let mark = stored.mark.filter(|mark| mark.owner == half::OWNER)?;
    Some(TransactionId(mark.key))
}

/// A half message has its row, a final or an echo its decision among those that count as published; one that is forgotten had.
fn reflects(
    stored: &Stored,
    row: Option<&Row>,
    owner: &Owner,
    (missing, book): (&Missing, &Book),
) -> Result<()> {
    let mark = stored.mark.context("a record of ours has no mark")?;
    let (at, id) = (stored.position, TransactionId(mark.key));
    let watermark = owner.watermark;
    let Some(row) = row else {
        return was_reflected(stored, id, (missing, book));
    };
    if mark.kind == half::HALF {
        let stated = row.half.position;
        ensure!(stated == at, "{id} stands at {at}, its row says {stated}");
        return Ok(());
    }
    if mark.kind == half::MOVED {
        let (first, moved_to) = (row.half.position, row.moved_to);
        ensure!(
            first == Position(mark.number) && (moved_to >= Some(at) || row.decided.is_some()),
            "{id} was carried to {at}; its row says {first} and {moved_to:?}"
        );
        return Ok(());
    }
    let told = half::recorded(stored)?;
    let decided = row.decided.map(|decided| decided.number);
    ensure!(
        row.state == told.decision.state() && decided == Some(told.number),
        "the log has {id} as {:?}, decision {}; its row says {:?}, decision {decided:?}; the watermark is {watermark}",
        told.decision,
        told.number,
        row.state
    );
    ensure!(
        told.number <= owner.published && row.unpublished.is_none(),
        "decision {} is in the log at {at}; published is {}, the watermark {watermark}, its row says {:?}",
        told.number,
        owner.published,
        row.unpublished
    );
    Ok(())
}

/// A record of a transaction that is forgotten says what was decided.
fn was_reflected(
    stored: &Stored,
    id: TransactionId,
    (missing, book): (&Missing, &Book),
) -> Result<()> {
    let (at, stood) = (stored.position, missing.stood(book, id)?);
    let mark = stored.mark.context("a record of ours has no mark")?;
    if mark.kind == half::HALF {
        bail!("the log has {id} at {at}, and its row is forgotten");
    }
    if mark.kind == half::MOVED {
        let first = stood.half;
        ensure!(
            first == Position(mark.number),
            "{id} was carried to {at}; it stood at {first}"
        );
        return Ok(());
    }
    let told = half::recorded(stored)?;
    ensure!(
        (told.decision.state(), told.number) == (stood.state, stood.number),
        "the log has {id} as {:?}, decision {}; it was {stood:?}",
        told.decision,
        told.number
    );
    Ok(())
}
