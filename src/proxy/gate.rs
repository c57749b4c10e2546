//! The gate: the straight line of a request, from its head to the answer's.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use jiff::Timestamp;

use super::answer::{self, Answer};
use super::body::Outgoing;
use super::discovery::discovery;
use super::endpoint::Endpoint;
use super::forwarded::{Provenance, TrustedProxies};
use super::hints::Hints;
use super::holding::Budget;
use super::in_flight::{InFlight, Turn};
use super::inbound::InboundBounds;
use super::origin::{AllowedHosts, AllowedOrigins, Caller};
use super::rate::{self, Rates};
use super::reading::{self, Reading, drain};
use super::rewrite::{self, Hop, Rules};
use super::screen::{Screen, Screened};
use super::sessions::{self, NOT_HERS, Named, SessionKey, Sessions};
use super::streams::{Right, Streams};
use super::upstream::{self, Arriving, Counts, Failure, Reply, Upstream};
use crate::access::{Credential, Denial, Directory, Finding, IdentityHeaders, Permit, Question};
use crate::audit::{AuditLog, OpenRecord, session_digest};
use crate::descriptors::Descriptors;
use crate::source::Finder;
use crate::verdict::{Ended, Reason};

/// The event after which a client wants a stream to be resumed.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The settings of the gate.
#[derive(Clone, Debug)]
pub struct Params {
    /// The way to the upstream.
    pub upstream: upstream::Params,
    /// The `Host` sent there, instead of the one in its address.
    pub upstream_host: Option<HeaderValue>,
    /// The names of the identity headers.
    pub identity: IdentityHeaders,
    /// Browser origins besides those of this machine.
    pub allowed_origins: AllowedOrigins,
    /// Names of this server that may stand in `Host` on a loopback address, besides loopback's own.
    pub allowed_hosts: AllowedHosts,
    /// The table of sessions.
    pub sessions: sessions::Params,
    /// How often who may call.
    pub rates: rate::Params,
    /// Whether a stream may be resumed by a request that names no session of its user's.
    pub resume_outside_sessions: bool,
    /// The most header fields of a request.
    pub max_fields: usize,
    /// The bounds of a request's body.
    pub body: InboundBounds,
    /// The proxies in front that are believed.
    pub trusted_proxies: TrustedProxies,
    /// The most requests of one token at once.
    pub streams_per_token: usize,
    /// What is read in bodies.
    pub reading: reading::Params,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub ip: Option<IpAddr>,
    /// Whether it came to a loopback address, where a page of any site can make a browser connect.
    pub on_loopback: bool,
    /// Whether it came by TLS.
    pub secure: bool,
    /// Whether it has said by the PROXY protocol that it speaks for nobody it could name. It passes bytes on, and
    /// what these say of a client is the client's own word.
    pub names_nobody: bool,
}

/// The gate of one worker.
#[derive(Debug)]
pub struct Gate {
    directory: Arc<ArcSwap<Directory>>,
    finder: Finder,
    audit: AuditLog,
    rules: Rules,
    origins: AllowedOrigins,
    hosts: AllowedHosts,
    upstream: Upstream,
    upstream_counts: Arc<Counts>,
    streams: Arc<Streams>,
    sessions: Sessions,
    rates: Rates,
    in_flight: InFlight,
    proxies: TrustedProxies,
    descriptors: Descriptors,
    reading: Reading,
    resume_outside_sessions: bool,
    max_fields: usize,
    body_limit: u64,
}

/// What all gates of a process share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Who may do what.
    pub directory: Arc<ArcSwap<Directory>>,
    /// Who answers what the directory asks.
    pub finder: Finder,
    /// What is counted on the way to the upstream.
    pub upstream: Arc<Counts>,
    /// The answers that are still open.
    pub streams: Arc<Streams>,
    /// The owners of sessions.
    pub sessions: Sessions,
    /// How often who has called.
    pub rates: Rates,
    /// How many requests of whom are under way.
    pub in_flight: InFlight,
    /// What the upstream says of its tools.
    pub hints: Hints,
    /// What is held back of bodies.
    pub budget: Budget,
    /// How many connections there are, and may be.
    pub descriptors: Descriptors,
    /// Where records go.
    pub audit: AuditLog,
}

impl Gate {
    /// One worker's gate.
    pub fn new(params: &Params, shared: &Shared) -> Self {
        let Shared {
            directory,
            finder,
            upstream: upstream_counts,
            streams,
            sessions,
            rates,
            in_flight,
            hints,
            budget,
            descriptors,
            audit,
        } = shared.clone();
        let Params { upstream, upstream_host, identity, allowed_origins, allowed_hosts, body, .. } = params;
        let Params { trusted_proxies, reading, .. } = params;
        Self {
            rules: Rules::new(&upstream.address, upstream_host.as_ref(), identity),
            origins: allowed_origins.clone(),
            hosts: allowed_hosts.clone(),
            upstream: Upstream::new(upstream, &upstream_counts, &descriptors),
            upstream_counts,
            reading: Reading::new(reading, &hints, &budget, *body),
            resume_outside_sessions: params.resume_outside_sessions,
            max_fields: params.max_fields,
            body_limit: body.size,
            directory,
            finder,
            streams,
            sessions,
            rates,
            in_flight,
            proxies: trusted_proxies.clone(),
            descriptors,
            audit,
        }
    }

    /// The audit log, for what never becomes a request.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// How many connections there are, and may be.
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// Answers one request. The record is closed when the answer's last byte has gone, or when the
    /// exchange is dropped.
    pub async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Outgoing> {
        let Provenance { ip, secure, host } = if peer.names_nobody {
            Provenance { ip: peer.ip, secure: None, host: None }
        } else {
            self.proxies.provenance(peer.ip, request.headers())
        };
        let peer = Peer { ip, ..peer };
        let secure = secure.unwrap_or(peer.secure);
        let mut record = self.audit.begin(&request, ip, secure);
        // in case that nobody waits for the verdict
        record.note(|facts| facts.reason = Reason::NotJudged);
        let (request_id, trace) = (record.request_id(), record.trace());
        let caller = Caller::of(request.headers(), &self.origins);

        let mut response = match self.judge(&request, peer, &caller, &mut record).await {
            Ok((permit, named, turn)) => {
                record.note(|facts| facts.reason = Reason::Ok);
                let hop = Hop { client_ip: ip, secure, host, request_id, trace };
                match self.forward(request, &permit, named, &hop, &mut record).await {
                    Ok(Answered { reply, sessions, endpoint }) => {
                        let right = Right { permit, sessions };
                        self.follow(reply, right, turn, record).map(|body| body.read_by(endpoint))
                    }
                    Err(Some(answer)) => close(answer, record),
                    // the client has left: nobody reads an answer, and the record says so by not having one
                    Err(None) => answer::unread(StatusCode::BAD_REQUEST).0.map(Outgoing::own),
                }
            }
            Err(answer) => {
                // it was judged, even if the client leaves before it hears of it
                record.note(|facts| facts.reason = answer.reason);
                let (head, mut body) = request.into_parts();
                drain(&mut body, &head.headers).await;
                let preflight = answer.reason == Reason::Preflight;
                let mut response = close(answer, record);
                if preflight {
                    caller.mark_preflight(&head.headers, response.headers_mut());
                }
                response
            }
        };
        caller.mark(response.headers_mut());
        rewrite::set_request_id(response.headers_mut(), request_id);
        response
    }

    /// Everything that is judged before the upstream hears of it: house rules first, then the credential
    /// and the sessions that the request names, and at last whether the caller may call again already.
    async fn judge(
        &self,
        request: &Request<Incoming>,
        peer: Peer,
        caller: &Caller,
        record: &mut OpenRecord,
    ) -> Result<(Permit, Named, Turn), Answer> {
        if !record.has_room() {
            return Err(answer::audit_unavailable());
        }
        if has_more_fields(request.headers(), self.max_fields) {
            return Err(answer::head_too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        if !is_forwardable(request.method()) && request.method() != Method::OPTIONS {
            return Err(answer::method_not_allowed());
        }
        if !names_one_host(request) {
            return Err(answer::no_one_host());
        }
        if matches!(caller, Caller::Refused) {
            return Err(answer::bad_origin());
        }
        if peer.on_loopback && !self.hosts.allow(request) {
            return Err(answer::bad_host());
        }
        if request.method() == Method::OPTIONS {
            return Err(answer::preflight());
        }
        if let Some(answer) = discovery(request.method(), request.uri()) {
            // clients send their token along to these addresses: nothing of their headers is kept
            record.note(|facts| facts.user_agent = None);
            return Err(answer);
        }
        let permit = self.admit(request.headers(), peer, record).await?;
        let named = sessions::named(request.headers(), request.uri()).ok_or_else(answer::bad_session)?;
        record.note(|facts| facts.session = named.first().map(session_digest));
        if !self.sessions.may_use(&named, permit.grant().user()) {
            return Err(answer::session_mismatch());
        }
        if !self.resume_outside_sessions && request.headers().contains_key(LAST_EVENT_ID) {
            match self.sessions.are_known(request.headers(), permit.grant().user()) {
                Some(true) => {}
                Some(false) => return Err(answer::session_mismatch()),
                None => return Err(answer::resumes_outside_sessions()),
            }
        }
        if request.body().size_hint().lower() > self.body_limit {
            return Err(answer::body_too_large());
        }
        let turn = self.in_flight.begin(permit.grant()).ok_or_else(answer::too_many_streams)?;
        self.rates.call(permit.grant()).map_err(|limit| answer::rate_limited(limit.what, limit.wait))?;
        Ok((permit, named, turn))
    }

    /// Judges the credential. A list of digests knows the answer by itself, and nothing is waited for.
    async fn admit(&self, headers: &HeaderMap, peer: Peer, record: &mut OpenRecord) -> Result<Permit, Answer> {
        let directory = self.directory.load();
        record.note(|facts| facts.source_revision = Some(Arc::clone(directory.revision())));
        let now = record.at();
        let verdict = match Credential::from_headers(headers) {
            Err(denial) => Err(denial),
            Ok(credential) => match directory.question(&credential) {
                None => directory.authenticate(&credential, &Finding::Nobody, now),
                // the guard ends here: it must not be held while anything is waited for
                Some(question) => {
                    Box::pin(self.find_out(Guard::into_inner(directory), question, &credential, peer)).await?
                }
            },
        };
        if let Ok(permit) = &verdict {
            permit.grant().touch(now);
        }
        let grant = verdict.as_ref().map_or_else(|denial| denial.grant(), |permit| Some(permit.grant()));
        record.note(|facts| facts.grant = grant.cloned());
        verdict.map_err(|denial| answer::denied(&denial))
    }

    /// Judges a credential that the directory has a question about. What was found out is judged by the
    /// state that asked for it, and confirmed by the one that is in force by then. The outer error is an
    /// answer without any judgement.
    async fn find_out(
        &self,
        directory: Arc<Directory>,
        question: Question,
        credential: &Credential<'_>,
        peer: Peer,
    ) -> Result<Result<Permit, Denial>, Answer> {
        let generation = directory.generation();
        let is_stranger = self.finder.is_stranger(&question, generation, credential);
        let guess = is_stranger.then(|| self.rates.guess(peer.ip)).transpose();
        let guess = guess.map_err(|limit| answer::rate_limited(limit.what, limit.wait))?;
        let finding = self.finder.find(question, generation, credential).await;
        if let Some(guess) = guess.filter(|_| !matches!(finding, Finding::Nobody)) {
            guess.give_back();
        }
        let verdict = directory.authenticate(credential, &finding, Timestamp::now());
        Ok(verdict.and_then(|permit| self.streams.confirm(&permit).map(|()| permit)))
    }

    /// Reads of a request what has to be read, sends it upstream and judges the head of the answer. The error is what to answer instead, if there is anybody left to hear it.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        permit: &Permit,
        mut named: Named,
        hop: &Hop,
        record: &mut OpenRecord,
    ) -> Result<Answered, Option<Answer>> {
        let may_be_told_session = request.method() == Method::GET && named.first().is_none();
        if may_be_told_session && asks_for_events(request.headers()) {
            // what is compressed could not be read on its way back
            request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let cleared = self.reading.clear(request, permit, record).await?;
        let (forward, screen) = self.rules.request(cleared, permit, hop)?;
        let meter = Arc::clone(forward.meter());
        let reply = match self.upstream.send(forward).await {
            Ok(reply) => look_through(reply, screen).await,
            Err(failure) => Err(failure),
        };
        meter.tell(record);
        let reply = reply.map_err(|failure| {
            record.note(|facts| facts.bytes_in = meter.bytes());
            self.failed(&failure, hop)
        })?;
        // the answer may have been long in coming
        self.streams.confirm(permit).map_err(|denial| answer::denied(&denial))?;
        if let Some(made) = named.add(reply.response.headers()) {
            record.note(|facts| facts.session = Some(session_digest(&made)));
        }
        if !reply.response.status().is_success() {
            return Ok(Answered { reply, sessions: Vec::new(), endpoint: None });
        }
        let endpoint = if may_be_told_session { Endpoint::of(&reply.response) } else { None };
        if !self.sessions.claim(&named, permit.grant().user()) {
            return Err(self.failed(&Failure::Invalid(NOT_HERS), hop));
        }
        Ok(Answered { reply, sessions: named.into_keys(), endpoint })
    }

    /// What to answer when the upstream failed, if there is anybody left to hear it.
    fn failed(&self, failure: &Failure, hop: &Hop) -> Option<Answer> {
        self.upstream_counts.failed(failure);
        if matches!(failure, Failure::ClientGone) {
            return None;
        }
        tracing::warn!(request_id = hop.request_id.as_str(), error = %failure, "a request failed");
        Some(answer::failed(failure))
    }

    /// Hands the upstream's answer on, together with the record that its end closes.
    fn follow(&self, reply: Reply<Screened>, right: Right, turn: Turn, mut record: OpenRecord) -> Response<Outgoing> {
        let Reply { response, arrived, patience, request } = reply;
        record.note(|facts| facts.status = Some(response.status()));
        record.answered(arrived.into());
        let streams = Arc::clone(&self.streams);
        response.map(|body| Outgoing::relay(body, patience, request, record, right, turn, streams))
    }
}

/// An answer, the sessions that it is in, and who is to look for another one at its beginning.
struct Answered {
    reply: Reply<Screened>,
    sessions: Vec<SessionKey>,
    endpoint: Option<Box<Endpoint>>,
}

/// The answer as it may be passed on: without what belongs to the upstream alone, and behind a screen if
/// its caller may not see all of it.
async fn look_through(reply: Reply<Arriving>, screen: Option<Box<Screen>>) -> Result<Reply<Screened>, Failure> {
    let Reply { response, arrived, patience, request } = reply;
    let response = rewrite::response(response)?;
    let response = match screen {
        Some(screen) => Box::pin(screen.place(response)).await?,
        None => response.map(Screened::plain),
    };
    Ok(Reply { response, arrived, patience, request })
}

/// Whether there are more than so many fields: over HTTP/2 the library counts bytes alone. Cookies, which may come in
/// crumbs there, are one.
fn has_more_fields(headers: &HeaderMap, most: usize) -> bool {
    headers.len() > most && headers.len() - headers.get_all(COOKIE).iter().count().saturating_sub(1) > most
}

/// Whether a request says whom it is for, and says so once (RFC 9112 section 3.2): what stands before or behind us
/// may go by another of two names. HTTP/1.0 need not say it, and HTTP/2 says it in its target.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), second) => second.is_none(),
        (None, _) if request.version() == Version::HTTP_2 => request.uri().authority().is_some(),
        (None, _) => request.version() == Version::HTTP_10,
    }
}

/// Whether a client wants an event stream.
fn asks_for_events(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let is_events = |range: &[u8]| range.eq_ignore_ascii_case(EVENTS);
    headers.get_all(ACCEPT).iter().any(|value| value.as_bytes().windows(EVENTS.len()).any(is_events))
}

fn is_forwardable(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
}

/// Answers ourselves and closes the record.
fn close(answer: Answer, mut record: OpenRecord) -> Response<Outgoing> {
    let reason = answer.reason;
    let response = answer.into_response();
    record.note(|facts| {
        facts.reason = reason;
        facts.status = Some(response.status());
        facts.bytes_out = response.body().len() as u64;
    });
    record.close(Ended::Complete);
    response.map(Outgoing::own)
}

/// The response to what never became a request, with its record; see [`answer::unread`].
pub(crate) fn close_unread(status: StatusCode, mut record: OpenRecord) -> Response<Bytes> {
    let (mut response, reason) = answer::unread(status);
    rewrite::set_request_id(response.headers_mut(), record.request_id());
    record.note(|facts| {
        facts.reason = reason;
        facts.status = Some(status);
        facts.bytes_out = response.body().len() as u64;
    });
    record.close(Ended::Complete);
    response
}
