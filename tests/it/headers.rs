//! What is said about the caller on the way to the upstream, and what of the upstream's answer
//! reaches the client: nothing that a client claims survives, nothing that belongs to one hop travels.

use crate::harness::{Answer, Folder, Origin, Proxy, Received, get, post, post_in_chunks};
use crate::stage::{Line, Stage};

const IDENTITY: [(&str, &str); 8] = [
    ("X-Auth-User", "alice"),
    ("X-Auth-Email", "alice@example.com"),
    ("X-Auth-Name", "Alice Doe"),
    ("X-Auth-Org", "acme"),
    ("X-Auth-Roles", "developer,reader"),
    ("X-Auth-Scopes", "mcp:read"),
    ("X-Auth-Token-Id", "t0000000-1"),
    ("X-Auth-Source", "pat"),
];

const USERS: &str = r#"
[[users]]
id = "alice"
email = "alice@example.com"
name = "Alice Doe"
org = "acme"
roles = ["developer", "reader"]

[roles.developer]
scopes = ["mcp:read", "mcp:write"]
"#;

/// A folder with one token of alice, about whom everything is known.
fn folder_of_alice() -> (Folder, String) {
    let folder = Folder::new();
    let token = folder.token("alice", &["--scope", "mcp:read"]);
    let list = folder.read("tokens.toml").replace(&token[8..18], "t0000000-1");
    folder.write("tokens.toml", &(list + USERS));
    (folder, token)
}

/// Sends a request that must pass, and returns what the origin received.
fn forwarded(proxy: &Proxy, origin: &Origin, request: &str) -> Received {
    let before = origin.received().len();
    let answer = proxy.ask(request);
    assert_eq!(answer.status, 200, "{request}: {answer:?}");
    let received = origin.received();
    assert_eq!(received.len(), before + 1, "one request, one arrival");
    received.into_iter().next_back().unwrap()
}

fn assert_is_alice(received: &Received) {
    for (name, value) in IDENTITY {
        assert_eq!(received.values(name), [value], "{name} in {}", received.head);
    }
    assert!(!received.head.contains("root"), "{}", received.head);
}

// --- The identity ---------------------------------------------------------------------------

#[test]
fn every_identity_header_arrives_once_with_our_value_however_it_is_spoofed() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    for (name, _) in IDENTITY {
        let (upper, lower, underscores) = (name.to_uppercase(), name.to_lowercase(), name.replace('-', "_"));
        let mixed = lower.replacen('-', "_", 1).replace("aut", "AuT");
        for claim in [
            format!("{name}: root\r\n"),
            format!("{upper}: root\r\n"),
            format!("{lower}: root\r\n"),
            format!("{underscores}: root\r\n"),
            format!("{mixed}: root\r\n"),
            format!("{name}: root\r\n{name}: root\r\n"),
            format!("{name}: root\r\n{underscores}: root\r\n{upper}: root\r\n"),
            format!("Connection: close, {name}\r\n{name}: root\r\n"),
            format!("Connection: {lower}, close\r\nConnection: {underscores}\r\n{underscores}: root\r\n"),
        ] {
            assert_is_alice(&forwarded(&proxy, &origin, &get(&token, &claim)));
        }
    }
}

#[test]
fn an_identity_in_the_trailers_of_a_chunked_body_ends_at_the_proxy() {
    let origin = Stage::new();
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    client.send(post_in_chunks(&token).replace("\r\n\r\n", "\r\nTE: trailers\r\nTrailer: X-Auth-User\r\n\r\n"));
    client.send("5\r\nhello\r\n0\r\nX-Auth-User: root\r\nX_Auth_Email: root\r\n\r\n");

    let mut upstream = origin.accept();
    let received = upstream.request();
    assert_is_alice(&received);
    assert!(received.values("te").is_empty() && received.values("trailer").is_empty(), "{}", received.head);
    let body: Vec<String> = (0..4).map(|_| upstream.line()).collect();
    assert_eq!(body, ["5", "hello", "0", ""]);
}

#[test]
fn an_identity_header_that_is_left_out_never_arrives() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let keys = ["user", "email", "name", "org", "roles", "scopes", "token_id", "source"];
    let nothing: String = keys.iter().map(|key| format!("{key} = \"\"\n")).collect();
    let proxy = folder.serve(&origin.url(), &format!("[identity]\n{nothing}"));
    let claims: String =
        IDENTITY.iter().map(|(name, _)| format!("{name}: root\r\n{}: root\r\n", name.replace('-', "_"))).collect();
    for claims in ["", &claims] {
        let received = forwarded(&proxy, &origin, &get(&token, claims));
        for (name, _) in IDENTITY {
            assert!(received.values(name).is_empty(), "{name} in {}", received.head);
        }
    }
}

#[test]
fn a_header_of_the_operators_choice_replaces_the_usual_one_and_is_as_safe() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "[identity]\nuser = \"Remote-User\"");
    let claims = "Remote-User: root\r\nREMOTE_USER: root\r\nX-Auth-User: root\r\n";
    let received = forwarded(&proxy, &origin, &get(&token, claims));
    assert_eq!(received.values("remote-user"), ["alice"]);
    assert!(!received.head.contains("root") && received.values("x-auth-user").is_empty(), "{}", received.head);
}

#[test]
fn a_name_outside_ascii_arrives_encoded() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("Zoë", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let received = forwarded(&proxy, &origin, &get(&token, ""));
    assert_eq!(received.values("x-auth-user"), ["=?UTF-8?B?Wm/Dqw==?="]);
    assert!(received.head.is_ascii());
    assert_eq!(proxy.audit(1)[0]["user"], "Zoë");
}

// --- The way that the request came ----------------------------------------------------------

#[test]
fn what_is_said_about_the_way_is_said_by_the_proxy() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-Proto: 6666\r\n\
                  X-Forwarded-Host: 6.6.6.6\r\nX-Forwarded-User: 6.6.6.6\r\nX-Forwarded-Port: 6666\r\n\
                  Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nX-Request-Id: 6666\r\n\
                  X_REQUEST_ID: 6666\r\n";
    let request = get(&token, claims).replace("Host: localhost", "Host: localhost:4711");
    let received = forwarded(&proxy, &origin, &request);
    assert_eq!(received.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.values("x-forwarded-proto"), ["http"]);
    assert_eq!(received.values("x-forwarded-host"), ["localhost:4711"]);
    assert!(!received.head.contains("6.6.6.6") && !received.head.contains("6666"), "{}", received.head);
}

#[test]
fn one_request_has_one_id_upstream_in_the_answer_and_in_the_audit_record() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\ncontent-length: 0\r\n\r\n");
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    let answer = proxy.ask(&get(&token, "X-Request-Id: mine\r\n"));
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(origin.received()[0].values("x-request-id"), [id]);
    assert_eq!(proxy.record_of(&answer)["request_id"], id);
    assert_ne!(proxy.ask(&get(&token, "")).header("x-request-id").unwrap(), id);
}

#[test]
fn the_upstream_sees_its_own_host_and_its_own_path_prefix() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let port = origin.address.rsplit(':').next().unwrap();

    let proxy = folder.serve(&format!("http://localhost:{port}/base/"), "");
    let received = forwarded(&proxy, &origin, &get(&token, "").replace(" /mcp ", " /mcp?a=%20b&c "));
    assert_eq!(received.values("host"), [format!("localhost:{port}")]);
    assert_eq!(received.request_line(), "GET /base/mcp?a=%20b&c HTTP/1.1");
    let absolute = forwarded(&proxy, &origin, &get(&token, "").replace(" /mcp ", " http://localhost:1/mcp "));
    assert_eq!(absolute.values("host"), [format!("localhost:{port}")]);
    assert_eq!(absolute.request_line(), "GET /base/mcp HTTP/1.1");

    let proxy = folder.serve(&origin.url(), "upstream_host = \"playwright.test:8931\"");
    let received = forwarded(&proxy, &origin, &get(&token, ""));
    assert_eq!(received.values("host"), ["playwright.test:8931"]);
}

#[test]
fn a_session_is_not_named_by_a_spelling_that_only_the_upstream_understands() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nMcp-Session-Id: s1\r\ncontent-length: 0\r\n\r\n");
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "");
    assert_eq!(proxy.ask(&get(&alice, "")).header("mcp-session-id"), Some("s1"));
    assert_eq!(proxy.ask(&get(&bob, "Mcp-Session-Id: s1\r\n")).status, 404);
    for name in ["Mcp_Session_Id", "mcp_session-id", "MCP-SESSION_ID"] {
        let answer = proxy.ask(&get(&bob, &format!("{name}: s1\r\n")));
        let received = origin.received().pop().unwrap();
        let hidden = received.values("x-auth-user") == ["bob"] && received.values("mcp-session-id").is_empty();
        assert!(answer.status == 404 || hidden, "{name} arrives: {}", received.head);
    }
}

/// Some servers take in only so many fields and drop those behind them: who it is stands before what it says.
#[test]
fn the_identity_stands_before_all_that_the_client_says() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    let received = forwarded(&proxy, &origin, &get(&token, "X-First: 1\r\nAccept: */*\r\n"));
    let at = |name: &str| received.head.find(&format!("\n{name}: ")).unwrap();
    for name in ["x-auth-user", "x-request-id", "x-forwarded-for"] {
        assert!(at(name) < at("x-first") && at(name) < at("accept"), "{}", received.head);
    }
}

#[test]
fn a_stream_is_resumed_within_a_session_alone_where_the_operator_wants_that() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nMcp-Session-Id: s1\r\ncontent-length: 0\r\n\r\n");
    let (folder, token) = folder_of_alice();
    let resume = |more: &str| get(&token, &format!("Last-Event-ID: 7\r\n{more}"));
    assert_eq!(folder.serve(&origin.url(), "").ask(&resume("")).status, 200);
    let proxy = folder.serve(&origin.url(), "resume_outside_sessions = false");
    assert_eq!(proxy.ask(&resume("Mcp-Session-Id: s1\r\n")).status, 404, "nobody is known to have it");
    assert_eq!(proxy.ask(&post(&token, "{}")).header("mcp-session-id"), Some("s1"));
    for (request, status, reason) in [
        (resume(""), 400, "malformed_request"),
        (resume("Mcp-Session-Id: s1\r\nConnection: Mcp-Session-Id\r\n"), 400, "malformed_request"),
        (resume("").replace(" /mcp ", " /mcp?sessionId=s1 "), 400, "malformed_request"),
        (resume("Mcp-Session-Id: s2\r\n"), 404, "session_mismatch"),
        (resume("Mcp-Session-Id: s1\r\nMcp-Session-Id: s2\r\n"), 404, "session_mismatch"),
        (resume("Mcp-Session-Id:\r\n"), 404, "session_mismatch"),
    ] {
        let answer = proxy.ask(&request);
        assert_eq!((answer.status, &proxy.record_of(&answer)["reason"]), (status, &reason.into()), "{request}");
    }
    assert_eq!(origin.received().len(), 2, "nothing of it arrives");
    assert_eq!(proxy.ask(&resume("Mcp-Session-Id: s1\r\n")).status, 200);
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
}

#[test]
fn what_is_judged_cannot_be_left_behind_with_the_connection() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    for policy in ["", "[policy]\ndefault = \"allow\"\n"] {
        let proxy = folder.serve(&origin.url(), policy);
        for (name, value) in [
            ("Mcp-Session-Id", "x"),
            ("mcp-method", "ping"),
            ("Mcp-Name", "echo"),
            ("MCP-Protocol-Version", "2025-11-25"),
            ("Mcp-Param-Region", "eu"),
            ("X-MCP-Readonly", "true"),
            ("last-event-id", "6"),
            ("Content-Type", "application/json"),
            ("Content-Encoding", "identity"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "gzip"),
        ] {
            let nominated = format!("Connection: close,\t{name} ,x\r\n{name}: {value}\r\n");
            let answer = proxy.ask(&get(&bob, &nominated));
            assert_eq!(
                (answer.status, &proxy.record_of(&answer)["reason"]),
                (400, &"malformed_request".into()),
                "{name}"
            );
            assert!(answer.json()["error"]["message"].as_str().unwrap().contains("Connection"));
        }
        assert_eq!(origin.received().len(), 0, "nothing of it arrives");
    }
    let proxy = folder.serve(&origin.url(), "");
    proxy.ask(&get(&bob, "Connection: Mcp-Session-Id\r\nMcp-Session-Id: x\r\n"));
    assert_eq!(proxy.ask(&get(&alice, "Mcp-Session-Id: x\r\n")).status, 200, "and nobody has a session by it");
}

#[test]
fn nothing_that_belongs_to_one_hop_is_forwarded() {
    let origin = Origin::plain();
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    let received = forwarded(
        &proxy,
        &origin,
        &get(
            &token,
            "Connection: close, X-Nominated, Host, Authorization, Content-Length\r\n\
             Connection: TE, y-nominated, upgrade\r\nX-Nominated: 1\r\nY-Nominated: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authorization: Basic eA==\r\nTE: trailers, deflate\r\nTrailer: X-Auth-User\r\n\
             Upgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nMcp-Param-Region: kept\r\n\
             Mcp-Session-Id: kept\r\nLast-Event-ID: kept\r\n",
        ),
    );
    for name in [
        "authorization",
        "connection",
        "x-nominated",
        "y-nominated",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "transfer-encoding",
    ] {
        assert!(received.values(name).is_empty(), "{name} in {}", received.head);
    }
    assert!(!received.head.contains(&token));
    assert_eq!(received.values("host"), [origin.address.as_str()]);
    for name in ["mcp-param-region", "mcp-session-id", "last-event-id"] {
        assert_eq!(received.values(name), ["kept"]);
    }
}

// --- The way back ---------------------------------------------------------------------------

/// What a client gets when the origin answers like this.
fn answered(answer: &'static str) -> Answer {
    let origin = Origin::answering(answer);
    let (folder, token) = folder_of_alice();
    let answer = folder.serve(&origin.url(), "").ask(&get(&token, "Origin: http://localhost:6274\r\n"));
    assert_eq!(origin.received().len(), 1);
    answer
}

#[test]
fn the_upstreams_challenges_permissions_and_hop_headers_do_not_reach_the_client() {
    let answer = answered(
        "HTTP/1.1 200 OK\r\nWWW-Authenticate: Bearer resource_metadata=\"http://evil.test\"\r\n\
         Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Allow-Headers: X-Auth-User\r\nAccess-Control-Allow-Methods: TRACE\r\n\
         Access-Control-Expose-Headers: X-Secret\r\nAccess-Control-Max-Age: 86400\r\n\
         Connection: keep-alive, X-Nominated\r\nX-Nominated: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X\r\nUpgrade: h2c\r\nX-Request-Id: theirs\r\n\
         Mcp-Session-Id: kept\r\nContent-Type: application/json\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
         Content-Length: 2\r\n\r\n{}",
    );
    for name in [
        "www-authenticate",
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-max-age",
        "x-nominated",
        "keep-alive",
        "proxy-authenticate",
        "trailer",
        "upgrade",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:6274"));
    assert!(!answer.header("access-control-expose-headers").unwrap().contains("X-Secret"));
    assert_eq!(answer.header("x-request-id").unwrap().len(), 32);
    assert_eq!(answer.header("mcp-session-id"), Some("kept"));
    assert_eq!(answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).count(), 2);
    assert_eq!(answer.body, "{}");
}

#[test]
fn no_access_control_header_of_the_upstream_reaches_the_client() {
    let answer = answered(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Private-Network: true\r\nAccess-Control-Some-Day: yes\r\n\
         Content-Length: 0\r\n\r\n",
    );
    let theirs = ["access-control-allow-private-network", "access-control-some-day"];
    assert_eq!(theirs.map(|name| answer.header(name)), [None, None]);
}

#[test]
fn an_upstream_that_asks_for_credentials_or_switches_protocols_is_a_502() {
    for answer in [
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer resource_metadata=\"http://evil.test\"\r\n\
         content-length: 4\r\n\r\nevil",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: evil\r\n\r\n",
    ] {
        let answer = answered(answer);
        assert_eq!(answer.status, 502);
        assert_eq!((answer.header("www-authenticate"), answer.header("upgrade")), (None, None));
        assert!(answer.json()["error"]["message"].is_string() && !answer.body.contains("evil"), "{}", answer.body);
    }
}

#[test]
fn the_statuses_that_mean_something_to_mcp_clients_pass_unchanged() {
    for (answer, status, body) in [
        ("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", 202, ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 307 Temporary Redirect\r\nlocation: /mcp/\r\ncontent-length: 0\r\n\r\n", 307, ""),
        ("HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nbad", 400, "bad"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone", 404, "gone"),
        ("HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n", 405, ""),
        ("HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n", 429, ""),
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops", 500, "oops"),
    ] {
        let passed = answered(answer);
        assert_eq!((passed.status, passed.body.as_str()), (status, body));
    }
}

#[test]
fn the_answer_to_a_head_request_keeps_its_length_and_has_no_body() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 4711\r\n\r\n");
    let (folder, token) = folder_of_alice();
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    for _ in 0..2 {
        client.send(get(&token, "").replacen("GET", "HEAD", 1));
        assert_eq!(client.answer_head().header("content-length"), Some("4711"));
    }
    client.send(post(&token, "{}").replacen("POST", "HEAD", 1));
    assert_eq!(client.answer_head().status, 200);
}
