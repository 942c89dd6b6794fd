//! The Go client.

use super::play::{self, Stage};
use super::stock::Client::Go;

#[test]
fn what_is_sent_is_received_by_tags_and_by_sql() {
    play::sent_is_received(&Stage::new(), Go);
}

#[test]
fn what_is_sent_back_comes_again() {
    play::sent_back_comes_again(&Stage::new(), Go);
}

#[test]
fn batches_and_chosen_queues_keep_their_order() {
    play::order_is_kept(&Stage::new(), Go);
}

#[test]
fn a_delayed_message_is_delivered_later() {
    play::delay_is_kept(&Stage::new(), Go);
}

#[test]
fn who_pulls_gets_everything() {
    play::pulled_is_whole(&Stage::new(), Go);
}

#[test]
fn transactions_end_as_their_producer_says() {
    play::transactions_are_settled(&Stage::new(), Go);
}
