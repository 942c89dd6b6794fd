//! The header as lengths and bytes (RocketMQ `RocketMQSerializable`), big endian.

use std::borrow::Cow;

use super::command::{Command, Dialect, Fields, Language};

/// Reads a header. A negative length of all pairs means that there are none, bytes after them are passed over, and bytes
/// that are no UTF-8 become U+FFFD, all as in RocketMQ.
///
/// # Errors
/// What is wrong, for people.
pub fn decode(bytes: &[u8]) -> Result<Command, String> {
    let mut rest = Rest(bytes);
    let code = rest.i16()?;
    let language = Language(rest.u8()?);
    let version = rest.i16()?;
    let opaque = rest.i32()?;
    let flag = rest.i32()?;
    let remark = rest.long_text()?.into_owned();
    let mut fields = Fields::default();
    let length = usize::try_from(rest.i32()?).unwrap_or(0);
    let mut pairs = Rest(rest.take(length)?);
    while !pairs.0.is_empty() {
        let name = pairs.short_text()?;
        let value = pairs.long_text()?;
        fields.push(&name, &value);
    }
    Ok(Command {
        code: i32::from(code),
        flag,
        opaque,
        language,
        version: i32::from(version),
        remark,
        fields,
        body: Default::default(),
        dialect: Dialect::Binary,
    })
}

/// Writes a header. A code or version beyond 16 bits is cut, a name beyond 32,767 bytes is left out with its value.
pub fn encode(out: &mut Vec<u8>, command: &Command) {
    out.extend_from_slice(&(command.code as i16).to_be_bytes());
    out.push(command.language.0);
    out.extend_from_slice(&(command.version as i16).to_be_bytes());
    out.extend_from_slice(&command.opaque.to_be_bytes());
    out.extend_from_slice(&command.flag.to_be_bytes());
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length(&command.remark));
    out.extend_from_slice(command.remark.as_bytes());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for (name, value) in command.fields.iter() {
        let Ok(name_length) = i16::try_from(name.len()) else {
            continue;
        };
        out.extend_from_slice(&name_length.to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&length(value));
        out.extend_from_slice(value.as_bytes());
    }
    let pairs = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    for (byte, value) in out.iter_mut().skip(start).zip(pairs.to_be_bytes()) {
        *byte = value;
    }
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| format!("{length} bytes are claimed, {} are left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or("it ends too soon")?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn i16(&mut self) -> Result<i16, String> {
        self.chunk().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.chunk().map(i32::from_be_bytes)
    }

    fn length(&mut self) -> Result<usize, String> {
        let length = self.i32()?;
        usize::try_from(length).map_err(|_| format!("a length of {length}"))
    }

    fn long_text(&mut self) -> Result<Cow<'a, str>, String> {
        let length = self.length()?;
        self.take(length).map(String::from_utf8_lossy)
    }

    fn short_text(&mut self) -> Result<Cow<'a, str>, String> {
        let length = self.i16()?;
        let length = usize::try_from(length).map_err(|_| format!("a length of {length}"))?;
        self.take(length).map(String::from_utf8_lossy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_behind_the_pairs_is_passed_over() {
        let mut out = Vec::new();
        let command = Command {
            fields: [("b", "orders")].into_iter().collect(),
            dialect: Dialect::Binary,
            ..Command::request(310, 7)
        };
        encode(&mut out, &command);
        out.extend_from_slice(b"more");
        assert_eq!(decode(&out), Ok(command));
    }

    #[test]
    fn a_length_beyond_the_header_is_refused() {
        let mut out = Vec::new();
        encode(&mut out, &Command::request(310, 7));
        // The remark's length and that of all pairs are the last eight bytes.
        for at in [out.len() - 8, out.len() - 4] {
            let mut wrong = out.clone();
            wrong[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
            assert!(decode(&wrong).is_err());
            assert!(decode(&out[..at + 3]).is_err());
        }
        out[13..17].copy_from_slice(&(-1_i32).to_be_bytes());
        assert!(decode(&out).is_err(), "a remark has no negative length");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            numbers in any::<(i16, i32, i32, i16)>(),
            language in any::<u8>(),
            remark in "\\PC*",
            pairs in proptest::collection::vec(("\\PC*", "[\\x00-\\x1f]*|\\PC*"), 0..9),
        ) {
            let mut fields = Fields::default();
            for (name, value) in &pairs {
                fields.push(name, value);
            }
            let command = Command {
                flag: numbers.1,
                language: Language(language),
                version: i32::from(numbers.3),
                remark,
                fields,
                dialect: Dialect::Binary,
                ..Command::request(i32::from(numbers.0), numbers.2)
            };
            let mut out = Vec::new();
            encode(&mut out, &command);
            prop_assert_eq!(decode(&out), Ok(command));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
