//! The body of an upstream's answer, read from the connection as it is asked for.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};
use tokio::task::JoinHandle;

use super::framing::{Framing, Part};
use super::pool::{Connection, Pool, Socket, read_some};
use super::upload::{Stopped, Upload};
use crate::metrics::Held;

/// From this much on, what is ahead is read in place instead of by way of the stack, in bytes.
const LARGE: u64 = 16 * 1024;

/// How much is read at once of a large body, in bytes.
const AT_ONCE: usize = 64 * 1024;

/// The body of an answer. With its end the connection goes back to the pool, if it is of further use;
/// dropping it before closes the connection.
#[derive(Debug)]
pub(crate) struct Arriving {
    framing: Framing,
    buffer: BytesMut,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The request is out. The pool is there if the connection can carry another.
    Connection(Connection, Option<Arc<Pool>>),
    /// The answer came first: the rest of the request goes its own way.
    Early {
        reader: ReadHalf<Box<dyn Socket>>,
        rest: Rest,
        _open: Held,
    },
    Gone,
}

/// The rest of a request that is being sent; dropping it ends that.
#[derive(Debug)]
struct Rest(Option<JoinHandle<Result<(), Stopped>>>);

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Arriving {
    /// The body of an answer whose request is out whole.
    pub(super) fn new(framing: Framing, buffer: BytesMut, connection: Connection, pool: Option<Arc<Pool>>) -> Self {
        let mut arriving = Self { framing, buffer, source: Source::Connection(connection, pool) };
        if arriving.framing.is_over() {
            arriving.finish();
        }
        arriving
    }

    /// The body of an answer that came before its request was out. Nobody else may get this connection.
    pub(super) fn early(framing: Framing, buffer: BytesMut, connection: Connection, mut upload: Box<Upload>) -> Self {
        let (socket, open) = connection.into_parts();
        let (reader, mut writer) = tokio::io::split(socket);
        let rest = tokio::spawn(async move { std::future::poll_fn(|cx| upload.poll(cx, &mut writer)).await });
        let source = Source::Early { reader, rest: Rest(Some(rest)), _open: open };
        let mut arriving = Self { framing, buffer, source };
        if arriving.framing.is_over() {
            arriving.finish();
        }
        arriving
    }

    /// Closes the connection.
    pub(in crate::proxy) fn close(&mut self) {
        self.source = Source::Gone;
    }

    fn finish(&mut self) {
        match std::mem::replace(&mut self.source, Source::Gone) {
            // bytes that nobody asked for are not left for the next one to read
            Source::Connection(connection, Some(pool)) if self.buffer.is_empty() => pool.put(connection),
            _ => {}
        }
    }

    /// Reads more; says how much.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let ahead = self.framing.ahead().filter(|ahead| *ahead >= LARGE);
        match &mut self.source {
            Source::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Source::Connection(connection, _) => fill(cx, connection.socket(), &mut self.buffer, ahead),
            Source::Early { reader, rest: Rest(rest), .. } => {
                if let Some(task) = rest
                    && let Poll::Ready(sent) = Pin::new(task).poll(cx)
                {
                    *rest = None;
                    // an upstream that reads no further may still have an answer
                    if matches!(sent, Ok(Err(Stopped::Body))) {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                    }
                }
                fill(cx, reader, &mut self.buffer, ahead)
            }
        }
    }
}

fn fill<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    reader: &mut R,
    buffer: &mut BytesMut,
    ahead: Option<u64>,
) -> Poll<io::Result<usize>> {
    let Some(ahead) = ahead else { return read_some(cx, reader, buffer) };
    buffer.reserve(usize::try_from(ahead).unwrap_or(usize::MAX).min(AT_ONCE));
    pin!(reader.read_buf(buffer)).poll(cx)
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let arriving = &mut *self;
        loop {
            match arriving.framing.next(&mut arriving.buffer) {
                Ok(Part::Data(data)) => {
                    if arriving.framing.is_over() {
                        arriving.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Part::End) => {
                    arriving.finish();
                    return Poll::Ready(None);
                }
                Ok(Part::Nothing) => {}
                Err(wrong) => {
                    arriving.close();
                    return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::InvalidData, wrong))));
                }
            }
            let filled = arriving.poll_fill(cx);
            if filled.is_pending() && arriving.buffer.is_empty() {
                // its memory, too, for it may be long until more comes
                arriving.buffer = BytesMut::new();
            }
            match ready!(filled) {
                Ok(0) if arriving.framing == Framing::UntilClose => arriving.framing = Framing::Length(0),
                Ok(0) => {
                    arriving.close();
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(_) => {}
                Err(error) => {
                    arriving.close();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.framing.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::metrics::Level;
    use crate::proxy::upstream::framing::Chunk;

    #[tokio::test]
    async fn an_answer_that_rests_holds_no_memory_for_what_has_been_read() {
        let (socket, mut upstream) = duplex(256 * 1024);
        let connection = Connection::new(Box::new(socket), Arc::<Level>::default().hold());
        let chunked = Framing::Chunked(Chunk::Size);
        let mut answer = Arriving::new(chunked, BytesMut::from("3\r\nabc\r\n"), connection, None);
        let rests =
            |answer: &mut Arriving| Pin::new(answer).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending();
        let mut data = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap().unwrap().into_data().unwrap();
        // small and large events, and one that stops in the middle of a chunk
        for (size, sent) in [(3, 3), (9_000, 9_000), (100, 100), (20_000, 20_000), (60_000, 20_000)] {
            assert!(rests(&mut answer));
            assert!(data.is_unique(), "what was read before {size} bytes is held");
            assert_eq!(answer.buffer.capacity(), 0, "room is held before {size} bytes");
            let end = if sent == size { "\r\n" } else { "" };
            let event = format!("{size:x}\r\n{}{end}", "x".repeat(sent));
            upstream.write_all(event.as_bytes()).await.unwrap();
            data = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(data.len(), sent);
        }
        assert!(rests(&mut answer));
        assert_eq!(answer.buffer.capacity(), 0, "room is held for the rest of a chunk");
    }
}
