//! Several requests on one connection: each is judged alone, and what follows a refusal is not taken for its body
//! nor its body for what follows.

use super::May::{Each, First};
use super::{Attack, FURTHER, get, post};

/// A request like the first, without a token.
fn nobody(lines: &str, rest: &str) -> String {
    post(lines, "").replace("AUTH", "X-Nobody: 1") + rest
}

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut add = |what: &str, text: String, may| attacks.push(Attack::new(what, text, may));
    let one = get("/mcp/ROW", "");
    let none = one.replace("AUTH", "X-Nobody: 1");
    let bad = one.replace("AUTH", "Authorization: Bearer bad");
    let two = one.replace("AUTH", "Authorization: Bearer alice-token-secret\r\nAuthorization: Bearer bad");
    let body = post("Content-Length: 5\r\n", "hello");
    for (what, requests) in [
        ("token, none", vec![&one, &none]),
        ("none, token", vec![&none, &one]),
        ("token, none, token", vec![&one, &none, &one]),
        ("token, bad, none, token", vec![&one, &bad, &none, &one]),
        ("bad, bad, bad", vec![&bad, &bad, &bad]),
        ("body, none, body", vec![&body, &none, &body]),
        ("none after none after none", vec![&none, &none, &none]),
    ] {
        add(what, requests.into_iter().cloned().collect(), Each);
    }
    add("two credentials among good ones", format!("{one}{two}{one}"), Each);
    // a body that is full of good requests
    let inside = FURTHER.repeat(2);
    let (length, chunk) = ("Content-Length: LENGTH\r\n", "Transfer-Encoding: chunked\r\n");
    let (waited, chunks) = (format!("{length}Expect: 100-continue\r\n"), format!("CHUNK({inside})CHUNK"));
    add("in a refused body", nobody(length, &inside), First);
    add("in refused chunks", nobody(chunk, &chunks), First);
    add("in a refused body that is waited for", nobody(&waited, &inside), First);
    add("in a refused body that ends early", nobody("Content-Length: 9999\r\n", &inside), First);
    add("in an accepted body", post(length, &inside), First);
    add("in accepted chunks", post(chunk, &chunks), First);
    add("in an accepted body that is waited for", post(&waited, &inside), First);
    add("in an accepted body that ends early", post("Content-Length: 9999\r\n", &inside), First);
    add("in a body that is too large", post("Content-Length: 99999999999\r\n", &inside), First);
    add("in a body that is not expected", nobody("Content-Length: 0\r\n", &inside), Each);
    for method in ["GET", "HEAD", "DELETE", "PUT", "OPTIONS", "TRACE", "CONNECT"] {
        for request in [post(length, &inside), post(chunk, &chunks), post(&waited, &inside)] {
            add(&format!("in the body of a {method}"), request.replacen("POST", method, 1), First);
        }
    }
    add("a request after a goodbye", get("/mcp/ROW", "Connection: close\r\n") + FURTHER, First);
    add("a request after a goodbye to nobody", nobody("Connection: close\r\nContent-Length: 0\r\n", FURTHER), First);
    add("a request after an upgrade", get("/mcp/ROW", "Upgrade: h2c\r\nConnection: Upgrade\r\n") + FURTHER, Each);
    add("the preface of HTTP/2 after a request", one.clone() + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + FURTHER, First);
    add("an HTTP/2 preface that is none", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned() + FURTHER, First);
    add("half a request", one[..one.len() - 2].to_owned(), First);
    add("half a body", post("Content-Length: 500\r\n", "hello"), First);
    add("an answer instead of a request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned() + FURTHER, First);
    add("TLS instead of a request", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".to_owned() + FURTHER, First);
    add("a proxy's greeting first", "PROXY TCP4 6.6.6.6 6.6.6.6 1 2\r\n".to_owned() + &one, First);
    add("a hundred at once", one.repeat(100), Each);
    attacks
}
