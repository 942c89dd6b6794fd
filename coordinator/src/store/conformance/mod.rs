//! What every [`TxStore`] must do, as a suite that an implementation calls with [`all`].

pub mod draft;

use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::LogId;

use self::draft::{Draft, LOG, id, position, prepared};
use super::model::Fault;
use super::{CommitError, Fate, StoreError, TxReader, TxStore};
use crate::transaction::{Decision, State};

/// A new, empty store under test.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn TxStore>,
    /// Makes the store's next commit fail like this.
    pub fail_next: Box<dyn Fn(Fault) + Send + Sync>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Subject {
    fn reader(&self) -> Arc<dyn TxReader> {
        self.store.reader()
    }
}

/// Runs the whole suite; `fresh` is called for each check.
///
/// # Panics
/// When the store breaks a promise.
pub async fn all(fresh: impl AsyncFn() -> Subject) {
    a_store_belongs_to_one_log(&fresh().await).await;
    a_batch_is_whole_or_absent(&fresh().await).await;
    an_older_writer_writes_nothing(&fresh().await).await;
    an_unknown_outcome_is_found_out(&fresh().await).await;
    a_failed_commit_leaves_nothing(&fresh().await).await;
    a_decided_row_keeps_its_decision(&fresh().await).await;
}

async fn a_store_belongs_to_one_log(subject: &Subject) {
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
        subject.reader().owner().await,
        Ok(Some(first)),
        "a refused writer changes nothing"
    );
    assert_eq!(Draft::take_over(&*subject.store).await.owner().epoch, 2);
}

async fn a_batch_is_whole_or_absent(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare(1, "g");
    draft.prepare_decided(2, "g", Decision::Commit);
    draft.watermark = position(2);
    draft.commit().await.expect("a good batch");
    // The second row is there already: the first must not stay either.
    draft.prepare(3, "g");
    draft.prepare(2, "g");
    let before = subject.reader().owner().await;
    assert!(matches!(draft.commit().await, Err(CommitError::Refused(_))));
    let reader = subject.reader();
    assert_eq!(reader.owner().await, before);
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
    assert_eq!(reader.owner().await, Ok(Some(draft.owner())));
}

async fn an_older_writer_writes_nothing(subject: &Subject) {
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
    assert_eq!(subject.reader().owner().await, Ok(Some(newer.owner())));
    assert_eq!(subject.reader().transaction(id(10)).await, Ok(None));
}

async fn an_unknown_outcome_is_found_out(subject: &Subject) {
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
        assert_eq!(subject.reader().owner().await, Ok(Some(draft.owner())));
        let rows = subject
            .reader()
            .history(batch.seal.first_event, 1000)
            .await
            .expect("readable");
        assert_eq!(rows, batch.events, "each event once");
    }
}

async fn a_failed_commit_leaves_nothing(subject: &Subject) {
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

async fn a_decided_row_keeps_its_decision(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare_decided(1, "g", Decision::RollBack);
    draft.prepare(2, "g");
    draft.commit().await.expect("a good batch");
    draft.decide(2, Decision::Commit, ServerTime(5_000));
    draft.decide(1, Decision::Commit, ServerTime(5_000));
    let outcome = draft.commit().await;
    assert!(
        matches!(outcome, Err(CommitError::Refused(_))),
        "{outcome:?}"
    );
    let states = [1, 2].map(id);
    for (id, expected) in states.into_iter().zip([State::RolledBack, State::Prepared]) {
        let row = subject
            .reader()
            .transaction(id)
            .await
            .expect("readable")
            .expect("there");
        assert_eq!(row.state, expected);
    }
}
