//! What an HTTP source says: a list in JSON, or refused.

use std::path::Path;

use patgate::token::TokenList;

pub fn check(data: &[u8]) {
    match TokenList::parse_json(Path::new("http://source/"), data) {
        Ok(list) => {
            let json: serde_json::Value = serde_json::from_slice(data).expect("what was read is JSON");
            let written = json["tokens"].as_array().expect("there is a list of tokens");
            let written = written.iter().filter(|token| !token.is_null()).count();
            assert_eq!(list.tokens.len(), written, "tokens were lost or made up");
            super::token_file::judge(&list);
        }
        Err(problems) => assert!(!problems.0.is_empty(), "refused without a reason"),
    }
}
