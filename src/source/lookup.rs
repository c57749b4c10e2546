//! A source that is asked for one token at a time, by the SHA-256 of the token, which itself never
//! leaves this process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::facts::{Bounds, CacheCounts, Facts, Unavailable};
use super::fetch::{Client, ClientParams, Failure, Reply, Validators};
use super::trouble::{Troubles, Voice};
use super::url::LookupUrl;
use crate::access::{self, Finding, Generation, Grant, Policy};
use crate::document::{Problem, Problems};
use crate::token::{TokenDigest, TokenList};

/// How often a service is asked that has not answered yet.
const AGAIN: Duration = Duration::from_secs(1);

/// The settings of a source that is asked for one token at a time.
#[derive(Clone, Debug)]
pub struct LookupParams {
    /// Where a token is, with a place for its digest.
    pub url: LookupUrl,
    /// The way there.
    pub client: ClientParams,
    /// How long an answer about a token holds.
    pub ttl: Duration,
    /// How long the answer holds that there is no such token.
    pub negative_ttl: Duration,
    /// How many tokens are kept.
    pub capacity: u64,
    /// How many digests are kept of which there is no token.
    pub negative_capacity: u64,
    /// How many questions are asked at the same time.
    pub parallel: usize,
}

/// Looks tokens up.
#[derive(Debug)]
pub(super) struct Lookup {
    url: LookupUrl,
    client: Client,
    policy: Arc<Policy>,
    /// By generation, too: an answer that was long in coming counts only for the state of things in
    /// which it was asked for.
    facts: Facts<(Generation, TokenDigest), Fact>,
    ttl: Duration,
    /// The digests that the source knew when it was asked last, however long ago.
    met: Cache<TokenDigest, ()>,
    asking: Semaphore,
    troubles: Arc<Troubles>,
}

impl Lookup {
    pub(super) fn new(params: &LookupParams, policy: &Arc<Policy>, troubles: &Arc<Troubles>) -> Self {
        let bounds = Bounds {
            capacity: params.capacity,
            nothing_capacity: params.negative_capacity,
            expiry: WhileGood,
            nothing_ttl: Some(params.negative_ttl),
        };
        Self {
            url: params.url.clone(),
            client: Client::new(&params.client),
            policy: Arc::clone(policy),
            facts: Facts::new(bounds),
            ttl: params.ttl,
            met: Cache::builder().max_capacity(params.capacity).eviction_policy(EvictionPolicy::lru()).build(),
            asking: Semaphore::new(params.parallel),
            troubles: Arc::clone(troubles),
        }
    }

    /// What the source knows of a digest, now or a short while ago, and until when a token that it knows
    /// need not be asked for again.
    pub(super) async fn find(&self, generation: Generation, digest: TokenDigest) -> (Finding, Option<Instant>) {
        match self.facts.know((generation, digest), self.ask(&digest)).await {
            Ok(Some(Fact { grant, until })) => (Finding::Found(grant), Some(until)),
            Ok(None) => (Finding::Nobody, None),
            Err(Unavailable) => (Finding::Unavailable, None),
        }
    }

    pub(super) async fn settle(&self) {
        self.facts.settle().await;
    }

    pub(super) fn counts(&self) -> CacheCounts {
        self.facts.counts()
    }

    /// Whether the source would have to be asked about a digest that it is not known to know.
    pub(super) fn is_stranger(&self, generation: Generation, digest: &TokenDigest) -> bool {
        self.facts.recall(&(generation, *digest)).is_none() && !self.met.contains_key(digest)
    }

    /// While the service has failed everybody so far, this process is not ready, and perhaps nobody is sent to it who
    /// would ask again. So it is asked here, for the digest of nothing, until it has answered once.
    pub(super) async fn look_until_known(&self) {
        while !self.troubles.is_known() {
            sleep(AGAIN).await;
            if self.troubles.is_blind() {
                let _ = self.ask(&TokenDigest::of("")).await;
            }
        }
    }

    async fn ask(&self, digest: &TokenDigest) -> Result<Option<Fact>, Unavailable> {
        let answer = self.fetch(digest).await;
        match answer {
            Ok(found) => {
                self.troubles.at_peace(Voice::List);
                match &found {
                    Some(_) => self.met.insert(*digest, ()),
                    None => self.met.invalidate(digest),
                }
                Ok(found.map(|grant| Fact { until: Instant::now() + good_for(&grant, self.ttl), grant }))
            }
            Err(problems) => {
                self.troubles.complain(Voice::List, &problems);
                Err(Unavailable)
            }
        }
    }

    async fn fetch(&self, digest: &TokenDigest) -> Result<Option<Arc<Grant>>, Problems> {
        let trouble = |failure: Failure| Problem::outside(self.url.to_string(), failure.to_string());
        let uri = self.url.uri(digest).map_err(|error| trouble(error.into()))?;
        let turn = timeout(self.client.timeout(), self.asking.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(trouble(Failure::Busy).into()) };
        match self.client.get(uri, &Validators::default()).await.map_err(trouble)? {
            Reply::Absent => Ok(None),
            Reply::Content(content, _) => self.read(&content, digest).map(Some),
            Reply::Unchanged => Err(trouble(Failure::Status(http::StatusCode::NOT_MODIFIED)).into()),
        }
    }

    fn read(&self, content: &[u8], digest: &TokenDigest) -> Result<Arc<Grant>, Problems> {
        let place = self.url.to_string();
        let list = TokenList::parse_json(Path::new(&place), content)?;
        let list = list.without_tokens(Path::new(&place), &self.policy.prefix)?;
        access::fetched(&list, &self.policy, digest).ok_or_else(|| {
            Problem::outside(place, "answered with something else than the one token that was asked for").into()
        })
    }
}

/// What the source said about a token, and until when that holds.
#[derive(Clone)]
struct Fact {
    grant: Arc<Grant>,
    until: Instant,
}

/// Answers hold for a while, but not past the end of the token: it may have been put off by then.
fn good_for(grant: &Grant, ttl: Duration) -> Duration {
    let left = grant.ends_at().map(|end| end.duration_since(Timestamp::now()));
    // of a token that has ended long ago nothing more is to be expected
    let left = left.and_then(|left| Duration::try_from(left).ok()).filter(|left| !left.is_zero());
    left.map_or(ttl, |left| left.min(ttl))
}

struct WhileGood;

impl Expiry<(Generation, TokenDigest), Fact> for WhileGood {
    fn expire_after_create(&self, _: &(Generation, TokenDigest), fact: &Fact, now: Instant) -> Option<Duration> {
        Some(fact.until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::tls;

    /// A source whose answers are held back until the test lets them go.
    struct Held {
        url: LookupUrl,
        /// What it answers to a question that comes now.
        body: Arc<Mutex<String>>,
        asked: Arc<Semaphore>,
        go: Arc<Semaphore>,
    }

    impl Held {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = LookupUrl::parse(&format!("http://{}/{{sha256}}", listener.local_addr().unwrap())).unwrap();
            let held =
                Self { url, body: Arc::default(), asked: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) };
            let (body, asked, go) = (Arc::clone(&held.body), Arc::clone(&held.asked), Arc::clone(&held.go));
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (body, asked, go) = (Arc::clone(&body), Arc::clone(&asked), Arc::clone(&go));
                    tokio::spawn(async move {
                        let mut received = Vec::new();
                        while !received.ends_with(b"\r\n\r\n") {
                            received.push(stream.read_u8().await.unwrap());
                        }
                        let body = body.lock().unwrap().clone();
                        asked.add_permits(1);
                        go.acquire().await.unwrap().forget();
                        let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
                        let length = body.len();
                        let answer =
                            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    });
                }
            });
            held
        }

        fn lookup(&self) -> Arc<Lookup> {
            let params = LookupParams {
                url: self.url.clone(),
                client: ClientParams {
                    tls: tls::nobody().unwrap(),
                    bearer_file: None,
                    timeout: Duration::from_secs(20),
                    max_size: 10_000,
                },
                ttl: Duration::from_hours(1),
                negative_ttl: Duration::from_hours(1),
                capacity: 100,
                negative_capacity: 100,
                parallel: 4,
            };
            Arc::new(Lookup::new(&params, &Arc::default(), &Arc::default()))
        }

        fn answer(&self, more: &str) {
            let hash = TokenDigest::of("opaque");
            *self.body.lock().unwrap() =
                format!(r#"{{"tokens":[{{"id":"t1","hash":"{hash}","user":"alice"{more}}}]}}"#);
        }
    }

    async fn find(lookup: &Lookup, generation: u64) -> Option<bool> {
        match lookup.find(Generation(generation), TokenDigest::of("opaque")).await.0 {
            Finding::Found(grant) => Some(grant.expires_at().is_some()),
            Finding::Nobody => None,
            Finding::Unavailable => panic!("{:?}", lookup.troubles.told().load()),
        }
    }

    #[tokio::test]
    async fn an_answer_that_was_asked_for_before_a_change_never_counts_after_it() {
        let source = Held::new().await;
        let lookup = source.lookup();
        source.answer("");
        let early = Arc::clone(&lookup);
        let early = tokio::spawn(async move { find(&early, 1).await });
        source.asked.acquire().await.unwrap().forget();
        // the answer is on its way; now the token gets an end, and a new state comes into force
        source.answer(r#","expires_at":"2026-01-01T00:00:00Z""#);
        let late = Arc::clone(&lookup);
        let late = tokio::spawn(async move { find(&late, 2).await });
        source.asked.acquire().await.unwrap().forget();
        source.go.add_permits(2);
        assert_eq!(early.await.unwrap(), Some(false));
        assert_eq!(late.await.unwrap(), Some(true), "it was told what the earlier one was");
        assert_eq!(find(&lookup, 2).await, Some(true), "the late answer took the place of the right one");
    }

    #[tokio::test]
    async fn a_token_that_was_nobodys_is_found_in_the_next_state() {
        let source = Held::new().await;
        let lookup = source.lookup();
        source.go.add_permits(2);
        assert_eq!(find(&lookup, 1).await, None);
        source.answer("");
        assert_eq!(find(&lookup, 1).await, None, "kept for an hour");
        assert_eq!(find(&lookup, 2).await, Some(false));
    }

    #[test]
    fn an_answer_does_not_outlive_its_token() {
        let kept = |expires_at: &str| {
            let digest = TokenDigest::of("opaque");
            let json = format!(r#"{{"tokens":[{{"id":"t1","hash":"{digest}","user":"alice"{expires_at}}}]}}"#);
            let list = TokenList::parse_json(Path::new("t.json"), json.as_bytes()).unwrap();
            let grant = access::fetched(&list, &Policy::default(), &digest).unwrap();
            good_for(&grant, Duration::from_mins(1))
        };
        let ends = |at: Timestamp| kept(&format!(r#","expires_at":"{at}""#));
        let now = Timestamp::now();
        assert_eq!(kept(""), Duration::from_mins(1));
        assert_eq!(ends(now + Duration::from_hours(1)), Duration::from_mins(1));
        assert!(ends(now + Duration::from_secs(30)) <= Duration::from_secs(30));
        assert_eq!(ends(now - Duration::from_secs(30)), Duration::from_mins(1));
    }
}
