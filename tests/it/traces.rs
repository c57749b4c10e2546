//! The trace that a request belongs to (W3C Trace Context): it goes through, and is found in the audit log.

use crate::harness::{Folder, Origin, get};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What the upstream got, and its one value taken apart.
fn traceparent(origin: &Origin) -> Vec<String> {
    let received = origin.received();
    let values = received.last().unwrap().values("traceparent");
    let [value] = values[..] else { panic!("{values:?}") };
    value.split('-').map(str::to_owned).collect()
}

#[test]
fn a_trace_goes_through_with_a_span_of_its_own_and_into_the_record() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let sent = format!("TraceParent: 00-{TRACE}-{PARENT}-01\r\nTraceState: vendor=1\r\n");
    let answer = proxy.ask(&get(&token, &sent));
    let passed = traceparent(&origin);
    assert_eq!((passed[0].as_str(), passed[1].as_str(), passed[3].as_str()), ("00", TRACE, "01"));
    assert_ne!(passed[2], PARENT, "the hop is no span of its own");
    assert_eq!(origin.received()[0].values("tracestate"), ["vendor=1"]);
    let record = proxy.record_of(&answer);
    assert_eq!((&record["trace_id"], &record["span_id"]), (&TRACE.into(), &passed[2].as_str().into()));

    // what is said of one connection goes no further
    proxy.ask(&get(&token, &format!("{sent}Connection: close, TraceState\r\n")));
    assert_eq!((traceparent(&origin)[1].as_str(), origin.received()[1].values("tracestate")), (TRACE, vec![]));

    // refused requests are found by their trace as well
    let refused = proxy.ask(&get("unknown", &sent));
    assert_eq!(proxy.record_of(&refused)["trace_id"], TRACE);
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_trace_begins_here_where_there_is_none_or_one_that_cannot_be_read() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let good = format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n");
    for sent in [
        String::new(),
        good.replace("4bf9", "4BF9"),
        good.replace("00-", "ff-"),
        good.replace(TRACE, &"0".repeat(32)),
        good.replace("-00\r\n", "-00-more\r\n"),
        format!("{good}{good}"),
        "traceparent: \r\n".to_owned(),
    ] {
        let answer = proxy.ask(&get(&token, &format!("{sent}tracestate: vendor=1\r\n")));
        assert_eq!(answer.status, 200, "{sent}");
        let passed = traceparent(&origin);
        assert_eq!((passed[0].as_str(), passed[1].len(), passed[2].len(), passed[3].as_str()), ("00", 32, 16, "01"));
        assert!(!passed[1].eq_ignore_ascii_case(TRACE), "{sent}");
        assert!(origin.received().last().unwrap().values("tracestate").is_empty(), "{sent}");
        assert_eq!(proxy.record_of(&answer)["trace_id"], passed[1].as_str());
    }
}
