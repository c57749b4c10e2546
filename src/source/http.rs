//! A whole list over HTTP, asked for again and again. While the source fails, the last good list stays
//! in force, and when it has failed for too long, nobody is let in and nobody is refused: it is not
//! known who is who.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::fetch::{Client, ClientParams, Failure, Reply, Validators};
use super::publish::Publisher;
use super::url::ListUrl;
use crate::document::{Problem, Problems};
use crate::token::TokenList;
use crate::watch::{Reload, Revision, blocking};

/// The settings of a list that comes over HTTP.
#[derive(Clone, Debug)]
pub struct HttpParams {
    /// Where the list is.
    pub url: ListUrl,
    /// The way there.
    pub client: ClientParams,
    /// How often it is asked for, give or take a tenth, so that many of us do not ask in step.
    pub refresh: Duration,
    /// How long a list stays in force that is not confirmed; longer than `refresh` and the client's
    /// timeout together.
    pub max_stale: Duration,
}

/// Follows a list.
#[derive(Debug)]
pub(super) struct HttpSource {
    params: HttpParams,
    client: Client,
    publisher: Arc<Publisher>,
    /// The list in force, if there is one.
    good: Option<Good>,
}

/// A list that was accepted. Moments are monotonic: the wall clock may jump.
#[derive(Debug)]
struct Good {
    revision: Revision,
    validators: Validators,
    /// When it was last asked for in full.
    read_at: Instant,
    /// When it becomes too old, unless it is confirmed.
    until: Instant,
}

impl HttpSource {
    /// Nothing is asked yet: that the source is down must not keep us from starting.
    pub(super) fn new(params: &HttpParams, publisher: &Arc<Publisher>) -> Self {
        let client = Client::new(&params.client);
        Self { params: params.clone(), client, publisher: Arc::clone(publisher), good: None }
    }

    pub(super) async fn follow(mut self, reload: Reload) {
        let mut reload = reload.listen();
        loop {
            let asked = Instant::now();
            let confirmed = self.refresh(asked).await;
            let now = Instant::now();
            match &mut self.good {
                Some(good) if confirmed => good.until = asked + self.params.max_stale,
                Some(good) if good.until <= now => {
                    self.publisher.withdraw();
                    self.good = None;
                }
                _ => {}
            }
            let next = now + self.params.refresh.mul_f64(0.9 + 0.2 * fastrand::f64());
            // a list is given a last chance at the moment at which it becomes too old
            let next = self.good.as_ref().map_or(next, |good| next.min(good.until));
            tokio::select! {
                () = sleep_until(next) => {}
                () = reload.next() => {}
            }
        }
    }

    /// Asks for the list and returns whether the one that is in force now is confirmed by that.
    async fn refresh(&mut self, asked: Instant) -> bool {
        // now and then in full, so that a source that forgets to change its validators does no lasting harm
        let known = self.good.as_ref().filter(|good| asked.duration_since(good.read_at) < self.params.max_stale);
        let known = known.map(|good| good.validators.clone()).unwrap_or_default();
        match self.client.get(self.params.url.uri().clone(), &known).await {
            Ok(Reply::Unchanged) => {
                self.publisher.unchanged();
                true
            }
            Ok(Reply::Content(content, validators)) => self.take(content, validators, asked).await,
            Ok(Reply::Absent) => self.trouble(&Failure::Status(http::StatusCode::NOT_FOUND)),
            Err(failure) => self.trouble(&failure),
        }
    }

    /// Puts a list into force, if it is another one.
    async fn take(&mut self, content: Vec<u8>, validators: Validators, asked: Instant) -> bool {
        let revision = Revision::of([content.as_slice()]);
        if self.good.as_ref().is_some_and(|good| good.revision == revision) {
            self.publisher.unchanged();
        } else {
            let (publisher, place) = (Arc::clone(&self.publisher), self.params.url.to_string());
            // a large list takes its time
            let noticed = std::time::Instant::now();
            let publish = move || {
                let place = Path::new(&place);
                let read = || TokenList::parse_json(place, &content)?.without_tokens(place, publisher.prefix());
                publisher.list(read, &revision.to_string(), Some(noticed))
            };
            if !blocking(publish).await {
                return false;
            }
        }
        self.good = Some(Good { revision, validators, read_at: asked, until: asked });
        true
    }

    fn trouble(&self, failure: &Failure) -> bool {
        let problem = Problem::outside(self.params.url.to_string(), failure.to_string());
        self.publisher.list(|| Err(Problems::from(problem)), "", None)
    }
}
