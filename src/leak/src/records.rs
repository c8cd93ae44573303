//! Loss records: blocks that were lost the same way and allocated at the same place.
//!
//! Two blocks share a record if they have the same kind and their allocation stacks agree in as many frames as the resolution asks
//! for. Records are in ascending order of all that is lost with them (direct + indirect), so the worst comes last; then by kind, number of
//! blocks, stack. Indirect blocks are counted twice, in their leader's "indirect" part and in records of their own.

use crate::{BlockState, Kind};
use memcheck_abi::event::LiveBlock;
use std::collections::HashMap;

/// How many frames must agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resolution {
    /// 2
    Low,
    /// 4
    Medium,
    /// All.
    #[default]
    High,
}

impl Resolution {
    pub const fn frames(self) -> usize {
        match self {
            Resolution::Low => 2,
            Resolution::Medium => 4,
            Resolution::High => usize::MAX,
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Amount {
    pub bytes: u64,
    pub blocks: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64, blocks: u64) {
        self.bytes += bytes;
        self.blocks += blocks;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub kind: Kind,
    /// Depot id of the stack of the first block (by address) in it.
    pub stack: u32,
    pub direct: Amount,
    /// Only of definitely lost blocks.
    pub indirect: Amount,
    /// What the previous search had here.
    pub old_direct: Amount,
    pub old_indirect: Amount,
}

impl Record {
    pub fn total_bytes(&self) -> u64 {
        self.direct.bytes + self.indirect.bytes
    }
}

/// The records of a search.
pub struct Grouped {
    /// In the order of the report.
    pub records: Vec<Record>,
    /// The number of each block's record; [`NO_RECORD`] for those that count for nothing.
    pub of_block: Vec<u32>,
}

pub const NO_RECORD: u32 = u32::MAX;

/// The records of a search. `frames` gives the frames of a stack, of which `depth` count; `previous` are the records of the last search
/// of this process: those that became empty stay in the list, once.
pub fn group<'f>(
    blocks: &[LiveBlock],
    states: &[BlockState],
    frames: impl Fn(u32) -> &'f [u64],
    depth: usize,
    previous: &[Record],
) -> Grouped {
    let mut keys = Keys { frames, depth, by_stack: HashMap::new(), by_frames: HashMap::new() };
    let mut places: HashMap<(Kind, u32), usize> = HashMap::new();
    let mut records: Vec<Record> = Vec::new();
    let mut place = |records: &mut Vec<Record>, kind: Kind, stack: u32| -> usize {
        *places.entry((kind, keys.of(stack))).or_insert_with(|| {
            let none = Amount::default();
            records.push(Record { kind, stack, direct: none, indirect: none, old_direct: none, old_indirect: none });
            records.len() - 1
        })
    };
    let mut of_block = vec![NO_RECORD; blocks.len()];
    for ((block, state), number) in blocks.iter().zip(states).zip(&mut of_block).filter(|((_, s), _)| s.kind != Kind::Outer) {
        let at = place(&mut records, state.kind, block.stack);
        *number = at as u32;
        records[at].direct.add(block.size, 1);
        records[at].indirect.add(state.indirect_bytes, state.indirect_blocks);
    }
    for old in previous.iter().filter(|old| old.direct.blocks > 0) {
        let at = place(&mut records, old.kind, old.stack);
        records[at].old_direct.add(old.direct.bytes, old.direct.blocks);
        records[at].old_indirect.add(old.indirect.bytes, old.indirect.blocks);
    }
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_cached_key(|&at| {
        let r = &records[at];
        (r.total_bytes(), r.kind, r.direct.blocks, r.stack)
    });
    let mut rank = vec![0; records.len()];
    order.iter().zip(0..).for_each(|(&at, number)| rank[at] = number);
    of_block.iter_mut().for_each(|number| *number = rank.get(*number as usize).copied().unwrap_or(NO_RECORD));
    Grouped { records: order.into_iter().map(|at| records[at]).collect(), of_block }
}

/// Stacks that agree in enough frames get the same number.
struct Keys<'f, F> {
    frames: F,
    depth: usize,
    by_stack: HashMap<u32, u32>,
    by_frames: HashMap<&'f [u64], u32>,
}

impl<'f, F: Fn(u32) -> &'f [u64]> Keys<'f, F> {
    fn of(&mut self, stack: u32) -> u32 {
        if self.depth == usize::MAX {
            return stack;
        }
        if let Some(&key) = self.by_stack.get(&stack) {
            return key;
        }
        let all = (self.frames)(stack);
        let top = &all[..all.len().min(self.depth)];
        let next = self.by_frames.len() as u32;
        let key = *self.by_frames.entry(top).or_insert(next);
        self.by_stack.insert(stack, key);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(rows: &[(Kind, u32, u64, u64)]) -> (Vec<LiveBlock>, Vec<BlockState>) {
        let block = |&(_, stack, size, _): &(Kind, u32, u64, u64)| LiveBlock { size, stack, ..LiveBlock::default() };
        let state = |&(kind, _, _, indirect): &(Kind, u32, u64, u64)| BlockState {
            kind,
            leader: 0,
            indirect_bytes: indirect,
            indirect_blocks: indirect.min(1),
            heuristic: None,
        };
        (rows.iter().map(block).collect(), rows.iter().map(state).collect())
    }

    fn frames(stack: u32) -> &'static [u64] {
        [&[1, 2, 3, 4, 5][..], &[1, 2, 3, 4, 6], &[1, 2, 3, 7], &[1, 2], &[8]][stack as usize]
    }

    fn check(rows: &[(Kind, u32, u64, u64)], resolution: Resolution, expected: &[(Kind, u32, u64, u64, u64)]) {
        let (blocks, states) = search(rows);
        let grouped = group(&blocks, &states, frames, resolution.frames(), &[]);
        let records = &grouped.records;
        let found: Vec<_> = records.iter().map(|r| (r.kind, r.stack, r.direct.bytes, r.direct.blocks, r.indirect.bytes)).collect();
        assert_eq!(found, expected);
        for ((block, state), &number) in blocks.iter().zip(&states).zip(&grouped.of_block) {
            let kind = records.get(number as usize).map_or(Kind::Outer, |record| record.kind);
            assert_eq!(kind, state.kind, "the record of {block:?}");
        }
    }

    #[test]
    fn resolution_decides_what_is_one_record() {
        use Kind::Definite as D;
        let rows = [(D, 0, 10, 0), (D, 1, 10, 0), (D, 2, 10, 0), (D, 4, 10, 0), (D, 3, 10, 0)];
        let high = [(D, 0, 10, 1, 0), (D, 1, 10, 1, 0), (D, 2, 10, 1, 0), (D, 3, 10, 1, 0), (D, 4, 10, 1, 0)];
        check(&rows, Resolution::High, &high);
        check(&rows, Resolution::Medium, &[(D, 2, 10, 1, 0), (D, 3, 10, 1, 0), (D, 4, 10, 1, 0), (D, 0, 20, 2, 0)]);
        check(&rows, Resolution::Low, &[(D, 4, 10, 1, 0), (D, 0, 40, 4, 0)]);
    }

    /// As observed: 56 indirect, then 64 reachable, possible, definite, then 8 + 56 in more blocks.
    #[test]
    fn worst_comes_last() {
        use Kind::{Definite, Indirect, Outer, Possible, Reachable};
        let rows = [
            (Definite, 4, 8, 56),
            (Indirect, 0, 56, 0),
            (Definite, 1, 64, 0),
            (Possible, 2, 64, 0),
            (Reachable, 3, 64, 0),
            (Outer, 3, 9, 0),
        ];
        let sorted =
            [(Indirect, 0, 56, 1, 0), (Reachable, 3, 64, 1, 0), (Possible, 2, 64, 1, 0), (Definite, 1, 64, 1, 0), (Definite, 4, 8, 1, 56)];
        check(&rows, Resolution::High, &sorted);
        check(&[(Definite, 0, 0, 0), (Definite, 0, 0, 0)], Resolution::High, &[(Definite, 0, 0, 2, 0)]);
    }

    #[test]
    fn the_previous_search_is_remembered() {
        use Kind::{Definite, Reachable};
        let (blocks, states) = search(&[(Reachable, 0, 10, 0), (Definite, 1, 20, 5)]);
        let first = group(&blocks, &states, frames, Resolution::High.frames(), &[]).records;
        let (blocks, states) = search(&[(Definite, 1, 30, 6), (Definite, 0, 10, 0)]);
        let second = group(&blocks, &states, frames, Resolution::High.frames(), &first).records;
        let row = |kind, stack| second.iter().find(|r| (r.kind, r.stack) == (kind, stack)).expect("a record");
        assert_eq!(second.len(), 3);
        assert_eq!((row(Reachable, 0).direct.blocks, row(Reachable, 0).old_direct.bytes), (0, 10));
        assert_eq!((row(Definite, 1).old_direct.bytes, row(Definite, 1).old_indirect.bytes, row(Definite, 1).indirect.bytes), (20, 5, 6));
        assert_eq!(row(Definite, 0).old_direct.blocks, 0);
    }
}
