//! Places in a text that people wrote: lines, their ends and indents, and the remarks above and below.

/// A text seen as lines. A place is a number of bytes from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<'t>(pub(super) &'t str);

impl<'t> Lines<'t> {
    /// As the first line ends, so do new ones.
    pub(super) fn line_end(self) -> &'static str {
        let first = self.0.split_inclusive('\n').next().unwrap_or_default();
        if first.ends_with("\r\n") { "\r\n" } else { "\n" }
    }

    /// The beginning of the line of a place.
    pub(super) fn start(self, at: usize) -> usize {
        self.0.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |found| found + 1)
    }

    /// The beginning of the line after the one of a place.
    pub(super) fn next(self, at: usize) -> usize {
        self.0.get(at..).and_then(|rest| rest.find('\n')).map_or(self.0.len(), |found| at + found + 1)
    }

    /// The line that begins at a place, with its end.
    pub(super) fn line(self, start: usize) -> &'t str {
        self.0.get(start..self.next(start)).unwrap_or_default()
    }

    /// The blanks with which the line of a place begins.
    pub(super) fn indent(self, at: usize) -> &'t str {
        let line = self.0.get(self.start(at)..at).unwrap_or_default();
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// What a new line needs before it, if the one above has no end of its own.
    pub(super) fn opening(self, at: usize) -> &'static str {
        let whole = self.0.get(..at).is_none_or(|before| before.is_empty() || before.ends_with('\n'));
        if whole { "" } else { self.line_end() }
    }

    pub(super) fn is_remark(self, start: usize) -> bool {
        self.line(start).trim_start().starts_with('#')
    }

    pub(super) fn is_blank(self, start: usize) -> bool {
        self.line(start).trim().is_empty()
    }

    /// Where the remark begins that ends right above a line.
    pub(super) fn remark_above(self, mut line: usize) -> usize {
        while line > 0 && self.is_remark(self.start(line - 1)) {
            line = self.start(line - 1);
        }
        line
    }

    /// The end of the remark that begins at a line; its beginning if there is none.
    pub(super) fn remark_below(self, mut line: usize) -> usize {
        while self.is_remark(line) {
            line = self.next(line);
        }
        line
    }
}
