//! The one thing that opens the door, and all that does not: what the client is told, what the audit
//! log knows, and that a token is seen nowhere behind the door.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::answers::{WITHOUT_TOKEN, assert_ours};
use crate::harness::{Folder, Origin, eventually, get, post};

fn with_authorization(lines: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

// --- Credentials ----------------------------------------------------------------------------

#[test]
fn a_credential_that_cannot_be_read_is_a_400() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    for lines in [
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nauthorization: Basic eDp5\r\n"),
        format!("Authorization: Bearer {token}, Bearer {token}\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token} {token}\r\n"),
        format!("Authorization: Bearer \"{token}\"\r\n"),
        format!("Authorization: Bearer\t{token}\r\n"),
        format!("Authorization: Bearer {token}\u{e9}\r\n"),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization:\r\n".to_owned(),
    ] {
        let answer = proxy.ask(&with_authorization(&lines));
        let record = assert_ours(&proxy, &answer, 400, "malformed_credential");
        assert!(record.get("pat_id").is_none() && answer.header("www-authenticate").is_none(), "{lines}");
    }
    assert!(origin.received().is_empty());
}

#[test]
fn dead_and_unknown_tokens_look_alike_to_the_client_and_differ_in_the_audit_log() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let users = ["expired", "early", "revoked", "suspended", "unlisted", "alive"];
    let tokens = users.map(|user| folder.token(user, &["--expires", "never"]));
    let mut list = folder.read("tokens.toml");
    for (user, line) in [
        ("expired", "expires_at = 2020-01-01T00:00:00Z"),
        ("early", "not_before = 2199-01-01T00:00:00Z"),
        ("revoked", "revoked_at = 2020-01-01T00:00:00Z\nrevoked_reason = \"lost laptop\""),
    ] {
        let user = format!("user = \"{user}\"\n");
        list = list.replace(&user, &format!("{user}{line}\n"));
    }
    for user in users.iter().filter(|user| **user != "unlisted") {
        let status = if *user == "suspended" { "suspended" } else { "active" };
        list += &format!("[[users]]\nid = \"{user}\"\nstatus = \"{status}\"\n");
    }
    folder.write("tokens.toml", &list);
    let proxy = folder.serve(&origin.url(), "");

    let [expired, early, revoked, suspended, unlisted, alive] = tokens;
    let stranger = Folder::new().token("alice", &[]);
    let mistyped = format!("{}{}", &alive[..56], if alive.ends_with('0') { '1' } else { '0' });
    let mut told = Vec::new();
    for (token, reason, user) in [
        (&stranger, "unknown_token", None),
        (&"opaque-token".to_owned(), "unknown_token", None),
        (&mistyped, "bad_checksum", None),
        (&expired, "expired", Some("expired")),
        (&early, "not_yet_valid", Some("early")),
        (&revoked, "revoked", Some("revoked")),
        (&suspended, "user_suspended", Some("suspended")),
        (&unlisted, "user_unknown", Some("unlisted")),
    ] {
        let answer = proxy.ask(&get(token, ""));
        let record = assert_ours(&proxy, &answer, 401, reason);
        assert_eq!(record.get("user").and_then(Value::as_str), user, "{reason}");
        assert_eq!(record.get("pat_id").and_then(Value::as_str), user.map(|_| &token[8..18]), "{reason}");
        let differs = ["x-request-id", "date"];
        let headers = answer.headers.into_iter().filter(|(name, _)| !differs.contains(&name.as_str()));
        told.push((headers.collect::<Vec<_>>(), answer.body));
    }
    assert!(told.iter().all(|answer| *answer == told[0]), "{told:#?}");
    assert!(told[0].0.iter().any(|(name, value)| name == "www-authenticate" && value.contains("invalid_token")));

    let missing = proxy.ask(WITHOUT_TOKEN);
    assert_ours(&proxy, &missing, 401, "missing_credential");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"mcp\""));
    assert_eq!(proxy.ask(&get(&alive, "")).status, 200);
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_token_expires_while_the_proxy_runs() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &["--expires", "2s"]);
    let proxy = folder.serve(&origin.url(), "");
    let dead = eventually("the end of a token's life", || {
        Some(proxy.ask(&get(&token, ""))).filter(|answer| answer.status != 200)
    });
    assert_ours(&proxy, &dead, 401, "expired");
}

#[test]
fn a_token_in_the_query_is_no_credential_and_is_not_logged() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let target = format!("/mcp?access_token={token}&token={token}");
    let answer = proxy.ask(&WITHOUT_TOKEN.replace("/mcp", &target));
    let record = assert_ours(&proxy, &answer, 401, "missing_credential");
    assert_eq!(record["path"], "/mcp");
    assert!(origin.received().is_empty() && !folder.read("audit.jsonl").contains(&token));
}

#[test]
fn a_token_is_nowhere_to_be_found_behind_the_door() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let encoded = STANDARD.encode(format!("x:{token}"));
    folder.configure(&origin.url(), "[limits]\nhead = 2048");
    let proxy = folder.serve_with(&[], &[("PATGATE_LOG_LEVEL", "trace")]);
    let requests = [
        post(&token, "{}"),
        get(&token, "Connection: Authorization\r\n"),
        get(&format!("{token}x"), ""),
        get(&token[..56], ""),
        with_authorization(&format!("Authorization: Basic {token}\r\n")),
        with_authorization(&format!("Authorization: Basic {encoded}\r\n")),
        with_authorization(&format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n")),
        WITHOUT_TOKEN.replace("/mcp", &format!("/mcp?token={token}")),
        get(&token, "").replace("/mcp", "/.well-known/oauth-protected-resource"),
        get(&token, "").replace("GET", "TRACE"),
        get(&token, &format!("X-Long: {}\r\n", "x".repeat(4096))),
        get(&token, "Broken Header: x\r\n"),
        get(&token, "Origin: http://evil.test\r\n"),
    ];
    for request in &requests {
        proxy.ask(request);
    }
    let log = format!("{:?}", proxy.log());
    assert!(log.contains("listening"));
    let metrics = proxy.health("/metrics").body;
    assert!(metrics.contains("bad_checksum"));
    assert_eq!(proxy.last_audit().len(), requests.len());
    let received: String = origin.received().iter().map(|received| received.head.as_str()).collect();
    assert_eq!(received.matches("HTTP/1.1").count(), 2);

    // the middle of the secret: no cut, prefix or checksum hides it
    let secret = &token[24..46];
    for (place, text) in
        [("log", &log), ("metrics", &metrics), ("audit log", &folder.read("audit.jsonl")), ("upstream", &received)]
    {
        assert!(!text.contains(secret) && !text.contains(&encoded[20..60]), "a token is in the {place}: {text}");
    }
}
