//! Offsets of groups, and the ends of queues.

use super::*;

fn of_queue(code: i32, more: &[(&'static str, &'static str)]) -> Command {
    let mut fields = vec![
        ("consumerGroup", "g"),
        ("topic", "orders"),
        ("queueId", "0"),
    ];
    fields.extend(more);
    command(code, &fields, b"")
}

#[tokio::test]
async fn a_group_goes_on_where_it_was_also_backwards() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for body in ["1", "2", "3"] {
        raw.send("orders", "0", "a", body).await;
    }
    let query = of_queue(request::QUERY_CONSUMER_OFFSET, &[]);
    for offset in ["3", "1"] {
        let update = of_queue(request::UPDATE_CONSUMER_OFFSET, &[("commitOffset", offset)]);
        raw.done(&update).await;
        assert_eq!(raw.done(&query).await.fields.get("offset"), Some(offset));
    }
    let one_way = Command {
        flag: crate::wire::command::FLAG_ONE_WAY,
        ..of_queue(request::UPDATE_CONSUMER_OFFSET, &[("commitOffset", "2")])
    };
    raw.tell(&one_way).await;
    assert_eq!(raw.done(&query).await.fields.get("offset"), Some("2"));
}

#[tokio::test]
async fn a_new_group_reads_a_young_queue_from_the_start() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send("orders", "0", "a", "1").await;
    let query = of_queue(request::QUERY_CONSUMER_OFFSET, &[]);
    assert_eq!(raw.done(&query).await.fields.get("offset"), Some("0"));
    let strict = of_queue(
        request::QUERY_CONSUMER_OFFSET,
        &[("setZeroIfNotFound", "false")],
    );
    assert_eq!(raw.call(&strict).await.code, response::QUERY_NOT_FOUND);
    let nowhere = of_queue(request::QUERY_CONSUMER_OFFSET, &[("queueId", "99")]);
    assert_eq!(raw.call(&nowhere).await.code, response::QUERY_NOT_FOUND);
    raw.heartbeat(
        r#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
        "subscriptionDataSet":[{"topic":"orders"}]}]}"#,
    )
    .await;
    assert_eq!(
        raw.done(&strict).await.fields.get("offset"),
        Some("0"),
        "a durable start since the heartbeat"
    );
}

#[tokio::test]
async fn the_ends_of_a_queue_are_told() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send("orders", "1", "a", "1").await;
    let offset = |answer: &Command| answer.fields.get("offset").map(str::to_owned);
    let end = of_queue(request::GET_MAX_OFFSET, &[("queueId", "1")]);
    assert_eq!(offset(&raw.done(&end).await), Some("1".into()));
    let start = of_queue(request::GET_MIN_OFFSET, &[("queueId", "1")]);
    assert_eq!(offset(&raw.done(&start).await), Some("0".into()));
    let oldest = of_queue(request::GET_EARLIEST_MSG_STORETIME, &[("queueId", "1")]);
    let answer = raw.done(&oldest).await;
    let stored_ms = answer.fields.get("timestamp").unwrap().to_owned();
    assert!(stored_ms.parse::<u64>().unwrap() > 1_600_000_000_000);
    let empty = of_queue(request::GET_EARLIEST_MSG_STORETIME, &[]);
    assert_eq!(raw.done(&empty).await.fields.get("timestamp"), Some("-1"));
    for (time, more, found) in [
        ("0", ("boundaryType", "LOWER"), "0"),
        ("9999999999999", ("boundaryType", "LOWER"), "1"),
        ("9999999999999", ("boundaryType", "UPPER"), "0"),
        ("-1", ("x", "y"), "0"),
    ] {
        let search = of_queue(
            request::SEARCH_OFFSET_BY_TIMESTAMP,
            &[("queueId", "1"), ("timestamp", time), more],
        );
        assert_eq!(offset(&raw.done(&search).await).as_deref(), Some(found));
    }
}

#[tokio::test]
async fn what_does_not_exist_has_no_offsets() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for code in [
        request::GET_MAX_OFFSET,
        request::GET_MIN_OFFSET,
        request::GET_EARLIEST_MSG_STORETIME,
    ] {
        assert_eq!(
            raw.call(&of_queue(code, &[])).await.code,
            response::TOPIC_NOT_EXIST
        );
    }
    raw.send("orders", "0", "a", "1").await;
    for bad in ["-1", "x", ""] {
        let update = of_queue(request::UPDATE_CONSUMER_OFFSET, &[("commitOffset", bad)]);
        assert_eq!(raw.call(&update).await.code, response::SYSTEM_ERROR);
    }
}
