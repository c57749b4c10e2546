//! The PROXY protocol, versions 1 and 2: a trusted load balancer says, before anything else, whose
//! connection it passes on. (haproxy.org, "The PROXY protocol", of 2020-03-05.)

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What every header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its line break.
const MAX_LINE: usize = 107;

/// The longest part of a version 2 header that is read: addresses, and what some balancers add to them.
const MAX_ADDRESSES: usize = 4096;

/// Reads the header and not a byte beyond it: whose connection it is, or `None` if it is the balancer's own.
///
/// # Errors
/// It is not there, is not well-formed or does not come whole.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first == SIGNATURE { read_binary(stream).await } else { read_line(stream, first.to_vec()).await }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), mut line: Vec<u8>) -> io::Result<Option<IpAddr>> {
    if !line.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    // byte by byte, for what follows is not ours to read: TLS may begin there
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    let text = str::from_utf8(&line).map_err(|_| malformed())?.trim_end_matches("\r\n");
    match *text.split(' ').collect::<Vec<_>>().as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family, source, destination, source_port, destination_port] => {
            let (source, destination): (IpAddr, IpAddr) = (parsed(source)?, parsed(destination)?);
            let (_, _): (u16, u16) = (parsed(source_port)?, parsed(destination_port)?);
            let fits = |ip: IpAddr| ip.is_ipv4() == (family == "TCP4") && ["TCP4", "TCP6"].contains(&family);
            if fits(source) && fits(destination) { Ok(Some(source.to_canonical())) } else { Err(malformed()) }
        }
        _ => Err(malformed()),
    }
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_ADDRESSES {
        return Err(malformed());
    }
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    let source = match (command, family) {
        // the balancer's own connection, or one of a kind that has no address
        (0x20, _) | (0x21, 0x00) => return Ok(None),
        (0x21, 0x11) if length >= 12 => addresses.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        (0x21, 0x21) if length >= 36 => addresses.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
        _ => None,
    };
    source.map(|ip: IpAddr| Some(ip.to_canonical())).ok_or_else(malformed)
}

fn parsed<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| malformed())
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "not a header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::runtime::Builder;

    use super::*;

    /// What is read of these bytes, and how many of them are left.
    fn read_all(bytes: &[u8]) -> (Result<Option<IpAddr>, ErrorKind>, usize) {
        let mut rest = bytes;
        let runtime = Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(read(&mut rest)).map_err(|error| error.kind());
        (found, rest.len())
    }

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    #[test]
    fn headers_of_both_versions_name_the_client_and_what_follows_is_left() {
        let ip = |text: &str| Some(text.parse().unwrap());
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];
        let v6 = [&Ipv6Addr::from(0x2001_0db8_u128 << 96 | 1).octets()[..], &[0; 20]].concat();
        let mapped = [&Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets()[..], &[0; 20]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n".to_vec(), ip("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(), ip("2001:db8::1")),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), ip("192.0.2.1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), ip("192.0.2.1")),
            // with what a balancer adds
            (binary(0x21, 0x11, &[&v4[..], &[4, 0, 3, 1, 2, 3]].concat()), ip("192.0.2.1")),
            (binary(0x21, 0x21, &v6), ip("2001:db8::1")),
            (binary(0x21, 0x21, &mapped), ip("192.0.2.1")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x21, 0x00, &[]), None),
        ] {
            let followed = [&header[..], b"GET /"].concat();
            assert_eq!(read_all(&followed), (Ok(expected), 5), "{}", header.escape_ascii());
            for cut in 0..header.len() {
                assert_eq!(read_all(&header[..cut]).0, Err(ErrorKind::UnexpectedEof), "{}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for header in [
            &b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443 more\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 65536\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4  192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 \xff 10.0.0.1 1 2\r\n",
            b"proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            &[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x22, 0x11, &[0; 12]),
            &binary(0x21, 0x12, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x21, &[0; 35]),
            &binary(0x21, 0x11, &[0; MAX_ADDRESSES + 1]),
        ] {
            assert_eq!(read_all(header).0, Err(ErrorKind::InvalidData), "{}", header.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(
            start in prop_oneof![Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(Vec::new())],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            let (found, left) = read_all(&[&bytes[..], &[b'x'; 8192]].concat());
            prop_assert!(left >= 8192 - MAX_ADDRESSES);
            prop_assert!(found.is_ok() || found.is_err());
        }
    }
}
