//! The answers that are the proxy's own: each has the status, the shape and the audit record that the
//! documentation promises, and nothing of it reaches the origin.

use std::io::Write;
use std::net::TcpListener;

use serde_json::Value;

use crate::harness::{Answer, Folder, Keep, Origin, Proxy, get, post, post_in_chunks};
use crate::stage::{Line, Stage};

/// A request that is refused without a look at any token.
pub const WITHOUT_TOKEN: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Checks the shape of an answer of ours and its record; returns the record.
pub fn assert_ours(proxy: &Proxy, answer: &Answer, status: u16, reason: &str) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!((&body["jsonrpc"], body.get("id")), (&"2.0".into(), Some(&Value::Null)));
    assert!(body["error"]["code"].is_i64() && body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));

    let record = proxy.record_of(answer);
    assert_eq!((&record["reason"], &record["status"]), (&reason.into(), &status.into()));
    assert_eq!(record["outcome"], if status >= 500 { "error" } else { "denied" });
    assert_eq!(record["bytes_out"], answer.body.len());
    record
}

// --- What the client did --------------------------------------------------------------------

#[test]
fn what_is_no_http_is_a_400() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    for request in [
        "hello\r\n\r\n".to_owned(),
        "GET /mcp\r\n\r\n".to_owned(),
        "GET /mcp HTTP/7.0\r\n\r\n".to_owned(),
        "GET /m cp HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        get(&token, "Broken Header: x\r\n"),
        get(&token, "X-Space : x\r\n"),
        get(&token, "X-Folded: x\r\n y\r\n"),
        get(&token, "X-Null: a\0b\r\n"),
        get(&token, "Content-Length: +2\r\n"),
        get(&token, "Content-Length: 2\r\nContent-Length: 3\r\n"),
        get(&token, "Transfer-Encoding: xchunked\r\n"),
    ] {
        let mut client = Line::to(&proxy.address);
        client.send(&request);
        let answer = client.answer();
        assert_ours(&proxy, &answer, 400, "malformed_request");
        client.await_end();
    }
    assert!(origin.received().is_empty());
}

#[test]
fn a_request_that_does_not_name_one_host_is_a_400() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let good = get(&token, "");
    let without = good.replace("Host: localhost\r\n", "");
    for request in [
        without.clone(),
        without.replace(" /mcp ", " http://localhost/mcp "),
        good.replace("Host: localhost\r\n", "Host: localhost\r\nHost: localhost\r\n"),
        // the credential is not looked at
        without.replace(&token, "mcp_pat_nobodys"),
    ] {
        let record = assert_ours(&proxy, &proxy.ask(&request), 400, "malformed_request");
        assert!(record.get("pat_id").is_none(), "{record}");
    }
    assert!(origin.received().is_empty());
    assert_eq!(proxy.ask(&without.replace("HTTP/1.1", "HTTP/1.0")).status, 200);
}

#[test]
fn a_page_that_may_not_call_is_a_403() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "allowed_origins = [\"https://app.test\"]\nallowed_hosts = [\"mcp.test\"]");
    for lines in ["Origin: http://evil.test\r\n", "Origin: null\r\n", "Origin: https://app.test\r\nOrigin: x\r\n"] {
        let answer = proxy.ask(&get(&token, lines));
        assert_ours(&proxy, &answer, 403, "bad_origin");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    for host in ["evil.test", "localhost.evil.test", "localhost@evil.test", "127.0.0.1.nip.io"] {
        let answer = proxy.ask(&get(&token, "").replace("localhost", host));
        assert_ours(&proxy, &answer, 403, "bad_origin");
    }
    assert!(origin.received().is_empty());

    let answer = proxy.ask(&get(&token, "Origin: https://app.test\r\n").replace("localhost", "mcp.test:443"));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://app.test")));
}

#[test]
fn methods_that_mcp_has_no_use_for_are_a_405() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    for request in [
        get(&token, "").replacen("GET", "TRACE", 1),
        get(&token, "").replacen("GET /mcp", "CONNECT localhost:22", 1),
        get(&token, "").replacen("GET", "PROPFIND", 1),
    ] {
        let answer = proxy.ask(&request);
        assert_ours(&proxy, &answer, 405, "method_not_allowed");
        assert!(answer.header("allow").unwrap().contains("POST"));
    }
    assert!(origin.received().is_empty());
}

#[test]
fn a_body_past_its_limit_is_a_413_and_one_at_the_limit_passes() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[limits]\nbody = 1000");
    let answer = proxy.ask(&post(&token, &"x".repeat(1001)));
    assert_ours(&proxy, &answer, 413, "too_large");
    let chunk = "x".repeat(500);
    let chunks = format!("1f4\r\n{chunk}\r\n1f4\r\n{chunk}\r\n");
    let answer = proxy.ask(&format!("{}{chunks}1\r\nx\r\n0\r\n\r\n", post_in_chunks(&token)));
    assert_ours(&proxy, &answer, 413, "too_large");
    assert!(origin.received().is_empty(), "only whole requests are received");

    assert_eq!(proxy.ask(&post(&token, &"x".repeat(1000))).status, 200);
    assert_eq!(proxy.ask(&format!("{}{chunks}0\r\n\r\n", post_in_chunks(&token))).status, 200);
    assert_eq!(proxy.audit(4)[3]["bytes_in"], 1000);
}

#[test]
fn a_head_past_its_limits_is_a_431() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[limits]\nhead = 4096\nheaders = 20");
    let (fits, too_long) = ("x".repeat(3800), "x".repeat(4100));
    for request in [
        get(&token, &format!("X-Long: {too_long}\r\n")),
        get(&token, &"X-Many: x\r\n".repeat(19)),
        get(&token, "").replace("/mcp", &format!("/{too_long}")),
    ] {
        let answer = proxy.ask(&request);
        assert_ours(&proxy, &answer, 431, "too_large");
    }
    assert!(origin.received().is_empty());
    assert_eq!(proxy.ask(&get(&token, &format!("X-Long: {fits}\r\n"))).status, 200);
    assert_eq!(proxy.ask(&get(&token, &"X-Many: x\r\n".repeat(18))).status, 200);
}

#[test]
fn a_body_in_a_coding_that_would_be_lost_is_not_passed_on() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let request = post_in_chunks(&token).replace("chunked", "gzip, chunked") + "1\r\nx\r\n0\r\n\r\n";
    assert_ours(&proxy, &proxy.ask(&request), 400, "malformed_request");
    assert!(origin.received().is_empty());
    assert_ours(&proxy, &proxy.ask(&get(&token, "")), 502, "upstream_invalid");
}

// --- What the upstream did ------------------------------------------------------------------

#[test]
fn an_upstream_that_cannot_be_reached_is_a_502() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&format!("http://{nobody}"), "");
    for request in [get(&token, ""), post(&token, "{}")] {
        let answer = proxy.ask(&request);
        assert_eq!(assert_ours(&proxy, &answer, 502, "upstream_unreachable")["user"], "alice");
    }
}

#[test]
fn an_upstream_that_breaks_off_or_talks_nonsense_is_a_502() {
    for (answer, reason) in [
        ("", "upstream_unreachable"),
        ("HTTP/1.1 200 OK\r\ncontent-", "upstream_unreachable"),
        ("nonsense\r\n\r\n", "upstream_invalid"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "upstream_invalid"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab", "upstream_invalid"),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "upstream_invalid"),
    ] {
        let origin = Origin::scripted(move |_, stream| stream.write_all(answer.as_bytes()).map(|()| Keep::Close));
        let folder = Folder::new();
        let token = folder.token("alice", &[]);
        let proxy = folder.serve(&origin.url(), "");
        let told = proxy.ask(&post(&token, "{}"));
        assert_ours(&proxy, &told, 502, reason);
        assert_eq!(origin.received().len(), 1, "what may have arrived is not sent again: {answer:?}");
    }
}

#[test]
fn a_head_that_never_ends_is_a_502() {
    let origin = Origin::scripted(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        while stream.write_all(b"X-Flood: 0123456789012345678901234567890123456789\r\n").is_ok() {}
        Ok(Keep::Close)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    assert_ours(&proxy, &proxy.ask(&get(&token, "")), 502, "upstream_invalid");
}

#[test]
fn an_upstream_that_takes_too_long_is_a_504() {
    // it accepts, for its backlog does, and never answers
    let origin = Stage::new();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nupstream_head = \"200ms\"");
    let answer = proxy.ask(&post(&token, "{}"));
    let record = assert_ours(&proxy, &answer, 504, "upstream_timeout");
    assert_eq!(record["bytes_in"], 2, "the upstream has taken them");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.await_end();
    assert!(origin.is_quiet(), "what has been sent is not sent again");
}

// --- What is answered without a token -------------------------------------------------------

#[test]
fn a_preflight_is_answered_without_a_token_and_without_the_upstream() {
    let origin = Origin::plain();
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let preflight = "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:6274\r\n\
                     Access-Control-Request-Method: POST\r\n\
                     Access-Control-Request-Headers: authorization, Mcp-Param-Region, x-auth-user\r\n\r\n";
    let answer = proxy.ask(preflight);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("http://localhost:6274")));
    let allowed = answer.header("access-control-allow-headers").unwrap().to_lowercase();
    for name in [
        "authorization",
        "content-type",
        "accept",
        "mcp-protocol-version",
        "mcp-session-id",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-param-region",
    ] {
        assert!(allowed.split(", ").any(|found| found == name), "{name} in {allowed}");
    }
    assert!(!allowed.contains("x-auth-user"));
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)));
    assert_eq!(proxy.record_of(&answer)["reason"], "preflight");
    assert!(origin.received().is_empty());
}

#[test]
fn a_page_that_may_call_can_read_refusals_and_the_session() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    for request in [get(&token, "Origin: http://localhost:1\r\n"), get("unknown", "Origin: http://localhost:1\r\n")] {
        let answer = proxy.ask(&request);
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:1"));
        assert_eq!(answer.header("vary"), Some("Origin"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(["Mcp-Session-Id", "Retry-After", "WWW-Authenticate"].iter().all(|name| exposed.contains(name)));
    }
}

#[test]
fn the_search_for_oauth_ends_here_even_with_a_token() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let documents = ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"];
    let targets = documents.into_iter().flat_map(|name| {
        [format!("/.well-known/{name}"), format!("/.well-known/{name}/mcp"), format!("/.well-known/{name}?a=b")]
    });
    for target in targets.chain(["/mcp/.well-known/openid-configuration".to_owned()]) {
        for request in [get(&token, "User-Agent: probe\r\n"), WITHOUT_TOKEN.to_owned()] {
            let answer = proxy.ask(&request.replacen("/mcp", &target, 1));
            assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")), "{target}");
            assert!(answer.json()["error"].is_string() && answer.json()["error_description"].is_string());
            let record = proxy.record_of(&answer);
            assert_eq!((&record["reason"], record.get("user_agent")), (&"discovery".into(), None));
        }
    }
    let register = proxy.ask(&post(&token, "{}").replacen("/mcp", "/register", 1));
    assert_eq!((register.status, &register.json()["error"]), (403, &"access_denied".into()));
    assert!(register.json()["error_description"].as_str().unwrap().contains("Authorization: Bearer"));
    assert!(origin.received().is_empty());
}
