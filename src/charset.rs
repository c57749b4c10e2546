//! Sets of ASCII characters, as grammars name them. Several are asked about for each request, so that a look into
//! a table takes the place of comparisons.

/// A set of ASCII characters.
#[derive(Debug)]
pub struct Charset([bool; 256]);

impl Charset {
    /// Letters, digits and `others`.
    pub const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0_u8;
        while byte.is_ascii() {
            set[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut index = 0;
        while index < others.len() {
            assert!(others[index].is_ascii());
            set[others[index] as usize] = true;
            index += 1;
        }
        Self(set)
    }

    /// Whether there is no other character in a text.
    pub fn holds(&self, text: impl AsRef<[u8]>) -> bool {
        text.as_ref().iter().all(|byte| self.0[usize::from(*byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_letters_digits_and_what_is_named_and_nothing_else() {
        static SET: Charset = Charset::alphanumeric_and(b"-_");
        for byte in 0..=u8::MAX {
            assert_eq!(SET.holds([byte]), byte.is_ascii_alphanumeric() || b"-_".contains(&byte), "{byte}");
        }
        assert!(SET.holds("") && SET.holds("a-Z_09") && !SET.holds("a b") && !SET.holds("ä"));
    }
}
