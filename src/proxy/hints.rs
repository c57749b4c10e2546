//! Which tools the upstream says change nothing, learned from the lists that pass through. Behind one upstream
//! there may be a server at each path, and their tools may have the same names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use http::Uri;

/// The most paths at which anything is known. A server may answer at many more, for anybody who thinks of them.
const PATHS: usize = 64;
/// The most tools that are known at one path: no more are learned.
const TOOLS: usize = 2000;
/// The longest path in bytes at which anything is learned, and the longest name of a tool.
const LONGEST: usize = 1024;

/// The hints of the upstream, shared by all workers. A tool that is not known here may change something.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    known: Arc<RwLock<Known>>,
}

/// What was said at each path.
#[derive(Debug, Default)]
struct Known(HashMap<Box<str>, Said>);

/// What was said at one path.
#[derive(Debug, Default)]
struct Said {
    tools: HashMap<Box<str>, bool>,
    /// How many calls have passed by it.
    uses: AtomicU64,
}

impl Known {
    fn read_only(&self, path: &str, tool: &str) -> Option<bool> {
        self.0.get(path)?.tools.get(tool).copied()
    }

    /// Makes room for another path. The one that was used least goes: who lists tools at ever new paths drives out
    /// nothing by which others call.
    fn make_room(&mut self) {
        let least = self.0.iter().min_by_key(|(_, said)| said.uses.load(Ordering::Relaxed));
        if let Some((path, _)) = least.filter(|_| self.0.len() >= PATHS) {
            let path = path.clone();
            self.0.remove(&path);
        }
    }
}

impl Hints {
    /// Whether the upstream has said that a tool changes nothing, and never the contrary.
    pub(super) fn says_read_only(&self, path: &str, tool: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let said = known.0.get(path).filter(|said| said.tools.get(tool) == Some(&true));
        said.inspect(|said| _ = said.uses.fetch_add(1, Ordering::Relaxed)).is_some()
    }

    /// Takes in what a list says of a tool. Mostly it says nothing new.
    pub(super) fn learn(&self, path: &str, tool: &str, read_only: bool) {
        let told = self.known.read().unwrap_or_else(PoisonError::into_inner).read_only(path, tool);
        if path.len().max(tool.len()) > LONGEST || told == Some(false) || told == Some(read_only) {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.0.contains_key(path) {
            known.make_room();
        }
        let tools = &mut known.0.entry(path.into()).or_default().tools;
        if tools.len() < TOOLS || tools.contains_key(tool) {
            *tools.entry(tool.into()).or_insert(read_only) &= read_only;
        }
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
        // a server may tell these apart
        hints.learn("/a/b", "x", true);
        assert!(!hints.says_read_only("/a%2Fb", "x"));
    }

    #[test]
    fn who_lists_at_ever_new_paths_drives_out_nothing_that_others_use() {
        let hints = Hints::default();
        hints.learn("/mcp", "x", true);
        assert!(hints.says_read_only("/mcp", "x"));
        for number in 0..20_000 {
            let path = format!("/mcp;{number}");
            hints.learn(&path, "x", true);
            hints.learn(&path, "y", true);
            assert!(hints.known.read().unwrap().read_only(&path, "x").is_some(), "a new path is always learned");
        }
        assert!(hints.says_read_only("/mcp", "x"));
        // nor who calls there, as long as others call more often
        for number in 0..20_000 {
            let path = format!("/mcp;{number}");
            hints.learn(&path, "x", true);
            assert!(hints.says_read_only(&path, "x"));
            if number % PATHS == 0 {
                assert!(hints.says_read_only("/mcp", "x"));
            }
        }
        assert!(hints.says_read_only("/mcp", "x"));
    }

    #[test]
    fn memory_is_bounded() {
        let hints = Hints::default();
        for number in 0..3 * TOOLS {
            hints.learn("/a", &number.to_string(), true);
            assert_eq!(hints.says_read_only("/a", &number.to_string()), number < TOOLS);
            hints.learn(&format!("/{number}"), "x", true);
        }
        hints.learn("/a", "0", false);
        assert!(!hints.says_read_only("/a", "0"), "the contrary is still heard");
        let known = hints.known.read().unwrap();
        assert_eq!((known.0.len(), known.0["/a"].tools.len()), (PATHS, TOOLS));
        drop(known);
        let long = "/".repeat(LONGEST + 1);
        hints.learn(&long, "x", true);
        hints.learn("/a", &long, true);
        assert!(!hints.says_read_only(&long, "x") && !hints.says_read_only("/a", &long));
    }
}
