//! Which tools the upstream says change nothing, learned from the lists that pass through.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// More tools than these are no server's: all are forgotten then, and learned anew from the next list.
const CAPACITY: usize = 10_000;

/// The hints of the upstream, shared by all workers. A tool that is not known here may change something.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    read_only: Arc<RwLock<HashMap<Box<str>, bool>>>,
}

impl Hints {
    /// Whether the upstream has said that a tool changes nothing, and not taken it back.
    pub(super) fn says_read_only(&self, tool: &str) -> bool {
        let known = self.read_only.read().unwrap_or_else(PoisonError::into_inner);
        known.get(tool).copied().unwrap_or(false)
    }

    /// Takes in what a list says of a tool. Mostly it says nothing new.
    pub(super) fn learn(&self, tool: &str, read_only: bool) {
        let told = self.read_only.read().unwrap_or_else(PoisonError::into_inner).get(tool).copied();
        if told == Some(read_only) {
            return;
        }
        let mut known = self.read_only.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(tool.into(), read_only);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_last_counts() {
        let hints = Hints::default();
        assert!(!hints.says_read_only("a"));
        hints.learn("a", true);
        assert!(hints.says_read_only("a") && !hints.says_read_only("b"));
        hints.clone().learn("a", false);
        assert!(!hints.says_read_only("a"));
    }

    #[test]
    fn memory_is_bounded() {
        let hints = Hints::default();
        for tool in 0..3 * CAPACITY {
            hints.learn(&tool.to_string(), true);
            assert!(hints.says_read_only(&tool.to_string()));
        }
        assert!(hints.read_only.read().unwrap().len() <= CAPACITY);
    }
}
