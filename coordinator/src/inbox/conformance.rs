//! What an [`Inbox`] must do on every database, as tests: [`check`] panics at the first broken promise.

use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::ManualClock;

use super::{Delivered, Entry, Inbox};
use crate::marker::database::{LocalDatabase, Pool};
use crate::marker::local::Open;

const LONG: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789",
);

struct Keyed(&'static str);

impl Delivered for Keyed {
    fn message_key(&self) -> &str {
        self.0
    }
}

/// Runs the whole suite on one fresh database.
///
/// # Panics
/// At the first promise that is broken; the message says which.
pub async fn check<DB: LocalDatabase>(pool: Pool<DB>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let new = |group| Inbox::with_clock(pool.clone(), group, clock.clone()).expect("a good name");
    let inbox = new("warehouse");
    inbox.ensure_table().await.expect("a fresh database");
    inbox
        .ensure_table()
        .await
        .expect("ensuring twice changes nothing");

    a_committed_delivery_is_a_duplicate_from_then_on(&inbox).await;
    a_delivery_rolled_back_or_dropped_comes_first_again(&inbox).await;
    groups_apply_for_themselves(&inbox, &new("billing")).await;
    entering_an_open_transaction_stands_or_falls_with_it(&inbox, &pool).await;
    of_two_at_once_one_is_first(&inbox).await;
    clock.advance(Duration::from_secs(60));
    pruning_forgets_what_is_old(&inbox).await;
}

async fn is_first<DB: LocalDatabase>(inbox: &Inbox<DB>, key: &'static str) -> bool {
    match inbox.begin(&Keyed(key)).await.expect("the database works") {
        Entry::First(transaction) => {
            transaction
                .commit()
                .await
                .expect("nothing stands against it");
            true
        }
        Entry::Duplicate => false,
    }
}

async fn a_committed_delivery_is_a_duplicate_from_then_on<DB: LocalDatabase>(inbox: &Inbox<DB>) {
    assert!(is_first(inbox, "A").await);
    assert!(!is_first(inbox, "A").await);
    assert!(is_first(inbox, "B").await, "another message is another row");
    assert!(is_first(inbox, LONG).await, "a key of any length will do");
    assert!(!is_first(inbox, LONG).await);
}

async fn a_delivery_rolled_back_or_dropped_comes_first_again<DB: LocalDatabase>(inbox: &Inbox<DB>) {
    for end_by_dropping in [true, false] {
        let Entry::First(transaction) = inbox.begin(&Keyed("C")).await.expect("works") else {
            panic!("C was not applied yet");
        };
        if end_by_dropping {
            drop(transaction);
        } else {
            transaction.roll_back().await;
        }
    }
    assert!(is_first(inbox, "C").await);
}

async fn groups_apply_for_themselves<DB: LocalDatabase>(one: &Inbox<DB>, other: &Inbox<DB>) {
    assert!(is_first(one, "D").await);
    assert!(is_first(other, "D").await);
    assert!(!is_first(other, "D").await);
}

async fn entering_an_open_transaction_stands_or_falls_with_it<DB: LocalDatabase>(
    inbox: &Inbox<DB>,
    pool: &Pool<DB>,
) {
    for (rolls_back, first) in [(true, true), (false, true), (false, false)] {
        let mut open = Open::begin(pool).await.expect("works");
        let entered = inbox.enter(&mut open, &Keyed("E")).await;
        assert_eq!(entered.expect("works"), first);
        if rolls_back {
            open.roll_back().await;
        } else {
            open.commit().await.expect("works");
        }
    }
}

async fn of_two_at_once_one_is_first<DB: LocalDatabase>(inbox: &Inbox<DB>) {
    let other = inbox.clone();
    let (one, two) = tokio::join!(is_first(inbox, "F"), is_first(&other, "F"));
    assert!(one ^ two, "exactly one of {one} and {two}");
}

async fn pruning_forgets_what_is_old<DB: LocalDatabase>(inbox: &Inbox<DB>) {
    assert!(is_first(inbox, "G").await);
    let pruned = inbox.prune(Duration::from_secs(30)).await.expect("works");
    assert_eq!(pruned, 7, "all so far are a minute old");
    assert!(!is_first(inbox, "G").await, "what is young stays");
    assert!(inbox.forget("G").await.expect("works"));
    assert!(!inbox.forget("G").await.expect("works"));
    assert!(is_first(inbox, "G").await);
}
