//! One file as the rules see it: lines, each split into code, comment and quoted text, with test code marked.

use std::fs;
use std::io;
use std::path::Path;

/// A text file of the project.
#[derive(Debug)]
pub(super) struct Source {
    /// Path from the project's root, with `/`.
    pub(super) path: String,
    /// Its lines.
    pub(super) lines: Vec<Line>,
}

/// One line. In files that are not Rust all of it is `comment`.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// As it stands in the file.
    pub(super) text: String,
    /// Without comments; the contents of strings and characters are blanks.
    pub(super) code: String,
    /// The contents of comments.
    pub(super) comment: String,
    /// The contents of strings.
    pub(super) quoted: String,
    /// Whether it is compiled for tests only, or belongs to a public test suite.
    pub(super) is_test: bool,
}

impl Source {
    /// Splits the text of the file at `path`.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let lines = if path.ends_with(".rs") {
            let mut lines = split(text);
            mark_tests(path, &mut lines);
            lines
        } else {
            let plain = |(at, text): (usize, &str)| Line {
                number: at + 1,
                text: text.to_owned(),
                comment: text.to_owned(),
                ..Line::default()
            };
            text.lines().enumerate().map(plain).collect()
        };
        Self {
            path: path.to_owned(),
            lines,
        }
    }

    /// Whether the file is Rust.
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Reads every text file below `root` that belongs to the project.
pub(super) fn read_tree(root: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    read_folder(root, "", &mut sources)?;
    Ok(sources)
}

fn read_folder(root: &Path, folder: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        if entry.file_type()?.is_dir() {
            if belongs(&name) {
                read_folder(root, &path, sources)?;
            }
        } else if is_text(&name) {
            sources.push(Source::new(&path, &fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

fn belongs(folder: &str) -> bool {
    let foreign = ["target", "halfmoon-data"].contains(&folder);
    !foreign && (!folder.starts_with('.') || folder == ".ci")
}

fn is_text(name: &str) -> bool {
    let ends = [
        "rs", "toml", "lock", "md", "sql", "sh", "yml", "yaml", "java", "go", "py", "js", "ts",
    ];
    match name.rsplit_once('.') {
        Some((_, end)) => ends.contains(&end),
        None => name == "run",
    }
}

#[derive(Clone, Copy)]
enum Inside {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

/// Splits Rust into lines. Knows just enough of its grammar: nested comments, raw strings, lifetimes beside characters.
fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = Vec::new();
    let mut line = Line::default();
    let mut inside = Inside::Code;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let rest = chars.get(at..).unwrap_or_default();
        let mut taken = 1;
        match inside {
            _ if c == '\n' => {
                if matches!(inside, Inside::LineComment) {
                    inside = Inside::Code;
                }
                line.number = lines.len() + 1;
                lines.push(std::mem::take(&mut line));
                at += 1;
                continue;
            }
            Inside::Code => (inside, taken) = code(rest, &mut line),
            Inside::LineComment => line.comment.push(c),
            Inside::BlockComment { depth } => {
                if starts(rest, "*/") {
                    taken = 2;
                    inside = match depth {
                        1 => Inside::Code,
                        _ => Inside::BlockComment { depth: depth - 1 },
                    };
                } else if starts(rest, "/*") {
                    taken = 2;
                    inside = Inside::BlockComment { depth: depth + 1 };
                } else {
                    line.comment.push(c);
                }
            }
            Inside::Text => match c {
                '"' => {
                    line.code.push('"');
                    inside = Inside::Code;
                }
                '\\' if rest.get(1).is_some_and(|next| *next != '\n') => {
                    taken = 2;
                    line.code.push_str("  ");
                }
                _ => quote(&mut line, c),
            },
            Inside::RawText { hashes } => {
                if c == '"' && rest.iter().skip(1).take_while(|c| **c == '#').count() >= hashes {
                    taken += hashes;
                    line.code.push('"');
                    inside = Inside::Code;
                } else {
                    quote(&mut line, c);
                }
            }
        }
        line.text.extend(rest.iter().take(taken));
        at += taken;
    }
    if !line.text.is_empty() {
        line.number = lines.len() + 1;
        lines.push(line);
    }
    lines
}

fn quote(line: &mut Line, c: char) {
    line.quoted.push(c);
    line.code.push(' ');
}

fn starts(rest: &[char], with: &str) -> bool {
    with.chars()
        .enumerate()
        .all(|(at, c)| rest.get(at) == Some(&c))
}

/// Takes the next piece of code; says where that leads and how many characters it was.
fn code(rest: &[char], line: &mut Line) -> (Inside, usize) {
    let Some(&c) = rest.first() else {
        return (Inside::Code, 1);
    };
    let after_name = line
        .code
        .ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if starts(rest, "//") {
        return (Inside::LineComment, 2);
    }
    if starts(rest, "/*") {
        return (Inside::BlockComment { depth: 1 }, 2);
    }
    if c == '"' {
        line.code.push('"');
        return (Inside::Text, 1);
    }
    let raw = line.code.ends_with(['b', 'c']) || !after_name;
    if c == 'r' && raw {
        let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            line.code.push_str("r\"");
            return (Inside::RawText { hashes }, 2 + hashes);
        }
    }
    if c == '\'' {
        let length = character_length(rest);
        if length > 0 {
            line.code.push_str("' '");
            return (Inside::Code, length);
        }
    }
    line.code.push(c);
    (Inside::Code, 1)
}

/// Length of the character literal that starts here; 0 for a lifetime.
fn character_length(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') {
        let end = rest.iter().skip(3).position(|c| *c == '\'');
        return end.map_or(0, |end| end + 4);
    }
    if rest.get(2) == Some(&'\'') { 3 } else { 0 }
}

fn mark_tests(path: &str, lines: &mut [Line]) {
    let stem = path.trim_end_matches(".rs");
    let whole = path.starts_with("tests/")
        || path.contains("/tests/")
        || stem.ends_with("/tests")
        || stem.ends_with("/conformance")
        || path.contains("/conformance/");
    // Depth of braces of the test item, once its attribute was seen.
    let mut depth: Option<i64> = None;
    for line in lines {
        line.is_test = whole || depth.is_some();
        if depth.is_none() && line.code.trim_start().starts_with("#[cfg(test)]") {
            depth = Some(0);
            line.is_test = true;
        }
        let Some(now) = depth.as_mut() else { continue };
        let mut ended = false;
        for c in line.code.chars() {
            match c {
                '{' => *now += 1,
                '}' => {
                    *now -= 1;
                    ended = *now == 0;
                }
                ';' if *now == 0 => ended = true,
                _ => {}
            }
        }
        if ended {
            depth = None;
        }
    }
}

#[test]
fn code_comments_and_text_are_told_apart() {
    let source = Source::new(
        "a.rs",
        "let a = \"// no\\\"{\"; // yes {\nlet b = r#\"/* \"no\" */\"#; /* a /* b */ c */ d('\"', '\\'', 'a');\nfn f<'a>(x: &'a str) {}\n",
    );
    let codes: Vec<&str> = source.lines.iter().map(|line| &*line.code).collect();
    assert_eq!(codes.first().unwrap().trim_end(), "let a = \"        \";");
    assert_eq!(
        codes[1].split_whitespace().collect::<Vec<_>>().join(" "),
        "let b = r\" \"; d(' ', ' ', ' ');"
    );
    assert_eq!(codes[2], "fn f<'a>(x: &'a str) {}");
    assert_eq!(source.lines[0].comment, " yes {");
    assert_eq!(source.lines[1].comment, " a  b  c ");
    assert_eq!(source.lines[1].quoted, "/* \"no\" */");
    assert_eq!(source.lines[2].number, 3);
}

#[test]
fn code_of_tests_is_marked() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { '}' }\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}\n";
    let marks = |path| {
        let source = Source::new(path, text);
        source
            .lines
            .iter()
            .map(|line| line.is_test)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        marks("mq-core/src/a.rs"),
        [false, true, true, true, true, false, true, true, false]
    );
    assert_eq!(marks("mq-core/src/log/conformance.rs"), [true; 9]);
    assert_eq!(marks("tests/tests/a.rs"), [true; 9]);
}
