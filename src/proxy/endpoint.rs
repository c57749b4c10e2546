//! What a server of the older transport says first on its stream: where the client sends its messages, and in the
//! query of that which session it has.

use std::task::Poll;

use http::{HeaderMap, Response, Uri};

use super::sessions::{self, Named};
use super::upstream::is_event_stream;
use crate::mcp::sse::{self, Events};

/// The longest beginning of a stream that is looked through, in bytes.
const MOST: usize = 4 * 1024;

/// Reads the beginning of a stream.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    events: Events,
    read: usize,
}

impl Endpoint {
    /// A reader for an answer to a GET that names no session, if it is a stream.
    pub(super) fn of<B>(answer: &Response<B>) -> Option<Box<Self>> {
        is_event_stream(answer).then(Box::default)
    }

    /// Reads on, before the client does. Ready once the session is known, or known not to be named.
    pub(super) fn read(&mut self, chunk: &[u8]) -> Poll<Option<Named>> {
        self.read += chunk.len();
        self.events.push(chunk);
        while let Some(event) = self.events.next_event() {
            if let Some(data) = sse::data(&event) {
                let is_endpoint = sse::name(&event) == Some(b"endpoint");
                return Poll::Ready(if is_endpoint { named(&data) } else { None });
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
    use http::header::CONTENT_TYPE;

    use super::*;

    fn read(stream: &str) -> Option<Named> {
        let answer = Response::builder().header(CONTENT_TYPE, "text/event-stream; charset=utf-8").body(()).unwrap();
        let mut endpoint = Endpoint::of(&answer).unwrap();
        let told = stream.bytes().find_map(|byte| match endpoint.read(&[byte]) {
            Poll::Ready(named) => Some(named),
            Poll::Pending => None,
        });
        told.expect("it is known by the end of this stream")
    }

    #[test]
    fn the_first_event_names_the_session() {
        for (stream, query) in [
            ("event: endpoint\ndata: /messages?sessionId=made\n\n", "sessionId=made"),
            (": ping\r\n\r\nevent: endpoint\r\ndata: /m/?x=1&session_id=made\r\n\r\ndata: {}", "sessionId=made"),
            ("\u{feff}data:http://host/m?sessionId=a%2Fb#x\nevent:endpoint\n\n", "session_id=a/b"),
        ] {
            let of_query = sessions::named(&HeaderMap::new(), &format!("/?{query}").parse().unwrap()).unwrap();
            assert_eq!(read(stream).map(Named::into_keys), Some(of_query.into_keys()), "{stream}");
        }
    }

    #[test]
    fn what_is_no_endpoint_names_no_session() {
        let long = format!(": {}\nevent: endpoint\ndata: /messages?sessionId=made\n\n", "x".repeat(MOST));
        for stream in [
            "data: /messages?sessionId=made\n\n",
            "event: message\ndata: /messages?sessionId=made\n\n",
            "event: endpoint\ndata: /messages\n\n",
            "event: endpoint\ndata: /messages?sessionId=\n\n",
            "data: {}\n\nevent: endpoint\ndata: /messages?sessionId=made\n\n",
            long.as_str(),
        ] {
            assert!(read(stream).is_none(), "{stream}");
        }
        assert!(Endpoint::of(&Response::new(())).is_none());
    }
}
