//! Answers over HTTP/1.1 that are open and rest, as event streams do for most of their time.
//!
//! The HTTP library keeps 16 KiB of buffers and more for as long as a connection lives. One that carries an open
//! stream has no use for them: all that is left to do is to send chunks (RFC 9112 section 7.1). So when a stream
//! rests, its answer is called back from the library and goes on from here. With its end the connection goes back
//! to the library, for the next request.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::connection::Answering;
use super::stream::Stream;
use crate::digits::{CHUNK_LINE, chunk_line};

/// The answers that the library has of one connection, one after the other. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Loan(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rests: AtomicBool,
    called_back: AtomicBool,
    answer: Mutex<Option<Answering>>,
}

impl Loan {
    /// Lends an answer, and notes when it rests if it `can_rest`.
    pub(super) fn lend(&self, answer: Answering, can_rest: bool) -> Lent {
        Lent { answer: Some(answer), can_rest, loan: self.clone() }
    }

    /// Whether the answer rests.
    pub(super) fn rests(&self) -> bool {
        self.0.rests.load(Ordering::Relaxed)
    }

    /// The answer, once the library has let go of it in `release`.
    pub(super) fn call_back<T>(&self, release: impl FnOnce() -> T) -> (T, Option<Answering>) {
        self.0.called_back.store(true, Ordering::Relaxed);
        let released = release();
        self.0.called_back.store(false, Ordering::Relaxed);
        self.0.rests.store(false, Ordering::Relaxed);
        (released, self.0.answer.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// An answer as the library has it.
#[derive(Debug)]
pub(super) struct Lent {
    answer: Option<Answering>,
    can_rest: bool,
    loan: Loan,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = <Answering as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *answer).poll_frame(cx);
        if self.can_rest {
            let rests = frame.is_pending() && self.answer.as_ref().is_some_and(Answering::goes_on);
            self.loan.0.rests.store(rests, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.answer.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Shared { rests, called_back, answer } = &*self.loan.0;
        if called_back.load(Ordering::Relaxed) {
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = self.answer.take();
        } else if self.can_rest {
            rests.store(false, Ordering::Relaxed);
        }
    }
}

/// Sends the rest of a chunked answer.
pub(super) async fn relay(stream: &mut Stream, mut answer: Answering) -> io::Result<()> {
    // as the library does: what is whole already is not asked once more whether it is cut
    while !answer.is_end_stream() {
        let next = poll_fn(|cx| {
            let frame = Pin::new(&mut answer).poll_frame(cx);
            // nobody reads from the client: it is here that its end is noticed
            if frame.is_pending()
                && let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_flush(cx)
            {
                return Poll::Ready(Err(error));
            }
            frame.map(Ok)
        });
        let Some(frame) = next.await? else { break };
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        // an empty chunk would be the end
        if !data.is_empty() {
            let mut room = [0; CHUNK_LINE];
            let size = chunk_line(data.len(), &mut room);
            stream.write_all_buf(&mut size.chain(data).chain(&b"\r\n"[..])).await?;
        }
    }
    stream.write_all(b"0\r\n\r\n").await?;
    // only then are all requests answered that have come
    drop(answer);
    stream.flush().await
}
