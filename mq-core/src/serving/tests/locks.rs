//! Locks of queues over the wire.

use serde_json::{Value, json};

use super::*;

async fn lock(raw: &mut Raw, code: i32, client: &str, queues: &[u32]) -> Vec<u64> {
    let queues: Vec<Value> = queues
        .iter()
        .map(|queue| json!({"topic": "orders", "brokerName": "broker-a", "queueId": queue}))
        .collect();
    let body = json!({"consumerGroup": "g", "clientId": client, "mqSet": queues});
    let request = Command {
        body: body.to_string().into(),
        ..command(code, &[], b"")
    };
    let answer = raw.done(&request).await;
    if answer.body.is_empty() {
        return vec![];
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let locked = body["lockOKMQSet"].as_array().unwrap();
    assert!(locked.iter().all(|queue| queue["brokerName"] == "broker-a"));
    locked
        .iter()
        .map(|queue| queue["queueId"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_queue_has_one_holder_until_it_is_given_back() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send("orders", "0", "a", "1").await;
    let (take, give) = (request::LOCK_BATCH_MQ, request::UNLOCK_BATCH_MQ);
    assert_eq!(lock(&mut raw, take, "one", &[0, 1]).await, [0, 1]);
    assert_eq!(lock(&mut raw, take, "two", &[1, 2]).await, [2]);
    assert_eq!(lock(&mut raw, take, "one", &[0, 9]).await, [0]);
    assert!(lock(&mut raw, give, "one", &[1]).await.is_empty());
    assert_eq!(lock(&mut raw, take, "two", &[0, 1, 2]).await, [1, 2]);
}

#[tokio::test]
async fn locks_go_with_the_last_connection_of_their_client() {
    let server = Server::start().await;
    let mut watching = Raw::connect(&server).await;
    watching.send("orders", "0", "a", "1").await;
    watching.join("two", "orders", "*").await;
    let mut holding = Raw::connect(&server).await;
    holding.join("one", "orders", "*").await;
    assert_eq!(
        watching.next().await.code,
        reserved::NOTIFY_CONSUMER_IDS_CHANGED
    );
    let take = request::LOCK_BATCH_MQ;
    assert_eq!(lock(&mut holding, take, "one", &[0]).await, [0]);
    assert!(lock(&mut watching, take, "two", &[0]).await.is_empty());
    drop(holding);
    assert_eq!(
        watching.next().await.code,
        reserved::NOTIFY_CONSUMER_IDS_CHANGED
    );
    assert_eq!(lock(&mut watching, take, "two", &[0]).await, [0]);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let bodies: [&'static [u8]; 4] = [
        b"",
        b"[]",
        b"{\"consumerGroup\":\"g\"}",
        b"{\"consumerGroup\":\"g\",\"clientId\":\"c\",\"mqSet\":[7]}",
    ];
    for body in bodies {
        let answer = raw.call(&command(request::LOCK_BATCH_MQ, &[], body)).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert!(!answer.remark.is_empty());
    }
}
