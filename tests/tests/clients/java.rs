//! The Java clients 4.3.2 and 5.3.3, each with JSON and with binary headers.

use super::play::{self, Stage, at_once};
use super::stock::JAVA;

#[test]
fn what_is_sent_is_received_by_tags_and_by_sql() {
    let stage = Stage::new();
    at_once(JAVA, |client| play::sent_is_received(&stage, client));
}

#[test]
fn what_is_sent_back_comes_again() {
    let stage = Stage::new();
    at_once(JAVA, |client| play::sent_back_comes_again(&stage, client));
}

#[test]
fn batches_and_chosen_queues_keep_their_order() {
    let stage = Stage::new();
    at_once(JAVA, |client| play::order_is_kept(&stage, client));
}

#[test]
fn a_delayed_message_is_delivered_later() {
    let stage = Stage::new();
    at_once(JAVA, |client| play::delay_is_kept(&stage, client));
}

#[test]
fn who_pulls_gets_everything() {
    let stage = Stage::new();
    at_once(JAVA, |client| play::pulled_is_whole(&stage, client));
}

#[test]
fn messages_are_found_by_place_id_and_key() {
    let stage = Stage::new();
    at_once(JAVA, |client| play::sent_is_found(&stage, client));
}

#[test]
fn transactions_end_as_their_producer_says() {
    let stage = Stage::new();
    at_once(JAVA, |client| {
        play::transactions_are_settled(&stage, client);
    });
}
