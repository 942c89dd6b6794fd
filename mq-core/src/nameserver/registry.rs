//! The route registry, pure: brokers as they have registered, what each of them has, and when they were last heard of.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::registration::{DataVersion, TopicConfig, TopicTable};
use crate::wire::route::{BrokerData, ClusterInfo, QueueData, TopicRoute};

/// A broker that has not been heard of for so long is forgotten.
pub const SILENCE: Duration = Duration::from_secs(120);
/// Most brokers.
pub const BROKERS: usize = 4_096;
/// Most topics of all brokers together.
pub const TOPICS: usize = 200_000;
/// Most key-value settings.
pub const SETTINGS: usize = 10_000;
/// Longest name, address or key in bytes.
pub const NAME_BYTES: usize = 255;
/// Longest value of a key-value setting in bytes.
pub const VALUE_BYTES: usize = 64 * 1024;

/// The namespace that says how ordered messages of a topic are spread.
pub const ORDER_NAMESPACE: &str = "ORDER_TOPIC_CONFIG";

const WRITE: i32 = 2;

/// One connection to the nameserver, numbered by whoever counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// Who registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrant {
    /// The cluster's name.
    pub cluster: String,
    /// The broker's name.
    pub name: String,
    /// 0, or the number of a copy that takes no messages.
    pub id: i64,
    /// Where clients reach it, `ip:port`.
    pub address: String,
}

/// Why something is not noted down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A name, address or key is empty or too long.
    #[error("{0} is empty or longer than {NAME_BYTES} bytes")]
    Name(&'static str),
    /// A value is too long.
    #[error("the value is longer than {VALUE_BYTES} bytes")]
    Value,
    /// There are too many of them.
    #[error("there are {1} {0} already, which is the most a nameserver keeps")]
    TooMany(&'static str, usize),
}

/// All that a nameserver knows.
#[derive(Debug, Default)]
pub struct Registry {
    /// Signs of life by address.
    live: BTreeMap<String, Live>,
    brokers: BTreeMap<String, BrokerData>,
    /// By topic, then by broker.
    topics: BTreeMap<String, BTreeMap<String, QueueData>>,
    /// By namespace, then by key.
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Live {
    registrant: Registrant,
    heard: Duration,
    version: DataVersion,
    connection: ConnectionId,
}

impl Registry {
    /// Notes down that a broker is there `now` and which topics it has; topics it does not name stay, since brokers also
    /// register single new ones. Returns the address of the broker of that name that takes messages, for its copies.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing has changed.
    pub fn register(
        &mut self,
        registrant: Registrant,
        topics: &TopicTable,
        connection: ConnectionId,
        now: Duration,
    ) -> Result<Option<String>, RegistryError> {
        self.check(&registrant, topics)?;
        let Registrant {
            cluster,
            name,
            id,
            address,
        } = &registrant;
        let data = self
            .brokers
            .entry(name.clone())
            .or_insert_with(|| BrokerData {
                cluster: cluster.clone(),
                broker_name: name.clone(),
                broker_addrs: BTreeMap::new(),
                enable_acting_master: false,
            });
        data.cluster.clone_from(cluster);
        // Under one address there is one broker, whatever it was before.
        data.broker_addrs
            .retain(|known, at| known == id || at != address);
        let before = data.broker_addrs.insert(*id, address.clone());
        if let Some(before) = before.filter(|before| before != address) {
            tracing::warn!(broker = %name, id, %before, now = %address, "a broker has moved, or two brokers have one name; give each its own brokerName");
        }
        let main = data.broker_addrs.get(&0).cloned();
        let known = self.live.get(address);
        let changed = known.is_none_or(|known| {
            known.version != topics.data_version || known.registrant != registrant
        });
        if *id == 0 && changed {
            for topic in topics.topic_config_table.values() {
                let queues = queue_data(name, topic);
                self.topics
                    .entry(topic.topic_name.clone())
                    .or_default()
                    .insert(name.clone(), queues);
            }
        }
        let live = Live {
            heard: now,
            version: topics.data_version,
            connection,
            registrant: registrant.clone(),
        };
        if self.live.insert(registrant.address, live).is_none() {
            tracing::info!(broker = %registrant.name, cluster = %registrant.cluster, "a broker has come");
        }
        Ok(main.filter(|_| registrant.id != 0))
    }

    fn check(&self, registrant: &Registrant, topics: &TopicTable) -> Result<(), RegistryError> {
        for (what, name) in [
            ("the cluster's name", &registrant.cluster),
            ("the broker's name", &registrant.name),
            ("the broker's address", &registrant.address),
        ] {
            fits(what, name)?;
        }
        if !self.live.contains_key(&registrant.address) && self.live.len() >= BROKERS {
            return Err(RegistryError::TooMany("brokers", BROKERS));
        }
        let mut new = 0;
        for topic in topics.topic_config_table.values() {
            fits("a topic's name", &topic.topic_name)?;
            let known = self.topics.get(&topic.topic_name);
            if known.is_none_or(|brokers| !brokers.contains_key(&registrant.name)) {
                new += 1;
            }
        }
        let known: usize = self.topics.values().map(BTreeMap::len).sum();
        if new > 0 && known + new > TOPICS {
            return Err(RegistryError::TooMany("topics", TOPICS));
        }
        Ok(())
    }

    /// Notes down that the broker at `address` lives. Returns the version of its topics that is known.
    pub fn heard(&mut self, address: &str, now: Duration) -> Option<DataVersion> {
        let live = self.live.get_mut(address)?;
        live.heard = now;
        Some(live.version)
    }

    /// Forgets a broker that says good-bye.
    pub fn unregister(&mut self, registrant: &Registrant) {
        if (self.live.get(&registrant.address))
            .is_some_and(|live| live.registrant.name == registrant.name)
        {
            self.forget(&registrant.address);
        }
    }

    /// Forgets the brokers that have registered over a connection that is gone.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        self.forget_where(|live| live.connection == connection);
    }

    /// Forgets the brokers that have been silent for [`SILENCE`].
    pub fn forget_silent(&mut self, now: Duration) {
        self.forget_where(|live| now.saturating_sub(live.heard) >= SILENCE);
    }

    fn forget_where(&mut self, gone: impl Fn(&Live) -> bool) {
        let gone: Vec<String> = (self.live.iter())
            .filter(|(_, live)| gone(live))
            .map(|(address, _)| address.clone())
            .collect();
        for address in gone {
            self.forget(&address);
        }
    }

    fn forget(&mut self, address: &str) {
        let Some(live) = self.live.remove(address) else {
            return;
        };
        let name = live.registrant.name;
        tracing::info!(broker = %name, %address, "a broker has gone");
        let Some(data) = self.brokers.get_mut(&name) else {
            return;
        };
        data.broker_addrs.retain(|_, at| at != address);
        if data.broker_addrs.is_empty() {
            self.brokers.remove(&name);
            self.topics.retain(|_, brokers| {
                brokers.remove(&name);
                !brokers.is_empty()
            });
        }
    }

    /// Where a topic is; `None` when no broker has it.
    #[must_use]
    pub fn route(&self, topic: &str) -> Option<TopicRoute> {
        let queues = self.topics.get(topic)?;
        let brokers: Vec<BrokerData> = (queues.keys())
            .filter_map(|name| self.brokers.get(name).cloned())
            .collect();
        if brokers.is_empty() {
            return None;
        }
        Some(TopicRoute {
            order_topic_conf: self.setting(ORDER_NAMESPACE, topic).map(str::to_owned),
            queue_datas: queues.values().cloned().collect(),
            broker_datas: brokers,
            filter_server_table: BTreeMap::new(),
        })
    }

    /// All brokers.
    #[must_use]
    pub fn cluster_info(&self) -> ClusterInfo {
        let mut clusters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for broker in self.brokers.values() {
            clusters
                .entry(broker.cluster.clone())
                .or_default()
                .push(broker.broker_name.clone());
        }
        ClusterInfo {
            broker_addr_table: self.brokers.clone(),
            cluster_addr_table: clusters,
        }
    }

    /// All topics by name; only those of one cluster if it is given.
    #[must_use]
    pub fn topics(&self, cluster: Option<&str>) -> Vec<String> {
        let wanted = |brokers: &BTreeMap<String, QueueData>| {
            let in_cluster = |name: &String| {
                let broker = self.brokers.get(name);
                broker.is_some_and(|broker| cluster == Some(broker.cluster.as_str()))
            };
            cluster.is_none() || brokers.keys().any(in_cluster)
        };
        (self.topics.iter())
            .filter(|(_, brokers)| wanted(brokers))
            .map(|(topic, _)| topic.clone())
            .collect()
    }

    /// Forgets a topic on all brokers. One that still has it brings it back with its next change.
    pub fn delete_topic(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// Lets a broker's topics be written to, or not, until it registers a change. Returns how many topics that were.
    pub fn permit_writing(&mut self, broker: &str, allowed: bool) -> usize {
        let mut count = 0;
        for queues in (self.topics.values_mut()).filter_map(|brokers| brokers.get_mut(broker)) {
            queues.perm = if allowed {
                queues.perm | WRITE
            } else {
                queues.perm & !WRITE
            };
            count += 1;
        }
        count
    }

    /// The value of a setting.
    #[must_use]
    pub fn setting(&self, namespace: &str, key: &str) -> Option<&str> {
        Some(self.settings.get(namespace)?.get(key)?.as_str())
    }

    /// All settings of a namespace; `None` when there are none.
    #[must_use]
    pub fn settings(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.settings.get(namespace)
    }

    /// Notes a setting down.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn set(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), RegistryError> {
        fits("the namespace", namespace)?;
        fits("the key", key)?;
        if value.len() > VALUE_BYTES {
            return Err(RegistryError::Value);
        }
        let known: usize = self.settings.values().map(BTreeMap::len).sum();
        if known >= SETTINGS && self.setting(namespace, key).is_none() {
            return Err(RegistryError::TooMany("settings", SETTINGS));
        }
        self.settings
            .entry(namespace.to_owned())
            .or_default()
            .insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Forgets a setting.
    pub fn unset(&mut self, namespace: &str, key: &str) {
        if let Some(keys) = self.settings.get_mut(namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.settings.remove(namespace);
            }
        }
    }
}

fn fits(what: &'static str, name: &str) -> Result<(), RegistryError> {
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(RegistryError::Name(what));
    }
    Ok(())
}

fn queue_data(broker: &str, topic: &TopicConfig) -> QueueData {
    QueueData {
        broker_name: broker.to_owned(),
        read_queue_nums: topic.read_queue_nums,
        write_queue_nums: topic.write_queue_nums,
        perm: topic.perm,
        topic_syn_flag: topic.topic_sys_flag,
        topic_sys_flag: topic.topic_sys_flag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: ConnectionId = ConnectionId(1);

    fn broker(name: &str, address: &str) -> Registrant {
        Registrant {
            cluster: "c".into(),
            name: name.into(),
            id: 0,
            address: address.into(),
        }
    }

    fn topics(counter: i64, names: &[&str]) -> TopicTable {
        let one = |name: &&str| {
            let config = TopicConfig {
                topic_name: (*name).into(),
                read_queue_nums: 4,
                write_queue_nums: 4,
                perm: 6,
                topic_filter_type: "SINGLE_TAG".into(),
                topic_sys_flag: 0,
                order: false,
            };
            ((*name).to_owned(), config)
        };
        TopicTable {
            data_version: DataVersion {
                counter,
                ..DataVersion::default()
            },
            topic_config_table: names.iter().map(one).collect(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn names(route: Option<TopicRoute>) -> Vec<String> {
        let route = route.unwrap_or_default();
        assert_eq!(route.queue_datas.len(), route.broker_datas.len());
        let names = route.broker_datas.into_iter();
        names.map(|broker| broker.broker_name).collect()
    }

    #[test]
    fn a_topic_is_where_brokers_say_it_is() {
        let mut registry = Registry::default();
        assert_eq!(registry.route("t"), None);
        for (name, address) in [("a", "1.1.1.1:1"), ("b", "2.2.2.2:2")] {
            let registered =
                registry.register(broker(name, address), &topics(1, &["t"]), AT, seconds(0));
            assert_eq!(registered, Ok(None));
        }
        assert_eq!(names(registry.route("t")), ["a", "b"]);
        registry.unregister(&broker("a", "1.1.1.1:1"));
        assert_eq!(names(registry.route("t")), ["b"]);
        assert_eq!(registry.topics(None), ["t"]);
        assert_eq!(registry.topics(Some("other")), [] as [String; 0]);
        let clusters = registry.cluster_info().cluster_addr_table;
        assert_eq!(clusters["c"], ["b"]);
    }

    #[test]
    fn a_broker_is_forgotten_after_silence_or_with_its_connection() {
        let mut registry = Registry::default();
        let register = |registry: &mut Registry, connection, at| {
            let a = broker("a", "1.1.1.1:1");
            registry
                .register(a, &topics(1, &["t"]), ConnectionId(connection), seconds(at))
                .unwrap();
        };
        register(&mut registry, 1, 0);
        registry.forget_silent(seconds(119));
        assert!(registry.route("t").is_some());
        assert!(registry.heard("1.1.1.1:1", seconds(119)).is_some());
        registry.forget_silent(seconds(238));
        assert!(registry.route("t").is_some());
        registry.forget_silent(seconds(239));
        assert_eq!(registry.route("t"), None);
        assert_eq!(registry.heard("1.1.1.1:1", seconds(240)), None);

        register(&mut registry, 1, 300);
        register(&mut registry, 2, 301);
        registry.disconnected(ConnectionId(1));
        assert!(registry.route("t").is_some(), "it has come back elsewhere");
        registry.disconnected(ConnectionId(2));
        assert_eq!(registry.route("t"), None);
        assert_eq!(registry.cluster_info(), ClusterInfo::default());
    }

    #[test]
    fn a_single_new_topic_leaves_the_others() {
        let mut registry = Registry::default();
        for (counter, topic) in [(1, "t"), (2, "u")] {
            let a = broker("a", "1.1.1.1:1");
            registry
                .register(a, &topics(counter, &[topic]), AT, seconds(0))
                .unwrap();
        }
        assert_eq!(registry.topics(Some("c")), ["t", "u"]);
        registry.delete_topic("t");
        let a = broker("a", "1.1.1.1:1");
        let same = registry.register(a, &topics(2, &["t", "u"]), AT, seconds(1));
        assert_eq!(same, Ok(None));
        assert_eq!(registry.topics(None), ["u"], "nothing has changed there");
    }

    #[test]
    fn writing_stays_forbidden_until_the_broker_changes() {
        let mut registry = Registry::default();
        let register = |registry: &mut Registry, counter| {
            let a = broker("a", "1.1.1.1:1");
            registry
                .register(a, &topics(counter, &["t"]), AT, seconds(0))
                .unwrap();
        };
        let perm = |registry: &Registry| registry.route("t").unwrap().queue_datas[0].perm;
        register(&mut registry, 1);
        assert_eq!(registry.permit_writing("a", false), 1);
        register(&mut registry, 1);
        assert_eq!(perm(&registry), 4);
        register(&mut registry, 2);
        assert_eq!(perm(&registry), 6);
        assert_eq!(registry.permit_writing("nobody", false), 0);
    }

    #[test]
    fn a_copy_learns_where_the_main_broker_is_and_changes_no_topics() {
        let mut registry = Registry::default();
        let main = broker("a", "1.1.1.1:1");
        registry
            .register(main, &topics(1, &["t"]), AT, seconds(0))
            .unwrap();
        let copy = Registrant {
            id: 1,
            ..broker("a", "1.1.1.2:1")
        };
        let told = registry.register(copy, &topics(9, &["u"]), AT, seconds(0));
        assert_eq!(told, Ok(Some("1.1.1.1:1".into())));
        assert_eq!(registry.topics(None), ["t"]);
        let addresses = &registry.route("t").unwrap().broker_datas[0].broker_addrs;
        assert_eq!(addresses.len(), 2);
    }

    #[test]
    fn a_broker_that_moves_is_where_it_said_last() {
        let mut registry = Registry::default();
        for address in ["1.1.1.1:1", "2.2.2.2:2"] {
            registry
                .register(broker("a", address), &topics(1, &["t"]), AT, seconds(0))
                .unwrap();
        }
        registry.unregister(&broker("a", "1.1.1.1:1"));
        let addresses = &registry.route("t").unwrap().broker_datas[0].broker_addrs;
        assert_eq!(addresses[&0], "2.2.2.2:2");
    }

    #[test]
    fn nobody_fills_the_memory_by_claims() {
        let mut registry = Registry::default();
        let long = broker(&"a".repeat(256), "1.1.1.1:1");
        let refused = registry.register(long, &topics(1, &[]), AT, seconds(0));
        assert!(matches!(refused, Err(RegistryError::Name(_))));
        for number in 0..BROKERS {
            let a = broker("a", &format!("1.1.1.1:{number}"));
            registry
                .register(a, &topics(1, &[]), AT, seconds(0))
                .unwrap();
        }
        let one_more = registry.register(broker("b", "x:1"), &topics(1, &[]), AT, seconds(0));
        assert_eq!(one_more, Err(RegistryError::TooMany("brokers", BROKERS)));
        assert_eq!(
            registry.set("n", "k", &"x".repeat(VALUE_BYTES + 1)),
            Err(RegistryError::Value)
        );
    }

    #[test]
    fn settings_are_kept_by_namespace() {
        let mut registry = Registry::default();
        registry.set(ORDER_NAMESPACE, "t", "a:4").unwrap();
        registry
            .register(broker("a", "x:1"), &topics(1, &["t"]), AT, seconds(0))
            .unwrap();
        let route = registry.route("t").unwrap();
        assert_eq!(route.order_topic_conf.as_deref(), Some("a:4"));
        registry.unset(ORDER_NAMESPACE, "t");
        assert_eq!(registry.settings(ORDER_NAMESPACE), None);
        assert_eq!(registry.setting("n", "k"), None);
    }
}
