//! Loss records and their sums, as the report sees them.
//!
//! The search (another crate) merges blocks of equal kind and allocation stack into [`LossRecord`]s. Here they are put in
//! order, given their number, their headline and, once suppressions have had their say, summed up in [`LeakTotals`].
//!
//! Order: ascending by direct plus indirect bytes, so that the worst is the last thing on the screen; the number `i of n`
//! counts hidden records too. Indirect bytes appear in a record of their own *and* in the "indirect" part of the record that
//! leads to them; the summary counts direct bytes only, so every block once.

use crate::error::{ErrorKind, ErrorRecord, LeakInfo, LeakKind};
use crate::frame::Stack;
use crate::number::{commas, signed_commas};

/// An amount of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub bytes: u64,
    pub blocks: u64,
}

impl Tally {
    pub fn new(bytes: u64, blocks: u64) -> Self {
        Tally { bytes, blocks }
    }

    pub fn add(&mut self, other: Tally) {
        self.bytes += other.bytes;
        self.blocks += other.blocks;
    }
}

/// Difference from the previous leak check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub bytes: i64,
    pub indirect_bytes: i64,
    pub blocks: i64,
}

/// Blocks of one kind from one allocation stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossRecord {
    pub kind: LeakKind,
    /// The blocks themselves.
    pub direct: Tally,
    /// Bytes of other lost blocks that only these lead to.
    pub indirect_bytes: u64,
    /// In delta mode: what changed.
    pub change: Option<Change>,
    /// Where the blocks were allocated, innermost first: a hundred thousand records need no names before it is their turn.
    pub addresses: Vec<u64>,
}

/// Which records a check that reports differences shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaMode {
    Increased,
    Changed,
    New,
}

/// The result of one leak search.
#[derive(Clone, Debug, Default)]
pub struct LeakSearch {
    pub records: Vec<LossRecord>,
    /// Blocks that are reachable only thanks to a heuristic: its name and how much, for every heuristic that there is.
    pub heuristics: Vec<(&'static str, Tally)>,
    /// Print every record (subject to `--show-leak-kinds`) or just the sums.
    pub full: bool,
    pub delta: Option<DeltaMode>,
    /// The thread that asked for the search, or that exits; 0 stands for the initial thread.
    pub thread: u32,
    /// Size of the memory that was searched for pointers, for `-v`.
    pub searched_bytes: Option<u64>,
    /// A command of the debugger asked for it.
    pub by_command: bool,
    /// Of the records that would be listed so many, those that come last.
    pub most: Option<usize>,
    /// They go to a file, as a tree of calls.
    pub tree: bool,
}

/// What a search left behind for one that shows differences.
#[derive(Clone, Debug, Default)]
pub struct LeaksBefore {
    pub totals: LeakTotals,
    pub heuristics: Vec<(&'static str, Tally)>,
}

/// Sums by kind, after suppression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakTotals {
    pub definite: Tally,
    pub indirect: Tally,
    pub possible: Tally,
    pub reachable: Tally,
    pub suppressed: Tally,
}

impl LeakTotals {
    pub fn of(&mut self, kind: LeakKind) -> &mut Tally {
        match kind {
            LeakKind::Definite => &mut self.definite,
            LeakKind::Indirect => &mut self.indirect,
            LeakKind::Possible => &mut self.possible,
            LeakKind::Reachable => &mut self.reachable,
        }
    }

    /// Is anything lost or reachable (suppressed memory aside)?
    pub fn any(&self) -> bool {
        [self.definite, self.indirect, self.possible, self.reachable].iter().any(|tally| tally.blocks > 0)
    }
}

impl LossRecord {
    pub fn total_bytes(&self) -> u64 {
        self.direct.bytes + self.indirect_bytes
    }

    fn sort_key(&self) -> (u64, LeakKind, u64) {
        (self.total_bytes(), self.kind, self.direct.blocks)
    }

    /// Does a check that reports differences show this record?
    pub fn passes(&self, delta: Option<DeltaMode>) -> bool {
        let change = self.change.unwrap_or_default();
        match delta {
            None => self.direct.blocks > 0,
            Some(DeltaMode::Increased) => change.bytes > 0 || change.indirect_bytes > 0,
            Some(DeltaMode::Changed) => change != Change::default(),
            Some(DeltaMode::New) => self.direct.blocks > 0 && change.blocks == self.direct.blocks as i64,
        }
    }

    /// Headline of record `index` (from 1) of `count`.
    pub fn headline(&self, index: usize, count: usize) -> String {
        let with = |value: u64, change: Option<i64>| match change {
            Some(change) => format!("{} ({})", commas(value), signed_commas(change)),
            None => commas(value),
        };
        let blocks = with(self.direct.blocks, self.change.map(|c| c.blocks));
        let direct = with(self.direct.bytes, self.change.map(|c| c.bytes));
        let bytes = if self.indirect_bytes > 0 && self.kind != LeakKind::Indirect {
            let total = with(self.total_bytes(), self.change.map(|c| c.bytes + c.indirect_bytes));
            let indirect = with(self.indirect_bytes, self.change.map(|c| c.indirect_bytes));
            format!("{total} ({direct} direct, {indirect} indirect)")
        } else {
            direct
        };
        let words = self.kind.words();
        format!("{bytes} bytes in {blocks} blocks are {words} in loss record {} of {}", commas(index as u64), commas(count as u64))
    }

    /// The record as a finding, with its stack by names.
    pub fn finding(&self, index: usize, count: usize, stack: Stack) -> ErrorRecord {
        let mut record = ErrorRecord::new(ErrorKind::Leak(self.kind), self.headline(index, count), 1, stack);
        let bytes = if self.kind == LeakKind::Indirect { self.direct.bytes } else { self.total_bytes() };
        record.leak = Some(LeakInfo { bytes, blocks: self.direct.blocks });
        record
    }
}

/// Puts records in the order in which they are numbered and printed.
pub fn sort(records: &mut [LossRecord]) {
    records.sort_by_key(LossRecord::sort_key);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: LeakKind, bytes: u64, indirect_bytes: u64, blocks: u64) -> LossRecord {
        LossRecord { kind, direct: Tally::new(bytes, blocks), indirect_bytes, change: None, addresses: vec![] }
    }

    #[test]
    fn headlines() {
        assert_eq!(
            record(LeakKind::Definite, 32, 64, 1).headline(4, 1004),
            "96 (32 direct, 64 indirect) bytes in 1 blocks are definitely lost in loss record 4 of 1,004"
        );
        assert_eq!(
            record(LeakKind::Indirect, 1234, 64, 3).headline(1, 2),
            "1,234 bytes in 3 blocks are indirectly lost in loss record 1 of 2"
        );
        let mut delta = record(LeakKind::Definite, 7, 0, 1);
        delta.change = Some(Change { bytes: 7, indirect_bytes: 0, blocks: 1 });
        assert_eq!(delta.headline(2, 3), "7 (+7) bytes in 1 (+1) blocks are definitely lost in loss record 2 of 3");
        delta.indirect_bytes = 8;
        assert_eq!(
            delta.headline(2, 3),
            "15 (+7) (7 (+7) direct, 8 (+0) indirect) bytes in 1 (+1) blocks are definitely lost in loss record 2 of 3"
        );
    }

    #[test]
    fn the_worst_comes_last_and_ties_go_by_kind() {
        let mut records = vec![
            record(LeakKind::Definite, 8, 0, 1),
            record(LeakKind::Definite, 4, 100, 1),
            record(LeakKind::Reachable, 8, 0, 1),
            record(LeakKind::Possible, 5, 0, 1),
        ];
        sort(&mut records);
        let order: Vec<_> = records.iter().map(|r| (r.total_bytes(), r.kind)).collect();
        assert_eq!(order, [(5, LeakKind::Possible), (8, LeakKind::Reachable), (8, LeakKind::Definite), (104, LeakKind::Definite)]);
    }
}
