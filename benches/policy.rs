//! What a policy costs: reading and judging a call, and taking tools out of a list.
//!
//! `cargo bench --bench policy`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use patgate::access::{CallPolicy, Credential, Directory, Finding, Generation, Narrowing, Permit, Policy, ScopeRules};
use patgate::mcp::{Body, Call, Item, Lists, headers};
use patgate::token::{NameRules, Pattern, Scope, TokenDigest, TokenList};

fn main() {
    divan::main();
}

/// A call of 1 KiB: some short members and one long text, as tools for files and searches get them.
fn call() -> String {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 17, "method": "tools/call",
        "params": {"name": "get_file", "arguments": {"path": "/src/main.rs", "limit": 20, "text": text}},
    });
    let body = body.to_string();
    assert!((950..1100).contains(&body.len()), "{}", body.len());
    body
}

/// A list of 1,000 tools with a schema each, about half a kilobyte a tool.
fn tools() -> String {
    let tools: Vec<_> = (0..1000)
        .map(|number| {
            let verb = ["get", "set", "list", "drop"][number % 4];
            serde_json::json!({
                "name": format!("{verb}_thing_{number}"),
                "description": "Does something with a thing. Give the id of the thing, and how many of its parts are wanted.",
                "inputSchema": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string", "description": "The id of the thing"},
                        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
                    },
                    "required": ["id"],
                },
                "annotations": {"readOnlyHint": number % 2 == 0},
            })
        })
        .collect();
    serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "nextCursor": "c"}}).to_string()
}

fn rules(allow: &[&str], deny: &[&str]) -> NameRules {
    let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    NameRules { allow: Some(patterns(allow)), deny: patterns(deny) }
}

/// A permit of a token with two scopes, under a policy of four.
fn permit() -> Permit {
    let read = ScopeRules { tools: rules(&["search", "get_*", "list_*"], &["*_secret"]), ..ScopeRules::default() };
    let write = ScopeRules { tools: rules(&["set_*", "drop_*"], &[]), ..ScopeRules::default() };
    let scopes = ["mcp:read", "mcp:more", "mcp:write", "mcp:admin"].into_iter().zip([&read, &read, &write, &write]);
    let scopes = scopes.map(|(name, rules)| (Scope::parse(name).unwrap(), Arc::new(rules.clone()))).collect();
    let calls = Some(Arc::new(CallPolicy { scopes, ..CallPolicy::default() }));
    let hash = TokenDigest::of("opaque");
    let text =
        format!("[[tokens]]\nid = \"a\"\nhash = \"{hash}\"\nuser = \"alice\"\nscopes = [\"mcp:read\", \"mcp:more\"]\n");
    let list = TokenList::parse(Path::new("bench"), &text).unwrap();
    let directory = Directory::new(&list, &Arc::new(Policy { calls, ..Policy::default() }), Generation(1), "bench");
    let headers: HeaderMap = [(AUTHORIZATION, "Bearer opaque".parse().unwrap())].into_iter().collect();
    let credential = Credential::from_headers(&headers).unwrap();
    directory.authenticate(&credential, &Finding::Nobody, Timestamp::now()).unwrap()
}

/// Without a policy, all that is done for access: the question whether there is one.
#[divan::bench]
fn no_policy(bencher: Bencher) {
    let list = TokenList::parse(
        Path::new("bench"),
        &format!("[[tokens]]\nid = \"a\"\nhash = \"{}\"\nuser = \"alice\"\n", TokenDigest::of("opaque")),
    )
    .unwrap();
    let directory = Directory::new(&list, &Arc::default(), Generation(1), "bench");
    let headers: HeaderMap = [(AUTHORIZATION, "Bearer opaque".parse().unwrap())].into_iter().collect();
    let permit = directory
        .authenticate(&Credential::from_headers(&headers).unwrap(), &Finding::Nobody, Timestamp::now())
        .unwrap();
    bencher.bench_local(|| black_box(permit.grant().calls()).is_none());
}

/// Reading the body of a call.
#[divan::bench]
fn read_a_call(bencher: Bencher) {
    let body = call();
    bencher.counter(BytesCount::of_str(&*body)).bench_local(|| black_box(Body::read(body.as_bytes())).unwrap());
}

/// Reading it, comparing the headers with it and judging it: all that a policy adds to a call.
#[divan::bench]
fn read_and_judge_a_call(bencher: Bencher) {
    let (body, permit) = (call(), permit());
    let map: HeaderMap = [("mcp-method", "tools/call"), ("mcp-name", "get_file")]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect();
    bencher.counter(BytesCount::of_str(&*body)).bench_local(|| {
        let body = Body::read(body.as_bytes()).unwrap();
        headers::check(&map, &body).unwrap();
        let narrowing = Narrowing::from_headers(&map).unwrap();
        let call = body.messages[0].call().unwrap();
        black_box(permit.grant().calls().unwrap().decide(call, &narrowing, |_| false)).unwrap();
    });
}

/// A call that is denied, with the rule that denies it.
#[divan::bench]
fn deny_a_call(bencher: Bencher) {
    let permit = permit();
    let narrowing = Narrowing::default();
    bencher.bench_local(|| {
        let calls = permit.grant().calls().unwrap();
        black_box(calls.decide(Call::Tool("drop_table"), &narrowing, |_| false)).unwrap_err().to_string()
    });
}

/// Taking half of 1,000 tools out of a list.
#[divan::bench]
fn filter_1000_tools(bencher: Bencher) {
    let (text, permit) = (tools(), permit());
    let narrowing = Narrowing::default();
    bencher.counter(BytesCount::of_str(&*text)).bench_local(|| {
        let calls = permit.grant().calls().unwrap();
        let mut lists = Lists::new(|item: &Item<'_>| match item {
            Item::Tool { name, read_only } => calls.decide(Call::Tool(name), &narrowing, |_| *read_only).is_ok(),
            _ => false,
        });
        black_box(lists.filter(&text)).unwrap().unwrap().len()
    });
}
