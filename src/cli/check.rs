//! `patgate check`: every mistake of the configuration and the token file, and nothing started.

use super::{Exit, print};
use crate::access::Policy;
use crate::config::{Config, Overrides};
use crate::document::Problems;
use crate::source::{self, Origin, Params, Source};
use crate::watch;

pub(super) fn run(overrides: &Overrides) -> Result<(), Exit> {
    let config = match Config::load(overrides) {
        Ok(config) => config,
        Err(mut problems) => {
            // the token file may be wrong as well, and can be judged if it can be found
            if let Ok((params, policy)) = Config::load_source(overrides)
                && let Err(Problems(more)) = open(&params, &policy)
            {
                problems.0.extend(more);
            }
            return Err(problems.into());
        }
    };
    let source = open(&config.source, &config.policy)?;
    let directory = source.published().directory.load_full();
    for grant in directory.overlong() {
        print::remark(format_args!(
            "warning: token `{}` is dead: it was made for longer than tokens.max_lifetime",
            grant.token_id()
        ));
    }
    let tokens = match &config.source.origin {
        Origin::File(path) => {
            for problem in source::exposed(&watch::read(path)?) {
                print::remark(format_args!("warning: {problem}"));
            }
            format!("{} tokens in {}", directory.grants().count(), path.display())
        }
        // nothing is asked over the network to check a file
        elsewhere => format!("tokens from {elsewhere}"),
    };
    print::answer(format_args!(
        "the configuration is valid: {} in front of {}, {tokens}\n",
        config.server.listen, config.proxy.upstream.address
    ))
}

/// Opens the source, if all that is needed to ask it is there, too. The server waits for that.
fn open(params: &Params, policy: &Policy) -> Result<Source, Problems> {
    match (Source::open(params, policy), params.origin.missing_bearer_file()) {
        (opened, None) => opened,
        (opened, Some(missing)) => {
            let others = opened.err().unwrap_or_default();
            Err(Problems(others.0.into_iter().chain([missing]).collect()))
        }
    }
}
