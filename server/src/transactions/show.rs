//! `halfmoon tx show`: one transaction with its whole history.

use std::time::Duration;

use coordinator::audit::Step;
use coordinator::transaction::TransactionId;
use serde::Serialize;

use super::no_such;
use super::view::{StepView, TransactionView, tone};
use crate::date;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::{Cell, Output};
use crate::seals;

#[derive(Debug, Serialize)]
struct Shown {
    transaction: TransactionView,
    history: Vec<StepView>,
}

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
    let owner = reader.owner().await?;
    let transaction = TransactionView::new(&row, owner.map_or(0, |owner| owner.published));
    let events = reader.events(id).await?;
    let recorded = seals::recorded(&*reader, owner.map_or(0, |owner| owner.seq), &events).await?;
    let history: Vec<_> = events
        .iter()
        .map(|event| StepView::new(event, recorded.get(&event.number).copied()))
        .collect();
    if output.is_json() {
        return output.value(&Shown {
            transaction,
            history,
        });
    }
    fields(&transaction, output)?;
    output.line("")?;
    steps(&history, output)
}

fn fields(view: &TransactionView, output: &mut Output) -> Result<(), Failure> {
    let optional = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
    let open = view
        .open_us
        .map(|us| date::duration(Duration::from_micros(us)));
    let rows = [
        ("id", Cell::from(view.id.as_str())),
        ("outcome", Cell::toned(view.outcome, tone(view.outcome))),
        ("producer group", Cell::from(view.producer_group.as_str())),
        ("topic", Cell::from(view.topic.as_str())),
        ("body bytes", Cell::from(view.body_len.to_string())),
        ("decided after", optional(&open)),
        (
            "checks without an answer",
            Cell::from(view.checks.to_string()),
        ),
        ("repeated", Cell::from(view.repeats.to_string())),
        ("contradicted", Cell::from(view.contradictions.to_string())),
        ("not published because", optional(&view.unpublished_reason)),
        ("marker database", optional(&view.marker)),
        ("sender", optional(&view.sender)),
        (
            "half message at",
            Cell::from(format!("position {}", view.position)),
        ),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, value)| vec![Cell::from(name), value])
        .collect();
    output.table(&["field", "value"], &rows)
}

fn steps(history: &[StepView], output: &mut Output) -> Result<(), Failure> {
    let rows: Vec<_> = history
        .iter()
        .map(|step| {
            let words = match step.from_step {
                // Two steps that met in one batch share a row.
                None if step.then_at.is_some() && step.step != Step::Prepared.word() => {
                    format!("prepared, then {}", step.step)
                }
                _ => step.step.to_owned(),
            };
            vec![
                Cell::from(step.event.to_string()),
                Cell::from(step.recorded_at.clone().unwrap_or_default()),
                Cell::from(words),
                Cell::from(step.actor),
                Cell::from(step.source.as_str()),
                Cell::from(step.evidence.as_str()),
            ]
        })
        .collect();
    output.table(
        &[
            "event",
            "recorded at",
            "step",
            "actor",
            "source",
            "evidence",
        ],
        &rows,
    )
}
