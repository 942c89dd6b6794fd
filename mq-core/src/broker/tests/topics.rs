//! Topics, their durability, and what an extension hides or holds.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::*;
use crate::extension::Claims;
use crate::log::OwnerId;

#[tokio::test]
async fn topics_outlive_a_crash_and_a_clean_close() {
    let world = World::new();
    let broker = world.open().await;
    broker
        .put_topic(TopicConfig::new(topic("kept"), 3))
        .await
        .unwrap();
    broker
        .put_topic(TopicConfig::new(topic("dropped"), 2))
        .await
        .unwrap();
    broker.delete_topic(&topic("dropped")).await.unwrap();
    drop(broker);
    let broker = world.open().await;
    assert_eq!(broker.topic(&topic("kept")).unwrap().write_queues, 3);
    assert_eq!(broker.topic(&topic("dropped")), None);
    broker
        .put_topic(TopicConfig::new(topic("late"), 1))
        .await
        .unwrap();
    broker.close(Duration::from_secs(1)).await.unwrap();
    assert!(world.log.bookmark(crate::log::BROKER).is_some());
    let broker = world.open().await;
    assert_eq!(broker.topics().len(), 2);
    broker
        .put_topic(TopicConfig::new(topic("later"), 1))
        .await
        .unwrap();
    drop(broker);
    assert_eq!(
        world.open().await.topics().len(),
        3,
        "snapshot and the notes behind it"
    );
}

#[tokio::test]
async fn a_message_creates_its_topic_when_that_is_allowed() {
    let world = World::new();
    let broker = world.open().await;
    let queues: Vec<_> = [
        broker.admit(&topic("new"), None).await.unwrap().queue,
        broker.admit(&topic("new"), None).await.unwrap().queue,
    ]
    .into();
    assert_eq!(queues, [0, 1]);
    assert_eq!(broker.topic(&topic("new")).unwrap().write_queues, 4);
    let error = broker.admit(&topic("new"), Some(4)).await.unwrap_err();
    assert!(error.to_string().contains("has 4 queues"), "{error}");
    let settings = Settings {
        auto_create_topics: false,
        ..Settings::default()
    };
    let broker = World::new().open_with(settings, vec![]).await;
    assert_eq!(
        broker.admit(&topic("new"), None).await,
        Err(AdmitError::NoSuchTopic(topic("new")))
    );
}

#[tokio::test]
async fn system_topics_take_nothing_from_clients() {
    let broker = World::new().open().await;
    for name in ["SCHEDULE_TOPIC_XXXX", "TBW102", "RMQ_SYS_ANYTHING"] {
        assert!(
            matches!(
                broker.admit(&topic(name), None).await,
                Err(AdmitError::System(_))
            ),
            "{name}"
        );
        let created = broker.put_topic(TopicConfig::new(topic(name), 1)).await;
        assert!(matches!(created, Err(TopicError::System(_))), "{name}");
    }
    assert!(broker.admit(&topic("%RETRY%nobody"), None).await.is_err());
}

#[derive(Debug, Default)]
struct Hiding {
    holds: AtomicBool,
    stopped: AtomicBool,
}

/// Does not start.
#[derive(Debug)]
struct Failing;

#[async_trait]
impl Extension for Failing {
    fn claims(&self) -> Claims {
        Claims {
            owner: OwnerId(2),
            request_codes: vec![],
            send_flags: 0,
            hidden_topics: vec![],
        }
    }
    async fn start(&self, _: Broker) -> Result<(), StartError> {
        Err(StartError("no room".into()))
    }
    async fn stop(&self, _: Duration) {
        unreachable!("what did not start is not stopped")
    }
}

#[async_trait]
impl Extension for Hiding {
    fn claims(&self) -> Claims {
        let hidden_topics = vec![topic("hidden")];
        Claims {
            owner: OwnerId(1),
            request_codes: vec![37],
            send_flags: 4,
            hidden_topics,
        }
    }
    async fn start(&self, broker: Broker) -> Result<(), StartError> {
        assert!(broker.topics().is_empty());
        Ok(())
    }
    fn holds_topic(&self, _: &TopicName) -> bool {
        self.holds.load(Ordering::SeqCst)
    }
    async fn stop(&self, _: Duration) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn hidden_topics_are_absent_and_held_topics_stay() {
    let hiding = Arc::new(Hiding::default());
    let broker = World::new()
        .open_with(Settings::default(), vec![Arc::clone(&hiding) as _])
        .await;
    let hidden = topic("hidden");
    assert!(matches!(
        broker.admit(&hidden, None).await,
        Err(AdmitError::System(_))
    ));
    assert!(matches!(
        broker.put_topic(TopicConfig::new(hidden.clone(), 1)).await,
        Err(TopicError::System(_))
    ));
    assert!(matches!(
        broker.delete_topic(&hidden).await,
        Err(TopicError::System(_))
    ));
    assert_eq!(broker.topic(&hidden), None);
    assert!(broker.extension_for_code(37).is_some() && broker.extension_for_code(38).is_none());
    assert!(broker.extension_for_flags(4).is_some() && broker.extension_for_flags(8).is_none());

    broker
        .put_topic(TopicConfig::new(topic("t"), 4))
        .await
        .unwrap();
    hiding.holds.store(true, Ordering::SeqCst);
    assert_eq!(
        broker.delete_topic(&topic("t")).await,
        Err(TopicError::Held(topic("t")))
    );
    let shrunk = broker.put_topic(TopicConfig::new(topic("t"), 3)).await;
    assert_eq!(shrunk, Err(TopicError::Held(topic("t"))));
    broker
        .put_topic(TopicConfig::new(topic("t"), 5))
        .await
        .unwrap();
    hiding.holds.store(false, Ordering::SeqCst);
    broker.delete_topic(&topic("t")).await.unwrap();
}

#[tokio::test]
async fn a_topic_that_could_not_be_written_does_not_exist() {
    let world = World::new();
    let broker = world.open().await;
    world.log.fail_next(AppendError::Full("no space".into()));
    let created = broker.put_topic(TopicConfig::new(topic("t"), 1)).await;
    assert!(
        matches!(created, Err(TopicError::Log(AppendError::Full(_)))),
        "{created:?}"
    );
    assert_eq!(broker.topic(&topic("t")), None);
}

#[tokio::test]
async fn a_change_that_is_on_its_way_while_a_snapshot_is_taken_is_not_lost() {
    let world = World::new();
    let broker = world.open().await;
    broker
        .put_topic(TopicConfig::new(topic("before"), 1))
        .await
        .unwrap();
    world.log.hold();
    let change = tokio::spawn({
        let broker = broker.clone();
        async move {
            broker
                .put_topic(TopicConfig::new(topic("between"), 1))
                .await
        }
    });
    tokio::task::yield_now().await;
    let snapshot = tokio::spawn({
        let broker = broker.clone();
        async move { broker.shared.journal.snapshot(&*broker.shared.random).await }
    });
    tokio::task::yield_now().await;
    world.log.release();
    change.await.unwrap().unwrap();
    snapshot.await.unwrap().unwrap();
    drop(broker);
    let broker = world.open().await;
    assert!(broker.topic(&topic("before")).is_some());
    assert!(broker.topic(&topic("between")).is_some());
}

#[tokio::test]
async fn an_extension_that_does_not_start_ends_the_start_and_stops_the_others() {
    let world = World::new();
    let hiding = Arc::new(Hiding::default());
    let parts = Parts {
        log: Arc::clone(&world.log) as Arc<dyn Log>,
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        random: Arc::new(SeededRandom::new(1)),
        extensions: vec![Arc::clone(&hiding) as _, Arc::new(Failing)],
    };
    let error = Broker::open(Settings::default(), parts).await.unwrap_err();
    assert_eq!(error.to_string(), "no room");
    assert!(hiding.stopped.load(Ordering::SeqCst));
}
