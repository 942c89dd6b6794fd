//! Registration: tells every nameserver where this broker is and which topics it has, again and again, and says good-bye.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Presence;
use crate::broker::{Broker, TopicConfig};
use crate::remoting::client::{Connection, Limits};
use crate::wire::codes::{request, response};
use crate::wire::command::{Command, Fields, Language};
use crate::wire::registration::{self, DataVersion, TopicTable};
use crate::wire::reserved;

/// How often a broker registers, whether or not anything has changed: a nameserver that was restarted knows it soon.
pub const EVERY: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a nameserver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
/// How long a good-bye may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Bits of a topic's permission that only the topic for automatic creation has beside read and write: others inherit it.
const INHERIT: i32 = 1;

/// How a broker stands with one nameserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has not been tried yet.
    Untried,
    /// It knows this broker.
    Registered,
    /// It cannot be reached or refuses, for this reason. It is tried again every second.
    Failed(String),
}

/// The running registration of one broker. Dropped, it says good-bye without anybody waiting for it.
#[derive(Debug)]
pub struct Registration {
    nameservers: Vec<Nameserver>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Nameserver {
    address: String,
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl Registration {
    /// Registers `broker` with every nameserver of `addresses` (`host:port`, resolved at each attempt), every [`EVERY`] and
    /// at once after a topic has changed.
    #[must_use]
    pub fn start(broker: &Broker, presence: &Presence, addresses: &[String]) -> Self {
        let stop = watch::Sender::new(false);
        let nameserver = |address: &String| {
            let (standing, seen) = watch::channel(Standing::Untried);
            let teller = Teller {
                topics: broker.watch_topics(),
                broker: broker.clone(),
                presence: presence.clone(),
                since_ms: broker.clock().wall_ms(),
                address: address.clone(),
                standing,
            };
            Nameserver {
                address: address.clone(),
                standing: seen,
                task: tokio::spawn(teller.tell(stop.subscribe())),
            }
        };
        Self {
            nameservers: addresses.iter().map(nameserver).collect(),
            stop,
        }
    }

    /// How the broker stands with each nameserver, once each was tried.
    pub async fn tried(&mut self) -> Vec<(String, Standing)> {
        let mut all = Vec::new();
        for nameserver in &mut self.nameservers {
            let tried = nameserver
                .standing
                .wait_for(|standing| *standing != Standing::Untried)
                .await;
            let standing = match tried {
                Ok(standing) => standing.clone(),
                Err(_) => Standing::Failed("the registration has ended".into()),
            };
            all.push((nameserver.address.clone(), standing));
        }
        all
    }

    /// Says good-bye to all nameservers, so that clients learn at once that the broker is gone. Takes at most a few seconds.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for nameserver in self.nameservers {
            // One that has panicked has said so.
            let _ = nameserver.task.await;
        }
    }
}

/// Tells one nameserver.
struct Teller {
    broker: Broker,
    presence: Presence,
    topics: watch::Receiver<u64>,
    since_ms: u64,
    address: String,
    standing: watch::Sender<Standing>,
}

impl Teller {
    async fn tell(mut self, mut stop: watch::Receiver<bool>) {
        let mut connection = None;
        loop {
            let told = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                told = self.register(&mut connection) => told,
            };
            let wait = if told.is_ok() { EVERY } else { AGAIN };
            self.note(told);
            let gone = async {
                match &connection {
                    Some(connection) => {
                        connection.closed().await;
                        tokio::time::sleep(AGAIN).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(wait) => {}
                _ = self.topics.changed() => {}
                () = gone => {}
            }
        }
        if let Some(connection) = connection {
            let good_bye = self.command(request::UNREGISTER_BROKER);
            if let Err(error) = connection.call(good_bye, LEAVE_WITHIN).await {
                tracing::debug!(nameserver = %self.address, %error, "no answer to the good-bye");
            }
        }
    }

    /// Registers once, over the connection that is open or a new one.
    async fn register(&mut self, connection: &mut Option<Connection>) -> Result<(), String> {
        if connection.as_ref().is_none_or(Connection::is_closed) {
            let limits = Limits {
                connect_within: CONNECT_WITHIN,
                ..Limits::default()
            };
            let opened = Connection::open(&self.address, limits).await;
            *connection = Some(opened.map_err(|error| error.to_string())?);
        }
        let Some(open) = connection.as_ref() else {
            return Ok(());
        };
        let changes = *self.topics.borrow_and_update();
        let answer = open.call(self.announcement(changes), ANSWER_WITHIN).await;
        let answer = answer.map_err(|error| {
            *connection = None;
            error.to_string()
        })?;
        if answer.code == response::SUCCESS {
            return Ok(());
        }
        Err(format!(
            "it refuses: code {}, {}",
            answer.code, answer.remark
        ))
    }

    /// Says what has changed in how we stand: each reason once, until there is another.
    fn note(&self, told: Result<(), String>) {
        let address = &self.address;
        let before = self.standing.borrow().clone();
        let now = match told {
            Ok(()) => {
                if before != Standing::Registered {
                    tracing::info!(nameserver = %address, "registered");
                }
                Standing::Registered
            }
            Err(why) => {
                if before != Standing::Failed(why.clone()) {
                    tracing::warn!(nameserver = %address, %why, "the nameserver does not know this broker; it is tried again every second");
                }
                Standing::Failed(why)
            }
        };
        self.standing.send_replace(now);
    }

    fn announcement(&self, changes: u64) -> Command {
        let body = registration::encode(&registration::Registration {
            topic_config_serialize_wrapper: table(&self.broker, self.since_ms, changes),
            filter_server_list: Vec::new(),
        });
        let mut command = self.command(request::REGISTER_BROKER);
        command
            .fields
            .push("haServerAddr", &self.presence.advertised.to_string());
        command.fields.push("compressed", "false");
        command
            .fields
            .push("bodyCrc32", &registration::checksum(&body).to_string());
        command.body = body.into();
        command
    }

    fn command(&self, code: i32) -> Command {
        let address = self.presence.advertised.to_string();
        let fields: Fields = [
            ("brokerName", self.presence.name.as_str()),
            ("brokerAddr", &address),
            ("clusterName", &self.presence.cluster),
            ("brokerId", "0"),
        ]
        .into_iter()
        .collect();
        Command {
            fields,
            // What every nameserver knows.
            language: Language::JAVA,
            ..Command::request(code, 0)
        }
    }
}

/// The topics that clients may know of: those of the broker, the one that says how new topics are made, and the two that
/// every other broker has ([`reserved::EVERYWHERE`]).
fn table(broker: &Broker, since_ms: u64, changes: u64) -> TopicTable {
    let mut topics: Vec<registration::TopicConfig> = broker.topics().iter().map(config).collect();
    for name in reserved::EVERYWHERE {
        if !topics.iter().any(|topic| topic.topic_name == name) {
            topics.push(system_topic(name, 1, 0));
        }
    }
    let settings = broker.settings();
    if settings.auto_create_topics {
        let perm = crate::broker::Permission::ALL.bits() | INHERIT;
        topics.push(system_topic(
            reserved::AUTO_CREATE_TOPIC,
            settings.default_queues,
            perm,
        ));
    }
    TopicTable {
        data_version: DataVersion {
            state_version: 0,
            timestamp: i64::try_from(since_ms).unwrap_or(i64::MAX),
            counter: i64::try_from(changes).unwrap_or(i64::MAX),
        },
        topic_config_table: (topics.into_iter())
            .map(|topic| (topic.topic_name.clone(), topic))
            .collect(),
    }
}

fn config(topic: &TopicConfig) -> registration::TopicConfig {
    registration::TopicConfig {
        write_queue_nums: topic.write_queues,
        ..system_topic(
            topic.name.as_str(),
            topic.read_queues,
            topic.permission.bits(),
        )
    }
}

fn system_topic(name: &str, queues: u32, perm: i32) -> registration::TopicConfig {
    registration::TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        topic_filter_type: "SINGLE_TAG".into(),
        topic_sys_flag: 0,
        order: false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};
    use std::sync::Arc;

    use super::*;
    use crate::broker::{Parts, Settings};
    use crate::clock::{Clock, SystemClock};
    use crate::log::memory::MemoryLog;
    use crate::log::{Log, LogId};
    use crate::names::TopicName;
    use crate::nameserver::{Nameserver, NameserverService};
    use crate::random::SeededRandom;
    use crate::remoting::listener::Listener;

    const WITHIN: Duration = Duration::from_secs(20);

    async fn broker() -> Broker {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let parts = Parts {
            log: Arc::new(MemoryLog::new(LogId(1), Arc::clone(&clock))) as Arc<dyn Log>,
            clock,
            random: Arc::new(SeededRandom::new(1)),
            extensions: vec![],
        };
        Broker::open(Settings::default(), parts).await.unwrap()
    }

    fn presence(name: &str) -> Presence {
        Presence {
            cluster: "c".into(),
            name: name.into(),
            advertised: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_911),
        }
    }

    /// A nameserver at `port`, 0 for a free one; it ends when what is returned is dropped.
    async fn nameserver(port: u16) -> (String, watch::Sender<bool>) {
        let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let service = NameserverService::new(Nameserver::new(Arc::new(SystemClock::new())));
        let stop = watch::Sender::new(false);
        tokio::spawn(listener.serve(service, stop.subscribe()));
        (address.to_string(), stop)
    }

    /// The answer's code when `topic` is asked for, again and again until it is `code`.
    async fn wait_for_route(address: &str, topic: &str, code: i32) {
        let client = Connection::open(address, Limits::default()).await.unwrap();
        loop {
            let command = Command {
                fields: [("topic", topic)].into_iter().collect(),
                ..Command::request(request::GET_ROUTEINFO_BY_TOPIC, 0)
            };
            if client.call(command, WITHIN).await.unwrap().code == code {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_new_topic_is_routed_at_once_and_everything_gone_after_the_good_bye() {
        let (address, _stop) = nameserver(0).await;
        let broker = broker().await;
        let mut registration =
            Registration::start(&broker, &presence("a"), std::slice::from_ref(&address));
        let tried = registration.tried().await;
        assert_eq!(tried, [(address.clone(), Standing::Registered)]);
        for known in [reserved::AUTO_CREATE_TOPIC, reserved::EVERYWHERE[0]] {
            wait_for_route(&address, known, 0).await;
        }
        let topic = TopicName::new("orders").unwrap();
        broker.put_topic(TopicConfig::new(topic, 4)).await.unwrap();
        wait_for_route(&address, "orders", 0).await;
        registration.stop().await;
        wait_for_route(&address, "orders", response::TOPIC_NOT_EXIST).await;
    }

    #[tokio::test]
    async fn a_nameserver_that_is_down_is_tried_until_it_is_there() {
        let (address, stop) = nameserver(0).await;
        stop.send_replace(true);
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        while Connection::open(&address, Limits::default()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let broker = broker().await;
        let mut registration =
            Registration::start(&broker, &presence("a"), std::slice::from_ref(&address));
        let tried = registration.tried().await;
        assert!(
            matches!(&tried[..], [(_, Standing::Failed(_))]),
            "{tried:?}"
        );
        let (_, _stop) = nameserver(port).await;
        wait_for_route(&address, reserved::AUTO_CREATE_TOPIC, 0).await;
    }
}
