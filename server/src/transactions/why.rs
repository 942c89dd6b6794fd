//! `halfmoon tx why`: the seven steps of one transaction, in words.

use std::collections::HashMap;

use coordinator::audit::why::explain;
use coordinator::transaction::TransactionId;

use super::no_such;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;
use crate::seals;

pub(super) async fn run(
    folder: &Folder,
    id: TransactionId,
    output: &mut Output,
) -> Result<(), Failure> {
    let reader = folder.reader().await?;
    let row = reader
        .transaction(id)
        .await?
        .ok_or_else(|| no_such(id, folder))?;
    let events = reader.events(id).await?;
    let owner = reader.owner().await?;
    let recorded: HashMap<u64, u64> =
        seals::recorded(&*reader, owner.map_or(0, |owner| owner.seq), &events).await?;
    let published = owner.map_or(0, |owner| owner.published);
    let explanation = explain(&row, &events, published, |event| {
        recorded.get(&event).copied()
    });
    if output.is_json() {
        return output.value(&explanation);
    }
    output.line(&format!(
        "{}: {}",
        explanation.transaction, explanation.outcome
    ))?;
    for step in &explanation.steps {
        output.line("")?;
        output.line(&format!("{}. {}", step.number, step.name))?;
        for line in &step.lines {
            output.line(&format!("   {line}"))?;
        }
    }
    Ok(())
}
