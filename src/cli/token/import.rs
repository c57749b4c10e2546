//! `patgate token import`

use clap::Args;

use super::record::{NewRecord, check_holder, end_of_life};
use super::secret;
use crate::access::{Credential, Policy};
use crate::cli::store::{Common, Snapshot, this_second};
use crate::cli::{Exit, print, words};
use crate::source::Section;
use crate::token::{
    Checksum, Lifetime, PREFIX_LENGTH, Scope, Token, TokenHash, TokenId, plain_text, token_prefix, user_id,
};

/// A beginning of a shorter token would be too much of it.
const LONG_ENOUGH_FOR_A_PREFIX: usize = 24;

#[derive(Args, Debug)]
pub(in crate::cli) struct Import {
    /// Whom the token stands for
    #[arg(long, value_name = "USER", value_parser = user_id)]
    user: String,
    /// What its owner calls it
    #[arg(long, value_name = "NAME", value_parser = plain_text)]
    name: String,
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
    /// How long it lives here, from now on [default: 90d, or tokens.max_lifetime if that is shorter]
    #[arg(long, value_name = "LIFETIME")]
    expires: Option<Lifetime>,
    /// What it may do at most; may be given several times [default: all that the user may]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = Scope::parse)]
    scopes: Vec<Scope>,
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
        let store = self.common.open()?;
        let now = this_second();
        let expires_at = end_of_life(self.expires, &store.policy, now)?;
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
            check_holder(before, &self.user)?;
            check_new(before, &id, &foreign.hash)?;
            let record = NewRecord {
                id: &id,
                hash: foreign.hash.to_string(),
                prefix: foreign.prefix,
                user: &self.user,
                name: Some(&self.name),
                scopes: (!self.scopes.is_empty()).then(|| self.scopes.iter().map(Scope::as_str).collect()),
                tools: None,
                created_at: now,
                expires_at,
            };
            draft.add(Section::Tokens, &[record.fields()]);
            Ok(())
        })?;
        let facts = after.token(id.as_str())?;
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
