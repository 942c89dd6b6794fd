//! The hash chain over the history: one seal for each SQL batch. Pure.

use std::fmt;

use sha2::{Digest, Sha256};

use super::Event;

/// Bytes of the short hash kept for each row, so that a check can name the row that was touched.
pub const LEAF_BYTES: usize = 8;

/// Bytes of an event that are hashed beside its texts.
const FIELDS_BYTES: usize = 59;

/// What is added to the number of the step of an event that has a fingerprint, so that none can be taken for another field.
const HAS_FINGERPRINT: u8 = 0x80;

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The seal of one SQL batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Number of the batch, the owner row's `seq` after it.
    pub seq: u64,
    /// Number of the first event of the batch, or of the next one if it has none.
    pub first_event: u64,
    /// How many events it has.
    pub count: u32,
    /// The owner row's `published` after it.
    pub published: u64,
    /// Wall clock of the batch, ms since 1970: what dates the history for people.
    pub wall_ms: u64,
    /// SHA-256 over the previous seal's hash and all of the above and `leaves`.
    pub hash: Hash,
    /// [`LEAF_BYTES`] for each event.
    pub leaves: Vec<u8>,
}

/// Seals `events` on top of the seal whose hash is `previous` (all zeros for the first).
#[must_use]
pub fn seal(
    previous: Hash,
    seq: u64,
    published: u64,
    wall_ms: u64,
    first_event: u64,
    events: &[Event],
) -> Seal {
    let mut leaves = Vec::with_capacity(events.len() * LEAF_BYTES);
    for event in events {
        leaves.extend_from_slice(&leaf(event));
    }
    let mut seal = Seal {
        seq,
        first_event,
        count: u32::try_from(events.len()).unwrap_or(u32::MAX),
        published,
        wall_ms,
        hash: Hash::default(),
        leaves,
    };
    seal.hash = hash(previous, &seal, &seal.leaves);
    seal
}

/// The hash of `seal` on top of `previous`, if its leaves were `leaves`.
#[must_use]
pub(super) fn hash(previous: Hash, seal: &Seal, leaves: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous.0);
    for number in [
        seal.seq,
        seal.first_event,
        u64::from(seal.count),
        seal.published,
        seal.wall_ms,
    ] {
        hasher.update(number.to_be_bytes());
    }
    hasher.update(leaves);
    Hash(hasher.finalize().into())
}

/// The short hash of one row.
#[must_use]
pub fn leaf(event: &Event) -> [u8; LEAF_BYTES] {
    let mut fields = Vec::with_capacity(FIELDS_BYTES + event.source.len() + event.evidence.len());
    fields.extend_from_slice(&event.number.to_be_bytes());
    fields.extend_from_slice(&event.transaction.to_bytes());
    fields.extend_from_slice(&[
        event.from.map_or(255, |s| s as u8),
        event.to as u8 | event.fingerprint.map_or(0, |_| HAS_FINGERPRINT),
        event.actor as u8,
    ]);
    fields.extend_from_slice(&event.at.0.to_be_bytes());
    fields.extend_from_slice(&event.then_at.map_or(u64::MAX, |t| t.0).to_be_bytes());
    if let Some(fingerprint) = event.fingerprint {
        fields.extend_from_slice(&fingerprint.to_be_bytes());
    }
    fields.extend_from_slice(&(event.source.len() as u64).to_be_bytes());
    fields.extend_from_slice(event.source.as_bytes());
    fields.extend_from_slice(event.evidence.as_bytes());
    // In one piece: the hash takes less time than handing it its parts.
    let hash: [u8; 32] = Sha256::digest(fields).into();
    let mut leaf = [0; LEAF_BYTES];
    leaf.copy_from_slice(
        hash.first_chunk::<LEAF_BYTES>()
            .expect("32 bytes have a first eight"),
    );
    leaf
}
