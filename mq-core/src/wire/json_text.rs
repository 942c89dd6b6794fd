//! Reading and writing the JSON of headers, member by member and without a tree in between.

use std::borrow::Cow;

/// Deepest nesting of a value that is passed over.
const DEPTH: usize = 32;

/// A value of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `null`.
    Null,
    /// A string, without quotes and escapes.
    Text(Cow<'a, str>),
    /// Anything else as it stands: a number, a boolean, an object, an array.
    Raw(&'a str),
}

/// Reads JSON from its start to its end. What it takes beyond the standard: raw control characters in strings, and the
/// escapes that Java's writers know (`\v`, `\'`, `\0` to `\7`, `\x41`).
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Enters an object: the name of its first member, `None` when it has none.
    pub(super) fn open_object(&mut self) -> Result<Option<Cow<'a, str>>, String> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        self.name().map(Some)
    }

    /// After a member's value: the name of the next member, `None` at the end of the object.
    pub(super) fn next_member(&mut self) -> Result<Option<Cow<'a, str>>, String> {
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        self.expect(b',')?;
        self.name().map(Some)
    }

    /// Whether an object comes next.
    pub(super) fn at_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    /// The next value, whole.
    pub(super) fn value(&mut self) -> Result<Token<'a>, String> {
        match self.peek() {
            Some(b'"') => self.string().map(Token::Text),
            Some(b'{' | b'[') => self.nested().map(Token::Raw),
            _ => match self.word() {
                "null" => Ok(Token::Null),
                word if is_scalar(word) => Ok(Token::Raw(word)),
                _ => Err(self.wrong("a value")),
            },
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("the end")),
        }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, String> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.expect(b'"')?;
        let mut unescaped: Option<String> = None;
        loop {
            let rest = self.rest();
            let plain = rest
                .bytes()
                .position(|byte| byte == b'"' || byte == b'\\')
                .and_then(|length| rest.get(..length))
                .ok_or_else(|| self.wrong("the end of a string"))?;
            self.at += plain.len();
            if rest.as_bytes().get(plain.len()) == Some(&b'"') {
                self.at += 1;
                return Ok(match unescaped {
                    None => plain.into(),
                    Some(text) => (text + plain).into(),
                });
            }
            let text = unescaped.get_or_insert_default();
            text.push_str(plain);
            self.at += 1;
            let character = self.escaped()?;
            text.push(character);
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let mark = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        Ok(match mark {
            Some(mark @ (b'"' | b'\\' | b'/' | b'\'')) => char::from(mark),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'v') => '\u{b}',
            Some(digit @ b'0'..=b'7') => char::from(digit - b'0'),
            Some(b'x') => return self.hex(2).map(known),
            Some(b'u') => return self.unit(),
            _ => return Err(self.wrong("an escape")),
        })
    }

    /// A character from one UTF-16 unit or two; half a pair is U+FFFD.
    fn unit(&mut self) -> Result<char, String> {
        let high = self.hex(4)?;
        if !(0xD800..0xDC00).contains(&high) || !self.rest().starts_with("\\u") {
            return Ok(known(high));
        }
        let before = self.at;
        self.at += 2;
        let low = self.hex(4)?;
        if (0xDC00..0xE000).contains(&low) {
            return Ok(known(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)));
        }
        self.at = before;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self, digits: usize) -> Result<u32, String> {
        let number = self
            .rest()
            .get(..digits)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or_else(|| self.wrong("hexadecimal digits"))?;
        self.at += digits;
        Ok(number)
    }

    /// Passes over an object or an array; what is inside is looked at no closer than needed to find its end.
    fn nested(&mut self) -> Result<&'a str, String> {
        let start = self.at;
        let mut closings = [0_u8; DEPTH];
        let mut depth = 0;
        loop {
            let next = self.peek().ok_or_else(|| self.wrong("a closing bracket"))?;
            match next {
                b'{' | b'[' => {
                    let closing = closings
                        .get_mut(depth)
                        .ok_or_else(|| format!("it is nested deeper than {DEPTH}"))?;
                    // `[` and `]`, `{` and `}` are two apart.
                    *closing = next + 2;
                    depth += 1;
                }
                b'}' | b']' => {
                    depth -= 1;
                    if closings.get(depth) != Some(&next) {
                        return Err(self.wrong("another bracket"));
                    }
                }
                b'"' => {
                    self.string()?;
                    continue;
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(self.text.get(start..self.at).unwrap_or_default());
            }
        }
    }

    /// Letters, digits and signs up to anything else.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let length = rest
            .bytes()
            .position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)))
            .unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.wrong(&format!("`{}`", char::from(byte))))
    }

    /// The next byte that is no white space, where the reader now stands.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, wanted: &str) -> String {
        format!("{wanted} is missing at byte {} of the JSON", self.at)
    }
}

/// The character of a number; U+FFFD for what is none.
fn known(number: u32) -> char {
    char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn is_scalar(word: &str) -> bool {
    let number = |first: u8| first.is_ascii_digit() || first == b'-';
    word == "true" || word == "false" || word.bytes().next().is_some_and(number)
}

/// Appends a string with its quotes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F))
            .unwrap_or(rest.len());
        let (before, after) = rest.split_at(plain);
        out.extend_from_slice(before);
        let Some((special, after)) = after.split_first() else {
            break;
        };
        match special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                let digit = |nibble: u8| match nibble {
                    0..=9 => b'0' + nibble,
                    _ => b'a' + nibble - 10,
                };
                out.extend_from_slice(b"\\u00");
                out.extend([digit(other >> 4), digit(other & 15)]);
            }
        }
        rest = after;
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let Ok(Token::Text(text)) = Reader::new(json).value() else {
            panic!("{json} is no string");
        };
        text.into_owned()
    }

    #[test]
    fn escapes_are_understood_as_javas_readers_understand_them() {
        for (json, read) in [
            (
                r#""a\"\\\/\b\f\n\r\t\u0001""#,
                "a\"\\/\u{8}\u{c}\n\r\t\u{1}",
            ),
            (r#""\v\'\0\x41""#, "\u{b}'\0A"),
            ("\"raw \u{1} and \u{2}\"", "raw \u{1} and \u{2}"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\ud83d!""#, "\u{FFFD}!"),
            (r#""\ude00\ud83d\u0041""#, "\u{FFFD}\u{FFFD}A"),
        ] {
            assert_eq!(text(json), read, "{json}");
        }
    }

    #[test]
    fn what_is_passed_over_ends_where_it_ends() {
        let mut reader = Reader::new(r#"{"a":[{"b":"}]\""},[]],"c":1} "#);
        assert_eq!(reader.open_object().unwrap().as_deref(), Some("a"));
        let raw = reader.value().unwrap();
        assert_eq!(raw, Token::Raw(r#"[{"b":"}]\""},[]]"#));
        assert_eq!(reader.next_member().unwrap().as_deref(), Some("c"));
        assert_eq!(reader.value().unwrap(), Token::Raw("1"));
        assert_eq!(reader.next_member().unwrap(), None);
        reader.end().unwrap();
    }
}
