//! The house rules, kept by reading the sources: each finding names file, line, rule and reason.

mod rules;
mod samples;
mod source;

use std::path::{Path, PathBuf};

use source::Source;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources() -> Vec<Source> {
    source::read_tree(&root()).expect("the tests run inside a readable copy of the project")
}

#[test]
fn the_sources_keep_the_house_rules() {
    let findings: Vec<String> = sources()
        .iter()
        .flat_map(rules::check)
        .map(|finding| finding.to_string())
        .collect();
    assert!(
        findings.is_empty(),
        "{} finding(s):\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn what_the_rules_list_exists() {
    let sources = sources();
    for listed in rules::PURE.iter().chain(rules::DOORS) {
        assert!(
            sources.iter().any(|source| source.path.starts_with(listed)),
            "{listed} stands in the rules and not in the tree; mend the list in tests/tests/tidy/rules.rs"
        );
    }
}

#[test]
fn the_walk_sees_every_kind_of_file() {
    let sources = sources();
    for path in [
        ".ci/run",
        "tests/run",
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "mq-core/src/lib.rs",
        "coordinator/src/lib.rs",
        "tests/tests/tidy/rules.rs",
    ] {
        assert!(
            sources.iter().any(|source| source.path == path),
            "{path} was not read"
        );
    }
}
