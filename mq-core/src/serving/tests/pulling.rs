//! Pulls: answered at once, held, woken by what matches, refused.

use super::*;
use crate::wire::record::RecordView;

fn pull(more: &[(&'static str, &'static str)]) -> Command {
    let mut fields = vec![
        ("consumerGroup", "g"),
        ("topic", "orders"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    fields.extend(more);
    command(request::PULL_MESSAGE, &fields, b"")
}

/// The bodies in an answer, each record as any client finds it.
fn bodies(answer: &Command) -> Vec<String> {
    let mut rest = &answer.body[..];
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let size = i32::from_be_bytes(*rest.first_chunk().unwrap());
        let (record, next) = rest.split_at(usize::try_from(size).unwrap());
        let view = RecordView::parse(record).unwrap();
        bodies.push(String::from_utf8(view.body.to_vec()).unwrap());
        rest = next;
    }
    bodies
}

async fn with_messages(messages: &[(&str, &str)]) -> (Server, Raw) {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for (tag, body) in messages {
        raw.send("orders", "0", tag, body).await;
    }
    (server, raw)
}

#[tokio::test]
async fn what_is_there_is_answered_at_once_under_the_advertised_address() {
    let (server, mut raw) = with_messages(&[("a", "1"), ("b", "2")]).await;
    for code in [request::PULL_MESSAGE, request::LITE_PULL_MESSAGE] {
        let answer = raw.done(&Command { code, ..pull(&[]) }).await;
        assert_eq!(bodies(&answer), ["1", "2"]);
        for (name, value) in [
            ("nextBeginOffset", "2"),
            ("minOffset", "0"),
            ("maxOffset", "2"),
            ("suggestWhichBrokerId", "0"),
        ] {
            assert_eq!(answer.fields.get(name), Some(value));
        }
        let view = RecordView::parse(&answer.body).unwrap();
        assert_eq!(SocketAddr::from(view.store_host), server.address);
    }
}

#[tokio::test]
async fn tags_select_and_an_answer_keeps_its_limits() {
    let (_server, mut raw) = with_messages(&[("a", "1"), ("b", "2"), ("a", "3")]).await;
    let answer = raw.done(&pull(&[("subscription", "a")])).await;
    assert_eq!(bodies(&answer), ["1", "3"]);
    let answer = raw.done(&pull(&[("maxMsgNums", "1")])).await;
    assert_eq!(bodies(&answer), ["1"]);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("1"));
    let answer = raw.done(&pull(&[("maxMsgBytes", "1")])).await;
    assert_eq!(bodies(&answer), ["1"]);
    let answer = raw.call(&pull(&[("subscription", "none")])).await;
    assert_eq!(answer.code, response::PULL_RETRY_IMMEDIATELY);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("3"));
}

#[tokio::test]
async fn without_leave_to_hold_nothing_new_is_said_at_once() {
    let (_server, mut raw) = with_messages(&[("a", "1")]).await;
    let answer = raw.call(&pull(&[("queueOffset", "1")])).await;
    assert_eq!(answer.code, response::PULL_NOT_FOUND);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("1"));
    let answer = raw.call(&pull(&[("queueOffset", "9")])).await;
    assert_eq!(answer.code, response::PULL_OFFSET_MOVED);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("1"));
}

#[tokio::test]
async fn a_held_pull_is_woken_by_what_matches_only() {
    let (server, mut raw) = with_messages(&[("a", "1")]).await;
    let mut other = Raw::connect(&server).await;
    let held = pull(&[
        ("sysFlag", "6"),
        ("queueOffset", "1"),
        ("subscription", "b"),
    ]);
    raw.tell(&held).await;
    // Answered although the pull before it is held: the pull is known to be there.
    raw.done(&command(
        request::GET_MAX_OFFSET,
        &[("topic", "orders"), ("queueId", "0")],
        b"",
    ))
    .await;
    other.send("orders", "0", "a", "2").await;
    other.send("orders", "0", "b", "3").await;
    let answer = raw.next().await;
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert_eq!(bodies(&answer), ["3"]);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("3"));
}

#[tokio::test]
async fn a_held_pull_is_answered_when_its_time_is_over() {
    let (_server, mut raw) = with_messages(&[("a", "1")]).await;
    let held = pull(&[
        ("sysFlag", "2"),
        ("sysFlag", "6"),
        ("queueOffset", "1"),
        ("suspendTimeoutMillis", "20"),
    ]);
    let answer = raw.call(&held).await;
    assert_eq!(answer.code, response::PULL_NOT_FOUND);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("1"));
}

#[tokio::test]
async fn a_held_pull_is_answered_when_the_broker_stops() {
    let (server, mut raw) = with_messages(&[("a", "1")]).await;
    raw.tell(&pull(&[("sysFlag", "6"), ("queueOffset", "1")]))
        .await;
    raw.send("other", "0", "a", "1").await;
    server.broker.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(raw.next().await.code, response::PULL_NOT_FOUND);
}

#[tokio::test]
async fn a_consumer_that_holds_many_pulls_slows_nobody() {
    let (server, mut raw) = with_messages(&[("a", "1")]).await;
    for _ in 0..2_000 {
        raw.tell(&pull(&[("sysFlag", "6"), ("queueOffset", "1")]))
            .await;
    }
    let mut other = Raw::connect(&server).await;
    let answer = other.send("orders", "0", "a", "2").await;
    assert_eq!(answer.fields.get("queueOffset"), Some("1"));
    for _ in 0..2_000 {
        assert_eq!(bodies(&raw.next().await), ["2"]);
    }
}

#[tokio::test]
async fn a_subscription_comes_from_the_heartbeat_unless_it_is_in_the_request() {
    let (server, mut raw) = with_messages(&[("a", "1"), ("b", "2")]).await;
    let plain = pull(&[("sysFlag", "0")]);
    let answer = raw.call(&plain).await;
    assert_eq!(answer.code, response::SUBSCRIPTION_NOT_EXIST);
    raw.join("one", "orders", "b").await;
    assert_eq!(bodies(&raw.done(&plain).await), ["2"]);
    let mut other = Raw::connect(&server).await;
    assert_eq!(
        bodies(&other.done(&plain).await),
        ["2"],
        "what a member said counts for the group"
    );
    let newer = pull(&[("sysFlag", "0"), ("subVersion", "8")]);
    let answer = raw.call(&newer).await;
    assert_eq!(answer.code, response::SUBSCRIPTION_NOT_LATEST);
}

#[tokio::test]
async fn properties_select_messages() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    for number in 0..6 {
        let properties = format!("a\u{1}{number}\u{2}");
        let fields = [("b", "orders"), ("e", "0"), ("i", &*properties)];
        let send = Command {
            body: number.to_string().into(),
            ..command(request::SEND_MESSAGE_V2, &fields, b"")
        };
        raw.done(&send).await;
    }
    let select = |expression: &'static str| {
        pull(&[
            ("expressionType", "SQL92"),
            ("subscription", expression),
            ("maxMsgNums", "2"),
        ])
    };
    let answer = raw.done(&select("a between 2 and 4")).await;
    assert_eq!(bodies(&answer), ["2", "3"]);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("4"));
    let answer = raw.call(&select("a > 9")).await;
    assert_eq!(answer.code, response::PULL_RETRY_IMMEDIATELY);
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("6"));
    let answer = raw.call(&select("a between 0  3")).await;
    assert_eq!(answer.code, response::SUBSCRIPTION_PARSE_FAILED);
    let held = pull(&[
        ("expressionType", "SQL92"),
        ("subscription", "a = 7"),
        ("sysFlag", "6"),
        ("queueOffset", "6"),
    ]);
    raw.tell(&held).await;
    for number in ["6", "7"] {
        let properties = format!("a\u{1}{number}\u{2}");
        let fields = [("b", "orders"), ("e", "0"), ("i", &*properties)];
        let mut other = Raw::connect(&server).await;
        other
            .done(&command(request::SEND_MESSAGE_V2, &fields, b"last"))
            .await;
    }
    assert_eq!(bodies(&raw.next().await), ["last"]);
}

#[tokio::test]
async fn a_pull_may_bring_the_groups_offset() {
    let (_server, mut raw) = with_messages(&[("a", "1"), ("b", "2")]).await;
    raw.done(&pull(&[("sysFlag", "5"), ("commitOffset", "2")]))
        .await;
    let query = command(
        request::QUERY_CONSUMER_OFFSET,
        &[
            ("consumerGroup", "g"),
            ("topic", "orders"),
            ("queueId", "0"),
        ],
        b"",
    );
    let answer = raw.done(&query).await;
    assert_eq!(answer.fields.get("offset"), Some("2"));
}

#[tokio::test]
async fn what_cannot_be_pulled_is_refused_with_its_code() {
    let (_server, mut raw) = with_messages(&[("a", "1")]).await;
    for (refused, code) in [
        (pull(&[("topic", "none")]), response::TOPIC_NOT_EXIST),
        (pull(&[("topic", "TBW102")]), response::TOPIC_NOT_EXIST),
        (pull(&[("queueId", "9")]), response::SYSTEM_ERROR),
        (pull(&[("queueId", "-1")]), response::SYSTEM_ERROR),
        (pull(&[("maxMsgNums", "many")]), response::SYSTEM_ERROR),
        (
            pull(&[("subscription", "||")]),
            response::SUBSCRIPTION_PARSE_FAILED,
        ),
        (
            pull(&[("expressionType", "SQL92"), ("subscription", "a >")]),
            response::SUBSCRIPTION_PARSE_FAILED,
        ),
        (
            command(request::PULL_MESSAGE, &[], b""),
            response::SYSTEM_ERROR,
        ),
    ] {
        let answer = raw.call(&refused).await;
        assert_eq!(answer.code, code, "{}", answer.remark);
    }
}
