//! What a token is: the secret, its digest, and the list that says whom each digest stands for.

mod digest;
mod lifetime;
mod list;
mod parts;
mod plaintext;
mod read;
mod rules;
mod uri;
mod value;

pub use digest::{BcryptHash, BuildDigestHasher, DigestError, TokenDigest, TokenHash};
pub use lifetime::{Lifetime, LifetimeError};
pub use list::{Role, Scope, Status, TokenId, TokenList, TokenRecord, User};
pub use plaintext::{Checksum, Minted, Prefix, Token};
pub use rules::{Name, NameRules, Pattern};
pub use uri::Uri;
pub use value::{HOLDS_A_TOKEN, PREFIX_LENGTH, email, plain_text, role_name, token_name, token_prefix, user_id};
