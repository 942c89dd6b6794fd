//! Half messages and finals as stored bytes. Pure.
//!
//! A half message is an ordinary record of the hidden half topic: its real topic and queue, its group, sender and marker
//! database stand in its properties, so that everything about it can be told from the log alone. A final is a full copy in
//! the real topic that names the half message it came from.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use mq_core::broker::clients::Notice;
use mq_core::broker::filter::tag_code;
use mq_core::log::{Append, Entry, Log, Mark, OwnerId, Position, QueueOffset, ReadError, Stored};
use mq_core::names::{GroupName, QueueId, TopicName};
use mq_core::wire::encoded::EncodedRecord;
use mq_core::wire::ids;
use mq_core::wire::properties;
use mq_core::wire::record::{NewRecord, RecordView, place};
use mq_core::wire::reserved;

use crate::audit::echo::Recorded;
use crate::client::endpoint::HalfRequest;
use crate::store::{Half, Row};
use crate::transaction::{Decision, Incarnation, MarkerIdentity, TransactionId};

/// The coordinator's marks and notes in the log.
pub const OWNER: OwnerId = OwnerId(1);

/// Mark kind: a half message; the key is its transaction.
pub const HALF: u8 = 1;
/// Mark kind: the final of a commit; the number is the decision's.
pub const FINAL: u8 = 2;
/// Mark kind: a note that echoes a rollback; the number is the decision's.
pub const ROLLBACK_ECHO: u8 = 3;
/// Mark kind: a note that carries a half message forward, as its record was; the number is the position of that.
pub const MOVED: u8 = 4;

/// The queue of the half topic.
#[must_use]
pub fn half_queue() -> QueueId {
    let topic = TopicName::new(reserved::HALF_TOPIC).expect("the reserved topic keeps the rules");
    QueueId::new(topic, 0)
}

/// A half message before it is stored, from whatever door it came.
#[derive(Debug, Clone, Copy)]
pub struct NewHalf<'a> {
    /// The sender's id of it, if it gave one. It need not be unique.
    pub unique: Option<&'a str>,
    /// The producer group.
    pub group: &'a GroupName,
    /// The topic the message is for.
    pub topic: &'a TopicName,
    /// The application's own flag.
    pub flag: i32,
    /// RocketMQ's flag bits, without those that make it a half message.
    pub sys_flag: i32,
    /// When the producer made it, ms since 1970.
    pub born_ms: u64,
    /// Who sent it.
    pub born_host: SocketAddrV4,
    /// The message's own properties, encoded: none of [`ADDED`].
    pub properties: &'a [u8],
    /// The body, which the record shares.
    pub body: &'a Bytes,
    /// The sender's process life, if it is known.
    pub sender: Option<Incarnation>,
    /// The marker table that will hold its marker.
    pub marker: Option<MarkerIdentity>,
    /// Age before its first check-back, if it asks for one.
    pub immunity: Option<Duration>,
}

/// The properties that the record of a half message adds to the message's own.
pub const ADDED: [&str; 8] = [
    reserved::UNIQ_KEY,
    reserved::TRAN_MSG,
    reserved::PRODUCER_GROUP,
    reserved::REAL_TOPIC,
    reserved::REAL_QUEUE,
    reserved::CHECK_IMMUNITY_SECONDS,
    reserved::SENDER,
    reserved::MARKER,
];

/// The properties of the record of a half message.
#[derive(Debug)]
pub struct RecordProperties {
    /// All of them: the message's own and [`ADDED`].
    pub encoded: Vec<u8>,
    /// How many bytes of them the final has, too: what only the server needs stands at the end.
    pub of_final: usize,
}

impl NewHalf<'_> {
    /// The properties of the record.
    #[must_use]
    pub fn record_properties(&self, queue: u32) -> RecordProperties {
        let mut encoded = Vec::with_capacity(self.properties.len() + 320);
        encoded.extend_from_slice(self.properties);
        let mut push = |name: &str, value: &str| properties::push(&mut encoded, name, value);
        if let Some(unique) = self.unique {
            push(reserved::UNIQ_KEY, unique);
        }
        push(reserved::TRAN_MSG, "true");
        push(reserved::PRODUCER_GROUP, self.group.as_str());
        push(reserved::REAL_TOPIC, self.topic.as_str());
        push(reserved::REAL_QUEUE, &queue.to_string());
        if let Some(age) = self.immunity {
            push(reserved::CHECK_IMMUNITY_SECONDS, &age.as_secs().to_string());
        }
        let of_final = encoded.len();
        let mut push = |name: &str, value: &str| properties::push(&mut encoded, name, value);
        if let Some(sender) = self.sender {
            push(reserved::SENDER, &ids::hex128(sender.0));
        }
        if let Some(marker) = self.marker {
            push(reserved::MARKER, &ids::hex128(marker.0));
        }
        RecordProperties { encoded, of_final }
    }

    /// The record in the half queue, stored by `host`; `properties` are all of [`Self::record_properties`].
    #[must_use]
    pub fn record(&self, properties: &[u8], host: SocketAddrV4) -> EncodedRecord {
        NewRecord {
            topic: reserved::HALF_TOPIC,
            queue: 0,
            flag: self.flag,
            sys_flag: self.sys_flag,
            born_ms: self.born_ms,
            born_host: self.born_host,
            store_host: host,
            reconsume_times: 0,
            prepared_position: 0,
            body: self.body,
            properties,
        }
        .encode_around(self.body.clone())
    }
}

/// The record of a half message for queue `queue` of its topic.
#[must_use]
pub fn encode(
    request: &HalfRequest,
    queue: u32,
    born_ms: u64,
    host: SocketAddrV4,
) -> EncodedRecord {
    let unique = ids::hex128(request.id.0);
    let half = new_half(request, &unique, born_ms, host);
    half.record(&half.record_properties(queue).encoded, host)
}

/// What a producer in this process asks to store; `unique` is its id as text.
#[must_use]
pub fn new_half<'a>(
    request: &'a HalfRequest,
    unique: &'a str,
    born_ms: u64,
    host: SocketAddrV4,
) -> NewHalf<'a> {
    let message = &request.message;
    NewHalf {
        unique: Some(unique),
        group: &request.group,
        topic: message.topic(),
        flag: message.flag(),
        sys_flag: 0,
        born_ms,
        born_host: host,
        properties: message.properties().0,
        body: message.body(),
        sender: Some(request.sender),
        marker: request.marker,
        immunity: request.immunity,
    }
}

/// The mark of a half message.
#[must_use]
pub const fn mark(id: TransactionId) -> Mark {
    Mark {
        owner: OWNER,
        kind: HALF,
        key: id.0,
        number: 0,
    }
}

/// The note that carries the half message forward whose record has these `bytes`.
#[must_use]
pub fn moved(half: &Half, bytes: &[u8]) -> Append {
    Append {
        mark: Some(Mark {
            owner: OWNER,
            kind: MOVED,
            key: half.id.0,
            number: half.position.0,
        }),
        entry: Entry::Note {
            payload: bytes.to_vec(),
        },
    }
}

/// Whether `mark` is that of a decision: of a final or an echo.
#[must_use]
pub const fn is_decision(mark: &Mark) -> bool {
    matches!(mark.kind, FINAL | ROLLBACK_ECHO)
}

/// Reads the half message of `row` from where the log keeps it now.
///
/// # Errors
/// [`ReadError::Gone`] when it was carried forward since `row` was read, [`ReadError::NotARecord`] when something else stands
/// there, or what the log says.
pub fn kept(log: &dyn Log, row: &Row) -> Result<Stored, ReadError> {
    let (half, at) = (&row.half, row.stored_at());
    let stored = log.read(at)?;
    let fits = |mark: &Mark| {
        let in_place = mark.kind == HALF && at == half.position;
        let carried = mark.kind == MOVED && mark.number == half.position.0;
        mark.owner == OWNER && mark.key == half.id.0 && (in_place || carried)
    };
    if stored.mark.as_ref().is_some_and(fits) {
        Ok(stored)
    } else {
        Err(ReadError::NotARecord(at))
    }
}

/// A half message as its record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// What the store keeps of it; `prepared_at` is not in the message and is zero unless the log was asked.
    pub half: Half,
    /// The queue of the real topic.
    pub queue: u32,
    /// Age before its first check-back, if it asked for one.
    pub immunity: Option<Duration>,
}

/// Why a record of the half topic is not a half message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record at position {position} is not a half message: {why}")]
pub struct NotAHalf {
    /// Where it stands.
    pub position: Position,
    /// What is missing or wrong.
    pub why: &'static str,
}

/// Reads a half message from where the log keeps it; its mark names the transaction.
///
/// # Errors
/// [`NotAHalf`] says what is missing or unreadable.
pub fn read(stored: &Stored) -> Result<Decoded, NotAHalf> {
    let view = view(stored)?;
    let mut decoded = decode(&view, TransactionId(stored.mark.map_or(0, |mark| mark.key)))?;
    decoded.half.prepared_at = stored.at;
    Ok(decoded)
}

/// Reads a half message from a copy that carries it forward; `prepared_at` is when that was made.
///
/// # Errors
/// [`NotAHalf`] says what is missing or unreadable.
pub fn carried(stored: &Stored) -> Result<Half, NotAHalf> {
    let half = read(stored)?.half;
    let is_behind = half.position < stored.position;
    if is_behind
        && stored
            .mark
            .is_some_and(|mark| mark.number == half.position.0)
    {
        return Ok(half);
    }
    Err(NotAHalf {
        position: stored.position,
        why: "it says another first place than its record",
    })
}

/// Reads a decision from the final or the echo that records it.
///
/// # Errors
/// [`NotAHalf`] says what is missing or unreadable.
pub fn recorded(stored: &Stored) -> Result<Recorded, NotAHalf> {
    let (decision, half) = if stored.is_message {
        (Decision::Commit, view(stored)?.prepared_position)
    } else {
        let position = stored.bytes.first_chunk::<8>();
        let position = position.ok_or(NotAHalf {
            position: stored.position,
            why: "its echo names no position",
        })?;
        (Decision::RollBack, u64::from_be_bytes(*position))
    };
    Ok(Recorded {
        id: TransactionId(stored.mark.map_or(0, |mark| mark.key)),
        half: Position(half),
        decision,
        number: stored.mark.map_or(0, |mark| mark.number),
        position: stored.position,
    })
}

fn view(stored: &Stored) -> Result<RecordView<'_>, NotAHalf> {
    RecordView::parse(&stored.bytes).map_err(|_| NotAHalf {
        position: stored.position,
        why: "it is not a message record",
    })
}

/// Reads a half message of transaction `id` from its record.
///
/// # Errors
/// [`NotAHalf`] says which property is missing or unreadable.
pub fn decode(record: &RecordView<'_>, id: TransactionId) -> Result<Decoded, NotAHalf> {
    let fail = |why| NotAHalf {
        position: Position(record.position),
        why,
    };
    if record.topic != reserved::HALF_TOPIC {
        return Err(fail("it is in another topic"));
    }
    let (mut group, mut topic, mut queue, mut sender, mut marker, mut immunity) =
        (None, None, None, None, None, None);
    record.properties.visit(|name, value| match name {
        reserved::PRODUCER_GROUP => group = GroupName::new(value).ok(),
        reserved::REAL_TOPIC => topic = TopicName::new(value).ok(),
        reserved::REAL_QUEUE => queue = value.parse().ok(),
        reserved::SENDER => sender = ids::parse_hex128(value).map(Incarnation),
        reserved::MARKER => marker = ids::parse_hex128(value).map(MarkerIdentity),
        reserved::CHECK_IMMUNITY_SECONDS => immunity = value.parse().ok().map(Duration::from_secs),
        _ => {}
    });
    Ok(Decoded {
        half: Half {
            id,
            position: Position(record.position),
            queue_offset: QueueOffset(record.queue_offset),
            group: group.ok_or_else(|| fail("its producer group is missing"))?,
            topic: topic.ok_or_else(|| fail("its real topic is missing"))?,
            body_len: u32::try_from(record.body.len()).map_err(|_| fail("its body is too long"))?,
            prepared_at: Default::default(),
            sender,
            marker,
        },
        queue: queue.ok_or_else(|| fail("its real queue is missing"))?,
        immunity,
    })
}

/// The final in `target` of a half message, whose record stands at `position` and shares `body`. Position, queue offset and
/// store time of the final are set by the log.
#[must_use]
pub fn final_record(
    half: &RecordView<'_>,
    body: Bytes,
    position: Position,
    target: &QueueId,
) -> EncodedRecord {
    let kept = properties::retain(half.properties, |name| {
        name != reserved::SENDER && name != reserved::MARKER
    });
    NewRecord {
        topic: target.topic.as_str(),
        queue: target.queue,
        flag: half.flag,
        sys_flag: half.sys_flag | reserved::FLAG_COMMIT,
        born_ms: half.born_ms,
        born_host: half.born_host,
        store_host: half.store_host,
        reconsume_times: 0,
        prepared_position: position.0,
        body: half.body,
        properties: &kept,
    }
    .encode_around_known(body, half.body_checksum)
}

/// Hash of the tag among these encoded properties; 0 if there is none.
#[must_use]
pub fn tag_code_of(encoded: &[u8]) -> i64 {
    let properties = properties::Properties(encoded);
    properties.get(reserved::TAGS).map_or(0, tag_code)
}

/// The mark of decision number `number`: of the final for a commit, of the echo for a rollback.
#[must_use]
pub const fn decision_mark(id: TransactionId, decision: Decision, number: u64) -> Mark {
    let kind = match decision {
        Decision::Commit => FINAL,
        Decision::RollBack => ROLLBACK_ECHO,
    };
    Mark {
        owner: OWNER,
        kind,
        key: id.0,
        number,
    }
}

/// The request that asks a producer about `half`, for the `times`-th time (RocketMQ `CheckTransactionStateRequestHeader`).
/// `record` is the half message as stored, and `host` where clients reach the broker. `None` if the record makes no sense.
#[must_use]
pub fn check_back(half: &Half, record: &[u8], times: u32, host: SocketAddrV4) -> Option<Notice> {
    let view = RecordView::parse(record).ok()?;
    let queue = view.properties.get(reserved::REAL_QUEUE)?.parse().ok()?;
    let unique = view.properties.get(reserved::UNIQ_KEY);
    let record_id = ids::offset_id(host, half.position.0);
    let fields = vec![
        ("tranStateTableOffset", half.queue_offset.to_string()),
        ("commitLogOffset", half.position.to_string()),
        ("msgId", unique.unwrap_or(&record_id).to_owned()),
        (
            "transactionId",
            unique.map_or_else(|| half.id.to_string(), str::to_owned),
        ),
        ("offsetMsgId", record_id),
        ("topic", reserved::HALF_TOPIC.to_owned()),
    ];
    let mut shown = properties::retain(view.properties, |name| {
        name != reserved::SENDER && name != reserved::CHECK_TIMES
    });
    if shown.len() + reserved::CHECK_TIMES.len() + 12 <= properties::MAX_BYTES {
        properties::push(&mut shown, reserved::CHECK_TIMES, &times.to_string());
    }
    let mut body = Vec::new();
    NewRecord {
        topic: half.topic.as_str(),
        queue,
        flag: view.flag,
        sys_flag: view.sys_flag,
        born_ms: view.born_ms,
        born_host: view.born_host,
        store_host: host,
        reconsume_times: 0,
        prepared_position: 0,
        body: view.body,
        properties: &shown,
    }
    .encode(&mut body);
    place(
        &mut body,
        half.queue_offset.0,
        half.position.0,
        view.store_ms,
    );
    Some(Notice {
        code: reserved::CHECK_TRANSACTION_STATE,
        fields,
        body: body.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::message::Message;
    use mq_core::wire::record::EMBEDDED_HOST;

    fn request() -> HalfRequest {
        HalfRequest {
            id: TransactionId(7),
            group: GroupName::new("order-service").unwrap(),
            message: Message::builder("orders")
                .tag("placed")
                .key("10248")
                .body("hello")
                .build()
                .unwrap(),
            queue: None,
            sender: Incarnation(9),
            marker: Some(MarkerIdentity(11)),
            immunity: Some(Duration::from_secs(3)),
        }
    }

    #[test]
    fn a_half_message_tells_everything_about_itself() {
        let mut bytes = encode(&request(), 2, 1000, EMBEDDED_HOST).to_vec();
        place(&mut bytes, 5, 4096, 1001);
        let decoded = decode(&RecordView::parse(&bytes).unwrap(), TransactionId(7)).unwrap();
        assert_eq!(decoded.queue, 2);
        assert_eq!(decoded.immunity, Some(Duration::from_secs(3)));
        let half = decoded.half;
        assert_eq!(
            (half.position, half.queue_offset, half.body_len),
            (Position(4096), QueueOffset(5), 5)
        );
        assert_eq!(
            (half.sender, half.marker),
            (Some(Incarnation(9)), Some(MarkerIdentity(11)))
        );
        assert_eq!(
            (half.group.as_str(), half.topic.as_str()),
            ("order-service", "orders")
        );
    }

    #[test]
    fn a_final_is_a_full_copy_without_what_only_the_server_needs() {
        let mut bytes = encode(&request(), 2, 1000, EMBEDDED_HOST).to_vec();
        place(&mut bytes, 5, 4096, 1001);
        let view = RecordView::parse(&bytes).unwrap();
        let target = QueueId::new(TopicName::new("orders").unwrap(), 2);
        let body = Bytes::copy_from_slice(view.body);
        let record = final_record(&view, body, Position(4096), &target).to_vec();
        let copy = RecordView::parse(&record).unwrap();
        assert_eq!(copy.check_body(), Ok(()));
        assert_eq!(
            (copy.topic, copy.queue, copy.body),
            ("orders", 2, &b"hello"[..])
        );
        assert_eq!(
            (copy.prepared_position, copy.sys_flag),
            (4096, reserved::FLAG_COMMIT)
        );
        assert_eq!(copy.properties.get(reserved::TAGS), Some("placed"));
        assert_eq!(
            copy.properties.get(reserved::UNIQ_KEY),
            Some(&*TransactionId(7).to_string())
        );
        assert_eq!(copy.properties.get(reserved::SENDER), None);
        assert_eq!(copy.properties.get(reserved::MARKER), None);
    }

    #[test]
    fn the_final_of_a_half_message_in_memory_is_that_of_the_one_in_the_log() {
        let plain = HalfRequest {
            message: Message::builder("orders").build().unwrap(),
            marker: None,
            immunity: None,
            ..request()
        };
        for request in [request(), plain] {
            let id = ids::hex128(request.id.0);
            let new = new_half(&request, &id, 1000, EMBEDDED_HOST);
            let properties = new.record_properties(2);
            let kept = new.record(&properties.encoded, EMBEDDED_HOST);
            let target = QueueId::new(TopicName::new("orders").unwrap(), 3);
            let copy = kept.final_copy(&target, 4096, properties.of_final);
            let mut stored = kept.to_vec();
            place(&mut stored, 5, 4096, 1001);
            let view = RecordView::parse(&stored).unwrap();
            let body = Bytes::copy_from_slice(view.body);
            let from_log = final_record(&view, body, Position(4096), &target);
            assert_eq!(copy.unwrap().to_vec(), from_log.to_vec());
            assert_eq!(tag_code_of(new.properties), tag_code_of(view.properties.0));

            let foreign = EncodedRecord::from(stored);
            assert!(foreign.final_copy(&target, 4096, 0).is_none());
            assert!(kept.final_copy(&target, 4096, 60_000).is_none());
        }
    }

    #[test]
    fn a_check_back_is_the_message_where_it_belongs_and_the_half_messages_identity() {
        let mut bytes = encode(&request(), 2, 1000, EMBEDDED_HOST).to_vec();
        place(&mut bytes, 5, 4096, 1001);
        let view = RecordView::parse(&bytes).unwrap();
        let half = decode(&view, TransactionId(7)).unwrap().half;
        let host = "10.1.2.3:10911".parse().unwrap();
        let notice = check_back(&half, &bytes, 3, host).unwrap();
        let id = TransactionId(7).to_string();
        let expected = [
            ("tranStateTableOffset", "5"),
            ("commitLogOffset", "4096"),
            ("msgId", &*id),
            ("transactionId", &*id),
            ("offsetMsgId", "0A01020300002A9F0000000000001000"),
            ("topic", "RMQ_SYS_TRANS_HALF_TOPIC"),
        ];
        assert_eq!(
            notice.fields,
            expected.map(|(name, value)| (name, value.to_owned()))
        );
        let shown = RecordView::parse(&notice.body).unwrap();
        assert_eq!((notice.code, shown.topic, shown.queue), (39, "orders", 2));
        assert_eq!((shown.queue_offset, shown.position), (5, 4096));
        assert_eq!((shown.body, shown.store_host), (&b"hello"[..], host));
        let told = ["TRANSACTION_CHECK_TIMES", "PGROUP", "KEYS", "HM_SENDER"];
        assert_eq!(
            told.map(|name| shown.properties.get(name)),
            [Some("3"), Some("order-service"), Some("10248"), None]
        );
    }
}
