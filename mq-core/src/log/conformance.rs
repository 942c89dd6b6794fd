//! What every [`Log`] must do, as one suite that an implementation calls from a test.
//!
//! ```
//! use std::sync::Arc;
//! use mq_core::log::{LogId, conformance, memory::MemoryLog};
//! conformance::all(|clock| Arc::new(MemoryLog::new(LogId(1), clock).without_keys_of(conformance::UNINDEXED)));
//! ```

#![expect(
    clippy::indexing_slicing,
    reason = "a suite of tests: a panic is how it fails"
)]

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use super::layout::stored_len;
use super::{
    Append, AppendError, BROKER, Entry, Flush, Log, Mark, NOTE_MAX_BYTES, OwnerId, Placed,
    Position, QueueOffset, ReadError, SharedLog, Stored, Submission,
};
use crate::clock::{Clock, ManualClock};
use crate::names::{QueueId, TopicName};
use crate::wire::properties;
use crate::wire::record::{NewRecord, RecordView};
use crate::wire::reserved;

/// The topic whose keys the tested log must leave out of its key index.
pub const UNINDEXED: &str = "unindexed";

/// The owner, beside [`BROKER`], whose marks and notes the tested log must accept.
pub const OWNER: OwnerId = OwnerId(7);

/// How long the suite waits for an acknowledgement before it calls the log stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the whole suite; `new` makes an empty log each time, see [`UNINDEXED`] and [`OWNER`].
///
/// # Panics
/// When the log breaks a promise; the message says which.
pub fn all(new: impl Fn(Arc<dyn Clock>) -> SharedLog) {
    let checks: &[fn(&Fixture)] = &[
        an_empty_log_has_nothing,
        what_was_appended_is_read_back,
        queue_offsets_have_no_gaps,
        records_of_one_append_stand_together,
        acknowledgements_come_in_order,
        a_scan_goes_on_where_it_stopped,
        a_position_inside_a_record_is_not_one,
        a_queue_is_read_in_pieces,
        the_end_of_a_queue_can_be_watched,
        keys_are_found_newest_first,
        bad_records_are_refused_alone,
        an_append_has_a_largest_size,
        async_appends_become_visible,
        an_append_may_append_again,
        server_time_ignores_the_wall_clock,
        stamps_and_bookmarks_are_kept,
        a_log_with_room_is_ready,
        what_an_owner_keeps_stays,
    ];
    for check in checks {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        check(&Fixture {
            log: new(clock.clone()),
            clock,
        });
    }
}

/// One empty log and its clock.
struct Fixture {
    log: SharedLog,
    clock: Arc<ManualClock>,
}

impl Fixture {
    fn append(&self, entries: Vec<Append>) -> Vec<Placed> {
        append(&*self.log, entries, Flush::Sync).expect("the log takes a good append")
    }

    fn scan(&self, from: Position) -> Vec<Stored> {
        let found = self.log.scan(from).expect("a scan starts at a record");
        found
            .map(|stored| stored.expect("durable records can be read"))
            .collect()
    }
}

/// Appends and waits for the acknowledgement.
///
/// # Errors
/// What the log answers.
///
/// # Panics
/// When the log's queue is full, or it does not answer within a minute.
pub fn append(
    log: &dyn Log,
    entries: Vec<Append>,
    flush: Flush,
) -> Result<Vec<Placed>, AppendError> {
    let answer = submit(log, entries, flush);
    answer
        .recv_timeout(PATIENCE)
        .expect("the log answers every append")
}

/// Appends; the answer arrives in the channel.
///
/// # Panics
/// When the log's queue is full.
pub fn submit(
    log: &dyn Log,
    entries: Vec<Append>,
    flush: Flush,
) -> Receiver<Result<Vec<Placed>, AppendError>> {
    let (tell, answer) = mpsc::channel();
    let then = Box::new(move |placed: Result<&[Placed], AppendError>| {
        // A test that has given up waiting is not the log's business.
        let _ = tell.send(placed.map(<[Placed]>::to_vec));
    });
    log.append(Submission {
        entries,
        flush,
        then,
    })
    .expect("the log has room");
    answer
}

/// A queue of the suite's.
///
/// # Panics
/// When `topic` is no topic name.
#[must_use]
pub fn queue(topic: &str, queue: u32) -> QueueId {
    QueueId::new(TopicName::new(topic).expect("a topic name"), queue)
}

/// A message for `queue` with the encoded `properties` and no mark.
#[must_use]
pub fn message(queue: &QueueId, body: &[u8], keys: &[(&str, &str)]) -> Append {
    let mut encoded = Vec::new();
    for (name, value) in keys {
        properties::push(&mut encoded, name, value);
    }
    let mut record = Vec::new();
    let new = NewRecord {
        born_ms: 1_600_000_000_000,
        body,
        properties: &encoded,
        ..NewRecord::new(queue.topic.as_str(), queue.queue)
    };
    new.encode(&mut record);
    let entry = Entry::Message {
        queue: queue.clone(),
        tag_code: body.len() as i64,
        record: record.into(),
    };
    Append { mark: None, entry }
}

/// A note of `owner`.
#[must_use]
pub fn note(owner: OwnerId, payload: &[u8]) -> Append {
    let mark = Mark {
        owner,
        kind: 3,
        key: 0x0123_4567_89AB_CDEF_0011_2233_4455_6677,
        number: u64::MAX - 5,
    };
    Append {
        mark: Some(mark),
        entry: Entry::Note {
            payload: payload.to_vec(),
        },
    }
}

fn an_empty_log_has_nothing(f: &Fixture) {
    let range = f.log.range();
    assert_eq!(range.start, range.end, "an empty log has an empty range");
    assert_eq!(f.scan(Position(0)), []);
    assert_eq!(f.scan(range.end), []);
    assert_eq!(
        f.log.read(Position(0)),
        Err(ReadError::NotARecord(Position(0))),
        "0 is never a record"
    );
    assert!(f.log.read(range.end).is_err());
    let queue = queue("t", 0);
    assert_eq!(f.log.queue_range(&queue), QueueOffset(0)..QueueOffset(0));
    assert_eq!(f.log.entries(&queue, QueueOffset(0), 10), Ok(vec![]));
    assert_eq!(
        f.log.find(&queue, QueueOffset(0)),
        Err(ReadError::NoSuchOffset {
            queue,
            offset: QueueOffset(0)
        })
    );
    assert_eq!(f.log.find_key("t", "k", 10), Ok(vec![]));
}

fn what_was_appended_is_read_back(f: &Fixture) {
    let queue = queue("t", 3);
    let marked = Append {
        mark: note(OWNER, b"").mark,
        ..message(&queue, b"body", &[])
    };
    f.clock.advance(Duration::from_secs(5));
    let placed = f.append(vec![
        message(&queue, b"first", &[]),
        marked.clone(),
        note(BROKER, b"payload"),
    ]);
    let stored: Vec<_> = placed
        .iter()
        .map(|p| f.log.read(p.position).expect("a durable record is read"))
        .collect();
    for (placed, stored) in placed.iter().zip(&stored) {
        assert_eq!(stored.position, placed.position);
        assert_eq!(stored.at, placed.at);
        assert_eq!(placed.at, f.log.now());
        assert_eq!(placed.store_ms, f.clock.wall_ms());
    }
    let [first, second, third] = &stored[..] else {
        panic!("three records were appended")
    };
    assert_eq!((first.mark, first.is_message), (None, true));
    assert_eq!((second.mark, second.is_message), (marked.mark, true));
    assert_eq!(
        (third.mark, third.is_message),
        (note(BROKER, b"").mark, false)
    );
    assert_eq!(&third.bytes[..], b"payload");
    let view = RecordView::parse(&second.bytes).expect("a message is a record");
    assert_eq!(view.body, b"body");
    assert_eq!(view.queue_offset, 1, "the record knows its queue offset");
    assert_eq!(
        view.position, second.position.0,
        "the record knows its position"
    );
    assert_eq!(view.store_ms, f.clock.wall_ms());
    assert!(f.log.range().start <= first.position && third.next <= f.log.range().end);
}

fn queue_offsets_have_no_gaps(f: &Fixture) {
    let queues = [queue("t", 0), queue("t", 1), queue("u", 0)];
    for i in 0..30_usize {
        let queue = &queues[i % 3];
        let placed = f.append(vec![
            message(queue, &[i as u8], &[]),
            note(BROKER, b"between"),
        ]);
        assert_eq!(placed[0].queue_offset, QueueOffset(i as u64 / 3));
        assert_eq!(placed[1].queue_offset, QueueOffset(0));
        assert_eq!(
            f.log.find(queue, placed[0].queue_offset),
            Ok(placed[0].position)
        );
    }
    for queue in &queues {
        assert_eq!(f.log.queue_range(queue), QueueOffset(0)..QueueOffset(10));
        assert!(f.log.find(queue, QueueOffset(10)).is_err());
    }
}

fn records_of_one_append_stand_together(f: &Fixture) {
    let queue = queue("t", 0);
    let answers: Vec<_> = (0..50_u8)
        .map(|i| {
            let entries = vec![
                note(OWNER, &[i, 0]),
                message(&queue, &[i, 1], &[]),
                note(OWNER, &[i, 2]),
            ];
            submit(&*f.log, entries, Flush::Sync)
        })
        .collect();
    for answer in answers {
        answer
            .recv_timeout(PATIENCE)
            .expect("an answer")
            .expect("an acknowledgement");
    }
    let found = f.scan(Position(0));
    assert_eq!(found.len(), 150);
    for (i, three) in found.chunks(3).enumerate() {
        assert_eq!(
            &three[0].bytes[..],
            &[i as u8, 0],
            "appends stand in the order they were accepted"
        );
        assert_eq!(
            RecordView::parse(&three[1].bytes)
                .expect("a message")
                .queue_offset,
            i as u64
        );
        assert_eq!(
            &three[2].bytes[..],
            &[i as u8, 2],
            "records of one append stay in order"
        );
    }
    assert!(found.windows(2).all(|w| w[0].position < w[1].position));
}

fn acknowledgements_come_in_order(f: &Fixture) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (tell, done) = mpsc::channel();
    for i in 0..200_u32 {
        let (order, tell) = (order.clone(), tell.clone());
        let flush = [Flush::Async, Flush::Along, Flush::Sync][i as usize % 3];
        let then = Box::new(move |placed: Result<&[Placed], AppendError>| {
            let position = placed.expect("a good append")[0].position;
            order.lock().expect("no panic before").push((i, position));
            let _ = tell.send(());
        });
        let entries = vec![note(BROKER, &i.to_le_bytes())];
        f.log
            .append(Submission {
                entries,
                flush,
                then,
            })
            .expect("the log has room");
    }
    for _ in 0..200 {
        done.recv_timeout(PATIENCE).expect("an acknowledgement");
    }
    let order = order.lock().expect("no panic before");
    let numbers: Vec<_> = order.iter().map(|(i, _)| *i).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    assert!(order.windows(2).all(|w| w[0].1 < w[1].1));
}

fn a_scan_goes_on_where_it_stopped(f: &Fixture) {
    for i in 0..20_u8 {
        f.append(vec![note(BROKER, &[i]); 1 + usize::from(i) % 3]);
    }
    let whole = f.scan(Position(0));
    assert_eq!(whole, f.scan(f.log.range().start));
    for (i, stored) in whole.iter().enumerate() {
        assert_eq!(
            f.scan(stored.position),
            whole[i..],
            "a scan starts with the record it is given"
        );
        assert_eq!(f.scan(stored.next), whole[i + 1..], "next leads on");
    }
}

fn a_position_inside_a_record_is_not_one(f: &Fixture) {
    let hidden = message(&queue("t", 0), b"inside", &[]);
    let Entry::Message { record, .. } = hidden.entry else {
        unreachable!("it is a message")
    };
    // A record inside another one's bytes must not be found, whoever asks for its position.
    let at = f.append(vec![note(BROKER, &record.to_vec())])[0].position;
    for inside in 1..f.log.range().end.0 - at.0 {
        let position = Position(at.0 + inside);
        assert_eq!(
            f.log.read(position),
            Err(ReadError::NotARecord(position)),
            "{inside} bytes into a record"
        );
    }
}

fn a_queue_is_read_in_pieces(f: &Fixture) {
    let queue = queue("t", 0);
    let placed: Vec<_> = (0..25_usize)
        .flat_map(|i| f.append(vec![message(&queue, &vec![b'x'; i], &[])]))
        .collect();
    let piece = f
        .log
        .entries(&queue, QueueOffset(5), 7)
        .expect("a known range");
    assert_eq!(piece.len(), 7);
    for (i, entry) in (5..).zip(&piece) {
        assert_eq!(entry.offset, QueueOffset(i));
        assert_eq!(entry.position, placed[i as usize].position);
        assert_eq!(entry.tag_code, i as i64);
        let stored = f.log.read(entry.position).expect("an entry's record");
        assert_eq!(entry.size as usize, stored.bytes.len());
    }
    assert_eq!(
        f.log
            .entries(&queue, QueueOffset(20), 100)
            .expect("the end")
            .len(),
        5
    );
    assert_eq!(f.log.entries(&queue, QueueOffset(25), 100), Ok(vec![]));
    assert_eq!(f.log.entries(&queue, QueueOffset(99), 100), Ok(vec![]));
    assert_eq!(f.log.entries(&queue, QueueOffset(0), 0), Ok(vec![]));
}

fn the_end_of_a_queue_can_be_watched(f: &Fixture) {
    let (queue, other) = (queue("t", 0), queue("t", 1));
    let mut end = f.log.watch(&queue);
    assert_eq!(*end.borrow_and_update(), QueueOffset(0));
    f.append(vec![message(&other, b"", &[])]);
    assert!(
        !end.has_changed().expect("the log lives"),
        "another queue's end is no news"
    );
    f.append(vec![message(&queue, b"", &[]), message(&queue, b"", &[])]);
    assert!(end.has_changed().expect("the log lives"));
    assert_eq!(*end.borrow_and_update(), QueueOffset(2));
    assert_eq!(
        *f.log.watch(&queue).borrow(),
        QueueOffset(2),
        "the level is there for whoever comes later"
    );
}

fn keys_are_found_newest_first(f: &Fixture) {
    let (queue, hidden) = (queue("t", 0), queue(UNINDEXED, 0));
    let keyed = |queue: &QueueId, keys: &str| message(queue, b"", &[(reserved::KEYS, keys)]);
    let a = f.append(vec![keyed(&queue, "red blue")])[0].position;
    let b = f.append(vec![keyed(&queue, "blue  blue green")])[0].position;
    let unique = message(&queue, b"", &[(reserved::UNIQ_KEY, "ID1")]);
    let c = f.append(vec![keyed(&hidden, "blue"), unique])[1].position;
    assert_eq!(f.log.find_key("t", "blue", 10), Ok(vec![b, a]));
    assert_eq!(f.log.find_key("t", "blue", 1), Ok(vec![b]));
    assert_eq!(f.log.find_key("t", "red", 10), Ok(vec![a]));
    assert_eq!(f.log.find_key("t", "ID1", 10), Ok(vec![c]));
    assert_eq!(f.log.find_key("t", "pink", 10), Ok(vec![]));
    assert_eq!(f.log.find_key("u", "blue", 10), Ok(vec![]));
    assert_eq!(f.log.find_key(UNINDEXED, "blue", 10), Ok(vec![]));
}

fn bad_records_are_refused_alone(f: &Fixture) {
    let queue = queue("t", 0);
    let cut = |mut append: Append, by: usize| {
        if let Entry::Message { record, .. } = &mut append.entry {
            let mut bytes = record.to_vec();
            bytes.truncate(bytes.len() - by);
            *record = bytes.into();
        }
        append
    };
    let elsewhere = |mut append: Append| {
        if let Entry::Message { queue, .. } = &mut append.entry {
            queue.queue += 1;
        }
        append
    };
    let good = || message(&queue, b"good", &[]);
    let bad: Vec<Vec<Append>> = vec![
        vec![],
        vec![cut(good(), 1)],
        vec![good(), cut(good(), 90)],
        vec![elsewhere(good())],
        vec![Append {
            mark: None,
            entry: Entry::Note { payload: vec![1] },
        }],
        vec![note(OWNER, &vec![0; NOTE_MAX_BYTES + 1])],
    ];
    for (i, entries) in bad.into_iter().enumerate() {
        let refused = submit(&*f.log, entries, Flush::Sync);
        let neighbour = f.append(vec![good()]);
        let refused = refused.recv_timeout(PATIENCE).expect("an answer");
        assert!(
            matches!(refused, Err(AppendError::Refused(_))),
            "case {i}: {refused:?}"
        );
        assert_eq!(
            neighbour[0].queue_offset,
            QueueOffset(i as u64),
            "a refused append leaves no gap"
        );
    }
}

fn an_append_has_a_largest_size(f: &Fixture) {
    let most = f.log.append_max_bytes();
    // Of a log without one, or of a very large one, nobody knows better.
    if most > 1 << 20 {
        return;
    }
    let first = note(OWNER, &[1; 1000]);
    let rest = (most - first.stored_len() - stored_len(0)) as usize;
    for (bytes, fits) in [(rest, true), (rest + 1, false)] {
        let both = vec![first.clone(), note(OWNER, &vec![2; bytes])];
        let outcome = submit(&*f.log, both, Flush::Sync).recv_timeout(PATIENCE);
        let outcome = outcome.expect("an answer");
        assert_eq!(outcome.is_ok(), fits, "{bytes}: {outcome:?}");
    }
}

fn async_appends_become_visible(f: &Fixture) {
    let queue = queue("t", 0);
    let placed =
        append(&*f.log, vec![message(&queue, b"async", &[])], Flush::Async).expect("a good append");
    // A later append that waits for its flush makes everything before it durable.
    f.append(vec![note(BROKER, b"flush")]);
    assert!(f.log.read(placed[0].position).is_ok());
    assert_eq!(f.log.find(&queue, QueueOffset(0)), Ok(placed[0].position));
}

fn an_append_may_append_again(f: &Fixture) {
    let (tell, done) = mpsc::channel();
    let log = f.log.clone();
    let inner = Box::new(move |placed: Result<&[Placed], AppendError>| {
        let _ = tell.send(placed.map(<[Placed]>::to_vec));
    });
    let outer = Box::new(move |placed: Result<&[Placed], AppendError>| {
        let outer = placed.expect("a good append")[0].position;
        assert!(
            log.read(outer).is_ok(),
            "a record is visible when it is acknowledged"
        );
        let entries = vec![note(BROKER, b"inner")];
        log.append(Submission {
            entries,
            flush: Flush::Sync,
            then: inner,
        })
        .expect("the log has room");
    });
    let entries = vec![note(BROKER, b"outer")];
    f.log
        .append(Submission {
            entries,
            flush: Flush::Sync,
            then: outer,
        })
        .expect("the log has room");
    let inner = done.recv_timeout(PATIENCE).expect("an answer");
    assert!(inner.is_ok());
}

fn server_time_ignores_the_wall_clock(f: &Fixture) {
    let before = f.append(vec![note(BROKER, b"before")])[0].at;
    f.clock.set_wall_ms(0);
    f.clock.advance(Duration::from_millis(1500));
    let after = f.append(vec![note(BROKER, b"after")])[0];
    assert_eq!(after.at.since(before), Duration::from_millis(1500));
    assert_eq!(
        after.store_ms, 1500,
        "the record's store time is the wall's"
    );
    f.clock.set_wall_ms(4_000_000_000_000);
    assert_eq!(f.log.now(), after.at);
}

fn stamps_and_bookmarks_are_kept(f: &Fixture) {
    assert_eq!(f.log.bookmark(OWNER), None);
    f.log.stamp(OWNER, 17);
    let position = f.append(vec![note(OWNER, b"snapshot")])[0].position;
    f.log.set_bookmark(OWNER, position);
    assert_eq!(f.log.bookmark(OWNER), Some(position));
    assert_eq!(f.log.bookmark(BROKER), None);
}

fn what_an_owner_keeps_stays(f: &Fixture) {
    let queue = queue("t", 0);
    let placed: Vec<Placed> = (0..10)
        .flat_map(|i| f.append(vec![message(&queue, &[i; 100], &[])]))
        .collect();
    let middle = placed[5].position;
    f.log.keep_from(BROKER, f.log.range().end);
    f.log.keep_from(OWNER, middle);
    f.log.keep_from(OWNER, placed[2].position);
    assert!(*f.log.wanted().borrow() <= f.log.range().end);
    for one in &placed[5..] {
        assert!(f.log.read(one.position).is_ok(), "{one:?} is kept");
        assert_eq!(f.log.find(&queue, one.queue_offset), Ok(one.position));
    }
    let range = f.log.queue_range(&queue);
    assert!(range.start <= QueueOffset(5) && range.end == QueueOffset(10));
}

fn a_log_with_room_is_ready(f: &Fixture) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(f.log.ready().as_mut().poll(&mut context).is_ready());
}
