//! The shortest way through the product: a token, a request, an identity, a record.

use crate::harness::{Folder, Origin};

#[test]
fn a_token_opens_the_door_and_nothing_else_does() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &["--scope", "mcp:read"]);
    let proxy = folder.serve(&origin.url(), "");

    let host = format!("Host: {}\r\n", proxy.address);
    let refused = proxy.ask(&format!("GET /mcp HTTP/1.1\r\n{host}\r\n"));
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"mcp\""));
    assert!(refused.json()["id"].is_null());

    let passed = proxy.ask(&format!("GET /mcp HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n"));
    assert_eq!((passed.status, passed.body.as_str()), (200, "{}"));

    let [received] = &origin.received()[..] else { panic!("{:?}", origin.received()) };
    assert_eq!(received.values("x-auth-user"), ["alice"]);
    assert_eq!(received.values("x-auth-scopes"), ["mcp:read"]);
    assert_eq!(received.values("host"), [origin.address.as_str()]);
    assert!(received.values("authorization").is_empty());

    let audit = proxy.audit(2);
    assert_eq!((&audit[0]["outcome"], &audit[0]["reason"]), (&"denied".into(), &"missing_credential".into()));
    assert_eq!((&audit[1]["outcome"], &audit[1]["user"]), (&"allowed".into(), &"alice".into()));
    assert_eq!(passed.header("x-request-id"), audit[1]["request_id"].as_str());
    assert_eq!(received.values("x-request-id"), [audit[1]["request_id"].as_str().unwrap()]);
}
