//! Letting go of an answer that was cut while its client takes nothing.
//!
//! The HTTP library asks a body for more only when it can hand on what it has. The body of a client
//! that does not read is never asked, and cannot say that its time is over; so whoever drives an answer
//! looks for himself. Over HTTP/1.1 the connection ends with the answer, over HTTP/2 the stream alone.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::rt::Executor;

use crate::proxy::Leash;

/// The answer that is open on a connection, or on a stream of one.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenAnswer(Arc<Mutex<Option<Leash>>>);

impl OpenAnswer {
    pub(super) fn begin(&self, leash: Leash) {
        *locked(&self.0) = Some(leash);
    }

    pub(super) fn end(&self) {
        *locked(&self.0) = None;
    }

    fn poll_cut(&self, cx: &Context<'_>) -> bool {
        locked(&self.0).as_ref().is_some_and(|leash| leash.poll_cut(cx))
    }
}

/// Drives what answers, to its end or until the answer that is open in it is cut: then there is no outcome.
/// The cut wakes this task, and the driven comes first: it may end the answer by itself, and better.
pub(super) async fn until_cut<F: Future>(driven: F, answer: &OpenAnswer) -> Option<F::Output> {
    let mut driven = pin!(driven);
    poll_fn(|cx| match driven.as_mut().poll(cx) {
        Poll::Pending if answer.poll_cut(cx) => Poll::Ready(None),
        outcome => outcome.map(Some),
    })
    .await
}

/// Runs the streams of an HTTP/2 connection. What is dropped before its end is reset.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamExecutor(Arc<Mutex<OpenAnswer>>);

impl StreamExecutor {
    /// The place of the answer on the stream that is opened next: the HTTP library calls the service and
    /// has its future executed in one go.
    pub(super) fn open(&self) -> OpenAnswer {
        let answer = OpenAnswer::default();
        *locked(&self.0) = answer.clone();
        answer
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let answer = std::mem::take(&mut *locked(&self.0));
        let stream = Box::pin(stream);
        tokio::spawn(async move {
            until_cut(stream, &answer).await;
        });
    }
}

/// A panic elsewhere leaves what is inside whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
