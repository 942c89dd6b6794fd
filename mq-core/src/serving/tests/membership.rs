//! Heartbeats of all dialects, leaving, members, and checks of subscriptions.

use super::*;
use crate::names::{GroupName, TopicName};
use crate::wire::command::Dialect;

fn members() -> Command {
    command(
        request::GET_CONSUMER_LIST_BY_GROUP,
        &[("consumerGroup", "g")],
        b"",
    )
}

#[tokio::test]
async fn a_member_is_listed_right_after_its_heartbeat_and_others_are_told() {
    let server = Server::start().await;
    let (mut one, mut two) = (Raw::connect(&server).await, Raw::connect(&server).await);
    assert_eq!(one.call(&members()).await.code, response::SYSTEM_ERROR);
    one.join("one", "orders", "*").await;
    let listed = one.done(&members()).await;
    assert_eq!(&listed.body[..], br#"{"consumerIdList":["one"]}"#);
    two.join("two", "orders", "*").await;
    let notice = one.next().await;
    assert_eq!(notice.code, reserved::NOTIFY_CONSUMER_IDS_CHANGED);
    assert_eq!(notice.fields.get("consumerGroup"), Some("g"));
    assert!(notice.is_one_way() && !notice.is_response());
    let listed = one.done(&members()).await;
    assert_eq!(&listed.body[..], br#"{"consumerIdList":["one","two"]}"#);
    drop(two);
    assert_eq!(
        one.next().await.code,
        reserved::NOTIFY_CONSUMER_IDS_CHANGED,
        "whoever is gone has left"
    );
    assert_eq!(
        &one.done(&members()).await.body[..],
        br#"{"consumerIdList":["one"]}"#
    );
}

#[tokio::test]
async fn the_group_gets_its_retry_topic_unless_it_broadcasts() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.join("one", "orders", "*").await;
    raw.heartbeat(r#"{"clientID":"two","consumerDataSet":[{"groupName":"all","messageModel":0}]}"#)
        .await;
    let topics: Vec<_> = server
        .broker
        .topics()
        .into_iter()
        .map(|topic| topic.name)
        .collect();
    assert_eq!(topics, [TopicName::retry_of(&GroupName::new("g").unwrap())]);
    let all = GroupName::new("all").unwrap();
    assert_eq!(server.broker.members(&all), ["two".into()]);
}

#[tokio::test]
async fn heartbeats_of_other_dialects_are_understood() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let cpp = "{\"clientID\":\"cpp\",\"consumerDataSet\":[{\"groupName\":\"g\",\"consumeType\":1,\"messageModel\":1,\
        \"consumeFromWhere\":0,\"subscriptionDataSet\":[{\"codeSet\":[0,0],\"subString\":\"a || b\",\"subVersion\":\"3\",\
        \"topic\":\"t\"}]}],\"producerDataSet\":[]}\n";
    raw.heartbeat(cpp).await;
    let group = GroupName::new("g").unwrap();
    assert_eq!(server.broker.members(&group), ["cpp".into()]);
    let binary = Command {
        dialect: Dialect::Binary,
        body: Bytes::from_static(
            b"{\"clientID\":\"p\",\"producerDataSet\":[{\"groupName\":\"pg\"}]}",
        ),
        ..command(request::HEART_BEAT, &[], b"")
    };
    let answer = raw.done(&binary).await;
    assert_eq!(answer.dialect, Dialect::Binary);
    let producers = server
        .broker
        .clients()
        .producers(&GroupName::new("pg").unwrap());
    assert_eq!(producers.len(), 1);
    assert!(producers[0].source.contains("p at 127.0.0.1"));
}

#[tokio::test]
async fn the_same_client_id_is_the_same_life_and_our_own_clients_name_theirs() {
    let server = Server::start().await;
    let plain = r#"{"clientID":"p","producerDataSet":[{"groupName":"pg"}]}"#;
    let ours = r#"{"clientID":"p","producerDataSet":[{"groupName":"pg"}],
        "halfmoon":{"incarnation":"000000000000000000000000000000AA","answersFor":["000000000000000000000000000000BB"]}}"#;
    let mut raws = Vec::new();
    for body in [plain, plain, ours] {
        let mut raw = Raw::connect(&server).await;
        raw.heartbeat(body).await;
        raws.push(raw);
    }
    let producers = server
        .broker
        .clients()
        .producers(&GroupName::new("pg").unwrap());
    assert_eq!(producers[0].incarnation, producers[1].incarnation);
    assert_eq!(producers[2].incarnation, 0xAA);
    assert_eq!(producers[2].answers_for[..], [0xBB]);
}

#[tokio::test]
async fn a_client_leaves_one_group_or_all() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.join("one", "orders", "*").await;
    let leave = |group: &'static str| {
        let fields = [("clientID", "one"), (group, "g")];
        command(request::UNREGISTER_CLIENT, &fields, b"")
    };
    raw.done(&leave("producerGroup")).await;
    assert_eq!(raw.done(&members()).await.code, 0);
    raw.done(&leave("consumerGroup")).await;
    let gone = GroupName::new("g").unwrap();
    assert!(server.broker.members(&gone).is_empty());
    let inner = GroupName::new("CLIENT_INNER_PRODUCER").unwrap();
    assert_eq!(server.broker.clients().producers(&inner).len(), 1);
    raw.done(&command(
        request::UNREGISTER_CLIENT,
        &[("clientID", "stranger")],
        b"",
    ))
    .await;
}

#[tokio::test]
async fn a_heartbeat_that_cannot_be_read_is_refused() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let bad_group: &[u8] = br#"{"clientID":"c","producerDataSet":[{"groupName":"a b"}]}"#;
    let bad_topic: &[u8] = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g",
        "subscriptionDataSet":[{"topic":"a b"}]}]}"#;
    for body in [&b"nonsense"[..], bad_group, bad_topic] {
        let heartbeat = Command {
            body: Bytes::from_static(body),
            ..command(request::HEART_BEAT, &[], b"")
        };
        let answer = raw.call(&heartbeat).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert!(!answer.remark.is_empty());
    }
}

#[tokio::test]
async fn a_subscription_is_checked_before_a_consumer_starts() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for (kind, expression, code) in [
        ("TAG", "a || b", 0),
        ("TAG", "||", response::SUBSCRIPTION_PARSE_FAILED),
        ("SQL92", "a > 1", 0),
        ("SQL92", "a >", response::SUBSCRIPTION_PARSE_FAILED),
        ("other", "a", response::SUBSCRIPTION_PARSE_FAILED),
    ] {
        let answer = raw.call(&subscription_check(kind, expression)).await;
        assert_eq!(answer.code, code, "{kind} {expression}: {}", answer.remark);
    }
    let strict = Settings {
        property_filter: false,
        ..Settings::default()
    };
    let server = Server::with_settings(strict, vec![]).await;
    let mut raw = Raw::connect(&server).await;
    let answer = raw.call(&subscription_check("SQL92", "a > 1")).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(
        answer.remark.contains("enablePropertyFilter"),
        "{}",
        answer.remark
    );
}

/// What a Java consumer asks before it starts.
fn subscription_check(kind: &str, expression: &str) -> Command {
    let body = serde_json::json!({"clientId": "c", "group": "g", "subscriptionData":
        {"topic": "t", "subString": expression, "expressionType": kind}});
    Command {
        body: body.to_string().into(),
        ..command(request::CHECK_CLIENT_CONFIG, &[], b"")
    }
}
