//! How long a token lives, as people write it: `90d`, `1y`, `2027-01-31`, `never`.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// The end of a token's life, as asked for.
#[derive(Clone, Copy, Debug)]
pub enum Lifetime {
    /// So long from now. Days and years are the calendar's, in UTC.
    For(Span),
    /// Until this moment; a date alone means its first instant in UTC.
    Until(Timestamp),
    /// Without an end.
    Never,
}

/// Why a text is no lifetime, or a lifetime has no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// Not in the language.
    #[error("`{0}` is not a lifetime: write one such as 45s, 12h, 90d, 1y, a date such as 2027-01-31, or never")]
    Unreadable(String),
    /// The token would be dead at birth.
    #[error("`{0}` lies in the past or is empty: write a moment to come")]
    Past(String),
    /// Later than calendars go.
    #[error("`{0}` is too far away: write `never` for a token without an end")]
    TooFar(String),
}

impl Lifetime {
    /// The moment at which a token made `now` ends; `None` for never.
    ///
    /// # Errors
    /// The moment is not after `now`, or lies beyond the calendar.
    pub fn end(self, now: Timestamp) -> Result<Option<Timestamp>, LifetimeError> {
        let (end, text) = match self {
            Self::Never => return Ok(None),
            Self::Until(end) => (end, end.to_string()),
            Self::For(span) => {
                let end = now.to_zoned(TimeZone::UTC).checked_add(span);
                (end.map_err(|_| LifetimeError::TooFar(format!("{span:#}")))?.timestamp(), format!("{span:#}"))
            }
        };
        if end > now { Ok(Some(end)) } else { Err(LifetimeError::Past(text)) }
    }
}

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        if text == "never" {
            return Ok(Self::Never);
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self::Until(moment));
        }
        let unreadable = || LifetimeError::Unreadable(text.to_owned());
        if let Ok(span) = text.parse::<Span>() {
            return Ok(Self::For(span));
        }
        let date = text.parse::<Date>().map_err(|_| unreadable())?;
        Ok(Self::Until(date.to_zoned(TimeZone::UTC).map_err(|_| unreadable())?.timestamp()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_that_people_ask_for() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        for (text, end) in [
            ("45s", Some("2026-11-22T08:00:45Z")),
            ("12h", Some("2026-11-22T20:00:00Z")),
            ("7d", Some("2026-11-29T08:00:00Z")),
            ("30d", Some("2026-12-22T08:00:00Z")),
            ("90d", Some("2027-02-20T08:00:00Z")),
            ("1y", Some("2027-11-22T08:00:00Z")),
            ("2027-01-31", Some("2027-01-31T00:00:00Z")),
            ("2027-01-31T12:00:00+02:00", Some("2027-01-31T10:00:00Z")),
            ("never", None),
        ] {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!(lifetime.end(now), Ok(end.map(|end| end.parse().unwrap())), "{text}");
        }
        for text in ["", "90", "soon", "Never", "2027-13-01", "d90"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
        for text in ["0s", "-1d", "2020-01-01", "2026-11-22T08:00:00Z", "9999y"] {
            assert!(text.parse::<Lifetime>().unwrap().end(now).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_end_is_always_ahead(text in "[0-9a-z.:+-]{0,24}", second in 0_i64..4_000_000_000) {
            let now = Timestamp::from_second(second).unwrap();
            if let Ok(Ok(Some(end))) = text.parse::<Lifetime>().map(|lifetime| lifetime.end(now)) {
                prop_assert!(end > now);
            }
        }
    }
}
