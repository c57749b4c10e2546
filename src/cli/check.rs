//! `patgate check`: every mistake of the configuration and the token file, and nothing started.

use super::Exit;
use crate::config::{Config, Overrides};
use crate::document::Problems;
use crate::source::FileSource;

pub(super) fn run(overrides: &Overrides) -> Result<(), Exit> {
    let config = match Config::load(overrides) {
        Ok(config) => config,
        Err(mut problems) => {
            // the token file may be wrong as well, and can be judged if it can be found
            if let Ok((params, policy)) = Config::load_source(overrides)
                && let Err(Problems(more)) = FileSource::open(params, policy)
            {
                problems.0.extend(more);
            }
            return Err(problems.into());
        }
    };
    let source = FileSource::open(config.source.clone(), config.policy.clone())?;
    let tokens = source.published().directory.load().token_count().unwrap_or_default();
    anstream::println!(
        "the configuration is valid: {} in front of {}, {tokens} tokens in {}",
        config.server.listen,
        config.proxy.upstream.address,
        config.source.path.display()
    );
    Ok(())
}
