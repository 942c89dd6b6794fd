//! One writer at a time, and batches that are whole or absent.

use mq_core::log::{LogId, Position};

use super::Subject;
use super::draft::{Draft, LOG, id, position, prepared};
use crate::store::model::Fault;
use crate::store::{CommitError, Fate, StoreError};
use crate::transaction::Decision;

pub(super) async fn a_store_belongs_to_one_log(subject: &Subject) {
    assert_eq!(subject.reader().owner().await, Ok(None));
    let first = Draft::take_over(&*subject.store).await.owner();
    assert_eq!(
        (first.log, first.epoch, first.seq, first.next_event),
        (LOG, 1, 0, 1)
    );
    let other = subject
        .store
        .take_over(LogId(7))
        .await
        .map(|(_, owner)| owner);
    assert!(matches!(other, Err(StoreError::Foreign(_))), "{other:?}");
    assert_eq!(
        subject.owner().await,
        first,
        "a refused writer changes nothing"
    );
    assert_eq!(Draft::take_over(&*subject.store).await.owner().epoch, 2);
}

pub(super) async fn a_batch_is_whole_or_absent(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare(1, "g");
    draft.prepare_decided(2, "g", Decision::Commit);
    draft.watermark = position(2);
    draft.commit().await.expect("a good batch");
    // The second row is there already: the first must not stay either.
    draft.prepare(3, "g");
    draft.prepare(2, "g");
    let before = subject.owner().await;
    assert!(matches!(draft.commit().await, Err(CommitError::Refused(_))));
    let reader = subject.reader();
    assert_eq!(subject.owner().await, before);
    assert_eq!(reader.transaction(id(3)).await, Ok(None));
    assert_eq!(
        reader.history(1, 100).await.map(|events| events.len()),
        Ok(2)
    );
    assert_eq!(reader.transaction(id(1)).await, Ok(Some(prepared(1, "g"))));
    draft.prepare(3, "g");
    draft
        .commit()
        .await
        .expect("the writer goes on after a refusal");
    assert_eq!(subject.owner().await, draft.owner());
}

pub(super) async fn an_older_writer_writes_nothing(subject: &Subject) {
    let mut older = Draft::take_over(&*subject.store).await;
    older.prepare(1, "g");
    older.commit().await.expect("it owns the store");
    let mut newer = Draft::take_over(&*subject.store).await;
    older.prepare(2, "g");
    assert_eq!(older.commit().await, Err(CommitError::TakenOver));
    newer.prepare(3, "g");
    newer.commit().await.expect("it owns the store now");
    for number in 10..200 {
        older.prepare(number, "g");
    }
    assert_eq!(
        older.commit().await,
        Err(CommitError::TakenOver),
        "a large batch is fenced, too"
    );
    assert_eq!(
        older.writer().find_out(1).await,
        Err(CommitError::TakenOver)
    );
    assert_eq!(subject.owner().await, newer.owner());
    assert_eq!(subject.reader().transaction(id(10)).await, Ok(None));
}

pub(super) async fn an_unknown_outcome_is_found_out(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    for (round, fault, expected) in [
        (1, Fault::UnknownButDone, Fate::Done),
        (2, Fault::UnknownNotDone, Fate::Redo),
    ] {
        for number in round * 1000..round * 1000 + 100 {
            draft.prepare(number, "g");
        }
        (subject.fail_next)(fault);
        let batch = draft.batch();
        let outcome = draft.writer().commit(&batch).await;
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
        let early = draft.writer().commit(&batch).await;
        assert!(
            matches!(early, Err(CommitError::Unknown(_))),
            "nothing is written before: {early:?}"
        );
        assert_eq!(draft.writer().find_out(batch.id).await, Ok(expected));
        if expected == Fate::Redo {
            draft
                .writer()
                .commit(&batch)
                .await
                .expect("it can be redone");
        }
        draft.committed(&batch);
        assert_eq!(subject.owner().await, draft.owner());
        let rows = subject
            .reader()
            .history(batch.seal.first_event, 1000)
            .await
            .expect("readable");
        assert_eq!(rows, batch.events, "each event once");
    }
}

pub(super) async fn a_failed_commit_leaves_nothing(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    for fault in [Fault::Unavailable, Fault::Refused] {
        draft.prepare(1, "g");
        (subject.fail_next)(fault);
        let refused = fault == Fault::Refused;
        let outcome = draft.commit().await;
        assert_eq!(
            matches!(outcome, Err(CommitError::Refused(_))),
            refused,
            "{outcome:?}"
        );
        assert_eq!(
            matches!(outcome, Err(CommitError::Unavailable(_))),
            !refused,
            "{outcome:?}"
        );
        assert_eq!(subject.reader().transaction(id(1)).await, Ok(None));
    }
    draft.prepare(1, "g");
    draft.commit().await.expect("the same batch passes later");
}

pub(super) async fn a_batch_must_follow_the_owner_row(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare_decided(1, "g", Decision::Commit);
    draft.prepare(2, "g");
    (draft.watermark, draft.published) = (position(2), 1);
    draft.commit().await.expect("a good batch");
    draft.prepare_decided(3, "g", Decision::Commit);
    let good = draft.batch();
    let mut broken = vec![good.clone(); 9];
    for (case, batch) in broken.iter_mut().enumerate() {
        let decided = batch
            .new
            .first_mut()
            .and_then(|row| row.decided.as_mut())
            .expect("it was decided above");
        match case {
            0 => batch.seal.seq += 1,
            1 => batch.seal.first_event += 1,
            2 => batch.seal.count += 1,
            3 => batch.events.iter_mut().for_each(|event| event.number += 1),
            4 => decided.number += 1,
            5 => decided.number -= 1,
            6 => batch.watermark = Position(position(2).0 - 1),
            7 => batch.seal.published = 0,
            _ => batch.seal.published = 3,
        }
    }
    for (case, batch) in broken.iter().enumerate() {
        let outcome = draft.writer().commit(batch).await;
        assert!(
            matches!(outcome, Err(CommitError::Refused(_))),
            "case {case}: {outcome:?}"
        );
    }
    draft
        .writer()
        .commit(&good)
        .await
        .expect("the batch as it was");
}
