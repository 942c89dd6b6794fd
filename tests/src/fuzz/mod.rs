//! Readers of bytes from outside, as functions that must return whatever they are given, and a driver that tries to make
//! one of them panic.
//!
//! Inputs worth keeping stand in `tests/corpus/TARGET/NAME.hex`, as hexadecimal text in lines of any length. Each run reads
//! all of them and goes on with changed ones. What makes a target panic is printed as such text: put it into a file there,
//! and every later run begins with it.

mod mutation;
mod targets;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mq_core::clock::{Clock as _, SystemClock};

pub use targets::{TARGETS, Target};

/// Longest input that is made, in bytes.
const LONGEST: usize = 64 * 1024;

/// What one target was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Inputs of the corpus.
    pub kept: usize,
    /// Changed ones.
    pub changed: u64,
}

/// Feeds the corpus of `target` to it, and then changed inputs for `time`. The same `seed` makes the same inputs.
///
/// # Errors
/// An empty or unreadable corpus, or the input at which the target panicked.
pub fn drive(target: &Target, corpus: &Path, seed: u64, time: Duration) -> Result<Fed> {
    let kept = read_corpus(&corpus.join(target.name))?;
    for input in &kept {
        feed(target, input)?;
    }
    let mut mutation = mutation::Mutation::new(seed);
    let clock = SystemClock::new();
    let mut changed = 0;
    while clock.monotonic() < time {
        for _ in 0..64 {
            let mut input = mutation.changed(&kept);
            input.truncate(LONGEST);
            feed(target, &input).with_context(|| format!("seed {seed}, input {changed}"))?;
            changed += 1;
        }
    }
    Ok(Fed {
        kept: kept.len(),
        changed,
    })
}

/// Gives the target one input.
///
/// # Errors
/// The input in hexadecimal, if the target panicked.
pub fn feed(target: &Target, input: &[u8]) -> Result<()> {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return Ok(());
    }
    let name = target.name;
    bail!(
        "{name} panicked; to replay put this into tests/corpus/{name}/found.hex and run tests/run fuzz:\n{}",
        hex(input)
    )
}

fn read_corpus(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let shown = folder.display();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {shown}"))? {
        paths.push(entry?.path());
    }
    // The order in a folder differs between machines; the inputs of a seed must not.
    paths.sort();
    ensure!(!paths.is_empty(), "{shown} has no inputs");
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path)?;
        unhex(&text).with_context(|| format!("{} is no hexadecimal text", path.display()))
    };
    paths.iter().map(read).collect()
}

/// Bytes as hexadecimal text, 32 in a line.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            // Writing into memory cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// The bytes of hexadecimal text, white space ignored.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|character| !character.is_whitespace())
        .map(|character| character.to_digit(16))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(high * 16 + low).ok())
        .collect()
}
