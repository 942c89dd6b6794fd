//! The nameserver behind a real socket.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use bytes::Bytes;
use tokio::sync::watch;

use super::*;
use crate::clock::ManualClock;
use crate::remoting::client::{Connection, Limits};
use crate::remoting::listener::Listener;
use crate::wire::codes::{request, response};
use crate::wire::command::Fields;
use crate::wire::registration;

const WITHIN: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    clock: Arc<ManualClock>,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::new(0));
        let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let stop = watch::Sender::new(false);
        let service = NameserverService::new(Nameserver::new(clock.clone()));
        tokio::spawn(listener.serve(service, stop.subscribe()));
        Self {
            address,
            clock,
            _stop: stop,
        }
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.address, Limits::default())
            .await
            .unwrap()
    }
}

async fn ask(connection: &Connection, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Command {
    let command = Command {
        fields: fields.iter().copied().collect::<Fields>(),
        body: Bytes::copy_from_slice(body),
        ..Command::request(code, 0)
    };
    connection.call(command, WITHIN).await.unwrap()
}

const BROKER: [(&str, &str); 4] = [
    ("brokerName", "broker-a"),
    ("brokerAddr", "10.0.0.1:10911"),
    ("clusterName", "DefaultCluster"),
    ("brokerId", "0"),
];

/// As brokers write it: a body with one topic.
const BODY: &[u8] = br#"{"topicConfigSerializeWrapper":{"dataVersion":{"counter":1,"timestamp":5},"topicConfigTable":{"orders":{"topicName":"orders","readQueueNums":4,"writeQueueNums":4,"perm":6,"topicFilterType":"SINGLE_TAG","topicSysFlag":0,"order":false}}},"filterServerList":[]}"#;

async fn register(connection: &Connection) -> Command {
    let checksum = registration::checksum(BODY).to_string();
    let mut fields = BROKER.to_vec();
    fields.push(("bodyCrc32", &checksum));
    ask(connection, request::REGISTER_BROKER, &fields, BODY).await
}

async fn route(connection: &Connection) -> Command {
    let fields = [("topic", "orders")];
    ask(connection, request::GET_ROUTEINFO_BY_TOPIC, &fields, b"").await
}

#[tokio::test]
async fn the_route_of_a_registered_topic_is_served_until_the_broker_leaves() {
    let server = Server::start().await;
    let (broker, client) = (server.connect().await, server.connect().await);
    assert_eq!(route(&client).await.code, response::TOPIC_NOT_EXIST);
    let answer = register(&broker).await;
    assert_eq!(
        (answer.code, &answer.body[..]),
        (0, &br#"{"table":{}}"#[..])
    );
    let found = route(&client).await;
    let text = std::str::from_utf8(&found.body).unwrap();
    assert!(
        text.contains(r#""brokerAddrs":{"0":"10.0.0.1:10911"}"#),
        "{text}"
    );
    let version = br#"{"counter":1,"timestamp":5}"#;
    let same = ask(&broker, request::QUERY_DATA_VERSION, &BROKER, version).await;
    assert_eq!(same.fields.get("changed"), Some("false"));
    let newer = ask(&broker, request::QUERY_DATA_VERSION, &BROKER, b"{}").await;
    assert_eq!(newer.fields.get("changed"), Some("true"));
    ask(&broker, request::UNREGISTER_BROKER, &BROKER, b"").await;
    assert_eq!(route(&client).await.code, response::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_forgotten() {
    let server = Server::start().await;
    let broker = server.connect().await;
    register(&broker).await;
    server.clock.advance(Duration::from_secs(119));
    assert_eq!(route(&broker).await.code, 0);
    server.clock.advance(Duration::from_secs(6));
    assert_eq!(route(&broker).await.code, response::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn a_broker_whose_connection_is_gone_is_forgotten() {
    let server = Server::start().await;
    let (broker, client) = (server.connect().await, server.connect().await);
    register(&broker).await;
    assert_eq!(route(&client).await.code, 0);
    broker.close();
    broker.closed().await;
    while route(&client).await.code == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_registration_that_is_damaged_is_refused() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let mut fields = BROKER.to_vec();
    fields.push(("bodyCrc32", "7"));
    let answer = ask(&broker, request::REGISTER_BROKER, &fields, BODY).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    let answer = ask(&broker, request::REGISTER_BROKER, &BROKER[1..], BODY).await;
    assert!(answer.remark.contains("brokerName"), "{}", answer.remark);
    assert_eq!(route(&broker).await.code, response::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn tools_are_answered() {
    let server = Server::start().await;
    let broker = server.connect().await;
    register(&broker).await;
    let body = |answer: &Command| String::from_utf8(answer.body.to_vec()).unwrap();
    let none: &[(&str, &str)] = &[];
    let info = ask(&broker, request::GET_BROKER_CLUSTER_INFO, none, b"").await;
    assert!(body(&info).contains(r#""clusterAddrTable":{"DefaultCluster":["broker-a"]}"#));
    for (code, fields) in [
        (request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, none),
        (
            request::GET_TOPICS_BY_CLUSTER,
            &[("cluster", "DefaultCluster")],
        ),
    ] {
        let list = ask(&broker, code, fields, b"").await;
        assert_eq!(body(&list), r#"{"topicList":["orders"]}"#);
    }
    let system = ask(&broker, request::GET_SYSTEM_TOPIC_LIST_FROM_NS, none, b"").await;
    assert!(body(&system).contains("10.0.0.1:10911"));
    let wiped = ask(&broker, request::WIPE_WRITE_PERM_OF_BROKER, &BROKER, b"").await;
    assert_eq!(wiped.fields.get("wipeTopicCount"), Some("1"));
    let setting = [("namespace", "n"), ("key", "k"), ("value", "v")];
    let missing = ask(&broker, request::GET_KV_CONFIG, &setting, b"").await;
    assert_eq!(missing.code, response::QUERY_NOT_FOUND);
    ask(&broker, request::PUT_KV_CONFIG, &setting, b"").await;
    let found = ask(&broker, request::GET_KV_CONFIG, &setting, b"").await;
    assert_eq!(found.fields.get("value"), Some("v"));
    let all = ask(&broker, request::GET_KVLIST_BY_NAMESPACE, &setting, b"").await;
    assert_eq!(body(&all), r#"{"table":{"k":"v"}}"#);
    ask(&broker, request::DELETE_KV_CONFIG, &setting, b"").await;
    let gone = ask(&broker, request::GET_KVLIST_BY_NAMESPACE, &setting, b"").await;
    assert_eq!(gone.code, response::QUERY_NOT_FOUND);
    ask(
        &broker,
        request::DELETE_TOPIC_IN_NAMESRV,
        &[("topic", "orders")],
        b"",
    )
    .await;
    assert_eq!(route(&broker).await.code, response::TOPIC_NOT_EXIST);
    let unknown = ask(&broker, 9_999, none, b"").await;
    assert_eq!(unknown.code, response::REQUEST_CODE_NOT_SUPPORTED);
}
