//! Check-backs: nobody is asked before it is time, and no answer is counted that did not come.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use coordinator::client::check_back::Asked;
use coordinator::engine::half;
use coordinator::store::{Half, Row, TxReader as _};
use coordinator::transaction::State;
use mq_core::log::{Log as _, ReadError};

use super::super::facts::{Book, Met};
use super::super::line::Line;
use super::super::server::{BUDGET, FIRST_WAIT};

/// How long a sender must be gone before another is asked, as documented.
const GRACE: Duration = Duration::from_millis(500);
/// How long a producer without markers is left alone, as documented.
const IMMUNITY: Duration = Duration::from_secs(6);

/// Takes note that the process `whom` is asked, and says why that is too early.
pub(in super::super) fn may_be(line: &Line, asked: &Asked, whom: u128) -> Result<()> {
    let (half, immunity) = match line.log.read(asked.position) {
        Err(ReadError::Gone(_)) => match carried(line, asked)? {
            Some(found) => found,
            None => return Ok(()),
        },
        stored => {
            let read = half::read(&stored?)?;
            (read.half, read.immunity)
        }
    };
    ensure!(half.id == asked.id, "the record is that of {}", half.id);
    let own = half.sender.is_some_and(|sender| sender.0 == whom);
    let demanded = {
        let mut book = line.facts.book();
        *book.asked.entry(asked.id).or_default() += 1;
        book.counts.add(Met::CheckBack);
        book.counts.add_many(Met::CheckOfAnother, u64::from(!own));
        book.demanded.contains(&asked.id)
    };
    let age = line.log.now().since(half.prepared_at);
    let sender = half.sender.context("it has no sender")?.0;
    if half.marker.is_none() && !demanded {
        let immune = immunity.unwrap_or(IMMUNITY);
        ensure!(age >= immune, "after {age:?}; immune for {immune:?}");
    }
    if own {
        let first = immunity.unwrap_or(FIRST_WAIT);
        let is_back = age > line.connections.connected_for(sender);
        let due = half.marker.is_none() || demanded || age >= first || is_back;
        ensure!(due, "its sender is asked after {age:?}, before {first:?}");
    } else {
        let gone = line.connections.gone_for(sender);
        let gone = gone.context("another than its sender is asked, which is connected")?;
        ensure!(
            gone >= GRACE,
            "another is asked when its sender is gone for {gone:?}"
        );
    }
    Ok(())
}

/// A half message that is no longer where it was stored first, and the immunity that it asks for; `None` if its row is lost
/// with the database.
fn carried(line: &Line, asked: &Asked) -> Result<Option<(Half, Option<Duration>)>> {
    let row = pin!(line.store.transaction(asked.id));
    // The model answers at once.
    let Poll::Ready(row) = row.poll(&mut Context::from_waker(Waker::noop())) else {
        bail!("the model of the store takes its time");
    };
    if line.facts.book().put_back {
        return Ok(None);
    }
    let Some(row) = row? else {
        // It was on its way to be asked about when it was decided, and forgotten.
        let stood = line.facts.book().decided.contains_key(&asked.id);
        ensure!(stood, "it has no row");
        return Ok(None);
    };
    let stored = half::kept(&*line.log, &row)?;
    Ok(Some((row.half, half::read(&stored)?.immunity)))
}

/// No answer is counted that did not come, or to a question that was not asked; parked is what has used up its budget.
pub(super) fn counted(row: &Row, book: &Book) -> Result<()> {
    let (id, checks) = (row.half.id, row.checks);
    let answers = book.unknown.get(&id).copied().unwrap_or(0);
    let asked = book.asked.get(&id).copied().unwrap_or(0);
    ensure!(
        checks <= answers && checks <= asked,
        "{id} has {checks} checks; it was asked about {asked} times and UNKNOWN was answered {answers} times"
    );
    ensure!(
        row.state != State::Parked || checks == BUDGET,
        "{id} is parked after {checks} checks"
    );
    Ok(())
}
