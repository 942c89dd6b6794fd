//! The Node client.

use super::play::{self, Stage};
use super::stock::Client::Node;

#[test]
fn what_is_sent_is_received_by_tags() {
    play::sent_is_received(&Stage::new(), Node);
}

#[test]
fn what_is_sent_back_comes_again() {
    play::sent_back_comes_again(&Stage::new(), Node);
}

#[test]
fn a_delayed_message_is_delivered_later() {
    play::delay_is_kept(&Stage::new(), Node);
}

#[test]
fn transactions_end_as_their_producer_says() {
    play::transactions_are_settled(&Stage::new(), Node);
}
