//! What is held back of bodies to be read: one token cannot take the memory of all, and what does not fit is told.

use crate::frames::memory;
use crate::harness::{Folder, Proxy, eventually, get, post, post_in_chunks};
use crate::stage::{Line, Stage, staged};

/// Room for two bodies of the largest size, of which one token may have one.
const LITTLE: &str = "[policy]\ndefault = \"allow\"\n[limits]\ninspect = \"64KiB\"\ninspect_answer = \"64KiB\"\n\
                      inspect_total = \"128KiB\"\n";
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const KIB: usize = 1024;

fn await_held(proxy: &Proxy, kib: usize) {
    let told = format!("\npatgate_held_bytes {}\n", kib * KIB);
    eventually(&told, || proxy.health("/metrics").body.contains(&told).then_some(()));
}

/// A message of so many bytes.
fn message(length: usize) -> String {
    let (start, end) = (r#"{"jsonrpc":"2.0","method":"x","params":{"x":""#, r#""}}"#);
    format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
}

/// A client that has sent all but the last byte of a body.
fn holding(proxy: &Proxy, token: &str) -> Line {
    let mut client = Line::to(&proxy.address);
    client.send(post(token, &message(60 * KIB)).strip_suffix('}').unwrap());
    client
}

fn assert_answered(origin: &Stage, mut client: Line) {
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(client.answer().status, 202);
}

fn assert_overloaded(proxy: &Proxy, client: &mut Line, told: &str) {
    let answer = client.answer();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains(told), "{answer:?}");
    let record = proxy.record_of(&answer);
    assert_eq!((&record["outcome"], &record["reason"]), (&"error".into(), &"overloaded".into()), "{record}");
}

#[test]
fn bodies_past_the_room_for_them_are_a_503_for_a_token_and_for_all_and_small_ones_pass() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| folder.token(user, &[]));
    let proxy = folder.serve(&origin.url(), LITTLE);
    let mut of_alice = holding(&proxy, &alice);
    await_held(&proxy, 48);
    assert_overloaded(&proxy, &mut holding(&proxy, &alice), "nothing was sent on");
    let of_bob = holding(&proxy, &bob);
    await_held(&proxy, 96);
    assert_overloaded(&proxy, &mut holding(&proxy, &carol), "nothing was sent on");
    assert!(origin.is_quiet());
    for token in [&alice, &carol] {
        let mut client = Line::to(&proxy.address);
        client.send(post(token, &message(16 * KIB)));
        assert_answered(&origin, client);
    }
    of_alice.send("}");
    assert_answered(&origin, of_alice);
    await_held(&proxy, 48);
    let mut of_carol = holding(&proxy, &carol);
    await_held(&proxy, 96);
    of_carol.send("}");
    assert_answered(&origin, of_carol);
    drop(of_bob);
    await_held(&proxy, 0);
}

#[test]
fn a_body_that_is_only_reported_on_passes_whether_there_is_room_or_not() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let alice = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), &LITTLE.replace("[limits]", "mode = \"report\"\n[limits]"));
    let _held = holding(&proxy, &alice);
    await_held(&proxy, 48);
    let mut client = holding(&proxy, &alice);
    let mut upstream = origin.accept();
    upstream.request();
    client.send("}");
    assert_eq!(upstream.bytes(60 * KIB), message(60 * KIB).as_bytes());
    upstream.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    let answer = client.answer();
    let record = proxy.record_of(&answer);
    assert_eq!((answer.status, &record["policy_rule"]), (202, &"body: past limits.inspect_total".into()), "{record}");
}

#[test]
fn answers_past_the_room_for_them_are_a_503_and_streams_break_off() {
    let (origin, _folder, token, proxy) = staged(LITTLE);
    let begin = |request: String, answer: &str| {
        let mut client = Line::to(&proxy.address);
        client.send(request.replacen("\r\n", "\r\nX-MCP-Tools: a\r\n", 1));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(answer);
        (client, upstream)
    };
    let list = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[]}}{}}}"#, " ".repeat(60 * KIB));
    let (begun, end) = list.split_at(60 * KIB);
    let length = list.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{begun}"
    );
    let (mut first, mut first_upstream) = begin(post(&token, LIST), &answer);
    await_held(&proxy, 48);
    let (mut second, mut second_upstream) = begin(post(&token, LIST), &answer);
    assert_overloaded(&proxy, &mut second, "the MCP server has got the request");
    second_upstream.await_end();

    let event = format!("data: {}", "x".repeat(40 * KIB));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let open_stream = || {
        let (mut client, mut upstream) = begin(get(&token, ""), &format!("{head}9\r\ndata: 1\n\n\r\n"));
        let answer = client.answer_head();
        assert_eq!((answer.status, client.chunk()), (200, "data: 1\n\n".to_owned()));
        upstream.send_chunk(&event);
        (client, upstream, answer)
    };
    let (mut client, mut upstream, answer) = open_stream();
    client.await_end();
    upstream.await_end();
    assert_eq!(proxy.record_of(&answer)["ended"], "upstream_failed");
    let page = proxy.health("/metrics").body;
    let mut troubles = page.lines().filter(|line| line.starts_with("patgate_upstream_failures_total{"));
    assert!(troubles.all(|line| line.ends_with(" 0")), "the MCP server is not blamed: {page}");

    first_upstream.send(end);
    assert_eq!(first.answer().body, list);
    await_held(&proxy, 0);
    let (mut client, mut upstream, _) = open_stream();
    await_held(&proxy, 32);
    upstream.send_chunk("\n\n");
    let mut came = String::new();
    while came.len() < event.len() + 2 {
        came += &client.chunk();
    }
    assert_eq!(came, event + "\n\n");
    await_held(&proxy, 0);
}

/// Each piece by itself would keep the buffer that it was read into.
#[test]
fn a_body_in_thousands_of_pieces_takes_no_more_memory_than_one_in_few() {
    let (origin, _folder, token, proxy) = staged("workers = 1");
    let pieces = "1\r\nx\r\n".repeat(60_000);
    let upload = || {
        let mut client = Line::to(&proxy.address);
        client.send(post_in_chunks(&token).replacen("\r\n", "\r\nContent-Type: application/json\r\n", 1));
        let mut upstream = origin.accept();
        upstream.request();
        let reading = std::thread::spawn(move || {
            for _ in 0..60_000 {
                assert_eq!(upstream.chunk(), "x");
            }
            upstream
        });
        client.send(&pieces);
        (client, reading.join().unwrap())
    };
    let mut open = vec![upload()];
    let before = memory(&proxy);
    open.extend((0..2).map(|_| upload()));
    let grown = memory(&proxy).saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB for two bodies of 60 KB");
}

#[test]
fn room_for_less_than_one_body_is_refused_at_the_start() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    for (limits, least) in [
        ("inspect_total = \"1MiB\"", "4194304"),
        ("inspect_total = \"32MiB\"\ninspect = \"33MiB\"", "34603008"),
        ("inspect_total = \"32KiB\"\ninspect = \"1KiB\"\ninspect_answer = \"1KiB\"", "65536"),
    ] {
        folder.configure("http://127.0.0.1:3000", &format!("[limits]\n{limits}"));
        let check = folder.run(&["check", "--config", "patgate.toml"]);
        let error = String::from_utf8_lossy(&check.stderr);
        assert_eq!(check.status.code(), Some(2), "{error}");
        assert!(
            error.contains("limits.inspect_total") && error.contains(&format!("write {least} at least")),
            "{error}"
        );
    }
    for limits in
        ["inspect = \"33MiB\"", "inspect_answer = \"40MiB\"", "inspect_total = \"40MiB\"\ninspect = \"33MiB\""]
    {
        folder.configure("http://127.0.0.1:3000", &format!("[limits]\n{limits}"));
        let check = folder.run(&["check", "--config", "patgate.toml"]);
        assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stderr));
    }
    let path = folder.configure("http://127.0.0.1:3000", "");
    let text = folder.read("patgate.toml").replace("[audit]\n", "[audit]\ninspect = \"33MiB\"\n");
    std::fs::write(path, text).unwrap();
    assert!(folder.run(&["check", "--config", "patgate.toml"]).status.success());
}
