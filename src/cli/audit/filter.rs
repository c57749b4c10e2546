//! What one can look for in a log.

use std::net::IpAddr;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use sha2::{Digest, Sha256};

use crate::audit::{Logged, Text};

/// Which records are wanted; all that is given must hold.
#[derive(Args, Debug)]
pub(super) struct Filter {
    /// Of the token with this id
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
    /// Of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// From this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Calls of this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// allowed, denied or error
    #[arg(long, value_name = "OUTCOME", value_parser = ["allowed", "denied", "error"])]
    outcome: Option<String>,
    /// For this reason, such as expired
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Of this MCP session: its id, or what the log has of it
    #[arg(long, value_name = "ID", value_parser = session)]
    session: Option<Session>,
    /// Of the request with this id, which is in every answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// From then on: so long ago (7d, 2h), a date (UTC) or a moment
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Micros>,
    /// Until then: so long ago, the end of a date (UTC) or a moment
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<Micros>,
}

/// What a session may be called in the log: by the beginning of the SHA-256 of its id, for an id is as
/// good as a key to it.
#[derive(Clone, Debug)]
struct Session([String; 2]);

/// A moment, written as records write it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Micros(String);

impl Filter {
    pub(super) fn takes(&self, record: &Logged<'_>) -> bool {
        let is = |wanted: &Option<String>, found: &Option<Text<'_>>| {
            wanted.as_ref().is_none_or(|wanted| found.as_ref().is_some_and(|found| found.0 == *wanted))
        };
        let ts = &*record.ts.0;
        self.since.as_ref().is_none_or(|since| ts >= since.0.as_str())
            && self.until.as_ref().is_none_or(|until| ts < until.0.as_str())
            && is(&self.token_id, &record.pat_id)
            && is(&self.user, &record.user)
            && is(&self.outcome, &record.outcome)
            && is(&self.reason, &record.reason)
            && is(&self.request_id, &record.request_id)
            && self.session.as_ref().is_none_or(|Session(names)| {
                record.mcp_session.as_ref().is_some_and(|found| names.iter().any(|name| *name == found.0))
            })
            && self.tool.as_ref().is_none_or(|wanted| record.tools().any(|tool| tool == wanted))
            && self.ip.is_none_or(|wanted| record.client_ip.as_ref().is_some_and(|found| found.0.parse() == Ok(wanted)))
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a parser of clap's")]
fn session(text: &str) -> Result<Session, String> {
    let digest = Sha256::digest(text);
    let begin = digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Ok(Session([text.to_owned(), begin]))
}

fn since(text: &str) -> Result<Micros, String> {
    moment(text, Timestamp::now(), Ok)
}

fn until(text: &str) -> Result<Micros, String> {
    moment(text, Timestamp::now(), Date::tomorrow)
}

fn moment(text: &str, now: Timestamp, edge: impl Fn(Date) -> Result<Date, jiff::Error>) -> Result<Micros, String> {
    let unreadable = || format!("`{text}` is not a time: write one such as 7d, 2h, 2026-11-22 or 2026-11-22T08:00:00Z");
    let at = if let Ok(moment) = text.parse::<Timestamp>() {
        moment
    } else if let Ok(span) = text.parse::<Span>() {
        let ago = now.to_zoned(TimeZone::UTC).checked_sub(span.abs()).map_err(|_| unreadable())?;
        ago.timestamp()
    } else {
        let day = text.parse::<Date>().and_then(edge).map_err(|_| unreadable())?;
        day.to_zoned(TimeZone::UTC).map_err(|_| unreadable())?.timestamp()
    };
    Ok(Micros(format!("{at:.6}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        for (text, since, until) in [
            ("7d", "2026-11-15T08:00:00.000000Z", "2026-11-15T08:00:00.000000Z"),
            ("90m", "2026-11-22T06:30:00.000000Z", "2026-11-22T06:30:00.000000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000000Z", "2026-11-21T00:00:00.000000Z"),
            ("2026-11-20T01:00:00+01:00", "2026-11-20T00:00:00.000000Z", "2026-11-20T00:00:00.000000Z"),
        ] {
            assert_eq!(moment(text, now, Ok), Ok(Micros(since.to_owned())));
            assert_eq!(moment(text, now, Date::tomorrow), Ok(Micros(until.to_owned())));
        }
        assert!(["", "yesterday", "2026", "7"].iter().all(|text| moment(text, now, Ok).is_err()));
    }
}
