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
use crate::proxy::body::{Inbound, Meter};
use crate::proxy::rewrite::Forward;

/// Up to this size, in bytes, a part of a body is copied behind what goes out before it.
const SMALL: usize = 4 * 1024;

/// How much is gathered for one write, in bytes.
const ENOUGH: usize = 16 * 1024;

/// A request of which some may have been written.
#[derive(Debug)]
pub(super) struct Upload {
    method: Method,
    body: Inbound,
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

    /// Takes in what has come of the body, up to what one write is good for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        while !self.taken && self.large.is_empty() && self.small.len() < ENOUGH {
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
                self.small.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::InboundBounds;

    /// The HTTP library holds bodies to their lengths as well; what it let through would be another request.
    #[test]
    fn a_body_that_is_not_as_long_as_was_announced_does_not_pass() {
        for (announced, passes) in [(1, false), (2, true), (3, false)] {
            let bounds = InboundBounds { size: 10, pause: Duration::from_secs(1), rate: 1 };
            let body = Inbound::new(Some(Bytes::from_static(b"{}")), None, bounds, None);
            let (method, sending, small, large) = (Method::POST, Sending::Length(announced), Vec::new(), Bytes::new());
            let (sent, behind, taken, touched) = (0, &b""[..], false, false);
            let mut upload = Upload { method, body, sending, small, sent, large, behind, taken, touched };
            let mut written = Vec::new();
            let sent = upload.poll(&mut Context::from_waker(std::task::Waker::noop()), &mut written);
            assert_eq!(matches!(sent, Poll::Ready(Ok(()))), passes, "{announced}");
            assert!(passes || matches!(sent, Poll::Ready(Err(Stopped::Body))), "{sent:?}");
        }
    }
}
