//! Header fields: claims to be somebody, and lines that are none.

use super::May::{Each, First, Nothing};
use super::{Attack, FURTHER, IDENTITY, get, post};

/// Ways to spell a name with `-` that some upstream reads as if it had one. What is no name is refused.
const SPELLINGS: [(&str, bool); 13] = [
    ("_", true),
    (".", true),
    ("~", true),
    ("!", true),
    ("*", true),
    ("+", true),
    ("'", true),
    ("%2D", true),
    ("%5F", true),
    ("__", true),
    (" ", false),
    ("\u{ad}", false),
    ("\0", false),
];

/// Lines of a head that are not exactly a field.
const LINES: [&str; 28] = [
    "X-Auth-User : root\r\n",
    "X-Auth-User\t: root\r\n",
    " X-Auth-User: root\r\n",
    "X: a\r\n X-Auth-User: root\r\n",
    "X: a\r\n\tX-Auth-User: root\r\n",
    "X-Auth-User:\r\n root\r\n",
    "X-Auth-User\r\n: root\r\n",
    "X-Auth-User\r\n",
    ": root\r\n",
    "=X-Auth-User: root\r\n:\r\n",
    "X: a\rX-Auth-User: root\r\n",
    "X: a\r\rX-Auth-User: root\r\n",
    "X: a\r \nX-Auth-User: root\r\n",
    "X: a\0X-Auth-User: root\r\n",
    "X\0: root\r\n",
    "X: \u{1}\r\n",
    "X: \u{b}root\r\n",
    "X: \u{c}root\r\n",
    "X: \u{7f}root\r\n",
    "X: \u{8}\r\n",
    "X-Auth-User\u{a0}: root\r\n",
    "\u{e9}: root\r\n",
    "X Auth User: root\r\n",
    "(comment): root\r\n",
    "X[auth]: root\r\n",
    "{X}: root\r\n",
    "\u{ef}\u{bb}\u{bf}X: root\r\n",
    "\r\r\n",
];

/// Credentials that are none, each in place of the line with the token; some have the token in the wrong place.
const CREDENTIALS: [&str; 32] = [
    "Authorization: Bearer",
    "Authorization: Bearer ",
    "Authorization: Basic YWxpY2U6YWxpY2UtdG9rZW4tc2VjcmV0",
    "Authorization: alice-token-secret",
    "Authorization: Token alice-token-secret",
    "Authorization: Bearer=alice-token-secret",
    "Authorization: Bearer:alice-token-secret",
    "Authorization: Bearer\talice-token-secret",
    "Authorization: Bearer alice-token-secret,",
    "Authorization: Bearer alice-token-secret, Bearer root",
    "Authorization: Bearer alice-token-secret root",
    "Authorization: Bearer \"alice-token-secret\"",
    "Authorization: Bearer alice-token-secret=",
    "Authorization: Bearer alice-token-secre",
    "Authorization: Bearer ALICE-TOKEN-SECRET",
    "Authorization: Bearer alice%2Dtoken%2Dsecret",
    "Authorization: Bearer alice-token-secret%00",
    "Authorization: Bearer\u{a0}alice-token-secret",
    "Authorization: Bearer alice-token-secret\u{a0}",
    "Authorization: Bearer alice-token-secret\r\nAuthorization: Bearer alice-token-secret",
    "Authorization: Bearer alice-token-secret\r\nAuthorization: Basic root",
    "Authorization: Basic root\r\nAuthorization: Bearer alice-token-secret",
    "Authorization: Bearer\r\n alice-token-secret",
    "Authorization : Bearer alice-token-secret",
    "Authorization\t: Bearer alice-token-secret",
    "X-Authorization: Bearer alice-token-secret",
    "Proxy-Authorization: Bearer alice-token-secret",
    "Authorization_: Bearer alice-token-secret",
    "Cookie: Authorization=Bearer alice-token-secret; token=alice-token-secret",
    "X-Auth-User: alice\r\nX-Auth-Token-Id: alice-token\r\nX-Auth-Source: pat",
    "X-Original-Url: /\r\nX-Rewrite-Url: /\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-User: alice",
    "Trailer: Authorization",
];

/// What belongs to one hop, or says what only we may say.
const HOPS: [&str; 26] = [
    "Connection: \"X-Auth-User\"\r\n",
    "Connection: X-Auth-User;\r\n",
    "Connection: close,X-Auth-User,,X-Auth-Email\r\n",
    "Connection: x_auth_user, X-aUTH-EMAIL, x-auth-name\r\n",
    "Connection: \tX-Auth-User\t,\tx-auth-scopes\r\n",
    "Connection: X-Request-Id, X-Forwarded-For, Host\r\n",
    "Connection: Content-Length\r\nContent-Length: 0\r\n",
    "Connection: Authorization\r\n",
    "Connection: ,\r\n",
    "Connection: \u{e9}\r\n",
    "Connection: keep-alive, close, upgrade, TE, trailers\r\n",
    "Proxy-Connection: X-Auth-User\r\n",
    "Keep-Alive: X-Auth-User\r\n",
    "TE: trailers, chunked;q=0.5, X-Auth-User\r\n",
    "Trailer: X-Auth-User, Content-Length\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
    "Upgrade: TLS/1.0, HTTP/2.0\r\nConnection: upgrade\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Expect: root\r\n",
    "X-Forwarded-For: root\r\nForwarded: for=root;host=root;proto=root\r\nX-Real-IP: root\r\n",
    "X_Forwarded_For: root\r\nX-Forwarded_Host: root\r\nX.Forwarded.Proto: root\r\n",
    "X-Request-Id: root\r\nX_Request_Id: root\r\n",
    "X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\n",
    "Content-Encoding: gzip\r\n",
];

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut add = |what: &str, text: String, may| attacks.push(Attack::new(what, text, may));
    for (spelling, is_name) in SPELLINGS {
        for (name, _) in IDENTITY {
            let claim = format!("{}: root\r\n", name.replace('-', spelling));
            let text = get("/mcp/ROW", &format!("{claim}{claim}"));
            add(&claim, text + FURTHER, if is_name { Each } else { Nothing });
        }
    }
    for line in LINES {
        add(line, get("/mcp/ROW", line) + FURTHER, Nothing);
        add(line, post(&format!("{line}Content-Length: 5\r\n"), "hello") + FURTHER, Nothing);
    }
    for hop in HOPS {
        add(hop, get("/mcp/ROW", hop) + FURTHER, if hop.contains("close") { First } else { Each });
    }
    for credential in CREDENTIALS {
        add(credential, get("/mcp/ROW", "").replace("AUTH", credential), Nothing);
        add(credential, post("Content-Length: 5\r\n", "hello").replace("AUTH", credential), Nothing);
    }
    let long = "root".repeat(20_000);
    add("a long claim", get("/mcp/ROW", &format!("X-Auth-User: {long}\r\n")) + FURTHER, Nothing);
    add("a long name", get("/mcp/ROW", &format!("X-{long}: 1\r\n")) + FURTHER, Nothing);
    add("many claims", get("/mcp/ROW", &"X-Auth-User: root\r\n".repeat(90)) + FURTHER, Each);
    add("too many fields", get("/mcp/ROW", &"X-Auth-User: root\r\n".repeat(200)) + FURTHER, Nothing);
    add("many nominations", get("/mcp/ROW", &"Connection: X-Auth-User, X-Auth-Email\r\n".repeat(90)) + FURTHER, Each);
    add("an encoded claim", get("/mcp/ROW", "X-Auth-User: =?UTF-8?B?cm9vdA==?=\r\n") + FURTHER, Each);
    add("a claim outside ASCII", get("/mcp/ROW", "X-Auth-User: r\u{f6}\u{f6}t root\r\n") + FURTHER, Each);
    attacks
}
