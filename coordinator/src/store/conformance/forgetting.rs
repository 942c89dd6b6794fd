//! Forgetting: which rows and events go, and which never do.

use mq_core::clock::ServerTime;
use mq_core::log::Position;

use super::Subject;
use super::draft::{Draft, id, position};
use crate::audit::Step;
use crate::store::{Change, Filter, Forgotten};
use crate::transaction::Decision;

/// Forgets in steps of `limit` until nothing is left to do.
async fn forget(draft: &mut Draft, far: Forgotten, kept: Position, limit: u32) -> u64 {
    let mut all = 0;
    loop {
        let forgotten = draft.writer().forget(far, kept, limit).await;
        match forgotten.expect("the store can forget") {
            0 => return all,
            count => all += count,
        }
    }
}

/// 1 committed, 2 rolled back, 3 open, 4 committed and contradicted later, 5 committed and not published, 6 committed, 7 rolled
/// back later; each with an event of its own, 8 to 10 those of what came later.
async fn seven(subject: &Subject) -> Draft {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare_decided(1, "g", Decision::Commit);
    draft.prepare_decided(2, "g", Decision::RollBack);
    draft.prepare(3, "g");
    for number in 4..=6 {
        draft.prepare_decided(number, "g", Decision::Commit);
    }
    draft.prepare(7, "g");
    draft.published = 5;
    draft.commit().await.expect("a good batch");
    let reason = Change::Unpublished(Some("no room".into()));
    draft.changes.push((position(5), reason));
    draft.event(
        id(4),
        Some(Step::Committed),
        Step::Refused,
        ServerTime(9_000),
    );
    draft.decide(7, Decision::RollBack, ServerTime(9_000));
    draft.commit().await.expect("a good batch");
    draft
}

/// The numbers of the transactions that have a row, and of the events.
async fn left(subject: &Subject) -> (Vec<u64>, Vec<u64>) {
    let reader = subject.reader();
    let all = Filter {
        limit: 100,
        ..Filter::default()
    };
    let rows = reader.list(&all).await.expect("readable");
    let events = reader.history(1, 100).await.expect("readable");
    (
        rows.iter().map(|row| row.half.position.0 / 1000).collect(),
        events.iter().map(|event| event.number).collect(),
    )
}

pub(super) async fn only_what_was_decided_and_is_no_longer_in_the_log_is_forgotten(
    subject: &Subject,
) {
    // One at a time, so that every step leaves something for the next.
    let limit = 1;
    let mut draft = seven(subject).await;
    let reader = subject.reader();
    assert_eq!(reader.forgotten().await, Ok(Forgotten::default()));
    assert_eq!(
        forget(&mut draft, Forgotten::default(), position(100), limit).await,
        0
    );
    let seals = reader.seals(1, 100).await.expect("readable");
    let far = Forgotten {
        event: 8,
        decisions: 5,
    };
    // The log still has all half messages.
    assert_eq!(forget(&mut draft, far, position(1), limit).await, 0);
    assert_eq!(reader.forgotten().await, Ok(far));
    // It keeps those from 6 on.
    assert_eq!(forget(&mut draft, far, position(6), limit).await, 4);
    let (rows, events) = left(subject).await;
    assert_eq!(rows, [3, 4, 5, 6, 7]);
    assert_eq!(events, [3, 4, 5, 6, 7, 8, 9]);
    // It keeps none: 4 has a later event, 5 waits to be published, 3 is open, and 7 was decided later.
    assert_eq!(forget(&mut draft, far, position(100), limit).await, 2);
    assert_eq!(
        left(subject).await,
        (vec![3, 4, 5, 7], vec![3, 4, 5, 7, 8, 9])
    );
    // What is forgotten stays forgotten.
    forget(&mut draft, Forgotten::default(), position(100), limit).await;
    assert_eq!(reader.forgotten().await, Ok(far));
    assert_eq!(
        reader.seals(1, 100).await.expect("readable"),
        seals,
        "seals stay"
    );
    // And everything goes on.
    draft.prepare(8, "g");
    draft.commit().await.expect("a good batch");
    let further = Forgotten {
        event: 10,
        decisions: 6,
    };
    forget(&mut draft, further, position(100), limit).await;
    assert_eq!(left(subject).await, (vec![3, 5, 8], vec![3, 5, 10]));
}

pub(super) async fn a_writer_that_was_replaced_forgets_nothing(subject: &Subject) {
    let mut old = seven(subject).await;
    let _new = Draft::take_over(&*subject.store).await;
    let before = left(subject).await;
    let far = Forgotten {
        event: 8,
        decisions: 5,
    };
    assert!(old.writer().forget(far, position(100), 100).await.is_err());
    assert_eq!(left(subject).await, before);
}
