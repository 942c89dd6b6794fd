//! `halfmoon.toml`: our settings under their own names.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ALL, Given, Origin};
use crate::failure::Failure;

/// Adds what the file says.
pub(super) fn read(given: &mut Given, path: &Path, text: &str) -> Result<(), Failure> {
    let file = path.display();
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        Failure::Environment(format!(
            "{file}, line {line}: {}; correct it",
            error.message().replace('\n', ", ")
        ))
    })?;
    let mut found = Vec::new();
    flatten("", table.get_ref(), &mut found);
    for (name, value) in found {
        let line = line_of(text, value.span().start);
        let wrong = |what: String| Failure::Environment(format!("{file}, line {line}: {what}"));
        let Some((key, _)) = ALL.iter().find(|(_, known)| *known == name) else {
            return Err(wrong(format!(
                "there is no setting {name}; the settings are {}",
                ALL.map(|(_, name)| name).join(", ")
            )));
        };
        let text = scalar(value.get_ref())
            .ok_or_else(|| wrong(format!("{name} must be text, a number, true or false")))?;
        let origin = Origin::File {
            path: path.to_path_buf(),
            line,
            key: name,
        };
        given.give(*key, text, origin);
    }
    Ok(())
}

fn flatten<'a>(
    prefix: &str,
    table: &'a DeTable<'a>,
    found: &mut Vec<(String, &'a Spanned<DeValue<'a>>)>,
) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            flatten(&format!("{name}."), inner, found);
        } else {
            found.push((name, value));
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn settings(text: &str) -> Result<Settings, String> {
        let mut given = Given::default();
        read(&mut given, Path::new("halfmoon.toml"), text)
            .and_then(|()| Settings::decide(&given))
            .map_err(|failure| failure.line().unwrap().to_owned())
    }

    #[test]
    fn settings_stand_under_their_names() {
        let settings = settings(
            "data = \"/data\"\nmemory = \"64MiB\"\n[broker]\nlisten = \"0.0.0.0:10911\"\ndefault_queues = 8\nauto_create_topics = false\n[check_back]\nimmunity = \"2s\"\n",
        )
        .unwrap();
        assert_eq!(settings.memory, 64 << 20);
        assert_eq!(settings.default_queues, 8);
        assert!(!settings.auto_create_topics);
        assert_eq!(settings.immunity.as_secs(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            (
                "data = \"x\"\n[broker]\nlisen = \"x\"\n",
                "line 3: there is no setting broker.lisen",
            ),
            ("data = [1]\n", "line 1: data must be text"),
            (
                "data = \"x\"\nmemory = \"lots\"\n",
                "memory (halfmoon.toml, line 2)",
            ),
            ("data = \n", "line 1"),
        ] {
            let line = settings(text).unwrap_err();
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
