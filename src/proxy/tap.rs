//! A copy of a body that passes, read for the record when the body is through. Nothing waits for it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;

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

/// The pieces of a body so far.
#[derive(Debug)]
pub(super) struct Tap {
    pieces: Vec<Bytes>,
    bytes: usize,
    params: Arc<reading::Params>,
}

impl Tap {
    /// A tap for a body that may be a message.
    pub(super) fn new(head: &Parts, params: &Arc<reading::Params>) -> Option<Box<Self>> {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let may_be_read = head.method == Method::POST
            && content_type.is_some_and(is_json)
            && !head.headers.contains_key(CONTENT_ENCODING)
            && params.tap.limit > 0;
        may_be_read.then(|| Box::new(Self { pieces: Vec::new(), bytes: 0, params: Arc::clone(params) }))
    }

    /// Keeps a piece, which costs nothing but its memory.
    pub(super) fn keep(&mut self, piece: &Bytes) {
        self.bytes += piece.len();
        if self.bytes > self.params.tap.limit {
            self.pieces.clear();
        } else {
            self.pieces.push(piece.clone());
        }
    }

    /// Reads the body, which is through.
    pub(super) fn read(self) -> Option<McpFacts> {
        if self.bytes > self.params.tap.limit {
            return None;
        }
        let whole = match &*self.pieces {
            [one] => one.clone(),
            several => {
                let mut whole = BytesMut::with_capacity(self.bytes);
                for piece in several {
                    whole.extend_from_slice(piece);
                }
                whole.freeze()
            }
        };
        let body = Body::read(&whole).ok()?;
        Some(McpFacts::of_body(&body, &self.params.tap.arguments))
    }
}

/// Whether a content type is that of JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}
