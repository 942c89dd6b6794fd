//! Bodies about routes: which brokers there are, and which of them has which topic. Keys are quoted, members never missing.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How one broker has one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueData {
    /// The broker's name.
    pub broker_name: String,
    /// Queues that can be pulled from.
    pub read_queue_nums: u32,
    /// Queues that can be sent to.
    pub write_queue_nums: u32,
    /// 4 read, 2 write, 1 inherit.
    pub perm: i32,
    /// The topic's flags, under the name that 4.x clients read.
    #[serde(default)]
    pub topic_syn_flag: i32,
    /// The same, under the name that 5.x clients read.
    #[serde(default)]
    pub topic_sys_flag: i32,
}

/// Where one broker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerData {
    /// Its cluster.
    #[serde(default)]
    pub cluster: String,
    /// Its name.
    pub broker_name: String,
    /// Addresses, `ip:port`, by broker id; 0 is the one that takes messages.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Always false: nobody acts for another.
    #[serde(default)]
    pub enable_acting_master: bool,
}

/// Where a topic is (`TopicRouteData`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicRoute {
    /// How ordered messages are spread, where somebody has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// Brokers that have the topic.
    #[serde(default)]
    pub queue_datas: Vec<QueueData>,
    /// Where they are.
    #[serde(default)]
    pub broker_datas: Vec<BrokerData>,
    /// Always empty; strict readers want it.
    #[serde(default)]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
}

/// Reads a body of this module, also as Java's older writers leave it: with numbers as keys that are not quoted.
///
/// # Errors
/// What the reader of JSON finds wrong.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body).or_else(|_| serde_json::from_slice(&with_quoted_keys(body)))
}

/// `json` with quotes around every key that is a bare number.
fn with_quoted_keys(json: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(json.len() + 16);
    let (mut in_text, mut escaped, mut before) = (false, false, b' ');
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let key = !in_text && matches!(before, b'{' | b',') && byte.is_ascii_digit();
        if key {
            let mut digits = vec![byte];
            while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
                digits.push(digit);
            }
            // A number in a list is no key.
            let is_key = bytes.peek() == Some(&b':');
            quoted.extend(is_key.then_some(b'"'));
            quoted.extend(digits);
            quoted.extend(is_key.then_some(b'"'));
            before = b'0';
            continue;
        }
        match (in_text, escaped, byte) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, false, b'"') => in_text = !in_text,
            _ => {}
        }
        if in_text || !byte.is_ascii_whitespace() {
            before = byte;
        }
        quoted.push(byte);
    }
    quoted
}

/// Which brokers there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Brokers by name.
    #[serde(default)]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Names of brokers by cluster.
    #[serde(default)]
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// A list of topics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicList {
    /// Their names.
    #[serde(default)]
    pub topic_list: Vec<String>,
    /// A broker to ask for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
}

/// Text by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KvTable {
    /// The pairs.
    #[serde(default)]
    pub table: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_keys_are_read_as_older_nameservers_write_them() {
        let body = br#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911", 12:"a\",3:b"},"brokerName":"a","cluster":"c"}],
            "queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"topicSynFlag":0,"writeQueueNums":8}],"other":[1,2]}"#;
        let route: TopicRoute = read(body).unwrap();
        let addresses = &route.broker_datas[0].broker_addrs;
        assert_eq!(addresses[&0], "10.0.0.1:10911");
        assert_eq!(addresses[&12], "a\",3:b", "texts are left alone");
        assert_eq!(route.queue_datas[0].write_queue_nums, 8);
        assert!(read::<TopicRoute>(b"{0:").is_err());
    }

    #[test]
    fn a_route_has_quoted_keys_and_every_member_that_strict_readers_want() {
        let route = TopicRoute {
            queue_datas: vec![QueueData {
                broker_name: "a".into(),
                read_queue_nums: 4,
                write_queue_nums: 4,
                perm: 6,
                topic_syn_flag: 0,
                topic_sys_flag: 0,
            }],
            broker_datas: vec![BrokerData {
                cluster: "c".into(),
                broker_name: "a".into(),
                broker_addrs: [(0, "127.0.0.1:10911".into())].into(),
                enable_acting_master: false,
            }],
            ..TopicRoute::default()
        };
        let json = serde_json::to_string(&route).unwrap();
        assert_eq!(
            json,
            r#"{"queueDatas":[{"brokerName":"a","readQueueNums":4,"writeQueueNums":4,"perm":6,"topicSynFlag":0,"topicSysFlag":0}],"brokerDatas":[{"cluster":"c","brokerName":"a","brokerAddrs":{"0":"127.0.0.1:10911"},"enableActingMaster":false}],"filterServerTable":{}}"#
        );
        assert_eq!(serde_json::from_str::<TopicRoute>(&json).unwrap(), route);
    }
}
