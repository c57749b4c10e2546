//! What is wrong with the source at the moment: told once in the log, and to whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::document::Problems;

/// Which of the things that are followed has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Voice {
    List,
    DenyList,
}

/// A source that many ask at the same time may fail one and serve the next: the log is told of
/// changes no more often than this.
const PACE: Duration = Duration::from_secs(1);

/// What is wrong, and what that means for those who come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub text: String,
    /// Whether nothing that was known before stands in for what cannot be known now.
    pub blind: bool,
}

/// The present troubles, each voice's latest.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    told: Arc<ArcSwapOption<Trouble>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    voices: BTreeMap<Voice, String>,
    logged: BTreeMap<Voice, Instant>,
    /// Whether the list, or the service that is asked in its place, has been in order and still counts.
    known: bool,
}

impl Troubles {
    /// All of them in one text, none in good times.
    pub(super) fn told(&self) -> &Arc<ArcSwapOption<Trouble>> {
        &self.told
    }

    /// Something is wrong. Saying so again changes nothing.
    pub(super) fn complain(&self, voice: Voice, problems: &Problems) {
        let text = problems.to_string();
        let mut state = self.lock();
        if state.voices.get(&voice) != Some(&text) {
            if state.may_log(voice) {
                let meanwhile = if state.is_blind(voice) {
                    "nothing is known of tokens, and requests are answered with 503"
                } else {
                    "the last good state stays in force"
                };
                tracing::error!(problems = text, "the token source is in trouble: {meanwhile}");
            }
            state.voices.insert(voice, text);
            self.tell(&state);
        }
    }

    /// Nothing is wrong with this one any more.
    pub(super) fn at_peace(&self, voice: Voice) {
        let mut state = self.lock();
        state.known |= voice == Voice::List;
        if state.voices.remove(&voice).is_some() {
            if state.may_log(voice) {
                tracing::info!("the token source is in order again");
            }
            self.tell(&state);
        }
    }

    /// What was known is too old to count.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.known = false;
        self.tell(&state);
    }

    /// Whether the list, or the service that is asked in its place, has been in order and still counts.
    pub(super) fn is_known(&self) -> bool {
        self.lock().known
    }

    /// Whether something is wrong, and nothing that was known before stands in.
    pub(super) fn is_blind(&self) -> bool {
        self.told.load().as_ref().is_some_and(|trouble| trouble.blind)
    }

    fn tell(&self, state: &State) {
        let texts: Vec<&str> = state.voices.values().map(String::as_str).collect();
        let blind = state.voices.contains_key(&Voice::List) && state.is_blind(Voice::List);
        self.told.store((!texts.is_empty()).then(|| Arc::new(Trouble { text: texts.join("\n"), blind })));
    }

    /// A panic elsewhere leaves the texts whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is no last good state of what this voice tells of. A deny list was read before anything else.
    fn is_blind(&self, voice: Voice) -> bool {
        voice == Voice::List && !self.known
    }

    fn may_log(&mut self, voice: Voice) -> bool {
        let now = Instant::now();
        let may = self.logged.get(&voice).is_none_or(|logged| now.duration_since(*logged) >= PACE);
        if may {
            self.logged.insert(voice, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Problem;

    #[test]
    fn what_is_told_is_always_the_latest_of_each() {
        let troubles = Troubles::default();
        let told = || troubles.told().load_full().map(|trouble| trouble.text.clone());
        let complain = |voice, text: &str| troubles.complain(voice, &Problem::outside("", text).into());
        assert_eq!(told(), None);
        complain(Voice::DenyList, "a");
        complain(Voice::List, "b");
        complain(Voice::List, "c");
        assert_eq!(told().as_deref(), Some("c\na"));
        troubles.at_peace(Voice::DenyList);
        assert_eq!(told().as_deref(), Some("c"));
        troubles.at_peace(Voice::List);
        troubles.at_peace(Voice::List);
        assert_eq!(told(), None);
    }

    #[test]
    fn a_last_good_state_is_there_from_the_first_one_until_it_is_too_old() {
        let troubles = Troubles::default();
        let complain = |voice| troubles.complain(voice, &Problem::outside("", "a").into());
        complain(Voice::DenyList);
        assert!(!troubles.is_blind());
        complain(Voice::List);
        assert!(troubles.is_blind());
        troubles.at_peace(Voice::DenyList);
        assert!(troubles.is_blind());
        troubles.at_peace(Voice::List);
        complain(Voice::List);
        assert!(!troubles.is_blind());
        troubles.forget();
        assert!(troubles.is_blind());
    }

    #[test]
    fn a_source_that_fails_every_other_time_does_not_flood_the_log() {
        let mut state = State::default();
        assert!(state.may_log(Voice::List) && !state.may_log(Voice::List));
        assert!(state.may_log(Voice::DenyList), "one voice does not silence the other");
    }
}
