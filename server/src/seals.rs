//! Finding the seal that covers an event: it dates the event.

use std::collections::HashMap;

use coordinator::audit::Event;
use coordinator::audit::seal::Seal;
use coordinator::store::{StoreError, TxReader};

/// The seal of the batch that wrote event `number`, or the next one if that batch is not there; `None` behind the last.
///
/// Seals are numbered from 1 to `last` without gaps and their events grow with them, so this asks for about log2(`last`).
pub(crate) async fn covering(
    reader: &dyn TxReader,
    last: u64,
    number: u64,
) -> Result<Option<Seal>, StoreError> {
    let (mut low, mut high) = (1, last.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let reaches = match reader.seals(middle, 1).await?.first() {
            Some(seal) => end(seal) > number,
            None => true,
        };
        if reaches {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(reader.seals(low, 1).await?.into_iter().next())
}

/// The wall clock (ms since 1970) of the batches that recorded these events, by the events' numbers.
pub(crate) async fn recorded(
    reader: &dyn TxReader,
    last: u64,
    events: &[Event],
) -> Result<HashMap<u64, u64>, StoreError> {
    let mut dates = HashMap::new();
    for event in events {
        let seal = covering(reader, last, event.number).await?;
        if let Some(seal) = seal.filter(|seal| seal.first_event <= event.number) {
            dates.insert(event.number, seal.wall_ms);
        }
    }
    Ok(dates)
}

/// The number behind the seal's last event.
pub(crate) fn end(seal: &Seal) -> u64 {
    seal.first_event.saturating_add(u64::from(seal.count))
}
