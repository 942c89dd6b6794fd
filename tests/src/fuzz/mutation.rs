//! Changed inputs: bits flipped, bytes put in, taken out and copied, parts of two inputs joined, lengths set to extremes.

use mq_core::random::{Random as _, SeededRandom};

/// Lengths at which readers go wrong.
const EXTREMES: [u32; 10] = [
    0,
    1,
    3,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x00FF_FFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
];

/// Makes inputs from a seed.
#[derive(Debug)]
pub(super) struct Mutation(SeededRandom);

impl Mutation {
    pub(super) const fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// One of the `kept` inputs, changed in one to eight places.
    pub(super) fn changed(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.any(kept);
        for _ in 0..=self.below(8) {
            self.change(&mut input, kept);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(8) {
            0 | 1 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= bit;
                }
            }
            2 => {
                let byte = self.below(256) as u8;
                let count = self.below(16) + 1;
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            3 => drop(input.drain(at..self.end(at, input.len()))),
            4 => {
                let part = input.get(at..self.end(at, input.len())).unwrap_or_default();
                let part = part.to_vec();
                let to = self.below(input.len());
                input.splice(to..to, part);
            }
            5 => {
                let other = self.any(kept);
                let from = self.below(other.len());
                input.truncate(at);
                input.extend(other.iter().skip(from));
            }
            6 => input.truncate(at),
            _ => {
                let extreme = EXTREMES.get(self.below(EXTREMES.len()));
                let bytes = extreme.copied().unwrap_or_default().to_be_bytes();
                // One to four of its last bytes.
                let last = bytes.iter().skip(self.below(4));
                for (byte, value) in input.iter_mut().skip(at).zip(last) {
                    *byte = *value;
                }
            }
        }
    }

    /// Where a part that starts at `at` ends: mostly soon.
    fn end(&mut self, at: usize, length: usize) -> usize {
        let most = if self.below(4) == 0 { length - at } else { 16 };
        (at + self.below(most + 1)).min(length)
    }

    fn any(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        kept.get(self.below(kept.len()))
            .cloned()
            .unwrap_or_default()
    }

    /// A number below `bound`; 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.0.next_u64() % bound).unwrap_or_default()
    }
}
