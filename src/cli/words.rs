//! Times and lengths in the words of people.

use jiff::{SignedDuration, Timestamp};

/// How far a moment is from now: "in 12 days", "3 hours ago", "just now". Rounded to the nearest unit.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    /// The name of a unit, its seconds, and how many of them are rather told in the next one.
    const UNITS: [(&str, u64, u64); 5] = [
        ("second", 1, 60),
        ("minute", 60, 60),
        ("hour", 60 * 60, 48),
        ("day", 24 * 60 * 60, 2 * 365),
        ("year", 365 * 24 * 60 * 60, u64::MAX),
    ];
    // half a second more or less is noise of the clock
    let distance = at.as_second() - now.as_second();
    let seconds = distance.unsigned_abs();
    let told = UNITS.iter().map(|(unit, length, limit)| (unit, (seconds + length / 2) / length, limit));
    match told.into_iter().find(|(_, count, limit)| count < *limit) {
        Some((_, 0, _)) | None => "just now".to_owned(),
        Some((unit, count, _)) => {
            let plural = if count == 1 { "" } else { "s" };
            if distance > 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
        }
    }
}

/// The end of a token's life: "in 12 days", "expired 3 days ago", "never".
pub(super) fn expiry(end: Option<Timestamp>, now: Timestamp) -> String {
    match end {
        None => "never".to_owned(),
        Some(end) if end <= now => format!("expired {}", relative(end, now)),
        Some(end) => relative(end, now),
    }
}

/// The same as the end of a sentence: "expires in 12 days", "expired 3 days ago", "never expires".
pub(super) fn expires(end: Option<Timestamp>, now: Timestamp) -> String {
    match end {
        None => "never expires".to_owned(),
        Some(end) if end <= now => expiry(Some(end), now),
        Some(end) => format!("expires {}", relative(end, now)),
    }
}

/// A length of time as the configuration has it: "365d", "12h".
pub(super) fn length(duration: SignedDuration) -> String {
    const DAY: i64 = 24 * 60 * 60;
    if duration.as_secs() % DAY == 0 && duration.subsec_nanos() == 0 {
        return format!("{}d", duration.as_secs() / DAY);
    }
    format!("{duration:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_seen_from_now() {
        let now: Timestamp = "2026-11-22T08:00:00.9Z".parse().unwrap();
        for (at, words) in [
            ("2026-11-22T08:00:00Z", "just now"),
            ("2026-11-22T08:00:01Z", "in 1 second"),
            ("2026-11-22T07:59:01Z", "59 seconds ago"),
            ("2026-11-22T08:01:00Z", "in 1 minute"),
            ("2026-11-22T08:59:29Z", "in 59 minutes"),
            ("2026-11-22T08:59:59Z", "in 1 hour"),
            ("2026-11-21T08:00:00Z", "24 hours ago"),
            ("2026-11-24T07:59:59Z", "in 2 days"),
            ("2026-12-04T07:59:58Z", "in 12 days"),
            ("2026-11-19T08:00:30Z", "3 days ago"),
            ("2027-11-22T08:00:00Z", "in 365 days"),
            ("2028-11-21T08:00:00Z", "in 2 years"),
            ("1970-01-01T00:00:00Z", "57 years ago"),
            ("9999-12-30T22:00:00Z", "in 7978 years"),
        ] {
            assert_eq!(relative(at.parse().unwrap(), now), words, "{at}");
        }
    }

    #[test]
    fn ends_of_life() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        for (end, words, sentence) in [
            (None, "never", "never expires"),
            (Some("2026-12-04T08:00:00Z"), "in 12 days", "expires in 12 days"),
            (Some("2026-11-19T08:00:00Z"), "expired 3 days ago", "expired 3 days ago"),
            (Some("2026-11-22T08:00:00Z"), "expired just now", "expired just now"),
        ] {
            let end = end.map(|end| end.parse().unwrap());
            assert_eq!((expiry(end, now).as_str(), expires(end, now).as_str()), (words, sentence));
        }
    }

    #[test]
    fn lengths_as_they_are_written() {
        assert_eq!(length(SignedDuration::from_hours(365 * 24)), "365d");
        assert_eq!(length(SignedDuration::from_hours(12)), "12h");
        assert_eq!(length(SignedDuration::from_secs(90)), "1m 30s");
    }
}
