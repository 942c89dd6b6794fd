//! The blocks of code in a page: pure.

/// A block of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The line it begins at, from 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) kind: Kind,
    /// What is in it.
    pub(super) text: String,
}

/// What a block of code is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text of the file with this name.
    File(String),
    /// Commands that end by themselves.
    Commands,
    /// What is typed into the terminal of this name.
    Typed(String),
    /// What the terminal of this name shows, or else the commands before.
    Shown(Option<String>),
    /// For the eye.
    Other,
}

/// All blocks, in their order.
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        let Some(words) = first.strip_prefix("```") else {
            continue;
        };
        let text = lines.by_ref().map(|(line, _)| line);
        let text: Vec<&str> = text.take_while(|line| *line != "```").collect();
        blocks.push(Block {
            line,
            kind: kind(words),
            text: text.join("\n") + "\n",
        });
    }
    blocks
}

fn kind(words: &str) -> Kind {
    let (language, name) = match words.split_once(' ') {
        Some((language, name)) => (language, Some(name.to_owned())),
        None => (words, None),
    };
    match (language, name) {
        ("sh", None) => Kind::Commands,
        ("sh", Some(terminal)) => Kind::Typed(terminal),
        ("text", terminal) => Kind::Shown(terminal),
        (_, Some(file)) => Kind::File(file),
        (_, None) => Kind::Other,
    }
}

/// Whether `line` is what `shown` says; three dots stand for anything.
pub(super) fn is_shown(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    shown.ends_with("...") || rest.is_empty()
}

#[test]
fn a_blocks_first_line_says_what_it_is() {
    let page =
        "words\n```sh\ncargo build\n```\n```rust src/main.rs\na\n\nb\n```\n```text orders\n```\n";
    let found = blocks(page);
    let kinds: Vec<&Kind> = found.iter().map(|block| &block.kind).collect();
    let file = Kind::File("src/main.rs".into());
    let shown = Kind::Shown(Some("orders".into()));
    assert_eq!(kinds, [&Kind::Commands, &file, &shown]);
    let texts: Vec<(usize, &str)> = found.iter().map(|b| (b.line, &*b.text)).collect();
    assert_eq!(texts, [(2, "cargo build\n"), (5, "a\n\nb\n"), (10, "\n")]);
}

#[test]
fn three_dots_stand_for_anything() {
    for (shown, line, is) in [
        ("packed 1", "packed 1", true),
        ("packed 1", "packed 12", false),
        ("... committed ...", "0A committed now", true),
        ("... committed", "0A committed now", false),
        ("a ... c", "a b d", false),
    ] {
        assert_eq!(is_shown(shown, line), is, "{shown:?}, {line:?}");
    }
}
