//! What commands print: JSON, tables on a terminal, plain columns elsewhere.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::{Cell as TableCell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// What a value means to whoever reads the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// All is well.
    Good,
    /// Somebody should look.
    Warning,
    /// Something is wrong.
    Bad,
}

/// One field of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A field with a tone.
    #[must_use]
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Where a command's results go: standard output.
#[derive(Debug)]
pub struct Output {
    json: bool,
    terminal: bool,
    colours: bool,
    to: BufWriter<Stdout>,
}

impl Output {
    /// Prints JSON if `json` is set, and otherwise for people or for plain text tools.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let stdout = io::stdout();
        Self {
            json,
            terminal: stdout.is_terminal(),
            colours: colours(&stdout),
            to: BufWriter::new(stdout),
        }
    }

    /// Whether JSON is wanted.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one value as a line of JSON.
    ///
    /// # Errors
    /// [`Failure`] of writing.
    pub fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, value).map_err(io::Error::from)?;
        Ok(self.to.write_all(b"\n")?)
    }

    /// Prints a line of text. Control characters of what is stored do not reach the terminal.
    ///
    /// # Errors
    /// [`Failure`] of writing.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{}", printable(text))?)
    }

    /// Prints rows under their headings. An empty field is shown as `-`, so that columns can be counted.
    ///
    /// # Errors
    /// [`Failure`] of writing.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        if self.terminal {
            self.drawn(headings, rows)
        } else {
            self.columns(headings, rows)
        }
    }

    fn drawn(&mut self, headings: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(headings);
        for row in rows {
            table.add_row(row.iter().map(|cell| {
                let drawn = TableCell::new(shown(cell));
                match (self.colours, cell.tone) {
                    (false, _) | (true, Tone::Plain) => drawn,
                    (true, Tone::Good) => drawn.fg(Color::Green),
                    (true, Tone::Warning) => drawn.fg(Color::Yellow),
                    (true, Tone::Bad) => drawn.fg(Color::Red),
                }
            }));
        }
        // The first column names the row and is there to be copied: never broken into lines.
        if let Some(first) = table.column_mut(0) {
            first.set_constraint(ColumnConstraint::ContentWidth);
        }
        Ok(writeln!(self.to, "{table}")?)
    }

    fn columns(&mut self, headings: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(shown).collect())
            .collect();
        let headings: Vec<String> = headings
            .iter()
            .map(|heading| heading.to_uppercase().replace(' ', "_"))
            .collect();
        let mut widths: Vec<usize> = headings.iter().map(|text| text.chars().count()).collect();
        for row in &rows {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        for row in std::iter::once(&headings).chain(&rows) {
            let fields: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(text, width)| format!("{text:<width$}"))
                .collect();
            writeln!(self.to, "{}", fields.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Hands what was printed so far to the operating system.
    ///
    /// # Errors
    /// [`Failure`] of writing.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }

    /// Hands everything to the operating system; call it last.
    ///
    /// # Errors
    /// [`Failure`] of writing.
    pub fn finish(mut self) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

fn shown(cell: &Cell) -> String {
    if cell.text.is_empty() {
        "-".to_owned()
    } else {
        printable(&cell.text)
    }
}

/// Text without control characters: what producers and operators wrote must not steer somebody's terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Whether colours may be written there: a terminal, and `NO_COLOR` is not set.
pub fn colours(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_text_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(shown(&Cell::from("")), "-");
    }
}
