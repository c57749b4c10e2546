//! Open answers whose tokens are looked up one at a time: a token is asked for again when what was known
//! of it is old, once for all of its answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::streams::Streams;
use crate::source::Finder;
use crate::token::TokenDigest;

/// How often is looked for what has become old.
const TICK: Duration = Duration::from_millis(250);

/// How many tokens are asked for at the same time, so that requests are not kept waiting.
const PARALLEL: usize = 8;

/// How long a source is left alone with a token about which it could say nothing.
const REST: Duration = Duration::from_secs(1);

/// Asks for the tokens of open answers again and again, until the process ends.
pub async fn renew(streams: Arc<Streams>, finder: Finder) {
    let mut due = HashMap::new();
    loop {
        sleep(TICK).await;
        renew_old(&streams, &finder, &mut due).await;
    }
}

async fn renew_old(streams: &Arc<Streams>, finder: &Finder, due: &mut HashMap<TokenDigest, Instant>) {
    let mut open = streams.by_token();
    due.retain(|digest, _| open.contains_key(digest));
    let now = Instant::now();
    open.retain(|digest, _| due.get(digest).is_none_or(|due| *due <= now));
    let mut asking = JoinSet::new();
    for (digest, handles) in open {
        if asking.len() >= PARALLEL {
            note(asking.join_next().await, due);
        }
        let (streams, finder) = (Arc::clone(streams), finder.clone());
        asking.spawn(async move {
            let generation = streams.directory().generation();
            let (finding, until) = finder.look_up(generation, digest).await;
            let directory = streams.directory();
            for handle in handles {
                handle.renew(&directory, &finding, Timestamp::now());
            }
            (digest, until.unwrap_or_else(|| Instant::now() + REST))
        });
    }
    while !asking.is_empty() {
        note(asking.join_next().await, due);
    }
}

/// A question that panicked is asked again.
fn note(
    answer: Option<Result<(TokenDigest, Instant), tokio::task::JoinError>>,
    due: &mut HashMap<TokenDigest, Instant>,
) {
    due.extend(answer.and_then(Result::ok));
}
