//! `patgate audit query`

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::filter::Filter;
use super::input::{self, Input, Log, Progress};
use super::summary::Summary;
use crate::audit::{Logged, Text, harmless, is_harmless};
use crate::cli::Exit;
use crate::cli::print::{self, Cell};

/// How many rows are aligned together: more would have to be kept in memory before the first is seen.
const ROWS: usize = 200;

/// The longest cell of the table, in characters; `--json` has all of it.
const WIDEST: usize = 48;

#[derive(Args, Debug)]
pub(in crate::cli) struct Query {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    filter: Filter,
    /// The earliest so many, and no more
    #[arg(long, value_name = "N", conflicts_with = "last")]
    limit: Option<usize>,
    /// The latest so many, and no more
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// What each token did: when it was seen, its calls, addresses and denials, and when it stopped working
    #[arg(long, conflicts_with_all = ["limit", "last"])]
    summary: bool,
    /// Print the records as they stand in the log, one a line; with --summary, one JSON value
    #[arg(long)]
    json: bool,
}

impl Query {
    pub(super) fn run(self) -> Result<(), Exit> {
        let files = self.input.files()?;
        let mut strangers = Strangers::default();
        let whole =
            if self.summary { self.sum_up(&files, &mut strangers)? } else { self.list(&files, &mut strangers)? };
        strangers.tell(&files);
        // what could not be read has been named
        if whole { Ok(()) } else { Err(Exit::negative()) }
    }

    fn list(&self, files: &[Log], strangers: &mut Strangers) -> Result<bool, Exit> {
        let mut out = Output::new(self.json);
        let mut latest: VecDeque<Vec<u8>> = VecDeque::new();
        let mut result = Ok(());
        let (mut found, limit) = (0, self.limit.unwrap_or(usize::MAX));
        let files = if limit > 0 { files } else { &[] };
        let mut progress = Progress::of(files, true);
        let whole = input::each_line(files, &mut progress, |file, line| {
            let Some(record) = Logged::read(line.text) else {
                strangers.add(file, line.number);
                return ControlFlow::Continue(());
            };
            if !self.filter.takes(&record) {
                return ControlFlow::Continue(());
            }
            found += 1;
            match self.last {
                Some(last) => {
                    latest.push_back(line.text.to_vec());
                    latest.drain(..latest.len().saturating_sub(last));
                }
                None => result = out.put(line.text, &record),
            }
            if result.is_err() || found >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        for line in &latest {
            if let (Ok(()), Some(record)) = (&result, Logged::read(line)) {
                result = out.put(line, &record);
            }
        }
        match result.and_then(|()| out.finish()) {
            // a reader who has seen enough, such as `head`, is no failure
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(print::failed(&error)),
            _ => {}
        }
        if found == 0 && limit > 0 {
            print::remark("no record matches");
        }
        Ok(whole)
    }

    fn sum_up(&self, files: &[Log], strangers: &mut Strangers) -> Result<bool, Exit> {
        let mut summary = Summary::default();
        let mut progress = Progress::of(files, false);
        let whole = input::each_line(files, &mut progress, |file, line| {
            match Logged::read(line.text) {
                Some(record) if self.filter.takes(&record) => summary.add(&record),
                Some(_) => {}
                None => strangers.add(file, line.number),
            }
            ControlFlow::Continue(())
        });
        let told = if self.json { print::json(&summary.tokens()) } else { print::answer(summary.text()) };
        told.map(|()| whole)
    }
}

/// Lines that are no records.
#[derive(Debug, Default)]
struct Strangers {
    count: u64,
    first: Option<(usize, u64)>,
}

impl Strangers {
    fn add(&mut self, file: usize, line: u64) {
        self.count += 1;
        self.first.get_or_insert((file, line));
    }

    fn tell(&self, files: &[Log]) {
        let Some((file, line)) = self.first else { return };
        let file = files.get(file).map(|file| file.path.display().to_string()).unwrap_or_default();
        let count = self.count;
        print::remark(format_args!("warning: lines that are no audit records: {count}, the first is {file}:{line}"));
    }
}

// --- Printing -------------------------------------------------------------------------------

/// Where records are printed as they come.
enum Output {
    Json { out: BufWriter<io::Stdout>, terminal: bool },
    Table { rows: Vec<Vec<Cell>>, widths: Vec<usize> },
}

impl Output {
    fn new(json: bool) -> Self {
        if json {
            let out = io::stdout();
            return Self::Json { terminal: out.is_terminal(), out: BufWriter::with_capacity(64 * 1024, out) };
        }
        let head = ["time", "outcome", "reason", "token", "user", "client", "request", "status", "ms", "ended"];
        Self::Table { rows: vec![head.map(Cell::head).into()], widths: Vec::new() }
    }

    fn put(&mut self, line: &[u8], record: &Logged<'_>) -> io::Result<()> {
        match self {
            Self::Json { out, terminal } => {
                if *terminal {
                    out.write_all(escaped(&String::from_utf8_lossy(line)).as_bytes())?;
                } else {
                    out.write_all(line)?;
                }
                out.write_all(b"\n")
            }
            Self::Table { rows, .. } => {
                rows.push(row(record));
                if rows.len() < ROWS { Ok(()) } else { self.flush() }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Json { out, .. } => out.flush(),
            Self::Table { rows, widths } => {
                let mut out = anstream::stdout().lock();
                out.write_all(print::aligned(rows, widths).as_bytes())?;
                rows.clear();
                out.flush()
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            // a head without a table says nothing
            Self::Table { rows, widths } if widths.is_empty() && rows.len() == 1 => Ok(()),
            _ => self.flush(),
        }
    }
}

/// JSON whose text cannot steer a terminal, and which is the same JSON.
fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for char in line.chars() {
        if is_harmless(char) {
            text.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // writing to a string does not fail
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

fn row(record: &Logged<'_>) -> Vec<Cell> {
    let text = |text: &Option<Text<'_>>| Cell::from(text.as_ref().map_or_else(String::new, |text| shown(&text.0)));
    let style = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    let outcome = match record.outcome.as_ref().map(|outcome| &*outcome.0) {
        // what the log says of itself, and of streams that go on
        None => Cell::styled(shown(&record.event.0), style(AnsiColor::Yellow)),
        Some("allowed") if record.event.0 != "request" => Cell::styled(shown(&record.event.0), Style::new()),
        Some("allowed") => Cell::styled("allowed", style(AnsiColor::Green)),
        Some(other) => Cell::styled(shown(other), style(AnsiColor::Red)),
    };
    let reason = record.lost.map_or_else(|| text(&record.reason), |lost| format!("{lost} lost").into());
    let number = |number: Option<String>| Cell::from(number.unwrap_or_default());
    vec![
        shown(&record.ts.0.replacen('T', " ", 1)[..]).into(),
        outcome,
        reason,
        text(&record.pat_id),
        text(&record.user),
        text(&record.client_ip),
        request(record).into(),
        number(record.status.map(|status| status.to_string())),
        number(record.duration_ms.map(|duration| format!("{duration:.1}"))),
        text(&record.ended),
    ]
}

/// What was asked for: the tool or the MCP method where it is known, else method and path.
fn request(record: &Logged<'_>) -> String {
    let list = |names: &mut dyn Iterator<Item = &str>| shown(&names.collect::<Vec<_>>().join(", "));
    if record.tools().next().is_some() {
        return format!("tool {}", list(&mut record.tools()));
    }
    if record.methods().next().is_some() {
        return list(&mut record.methods());
    }
    let part = |text: &Option<Text<'_>>| text.as_ref().map(|text| shown(&text.0));
    let parts = [part(&record.http_method), part(&record.path)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Text from a record: harmless, and cut to the width of a cell.
pub(super) fn shown(text: &str) -> String {
    cut(text, WIDEST).into_owned()
}

/// Text from a record: harmless, and no longer than so many characters.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    let text = harmless(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_is_the_same_json_and_cannot_steer_it() {
        let line = "{\"a\":\"\u{9b}31m\u{202e}\u{7f}é\\u001b\"}";
        let safe = escaped(line);
        assert_eq!(safe, "{\"a\":\"\\u009b31m\\u202e\\u007fé\\u001b\"}");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&safe), parse(line));
    }
}
