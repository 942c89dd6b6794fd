//! What consumers can read: finals of committed transactions, each once, and what was read at a place stays there.

use anyhow::{Context as _, Result, ensure};
use coordinator::store::TxStore as _;
use coordinator::transaction::{State, TransactionId};

use super::super::World;
use super::super::server::Server;
use super::super::services::QUEUES;

/// Looks at what has come since the last look in this life; at everything in the first one.
pub(super) async fn look(server: &Server, world: &World) -> Result<()> {
    for queue in 0..QUEUES {
        let from = server.read_to(queue);
        let new = match server.readable(queue, from) {
            Ok(new) => new,
            // The disk is gone: nobody reads anything.
            Err(_) if server.log.failure().borrow().is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        // The oldest may be deleted.
        let from = new.first().map_or(from, |first| first.offset.max(from));
        for (expected, one) in (from..).zip(&new) {
            ensure!(
                one.offset == expected,
                "queue {queue} has a gap before offset {}",
                one.offset
            );
            once(world, queue, one.offset, (one.id, one.checksum))?;
            is_committed(world, one.id).await?;
        }
        let end = server.queue_end(queue)?;
        let expected = new.last().map_or(end, |last| last.offset + 1);
        ensure!(
            end == expected,
            "queue {queue} ends at offset {end}, its last message is {expected} - 1"
        );
        let read = world
            .facts
            .book()
            .read
            .range((queue, end)..(queue, u64::MAX))
            .count();
        ensure!(
            read == 0,
            "queue {queue} ends at offset {end}; {read} more could be read before"
        );
        server.set_read_to(queue, end);
    }
    Ok(())
}

/// The next look looks at everything again.
pub(super) fn forget(server: &Server) {
    (0..QUEUES).for_each(|queue| server.set_read_to(queue, 0));
}

fn once(world: &World, queue: u32, offset: u64, bytes: (TransactionId, u32)) -> Result<()> {
    let (mut book, place, id) = (world.facts.book(), (queue, offset), bytes.0);
    let known = *book.read.entry(place).or_insert(bytes);
    ensure!(
        known == bytes,
        "queue {queue} offset {offset} was {known:?} and is {bytes:?}"
    );
    let first = *book.finals.entry(id).or_insert(place);
    ensure!(
        first == place,
        "{id} is published at {first:?} and {place:?}"
    );
    Ok(())
}

async fn is_committed(world: &World, id: TransactionId) -> Result<()> {
    let before = {
        let book = world.facts.book();
        // Whoever has lost its database under its feet has published what that one said.
        book.decided
            .get(&id)
            .filter(|_| book.put_back)
            .map(|(state, _)| *state)
    };
    let row = world.store.reader().transaction(id).await?;
    let state = before.or(row.map(|row| row.state));
    let state = state.with_context(|| format!("{id} is published without a row"))?;
    ensure!(state == State::Committed, "{id} is published and {state:?}");
    Ok(())
}
