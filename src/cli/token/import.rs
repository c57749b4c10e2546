//! `patgate token import`

use clap::Args;

use super::record::{NewRecord, Terms, check_holder};
use super::secret;
use crate::access::{Credential, Policy};
use crate::cli::store::{Common, Snapshot, this_second};
use crate::cli::{Exit, print, words};
use crate::source::Section;
use crate::token::{Checksum, PREFIX_LENGTH, Token, TokenHash, TokenId, token_prefix};

/// A beginning of a shorter token would be too much of it.
const LONG_ENOUGH_FOR_A_PREFIX: usize = 24;

#[derive(Args, Debug)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    terms: Terms,
    /// Its hash: sha256:<64 hex> or '$2b$…' in single quotes [default: the token itself is read from
    /// standard input and hashed]
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
    /// The first 10 characters of the token; a bcrypt hash is found by them
    #[arg(long, value_name = "TEXT", requires = "hash")]
    prefix: Option<String>,
    /// Its public id [default: the one in a token of our form, else a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What is known of the token itself.
struct Foreign {
    hash: TokenHash,
    prefix: Option<String>,
    id: Option<TokenId>,
}

impl Import {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.terms.open(&self.common)?;
        store.refuse_tokens([("--id", self.id.as_ref())])?;
        let now = this_second();
        let expires_at = self.terms.end_of_life(&store.policy, now)?;
        let tools = self.terms.tools();
        let asked = self.id.as_deref().map(TokenId::parse).transpose();
        let asked = asked.map_err(|why| Exit::usage(format!("--id: {why}")))?;
        let foreign = match &self.hash {
            Some(hash) => self.hashed(hash)?,
            None => of_token(&secret::read()?, &store.policy)?,
        };
        let id = match asked.or(foreign.id) {
            Some(id) => id,
            None => TokenId::random().map_err(Exit::no_random_numbers)?,
        };
        let ((), after) = store.edit(|before, draft| {
            check_holder(before, &self.terms.user)?;
            check_new(before, &id, &foreign.hash)?;
            let record = NewRecord {
                prefix: foreign.prefix,
                expires_at,
                ..self.terms.record(&id, foreign.hash.to_string(), tools.as_ref(), now)
            };
            draft.add(Section::Tokens, &[record.fields()]);
            Ok(())
        })?;
        let facts = after.token(id.as_str())?;
        self.terms.remark_on_scopes(&after, &store.policy);
        if self.common.json {
            print::json(&facts)?;
        } else {
            print::answer(format_args!("{id}\n"))?;
        }
        print::remark(format_args!(
            "token {id} of {} is in {}; it {} here",
            facts.user,
            store.file.display(),
            words::expires(expires_at, now)
        ));
        Ok(())
    }

    /// Neither value is repeated in a message, for either may be a token in the wrong place.
    fn hashed(&self, hash: &str) -> Result<Foreign, Exit> {
        let hash: TokenHash = hash.parse().map_err(|why| Exit::usage(format!("--hash: {why}")))?;
        let prefix = self.prefix.as_deref().map(token_prefix).transpose();
        let prefix = prefix.map_err(|why| Exit::usage(format!("--prefix: {why}")))?;
        if matches!(hash, TokenHash::Bcrypt(_)) && prefix.is_none() {
            return Err(Exit::usage(format!(
                "--prefix: a bcrypt hash cannot be looked up, so give the token's first {PREFIX_LENGTH} characters"
            )));
        }
        Ok(Foreign { hash, prefix, id: None })
    }
}

fn of_token(token: &Token, policy: &Policy) -> Result<Foreign, Exit> {
    let headers = secret::headers(token);
    if headers.is_none_or(|headers| Credential::from_headers(&headers).is_err()) {
        return Err(Exit::failure(
            "no client can send this as a bearer token: it may have letters, digits and -._~+/ only, \
             with = at its end, and 4096 characters at most",
        ));
    }
    if policy.prefix.check(token.expose()) == Checksum::Bad {
        return Err(Exit::failure(format!(
            "the token begins with `{}` as if it were minted here, and its checksum is wrong: it was cut or \
             mistyped, and would be refused",
            policy.prefix.as_str()
        )));
    }
    let prefix = token.expose().get(..PREFIX_LENGTH).filter(|_| token.expose().len() >= LONG_ENOUGH_FOR_A_PREFIX);
    Ok(Foreign {
        hash: TokenHash::Sha256(token.digest()),
        prefix: prefix.map(str::to_owned),
        id: policy.prefix.id_in(token.expose()),
    })
}

fn check_new(before: &Snapshot<'_>, id: &TokenId, hash: &TokenHash) -> Result<(), Exit> {
    let tokens = &before.list.tokens;
    if let Some(twin) = tokens.iter().find(|record| record.hash == *hash) {
        return Err(Exit::failure(format!("this token is in the list already: its id is {}", twin.id)));
    }
    if tokens.iter().any(|record| record.id == *id) {
        return Err(Exit::failure(format!("the id `{id}` is taken: give another one by --id")));
    }
    Ok(())
}
