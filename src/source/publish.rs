//! The one place where a new state of the list comes into force.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;

use super::find::Finder;
use super::reloads::Reloads;
use super::trouble::{Trouble, Troubles, Voice};
use crate::access::{DenyList, Directory, Generation, Policy};
use crate::document::{Problem, Problems};
use crate::token::{Prefix, TokenId, TokenList};

/// What a source keeps up to date and everybody else reads.
#[derive(Clone, Debug)]
pub struct Published {
    /// Who may do what.
    pub directory: Arc<ArcSwap<Directory>>,
    /// What is wrong with the source, while the last good state is in use.
    pub trouble: Arc<ArcSwapOption<Trouble>>,
    /// Who answers what the directory asks.
    pub finder: Finder,
    /// What is counted of reloads.
    pub reloads: Arc<Reloads>,
}

impl Published {
    /// A directory that never changes.
    pub fn fixed(directory: Directory) -> Self {
        let directory = Arc::new(ArcSwap::from_pointee(directory));
        Self { directory, trouble: Arc::default(), finder: Finder::new(1, None), reloads: Arc::default() }
    }
}

type OnChange = Box<dyn Fn(&Directory) + Send + Sync>;

/// Puts new states into force, one after the other.
pub struct Publisher {
    published: Published,
    policy: Arc<Policy>,
    allow_empty: bool,
    troubles: Arc<Troubles>,
    state: Mutex<State>,
}

struct State {
    denied: Arc<DenyList>,
    /// The last good state, while it is too old to be in force.
    withdrawn: Option<Arc<Directory>>,
    on_change: OnChange,
}

impl Publisher {
    /// Nothing is known yet.
    pub(super) fn new(policy: &Arc<Policy>, allow_empty: bool, troubles: &Arc<Troubles>, finder: Finder) -> Self {
        let directory = Arc::new(ArcSwap::from_pointee(Directory::unavailable(policy)));
        Self {
            published: Published { directory, trouble: Arc::clone(troubles.told()), finder, reloads: Arc::default() },
            policy: Arc::clone(policy),
            allow_empty,
            troubles: Arc::clone(troubles),
            state: Mutex::new(State { denied: Arc::default(), withdrawn: None, on_change: Box::new(|_| {}) }),
        }
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// How tokens begin that are minted here.
    pub(super) fn prefix(&self) -> &Prefix {
        &self.policy.prefix
    }

    pub(super) fn on_change(&self, changed: OnChange) {
        self.lock().on_change = changed;
    }

    /// There is a list, or a reason why there is none. It is read and built outside the lock: requests and
    /// other voices do not notice. `noticed` is when a change of it was noticed, if one was. Returns whether
    /// the list is in force.
    pub(super) fn list(
        &self,
        read: impl FnOnce() -> Result<TokenList, Problems>,
        revision: &str,
        noticed: Option<Instant>,
    ) -> bool {
        let (began, reloads) = (Instant::now(), &self.published.reloads);
        let list = read().and_then(|list| {
            if list.has_token_among_words(self.prefix()) {
                tracing::warn!("a token stands among the names of the list, where it is not shown: revoke it");
            }
            let before = self.last_good(&self.lock());
            if list.tokens.is_empty() && !self.allow_empty && before.grants().next().is_some() {
                let message = "the list has become empty: if that is meant, set tokens.allow_empty";
                return Err(Problem::outside("tokens", message).into());
            }
            Ok(list)
        });
        reloads.tokens.count(list.is_ok());
        match list {
            Ok(list) => {
                self.publish(&Directory::new(&list, &self.policy, Generation::default(), revision));
                reloads.confirm();
                reloads.durations.observe(began.elapsed());
                self.in_force_since(noticed);
                true
            }
            Err(problems) => {
                self.troubles.complain(Voice::List, &problems);
                false
            }
        }
    }

    /// What was noticed then is done now.
    fn in_force_since(&self, noticed: Option<Instant>) {
        if let Some(noticed) = noticed {
            self.published.reloads.lags.observe(noticed.elapsed());
        }
    }

    /// The list was looked at and is still the one in force.
    pub(super) fn unchanged(&self) {
        self.published.reloads.confirm();
        self.troubles.at_peace(Voice::List);
    }

    /// Nobody has confirmed the list for too long: until somebody does, nothing is known.
    pub(super) fn withdraw(&self) {
        let mut state = self.lock();
        let last_good = self.last_good(&state);
        if last_good.is_available() {
            tracing::error!("the token list is too old to be relied on: every request is answered with 503");
            state.withdrawn = Some(last_good);
            self.troubles.forget();
            self.enforce(&state, &Directory::unavailable(&self.policy));
        }
    }

    /// There is no list: each token is looked up elsewhere.
    pub(super) fn look_elsewhere(&self) {
        self.enforce(&self.lock(), &Directory::elsewhere(&self.policy, Generation::default(), ""));
    }

    /// The deny list was read; see [`Self::list`].
    pub(super) fn denied(&self, denied: Result<DenyList, Problems>, noticed: Option<Instant>) {
        self.published.reloads.deny_list.count(denied.is_ok());
        match denied {
            Ok(denied) => {
                let mut state = self.lock();
                state.denied = Arc::new(denied);
                self.enforce(&state, &self.published.directory.load());
                drop(state);
                self.troubles.at_peace(Voice::DenyList);
                self.in_force_since(noticed);
            }
            Err(problems) => self.troubles.complain(Voice::DenyList, &problems),
        }
    }

    fn publish(&self, directory: &Directory) {
        let mut state = self.lock();
        let before = self.last_good(&state);
        carry_over(&before, directory);
        self.enforce(&state, directory);
        state.withdrawn = None;
        self.troubles.at_peace(Voice::List);
        drop(state);
        // a large list takes its time to free
        drop(before);
    }

    fn enforce(&self, state: &State, directory: &Directory) {
        let generation = Generation(self.published.directory.load().generation().0 + 1);
        let directory = Arc::new(directory.with_denied(&state.denied, generation));
        self.published.directory.store(Arc::clone(&directory));
        if directory.is_available() {
            tracing::info!(generation = generation.0, revision = %directory.revision(), "the token list is in force");
        }
        (state.on_change)(&directory);
    }

    fn last_good(&self, state: &State) -> Arc<Directory> {
        state.withdrawn.clone().unwrap_or_else(|| self.published.directory.load_full())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::access::{Credential, Finding};
    use crate::token::TokenDigest;

    fn publisher() -> Publisher {
        let (policy, troubles) = (Arc::default(), Arc::default());
        Publisher::new(&policy, false, &troubles, Finder::new(1, None))
    }

    fn list(tokens: &[&str]) -> Result<TokenList, Problems> {
        let records = tokens.iter().map(|token| {
            format!("[[tokens]]\nid = \"{token}\"\nhash = \"{}\"\nuser = \"alice\"\n", TokenDigest::of(token))
        });
        TokenList::parse(Path::new("t.toml"), &records.collect::<String>())
    }

    fn status(publisher: &Publisher, token: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let credential = Credential::from_headers(&headers).unwrap();
        let verdict =
            publisher.published.directory.load().authenticate(&credential, &Finding::Nobody, Timestamp::now());
        verdict.map_or_else(|denial| denial.status().as_u16(), |_| 200)
    }

    #[test]
    fn a_withdrawn_list_refuses_nobody_but_the_denied() {
        let publisher = publisher();
        assert_eq!(status(&publisher, "a"), 503);
        assert!(publisher.list(|| list(&["a", "b"]), "r1", None));
        assert_eq!((status(&publisher, "a"), status(&publisher, "c")), (200, 401));
        let generation = publisher.published.directory.load().generation();

        publisher.withdraw();
        assert_eq!((status(&publisher, "a"), status(&publisher, "c")), (503, 503));
        let denied = format!("{}\n", TokenDigest::of("a"));
        publisher.denied(DenyList::parse(Path::new("d"), &denied), None);
        assert_eq!((status(&publisher, "a"), status(&publisher, "b")), (401, 503));

        assert!(publisher.list(|| list(&["a", "b"]), "r1", None));
        assert_eq!((status(&publisher, "a"), status(&publisher, "b")), (401, 200));
        assert!(publisher.published.directory.load().generation() > generation);
    }

    #[test]
    fn an_outage_does_not_make_an_emptied_list_credible() {
        let publisher = publisher();
        publisher.list(|| list(&["a"]), "r1", None);
        publisher.withdraw();
        assert!(!publisher.list(|| list(&[]), "r2", None));
        assert_eq!(status(&publisher, "a"), 503);
        publisher.list(|| list(&["a"]), "r1", None);
        assert!(!publisher.list(|| list(&[]), "r2", None));
        assert_eq!(status(&publisher, "a"), 200);
    }

    #[test]
    fn an_outage_does_not_make_the_last_use_forgotten() {
        let publisher = publisher();
        publisher.list(|| list(&["a"]), "r1", None);
        let now = Timestamp::now();
        publisher.published.directory.load().grants().for_each(|grant| grant.touch(now));
        publisher.withdraw();
        publisher.list(|| list(&["a", "b"]), "r2", None);
        let directory = publisher.published.directory.load();
        assert!(directory.grants().any(|grant| grant.last_used().is_some()));
    }
}
