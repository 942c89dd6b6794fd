//! Names and flag bits that RocketMQ reserves (`MessageConst`, `MixAll`, `TopicValidator`, `MessageSysFlag`).

/// Prefix of the topic that holds a group's messages to be consumed again.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic that holds a group's dead letters.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";
/// The topic whose 18 queues hold delayed messages, one queue for a level.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// The topic that holds half messages.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// The topic in which the original keeps its marks of settled half messages; ours stays empty.
pub const OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// The topic whose queue settings an automatically created topic inherits.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Topics that every broker of RocketMQ has. Nameservers of 5.x take a broker that they do not know, and that names a single
/// topic, for one that wants to add that topic to others, and refuse; with these it never names a single one.
pub const EVERYWHERE: [&str; 2] = ["SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT"];

/// Property: the one tag of a message.
pub const TAGS: &str = "TAGS";
/// Property: words to find a message by, separated by one space.
pub const KEYS: &str = "KEYS";
/// Property: the client's id of the message; for a half message also its transaction id.
pub const UNIQ_KEY: &str = "UNIQ_KEY";
/// Property: whether the sender waits for the flush.
pub const WAIT: &str = "WAIT";
/// Property: delay level 1 to 18.
pub const DELAY: &str = "DELAY";
/// Properties: when a message is to be delivered, as 5.x clients say it.
pub const TIMED: [&str; 3] = ["TIMER_DELIVER_MS", "TIMER_DELAY_SEC", "TIMER_DELAY_MS"];
/// Property: the topic a message really belongs to while it sits in a system topic.
pub const REAL_TOPIC: &str = "REAL_TOPIC";
/// Property: the queue a message really belongs to while it sits in a system topic.
pub const REAL_QUEUE: &str = "REAL_QID";
/// Property: the original topic of a message that is consumed again.
pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
/// Property: the id of the first copy of a message that is consumed again.
pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
/// Property: the original topic of a dead letter.
pub const DEAD_LETTER_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
/// Property: the original id of a dead letter.
pub const DEAD_LETTER_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
/// Property: asks for a half message.
pub const TRAN_MSG: &str = "TRAN_MSG";
/// Property: the producer group of a half message.
pub const PRODUCER_GROUP: &str = "PGROUP";
/// Property: the transaction id as 5.x brokers store it; equals [`UNIQ_KEY`].
pub const TRANSACTION_ID: &str = "__transactionId__";
/// Property: age in seconds before the first check-back of this message.
pub const CHECK_IMMUNITY_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
/// Property: how many check-backs were attempted.
pub const CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
/// Property (ours): identity of the marker database of a half message, 32 hex digits.
pub const MARKER: &str = "HM_MARKER";
/// Property (ours, set by the server on stored half messages only): the process incarnation of the sender, 32 hex digits.
pub const SENDER: &str = "HM_SENDER";

/// Field (ours) of a resolution that says UNKNOWN: `true` while the local transaction is still running.
pub const IN_FLIGHT: &str = "HM_IN_FLIGHT";

/// Property: the client that waits for the reply to this message.
pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
/// Property: when the broker pushed a reply, ms since 1970.
pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
/// Property: the cluster whose reply topic a reply is sent to.
pub const CLUSTER: &str = "CLUSTER";
/// Behind a cluster's name: the topic that replies are sent to, though none is stored.
pub const REPLY_TOPIC_SUFFIX: &str = "_REPLY_TOPIC";

/// Properties that only a client library or a broker sets.
pub const NOT_THE_SENDERS: [&str; 10] = [
    UNIQ_KEY,
    REAL_TOPIC,
    REAL_QUEUE,
    RETRY_TOPIC,
    ORIGIN_MESSAGE_ID,
    TRAN_MSG,
    PRODUCER_GROUP,
    TRANSACTION_ID,
    MARKER,
    SENDER,
];

/// Flag bit: the body is compressed.
pub const FLAG_COMPRESSED: i32 = 0x1;
/// Flag mask: the two bits that say what part of a transaction a message is.
pub const FLAG_TRANSACTION_MASK: i32 = 0xC;
/// Flag bits: a half message.
pub const FLAG_PREPARED: i32 = 0x4;
/// Flag bits: the published copy of a committed half message.
pub const FLAG_COMMIT: i32 = 0x8;
/// Flag bits: a rollback, in requests only.
pub const FLAG_ROLLBACK: i32 = 0xC;
/// Flag bit: the born host is an IPv6 address.
pub const FLAG_BORN_HOST_V6: i32 = 0x10;
/// Flag bit: the store host is an IPv6 address.
pub const FLAG_STORE_HOST_V6: i32 = 0x20;

/// Request code of a check-back from broker to producer.
pub const CHECK_TRANSACTION_STATE: i32 = 39;
/// Request code (ours) that asks which transactions are committed: the body is up to [`MOST_COMMITTED_ASKED`] ids, see
/// [`super::ids::from_bytes`], that of the answer those that are.
pub const COMMITTED_AMONG: i32 = 7300;
/// Most ids in the body of [`COMMITTED_AMONG`].
pub const MOST_COMMITTED_ASKED: usize = 512;
/// Request code of a producer's resolution.
pub const END_TRANSACTION: i32 = 37;
/// Request code that has a half message asked about again.
pub const RESUME_CHECK_HALF_MESSAGE: i32 = 323;
/// Request code that tells a consumer that its group has changed.
pub const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;

/// Fields (ours) of a refused resolution, about the decision that stands: its state, who decided, when in server time, and
/// what proved it.
pub const STANDS: [&str; 4] = ["HM_STATE", "HM_ACTOR", "HM_DECIDED_AT", "HM_EVIDENCE"];

/// Field (ours) of [`RESUME_CHECK_HALF_MESSAGE`]: the name of the person who asks, for the history.
pub const OPERATOR: &str = "HM_OPERATOR";
/// Longest value of [`OPERATOR`], in bytes.
pub const OPERATOR_MAX_BYTES: usize = 96;

/// Field (ours) of the answer to a heartbeat: the broker is one of ours and answers every resolution.
pub const OURS: &str = "HM_BROKER";

/// Response field of a sent message: the client's own id of it, [`UNIQ_KEY`].
pub const SENT_UNIQUE_KEY: &str = "transactionId";

/// Figures of a running broker that tools read and ours has none of: queues in front of threads, and yesterday.
pub const UNCOUNTED_FIGURES: [&str; 26] = [
    "EndTransactionQueueSize",
    "EndTransactionThreadPoolQueueCapacity",
    "commitLogDiskRatio",
    "consumeQueueDiskRatio",
    "dispatchBehindBytes",
    "dispatchMaxBuffer",
    "getMessageEntireTimeMax",
    "msgGetTotalTodayMorning",
    "msgGetTotalYesterdayMorning",
    "msgPutTotalTodayMorning",
    "msgPutTotalYesterdayMorning",
    "pageCacheLockTimeMills",
    "pullThreadPoolQueueCapacity",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "putMessageAverageSize",
    "putMessageEntireTimeMax",
    "queryThreadPoolQueueCapacity",
    "queryThreadPoolQueueHeadWaitTimeMills",
    "queryThreadPoolQueueSize",
    "remainHowManyDataToCommit",
    "remainHowManyDataToFlush",
    "sendThreadPoolQueueCapacity",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "sendThreadPoolQueueSize",
    "startAcceptSendRequestTimeStamp",
];
