//! What was found on disk and in databases, as plain values without judgement.

use std::collections::{HashMap, HashSet};

/// Everything a run left behind.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The log's files.
    pub log: Log,
    /// The coordinator's database.
    pub sql: Sql,
    /// The users' databases that hold markers.
    pub databases: Vec<UserDatabase>,
    /// What callers were told, as far as the test wrote it down.
    pub answers: Vec<Answer>,
    /// What consumers did with the messages.
    pub effects: Vec<Effects>,
    /// What consumers received that keep no account of their own.
    pub readers: Vec<Reader>,
    /// What earlier looks at the same log and database have found decided.
    pub decided: HashMap<u128, Decided>,
}

/// A decision that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Its number.
    pub number: u64,
    /// Whether the transaction is committed; it is rolled back otherwise.
    pub committed: bool,
    /// Who decided, if there was a history to tell.
    pub actor: Option<u8>,
}

impl World {
    /// Every decision that earlier looks, rows, finals and echoes know of: for later looks. The first one that was found stays.
    #[must_use]
    pub fn decisions(&self) -> HashMap<u128, Decided> {
        let deciders = self.sql.deciders();
        let rows = self.sql.rows.iter().filter_map(|row| {
            let decided = Decided {
                number: row.decision?,
                committed: row.state == COMMITTED,
                actor: deciders.get(&row.id).copied(),
            };
            Some((row.id, decided))
        });
        let marks = self.log.records.iter().filter_map(|record| record.mark);
        let recorded = marks
            .filter(|mark| mark.owner == COORDINATOR && matches!(mark.kind, FINAL | ROLLBACK))
            .map(|mark| {
                let decided = Decided {
                    number: mark.number,
                    committed: mark.kind == FINAL,
                    actor: None,
                };
                (mark.key, decided)
            });
        let mut decisions = self.decided.clone();
        for (id, decided) in rows.chain(recorded) {
            decisions.entry(id).or_insert(decided);
        }
        decisions
    }
}

/// The durable records of a log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Its identity.
    pub id: u128,
    /// The oldest kept position.
    pub start: u64,
    /// Whether older segments were deleted.
    pub trimmed: bool,
    /// Behind the last durable record.
    pub end: u64,
    /// The highest number the coordinator had stamped on a batch.
    pub stamped: u64,
    /// In log order.
    pub records: Vec<Record>,
}

/// One record.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Where it starts.
    pub position: u64,
    /// Server time in microseconds.
    pub at: u64,
    /// Whose it is and what it is about.
    pub mark: Option<Mark>,
    /// The message, unless it is a note.
    pub message: Option<Message>,
    /// The half message that a note of kind [`MOVED`] carries, as it was where it stood first.
    pub carried: Option<Message>,
}

/// An owner's mark on a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// 0 is the broker, 1 the coordinator.
    pub owner: u8,
    /// For the coordinator [`HALF`], [`FINAL`], [`ROLLBACK`] or [`MOVED`].
    pub kind: u8,
    /// The transaction.
    pub key: u128,
    /// The decision's number; of [`MOVED`] the first position of the half message.
    pub number: u64,
}

/// The coordinator's marks.
pub const COORDINATOR: u8 = 1;
/// A half message.
pub const HALF: u8 = 1;
/// The final of a commit.
pub const FINAL: u8 = 2;
/// The echo of a rollback.
pub const ROLLBACK: u8 = 3;
/// A half message that was carried forward, since the log deletes its first place.
pub const MOVED: u8 = 4;

/// A stored message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic it is stored in.
    pub topic: String,
    /// The queue it is stored in.
    pub queue: u32,
    /// Its number there.
    pub queue_offset: u64,
    /// Where the record says it stands.
    pub position: u64,
    /// The flag bits.
    pub sys_flag: i32,
    /// For a final: where its half message stands.
    pub prepared_position: u64,
    /// Length of the body.
    pub body_len: u64,
    /// A hash of the body.
    pub body_hash: u64,
    /// Whether the body matches its checksum.
    pub body_intact: bool,
    /// Names and values in order.
    pub properties: Vec<(String, String)>,
}

impl Message {
    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        let pair = self.properties.iter().find(|(n, _)| n == name);
        pair.map(|(_, value)| value.as_str())
    }
}

/// The coordinator's database.
#[derive(Debug, Clone, Default)]
pub struct Sql {
    /// Whether there is an owner row: a database that nobody has taken over yet has nothing else either.
    pub owned: bool,
    /// The owner row.
    pub owner: Owner,
    /// By position.
    pub rows: Vec<Row>,
    /// By number.
    pub events: Vec<Event>,
    /// By number.
    pub seals: Vec<Seal>,
}

impl Sql {
    /// Who decided each transaction, as far as the history tells.
    #[must_use]
    pub fn deciders(&self) -> HashMap<u128, u8> {
        let decisions = self.events.iter();
        decisions
            .filter(|event| matches!(event.to, COMMITTED | ROLLED_BACK))
            .map(|event| (event.id, event.actor))
            .collect()
    }
}

/// The row that says who may write.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    /// The log it belongs to.
    pub log: u128,
    /// Number of the last batch.
    pub seq: u64,
    /// Everything of ours before it is reflected in SQL.
    pub watermark: u64,
    /// The last decision whose record is durable.
    pub published: u64,
    /// The last decision number given.
    pub last_decision: u64,
    /// The number the next event gets.
    pub next_event: u64,
    /// Hash of the last seal.
    pub head: [u8; 32],
}

/// State number: nobody has decided.
pub const PREPARED: u8 = 0;
/// State number: decided.
pub const COMMITTED: u8 = 1;
/// State number: decided.
pub const ROLLED_BACK: u8 = 2;
/// State number: the check budget is used up.
pub const PARKED: u8 = 3;

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Position of the half message.
    pub position: u64,
    /// Its number in the half queue.
    pub queue_offset: u64,
    /// The transaction.
    pub id: u128,
    /// The producer group.
    pub group: String,
    /// The topic the message is for.
    pub topic: String,
    /// Length of the body.
    pub body_len: u64,
    /// One of the state numbers.
    pub state: u8,
    /// Server time in microseconds.
    pub prepared_at: u64,
    /// Server time in microseconds.
    pub decided_at: Option<u64>,
    /// The decision's number.
    pub decision: Option<u64>,
    /// Check-backs answered with UNKNOWN.
    pub checks: u64,
    /// How often someone said the opposite of the decision.
    pub contradictions: u64,
    /// Why the final could not be published.
    pub unpublished: Option<String>,
    /// The process that sent it.
    pub sender: Option<u128>,
    /// Identity of the marker database.
    pub marker: Option<u128>,
}

/// Step numbers of the history; the first four are the state numbers.
pub mod step {
    /// A check-back was answered with UNKNOWN.
    pub const UNKNOWN: u8 = 4;
    /// Somebody said the opposite of the decision.
    pub const REFUSED: u8 = 5;
    /// The final could not be published.
    pub const UNPUBLISHED: u8 = 6;
    /// It could after all.
    pub const PUBLISHED: u8 = 7;
    /// History up to here may be removed; told of no transaction.
    pub const FORGOTTEN: u8 = 10;
}

/// Actor number: the marker, read for a check-back.
pub const MARKER: u8 = 3;
/// Actor number: a person who overrode the marker.
pub const FORCED: u8 = 6;

/// One row of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// From 1.
    pub number: u64,
    /// The transaction.
    pub id: u128,
    /// The step it stood at; `None` for the first.
    pub from: Option<u8>,
    /// What happened.
    pub to: u8,
    /// Who did it.
    pub actor: u8,
    /// Server time in microseconds.
    pub at: u64,
    /// The same of the second step, if the row holds two.
    pub then_at: Option<u64>,
    /// Short hash of the half message's row, with the first step.
    pub fingerprint: Option<u64>,
    /// Connection and client.
    pub source: String,
    /// What proves it.
    pub evidence: String,
}

/// The seal of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seal {
    /// Number of the batch.
    pub seq: u64,
    /// Number of its first event.
    pub first_event: u64,
    /// How many it has.
    pub count: u64,
    /// The owner row's published number after it.
    pub published: u64,
    /// Wall clock, ms since 1970.
    pub wall_ms: u64,
    /// The hash.
    pub hash: [u8; 32],
    /// Eight bytes for each event.
    pub leaves: Vec<u8>,
}

/// A database with markers.
#[derive(Debug, Clone, Default)]
pub struct UserDatabase {
    /// The marker table's identity.
    pub identity: u128,
    /// Whether each marker says *committed*; the others are tombstones.
    pub markers: HashMap<u128, bool>,
    /// Transactions whose business row exists, if the test knows how to tell.
    pub business: Option<HashSet<u128>>,
    /// Whether markers may have been pruned.
    pub pruned: bool,
}

/// What a caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The half message is stored.
    Half(u128),
    /// The transaction is committed (`true`) or rolled back.
    Decided(u128, bool),
    /// A plain message is durable; its key or its client's id is this number in 32 hexadecimal digits.
    Sent(u128),
    /// A plain message is written at this position and durable a moment later: until then a loss of power may take it,
    /// with everything behind it.
    Written(u128, u64),
    /// A consumer has received the plain message.
    Seen(u128),
    /// A half message with this number in 32 hexadecimal digits as its key is stored.
    HalfOfKey(u128),
    /// What the producers say about half messages with this key whenever they say anything: COMMIT (`true`) or ROLLBACK.
    Says(u128, bool),
}

/// What one consumer group did.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// The group.
    pub group: String,
    /// The topic it consumes.
    pub topic: String,
    /// How often the effect of each transaction's message is there.
    pub applied: HashMap<u128, u64>,
}

/// What one consumer group received of one topic, by its client's own account.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// In any order; the same message more than once if it was not acknowledged in time.
    pub received: Vec<Received>,
}

/// One delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Received {
    /// The queue.
    pub queue: u32,
    /// The message's number there.
    pub offset: u64,
    /// The message's key.
    pub key: u128,
}
