//! Numbers as text, where each request needs some and the formatting machinery would take longer than all
//! the rest: identifiers in hexadecimal, addresses, moments.

use std::io::Write;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::Offset;

/// The lowest digits of a number, in lower-case hexadecimal.
pub fn hex<const DIGITS: usize>(mut number: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    digits
}

/// The longest line before a chunk, in bytes: sixteen digits and the end of the line.
pub const CHUNK_LINE: usize = 18;

/// The line before a chunk of so many bytes, written into the room for it: their number in lower-case hexadecimal
/// (RFC 9112 section 7.1).
pub fn chunk_line(length: usize, room: &mut [u8; CHUNK_LINE]) -> &[u8] {
    let mut start = CHUNK_LINE - 2;
    let mut rest = length;
    room[start..].copy_from_slice(b"\r\n");
    loop {
        start -= 1;
        room[start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return &room[start..];
        }
    }
}

/// Appends an address as it is usually written (RFC 5952 for IPv6).
pub fn address(ip: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(ip) = ip else {
        // writing into memory does not fail
        let _ = write!(out, "{ip}");
        return;
    };
    let mut before = None;
    for octet in ip.octets() {
        out.extend(before.replace(b'.'));
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

/// A moment as RFC 3339 in UTC with exactly six digits of a second, so that lines sort as text.
pub fn moment(at: Timestamp, out: &mut Vec<u8>) {
    let civil = Offset::UTC.to_datetime(at);
    let Ok(year) = u32::try_from(civil.year()) else {
        // writing into memory does not fail
        let _ = write!(out, "{at:.6}");
        return;
    };
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    decimal(&mut text[..4], year);
    let parts = [civil.month(), civil.day(), civil.hour(), civil.minute(), civil.second()];
    for (place, part) in text[5..].chunks_mut(3).zip(parts) {
        decimal(&mut place[..2], part.unsigned_abs().into());
    }
    decimal(&mut text[20..26], civil.subsec_nanosecond().unsigned_abs() / 1000);
    out.extend_from_slice(&text);
}

/// Fills all places.
fn decimal(places: &mut [u8], mut number: u32) {
    for place in places.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_are_as_the_libraries_write_them(
            number in any::<u128>(),
            length in (0u32..64).prop_flat_map(|bits| 0..=usize::MAX >> bits),
            ip in any::<IpAddr>(),
            nanosecond in Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond(),
        ) {
            prop_assert_eq!(String::from_utf8(hex::<32>(number).to_vec()).unwrap(), format!("{number:032x}"));
            let line = chunk_line(length, &mut [0; CHUNK_LINE]).to_vec();
            prop_assert_eq!(String::from_utf8(line).unwrap(), format!("{length:x}\r\n"));
            let mut text = Vec::new();
            address(ip, &mut text);
            prop_assert_eq!(String::from_utf8(text).unwrap(), ip.to_string());
            let (mut text, at) = (Vec::new(), Timestamp::from_nanosecond(nanosecond).unwrap());
            moment(at, &mut text);
            prop_assert_eq!(String::from_utf8(text).unwrap(), format!("{at:.6}"));
        }
    }
}
