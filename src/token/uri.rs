//! A URI, and the one canonical form of all its spellings.

use std::borrow::Cow;
use std::cell::OnceCell;

use percent_encoding::percent_decode_str;

/// A longer URI is unclear. Calls have none that is longer.
const MAX_BYTES: usize = 8 * 1024;

/// The schemes of which all browsers, and parsers like theirs, rewrite the host and the port.
const WEB: [&str; 5] = ["http", "https", "ws", "wss", "ftp"];

/// The schemes of which some parsers drop a `;` and what follows, in the last segment.
const WITH_PARAMETERS: [&str; 4] = ["http", "https", "ftp", "sftp"];

/// A URI as it was sent, and its other forms, which are made when a rule asks for them.
#[derive(Debug)]
pub struct Uri<'u> {
    pub(super) sent: &'u str,
    forms: OnceCell<Option<Forms>>,
}

/// The forms of a URI that are not as it was sent, each once.
#[derive(Debug)]
pub(super) struct Forms {
    /// The canonical form, and the same without a user.
    pub(super) canonical: Vec<String>,
    /// These without a port.
    pub(super) without_port: Vec<String>,
    /// Whether a part of it is an absolute path. Who joins paths forgets all that stands before.
    pub(super) has_absolute: bool,
    /// Whether it is one from where the host would stand.
    pub(super) is_absolute: bool,
}

impl<'u> Uri<'u> {
    /// Takes a URI as it was sent.
    pub fn new(sent: &'u str) -> Self {
        Self { sent, forms: OnceCell::new() }
    }

    /// Its other forms. `None` where nobody can tell where it leads: `..` leads anywhere after a link or at the root,
    /// parsers drop line breaks and spaces around, make anything of what is no UTF-8, find another host, and some
    /// decode twice.
    pub(super) fn forms(&self) -> Option<&Forms> {
        self.forms.get_or_init(|| forms(self.sent)).as_ref()
    }

    #[cfg(test)]
    pub(super) fn is_worked_out(&self) -> bool {
        self.forms.get().is_some()
    }
}

fn forms(sent: &str) -> Option<Forms> {
    if sent.len() > MAX_BYTES {
        return None;
    }
    let (encoded, rest) = place_and_rest(sent);
    let (place, rest) = (decoded(encoded), decoded(rest));
    let is_dropped = |letter: char| letter.is_control() || letter == '\u{feff}';
    // in a query these are what was asked
    let is_odd = |letter: char| is_dropped(letter) || matches!(letter, '?' | '#' | char::REPLACEMENT_CHARACTER);
    let is_unclear = sent.contains(is_dropped)
        || sent.trim() != sent
        || place.trim() != place
        || place.contains(is_odd)
        || hides_host(encoded, &place)
        // which segment is the last one?
        || place.contains('\\') && place.contains(';') && has_parameters(&place)
        || [&place, &rest].into_iter().any(|part| is_encoded(part) || has_dot_segment(part));
    if is_unclear {
        return None;
    }
    let (has_absolute, is_absolute) = absolute_parts(&place);
    let mut forms = Forms { canonical: Vec::new(), without_port: Vec::new(), has_absolute, is_absolute };
    let users: &[bool] = if authority(&place).contains('@') { &[true, false] } else { &[true] };
    for with_port in [true, false] {
        for with_user in users {
            let form = canonical(&place, &rest, *with_user, with_port);
            if form != sent && !forms.canonical.contains(&form) && !forms.without_port.contains(&form) {
                if with_port { &mut forms.canonical } else { &mut forms.without_port }.push(form);
            }
        }
    }
    Some(forms)
}

/// The canonical form of a pattern. One with dot segments may lead anywhere.
pub(super) fn canonical_pattern(text: &str) -> String {
    let (place, rest) = text.split_at(query_mark(text).unwrap_or(text.len()));
    let (place, rest) = (decoded(place), decoded(rest));
    if has_dot_segment(&place) || has_dot_segment(&rest) {
        return "*".to_owned();
    }
    let form = canonical(&place, &rest, true, true);
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

/// A URI without the parameters of its last segment, where some parsers drop them.
pub(super) fn without_parameters(uri: &str) -> Option<&str> {
    let (place, _) = place_and_rest(uri);
    let last = place.rfind('/').unwrap_or(0);
    let end = last + place[last..].find(';')?;
    has_parameters(place).then(|| &place[..end])
}

fn has_parameters(place: &str) -> bool {
    let is_scheme = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.');
    let scheme = place.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| scheme.chars().all(is_scheme));
    scheme.is_none_or(|scheme| is_one_of(scheme, &WITH_PARAMETERS) || !scheme.starts_with(char::is_alphabetic))
}

fn is_one_of(scheme: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|one| scheme.eq_ignore_ascii_case(one))
}

/// The canonical form of what is decoded: backslashes as slashes, one for many, the usual number of them after the
/// scheme, that and the host in lower case, no dot after the host, of the web not the usual port nor zeros before it,
/// but a path at least, and a drive with a colon.
fn canonical(place: &str, rest: &str, with_user: bool, with_port: bool) -> String {
    let mut form = String::with_capacity(place.len() + rest.len() + "///".len());
    let mut path = place;
    if let Some((scheme, has_host, after)) = origin_of(place) {
        let end = if has_host { after.find(['/', '\\']).unwrap_or(after.len()) } else { 0 };
        let (authority, after) = after.split_at(end);
        let authority = authority.rsplit_once('@').filter(|_| !with_user).map_or(authority, |(_, host)| host);
        let host = authority.trim_end_matches(|letter: char| letter.is_ascii_digit()).strip_suffix(':');
        let host = host.unwrap_or(authority);
        let is_web = is_one_of(scheme, &WEB);
        let (colon, port) = authority[host.len()..].split_at(usize::from(host.len() < authority.len()));
        let port = if is_web { port.trim_start_matches('0') } else { port };
        let has_port = with_port && !(is_web && matches!(port, "" | "80" | "443"));
        let (colon, port) = if has_port { (colon, port) } else { ("", "") };
        form.extend([scheme, if has_host { "://" } else { ":///" }, host.trim_end_matches('.'), colon, port]);
        form.make_ascii_lowercase();
        // a pattern may go on in the path
        let is_bare = is_web && after.is_empty() && !authority.ends_with('*');
        path = if is_bare { "/" } else { after };
        if let Some((drive, below)) = path.split_once('|').filter(|(drive, _)| !has_host && is_letter(drive)) {
            form.extend([drive, ":"]);
            path = below;
        }
    }
    for letter in path.chars().chain(rest.chars()).map(|letter| if letter == '\\' { '/' } else { letter }) {
        if letter != '/' || !form.ends_with('/') {
            form.push(letter);
        }
    }
    form
}

fn is_letter(text: &str) -> bool {
    matches!(text.as_bytes(), [letter] if letter.is_ascii_alphabetic())
}

/// Whether servers may find several hosts: where a file has one, where they rewrite its letters, and beside a user that
/// does not stand there plainly.
fn hides_host(encoded: &str, place: &str) -> bool {
    let has_scheme =
        |place, schemes| origin_of(place).is_some_and(|(scheme, has_host, _)| has_host && is_one_of(scheme, schemes));
    let both = [authority(encoded), authority(place)];
    let is_plain = decoded(both[0]) == both[1] && !both[1].contains('\\');
    let has_one_user = is_plain && both.iter().all(|authority| authority.matches('@').count() == 1);
    [encoded, place].into_iter().any(|place| has_scheme(place, &["file"]))
        || has_scheme(place, &WEB) && !both[1].is_ascii()
        || both.iter().any(|authority| authority.contains('@')) && !has_one_user
}

fn authority(place: &str) -> &str {
    let after = origin_of(place).filter(|(_, has_host, _)| *has_host).map_or("", |(.., after)| after);
    after.split('/').next().unwrap_or(after)
}

/// Whether an absolute path begins somewhere in it, by an empty segment or a drive, and whether where the host would
/// stand. A file has its root and its drive there.
fn absolute_parts(place: &str) -> (bool, bool) {
    let (scheme, after) = origin_of(place).map_or(("", place), |(scheme, _, after)| (scheme, after));
    let slashes = place.len() - after.len() - scheme.len();
    let is_file = is_one_of(scheme, &["file"]);
    let mut segments = after.split(['/', '\\']);
    let is_drive = |segment: &str| segment.find([':', '|']).is_some_and(|end| is_letter(&segment[..end]));
    // a host of one letter may have a port
    let first = segments.next().filter(|first| !is_file && first.len() == 2).is_some_and(is_drive);
    let mut below = segments.peekable();
    let mut has_absolute = first || slashes > ":///".len();
    while let Some(segment) = below.next() {
        has_absolute |= is_drive(segment) || segment.is_empty() && below.peek().is_some();
    }
    (has_absolute, !is_file && slashes == ":///".len())
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

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_usual_uri_is_in_its_canonical_form() {
        for uri in ["file:///docs/a.md", "docs://public/x", "db://table?id=5", "https://example.com/a#b", "name", ""] {
            let forms = forms(uri).unwrap();
            assert!(forms.canonical.is_empty() && forms.without_port.is_empty(), "{forms:?}");
        }
    }

    #[test]
    fn what_all_spellings_mean() {
        for (uri, canonical, without_port) in [
            ("FILE:\\a%20b%5c/c//", &["file:///a b/c/"][..], &[][..]),
            ("file:C%7C\\x", &["file:///C:/x"], &[]),
            ("HTTP:Host.:8080?Q=%41//", &["http://host:8080/?Q=A/"], &["http://host/?Q=A/"]),
            ("https://host:08443/", &["https://host:8443/"], &["https://host/"]),
            ("https://Host.:443", &["https://host/"], &[]),
            ("wss://host:/x", &["wss://host/x"], &[]),
            ("ssh://u@Host:22/x", &["ssh://u@host:22/x", "ssh://host:22/x"], &["ssh://u@host/x", "ssh://host/x"]),
            ("urn:ISBN:0443", &["urn://isbn:0443"], &["urn://isbn"]),
            ("//a\\\\b%", &["/a/b%"], &[]),
        ] {
            let forms = forms(uri).unwrap();
            assert_eq!((&*forms.canonical, &*forms.without_port), (&*owned(canonical), &*owned(without_port)), "{uri}");
        }
        for (pattern, canonical) in [
            ("https://Host*", "https://host*"),
            ("docs:///My%20Docs/", "docs://my docs"),
            ("file://*", "file://*"),
            ("db://a?//b?ID=?//", "db://a?/b?ID=?"),
            ("https://u@Host:08443/", "https://u@host:8443"),
            ("file:///C|/*", "file:///C:/*"),
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
            for form in forms.iter().flat_map(|forms| forms.canonical.iter().chain(&forms.without_port)) {
                prop_assert!(form.len() <= sent.len() + "///".len(), "{} {}", sent, form);
            }
            canonical_pattern(&sent);
        }
    }
}
