//! What an answer has to pass on its way back: lists lose what their caller may not use, event by event
//! in a stream, and text by text in JSON that goes on. What cannot be read although it may be a list is not passed on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::hints::Marks;
use super::holding::{Holding, Share};
use super::judgement::Asked;
use super::reading;
use super::tap::is_json;
use super::upstream::{Arriving, Failure};
use crate::access::{Calls, Narrowing, Permit};
use crate::mcp::sse::{self, Events};
use crate::mcp::{Call, Item, Lists, MAX_NAME, Texts};

/// How one caller's answers are looked through.
#[derive(Debug)]
pub(super) struct Screen {
    permit: Permit,
    narrowing: Narrowing,
    marks: Marks,
    asked: Asked,
    /// Whether anything is changed; otherwise hints are learned, and that is all.
    edits: bool,
    params: Arc<reading::Params>,
    /// Of an event stream, what waits for the end of its event.
    share: Share,
}

/// Why an answer is not passed on.
const UNREADABLE: &str = "a list in the upstream's answer cannot be read, so nothing can be taken out of it";
const TOO_LARGE: &str = "a list in the upstream's answer is larger than limits.inspect_answer";
const NO_ROOM: &str = "no room is left in limits.inspect_total to hold back an event";
const CODED: &str = "the upstream compressed an answer that has to be read, although it was asked not to";

impl Screen {
    pub(super) fn new(
        permit: Permit,
        narrowing: Narrowing,
        marks: Marks,
        asked: Asked,
        edits: bool,
        params: &Arc<reading::Params>,
        share: Share,
    ) -> Self {
        Self { permit, narrowing, marks, asked, edits, params: Arc::clone(params), share }
    }

    /// Puts the answer behind the screen. A single answer is read whole, so that it has its right length;
    /// a stream is read as it comes, and so is JSON of no known length where the answer may go on.
    pub(super) async fn place(self, response: Response<Arriving>) -> Result<Response<Screened>, Failure> {
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_stream =
            content_type.trim_start().get(..17).is_some_and(|start| start.eq_ignore_ascii_case("text/event-stream"));
        let is_json = is_json(content_type);
        let is_single = is_json && (self.asked != Asked::Stream || response.body().size_hint().exact().is_some());
        if response.body().is_end_stream() || !(is_stream || is_json) {
            // the older transport answers 202 and sends the list by its stream
            let status = response.status();
            let other =
                self.asked == Asked::List && self.edits && status.is_success() && status != StatusCode::ACCEPTED;
            if other && !response.body().is_end_stream() {
                return Err(Failure::Invalid(UNREADABLE));
            }
            return Ok(response.map(Screened::plain));
        }
        let is_coded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
        if response.headers().get_all(CONTENT_ENCODING).iter().any(is_coded) {
            return if self.edits { Err(Failure::Invalid(CODED)) } else { Ok(response.map(Screened::plain)) };
        }
        let (mut head, body) = response.into_parts();
        let body = if is_single {
            let limit = self.params.answer_timeout;
            let read = tokio::time::timeout(limit, self.read(body)).await;
            read.map_err(|_| Failure::Timeout("to end its answer"))??
        } else {
            let pieces = if is_stream { Pieces::Events(Events::default()) } else { Pieces::Texts(Texts::default()) };
            Screened(Kind::Stream(Box::new(Stream::new(body, pieces, self))))
        };
        // they were true of other bytes
        for name in [CONTENT_LENGTH, ETAG, LAST_MODIFIED].into_iter().chain(DIGESTS) {
            head.headers.remove(name);
        }
        Ok(Response::from_parts(head, body))
    }

    /// Reads a single answer.
    async fn read(mut self, mut body: Arriving) -> Result<Screened, Failure> {
        let mut text = Holding::new(self.params.inspect_answer, self.share.part(0));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(Failure::Broken)?.into_data() else { continue };
            let has_room = text.push(data).is_ok();
            if text.is_too_large() || !has_room && !self.edits {
                self.check_begun(text.bytes()).map_err(Failure::Invalid)?;
                return Ok(Screened(Kind::Begun(Some(text.into_bytes()), body)));
            }
            if !has_room {
                return Err(Failure::NoRoom);
            }
        }
        let (text, share) = text.into_parts();
        if text.is_empty() {
            return Ok(Screened(Kind::Whole(None)));
        }
        let changed = self.filtered(&text).map_err(Failure::Invalid)?;
        let text = changed.map_or(text, Bytes::from);
        Ok(Screened(Kind::Whole(Some(share.bind(text)))))
    }

    /// The text of a message without what its reader may not use; `None` if it stays as it is.
    fn filtered(&self, text: &[u8]) -> Result<Option<String>, &'static str> {
        let edited = str::from_utf8(text).ok().and_then(|text| self.lists().filter(text).ok());
        match edited {
            Some(edited) => Ok(edited.filter(|_| self.edits)),
            None if self.edits => Err(UNREADABLE),
            None => Ok(None),
        }
    }

    /// Whether the beginning of something too large to be held back may pass: that of a message, and of no list.
    fn check_begun(&self, text: &[u8]) -> Result<(), &'static str> {
        if !self.edits {
            return Ok(());
        }
        let text = begun(text).ok_or(UNREADABLE)?;
        let mut lists = self.lists();
        // it is cut, so it cannot be read to its end
        let _ = lists.filter(text);
        // in a batch, behind an answer that is large, there may be another one, and behind white space anything
        let is_message = text.trim_ascii_start().starts_with('{');
        if self.asked == Asked::List || !is_message || lists.found() { Err(TOO_LARGE) } else { Ok(()) }
    }

    /// The same of an event, which may have no data so far.
    fn check_begun_event(&self, event: &[u8]) -> Result<(), &'static str> {
        if !self.edits {
            return Ok(());
        }
        let event = begun(event).ok_or(UNREADABLE)?;
        let data = sse::data(event.as_bytes()).unwrap_or_default();
        match data.trim_start().chars().next() {
            // no message, however it ends
            Some(first) if self.asked != Asked::List && !matches!(first, '{' | '[') => Ok(()),
            _ => self.check_begun(data.as_bytes()),
        }
    }

    fn lists(&self) -> Lists<impl FnMut(&Item<'_>) -> bool> {
        let calls = self.permit.grant().calls().map(Calls::enforced);
        Lists::new(move |item: &Item<'_>| {
            let (call, read_only) = match item {
                Item::Tool { name, read_only } => {
                    // nobody can call one with a longer name
                    if name.len() <= MAX_NAME {
                        self.marks.learn(name, *read_only);
                    }
                    (Call::Tool(name), *read_only)
                }
                Item::Resource(uri) | Item::Template(uri) => (Call::Resource(uri), false),
                Item::Prompt(name) => (Call::Prompt(name), false),
            };
            calls.is_none_or(|calls| calls.decide(call, &self.narrowing, |_| read_only).is_ok())
        })
    }

    /// A piece of JSON as it may pass.
    fn pass_text(&self, text: Bytes) -> Result<Bytes, &'static str> {
        // a list has brackets
        if !text.iter().any(|byte| matches!(byte, b'{' | b'[')) {
            return Ok(text);
        }
        let changed = self.filtered(&text)?;
        Ok(changed.map_or(text, Bytes::from))
    }

    /// An event as it may pass.
    fn pass_event(&mut self, event: Bytes) -> Result<Bytes, &'static str> {
        let Some(data) = sse::data(&event) else {
            // nothing in it, or nothing that is text
            return if str::from_utf8(&event).is_ok() || !self.edits { Ok(event) } else { Err(UNREADABLE) };
        };
        // nothing at all, or an address, as the older transport announces it
        if data.trim().is_empty() {
            return Ok(event);
        }
        if self.asked != Asked::List && !data.trim_start().starts_with(['{', '[']) {
            if sse::name(&event) == Some(b"endpoint") {
                self.marks.move_to(&data);
            }
            return Ok(event);
        }
        let changed = self.filtered(data.as_bytes())?;
        Ok(changed.map_or(event.clone(), |changed| sse::with_data(&event, &changed)))
    }
}

/// The beginning of a text, without the character that it was cut in; none if it is no text.
fn begun(bytes: &[u8]) -> Option<&str> {
    match str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => bytes.utf8_chunks().next().map(|chunk| chunk.valid()),
        Err(_) => None,
    }
}

/// Digests of a body, in the names of several standards.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

// --- The body behind the screen -------------------------------------------------------------

/// The body of an answer, looked through where that is needed.
#[derive(Debug)]
pub(super) struct Screened(Kind);

#[derive(Debug)]
enum Kind {
    Plain(Arriving),
    Whole(Option<Bytes>),
    /// Too large to be held back, and no list.
    Begun(Option<Bytes>, Arriving),
    Stream(Box<Stream>),
}

/// An answer that goes on. What is not changed passes at once, and a copy of it is looked at.
#[derive(Debug)]
struct Stream {
    body: Arriving,
    pieces: Pieces,
    screen: Screen,
    /// Whether the piece that is coming is too large to be held back, and no list.
    through: bool,
    /// Why nothing more may pass.
    blocked: Option<&'static str>,
}

/// What it comes in.
#[derive(Debug)]
enum Pieces {
    Events(Events),
    Texts(Texts),
}

impl Pieces {
    fn push(&mut self, chunk: &[u8]) {
        match self {
            Self::Events(events) => events.push(chunk),
            Self::Texts(texts) => texts.push(chunk),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Events(events) => events.next_event(),
            Self::Texts(texts) => texts.next_text(),
        }
    }

    fn rest(&mut self) -> Bytes {
        match self {
            Self::Events(events) => events.rest(),
            Self::Texts(texts) => texts.rest(),
        }
    }

    /// The beginning of the piece that is not whole.
    fn begun(&self) -> &[u8] {
        match self {
            Self::Events(events) => events.begun(),
            Self::Texts(texts) => texts.begun(),
        }
    }
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The upstream broke off.
    #[error(transparent)]
    Upstream(io::Error),
    /// It must not be passed on.
    #[error("{0}")]
    Screened(&'static str),
}

impl Screened {
    /// An answer that needs no look.
    pub(super) fn plain(body: Arriving) -> Self {
        Self(Kind::Plain(body))
    }

    /// Closes the upstream's connection.
    pub(super) fn close(&mut self) {
        match &mut self.0 {
            Kind::Plain(body) | Kind::Begun(_, body) => body.close(),
            Kind::Whole(_) => {}
            Kind::Stream(stream) => stream.body.close(),
        }
    }
}

impl Stream {
    fn new(body: Arriving, pieces: Pieces, screen: Screen) -> Self {
        Self { body, pieces, screen, through: false, blocked: None }
    }

    fn pass(&mut self, piece: Bytes) -> Result<Bytes, &'static str> {
        match self.pieces {
            Pieces::Events(_) => self.screen.pass_event(piece),
            Pieces::Texts(_) => self.screen.pass_text(piece),
        }
    }

    /// The end of a piece whose beginning has passed. That was a message, which ends with its bracket, and was no
    /// message if it ends otherwise.
    fn pass_end(&self, piece: Bytes) -> Result<Bytes, &'static str> {
        let is_odd = matches!(self.pieces, Pieces::Texts(_)) && !piece.ends_with(b"}");
        if is_odd && self.screen.edits { Err(UNREADABLE) } else { Ok(piece) }
    }

    /// Whether the beginning of a piece too large to be held back may pass.
    fn check_begun(&self) -> Result<(), &'static str> {
        let begun = self.pieces.begun();
        match self.pieces {
            Pieces::Events(_) => self.screen.check_begun_event(begun),
            Pieces::Texts(_) => self.screen.check_begun(begun),
        }
    }

    /// All pieces that are whole, as they may pass.
    fn ready(&mut self) -> Result<Bytes, &'static str> {
        if let Some(why) = self.blocked {
            return Err(why);
        }
        let mut out = BytesMut::new();
        while let Some(piece) = self.pieces.next() {
            let passed = if std::mem::take(&mut self.through) { self.pass_end(piece) } else { self.pass(piece) };
            match passed {
                Ok(piece) if out.is_empty() && self.pieces.begun().is_empty() => return Ok(piece),
                Ok(piece) => out.extend_from_slice(&piece),
                // what came before it may still go
                Err(why) if !out.is_empty() => {
                    self.blocked = Some(why);
                    return Ok(out.freeze());
                }
                Err(why) => return Err(why),
            }
        }
        if self.through || self.pieces.begun().len() > self.screen.params.inspect_answer {
            if !self.through {
                self.check_begun()?;
                self.through = true;
            }
            out.extend_from_slice(&self.pieces.rest());
        }
        Ok(out.freeze())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let out = self.ready().map_err(Broken::Screened);
            match out {
                Ok(out) if out.is_empty() => {}
                // it has passed already
                _ if !self.screen.edits => {}
                out => return Poll::Ready(Some(out)),
            }
            let waiting = if self.through { 0 } else { self.pieces.begun().len() };
            if self.screen.share.resize(waiting).is_err() {
                if self.screen.edits {
                    return Poll::Ready(Some(Err(Broken::Screened(NO_ROOM))));
                }
                self.through = true;
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.pieces.push(&data);
                    if !self.screen.edits {
                        // what is said in it is known before anybody can act on it
                        let _ = self.ready();
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Broken::Upstream(error)))),
                None => {
                    let rest = self.pieces.rest();
                    let rest = if self.through { Ok(rest) } else { self.pass(rest) };
                    return match rest {
                        Ok(rest) if rest.is_empty() || !self.screen.edits => Poll::Ready(None),
                        rest => Poll::Ready(Some(rest.map_err(Broken::Screened))),
                    };
                }
            }
        }
    }
}

impl Body for Screened {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let upstream = |body: &mut Arriving, cx: &mut Context<'_>| {
            Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Broken::Upstream)))
        };
        match &mut self.0 {
            Kind::Plain(body) => upstream(body, cx),
            Kind::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Begun(text, body) => match text.take() {
                Some(text) => Poll::Ready(Some(Ok(Frame::data(text)))),
                None => upstream(body, cx),
            },
            Kind::Stream(stream) => stream.poll(cx).map(|data| {
                // until it has been taken it is held here
                data.map(|data| data.map(|data| Frame::data(stream.screen.share.part(data.len()).bind(data))))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Plain(body) => body.is_end_stream(),
            Kind::Whole(text) => text.is_none(),
            Kind::Begun(text, body) => text.is_none() && body.is_end_stream(),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Plain(body) => body.size_hint(),
            Kind::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Begun(..) | Kind::Stream(_) => SizeHint::default(),
        }
    }
}
