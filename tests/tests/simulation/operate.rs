//! An operator, who asks about open transactions and decides them.

use anyhow::Result;
use coordinator::engine::Coordinator;
use coordinator::store::{Filter, Row, TxStore as _};
use coordinator::transaction::{Decision, State};

use super::World;
use super::facts::Met;

/// Does something about any of the open transactions.
pub(super) async fn somehow(world: &World, coordinator: &Coordinator) -> Result<()> {
    let mut open = open(world, State::Parked).await?;
    open.append(&mut self::open(world, State::Prepared).await?);
    let which = world.dice.below(open.len().max(1) as u64) as usize;
    let Some(row) = open.get(which) else {
        return Ok(());
    };
    let (id, coordinator, facts) = (row.half.id, coordinator.clone(), world.facts.clone());
    facts.met(Met::Operator);
    facts.book().demanded.insert(id);
    let decision = match world.dice.below(4) {
        0 => Some(Decision::Commit),
        1 => Some(Decision::RollBack),
        _ => None,
    };
    tokio::spawn(async move {
        let invoked = facts.book().now();
        let Some(decision) = decision else {
            // Nobody can answer, or it is decided already: the operator is told.
            let _ = coordinator.ask_again(id, "operator").await;
            return;
        };
        let decided = coordinator.decide_for(id, decision, "operator", false);
        if let Ok(outcome) = decided.await {
            facts.answered(id, decision, invoked, &outcome);
        }
    });
    Ok(())
}

/// Has all parked transactions asked about that have a marker; returns how many there are.
pub(super) async fn ask_about_parked(world: &World, coordinator: &Coordinator) -> Result<usize> {
    let parked = open(world, State::Parked).await?;
    let mut count = 0;
    for row in parked.iter().filter(|row| row.half.marker.is_some()) {
        count += 1;
        world.facts.book().demanded.insert(row.half.id);
        // Decided meanwhile: fine.
        let _ = coordinator.ask_again(row.half.id, "operator").await;
    }
    Ok(count)
}

async fn open(world: &World, state: State) -> Result<Vec<Row>> {
    let filter = Filter {
        state: Some(state),
        limit: 100,
        ..Filter::default()
    };
    Ok(world.store.reader().list(&filter).await?)
}
