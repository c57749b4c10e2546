//! A copy of a body that passes, read for the record when the body is through. Nothing waits for it.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;

use super::holding::{Holding, Share};
use super::reading;
use crate::audit::{Arguments, McpFacts};
use crate::mcp::Body;

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
            Box::new(Self { held: Some(nothing), params: Arc::clone(params) })
        })
    }

    /// Keeps a piece, which costs nothing but its memory.
    pub(super) fn keep(&mut self, piece: &Bytes) {
        self.held = self.held.take().and_then(|mut held| {
            let fits = held.push(piece.clone()).is_ok();
            (fits && !held.is_too_large()).then_some(held)
        });
    }

    /// Reads the body, which is through.
    pub(super) fn read(self) -> Option<McpFacts> {
        let whole = self.held?.into_bytes();
        let body = Body::read(&whole).ok()?;
        Some(McpFacts::of_body(&body, &self.params.tap.arguments))
    }
}

/// Whether a content type is that of JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}
