//! Where a body ends, in every way in which two parsers could tell it differently.

use super::May::{Each, First, Nothing};
use super::{Attack, FURTHER, post};

/// Spellings of the length 5 and of others, none of which is exactly a number.
const LENGTHS: [&str; 23] = [
    "+5",
    "-5",
    "-0",
    "0x5",
    "5,5",
    "5, 5",
    "5,6",
    "5 5",
    "5;5",
    "5.0",
    "5e0",
    "5_0",
    "",
    ",",
    "\"5\"",
    "five",
    "5\u{b}",
    "5\0",
    "\u{b2}",
    "5\u{a0}",
    "99999999999999999999",
    "18446744073709551616",
    "18446744073709551621",
];

/// Spellings of a coding, none of which is exactly `chunked`.
const CODINGS: [&str; 24] = [
    "xchunked",
    "chunkedx",
    "chunked,",
    ",chunked",
    "chunked, chunked",
    "chunked, identity",
    "identity",
    "identity, chunked",
    "gzip, chunked",
    "gzip",
    "chunked;q=1",
    "chunked;",
    "\"chunked\"",
    "'chunked'",
    "chu nked",
    "chunked chunked",
    "chunked\u{b}",
    "\u{b}chunked",
    "chunked\0",
    "chunked\u{a0}",
    "chunk",
    "",
    "0",
    "x: chunked",
];

/// Spellings of `chunked` that are nothing else to anybody.
const CHUNKED: [&str; 4] = ["chunked", "CHUNKED", "  chunked", "chunked\t "];

/// What is no name, and is taken for one by some parser.
const NAMES: [&str; 13] = [
    "NAME ",
    "NAME\t",
    " NAME",
    "\tNAME",
    "NAME\0",
    "\0NAME",
    "NAME\u{b}",
    "NAME\u{a0}",
    "\u{b}NAME",
    "\"NAME\"",
    "NAME\r",
    "X: y\rNAME",
    "NAME:",
];

/// Bodies in chunks that are not well-formed, each in place of the five bytes of `hello` and the end.
const CHUNKS: [&str; 50] = [
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "x5\r\nhello\r\n0\r\n\r\n",
    "5h\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    ";a=b\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "\t5\r\nhello\r\n0\r\n\r\n",
    "5 5\r\nhello\r\n0\r\n\r\n",
    "5\0\r\nhello\r\n0\r\n\r\n",
    "5\u{b}\r\nhello\r\n0\r\n\r\n",
    "5\u{b2}\r\nhello\r\n0\r\n\r\n",
    "5,5\r\nhello\r\n0\r\n\r\n",
    "5_\r\nhello\r\n0\r\n\r\n",
    "5.\r\nhello\r\n0\r\n\r\n",
    "\"5\"\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\rhello\r\n0\r\n\r\n",
    "5\n\rhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhelloxx0\r\n\r\n",
    "5\r\nhello\r\r0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\nhello\r\n-0\r\n\r\n",
    "5\r\nhello\r\n0x\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "8000000000000000\r\nhello\r\n0\r\n\r\n",
    "7fffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "ffffffff\r\nhello\r\n0\r\n\r\n",
    "6\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-Auth-User root\r\n\r\n",
    "5\r\nhello\r\n0\r\nX\0: root\r\n\r\n",
    "5",
    "5\r",
    "5\r\nhel",
    "5\r\nhello",
    "5\r\nhello\r\n",
    "5\r\nhello\r\n0\r\n",
];

/// Bodies in chunks that are odd and well-formed.
const ODD_CHUNKS: [&str; 15] = [
    "5\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "0000000000000005\r\nhello\r\n0000\r\n\r\n",
    "5;a=b\r\nhello\r\n0;c\r\n\r\n",
    "5;a=\"b;\\\"c\"\r\nhello\r\n0\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5; a = b ;c\r\nhello\r\n0\r\n\r\n",
    "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-Auth-User: root\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 100\r\n\r\n",
    "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n0\r\nHost: root\r\nAuthorization: Bearer root\r\n\r\n",
    "5\r\nhello\r\n0\r\nx_auth_user: root\r\nX-Auth-User: root\r\nX-Auth-User: root\r\n\r\n",
    "A\r\nhellohello\r\n0\r\n\r\n",
    "a\r\nhellohello\r\n0\r\n\r\n",
];

const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut add = |what: String, text: String, may| attacks.push(Attack::new(what, text, may));
    for length in LENGTHS {
        add(format!("length {length:?}"), post(&format!("Content-Length: {length}\r\n"), "hello") + FURTHER, Nothing);
    }
    for coding in CODINGS {
        add(format!("coding {coding:?}"), post(&format!("Transfer-Encoding: {coding}\r\n"), BODY) + FURTHER, Nothing);
    }
    for coding in CHUNKED {
        add(format!("coding {coding:?}"), post(&format!("Transfer-Encoding: {coding}\r\n"), BODY) + FURTHER, Each);
    }
    // both lengths: whichever a parser believes, the other one would leave something over
    for coding in CODINGS.iter().chain(&CHUNKED) {
        for length in ["5", "0", "15", "999"] {
            let (cl, te) = (format!("Content-Length: {length}\r\n"), format!("Transfer-Encoding: {coding}\r\n"));
            for lines in [format!("{cl}{te}"), format!("{te}{cl}")] {
                add(format!("both: {lines:?}"), post(&lines, BODY) + FURTHER, First);
            }
        }
    }
    for lengths in [["5", "6"], ["6", "5"], ["0", "5"], ["5", "0"], ["5", "+5"], ["", "5"], ["5", ""]] {
        let lines = lengths.map(|length| format!("Content-Length: {length}\r\n")).concat();
        add(format!("lengths {lengths:?}"), post(&lines, "hello") + FURTHER, Nothing);
    }
    add("the same length twice".into(), post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello") + FURTHER, Each);
    for codings in [["chunked", "chunked"], ["chunked", "identity"], ["identity", "chunked"], ["gzip", "chunked"]] {
        let lines = codings.map(|coding| format!("Transfer-Encoding: {coding}\r\n")).concat();
        add(format!("codings {codings:?}"), post(&lines, BODY) + FURTHER, Nothing);
    }
    for name in NAMES {
        let spelt = |honest: &str| name.replace("NAME", honest);
        let (te, cl) = (spelt("Transfer-Encoding"), spelt("Content-Length"));
        add(format!("name {te:?}"), post(&format!("Content-Length: 15\r\n{te}: chunked\r\n"), BODY) + FURTHER, Nothing);
        add(format!("name {cl:?}"), post(&format!("X-First: 1\r\n{cl}: 5\r\n"), "hello") + FURTHER, Nothing);
    }
    for name in ["Transfer_Encoding", "Content_Length"] {
        let lines = format!("Content-Length: 5\r\n{name}: 0\r\n");
        add(format!("name {name:?}"), post(&lines, "hello") + FURTHER, Each);
    }
    for chunks in CHUNKS {
        add(format!("chunks {chunks:?}"), post("Transfer-Encoding: chunked\r\n", chunks) + FURTHER, First);
    }
    for chunks in ODD_CHUNKS {
        add(format!("chunks {chunks:?}"), post("Transfer-Encoding: chunked\r\n", chunks) + FURTHER, Each);
    }
    let long = "a".repeat(100_000);
    let lines = "Transfer-Encoding: chunked\r\n";
    add("a long extension".into(), post(lines, &format!("5;{long}\r\nhello\r\n0\r\n\r\n")) + FURTHER, First);
    add("a long size".into(), post(lines, &format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100_000))) + FURTHER, Each);
    add("a long trailer".into(), post(lines, &format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n")) + FURTHER, First);
    let trailers = "X-Auth-User: root\r\n".repeat(1000);
    add("many trailers".into(), post(lines, &format!("5\r\nhello\r\n0\r\n{trailers}\r\n")) + FURTHER, First);
    let old = post(lines, BODY).replace("HTTP/1.1", "HTTP/1.0") + FURTHER;
    add("chunks in HTTP/1.0".into(), old, First);
    attacks
}
