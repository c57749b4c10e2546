//! Tokens that are dead whatever any source says: the quickest way to stop one, and the only one
//! while the source is down.

use std::collections::HashSet;
use std::path::Path;

use crate::document::{Problem, Problems};
use crate::token::{TokenDigest, TokenId};

/// Ids and digests of denied tokens.
#[derive(Debug, Default)]
pub struct DenyList {
    ids: HashSet<TokenId>,
    digests: HashSet<TokenDigest>,
}

impl DenyList {
    /// Reads a deny list: a token id or `sha256:…` a line; what follows a `#` is a remark.
    ///
    /// # Errors
    /// Every line that is neither, with its number.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let mut list = Self::default();
        let mut problems = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let added = if line.contains(':') {
                line.parse().map(|digest| list.digests.insert(digest)).map_err(|why| format!("{why}"))
            } else {
                TokenId::parse(line).map(|id| list.ids.insert(id))
            };
            if let Err(message) = added {
                let position = Some((index + 1, 1));
                problems.push(Problem { position, ..Problem::in_file(file, message) });
            }
        }
        if problems.is_empty() { Ok(list) } else { Err(Problems(problems)) }
    }

    pub(super) fn has_id(&self, id: &TokenId) -> bool {
        !self.ids.is_empty() && self.ids.contains(id)
    }

    pub(super) fn has_digest(&self, digest: &TokenDigest) -> bool {
        !self.digests.is_empty() && self.digests.contains(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_digests_and_remarks() {
        let digest = TokenDigest::of("leaked");
        let text = format!("# leaked on Monday\nk3V9mQ2xTa # laptop\n\n{digest}\n");
        let list = DenyList::parse(Path::new("revoked.txt"), &text).unwrap();
        assert!(list.has_id(&TokenId::parse("k3V9mQ2xTa").unwrap()) && list.has_digest(&digest));
        assert!(!list.has_digest(&TokenDigest::of("another")));
    }

    #[test]
    fn a_line_that_is_neither_is_named_and_not_repeated() {
        let problems = DenyList::parse(Path::new("revoked.txt"), "ok\nmcp_pat_a secret\nsha256:12\n").unwrap_err();
        let text = problems.to_string();
        assert!(
            text.contains("revoked.txt:2:1:") && text.contains("revoked.txt:3:1:") && !text.contains("secret"),
            "{text}"
        );
    }
}
