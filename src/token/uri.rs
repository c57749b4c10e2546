//! A URI, and what servers may take it for.

use percent_encoding::percent_decode_str;

/// The most readings that are looked at, and the most bytes in all of them; a URI with more is unclear.
const MAX_READINGS: usize = 64;
const MAX_BYTES: usize = 32 * 1024;

/// A URI as it was sent, and as servers may read it; `None` where nobody can tell.
#[derive(Debug)]
pub struct Uri<'u> {
    pub(super) sent: &'u str,
    pub(super) readings: Option<Vec<String>>,
    pub(super) loose_readings: Option<Vec<String>>,
}

impl<'u> Uri<'u> {
    /// Works out the readings.
    pub fn new(sent: &'u str) -> Self {
        let strict = readings(sent, &[SPELLING, PARTS]);
        // the others are these and more
        let loose_readings = strict.as_ref().and_then(|_| readings(sent, &[SPELLING, PARTS, PLACES]));
        Self { sent, readings: strict, loose_readings }
    }
}

/// What a pattern may be written like, likewise.
pub(super) fn readings_of_pattern(text: &str) -> Option<Vec<String>> {
    readings(text, &[SPELLING, &[with_plain_origin]])
}

/// The same without its query, if it has one.
pub(super) fn readings_without_query(pattern: &str) -> Vec<String> {
    let Some(place) = before(pattern, '?') else { return Vec::new() };
    let others = readings_of_pattern(&place).unwrap_or_default();
    [place].into_iter().chain(others).collect()
}

/// What some servers do to a URI before they use it; `None` if it changes nothing.
type Step = fn(&str) -> Option<String>;

/// Other spellings of the same.
const SPELLING: &[Step] = &[decoded, with_slashes, without_empty_segments];

/// What is left of it for a server that heeds neither query nor fragment.
const PARTS: &[Step] = &[|uri| before(uri, '?'), |uri| before(uri, '#')];

/// Other ways to name the same place. They matter to rules that deny alone, for who allows has named the place.
const PLACES: &[Step] = &[with_plain_origin, with_bare_host, without_host, with_host_in_path, without_last_slash];

/// Everything, besides the URI itself, that the steps can make of it, in whatever order a server takes them.
/// Nothing at all if one of these texts is unclear.
fn readings(uri: &str, steps: &[&[Step]]) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let (mut seen, mut bytes) = (0, 0);
    loop {
        let text = if seen == 0 { uri } else { found.get(seen - 1)? };
        if is_unclear(text) || found.len() > MAX_READINGS || bytes > MAX_BYTES {
            return None;
        }
        let made: Vec<String> = steps.iter().copied().flatten().filter_map(|step| step(text)).collect();
        for reading in made {
            if reading != uri && !found.contains(&reading) {
                bytes += reading.len();
                found.push(reading);
            }
        }
        if seen == found.len() {
            return Some(found);
        }
        seen += 1;
    }
}

/// Whether a text leads nobody knows where: `..` does after a link or at the root, and parsers drop line breaks and
/// spaces around a place, and make anything of what is no UTF-8. In a query these are what was asked.
fn is_unclear(text: &str) -> bool {
    let (place, _) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    place.trim() != place
        || place.contains(|letter: char| letter.is_control() || letter == char::REPLACEMENT_CHARACTER)
        || text.split(['/', '\\', ':', ';']).any(|segment| matches!(segment.trim(), "." | ".."))
}

/// Percent-encoding of RFC 3986, undone once.
fn decoded(uri: &str) -> Option<String> {
    let text = percent_decode_str(uri).decode_utf8_lossy();
    (text != uri).then(|| text.into_owned())
}

/// Backslashes as the URL standard of WHATWG reads them.
fn with_slashes(uri: &str) -> Option<String> {
    uri.contains('\\').then(|| uri.replace('\\', "/"))
}

/// Slashes as POSIX reads them, and the usual number of them before the path: three for files, else two.
fn without_empty_segments(uri: &str) -> Option<String> {
    let (scheme, rest) = scheme_of(uri)?;
    let path = rest.trim_start_matches('/');
    let slashes = rest.len() - path.len();
    let usual = if slashes != 2 && scheme.eq_ignore_ascii_case("file") { 3 } else { 2 };
    if slashes == usual && !path.contains("//") {
        return None;
    }
    let mut text = path.to_owned();
    while text.contains("//") {
        text = text.replace("//", "/");
    }
    Some(format!("{scheme}:{}{text}", "/".repeat(usual)))
}

fn before(uri: &str, mark: char) -> Option<String> {
    uri.split_once(mark).map(|(before, _)| before.to_owned())
}

/// Scheme and authority in lower case.
fn with_plain_origin(uri: &str) -> Option<String> {
    let (scheme, _) = scheme_of(uri)?;
    let origin = authority_of(uri).map_or(scheme.len(), |(before, authority, _)| before.len() + authority.len());
    let (origin, path) = uri.split_at_checked(origin)?;
    origin.contains(|letter: char| letter.is_ascii_uppercase()).then(|| origin.to_ascii_lowercase() + path)
}

/// The host without user and port, and the path that HTTP has at least.
fn with_bare_host(uri: &str) -> Option<String> {
    let (before, authority, path) = authority_of(uri)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
    let host = port.map_or(host, |(host, _)| host).trim_end_matches('.');
    let root = if path.is_empty() && before.starts_with("http") { "/" } else { "" };
    (host != authority || !root.is_empty()).then(|| format!("{before}{host}{root}{path}"))
}

/// A file, for a server that does not heed the host.
fn without_host(uri: &str) -> Option<String> {
    let (before, authority, path) = authority_of(uri)?;
    (before == "file://" && !authority.is_empty()).then(|| format!("{before}{path}"))
}

/// A file, for a server that takes all after `file://` for its path.
fn with_host_in_path(uri: &str) -> Option<String> {
    let (before, authority, path) = authority_of(uri)?;
    (before == "file://" && !authority.is_empty()).then(|| format!("{before}/{authority}{path}"))
}

fn without_last_slash(uri: &str) -> Option<String> {
    let text = uri.trim_end_matches('/');
    (text != uri && !text.ends_with(':')).then(|| text.to_owned())
}

fn scheme_of(uri: &str) -> Option<(&str, &str)> {
    uri.split_once(':').filter(|(scheme, _)| !scheme.contains('/'))
}

/// What stands before the authority, the authority and what follows.
fn authority_of(uri: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = scheme_of(uri)?;
    let rest = rest.strip_prefix("//")?;
    let (before, _) = uri.split_at_checked(scheme.len() + "://".len())?;
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    Some((before, authority, path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_usual_uri_has_no_other_reading() {
        for uri in ["file:///docs/a.md", "docs://public/x", "db://table", "https://example.com/a", "name"] {
            let uri = Uri::new(uri);
            assert_eq!((uri.readings, uri.loose_readings), (Some(vec![]), Some(vec![])), "{}", uri.sent);
        }
    }

    #[test]
    fn what_has_too_many_readings_is_unclear() {
        let long = format!("file:///%{}41", "25".repeat(3000));
        let deep = format!("file:///%{}41", "25".repeat(100));
        for uri in [long, deep] {
            assert!(Uri::new(&uri).loose_readings.is_none(), "{uri}");
        }
    }

    #[test]
    fn readings_are_bounded_whatever_is_sent() {
        for part in ["%25", "%2f", "/", "//a", "?#", "\\", "..", "A@:1", "%20?"] {
            let uri = format!("HTTPS://Host/{}", part.repeat(8000 / part.len()));
            let readings = Uri::new(&uri).loose_readings.unwrap_or_default();
            assert!(readings.iter().map(String::len).sum::<usize>() <= 2 * MAX_BYTES + 8192, "{part}");
        }
    }

    proptest! {
        #[test]
        fn any_uri_is_read_without_panic(uri in "[a-zA-Z:/%.\\\\0-9é@?#;]{0,40}") {
            let uri = Uri::new(&uri);
            prop_assert!(uri.readings.is_some() || uri.loose_readings.is_none());
        }
    }
}
