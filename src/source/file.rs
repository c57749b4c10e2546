//! The token file and the deny list: read whole, checked whole, put into force whole. A bad file
//! changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::publish::Publisher;
use crate::access::DenyList;
use crate::document::{Problem, Problems};
use crate::token::TokenList;
use crate::watch::{Content, Look, Reload, Revision, Watch, read};

/// A token file, or a folder of them.
#[derive(Debug)]
pub(super) struct FileSource {
    watch: Watch,
    publisher: Arc<Publisher>,
}

impl FileSource {
    /// Reads it for the first time and publishes what it says.
    pub(super) fn open(path: &Path, poll: Duration, publisher: &Arc<Publisher>) -> Result<Self, Problems> {
        let content = read(path)?;
        let list = read_list(&content)?;
        publisher.list(|| Ok(list), &revision(&content), None);
        Ok(Self { watch: Watch::after(path, poll, &content), publisher: Arc::clone(publisher) })
    }

    pub(super) async fn follow(self, reload: Reload) {
        let publisher = self.publisher;
        let good = AtomicBool::new(true);
        let looked = move |look| match look {
            Look::Changed { content, noticed } => {
                let revision = content.as_ref().map(revision).unwrap_or_default();
                let read = || content.and_then(|content| read_list(&content));
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
    watch: Watch,
    publisher: Arc<Publisher>,
}

impl DenyFile {
    /// Reads it for the first time and puts it into force.
    pub(super) fn open(path: &Path, poll: Duration, publisher: &Arc<Publisher>) -> Result<Self, Problems> {
        let content = read(path)?;
        publisher.denied(Ok(read_deny_list(&content)?), None);
        Ok(Self { watch: Watch::after(path, poll, &content), publisher: Arc::clone(publisher) })
    }

    pub(super) async fn follow(self, reload: Reload) {
        let publisher = self.publisher;
        let looked = move |look| {
            if let Look::Changed { content, noticed } = look {
                publisher.denied(content.and_then(|content| read_deny_list(&content)), Some(noticed));
            }
        };
        self.watch.follow(reload, looked).await;
    }
}

fn revision(content: &Content) -> String {
    Revision::of(content.iter().map(|(_, bytes)| bytes.as_slice())).to_string()
}

pub(super) fn read_list(content: &Content) -> Result<TokenList, Problems> {
    let mut whole = TokenList::default();
    let mut problems = Vec::new();
    for (path, bytes) in content {
        let added = text(path, bytes).and_then(|text| TokenList::parse(path, text));
        match added.and_then(|list| whole.merge(list, path)) {
            Ok(()) => {}
            Err(more) => problems.extend(more.0),
        }
    }
    if problems.is_empty() { Ok(whole) } else { Err(Problems(problems)) }
}

pub(super) fn read_deny_list(content: &Content) -> Result<DenyList, Problems> {
    // a deny list is one file
    match content.first() {
        Some((path, bytes)) => DenyList::parse(path, text(path, bytes)?),
        None => Ok(DenyList::default()),
    }
}

fn text<'c>(path: &Path, bytes: &'c [u8]) -> Result<&'c str, Problems> {
    str::from_utf8(bytes).map_err(|error| {
        let message = format!("not UTF-8 from byte {} on: save it as UTF-8", error.valid_up_to());
        Problem::in_file(path, message).into()
    })
}
