//! Clients of all languages at one server.

use super::play::{self, Stage};
use super::stock::{Client, JAVA};

#[test]
fn what_each_client_sends_every_client_reads() {
    let mut clients = JAVA.to_vec();
    clients.extend([Client::Go, Client::Node]);
    play::all_read_what_all_sent(&Stage::new(), &clients);
}
