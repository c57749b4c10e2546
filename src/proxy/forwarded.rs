//! Who the client is when somebody stands in between: what a proxy says of it counts if the operator
//! trusts that proxy, and only for the log, the limits and what the upstream is told. It never decides
//! who may come in.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Which header trusted proxies write. The other one is never read: they may pass on what a client
/// wrote there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies that the operator trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
    header: ForwardedHeader,
}

/// Where a request comes from, as far as it is to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Provenance {
    /// The client's address; none by a Unix socket that nobody vouches for.
    pub(super) ip: Option<IpAddr>,
    /// Whether the client came by TLS, if a trusted proxy says so.
    pub(super) secure: Option<bool>,
    /// The name under which the client asked, if a trusted proxy says so.
    pub(super) host: Option<HeaderValue>,
}

impl TrustedProxies {
    /// Reads addresses, networks and `unix`; all of them write `header`.
    ///
    /// # Errors
    /// The first text that is none of these.
    pub fn parse(texts: Vec<&str>, header: ForwardedHeader) -> Result<Self, String> {
        let mut proxies = Self { header, ..Self::default() };
        for text in texts {
            if text == "unix" {
                proxies.unix = true;
                continue;
            }
            let network = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| ip.to_canonical().into()));
            proxies.networks.push(network.map_err(|_| {
                format!("`{text}` is no network: write 10.0.0.0/8, 192.0.2.7, 2001:db8::/32 or \"unix\"")
            })?);
        }
        Ok(proxies)
    }

    /// Whether a peer is one of them; one without an address came by a Unix socket.
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => self.unix,
            Some(ip) => self.networks.iter().any(|network| network.contains(&ip.to_canonical())),
        }
    }

    /// Where a request of `peer` comes from.
    pub(super) fn provenance(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Provenance {
        if !self.trust(peer) {
            return Provenance { ip: peer, secure: None, host: None };
        }
        match self.header {
            ForwardedHeader::XForwarded => self.x_forwarded(peer, headers),
            ForwardedHeader::Forwarded => self.forwarded(peer, headers),
        }
    }

    fn x_forwarded(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Provenance {
        let addresses = from_the_right(headers, &X_FORWARDED_FOR, b',').map(|text| address(&text));
        // the nearest proxy wrote last
        let last = |name: &HeaderName| from_the_right(headers, name, b',').next();
        Provenance {
            ip: self.farthest(peer, addresses).0,
            secure: last(&X_FORWARDED_PROTO).and_then(|proto| is_secure(&proto)),
            host: last(&X_FORWARDED_HOST).and_then(|host| HeaderValue::from_str(&host).ok()),
        }
    }

    fn forwarded(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Provenance {
        let hops: Vec<String> = from_the_right(headers, &FORWARDED, b',').collect();
        let parameter = |hop: &str, wanted: &str| {
            let mut pairs = split_outside_quotes(hop, b';').into_iter().filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| unquoted(value.trim()))
        };
        let addresses = hops.iter().map(|hop| parameter(hop, "for").and_then(|node| address(&node)));
        let (ip, used) = self.farthest(peer, addresses);
        // what the client said to the hop that saw it
        let hop = used.checked_sub(1).and_then(|index| hops.get(index));
        let told = |name| hop.and_then(|hop| parameter(hop, name));
        Provenance {
            ip,
            secure: told("proto").and_then(|proto| is_secure(&proto)),
            host: told("host").and_then(|host| HeaderValue::from_str(&host).ok()),
        }
    }

    /// The first address, from the nearest on, that is not a trusted proxy's, and how many were believed.
    /// Where one cannot be read, the one before it is as far as can be seen.
    fn farthest(
        &self,
        peer: Option<IpAddr>,
        addresses: impl Iterator<Item = Option<IpAddr>>,
    ) -> (Option<IpAddr>, usize) {
        let (mut client, mut used) = (peer, 0);
        for ip in addresses {
            let Some(ip) = ip else { break };
            (client, used) = (Some(ip), used + 1);
            if !self.trust(client) {
                break;
            }
        }
        (client, used)
    }
}

/// The items of a list header, the last one first. What is not text is a client's, behind whose the proxies' items
/// stand: it is no more than an item that nobody can read.
fn from_the_right<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    separator: u8,
) -> impl Iterator<Item = String> + use<'h> {
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    values.into_iter().rev().flat_map(move |value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let items = split_outside_quotes(&text, separator);
        items.into_iter().rev().map(|item| item.trim().to_owned()).collect::<Vec<_>>()
    })
}

/// Splits where no quoted string is open. A quote that is never closed is a client's, who would make one
/// item of his own and of what the proxies added: then it is split everywhere.
fn split_outside_quotes(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return text.split(char::from(separator)).collect();
    }
    parts.push(&text[start..]);
    parts
}

/// A token or a quoted string (RFC 9110 section 5.6.4); nothing that is quoted here needs its escapes.
fn unquoted(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

/// An address as proxies write it: alone, in brackets, with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

fn is_secure(proto: &str) -> Option<bool> {
    [("https", true), ("http", false)]
        .into_iter()
        .find(|(name, _)| proto.eq_ignore_ascii_case(name))
        .map(|(_, secure)| secure)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        TrustedProxies::parse(vec!["10.0.0.0/8", "2001:db8::7", "unix"], header).unwrap()
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn ip(text: &str) -> Option<IpAddr> {
        (!text.is_empty()).then(|| text.parse().unwrap())
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy() {
        let proxies = proxies(ForwardedHeader::XForwarded);
        for (peer, fields, client) in [
            ("192.0.2.1", &["6.6.6.6"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.1.1.1", "2001:db8::7"], "192.0.2.1"),
            ("10.0.0.1", &["10.2.2.2,10.1.1.1"], "10.2.2.2"),
            ("10.0.0.1", &["6.6.6.6, unknown, 10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, "], "10.0.0.1"),
            ("10.0.0.1", &["\"6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["\"6.6.6.6\\, 192.0.2.1, 10.1.1.1"], "192.0.2.1"),
            ("10.0.0.1", &["ä, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["ä", "192.0.2.1, 10.1.1.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, ä, 10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["[2001:db8::9]:4711"], "2001:db8::9"),
            ("10.0.0.1", &["192.0.2.1:80"], "192.0.2.1"),
            ("10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("", &["192.0.2.1"], "192.0.2.1"),
            ("", &[], ""),
        ] {
            let fields: Vec<_> = fields.iter().map(|value| (X_FORWARDED_FOR, *value)).collect();
            let mut headers = headers(&fields);
            // nobody asked for this one
            headers.insert(FORWARDED, HeaderValue::from_static("for=6.6.6.6"));
            assert_eq!(proxies.provenance(ip(peer), &headers).ip, ip(client), "{peer} {headers:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let proxies = proxies(ForwardedHeader::Forwarded);
        for (value, client, secure, host) in [
            ("for=192.0.2.60;proto=https;by=203.0.113.43;host=a.example", "192.0.2.60", Some(true), Some("a.example")),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17", None, None),
            ("for=6.6.6.6, for=192.0.2.43;proto=http, for=10.1.1.1;proto=https", "192.0.2.43", Some(false), None),
            ("for=6.6.6.6, for=_hidden;proto=https, for=10.1.1.1", "10.1.1.1", None, None),
            ("for=\"6.6.6.6, for=7.7.7.7\"", "10.0.0.1", None, None),
            ("for=\"192.0.2.1\\\"", "10.0.0.1", None, None),
            ("proto=https", "10.0.0.1", None, None),
            ("for=\"6.6.6.6, for=192.0.2.43;proto=http", "192.0.2.43", Some(false), None),
            ("for=\"6.6.6.6\\, for=\"[2001:db8::9]\";proto=https", "2001:db8::9", Some(true), None),
            ("for=ä, for=192.0.2.43;proto=https", "192.0.2.43", Some(true), None),
            ("for=unknown", "10.0.0.1", None, None),
        ] {
            let headers = headers(&[(FORWARDED, value), (X_FORWARDED_FOR, "6.6.6.6"), (X_FORWARDED_HOST, "b.example")]);
            let host = host.map(HeaderValue::from_static);
            let expected = Provenance { ip: ip(client), secure, host };
            assert_eq!(proxies.provenance(ip("10.0.0.1"), &headers), expected, "{value}");
        }
    }

    #[test]
    fn scheme_and_host_are_believed_from_trusted_proxies_only() {
        let proxies = proxies(ForwardedHeader::XForwarded);
        let headers = headers(&[(X_FORWARDED_PROTO, "http, HTTPS"), (X_FORWARDED_HOST, "evil.example, mcp.example")]);
        let found = proxies.provenance(ip("10.0.0.1"), &headers);
        assert_eq!((found.secure, found.host), (Some(true), Some(HeaderValue::from_static("mcp.example"))));
        let found = proxies.provenance(ip("192.0.2.1"), &headers);
        assert_eq!((found.secure, found.host), (None, None));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "localhost", "unix:/x", "10.0.0"] {
            assert!(TrustedProxies::parse(vec![text], ForwardedHeader::default()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_header_leads_to_an_address_that_stands_in_it(value in "[ -~\u{80}-\u{ff}]{0,80}") {
            for header in [ForwardedHeader::XForwarded, ForwardedHeader::Forwarded] {
                let headers = headers(&[(X_FORWARDED_FOR, &value), (FORWARDED, &value)]);
                let found = proxies(header).provenance(ip("10.0.0.1"), &headers).ip.unwrap();
                prop_assert!(found == ip("10.0.0.1").unwrap() || value.contains(&found.to_string()) || value.contains(':'));
            }
        }
    }
}
