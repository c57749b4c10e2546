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

/// The present troubles, each voice's latest.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    told: Arc<ArcSwapOption<String>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    voices: BTreeMap<Voice, String>,
    logged: BTreeMap<Voice, Instant>,
}

impl Troubles {
    /// All of them in one text, none in good times.
    pub(super) fn told(&self) -> &Arc<ArcSwapOption<String>> {
        &self.told
    }

    /// Something is wrong. Saying so again changes nothing.
    pub(super) fn complain(&self, voice: Voice, problems: &Problems) {
        let text = problems.to_string();
        let mut state = self.lock();
        if state.voices.get(&voice) != Some(&text) {
            if state.may_log(voice) {
                tracing::error!(problems = text, "the token source is in trouble: the last good state stays in force");
            }
            state.voices.insert(voice, text);
            self.tell(&state);
        }
    }

    /// Nothing is wrong with this one any more.
    pub(super) fn at_peace(&self, voice: Voice) {
        let mut state = self.lock();
        if state.voices.remove(&voice).is_some() {
            if state.may_log(voice) {
                tracing::info!("the token source is in order again");
            }
            self.tell(&state);
        }
    }

    fn tell(&self, state: &State) {
        let texts: Vec<&str> = state.voices.values().map(String::as_str).collect();
        self.told.store((!texts.is_empty()).then(|| Arc::new(texts.join("\n"))));
    }

    /// A panic elsewhere leaves the texts whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
        let told = || troubles.told().load_full().map(|text| text.to_string());
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
    fn a_source_that_fails_every_other_time_does_not_flood_the_log() {
        let mut state = State::default();
        assert!(state.may_log(Voice::List) && !state.may_log(Voice::List));
        assert!(state.may_log(Voice::DenyList), "one voice does not silence the other");
    }
}
