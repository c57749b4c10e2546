//! A token file: it is read as TOML or refused with a place, and what was read can be built and judged.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use patgate::access::{Directory, Generation, Policy};
use patgate::token::TokenList;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match TokenList::parse(Path::new("tokens.toml"), text) {
        Ok(list) => {
            let toml = text.parse::<toml::Table>().expect("what was read is TOML");
            let written = toml.get("tokens").map_or(0, |tokens| tokens.as_array().expect("a list").len());
            assert_eq!(list.tokens.len(), written, "tokens were lost or made up");
            judge(&list);
        }
        Err(problems) => assert!(!problems.0.is_empty(), "refused without a reason"),
    }
}

/// Every token of the list is in the directory that is built from it, once.
pub fn judge(list: &TokenList) {
    let directory = Directory::new(list, &Arc::<Policy>::default(), Generation(1), "fuzz");
    assert_eq!(directory.judged(Timestamp::UNIX_EPOCH).count(), list.tokens.len());
}
