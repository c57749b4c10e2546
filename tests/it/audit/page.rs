//! The page about the audit log, held to the program.

const PAGE: &str = include_str!("../../../docs/audit.md");
const WORDS: &str = include_str!("../../../src/verdict.rs");
const RECORD: &str = include_str!("../../../src/audit/record.rs");

#[test]
fn the_page_names_every_word_of_a_verdict_and_every_event() {
    let events = RECORD.split("pub enum Event {").nth(1).unwrap().split('}').next().unwrap();
    let lines = WORDS.lines().chain(events.lines());
    let variants = lines.filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
    let variants: Vec<_> = variants.filter(|name| name.chars().all(char::is_alphanumeric)).collect();
    assert!(variants.len() > 35, "{variants:?}");
    for variant in variants {
        let word = variant.chars().fold(String::new(), |word, char| match char {
            'A'..='Z' if !word.is_empty() => format!("{word}_{}", char.to_ascii_lowercase()),
            _ => format!("{word}{}", char.to_ascii_lowercase()),
        });
        assert!(PAGE.contains(&format!("`{word}`")), "{word} is not explained");
    }
}

#[test]
fn the_page_names_every_key_of_a_record() {
    let keys = RECORD.split("key!(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).chain(["ts"]);
    let mut found = 0;
    for key in keys {
        found += 1;
        assert!(PAGE.contains(&format!("`{key}`")), "{key} is not explained");
    }
    assert!(found > 30, "{found}");
}
