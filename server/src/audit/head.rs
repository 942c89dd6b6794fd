//! `halfmoon audit head`: the last seal in one line, to be kept elsewhere and compared with later.

use std::str::FromStr;

use coordinator::audit::seal::Hash;
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// A seal as it was at some time, written `SEAL:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seal: u64,
    pub(super) hash: Hash,
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected SEAL:HASH, a number and 64 hex digits, as `audit head` prints it";
        let (seal, hex) = text.trim().split_once(':').ok_or_else(wrong)?;
        let seal = seal.parse().map_err(|_| wrong())?;
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong().into());
        }
        let mut hash = Hash::default();
        for (byte, digits) in hash.0.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self { seal, hash })
    }
}

#[derive(Debug, Serialize)]
struct View {
    seal: u64,
    hash: String,
}

/// Prints it; fails where nothing was ever recorded.
pub(super) async fn run(folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(owner) = folder.reader().await?.owner().await? else {
        return Err(Failure::Negative(
            "nothing was ever recorded here; there is no seal to keep".into(),
        ));
    };
    let (seal, hash) = (owner.seq, owner.head.to_string());
    if output.is_json() {
        return output.value(&View { seal, hash });
    }
    output.line(&format!("{seal}:{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_number_and_a_hash() {
        let head: Head = format!("7:{}", "0a".repeat(32)).parse().unwrap();
        assert_eq!((head.seal, head.hash), (7, Hash([10; 32])));
        for wrong in [
            "",
            "7",
            "7:",
            "x:00",
            "7:0a",
            &format!("7:{}", "+a".repeat(32)),
        ] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }
}
