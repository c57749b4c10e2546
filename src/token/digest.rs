//! What is stored of a token instead of the token: its SHA-256, which can be looked up, or a bcrypt
//! string from an older system, which has to be tried.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::plaintext::Token;

/// SHA-256 of a token's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Digests a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// The 64 lower-case hexadecimal digits alone, as they stand in the address of a look-up.
    pub fn hex(&self) -> impl fmt::Display {
        Hex(self.0)
    }
}

struct Hex([u8; 32]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Written as in the token file: `sha256:` and 64 lower-case hexadecimal digits.
impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

/// A digest opens nothing, yet it identifies a token: logs show only its first two bytes.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// The hash in a token's record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenHash {
    /// Looked up.
    Sha256(TokenDigest),
    /// Tried, for tokens that begin with the record's prefix.
    Bcrypt(BcryptHash),
}

/// A bcrypt string: `$2a$`, `$2b$` or `$2y$`, the cost, salt and hash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BcryptHash(Box<str>);

/// Beyond this cost, one guess takes seconds.
const MAX_COST: u32 = 14;

impl BcryptHash {
    /// The string as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tries a token. It takes as long as the cost says, up to a second and more: not for a thread
    /// that others wait for. bcrypt reads 72 bytes, the last of them its own; a longer token never
    /// matches, for it would match with any ending.
    pub fn matches(&self, token: &Token) -> bool {
        bcrypt::non_truncating_verify(token.expose(), &self.0).unwrap_or(false)
    }
}

impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BcryptHash(…)")
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Bcrypt(hash) => f.write_str(&hash.0),
        }
    }
}

impl FromStr for TokenHash {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if !text.starts_with("$2") {
            return text.parse().map(Self::Sha256);
        }
        let mut parts = text.split('$').skip(1);
        let (version, cost, rest) = (parts.next(), parts.next(), parts.next());
        let known = matches!(version, Some("2a" | "2b" | "2y")) && parts.next().is_none();
        let whole = rest.is_some() && text.parse::<bcrypt::HashParts>().is_ok();
        match cost.filter(|cost| cost.len() == 2).and_then(|cost| cost.parse::<u32>().ok()) {
            Some(4..=MAX_COST) if known && whole => Ok(Self::Bcrypt(BcryptHash(text.into()))),
            Some(cost) if cost > MAX_COST => Err(DigestError::Cost(cost)),
            _ => Err(DigestError::Bcrypt),
        }
    }
}

/// Why a text is not a digest. It never repeats the text, which may be a token put in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Something else than `sha256:…`.
    #[error("not a hash that is known here: write `sha256:` and the 64 hexadecimal digits of the token's SHA-256")]
    Scheme,
    /// `sha256:` with too few or too many digits, or with other characters.
    #[error("{0} characters after `sha256:`: write exactly 64 hexadecimal digits")]
    Hex(usize),
    /// Something that begins like a bcrypt string.
    #[error(
        "not a whole bcrypt string: write `$2b$`, two digits of cost, `$` and 53 characters, as the older system has it"
    )]
    Bcrypt,
    /// A bcrypt string that takes too long to try.
    #[error("a bcrypt cost of {0}: costs above 14 take seconds a guess; mint a new token instead")]
    Cost(u32),
}

impl FromStr for TokenDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(DigestError::Scheme)?;
        let wrong = DigestError::Hex(hex.chars().count());
        let mut digest = [0; 32];
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(wrong);
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = hex_value(*high).zip(hex_value(*low)).map(|(high, low)| high << 4 | low).ok_or(wrong)?;
        }
        Ok(Self(digest))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

// --- Hashing --------------------------------------------------------------------------------

/// Takes eight bytes of a digest as they are: SHA-256 is uniform, so hashing it again buys nothing.
///
/// An attacker cannot aim at a bucket, for that takes tokens whose SHA-256 is chosen, and only
/// digests in the operator's list are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct DigestHasher(u64);

/// Builds `DigestHasher`s for a hash table keyed by [`TokenDigest`].
pub type BuildDigestHasher = BuildHasherDefault<DigestHasher>;

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    /// The length that an array writes before its elements says nothing here.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_answer() {
        // the one-block test vector of FIPS 180-4
        assert_eq!(
            TokenDigest::of("abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_token_in_the_place_of_its_hash_is_not_repeated() {
        let error = "mcp_pat_secret".parse::<TokenDigest>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
        assert_eq!("sha256:é".parse::<TokenDigest>(), Err(DigestError::Hex(1)));
    }

    #[test]
    fn bcrypt_strings_of_every_age() {
        // the unused bits at the end of salt and hash are zero, as every implementation writes them
        let rest = "./ABCDEFGHIJKLMNOPQRSeVWXYZabcdefghijklmnopqrstuvwxyu";
        for version in ["2a", "2b", "2y"] {
            let text = format!("${version}$10${rest}");
            assert_eq!(text.parse::<TokenHash>().unwrap().to_string(), text);
        }
        for (text, error) in [
            (format!("$2x$10${rest}"), DigestError::Bcrypt),
            (format!("$2b$10${}", &rest[1..]), DigestError::Bcrypt),
            (format!("$2b$10${}/", &rest[..52]), DigestError::Bcrypt),
            (format!("$2b$10${}é", &rest[2..]), DigestError::Bcrypt),
            (format!("$2b$1${rest}"), DigestError::Bcrypt),
            (format!("$2b$31${rest}"), DigestError::Cost(31)),
            (format!("$2b$10${rest}$"), DigestError::Bcrypt),
            ("$2".to_owned(), DigestError::Bcrypt),
            ("md5:x".to_owned(), DigestError::Scheme),
        ] {
            assert_eq!(text.parse::<TokenHash>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_bcrypt_string_of_any_age_matches_its_token_and_no_longer_one() {
        // made by another implementation for the same password and salt
        let hash = |version: &str, rest: &str| match format!("${version}$04${rest}").parse() {
            Ok(TokenHash::Bcrypt(hash)) => hash,
            other => panic!("{other:?}"),
        };
        for version in ["2a", "2b", "2y"] {
            let hash = hash(version, "abcdefghijklmnopqrstuu2q9rjvH9QnSVhGiBsQZZPJNofEVbZ6i");
            assert!(hash.matches(&Token::new("legacy_pat_0123456789")), "{version}");
            assert!(!hash.matches(&Token::new("legacy_pat_012345678")), "{version}");
        }
        // bcrypt itself sees no difference between these two
        let long = hash("2b", "abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe");
        assert!(!long.matches(&Token::new("a".repeat(72))));
        assert!(!long.matches(&Token::new("a".repeat(73))));
        assert!(
            hash("2b", "abcdefghijklmnopqrstuuMCu.k1vM/ywQwiONaEn3oEMlZoCVBd6").matches(&Token::new("a".repeat(71)))
        );
    }

    proptest! {
        #[test]
        fn text_and_digest_are_one_to_one(token in ".*") {
            let digest = TokenDigest::of(&token);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(digest.to_string().to_uppercase().replace("SHA256", "sha256").parse(), Ok(digest));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = (text.parse::<TokenDigest>(), format!("$2b${text}").parse::<TokenHash>());
            let _ = format!("sha256:{text}").parse::<TokenDigest>();
        }
    }
}
