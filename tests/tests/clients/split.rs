//! Nameserver and brokers as processes of their own, with the smallest broker.conf: stock clients notice no difference.

use super::play::{self, Stage, at_once};
use super::stock::{Client, JAVA};

fn clients() -> Vec<Client> {
    let json = JAVA.iter().filter(|client| {
        let Client::Java { binary, .. } = client else {
            return false;
        };
        !binary
    });
    json.copied().chain([Client::Go]).collect()
}

#[test]
fn a_nameserver_and_a_broker_are_two_processes() {
    let stage = Stage::split(&["broker-a"]);
    at_once(&clients(), |client| {
        play::sent_is_received(&stage, client);
        play::transactions_are_settled(&stage, client);
    });
}

#[test]
fn two_brokers_stand_under_one_nameserver() {
    let stage = Stage::split(&["broker-a", "broker-b"]);
    at_once(&clients(), |client| {
        play::brokers_share_a_topic(&stage, client);
        play::transactions_are_settled(&stage, client);
    });
}
