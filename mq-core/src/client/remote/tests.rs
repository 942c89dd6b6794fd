//! Clients over real sockets: nameservers and brokers in this process, one of them gone now and then.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::{Broker, Parts, Settings, TopicConfig};
use crate::client::{Consumer, Delivery, Producer, PullConsumer, Received};
use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{Log, LogId};
use crate::message::Message;
use crate::nameserver::{Nameserver, NameserverService};
use crate::random::SeededRandom;
use crate::remoting::listener::Listener;
use crate::serving::registration::Registration;
use crate::serving::{BrokerService, Presence};

const SOON: Duration = Duration::from_secs(30);

struct Served {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Served {
    async fn nameserver() -> Self {
        let service = NameserverService::new(Nameserver::new(Arc::new(SystemClock::new())));
        let listener = Listener::bind(free()).await.unwrap();
        Self::start(listener, service)
    }

    fn start<S: crate::remoting::service::Service>(listener: Listener, service: Arc<S>) -> Self {
        let stop = watch::Sender::new(false);
        Self {
            address: listener.address().unwrap(),
            task: tokio::spawn(listener.serve(service, stop.subscribe())),
            stop,
        }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

fn free() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)
}

/// A broker whose log outlives its listener.
struct Machine {
    name: &'static str,
    log: Arc<MemoryLog>,
}

/// A machine that runs.
struct Running {
    broker: Broker,
    served: Served,
    registration: Registration,
}

impl Machine {
    fn new(name: &'static str) -> Self {
        let log = MemoryLog::new(LogId(1), Arc::new(SystemClock::new()));
        Self {
            name,
            log: Arc::new(log),
        }
    }

    async fn run(&self, at: SocketAddrV4, nameservers: &[&Served]) -> Running {
        let parts = Parts {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SeededRandom::new(self.log.range().end.0)),
            extensions: vec![],
        };
        let settings = Settings {
            retries: 1,
            ..Settings::default()
        };
        let broker = Broker::open(settings, parts).await.unwrap();
        let topic = TopicConfig::new(TopicName::new("t").unwrap(), 2);
        broker.put_topic(topic).await.unwrap();
        let listener = Listener::bind(at).await.unwrap();
        let SocketAddr::V4(advertised) = listener.address().unwrap() else {
            panic!("bound to IPv4")
        };
        let presence = Presence {
            cluster: "c".into(),
            name: self.name.into(),
            advertised,
        };
        let service = BrokerService::new(broker.clone(), presence.clone());
        let served = Served::start(listener, service);
        let addresses: Vec<String> = nameservers.iter().map(|n| n.address.to_string()).collect();
        let mut registration = Registration::start(&broker, &presence, &addresses);
        registration.tried().await;
        Running {
            broker,
            served,
            registration,
        }
    }
}

impl Running {
    fn address(&self) -> SocketAddrV4 {
        match self.served.address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("bound to IPv4"),
        }
    }

    /// Ends as a killed process does: connections close, nobody is told.
    async fn cut(self) {
        drop(self.registration);
        self.served.stop().await;
        self.broker.close(Duration::from_secs(1)).await.unwrap();
    }
}

fn message(tag: &str, body: &str) -> Message {
    let message = Message::builder("t").tag(tag).body(body.to_owned());
    message.build().unwrap()
}

fn body(received: &Received) -> String {
    String::from_utf8(received.body().to_vec()).unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let next = tokio::time::timeout(SOON, consumer.next()).await;
    next.expect("a message comes").unwrap().unwrap()
}

async fn producer(nameserver: &Served) -> Producer {
    let builder = Producer::builder("producers");
    builder
        .connect(&nameserver.address.to_string())
        .await
        .unwrap()
}

async fn consumer(nameserver: &Served) -> Consumer {
    let builder = Consumer::builder("g").subscribe("t", "a || b");
    builder
        .connect(&nameserver.address.to_string())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_sent_over_the_network_is_read_over_the_network() {
    let nameserver = Served::nameserver().await;
    let broker = Machine::new("broker-a").run(free(), &[&nameserver]).await;
    let (producer, mut consumer) = (producer(&nameserver).await, consumer(&nameserver).await);
    let sent = Message::builder("t")
        .tag("a")
        .key("k1")
        .property(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .flag(7)
        .body("hello");
    producer.send(message("c", "not wanted")).await.unwrap();
    let receipt = producer.send(sent.build().unwrap()).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(body(&delivery), "hello");
    assert_eq!((delivery.tag(), delivery.flag()), (Some("a"), 7));
    assert_eq!(delivery.keys().collect::<Vec<_>>(), ["k1"]);
    assert_eq!(delivery.queue(), &receipt.queue);
    assert_eq!(delivery.queue_offset(), receipt.queue_offset);
    assert_eq!(delivery.position(), receipt.position);
    assert_eq!(delivery.message_id(), receipt.unique_key.unwrap());
    assert_eq!(delivery.offset_id(), receipt.message_id);
    delivery.ack();
    consumer.close().await.unwrap();
    let group = GroupName::new("g").unwrap();
    assert_eq!(
        broker.broker.offset(&group, &receipt.queue),
        Ok(Some(receipt.queue_offset.0 + 1))
    );
    while !broker.broker.members(&group).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn messages_are_sent_to_chosen_queues_together_and_for_later() {
    let nameserver = Served::nameserver().await;
    let _a = Machine::new("broker-a").run(free(), &[&nameserver]).await;
    let _b = Machine::new("broker-b").run(free(), &[&nameserver]).await;
    let producer = producer(&nameserver).await;
    let mut places = Vec::new();
    for queue in 0..4 {
        let receipt = producer.send_to(queue, message("a", "1")).await.unwrap();
        places.push((receipt.queue.queue, receipt.message_id));
    }
    let numbers: Vec<u32> = places.iter().map(|(queue, _)| *queue).collect();
    assert_eq!(numbers, [0, 1, 0, 1], "two queues of each broker");
    let error = producer.send_to(4, message("a", "1")).await.unwrap_err();
    assert!(error.to_string().contains("no queue 4"), "{error}");
    let by_key = async |key| producer.send_by_key(key, message("a", key)).await.unwrap();
    assert_eq!(by_key("k").await.queue, by_key("k").await.queue);
    let batch = vec![message("a", "x"), message("b", "y"), message("a", "z")];
    let receipts = producer.send_all(batch).await.unwrap();
    let offsets: Vec<u64> = receipts
        .iter()
        .map(|receipt| receipt.queue_offset.0)
        .collect();
    assert_eq!(offsets[2], offsets[0] + 2);
    assert_ne!(receipts[0].unique_key, receipts[1].unique_key);
    assert_ne!(receipts[0].message_id, receipts[1].message_id);

    let group = GroupName::new("readers").unwrap();
    let mut reader = PullConsumer::connect(&nameserver.address.to_string(), group)
        .await
        .unwrap();
    let queues = reader.queues(&TopicName::new("t").unwrap()).await.unwrap();
    let names: Vec<String> = queues.iter().map(ToString::to_string).collect();
    assert_eq!(
        names[1..3],
        ["t/1 of broker broker-a", "t/0 of broker broker-b"]
    );
    reader.assign(queues.clone()).await.unwrap();
    let later = Message::builder("t").delay_level(1).body("later");
    producer.send_to(0, later.build().unwrap()).await.unwrap();
    let mut read = Vec::new();
    for queue in &queues {
        loop {
            let some = reader.pull(queue, Duration::ZERO).await.unwrap();
            if some.is_empty() {
                break;
            }
            read.extend(some.iter().map(body));
        }
    }
    read.sort_unstable();
    assert_eq!(read, ["1", "1", "1", "1", "k", "k", "x", "y", "z"]);
    let late = reader.pull(&queues[0], SOON).await.unwrap();
    assert_eq!(late.iter().map(body).collect::<Vec<_>>(), ["later"]);
    reader.commit().await.unwrap();
    reader.seek_to_time(&queues[0], 0).await.unwrap();
    assert_eq!(reader.position(&queues[0]), Ok(0));
}

#[tokio::test]
async fn members_share_the_queues_of_all_brokers_and_take_over_from_those_who_leave() {
    let nameserver = Served::nameserver().await;
    let a = Machine::new("broker-a").run(free(), &[&nameserver]).await;
    let _b = Machine::new("broker-b").run(free(), &[&nameserver]).await;
    let producer = producer(&nameserver).await;
    let (mut one, mut two) = (consumer(&nameserver).await, consumer(&nameserver).await);
    assert_eq!(a.broker.members(&GroupName::new("g").unwrap()).len(), 2);
    let mut seen = BTreeMap::new();
    let mut readers = [0, 0];
    for round in 0..10 {
        for queue in 0..4 {
            let text = format!("{round} {queue}");
            producer.send_to(queue, message("a", &text)).await.unwrap();
        }
        while seen.len() < (round + 1) * 4 {
            let (reader, delivery) = tokio::select! {
                delivery = one.next() => (0, delivery.unwrap().unwrap()),
                delivery = two.next() => (1, delivery.unwrap().unwrap()),
                () = tokio::time::sleep(SOON) => panic!("{seen:?}"),
            };
            *seen.entry(body(&delivery)).or_insert(0) += 1;
            readers[reader] += 1;
            delivery.ack();
        }
    }
    assert!(readers[0] >= 10 && readers[1] >= 10, "{readers:?}");
    two.close().await.unwrap();
    for queue in 0..4 {
        producer
            .send_to(queue, message("b", "after"))
            .await
            .unwrap();
    }
    for _ in 0..4 {
        let delivery = next(&mut one).await;
        assert_eq!(body(&delivery), "after");
        delivery.ack();
    }
}

#[tokio::test]
async fn a_message_that_is_not_acknowledged_comes_again_and_ends_among_the_dead_letters() {
    let nameserver = Served::nameserver().await;
    let _broker = Machine::new("broker-a").run(free(), &[&nameserver]).await;
    let mut consumer = consumer(&nameserver).await;
    let traced = Message::builder("t")
        .tag("a")
        .property("traceparent", "00-1-2-01");
    let traced = traced.body("stubborn").build().unwrap();
    let sent = producer(&nameserver).await.send(traced).await.unwrap();
    for times in 0..2 {
        let delivery = next(&mut consumer).await;
        assert_eq!(
            (body(&delivery), delivery.reconsume_times()),
            ("stubborn".into(), times)
        );
        assert_eq!(delivery.topic().as_str(), "t");
        assert_eq!(delivery.unique_key(), sent.unique_key.as_deref());
        assert_eq!(delivery.properties().get("traceparent"), Some("00-1-2-01"));
        delivery.retry_later(1);
    }
    let dead = TopicName::new("%DLQ%g").unwrap();
    let group = GroupName::new("undertaker").unwrap();
    let mut reader = PullConsumer::connect(&nameserver.address.to_string(), group)
        .await
        .unwrap();
    let queues = loop {
        match reader.queues(&dead).await {
            Ok(queues) => break queues,
            Err(ClientError::Missing(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    };
    reader.assign(queues.clone()).await.unwrap();
    let letters = reader.pull(&queues[0], SOON).await.unwrap();
    assert_eq!(letters.iter().map(body).collect::<Vec<_>>(), ["stubborn"]);
    assert_eq!(
        letters[0].properties().get("traceparent"),
        Some("00-1-2-01")
    );
}

#[tokio::test]
async fn when_a_broker_goes_away_the_others_go_on_and_when_it_is_back_so_does_it() {
    let nameserver = Served::nameserver().await;
    let machine = Machine::new("broker-a");
    let a = machine.run(free(), &[&nameserver]).await;
    let _b = Machine::new("broker-b").run(free(), &[&nameserver]).await;
    let (producer, mut consumer) = (producer(&nameserver).await, consumer(&nameserver).await);
    for queue in 0..4 {
        producer
            .send_to(queue, message("a", "before"))
            .await
            .unwrap();
    }
    for _ in 0..4 {
        next(&mut consumer).await.ack();
    }
    let at = a.address();
    a.cut().await;
    for number in 0..8 {
        let sent = producer.send(message("a", &number.to_string())).await;
        let receipt = sent.unwrap();
        assert!(!receipt.message_id.contains(&format!("{:08X}", at.port())));
    }
    let mut during: Vec<String> = Vec::new();
    for _ in 0..8 {
        let delivery = next(&mut consumer).await;
        during.push(body(&delivery));
        delivery.ack();
    }
    during.sort_unstable();
    assert_eq!(during, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let _a = machine.run(at, &[&nameserver]).await;
    let mut sent = producer.send_to(0, message("a", "back")).await;
    while sent.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        sent = producer.send_to(0, message("a", "back")).await;
    }
    let delivery = next(&mut consumer).await;
    assert_eq!(
        (body(&delivery), delivery.queue()),
        ("back".into(), &sent.unwrap().queue)
    );
}

#[tokio::test]
async fn another_nameserver_is_asked_when_one_is_gone() {
    let (first, second) = (Served::nameserver().await, Served::nameserver().await);
    let _broker = Machine::new("broker-a")
        .run(free(), &[&first, &second])
        .await;
    let both = format!("{};{}", first.address, second.address);
    let producer = Producer::builder("p").connect(&both).await.unwrap();
    producer.send(message("a", "1")).await.unwrap();
    first.stop().await;
    let other = Message::builder("made-by-sending")
        .body("2")
        .build()
        .unwrap();
    producer.send(other).await.unwrap();
    let gone = second.address.to_string();
    second.stop().await;
    producer.send(message("a", "3")).await.unwrap();
    let error = Producer::builder("other").connect(&gone).await.unwrap_err();
    assert!(error.to_string().contains(&gone), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn everybody_shares_one_connection_to_each_broker_but_not_a_group() {
    let nameserver = Served::nameserver().await;
    let _broker = Machine::new("broker-a").run(free(), &[&nameserver]).await;
    let at = nameserver.address.to_string();
    let place = |group| Some(Place::Consumer(GroupName::new(group).unwrap()));
    let (one, _taken) = network(&at, None, place("g")).await.unwrap();
    let (same, _also_taken) = network(&at, None, place("h")).await.unwrap();
    assert!(Arc::ptr_eq(&one, &same));
    let (other, taken) = network(&at, None, place("g")).await.unwrap();
    assert!(!Arc::ptr_eq(&one, &other));
    assert_ne!(one.client_id(), other.client_id());
    drop(taken);
    let (again, _taken) = network(&at, None, place("g")).await.unwrap();
    assert!(Arc::ptr_eq(&other, &again));
    let (named, _) = network(&at, Some("me"), None).await.unwrap();
    assert_eq!(&**named.client_id(), "me");
}
