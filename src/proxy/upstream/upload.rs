//! A request on its way out: its head and, as it comes, its body, in as few writes as possible.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Method;
use http_body::Body;
use tokio::io::AsyncWrite;

use super::head::Sending;
use crate::digits::{CHUNK_LINE, chunk_line};
use crate::proxy::inbound::{Inbound, Meter};
use crate::proxy::rewrite::Forward;

/// Up to this size, in bytes, a part of a body is copied behind what goes out before it.
const SMALL: usize = 4 * 1024;

/// How much is gathered for one write, in bytes.
const ENOUGH: usize = 16 * 1024;

/// A request of which some may have been written.
#[derive(Debug)]
pub(super) struct Upload<B = Inbound> {
    method: Method,
    body: B,
    sending: Sending,
    /// To be written, in this order: what was gathered, a large part of the body, what ends that part.
    small: Vec<u8>,
    sent: usize,
    large: Bytes,
    behind: &'static [u8],
    /// All of the body has been taken in.
    taken: bool,
    /// Bytes have left.
    touched: bool,
}

/// Why it stops.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The client's body is at fault, and its meter says how.
    Body,
    /// The upstream takes nothing more.
    Socket(io::Error),
}

impl Upload {
    pub(super) fn new(request: Forward) -> Self {
        let (head, body) = request.into_parts();
        let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        // over HTTP/2 such a request may end later than its head: a body that nobody announced is none
        let ignored = length.is_none() && [Method::GET, Method::HEAD].contains(head.method());
        let length = if ignored { Some(0) } else { length };
        let taken = length == Some(0);
        let method = head.method().clone();
        let (small, sending) = head.end(length);
        let (sent, large, touched) = (0, Bytes::new(), false);
        Self { method, body, sending, small, sent, large, behind: b"", taken, touched }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        self.body.meter()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    /// Whether none of it has left, so that it can be sent elsewhere.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Writes until all is written.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut W,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            let gathered = self.gather(cx)?;
            while self.has_more() {
                let slices = [&self.small[self.sent..], &self.large[..], self.behind].map(IoSlice::new);
                let written = if self.large.is_empty() && self.behind.is_empty() {
                    Pin::new(&mut *socket).poll_write(cx, &slices[0])
                } else {
                    Pin::new(&mut *socket).poll_write_vectored(cx, &slices)
                };
                match ready!(written).map_err(Stopped::Socket)? {
                    0 => return Poll::Ready(Err(Stopped::Socket(io::ErrorKind::WriteZero.into()))),
                    written => self.advance(written),
                }
            }
            if self.taken || gathered.is_pending() {
                ready!(Pin::new(&mut *socket).poll_flush(cx)).map_err(Stopped::Socket)?;
                return if self.taken { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
    }

    /// Takes in what has come of the body, up to what one write is good for. Nothing goes past a large part or its end.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        while !self.taken && self.large.is_empty() && self.behind.is_empty() && self.small.len() < ENOUGH {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.take(data)?;
                    if self.body.is_end_stream() {
                        self.end()?;
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(Stopped::Body)),
                None => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes) -> Result<(), Stopped> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.sending {
            // more than was announced could be read as another request
            Sending::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or(Stopped::Body)?,
            Sending::Chunked => {
                self.small.extend_from_slice(chunk_line(data.len(), &mut [0; CHUNK_LINE]));
                self.behind = b"\r\n";
            }
        }
        if data.len() > SMALL {
            self.large = data;
        } else {
            self.small.extend_from_slice(&data);
            self.small.extend_from_slice(std::mem::take(&mut self.behind));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stopped> {
        self.taken = true;
        match self.sending {
            Sending::Length(0) => {}
            Sending::Length(_) => return Err(Stopped::Body),
            Sending::Chunked if self.large.is_empty() => self.small.extend_from_slice(b"0\r\n\r\n"),
            Sending::Chunked => self.behind = b"\r\n0\r\n\r\n",
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.sent < self.small.len() || !self.large.is_empty() || !self.behind.is_empty()
    }

    fn advance(&mut self, mut written: usize) {
        self.touched = true;
        let of_small = written.min(self.small.len() - self.sent);
        self.sent += of_small;
        written -= of_small;
        if self.sent == self.small.len() {
            self.small.clear();
            self.sent = 0;
        }
        let of_large = written.min(self.large.len());
        self.large.advance(of_large);
        self.behind = self.behind.get(written - of_large..).unwrap_or_default();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::Waker;

    use http_body::Frame;
    use proptest::prelude::*;

    use super::*;

    /// A body that comes in these parts, each of them late where it says so.
    #[derive(Debug)]
    pub(in super::super) struct Parts(VecDeque<(bool, Bytes)>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.front_mut().is_some_and(|(late, _)| std::mem::take(late)) {
                return Poll::Pending;
            }
            Poll::Ready(self.0.pop_front().map(|(_, data)| Ok(Frame::data(data))))
        }
    }

    /// A socket that takes so many bytes at most by each write, or is not ready, and the same all over again.
    #[derive(Debug)]
    struct Narrow {
        taken: Vec<u8>,
        turns: VecDeque<Option<usize>>,
    }

    impl Narrow {
        fn turn(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            self.turns.rotate_left(1);
            let Some(&Some(most)) = self.turns.back() else { return Poll::Pending };
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(most).collect();
            self.taken.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.turn(&[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.turn(slices)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn upload(parts: &[(bool, Bytes)], sending: Sending) -> Upload<Parts> {
        Upload {
            method: Method::POST,
            body: Parts(parts.iter().cloned().collect()),
            sending,
            small: b"head".to_vec(),
            sent: 0,
            large: Bytes::new(),
            behind: b"",
            taken: false,
            touched: false,
        }
    }

    /// A request without a body.
    pub(in super::super) fn request() -> Upload<Parts> {
        upload(&[], Sending::Length(0))
    }

    /// What has gone through the socket when all of it has.
    fn sent(mut upload: Upload<Parts>, turns: &[Option<usize>]) -> Vec<u8> {
        let mut socket = Narrow { taken: Vec::new(), turns: turns.iter().copied().collect() };
        loop {
            match upload.poll(&mut Context::from_waker(Waker::noop()), &mut socket) {
                Poll::Pending => {}
                Poll::Ready(done) => {
                    done.unwrap();
                    return socket.taken;
                }
            }
        }
    }

    fn in_chunks(parts: &[(bool, Bytes)]) -> Vec<u8> {
        let chunks = parts.iter().map(|(_, data)| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat());
        [b"head".to_vec(), chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
    }

    fn part(length: usize) -> (bool, Bytes) {
        (false, (b'a'..=b'z').cycle().take(length).collect())
    }

    /// What follows would be read as a size, or as a request.
    #[test]
    fn the_end_of_a_large_part_goes_before_what_comes_after_it() {
        for parts in [&[part(5000)][..], &[part(5000), part(5000)], &[part(5000), part(1)]] {
            for of_the_end in 0..3 {
                let first = "head1388\r\n".len() + 5000 + of_the_end;
                let turns = [Some(first), None, Some(100_000), Some(100_000), Some(100_000), Some(100_000)];
                assert_eq!(sent(upload(parts, Sending::Chunked), &turns), in_chunks(parts), "{parts:?} {of_the_end}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_passes_byte_by_byte_however_it_comes_and_goes(
            lengths in proptest::collection::vec((any::<bool>(), prop_oneof![1..50_usize, 4090..4110_usize, 1..20_000_usize]), 0..6),
            turns in proptest::collection::vec(prop_oneof![Just(None), (1..30_usize).prop_map(Some), (1..9000_usize).prop_map(Some)], 1..12),
        ) {
            prop_assume!(turns.iter().any(Option::is_some));
            let parts: Vec<_> = lengths.into_iter().map(|(late, length)| (late, part(length).1)).collect();
            prop_assert_eq!(sent(upload(&parts, Sending::Chunked), &turns), in_chunks(&parts));
            let whole: Vec<u8> = parts.iter().flat_map(|(_, data)| data.to_vec()).collect();
            let length = Sending::Length(whole.len() as u64);
            prop_assert_eq!(sent(upload(&parts, length), &turns), [&b"head"[..], &whole].concat());
        }
    }

    /// The HTTP library holds bodies to their lengths as well; what it let through would be another request.
    #[test]
    fn a_body_that_is_not_as_long_as_was_announced_does_not_pass() {
        for (announced, passes) in [(1, false), (2, true), (3, false)] {
            let mut upload = upload(&[part(2)], Sending::Length(announced));
            let mut written = Vec::new();
            let sent = upload.poll(&mut Context::from_waker(Waker::noop()), &mut written);
            assert_eq!(matches!(sent, Poll::Ready(Ok(()))), passes, "{announced}");
            assert!(passes || matches!(sent, Poll::Ready(Err(Stopped::Body))), "{sent:?}");
        }
    }
}
