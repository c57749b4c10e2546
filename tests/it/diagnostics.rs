//! Standard error: as much as the operator asks for, in the form that he asks for, and no secret at any level.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::Request;

use crate::harness::{Folder, Origin, Proxy, get};
use crate::http2::Client;
use crate::stage::{Line, staged};

#[test]
fn the_level_is_set_by_flag_environment_or_file_and_mistakes_are_named() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    folder.configure("http://127.0.0.1:9", "log_level = \"inof\"");
    for (arguments, variables, place) in [
        (&["--log-level", "patgate=loud"][..], &[][..], "--log-level, PATGATE_LOG_LEVEL"),
        (&["--log-format", "xml"], &[("PATGATE_LOG_LEVEL", "info")], "--log-format, PATGATE_LOG_FORMAT"),
        (&[], &[("PATGATE_LOG_LEVEL", "everything")], "--log-level, PATGATE_LOG_LEVEL"),
        (&[], &[], "patgate.toml:4:13: log_level: `inof` is not a level: write error, warn, info"),
    ] {
        let output = folder.run_with(&[&["check", "--config", "patgate.toml"], arguments].concat(), variables);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(place), "{said}");
    }
    // the higher one counts, and the one below it does not matter
    folder.configure("http://127.0.0.1:9", "log_level = \"off\"");
    let proxy = folder.serve_with(&["--log-level", "info"], &[("PATGATE_LOG_LEVEL", "off")]);
    assert!(proxy.log().iter().any(|event| event["message"] == "listening"));
}

#[test]
fn the_form_is_for_programs_unless_it_is_asked_for_people() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    folder.configure("http://127.0.0.1:9", "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let said = |format: &str| {
        let arguments = ["serve", "--config", "patgate.toml", "--admin", &taken, "--log-format", format];
        String::from_utf8(folder.run(&arguments).stderr).unwrap()
    };
    for format in ["json", "auto"] {
        let said = said(format);
        let event: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        assert_eq!((&event["level"], &event["message"]), (&"INFO".into(), &"the token list is in force".into()));
        assert!(event["target"].as_str().unwrap().starts_with("patgate::"), "{event}");
    }
    let said = said("text");
    assert!(said.contains("INFO") && said.contains("the token list is in force") && !said.contains('{'), "{said}");
    assert!(!said.contains('\u{1b}'), "colours where there is no terminal: {said:?}");
}

#[test]
fn no_level_tells_a_secret_whatever_library_speaks() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let session = "a-session-that-opens-doors";
    folder.configure(&origin.url(), "");
    let mut proxy = folder.serve_with(&[], &[("PATGATE_LOG_LEVEL", "trace,h2=trace,hyper=trace,rustls=trace")]);
    let mut client = Client::to(&proxy);
    for _ in 0..2 {
        // twice, for the second time HPACK has them in its table
        let request = Request::get(proxy.url(&format!("/mcp?sessionId={session}")))
            .header("authorization", format!("Bearer {token}"))
            .header("mcp-session-id", session)
            .header("cookie", format!("session={session}"));
        assert_eq!(client.ask(request).0.status, 200);
    }
    assert_eq!(proxy.ask(&get(&token, &format!("Mcp-Session-Id: {session}\r\n"))).status, 200);
    reset_for_a_path(&proxy, &format!("/m cp?t={token}"));
    proxy.signal("TERM");
    proxy.await_log("stopped");
    let log: String = proxy.log().iter().map(ToString::to_string).collect();
    assert!(log.contains("listening"));
    let percent: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let debugged = format!("{:?}", token.as_bytes());
    let inner = &token[24..46];
    for secret in [inner, session, &percent[72..130], debugged.trim_matches(['[', ']'])] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
    for encoded in [STANDARD.encode(&token), URL_SAFE.encode(format!("x:{token}"))] {
        assert!(!log.contains(&encoded[32..56]), "{log}");
    }
}

/// Sends an HTTP/2 request for a path that is none, which must be answered by a reset.
fn reset_for_a_path(proxy: &Proxy, path: &str) {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // RFC 7541: GET and http from the static table, then a literal value for `:path`
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    let mut line = Line::to(&proxy.address);
    line.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    line.send([frame(4, 0, 0, &[]), frame(1, 5, 1, &block)].concat());
    loop {
        let head = line.bytes(9);
        line.bytes(usize::from(head[1]) << 8 | usize::from(head[2]));
        if head[3] == 3 {
            return;
        }
    }
}

#[test]
fn a_failure_is_told_once() {
    let (origin, _folder, token, mut proxy) = staged("");
    let play = |part: &dyn Fn(&mut Line)| {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, "Connection: close\r\n"));
        let mut upstream = origin.accept();
        upstream.request();
        part(&mut upstream);
        let head = client.answer_head();
        client.await_end();
        head.header("x-request-id").unwrap().to_owned()
    };
    let hang_up = |upstream: &mut Line| upstream.socket().shutdown(std::net::Shutdown::Both).unwrap();
    let before_the_head = play(&hang_up);
    let midway = play(&|upstream| {
        upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        hang_up(upstream);
    });
    proxy.await_log("a request failed");
    proxy.await_log("an answer broke off");
    for request in [before_the_head, midway] {
        let events = proxy.log().into_iter().filter(|event| event.to_string().contains(&request)).count();
        assert_eq!(events, 1, "{:?}", proxy.log());
    }
}
