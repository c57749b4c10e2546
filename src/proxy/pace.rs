//! How long a client may take for the body of its request: how long it may pause, and how slow it may be.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::inbound::InboundBounds;
use crate::deadline::Deadline;

/// The pace of one body. What it waits for elsewhere, as for an upstream that does not read, is not counted.
#[derive(Debug)]
pub(super) struct Pace {
    pause: Duration,
    rate: u64,
    /// For how long it has been waited for in all, and since when it is now.
    waited: Duration,
    since: Option<Instant>,
    deadline: Deadline,
}

impl Pace {
    pub(super) fn new(bounds: &InboundBounds) -> Self {
        let InboundBounds { pause, rate, .. } = *bounds;
        Self { pause, rate, waited: Duration::ZERO, since: None, deadline: Deadline::default() }
    }

    /// What came of an attempt to read on after so many `bytes`, or nothing once the client is late.
    pub(super) fn in_time<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<T>, bytes: u64) -> Poll<Option<T>> {
        if attempt.is_ready() {
            if let Some(since) = self.since.take() {
                self.waited += since.elapsed();
            }
            return attempt.map(Some);
        }
        if self.since.is_none() {
            self.since = Some(Instant::now());
            // what one pause allows, and then as long as this many bytes may take
            let allowed = self.pause + Duration::from_millis(bytes.saturating_mul(1000) / self.rate);
            self.deadline.set(self.pause.min(allowed.saturating_sub(self.waited)));
        }
        self.deadline.poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, pause};

    use super::*;

    const BOUNDS: InboundBounds = InboundBounds { size: u64::MAX, pause: Duration::from_secs(30), rate: 500 };

    /// The seconds after which the client is late that sends so many bytes every so many seconds; up to an hour.
    async fn late(bytes: u64, every: u64) -> Option<u64> {
        let (mut pace, mut sent, begun) = (Pace::new(&BOUNDS), 0, Instant::now());
        while begun.elapsed() < Duration::from_hours(1) {
            for _ in 0..10 * every {
                let waiting = poll_fn(|cx| Poll::Ready(pace.in_time::<()>(cx, Poll::Pending, sent))).await;
                if waiting.is_ready() {
                    return Some(begun.elapsed().as_secs());
                }
                advance(Duration::from_millis(100)).await;
            }
            sent += bytes;
            assert!(poll_fn(|cx| pace.in_time(cx, Poll::Ready(()), sent)).await.is_some());
        }
        None
    }

    #[tokio::test]
    async fn a_trickle_is_late_and_a_slow_line_is_not() {
        pause();
        assert_eq!(late(0, 3600).await, Some(30), "one pause");
        assert_eq!(late(1, 29).await, Some(30), "a byte a pause");
        assert_eq!(late(1, 1).await, Some(30), "a byte a second");
        assert_eq!(late(250, 1).await, Some(59), "half as fast as it may be");
        assert_eq!(late(600, 1).await, None);
        assert_eq!(late(20_000, 29).await, None, "pauses that are made up for");
        assert_eq!(late(1 << 20, 31).await, Some(30), "nothing makes up for a pause that is too long");
    }

    #[tokio::test]
    async fn only_waiting_for_the_client_counts() {
        pause();
        let mut pace = Pace::new(&BOUNDS);
        for sent in 0..100 {
            // nobody asks for more meanwhile
            advance(Duration::from_mins(1)).await;
            assert!(poll_fn(|cx| Poll::Ready(pace.in_time::<()>(cx, Poll::Pending, sent).is_pending())).await);
            assert!(poll_fn(|cx| pace.in_time(cx, Poll::Ready(()), sent)).await.is_some());
        }
    }
}
