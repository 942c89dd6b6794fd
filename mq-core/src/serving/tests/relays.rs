//! What is passed on to a client: questions about it, messages for it, replies.

use super::*;
use crate::wire::command::FLAG_RESPONSE;
use crate::wire::record::RecordView;

#[tokio::test]
async fn a_question_goes_to_the_consumer_and_its_answer_comes_back() {
    let server = Server::start().await;
    let (mut tool, mut member) = (Raw::connect(&server).await, Raw::connect(&server).await);
    let sent = tool.send("orders", "0", "a", "hello").await;
    member.join("one", "orders", "*").await;
    let id = sent.fields.get("msgId").unwrap().to_owned();
    let fields = [
        ("consumerGroup", "g"),
        ("clientId", "one"),
        ("msgId", &*id),
        ("jstackEnable", "false"),
    ];
    for code in [
        request::GET_CONSUMER_RUNNING_INFO,
        request::CONSUME_MESSAGE_DIRECTLY,
    ] {
        tool.tell(&command(code, &fields, b"")).await;
        let asked = member.next().await;
        assert_eq!((asked.code, asked.is_one_way()), (code, false));
        assert_eq!(asked.fields.get("clientId"), Some("one"));
        if code == request::CONSUME_MESSAGE_DIRECTLY {
            assert_eq!(RecordView::parse(&asked.body).unwrap().body, b"hello");
        }
        let answer = Command {
            flag: FLAG_RESPONSE,
            opaque: asked.opaque,
            ..command(5, &[], b"fine")
        };
        member.tell(&answer).await;
        let answer = tool.next().await;
        assert_eq!((answer.code, &answer.body[..]), (5, &b"fine"[..]));
    }
}

#[tokio::test]
async fn a_consumer_that_is_not_there_or_goes_is_not_waited_for() {
    let server = Server::start().await;
    let (mut tool, mut member) = (Raw::connect(&server).await, Raw::connect(&server).await);
    let fields = [("consumerGroup", "g"), ("clientId", "one")];
    let ask = command(request::GET_CONSUMER_RUNNING_INFO, &fields, b"");
    assert_eq!(tool.call(&ask).await.code, response::SYSTEM_ERROR);
    member.join("one", "orders", "*").await;
    tool.tell(&ask).await;
    assert_eq!(member.next().await.code, ask.code);
    drop(member);
    assert_eq!(tool.next().await.code, response::CONSUME_MSG_TIMEOUT);
    let bad = [("consumerGroup", "g"), ("clientId", "one"), ("msgId", "x")];
    let consume = command(request::CONSUME_MESSAGE_DIRECTLY, &bad, b"");
    assert_eq!(tool.call(&consume).await.code, response::SYSTEM_ERROR);
}

#[tokio::test]
async fn a_reply_goes_to_the_client_that_waits_for_it() {
    let server = Server::start().await;
    let (mut asking, mut replying) = (Raw::connect(&server).await, Raw::connect(&server).await);
    replying.send("orders", "0", "a", "1").await;
    asking.join("one", "orders", "*").await;
    let request_for_reply = [
        ("b", "orders"),
        ("e", "0"),
        ("i", "REPLY_TO_CLIENT\u{1}one\u{2}"),
    ];
    asking
        .done(&command(
            request::SEND_MESSAGE_V2,
            &request_for_reply,
            b"question",
        ))
        .await;
    let topics = server.broker.topics();
    assert!(
        topics
            .iter()
            .any(|topic| topic.name.as_str() == "DefaultCluster_REPLY_TOPIC")
    );
    for (code, fields) in [
        (
            request::SEND_REPLY_MESSAGE,
            ["topic", "queueId", "properties"],
        ),
        (request::SEND_REPLY_MESSAGE_V2, ["b", "e", "i"]),
    ] {
        let [topic, queue, properties] = fields;
        let fields = [
            (topic, "DefaultCluster_REPLY_TOPIC"),
            (queue, "0"),
            (
                properties,
                "REPLY_TO_CLIENT\u{1}one\u{2}CORRELATION_ID\u{1}7\u{2}",
            ),
        ];
        replying.done(&command(code, &fields, b"answer")).await;
        let pushed = asking.next().await;
        assert_eq!(pushed.code, request::PUSH_REPLY_MESSAGE_TO_CLIENT);
        assert_eq!(&pushed.body[..], b"answer");
        let properties = pushed.fields.get("properties").unwrap();
        assert!(properties.contains("CORRELATION_ID\u{1}7"));
    }
    drop(asking);
    let nobody = [
        ("b", "orders"),
        ("e", "0"),
        ("i", "REPLY_TO_CLIENT\u{1}nobody\u{2}"),
    ];
    let answer = replying
        .call(&command(request::SEND_REPLY_MESSAGE_V2, &nobody, b""))
        .await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
}
