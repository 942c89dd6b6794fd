//! The log of files on a disk in memory that crashes, tears and fails on purpose.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::log::conformance::{self, OWNER, UNINDEXED, append, message, note, queue, submit};
use crate::log::disk::FolderDisk;
use crate::log::layout::{SEGMENT_HEADER_BYTES, stored_len};
use crate::log::memory_disk::MemoryDisk;
use crate::log::{Append, BROKER, Flush, Placed, steps};
use crate::random::SeededRandom;

type Answer = Receiver<Result<Vec<Placed>, AppendError>>;

fn settings() -> Settings {
    Settings {
        segment_bytes: 64 << 10,
        owners: vec![OWNER],
        unindexed_topics: vec![UNINDEXED.into()],
        ..Settings::default()
    }
}

fn open(disk: &MemoryDisk, settings: Settings) -> Result<(FileLog, Driver), OpenError> {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    FileLog::open_stepped(
        Arc::new(disk.clone()),
        settings,
        clock,
        &SeededRandom::new(1),
    )
}

fn opened(disk: &MemoryDisk) -> (FileLog, Driver) {
    open(disk, settings()).unwrap()
}

/// Appends one record alone in its batch.
fn put(log: &FileLog, driver: &mut Driver, entry: Append) -> Placed {
    let answer = submit(log, vec![entry], Flush::Sync);
    driver.turn();
    answer.try_recv().unwrap().unwrap()[0]
}

fn failed(answer: &Answer) -> AppendError {
    answer.try_recv().unwrap().unwrap_err()
}

fn all(log: &FileLog) -> Vec<Stored> {
    log.scan(Position(0)).unwrap().map(Result::unwrap).collect()
}

fn payloads(log: &FileLog) -> Vec<Vec<u8>> {
    all(log)
        .into_iter()
        .map(|stored| stored.bytes.to_vec())
        .collect()
}

const FIRST_SEGMENT: &str = "00000000000000000000.log";

#[test]
fn on_a_disk_in_memory_it_keeps_the_promises_of_a_log() {
    conformance::all(|clock| {
        let disk = Arc::new(MemoryDisk::new());
        Arc::new(FileLog::open(disk, settings(), clock, &SeededRandom::new(3)).unwrap())
    });
}

#[test]
fn in_a_folder_it_keeps_the_promises_of_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::all(|clock| {
        count.set(count.get() + 1);
        let disk = Arc::new(FolderDisk::open(folder.path().join(count.get().to_string())).unwrap());
        Arc::new(FileLog::open(disk, settings(), clock, &SeededRandom::new(3)).unwrap())
    });
}

#[test]
fn after_a_close_everything_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let queue = queue("t", 0);
    let mut before = Vec::new();
    for life in 0..3_u64 {
        let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
        let log = FileLog::open(disk, settings(), clock.clone(), &SeededRandom::new(life)).unwrap();
        assert_eq!(all(&log), before);
        assert_eq!(
            log.queue_range(&queue),
            QueueOffset(0)..QueueOffset(life * 100)
        );
        assert_eq!(*log.watch(&queue).borrow(), QueueOffset(life * 100));
        assert_eq!(log.stamped(OWNER), life);
        assert_eq!(
            log.bookmark(OWNER),
            before.last().map(|stored: &Stored| stored.position)
        );
        log.stamp(OWNER, life + 1);
        for i in 0..100 {
            let word = format!("k{life}-{i}");
            let entries = vec![
                message(&queue, &[i; 500], &[("KEYS", &word)]),
                note(OWNER, &[i]),
            ];
            let placed = append(&log, entries, Flush::Sync).unwrap();
            assert_eq!(
                placed[0].queue_offset,
                QueueOffset(life * 100 + u64::from(i))
            );
            assert_eq!(log.find_key("t", &word, 9), Ok(vec![placed[0].position]));
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(log.now(), ServerTime(1_000_000 * (life + 1)));
        before = all(&log);
        log.set_bookmark(OWNER, before.last().unwrap().position);
        log.close().unwrap();
        assert_eq!(
            append(&log, vec![note(OWNER, b"late")], Flush::Sync),
            Err(AppendError::Closed)
        );
    }
    let segments = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".log")
    });
    assert!(
        segments.count() > 2,
        "the log has grown over several segments"
    );
}

#[test]
fn the_second_process_is_told_that_the_log_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let _first = FolderDisk::open(folder.path()).unwrap();
    let error = FolderDisk::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

/// A log of ten notes, each alone in its batch, that was not closed.
fn ten_notes() -> (MemoryDisk, Vec<Placed>, Position) {
    let disk = MemoryDisk::new();
    let (log, mut driver) = open(
        &disk,
        Settings {
            segment_bytes: 16 << 10,
            ..settings()
        },
    )
    .unwrap();
    let placed = (0..10)
        .map(|i| put(&log, &mut driver, note(OWNER, &[i; 30])))
        .collect();
    (disk.copy(), placed, log.range().end)
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let (disk, placed, end) = ten_notes();
    let whole = disk.content(FIRST_SEGMENT).unwrap();
    let last = stored_len(30) as usize + 80;
    let start = end.0 as usize - last;
    assert!(placed[9].position.0 as usize > start);
    for cut in start..end.0 as usize {
        for filling in [0_u8, 0xA5] {
            let disk = disk.copy();
            let mut torn = whole.clone();
            torn[cut..end.0 as usize].fill(filling);
            disk.set_content(FIRST_SEGMENT, torn);
            let (log, mut driver) = opened(&disk);
            let kept = payloads(&log);
            // The last bytes are padding, so the record may be whole.
            assert!(
                kept.len() == 9 || (kept.len() == 10 && cut >= end.0 as usize - 2),
                "cut at {cut}"
            );
            let again = put(&log, &mut driver, note(OWNER, b"again"));
            assert!(again.position >= placed[9].position);
            disk.crash(cut as u64);
            let (log, _driver) = opened(&disk);
            assert_eq!(
                payloads(&log).len(),
                kept.len() + 1,
                "what follows a cut tail stays"
            );
        }
    }
}

#[test]
fn interior_damage_is_refused_naming_file_and_offset() {
    let (disk, placed, end) = ten_notes();
    let whole = disk.content(FIRST_SEGMENT).unwrap();
    let (log, _driver) = opened(&disk.copy());
    let sound = all(&log);
    let last = (end.0 - stored_len(30) - 80) as usize;
    for at in SEGMENT_HEADER_BYTES as usize..last {
        let disk = disk.copy();
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        disk.set_content(FIRST_SEGMENT, bad.clone());
        match open(&disk, settings()) {
            Err(OpenError::Damaged { file, offset, .. }) => {
                assert_eq!(file, FIRST_SEGMENT);
                assert!(
                    offset as usize <= at && at < offset as usize + 80 + 96,
                    "damage at {at} found at {offset}"
                );
                assert_eq!(
                    disk.content(FIRST_SEGMENT).unwrap(),
                    bad,
                    "a refusal changes nothing"
                );
            }
            Ok((log, _driver)) => assert_eq!(
                all(&log),
                sound,
                "only padding may change unseen, not byte {at}"
            ),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert_eq!(placed.len(), 10);
}

#[test]
fn damage_behind_a_checkpoint_is_met_by_the_reader() {
    let (disk, placed, _) = ten_notes();
    let (log, driver) = opened(&disk);
    driver.close().unwrap();
    drop(log);
    let mut bad = disk.content(FIRST_SEGMENT).unwrap();
    bad[placed[4].position.0 as usize + 70] ^= 1;
    disk.set_content(FIRST_SEGMENT, bad);
    let (log, _driver) = opened(&disk);
    let error = log.read(placed[4].position).unwrap_err();
    let expected = ReadError::Damaged {
        file: FIRST_SEGMENT.into(),
        offset: placed[4].position.0,
        what: "its checksum does not match".into(),
    };
    assert_eq!(error, expected);
    assert!(log.read(placed[5].position).is_ok());
    let scanned: Vec<_> = log.scan(Position(0)).unwrap().collect();
    assert_eq!(
        (scanned.len(), scanned[4].clone()),
        (5, Err(expected)),
        "a scan ends at damage"
    );
}

#[test]
fn every_file_that_is_cut_short_or_missing_is_named() {
    let disk = MemoryDisk::new();
    let (log, mut driver) = opened(&disk);
    for i in 0..200 {
        put(
            &log,
            &mut driver,
            message(&queue("t", 0), &[7; 600], &[("KEYS", &format!("k{i}"))]),
        );
    }
    driver.close().unwrap();
    let sound = all(&log);
    for name in [
        FIRST_SEGMENT,
        "00000000000000065536.log",
        "queues/0000000001",
        "keys/0000000001",
    ] {
        for length in [None, Some(0), Some(10), Some(1000)] {
            let disk = disk.copy();
            let content = disk.content(name).unwrap();
            assert!(content.len() > 1000, "{name}");
            match length {
                None => disk.remove(name).unwrap(),
                Some(length) => disk.set_content(name, content[..length].to_vec()),
            }
            let error = open(&disk, settings()).map(|_| ()).unwrap_err();
            let named = error.to_string().contains(name)
                || name == FIRST_SEGMENT && error.to_string().contains(".log");
            assert!(named, "{name} with {length:?}: {error}");
            if name.contains('/') {
                disk.remove("checkpoint").unwrap();
                let (log, _driver) = opened(&disk);
                assert_eq!(all(&log), sound, "the indexes are made again from the log");
                assert_eq!(
                    log.entries(&queue("t", 0), QueueOffset(0), 1000)
                        .unwrap()
                        .len(),
                    200
                );
                assert_eq!(log.find_key("t", "k17", 9).unwrap().len(), 1);
            }
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_can_be_removed() {
    let (disk, _, end) = ten_notes();
    let mut bad = disk.content("checkpoint").unwrap();
    bad[20] ^= 1;
    disk.set_content("checkpoint", bad);
    let error = open(&disk, settings()).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("remove the file `checkpoint`"),
        "{error}"
    );
    disk.remove("checkpoint").unwrap();
    let (log, _driver) = opened(&disk);
    assert_eq!((payloads(&log).len(), log.range().end), (10, end));
}

#[test]
fn files_of_another_log_or_of_a_newer_program_are_refused() {
    let (disk, ..) = ten_notes();
    let (other, ..) = ten_notes();
    let clock = Arc::new(ManualClock::new(0));
    let empty = MemoryDisk::new();
    drop(
        FileLog::open_stepped(
            Arc::new(empty.clone()),
            settings(),
            clock,
            &SeededRandom::new(99),
        )
        .unwrap(),
    );
    disk.set_content(FIRST_SEGMENT, empty.content(FIRST_SEGMENT).unwrap());
    assert!(matches!(
        open(&disk, settings()),
        Err(OpenError::Foreign { .. })
    ));
    let mut newer = other.content(FIRST_SEGMENT).unwrap();
    newer[12] = 9;
    let crc = crc32fast::hash(&newer[12..48]).to_le_bytes();
    newer[8..12].copy_from_slice(&crc);
    other.set_content(FIRST_SEGMENT, newer);
    let error = open(&other, settings()).map(|_| ()).unwrap_err();
    assert_eq!(
        error,
        OpenError::NewerVersion {
            file: FIRST_SEGMENT.into(),
            version: 9
        }
    );
}

#[test]
fn a_log_written_with_an_extension_does_not_open_without_it() {
    let without = || Settings {
        owners: Vec::new(),
        ..settings()
    };
    for closed in [false, true] {
        let disk = MemoryDisk::new();
        let (log, mut driver) = opened(&disk);
        put(&log, &mut driver, note(OWNER, b"mine"));
        if closed {
            driver.close().unwrap();
        }
        let error = open(&disk, without()).map(|_| ()).unwrap_err();
        assert_eq!(error, OpenError::OwnerMissing(OWNER));
        opened(&disk);
    }
    let (log, mut driver) = open(&MemoryDisk::new(), without()).unwrap();
    let answer = submit(&log, vec![note(OWNER, b"")], Flush::Sync);
    driver.turn();
    assert!(
        matches!(failed(&answer), AppendError::Refused(_)),
        "and without it nothing is written for it"
    );
}

#[test]
fn a_failed_fsync_poisons_and_what_it_lost_is_written_again() {
    for n in 1..20_u64 {
        let disk = MemoryDisk::new();
        let (log, mut driver) = opened(&disk);
        disk.fail_sync(n, std::io::ErrorKind::Other);
        let mut acked = Vec::new();
        let mut seen = 0;
        for i in 0..20_u64 {
            let answer = submit(&log, vec![note(OWNER, &[i as u8])], Flush::Sync);
            driver.turn();
            match answer.try_recv().unwrap() {
                Ok(placed) => acked.push(placed[0]),
                Err(AppendError::Poisoned(why)) => assert!(why.contains("fsync"), "{why}"),
                Err(other) => panic!("{other}"),
            }
            seen = seen.max(payloads(&log).len());
        }
        assert_eq!(
            acked.len() as u64,
            n - 1,
            "nothing is acknowledged after the failure"
        );
        assert_eq!(seen as u64, n - 1, "nor visible");
        assert!(log.failure().borrow().is_some());
        assert!(matches!(driver.close(), Err(AppendError::Poisoned(_))));
        // The page cache still shows the lost batch: it is served after a restart only because it was written again.
        disk.restart();
        let (log, _driver) = opened(&disk);
        let served = payloads(&log);
        assert_eq!(served.len() as u64, n);
        disk.crash(0);
        assert_eq!(payloads(&opened(&disk).0), served);
    }
}

#[test]
fn a_failed_write_poisons() {
    let disk = MemoryDisk::new();
    let (log, mut driver) = opened(&disk);
    put(&log, &mut driver, note(OWNER, b"good"));
    disk.fail_write(1, std::io::ErrorKind::Other);
    for _ in 0..3 {
        let answer = submit(&log, vec![note(OWNER, b"bad")], Flush::Async);
        driver.turn();
        assert!(matches!(failed(&answer), AppendError::Poisoned(_)));
    }
    disk.restart();
    assert_eq!(payloads(&opened(&disk).0), [b"good"]);
}

#[test]
fn a_failed_fsync_of_an_index_poisons_the_log_too() {
    let disk = MemoryDisk::new();
    let (log, mut driver) = opened(&disk);
    put(&log, &mut driver, message(&queue("t", 0), b"", &[]));
    disk.fail_sync(1, std::io::ErrorKind::Other);
    assert!(driver.checkpoint().is_err());
    let answer = submit(&log, vec![note(OWNER, b"")], Flush::Sync);
    driver.turn();
    assert!(matches!(failed(&answer), AppendError::Poisoned(_)));
}

#[test]
fn a_full_disk_refuses_what_needs_a_new_segment_and_takes_it_later() {
    let disk = MemoryDisk::new();
    let clock = Arc::new(ManualClock::new(0));
    let open = || {
        FileLog::open_stepped(
            Arc::new(disk.clone()),
            settings(),
            clock.clone(),
            &SeededRandom::new(1),
        )
    };
    let (log, mut driver) = open().unwrap();
    let large = || note(OWNER, &[1; 20_000]);
    for _ in 0..2 {
        put(&log, &mut driver, large());
    }
    disk.set_capacity(Some(100_000));
    for _ in 0..2 {
        let full = submit(&log, vec![large(), large()], Flush::Sync);
        let small = submit(&log, vec![note(OWNER, b"small")], Flush::Sync);
        driver.turn();
        assert!(matches!(failed(&full), AppendError::Full(_)));
        assert!(small.try_recv().unwrap().is_ok(), "what fits is taken");
    }
    assert!(
        disk.list("")
            .unwrap()
            .iter()
            .all(|name| !name.ends_with(".new")),
        "nothing half-made stays"
    );
    disk.set_capacity(None);
    clock.advance(Duration::from_secs(2));
    put(&log, &mut driver, large());
    put(&log, &mut driver, large());
    assert_eq!(all(&log).len(), 6);
    assert_eq!(all(&log), all(&open_again(&disk)));
}

fn open_again(disk: &MemoryDisk) -> FileLog {
    disk.restart();
    opened(disk).0
}

#[test]
fn a_log_that_does_not_fit_on_the_disk_says_so() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(1000));
    let error = open(&disk, settings()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
}

#[test]
fn bytes_left_behind_by_a_cut_never_come_back() {
    // Two batches in one life, the first torn and the second whole; then a shorter one over the first.
    let (disk, placed, _) = ten_notes();
    let torn = placed[8].position.0 as usize;
    let mut bytes = disk.content(FIRST_SEGMENT).unwrap();
    // As if neither had been durable when the other was written.
    let codec = crate::log::layout::Codec::new(opened(&disk.copy()).0.id());
    let at = placed[9].position.0 as usize - 80;
    let mut last = codec.decode_batch(&bytes[at..], at as u64).unwrap();
    last.durable_end = placed[8].position.0 - 80;
    codec.encode_batch(&last, &mut bytes[at..]);
    bytes[torn + 70] ^= 1;
    disk.set_content(FIRST_SEGMENT, bytes);
    let (log, mut driver) = opened(&disk);
    assert_eq!(payloads(&log).len(), 8);
    let behind = disk.content(FIRST_SEGMENT).unwrap().split_off(torn - 80);
    assert!(behind.iter().all(|byte| *byte == 0), "it was not cut");
    let length = stored_len(30) as usize;
    put(&log, &mut driver, note(OWNER, &[9; 30]));
    assert_eq!(
        log.range().end.0 as usize,
        torn + length,
        "the next batch would start where the stale one does"
    );
    disk.restart();
    assert_eq!(payloads(&opened(&disk).0).len(), 9);
}

#[test]
fn a_batch_of_an_earlier_life_is_not_valid_behind_one_of_a_later_life() {
    // Should zeroing ever be lost, the life in the header still tells stale batches apart.
    let (disk, placed, _) = ten_notes();
    let stale = disk.content(FIRST_SEGMENT).unwrap();
    let at = placed[9].position.0 as usize - 80;
    let mut cut = stale.clone();
    cut[placed[8].position.0 as usize - 80..].fill(0);
    disk.set_content(FIRST_SEGMENT, cut);
    let mut checkpoint =
        crate::log::checkpoint::Checkpoint::decode(&disk.content("checkpoint").unwrap()).unwrap();
    checkpoint.durable_end = 0;
    disk.set_content("checkpoint", checkpoint.encode());
    let (log, mut driver) = opened(&disk);
    put(&log, &mut driver, note(OWNER, &[9; 30]));
    let mut bytes = disk.content(FIRST_SEGMENT).unwrap();
    let mut header = stale[at..].to_vec();
    let codec = crate::log::layout::Codec::new(log.id());
    let mut batch = codec.decode_batch(&header, at as u64).unwrap();
    batch.durable_end = 0;
    codec.encode_batch(&batch, &mut header);
    let length = batch.length as usize;
    bytes[at..at + length].copy_from_slice(&header[..length]);
    disk.set_content(FIRST_SEGMENT, bytes);
    assert_eq!(payloads(&opened(&disk).0).len(), 9);
}

#[test]
fn async_appends_are_acknowledged_before_and_visible_after_their_sync() {
    let disk = MemoryDisk::new();
    let clock = Arc::new(ManualClock::new(0));
    let (log, mut driver) = FileLog::open_stepped(
        Arc::new(disk.clone()),
        settings(),
        clock.clone(),
        &SeededRandom::new(1),
    )
    .unwrap();
    let queue = queue("t", 0);
    let end = log.watch(&queue);
    let syncs = disk.syncs();
    let answer = submit(
        &log,
        vec![message(&queue, b"async", &[("KEYS", "k")])],
        Flush::Async,
    );
    driver.turn();
    let placed = answer.try_recv().unwrap().unwrap()[0];
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(
        log.read(placed.position),
        Err(ReadError::NotARecord(placed.position))
    );
    assert_eq!((all(&log).len(), end.has_changed().unwrap()), (0, false));
    assert_eq!(log.find_key("t", "k", 1), Ok(vec![]));
    clock.advance(Duration::from_millis(5));
    driver.turn();
    assert_eq!(disk.syncs(), syncs + 1);
    assert!(log.read(placed.position).is_ok());
    assert!(end.has_changed().unwrap());
    // Somebody who waits for the sync takes everything before along.
    let early = submit(&log, vec![message(&queue, b"async", &[])], Flush::Async);
    let late = submit(&log, vec![note(BROKER, b"sync")], Flush::Sync);
    driver.turn();
    assert!(early.try_recv().unwrap().is_ok() && late.try_recv().unwrap().is_ok());
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn the_thread_syncs_async_appends_by_itself() {
    let disk = Arc::new(MemoryDisk::new());
    let clock = Arc::new(ManualClock::new(0));
    let log = FileLog::open(disk, settings(), clock, &SeededRandom::new(1)).unwrap();
    let queue = queue("t", 0);
    let mut end = log.watch(&queue);
    append(&log, vec![message(&queue, b"async", &[])], Flush::Async).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime
        .block_on(end.wait_for(|end| *end == QueueOffset(1)))
        .unwrap();
}

#[test]
fn server_time_goes_on_after_a_restart_whatever_the_wall_clock_does() {
    let disk = MemoryDisk::new();
    let open = |clock: &Arc<ManualClock>| {
        FileLog::open_stepped(
            Arc::new(disk.clone()),
            settings(),
            clock.clone(),
            &SeededRandom::new(1),
        )
        .unwrap()
    };
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let (log, mut driver) = open(&clock);
    clock.advance(Duration::from_secs(100));
    assert_eq!(
        put(&log, &mut driver, note(OWNER, b"")).at,
        ServerTime(100_000_000)
    );
    clock.advance(Duration::from_secs(50));
    disk.restart();
    let clock = Arc::new(ManualClock::new(5_000_000_000_000));
    let (log, mut driver) = open(&clock);
    assert_eq!(
        log.now(),
        ServerTime(100_000_000),
        "it continues where the last durable batch left it"
    );
    clock.advance(Duration::from_secs(7));
    driver.checkpoint().unwrap();
    disk.restart();
    let (log, _driver) = open(&Arc::new(ManualClock::new(0)));
    assert_eq!(log.now(), ServerTime(107_000_000), "or the last checkpoint");
}

#[test]
fn many_messages_leave_memory_to_the_files() {
    let disk = MemoryDisk::new();
    let index_bytes = 2000 * 40;
    let with = || Settings {
        segment_bytes: 1 << 20,
        index_bytes,
        ..settings()
    };
    let (log, mut driver) = open(&disk, with()).unwrap();
    let queue = queue("t", 0);
    let total = 30_000_u64;
    for i in 0..total / 100 {
        let entries = (0..100)
            .map(|j| message(&queue, b"", &[("KEYS", &format!("k{}", i * 100 + j))]))
            .collect();
        let answer = submit(&log, entries, Flush::Sync);
        driver.turn();
        assert!(answer.try_recv().unwrap().is_ok());
        driver.upkeep();
    }
    let check = |log: &FileLog| {
        assert_eq!(log.queue_range(&queue), QueueOffset(0)..QueueOffset(total));
        let entries = log.entries(&queue, QueueOffset(0), total as usize).unwrap();
        assert_eq!(entries.len() as u64, total);
        for i in [0, 1, 9_999, 15_000, total - 1] {
            let found = log.find_key("t", &format!("k{i}"), 5).unwrap();
            assert_eq!(found, [entries[i as usize].position]);
            assert_eq!(log.find(&queue, QueueOffset(i)), Ok(found[0]));
        }
        let in_memory = log.shared.queues.memory_entries();
        assert!(in_memory <= 4000, "{in_memory} entries are in memory");
    };
    check(&log);
    disk.restart();
    let (log, _driver) = open(&disk, with()).unwrap();
    check(&log);
    disk.restart();
    disk.remove("checkpoint").unwrap();
    check(&open(&disk, with()).unwrap().0);
}

#[test]
fn a_recovery_that_ends_half_way_leaves_what_the_checkpoint_needs() {
    let disk = MemoryDisk::new();
    let (log, mut driver) = opened(&disk);
    let keyed = |i: u64| message(&queue("t", 0), b"", &[("KEYS", &format!("k{i}"))]);
    for i in 0..3 {
        put(&log, &mut driver, keyed(i));
        driver.checkpoint().unwrap();
    }
    for i in 3..40 {
        put(&log, &mut driver, keyed(i));
    }
    disk.restart();
    // Recovery flushes and merges key runs on its way; then the process ends before the next checkpoint.
    let at_step = disk.clone();
    let steps: steps::Hook = Arc::new(move |step| {
        if step == steps::RECOVERY_TAIL_SYNCED {
            at_step.restart();
        }
    });
    let with = Settings {
        index_bytes: 100,
        steps: Some(steps),
        ..settings()
    };
    assert!(open(&disk, with).is_err());
    let (log, _driver) = opened(&disk);
    for i in 0..40 {
        assert_eq!(log.find_key("t", &format!("k{i}"), 9).unwrap().len(), 1);
    }
}

#[test]
fn every_step_is_met() {
    let met = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let hook = met.clone();
    let steps: steps::Hook = Arc::new(move |step| {
        hook.lock().unwrap().insert(step);
    });
    let with = Settings {
        segment_bytes: 16 << 10,
        keep_bytes: Some(0),
        steps: Some(steps),
        ..settings()
    };
    let (log, mut driver) = open(&MemoryDisk::new(), with).unwrap();
    for _ in 0..4 {
        put(&log, &mut driver, note(OWNER, &[0; 5000]));
    }
    for owner in [BROKER, OWNER] {
        log.keep_from(owner, Position(u64::MAX));
    }
    for _ in 0..2 {
        driver.upkeep();
        driver.turn();
    }
    assert_eq!(met.lock().unwrap().iter().copied().collect::<Vec<_>>(), {
        let mut all = steps::ALL.to_vec();
        all.sort_unstable();
        all
    });
}

#[test]
fn whoever_waits_when_the_log_goes_away_is_told() {
    let (log, driver) = opened(&MemoryDisk::new());
    let answer = submit(&log, vec![note(OWNER, b"")], Flush::Sync);
    drop((log, driver));
    assert_eq!(failed(&answer), AppendError::Closed);
}

#[test]
fn a_panic_in_a_callback_poisons_and_answers_the_others() {
    let disk = Arc::new(MemoryDisk::new());
    let clock = Arc::new(ManualClock::new(0));
    let log = FileLog::open(disk, settings(), clock, &SeededRandom::new(1)).unwrap();
    let mut failure = log.failure();
    let entries = vec![note(OWNER, b"")];
    let then = Box::new(|_: Result<&[Placed], AppendError>| panic!("a callback that panics"));
    let flush = Flush::Sync;
    log.append(Submission {
        entries,
        flush,
        then,
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(failure.wait_for(Option::is_some)).unwrap();
    let answer = append(&log, vec![note(OWNER, b"")], Flush::Sync).unwrap_err();
    assert!(matches!(
        answer,
        AppendError::Poisoned(_) | AppendError::Closed
    ));
    assert!(log.close().is_err());
}

#[test]
fn a_log_may_be_closed_from_a_callback() {
    let disk = Arc::new(MemoryDisk::new());
    let clock = Arc::new(ManualClock::new(0));
    let open = || {
        FileLog::open(
            disk.clone(),
            settings(),
            clock.clone(),
            &SeededRandom::new(1),
        )
    };
    let log = Arc::new(open().unwrap());
    let (inner, (tell, told)) = (log.clone(), std::sync::mpsc::channel());
    let then = Box::new(move |_: Result<&[Placed], AppendError>| {
        inner.close().unwrap();
        tell.send(()).unwrap();
    });
    let (entries, flush) = (vec![note(OWNER, b"")], Flush::Sync);
    log.append(Submission {
        entries,
        flush,
        then,
    })
    .unwrap();
    told.recv().unwrap();
    log.close().unwrap();
    assert_eq!(all(&log).len(), 1);
    assert_eq!(all(&open().unwrap()).len(), 1);
}

#[test]
fn what_is_visible_can_be_read_while_everything_moves() {
    const PRODUCERS: u64 = 3;
    const EACH: u64 = 1500;
    let disk = Arc::new(MemoryDisk::new());
    let clock = Arc::new(ManualClock::new(0));
    // Checkpoints and new segments all the time.
    let with = Settings {
        index_bytes: 2000,
        ..settings()
    };
    let log = FileLog::open(disk, with, clock, &SeededRandom::new(1)).unwrap();
    let queue = queue("t", 0);
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (log, queue) = (&log, &queue);
            scope.spawn(move || {
                for i in 0..EACH {
                    let word = format!("k{producer}-{i}");
                    let entry = message(queue, &[7; 100], &[("KEYS", &word)]);
                    let flush = if i % 2 == 0 {
                        Flush::Sync
                    } else {
                        Flush::Async
                    };
                    let placed = append(log, vec![entry], flush).unwrap();
                    if flush == Flush::Sync {
                        let found = log.find_key("t", &word, 9).unwrap();
                        assert_eq!(found, [placed[0].position]);
                    }
                }
            });
        }
        let mut end = log.watch(&queue);
        let mut next = QueueOffset(0);
        while next.0 < PRODUCERS * EACH {
            let to = *end.borrow_and_update();
            let entries = log.entries(&queue, next, usize::MAX).unwrap();
            // What is visible may be ahead of what is told.
            assert!(entries.len() as u64 >= to.0.saturating_sub(next.0));
            for entry in entries {
                assert_eq!(entry.offset, next);
                let stored = log.read(entry.position).unwrap();
                assert_eq!(
                    RecordView::parse(&stored.bytes).unwrap().queue_offset,
                    next.0
                );
                next = QueueOffset(next.0 + 1);
            }
            std::thread::yield_now();
        }
    });
    assert_eq!(all(&log).len() as u64, PRODUCERS * EACH);
}

mod crashes;
mod retention;
mod torn;
