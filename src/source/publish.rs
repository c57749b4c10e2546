//! The one place where a new state of the list comes into force.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;

use crate::access::{DenyList, Directory, Generation, Policy};
use crate::document::{Problem, Problems};
use crate::token::{TokenId, TokenList};

/// What a source keeps up to date and everybody else reads.
#[derive(Clone, Debug)]
pub struct Published {
    /// Who may do what.
    pub directory: Arc<ArcSwap<Directory>>,
    /// What is wrong with the source, while the last good state is in use.
    pub trouble: Arc<ArcSwapOption<String>>,
}

impl Published {
    /// A directory that never changes.
    pub fn fixed(directory: Directory) -> Self {
        Self { directory: Arc::new(ArcSwap::from_pointee(directory)), trouble: Arc::new(ArcSwapOption::empty()) }
    }
}

/// Which of the things that are followed has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Voice {
    List,
    DenyList,
}

type OnChange = Box<dyn Fn(&Directory) + Send + Sync>;

/// Puts new states into force, one after the other.
pub struct Publisher {
    published: Published,
    policy: Arc<Policy>,
    allow_empty: bool,
    state: Mutex<State>,
}

struct State {
    denied: Arc<DenyList>,
    troubles: HashMap<Voice, String>,
    on_change: OnChange,
}

impl Publisher {
    pub(super) fn new(policy: &Policy, allow_empty: bool) -> Self {
        let policy = Arc::new(policy.clone());
        let state = State { denied: Arc::default(), troubles: HashMap::new(), on_change: Box::new(|_| {}) };
        let published = Published::fixed(Directory::unavailable(&policy));
        Self { published, policy, allow_empty, state: Mutex::new(state) }
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    pub(super) fn on_change(&self, changed: OnChange) {
        self.lock().on_change = changed;
    }

    /// A list was read. It is built outside the lock: requests and other voices do not notice.
    pub(super) fn list(&self, list: Result<TokenList, Problems>, revision: &str) {
        let list = list.and_then(|list| {
            let before = self.published.directory.load();
            if list.tokens.is_empty() && !self.allow_empty && before.grants().next().is_some() {
                let message = "the list has become empty: if that is meant, set tokens.allow_empty";
                return Err(Problem::outside("tokens", message).into());
            }
            Ok(list)
        });
        match list {
            Ok(list) => self.publish(&Directory::new(&list, &self.policy, Generation::default(), revision)),
            Err(problems) => self.complain(Voice::List, &problems),
        }
    }

    /// The deny list was read.
    pub(super) fn denied(&self, denied: Result<DenyList, Problems>) {
        match denied {
            Ok(denied) => {
                let mut state = self.lock();
                state.denied = Arc::new(denied);
                self.enforce(&state, &self.published.directory.load());
                self.at_peace(&mut state, Voice::DenyList);
            }
            Err(problems) => self.complain(Voice::DenyList, &problems),
        }
    }

    fn publish(&self, directory: &Directory) {
        let mut state = self.lock();
        let before = self.published.directory.load_full();
        carry_over(&before, directory);
        self.enforce(&state, directory);
        self.at_peace(&mut state, Voice::List);
        drop(state);
        // a large list takes its time to free
        drop(before);
    }

    fn enforce(&self, state: &State, directory: &Directory) {
        let generation = Generation(self.published.directory.load().generation().0 + 1);
        let directory = Arc::new(directory.with_denied(&state.denied, generation));
        self.published.directory.store(Arc::clone(&directory));
        tracing::info!(generation = generation.0, revision = %directory.revision(), "the token list is in force");
        (state.on_change)(&directory);
    }

    fn at_peace(&self, state: &mut State, voice: Voice) {
        if state.troubles.remove(&voice).is_some() {
            self.tell(state);
        }
    }

    fn complain(&self, voice: Voice, problems: &Problems) {
        let text = problems.to_string();
        let mut state = self.lock();
        if state.troubles.get(&voice) != Some(&text) {
            tracing::error!(problems = text, "the token source is in trouble: the last good state stays in force");
            state.troubles.insert(voice, text);
            self.tell(&state);
        }
    }

    fn tell(&self, state: &State) {
        let mut troubles: Vec<_> = state.troubles.iter().collect();
        troubles.sort();
        let texts: Vec<&str> = troubles.into_iter().map(|(_, text)| text.as_str()).collect();
        self.published.trouble.store((!texts.is_empty()).then(|| Arc::new(texts.join("\n"))));
    }

    /// A panic elsewhere leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The new directory knows when its tokens were used last, as the old one did.
fn carry_over(before: &Directory, after: &Directory) {
    let used: HashMap<&TokenId, Timestamp> =
        before.grants().filter_map(|grant| Some((grant.token_id(), grant.last_used()?))).collect();
    if used.is_empty() {
        return;
    }
    for grant in after.grants() {
        if let Some(at) = used.get(grant.token_id()) {
            grant.touch(*at);
        }
    }
}
