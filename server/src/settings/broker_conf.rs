//! RocketMQ's configuration files: which of our settings each key means, which mean nothing here, which do not exist.

use std::path::Path;

use super::properties::{self, Entry};
use super::{Given, Key, Origin, Program};
use crate::failure::Failure;

/// Every key that brokers of RocketMQ 4.3.2 to 5.3.3 know.
const BROKER_KEYS: &str = include_str!("broker_keys.txt");
/// Every key that their nameservers know.
const NAMESERVER_KEYS: &str = include_str!("nameserver_keys.txt");

/// What a key means.
enum Meaning {
    /// A setting of ours, with the value as we write it.
    Setting(Key, String),
    /// One part of an address.
    Ip,
    /// The other part of an address.
    Port,
    /// It says what is so anyway.
    Agreed,
    /// Nothing here.
    Nothing,
    /// Something that cannot be had, for this reason.
    Refused(&'static str),
}

/// Adds what the file says; returns a warning that names the keys without a meaning.
pub(super) fn read(
    given: &mut Given,
    path: &Path,
    text: &str,
    of: Program,
) -> Result<Vec<String>, Failure> {
    let file = path.display();
    let entries = properties::parse(text)
        .map_err(|error| Failure::Environment(format!("{file}: {error}; correct it")))?;
    let (mut ip, mut port, mut unused) = (None, None, Vec::new());
    for entry in &entries {
        let origin = || Origin::File {
            path: path.to_path_buf(),
            line: entry.line,
            key: entry.key.clone(),
        };
        match meaning(entry, of) {
            Some(Meaning::Setting(key, value)) => given.give(key, value, origin()),
            Some(Meaning::Ip) => ip = Some((entry.value.trim(), origin())),
            Some(Meaning::Port) => port = Some((entry.value.trim(), origin())),
            Some(Meaning::Agreed) => {}
            Some(Meaning::Nothing) => unused.push(entry.key.as_str()),
            Some(Meaning::Refused(why)) => {
                return Err(Failure::Environment(format!("{}: {why}", origin())));
            }
            None => {
                return Err(Failure::Environment(format!(
                    "{file}, line {}: {:?} is no key that RocketMQ knows; correct or remove it",
                    entry.line,
                    entry.key.chars().take(80).collect::<String>()
                )));
            }
        }
    }
    listen(given, of, ip, port);
    if unused.is_empty() {
        return Ok(Vec::new());
    }
    unused.sort_unstable();
    unused.dedup();
    Ok(vec![format!(
        "{file}: without meaning here and ignored: {}",
        unused.join(", ")
    )])
}

/// The two parts of an address as one setting.
fn listen(
    given: &mut Given,
    of: Program,
    ip: Option<(&str, Origin)>,
    port: Option<(&str, Origin)>,
) {
    let (key, usual) = match of {
        Program::Broker => (Key::BrokerListen, "10911"),
        Program::Nameserver => (Key::NameserverListen, "9876"),
    };
    let value = format!(
        "{}:{}",
        ip.as_ref().map_or("127.0.0.1", |(ip, _)| ip),
        port.as_ref().map_or(usual, |(port, _)| port)
    );
    if let Some((_, origin)) = port.or(ip) {
        given.give(key, value, origin);
    }
}

/// `None` for a key that RocketMQ does not know.
fn meaning(entry: &Entry, of: Program) -> Option<Meaning> {
    let known = match of {
        Program::Broker => BROKER_KEYS,
        Program::Nameserver => NAMESERVER_KEYS,
    };
    if !known.split_whitespace().any(|key| key == entry.key) {
        return None;
    }
    let value = entry.value.trim();
    let setting = |key| Meaning::Setting(key, value.to_owned());
    let milliseconds = |key| Meaning::Setting(key, format!("{value}ms"));
    Some(match (of, entry.key.as_str()) {
        (_, "bindAddress") => Meaning::Ip,
        (_, "listenPort") => Meaning::Port,
        (Program::Nameserver, _) => Meaning::Nothing,
        (_, "brokerIP1") => setting(Key::Advertise),
        (_, "fileReservedTime") => Meaning::Setting(Key::KeepAge, format!("{value}h")),
        (_, "namesrvAddr") if value.is_empty() => Meaning::Agreed,
        (_, "namesrvAddr") => setting(Key::Nameservers),
        (_, "brokerName") => setting(Key::Name),
        (_, "brokerClusterName") => setting(Key::Cluster),
        (_, "autoCreateTopicEnable") => setting(Key::AutoCreateTopics),
        (_, "defaultTopicQueueNums") => setting(Key::DefaultQueues),
        (_, "enablePropertyFilter") => setting(Key::PropertyFilter),
        (_, "flushDiskType") => Meaning::Setting(
            Key::Flush,
            value.strip_suffix("_FLUSH").unwrap_or(value).to_owned(),
        ),
        (_, "storePathRootDir") => setting(Key::Data),
        (_, "transactionTimeOut") => milliseconds(Key::Immunity),
        (_, "transactionCheckInterval") => milliseconds(Key::CheckInterval),
        (_, "transactionCheckMax") => setting(Key::CheckMax),
        (_, "brokerId") if value == "0" => Meaning::Agreed,
        (_, "brokerId") => Meaning::Refused(
            "only 0 is possible: there are no copies of a broker; remove the line, and give each broker its own brokerName",
        ),
        (_, "brokerRole") if value == "SLAVE" => {
            Meaning::Refused("there are no copies of a broker; remove the line")
        }
        (_, "brokerRole") => Meaning::Agreed,
        (_, "maxMessageSize") if value == "4194304" => Meaning::Agreed,
        (_, "aclEnable" | "authenticationEnabled" | "authorizationEnabled") if value == "true" => {
            Meaning::Refused(
                "access control is not supported; remove the line, and let only machines you trust reach the ports",
            )
        }
        (_, "aclEnable" | "authenticationEnabled" | "authorizationEnabled") => Meaning::Agreed,
        _ => Meaning::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<(Given, Vec<String>), String> {
        let mut given = Given::default();
        let read = read(&mut given, Path::new("broker.conf"), text, Program::Broker);
        match read {
            Ok(warnings) => Ok((given, warnings)),
            Err(failure) => Err(failure.line().unwrap().to_owned()),
        }
    }

    #[test]
    fn the_smallest_file_people_have_works() {
        let (given, warnings) = conf(
            "brokerIP1=192.168.1.5\nnamesrvAddr=192.168.1.5:9876\nbrokerName=broker-a\nenablePropertyFilter=true\n",
        )
        .unwrap();
        assert_eq!(warnings, [] as [String; 0]);
        let settings = super::super::Settings::decide(&given).unwrap();
        assert_eq!(settings.advertise, Some([192, 168, 1, 5].into()));
        assert_eq!(settings.nameservers, ["192.168.1.5:9876"]);
        assert!(settings.property_filter);
        assert_eq!(settings.broker_listen.to_string(), "127.0.0.1:10911");
    }

    #[test]
    fn the_file_that_comes_with_rocketmq_works() {
        let (given, warnings) = conf(
            "brokerClusterName = DefaultCluster\nbrokerName = broker-a\nbrokerId = 0\ndeleteWhen = 04\nfileReservedTime = 48\nbrokerRole = ASYNC_MASTER\nflushDiskType = ASYNC_FLUSH\n",
        )
        .unwrap();
        let settings = super::super::Settings::decide(&given).unwrap();
        assert!(settings.flush_async);
        assert_eq!(settings.keep_age.map(|age| age.as_secs()), Some(48 * 3600));
        assert_eq!(
            warnings,
            ["broker.conf: without meaning here and ignored: deleteWhen"]
        );
    }

    #[test]
    fn times_are_milliseconds_and_addresses_have_two_parts() {
        let (given, _) =
            conf("transactionTimeOut=3000\ntransactionCheckInterval=10000\ntransactionCheckMax=5\nlistenPort=20911\nbindAddress=0.0.0.0\nstorePathRootDir=/data\n")
                .unwrap();
        let settings = super::super::Settings::decide(&given).unwrap();
        assert_eq!(settings.immunity.as_secs(), 3);
        assert_eq!(settings.check_interval.as_secs(), 10);
        assert_eq!(settings.check_max, 5);
        assert_eq!(settings.broker_listen.to_string(), "0.0.0.0:20911");
        assert_eq!(settings.data, Path::new("/data"));
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_line() {
        let line = conf("brokerName=a\nbrokerNmae=b\n").unwrap_err();
        assert!(
            line.contains("brokerNmae") && line.contains("line 2") && line.contains("broker.conf"),
            "{line}"
        );
        for refused in ["brokerId=1", "aclEnable=true", "brokerRole=SLAVE"] {
            let line = conf(refused).unwrap_err();
            assert!(line.contains("line 1"), "{line}");
        }
        let (given, _) = conf("brokerName=a\nlistenPort=many\n").unwrap();
        let failure = super::super::Settings::decide(&given).unwrap_err();
        let line = failure.line().unwrap();
        assert!(line.contains("listenPort (broker.conf, line 2)"), "{line}");
    }
}
