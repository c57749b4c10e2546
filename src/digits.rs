//! Numbers as text, where each request needs some and the formatting machinery would take longer than all
//! the rest: identifiers in hexadecimal, addresses.

use std::io::Write;
use std::net::IpAddr;

/// The lowest digits of a number, in lower-case hexadecimal.
pub fn hex<const DIGITS: usize>(mut number: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    digits
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_are_as_the_library_writes_them(number in any::<u128>(), ip in any::<IpAddr>()) {
            prop_assert_eq!(String::from_utf8(hex::<32>(number).to_vec()).unwrap(), format!("{number:032x}"));
            let mut text = Vec::new();
            address(ip, &mut text);
            prop_assert_eq!(String::from_utf8(text).unwrap(), ip.to_string());
        }
    }
}
