//! The end of the process, in two steps: first nothing new comes in, then nothing old goes on.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Business as usual.
    Serving,
    /// No new connection, no further request on an old one; what runs may finish.
    Draining,
    /// The deadline: what still runs is cut.
    Over,
}

/// Tells everybody how far the end has come. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Serving)) }
    }
}

impl Drain {
    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            *current = phase.max(*current);
            later
        });
    }

    /// Where the end stands now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until `phase` has come.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.subscribe();
        // the sender lives as long as this handle, so waiting cannot fail
        let _ = receiver.wait_for(|current| *current >= phase).await;
    }
}
