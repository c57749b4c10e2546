//! Moments by which something must have happened, in tasks that are polled anyway.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A moment that is cheap to put off and to drop: the timer looks at it only when it goes off.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets it so far from now, whether or not there was one.
    pub fn set(&mut self, patience: Duration) {
        self.set_at(Instant::now() + patience);
    }

    /// Sets it to this moment, whether or not there was one.
    pub fn set_at(&mut self, at: Instant) {
        self.at = Some(at);
    }

    /// There is none any more.
    pub fn clear(&mut self) {
        self.at = None;
    }

    /// Ready once the moment has come, if there is one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        }
        loop {
            // a task that has used up its share of time is late all the same
            ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
            if at <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }

    /// The same, with a moment that is set now if there is none yet.
    pub fn poll_or_set(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<()> {
        if self.at.is_none() {
            self.set(patience);
        }
        self.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, pause};

    use super::*;

    /// Whether it is over at this moment; its task is woken otherwise when it is.
    async fn is_over(deadline: &mut Deadline) -> bool {
        poll_fn(|cx| Poll::Ready(deadline.poll_or_set(cx, Duration::from_secs(2)).is_ready())).await
    }

    #[tokio::test]
    async fn the_latest_word_counts() {
        pause();
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut deadline = Deadline::default();
        assert!(!is_over(&mut deadline).await);
        advance(second).await;
        // put off, then brought forward
        deadline.set(5 * second);
        assert!(!is_over(&mut deadline).await);
        deadline.set(second);
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(begin.elapsed().as_secs(), 2);
        deadline.set(3 * second);
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(begin.elapsed().as_secs(), 5);
        assert!(is_over(&mut deadline).await);
        deadline.clear();
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
        assert!(!is_over(&mut deadline).await, "a new one begins now");
    }
}
