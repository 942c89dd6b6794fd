//! Reads the files of a log that nobody has open: segments, batches, records, and RocketMQ's stored messages.
//!
//! Integers of the log are little-endian, those of stored messages big-endian. The first batch that is not valid ends
//! the log; [`read`] refuses a log in which a later batch says that those bytes had been durable.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::facts::{COORDINATOR, Log, MOVED, Mark, Message, Record};

const SEGMENT_HEADER: usize = 4096;
const BATCH_HEADER: usize = 80;
const STAMP: usize = 16;
const RECORD_HEADER: usize = 64;
const MESSAGE_HEADER: usize = 88;

/// Reads the log in `folder`.
///
/// # Errors
/// Names the file and the position of what contradicts the layout.
pub fn read(folder: &Path) -> Result<Log> {
    let mut names = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.len() == 24 && name.ends_with(".log") {
            names.push(name);
        }
    }
    names.sort_unstable();
    ensure!(
        !names.is_empty(),
        "{} holds no segment of a log",
        folder.display()
    );
    let mut walk = Walk::default();
    for name in names {
        let bytes = fs::read(folder.join(&name)).with_context(|| format!("cannot read {name}"))?;
        walk.segment(&name, &bytes)
            .with_context(|| format!("segment {name}"))?;
    }
    Ok(walk.log)
}

/// The walk through all segments.
#[derive(Debug, Default)]
struct Walk {
    log: Log,
    /// Where the next segment must start; `None` before the first.
    next_segment: Option<u64>,
    /// The life of the last valid batch.
    life: u64,
    /// Set once an invalid batch has ended the log.
    ended: bool,
}

/// The header of a batch.
#[derive(Debug)]
struct Batch {
    filler: bool,
    records: u32,
    length: usize,
    header: usize,
    durable_end: u64,
    life: u64,
    /// What the coordinator had stamped on it.
    stamp: u64,
}

impl Walk {
    fn segment(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        // A segment that was created and not yet written to may lack its header only at the end of the log.
        if int(bytes, 8)? == 0 && self.next_segment.is_some() {
            self.ended = true;
            return Ok(());
        }
        ensure!(bytes.starts_with(b"HMLOGSEG"), "no segment starts there");
        ensure!(
            crc(&[part(bytes, 12, 36)?]) == int(bytes, 8)?,
            "the header's checksum is wrong"
        );
        ensure!(
            short(bytes, 12)? == 1,
            "layout version {} is not known",
            short(bytes, 12)?
        );
        let (id, start, length) = (wide(bytes, 16)?, long(bytes, 32)?, long(bytes, 40)?);
        ensure!(
            name == format!("{start:020}.log"),
            "it says it starts at {start}"
        );
        ensure!(
            length == bytes.len() as u64,
            "it says it has {length} bytes, it has {}",
            bytes.len()
        );
        match self.next_segment {
            None => {
                self.log.id = id;
                self.log.start = start;
                self.log.trimmed = start > 0;
                self.log.end = start + SEGMENT_HEADER as u64;
            }
            Some(next) => ensure!(
                next == start && id == self.log.id,
                "it does not follow the segment before"
            ),
        }
        self.next_segment = Some(start + length);
        self.batches(start, bytes)
    }

    fn batches(&mut self, start: u64, bytes: &[u8]) -> Result<()> {
        let mut at = SEGMENT_HEADER;
        while !self.ended && at + BATCH_HEADER <= bytes.len() {
            let position = start + at as u64;
            match self.batch(bytes, at, start) {
                Ok((batch, records)) => {
                    at += batch.length;
                    self.life = batch.life;
                    self.log.stamped = self.log.stamped.max(batch.stamp);
                    if !batch.filler {
                        self.log.records.extend(records);
                    }
                    self.log.end = start + at as u64;
                }
                Err(why) => {
                    self.ended = true;
                    self.log.end = position;
                    self.nobody_claims(bytes, at, start)
                        .with_context(|| format!("at {position}: {why}"))?;
                    return Ok(());
                }
            }
        }
        if self.ended {
            self.nobody_claims(bytes, SEGMENT_HEADER, start)?;
        }
        Ok(())
    }

    /// Looks for a batch behind the end of the log that says that more had been durable.
    fn nobody_claims(&self, bytes: &[u8], from: usize, start: u64) -> Result<()> {
        let mut at = from;
        while at + BATCH_HEADER <= bytes.len() {
            if bytes.get(at..at + 4) == Some(b"HMB1")
                && let Ok(batch) = self.header(bytes, at, start)
                && batch.life >= self.life
                && batch.durable_end > self.log.end
            {
                let (position, durable) = (start + at as u64, batch.durable_end);
                bail!("the batch at {position} says that everything before {durable} was durable");
            }
            at += 8;
        }
        Ok(())
    }

    fn header(&self, bytes: &[u8], at: usize, start: u64) -> Result<Batch> {
        let fixed = part(bytes, at, BATCH_HEADER)?;
        ensure!(fixed.starts_with(b"HMB1"), "no batch starts there");
        let [filler, stamps] = [byte(fixed, 10)?, byte(fixed, 11)?];
        let header = BATCH_HEADER + usize::from(stamps) * STAMP;
        let fields = part(bytes, at, header)?;
        ensure!(
            crc(&[part(fields, 8, header - 8)?]) == int(fields, 4)?,
            "the batch's checksum is wrong"
        );
        ensure!(
            long(fields, 16)? == start + at as u64,
            "the batch belongs to another place"
        );
        ensure!(
            wide(fields, 32)? == self.log.id,
            "the batch belongs to another log"
        );
        let mut stamp = 0;
        for number in 0..usize::from(stamps) {
            let at = BATCH_HEADER + number * STAMP;
            if long(fields, at)? == u64::from(COORDINATOR) {
                stamp = long(fields, at + 8)?;
            }
        }
        Ok(Batch {
            filler: filler == 1,
            records: int(fields, 12)?,
            length: usize::try_from(long(fields, 24)?)?,
            header,
            durable_end: long(fields, 64)?,
            life: long(fields, 72)?,
            stamp,
        })
    }

    /// The batch at `at` with its records, all of them intact.
    fn batch(&self, bytes: &[u8], at: usize, start: u64) -> Result<(Batch, Vec<Record>)> {
        let batch = self.header(bytes, at, start)?;
        ensure!(
            batch.life >= self.life,
            "the batch is left over from an earlier life"
        );
        let end = at.saturating_add(batch.length);
        ensure!(
            batch.length >= batch.header && end <= bytes.len(),
            "the batch is cut short"
        );
        let mut records = Vec::new();
        let mut next = at + batch.header;
        for _ in 0..batch.records {
            let (record, length) = self.record(
                part(bytes, next, end.saturating_sub(next))?,
                start + next as u64,
            )?;
            records.push(record);
            next += length;
        }
        ensure!(
            batch.filler || next == end,
            "the records do not fill the batch"
        );
        Ok((batch, records))
    }

    fn record(&self, bytes: &[u8], position: u64) -> Result<(Record, usize)> {
        let header = part(bytes, 0, RECORD_HEADER)?;
        ensure!(
            header.starts_with(b"HMR1"),
            "no record starts at {position}"
        );
        ensure!(
            long(header, 8)? == position,
            "the record at {position} belongs elsewhere"
        );
        let payload = part(bytes, RECORD_HEADER, int(header, 16)? as usize)?;
        let sum = crc(&[&self.log.id.to_le_bytes(), part(header, 8, 56)?, payload]);
        ensure!(
            sum == int(header, 4)?,
            "the checksum of the record at {position} is wrong"
        );
        let mark = Mark {
            owner: byte(header, 22)?,
            kind: byte(header, 23)?,
            key: wide(header, 24)?,
            number: long(header, 40)?,
        };
        let message = match byte(header, 20)? {
            0 => Some(message(payload).with_context(|| format!("the message at {position}"))?),
            _ => None,
        };
        let mark = (byte(header, 21)? == 1).then_some(mark);
        let is_copy = |mark: &Mark| (mark.owner, mark.kind) == (COORDINATOR, MOVED);
        let carried = match mark.filter(is_copy) {
            Some(_) => {
                Some(self::message(payload).with_context(|| format!("the copy at {position}"))?)
            }
            None => None,
        };
        let record = Record {
            position,
            at: long(header, 56)?,
            mark,
            message,
            carried,
        };
        Ok((record, (RECORD_HEADER + payload.len()).next_multiple_of(8)))
    }
}

/// Reads RocketMQ's stored record, layout V1 with IPv4 hosts.
///
/// # Errors
/// Names the part that does not fit.
pub fn message(bytes: &[u8]) -> Result<Message> {
    let int = |at: usize| -> Result<u32> { Ok(u32::from_be_bytes(array(bytes, at)?)) };
    let long = |at: usize| -> Result<u64> { Ok(u64::from_be_bytes(array(bytes, at)?)) };
    ensure!(
        int(0)? as usize == bytes.len(),
        "it says it has {} bytes",
        int(0)?
    );
    ensure!(
        int(4)? == 0xDAA3_20A7,
        "its magic number is {:08X}",
        int(4)?
    );
    let body = part(bytes, MESSAGE_HEADER, int(84)? as usize)?;
    let after_body = MESSAGE_HEADER + body.len();
    let topic = part(bytes, after_body + 1, usize::from(byte(bytes, after_body)?))?;
    let after_topic = after_body + 1 + topic.len();
    let length = u16::from_be_bytes(array(bytes, after_topic)?);
    let encoded = part(bytes, after_topic + 2, usize::from(length))?;
    ensure!(
        after_topic + 2 + encoded.len() == bytes.len(),
        "its parts do not add up"
    );
    let mut properties = Vec::new();
    for pair in encoded
        .split(|byte| *byte == 2)
        .filter(|pair| !pair.is_empty())
    {
        let pair = std::str::from_utf8(pair)?;
        let (name, value) = pair
            .split_once('\u{1}')
            .context("a property without value")?;
        properties.push((name.to_owned(), value.to_owned()));
    }
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Ok(Message {
        topic: std::str::from_utf8(topic)?.to_owned(),
        queue: int(12)?,
        queue_offset: long(20)?,
        position: long(28)?,
        sys_flag: int(36)? as i32,
        prepared_position: long(76)?,
        body_len: body.len() as u64,
        body_hash: hasher.finish(),
        body_intact: crc(&[body]) & 0x7FFF_FFFF == int(8)?,
        properties,
    })
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

fn part(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    let part = bytes.get(at..).and_then(|rest| rest.get(..length));
    part.with_context(|| format!("{length} bytes from {at} on are not there"))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    Ok(part(bytes, at, N)?.try_into()?)
}

fn byte(bytes: &[u8], at: usize) -> Result<u8> {
    Ok(u8::from_le_bytes(array(bytes, at)?))
}

fn short(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array(bytes, at)?))
}

fn int(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array(bytes, at)?))
}

fn long(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array(bytes, at)?))
}

fn wide(bytes: &[u8], at: usize) -> Result<u128> {
    Ok(u128::from_le_bytes(array(bytes, at)?))
}

#[cfg(test)]
mod tests {
    use super::super::facts::HALF;
    use super::*;

    const ID: u128 = 0x1234_5678_9ABC_DEF0;
    const SEGMENT: usize = 16 * 1024;

    fn put(bytes: &mut [u8], at: usize, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn empty_segment(start: u64) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT];
        put(&mut bytes, 0, b"HMLOGSEG");
        put(&mut bytes, 12, 1_u16.to_le_bytes());
        put(&mut bytes, 16, ID.to_le_bytes());
        put(&mut bytes, 32, start.to_le_bytes());
        put(&mut bytes, 40, (SEGMENT as u64).to_le_bytes());
        let sum = crc(&[&bytes[12..48]]);
        put(&mut bytes, 8, sum.to_le_bytes());
        bytes
    }

    fn stored_message(offset: u64, position: u64, body: &[u8]) -> Vec<u8> {
        let (topic, properties) = (b"orders", b"UNIQ_KEY\x01AB\x02TAGS\x01placed\x02");
        let mut bytes = vec![0; MESSAGE_HEADER];
        bytes.extend_from_slice(body);
        bytes.push(topic.len() as u8);
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(&(properties.len() as u16).to_be_bytes());
        bytes.extend_from_slice(properties);
        let length = bytes.len() as u32;
        put(&mut bytes, 0, length.to_be_bytes());
        put(&mut bytes, 4, 0xDAA3_20A7_u32.to_be_bytes());
        put(&mut bytes, 8, (crc(&[body]) & 0x7FFF_FFFF).to_be_bytes());
        put(&mut bytes, 12, 3_u32.to_be_bytes());
        put(&mut bytes, 20, offset.to_be_bytes());
        put(&mut bytes, 28, position.to_be_bytes());
        put(&mut bytes, 84, (body.len() as u32).to_be_bytes());
        bytes
    }

    fn put_record(bytes: &mut [u8], at: usize, payload: &[u8], note: bool) -> usize {
        put(bytes, at, b"HMR1");
        put(bytes, at + 8, (at as u64).to_le_bytes());
        put(bytes, at + 16, (payload.len() as u32).to_le_bytes());
        put(bytes, at + 20, [u8::from(note), 1, COORDINATOR, HALF]);
        put(bytes, at + 24, 0xAB_u128.to_le_bytes());
        put(bytes, at + 40, 9_u64.to_le_bytes());
        put(bytes, at + 56, 77_u64.to_le_bytes());
        put(bytes, at + 64, payload);
        let sum = crc(&[&ID.to_le_bytes(), &bytes[at + 8..at + 64], payload]);
        put(bytes, at + 4, sum.to_le_bytes());
        at + (64 + payload.len()).next_multiple_of(8)
    }

    /// Heads the batch that reaches from `at` to `end`.
    fn put_batch(
        bytes: &mut [u8],
        at: usize,
        end: usize,
        records: u32,
        durable_end: u64,
        life: u64,
    ) {
        put(bytes, at, b"HMB1");
        put(bytes, at + 8, 1_u16.to_le_bytes());
        put(bytes, at + 10, [u8::from(records == 0), 1]);
        put(bytes, at + 12, records.to_le_bytes());
        put(bytes, at + 16, (at as u64).to_le_bytes());
        put(bytes, at + 24, ((end - at) as u64).to_le_bytes());
        put(bytes, at + 32, ID.to_le_bytes());
        put(bytes, at + 64, durable_end.to_le_bytes());
        put(bytes, at + 72, life.to_le_bytes());
        put(bytes, at + 80, 1_u64.to_le_bytes());
        put(bytes, at + 88, 55_u64.to_le_bytes());
        let sum = crc(&[&bytes[at + 8..at + 96]]);
        put(bytes, at + 4, sum.to_le_bytes());
    }

    /// A segment with two batches of one message each; returns where the second starts and where it ends.
    fn two_batches() -> (Vec<u8>, usize, usize) {
        let mut bytes = empty_segment(0);
        let first = SEGMENT_HEADER;
        let payload = stored_message(0, first as u64 + 96, b"hello");
        let second = put_record(&mut bytes, first + 96, &payload, false);
        put_batch(&mut bytes, first, second, 1, first as u64, 1);
        let payload = stored_message(1, second as u64 + 96, b"again");
        let end = put_record(&mut bytes, second + 96, &payload, false);
        let end = put_record(&mut bytes, end, b"a note", true);
        put_batch(&mut bytes, second, end, 2, second as u64, 1);
        (bytes, second, end)
    }

    fn read_bytes(segments: &[&[u8]]) -> Result<Log> {
        let folder = tempfile::tempdir()?;
        for (number, bytes) in segments.iter().enumerate() {
            fs::write(
                folder.path().join(format!("{:020}.log", number * SEGMENT)),
                bytes,
            )?;
        }
        fs::write(folder.path().join("checkpoint"), b"not a segment")?;
        read(folder.path())
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let (bytes, second, end) = two_batches();
        let log = read_bytes(&[&bytes]).unwrap();
        assert_eq!(
            (log.id, log.start, log.end, log.stamped),
            (ID, 0, end as u64, 55)
        );
        assert_eq!(log.records.len(), 3);
        let record = &log.records[1];
        assert_eq!((record.position, record.at), (second as u64 + 96, 77));
        let mark = Mark {
            owner: 1,
            kind: HALF,
            key: 0xAB,
            number: 9,
        };
        assert_eq!(record.mark, Some(mark));
        let message = record.message.as_ref().unwrap();
        assert_eq!(
            (message.topic.as_str(), message.queue, message.queue_offset),
            ("orders", 3, 1)
        );
        assert_eq!((message.position, message.body_len), (record.position, 5));
        assert_eq!(message.property("TAGS"), Some("placed"));
        assert!(message.body_intact);
        assert_eq!(log.records[2].message, None);
    }

    #[test]
    fn a_batch_cut_anywhere_ends_the_log_before_it() {
        let (good, second, end) = two_batches();
        for cut in (second..end - 8).step_by(8) {
            let mut bytes = good.clone();
            bytes[cut..].fill(0);
            let log = read_bytes(&[&bytes]).unwrap();
            assert_eq!(
                (log.end, log.records.len()),
                (second as u64, 1),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_damaged_batch_that_was_durable_is_refused() {
        let (mut bytes, second, end) = two_batches();
        let later = put_record(&mut bytes, end + 96, b"later", true);
        put_batch(&mut bytes, end, later, 1, end as u64, 1);
        bytes[second + 200] ^= 1;
        let error = format!("{:#}", read_bytes(&[&bytes]).unwrap_err());
        assert!(error.contains(&format!("at {second}")), "{error}");
        assert!(
            error.contains(&format!("everything before {end} was durable")),
            "{error}"
        );
    }

    #[test]
    fn bytes_of_an_earlier_life_never_count() {
        let (mut bytes, second, end) = two_batches();
        put_batch(&mut bytes, SEGMENT_HEADER, second, 1, 4096, 2);
        let log = read_bytes(&[&bytes]).unwrap();
        assert_eq!(log.end, second as u64);
        assert!(end > second);
    }

    #[test]
    fn a_filler_leads_to_the_next_segment() {
        let (mut bytes, _, end) = two_batches();
        put_batch(&mut bytes, end, SEGMENT, 0, end as u64, 1);
        let next = empty_segment(SEGMENT as u64);
        let log = read_bytes(&[&bytes, &next]).unwrap();
        assert_eq!((log.end, log.records.len()), (SEGMENT as u64 + 4096, 3));
    }

    #[test]
    fn a_segment_of_another_log_is_refused() {
        let (bytes, ..) = two_batches();
        let mut next = empty_segment(SEGMENT as u64);
        next[16] ^= 1;
        assert!(
            read_bytes(&[&bytes, &next])
                .unwrap_err()
                .to_string()
                .contains("segment 0000")
        );
    }
}
