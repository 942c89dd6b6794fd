//! Words about transactions that are forgotten: somebody has slept for long, and says what it did, or the opposite.

use anyhow::Result;
use coordinator::client::endpoint::Resolve;
use coordinator::store::TxReader as _;
use coordinator::transaction::{Actor, Resolution};

use super::World;
use super::line::Line;

/// Most words at the end.
const MOST: usize = 50;

/// Says something about any forgotten transaction.
pub(super) async fn somehow(world: &World, line: Line) -> Result<()> {
    let words = forgotten(world).await?;
    let which = world.dice.below(words.len().max(1) as u64) as usize;
    let Some(word) = words.get(which).cloned() else {
        return Ok(());
    };
    let resolution = if world.dice.percent(70) {
        Resolution::Commit
    } else {
        Resolution::RollBack
    };
    tokio::spawn(async move {
        // Whoever says it is gone again before there is an answer.
        let _ = line.say(Resolve { resolution, ..word }).await;
    });
    Ok(())
}

/// Says COMMIT for the forgotten transactions.
pub(super) async fn commit(world: &World, line: &Line) -> Result<()> {
    for word in forgotten(world).await?.into_iter().take(MOST) {
        let resolution = Resolution::Commit;
        // That it is refused is seen on the way.
        let _ = line.say(Resolve { resolution, ..word }).await;
    }
    Ok(())
}

/// The newest words about the transactions that are forgotten.
async fn forgotten(world: &World) -> Result<Vec<Resolve>> {
    let known: Vec<Resolve> = {
        let book = world.facts.book();
        let words = book.words.iter();
        let decided = words.filter(|(id, _)| book.decided.contains_key(id));
        decided.map(|(_, word)| word.clone()).collect()
    };
    let mut forgotten = Vec::new();
    for word in known {
        if world.store.transaction(word.id).await?.is_none() {
            let actor = Actor::Producer;
            forgotten.push(Resolve { actor, ..word });
        }
    }
    Ok(forgotten)
}
