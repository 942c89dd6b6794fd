//! The header as a JSON object (RocketMQ `RemotingSerializable`): lenient in what it reads, strings only in what it writes.

use serde_json::Value;

use super::command::{Command, Dialect, Fields, Language};

/// Reads a header. Values that are numbers or booleans become text; nulls are left out.
///
/// # Errors
/// What is wrong, for people.
pub fn decode(bytes: &[u8]) -> Result<Command, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("it is no JSON object")?;
    let number = |name: &str| -> Result<i32, String> {
        match object.get(name) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => value
                .as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .ok_or_else(|| format!("{name} is no 32 bit number")),
        }
    };
    let mut fields = Fields::default();
    if let Some(ext) = object.get("extFields").and_then(Value::as_object) {
        for (name, value) in ext {
            match value {
                Value::Null => {}
                Value::String(text) => fields.push(name, text),
                other
                @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                    fields.push(name, &other.to_string());
                }
            }
        }
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(Command {
        code: number("code")?,
        flag: number("flag")?,
        opaque: number("opaque")?,
        language: language(text("language")),
        version: number("version")?,
        remark: text("remark").to_owned(),
        fields,
        body: Default::default(),
        dialect: Dialect::Json,
    })
}

/// Writes a header.
pub fn encode(out: &mut Vec<u8>, command: &Command) {
    let fields: serde_json::Map<String, Value> = command
        .fields
        .iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    let mut object = serde_json::json!({
        "code": command.code,
        "flag": command.flag,
        "language": name(command.language),
        "opaque": command.opaque,
        "serializeTypeCurrentRPC": "JSON",
        "version": command.version,
    });
    if let Some(object) = object.as_object_mut() {
        if !fields.is_empty() {
            object.insert("extFields".into(), fields.into());
        }
        if !command.remark.is_empty() {
            object.insert("remark".into(), command.remark.clone().into());
        }
    }
    out.extend_from_slice(object.to_string().as_bytes());
}

const LANGUAGES: [&str; 13] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST",
];

fn language(name: &str) -> Language {
    let number = LANGUAGES.iter().position(|known| *known == name);
    number
        .and_then(|number| u8::try_from(number).ok())
        .map_or(Language::OTHER, Language)
}

fn name(language: Language) -> &'static str {
    LANGUAGES
        .get(usize::from(language.0))
        .copied()
        .unwrap_or("OTHER")
}
