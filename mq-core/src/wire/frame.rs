//! Frames on a connection: length, header length with dialect, header, body (RocketMQ `RemotingCommand.encode`, `NettyDecoder`).

use bytes::{Buf, Bytes, BytesMut};

use super::command::{Command, Dialect};
use super::{binary_header, json_header};

/// Longest frame in bytes, without the length itself (`com.rocketmq.remoting.frameMaxLength`).
pub const FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Longest header in bytes: properties of 32 KiB, escaped, and much room besides.
pub const HEADER_MAX_BYTES: usize = 512 * 1024;

/// Why bytes are no frame. The connection they came from cannot go on: where the next frame starts is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is not between 4 and [`FRAME_MAX_BYTES`].
    #[error("a frame claims {0} bytes; 4 to {FRAME_MAX_BYTES} are allowed")]
    Length(i64),
    /// The header is longer than the frame or than [`HEADER_MAX_BYTES`].
    #[error(
        "a header claims {header} bytes in a frame of {frame}; at most {HEADER_MAX_BYTES} are allowed"
    )]
    HeaderLength {
        /// What the header claims.
        header: usize,
        /// The frame's length.
        frame: usize,
    },
    /// The dialect is neither JSON (0) nor binary (1).
    #[error("header dialect {0} is not known; 0 is JSON, 1 is binary")]
    Dialect(u8),
    /// The header does not say what a header must.
    #[error("the header cannot be read: {0}")]
    Header(String),
}

/// Takes the first whole frame out of `buffer`; `None` when more bytes must come first. Nothing is reserved for what a
/// length merely claims.
///
/// # Errors
/// [`FrameError`]: close the connection.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Command>, FrameError> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let claimed = i32::from_be_bytes(*length);
    let frame = usize::try_from(claimed)
        .ok()
        .filter(|frame| (4..=FRAME_MAX_BYTES).contains(frame))
        .ok_or(FrameError::Length(i64::from(claimed)))?;
    let Some(([dialect, a, b, c], _)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let dialect = match dialect {
        0 => Dialect::Json,
        1 => Dialect::Binary,
        other => return Err(FrameError::Dialect(*other)),
    };
    let header = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if header > HEADER_MAX_BYTES || header > frame - 4 {
        return Err(FrameError::HeaderLength { header, frame });
    }
    if rest.len() < frame {
        return Ok(None);
    }
    buffer.advance(8);
    let mut frame = buffer.split_to(frame - 4).freeze();
    let header = frame.split_to(header);
    let mut command = match dialect {
        Dialect::Json => json_header::decode(&header),
        Dialect::Binary => binary_header::decode(&header),
    }
    .map_err(FrameError::Header)?;
    command.body = frame;
    Ok(Some(command))
}

/// How many bytes the frame at the start of `buffer` claims to have, its length included; `None` when that is not known yet.
#[must_use]
pub fn wanted(buffer: &[u8]) -> Option<usize> {
    let (length, _) = buffer.split_first_chunk::<4>()?;
    usize::try_from(i32::from_be_bytes(*length))
        .ok()?
        .checked_add(4)
}

/// Appends `command` to `out` as one frame, its header in the command's dialect.
pub fn put(out: &mut Vec<u8>, command: &Command) {
    put_head(out, command, command.body.len());
    out.extend_from_slice(&command.body);
}

/// Appends everything of `command`'s frame but the body, which the caller appends itself: `body` bytes.
pub fn put_head(out: &mut Vec<u8>, command: &Command, body: usize) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    let dialect = match command.dialect {
        Dialect::Json => {
            json_header::encode(out, command);
            0
        }
        Dialect::Binary => {
            binary_header::encode(out, command);
            1
        }
    };
    let header = out.len() - start - 8;
    // Our own headers and bodies are far shorter than 2 GiB; a longer one would be refused by every reader.
    let frame = u32::try_from(header + body + 4).unwrap_or(u32::MAX);
    let [_, a, b, c] = u32::try_from(header).unwrap_or(u32::MAX).to_be_bytes();
    let head = frame.to_be_bytes().into_iter().chain([dialect, a, b, c]);
    for (byte, value) in out.iter_mut().skip(start).zip(head) {
        *byte = value;
    }
}

/// A whole frame as bytes.
#[must_use]
pub fn encoded(command: &Command) -> Bytes {
    let mut out = Vec::with_capacity(256 + command.body.len());
    put(&mut out, command);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::{Fields, Language};

    fn command(dialect: Dialect) -> Command {
        let fields: Fields = [("a", "topic \"x\""), ("d", "4"), ("i", "KEYS\u{1}k\u{2}")]
            .into_iter()
            .collect();
        Command {
            flag: 2,
            remark: "why\n".into(),
            fields,
            body: Bytes::from_static(b"hello"),
            dialect,
            language: Language::JAVA,
            ..Command::request(310, 77)
        }
    }

    #[test]
    fn what_was_put_is_taken_one_frame_after_the_other() {
        let mut out = Vec::new();
        let sent = [command(Dialect::Json), command(Dialect::Binary)];
        for command in &sent {
            put(&mut out, command);
        }
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in out {
            buffer.extend_from_slice(&[byte]);
            taken.extend(take(&mut buffer).unwrap());
        }
        assert_eq!(taken, sent);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_length_that_is_none_ends_the_connection() {
        for bytes in [
            &[0xFF, 0xFF, 0xFF, 0xFF][..],
            &[0, 0, 0, 3],
            &[0x7F, 0, 0, 0],
        ] {
            let taken = take(&mut BytesMut::from(bytes));
            assert!(matches!(taken, Err(FrameError::Length(_))), "{taken:?}");
        }
        let taken = take(&mut BytesMut::from(&[0, 0, 0, 9, 9, 0, 0, 1][..]));
        assert_eq!(taken, Err(FrameError::Dialect(9)));
        let taken = take(&mut BytesMut::from(&[0, 0, 0, 9, 0, 0, 0, 6][..]));
        assert!(
            matches!(taken, Err(FrameError::HeaderLength { .. })),
            "{taken:?}"
        );
    }
}
