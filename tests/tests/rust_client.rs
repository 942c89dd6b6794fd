//! The Rust client as a service uses it, over the network: at our server, at the original, or at one that runs elsewhere.
//!
//! With `HALFMOON_TEST_NAMESERVER=host:port` the same tests look at a RocketMQ server that already runs there.

mod beside_java;
mod scenarios;

use tests::server::{Plan, Server};
use tests::stock::Stock;

fn server() -> Server {
    let server = Plan::of(env!("CARGO_BIN_EXE_server")).start();
    server.expect("the server starts")
}

fn at(server: &Server) -> scenarios::Server<'_> {
    scenarios::Server {
        nameserver: server.nameserver(),
        is_ours: server.is_ours(),
    }
}

#[tokio::test]
async fn messages_are_sent_shared_retried_and_read_again_from_where_they_were() {
    let server = server();
    scenarios::messages(at(&server))
        .await
        .expect("as it should");
}

#[tokio::test]
async fn two_members_of_a_group_share_a_topic() {
    let server = server();
    scenarios::sharing(at(&server)).await.expect("as it should");
}

#[tokio::test]
async fn orders_and_their_messages_agree() {
    let server = server();
    scenarios::orders(at(&server)).await.expect("as it should");
}

/// Everything at the original server.
async fn all_at_stock(version: &'static str) {
    let stock = Stock::start(version).expect("the original server starts");
    let server = scenarios::Server {
        nameserver: stock.nameserver(),
        is_ours: false,
    };
    tokio::try_join!(
        scenarios::messages(server),
        scenarios::sharing(server),
        scenarios::orders(server)
    )
    .expect("as at ours");
}

#[tokio::test]
async fn the_original_server_of_4_3_2_serves_it_too() {
    all_at_stock("4.3.2").await;
}

#[tokio::test]
async fn the_original_server_of_4_9_4_serves_it_too() {
    all_at_stock("4.9").await;
}

#[tokio::test]
async fn the_original_server_of_5_3_3_serves_it_too() {
    all_at_stock("5").await;
}
