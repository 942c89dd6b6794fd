//! The header as a JSON object (RocketMQ `RemotingSerializable`): lenient in what it reads, strings only in what it writes.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::command::{Command, Dialect, Fields, Language};
use super::json_text::{Reader, Token, put_text};

/// Reads a header. Members may come in any order and several times, the last one counts; unknown ones are passed over.
/// Values of `extFields` that are numbers or booleans become text, nested ones their JSON, nulls are left out. Bytes that
/// are no UTF-8 become U+FFFD, as in RocketMQ.
///
/// # Errors
/// What is wrong, for people.
pub fn decode(bytes: &[u8]) -> Result<Command, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut reader = Reader::new(&text);
    let mut command = Command {
        language: Language::OTHER,
        version: 0,
        ..Command::request(0, 0)
    };
    let mut member = reader.open_object()?;
    while let Some(name) = member {
        match &*name {
            "code" => command.code = number("code", reader.value()?)?,
            "flag" => command.flag = number("flag", reader.value()?)?,
            "opaque" => command.opaque = number("opaque", reader.value()?)?,
            "version" => command.version = number("version", reader.value()?)?,
            "language" => command.language = language(reader.value()?),
            "remark" => command.remark = plain(reader.value()?).into_owned(),
            "extFields" => command.fields = fields(&mut reader)?,
            _ => drop(reader.value()?),
        }
        member = reader.next_member()?;
    }
    reader.end()?;
    command.dialect = Dialect::Json;
    Ok(command)
}

fn fields(reader: &mut Reader<'_>) -> Result<Fields, String> {
    let mut fields = Fields::default();
    if !reader.at_object() {
        reader.value()?;
        return Ok(fields);
    }
    let mut member = reader.open_object()?;
    while let Some(name) = member {
        match reader.value()? {
            Token::Null => {}
            Token::Text(text) => fields.push(&name, &text),
            Token::Raw(raw) => fields.push(&name, raw),
        }
        member = reader.next_member()?;
    }
    Ok(fields)
}

fn number(name: &str, value: Token<'_>) -> Result<i32, String> {
    match value {
        Token::Null => return Ok(0),
        Token::Text(text) => text.parse(),
        Token::Raw(raw) => raw.parse(),
    }
    .map_err(|_| format!("{name} is no 32 bit number"))
}

fn plain(value: Token<'_>) -> Cow<'_, str> {
    match value {
        Token::Null => Cow::default(),
        Token::Text(text) => text,
        Token::Raw(raw) => raw.into(),
    }
}

/// Writes a header. Answers always have `extFields`, since some clients read into it without looking.
pub fn encode(out: &mut Vec<u8>, command: &Command) {
    // Writing into memory cannot fail.
    let _ = write!(
        Appended(out),
        r#"{{"code":{},"flag":{},"language":"{}","opaque":{},"serializeTypeCurrentRPC":"JSON","version":{}"#,
        command.code,
        command.flag,
        name(command.language),
        command.opaque,
        command.version,
    );
    if command.is_response() || !command.fields.is_empty() {
        out.extend_from_slice(br#","extFields":{"#);
        for (index, (name, value)) in command.fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            put_text(out, name);
            out.push(b':');
            put_text(out, value);
        }
        out.push(b'}');
    }
    if !command.remark.is_empty() {
        out.extend_from_slice(br#","remark":"#);
        put_text(out, &command.remark);
    }
    out.push(b'}');
}

/// Formats to the end of bytes.
struct Appended<'a>(&'a mut Vec<u8>);

impl fmt::Write for Appended<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

const LANGUAGES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST", "NODE_JS",
];

/// By name, or by number as some clients write what is an enumeration in Java.
fn language(value: Token<'_>) -> Language {
    let number = match value {
        Token::Null => None,
        Token::Text(name) => LANGUAGES
            .iter()
            .position(|known| *known == name)
            .and_then(|number| u8::try_from(number).ok()),
        Token::Raw(raw) => raw.parse().ok(),
    };
    number.map_or(Language::OTHER, Language)
}

/// The name of a language.
pub(crate) fn name(language: Language) -> &'static str {
    LANGUAGES
        .get(usize::from(language.0))
        .copied()
        .unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Command {
        decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_the_java_client_sends_is_read() {
        let command = read(
            r#"{"code":310,"extFields":{"a":"g","b":"TopicTest","i":"UNIQ_KEY\u0001AA\u0002WAIT\u0001true\u0002"},"flag":0,"language":"JAVA","opaque":5,"serializeTypeCurrentRPC":"JSON","version":277}"#,
        );
        assert_eq!((command.code, command.opaque), (310, 5));
        assert_eq!(command.language, Language::JAVA);
        assert_eq!(
            command.fields.get("i"),
            Some("UNIQ_KEY\u{1}AA\u{2}WAIT\u{1}true\u{2}")
        );
    }

    #[test]
    fn typed_values_become_text() {
        let command = read(
            r#" { "extFields" : {"n": 12 , "f":-1.5e3,"t":true,"no":null,"o":{"a":[1,{"b":"]"}]},"e":""},
                "remark":null,"code":"34","language":9,"more":[{"x":{}}],"opaque":1, "opaque":2 }
            "#,
        );
        let pairs: Vec<_> = command.fields.iter().collect();
        assert_eq!(
            pairs,
            [
                ("n", "12"),
                ("f", "-1.5e3"),
                ("t", "true"),
                ("o", r#"{"a":[1,{"b":"]"}]}"#),
                ("e", "")
            ]
        );
        assert_eq!((command.code, command.opaque), (34, 2));
        assert_eq!(command.language, Language(9));
        assert_eq!(read(r#"{"extFields":null}"#).fields, Fields::default());
        assert_eq!(read("{}").language, Language::OTHER);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "[]",
            "{",
            r#"{"code"}"#,
            r#"{"code":1"#,
            r#"{"code":1}}"#,
            r#"{"code":1,}"#,
            r#"{"code":4294967296}"#,
            r#"{"code":true}"#,
            r#"{"remark":"\"#,
            r#"{"remark":"\u12"}"#,
            r#"{"remark":"\q"}"#,
            r#"{"remark":maybe}"#,
            r#"{"extFields":{"a":}}"#,
            r#"{"x":[}]}"#,
            &deep,
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn an_answer_has_fields_even_when_it_has_none() {
        let mut out = Vec::new();
        let answer = Command {
            flag: 1,
            ..Command::request(0, 3)
        };
        encode(&mut out, &answer);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#""extFields":{}"#), "{text}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_json_and_is_read_back(
            numbers in any::<(i32, i32, i32, i32)>(),
            language in 0_u8..14,
            remark in "\\PC*|[\\x00-\\x1f\"\\\\😀]*",
            pairs in proptest::collection::vec(("[a-zA-Z\"\\x01]{0,9}", "\\PC*|[\\x00-\\x1f\"\\\\]*"), 0..9),
        ) {
            let mut fields = Fields::default();
            for (name, value) in &pairs {
                fields.push(name, value);
            }
            let command = Command {
                flag: numbers.1,
                language: Language(language),
                version: numbers.3,
                remark,
                fields,
                ..Command::request(numbers.0, numbers.2)
            };
            let mut out = Vec::new();
            encode(&mut out, &command);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
            prop_assert_eq!(decode(&out), Ok(command));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn anything_that_looks_like_json_is_read_or_refused(text in "[\\[\\]{}\",:\\\\u0-9a-f. tn-]{0,60}") {
            let _ = decode(text.as_bytes());
            let _ = decode(format!("{{\"extFields\":{text}}}").as_bytes());
        }

        #[test]
        fn what_a_strict_reader_takes_is_taken(text in "\\{(\"[a-z]{0,3}\":(null|true|[0-9]{1,5}|\"([a-z]|\\\\[nu\"])*\"|\\[\\]|\\{\\})){0,1}\\}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert!(decode(text.as_bytes()).is_ok(), "{}", text);
            }
        }
    }
}
