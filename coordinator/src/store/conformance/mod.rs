//! What every [`TxStore`] must do, as a suite that an implementation calls with [`all`].

mod changing;
pub mod draft;
mod forgetting;
mod keeping;
mod owning;
mod reading;

use std::sync::Arc;

use super::model::Fault;
use super::{Owner, TxReader, TxStore};

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

    /// The owner row, as [`draft::Draft::owner`] says it must be.
    async fn owner(&self) -> Owner {
        let owner = self.reader().owner().await.expect("readable");
        let owner = owner.expect("the store was taken over");
        assert_eq!(
            owner,
            owner.signed(),
            "its fingerprint is that of its columns"
        );
        draft::apart_from_link(owner)
    }
}

/// Runs the whole suite; `fresh` is called for each check.
///
/// # Panics
/// When the store breaks a promise.
pub async fn all(fresh: impl AsyncFn() -> Subject) {
    owning::a_store_belongs_to_one_log(&fresh().await).await;
    owning::a_batch_is_whole_or_absent(&fresh().await).await;
    owning::an_older_writer_writes_nothing(&fresh().await).await;
    owning::an_unknown_outcome_is_found_out(&fresh().await).await;
    owning::a_failed_commit_leaves_nothing(&fresh().await).await;
    owning::a_batch_must_follow_the_owner_row(&fresh().await).await;

    keeping::batches_of_every_size_are_kept_exactly(&fresh().await).await;
    keeping::everything_is_read_in_pages(&fresh().await).await;
    keeping::the_largest_numbers_are_kept(&fresh().await).await;
    keeping::larger_numbers_are_refused(&fresh().await).await;
    keeping::any_text_is_kept(&fresh().await).await;
    keeping::names_of_a_batch_that_failed_can_be_used_again(&fresh().await).await;

    changing::a_decided_row_keeps_its_decision(&fresh().await).await;
    changing::every_change_is_applied(&fresh().await).await;
    changing::changes_that_do_not_fit_are_refused(&fresh().await).await;
    changing::a_half_message_moves_forward_only(&fresh().await).await;
    forgetting::only_what_was_decided_and_is_no_longer_in_the_log_is_forgotten(&fresh().await)
        .await;
    forgetting::a_writer_that_was_replaced_forgets_nothing(&fresh().await).await;

    reading::lists_are_filtered_and_paged(&fresh().await).await;
    reading::due_rows_are_those_of_the_group_in_order_of_time(&fresh().await).await;
    reading::open_transactions_are_found_by_group_topic_and_sender(&fresh().await).await;
    reading::committed_ids_are_told_from_all_others(&fresh().await).await;
    reading::half_messages_that_are_needed_are_found_by_where_they_stand(&fresh().await).await;
    reading::decisions_history_and_seals_are_paged(&fresh().await).await;
    reading::readers_see_whole_batches(&fresh().await).await;
}
