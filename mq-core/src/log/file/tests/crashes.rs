//! Random work on a disk that crashes, fails and fills up, checked against what was promised.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::log::{Entry, LOG};
use crate::wire::record::RecordView;

/// What was promised about the records of one seed's log.
#[derive(Default)]
struct Promises {
    /// Everything that was ever submitted, by its number.
    submitted: u64,
    /// Durable for ever: the position by number.
    durable: BTreeMap<u64, Position>,
    /// Survives the end of the process, not of the machine.
    written: BTreeMap<u64, Position>,
    /// What stands before it may be deleted: all owners have said so.
    let_go: u64,
    /// Next offsets of the queues, as they were seen.
    ends: BTreeMap<u32, u64>,
    /// How often the log had lost its beginning.
    trimmed: u64,
}

struct World {
    seed: u64,
    random: SeededRandom,
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    promises: Promises,
    /// The disk crashes when a step is met and this reaches zero; far away when it is not to.
    steps_left: Arc<AtomicU64>,
}

const FAR: u64 = u64::MAX / 2;

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: SeededRandom::new(seed),
            disk: MemoryDisk::new(),
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
            promises: Promises::default(),
            steps_left: Arc::new(AtomicU64::new(FAR)),
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    fn open(&self) -> Result<(FileLog, Driver), OpenError> {
        let (disk, left, crash) = (
            self.disk.clone(),
            self.steps_left.clone(),
            self.random.next_u64(),
        );
        let hook: steps::Hook = Arc::new(move |_| {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                disk.cut_power(crash);
            }
        });
        let with = Settings {
            segment_bytes: 16 << 10,
            batch_bytes: 4 << 10,
            // Small enough that recovery itself flushes the indexes, now and then several times.
            index_bytes: if self.below(2) == 0 { 200 } else { 100_000 },
            keep_bytes: (!self.seed.is_multiple_of(3)).then_some(64 << 10),
            steps: Some(hook),
            ..settings()
        };
        FileLog::open_stepped(
            Arc::new(self.disk.clone()),
            with,
            self.clock.clone(),
            &self.random,
        )
    }

    /// One record whose payload begins with its number.
    fn record(&self, number: u64) -> Append {
        let mut body = number.to_le_bytes().to_vec();
        let long = if self.below(10) == 0 { 6000 } else { 300 };
        body.resize(8 + self.below(long) as usize, number as u8);
        match self.below(4) {
            0 => note(OWNER, &body),
            n => message(
                &queue("t", n as u32 % 2),
                &body,
                &[("KEYS", &format!("k{}", number % 50))],
            ),
        }
    }

    /// Works until the power is cut or the process ends.
    fn live(&mut self) {
        let power_cut = self.below(3) > 0;
        if power_cut {
            self.steps_left.store(1 + self.below(60), Ordering::Relaxed);
        }
        if self.below(5) == 0 {
            self.disk.fail_sync(1 + self.below(30), ErrorKind::Other);
        }
        if self.below(5) == 0 {
            self.disk.fail_write(1 + self.below(60), ErrorKind::Other);
        }
        if self.below(5) == 0 {
            self.disk.set_capacity(Some(100_000 + self.below(100_000)));
        }
        let Ok((log, mut driver)) = self.open() else {
            return self.end(power_cut);
        };
        for _ in 0..self.below(60) {
            self.work(&log, &mut driver);
        }
        if self.below(4) == 0 {
            let _ = driver.close();
        }
        let kept = log.scan(Position(0)).into_iter().flatten().flatten();
        for stored in kept.filter(|stored| stored.mark.is_none_or(|mark| mark.owner != LOG)) {
            self.promises
                .durable
                .insert(number(&stored), stored.position);
        }
        self.end(power_cut);
    }

    fn work(&mut self, log: &FileLog, driver: &mut Driver) {
        self.clock.advance(Duration::from_millis(self.below(5)));
        let mut answers = Vec::new();
        for _ in 0..self.below(6) {
            let first = self.promises.submitted;
            self.promises.submitted += 1 + self.below(4);
            let entries = (first..self.promises.submitted)
                .map(|number| self.record(number))
                .collect();
            let flush = match self.below(4) {
                0 => Flush::Async,
                1 => Flush::Along,
                _ => Flush::Sync,
            };
            answers.push((first, flush, submit(log, entries, flush)));
        }
        driver.turn();
        for (first, flush, answer) in answers {
            let Ok(placed) = answer.try_recv().expect("an answer in the same turn") else {
                continue;
            };
            for (number, placed) in (first..).zip(placed) {
                match flush {
                    Flush::Sync | Flush::Along => {
                        self.promises.durable.insert(number, placed.position)
                    }
                    Flush::Async => self.promises.written.insert(number, placed.position),
                };
            }
        }
        match self.below(12) {
            0 => driver.sync(),
            1 => drop(driver.checkpoint()),
            2..=5 => drop(driver.upkeep()),
            6 => self.let_go(log),
            _ => (),
        }
    }

    /// Says what the owners still need: anything behind some place in the log.
    fn let_go(&mut self, log: &FileLog) {
        let range = log.range();
        let from = range.start.0 + self.below(1 + range.end.0 - range.start.0);
        log.keep_from(BROKER, range.end);
        log.keep_from(OWNER, Position(from));
        self.promises.let_go = self.promises.let_go.max(from);
    }

    fn end(&mut self, power_cut: bool) {
        let crashed = self.steps_left.swap(FAR, Ordering::Relaxed) > FAR;
        if power_cut && !crashed {
            self.disk.crash(self.random.next_u64());
        }
        self.disk.restart();
        let again = self.disk.syncs() + 1_000_000;
        self.disk.fail_sync(again, ErrorKind::Other);
        self.disk.fail_write(again, ErrorKind::Other);
        self.disk.set_capacity(None);
        if power_cut {
            self.promises.written.clear();
        }
        if self.below(4) == 0 {
            self.disk.remove("checkpoint").unwrap();
            self.disk.sync_folder("").unwrap();
        }
        let (log, driver) = self
            .open()
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        self.check(&log);
        let once = records(&log);
        drop((log, driver));
        self.disk.restart();
        let (log, _driver) = self
            .open()
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        assert_eq!(
            records(&log),
            once,
            "seed {}: recovering twice equals once",
            self.seed
        );
        self.check(&log);
        self.disk.restart();
    }

    fn check(&mut self, log: &FileLog) {
        let seed = self.seed;
        let found = records(log);
        let first = log.range().start;
        self.promises.trimmed += u64::from(first.0 > SEGMENT_HEADER_BYTES);
        assert!(
            first.0 <= SEGMENT_HEADER_BYTES || first.0 <= self.promises.let_go,
            "seed {seed}: nothing is deleted that an owner keeps"
        );
        let by_number: BTreeMap<_, _> = found
            .iter()
            .map(|stored| (number(stored), stored))
            .collect();
        assert_eq!(
            by_number.len(),
            found.len(),
            "seed {seed}: no record is there twice"
        );
        for (number, position) in self.promises.durable.iter().chain(&self.promises.written) {
            if *position < first {
                assert_eq!(log.read(*position), Err(ReadError::Gone(*position)));
                continue;
            }
            let stored = by_number.get(number).map(|stored| stored.position);
            assert_eq!(
                stored,
                Some(*position),
                "seed {seed}: record {number} was promised"
            );
        }
        let in_order = found
            .windows(2)
            .all(|pair| number(&pair[0]) < number(&pair[1]));
        assert!(
            in_order,
            "seed {seed}: records stand in the order they were accepted"
        );
        for (number, stored) in &by_number {
            assert!(
                *number < self.promises.submitted,
                "seed {seed}: record {number} was never submitted"
            );
            assert_eq!(
                log.read(stored.position).as_ref(),
                Ok(*stored),
                "seed {seed}"
            );
            // What is visible once stays.
            self.promises.durable.insert(*number, stored.position);
        }
        for id in [queue("t", 0), queue("t", 1)] {
            let expected: Vec<_> = found
                .iter()
                .filter(|stored| in_queue(stored, &id))
                .collect();
            let range = log.queue_range(&id);
            let seen = self.promises.ends.entry(id.queue).or_default();
            assert!(range.end.0 >= *seen, "seed {seed}: {id} ends earlier");
            *seen = range.end.0;
            assert_eq!(range.end.0 - range.start.0, expected.len() as u64);
            if range.start.0 > 0 {
                let gone = log.entries(&id, QueueOffset(range.start.0 - 1), 1);
                assert!(
                    matches!(gone, Err(ReadError::Gone(_))),
                    "seed {seed}: {gone:?}"
                );
            }
            let entries = log.entries(&id, range.start, usize::MAX).unwrap();
            let positions: Vec<_> = entries.iter().map(|entry| entry.position).collect();
            assert_eq!(
                positions,
                expected
                    .iter()
                    .map(|stored| stored.position)
                    .collect::<Vec<_>>(),
                "seed {seed}: the index of {id} equals one made from the log"
            );
            for (offset, (entry, stored)) in (range.start.0..).zip(entries.iter().zip(&expected)) {
                assert_eq!(entry.offset, QueueOffset(offset));
                assert_eq!(
                    view(stored).queue_offset,
                    offset,
                    "seed {seed}: queue offsets have no gaps"
                );
                assert_eq!(entry.size as usize, stored.bytes.len());
            }
        }
        let key = format!("k{}", seed % 50);
        let keyed =
            |stored: &&Stored| stored.is_message && view(stored).keys().any(|word| word == key);
        let mut expected: Vec<_> = found
            .iter()
            .filter(keyed)
            .map(|stored| stored.position)
            .collect();
        expected.reverse();
        assert_eq!(
            log.find_key("t", &key, usize::MAX).unwrap(),
            expected,
            "seed {seed}: keys"
        );
    }
}

fn view(stored: &Stored) -> RecordView<'_> {
    RecordView::parse(&stored.bytes).unwrap()
}

fn in_queue(stored: &Stored, id: &QueueId) -> bool {
    stored.is_message && view(stored).queue == id.queue
}

/// All records but the log's own notes.
fn records(log: &FileLog) -> Vec<Stored> {
    let mut all = all(log);
    all.retain(|stored| stored.mark.is_none_or(|mark| mark.owner != LOG));
    all
}

fn number(stored: &Stored) -> u64 {
    let body = if stored.is_message {
        view(stored).body
    } else {
        &stored.bytes
    };
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

#[test]
fn no_promise_is_broken_by_any_crash() {
    let mut trimmed = 0;
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..6 {
            world.live();
        }
        trimmed += world.promises.trimmed;
    }
    assert!(
        trimmed > 100,
        "{trimmed} starts of a log without its beginning"
    );
}

#[test]
fn the_worlds_records_are_of_both_kinds() {
    let world = World::new(1);
    let kinds: Vec<_> = (0..50)
        .map(|n| matches!(world.record(n).entry, Entry::Note { .. }))
        .collect();
    assert!(kinds.contains(&true) && kinds.contains(&false));
}
