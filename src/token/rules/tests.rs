use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

fn matches(pattern: &str, name: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(name)
}

#[test]
fn what_patterns_mean() {
    for (pattern, name, expected) in [
        ("get_*", "get_user", true),
        ("get_*", "get_", true),
        ("get_*", "forget_user", false),
        ("*", "", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("a?c", "aéc", true),
        ("*.read", "files.read", true),
        ("Get_*", "get_user", false),
        ("a[b]c", "a[b]c", true),
        ("file:///docs/*", "file:///docs/a/b", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
    assert!(Pattern::parse("").is_err() && Pattern::parse("a\nb").is_err());
    assert!(Pattern::parse(&"a".repeat(MAX_PATTERN + 1)).is_err());
}

/// What servers do to a URI.
const STEPS: [fn(String) -> String; 6] = [
    |uri| percent_decode_str(&uri).decode_utf8_lossy().into_owned(),
    |uri| uri.replace('\\', "/"),
    |uri| match uri.split_once(':') {
        Some((scheme, rest)) => {
            let segments: Vec<_> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
            let slash = if rest.ends_with('/') { "/" } else { "" };
            format!("{}://{}{slash}", scheme.to_lowercase(), segments.join("/"))
        }
        None => uri,
    },
    |uri| uri.split('?').next().unwrap_or_default().to_owned(),
    |uri| uri.split('#').next().unwrap_or_default().to_owned(),
    |uri| uri.split(['?', '#']).next().unwrap_or_default().to_owned(),
];

fn is_allowed(allow: &str, deny: &[&str], uri: &str) -> bool {
    let rules = NameRules {
        allow: Some([Pattern::parse_uri(allow).unwrap()].into()),
        deny: deny.iter().map(|text| Pattern::parse_uri(text).unwrap()).collect(),
    };
    let name = Name::Uri(Uri::new(uri));
    rules.denying(&name).is_none() && rules.allowing(&name).is_some()
}

#[test]
fn a_uri_has_no_way_around_a_rule() {
    for (allow, uri, expected) in [
        ("file:///docs/*", "file:///docs/a", true),
        ("file:///docs/*", "file:///docs/a%20b", true),
        ("file:///docs/*", "file:///docs/a//b", false),
        ("file:///docs/*", "file:///docs/a/", true),
        ("file:///docs/*", "file:///docs/a/C:/b", false),
        ("file:///docs/*", "file:///docs/C%7C/b", false),
        ("file:///docs/*", "file:///docs/C:.env", false),
        ("file:///*", "file:///C:/docs/a", true),
        ("file:///*", "file:////etc/passwd", false),
        ("file:///docs/a//b", "file:///docs/a//b", true),
        ("docs://public/*", "docs://public//etc/passwd", false),
        ("docs://public/*", "docs://public/%2Fetc%2Fpasswd", false),
        ("docs://public/*", "docs://public/\\etc\\passwd", false),
        ("docs://public/*", "docs://public/C:%5CWindows%5Cwin.ini", false),
        ("docs://public/*", "docs://public/a?path=//b", true),
        ("docs://public//*", "docs://public//etc/passwd", false),
        ("docs://*", "docs:///etc/passwd", false),
        ("docs://*", "docs://%2Fetc/passwd", false),
        ("docs://*", "docs://C:/Windows/win.ini", false),
        ("docs://*", "docs://c:80/x", true),
        ("docs:///*", "docs:////etc/passwd", false),
        ("/docs/*", "/docs/a/b", true),
        ("/docs/*", "/docs//etc/passwd", false),
        ("https://host/docs/*.md", "https://host/docs/a.md", true),
        ("https://host/docs/*.md", "https://host/docs/a;x/b.md", true),
        ("https://host/docs/*.md", "https://host/docs/a.md;x", false),
        ("https://host/docs/*", "https://host/docs/a.md;x", true),
        ("https://host/docs/*.md", "https://host/docs/secret.key;.md", false),
        ("https://host/docs/*.md", "https://host/docs/secret.key%3B.md", false),
        ("https://host/docs/*.md", "https://host/docs/secret.key%3B%5C.md", false),
        ("https://host/*.md?view=*", "https://host/secret.key;.md?view=x", false),
        ("https://host/*.md?view=*", "https://host/a.md?view=x;y", true),
        ("sftp://host/*.md", "SFTP://host/secret.key;.md", false),
        ("*.md", "secret.key;.md", false),
        ("*.md", "docs://public/a;.md", true),
        ("postgres://*", "postgres://u@localhost/users/schema", true),
        ("npm://*", "npm://@scope/pkg", true),
        ("users://alice@*", "users://alice@example.com/profile", false),
        ("users://*@example.com/*", "users://alice@example.com/profile", false),
        ("postgres://*", "postgres://u@v@localhost/x", false),
        ("postgres://*", "postgres://u%40v@localhost/x", false),
        ("postgres://*", "postgres://u%40localhost/x", false),
        ("postgres://*", "postgres://u%2f@localhost/x", false),
        ("postgres://*", "postgres://u\\@localhost/x", false),
        ("postgres://*", "postgres://u%5c@localhost/x", false),
        ("https://*", "https://höst/x", false),
        ("docs://*", "docs://höst/x", true),
        ("file:///docs/*", "file:///docs/a?page=2#top", true),
        ("file:///docs/*", "file:///docs/..a/.b/c..", true),
        ("file:///docs/*", "file:///docs/a/../b", false),
        ("file:///docs/*", "file:///docs/../etc/passwd", false),
        ("file:///docs/*", "file:///docs//../etc/passwd", false),
        ("file:///docs/*", "file:///docs/%2f../etc/passwd", false),
        ("file:///docs/*", "file:///docs/%2e%2e/etc/passwd", false),
        ("file:///docs/*", "file:///docs/%252e%252e/etc/passwd", false),
        ("file:///docs/*", "file:///docs/%2525252e%2525252e/etc/passwd", false),
        ("file:///docs/*", "file:///docs\\..\\etc", false),
        ("file:///docs/*", "file:///docs/..%2fetc", false),
        ("file:///docs/*", "file:///docs/..%5cetc", false),
        ("file:///docs/*", "file:///docs/..;x/etc", false),
        ("file:///docs/*", "file:///docs/.. /etc", false),
        ("file:///docs/*", "file:///docs/.%09./etc", false),
        ("file:///docs/*", "file:///docs/%c0%ae%c0%ae/etc", false),
        ("file:///docs/*", "file:///docs/..", false),
        ("file:///docs/*", "file:///docs/..?x", false),
        ("file:///docs/*", "file:///docs/..%23x", false),
        ("file:///docs/*", "file:///docs/a?/../../../etc/passwd", false),
        ("file:///docs/*", "FILE:///docs/a", false),
        ("file:///docs/*", "file:///doc%73/a", false),
        ("file:///My%20Docs/*", "file:///My%20Docs/a", true),
        ("file:///My%20Docs/*", "file:///My%20Docs/../a", false),
        ("file://documents/*", "file://documents/a", false),
        ("file://documents/a", "file://documents/a", true),
        ("file://*", "file:///documents/a", true),
        ("docs://public/*", "docs://public/x", true),
        ("docs://public/*", "docs://public/../private/x", false),
        ("docs://*/pub/*", "docs:///pub/x", false),
        ("docs:///*", "docs:///x", true),
        ("urn:isbn:*", "urn:isbn:0451450523", true),
        ("https://Host:8443/*", "https://Host:8443/a%20b", true),
        ("https://u@Host:8443/*", "https://u@Host:8443/a", false),
        ("https://host*", "https://host?a=b@c", true),
        ("ui://app/*", "ui://app/get?url=https%3A%2F%2Fexample.com%2Fa%3Fb", true),
        ("db://*", "db://table?id=5", true),
        ("db://table*", "db://table?id=5", true),
        ("db://table?id=5", "db://table?id=5", true),
        ("db://table?id=*", "db://table?id=5", true),
        ("db://table?id=*", "db://table", false),
        ("db://table?id=*", "db://table?name=5", false),
        ("db://*", "db://query?sql=SELECT%201%0AFROM%20caf%E9%20", true),
        ("db://*", "db://query%0A", false),
        ("*.md", "file:///a.md", true),
        ("*.md", "file:///etc/passwd?.md", false),
        ("*.md", "file:///etc/passwd%23.md", false),
        ("*.md", "file:///a.md%3f/etc/passwd?.md", false),
        ("file:///docs/*?.md", "file:///docs/a.md", true),
        ("file:///docs/*?.md", "file:///docs/secret.key?x.md", false),
        ("file:///docs/*?.md", "file:///docs/secret.key%23x.md", false),
        ("file:///docs/*?.md", "file:///docs/secret.key#.md", false),
        ("file:///docs/*.md", "file:///docs/secret.key?x#.md", false),
        ("file:///docs/*.md", "file:///docs/a.md?x#.md", false),
        ("file:///*/????.log", "file:///etc/abcd.log", true),
        ("file:///*/????.log", "file:///etc/shadow/?/abcd.log", false),
        ("file:///srv/app/log?", "file:///srv/app/log1", true),
        ("file:///srv/app/log?", "file:///srv/app/log#", false),
        ("file:///srv/app/log?", "file:///srv/app/log?", true),
        ("https://host/*?view=public", "https://host/a?view=public", true),
        ("https://host/*?view=public", "https://host/a?view=%70ublic", false),
        ("https://host/*?view=public", "https://host/a?view=public#top", false),
        ("https://host/*?view=public", "https://host/admin#?view=public", false),
        ("https://host/*?view=public", "https://host/admin?x#?view=public", false),
        ("https://host/*?view=public", "https://host/admin?x?view=public", false),
        ("https://host/*?view=public", "https://host/admin%3fview=public", false),
        ("https://host/*?view=pub*", "https://host/admin?view=x#?view=public", false),
        ("https://host/*?view=pub*", "https://host/a?view=public#top", true),
        ("ui://app/?url=https://a/*", "ui://app/?url=https://a/b//c", true),
        ("db://table?*", "db://table?id=5", false),
        ("*.md", "file:///a%252emd", false),
        ("*.md", "file:///a.md ", false),
        ("file:///a/../b", "file:///a/../b", true),
        ("*", "file:///docs/../etc/passwd", true),
    ] {
        assert_eq!(is_allowed(allow, &[], uri), expected, "{allow} {uri}");
    }
}

#[test]
fn a_uri_has_no_way_around_a_rule_that_denies() {
    for (deny, uri, expected) in [
        ("file:///secret/*", "file:///public/x", true),
        ("file:///secret/*", "file:///public//x?a/b#c", true),
        ("file:///secret/*", "db://table?id=5", true),
        ("file:///secret/*", "HTTPS://Host:443/a%20b/?q=1#f", true),
        ("file:///secret/*", "https://host/%253f", false),
        ("file:///secret/*", "file:///secret/x", false),
        ("file:///secret/*", "file:///%73ecret/x", false),
        ("file:///secret/*", "file:///%25252573ecret/x", false),
        ("file:///secret/*", "FILE:///secret/x", false),
        ("file:///secret/*", "file:///public/../secret/x", false),
        ("file:///secret/*", "file:///public//../secret/x", false),
        ("file:///secret/*", "file:///./secret/x", false),
        ("file:///secret/*", "file:////secret/x", false),
        ("file:///secret/*", "file:///secret%2fx", false),
        ("file:///secret/*", "file:/secret/x", false),
        ("file:///secret/*", "file:secret/x", false),
        ("file:///secret/*", "file:\\secret\\x", false),
        ("file:///secret/*", "file://localhost/secret/x", false),
        ("file:///secret/*", "file://secret/x", false),
        ("file:///secret/*", " file:///secret/x", false),
        ("file:///secret/*", "\u{feff}file:///secret/x", false),
        ("file:///secret/*", "file:///se%0acret/x", false),
        ("file:///secret//*", "file:///secret/x", false),
        ("file:///secret/key", "file:///secret/key?x", false),
        ("file:///secret/key", "file:///secret/key#x", false),
        ("file:///secret/key", "file:///secret/key%3fx", false),
        ("file:///secret/key", "file:///secret/key%2523x", false),
        ("file:///secret/key", "file:///secret/key/", false),
        ("file:///secret/key", "file:///secret/keys", true),
        ("docs://private/*", "docs://public/x", true),
        ("docs://private/*", "docs://public/../private/x", false),
        ("docs://private/*", "docs:///private/x", false),
        ("docs://private/*", "docs:private/x", false),
        ("memo:///private/*", "memo://private/x", false),
        ("https://internal/*", "https://INTERNAL/x", false),
        ("https://Internal/*", "https://internal/x", false),
        ("https://internal/*", "https:internal/x", false),
        ("https://internal/*", "https:\\\\internal\\x", false),
        ("https://internal/*", "https://user@internal:443/x", false),
        ("https://internal/*", "https://internal%40other/x", false),
        ("https://internal/*", "https://other%2f@internal/x", false),
        ("https://internal/*", "https://other\\@internal/x", false),
        ("https://internal/*", "https://internal:8443/x", false),
        ("https://internal:8443/*", "HTTPS:internal:8443/x", false),
        ("https://internal:8443/*", "https://internal/x", true),
        ("https://internal:443/*", "https://internal/x", false),
        ("https://internal:8443/*", "https://internal:08443/x", false),
        ("wss://internal:443/*", "wss://internal/x", false),
        ("https://internal/*", "https://ｉnternal/x", false),
        ("https://internal/*", "https://%EF%BD%89nternal/x", false),
        ("https://internal/*", "https://inter%C2%ADnal/x", false),
        ("https://internal/*", "https://internal。/x", false),
        ("https://internal/*", "https://external/é", true),
        ("https://internal/*", "https://user@external/x", true),
        ("file:///C:/x/*", "file:///C|/x/y", false),
        ("file:///C|/x/*", "file:///C:/x/y", false),
        ("https://internal/key", "https://internal/key;x", false),
        ("https://internal/key", "https://internal/key%3Bx?y", false),
        ("https://internal/key", "https://internal/key/;x", false),
        ("https://internal/key", "https://internal/key;x/y", true),
        ("docs://private/key", "docs://private/key;x", true),
        ("postgres://localhost/*", "postgres://u@localhost/x", false),
        ("postgres://localhost/*", "postgres://u@localhost:5432/x", false),
        ("postgres://u@localhost/*", "postgres://u@localhost:5432/x", false),
        ("postgres://other/*", "postgres://u@localhost/x", true),
        ("https://internal/*", "https://internal./x", false),
        ("https://internal/*", "https://internal.:443/x", false),
        ("https://internal/*", "https://internal?x", false),
        ("https://internal/*", "https://external/x?from=https://internal/x", true),
        ("db://table?id=5", "db://table?id=5", false),
        ("db://table?id=5", "db://table?id=5 ", false),
        ("db://table?id=5", "db://table?id=%35#x", false),
        ("db://table?id=5", "db://table?id=55", true),
        ("db://table?id=5", "db://table?id=5&x", false),
        ("db://table?id=5", "db://table?x&id=5", false),
        ("db://table?id=5", "db://table?x&id=5#y", false),
        ("db://table?id=5", "db://table/?id=5", false),
        ("db://table?id=5", "db://table?x&%69d=5", false),
        ("db://table?id=5", "db://table?x&id=55", true),
        ("db://table?id=5", "db://other?x&id=5", true),
        ("db://table?id=5&x=*", "db://table?id=5&x=y", false),
        ("db://table", "db://table?id=5", false),
        ("file:///secret/", "file:///secret", false),
        ("*/secret/*", "file:///public?\\secret\\x", false),
        ("file://*", "file:/public/x", false),
        ("file://*", "https://host/x", true),
    ] {
        assert_eq!(is_allowed("*", &[deny], uri), expected, "{deny} {uri}");
    }
}

#[test]
fn only_patterns_of_uris_keep_a_canonical_form() {
    for text in ["file:///My%20Docs/*", "A:\\%2525252541//zN", "/a/../b"] {
        assert!(Pattern::parse(text).unwrap().canonical.is_none(), "{text}");
        assert!(Pattern::parse_uri(text).unwrap().canonical.is_some(), "{text}");
    }
    assert!(Pattern::parse_uri("file:///docs/*").unwrap().canonical.is_none());
}

#[test]
fn a_uri_is_not_worked_on_for_a_rule_that_its_text_decides() {
    let uri = Uri::new("FILE:///docs/a");
    for (pattern, works) in [("*", false), ("FILE:///docs/a", false), ("file:///docs/*", false), ("FILE:*", true)] {
        Pattern::parse_uri(pattern).unwrap().matches_surely(&uri);
        assert_eq!(uri.is_worked_out(), works, "{pattern}");
    }
}

#[test]
fn no_name_takes_long_to_match() {
    let begun = Instant::now();
    let longest = "a".repeat(8192);
    assert!(!matches(&format!("{}b", "a*".repeat(127)), &longest));
    assert!(!matches(&format!("{}b", "*a".repeat(127)), &longest));
    assert!(!matches(&format!("{}b", "*?".repeat(127)), &longest));
    // a matcher that tries every way would not come back at all
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_pattern_without_wildcards_matches_itself_alone(text in "[a-z_./-]{1,20}", other in "[a-z_./-]{1,20}") {
        prop_assert_eq!(matches(&text, &other), text == other);
    }

    /// Whatever a server does to a URI, in whatever order, it stays below what is allowed and does not get below
    /// what is denied.
    #[test]
    fn no_order_of_steps_has_a_way_around_a_rule(
        origin in "(docs|DOCS):(//|/|\\\\|%2f)(public|%70ublic|%2570ublic)",
        rest in "(/|\\\\|%2f)?([/\\\\.a?#%;:@]|public|%2[eEfF35]|%252[ef]|%5c|%3[aAfF]){0,8}",
        steps in proptest::collection::vec(0..STEPS.len(), 0..10),
    ) {
        for uri in [format!("{origin}{rest}"), format!("docs://public/{rest}")] {
            let reached = steps.iter().fold(uri.clone(), |text, step| STEPS[*step](text));
            let is_below = reached.starts_with("docs://public/");
            prop_assert!(is_below || !is_allowed("docs://public/*", &[], &uri), "{} {}", uri, reached);
            prop_assert!(!is_below || !is_allowed("*", &["docs://public/*"], &uri), "{} {}", uri, reached);
        }
    }

    /// Whatever way a server takes from a URI that a rule allows to a path, it ends below what is allowed.
    #[test]
    fn no_server_leaves_what_is_allowed(
        rest in "(/|\\\\|\\.|\\.\\.|a|\\?|#|%2[eEfF35]|%252[ef]|%5c){0,8}",
        decodes in 0..3_usize, cuts in any::<bool>(), cuts_late in any::<bool>(), slashes in any::<bool>(),
    ) {
        let cut = |text: String, cuts| match text.find(['?', '#']) {
            Some(end) if cuts => text[..end].to_owned(),
            _ => text,
        };
        let uri = format!("docs://public/{rest}");
        let mut read = cut(uri.clone(), cuts);
        for _ in 0..decodes {
            read = percent_decode_str(&read).decode_utf8_lossy().into_owned();
        }
        read = cut(read, cuts_late);
        if slashes {
            read = read.replace('\\', "/");
        }
        let mut path: Vec<&str> = Vec::new();
        let mut segments = read["docs://".len()..].split('/').peekable();
        while let Some(segment) = segments.next() {
            match segment {
                // what follows is an absolute path, unless it stands in a query
                "" if segments.peek().is_some() && !path.concat().contains(['?', '#']) => path.clear(),
                "" | "." => {}
                ".." => drop(path.pop()),
                _ => path.push(segment),
            }
        }
        let is_below = path.first() == Some(&"public");
        prop_assert!(is_below || !is_allowed("docs://public/*", &[], &uri), "{} {:?}", uri, path);
        let path = format!("docs://{}", path.join("/"));
        prop_assert!(path != "docs://public/a" || !is_allowed("*", &["docs://public/a"], &uri), "{}", uri);
    }
}
