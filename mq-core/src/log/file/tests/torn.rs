//! Parts of a write that the power cut, and what is written over the hole afterwards.

use super::*;
use crate::log::layout::ALIGN;

/// As long as several sectors, so that some hold nothing but the middle of one record.
const LONG: usize = 1500;
const SECTOR: usize = 512;

/// A log of two notes that are durable, and three behind them that nothing shows to be: in one write or in three.
struct Torn {
    disk: MemoryDisk,
    placed: Vec<Placed>,
}

impl Torn {
    fn new(writes: &[&[u8]]) -> Self {
        let disk = MemoryDisk::new();
        let (log, mut driver) = opened(&disk);
        let mut placed = Vec::new();
        for number in 0..2 {
            placed.push(put(&log, &mut driver, note(OWNER, &[number; 30])));
        }
        for write in writes {
            let entries = write.iter().map(|number| note(OWNER, &[*number; LONG]));
            let answer = submit(&log, entries.collect(), Flush::Async);
            driver.turn();
            placed.extend(answer.try_recv().unwrap().unwrap());
        }
        Self {
            disk: disk.copy(),
            placed,
        }
    }

    fn start(&self, record: usize) -> usize {
        self.placed[record].position.0 as usize
    }

    /// Where its last byte stands that is no padding, or a little before it.
    fn end(&self, record: usize) -> usize {
        self.start(record) + stored_len(LONG) as usize - ALIGN as usize
    }

    /// Loses each sector of the three alone; `kept` says how many records are left when record `hit` is the first to miss.
    fn loses_each_sector(&self, kept: impl Fn(usize) -> usize) {
        let whole = self.disk.content(FIRST_SEGMENT).unwrap();
        let sound = payloads(&opened(&self.disk.copy()).0);
        assert_eq!(sound.len(), 5);
        let mut hits = [0; 5];
        for sector in self.start(2) / SECTOR..self.end(4).div_ceil(SECTOR) {
            let lost = (sector * SECTOR).max(self.start(2))..(sector + 1) * SECTOR;
            let hit = (2..5).find(|record| lost.start < self.end(*record));
            let Some(hit) = hit else { continue };
            hits[hit] += 1;
            let disk = self.disk.copy();
            let mut torn = whole.clone();
            torn[lost].fill(0);
            disk.set_content(FIRST_SEGMENT, torn);
            let (log, mut driver) = opened(&disk);
            let left = kept(hit);
            assert_eq!(payloads(&log), sound[..left], "without {sector}");
            // As long as what is lost, so that what stood behind it would fit again.
            let again = put(&log, &mut driver, note(OWNER, &[9; LONG]));
            assert_eq!(again.position.0 as usize, self.start(left));
            disk.crash(sector as u64);
            let now = payloads(&opened(&disk).0);
            assert_eq!(now[..left], sound[..left], "without {sector}");
            assert_eq!(now.len(), left + 1, "without {sector} something came back");
        }
        assert!(hits[2..].iter().all(|hits| *hits > 1), "{hits:?}");
    }
}

#[test]
fn story_21_a_write_that_lost_one_of_its_records_is_cut_as_a_whole() {
    Torn::new(&[&[2, 3, 4]]).loses_each_sector(|_| 2);
}

#[test]
fn story_21_a_write_behind_a_lost_one_never_comes_back() {
    Torn::new(&[&[2], &[3], &[4]]).loses_each_sector(|hit| hit);
}
