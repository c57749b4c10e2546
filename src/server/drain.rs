//! The end of the process, in two steps: first nothing new comes in, then nothing old goes on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

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
        let mut reached = pin!(receiver.wait_for(|current| *current >= phase));
        let mut waiting: Option<(Phase, Waker)> = None;
        poll_fn(|cx| {
            // whoever is known to wait is woken: to ask again would take a lock of everybody's
            let known =
                waiting.as_ref().is_some_and(|(seen, waker)| waker.will_wake(cx.waker()) && *seen == self.phase());
            if known {
                return Poll::Pending;
            }
            waiting = Some((self.phase(), cx.waker().clone()));
            // the sender lives as long as this handle, so waiting cannot fail
            reached.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}
