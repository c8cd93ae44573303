//! The leak search: which blocks can the program still reach, and if not, how are they lost?
//!
//! ```text
//!  blocks, roots ──► pieces ──► scan (parallel) ──► edges ──► mark (reachable, possible, cliques) ──► states ──► records
//!                    `scan`     reads each word once   `graph`                                                 `records`
//! ```
//! The only expensive part is reading memory and finding out which words point to blocks. It needs no knowledge of what is reachable,
//! so it is one flat pass over all roots and all blocks, cut into pieces, on all processors. What remains is a small graph in our own
//! memory, and the marking on it is sequential, simple and exact.
//!
//! Pointers: a *start pointer* holds the address of a block's first byte, an *interior pointer* any other address inside it. One past the end is
//! neither. A word counts if it is aligned to 8 and all its bytes are addressable and defined. A block of size 0 counts as one byte.
//!
//! | state | meaning |
//! |---|---|
//! | reachable | a chain of start pointers from a root (or interior ones that a heuristic accepts) |
//! | possible | every chain from the roots has an interior pointer |
//! | definite | nothing points to it, except what it leads to itself: the leader of a clique of lost blocks |
//! | indirect | reached from a lost block |
//!
//! This crate knows no process, no stacks and no text: memory comes through [`Memory`], frames through a closure.
//! Deliberately absent: unsafe code, and a traversal that reads memory as it goes (it would need a queue shared by all threads, and
//! one system call per block).

mod graph;
mod index;
pub mod records;
mod scan;
#[cfg(test)]
mod tests;

use memcheck_abi::event::{Family, LiveBlock};

/// The frozen program's memory and shadow. Called from many threads.
pub trait Memory: Sync {
    /// Copy bytes from `addr` on; how many could be read before the first unreadable one.
    fn read(&self, addr: u64, out: &mut [u8]) -> usize;
    /// Copy V bytes; 0 = addressable and defined. How many are known.
    fn v(&self, addr: u64, out: &mut [u8]) -> usize;
}

/// An address range `[start, end)`: a root, or a mapping for the heuristics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    pub start: u64,
    pub end: u64,
}

/// Patterns by which an interior pointer counts as a start pointer; see `graph`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Heuristic {
    StdString = 0,
    Length64 = 1,
    NewArray = 2,
    MultipleInheritance = 3,
}

impl Heuristic {
    pub const ALL: [Heuristic; 4] = [Heuristic::StdString, Heuristic::Length64, Heuristic::NewArray, Heuristic::MultipleInheritance];

    /// The name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Heuristic::StdString => "stdstring",
            Heuristic::Length64 => "length64",
            Heuristic::NewArray => "newarray",
            Heuristic::MultipleInheritance => "multipleinheritance",
        }
    }
}

#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Enabled heuristics, by their number.
    pub heuristics: [bool; 4],
    /// Readable file mappings, where vtables may lie; sorted.
    pub tables: Vec<Root>,
    /// Executable file mappings, where virtual functions lie; sorted.
    pub code: Vec<Root>,
    /// Worker threads; 0 = one per processor.
    pub threads: usize,
}

/// How a block is lost, or not. The order is that of records of equal size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Reachable,
    Possible,
    Indirect,
    Definite,
    /// Not a block of its own: others were declared inside it (or the program declared a block where none can be).
    Outer,
}

/// The answer for one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockState {
    pub kind: Kind,
    /// For indirect blocks: index of the definitely lost block that leads here. Else the block's own index.
    pub leader: u32,
    /// For definitely lost blocks: what is lost with them.
    pub indirect_bytes: u64,
    pub indirect_blocks: u64,
    /// For reachable blocks: the heuristic without which it would not be.
    pub heuristic: Option<Heuristic>,
}

/// The state of every block, in the order given. `blocks` must be sorted by address; at most 2^31 of them.
pub fn search(memory: &dyn Memory, blocks: &[LiveBlock], roots: &[Root], registers: &[u64], options: &Options) -> Vec<BlockState> {
    debug_assert!(blocks.is_sorted_by_key(|b| b.addr));
    let outer = outer_blocks(blocks);
    let kept: Vec<u32> = (0..blocks.len() as u32).filter(|&i| !outer[i as usize] && blocks[i as usize].addr < scan::LIMIT).collect();
    let nodes: Vec<scan::Node> = kept.iter().map(|&i| scan::Node::of(&blocks[i as usize])).collect();
    let index = index::Index::new(&nodes);
    let scanned = scan::scan(memory, &nodes, &index, roots, options);
    let marked = graph::mark(memory, &nodes, &index, &scanned, registers, options);
    let absent = BlockState { kind: Kind::Outer, leader: 0, indirect_bytes: 0, indirect_blocks: 0, heuristic: None };
    let mut states = vec![absent; blocks.len()];
    states.iter_mut().zip(0..).for_each(|(s, i)| s.leader = i);
    for (state, &i) in marked.into_iter().zip(&kept) {
        states[i as usize] = BlockState { leader: kept[state.leader as usize], ..state };
    }
    states
}

/// Blocks in which others begin: the inner ones count. Of two that begin together the longer is the outer one, and an ordinary block rather
/// than one that the program declared.
fn outer_blocks(blocks: &[LiveBlock]) -> Vec<bool> {
    let mut outer = vec![false; blocks.len()];
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    let declared = |i: usize| blocks[i].family == Family::Custom as u32;
    order.sort_by_key(|&i| (blocks[i].addr, std::cmp::Reverse(blocks[i].size), declared(i)));
    let mut open: Vec<usize> = Vec::new();
    for i in order {
        let start = blocks[i].addr;
        while open.pop_if(|&mut o| blocks[o].addr.saturating_add(blocks[o].size.max(1)) <= start).is_some() {}
        if let Some(&around) = open.last() {
            outer[around] = true;
        }
        open.push(i);
    }
    outer
}
