//! What is deleted, when, and what a log that has lost its beginning still knows.

use super::*;
use crate::log::reading::LogReader;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        Self {
            disk: MemoryDisk::new(),
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        }
    }

    fn open(&self) -> (FileLog, Driver) {
        let settings = Settings {
            segment_bytes: 16 << 10,
            keep_for: Some(HOUR),
            ..settings()
        };
        let (disk, random) = (Arc::new(self.disk.clone()), SeededRandom::new(1));
        FileLog::open_stepped(disk, settings, self.clock.clone(), &random).unwrap()
    }

    fn segments(&self) -> usize {
        let names = self.disk.list("").unwrap();
        names.iter().filter(|name| name.ends_with(".log")).count()
    }
}

/// Fills segments with messages for `queue`, `count` of some 3 KB.
fn fill(log: &FileLog, driver: &mut Driver, id: &QueueId, count: usize) -> Vec<Placed> {
    let one = |i: usize| message(id, &[i as u8; 3000], &[("KEYS", &format!("k{i}"))]);
    (0..count).map(|i| put(log, driver, one(i))).collect()
}

/// Does everything that is to be done.
fn settle(driver: &mut Driver) {
    for _ in 0..5 {
        driver.upkeep();
        driver.turn();
    }
}

#[test]
fn what_is_deleted_is_not_read_although_a_crash_has_left_its_file() {
    let world = World::new();
    let (log, mut driver) = world.open();
    let id = queue("t", 0);
    let old = fill(&log, &mut driver, &id, 20);
    world.clock.advance(2 * HOUR);
    fill(&log, &mut driver, &id, 20);
    let first = world.disk.content(FIRST_SEGMENT).unwrap();
    for owner in [BROKER, OWNER] {
        log.keep_from(owner, Position(u64::MAX));
    }
    settle(&mut driver);
    let (start, kept) = (log.range().start, world.segments());
    assert!(start > old[0].position);
    world.disk.set_content(FIRST_SEGMENT, first);
    assert_eq!(world.segments(), kept + 1, "it is back");
    let reader = LogReader::open(Arc::new(world.disk.clone())).unwrap();
    assert_eq!(reader.start(), start);
    assert!(reader.read(old[0].position).is_err());
    let read: Vec<Stored> = reader.scan(start).map(Result::unwrap).collect();
    assert_eq!(read, all(&log));
}

#[test]
fn the_oldest_segments_go_once_they_are_old_and_nobody_keeps_them() {
    let world = World::new();
    let (log, mut driver) = world.open();
    let id = queue("t", 0);
    let old = fill(&log, &mut driver, &id, 20);
    world.clock.advance(2 * HOUR);
    // A wall clock that jumps is not age.
    world.clock.set_wall_ms(4_000_000_000_000);
    let new = fill(&log, &mut driver, &id, 20);
    let before = world.segments();
    settle(&mut driver);
    let wanted = *log.wanted().borrow();
    assert!(
        wanted > old[10].position && wanted <= new[0].position,
        "{wanted}"
    );
    assert_eq!(
        world.segments(),
        before,
        "owners have not said what they keep"
    );
    log.keep_from(BROKER, wanted);
    settle(&mut driver);
    assert_eq!(world.segments(), before, "one of them has not");
    log.keep_from(OWNER, old[7].position);
    settle(&mut driver);
    assert!(log.read(old[7].position).is_ok(), "it is kept");
    assert!(log.read(old[0].position).is_err());
    log.keep_from(OWNER, Position(u64::MAX));
    settle(&mut driver);
    let start = log.range().start;
    assert!(world.segments() < before && start >= wanted);
    for reopened in [false, true] {
        let (log, _driver) = if reopened {
            world.disk.restart();
            world.open()
        } else {
            world.disk.restart();
            world.disk.remove("checkpoint").unwrap();
            world.open()
        };
        assert_eq!(log.range().start, start);
        let range = log.queue_range(&id);
        assert_eq!(range.end, QueueOffset(40));
        let both = old.iter().chain(&new);
        let first = both
            .clone()
            .find(|placed| placed.position >= start)
            .unwrap();
        assert_eq!(range.start, first.queue_offset);
        let gone = Err(ReadError::Gone(old[3].position));
        assert_eq!(log.read(old[3].position), gone);
        assert!(matches!(log.scan(old[3].position), Err(ReadError::Gone(_))));
        assert!(matches!(
            log.find(&id, QueueOffset(3)),
            Err(ReadError::Gone(_))
        ));
        for placed in both.filter(|placed| placed.position >= start) {
            assert_eq!(log.find(&id, placed.queue_offset), Ok(placed.position));
            assert!(log.read(placed.position).is_ok());
        }
        let found = log.find_key("t", "k19", 9).unwrap();
        assert_eq!(found.first(), Some(&new[19].position));
    }
}

#[test]
fn a_queue_that_has_lost_all_its_messages_goes_on_where_it_ended_even_without_a_checkpoint() {
    let (quiet, busy) = (queue("quiet", 3), queue("busy", 0));
    for lost in [false, true] {
        let world = World::new();
        let (log, mut driver) = world.open();
        fill(&log, &mut driver, &quiet, 7);
        for _ in 0..4 {
            fill(&log, &mut driver, &busy, 20);
            world.clock.advance(2 * HOUR);
            log.keep_from(BROKER, log.range().end);
            log.keep_from(OWNER, log.range().end);
            settle(&mut driver);
        }
        assert_eq!(log.queue_range(&quiet), QueueOffset(7)..QueueOffset(7));
        driver.close().unwrap();
        drop(log);
        world.disk.restart();
        if lost {
            world.disk.remove("checkpoint").unwrap();
        }
        let (log, mut driver) = world.open();
        assert_eq!(log.queue_range(&quiet), QueueOffset(7)..QueueOffset(7));
        let next = put(&log, &mut driver, message(&quiet, b"next", &[]));
        assert_eq!(next.queue_offset, QueueOffset(7));
        assert_eq!(log.find(&quiet, QueueOffset(7)), Ok(next.position));
        driver.checkpoint().unwrap();
        world.disk.restart();
        let (log, _driver) = world.open();
        assert_eq!(log.find(&quiet, QueueOffset(7)), Ok(next.position));
    }
}

#[test]
fn a_log_without_checkpoint_whose_beginning_was_taken_away_is_refused() {
    let world = World::new();
    let (log, mut driver) = world.open();
    fill(&log, &mut driver, &queue("t", 0), 20);
    drop((log, driver));
    world.disk.restart();
    world.disk.remove("checkpoint").unwrap();
    world.disk.remove(FIRST_SEGMENT).unwrap();
    let settings = Settings {
        segment_bytes: 16 << 10,
        ..settings()
    };
    let error = open(&world.disk, settings).unwrap_err();
    assert!(error.to_string().contains("the file is missing"), "{error}");
}

#[test]
fn what_a_crash_leaves_of_a_deletion_is_removed_by_the_next_start() {
    let world = World::new();
    let (log, mut driver) = world.open();
    fill(&log, &mut driver, &queue("t", 0), 40);
    let copy = world.disk.copy();
    world.clock.advance(2 * HOUR);
    put(&log, &mut driver, note(BROKER, b"later"));
    log.keep_from(BROKER, log.range().end);
    log.keep_from(OWNER, log.range().end);
    settle(&mut driver);
    let (start, kept) = (log.range().start, world.segments());
    drop((log, driver));
    world.disk.restart();
    for name in copy.list("").unwrap() {
        if name.ends_with(".log") && world.disk.content(&name).is_none() {
            world.disk.set_content(&name, copy.content(&name).unwrap());
        }
    }
    assert!(world.segments() > kept);
    let (log, _driver) = world.open();
    assert_eq!((log.range().start, world.segments()), (start, kept));
}

#[test]
fn what_a_full_disk_keeps_from_being_deleted_is_not_said_to_be() {
    let world = World::new();
    let (log, mut driver) = world.open();
    let old = fill(&log, &mut driver, &queue("t", 0), 40);
    let begun = log.range().start;
    world.clock.advance(2 * HOUR);
    put(&log, &mut driver, note(BROKER, b"later"));
    log.keep_from(BROKER, log.range().end);
    log.keep_from(OWNER, log.range().end);
    world.disk.set_capacity(Some(0));
    settle(&mut driver);
    assert!(log.range().start > begun, "nobody sees it any more");
    assert_eq!(log.deleted(), begun, "no checkpoint says so");
    world.disk.set_capacity(None);
    let crashed = World {
        disk: world.disk.copy(),
        clock: world.clock.clone(),
    };
    let (after, _driver) = crashed.open();
    assert_eq!((after.range().start, after.deleted()), (begun, begun));
    assert!(after.read(old[0].position).is_ok());
    put(&log, &mut driver, note(BROKER, b"there is room again"));
    assert!(driver.close().is_ok());
    assert_eq!(log.deleted(), log.range().start);
}

#[test]
fn the_index_of_what_is_deleted_gives_its_room_back() {
    use std::os::unix::fs::MetadataExt as _;

    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let file = Disk::open(&disk, "index").unwrap();
    file.write_at(&[7; 1 << 20], 0).unwrap();
    file.sync().unwrap();
    let blocks = || {
        std::fs::metadata(folder.path().join("index"))
            .unwrap()
            .blocks()
    };
    let before = blocks();
    file.free((1 << 20) - 100).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 20);
    let mut end = [0; 100];
    file.read_at(&mut end, (1 << 20) - 100).unwrap();
    assert_eq!(end, [7; 100]);
    // A file system that cannot do it keeps the room, and nothing else changes.
    assert!(blocks() <= before);
}
