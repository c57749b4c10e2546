//! Which tools the upstream says change nothing, learned from the lists that pass through. Behind one upstream
//! there may be a server at each path, and their tools may have the same names.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::Uri;

/// More tools than these are no server's: all are forgotten then, and learned anew from the next list.
const CAPACITY: usize = 10_000;
/// The longest path in bytes at which anything is learned.
const MAX_PATH: usize = 1024;

/// The hints of the upstream, shared by all workers. A tool that is not known here may change something.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    known: Arc<RwLock<Known>>,
}

/// What was said of the tools at each path.
#[derive(Debug, Default)]
struct Known {
    paths: HashMap<Box<str>, HashMap<Box<str>, bool>>,
    /// How many tools there are at all paths.
    tools: usize,
}

impl Known {
    fn read_only(&self, path: &str, tool: &str) -> Option<bool> {
        self.paths.get(path)?.get(tool).copied()
    }
}

impl Hints {
    /// Whether the upstream has said that a tool changes nothing, and never the contrary.
    pub(super) fn says_read_only(&self, path: &str, tool: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.read_only(path, tool).unwrap_or(false)
    }

    /// Takes in what a list says of a tool. Mostly it says nothing new.
    pub(super) fn learn(&self, path: &str, tool: &str, read_only: bool) {
        let told = self.known.read().unwrap_or_else(PoisonError::into_inner).read_only(path, tool);
        if path.len() > MAX_PATH || told == Some(false) || told == Some(read_only) {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.tools >= CAPACITY {
            *known = Known::default();
        }
        let Known { paths, tools } = &mut *known;
        let said = paths.entry(path.into()).or_default().entry(tool.into()).or_insert_with(|| {
            *tools += 1;
            read_only
        });
        *said &= read_only;
    }
}

/// What one answer adds to them.
#[derive(Debug)]
pub(super) struct Marks {
    hints: Hints,
    path: Box<str>,
}

impl Marks {
    /// What its lists say holds at the path of the request.
    pub(super) fn new(hints: &Hints, uri: &Uri) -> Self {
        Self { hints: hints.clone(), path: uri.path().into() }
    }

    /// From here on it holds at this address instead: the older transport lists in one place what is called at another.
    pub(super) fn move_to(&mut self, address: &str) {
        let address = address.trim();
        let path = address.split(['?', '#']).next().unwrap_or_default();
        self.path = match path.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).into(),
            None if path.starts_with('/') => path.into(),
            None => {
                let folder = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
                format!("{folder}{path}").into()
            }
        };
    }

    /// Takes in what a list says of a tool.
    pub(super) fn learn(&self, tool: &str, read_only: bool) {
        self.hints.learn(&self.path, tool, read_only);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_follow_the_address_that_is_announced() {
        for (address, path) in [
            ("/messages?sessionId=1", "/messages"),
            (" messages/?session_id=1 ", "/a/messages/"),
            ("http://127.0.0.1:1/m#x", "/m"),
            ("http://127.0.0.1", "/"),
        ] {
            let mut marks = Marks::new(&Hints::default(), &Uri::from_static("/a/sse?x=/y"));
            assert_eq!(&*marks.path, "/a/sse");
            marks.move_to(address);
            assert_eq!(&*marks.path, path, "{address}");
        }
    }

    #[test]
    fn a_tool_changes_nothing_only_if_nobody_ever_said_that_it_does() {
        let hints = Hints::default();
        assert!(!hints.says_read_only("/a", "x"));
        hints.learn("/a", "x", true);
        assert!(hints.says_read_only("/a", "x") && !hints.says_read_only("/a", "y"));
        hints.clone().learn("/a", "x", false);
        assert!(!hints.says_read_only("/a", "x"));
        hints.learn("/a", "x", true);
        assert!(!hints.says_read_only("/a", "x"));
    }

    #[test]
    fn what_is_said_at_one_path_holds_at_no_other() {
        let hints = Hints::default();
        hints.learn("/a", "x", true);
        assert!(!hints.says_read_only("/b", "x"));
        hints.learn("/b", "x", false);
        assert!(hints.says_read_only("/a", "x") && !hints.says_read_only("/b", "x"));
    }

    #[test]
    fn memory_is_bounded() {
        let hints = Hints::default();
        for number in 0..3 * CAPACITY {
            let (path, tool) = (format!("/{}", number / 3), number.to_string());
            hints.learn(&path, &tool, true);
            assert!(hints.says_read_only(&path, &tool));
        }
        let known = hints.known.read().unwrap();
        assert_eq!(known.paths.values().map(HashMap::len).sum::<usize>(), known.tools);
        assert!(known.tools <= CAPACITY);
        drop(known);
        let long = "/".repeat(MAX_PATH + 1);
        hints.learn(&long, "x", true);
        assert!(!hints.says_read_only(&long, "x"));
    }
}
