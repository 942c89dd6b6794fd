//! Settings: which there are, where each may be given, and which of several values counts.
//!
//! | file | owns |
//! |---|---|
//! | `properties` | Java's properties files |
//! | `broker_conf` | RocketMQ's keys, and which of our settings each means |
//! | `halfmoon_toml` | our own file |
//! | `values` | addresses, sizes, times and switches as people write them |
//!
//! An option of the command line counts more than a variable of the environment, a variable more than a file, a file more
//! than the default.

mod broker_conf;
mod halfmoon_toml;
pub mod properties;
pub mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use coordinator::store::database::Database;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Where the nameserver listens.
    NameserverListen,
    /// Where the broker listens.
    BrokerListen,
    /// The address that clients are told (`brokerIP1`).
    Advertise,
    /// Nameservers to register with, separated by `;` (`namesrvAddr`).
    Nameservers,
    /// The broker's name (`brokerName`).
    Name,
    /// The cluster's name (`brokerClusterName`).
    Cluster,
    /// Whether a send to an unknown topic creates it (`autoCreateTopicEnable`).
    AutoCreateTopics,
    /// Queues of a topic made without saying how many (`defaultTopicQueueNums`).
    DefaultQueues,
    /// Whether consumers may filter by properties (`enablePropertyFilter`); they may, unless this says otherwise.
    PropertyFilter,
    /// `sync` or `async`: whether plain messages are acknowledged before they are durable (`flushDiskType`).
    Flush,
    /// The data folder (`storePathRootDir`).
    Data,
    /// The database, if it is not inside the data folder.
    Database,
    /// How much memory caches and queues may take.
    Memory,
    /// Length of the log's files.
    Segment,
    /// How long messages are kept (`fileReservedTime`, in hours).
    KeepAge,
    /// How many bytes of messages are kept at most.
    KeepBytes,
    /// How long decided transactions and their history are kept.
    KeepHistory,
    /// Age of a half message before its first check-back (`transactionTimeOut`).
    Immunity,
    /// Longest wait between check-backs (`transactionCheckInterval`).
    CheckInterval,
    /// How many check-backs may be answered with UNKNOWN (`transactionCheckMax`).
    CheckMax,
}

/// Every setting with its name in `halfmoon.toml`.
pub const ALL: [(Key, &str); 20] = [
    (Key::NameserverListen, "nameserver.listen"),
    (Key::BrokerListen, "broker.listen"),
    (Key::Advertise, "broker.advertise"),
    (Key::Nameservers, "broker.nameservers"),
    (Key::Name, "broker.name"),
    (Key::Cluster, "broker.cluster"),
    (Key::AutoCreateTopics, "broker.auto_create_topics"),
    (Key::DefaultQueues, "broker.default_queues"),
    (Key::PropertyFilter, "broker.property_filter"),
    (Key::Flush, "flush"),
    (Key::Data, "data"),
    (Key::Database, "database"),
    (Key::Memory, "memory"),
    (Key::Segment, "segment"),
    (Key::KeepAge, "keep.age"),
    (Key::KeepBytes, "keep.bytes"),
    (Key::KeepHistory, "keep.history"),
    (Key::Immunity, "check_back.immunity"),
    (Key::CheckInterval, "check_back.interval"),
    (Key::CheckMax, "check_back.max"),
];

/// The variable of a setting: `broker.listen` is `HALFMOON_BROKER_LISTEN`.
fn variable(name: &str) -> String {
    format!("HALFMOON_{}", name.replace('.', "_").to_uppercase())
}

/// The variable in which every RocketMQ tool looks for nameservers.
pub const NAMESERVERS_VARIABLE: &str = "NAMESRV_ADDR";

/// Where a value was given, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line, such as `--data`.
    Option(&'static str),
    /// A variable of the environment.
    Variable(String),
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key as it stands there.
        key: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => f.write_str(name),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line, key } => {
                write!(f, "{key} ({}, line {line})", path.display())
            }
        }
    }
}

/// Values as they were given; the first one given for a key counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given(BTreeMap<Key, (String, Origin)>);

impl Given {
    /// Adds a value unless one was given before.
    pub fn give(&mut self, key: Key, value: impl Into<String>, origin: Origin) {
        self.0.entry(key).or_insert_with(|| (value.into(), origin));
    }

    /// Adds the value of an option of the command line, if there is one.
    pub fn option(&mut self, key: Key, name: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.give(key, value.to_string(), Origin::Option(name));
        }
    }

    /// Adds what the environment says, read through `get`.
    pub fn environment(&mut self, get: impl Fn(&str) -> Option<String>) {
        for (key, name) in ALL {
            let variable = variable(name);
            if let Some(value) = get(&variable).filter(|value| !value.is_empty()) {
                self.give(key, value, Origin::Variable(variable));
            }
        }
    }

    /// Adds what a file says. A file whose name ends in `.toml` is ours, every other one is RocketMQ's.
    ///
    /// Returns warnings: keys of RocketMQ that mean nothing here.
    ///
    /// # Errors
    /// [`Failure::Environment`] naming file, key and line.
    pub fn file(&mut self, path: &Path, of: Program) -> Result<Vec<String>, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::Environment(format!(
                "{} cannot be read: {error}; check the path and its permissions",
                path.display()
            ))
        })?;
        self.text(path, &text, of)
    }

    /// Adds what the file at `path`, whose content is `text`, says; as [`Given::file`].
    ///
    /// # Errors
    /// [`Failure::Environment`] naming file, key and line.
    pub fn text(&mut self, path: &Path, text: &str, of: Program) -> Result<Vec<String>, Failure> {
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            halfmoon_toml::read(self, path, text)?;
            return Ok(Vec::new());
        }
        broker_conf::read(self, path, text, of)
    }

    /// The value of `key`, read by `read`; `default` if none was given.
    fn value<T>(
        &self,
        key: Key,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let Some((value, origin)) = self.0.get(&key) else {
            return Ok(default);
        };
        read(value.trim()).map_err(|why| {
            let shown: String = value.chars().take(80).collect();
            Failure::Environment(format!("{origin}: {shown:?} {why}"))
        })
    }

    /// Where the value of `key` was given.
    #[must_use]
    pub fn origin(&self, key: Key) -> Option<&Origin> {
        self.0.get(&key).map(|(_, origin)| origin)
    }
}

/// Whose configuration file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A broker's, or the whole server's.
    Broker,
    /// A nameserver's.
    Nameserver,
}

/// All settings, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the nameserver listens.
    pub nameserver_listen: SocketAddrV4,
    /// Where the broker listens.
    pub broker_listen: SocketAddrV4,
    /// The address that clients are told, if one was given.
    pub advertise: Option<Ipv4Addr>,
    /// Nameservers to register with, `host:port`.
    pub nameservers: Vec<String>,
    /// The broker's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Whether a send to an unknown topic creates it.
    pub auto_create_topics: bool,
    /// Queues of a topic made without saying how many.
    pub default_queues: u32,
    /// Whether consumers may filter by properties.
    pub property_filter: bool,
    /// Whether plain messages are acknowledged before they are durable.
    pub flush_async: bool,
    /// The data folder.
    pub data: PathBuf,
    /// The database, if it is not inside the data folder.
    pub database: Option<Database>,
    /// Bytes that caches and queues may take.
    pub memory: u64,
    /// Bytes of one file of the log.
    pub segment: u64,
    /// How long messages are kept, in the broker's own time; `None`: for ever.
    pub keep_age: Option<Duration>,
    /// Bytes of the log from which on the oldest messages go; `None`: no limit.
    pub keep_bytes: Option<u64>,
    /// How long decided transactions and their history are kept, in the broker's own time; `None`: for ever.
    pub keep_history: Option<Duration>,
    /// Age of a half message before its first check-back.
    pub immunity: Duration,
    /// Longest wait between check-backs.
    pub check_interval: Duration,
    /// How many check-backs may be answered with UNKNOWN.
    pub check_max: u32,
}

/// How long messages are kept unless told otherwise: as RocketMQ does.
const KEEP_AGE: Duration = Duration::from_secs(72 * 3600);

/// Least memory that makes sense.
const MEMORY_MIN: u64 = 16 << 20;

impl Settings {
    /// Decides every setting.
    ///
    /// # Errors
    /// [`Failure::Environment`]: a value that is none, and where it was given.
    pub fn decide(given: &Given) -> Result<Self, Failure> {
        let listen = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let memory = given.value(Key::Memory, 96 << 20, values::size)?;
        if memory < MEMORY_MIN {
            return Err(Failure::Environment(
                "memory must be at least 16MiB; the default is 96MiB".into(),
            ));
        }
        Ok(Self {
            nameserver_listen: given.value(
                Key::NameserverListen,
                listen(9_876),
                values::address,
            )?,
            broker_listen: given.value(
                Key::BrokerListen,
                listen(10_911),
                values::broker_address,
            )?,
            advertise: given.value(Key::Advertise, None, |text| values::ip(text).map(Some))?,
            nameservers: given.value(Key::Nameservers, Vec::new(), values::nameservers)?,
            name: given.value(Key::Name, "broker-a".into(), values::name)?,
            cluster: given.value(Key::Cluster, "DefaultCluster".into(), values::name)?,
            auto_create_topics: given.value(Key::AutoCreateTopics, true, values::switch)?,
            default_queues: given.value(Key::DefaultQueues, 4, values::queues)?,
            property_filter: given.value(Key::PropertyFilter, true, values::switch)?,
            flush_async: given.value(Key::Flush, false, values::flush)?,
            data: given.value(Key::Data, "./halfmoon-data".into(), |text| Ok(text.into()))?,
            database: given.value(Key::Database, None, |text| values::database(text).map(Some))?,
            memory,
            segment: given.value(Key::Segment, 64 << 20, values::segment)?,
            keep_age: given.value(Key::KeepAge, Some(KEEP_AGE), values::age)?,
            keep_bytes: given.value(Key::KeepBytes, None, |text| values::size(text).map(Some))?,
            keep_history: given.value(Key::KeepHistory, None, values::age)?,
            immunity: given.value(Key::Immunity, Duration::from_secs(6), values::duration)?,
            check_interval: given.value(
                Key::CheckInterval,
                Duration::from_secs(60),
                values::duration,
            )?,
            check_max: given.value(Key::CheckMax, 15, values::count)?,
        })
    }
}

#[cfg(test)]
mod tests;
