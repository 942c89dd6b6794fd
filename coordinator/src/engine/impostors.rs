//! Half messages that carry the transaction id of another: only a client that breaks the rule of new ids can make one.
//!
//! SQL refuses their rows. They are looked for once that has happened, and given up: nobody can decide them, nothing is ever
//! published of them, and everybody else goes on.

use std::collections::HashSet;

use mq_core::log::Position;

use super::ledger::Ledger;
use crate::store::{Half, StoreError, TxReader};

/// The half messages among those held back whose id belongs to another one, in SQL or held back before them.
///
/// # Errors
/// [`StoreError`].
async fn find(ledger: &Ledger, reader: &dyn TxReader) -> Result<Vec<Position>, StoreError> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for half in ledger.held_halves() {
        let stored = reader.transaction(half.id).await?;
        let taken = stored.is_some_and(|row| row.half.position != half.position);
        if taken || !seen.insert(half.id) {
            found.push(half.position);
        }
    }
    Ok(found)
}

/// Gives up all of them; returns what was given up.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn give_up(
    ledger: &mut Ledger,
    reader: &dyn TxReader,
) -> Result<Vec<Half>, StoreError> {
    let found = find(ledger, reader).await?;
    let given_up: Vec<Half> = found.iter().filter_map(|at| ledger.give_up(*at)).collect();
    for half in &given_up {
        tracing::error!(
            transaction = %half.id,
            position = %half.position,
            group = %half.group,
            "a half message carries the id of another transaction and is given up; its client must make a new id for each"
        );
    }
    Ok(given_up)
}
