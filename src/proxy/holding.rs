//! Bodies that are held back until all of them is there, because they have to be read: how much memory that may take,
//! of the process and for one token. A usual body, which is small, counts for nothing here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::access::Grant;
use crate::token::TokenId;

/// What each body may have before it counts, in bytes.
const FREE: usize = 16 * 1024;
/// How much is taken at once, so that a trickle does not have to ask for each byte.
const STEP: usize = 16 * 1024;

/// The bytes that may be held back at once, as all gates of a process share them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_of_token: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_token: HashMap<TokenId, usize>,
}

/// There is no room for more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Budget {
    /// Nothing held yet, and at most `most` bytes; a quarter of them for one token, or one body of the `largest` size
    /// if that is more.
    pub fn new(most: usize, largest: usize) -> Self {
        Self(Arc::new(Shared { most, most_of_token: largest.max(most / 4), taken: Mutex::default() }))
    }

    /// How many bytes are taken.
    pub fn taken(&self) -> usize {
        self.0.lock().all
    }

    /// The part of a body that came with this grant, which has taken nothing yet.
    pub(super) fn share(&self, grant: &Arc<Grant>) -> Share {
        Share { budget: self.clone(), grant: Arc::clone(grant), bytes: 0 }
    }
}

impl Shared {
    /// A panic elsewhere leaves the counts whole.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one body has taken of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    grant: Arc<Grant>,
    bytes: usize,
}

impl Share {
    /// Takes what a body of so many bytes needs, or gives back what it needs no more. If there is no room, nothing
    /// changes.
    pub(super) fn resize(&mut self, length: usize) -> Result<(), Full> {
        let bytes = length.saturating_sub(FREE).next_multiple_of(STEP);
        if bytes == self.bytes {
            return Ok(());
        }
        let Shared { most, most_of_token, .. } = *self.budget.0;
        let mut taken = self.budget.0.lock();
        let of_token = taken.by_token.get(self.grant.token_id()).map_or(0, |taken| *taken);
        let (all, of_token) = (taken.all - self.bytes + bytes, of_token - self.bytes + bytes);
        if bytes > self.bytes && (all > most || of_token > most_of_token) {
            return Err(Full);
        }
        taken.all = all;
        match taken.by_token.get_mut(self.grant.token_id()) {
            Some(_) if of_token == 0 => drop(taken.by_token.remove(self.grant.token_id())),
            Some(taken) => *taken = of_token,
            None => drop(taken.by_token.insert(self.grant.token_id().clone(), of_token)),
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Takes out the part of so many bytes of the body, which go on by themselves.
    pub(super) fn part(&mut self, length: usize) -> Self {
        let bytes = length.saturating_sub(FREE).next_multiple_of(STEP).min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), grant: Arc::clone(&self.grant), bytes }
    }

    /// The bytes, with the share, which is given back when nobody has them any more.
    pub(super) fn bind(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Bound { bytes, _share: self }) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // giving back does not fail
        let _ = self.resize(0);
    }
}

struct Bound {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Bound {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body as far as it has come. Mostly there is one piece, and it need not be copied; several are joined, for each by
/// itself would keep what it was read into.
#[derive(Debug)]
pub(super) struct Holding {
    first: Bytes,
    joined: BytesMut,
    limit: usize,
    share: Share,
}

impl Holding {
    /// Nothing yet. What is beyond the limit, in bytes, is not to be held for long and does not count.
    pub(super) fn new(limit: usize, share: Share) -> Self {
        Self { first: Bytes::new(), joined: BytesMut::new(), limit, share }
    }

    /// Adds a piece. It is there even if there is no room for it.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), Full> {
        if self.bytes().is_empty() {
            self.first = piece;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
            self.joined.extend_from_slice(&piece);
        }
        self.share.resize(self.bytes().len().min(self.limit))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        if self.joined.is_empty() { &self.first } else { &self.joined }
    }

    /// Whether there is more than the limit allows.
    pub(super) fn is_too_large(&self) -> bool {
        self.bytes().len() > self.limit
    }

    /// All of it.
    pub(super) fn into_bytes(self) -> Bytes {
        let (bytes, share) = self.into_parts();
        share.bind(bytes)
    }

    /// All of it, and its share.
    pub(super) fn into_parts(self) -> (Bytes, Share) {
        (if self.joined.is_empty() { self.first } else { self.joined.freeze() }, self.share)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::access::{Directory, Generation, Policy};
    use crate::token::{TokenDigest, TokenList};

    const KIB: usize = 1024;

    fn grants<const N: usize>() -> [Arc<Grant>; N] {
        let token = |number| {
            let hash = TokenDigest::of(&format!("opaque-{number}"));
            format!("[[tokens]]\nid = \"t{number}\"\nhash = \"{hash}\"\nuser = \"alice\"\n")
        };
        let list = TokenList::parse(Path::new("t.toml"), &(1..=N).map(token).collect::<String>()).unwrap();
        let directory = Directory::new(&list, &Arc::new(Policy::default()), Generation(1), "r1");
        let grants: Vec<_> = directory.grants().cloned().collect();
        grants.try_into().unwrap()
    }

    #[test]
    fn a_token_has_its_share_and_all_together_no_more_than_there_is() {
        let grants: [_; 5] = grants();
        let budget = Budget::new(400 * KIB, 64 * KIB);
        let mut shares: Vec<_> = grants.iter().map(|grant| budget.share(grant)).collect();
        for share in &mut shares[..4] {
            // a quarter, and what does not count
            assert_eq!(share.resize(117 * KIB), Err(Full));
            assert_eq!(share.resize(112 * KIB), Ok(()));
            assert_eq!(budget.share(&share.grant).resize(17 * KIB), Err(Full), "of one token, whatever body it is");
        }
        assert_eq!(budget.taken(), 384 * KIB);
        assert_eq!(shares[4].resize(16 * KIB), Ok(()), "a usual body has room");
        assert_eq!(shares[4].resize(32 * KIB), Ok(()));
        assert_eq!((shares[4].resize(32 * KIB + 1), budget.taken()), (Err(Full), 400 * KIB));
        shares.truncate(2);
        assert_eq!(budget.taken(), 192 * KIB);
        shares[0].resize(0).unwrap();
        assert_eq!(budget.taken(), 96 * KIB);
        shares.clear();
        assert!(budget.taken() == 0 && budget.0.lock().by_token.is_empty());
    }

    #[test]
    fn one_body_of_the_largest_size_has_room_however_little_there_is() {
        let [grant] = grants();
        for largest in [1, 16 * KIB, 16 * KIB + 1, 100 * KIB - 1, 100 * KIB, 1 << 20] {
            let budget = Budget::new(largest, largest);
            let mut held = Holding::new(largest, budget.share(&grant));
            for piece in vec![b'x'; largest].chunks(999) {
                held.push(Bytes::copy_from_slice(piece)).unwrap();
            }
            assert!(!held.is_too_large());
            // what comes too much does not count, for it is not held for long
            held.push(Bytes::from(vec![b'x'; 100 * KIB])).unwrap();
            assert!(held.is_too_large() && budget.taken() <= largest);
        }
    }

    #[test]
    fn what_is_held_counts_until_the_last_of_it_is_dropped() {
        let [grant] = grants();
        let budget = Budget::new(1 << 20, 1 << 20);
        let mut held = Holding::new(1 << 20, budget.share(&grant));
        for piece in ["a", "b", &"c".repeat(40 * KIB)] {
            held.push(Bytes::copy_from_slice(piece.as_bytes())).unwrap();
        }
        let mut bytes = held.into_bytes();
        let begun = bytes.split_to(4);
        assert_eq!((&begun[..], bytes.len()), (&b"abcc"[..], 40 * KIB - 2));
        drop(bytes);
        assert_eq!(budget.taken(), 32 * KIB);
        drop(begun);
        assert_eq!(budget.taken(), 0);

        let mut share = budget.share(&grant);
        share.resize(112 * KIB).unwrap();
        let part = share.part(64 * KIB).bind(Bytes::from_static(b"an event"));
        share.resize(64 * KIB).unwrap();
        assert_eq!(budget.taken(), 96 * KIB);
        drop(part);
        assert_eq!(budget.taken(), 48 * KIB);
    }

    #[test]
    fn one_piece_is_not_copied_and_several_are_one() {
        let [grant] = grants();
        let budget = Budget::new(1 << 20, 1 << 20);
        let piece = Bytes::from(vec![b'x'; 100]);
        let mut held = Holding::new(1 << 20, budget.share(&grant));
        held.push(Bytes::new()).unwrap();
        held.push(piece.clone()).unwrap();
        assert_eq!(held.bytes().as_ptr(), piece.as_ptr());
        held.push(piece.clone()).unwrap();
        assert!(piece.is_unique(), "nothing of what it was read into is kept");
        assert_eq!(held.into_bytes(), [piece.clone(), piece].concat());
    }
}
