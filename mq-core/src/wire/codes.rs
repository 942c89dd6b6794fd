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
    /// Send a message, short field names.
    pub const SEND_MESSAGE_V2: i32 = 310;
    /// Send several messages at once, short field names.
    pub const SEND_BATCH_MESSAGE: i32 = 320;
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
}

pub use response::{REQUEST_CODE_NOT_SUPPORTED, SYSTEM_BUSY};
