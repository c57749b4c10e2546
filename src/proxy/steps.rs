//! Single steps of the line, for `benches/line.rs` to time; they are no part of what the library offers. None of them
//! can send anything: that takes a [`Forward`](super::Forward), and none is made here.

use std::net::IpAddr;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, Method, Response, Uri};

use super::rewrite::{self, Hop, Rules};
use super::sessions::{self, Sessions};
use super::upstream::{Address, Awaited, Limits};
use crate::access::{IdentityHeaders, Permit};
use crate::audit::RequestId;
use crate::trace::TraceContext;

/// What rewrites the requests of one client.
#[derive(Debug)]
pub struct Rewriter {
    rules: Rules,
    hop: Hop,
}

impl Rewriter {
    /// On the way from this address to `upstream`.
    pub fn new(upstream: &Address, client_ip: IpAddr, request_id: RequestId, trace: TraceContext) -> Self {
        let hop = Hop { client_ip: Some(client_ip), secure: false, host: None, request_id, trace: Some(trace) };
        Self { rules: Rules::new(upstream, None, &IdentityHeaders::default()), hop }
    }

    /// The head that the upstream would get, but for its end.
    pub fn request(&self, method: Method, uri: &Uri, headers: &HeaderMap, permit: &Permit) -> Option<Vec<u8>> {
        self.rules.head(method, uri, headers, permit, &self.hop).ok().map(|head| head.end(Some(0)).0)
    }

    /// The head that the client would get of an answer.
    pub fn answer(&self, answer: Response<()>) -> Option<Response<()>> {
        let mut answer = rewrite::response(answer).ok()?;
        rewrite::set_request_id(answer.headers_mut(), self.hop.request_id);
        Some(answer)
    }
}

/// The head of an upstream's answer to a POST, read from bytes that came in one piece.
pub fn read_answer(mut bytes: &[u8]) -> Option<Response<()>> {
    let mut awaited = Awaited::new(Method::POST, Limits { size: 64 * 1024, fields: 100 });
    match awaited.poll(&mut Context::from_waker(Waker::noop()), &mut bytes) {
        Poll::Ready(Ok(arrived)) => Some(arrived.response),
        _ => None,
    }
}

/// All that is asked about the sessions of one request and its answer; whether the request may pass.
pub fn use_session(sessions: &Sessions, headers: &HeaderMap, uri: &Uri, user: &str, answer: &HeaderMap) -> bool {
    let Some(mut named) = sessions::named(headers, uri).filter(|named| sessions.may_use(named, user)) else {
        return false;
    };
    named.add(answer);
    sessions.claim(&named, user)
}
