//! Bodies about routes: which brokers there are, and which of them has which topic. Keys are quoted, members never missing.

use std::collections::BTreeMap;

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
