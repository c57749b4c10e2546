//! What a server of the older transport says first on its stream: where the client sends its messages, and in the
//! query of that which session it has.

use std::task::Poll;

use http::{HeaderMap, Response, Uri};

use super::sessions::{self, Named, Sessions};
use super::upstream::is_event_stream;
use crate::mcp::sse::{self, Events};

/// The longest beginning of a stream that is looked through, in bytes.
const MOST: usize = 4 * 1024;

/// Reads the beginning of a stream.
#[derive(Debug)]
pub(super) struct Endpoint {
    events: Events,
    read: usize,
    sessions: Sessions,
}

impl Endpoint {
    /// A reader for an answer to a GET that names no session, if it is a stream.
    pub(super) fn of<B>(answer: &Response<B>, sessions: &Sessions) -> Option<Box<Self>> {
        is_event_stream(answer)
            .then(|| Box::new(Self { events: Events::default(), read: 0, sessions: sessions.clone() }))
    }

    /// Reads on, before anybody else does. The session, if one is named, is this user's from here on.
    pub(super) fn read(&mut self, chunk: &[u8], user: &str) -> Poll<Option<Named>> {
        self.read += chunk.len();
        self.events.push(chunk);
        while let Some(event) = self.events.next_event() {
            if let Some(data) = sse::data(&event) {
                let named = (sse::name(&event) == Some(b"endpoint")).then(|| named(&data)).flatten();
                if let Some(named) = &named {
                    self.sessions.claim(named, user);
                }
                return Poll::Ready(named);
            }
        }
        if self.read > MOST { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// The session in the address that a client sends its messages to, absolute or not.
fn named(address: &str) -> Option<Named> {
    let query = address.split_once('?')?.1.split('#').next()?;
    let uri = Uri::builder().path_and_query(format!("/?{query}")).build().ok()?;
    sessions::named(&HeaderMap::new(), &uri).filter(|named| named.first().is_some())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::CONTENT_TYPE;

    use super::super::sessions::Params;
    use super::*;

    fn owners() -> Sessions {
        Sessions::new(&Params { capacity: 100, idle: Duration::from_hours(1) })
    }

    fn endpoint(sessions: &Sessions) -> Endpoint {
        let answer = Response::builder().header(CONTENT_TYPE, "text/event-stream; charset=utf-8").body(()).unwrap();
        *Endpoint::of(&answer, sessions).unwrap()
    }

    #[test]
    fn a_session_is_hers_whose_stream_names_it() {
        for (stream, id) in [
            ("event: endpoint\ndata: /messages?sessionId=made\n\n", "made"),
            (": ping\r\n\r\nevent: endpoint\r\ndata: /m/?x=1&session_id=made\r\n\r\ndata: {}", "made"),
            ("\u{feff}data:http://host/m?sessionId=a%2Fb#x\nevent:endpoint\n\n", "a/b"),
        ] {
            let sessions = owners();
            let mut endpoint = endpoint(&sessions);
            let told = stream.bytes().find_map(|byte| match endpoint.read(&[byte], "alice") {
                Poll::Ready(named) => Some(named),
                Poll::Pending => None,
            });
            assert!(told.flatten().is_some(), "{stream}");
            let named = named(&format!("/m?sessionId={}", id.replace('/', "%2f"))).unwrap();
            assert!(sessions.may_use(&named, "alice") && !sessions.may_use(&named, "bob"), "{stream}");
        }
    }

    #[test]
    fn what_is_no_endpoint_names_no_session() {
        let long = format!(": {}\n", "x".repeat(MOST));
        for stream in [
            "data: /messages?sessionId=made\n\n",
            "event: message\ndata: /messages?sessionId=made\n\n",
            "event: endpoint\ndata: /messages\n\n",
            "event: endpoint\ndata: /messages?sessionId=\n\n",
            "data: {}\n\nevent: endpoint\ndata: /messages?sessionId=made\n\n",
            long.as_str(),
        ] {
            assert!(matches!(endpoint(&owners()).read(stream.as_bytes(), "alice"), Poll::Ready(None)), "{stream}");
        }
        assert!(Endpoint::of(&Response::new(()), &owners()).is_none());
    }
}
