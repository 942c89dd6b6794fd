//! `halfmoon tx list` and `tx parked`: transactions in the order they were stored.

use std::time::Duration;

use coordinator::store::{Filter, Row};
use coordinator::transaction::State;
use serde::Serialize;

use super::view::{TransactionView, tone};
use super::{Page, WantedState, no_such};
use crate::date;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::{Cell, Output};

#[derive(Debug, Serialize)]
struct List {
    transactions: Vec<TransactionView>,
    /// For `--after`, if there are more.
    next: Option<String>,
}

pub(super) async fn run(
    folder: &Folder,
    state: Option<WantedState>,
    page: Page,
    output: &mut Output,
) -> Result<(), Failure> {
    let reader = folder.reader().await?;
    let published = reader.owner().await?.map_or(0, |owner| owner.published);
    let after = match page.after {
        Some(id) => {
            let row = reader.transaction(id).await?;
            Some(row.ok_or_else(|| no_such(id, folder))?.half.position)
        }
        None => None,
    };
    let limit = page.limit;
    let mut rows = reader
        .list(&Filter {
            state: state.and_then(stored_state),
            unpublished: state == Some(WantedState::Unpublished),
            group: page.group,
            topic: page.topic,
            after,
            // One more tells whether there are more.
            limit: limit + 1,
        })
        .await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| row.half.id.to_string());
    let transactions: Vec<_> = rows
        .iter()
        .map(|row| TransactionView::new(row, published))
        .collect();
    if output.is_json() {
        return output.value(&List { transactions, next });
    }
    let lines: Vec<_> = rows
        .iter()
        .zip(&transactions)
        .map(|(row, view)| line(row, view))
        .collect();
    output.table(
        &[
            "id",
            "outcome",
            "group",
            "topic",
            "bytes",
            "decided after",
            "checks",
            "note",
        ],
        &lines,
    )?;
    if let Some(next) = next {
        eprintln!("there are more; the next page: --after {next}");
    }
    Ok(())
}

const fn stored_state(wanted: WantedState) -> Option<State> {
    match wanted {
        WantedState::Prepared => Some(State::Prepared),
        WantedState::Parked => Some(State::Parked),
        WantedState::Committed => Some(State::Committed),
        WantedState::RolledBack => Some(State::RolledBack),
        WantedState::Unpublished => None,
    }
}

fn line(row: &Row, view: &TransactionView) -> Vec<Cell> {
    let open = view
        .open_us
        .map(|us| date::duration(Duration::from_micros(us)).replace(' ', ""));
    let checks = if row.checks == 0 {
        String::new()
    } else {
        row.checks.to_string()
    };
    vec![
        Cell::from(view.id.as_str()),
        Cell::toned(view.outcome, tone(view.outcome)),
        Cell::from(view.producer_group.as_str()),
        Cell::from(view.topic.as_str()),
        Cell::from(view.body_len.to_string()),
        Cell::from(open.unwrap_or_default()),
        Cell::from(checks),
        Cell::from(note(view)),
    ]
}

/// What is unusual about a transaction.
fn note(view: &TransactionView) -> String {
    let mut notes = Vec::new();
    if let Some(reason) = &view.unpublished_reason {
        notes.push(reason.clone());
    }
    if view.contradictions > 0 {
        notes.push(format!("contradicted {} times", view.contradictions));
    }
    notes.join("; ")
}
