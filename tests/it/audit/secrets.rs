//! A token never stands in the audit log or the diagnostics, wherever a client puts it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::harness::{Folder, Origin};

/// Every way to write the secret part of a token that is searched for.
fn spellings(token: &str) -> Vec<String> {
    let secret = &token[19..51];
    let percent = |upper: bool| -> String {
        let encode = |byte| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        secret.bytes().map(encode).collect()
    };
    let mut all =
        vec![secret.to_owned(), secret[..16].to_owned(), secret[16..].to_owned(), percent(true), percent(false)];
    // wherever the secret begins in a text that is encoded as a whole
    for shift in 0..3 {
        let shifted = format!("{}{secret}", "x".repeat(shift));
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            all.push(encoded[4..40].to_owned());
        }
    }
    all
}

#[test]
fn no_secret_is_in_any_log_wherever_a_client_puts_it() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let good = format!("Authorization: Bearer {token}\r\n");
    let requests = [
        format!("GET /mcp?access_token={token} HTTP/1.1\r\nHost: localhost\r\n{good}\r\n"),
        format!("GET /mcp?access_token={encoded} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nCookie: token={token}\r\n\r\n"),
        format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {}\r\n\r\n",
            STANDARD_NO_PAD.encode(&token)
        ),
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}x\r\n\r\n"),
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}, Bearer {token}\r\n\r\n"),
        format!("GET /mcp/{token} HTTP/1.1\r\nHost: localhost\r\n{good}\r\n"),
        format!("GET /mcp/{encoded} HTTP/1.1\r\nHost: localhost\r\n{good}\r\n"),
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nUser-Agent: agent/{token}\r\n{good}\r\n"),
        format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nReferer: http://x/?t={token}\r\nOrigin: http://{token}\r\n\r\n"
        ),
        format!("GET /mcp HTTP/1.1\r\nHost: {token}\r\n{good}\r\n"),
        format!("{token} /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /mcp HTTP/1.1\r\nMcp-Session-Id: {token}\r\nHost: localhost\r\n{good}\r\n"),
        format!("{token}\r\n\r\n"),
    ];
    for request in &requests {
        assert!(proxy.ask(request).status >= 200, "{request}");
    }
    let diagnostics = format!("{:?}", proxy.log());
    let records = proxy.last_audit();
    assert_eq!(records.len(), requests.len());
    let log = folder.read("audit.jsonl");
    assert!(log.contains("_[masked]"), "{log}");
    for spelling in spellings(&token) {
        assert!(!log.contains(&spelling), "{spelling} in {log}");
        assert!(!diagnostics.contains(&spelling), "{spelling} in {diagnostics}");
    }
    // so that nothing is proved by a search that finds nothing
    let canary = format!("{encoded} {} {token}", STANDARD_NO_PAD.encode(format!("x{token}")));
    assert!(spellings(&token).iter().filter(|spelling| canary.contains(*spelling)).count() >= 4);
}
