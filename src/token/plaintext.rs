//! The secret itself: how it is minted, how its checksum is told, and nowhere else to be seen.
//!
//! A minted token reads `<prefix><id, 10 base62>_<secret, 32 base62><checksum, 6 base62>`. The
//! checksum is the CRC-32 (ISO-HDLC, the one of zlib) of all characters before it, written in
//! base62 with the digits `0-9A-Za-z`, most significant first, padded with `0` on the left. It
//! lets a scanner tell a token from noise, and lets the server refuse noise without a look-up.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::digest::TokenDigest;
use super::list::TokenId;
use crate::charset::Charset;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_LENGTH: usize = 10;
const SECRET_LENGTH: usize = 32;
const CHECKSUM_LENGTH: usize = 6;

/// A token in plain text. Its `Debug` is redacted, it has no `Display`, and it is wiped when dropped.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token that somebody sent or typed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret, for the one place that prints a new token and the ones that digest it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its SHA-256.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl TokenId {
    /// A new id of the form that minted tokens have, for a token that was made elsewhere.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        random_base62(ID_LENGTH).map(|text| Self::minted(&text))
    }
}

/// A new token and the id that it carries.
#[derive(Debug)]
pub struct Minted {
    /// The part that is not secret.
    pub id: TokenId,
    /// The whole token, to be shown once.
    pub token: Token,
}

/// What the checksum of a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Not of our making: no checksum to look at.
    Foreign,
    /// Ours and whole.
    Good,
    /// It has our prefix, and was cut, mistyped or made up.
    Bad,
}

/// The recognisable beginning of tokens minted here, such as `mcp_pat_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Reads a prefix: 2 to 32 letters, digits and `_`, the last of them `_`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        static OF_PREFIXES: Charset = Charset::alphanumeric_and(b"_");
        if (2..=32).contains(&text.len()) && text.ends_with('_') && OF_PREFIXES.holds(text) {
            Ok(Self(text.into()))
        } else {
            Err(format!("`{text}` cannot be a prefix: write 2 to 32 letters, digits and `_`, ending in `_`"))
        }
    }

    /// The prefix as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A regular expression that finds the tokens minted with this prefix, of parts that every engine has.
    pub fn pattern(&self) -> String {
        format!("{}[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{}}}", self.0, SECRET_LENGTH + CHECKSUM_LENGTH)
    }

    /// Makes a new token from the operating system's random numbers: 190 bits in the secret.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn mint(&self) -> Result<Minted, getrandom::Error> {
        let id = random_base62(ID_LENGTH)?;
        let secret = random_base62(SECRET_LENGTH)?;
        let body = Zeroizing::new(format!("{}{}_{}", self.0, *id, *secret));
        let token = Token::new(format!("{}{}", *body, checksum_of(&body)));
        Ok(Minted { id: TokenId::minted(&id), token })
    }

    /// Looks at the checksum of a token that has this prefix.
    pub fn check(&self, token: &str) -> Checksum {
        let Some(rest) = token.strip_prefix(&*self.0) else { return Checksum::Foreign };
        if is_whole(rest.as_bytes()) {
            // every character is ASCII, so every index is a boundary
            let (body, checksum) = token.split_at(token.len() - CHECKSUM_LENGTH);
            if checksum_of(body) == checksum {
                return Checksum::Good;
            }
        }
        Checksum::Bad
    }

    /// The id in a minted token that is whole.
    pub fn id_in(&self, token: &str) -> Option<TokenId> {
        let whole = self.check(token) == Checksum::Good;
        whole.then(|| TokenId::minted(&token[self.0.len()..self.0.len() + ID_LENGTH]))
    }
}

impl Prefix {
    /// The text with the secret of every token in it cut out, whole or cut off, written plainly or
    /// percent-encoded; the public id stays. Text without any is handed back as it is.
    pub fn mask<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        if text.len() < self.0.len() {
            return text;
        }
        if let Some(masked) = self.mask_plain(&text) {
            return masked.into();
        }
        let decoded = text.contains('%').then(|| percent_decode_str(&text).decode_utf8_lossy());
        let decoded = decoded.and_then(|plain| self.mask_plain(&plain));
        decoded.map_or(text, Cow::from)
    }

    /// The text as [`Self::mask`] has it if a whole token stands in it, and else as it is: what people call things may
    /// look like a token, and is none.
    pub fn mask_whole<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.is_in(text) { self.mask(text.into()) } else { text.into() }
    }

    /// Whether a whole token stands in a text, plainly or percent-encoded. Nothing else has its checksum.
    pub fn is_in(&self, text: &str) -> bool {
        let length = self.0.len() + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;
        let holds = |text: &str| {
            let mut parts = (length..=text.len()).filter_map(|end| text.get(end - length..end));
            parts.any(|part| self.check(part) == Checksum::Good)
        };
        holds(text) || (text.contains('%') && holds(&percent_decode_str(text).decode_utf8_lossy()))
    }

    fn mask_plain(&self, text: &str) -> Option<String> {
        let mut masked = String::new();
        let mut rest = text;
        while let Some(at) = memchr::memmem::find(rest.as_bytes(), self.0.as_bytes()) {
            let (before, token) = rest.split_at(at + self.0.len());
            let run = |text: &str| text.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let id = run(token);
            masked.push_str(before);
            rest = token;
            if id == ID_LENGTH && token.as_bytes().get(id) == Some(&b'_') {
                // another token may follow at once
                let next = memchr::memmem::find(&token.as_bytes()[id + 1..], self.0.as_bytes());
                let secret = run(&token[id + 1..]).min(next.unwrap_or(usize::MAX));
                masked.push_str(&token[..=id]);
                masked.push_str(if secret > 0 { "[masked]" } else { "" });
                rest = &token[id + 1 + secret..];
            }
        }
        if rest.len() == text.len() {
            return None;
        }
        masked.push_str(rest);
        (masked != text).then_some(masked)
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("mcp_pat_".into())
    }
}

/// Whether id, secret and checksum are there, in digits of base62.
fn is_whole(rest: &[u8]) -> bool {
    static DIGITS: Charset = Charset::alphanumeric_and(b"");
    let Some((id, [b'_', digits @ ..])) = rest.split_at_checked(ID_LENGTH) else { return false };
    digits.len() == SECRET_LENGTH + CHECKSUM_LENGTH && DIGITS.holds(id) && DIGITS.holds(digits)
}

fn checksum_of(body: &str) -> Base62<CHECKSUM_LENGTH> {
    let mut number = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[number % 62];
        number /= 62;
    }
    Base62(digits)
}

/// A few base62 digits that need no allocation.
struct Base62<const N: usize>([u8; N]);

impl<const N: usize> PartialEq<&str> for Base62<N> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl<const N: usize> fmt::Display for Base62<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

/// Uniform digits: a byte is taken when it is below 248 (four times 62), so none is likelier.
fn random_base62(length: usize) -> Result<Zeroizing<String>, getrandom::Error> {
    let mut text = Zeroizing::new(String::with_capacity(length));
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while text.len() < length {
        getrandom::fill(bytes.as_mut())?;
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let wanted = length - text.len();
        text.extend(fair.take(wanted).map(|byte| char::from(BASE62[usize::from(byte % 62)])));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same vectors stand in `docs/tokens.md`; another implementation can check itself by them.
    #[test]
    fn published_vectors() {
        for (body, checksum) in [
            ("mcp_pat_0000000000_00000000000000000000000000000000", "1rlWjb"),
            ("mcp_pat_k3V9mQ2xTa_0123456789ABCDEFGHIJKLMNOPQRSTUV", "3Cx6ye"),
            ("acme_zzzzzzzzzz_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "1zTxqR"),
        ] {
            assert_eq!(checksum_of(body).to_string(), checksum, "{body}");
            let prefix = Prefix::parse(&body[..body.len() - 43]).unwrap();
            assert_eq!(prefix.check(&format!("{body}{checksum}")), Checksum::Good);
        }
    }

    #[test]
    fn the_secret_is_not_in_debug() {
        let minted = Prefix::default().mint().unwrap();
        assert!(!format!("{minted:?}").contains(&minted.token.expose()[19..]));
    }

    #[test]
    fn secrets_in_text_are_masked_and_everything_else_stays() {
        let prefix = Prefix::default();
        let minted = prefix.mint().unwrap();
        let (token, id) = (minted.token.expose(), minted.id.as_str());
        let shown = format!("mcp_pat_{id}_[masked]");
        let encoded: String = token.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
        for (text, masked) in [
            (format!("/mcp/{token}/x"), format!("/mcp/{shown}/x")),
            (format!("{token}{token}"), format!("{shown}{shown}")),
            (format!("curl {} and {token}.", &token[..30]), format!("curl {shown} and {shown}.")),
            (format!("/mcp%2F{encoded}"), format!("/mcp/{shown}")),
            (token.replace('_', "%5F"), shown.clone()),
        ] {
            assert_eq!(prefix.mask(text.into()), masked);
        }
        for text in
            ["", "/mcp", "mcp_pat_", "mcp_pat_k3V9mQ2xTa", "mcp_pat_k3V9mQ2xTa_", "mcp_pat_short_secret", "%", "%zz%5"]
        {
            assert!(matches!(prefix.mask(text.into()), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn only_a_whole_token_is_found_in_a_text_wherever_it_stands() {
        let prefix = Prefix::parse("acme_").unwrap();
        let minted = prefix.mint().unwrap();
        let token = minted.token.expose();
        for text in [
            token.to_owned(),
            format!("é{token}é"),
            format!("acme_{token}0"),
            format!("acme_production_{token}"),
            token.replace('_', "%5F"),
        ] {
            assert!(prefix.is_in(&text), "{text}");
            assert!(!prefix.mask_whole(&text).contains(&token[16..]), "{text}");
        }
        let other = format!("{}x", &token[..token.len() - 1]);
        let other = if other == token { format!("{}y", &token[..token.len() - 1]) } else { other };
        for text in ["", "acme_", "acme_production_admin", &token[..token.len() - 1], &token[1..], &other] {
            assert!(!prefix.is_in(text) && prefix.mask_whole(text) == text, "{text}");
        }
    }

    #[test]
    fn prefixes_that_would_confuse_a_scanner_are_refused() {
        for text in ["", "_", "mcp", "mcp-pat_", "mcp pat_", "é_", "a_a_a_a_a_a_a_a_a_a_a_a_a_a_a_a_a_"] {
            assert!(Prefix::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_minted_is_good_and_any_changed_character_is_bad(at in 0_usize..49, with in "[0-9A-Za-z_~]") {
            let prefix = Prefix::default();
            let minted = prefix.mint().unwrap();
            let token = minted.token.expose();
            prop_assert_eq!(token.len(), 57);
            prop_assert_eq!(prefix.check(token), Checksum::Good);
            prop_assert_eq!(&token[8..18], minted.id.as_str());
            prop_assert_eq!(prefix.id_in(token), Some(minted.id.clone()));

            let mut changed = token.to_owned();
            changed.replace_range(8 + at..=8 + at, &with);
            prop_assume!(changed != token);
            prop_assert_eq!(prefix.check(&changed), Checksum::Bad);
            prop_assert_eq!(prefix.id_in(&changed), None);
            prop_assert_eq!(prefix.check(&token[..token.len() - 1]), Checksum::Bad);
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,80}") {
            let prefix = Prefix::default();
            prop_assert_ne!(prefix.check(&format!("mcp_pat_{text}")), Checksum::Foreign);
            prop_assert_ne!(prefix.check(&text), Checksum::Good);
        }
    }
}
