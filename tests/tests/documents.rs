//! What the documents say about names in the tree is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 9] = [
    "README.md",
    "docs/first-service.md",
    "docs/with-diesel.md",
    "docs/from-an-outbox.md",
    "docs/interleavings.md",
    "docs/audit.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).expect("the document is there")
}

/// The texts between single backticks, outside blocks of code.
fn quoted(text: &str) -> Vec<String> {
    let mut inside_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside_block = !inside_block;
        } else if !inside_block {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_crash_step_has_its_line() {
    let document = read("ARCHITECTURE.md");
    let table = document
        .lines()
        .skip_while(|line| !line.starts_with("## Crash here"))
        .skip(1)
        .take_while(|line| !line.starts_with("## "));
    let told: BTreeSet<String> = table
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    let steps: BTreeSet<String> = coordinator::steps::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(told, steps);
}

#[test]
fn every_file_that_is_named_exists() {
    let folders = [
        "mq-core/",
        "coordinator/",
        "server/",
        "examples/",
        "sql/",
        "tests/",
        ".ci/",
        "docs/",
    ];
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        for name in quoted(&read(document)) {
            let is_path = folders.iter().any(|folder| name.starts_with(folder));
            let path = name.split(' ').next().unwrap_or_default();
            if is_path && !root().join(path).exists() {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = sources(&root());
    let mut missing = Vec::new();
    for document in ["docs/interleavings.md", "ARCHITECTURE.md"] {
        let names = quoted(&read(document)).into_iter();
        // Names of tests are sentences.
        for name in names.filter(|name| name.matches('_').count() >= 3) {
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if is_name && !sources.contains(&format!("fn {name}(")) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// The text of every Rust source under `folder`.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            text += &sources(&path);
        } else if name.ends_with(".rs") {
            text += &fs::read_to_string(path).expect("readable");
        }
    }
    text
}

#[test]
fn every_link_leads_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let document_path = root().join(document);
        let beside = document_path.parent().expect("a file is in a folder");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains("://");
            assert!(
                !local || beside.join(target).exists(),
                "{document} links to {target}"
            );
        }
    }
}
