//! An audit log, as `patgate audit query` and `verify` read it back: no line is lost, a record is what another parser
//! reads, and a chain is intact exactly if the rule on docs/audit.md says so.

use std::io::Cursor;

use patgate::audit::{Line, Lines, Logged, Text, Verification};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// More of what an archive unfolds to is not read.
const MOST: u64 = 100_000;

pub fn check(data: &[u8]) {
    read(data);
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').collect();
    for line in &lines {
        record(line);
    }
    assert_eq!(is_intact(&lines), is_chain(&lines), "the chain is judged wrongly");
    forge(&lines);
}

/// Reads the file as a whole. What is no archive has the lines that anybody sees in it.
fn read(data: &[u8]) {
    let is_archive =
        matches!(data, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    // a line without its end is waited for
    let file = if is_archive { data.to_vec() } else { [data, b"\n"].concat() };
    let length = file.len() as u64;
    let Ok(mut lines) = Lines::of(Cursor::new(file)) else { return };
    let mut whole = Vec::new();
    while let Ok(Some(line)) = lines.next_line() {
        if line.number > MOST {
            return;
        }
        if !is_archive {
            assert!(line.ended);
            whole.extend_from_slice(line.text);
            whole.push(b'\n');
        }
    }
    assert!(lines.position() <= length);
    assert!(is_archive || whole == [data, b"\n"].concat(), "a line was lost");
}

// --- One record -----------------------------------------------------------------------------

/// The members that are text.
const TEXTS: [&str; 11] = [
    "outcome",
    "reason",
    "request_id",
    "pat_id",
    "pat_name",
    "user",
    "client_ip",
    "http_method",
    "path",
    "mcp_session",
    "ended",
];

fn record(line: &[u8]) {
    let read = Logged::read(line);
    // a member that nobody asks for may hold what only this parser refuses, such as a number that is too large
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return };
    // a member that stands there twice is refused, and this parser takes the last: ask again without
    let once = serde_json::to_vec(&value).unwrap();
    assert_eq!(Logged::read(&once).is_some(), is_record(&value), "{value}");
    let Some(read) = read else { return };
    let text = |name: &str| value[name].as_str();
    let found = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
    let texts = [
        &read.outcome,
        &read.reason,
        &read.request_id,
        &read.pat_id,
        &read.pat_name,
        &read.user,
        &read.client_ip,
        &read.http_method,
        &read.path,
        &read.mcp_session,
        &read.ended,
    ];
    for (name, read) in TEXTS.iter().zip(texts) {
        assert_eq!(found(read).as_deref(), text(name), "{name}");
    }
    assert_eq!((Some(&*read.ts.0), Some(&*read.event.0)), (text("ts"), text("event")));
    assert_eq!(read.status.map(u64::from), value["status"].as_u64());
    assert_eq!((read.lost, read.duration_ms), (value["lost"].as_u64(), value["duration_ms"].as_f64()));
    let calls = value["mcp_calls"].as_array().into_iter().flatten();
    let calls: Vec<_> = calls.filter(|call| call.is_object()).collect();
    for (whole, name, read) in
        [("mcp_tool", "tool", read.tools().collect::<Vec<_>>()), ("mcp_method", "method", read.methods().collect())]
    {
        let expected: Vec<_> =
            text(whole).into_iter().chain(calls.iter().filter_map(|call| call[name].as_str())).collect();
        assert!(expected == read || has_lists(&value), "{name}: {read:?}");
    }
}

/// Whether a call is a list, which is read with its elements for the members.
fn has_lists(value: &Value) -> bool {
    value["mcp_calls"].as_array().is_some_and(|calls| calls.iter().any(Value::is_array))
}

fn is_record(value: &Value) -> bool {
    let Some(object) = value.as_object() else { return false };
    let none_or =
        |name: &str, fits: &dyn Fn(&Value) -> bool| object.get(name).is_none_or(|value| value.is_null() || fits(value));
    let is_call = |call: &Value| match call {
        Value::Object(call) => {
            ["method", "tool"].iter().all(|name| call.get(*name).is_none_or(|at| at.is_null() || at.is_string()))
        }
        Value::Array(list) => list.len() == 2 && list.iter().all(|at| at.is_null() || at.is_string()),
        _ => false,
    };
    let is_time = |text: &str| {
        let shape: String = text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
        shape == "0000-00-00T00:00:00.000000Z"
    };
    TEXTS.iter().chain(&["mcp_method", "mcp_tool"]).all(|name| none_or(name, &Value::is_string))
        && object.get("ts").and_then(Value::as_str).is_some_and(is_time)
        && object.get("event").is_some_and(Value::is_string)
        && none_or("status", &|status| status.as_u64().is_some_and(|status| u16::try_from(status).is_ok()))
        && none_or("lost", &|lost| lost.is_u64())
        && none_or("duration_ms", &Value::is_number)
        && object.get("mcp_calls").is_none_or(|calls| calls.as_array().is_some_and(|calls| calls.iter().all(is_call)))
}

// --- The chain ------------------------------------------------------------------------------

fn is_intact(lines: &[&[u8]]) -> bool {
    let mut verification = Verification::new(None);
    for (index, text) in lines.iter().enumerate() {
        verification.read(0, &Line { number: index as u64 + 1, text, ended: true });
    }
    verification.is_intact()
}

/// A line taken apart: what its hash is over, its number, what it says stood before it, its hash.
fn seal(line: &[u8]) -> Option<(String, u64, Option<String>, String)> {
    let hash_of = |text: &str| {
        let is_hash =
            text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_hash.then(|| text.to_owned())
    };
    // what stands before the seal may be anything
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    let (body, hash) = text.strip_suffix("\"}")?.rsplit_once(",\"hash\":\"")?;
    let hash = hash_of(hash)?;
    let previous = body.strip_suffix('"').and_then(|body| body.rsplit_once(",\"prev\":\""));
    let previous = previous.and_then(|(before, text)| Some((before, hash_of(text)?)));
    let (before, previous) = previous.map_or((body, None), |(before, text)| (before, Some(text)));
    let (_, number) = before.rsplit_once(",\"seq\":")?;
    let digits = (1..=20).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((body.to_owned(), digits.then(|| number.parse().ok())??, previous, hash))
}

fn hash(previous: &str, body: &str) -> String {
    let bytes: Vec<u8> = body.chars().map(|char| char as u8).collect();
    let digest = Sha256::new().chain_update(previous).chain_update(bytes).chain_update("}").finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The rule on docs/audit.md. Lines before the chain are nobody's, and the first record may come later if it says what
/// stood before it.
fn is_chain(lines: &[&[u8]]) -> bool {
    let start = "0".repeat(64);
    let sealed: Vec<_> = lines.iter().map(|line| seal(line)).collect();
    let before = sealed.iter().take_while(|seal| seal.is_none()).count();
    let mut last: Option<(u64, String)> = None;
    for seal in &sealed[before..] {
        let Some((body, seq, previous, stated)) = seal else { return false };
        let link = match &last {
            Some((number, link)) => (number.checked_add(1) == Some(*seq)).then(|| link.clone()),
            None if *seq == 1 => Some(start.clone()),
            None => previous.clone().filter(|_| before == 0),
        };
        if link.is_none_or(|link| hash(&link, body) != *stated) {
            return false;
        }
        last = Some((*seq, stated.clone()));
    }
    last.is_some()
}

/// Seals the lines by that rule, and then changes something.
fn forge(lines: &[&[u8]]) {
    let mut link = "0".repeat(64);
    let chain: Vec<String> = (lines.iter().enumerate())
        .map(|(index, line)| {
            let body = format!("{{\"text\":{},\"seq\":{}", Value::from(String::from_utf8_lossy(line)), index + 1);
            // as `hash` takes it: a character for each byte
            link = hash(&link, &body.bytes().map(char::from).collect::<String>());
            format!("{body},\"hash\":\"{link}\"}}")
        })
        .collect();
    let judge = |chain: &[String]| is_intact(&chain.iter().map(String::as_bytes).collect::<Vec<_>>());
    assert!(judge(&chain), "a good chain is refused");
    let at = lines[0].iter().map(|byte| usize::from(*byte)).sum::<usize>();
    let (place, next) = (at % chain.len(), (at + 1) % chain.len());
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = chain.clone();
        change(&mut changed);
        changed
    };
    let altered = changed(&|chain| {
        let column = at % chain[place].len();
        let mut bytes = std::mem::take(&mut chain[place]).into_bytes();
        bytes[column] ^= 1;
        // a piece of a longer character is no text any more
        chain[place] = String::from_utf8(bytes).unwrap_or_default();
    });
    let dropped = changed(&|chain| drop(chain.remove(place)));
    let doubled = changed(&|chain| chain.insert(place, chain[place].clone()));
    let swapped = changed(&|chain| chain.swap(place, next));
    assert!(!judge(&altered), "an altered record passes");
    assert!(!judge(&doubled), "a record passes twice");
    assert!(place == next || !judge(&swapped), "another order passes");
    // what was cut off at the end looks like a shorter log
    assert!(place == chain.len() - 1 || !judge(&dropped), "a missing record passes");
}
