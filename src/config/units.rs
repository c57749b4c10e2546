//! Durations and sizes as people write them.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Reads a duration such as `500ms`, `10s`, `5m` or `1h 30m`, longer than nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let unreadable = || format!("`{text}` is not a duration: write one such as 500ms, 10s, 5m or 1h");
    let duration: SignedDuration = text.parse().map_err(|_| unreadable())?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero()).ok_or_else(unreadable)
}

/// Reads a duration that may have days, such as `365d`; a day has 24 hours.
pub(super) fn days(text: &str) -> Result<SignedDuration, String> {
    let unreadable = || format!("`{text}` is not a duration: write one such as 90d or 12h");
    let span: Span = text.parse().map_err(|_| unreadable())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unreadable())?;
    if duration.is_positive() { Ok(duration) } else { Err(unreadable()) }
}

/// Reads a size such as `65536`, `64KiB` or `16MB`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.as_u64())
        .map_err(|_| format!("`{text}` is not a size: write a number of bytes, or one such as 64KiB or 16MiB"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(size("65536"), Ok(65_536));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("16 MB"), Ok(16_000_000));
        assert_eq!(days("365d"), Ok(SignedDuration::from_hours(365 * 24)));
        assert!(days("0d").is_err() && days("1y").is_err());
        for text in ["", "10", "-5s", "0s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "much", "-1", "1 parsec"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[0-9a-zA-Z. -]{0,20}") {
            let _ = (duration(&text), size(&text));
        }
    }
}
