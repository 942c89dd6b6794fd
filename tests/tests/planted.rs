//! The planted bugs of `tests/planted` still fit the code: each applies, says what it breaks, and names the suite that catches it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The patches in order of their names.
fn patches() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("tests/planted")).expect("the folder is there");
    let mut patches: Vec<_> = folder
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "patch")
        })
        .collect();
    patches.sort();
    patches
}

/// What is missing in the header of a patch.
fn incomplete(patch: &str) -> Option<&'static str> {
    let (header, diff) = patch.split_once("\ndiff --git ")?;
    let value = |name: &str| {
        let mut lines = header.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .filter(|value| !value.trim().is_empty())
    };
    if value("Wrong").is_none() {
        return Some("`Wrong: ` and what is wrong");
    }
    if value("Breaks").is_none() {
        return Some("`Breaks: ` and the invariant that is broken");
    }
    let suite = value("Suite").unwrap_or_default();
    let known = ["cargo test -p ", "tests/run simulation --seeds "];
    if !known.iter().any(|command| suite.starts_with(command)) {
        return Some("`Suite: ` and `cargo test -p ...` or `tests/run simulation --seeds N`");
    }
    let touches_tests = diff.contains("+++ b/tests/");
    touches_tests.then_some("a bug in the code: it changes the tests instead")
}

#[test]
fn there_are_at_least_thirty_and_each_says_what_it_breaks_and_who_catches_it() {
    let patches = patches();
    assert!(patches.len() >= 30, "{} planted bugs", patches.len());
    for path in patches {
        let text = fs::read_to_string(&path).expect("a patch is text");
        assert!(text.contains("\ndiff --git "), "{path:?} has no diff");
        assert_eq!(incomplete(&text), None, "{path:?} lacks");
    }
}

#[test]
fn every_patch_still_applies() {
    let mut rotten = Vec::new();
    for path in patches() {
        let checked = Command::new("git")
            .args(["apply", "--check"])
            .arg(path.canonicalize().expect("the patch is there"))
            .current_dir(root())
            .output()
            .expect("git runs");
        if !checked.status.success() {
            let why = String::from_utf8_lossy(&checked.stderr);
            rotten.push(format!("{}: {why}", path.display()));
        }
    }
    assert!(
        rotten.is_empty(),
        "the code has moved on; make these anew:\n{}",
        rotten.join("\n")
    );
}

#[test]
fn a_header_that_lacks_something_is_noticed() {
    let whole = "Wrong: w\nBreaks: b\nSuite: cargo test -p x y\n\ndiff --git a/x b/x\n";
    assert_eq!(incomplete(whole), None);
    for line in ["Wrong: w\n", "Breaks: b\n", "Suite: cargo test -p x y\n"] {
        assert!(incomplete(&whole.replace(line, "")).is_some(), "{line}");
    }
    assert!(incomplete(&whole.replace("cargo test -p", "true")).is_some());
    assert!(incomplete(&format!("{whole}+++ b/tests/tests/main.rs\n")).is_some());
}
