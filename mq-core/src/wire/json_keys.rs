//! JSON as Java's fastjson writes it: keys that are numbers have no quotes. They get them here.

use std::borrow::Cow;

/// The same text with every number that is a key in quotes. Anything else, broken text included, stays as it is.
#[must_use]
pub fn quoted(json: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    // For each bracket that is open, whether it is an object's.
    let mut open = Vec::new();
    let (mut in_text, mut escaped, mut key_may_follow, mut in_number) =
        (false, false, false, false);
    let mut changed = false;
    for &byte in json {
        if in_number && !byte.is_ascii_digit() {
            out.push(b'"');
            in_number = false;
        }
        if in_text {
            in_text = byte != b'"' || escaped;
            escaped = byte == b'\\' && !escaped;
        } else {
            let number_begins = key_may_follow && (byte.is_ascii_digit() || byte == b'-');
            if number_begins {
                out.push(b'"');
                (in_number, changed) = (true, true);
            }
            match byte {
                b'"' => in_text = true,
                b'{' | b'[' => open.push(byte == b'{'),
                b'}' | b']' => drop(open.pop()),
                _ => {}
            }
            let in_object = open.last() == Some(&true);
            key_may_follow = match byte {
                b'{' => true,
                b',' => in_object,
                byte => key_may_follow && byte.is_ascii_whitespace(),
            };
        }
        out.push(byte);
    }
    if changed {
        Cow::Owned(out)
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str) -> String {
        String::from_utf8(quoted(json.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn numbers_get_quotes_where_they_are_keys() {
        for (json, expected) in [
            (r#"{0:"a:1",1:"b:2"}"#, r#"{"0":"a:1","1":"b:2"}"#),
            (
                r#"{"l":[1,2,{3:4, 5 :6}],"n":-7}"#,
                r#"{"l":[1,2,{"3":4, "5" :6}],"n":-7}"#,
            ),
            (
                r#"{"t":"{0:1,\"2:3","u":{-1:2}}"#,
                r#"{"t":"{0:1,\"2:3","u":{"-1":2}}"#,
            ),
        ] {
            assert_eq!(text(json), expected);
            assert_eq!(text(expected), expected);
        }
    }

    proptest! {
        #[test]
        fn json_by_the_book_stays_as_it_is(name in ".{0,8}", number: i64) {
            let json = serde_json::json!({name: [number, {"a": number, "b": "\\\"{0:"}]}).to_string();
            prop_assert_eq!(text(&json), json);
        }

        #[test]
        fn no_bytes_end_it(bytes: Vec<u8>) {
            let _ = quoted(&bytes);
        }
    }
}
