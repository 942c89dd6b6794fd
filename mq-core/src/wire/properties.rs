//! The properties of a message: `name` 0x01 `value` 0x02, repeated (RocketMQ `MessageDecoder.messageProperties2String`).

/// Between a name and its value.
pub const NAME_END: u8 = 1;
/// After a value.
pub const VALUE_END: u8 = 2;
/// Most bytes of encoded properties: the stored record counts them in a signed 16 bit integer.
pub const MAX_BYTES: usize = 32_767;

/// Why a property is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PropertyError {
    /// A property needs a name.
    #[error("a property has an empty name")]
    EmptyName,
    /// A control character would break the encoding or a reader's display.
    #[error("the property name {name:?} has a control character; names must have none")]
    NameControl {
        /// The name.
        name: String,
    },
    /// 0x01 and 0x02 are the separators of the encoding.
    #[error(
        "the value of property {name:?} has the character 0x01 or 0x02, which separate properties"
    )]
    ValueSeparator {
        /// The property's name.
        name: String,
    },
    /// The record cannot hold more.
    #[error("the properties have {bytes} bytes; at most {MAX_BYTES} are allowed")]
    TooLong {
        /// Length of all properties in bytes.
        bytes: usize,
    },
}

/// Encoded properties, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(pub &'a [u8]);

impl<'a> Properties<'a> {
    /// The value of `name`, if it is there and is UTF-8. The first one wins if it stands twice.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a str> {
        // Compares bytes before it checks any text: this is asked for every message that is stored.
        let named = |pair: &'a [u8]| {
            let rest = pair.strip_prefix(name.as_bytes())?;
            rest.strip_prefix(&[NAME_END])
        };
        let values = self.0.split(|b| *b == VALUE_END).filter_map(named);
        values.map(std::str::from_utf8).find_map(Result::ok)
    }

    /// Hands all pairs to `take`, in order, as [`Properties::iter`] gives them.
    pub fn visit(self, mut take: impl FnMut(&'a str, &'a str)) {
        let Ok(text) = std::str::from_utf8(self.0) else {
            return self.iter().for_each(|(name, value)| take(name, value));
        };
        // The usual case: one look at all of the text is enough.
        for pair in text.split(char::from(VALUE_END)) {
            if let Some((name, value)) = pair.split_once(char::from(NAME_END)) {
                take(name, value);
            }
        }
    }

    /// All pairs in order. Pieces without a name end, and pairs that are not UTF-8, are left out, as RocketMQ does.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split(|b| *b == VALUE_END).filter_map(|pair| {
            let at = pair.iter().position(|b| *b == NAME_END)?;
            let (name, value) = pair.split_at_checked(at)?;
            Some((
                std::str::from_utf8(name).ok()?,
                std::str::from_utf8(value.get(1..)?).ok()?,
            ))
        })
    }
}

/// Checks one pair against the rules of [`PropertyError`].
///
/// # Errors
/// The rule that is broken.
pub fn check(name: &str, value: &str) -> Result<(), PropertyError> {
    if name.is_empty() {
        return Err(PropertyError::EmptyName);
    }
    if name.chars().any(char::is_control) {
        return Err(PropertyError::NameControl { name: name.into() });
    }
    if value.bytes().any(|b| b == NAME_END || b == VALUE_END) {
        return Err(PropertyError::ValueSeparator { name: name.into() });
    }
    Ok(())
}

/// Appends one pair to `encoded`. The pair must have passed [`check`].
pub fn push(encoded: &mut Vec<u8>, name: &str, value: &str) {
    encoded.extend_from_slice(name.as_bytes());
    encoded.push(NAME_END);
    encoded.extend_from_slice(value.as_bytes());
    encoded.push(VALUE_END);
}

/// The `properties` whose names `keep` accepts, encoded.
#[must_use]
pub fn retain(properties: Properties<'_>, keep: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(properties.0.len() + 1);
    let Ok(text) = std::str::from_utf8(properties.0) else {
        for (name, value) in properties.iter().filter(|(name, _)| keep(name)) {
            push(&mut encoded, name, value);
        }
        return encoded;
    };
    // The usual case: one look at all of the text is enough.
    for pair in text.split(char::from(VALUE_END)) {
        if let Some((name, _)) = pair.split_once(char::from(NAME_END))
            && keep(name)
        {
            encoded.extend_from_slice(pair.as_bytes());
            encoded.push(VALUE_END);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_pushed_is_read_back(pairs in proptest::collection::vec(("[a-zA-Z_]{1,9}", "[^\u{1}\u{2}]{0,20}"), 0..8)) {
            let mut encoded = Vec::new();
            for (name, value) in &pairs {
                push(&mut encoded, name, value);
            }
            let read: Vec<_> = Properties(&encoded).iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn all_pairs_that_can_be_read_are_retained(bytes in proptest::collection::vec(prop_oneof![Just(1), Just(2), Just(b'a'), any::<u8>()], 0..60)) {
            let kept = retain(Properties(&bytes), |name| name != "a");
            let expected: Vec<_> = Properties(&bytes).iter().filter(|(name, _)| *name != "a").collect();
            prop_assert_eq!(Properties(&kept).iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn a_visit_sees_every_pair(bytes in proptest::collection::vec(prop_oneof![Just(1), Just(2), Just(b'a'), any::<u8>()], 0..60)) {
            let mut seen = Vec::new();
            Properties(&bytes).visit(|name, value| seen.push((name, value)));
            prop_assert_eq!(seen, Properties(&bytes).iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Properties(&bytes).iter().count();
        }
    }

    #[test]
    fn a_last_pair_without_its_end_is_read() {
        assert_eq!(Properties(b"TAGS\x01A\x02KEYS\x01k").get("KEYS"), Some("k"));
    }

    #[test]
    fn control_characters_are_refused_by_name() {
        assert!(
            check("a\nb", "v")
                .unwrap_err()
                .to_string()
                .contains("control character")
        );
        assert!(
            check("a", "v\u{1}")
                .unwrap_err()
                .to_string()
                .contains("\"a\"")
        );
    }
}
