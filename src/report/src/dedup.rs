//! Seen before? The ledger of findings of one process.
//!
//! Two findings are the same if their kinds are equal (sizes, parameter names included; reads and writes are one kind) and their
//! innermost 4 code addresses are; after 100 shown findings only the innermost 2 count, from then on also for what was recorded before.
//! A repetition only moves a counter. After 1,000 shown or 10,000,000 counted findings nothing is recorded any more, unless
//! `--error-limit=no`.
//!
//! Repetitions are the hot path of a program with an error in a loop, so they are looked up by hash, and [`Ledger::repeat`]
//! needs nothing but a kind and raw addresses: no symbol has to be looked up for them.

use std::collections::HashMap;

use crate::error::{ErrorKind, ErrorRecord};

/// Shown findings after which fewer frames are compared.
const COARSE_AFTER_SHOWN: u64 = 100;
const STOP_AFTER_SHOWN: u64 = 1000;
const STOP_AFTER_COUNTED: u64 = 10_000_000;
const FINE_FRAMES: usize = 4;
const COARSE_FRAMES: usize = 2;

/// One distinct finding.
#[derive(Clone, Debug)]
pub struct Context {
    pub record: ErrorRecord,
    pub count: u64,
    /// Number of the suppression that hides it.
    pub suppressed_by: Option<usize>,
    /// Identifier in machine-readable formats; never repeats in a run.
    pub unique: u64,
    /// Grows with every occurrence: the larger, the more recent.
    recency: u64,
}

/// What [`Ledger::repeat`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    New,
    /// Seen before, now counted; the number of the context.
    Repeated(usize),
    /// Beyond the limits: dropped.
    Dropped,
}

/// Things to tell the user once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Coarse,
    StopShown,
    StopCounted,
}

type Key = (ErrorKind, Vec<u64>);

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub contexts: Vec<Context>,
    fine: HashMap<Key, usize>,
    coarse: HashMap<Key, usize>,
    /// Findings shown, without leak records: a program with many leaks must not silence its errors.
    shown: u64,
    /// Leak records that count as errors.
    leaks: u64,
    /// Unsuppressed findings counted, leak records included; the number of the error summary.
    errors: u64,
    suppressed: u64,
    suppressed_contexts: u64,
    clock: u64,
    told_coarse: bool,
    told_stop: bool,
}

/// The sums of the error summary line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorTotals {
    pub errors: u64,
    pub contexts: u64,
    pub suppressed: u64,
    pub suppressed_contexts: u64,
}

impl Ledger {
    pub fn totals(&self) -> ErrorTotals {
        ErrorTotals {
            errors: self.errors,
            contexts: self.shown + self.leaks,
            suppressed: self.suppressed,
            suppressed_contexts: self.suppressed_contexts,
        }
    }

    /// Counts a repetition of a known finding. `limit` is `--error-limit`. A notice is due at most once each.
    pub fn repeat(&mut self, kind: &ErrorKind, addresses: &[u64], limit: bool) -> (Verdict, Option<Notice>) {
        let counted = self.errors + self.suppressed;
        if limit && (self.shown >= STOP_AFTER_SHOWN || counted >= STOP_AFTER_COUNTED) {
            let notice = if self.shown >= STOP_AFTER_SHOWN { Notice::StopShown } else { Notice::StopCounted };
            let first = !std::mem::replace(&mut self.told_stop, true);
            return (Verdict::Dropped, first.then_some(notice));
        }
        let is_coarse = self.shown >= COARSE_AFTER_SHOWN;
        let notice = (is_coarse && !std::mem::replace(&mut self.told_coarse, true)).then_some(Notice::Coarse);
        let found = if is_coarse {
            self.coarse.get(&key(kind, addresses, COARSE_FRAMES))
        } else {
            self.fine.get(&key(kind, addresses, FINE_FRAMES))
        };
        let Some(&index) = found else {
            return (Verdict::New, notice);
        };
        self.count(index);
        (Verdict::Repeated(index), notice)
    }

    fn count(&mut self, index: usize) {
        self.clock += 1;
        let context = &mut self.contexts[index];
        context.count += 1;
        context.recency = self.clock;
        match context.suppressed_by {
            Some(_) => self.suppressed += 1,
            None => self.errors += 1,
        }
    }

    /// Records a new finding under an identifier nobody else has; the number of its context.
    pub fn insert(&mut self, record: ErrorRecord, suppressed_by: Option<usize>, unique: u64) -> usize {
        let addresses: Vec<u64> = record.stack.addresses().collect();
        let index = self.contexts.len();
        self.fine.insert(key(&record.kind, &addresses, FINE_FRAMES), index);
        self.coarse.insert(key(&record.kind, &addresses, COARSE_FRAMES), index);
        self.contexts.push(Context { record, count: 0, suppressed_by, unique, recency: 0 });
        match suppressed_by {
            Some(_) => self.suppressed_contexts += 1,
            None => self.shown += 1,
        }
        self.count(index);
        index
    }

    /// Leak records are never merged with earlier ones: they only count.
    pub fn count_leak(&mut self, suppressed: bool) {
        if suppressed {
            self.suppressed += 1;
            self.suppressed_contexts += 1;
        } else {
            self.errors += 1;
            self.leaks += 1;
        }
    }

    /// Unsuppressed contexts for the list at the end: ascending by count, most recent first among equals.
    pub fn listed(&self) -> Vec<&Context> {
        let mut contexts: Vec<&Context> = self.contexts.iter().filter(|context| context.suppressed_by.is_none()).collect();
        contexts.sort_by_key(|context| (context.count, std::cmp::Reverse(context.recency)));
        contexts
    }

    /// The finding that was shown last.
    pub fn last_shown(&self) -> Option<&ErrorRecord> {
        self.contexts.iter().rev().find(|context| context.suppressed_by.is_none()).map(|context| &context.record)
    }

    /// Has any shown finding to do with undefined values?
    pub fn any_definedness(&self) -> bool {
        self.contexts.iter().any(|context| context.suppressed_by.is_none() && context.record.kind.is_definedness())
    }
}

/// An instruction that reads and writes the same invalid place has one fault, shown as the read that comes first.
fn key(kind: &ErrorKind, addresses: &[u64], frames: usize) -> Key {
    let kind = match kind {
        ErrorKind::Write { size } => ErrorKind::Read { size: *size },
        other => other.clone(),
    };
    (kind, addresses[..addresses.len().min(frames)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, Stack};

    fn record(addresses: &[u64]) -> ErrorRecord {
        ErrorRecord::invalid_read(4, 1, Stack(addresses.iter().map(|&addr| Frame::unknown(addr)).collect()))
    }

    fn add(ledger: &mut Ledger, addresses: &[u64]) -> (Verdict, Option<Notice>) {
        let record = record(addresses);
        let answer = ledger.repeat(&record.kind, addresses, true);
        if answer.0 == Verdict::New {
            ledger.insert(record, None, 0);
        }
        answer
    }

    #[test]
    fn four_frames_decide_and_the_fifth_does_not() {
        let mut ledger = Ledger::default();
        assert_eq!(add(&mut ledger, &[1, 2, 3, 4, 5]).0, Verdict::New);
        assert_eq!(add(&mut ledger, &[1, 2, 3, 4, 6]).0, Verdict::Repeated(0));
        assert_eq!(add(&mut ledger, &[1, 2, 3, 9, 5]).0, Verdict::New);
        assert_eq!(add(&mut ledger, &[1, 2, 3]).0, Verdict::New);
        assert_eq!(ledger.totals(), ErrorTotals { errors: 4, contexts: 3, suppressed: 0, suppressed_contexts: 0 });
    }

    #[test]
    fn kind_and_size_decide() {
        let mut ledger = Ledger::default();
        add(&mut ledger, &[1]);
        assert_eq!(ledger.repeat(&ErrorKind::Read { size: 8 }, &[1], true).0, Verdict::New);
        assert_eq!(ledger.repeat(&ErrorKind::Write { size: 4 }, &[1], true).0, Verdict::Repeated(0));
        assert_eq!(ledger.repeat(&ErrorKind::Write { size: 4 }, &[2], true).0, Verdict::New);
        assert_eq!(ledger.repeat(&ErrorKind::Read { size: 4 }, &[1], true).0, Verdict::Repeated(0));
    }

    #[test]
    fn after_a_hundred_two_frames_decide() {
        let mut ledger = Ledger::default();
        for first in 0..100 {
            assert_eq!(add(&mut ledger, &[first, 7, 1, 1]), (Verdict::New, None));
        }
        assert_eq!(add(&mut ledger, &[5, 7, 2, 2]), (Verdict::Repeated(5), Some(Notice::Coarse)));
        assert_eq!(add(&mut ledger, &[5, 8, 1, 1]), (Verdict::New, None));
    }

    #[test]
    fn a_thousand_is_enough_unless_unlimited() {
        let mut ledger = Ledger::default();
        for first in 0..1000 {
            assert_eq!(add(&mut ledger, &[first]).0, Verdict::New);
        }
        assert_eq!(ledger.repeat(&ErrorKind::Read { size: 4 }, &[3], false).0, Verdict::Repeated(3));
        assert_eq!(add(&mut ledger, &[5000]), (Verdict::Dropped, Some(Notice::StopShown)));
        assert_eq!(add(&mut ledger, &[5001]), (Verdict::Dropped, None));
    }

    #[test]
    fn suppressed_findings_count_apart() {
        let mut ledger = Ledger::default();
        ledger.insert(record(&[1]), Some(0), 0);
        add(&mut ledger, &[1]);
        assert_eq!(ledger.totals(), ErrorTotals { errors: 0, contexts: 0, suppressed: 2, suppressed_contexts: 1 });
        assert!(ledger.listed().is_empty());
    }

    #[test]
    fn the_list_ascends_by_count_and_starts_with_the_most_recent() {
        let mut ledger = Ledger::default();
        for addresses in [[1], [2], [3], [2]] {
            add(&mut ledger, &addresses);
        }
        let order: Vec<_> = ledger.listed().iter().map(|c| (c.count, c.record.stack.0[0].addr)).collect();
        assert_eq!(order, [(1, 3), (1, 1), (2, 2)]);
    }
}
