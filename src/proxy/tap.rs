//! A copy of a body that passes, read for the record when the body is through. Only its last part waits for that: it
//! does not pass where the headers say something else than the body.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::holding::{Holding, Share};
use super::reading;
use crate::audit::{Arguments, McpFacts};
use crate::mcp::headers::Mismatch;
use crate::mcp::{Body, headers};

/// What the record has of a body.
#[derive(Clone, Debug)]
pub struct Params {
    /// The largest body that is read for the record alone, in bytes; none is read if it is 0.
    pub limit: usize,
    /// What is kept of arguments.
    pub arguments: Arguments,
}

/// A body so far.
#[derive(Debug)]
pub(super) struct Tap {
    /// None if it is larger than is read, or no room was left: then its memory has been let go.
    held: Option<Holding>,
    /// The headers, if they repeat what is in the body.
    repeated: Option<HeaderMap>,
    params: Arc<reading::Params>,
}

impl Tap {
    /// A tap for a body that may be a message.
    pub(super) fn new(head: &Parts, params: &Arc<reading::Params>, share: impl FnOnce() -> Share) -> Option<Box<Self>> {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let may_be_read = head.method == Method::POST
            && content_type.is_some_and(is_json)
            && !head.headers.contains_key(CONTENT_ENCODING)
            && params.tap.limit > 0;
        may_be_read.then(|| {
            let nothing = Holding::new(params.tap.limit, share());
            Box::new(Self {
                held: Some(nothing),
                repeated: headers::repeating(&head.headers),
                params: Arc::clone(params),
            })
        })
    }

    /// Keeps a piece, which costs nothing but its memory.
    pub(super) fn keep(&mut self, piece: &Bytes) {
        self.held = self.held.take().and_then(|mut held| {
            let fits = held.push(piece.clone()).is_ok();
            (fits && !held.is_too_large()).then_some(held)
        });
    }

    /// Reads the body, which is through; also says whether the headers agree with it.
    pub(super) fn read(self) -> Option<(McpFacts, Result<(), Mismatch>)> {
        let whole = self.held?.into_bytes();
        let body = Body::read(&whole).ok()?;
        let agreement = self.repeated.map_or(Ok(()), |repeated| headers::check(&repeated, &body));
        Some((McpFacts::of_body(&body, &self.params.tap.arguments), agreement))
    }
}

/// Whether a content type is that of JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}
