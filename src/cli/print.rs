//! What the commands print: the answer on standard output, remarks on standard error, tables aligned.

use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, Write as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::Exit;
use crate::audit::harmless;

/// Prints the answer. A reader who has seen enough, such as `head`, is no failure.
pub(super) fn answer(text: impl Display) -> Result<(), Exit> {
    let mut out = anstream::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failed(&error)),
        _ => Ok(()),
    }
}

/// The answer could not be printed.
pub(super) fn failed(error: &io::Error) -> Exit {
    Exit::failure(format!("cannot print: {error}"))
}

/// Prints the answer as JSON, on one line.
pub(super) fn json(value: &impl Serialize) -> Result<(), Exit> {
    let text = serde_json::to_string(value).map_err(Exit::failure)?;
    answer(format_args!("{text}\n"))
}

/// Prints what is shown once: here, a reader who has gone is a failure.
pub(super) fn secret(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a remark; nobody has to be there to read it.
pub(super) fn remark(text: impl Display) {
    lines("", &text.to_string());
}

/// Prints why the program ends.
pub(super) fn error(text: &str) {
    let bold = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    lines(&format!("{bold}error:{bold:#} "), text);
}

/// Names from files stand in what is said: they cannot steer a terminal.
fn lines(begin: &str, text: &str) {
    for line in text.lines() {
        let _ = writeln!(anstream::stderr(), "{begin}{}", harmless(line));
    }
}

/// A cell of a table.
#[derive(Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: harmless(&text.into()).into_owned(), style }
    }

    pub(super) fn head(text: &str) -> Self {
        Self::styled(text, Style::new().bold())
    }

    fn width(&self) -> usize {
        self.text.width()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Rows with their columns aligned, by the width that a terminal gives each character.
pub(super) fn table(rows: &[Vec<Cell>]) -> String {
    aligned(rows, &mut Vec::new())
}

/// The same for a part of a table, whose columns are as wide as those of the parts before, or wider.
pub(super) fn aligned(rows: &[Vec<Cell>], widths: &mut Vec<usize>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    widths.resize(widths.len().max(columns), 0);
    for (index, width) in widths.iter_mut().enumerate() {
        let cells = rows.iter().filter_map(|row| row.get(index));
        *width = cells.map(Cell::width).max().unwrap_or(0).max(*width);
    }
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&*widths).enumerate() {
            let Cell { text: words, style } = cell;
            let gap = if index + 1 < row.len() { width - cell.width() + 2 } else { 0 };
            // writing to a string does not fail
            let _ = write!(text, "{style}{words}{style:#}{:gap$}", "");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_whatever_is_in_them() {
        let rows = [["id", "name", "end"], ["1", "日本語", "never"], ["12345", "Zoë", ""]];
        let rows = rows.map(|row| row.map(Cell::from).into());
        assert_eq!(table(&rows), "id     name    end\n1      日本語  never\n12345  Zoë     \n");
        assert_eq!(table(&[]), "");
        assert_eq!(table(&[vec!["a\u{202e}\u{1b}[2J…".into()]]), "a\u{fffd}\u{fffd}[2J…\n");
    }
}
