//! Request codes (`RequestCode`) and response codes (`ResponseCode`) of RocketMQ.

/// What a request asks for. Names are RocketMQ's.
pub mod request {
    /// Send a message, long field names.
    pub const SEND_MESSAGE: i32 = 10;
    /// Read messages of one queue.
    pub const PULL_MESSAGE: i32 = 11;
    /// Find messages by key.
    pub const QUERY_MESSAGE: i32 = 12;
    /// How far a group has consumed a queue.
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    /// Note how far a group has consumed a queue.
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    /// Create a topic or change it.
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    /// All topics of a broker.
    pub const GET_ALL_TOPIC_CONFIG: i32 = 21;
    /// Change settings of a broker.
    pub const UPDATE_BROKER_CONFIG: i32 = 25;
    /// Settings of a broker.
    pub const GET_BROKER_CONFIG: i32 = 26;
    /// Figures of a running broker.
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    /// First offset at or after a time.
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    /// The next offset to be written.
    pub const GET_MAX_OFFSET: i32 = 30;
    /// The first offset kept.
    pub const GET_MIN_OFFSET: i32 = 31;
    /// When the oldest message kept was stored.
    pub const GET_EARLIEST_MSG_STORETIME: i32 = 32;
    /// One message by its position.
    pub const VIEW_MESSAGE_BY_ID: i32 = 33;
    /// What a client says about itself.
    pub const HEART_BEAT: i32 = 34;
    /// A client leaves.
    pub const UNREGISTER_CLIENT: i32 = 35;
    /// Have a message consumed again later.
    pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
    /// The members of a consumer group.
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    /// Lock queues for orderly consumption.
    pub const LOCK_BATCH_MQ: i32 = 41;
    /// Unlock queues.
    pub const UNLOCK_BATCH_MQ: i32 = 42;
    /// How far all groups have consumed all queues (to slaves).
    pub const GET_ALL_CONSUMER_OFFSET: i32 = 43;
    /// Whether a subscription can be understood.
    pub const CHECK_CLIENT_CONFIG: i32 = 46;
    /// A broker says what it has (to a nameserver).
    pub const REGISTER_BROKER: i32 = 103;
    /// A broker leaves (to a nameserver).
    pub const UNREGISTER_BROKER: i32 = 104;
    /// Where a topic is (to a nameserver).
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    /// Which brokers there are (to a nameserver).
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    /// A broker says how new its topics are (to a nameserver).
    pub const QUERY_DATA_VERSION: i32 = 322;
    /// A broker lives (to a nameserver).
    pub const BROKER_HEARTBEAT: i32 = 904;
    /// All topics (to a nameserver).
    pub const GET_ALL_TOPIC_LIST_FROM_NAMESERVER: i32 = 206;
    /// The topics of a cluster (to a nameserver).
    pub const GET_TOPICS_BY_CLUSTER: i32 = 224;
    /// Topics of clusters and brokers (to a nameserver).
    pub const GET_SYSTEM_TOPIC_LIST_FROM_NS: i32 = 304;
    /// Forget a topic (to a nameserver).
    pub const DELETE_TOPIC_IN_NAMESRV: i32 = 216;
    /// Route no more messages to a broker (to a nameserver).
    pub const WIPE_WRITE_PERM_OF_BROKER: i32 = 205;
    /// Route messages to a broker again (to a nameserver).
    pub const ADD_WRITE_PERM_OF_BROKER: i32 = 327;
    /// Note a setting down (to a nameserver).
    pub const PUT_KV_CONFIG: i32 = 100;
    /// Read a setting (to a nameserver).
    pub const GET_KV_CONFIG: i32 = 101;
    /// Forget a setting (to a nameserver).
    pub const DELETE_KV_CONFIG: i32 = 102;
    /// All settings of a namespace (to a nameserver).
    pub const GET_KVLIST_BY_NAMESPACE: i32 = 219;
    /// Change settings of a nameserver.
    pub const UPDATE_NAMESRV_CONFIG: i32 = 318;
    /// Settings of a nameserver.
    pub const GET_NAMESRV_CONFIG: i32 = 319;
    /// Create a consumer group or change it.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    /// All consumer groups of a broker.
    pub const GET_ALL_SUBSCRIPTIONGROUP_CONFIG: i32 = 201;
    /// The ends of a topic's queues.
    pub const GET_TOPIC_STATS_INFO: i32 = 202;
    /// The connected consumers of a group.
    pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    /// The connected producers of a group.
    pub const GET_PRODUCER_CONNECTION_LIST: i32 = 204;
    /// Delete a consumer group.
    pub const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
    /// How far a group has consumed, beside the ends of its queues.
    pub const GET_CONSUME_STATS: i32 = 208;
    /// Delete a topic.
    pub const DELETE_TOPIC_IN_BROKER: i32 = 215;
    /// Tell a consumer to go on elsewhere (to a client).
    pub const RESET_CONSUMER_CLIENT_OFFSET: i32 = 220;
    /// Have a group go on where its messages have a certain time.
    pub const INVOKE_BROKER_TO_RESET_OFFSET: i32 = 222;
    /// Which groups consume a topic.
    pub const QUERY_TOPIC_CONSUME_BY_WHO: i32 = 300;
    /// How a consumer is doing (passed on to it).
    pub const GET_CONSUMER_RUNNING_INFO: i32 = 307;
    /// Have a consumer take one message now (passed on to it).
    pub const CONSUME_MESSAGE_DIRECTLY: i32 = 309;
    /// Send a message, short field names.
    pub const SEND_MESSAGE_V2: i32 = 310;
    /// Give one group the offsets of another.
    pub const CLONE_GROUP_OFFSET: i32 = 314;
    /// Counters of a broker.
    pub const VIEW_BROKER_STATS_DATA: i32 = 315;
    /// Remove topics that nobody uses.
    pub const CLEAN_UNUSED_TOPIC: i32 = 316;
    /// How far all groups have consumed.
    pub const GET_BROKER_CONSUME_STATS: i32 = 317;
    /// Send several messages at once, short field names.
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    /// Send the reply to a request.
    pub const SEND_REPLY_MESSAGE: i32 = 324;
    /// Send the reply to a request, short field names.
    pub const SEND_REPLY_MESSAGE_V2: i32 = 325;
    /// Hand a reply to the client that waits for it (to a client).
    pub const PUSH_REPLY_MESSAGE_TO_CLIENT: i32 = 326;
    /// How one topic is set.
    pub const GET_TOPIC_CONFIG: i32 = 351;
    /// How one consumer group is set.
    pub const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;
    /// As [`PULL_MESSAGE`], by consumers that ask on their own.
    pub const LITE_PULL_MESSAGE: i32 = 361;
}

/// How a request ended. Names are RocketMQ's.
pub mod response {
    /// Done.
    pub const SUCCESS: i32 = 0;
    /// It failed, for a reason of the server's.
    pub const SYSTEM_ERROR: i32 = 1;
    /// Overloaded, try again.
    pub const SYSTEM_BUSY: i32 = 2;
    /// Nobody here answers this request.
    pub const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    /// The message breaks a rule.
    pub const MESSAGE_ILLEGAL: i32 = 13;
    /// The server takes nothing now.
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
    /// Topic, group or broker forbid it.
    pub const NO_PERMISSION: i32 = 16;
    /// There is no such topic.
    pub const TOPIC_NOT_EXIST: i32 = 17;
    /// There is nothing new for a pull.
    pub const PULL_NOT_FOUND: i32 = 19;
    /// Nothing matched; pull on at once.
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    /// The offset is outside of the queue.
    pub const PULL_OFFSET_MOVED: i32 = 21;
    /// There is none: no offset, no message.
    pub const QUERY_NOT_FOUND: i32 = 22;
    /// The expression of a subscription cannot be read.
    pub const SUBSCRIPTION_PARSE_FAILED: i32 = 23;
    /// The group has not subscribed to the topic.
    pub const SUBSCRIPTION_NOT_EXIST: i32 = 24;
    /// The client's last heartbeat is older than the subscription it names.
    pub const SUBSCRIPTION_NOT_LATEST: i32 = 25;
    /// There is no such consumer group.
    pub const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    /// No consumer of the group is connected.
    pub const CONSUMER_NOT_ONLINE: i32 = 206;
    /// A client did not answer in time.
    pub const CONSUME_MSG_TIMEOUT: i32 = 207;
}

pub use response::{REQUEST_CODE_NOT_SUPPORTED, SYSTEM_BUSY};
