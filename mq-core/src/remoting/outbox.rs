//! What waits to be written to one peer: whole frames in order, large bodies shared instead of copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::wire::command::Command;
use crate::wire::frame;

/// Bodies from this size on are not copied.
const SHARED_BODY_BYTES: usize = 8 * 1024;

/// Pieces for one write; the operating systems allow at least as many.
const PIECES: usize = 64;

/// Bytes in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// What comes after `pieces`.
    tail: Vec<u8>,
    bytes: usize,
}

impl Outbox {
    /// Appends a frame; its length in bytes.
    pub(super) fn put(&mut self, command: &Command) -> usize {
        let before = self.tail.len();
        let mut bytes = command.body.len();
        if bytes < SHARED_BODY_BYTES {
            frame::put(&mut self.tail, command);
            bytes = self.tail.len() - before;
        } else {
            frame::put_head(&mut self.tail, command, bytes);
            bytes += self.tail.len() - before;
            self.seal();
            self.pieces.push_back(command.body.clone());
        }
        self.bytes += bytes;
        bytes
    }

    /// How many bytes wait.
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    /// Puts what was taken and not written before everything that came since.
    pub(super) fn put_back(&mut self, mut rest: Self) {
        if self.bytes > 0 {
            rest.seal();
            rest.pieces.append(&mut self.pieces);
            rest.tail = std::mem::take(&mut self.tail);
            rest.bytes += self.bytes;
        }
        *self = rest;
    }

    /// Hands the first bytes to `write`, which tells how many it has written.
    pub(super) fn write<E>(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let written = if self.pieces.is_empty() {
            write(&[IoSlice::new(&self.tail)])?
        } else {
            self.seal();
            let slices: Vec<IoSlice<'_>> = self
                .pieces
                .iter()
                .take(PIECES)
                .map(|piece| IoSlice::new(piece))
                .collect();
            write(&slices)?
        };
        self.skip(written);
        Ok(written)
    }

    fn skip(&mut self, written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        if self.bytes == 0 {
            self.pieces.clear();
            self.tail.clear();
            return;
        }
        self.seal();
        let mut left = written;
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > left {
                first.advance(left);
                return;
            }
            left -= first.len();
            self.pieces.pop_front();
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn command(code: i32, body: usize) -> Command {
        Command {
            body: vec![code as u8; body].into(),
            ..Command::request(code, code)
        }
    }

    proptest! {
        #[test]
        fn whatever_each_write_takes_the_bytes_come_out_in_order(
            bodies in proptest::collection::vec(prop_oneof![0_usize..40, 8_100_usize..8_300], 1..12),
            takes in proptest::collection::vec((1_usize..20_000, any::<bool>()), 1..40),
        ) {
            let mut expected: Vec<u8> = Vec::new();
            let mut written: Vec<u8> = Vec::new();
            let mut outbox = Outbox::default();
            let mut takes = takes.into_iter().cycle();
            let mut bodies = bodies.into_iter().enumerate();
            loop {
                if let Some((code, body)) = bodies.next() {
                    let command = command(code as i32, body);
                    let length = outbox.put(&command);
                    let whole = frame::encoded(&command);
                    prop_assert_eq!(length, whole.len());
                    expected.extend_from_slice(&whole);
                } else if outbox.len() == 0 {
                    break;
                }
                let (most, put_back) = takes.next().unwrap();
                let mut taken = std::mem::take(&mut outbox);
                let count = taken.write(|slices| {
                    let before = written.len();
                    for slice in slices {
                        let left = most - (written.len() - before);
                        written.extend(slice.iter().take(left));
                    }
                    Ok::<_, Infallible>(written.len() - before)
                });
                prop_assert!(count.unwrap() <= most);
                if put_back {
                    outbox.put_back(taken);
                } else {
                    outbox = taken;
                }
                prop_assert_eq!(outbox.len(), expected.len() - written.len());
            }
            prop_assert!(written == expected);
        }
    }
}
