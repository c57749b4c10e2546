//! A connection's bytes, whatever they come through.
//!
//! Four things happen here and nowhere else. The first bytes can be put back after a look at them.
//! The bare answers that the HTTP library gives by itself, to what it cannot read as a request, are
//! exchanged for ours, so that every refusal has a body, an id and an audit record. And a connection
//! ends with a goodbye: closing it with unread bytes would reset it and could swallow the answer, so
//! a little is read from a client that goes on sending. And nobody may be late: with the head of a request,
//! with a next request, with taking an answer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::patience::{Late, Reading, Writing};

/// The ways by which a client comes.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Makes the answer to what could not be read, from the status that the HTTP library chose.
pub(super) type AnswerUnread = Box<dyn FnMut(u16) -> Option<Bytes> + Send>;

/// A transport with the first bytes put back.
pub(super) struct Stream {
    transport: Transport,
    put_back: BytesMut,
    /// How many of these bytes, the last ones, were read only to look ahead.
    ahead: usize,
    /// How many answers are being streamed on this connection, where that is to be watched.
    streaming: Option<Arc<AtomicUsize>>,
    answer_unread: AnswerUnread,
    requests: Arc<Requests>,
    /// How many of the requests have been answered to the last byte.
    settled: usize,
    own_answer: Option<Bytes>,
    goodbye: Goodbye,
    writing: Writing,
    reading: Option<Reading>,
    is_late: bool,
    /// How many requests had begun when the client's end last had to wait, where it has to.
    ending: Option<usize>,
}

/// The requests that came on a connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) begun: AtomicUsize,
    /// How many of them are being answered.
    pub(super) answering: Arc<AtomicUsize>,
    /// Whether something has been written of which the rest may still be to come.
    unflushed: AtomicBool,
}

impl Requests {
    /// Whether all that there was to say has been handed to the system.
    pub(super) fn flushed(&self) -> bool {
        !self.unflushed.load(Ordering::Relaxed)
    }
}

/// What is left of the patience with a client that goes on sending.
struct Goodbye {
    said: bool,
    bytes: usize,
    deadline: Option<Pin<Box<Sleep>>>,
}

const LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How much of a further request is taken in while the one before it is being answered.
const LOOK_AHEAD: usize = 16 * 1024;

/// Up to this size, in bytes, the head and the body of an answer are joined for one plain write.
const JOINED: usize = 2048;

/// The longest bare answer of the HTTP library: a status line and two or three fields.
const BARE_ANSWER: usize = 256;

impl Stream {
    pub(super) fn new(
        transport: Transport,
        put_back: BytesMut,
        answer_unread: AnswerUnread,
        write_timeout: Duration,
    ) -> Self {
        Self {
            transport,
            put_back,
            ahead: 0,
            streaming: None,
            answer_unread,
            requests: Arc::default(),
            settled: 0,
            own_answer: None,
            goodbye: Goodbye { said: false, bytes: LINGER_BYTES, deadline: None },
            writing: Writing::new(write_timeout),
            reading: None,
            is_late: false,
            ending: None,
        }
    }

    /// Tells the bare answers of the HTTP library from what belongs to these requests.
    pub(super) fn counting(mut self, requests: &Arc<Requests>) -> Self {
        self.requests = Arc::clone(requests);
        self
    }

    /// Holds the client to its deadlines for requests.
    pub(super) fn reading_in_time(mut self, reading: Reading) -> Self {
        self.reading = Some(reading);
        self
    }

    /// Notices the end of the client even while nobody reads: the HTTP library stops reading as long
    /// as bytes of a further request wait in its buffer, and would not hear of it.
    pub(super) fn looking_ahead(mut self, streaming: &Arc<AtomicUsize>) -> Self {
        self.streaming = Some(Arc::clone(streaming));
        self
    }

    /// Lets the client's end wait until all has been handed over that came before it: the library of HTTP/2 drops
    /// the requests that it has read and not handed over yet once it sees an end, and they would have no record.
    pub(super) fn ending_last(mut self) -> Self {
        self.ending = Some(usize::MAX);
        self
    }

    /// Whether the client's end has to wait: as long as more of its requests are begun.
    fn withholds_end(&mut self, cx: &Context<'_>) -> bool {
        let Some(before) = &mut self.ending else { return false };
        let begun = self.requests.begun.load(Ordering::Acquire);
        let withholds = std::mem::replace(before, begun) != begun;
        if withholds {
            cx.waker().wake_by_ref();
        }
        withholds
    }

    /// Where the end waits, a client that takes nothing any more is no fault: what it has sent is read, and then its end.
    fn forgiving<T>(&self, attempt: Poll<io::Result<T>>, taken: T) -> Poll<io::Result<T>> {
        match attempt {
            Poll::Ready(Err(_)) if self.ending.is_some() => Poll::Ready(Ok(taken)),
            attempt => attempt,
        }
    }

    /// Puts back what was read and not used, in front of what has come after it.
    pub(super) fn put_back(&mut self, unused: Bytes) {
        if !unused.is_empty() {
            let later = std::mem::replace(&mut self.put_back, unused.into());
            self.put_back.extend_from_slice(&later);
        }
    }

    fn look_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut scratch = [MaybeUninit::uninit(); 1024];
        while self.ahead < LOOK_AHEAD {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.transport).poll_read(cx, &mut buf)? {
                Poll::Ready(()) if buf.filled().is_empty() => return Err(io::ErrorKind::ConnectionAborted.into()),
                Poll::Ready(()) => {
                    self.put_back.extend_from_slice(buf.filled());
                    self.ahead += buf.filled().len();
                    // whoever waits for these bytes has to look for them here
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => return Ok(()),
            }
        }
        // behind a stream, so much more would hide the client's end for as long as the stream lasts;
        // behind a request that is still being taken in, it is only early
        match &self.streaming {
            Some(streaming) if streaming.load(Ordering::Acquire) > 0 => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    /// Nothing has come. A client that has begun to ask is told why its connection ends.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        match ready!(reading.poll_late(cx)) {
            // as if the client had ended it
            Late::Idle => Poll::Ready(Ok(())),
            Late::Head => {
                self.is_late = true;
                self.own_answer = (self.answer_unread)(408);
                self.poll_dismissal(cx)
            }
        }
    }

    /// Ends a connection in whose head the HTTP library is still waiting.
    fn poll_dismissal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own_answer(cx))?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The answer of ours that goes out in place of `bytes`, if they are a bare answer. Until a request's
    /// answer is out whole, they are a part of that, whatever they look like.
    fn exchange(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ").filter(|_| bytes.len() <= BARE_ANSWER)?.first_chunk::<3>()?;
        let status = str::from_utf8(status).ok()?.parse().ok()?;
        let ours = bytes.windows(13).any(|window| window.eq_ignore_ascii_case(b"x-request-id:"));
        let settled = self.settled == self.requests.begun.load(Ordering::Acquire);
        if ours || !settled { None } else { (self.answer_unread)(status) }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.requests.unflushed.store(true, Ordering::Relaxed);
        if let (Poll::Ready(Ok(_)), Some(reading)) = (&attempt, &mut self.reading) {
            reading.told();
        }
        self.writing.in_time(cx, attempt)
    }

    /// Writes the answer that stands in for a bare one, and ends the connection: the HTTP library
    /// drops it after a bare answer without a goodbye.
    fn poll_own_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(answer) = &mut self.own_answer
            && !answer.is_empty()
        {
            let attempt = Pin::new(&mut self.transport).poll_write(cx, answer);
            let written = ready!(self.writing.in_time(cx, attempt))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            answer.advance(written);
        }
        self.poll_goodbye(cx)
    }

    /// Ends our direction, then reads until the client ends its own, has sent enough or taken long enough.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.goodbye.said {
            let attempt = Pin::new(&mut self.transport).poll_shutdown(cx);
            ready!(self.writing.in_time(cx, attempt))?;
            self.goodbye.said = true;
        }
        let mut scratch = [MaybeUninit::uninit(); 4096];
        while self.goodbye.bytes > 0 {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.transport).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.goodbye.bytes = self.goodbye.bytes.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let deadline = self.goodbye.deadline.get_or_insert_with(|| Box::pin(sleep(LINGER_TIME)));
                    ready!(deadline.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_late {
            return self.poll_dismissal(cx);
        }
        if self.put_back.is_empty() {
            let before = buf.filled().len();
            let Poll::Ready(read) = Pin::new(&mut self.transport).poll_read(cx, buf) else {
                return self.poll_late(cx);
            };
            if (read.is_err() || buf.filled().len() == before) && self.withholds_end(cx) {
                return Poll::Pending;
            }
            read?;
        } else {
            let length = self.put_back.len().min(buf.remaining());
            buf.put_slice(&self.put_back.split_to(length));
            self.ahead = self.ahead.min(self.put_back.len());
            if self.put_back.is_empty() {
                // its memory, too
                self.put_back = BytesMut::new();
            }
        }
        if let Some(reading) = &mut self.reading {
            reading.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.own_answer.is_none() {
            self.own_answer = self.exchange(buf);
        }
        if self.own_answer.is_some() {
            return self.poll_own_answer(cx).map_ok(|()| buf.len());
        }
        let attempt = Pin::new(&mut self.transport).poll_write(cx, buf);
        let attempt = self.forgiving(attempt, buf.len());
        self.wrote(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // a bare answer is one short slice: it has no body
        if let [single] = bufs {
            return self.poll_write(cx, single);
        }
        // one short piece is written with less ado than two
        let mut joined = [0; JOINED];
        let attempt = match join(bufs, &mut joined) {
            Some(bytes) => Pin::new(&mut self.transport).poll_write(cx, bytes),
            None => Pin::new(&mut self.transport).poll_write_vectored(cx, bufs),
        };
        let attempt = self.forgiving(attempt, bufs.iter().map(|buf| buf.len()).sum());
        self.wrote(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.transport).poll_flush(cx);
        let attempt = self.forgiving(attempt, ());
        ready!(self.writing.in_time(cx, attempt))?;
        self.requests.unflushed.store(false, Ordering::Relaxed);
        if self.requests.answering.load(Ordering::Acquire) == 0 {
            self.settled = self.requests.begun.load(Ordering::Acquire);
        }
        if self.streaming.is_some() && !self.goodbye.said {
            self.look_ahead(cx)?;
        }
        if let Some(reading) = &mut self.reading {
            reading.watch(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_goodbye(cx)
    }
}

/// The pieces as one, if there is room for all of them.
fn join<'j>(pieces: &[IoSlice<'_>], room: &'j mut [u8]) -> Option<&'j [u8]> {
    let mut length = 0;
    for piece in pieces {
        room.get_mut(length..length + piece.len())?.copy_from_slice(piece);
        length += piece.len();
    }
    room.get(..length)
}

// --- Whichever transport it is --------------------------------------------------------------

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A connection whose client has left; the system has told so already.
    async fn left(requests: &Arc<Requests>) -> Stream {
        let (ours, client) = UnixStream::pair().unwrap();
        drop(client);
        ours.readable().await.unwrap();
        let patience = Duration::from_secs(1);
        Stream::new(Transport::Unix(ours), BytesMut::new(), Box::new(|_| None), patience).counting(requests)
    }

    fn ends(stream: &mut Stream) -> bool {
        let mut room = [0; 8];
        let mut buf = ReadBuf::new(&mut room);
        let read = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
        assert!(buf.filled().is_empty());
        matches!(read, Poll::Ready(Ok(())))
    }

    #[tokio::test]
    async fn the_end_waits_as_long_as_requests_that_came_before_it_are_begun() {
        let requests = Arc::<Requests>::default();
        assert!(ends(&mut left(&requests).await), "where nobody asks for that, it does not wait");
        let mut stream = left(&requests).await.ending_last();
        for _ in 0..3 {
            assert!(!ends(&mut stream));
            requests.begun.fetch_add(1, Ordering::AcqRel);
        }
        assert!(!ends(&mut stream));
        assert!(ends(&mut stream), "no more of them are begun");
    }
}
