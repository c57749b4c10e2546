//! The token file and the deny list: read whole, checked whole, put into force whole. A bad file
//! changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Params;
use super::publish::Publisher;
use crate::access::DenyList;
use crate::document::{Problem, Problems};
use crate::token::{Prefix, TokenList};
use crate::watch::{Content, Look, Reload, Revision, Watch, is_exposed, read};

/// A token file, or a folder of them.
#[derive(Debug)]
pub(super) struct FileSource {
    watch: Watch,
    refuse_exposed: bool,
    publisher: Arc<Publisher>,
}

impl FileSource {
    /// Reads it for the first time and publishes what it says.
    pub(super) fn open(path: &Path, params: &Params, publisher: &Arc<Publisher>) -> Result<Self, Problems> {
        let Params { poll, refuse_exposed, .. } = *params;
        let content = read(path)?;
        // before the modes are judged, so that a change of them in between is one
        let watch = Watch::after(path, poll, &content);
        let list = read_list(&content, publisher.prefix())?;
        judge_modes(&content, refuse_exposed)?;
        publisher.list(|| Ok(list), &revision(&content), None);
        Ok(Self { watch, refuse_exposed, publisher: Arc::clone(publisher) })
    }

    pub(super) async fn follow(self, reload: Reload) {
        let (publisher, refuse_exposed) = (self.publisher, self.refuse_exposed);
        let good = AtomicBool::new(true);
        let looked = move |look| match look {
            Look::Changed { content, noticed } => {
                let revision = content.as_ref().map(revision).unwrap_or_default();
                let read = || {
                    let content = content?;
                    judge_modes(&content, refuse_exposed)?;
                    read_list(&content, publisher.prefix())
                };
                good.store(publisher.list(read, &revision, Some(noticed)), Ordering::Relaxed);
            }
            Look::Unchanged if good.load(Ordering::Relaxed) => publisher.unchanged(),
            Look::Unchanged => {}
        };
        self.watch.follow(reload, looked).await;
    }
}

/// A deny list.
#[derive(Debug)]
pub(super) struct DenyFile {
    path: PathBuf,
    watch: Watch,
    publisher: Arc<Publisher>,
}

impl DenyFile {
    /// Reads it for the first time and puts it into force.
    pub(super) fn open(path: &Path, poll: Duration, publisher: &Arc<Publisher>) -> Result<Self, Problems> {
        let content = read(path)?;
        publisher.denied(Ok(read_deny_list(path, &content)?), None);
        let watch = Watch::after(path, poll, &content);
        Ok(Self { path: path.to_owned(), watch, publisher: Arc::clone(publisher) })
    }

    pub(super) async fn follow(self, reload: Reload) {
        let Self { path, publisher, .. } = self;
        let looked = move |look| {
            if let Look::Changed { content, noticed } = look {
                publisher.denied(content.and_then(|content| read_deny_list(&path, &content)), Some(noticed));
            }
        };
        self.watch.follow(reload, looked).await;
    }
}

/// What is wrong with those files of a token list that everybody on this machine can read, and learn who holds tokens,
/// or even write, and let anybody in.
pub fn exposed(content: &Content) -> Vec<Problem> {
    let advice = "everybody on this machine can read or write it: take that right from others (chmod o-rw)";
    let paths = content.iter().map(|(path, _)| path).filter(|path| is_exposed(path));
    paths.map(|path| Problem::in_file(path, advice)).collect()
}

fn judge_modes(content: &Content, refuse: bool) -> Result<(), Problems> {
    let exposed = exposed(content);
    if refuse && !exposed.is_empty() {
        return Err(Problems(exposed));
    }
    for problem in exposed {
        tracing::warn!(%problem, "a token file is exposed");
    }
    Ok(())
}

fn revision(content: &Content) -> String {
    Revision::of(content.iter().map(|(_, bytes)| bytes.as_slice())).to_string()
}

pub(super) fn read_list(content: &Content, prefix: &Prefix) -> Result<TokenList, Problems> {
    let mut whole = TokenList::default();
    let mut problems = Vec::new();
    for (path, bytes) in content {
        let added = text(path, bytes).and_then(|text| TokenList::parse(path, text));
        let added = added.and_then(|list| list.without_tokens(path, prefix));
        match added.and_then(|list| whole.merge(list, path)) {
            Ok(()) => {}
            Err(more) => problems.extend(more.0),
        }
    }
    if problems.is_empty() { Ok(whole) } else { Err(Problems(problems)) }
}

pub(super) fn read_deny_list(path: &Path, content: &Content) -> Result<DenyList, Problems> {
    match content.as_slice() {
        [(file, bytes)] if file == path => DenyList::parse(file, text(file, bytes)?),
        // an empty folder must not pass for an empty list
        _ => Err(Problem::in_file(path, "a folder where a deny list belongs: name one file").into()),
    }
}

fn text<'c>(path: &Path, bytes: &'c [u8]) -> Result<&'c str, Problems> {
    str::from_utf8(bytes).map_err(|error| {
        let message = format!("not UTF-8 from byte {} on: save it as UTF-8", error.valid_up_to());
        Problem::in_file(path, message).into()
    })
}
