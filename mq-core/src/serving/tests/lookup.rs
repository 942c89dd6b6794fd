//! Single messages by position and by key.

use super::*;
use crate::wire::ids;
use crate::wire::record::RecordView;

fn query(key: &str, unique: &str, end: &str) -> Command {
    let fields = [
        ("topic", "orders"),
        ("key", key),
        ("maxNum", "2"),
        ("beginTimestamp", "0"),
        ("endTimestamp", end),
        ("_UNIQUE_KEY_QUERY", unique),
    ];
    command(request::QUERY_MESSAGE, &fields, b"")
}

#[tokio::test]
async fn a_message_is_found_by_its_position_and_its_keys() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let send = |properties: &str| {
        let fields = [("b", "orders"), ("e", "0"), ("i", properties)];
        command(request::SEND_MESSAGE_V2, &fields, b"hello")
    };
    let sent = raw
        .done(&send("UNIQ_KEY\u{1}U1\u{2}KEYS\u{1}k1 k2\u{2}"))
        .await;
    for number in 2..5 {
        raw.done(&send(&format!(
            "UNIQ_KEY\u{1}U{number}\u{2}KEYS\u{1}k2\u{2}"
        )))
        .await;
    }
    let (_, position) = ids::parse_offset_id(sent.fields.get("msgId").unwrap()).unwrap();
    let position = position.to_string();
    let view = command(request::VIEW_MESSAGE_BY_ID, &[("offset", &position)], b"");
    let answer = raw.done(&view).await;
    let record = RecordView::parse(&answer.body).unwrap();
    assert_eq!(record.body, b"hello");
    assert_eq!(SocketAddr::from(record.store_host), server.address);

    let late = "9999999999999";
    let found = raw.done(&query("k1", "false", late)).await;
    assert_eq!(found.body, answer.body);
    assert!(found.fields.get("indexLastUpdatePhyoffset").is_some());
    let newest = raw.done(&query("k2", "false", late)).await;
    assert_eq!(newest.body.len(), 2 * answer.body.len() - 2 * " k1".len());
    assert_eq!(
        raw.call(&query("k1", "false", "5")).await.code,
        response::QUERY_NOT_FOUND,
        "not of that time"
    );
    let unique = raw.done(&query("U1", "true", "5")).await;
    assert_eq!(unique.body, answer.body, "its own id is found at all times");
    for key in ["k1", "none"] {
        let answer = raw.call(&query(key, "true", late)).await;
        assert_eq!(answer.code, response::QUERY_NOT_FOUND);
    }
}

#[tokio::test]
async fn where_no_message_is_nothing_is_shown() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send("orders", "0", "a", "1").await;
    for offset in ["1", "99999999", "-1", "x"] {
        let view = command(request::VIEW_MESSAGE_BY_ID, &[("offset", offset)], b"");
        assert_eq!(raw.call(&view).await.code, response::SYSTEM_ERROR);
    }
}
