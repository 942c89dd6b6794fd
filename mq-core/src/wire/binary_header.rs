//! The header as lengths and bytes (RocketMQ `RocketMQSerializable`), big endian.

use super::command::{Command, Dialect, Fields, Language};

/// Reads a header.
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
    let remark = rest.long_text()?.to_owned();
    let mut fields = Fields::default();
    let length = rest.length()?;
    let mut pairs = Rest(rest.take(length)?);
    while !pairs.0.is_empty() {
        let name = pairs.short_text()?;
        let value = pairs.long_text()?;
        fields.push(name, value);
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

    fn long_text(&mut self) -> Result<&'a str, String> {
        let length = self.length()?;
        text(self.take(length)?)
    }

    fn short_text(&mut self) -> Result<&'a str, String> {
        let length = self.i16()?;
        let length = usize::try_from(length).map_err(|_| format!("a length of {length}"))?;
        text(self.take(length)?)
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_owned())
}
