//! Request lines: targets that mean more than one thing, methods that are not ours, versions that do not exist.

use super::May::{Each, First, Nothing};
use super::{Attack, FURTHER, get};

/// Targets that name nothing else than a path, whatever is in it: the upstream gets them as they are.
const PATHS: [&str; 24] = [
    "/mcp/ROW/../x",
    "/mcp/ROW/%2e%2e/x",
    "/mcp/ROW/.%2E/x",
    "/mcp/ROW/./x",
    "/mcp/ROW//x",
    "/mcp/ROW/%2fx",
    "/mcp/ROW/%5cx",
    "/mcp/ROW;x=1",
    "/mcp/ROW/..;/x",
    "/mcp/ROW?x=/../y",
    "/mcp/ROW?x=http://root/",
    "/mcp/ROW?token=alice-token-secret",
    "/mcp/ROW?",
    "/mcp/ROW??",
    "/mcp/ROW?%0d%0aX-Auth-User:%20root",
    "/mcp/ROW/%0d%0aX-Auth-User:%20root",
    "/mcp/ROW/%00",
    "/mcp/ROW/%zz",
    "/mcp/ROW/%",
    "/mcp/ROW/*",
    "/mcp/ROW/@root",
    "/mcp/ROW/:80",
    "/mcp/ROW/~x/!$&'()*+,=",
    "/mcp/ROW/{x}",
];

/// Targets that name a host, too. The one that is believed is ours.
const ABSOLUTE: [&str; 10] = [
    "http://localhost/mcp/ROW",
    "HTTP://LOCALHOST/mcp/ROW",
    "https://localhost/mcp/ROW",
    "http://localhost:1/mcp/ROW",
    "http://127.0.0.1/mcp/ROW",
    "http://[::1]/mcp/ROW",
    "ws://localhost/mcp/ROW",
    "http://localhost/mcp/ROW?x",
    "http://localhost:99999/mcp/ROW",
    "http://localhost:x/mcp/ROW",
];

/// Targets that are refused.
const TARGETS: [&str; 32] = [
    "mcp/ROW",
    "*",
    "",
    "?ROW",
    "#ROW",
    "\\mcp\\ROW",
    "http://root@localhost/mcp/ROW",
    "http://localhost:root@localhost/mcp/ROW",
    "http://localhost@root/mcp/ROW",
    "http://root/mcp/ROW",
    "http://localhost.root/mcp/ROW",
    "http://localhost root/mcp/ROW",
    "http:///mcp/ROW",
    "http:/mcp/ROW",
    "http:mcp/ROW",
    "//root/mcp/ROW/x y",
    "file:///mcp/ROW",
    "javascript:/mcp/ROW",
    "localhost:80",
    "localhost",
    "/mcp/ROW x",
    "/mcp/ROW HTTP/1.1 x",
    "/mcp/ROW\tx",
    " /mcp/ROW",
    "/mcp/ROW\0",
    "/mcp/ROW\u{b}",
    "/mcp/ROW\u{7f}",
    "/mcp/ROW\rX-Auth-User: root",
    "/mcp/ROW\nX-Auth-User: root",
    "http://local%68ost/mcp/ROW",
    "http://[::1/mcp/ROW",
    "http://localhost\\@root/mcp/ROW",
];

/// Request lines in place of `GET /mcp/ROW HTTP/1.1`.
const LINES: [&str; 33] = [
    "GET /mcp/ROW",
    "GET /mcp/ROW ",
    "GET  /mcp/ROW HTTP/1.1",
    "GET\t/mcp/ROW\tHTTP/1.1",
    "GET /mcp/ROW HTTP/1.1 ",
    "GET /mcp/ROW HTTP/1.1\tx",
    "GET /mcp/ROW http/1.1",
    "GET /mcp/ROW HTTP/0.9",
    "GET /mcp/ROW HTTP/1.2",
    "GET /mcp/ROW HTTP/2.0",
    "GET /mcp/ROW HTTP/3",
    "GET /mcp/ROW HTTP/11",
    "GET /mcp/ROW HTTP/1.10",
    "GET /mcp/ROW HTTP/01.1",
    "GET /mcp/ROW HTTPS/1.1",
    "GET /mcp/ROW HTTP/+1.1",
    "GET\0 /mcp/ROW HTTP/1.1",
    "G\u{e9}T /mcp/ROW HTTP/1.1",
    "GET: /mcp/ROW HTTP/1.1",
    " GET /mcp/ROW HTTP/1.1",
    "\tGET /mcp/ROW HTTP/1.1",
    "\0GET /mcp/ROW HTTP/1.1",
    "get /mcp/ROW HTTP/1.1",
    "CONNECT localhost:80 HTTP/1.1",
    "CONNECT /mcp/ROW HTTP/1.1",
    "TRACE /mcp/ROW HTTP/1.1",
    "TRACK /mcp/ROW HTTP/1.1",
    "PRI * HTTP/2.0",
    "PRI /mcp/ROW HTTP/1.1",
    "PROPFIND /mcp/ROW HTTP/1.1",
    "LINK /mcp/ROW HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "M-SEARCH /mcp/ROW HTTP/1.1",
];

/// `Host` lines in place of the honest one.
const HOSTS: [(&str, bool); 14] = [
    ("Host: root", false),
    ("Host: localhost\r\nHost: root", false),
    ("Host: root\r\nHost: localhost", false),
    ("Host: localhost, root", false),
    ("Host: localhost@root", false),
    ("Host: root@localhost", false),
    ("Host: localhost/root", false),
    ("Host: localhost root", false),
    ("Host: localhost:80:80", false),
    ("Host: ", false),
    ("Host: localhost\u{e9}", false),
    ("Host : localhost", false),
    ("Host: LOCALHOST:80", true),
    ("Host: [::1]:8080", true),
];

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut add = |what: &str, text: String, may| attacks.push(Attack::new(what, text, may));
    for target in PATHS.iter().chain(&ABSOLUTE) {
        add(target, get(target, "") + FURTHER, Each);
    }
    for target in TARGETS {
        add(target, get(target, ""), Nothing);
    }
    for line in LINES {
        add(line, get("/mcp/ROW", "").replacen("GET /mcp/ROW HTTP/1.1", line, 1), Nothing);
    }
    for (host, honest) in HOSTS {
        let may = if honest { Each } else { Nothing };
        add(host, get("/mcp/ROW", "").replacen("Host: localhost", host, 1), may);
    }
    let long = "a".repeat(100_000);
    add("a long target", get(&format!("/mcp/ROW/{long}"), "") + FURTHER, Nothing);
    add("a long method", get("/mcp/ROW", "").replacen("GET", &long, 1) + FURTHER, Nothing);
    add("an old version", get("/mcp/ROW", "").replacen("HTTP/1.1", "HTTP/1.0", 1) + FURTHER, First);
    add("line ends of one byte", get("/mcp/ROW", "").replace("\r\n", "\n") + FURTHER, Each);
    add("mixed line ends", get("/mcp/ROW", "X: 1\nX-Auth-User: root\n\r\n") + FURTHER, Each);
    add("empty lines first", "\r\n\r\n".to_owned() + &get("/mcp/ROW", "") + FURTHER, Each);
    attacks
}
