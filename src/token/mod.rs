//! What a token is: the secret, its digest, and the list that says whom each digest stands for.

mod digest;
mod lifetime;
mod list;
mod plaintext;

pub use digest::{BcryptHash, BuildDigestHasher, DigestError, TokenDigest, TokenHash};
pub use lifetime::{Lifetime, LifetimeError};
pub use list::{PREFIX_LENGTH, Role, Scope, Status, TokenId, TokenList, TokenRecord, User};
pub use plaintext::{Checksum, Minted, Prefix, Token};
