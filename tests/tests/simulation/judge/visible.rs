//! What consumers can read: finals of committed transactions, each once, and what was read at a place stays there.

use std::ops::Range;

use anyhow::{Result, ensure};
use coordinator::store::TxStore as _;
use coordinator::transaction::{State, TransactionId};
use mq_core::log::Log as _;

use super::super::World;
use super::super::facts::{Kind, Place};
use super::super::forgetting::Missing;
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
        let Range { start, end } = server.offsets(queue)?;
        let begins = server.log.range().start;
        world.facts.book().are_deleted(queue, start, begins)?;
        let from = from.max(start);
        for (expected, one) in (from..).zip(&new) {
            ensure!(
                one.offset == expected,
                "queue {queue} has a gap before offset {}",
                one.offset
            );
            once(world, (queue, one.offset), (one.what, one.checksum))?;
            if let Kind::Final(id) = one.what {
                is_committed(server, world, id).await?;
            }
        }
        let expected = new.last().map_or(from, |last| last.offset + 1);
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

fn once(world: &World, place: Place, bytes: (Kind, u32)) -> Result<()> {
    let mut book = world.facts.book();
    let known = *book.read.entry(place).or_insert(bytes);
    ensure!(
        known == bytes,
        "what stands at {place:?} was {known:?} and is {bytes:?}"
    );
    book.stands(place, bytes.0)
}

async fn is_committed(server: &Server, world: &World, id: TransactionId) -> Result<()> {
    let before = {
        let book = world.facts.book();
        // Whoever has lost its database under its feet has published what that one said.
        book.decided
            .get(&id)
            .filter(|_| book.put_back)
            .map(|stood| stood.state)
    };
    let row = world.store.reader().transaction(id).await?;
    let state = match before.or(row.map(|row| row.state)) {
        Some(state) => state,
        None => {
            let missing = Missing::now(world, server.log.deleted()).await?;
            missing.stood(&world.facts.book(), id)?.state
        }
    };
    ensure!(state == State::Committed, "{id} is published and {state:?}");
    Ok(())
}
