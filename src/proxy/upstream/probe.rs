//! Whether the upstream is there, asked by ourselves and in nobody's name. It tells readiness and
//! decides nothing: requests find out for themselves.

use std::fmt::Display;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::connect::Connector;
use super::head::{Awaited, Limits, RequestHead};
use super::{Counts, Failure, Params};
use crate::descriptors::Descriptors;

/// The settings of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthParams {
    /// What is asked for by GET; without it, a connection is all that is wanted.
    pub path: Option<Uri>,
    /// How often.
    pub interval: Duration,
    /// How long the upstream may take.
    pub timeout: Duration,
}

/// Asks the upstream.
#[derive(Debug)]
pub struct Probe {
    connector: Connector,
    limits: Limits,
    host: HeaderValue,
    params: HealthParams,
    trouble: Arc<ArcSwapOption<String>>,
}

impl Probe {
    /// Nothing has been asked yet, so nothing is known to be well.
    pub fn new(upstream: &Params, host: Option<&HeaderValue>, params: &HealthParams) -> Self {
        // what the probe does is not counted among what clients do, and comes out of the reserve
        let (counts, descriptors) = (Arc::<Counts>::default(), Descriptors::default());
        Self {
            connector: Connector::new(upstream, &counts, &descriptors),
            limits: upstream.limits(),
            host: host.cloned().unwrap_or_else(|| upstream.address.host()),
            params: params.clone(),
            trouble: Arc::new(ArcSwapOption::from_pointee("the MCP server has not been asked yet".to_owned())),
        }
    }

    /// What is wrong with the upstream, if anything is.
    pub fn trouble(&self) -> &Arc<ArcSwapOption<String>> {
        &self.trouble
    }

    /// Asks until the process ends.
    pub async fn follow(self) {
        loop {
            let answer = timeout(self.params.timeout, self.ask()).await;
            let trouble = match answer {
                Ok(Ok(())) => None,
                Ok(Err(trouble)) => Some(trouble),
                Err(_) => Some(not_well("it takes too long")),
            };
            let before = self.trouble.load_full();
            match (before.as_deref(), &trouble) {
                (Some(_), None) => tracing::info!("the upstream is well"),
                (before, Some(trouble)) if before != Some(trouble) => {
                    tracing::warn!(trouble, "the upstream is not known to be well: not ready");
                }
                _ => {}
            }
            self.trouble.store(trouble.map(Arc::new));
            sleep(self.params.interval).await;
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let mut connection = self.connector.connect().await.map_err(|failure| match failure {
            // the want is ours, and tells nothing of the upstream
            Failure::Overloaded => format!("the MCP server cannot be asked: {failure}"),
            _ => not_well(failure),
        })?;
        let Some(path) = &self.params.path else { return Ok(()) };
        let mut head = RequestHead::new(Method::GET, path.path_and_query().map_or("/", PathAndQuery::as_str));
        head.field(&HOST, &self.host);
        head.own_field(&USER_AGENT, b"patgate");
        head.own_field(&CONNECTION, b"close");
        let (bytes, _) = head.end(Some(0));
        connection.socket().write_all(&bytes).await.map_err(not_well)?;
        let mut awaited = Awaited::new(Method::GET, self.limits);
        let answer = poll_fn(|cx| awaited.poll(cx, connection.socket())).await.map_err(not_well)?;
        // anything that is said by choice is a sign of life
        let status = answer.response.status();
        if status.is_server_error() { Err(not_well(format!("it answers {status}"))) } else { Ok(()) }
    }
}

fn not_well(why: impl Display) -> String {
    format!("the MCP server is not well: {why}")
}
