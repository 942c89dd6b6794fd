//! Bodies that a client has compressed: which way the flag bits name, and zlib undone.

use flate2::{Decompress, FlushDecompress, Status};

use super::reserved::FLAG_COMPRESSED;

/// Flag mask: the three bits that say how a body is compressed.
const KIND_MASK: i32 = 0x700;

/// Longest body once it is inflated. The longest body that can be sent is 4 MiB, whatever it inflates to.
pub const INFLATED_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a body stays compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// Compressed in a way that is not read here.
    #[error("the body is compressed with {0}, which is not supported; have its sender use zlib")]
    Kind(&'static str),
    /// What is there is no whole zlib stream, or a longer one than [`INFLATED_MAX_BYTES`].
    #[error(
        "the body is marked as compressed but is no zlib stream of at most {INFLATED_MAX_BYTES} bytes"
    )]
    Broken,
}

/// The body behind `body`, which came with these flag bits; `None` when it is not compressed.
///
/// # Errors
/// [`CompressionError`].
pub fn inflated(sys_flag: i32, body: &[u8]) -> Result<Option<Vec<u8>>, CompressionError> {
    if sys_flag & FLAG_COMPRESSED == 0 {
        return Ok(None);
    }
    match sys_flag & KIND_MASK {
        // Old clients name none and mean zlib.
        0 | 0x300 => zlib(body).map(Some).ok_or(CompressionError::Broken),
        0x100 => Err(CompressionError::Kind("LZ4")),
        0x200 => Err(CompressionError::Kind("ZSTD")),
        _ => Err(CompressionError::Kind("an unknown method")),
    }
}

/// `sys_flag` without the bits about compression.
#[must_use]
pub const fn without(sys_flag: i32) -> i32 {
    sys_flag & !(FLAG_COMPRESSED | KIND_MASK)
}

/// The bytes behind a zlib stream, whole; memory grows with what is really there.
fn zlib(body: &[u8]) -> Option<Vec<u8>> {
    let mut inflate = Decompress::new(true);
    let mut out = Vec::with_capacity(body.len().saturating_mul(2).min(64 * 1024));
    while out.len() <= INFLATED_MAX_BYTES {
        let before = (inflate.total_in(), out.len());
        let rest = body.get(usize::try_from(inflate.total_in()).ok()?..)?;
        out.reserve(4096);
        match inflate.decompress_vec(rest, &mut out, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return (out.len() <= INFLATED_MAX_BYTES).then_some(out),
            Ok(_) if before != (inflate.total_in(), out.len()) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    fn deflated(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + 100);
        let mut deflate = Compress::new(Compression::new(5), true);
        let status = deflate.compress_vec(body, &mut out, FlushCompress::Finish);
        assert_eq!(status.unwrap(), Status::StreamEnd);
        out
    }

    #[test]
    fn bodies_are_inflated_as_their_flags_say() {
        let body = b"one order after another ".repeat(500);
        let short = deflated(&body);
        assert!(short.len() < 200);
        for flags in [0x1, 0x301, 0x309] {
            assert_eq!(
                inflated(flags, &short),
                Ok(Some(body.clone())),
                "{flags:#x}"
            );
        }
        assert_eq!(inflated(0x300, &short), Ok(None), "not marked");
        assert_eq!(inflated(1, &short[..20]), Err(CompressionError::Broken));
        for (flags, name) in [(0x101, "LZ4"), (0x201, "ZSTD")] {
            let error = inflated(flags, &short).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("zlib"), "{error}");
        }
        assert_eq!(without(0x309), 8);
    }

    #[test]
    fn a_body_that_inflates_without_end_is_refused() {
        let bomb = deflated(&vec![0; INFLATED_MAX_BYTES + 10_000]);
        assert!(bomb.len() < 100_000);
        assert!(inflated(1, &bomb) == Err(CompressionError::Broken));
    }

    proptest! {
        #[test]
        fn any_bytes_are_inflated_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflated(1, &bytes);
        }
    }
}
