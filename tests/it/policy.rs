//! Least privilege: what a token may not call it does not see, and cannot reach by any spelling.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::{Answer, Folder, Keep, Origin, Proxy, Received, get, post, post_in_chunks};
use crate::stage::{Line, staged};

include!("../corpus/evasions.rs");

const POLICY: &str = r#"
[policy]
[scopes."mcp:read"]
tools = ["echo", "get_*"]
resources = ["file:///docs/*"]
prompts = ["greet"]
[scopes."mcp:write"]
tools = { allow = ["*"], deny = ["drop_*"] }
resources = ["*"]
prompts = ["*"]
"#;

/// A proxy with a policy, an origin that answers everything with an empty object, and a token that may read.
struct Ruled {
    origin: Origin,
    folder: Folder,
    proxy: Proxy,
    reader: String,
}

fn ruled(policy: &str) -> Ruled {
    ruled_before(Origin::plain(), policy)
}

fn ruled_before(origin: Origin, policy: &str) -> Ruled {
    let folder = Folder::new();
    let reader = folder.token("alice", &["--scope", "mcp:read"]);
    let proxy = folder.serve(&origin.url(), policy);
    Ruled { origin, folder, proxy, reader }
}

impl Ruled {
    fn call(&self, body: &str) -> Answer {
        self.proxy.ask(&post(&self.reader, body))
    }

    fn was_forwarded(&self, body: &str) -> bool {
        self.origin.received().iter().any(|received| received.body == body.as_bytes())
    }
}

fn call_of(tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}}}).to_string()
}

/// A POST with more header lines.
fn post_with(token: &str, more: &str, body: &str) -> String {
    post(token, body).replacen("\r\n\r\n", &format!("\r\n{more}\r\n"), 1)
}

// --- Calls ----------------------------------------------------------------------------------

/// A message as each revision sends it: the path, the headers, the body.
fn in_every_revision(method: &str, params: &Value) -> Vec<(&'static str, String, String)> {
    let plain = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
    let mut stateless = params.clone();
    stateless["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let name = params.get("name").or(params.get("uri")).and_then(Value::as_str);
    let mirrored = name.map_or_else(String::new, |name| format!("Mcp-Name: {name}\r\n"));
    vec![
        ("/messages?sessionId=s1", String::new(), plain.clone()),
        ("/mcp", "Mcp-Session-Id: s2\r\n".to_owned(), format!("[{plain}]")),
        ("/mcp", "Mcp-Session-Id: s2\r\nMCP-Protocol-Version: 2025-06-18\r\n".to_owned(), plain.clone()),
        ("/mcp", "Mcp-Session-Id: s2\r\nMCP-Protocol-Version: 2025-11-25\r\n".to_owned(), plain),
        (
            "/mcp",
            format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{mirrored}"),
            json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": stateless}).to_string(),
        ),
    ]
}

#[test]
fn the_same_rules_hold_in_all_five_revisions() {
    let ruled = ruled(POLICY);
    for (method, params, allowed) in [
        ("tools/call", json!({"name": "echo"}), true),
        ("tools/call", json!({"name": "get_user"}), true),
        ("tools/call", json!({"name": "set_user"}), false),
        ("tools/call", json!({"name": "drop_all"}), false),
        ("tools/call", json!({"name": "Echo"}), false),
        ("resources/read", json!({"uri": "file:///docs/a"}), true),
        ("resources/read", json!({"uri": "file:///docs/a?page=2"}), true),
        ("resources/read", json!({"uri": "file:///docs/../etc/passwd"}), false),
        ("resources/read", json!({"uri": "file:///docs//../etc/passwd"}), false),
        ("resources/read", json!({"uri": "file:///docs/%2f..%5cetc/passwd"}), false),
        ("resources/subscribe", json!({"uri": "file:///etc/passwd"}), false),
        ("prompts/get", json!({"name": "greet"}), true),
        ("prompts/get", json!({"name": "other"}), false),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {}}), true),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "other"}, "argument": {}}), false),
        ("initialize", json!({}), true),
        ("ping", json!({}), true),
        ("tools/list", json!({}), true),
        ("server/discover", json!({}), true),
        ("subscriptions/listen", json!({}), true),
        ("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}), true),
        ("subscriptions/listen", json!({"notifications": {"resourceSubscriptions": ["file:///docs/a"]}}), true),
        ("subscriptions/listen", json!({"notifications": {"resourceSubscriptions": ["file:///docs/%2e./x"]}}), false),
        (
            "subscriptions/listen",
            json!({"notifications": {"resourceSubscriptions": ["file:///docs/a", "file:///etc/passwd"]}}),
            false,
        ),
        ("tasks/get", json!({"taskId": "t"}), true),
        ("tasks/list", json!({}), false),
        ("some/extension", json!({}), false),
    ] {
        for (path, headers, body) in in_every_revision(method, &params) {
            let more =
                if method.starts_with("tasks/g") && headers.contains("Mcp-Method") { "Mcp-Name: t\r\n" } else { "" };
            let request = post_with(&ruled.reader, &format!("{headers}{more}"), &body).replacen("/mcp", path, 1);
            let answer = ruled.proxy.ask(&request);
            let forwarded = ruled
                .origin
                .received()
                .iter()
                .any(|received| received.body == body.as_bytes() && received.request_line().contains(path));
            assert_eq!(forwarded, allowed, "{method} {params} {headers}: {answer:?}");
            let record = ruled.proxy.record_of(&answer);
            assert_eq!(record["mcp_source"], "body", "{record}");
            assert_eq!(record["mcp_method"], method, "{record}");
            if allowed {
                assert_eq!((answer.status, &record["outcome"]), (200, &"allowed".into()), "{record}");
            } else {
                assert_eq!((&record["outcome"], &record["reason"]), (&"denied".into(), &"insufficient_scope".into()));
                assert!(record["policy_rule"].is_string(), "{record}");
            }
        }
    }
}

#[test]
fn no_evasion_reaches_the_server() {
    // the widest rights there are, so that nothing but the reading can refuse
    let ruled = ruled("[policy]\ndefault = \"allow\"\n[scopes.\"mcp:read\"]\ntools = { deny = [\"delete\"] }\n");
    for (body, _) in EVASIONS.iter().filter(|(body, _)| !body.is_empty()) {
        for framing in [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".to_owned()] {
            let chunked = framing.starts_with("Transfer");
            let mut line = Line::to(&ruled.proxy.address);
            let head = get(&ruled.reader, &format!("Content-Type: application/json\r\n{framing}\r\n"))
                .replacen("GET", "POST", 1);
            let body = if chunked {
                // cut in the middle, so that no piece is whole
                let (first, second) = body.split_at(body.len() / 2);
                let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
                let first = if first.is_empty() { Vec::new() } else { chunk(first) };
                [first, chunk(second), b"0\r\n\r\n".to_vec()].concat()
            } else {
                body.to_vec()
            };
            line.send([head.as_bytes(), &body].concat());
            let answer = line.answer();
            assert_eq!(answer.status, 400, "{}: {answer:?}", String::from_utf8_lossy(&body));
            assert_eq!(answer.json()["id"], Value::Null);
        }
    }
    assert!(ruled.origin.received().is_empty(), "{:?}", ruled.origin.received());
}

#[test]
fn another_coding_is_refused() {
    let ruled = ruled(POLICY);
    let body = call_of("echo");
    for header in [
        "Content-Encoding: gzip",
        "Content-Encoding: identity\r\nContent-Encoding: br",
        "Content-Type: application/json; charset=utf-16",
    ] {
        let answer = ruled.proxy.ask(&post_with(&ruled.reader, &format!("{header}\r\n"), &body));
        assert_eq!(answer.status, 415, "{header}: {answer:?}");
    }
    assert!(ruled.origin.received().is_empty());
}

#[test]
fn headers_must_agree_with_the_body() {
    let ruled = ruled(POLICY);
    for header in [
        "Mcp-Method: ping",
        "Mcp-Name: echo2",
        "Mcp-Name: =?base64?eA==?=",
        "Mcp-Method: tools/call\r\nMcp-Method: ping",
    ] {
        let answer = ruled.proxy.ask(&post_with(&ruled.reader, &format!("{header}\r\n"), &call_of("echo")));
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32020)), "{header}: {answer:?}");
    }
    let coded =
        post_with(&ruled.reader, "Mcp-Method: tools/call\r\nMcp-Name: =?base64?ZWNobw==?=\r\n", &call_of("echo"));
    assert_eq!(ruled.proxy.ask(&coded).status, 200);
    assert_eq!(ruled.origin.received().len(), 1);
}

/// What is read for the record is read; so this holds without a policy as well, and while one is only tried.
#[test]
fn headers_must_agree_with_a_body_that_is_read_for_the_record() {
    for more in ["", "[policy]\nmode = \"report\"\n[scopes.\"mcp:read\"]\ntools = [\"echo\"]\n"] {
        let origin = Origin::plain();
        let folder = Folder::new();
        let token = folder.token("alice", &[]);
        let proxy = folder.serve(&origin.url(), more);
        let long = call_of(&"x".repeat(8_000));
        for (name, body) in [("Mcp-Name: ping", call_of("echo")), ("Mcp-Method: tools/list", long)] {
            let chunked = format!("{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", 9, &body[..9], body.len() - 9, &body[9..]);
            let in_chunks = post_with(&token, &format!("{name}\r\nTransfer-Encoding: chunked\r\n"), "");
            let in_chunks = in_chunks.replacen("Content-Length: 0\r\n", "", 1) + &chunked;
            for request in [post_with(&token, &format!("{name}\r\n"), &body), in_chunks] {
                let answer = proxy.ask(&request);
                assert_eq!(
                    (answer.status, &answer.json()["error"]["code"]),
                    (400, &json!(-32020)),
                    "{name}: {answer:?}"
                );
                let record = proxy.record_of(&answer);
                assert_eq!((&record["reason"], &record["mcp_source"]), (&json!("malformed_request"), &json!("body")));
            }
        }
        let twice = call_of("echo").replacen('{', "{\"method\":\"ping\",", 1);
        for (fields, body) in
            [("Mcp-Method: ping\r\nContent-Encoding: identity\r\n", call_of("echo")), ("Mcp-Method: ping\r\n", twice)]
        {
            assert_eq!(proxy.ask(&post_with(&token, fields, &body)).status, 400, "{fields}");
        }
        // all of it, and its end is still to come
        let mut late = Line::to(&proxy.address);
        let body = call_of("echo");
        let head =
            post_in_chunks(&token).replacen("\r\n", "\r\nContent-Type: application/json\r\nMcp-Method: ping\r\n", 1);
        late.send(format!("{head}{:x}\r\n{body}\r\n", body.len()));
        assert_eq!(proxy.ask(&post(&token, &call_of("other"))).status, 200);
        late.send("0\r\n\r\n");
        assert_eq!(late.answer().status, 400);
        // what lacks something is the server's to answer
        let nameless = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#;
        assert_eq!(proxy.ask(&post_with(&token, "Mcp-Method: tools/call\r\n", nameless)).status, 200);
        assert_eq!(origin.received().len(), 2, "the other two alone");
        let agreeing = post_with(&token, "Mcp-Method: tools/call\r\nMcp-Name: echo\r\n", &call_of("echo"));
        assert_eq!(proxy.ask(&agreeing).status, 200);
        assert_eq!(origin.received().len(), 3);
    }
}

#[test]
fn a_denied_call_is_answered_as_an_unknown_one() {
    let ruled = ruled(POLICY);
    let answer = ruled.call(&call_of("set_user"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["id"], 7);
    assert_eq!(answer.json()["error"]["code"], -32602);
    assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with("Unknown tool: set_user"));
    let record = ruled.proxy.record_of(&answer);
    assert_eq!(record["policy_rule"], "needs scopes.\"mcp:write\".tools", "{record}");
    assert_eq!((&record["mcp_tool"], &record["status"]), (&"set_user".into(), &200.into()));

    // the client of a batch waits for each of its calls
    let batch =
        format!("[{},{},{{\"method\":\"notifications/x\"}}]", call_of("echo").replace('7', "1"), call_of("drop_a"));
    let answer = ruled.call(&batch);
    let errors = answer.json();
    assert_eq!(errors.as_array().unwrap().len(), 2, "{errors}");
    assert_eq!((&errors[0]["id"], &errors[0]["error"]["code"]), (&1.into(), &(-32000).into()));
    assert_eq!((&errors[1]["id"], &errors[1]["error"]["code"]), (&7.into(), &(-32602).into()));
    let record = ruled.proxy.record_of(&answer);
    assert_eq!(record["mcp_calls"][1], json!({"method": "tools/call", "tool": "drop_a"}), "{record}");

    // nobody waits for a notification, and nobody of the older transport reads the result of a POST
    let notification = r#"{"method":"tools/call","params":{"name":"set_user"}}"#;
    assert_eq!(ruled.call(notification).status, 403);
    let legacy = post(&ruled.reader, &call_of("set_user")).replacen("/mcp", "/messages?sessionId=1", 1);
    assert_eq!(ruled.proxy.ask(&legacy).status, 403);
    assert!(ruled.origin.received().is_empty());
}

#[test]
fn what_is_subscribed_to_is_judged_as_what_is_read() {
    let ruled = ruled(
        r#"
[scopes."mcp:read"]
tools = ["get_*"]
resources = { allow = ["docs://*"], deny = ["secret://*"] }
[scopes."mcp:write"]
methods = { deny = ["subscriptions/listen"] }
"#,
    );
    let listen = |uris: &[&str]| {
        let params = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": uris}});
        json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}).to_string()
    };
    for (uris, named, rule) in [
        (&["docs://a", "docs://b"][..], "docs://a", None),
        (&["secret://x"], "secret://x", Some("scopes.\"mcp:read\".resources.deny[0]=\"secret://*\"")),
        (
            &["docs://a", "secret://x", "docs://b"],
            "secret://x",
            Some("scopes.\"mcp:read\".resources.deny[0]=\"secret://*\""),
        ),
        (&["docs://a", "other://x"], "other://x", Some("policy.default")),
    ] {
        let body = listen(uris);
        let answer = ruled.call(&body);
        assert_eq!((answer.status, ruled.was_forwarded(&body)), (200, rule.is_none()), "{uris:?}: {answer:?}");
        let record = ruled.proxy.record_of(&answer);
        assert_eq!((&record["mcp_method"], &record["mcp_resource"]), (&"subscriptions/listen".into(), &named.into()));
        assert_eq!(record.get("policy_rule").and_then(Value::as_str), rule, "{record}");
        if rule.is_some() {
            assert_eq!(answer.json()["error"]["code"], -32602);
            let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(&format!("Unknown resource: {named}: ")), "{message}");
            assert_eq!(record["outcome"], "denied", "{record}");
        }
    }
    // the method has rules of its own
    let writer = ruled.folder.token("alice", &["--scope", "mcp:read", "--scope", "mcp:write"]);
    let answer = crate::harness::eventually("the new token", || {
        let answer = ruled.proxy.ask(&post(&writer, &listen(&["docs://a"])));
        (answer.status != 401).then_some(answer)
    });
    assert_eq!(answer.json()["error"]["code"], -32601, "{answer:?}");
    assert_eq!(ruled.call(&listen(&["docs://a"; 101])).status, 400);
}

#[test]
fn a_denied_call_can_name_the_scope_instead() {
    let ruled = ruled(&POLICY.replace("[policy]", "[policy]\ndenied = \"insufficient_scope\"\nbatches = \"refuse\""));
    let answer = ruled.call(&call_of("set_user"));
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"mcp\", error=\"insufficient_scope\", scope=\"mcp:write\"")
    );
    assert_eq!(answer.json()["id"], 7);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("needs the scope mcp:write"));
    let answer = ruled.call(&format!("[{}]", call_of("echo")));
    assert_eq!(answer.status, 400);
    assert_eq!(ruled.proxy.record_of(&answer)["policy_rule"], "policy.batches");
}

#[test]
fn deny_wins_over_every_allow() {
    let ruled = ruled(POLICY);
    let writer = ruled.folder.token("alice", &["--scope", "mcp:read", "--scope", "mcp:write"]);
    let told = |tool| {
        crate::harness::eventually("the new token", || {
            let answer = ruled.proxy.ask(&post(&writer, &call_of(tool)));
            (answer.status != 401).then_some(answer)
        })
    };
    assert!(told("set_user").json().get("error").is_none());
    let answer = told("drop_all");
    assert_eq!(ruled.proxy.record_of(&answer)["policy_rule"], "scopes.\"mcp:write\".tools.deny[0]=\"drop_*\"");
}

#[test]
fn a_policy_can_be_tried_without_effect() {
    let ruled = ruled(&POLICY.replace("[policy]", "[policy]\nmode = \"report\""));
    for (body, rule) in [
        (call_of("set_user"), "needs scopes.\"mcp:write\".tools"),
        (r#"{"id":1,"method":"ping","method":"x"}"#.to_owned(), "body: `method` occurs twice"),
    ] {
        let answer = ruled.call(&body);
        assert_eq!(answer.status, 200);
        assert!(ruled.was_forwarded(&body));
        let record = ruled.proxy.record_of(&answer);
        assert_eq!((&record["outcome"], &record["policy"]), (&"allowed".into(), &"would_deny".into()), "{record}");
        assert_eq!(record["policy_rule"], rule);
    }
    let record = ruled.proxy.record_of(&ruled.call(&call_of("echo")));
    assert!(record.get("policy").is_none() && record.get("policy_rule").is_none(), "{record}");
}

#[test]
fn a_trial_opens_nothing_that_is_locked_without_it() {
    let trial = POLICY.replace("[policy]", "[policy]\nmode = \"report\"\nbatches = \"refuse\"");
    let trial = format!("{trial}\n[limits]\ninspect = \"1KiB\"\n");
    let ruled = ruled_before(answering("content-type: application/json", TOOLS.to_owned()), &trial);
    let own = ["--scope", "mcp:read", "--tool", "get_*", "--tool", "set*", "--deny-tool", "get_secret"];
    let narrow = ruled.folder.token("alice", &own);
    crate::harness::eventually("the new token", || {
        (ruled.proxy.ask(&post(&narrow, &call_of("get_a"))).status != 401).then_some(())
    });
    let header = "X-MCP-Exclude-Tools: get_secret\r\nX-MCP-Tools: get_*, set*\r\n";
    for (token, more, rule) in
        [(&narrow, "", "token.tools.deny[0]=\"get_secret\""), (&ruled.reader, header, "header X-MCP-Exclude-Tools")]
    {
        let ask = |more: &str, body: &str| ruled.proxy.ask(&post_with(token, more, body));
        // what is locked without a policy
        let answer = ask(more, &call_of("get_secret"));
        let record = ruled.proxy.record_of(&answer);
        assert_eq!(answer.json()["error"]["code"], -32602, "{answer:?}");
        assert_eq!((&record["outcome"], &record["policy_rule"]), (&"denied".into(), &rule.into()), "{record}");
        for (more, body, status) in [
            (more.to_owned(), format!("[{},{}]", list_of("tools"), call_of("get_secret")), 200),
            (more.to_owned(), call_of("get_a").replace("\"id\"", "\"method\":\"ping\",\"id\""), 400),
            (more.to_owned(), format!("{}{}", call_of("get_a"), " ".repeat(1024)), 413),
            (format!("{more}Mcp-Name: get_b\r\n"), call_of("get_a"), 400),
        ] {
            let before = ruled.origin.received().len();
            let answer = ask(&more, &body);
            assert_eq!(answer.status, status, "{body}: {answer:?}");
            assert_eq!(ruled.proxy.record_of(&answer)["outcome"], "denied");
            assert_eq!(ruled.origin.received().len(), before, "{body}");
        }
        // what the rules of scopes would refuse, alone and besides a list
        for (body, rule) in [
            (call_of("set"), "needs scopes.\"mcp:write\".tools"),
            (format!("[{},{}]", list_of("tools"), call_of("set")), "policy.batches"),
        ] {
            let answer = ask(more, &body);
            let record = ruled.proxy.record_of(&answer);
            assert!(ruled.was_forwarded(&body));
            assert_eq!((&record["outcome"], &record["policy"]), (&"allowed".into(), &"would_deny".into()), "{record}");
            assert_eq!(record["policy_rule"], rule);
            let tools = answer.json()["result"]["tools"].clone();
            assert_eq!(tools, json!([{"name": "set"}, {"name": "get_a"}]), "{answer:?}");
        }
    }
    // nothing is locked for the others
    assert_eq!(ruled.call(&list_of("tools")).body, TOOLS);
}

#[test]
fn a_tokens_own_rules_hold_without_a_policy() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let narrow = folder.token("alice", &["--tool", "get_*", "--deny-tool", "get_secret"]);
    let wide = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    for (token, tool, rule) in [
        (&narrow, "get_user", None),
        (&narrow, "get_secret", Some("token.tools.deny[0]=\"get_secret\"")),
        (&narrow, "set_user", Some("token.tools.allow")),
        (&wide, "set_user", None),
    ] {
        let answer = proxy.ask(&post(token, &call_of(tool)));
        let record = proxy.record_of(&answer);
        assert_eq!(record.get("policy_rule").and_then(Value::as_str), rule, "{record}");
    }
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_body_that_must_be_read_has_its_bounds() {
    let ruled = ruled(&format!("{POLICY}\n[limits]\ninspect = \"1KiB\"\n[timeouts]\nbody = \"300ms\"\n"));
    let padded = |length: usize| {
        let empty = call_of("echo").len();
        call_of("echo").replace("{}", &format!("{{{}}}", " ".repeat(length - empty)))
    };
    assert_eq!(ruled.call(&padded(1024)).status, 200);
    assert_eq!(ruled.call(&padded(1025)).status, 413);
    let mut line = Line::to(&ruled.proxy.address);
    line.send(post(&ruled.reader, &call_of("echo")).strip_suffix('}').unwrap());
    assert_eq!(line.answer().status, 408);
    assert_eq!(ruled.origin.received().len(), 1);
}

// --- Lists ----------------------------------------------------------------------------------

const TOOLS: &str = r#"{"jsonrpc":"2.0", "id":1, "result":{"tools":[ {"name":"drop_a"}, {"name":"echo","x":1.50} ,{"name":"set"},
 {"name":"get_a"}], "nextCursor":"c", "cacheScope":"public"}}"#;
const FILTERED: &str = r#"{"jsonrpc":"2.0", "id":1, "result":{"tools":[ {"name":"echo","x":1.50},
 {"name":"get_a"}], "nextCursor":"c", "cacheScope":"private"}}"#;

fn list_of(what: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": format!("{what}/list")}).to_string()
}

/// An origin that answers with this head line and body.
fn answering(headers: &'static str, body: String) -> Origin {
    Origin::scripted(move |_: &Received, stream: &mut TcpStream| {
        let head = format!("HTTP/1.1 200 OK\r\n{headers}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        Ok(Keep::Open)
    })
}

#[test]
fn a_list_has_only_what_may_be_used() {
    let ruled = ruled_before(answering("content-type: application/json\r\netag: \"x\"", TOOLS.to_owned()), POLICY);
    let request = post_with(&ruled.reader, "Accept-Encoding: gzip\r\nRange: bytes=0-5\r\n", &list_of("tools"));
    let answer = ruled.proxy.ask(&request);
    assert_eq!(answer.body, FILTERED);
    assert_eq!(answer.header("content-length"), Some(&*FILTERED.len().to_string()));
    assert_eq!(answer.header("etag"), None);
    let received = &ruled.origin.received()[0];
    assert_eq!(received.values("accept-encoding"), ["identity"]);
    assert!(received.values("range").is_empty());
}

#[test]
fn every_kind_of_list_is_filtered() {
    for (what, body, expected) in [
        (
            "resources",
            r#"{"result":{"resources":[{"uri":"file:///docs/a"},{"uri":"file:///etc"}]}}"#,
            r#"{"result":{"resources":[{"uri":"file:///docs/a"}]}}"#,
        ),
        (
            "resources/templates",
            r#"{"result":{"resourceTemplates":[{"uriTemplate":"file:///{x}"}]}}"#,
            r#"{"result":{"resourceTemplates":[]}}"#,
        ),
        (
            "prompts",
            r#"{"result":{"prompts":[{"name":"other"},{"name":"greet"}]}}"#,
            r#"{"result":{"prompts":[{"name":"greet"}]}}"#,
        ),
    ] {
        let ruled = ruled_before(answering("content-type: application/json", body.to_owned()), POLICY);
        assert_eq!(ruled.call(&list_of(what)).body, expected);
    }
}

#[test]
fn a_list_in_a_stream_is_filtered_wherever_its_chunks_end() {
    let (origin, folder, _, _) = staged("");
    let token = folder.token("bob", &["--scope", "mcp:read"]);
    let proxy = folder.serve(&origin.url(), POLICY);
    for (end, size) in [("\n", 1), ("\r\n", 7), ("\r", 3), ("\n", 10_000)] {
        let mut client = Line::to(&proxy.address);
        client.send(post_with(&token, "Connection: close\r\n", &list_of("tools")));
        let mut line = origin.accept();
        line.request();
        line.bytes(list_of("tools").len());
        line.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        client.answer_head();
        // what is no list comes at once and as it is
        let progress = format!(": ping{end}id: 1{end}data: {{\"method\":\"notifications/progress\"}}{end}{end}");
        line.send_chunk(&progress);
        let mut came = String::new();
        while came.len() < progress.len() {
            came += &client.chunk();
        }
        assert_eq!(came, progress);
        let data = |text: &str| text.lines().map(|line| format!("data: {line}{end}")).collect::<String>();
        let stream = format!("\u{feff}id: 2{end}{}event: message{end}{end}", data(TOOLS));
        for chunk in stream.as_bytes().chunks(size) {
            // chunks end anywhere, in the middle of a character, too
            line.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        line.send_chunk("");
        let mut came = String::new();
        while let Some(chunk) = crate::harness::read_chunk(client.reader()).unwrap() {
            came += std::str::from_utf8(&chunk).unwrap();
        }
        assert_eq!(came, format!("\u{feff}id: 2{end}{}event: message{end}{end}", data(FILTERED)), "{end:?} {size}");
    }
}

#[test]
fn what_comes_back_by_another_stream_is_filtered_as_well() {
    let events = format!(
        "event: endpoint\ndata: /messages?sessionId=1\n\nid: 1\ndata: \n\ndata: {}\n\n",
        TOOLS.replace('\n', "")
    );
    let ruled = ruled_before(answering("content-type: text/event-stream", events.clone()), POLICY);
    let expected = events.replace(&TOOLS.replace('\n', ""), &FILTERED.replace('\n', ""));
    assert_eq!(ruled.proxy.ask(&get(&ruled.reader, "Last-Event-ID: 0\r\n")).body, expected);
    // two requests with one id can make a server mix up their streams
    assert_eq!(ruled.call(&call_of("echo")).body, expected);
    let ruled = ruled_before(answering("content-type: application/json", TOOLS.to_owned()), POLICY);
    assert_eq!(ruled.call(&call_of("echo")).body, FILTERED);
}

#[test]
fn a_list_as_json_in_the_place_of_a_stream_is_filtered_as_well() {
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{}}}"#;
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let requests = |token: &str| [get(token, ""), post(token, listen), post(token, response)];
    let ruled = ruled_before(answering("content-type: application/json", TOOLS.to_owned()), POLICY);
    for request in requests(&ruled.reader) {
        let answer = ruled.proxy.ask(&request);
        assert_eq!(answer.body, FILTERED);
        assert_eq!(answer.header("content-length"), Some(&*FILTERED.len().to_string()));
    }
    // one that goes on comes text by text, at once
    let (origin, folder, _, _) = staged("");
    let token = folder.token("bob", &["--scope", "mcp:read"]);
    let proxy = folder.serve(&origin.url(), POLICY);
    let event = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    for request in requests(&token) {
        for cut in ["{\"result\":{\"tools\":[{\"name\":\"drop_a\"},", "data: {\"result\"=}", "\u{feff}{}\n"] {
            let mut client = Line::to(&proxy.address);
            client.send(&request);
            let mut line = origin.accept();
            line.request();
            line.bytes(request.split_once("\r\n\r\n").unwrap().1.len());
            line.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
            client.answer_head();
            for (sent, expected) in [(event, event), ("\n", "\n"), (TOOLS, FILTERED), (event, event)] {
                let (first, second) = sent.split_at(sent.len() / 2);
                for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                    line.send_chunk(part);
                }
                let mut came = String::new();
                while came.len() < expected.len() {
                    came += &client.chunk();
                }
                assert_eq!(came, expected);
            }
            // what cannot be read breaks off
            line.send_chunk(cut);
            line.send_chunk("");
            let mut came = String::new();
            let _ = client.reader().read_to_string(&mut came);
            assert!(!came.contains('{') && !came.ends_with("0\r\n\r\n"), "{cut}: {came}");
        }
    }
}

#[test]
fn a_list_behind_something_large_in_a_batch_is_not_passed_on() {
    let large = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"x\":\"{}\"}}}}", "x".repeat(5 << 20));
    for (event, passes) in [(large.clone(), true), (format!(" [{large},{}]", TOOLS.replace('\n', "")), false)] {
        let ruled = ruled_before(answering("content-type: text/event-stream", format!("data: {event}\n\n")), POLICY);
        let mut line = Line::to(&ruled.proxy.address);
        line.send(get(&ruled.reader, "Connection: close\r\n"));
        let mut came = String::new();
        let _ = line.reader().read_to_string(&mut came);
        assert_eq!(came.contains("xxx"), passes);
        assert!(!came.contains("drop_a"));
    }
}

const SMALL: &str = "[limits]\ninspect_answer = \"1KiB\"\n";

/// What comes of an answer in two chunks that do not come together, and whether it ends as it should.
fn in_two(more: &str, kind: &'static str, parts: [&[u8]; 2], request: impl FnOnce(&str) -> String) -> (String, bool) {
    let parts = parts.map(<[u8]>::to_vec);
    let origin = Origin::scripted(move |_: &Received, stream: &mut TcpStream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for part in &parts {
            write!(stream, "{:x}\r\n", part.len())?;
            stream.write_all(part)?;
            stream.write_all(b"\r\n")?;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        stream.write_all(b"0\r\n\r\n")?;
        Ok(Keep::Open)
    });
    let ruled = ruled_before(origin, &format!("{POLICY}{more}"));
    let mut line = Line::to(&ruled.proxy.address);
    line.send(request(&ruled.reader).replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1));
    line.answer_head();
    let mut came = Vec::new();
    let ended = loop {
        match crate::harness::read_chunk(line.reader()) {
            Ok(Some(chunk)) => came.extend(chunk),
            end => break end.is_ok(),
        }
    };
    (String::from_utf8_lossy(&came).into_owned(), ended)
}

fn opened(token: &str) -> String {
    get(token, "")
}

#[test]
fn a_list_behind_something_large_is_not_passed_on_wherever_the_chunks_end() {
    let (x, list) = ("x".repeat(1100), r#"{"result":{"tools":[{"name":"drop_a"}]}}"#);
    let named = format!("data: {{\"result\":{{\"tools\":[{{\"name\":\"drop_a\",\"title\":\"{x}é");
    let events: [(&[u8], Vec<u8>); 5] = [
        // within the last character
        (&named.as_bytes()[..named.len() - 1], [&b"\xa9"[..], b"\"}]}}\n\n"].concat()),
        (b": ", format!("\ndata: {list}\n\n").into()),
        (b"id: 1\nid: ", format!("\ndata: {list}\n\n").into()),
        (b"data:\ndata: ", format!("\ndata: {list}\n\n").into()),
        (b"data: {\"a\":\"\xff\",\"result\":{\"tools\":[{\"name\":\"drop_a\",\"title\":\"", b"\"}]}}\n\n".to_vec()),
    ];
    for (at, (first, second)) in events.into_iter().enumerate() {
        let filler = if at == 3 { " ".repeat(1100) } else { x.clone() };
        let first = if at == 0 { first.to_vec() } else { [first, filler.as_bytes()].concat() };
        let (came, ended) = in_two(SMALL, "text/event-stream", [&first, &second], opened);
        assert!(!came.contains("drop_a") && !ended, "{at}: {came}");
    }
    let listed = format!("{list}\n");
    for (first, second) in [
        (format!("\"{x}"), format!("\"{listed}")),
        (format!("\"{x}"), listed.clone()),
        (format!("1{}", "0".repeat(1100)), listed.clone()),
        (format!("{{\"a\":\"{x}"), format!("\n{listed}")),
        (format!("{{\"a\":[\"{x}\""), format!("]]{listed}")),
    ] {
        let (came, _) = in_two(SMALL, "application/json", [first.as_bytes(), second.as_bytes()], opened);
        assert!(!came.contains("drop_a"), "{}…{second}: {came}", &first[..9]);
    }
    // a single answer, which is no stream
    let (came, _) = in_two(SMALL, "application/json", [" ".repeat(1100).as_bytes(), list.as_bytes()], |token| {
        post(token, &call_of("echo"))
    });
    assert!(!came.contains("drop_a"));
}

#[test]
fn what_is_large_and_no_list_passes_wherever_the_chunks_end() {
    let large = format!("{{\"result\":{{\"content\":[\"{}é", "x".repeat(1100));
    let list = r#"{"result":{"tools":[{"name":"drop_a"},{"name":"echo"}]}}"#;
    for (kind, before, after, end) in [
        ("text/event-stream", "data: ", "\n\ndata: ", "\n\n"),
        ("text/event-stream", ": x\nid: 1\ndata: ", "\n\ndata: ", "\n\n"),
        ("text/event-stream", "data: hello ", "\n\ndata: ", "\n\n"),
        ("application/json", "\n ", "", "\n"),
    ] {
        let first = format!("{before}{large}");
        let (first, cut) = first.as_bytes().split_at(first.len() - 1);
        let second = [cut, format!("\"]}}}}{after}{list}{end}").as_bytes()].concat();
        let (came, ended) = in_two(SMALL, kind, [first, &second], opened);
        assert!(came.contains(&large) && came.contains("echo"), "{before:?}: {came}");
        assert!(!came.contains("drop_a") && ended, "{before:?}: {came}");
    }
}

#[test]
fn while_a_policy_is_tried_streams_pass_as_they_come_and_are_read() {
    let (origin, folder, _, _) = staged("");
    let token = folder.token("bob", &["--scope", "mcp:read"]);
    let policy = format!("[policy]\nmode = \"report\"\n[scopes.\"mcp:read\"]\nread_only = true\n{SMALL}");
    let proxy = folder.serve(&origin.url(), &policy);
    let large = format!("[\"{}\",", "x".repeat(1100));
    let tool = |name: &str| format!("{{\"name\":\"{name}\",\"annotations\":{{\"readOnlyHint\":true}}}}");
    let list = format!("{{\"result\":{{\"tools\":[{}", tool("get_a"));
    for (kind, sent) in [
        ("application/json", ["[\n{\"a\":1},\n", "{\"a\":2},\n", &large]),
        ("application/json", [&list, "]", "}}"]),
        ("text/event-stream", ["data: [\ndata: {\"", "a\":2}\n", &large]),
        ("text/event-stream", ["data: \u{feff}", "\n\n", "data: {\"result\":{\"tools\":["]),
    ] {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, "Connection: close\r\n"));
        let mut line = origin.accept();
        line.request();
        line.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"));
        client.answer_head();
        for part in sent {
            line.send_chunk(part);
            let mut came = String::new();
            while came.len() < part.len() {
                came += &client.chunk();
            }
            assert_eq!(came, part);
        }
        line.send_chunk("");
        assert!(client.end_of_chunks(), "{kind} {sent:?}");
    }
    // what came in pieces is known all the same
    for (name, known) in [("get_a", true), ("get_b", false)] {
        let body = call_of(name);
        let mut client = Line::to(&proxy.address);
        client.send(post(&token, &body));
        let mut line = origin.accept();
        line.request();
        line.bytes(body.len());
        line.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
        let record = proxy.record_of(&client.answer());
        assert_eq!(record.get("policy").is_none(), known, "{name}: {record}");
    }
}

#[test]
fn a_list_that_cannot_be_read_is_not_passed_on() {
    for (headers, body) in [
        ("content-type: application/json", "{\"result\":{\"tools\":[".to_owned()),
        ("content-type: application/json", "\u{feff}{}".to_owned()),
        ("content-type: application/json\r\ncontent-encoding: gzip", TOOLS.to_owned()),
        ("content-type: text/plain", TOOLS.to_owned()),
        ("x-no: type", TOOLS.to_owned()),
        (
            "content-type: application/json",
            format!("{{\"result\":{{\"tools\":[],\"x\":\"{}\"}}}}", "x".repeat(5 << 20)),
        ),
    ] {
        let ruled = ruled_before(answering(headers, body), POLICY);
        let answer = ruled.call(&list_of("tools"));
        assert_eq!(answer.status, 502, "{headers}: {answer:?}");
        assert!(!answer.body.contains("drop_a"));
        assert_eq!(ruled.proxy.record_of(&answer)["reason"], "upstream_invalid");
    }
    let ruled = ruled_before(
        answering("content-type: text/event-stream", "data: {\"a\":1}\n\ndata: {oops\n\n".to_owned()),
        POLICY,
    );
    let mut line = Line::to(&ruled.proxy.address);
    line.send(post(&ruled.reader, &list_of("tools")));
    let mut came = String::new();
    // the connection ends, for there is no other way to say that the stream is broken
    let _ = line.reader().read_to_string(&mut came);
    assert!(!came.contains("oops") && !came.ends_with("0\r\n\r\n"), "{came}");
    let record = ruled.proxy.audit(1).remove(0);
    assert_eq!(record["ended"], "upstream_failed", "{record}");
}

#[test]
fn the_older_transport_acknowledges_a_list_and_sends_it_by_its_stream() {
    let accepted = "HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\nAccepted";
    let ruled = ruled_before(Origin::answering(accepted), POLICY);
    let request = post(&ruled.reader, &list_of("tools")).replacen("/mcp", "/messages?sessionId=1", 1);
    let answer = ruled.proxy.ask(&request);
    assert_eq!((answer.status, &*answer.body), (202, "Accepted"));
}

#[test]
fn a_large_answer_that_is_no_list_passes() {
    let body = format!("{{\"result\":{{\"content\":[\"{}\"]}}}}", "x".repeat(5 << 20));
    let ruled = ruled_before(answering("content-type: application/json", body.clone()), POLICY);
    assert_eq!(ruled.call(&call_of("echo")).body, body);
    let event = format!("data: {body}\n\ndata: {}\n\n", TOOLS.replace('\n', ""));
    let ruled = ruled_before(answering("content-type: text/event-stream", event.clone()), POLICY);
    assert_eq!(ruled.call(&call_of("echo")).body, event.replace(&TOOLS.replace('\n', ""), &FILTERED.replace('\n', "")));
}

#[test]
fn only_the_list_is_marked_for_who_sees_all() {
    let ruled =
        ruled_before(answering("content-type: application/json", TOOLS.to_owned()), "[policy]\ndefault = \"allow\"\n");
    assert_eq!(ruled.call(&list_of("tools")).body, TOOLS.replace("public", "private"));
    assert_eq!(ruled.call(&call_of("echo")).body, TOOLS);
}

#[test]
fn a_scope_may_grant_only_what_changes_nothing() {
    let tools = json!({"result": {"tools": [
        {"name": "get_a", "annotations": {"readOnlyHint": true}},
        {"name": "get_b", "annotations": {"readOnlyHint": false}},
        {"name": "get_c"},
    ]}});
    let policy = "[scopes.\"mcp:read\"]\nread_only = true\n";
    let ruled = ruled_before(answering("content-type: application/json", tools.to_string()), policy);
    let is_denied = |tool| ruled.call(&call_of(tool)).json().get("error").is_some();
    // nothing is known yet
    assert!(is_denied("get_a"));
    let seen = ruled.call(&list_of("tools")).json();
    assert_eq!(seen["result"]["tools"].as_array().unwrap().len(), 1, "{seen}");
    for (tool, denied) in [("get_a", false), ("get_b", true), ("get_c", true), ("get_d", true)] {
        assert_eq!(is_denied(tool), denied, "{tool}");
    }
    let record = ruled.proxy.record_of(&ruled.call(&call_of("get_b")));
    assert_eq!(record["policy_rule"], "scopes.\"mcp:read\".read_only");
}

#[test]
fn marks_hold_at_the_path_where_they_were_made() {
    let marked = |read_only: bool| {
        let tool = json!({"name": "get_a", "annotations": {"readOnlyHint": read_only}});
        json!({"id": 1, "result": {"tools": [tool]}}).to_string()
    };
    let (harmless, harmful) = (marked(true), marked(false));
    let legacy = format!("event: endpoint\ndata: /messages?sessionId=1\n\ndata: {harmless}\n\n");
    let origin = Origin::scripted(move |request: &Received, stream: &mut TcpStream| {
        let line = request.request_line();
        let (kind, body) = match line {
            _ if line.contains("/sse") => ("text/event-stream", &legacy),
            _ if line.contains("/b ") => ("application/json", &harmful),
            _ => ("application/json", &harmless),
        };
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")?;
        Ok(Keep::Open)
    });
    let ruled = ruled_before(origin, "[scopes.\"mcp:read\"]\nread_only = true\n");
    let at = |path: &str, body: &str| ruled.proxy.ask(&post(&ruled.reader, body).replacen("/mcp", path, 1));
    let is_denied = |path: &str| {
        let answer = at(path, &call_of("get_a"));
        ruled.proxy.record_of(&answer)["outcome"] == "denied"
    };
    at("/a", &list_of("tools"));
    assert_eq!((is_denied("/a"), is_denied("/b")), (false, true), "nothing is known of /b");
    at("/b", &list_of("tools"));
    assert_eq!((is_denied("/a"), is_denied("/b")), (false, true), "the one says nothing of the other");
    // the older transport lists at one path what is called at another
    ruled.proxy.ask(&get(&ruled.reader, "").replacen("/mcp", "/sse", 1));
    assert_eq!((is_denied("/messages?sessionId=1"), is_denied("/sse")), (false, true));
}

#[test]
fn a_client_can_have_less_and_never_more() {
    let ruled = ruled_before(answering("content-type: application/json", TOOLS.to_owned()), POLICY);
    for (header, tool, rule) in [
        ("X-MCP-Tools: echo, set", "echo", None),
        ("X-MCP-Tools: echo, set", "get_a", Some("header X-MCP-Tools")),
        ("X-MCP-Tools: set", "set", Some("needs scopes.\"mcp:write\".tools")),
        ("X-MCP-Exclude-Tools: get_*", "get_a", Some("header X-MCP-Exclude-Tools")),
        ("X-MCP-Readonly: true", "echo", Some("header X-MCP-Readonly")),
    ] {
        let answer = ruled.proxy.ask(&post_with(&ruled.reader, &format!("{header}\r\n"), &call_of(tool)));
        let record = ruled.proxy.record_of(&answer);
        assert_eq!(record.get("policy_rule").and_then(Value::as_str), rule, "{header} {tool}: {record}");
    }
    let answer = ruled.proxy.ask(&post_with(&ruled.reader, "X-MCP-Tools: echo\r\n", &list_of("tools")));
    assert_eq!(answer.json()["result"]["tools"], json!([{"name": "echo", "x": 1.5}]));
    let answer =
        ruled.proxy.ask(&post_with(&ruled.reader, &format!("X-MCP-Tools: {}\r\n", "a".repeat(300)), &call_of("echo")));
    assert_eq!(answer.status, 400);
    for received in ruled.origin.received() {
        assert!(!received.head.to_ascii_lowercase().contains("x-mcp-"), "{}", received.head);
    }
}

// --- Without a policy -----------------------------------------------------------------------

#[test]
fn without_a_policy_nothing_waits_and_the_record_still_tells() {
    let (origin, _folder, token, proxy) = staged("");
    let body = call_of("echo");
    let (first, second) = body.split_at(20);
    let mut client = Line::to(&proxy.address);
    client
        .send(post(&token, &body).replacen("POST /mcp", "POST /mcp?sessionId=canary", 1).strip_suffix(second).unwrap());
    let mut line = origin.accept();
    // the first piece is there before the second one is sent
    line.request();
    assert_eq!(line.bytes(first.len()), first.as_bytes());
    client.send(second);
    assert_eq!(line.bytes(second.len()), second.as_bytes());
    line.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    let record = proxy.record_of(&client.answer());
    assert_eq!((&record["mcp_method"], &record["mcp_tool"]), (&"tools/call".into(), &"echo".into()), "{record}");
    assert_eq!(
        (&record["mcp_source"], &record["mcp_session"]),
        (&"body".into(), &"e100fbce008c04ec".into()),
        "{record}"
    );
}

#[test]
fn what_is_not_read_is_told_by_the_headers() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n";
    for (more, body, source) in [
        ("", call_of("echo"), "body"),
        ("Content-Encoding: gzip\r\n", call_of("other"), "headers"),
        ("", call_of(&"x".repeat(70_000)), "headers"),
    ] {
        let answer = proxy.ask(&post_with(&token, &format!("{headers}{more}"), &body));
        assert_eq!(answer.status, 200);
        let record = proxy.record_of(&answer);
        assert_eq!((&record["mcp_source"], &record["mcp_protocol_version"]), (&source.into(), &"2026-07-28".into()));
        assert_eq!(record["mcp_tool"], "echo", "{record}");
        assert!(!record.to_string().contains("arguments"), "{record}");
    }
}

#[test]
fn arguments_are_recorded_only_where_that_is_asked_for() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let configured = folder.read("patgate.toml");
    drop(proxy);
    let more = "arguments = true\narguments_limit = 30\nmask_keys = [\"password\"]\narguments_sha256 = true\n";
    folder.write(
        "patgate.toml",
        &configured.replace("path = \"audit.jsonl\"\n", &format!("path = \"audit.jsonl\"\n{more}")),
    );
    let proxy = folder.serve_with(&[], &[]);
    let body = r#"{"id":1,"method":"tools/call","params":{"name":"t","arguments":{"password":"canary","b":"0123456789abcdef"}}}"#;
    let record = proxy.record_of(&proxy.ask(&post(&token, body)));
    assert_eq!(record["mcp_arguments"], r#"{"password":"***","b":"0123456…"#, "{record}");
    assert_eq!(record["mcp_arguments_sha256"].as_str().unwrap().len(), 64);
}

// --- Explained ------------------------------------------------------------------------------

#[test]
fn one_decision_is_explained_with_its_rule() {
    let folder = Folder::new();
    folder.token("alice", &["--scope", "mcp:read"]);
    let id = folder.read("tokens.toml").split("id = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    folder.configure("http://127.0.0.1:3000", POLICY);
    let explain = |more: &[&str]| {
        let output =
            folder.run(&[&["explain", "--token-id", &id, "--config", "patgate.toml", "--json"], more].concat());
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), told["reason"].clone(), told["rule"].clone())
    };
    for (more, code, reason, rule) in [
        (&[][..], 0, "ok", Value::Null),
        (&["--tool", "echo"], 0, "ok", Value::Null),
        (&["--tool", "drop_a"], 1, "insufficient_scope", r#"scopes."mcp:write".tools.deny[0]="drop_*""#.into()),
        (&["--tool", "set"], 1, "insufficient_scope", "needs scopes.\"mcp:write\".tools".into()),
        (&["--resource", "file:///docs/a"], 0, "ok", Value::Null),
        (
            &["--resource", "file:///x", "--method", "resources/subscribe"],
            1,
            "insufficient_scope",
            "needs scopes.\"mcp:write\".resources".into(),
        ),
        (&["--method", "initialize"], 0, "ok", Value::Null),
        (&["--method", "x/y"], 1, "insufficient_scope", "policy.default".into()),
        (&["--path", "/.well-known/oauth-protected-resource"], 1, "discovery", Value::Null),
    ] {
        assert_eq!(explain(more), (code, reason.into(), rule), "{more:?}");
    }
    assert_eq!(explain(&["--method", "tools/call"]).0, 2);
    assert_eq!(explain(&["--tool", "a", "--prompt", "b"]).0, 2);
    let text = folder.run(&["explain", "--token-id", &id, "--config", "patgate.toml", "--tool", "set"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("denied: token ") && text.contains("the scope mcp:write would"), "{text}");
    folder.run(&["token", "revoke", &id]);
    assert_eq!(explain(&["--tool", "echo"]), (1, "revoked".into(), Value::Null));
}
