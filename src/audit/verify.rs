//! Judging a chain, line by line: what was altered, taken out, moved or torn, and where.

use super::chain::{Hash, Head, Sealed};
use super::reader::Line;

/// The most faults that are kept; the rest are counted.
const MOST: usize = 20;

/// What is wrong at a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The record's hash is not that of its text after the record before it.
    Altered,
    /// Records before this one are not there, from the first number to the last.
    Missing(u64, u64),
    /// It stands where the record of this number belongs.
    OutOfOrder(u64),
    /// A chain begins anew, so nothing tells whether records are missing here.
    Restarted,
    /// The line has no end, or no seal: it was not written to its end, or by somebody else.
    Torn,
    /// It is not the record that was noted elsewhere under its number.
    NotAsNoted,
}

/// A fault and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, counted from 0 in the order in which they were read.
    pub file: usize,
    /// The line in it, counted from 1.
    pub line: u64,
    /// The number of the record, where it has one.
    pub seq: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

/// The judgement so far.
#[derive(Debug, Default)]
pub struct Verification {
    /// The last link that was seen.
    pub head: Option<Head>,
    /// The number of the first record.
    pub first: Option<u64>,
    /// How many records there were.
    pub records: u64,
    /// How many lines stood before the chain began.
    pub before: u64,
    /// The first faults, in the order of their places.
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub more: u64,
    /// A link that was noted elsewhere, until it is found.
    noted: Option<Head>,
    /// The line before was at fault, and this one may only look so because of it.
    shaken: bool,
}

impl Verification {
    /// Begins. A link that was noted elsewhere has to be found on the way.
    pub fn new(noted: Option<Head>) -> Self {
        // before the first record there is nothing to be found
        Self { noted: noted.filter(|noted| *noted != Head::START), ..Self::default() }
    }

    /// The noted link, if it was not found.
    pub fn unseen(&self) -> Option<Head> {
        self.noted
    }

    /// Whether there was a chain, and nothing is wrong with it.
    pub fn is_intact(&self) -> bool {
        self.records > 0 && self.findings.is_empty() && self.noted.is_none()
    }

    /// Judges the next line.
    pub fn read(&mut self, file: usize, line: &Line<'_>) {
        let sealed = Sealed::read(line.text);
        let fault = match &sealed {
            None if self.head.is_none() && line.ended => {
                self.before += 1;
                None
            }
            None => Some(Fault::Torn),
            Some(_) if !line.ended => Some(Fault::Torn),
            Some(sealed) => self.judge(sealed),
        };
        let Some(sealed) = sealed else { return self.report(file, line.number, None, fault) };
        let Head { seq, hash } = sealed.head;
        self.records += 1;
        self.first.get_or_insert(seq);
        let noted = self.noted.take_if(|noted| noted.seq == seq);
        let fault = fault.or(noted.filter(|noted| noted.hash != hash).map(|_| Fault::NotAsNoted));
        match fault {
            Some(Fault::OutOfOrder(_)) if self.fill_gap(seq) => return,
            // the chain goes on from where it was
            Some(Fault::OutOfOrder(_)) => {}
            _ => self.head = Some(sealed.head),
        }
        self.report(file, line.number, Some(seq), fault);
    }

    fn judge(&mut self, sealed: &Sealed<'_>) -> Option<Fault> {
        let Head { seq, .. } = sealed.head;
        let shaken = std::mem::take(&mut self.shaken);
        let Some(head) = self.head else { return self.judge_first(sealed) };
        let next = head.seq.saturating_add(1);
        if seq == next {
            let follows = sealed.follows(&head.hash);
            return (!follows && !shaken).then_some(Fault::Altered);
        }
        if seq == 1 && sealed.follows(&Hash::START) {
            return Some(Fault::Restarted);
        }
        if seq < next {
            return Some(Fault::OutOfOrder(next));
        }
        // the one in between may be there, and unreadable
        (!shaken || seq != next + 1).then_some(Fault::Missing(next, seq - 1))
    }

    /// The first record says what stood before it, for every file begins with one that does.
    fn judge_first(&self, sealed: &Sealed<'_>) -> Option<Fault> {
        let seq = sealed.head.seq;
        let previous = if seq == 1 { Some(Hash::START) } else { sealed.previous };
        match previous {
            _ if self.before > 0 && seq != 1 => Some(Fault::Missing(1, seq.saturating_sub(1))),
            Some(previous) => (!sealed.follows(&previous)).then_some(Fault::Altered),
            None => Some(Fault::Missing(1, seq.saturating_sub(1))),
        }
    }

    /// A record that was missed and comes late was not missing: the one that came early was out of order.
    fn fill_gap(&mut self, seq: u64) -> bool {
        let gap = self.findings.iter_mut().find_map(|finding| match finding.fault {
            Fault::Missing(from, to) if (from..=to).contains(&seq) => Some((from, finding)),
            _ => None,
        });
        gap.map(|(from, finding)| finding.fault = Fault::OutOfOrder(from)).is_some()
    }

    fn report(&mut self, file: usize, line: u64, seq: Option<u64>, fault: Option<Fault>) {
        let Some(fault) = fault else { return };
        self.shaken = matches!(fault, Fault::Altered | Fault::Torn);
        if self.findings.len() < MOST {
            self.findings.push(Finding { file, line, seq, fault });
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(texts: &[String]) -> Vec<u8> {
        let (mut head, mut log) = (Head::START, Vec::new());
        for text in texts {
            let start = log.len();
            log.extend(serde_json::to_vec(&serde_json::json!({ "text": text })).unwrap());
            head.seal(&mut log, start, start == 0);
        }
        log
    }

    fn verify(log: &[u8]) -> Verification {
        let mut verification = Verification::new(None);
        for (index, text) in log.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let ended = text.ends_with(b"\n");
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            verification.read(0, &Line { number: index as u64 + 1, text, ended });
        }
        verification
    }

    fn lines(count: usize) -> Vec<Vec<u8>> {
        let texts: Vec<_> = (0..count).map(|number| format!("{number}")).collect();
        log(&texts).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    fn first(log: &[Vec<u8>]) -> (u64, Option<u64>, Fault) {
        let Finding { line, seq, fault, .. } = verify(&log.concat()).findings[0];
        (line, seq, fault)
    }

    #[test]
    fn each_fault_is_named_at_its_place() {
        let whole = lines(9);
        assert!(verify(&whole.concat()).is_intact());
        let changed = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut lines = whole.clone();
            change(&mut lines);
            first(&lines)
        };
        assert_eq!(changed(&|lines| lines[4][9] = b'x'), (5, Some(5), Fault::Altered));
        assert_eq!(changed(&|lines| drop(lines.remove(4))), (5, Some(6), Fault::Missing(5, 5)));
        assert_eq!(changed(&|lines| drop(lines.drain(..2))), (1, Some(3), Fault::Missing(1, 2)));
        assert_eq!(changed(&|lines| lines.swap(4, 5)), (5, Some(6), Fault::OutOfOrder(5)));
        assert_eq!(changed(&|lines| lines.insert(4, whole[1].clone())), (5, Some(2), Fault::OutOfOrder(5)));
        assert_eq!(changed(&|lines| lines[4] = b"{\"text\":\"4\",\"se\n".to_vec()), (5, None, Fault::Torn));
        // glued to the next
        assert_eq!(changed(&|lines| lines[4].truncate(20)), (5, Some(6), Fault::Missing(5, 5)));
        assert_eq!(changed(&|lines| lines[8].truncate(20)), (9, None, Fault::Torn));
        assert_eq!(changed(&|lines| lines.extend(whole.clone())), (10, Some(1), Fault::Restarted));
        assert_eq!(changed(&|lines| lines.insert(2, b"{}\n".to_vec())), (3, None, Fault::Torn));
        assert_eq!(
            changed(&|lines| {
                lines.remove(0);
                lines.insert(0, b"{}\n".to_vec());
            }),
            (2, Some(2), Fault::Missing(1, 1))
        );
        // one mistake is one finding
        let mut altered = whole.clone();
        let at = altered[4].len() - 10;
        altered[4][at] = b'x';
        assert_eq!(verify(&altered.concat()).findings.len(), 1);
    }

    #[test]
    fn a_log_that_was_cut_off_is_found_by_what_was_noted_elsewhere() {
        let whole = lines(9);
        let head = verify(&whole.concat()).head.unwrap();
        for (count, noted, intact) in
            [(9, head, true), (8, head, false), (9, Head { hash: Hash::START, ..head }, false), (9, Head::START, true)]
        {
            let mut verification = Verification::new(Some(noted));
            for (index, text) in whole[..count].iter().enumerate() {
                let text = &text[..text.len() - 1];
                verification.read(0, &Line { number: index as u64 + 1, text, ended: true });
            }
            assert_eq!(verification.is_intact(), intact);
        }
    }

    #[test]
    fn lines_from_before_the_chain_are_counted() {
        let log = [b"{}\n{}\n".to_vec(), lines(3).concat()].concat();
        let verification = verify(&log);
        assert!(verification.is_intact() && verification.before == 2 && verification.records == 3);
        assert!(!verify(b"").is_intact() && !verify(b"{}\n").is_intact());
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_found(texts in proptest::collection::vec(".{0,20}", 1..8), at: prop::sample::Index, to: u8) {
            let mut log = log(&texts);
            let at = at.index(log.len());
            prop_assume!(log[at] != to);
            log[at] = to;
            prop_assert!(!verify(&log).is_intact());
        }

        #[test]
        fn any_other_order_is_found(order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle()) {
            let lines = lines(8);
            let shuffled: Vec<u8> = order.iter().flat_map(|index| lines[*index].clone()).collect();
            prop_assert_eq!(verify(&shuffled).is_intact(), order.is_sorted());
        }

        #[test]
        fn any_record_that_was_taken_out_is_found_but_the_last(taken in proptest::collection::btree_set(0_usize..8, 1..8)) {
            let left: Vec<_> = lines(8).into_iter().enumerate().filter(|(index, _)| !taken.contains(index)).collect();
            let is_a_beginning = left.iter().enumerate().all(|(place, (index, _))| place == *index);
            let log: Vec<u8> = left.into_iter().flat_map(|(_, line)| line).collect();
            prop_assert_eq!(verify(&log).is_intact(), is_a_beginning && !log.is_empty());
        }
    }
}
