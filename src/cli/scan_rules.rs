//! `patgate scan-rules`: what a secret scanner needs in order to find tokens that were minted here.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Exit, print};
use crate::config::{DEFAULT_TOKEN_FILE, Overrides, TokenSettings};
use crate::token::Prefix;

/// What can be said about the rules.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The scanner they are for
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// The configuration file, for tokens.prefix
    #[arg(long, value_name = "FILE", env = "PATGATE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A configuration file of gitleaks (TOML)
    Gitleaks,
    /// A configuration file of TruffleHog 3 (YAML)
    Trufflehog,
    /// The fields of a custom pattern of GitHub's secret scanning
    Github,
}

/// Bits a character. A minted token has more than 4.4 (the least of 300,000), what is made up for an example has less.
const ENTROPY: &str = "3.5";

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    // the file is not read: only the prefix is asked for, wherever tokens come from
    let tokens = Some(DEFAULT_TOKEN_FILE.to_owned());
    let overrides = Overrides { config: arguments.config.clone(), tokens, ..Overrides::default() };
    let settings = TokenSettings::load(&overrides)?;
    print::answer(rules(arguments.format, &settings.policy.prefix))
}

fn rules(format: Format, prefix: &Prefix) -> String {
    // letters, digits and `_` only, so it means itself in a regular expression
    let (prefix, pattern) = (prefix.as_str(), prefix.pattern());
    // these scanners compare in lower case
    let keyword = prefix.to_ascii_lowercase();
    match format {
        Format::Gitleaks => format!(
            r#"title = "Tokens made by patgate"

[extend]
useDefault = true

[[rules]]
id = "patgate-token"
description = "A personal access token made by patgate: revoke it"
regex = '''\b({pattern})\b'''
entropy = {ENTROPY}
keywords = ["{keyword}"]
"#
        ),
        Format::Trufflehog => format!(
            r"detectors:
  - name: patgate
    keywords:
      - {keyword}
    regex:
      token: '\b({pattern})\b'
    entropy: {ENTROPY}
"
        ),
        Format::Github => format!(
            r"Pattern name:   patgate token
Secret format:  {pattern}
Before secret:  \A|[^0-9A-Za-z_]
After secret:   \z|[^0-9A-Za-z_]
"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_in_every_rule_and_keywords_are_in_lower_case() {
        let prefix = Prefix::parse("Acme_").unwrap();
        for format in Format::value_variants() {
            let rules = rules(*format, &prefix);
            assert!(rules.contains("Acme_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}"), "{rules}");
        }
        assert!(rules(Format::Gitleaks, &prefix).contains("keywords = [\"acme_\"]"));
    }
}
