//! `patgate audit verify`

use std::ops::ControlFlow;

use clap::Args;
use serde::Serialize;

use super::input::{self, Input, Log, Progress};
use crate::audit::{Fault, Finding, Head, Verification};
use crate::cli::{Exit, print};

#[derive(Args, Debug)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    input: Input,
    /// A head that was noted elsewhere: the log must contain it. Without one, a log whose end was cut off
    /// cannot be told from one that is whole
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<Head>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// The judgement. The names of the fields are those of its JSON.
#[derive(Serialize)]
struct Judgement {
    intact: bool,
    records: u64,
    first: Option<u64>,
    head: Option<String>,
    /// Lines before the chain began.
    before: u64,
    findings: Vec<Place>,
    /// How many more there were.
    more: u64,
}

#[derive(Serialize)]
struct Place {
    file: Option<String>,
    line: Option<u64>,
    seq: Option<u64>,
    fault: &'static str,
    message: String,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Exit> {
        let files = self.input.all_files()?;
        let mut verification = Verification::new(self.head);
        let mut progress = Progress::of(&files, false);
        let whole = input::each_line(&files, &mut progress, |file, line| {
            verification.read(file, line);
            ControlFlow::Continue(())
        });
        let judgement = Judgement::new(&verification, &files, whole);
        let told = if self.json { print::json(&judgement) } else { print::answer(judgement.text(files.len())) };
        told.and_then(|()| if judgement.intact { Ok(()) } else { Err(Exit::negative()) })
    }
}

impl Judgement {
    fn new(verification: &Verification, files: &[Log], whole: bool) -> Self {
        let mut findings: Vec<_> = verification.findings.iter().map(|finding| Place::of(finding, files)).collect();
        if let Some(noted) = verification.unseen() {
            let message =
                format!("the record {} that was noted elsewhere is not there: the log was cut off", noted.seq);
            findings.push(Place { file: None, line: None, seq: Some(noted.seq), fault: "cut_off", message });
        }
        Self {
            intact: verification.is_intact() && whole,
            records: verification.records,
            first: verification.first,
            head: verification.head.map(|head| head.to_string()),
            before: verification.before,
            findings,
            more: verification.more,
        }
    }

    fn text(&self, files: usize) -> String {
        let mut text = String::new();
        let mut say = |line: String| text = std::mem::take(&mut text) + &line + "\n";
        for place in &self.findings {
            say(match (&place.file, place.line) {
                (Some(file), Some(line)) => format!("{file}:{line}: {}", place.message),
                _ => place.message.clone(),
            });
        }
        if self.more > 0 {
            say(format!("and {} more", self.more));
        }
        if self.before > 0 {
            say(format!("lines before the chain began, of which nothing can be said: {}", self.before));
        }
        let Some((first, head)) = self.first.zip(self.head.as_ref()) else {
            say("there is no chain in it: `audit.chain` was off".to_owned());
            return text;
        };
        let state = if self.intact { "unaltered, complete and in order" } else { "NOT as they were written" };
        say(format!("{} records from {first} on, in {files} files: {state}", self.records));
        say(format!("head {head}"));
        text
    }
}

impl Place {
    fn of(finding: &Finding, files: &[Log]) -> Self {
        let Finding { file, line, seq, fault } = *finding;
        let number = seq.unwrap_or_default();
        let (fault, message) = match fault {
            Fault::Altered => ("altered", format!("record {number} was altered")),
            Fault::Missing(from, to) if from == to => ("missing", format!("record {from} is missing before {number}")),
            Fault::Missing(from, to) => ("missing", format!("records {from} to {to} are missing before {number}")),
            Fault::OutOfOrder(expected) => ("out_of_order", format!("record {number} stands where {expected} belongs")),
            Fault::Restarted => ("restarted", "a chain begins anew: records may be missing before it".to_owned()),
            Fault::Torn => ("torn", "this is no whole record: torn by a crash, or altered".to_owned()),
            Fault::NotAsNoted => ("not_as_noted", format!("record {number} is not the one that was noted elsewhere")),
        };
        let file = files.get(file).map(|file| file.path.display().to_string());
        Self { file, line: Some(line), seq, fault, message }
    }
}
