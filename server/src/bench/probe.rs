//! How fast the disk makes small writes durable, without any of our code: what every other figure is to be read beside.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use mq_core::clock::Clock;

const BLOCK: usize = 4096;
/// Blocks in the file; the probe goes round.
const BLOCKS: u64 = 4096;

/// Writes of 4 KiB with fdatasync per second, to a file that was written before, for `time`. Blocks.
pub(super) fn fsyncs_per_second(path: &Path, clock: &dyn Clock, time: Duration) -> io::Result<f64> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let block = [0x5a_u8; BLOCK];
    for number in 0..BLOCKS {
        file.write_all_at(&block, number * BLOCK as u64)?;
    }
    file.sync_all()?;
    let began = clock.monotonic();
    let mut count = 0_u64;
    loop {
        file.write_all_at(&block, count % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        count += 1;
        let passed = clock.monotonic().saturating_sub(began);
        if passed >= time {
            return Ok(count as f64 / passed.as_secs_f64());
        }
    }
}
