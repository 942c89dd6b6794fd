//! Java's properties files, pure: text to keys, values and line numbers.

/// One pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, without the blanks in front of it.
    pub value: String,
    /// The line it starts on, from 1.
    pub line: usize,
}

/// A line that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \\u must be followed by four hex digits")]
pub struct Unreadable {
    /// From 1.
    pub line: usize,
}

/// Reads a file as `java.util.Properties` does: comments with `#` and `!`, `=`, `:` or blanks between key and value, lines
/// that go on after a backslash, and escapes.
///
/// # Errors
/// [`Unreadable`] names the line.
pub fn parse(text: &str) -> Result<Vec<Entry>, Unreadable> {
    let mut entries = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start_matches(BLANKS);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = first.to_owned();
        while goes_on(&whole) {
            whole.pop();
            let Some((next, _)) = lines.next() else {
                break;
            };
            whole.push_str(next.trim_start_matches(BLANKS));
        }
        let (key, value) = split(&whole);
        let read = |text| unescaped(text).ok_or(Unreadable { line });
        entries.push(Entry {
            key: read(key)?,
            value: read(value)?,
            line,
        });
    }
    Ok(entries)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// Whether the line ends with a backslash that is not itself escaped.
fn goes_on(line: &str) -> bool {
    let slashes = line.len() - line.trim_end_matches('\\').len();
    slashes % 2 == 1
}

/// The key ends at the first separator that is not escaped; blanks and one `=` or `:` follow.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c| {
        let ends = !escaped && (c == '=' || c == ':' || BLANKS.contains(&c));
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(BLANKS))
}

fn unescaped(text: &str) -> Option<String> {
    let mut units = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let all = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
                    let unit = all.then(|| u16::from_str_radix(&digits, 16).ok())??;
                    units.push(unit);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, usize)> {
        let entries = parse(text).unwrap().into_iter();
        entries
            .map(|entry| (entry.key, entry.value, entry.line))
            .collect()
    }

    fn pair(key: &str, value: &str, line: usize) -> (String, String, usize) {
        (key.into(), value.into(), line)
    }

    #[test]
    fn a_broker_conf_is_read() {
        let text = "# a comment\r\n! another\n\nbrokerIP1=10.0.0.1\r\n  brokerName = broker-a  \nenablePropertyFilter: true\nempty\n";
        assert_eq!(
            pairs(text),
            [
                pair("brokerIP1", "10.0.0.1", 4),
                pair("brokerName", "broker-a  ", 5),
                pair("enablePropertyFilter", "true", 6),
                pair("empty", "", 7),
            ]
        );
    }

    #[test]
    fn escapes_and_lines_that_go_on_are_followed() {
        assert_eq!(
            pairs("a\\=b = c\\\n   d\\\\\ne=\\u00e9\\ud83c\\udf13\\n"),
            [pair("a=b", "cd\\", 1), pair("e", "é🌓\n", 3)]
        );
        assert_eq!(pairs("k=v\\"), [pair("k", "v", 1)]);
        assert_eq!(parse("a=b\nk=\\u12"), Err(Unreadable { line: 2 }));
        assert_eq!(parse("k=\\u+123"), Err(Unreadable { line: 1 }));
    }

    #[test]
    fn no_text_ends_it() {
        let pieces = ["\\", "u", "=", " ", "\n", "a", "é", "#", "\r", "00e9"];
        for code in 0..10_usize.pow(5) {
            let at = |place: u32| pieces[code / 10_usize.pow(place) % 10];
            let text: String = (0..5).map(at).collect();
            let _ = parse(&text);
        }
    }
}
