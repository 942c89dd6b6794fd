//! `halfmoon audit export`: events and seals as lines of JSON, page by page.

use std::fmt::Write as _;

use coordinator::audit::seal::Seal;
use coordinator::store::TxReader;
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;
use crate::seals;
use crate::transactions::StepView;

/// Events read at once: some 200 KB.
const EVENTS_PAGE: u32 = 1_000;
/// Seals read at once: at most some 400 KB.
const SEALS_PAGE: u32 = 100;

/// A seal as the export prints it.
#[derive(Debug, Serialize)]
struct SealView {
    seal: u64,
    first_event: u64,
    count: u32,
    published: u64,
    wall_ms: u64,
    hash: String,
    /// A short hash for each event, in hex, one behind the other.
    leaves: String,
}

impl SealView {
    fn new(seal: &Seal) -> Self {
        let mut leaves = String::with_capacity(seal.leaves.len() * 2);
        for byte in &seal.leaves {
            write!(leaves, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Self {
            seal: seal.seq,
            first_event: seal.first_event,
            count: seal.count,
            published: seal.published,
            wall_ms: seal.wall_ms,
            hash: seal.hash.to_string(),
            leaves,
        }
    }
}

/// Seals lead: an event is committed together with its seal, so that what the seal covers can be read once the seal is.
pub(super) async fn run(
    folder: &Folder,
    from: u64,
    to: Option<u64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let to = to.unwrap_or(u64::MAX);
    if to < from {
        return Err(Failure::Environment(format!(
            "--to {to} is before --from {from}; give a later number"
        )));
    }
    let reader = folder.reader().await?;
    let Some(owner) = reader.owner().await? else {
        return Ok(());
    };
    let first = if from == 1 {
        1
    } else {
        match seals::covering(&*reader, owner.seq, from).await? {
            Some(seal) => seal.seq,
            None => return Ok(()),
        }
    };
    let mut next_seal = first;
    let mut next_event = from;
    loop {
        let page = reader.seals(next_seal, SEALS_PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        next_seal = last.seq + 1;
        for seal in &page {
            if seal.first_event > to || seal.seq > owner.seq {
                return Ok(());
            }
            let behind = seals::end(seal).min(to.saturating_add(1));
            events(&*reader, next_event, behind, output).await?;
            next_event = next_event.max(behind);
            output.value(&SealView::new(seal))?;
        }
    }
}

/// Prints the events from `from` up to, not including, `behind`.
async fn events(
    reader: &dyn TxReader,
    mut from: u64,
    behind: u64,
    output: &mut Output,
) -> Result<(), Failure> {
    while from < behind {
        let left = u32::try_from(behind - from).unwrap_or(u32::MAX);
        let page = reader.history(from, left.min(EVENTS_PAGE)).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        from = last.number + 1;
        for event in page.iter().filter(|event| event.number < behind) {
            output.value(&StepView::new(event, None))?;
        }
    }
    Ok(())
}
