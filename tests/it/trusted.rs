//! Proxies in front: what they say of a client is believed if the operator trusts them, and of nobody else.

use std::io::Write;

use crate::harness::{Folder, Origin, Proxy, eventually, get, read_answer};
use crate::stage::Line;

fn started(more: &str) -> (Origin, Folder, String, Proxy) {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), more);
    (origin, folder, token, proxy)
}

/// What the origin was told of where the last request came from.
fn told(origin: &Origin) -> [Vec<String>; 4] {
    let received = origin.received().pop().unwrap();
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
        .map(|name| received.values(name).into_iter().map(str::to_owned).collect())
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: mcp.example.com\r\nForwarded: for=7.7.7.7;proto=https;host=other.example\r\n";

#[test]
fn a_trusted_proxy_is_believed_and_anybody_else_is_not() {
    for (setting, expected) in [
        ("", ["127.0.0.1", "http", "localhost"]),
        ("trusted_proxies = [\"10.0.0.0/8\", \"unix\"]", ["127.0.0.1", "http", "localhost"]),
        ("trusted_proxies = [\"127.0.0.0/8\"]", ["192.0.2.7", "https", "mcp.example.com"]),
        ("trusted_proxies = [\"127.0.0.1\"]\nforwarded_header = \"Forwarded\"", ["7.7.7.7", "https", "other.example"]),
    ] {
        let (origin, _folder, token, proxy) = started(setting);
        let answer = proxy.ask(&get(&token, CLAIMS));
        assert_eq!(answer.status, 200);
        let [address, scheme, host, forwarded] = told(&origin);
        assert_eq!([address, scheme, host].concat(), expected, "{setting}");
        assert!(forwarded.is_empty(), "nothing is passed on twice");
        assert_eq!(proxy.record_of(&answer)["client_ip"], expected[0]);
    }
}

#[test]
fn what_a_proxy_says_opens_no_door() {
    let (origin, _folder, token, proxy) = started("trusted_proxies = [\"127.0.0.1\"]");
    // the host that counts is the one that was asked for, whatever the proxy says
    let rebound = get(&token, CLAIMS).replace("localhost", "evil.example");
    assert_eq!(proxy.ask(&rebound).status, 403);
    assert_eq!(proxy.ask(&get("unknown", CLAIMS)).status, 401);
    assert!(origin.received().is_empty());
}

// --- The PROXY protocol ---------------------------------------------------------------------

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n";

fn binary(command: u8, source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[10, 0, 0, 1, 0, 1, 0, 2]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11, 0, 12], &addresses].concat()
}

#[test]
fn a_balancer_names_the_client_before_anything_else() {
    let (origin, _folder, token, proxy) = started(TRUSTING);
    for (header, address) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), "192.0.2.7"),
        (binary(0x21, [192, 0, 2, 8]), "192.0.2.8"),
        // its own connection, as health checks are
        (binary(0x20, [192, 0, 2, 9]), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut client = Line::to(&proxy.address);
        // in two parts, as a network may deliver it
        let (first, second) = header.split_at(9);
        client.send(first);
        client.send(second);
        for _ in 0..2 {
            client.send(get(&token, ""));
            let answer = client.answer();
            assert_eq!(answer.status, 200);
            assert_eq!(proxy.record_of(&answer)["client_ip"], address);
            assert_eq!(told(&origin)[0], [address]);
        }
    }
    // a balancer passes on what a client writes, and where it names nobody, that is nobody's word
    for header in [binary(0x20, [192, 0, 2, 9]), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = Line::to(&proxy.address);
        client.send(header);
        client.send(get(&token, CLAIMS));
        assert_eq!(client.answer().status, 200);
        assert_eq!(told(&origin)[0], ["127.0.0.1"]);
    }
    // who the balancer passes on is no proxy, and is not believed
    let mut client = Line::to(&proxy.address);
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_owned() + &get(&token, CLAIMS));
    assert_eq!(client.answer().status, 200);
    assert_eq!(told(&origin)[0], ["192.0.2.7"]);
}

#[test]
fn without_its_header_a_balancers_connection_is_closed() {
    let (origin, _folder, token, proxy) = started(&format!("{TRUSTING}[timeouts]\nhandshake = \"300ms\"\n"));
    for begun in [get(&token, ""), "PROXY TCP4 nonsense\r\n".to_owned() + &get(&token, ""), "PROXY TC".to_owned()] {
        let mut client = Line::to(&proxy.address);
        client.send(begun);
        client.await_end();
    }
    assert!(origin.received().is_empty());
}

#[test]
fn a_header_from_a_stranger_is_nothing_but_a_bad_request() {
    let (origin, _folder, token, proxy) = started(&TRUSTING.replace("127.0.0.1", "10.0.0.1"));
    let mut client = Line::to(&proxy.address);
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_owned() + &get(&token, ""));
    let answer = client.answer();
    assert_eq!(answer.status, 400);
    assert_eq!(proxy.record_of(&answer)["client_ip"], "127.0.0.1");
    assert_eq!(proxy.ask(&get(&token, "")).status, 200, "and a stranger needs none");
    assert_eq!(origin.received().len(), 1);
}

// --- Limits by address ----------------------------------------------------------------------

#[test]
fn each_client_behind_a_balancer_has_its_own_share_of_connections() {
    let (_origin, _folder, token, proxy) = started(&format!("{TRUSTING}[limits]\nconnections_per_address = 2\n"));
    let connect = |address: &str| {
        let mut client = Line::to(&proxy.address);
        client.send(format!("PROXY TCP4 {address} 10.0.0.1 1 2\r\n") + &get(&token, ""));
        let answer = client.answer();
        (client, answer)
    };
    let held: Vec<_> = (0..2).map(|_| connect("192.0.2.7")).collect();
    assert!(held.iter().all(|(_, answer)| answer.status == 200));
    let (_, refused) = connect("192.0.2.7");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let record = proxy.record_of(&refused);
    assert_eq!((&record["reason"], &record["client_ip"]), (&"too_many_connections".into(), &"192.0.2.7".into()));
    assert_eq!(connect("192.0.2.8").1.status, 200, "others have theirs");
    drop(held);
    eventually("a place", || (connect("192.0.2.7").1.status == 200).then_some(()));
}

#[test]
fn over_tls_the_header_comes_before_the_handshake() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let (proxy, config) = crate::tls::proxy_and_client(&folder, &origin, TRUSTING);
    let mut socket = crate::harness::connect(&proxy.address);
    socket.write_all(&binary(0x21, [192, 0, 2, 8])).unwrap();
    let mut client = crate::tls::client_on(socket, config);
    client.write_all(get(&token, "").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut std::io::BufReader::new(client)).status, 200);
    let [address, scheme, ..] = told(&origin);
    assert_eq!([address, scheme].concat(), ["192.0.2.8", "https"]);
}
