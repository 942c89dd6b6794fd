//! Which of several values counts.

use super::*;

#[test]
fn an_option_counts_more_than_a_variable_and_that_more_than_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    std::fs::write(
        &path,
        "brokerName=from-file\nbrokerClusterName=from-file\nstorePathRootDir=from-file\n",
    )
    .unwrap();
    let mut given = Given::default();
    given.option(Key::Data, "--data", Some("from-option"));
    given.option(Key::Memory, "--memory", None::<String>);
    given.environment(|name| match name {
        "HALFMOON_DATA" | "HALFMOON_BROKER_NAME" => Some("from-variable".into()),
        "HALFMOON_MEMORY" => Some(String::new()),
        _ => None,
    });
    let warnings = given.file(&path, Program::Broker).unwrap();
    assert_eq!(warnings, [] as [String; 0]);
    let settings = Settings::decide(&given).unwrap();
    assert_eq!(settings.data, Path::new("from-option"));
    assert_eq!(settings.name, "from-variable");
    assert_eq!(settings.cluster, "from-file");
    assert_eq!(settings.memory, 96 << 20);
}

#[test]
fn a_wrong_value_is_named_with_where_it_stands() {
    let mut given = Given::default();
    given.environment(|name| (name == "HALFMOON_BROKER_LISTEN").then(|| "here".into()));
    let failure = Settings::decide(&given).unwrap_err();
    let line = failure.line().unwrap();
    assert!(
        line.starts_with("HALFMOON_BROKER_LISTEN: \"here\""),
        "{line}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let failure = Given::default()
        .file(Path::new("nowhere.conf"), Program::Broker)
        .unwrap_err();
    assert!(failure.line().unwrap().contains("nowhere.conf"));
}

#[test]
fn every_setting_is_listed_once() {
    let mut keys: Vec<Key> = ALL.iter().map(|(key, _)| *key).collect();
    keys.dedup();
    assert_eq!(keys.len(), ALL.len());
}
