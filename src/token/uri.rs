//! A URI, and the one canonical form of all its spellings.

use std::borrow::Cow;
use std::cell::OnceCell;

use percent_encoding::percent_decode_str;

/// A longer URI is unclear. Calls have none that is longer.
const MAX_BYTES: usize = 8 * 1024;

/// A URI as it was sent, and its other forms, which are made when a rule asks for them.
#[derive(Debug)]
pub struct Uri<'u> {
    pub(super) sent: &'u str,
    forms: OnceCell<Option<[String; 2]>>,
}

impl<'u> Uri<'u> {
    /// Takes a URI as it was sent.
    pub fn new(sent: &'u str) -> Self {
        Self { sent, forms: OnceCell::new() }
    }

    /// The canonical form, and the same without a port. `None` where nobody can tell where it leads: `..` leads
    /// anywhere after a link or at the root, parsers drop line breaks and spaces around, make anything of what is no
    /// UTF-8, find another host beside a user, and some decode twice.
    pub(super) fn forms(&self) -> Option<&[String; 2]> {
        self.forms.get_or_init(|| forms(self.sent)).as_ref()
    }

    #[cfg(test)]
    pub(super) fn is_worked_out(&self) -> bool {
        self.forms.get().is_some()
    }
}

fn forms(sent: &str) -> Option<[String; 2]> {
    let (encoded, rest) = place_and_rest(sent);
    let (place, rest) = (decoded(encoded), decoded(rest));
    let is_dropped = |letter: char| letter.is_control() || letter == '\u{feff}';
    // in a query these are what was asked
    let is_odd = |letter: char| is_dropped(letter) || matches!(letter, '?' | '#' | char::REPLACEMENT_CHARACTER);
    let is_unclear = sent.len() > MAX_BYTES
        || sent.contains(is_dropped)
        || sent.trim() != sent
        || place.trim() != place
        || place.contains(is_odd)
        || [encoded, &place].into_iter().any(hides_host)
        || [&place, &rest].into_iter().any(|part| is_encoded(part) || has_dot_segment(part));
    (!is_unclear).then(|| [true, false].map(|with_port| canonical(&place, &rest, with_port)))
}

/// The canonical form of a pattern. One with dot segments may lead anywhere.
pub(super) fn canonical_pattern(text: &str) -> String {
    let (place, rest) = text.split_at(query_mark(text).unwrap_or(text.len()));
    let (place, rest) = (decoded(place), decoded(rest));
    if has_dot_segment(&place) || has_dot_segment(&rest) {
        return "*".to_owned();
    }
    let form = canonical(&place, &rest, true);
    form.strip_suffix('/').map(str::to_owned).unwrap_or(form)
}

/// Where a pattern speaks of a query: at a `?` with a name and `=` behind it. Any other `?` is one character.
pub(super) fn query_mark(pattern: &str) -> Option<usize> {
    let mut marks = pattern.match_indices('?').map(|(mark, _)| mark);
    marks.find(|mark| {
        pattern[mark + 1..].split_inclusive(['=', '?', '/']).next().is_some_and(|name| name.ends_with('='))
    })
}

/// All before the query and the fragment, and these.
pub(super) fn place_and_rest(uri: &str) -> (&str, &str) {
    uri.split_at(uri.find(['?', '#']).unwrap_or(uri.len()))
}

/// Percent-encoding of RFC 3986, undone once.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

fn is_encoded(text: &str) -> bool {
    let mut windows = text.as_bytes().windows(3);
    windows.any(|bytes| matches!(bytes, [b'%', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit)))
}

fn has_dot_segment(text: &str) -> bool {
    text.split(['/', '\\', ':', ';', '#']).any(|segment| matches!(segment.trim(), "." | ".."))
}

/// The canonical form of what is decoded: backslashes as slashes, one for many, the usual number of them after the
/// scheme, that and the host in lower case, no dot after the host, and of HTTP not the usual port, but a path at least.
fn canonical(place: &str, rest: &str, with_port: bool) -> String {
    let mut form = String::with_capacity(place.len() + rest.len() + "///".len());
    let mut path = place;
    if let Some((scheme, has_host, after)) = origin_of(place) {
        let end = if has_host { after.find(['/', '\\']).unwrap_or(after.len()) } else { 0 };
        let (authority, after) = after.split_at(end);
        let host = authority.trim_end_matches(|letter: char| letter.is_ascii_digit()).strip_suffix(':');
        let host = host.unwrap_or(authority);
        let is_http = ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
        let port = &authority[host.len()..];
        let port = if with_port && !(is_http && matches!(port, ":80" | ":443")) { port } else { "" };
        form.extend([scheme, if has_host { "://" } else { ":///" }, host.trim_end_matches('.'), port]);
        form.make_ascii_lowercase();
        // a pattern may go on in the path
        let is_bare = is_http && after.is_empty() && !authority.ends_with('*');
        path = if is_bare { "/" } else { after };
    }
    for letter in path.chars().chain(rest.chars()).map(|letter| if letter == '\\' { '/' } else { letter }) {
        if letter != '/' || !form.ends_with('/') {
            form.push(letter);
        }
    }
    form
}

/// Whether servers may find several hosts: beside a user, or where a file has one.
fn hides_host(place: &str) -> bool {
    origin_of(place).is_some_and(|(scheme, has_host, after)| {
        let authority = after.split('/').next().unwrap_or(after);
        has_host && (scheme.eq_ignore_ascii_case("file") || authority.contains('@'))
    })
}

/// The scheme, whether a host follows, and what stands after the slashes, however many there are.
fn origin_of(place: &str) -> Option<(&str, bool, &str)> {
    let (scheme, rest) = place.split_once(':').filter(|(scheme, _)| !scheme.contains(['/', '\\']))?;
    let after = rest.trim_start_matches(['/', '\\']);
    let is_local = scheme.eq_ignore_ascii_case("file") && (rest.len() - after.len() != 2 || after.is_empty());
    Some((scheme, !is_local, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_usual_uri_is_in_its_canonical_form() {
        for uri in ["file:///docs/a.md", "docs://public/x", "db://table?id=5", "https://example.com/a#b", "name", ""] {
            assert_eq!(forms(uri).unwrap(), [uri, uri]);
        }
    }

    #[test]
    fn what_all_spellings_mean() {
        for (uri, canonical, without_port) in [
            ("FILE:\\a%20b%5c/c//", "file:///a b/c/", "file:///a b/c/"),
            ("HTTP:Host.:8080?Q=%41//", "http://host:8080/?Q=A/", "http://host/?Q=A/"),
            ("https://Host.:443", "https://host/", "https://host/"),
            ("urn:ISBN:443", "urn://isbn:443", "urn://isbn"),
            ("//a\\\\b%", "/a/b%", "/a/b%"),
        ] {
            assert_eq!(forms(uri).unwrap(), [canonical, without_port], "{uri}");
        }
        for (pattern, canonical) in [
            ("https://Host*", "https://host*"),
            ("docs:///My%20Docs/", "docs://my docs"),
            ("file://*", "file://*"),
            ("db://a?//b?ID=?//", "db://a?/b?ID=?"),
            ("file:///a/../b", "*"),
        ] {
            assert_eq!(canonical_pattern(pattern), canonical, "{pattern}");
        }
    }

    #[test]
    fn where_a_pattern_speaks_of_a_query() {
        for (pattern, mark) in [
            ("db://t?id=?", Some(6)),
            ("db://t??=5", Some(7)),
            ("file:///?.log?a*=", Some(13)),
            ("file:///a=b?", None),
            ("s3://b?/year=20??/*", None),
            ("db://t?*", None),
        ] {
            assert_eq!(query_mark(pattern), mark, "{pattern}");
        }
    }

    #[test]
    fn forms_are_made_once() {
        let uri = Uri::new("FILE:///a");
        assert!(std::ptr::eq(uri.forms().unwrap(), uri.forms().unwrap()));
    }

    proptest! {
        /// Whatever is sent, what is made of it is not much longer, and it is unclear where it is too long.
        #[test]
        fn what_is_made_of_a_uri_is_bounded(
            parts in proptest::collection::vec("[a-zA-Z:/%.\\\\0-9é@?#; ]{0,4}|%[0-9a-fA-F]{2}|HTTP://|file:", 0..12),
            times in 1..400_usize,
        ) {
            let sent = parts.concat().repeat(times);
            let forms = forms(&sent);
            prop_assert!(forms.is_none() || sent.len() <= MAX_BYTES);
            for form in forms.iter().flatten() {
                prop_assert!(form.len() <= sent.len() + "///".len(), "{} {}", sent, form);
            }
            canonical_pattern(&sent);
        }
    }
}
