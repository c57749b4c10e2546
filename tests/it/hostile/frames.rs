//! HTTP/2, frame by frame.
//!
//! A connection is written as lines: the type of a frame, its stream, its flags; below a `HEADERS` its
//! fields, each indented; behind a `DATA` its text.

use super::Attack;
use super::May::{Each, First, Nothing};

/// How the text of an attack begins that is to be encoded as frames.
pub const MARK: &str = "HTTP/2\n";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of a connection.
pub fn encode(text: &str) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, 4, 0, 0, b"");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let mut words = line.splitn(4, ' ');
        let (kind, stream) = (words.next().unwrap(), words.next().and_then(|stream| stream.parse().ok()).unwrap_or(0));
        let (flags, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut payload = latin1(data);
        while let Some(field) = lines.next_if(|line| line.starts_with("  ")) {
            let (name, value) = field.split_once(": ").unwrap_or_else(|| panic!("{field}"));
            // a literal that is not kept
            payload.push(0);
            string(&mut payload, name.trim_start_matches("  "));
            string(&mut payload, value);
        }
        let kind = match kind {
            "DATA" => 0,
            "HEADERS" => 1,
            "PRIORITY" => 2,
            "RST_STREAM" => 3,
            "SETTINGS" => 4,
            "PUSH_PROMISE" => 5,
            "PING" => 6,
            "GOAWAY" => 7,
            "WINDOW_UPDATE" => 8,
            "CONTINUATION" => 9,
            other => panic!("{other}"),
        };
        let flag = |name, bit| if flags.split(',').any(|flag| flag == name) { bit } else { 0 };
        let flags = flag("end", 1) | flag("whole", 4) | flag("padded", 8);
        frame(&mut bytes, kind, flags, stream, &payload);
    }
    bytes
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// A string of HPACK, as it is.
fn string(bytes: &mut Vec<u8>, text: &str) {
    let text = latin1(text);
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128 + 128).unwrap());
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text);
}

/// What cannot stand in the line of a table is written as an escape.
fn latin1(text: &str) -> Vec<u8> {
    let text = text.replace("<CR>", "\r").replace("<LF>", "\n").replace("<NUL>", "\0");
    text.chars().map(|c| u8::try_from(c).expect("one byte a character")).collect()
}

const HEAD: [&str; 5] = [":method: POST", ":scheme: http", ":authority: localhost", ":path: /mcp/ROW", "AUTH"];

/// A request on stream 1 with these fields behind the usual ones; each usual one can be given anew.
fn request(flags: &str, fields: &[&str]) -> String {
    let name = |field: &str| field.rsplit_once(": ").map(|(name, _)| name.to_owned());
    let usual =
        HEAD.iter().filter(|usual| usual.starts_with("AUTH") || !fields.iter().any(|field| name(field) == name(usual)));
    let pseudo = |field: &&&str| field.starts_with(':');
    let mut all: Vec<&&str> = usual.chain(fields).collect();
    all.sort_by_key(|field| !pseudo(field));
    let lines: String = all.iter().map(|field| format!("  {field}\n")).collect();
    format!("HEADERS 1 {flags}\n{lines}")
}

/// Fields that no request may have, or not in this form: the stream is reset, or refused.
const REFUSED: [&[&str]; 46] = [
    &["connection: close"],
    &["connection: x-auth-user"],
    &["transfer-encoding: chunked"],
    &["transfer-encoding: identity"],
    &["keep-alive: timeout=5"],
    &["proxy-connection: keep-alive"],
    &["upgrade: h2c"],
    &["te: chunked"],
    &["te: trailers, chunked"],
    &["content-length: +5"],
    &["content-length: 0x5"],
    &["content-length: 5,5"],
    &["content-length: 5", "content-length: 5"],
    &["content-length: 5", "content-length: 6"],
    &["content-length: five"],
    &["content-length: 99999999999999999999"],
    &["X-Auth-User: root"],
    &["Content-Length: 5"],
    &["x-auth-user : root"],
    &["x auth user: root"],
    &["x<CR>: root"],
    &["x<LF>: root"],
    &["x<NUL>: root"],
    &["x\u{e9}: root"],
    &["x: a<CR><LF>x-auth-user: root"],
    &["x: a<LF>x-auth-user: root"],
    &["x: a<CR>x-auth-user: root"],
    &["x: a<NUL>root"],
    &["x: a<CR><LF><CR><LF>GET /further/ROW HTTP/1.1"],
    &[":path: /mcp/ROW HTTP/1.1<CR><LF>x-auth-user: root"],
    &[":path: /mcp/ROW root"],
    &[":path: mcp/ROW"],
    &[":path: "],
    &[":path: *"],
    &[":method: GET /further/ROW HTTP/1.1<CR><LF>x:"],
    &[":method: TRACE"],
    &[":method: get"],
    &[":method: "],
    &[":scheme: http://localhost/further/ROW?"],
    &[":authority: root"],
    &[":authority: root@localhost"],
    &[":authority: localhost root"],
    &["host: root"],
    &[":status: 200"],
    &[":root: 1"],
    &[":protocol: websocket"],
];

/// Fields with which a request is in order; what they claim does not arrive.
const ACCEPTED: [&[&str]; 17] = [
    &["te: trailers"],
    &["content-length: 5"],
    &["content-length: 05"],
    &["expect: 100-continue"],
    &["x-auth-user: root"],
    &["x-auth-user: root", "x-auth-user: root"],
    &["x_auth_user: root", "x.auth.user: root", "x-auth-email: root"],
    &["x-forwarded-for: root", "forwarded: for=root", "x-real-ip: root"],
    &["trailer: x-auth-user"],
    &["http2-settings: AAMAAABkAAQAoAAAAAIAAAAA"],
    &["proxy-authorization: Bearer root"],
    &["cookie: a=1", "cookie: b=2"],
    &["host: localhost"],
    &[":scheme: https"],
    &[":path: /mcp/ROW?x=1#root"],
    &[":path: /mcp/ROW//../x"],
    &[":authority: LOCALHOST:1"],
];

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut add = |what: String, lines: String, may| {
        attacks.push(Attack::new(format!("HTTP/2: {what}"), format!("{MARK}{lines}"), may));
    };
    let data = "DATA 1 end hello\n";
    for fields in REFUSED {
        add(format!("{fields:?}"), request("whole", fields) + data, Nothing);
        add(format!("{fields:?} without data"), request("whole,end", fields), Nothing);
    }
    for fields in ACCEPTED {
        add(format!("{fields:?}"), request("whole", fields) + data, Each);
    }
    for name in [":method", ":scheme", ":authority", ":path"] {
        let whole = request("whole,end", &[]);
        let line = whole.lines().find(|line| line.trim().starts_with(name)).unwrap();
        add(
            format!("without {name}"),
            whole.replacen(&format!("{line}\n"), "", 1),
            if name == ":authority" { Each } else { Nothing },
        );
        add(format!("twice {name}"), whole.replacen(line, &format!("{line}\n{line}"), 1), Nothing);
        add(format!("late {name}"), whole.replacen(&format!("{line}\n"), "", 1) + line + "\n", Nothing);
    }
    let plain = || request("whole", &[]);
    for (what, lines, may) in [
        ("more data than told", request("whole", &["content-length: 3"]) + data, First),
        ("less data than told", request("whole", &["content-length: 9"]) + data, First),
        ("a length and no data", request("whole,end", &["content-length: 9"]), First),
        ("an empty length", request("whole,end", &["content-length: "]), First),
        ("no data where none is told", request("whole,end", &["content-length: 0"]), Each),
        ("trailers", plain() + "DATA 1  hello\nHEADERS 1 whole,end\n  x-auth-user: root\n", Each),
        (
            "trailers with pseudo-headers",
            plain() + "DATA 1  hello\nHEADERS 1 whole,end\n  :path: /further/ROW\n",
            First,
        ),
        ("trailers that end nothing", plain() + "DATA 1  hello\nHEADERS 1 whole\n  x-auth-user: root\n" + data, First),
        ("a second head after the end", plain() + data + &plain(), First),
        ("data after the end", plain() + data + data, First),
        ("data before the head", data.to_owned() + &plain(), Nothing),
        ("an even stream", plain().replace("HEADERS 1", "HEADERS 2") + "DATA 2 end hello\n", Nothing),
        ("stream 0", plain().replace("HEADERS 1", "HEADERS 0"), Nothing),
        ("a lower stream after a higher", plain().replace("HEADERS 1", "HEADERS 5") + &plain(), First),
        ("a stream of its own for each", (plain() + data) + &(plain() + data).replace(" 1 ", " 3 "), Each),
        ("a head that never ends", request("end", &[]), Nothing),
        ("a head in two", request("end", &[]) + "CONTINUATION 1 whole\n  x-auth-user: root\n", Each),
        (
            "a head that another stream interrupts",
            request("end", &[]) + "DATA 3 end x\nCONTINUATION 1 whole\n",
            Nothing,
        ),
        ("a continuation of nothing", "CONTINUATION 1 whole\n  x-auth-user: root\n".to_owned() + &plain(), Nothing),
        ("padding without end", "DATA 1 padded \u{ff}\n".to_owned() + &plain(), Nothing),
        ("a promise from a client", "PUSH_PROMISE 1 whole\n".to_owned() + &plain(), Nothing),
        ("a reset at once", plain() + "RST_STREAM 1  <NUL><NUL><NUL>\u{8}\n", First),
        ("a reset of nothing", "RST_STREAM 1  <NUL><NUL><NUL>\u{8}\n".to_owned() + &plain(), Nothing),
        ("settings that are none", "SETTINGS 0  x\n".to_owned() + &plain() + data, Nothing),
        ("a window of nothing", "WINDOW_UPDATE 0  <NUL><NUL><NUL><NUL>\n".to_owned() + &plain() + data, Nothing),
        ("an index of nothing", "HEADERS 1 whole,end \u{ff}\u{ff}\u{ff}\u{7f}\n".to_owned() + &plain(), Nothing),
        (
            "a table of four gigabytes",
            "HEADERS 1 whole,end ?\u{e1}\u{ff}\u{ff}\u{ff}\u{f}\n".to_owned() + &plain(),
            Nothing,
        ),
    ] {
        add(what.to_owned(), lines, may);
    }
    let long = format!("x-auth-user: {}", "root".repeat(20_000));
    add("a long claim".into(), request("whole,end", &[&long]), Nothing);
    let claims = vec!["x-auth-user: root"; 300];
    add("many claims".into(), request("whole,end", &claims), First);
    let crumbs = vec!["cookie: a=1"; 90];
    add("many crumbs".into(), request("whole,end", &crumbs), First);
    add("many continuations".into(), request("end", &[]) + &"CONTINUATION 1  \n".repeat(5000), Nothing);
    attacks
}
