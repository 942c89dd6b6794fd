//! What tools ask and set: topics, groups, progress, figures.

use serde_json::{Value, json};

use super::*;
use crate::names::{GroupName, QueueId, TopicName};

fn with_body(code: i32, body: &Value) -> Command {
    Command {
        body: body.to_string().into(),
        ..command(code, &[], b"")
    }
}

fn read(answer: &Command) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn text(answer: &Command) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

#[tokio::test]
async fn topics_are_made_shown_and_deleted() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let put = |name: &'static str, queues: &'static str| {
        let fields = [
            ("topic", name),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", queues),
            ("writeQueueNums", queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
        ];
        command(request::UPDATE_AND_CREATE_TOPIC, &fields, b"")
    };
    raw.done(&put("orders", "3")).await;
    for (name, queues) in [("TBW102", "3"), ("a b", "3"), ("x", "0"), ("x", "many")] {
        let answer = raw.call(&put(name, queues)).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
        assert!(!answer.remark.is_empty());
    }
    let all = read(
        &raw.done(&command(request::GET_ALL_TOPIC_CONFIG, &[], b""))
            .await,
    );
    let shown = &all["topicConfigTable"]["orders"];
    assert_eq!(
        (&shown["readQueueNums"], &shown["perm"]),
        (&json!(3), &json!(6))
    );
    let of_topic = |code| command(code, &[("topic", "orders")], b"");
    let one = read(&raw.done(&of_topic(request::GET_TOPIC_CONFIG)).await);
    assert_eq!(&one, shown);
    raw.send("orders", "0", "a", "1").await;
    let ends = raw.done(&of_topic(request::GET_TOPIC_STATS_INFO)).await;
    let first = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"orders"}:{"lastUpdateTimestamp":1"#;
    assert!(text(&ends).starts_with(first), "{}", text(&ends));
    assert!(text(&ends).contains(r#""maxOffset":1,"minOffset":0"#));
    for _ in 0..2 {
        raw.done(&of_topic(request::DELETE_TOPIC_IN_BROKER)).await;
    }
    for code in [request::GET_TOPIC_CONFIG, request::GET_TOPIC_STATS_INFO] {
        assert_eq!(
            raw.call(&of_topic(code)).await.code,
            response::TOPIC_NOT_EXIST
        );
    }
}

#[tokio::test]
async fn groups_are_made_shown_and_deleted() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let put = json!({"groupName": "g", "consumeEnable": false, "retryMaxTimes": 5, "brokerId": 0});
    raw.done(&with_body(
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        &put,
    ))
    .await;
    let all = command(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], b"");
    let shown = read(&raw.done(&all).await);
    let shown = &shown["subscriptionGroupTable"]["g"];
    assert_eq!(
        (&shown["consumeEnable"], &shown["retryMaxTimes"]),
        (&json!(false), &json!(5))
    );
    let one = command(
        request::GET_SUBSCRIPTIONGROUP_CONFIG,
        &[("group", "g")],
        b"",
    );
    assert_eq!(&read(&raw.done(&one).await), shown);
    raw.send("orders", "0", "a", "1").await;
    let fields = [
        ("consumerGroup", "g"),
        ("topic", "orders"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "1"),
        ("sysFlag", "4"),
    ];
    let pull = command(request::PULL_MESSAGE, &fields, b"");
    assert_eq!(raw.call(&pull).await.code, response::NO_PERMISSION);
    let delete = command(
        request::DELETE_SUBSCRIPTIONGROUP,
        &[("groupName", "g")],
        b"",
    );
    for _ in 0..2 {
        raw.done(&delete).await;
    }
    assert_eq!(raw.done(&pull).await.code, 0);
    for body in [json!({}), json!({"groupName": "a b"})] {
        let put = with_body(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &body);
        assert_eq!(raw.call(&put).await.code, response::SYSTEM_ERROR);
    }
}

#[tokio::test]
async fn connected_clients_are_shown_with_what_they_said() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let of_group = |code, name| command(code, &[(name, "g")], b"");
    let consumers = of_group(request::GET_CONSUMER_CONNECTION_LIST, "consumerGroup");
    assert_eq!(
        raw.call(&consumers).await.code,
        response::CONSUMER_NOT_ONLINE
    );
    raw.join("one", "orders", "a || b").await;
    let shown = read(&raw.done(&consumers).await);
    let connection = &shown["connectionSet"][0];
    assert_eq!(connection["clientId"], "one");
    assert_eq!(connection["language"], "RUST");
    assert_eq!(shown["messageModel"], "CLUSTERING");
    assert_eq!(shown["consumeType"], "CONSUME_PASSIVELY");
    assert_eq!(shown["consumeFromWhere"], "CONSUME_FROM_FIRST_OFFSET");
    let subscription = &shown["subscriptionTable"]["orders"];
    assert_eq!(subscription["tagsSet"], json!(["a", "b"]));
    assert_eq!(subscription["subVersion"], 7);
    let producers = of_group(request::GET_PRODUCER_CONNECTION_LIST, "producerGroup");
    assert_eq!(raw.call(&producers).await.code, response::SYSTEM_ERROR);
    let inner = command(
        request::GET_PRODUCER_CONNECTION_LIST,
        &[("producerGroup", "CLIENT_INNER_PRODUCER")],
        b"",
    );
    let shown = read(&raw.done(&inner).await);
    assert_eq!(shown["connectionSet"][0]["clientId"], "one");
    let who = command(
        request::QUERY_TOPIC_CONSUME_BY_WHO,
        &[("topic", "orders")],
        b"",
    );
    assert_eq!(read(&raw.done(&who).await), json!({"groupList": ["g"]}));
}

#[tokio::test]
async fn progress_is_shown_set_back_and_copied() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for body in ["1", "2", "3"] {
        raw.send("orders", "0", "a", body).await;
    }
    let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
    let group = GroupName::new("g").unwrap();
    server.broker.commit_offset(&group, &queue, 2).unwrap();
    let stats = command(request::GET_CONSUME_STATS, &[("consumerGroup", "g")], b"");
    let answer = raw.done(&stats).await;
    assert!(text(&answer).contains(r#""brokerOffset":3,"consumerOffset":2"#));
    let all = raw
        .done(&command(request::GET_BROKER_CONSUME_STATS, &[], b""))
        .await;
    assert!(text(&all).contains(r#""totalDiff":1"#), "{}", text(&all));

    let clone = |to: &'static str| {
        let fields = [("srcGroup", "g"), ("destGroup", to), ("topic", "orders")];
        command(request::CLONE_GROUP_OFFSET, &fields, b"")
    };
    raw.done(&clone("copy")).await;
    let copy = GroupName::new("copy").unwrap();
    assert_eq!(server.broker.offset(&copy, &queue), Ok(Some(2)));

    let reset = |time: &'static str, force: &'static str| {
        let fields = [
            ("topic", "orders"),
            ("group", "g"),
            ("timestamp", time),
            ("isForce", force),
        ];
        command(request::INVOKE_BROKER_TO_RESET_OFFSET, &fields, b"")
    };
    raw.done(&reset("-1", "false")).await;
    assert_eq!(
        server.broker.offset(&group, &queue),
        Ok(Some(2)),
        "forward needs force"
    );
    raw.done(&reset("-1", "true")).await;
    assert_eq!(server.broker.offset(&group, &queue), Ok(Some(3)));
    let mut member = Raw::connect(&server).await;
    member.join("one", "orders", "*").await;
    let answer = raw.done(&reset("0", "false")).await;
    assert_eq!(server.broker.offset(&group, &queue), Ok(Some(0)));
    let told = member.next().await;
    assert_eq!(told.code, request::RESET_CONSUMER_CLIENT_OFFSET);
    assert_eq!((told.is_one_way(), &told.body), (true, &answer.body));
    assert_eq!(told.fields.get("group"), Some("g"));
    assert_eq!(
        raw.call(&clone("g")).await.code,
        response::SYSTEM_ERROR,
        "members would set their own"
    );
}

#[tokio::test]
async fn the_broker_says_how_it_is_doing() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send("orders", "0", "a", "1").await;
    let runtime = command(request::GET_BROKER_RUNTIME_INFO, &[], b"");
    let table = read(&raw.done(&runtime).await)["table"].clone();
    assert_eq!(table["msgPutTotalTodayNow"], "1");
    for name in ["putTps", "getTransferedTps", "getTotalTps"] {
        assert_eq!(
            table[name].as_str().unwrap().split(' ').count(),
            3,
            "{name}"
        );
    }
    for name in [
        "sendThreadPoolQueueSize",
        "earliestMessageTimeStamp",
        "commitLogDiskRatio",
        "brokerVersionDesc",
        "pageCacheLockTimeMills",
    ] {
        assert!(table[name].is_string(), "{name}");
    }
    let settings = raw
        .done(&command(request::GET_BROKER_CONFIG, &[], b""))
        .await;
    assert!(text(&settings).contains("brokerName=broker-a\n"));
    assert!(settings.fields.get("version").is_some());
    let counter = command(request::VIEW_BROKER_STATS_DATA, &[("statsName", "x")], b"");
    assert_eq!(raw.call(&counter).await.code, response::SYSTEM_ERROR);
    raw.done(&command(request::CLEAN_UNUSED_TOPIC, &[], b""))
        .await;
}
