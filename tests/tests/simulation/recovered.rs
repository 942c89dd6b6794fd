//! What stands in SQL and in the log between two starts: a recovery that is done again changes nothing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coordinator::audit::Event;
use coordinator::audit::seal::Seal;
use coordinator::store::{Forgotten, Owner, Row, TxReader as _};
use mq_core::log::reading::LogReader;
use mq_core::log::{Mark, Position};

use super::World;
use super::judge;

/// How long a server without clients is left alone, once everything is published.
pub(super) const QUIET: Duration = Duration::from_millis(200);

/// Everything that stands in SQL and in the log while no server runs.
#[derive(Debug)]
pub(super) struct Left {
    owner: Owner,
    forgotten: Forgotten,
    rows: Vec<Row>,
    events: Vec<Event>,
    seals: Vec<Seal>,
    /// Position, mark and a checksum of the bytes of each record.
    log: Vec<(Position, Option<Mark>, u32)>,
}

impl Left {
    /// What there is now.
    pub(super) async fn now(world: &World) -> Result<Self> {
        let store = &world.store;
        let owner = store.owner().await?.context("the store has no owner")?;
        let reader = LogReader::open(Arc::new(world.disk.clone()))?;
        let mut log = Vec::new();
        for stored in reader.scan(Position(0)) {
            let stored = stored?;
            log.push((stored.position, stored.mark, crc32fast::hash(&stored.bytes)));
        }
        Ok(Self {
            owner,
            forgotten: store.forgotten().await?,
            rows: judge::rows(store).await?.into_values().collect(),
            events: store.history(0, u32::MAX).await?,
            seals: store.seals(0, u32::MAX).await?,
            log,
        })
    }

    /// One more start has made `again` of this: nothing has changed but the epoch in the owner row, by one, and the row's own
    /// fingerprint.
    pub(super) fn stays(&self, again: &Self) -> Result<()> {
        let expected = Owner {
            epoch: self.owner.epoch + 1,
            fingerprint: again.owner.fingerprint,
            ..self.owner
        };
        same("the owner row", &expected, &again.owner)?;
        same("how far is forgotten", &self.forgotten, &again.forgotten)?;
        same_list("row", &self.rows, &again.rows)?;
        same_list("event", &self.events, &again.events)?;
        same_list("seal", &self.seals, &again.seals)?;
        same_list("record in the log", &self.log, &again.log)
    }
}

fn same<T: Debug + PartialEq>(what: &str, before: &T, after: &T) -> Result<()> {
    ensure!(before == after, "{what} was {before:?} and is {after:?}");
    Ok(())
}

fn same_list<T: Debug + PartialEq>(what: &str, before: &[T], after: &[T]) -> Result<()> {
    let count = before.len().max(after.len());
    for at in 0..count {
        same(&format!("{what} {at}"), &before.get(at), &after.get(at))?;
    }
    Ok(())
}
