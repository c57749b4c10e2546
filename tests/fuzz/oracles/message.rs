//! A body of JSON-RPC: what is read of it is what two other parsers read.

use patgate::mcp::{Body, Kind, Message};
use serde_json::Value;
use tinyjson::JsonValue;

pub fn check(data: &[u8]) {
    let Ok(body) = Body::read(data) else { return };
    let text = str::from_utf8(data).expect("what was read is UTF-8");
    match serde_json::from_str::<Value>(text) {
        Ok(value) => {
            let values = if body.is_batch { value.as_array().unwrap().clone() } else { vec![value] };
            assert_eq!(values.len(), body.messages.len());
            for (message, value) in body.messages.iter().zip(&values) {
                assert_eq!(message.kind != Kind::Response, value["method"].is_string());
                assert_eq!(message.kind == Kind::Request, value["method"].is_string() && value.get("id").is_some());
                let params = &value["params"];
                subscribes(message, &params["notifications"]["resourceSubscriptions"]);
                agree(message, value["method"].as_str(), |key| params[key].as_str(), |key| params["ref"][key].as_str());
            }
        }
        // it makes texts and numbers of all values, and there are halves of surrogate pairs that stand for none
        Err(error) => {
            let unrepresentable = text.contains("\\u") || error.to_string().contains("out of range");
            assert!(unrepresentable, "what was read is no JSON: {error}");
        }
    }
    if let Ok(value) = text.parse::<JsonValue>() {
        let values = match value {
            JsonValue::Array(values) => values,
            value => vec![value],
        };
        assert_eq!(values.len(), body.messages.len());
        for (message, value) in body.messages.iter().zip(&values) {
            let params = member(value, "params");
            let reference = params.and_then(|params| member(params, "ref"));
            let text = |of: Option<&'_ JsonValue>, key| of.and_then(|of| member(of, key)?.get::<String>().cloned());
            let (method, named, referred) = (text(Some(value), "method"), ["name", "uri", "taskId"], ["name", "uri"]);
            let named = named.map(|key| (key, text(params, key)));
            let referred = referred.map(|key| (key, text(reference, key)));
            let look = |texts: &[(&str, Option<String>)], key: &str| {
                texts.iter().find(|(name, _)| *name == key).and_then(|(_, text)| text.clone())
            };
            let (named, referred) = (|key: &str| look(&named, key), |key: &str| look(&referred, key));
            agree(message, method.as_deref(), named, referred);
        }
    } else {
        assert!(text.contains("\\u"), "what was read is no JSON for another parser");
    }
}

/// Whether a message subscribes to the resources that the member has, in any order.
fn subscribes(message: &Message<'_>, member: &Value) {
    let listens = message.method == "subscriptions/listen";
    let uris = member.as_array().filter(|_| listens).into_iter().flatten();
    assert!(uris.map(|uri| uri.as_str().expect("each is a text")).eq(message.subscriptions.iter()));
}

/// Whether a message says what the members say.
fn agree<T: AsRef<str>>(
    message: &Message<'_>,
    method: Option<&str>,
    named: impl Fn(&str) -> Option<T>,
    referred: impl Fn(&str) -> Option<T>,
) {
    assert_eq!(message.method, method.unwrap_or_default());
    let name = message.name.as_deref();
    let is = |value: Option<T>| value.as_ref().map(AsRef::as_ref) == name;
    match &*message.method {
        "tools/call" | "prompts/get" => assert!(name.is_some() && is(named("name"))),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            assert!(name.is_some() && is(named("uri")));
        }
        _ if name.is_some() => {
            let members = ["name", "uri", "taskId"];
            assert!(members.iter().any(|key| is(named(key)) || is(referred(key))), "a name that nobody sent");
        }
        _ => {}
    }
}

fn member<'v>(value: &'v JsonValue, key: &str) -> Option<&'v JsonValue> {
    match value {
        JsonValue::Object(members) => members.get(key),
        _ => None,
    }
}
