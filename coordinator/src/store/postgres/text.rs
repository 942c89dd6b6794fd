//! Texts as Postgres can hold them: pure. It has no U+0000, which a client may well put into a text of ours.

use std::borrow::Cow;

/// Stands for U+0000 before '0', for itself before '1'.
const ESCAPE: char = '\u{2400}';

/// `text` without U+0000.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => encoded.extend([ESCAPE, '0']),
            ESCAPE => encoded.extend([ESCAPE, '1']),
            c => encoded.push(c),
        }
    }
    Cow::Owned(encoded)
}

/// The text that was encoded as `stored`.
pub(super) fn decode(stored: &str) -> Cow<'_, str> {
    if !stored.contains(ESCAPE) {
        return Cow::Borrowed(stored);
    }
    let mut decoded = String::with_capacity(stored.len());
    let mut chars = stored.chars();
    while let Some(c) = chars.next() {
        if c != ESCAPE {
            decoded.push(c);
            continue;
        }
        match chars.next() {
            Some('0') => decoded.push('\0'),
            Some('1') => decoded.push(ESCAPE),
            // Nothing of ours ends like this: it is shown as it stands.
            other => decoded.extend([Some(ESCAPE), other].into_iter().flatten()),
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_and_nothing_stored_has_a_nul() {
        for text in ["", "plain", "a\0b", "\0", "\u{2400}0", "\u{2400}\0\u{2400}"] {
            let stored = encode(text);
            assert!(!stored.contains('\0'), "{stored:?}");
            assert_eq!(decode(&stored), text);
        }
        assert_eq!(encode("a\0b"), "a\u{2400}0b");
    }
}
