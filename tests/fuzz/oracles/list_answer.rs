//! A list in an answer: what is left of it is wanted and was there, and everything else is as it was.

use patgate::mcp::{Item, Lists};
use serde_json::Value;

const LISTS: [(&str, &str); 4] =
    [("tools", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate"), ("prompts", "name")];

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lists = Lists::new(|item: &Item<'_>| match item {
        Item::Tool { name, .. } | Item::Resource(name) | Item::Template(name) | Item::Prompt(name) => is_wanted(name),
    });
    let Ok(filtered) = lists.filter(text) else { return };
    let Ok(before) = serde_json::from_str::<Value>(text) else { return };
    let after = match &filtered {
        Some(filtered) => serde_json::from_str(filtered).expect("what is left is JSON"),
        None => before.clone(),
    };
    let each = |value: &Value| match value {
        Value::Array(messages) => messages.clone(),
        message => vec![message.clone()],
    };
    let (before, after) = (each(&before), each(&after));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.into_iter().zip(after) {
        compare(before, after);
    }
}

fn is_wanted(name: &str) -> bool {
    name.bytes().fold(0_u8, u8::wrapping_add) % 2 == 0
}

fn compare(mut before: Value, mut after: Value) {
    if let (Some(before), Some(after)) = (before.get_mut("result"), after.get_mut("result")) {
        for (list, key) in LISTS {
            let Some(left) = after.get(list).and_then(Value::as_array) else { continue };
            let all = before[list].as_array().expect("a list is made of a list");
            let mut rest = all.iter();
            for item in left {
                assert!(rest.any(|candidate| candidate == item), "an item that was not there, or in another order");
                assert!(item[key].as_str().is_some_and(is_wanted), "an item that is not wanted: {item}");
            }
            for part in [&mut *before, &mut *after] {
                part[list] = Value::Null;
                part.as_object_mut().unwrap().remove("cacheScope");
            }
        }
    }
    assert_eq!(before, after, "something else was changed");
}
