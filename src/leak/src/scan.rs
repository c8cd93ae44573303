//! The flat pass: every word of every root and block, once, on all processors.
//!
//! The work is cut into pieces of at most 256 KiB of memory: part of a root, part of a large block, or a run of neighbouring small
//! blocks that is read at once, red zones and all. Each piece yields lists of edges.

use crate::index::Index;
use crate::{Heuristic, Memory, Options, Root};
use memcheck_abi::event::LiveBlock;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Behind every address of a program. Declared blocks may claim to reach further.
pub const LIMIT: u64 = 1 << 47;

/// A block, as the search sees it.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub addr: u64,
    /// As requested; 0 is possible.
    pub size: u64,
    /// Less = older.
    pub age: u32,
}

impl Node {
    pub fn of(block: &LiveBlock) -> Node {
        Node { addr: block.addr, size: block.size.min(LIMIT.saturating_sub(block.addr)), age: block.age }
    }

    /// Behind the last address that points to it.
    #[inline]
    pub fn end(&self) -> u64 {
        self.addr + self.size.max(1)
    }
}

/// An interior pointer: the block and how far inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interior {
    pub target: u32,
    /// Bytes from the start, saturating.
    pub offset: u32,
}

/// What was found in one piece.
#[derive(Default)]
struct Edges {
    starts: Vec<u32>,
    interiors: Vec<Interior>,
    /// For pieces of whole blocks: lengths of both lists after each block.
    ends: Vec<(u32, u32)>,
    /// For pieces in which blocks begin: what their first words fit, see [`shape`].
    shapes: Vec<u8>,
}

/// What the memory of a piece is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Owner {
    Root,
    /// Whole blocks.
    Blocks(Range<u32>),
    /// A part of one block.
    Part(u32),
}

#[derive(Clone, Debug)]
struct Piece {
    start: u64,
    end: u64,
    owner: Owner,
}

/// All edges: those of the roots, then those of each block, in two long lists.
pub struct Scanned {
    starts: Vec<u32>,
    interiors: Vec<Interior>,
    /// Ends in both lists: of the roots, then of each block.
    ends: Vec<(usize, usize)>,
    /// Per block: which heuristics its first words fit, a bit each.
    pub shapes: Vec<u8>,
}

const PIECE: u64 = 256 << 10;
/// Gaps between blocks that are read over rather than cut at.
const SMALL_GAP: u64 = 4 << 10;
const PAGE: u64 = 4096;
/// What is searched of one block: a declared block may claim any size.
const LONGEST: u64 = 16 << 30;

pub fn scan(memory: &dyn Memory, nodes: &[Node], index: &Index, roots: &[Root], options: &Options) -> Scanned {
    let mut pieces = Vec::new();
    roots.iter().for_each(|r| cut(r.start.min(LIMIT).next_multiple_of(8), r.end.min(LIMIT) & !7, Owner::Root, &mut pieces));
    let roots = pieces.len();
    cut_blocks(nodes, &mut pieces);
    let edges = run(memory, nodes, index, options, &pieces);
    let mut scanned = Scanned { starts: Vec::new(), interiors: Vec::new(), ends: Vec::with_capacity(nodes.len() + 1), shapes: Vec::new() };
    for (number, (piece, edges)) in pieces.iter().zip(edges).enumerate() {
        if number == roots {
            scanned.close();
        }
        let is_last = matches!(piece.owner, Owner::Part(_)) && pieces.get(number + 1).is_none_or(|next| next.owner != piece.owner);
        scanned.append(edges, is_last);
    }
    if pieces.len() == roots {
        scanned.close();
    }
    debug_assert!(scanned.shapes.len() == nodes.len() && scanned.ends.len() == nodes.len() + 1);
    scanned
}

/// Pieces of one range.
fn cut(start: u64, end: u64, owner: Owner, pieces: &mut Vec<Piece>) {
    let mut at = start;
    while at < end {
        let stop = end.min(at.saturating_add(PIECE));
        pieces.push(Piece { start: at, end: stop, owner: owner.clone() });
        at = stop;
    }
}

/// Pieces of all blocks, in order of address.
fn cut_blocks(nodes: &[Node], pieces: &mut Vec<Piece>) {
    let mut open: Option<Piece> = None;
    for (i, node) in nodes.iter().enumerate() {
        let start = node.addr & !7;
        if node.size > PIECE {
            pieces.extend(open.take());
            cut(start, node.end().min(start.saturating_add(LONGEST)), Owner::Part(i as u32), pieces);
            continue;
        }
        match &mut open {
            Some(Piece { start: first, end, owner: Owner::Blocks(range) })
                if start.saturating_sub(*end) <= SMALL_GAP && node.end() - *first <= PIECE =>
            {
                *end = node.end();
                range.end += 1;
            }
            _ => {
                pieces.extend(open.take());
                open = Some(Piece { start, end: node.end(), owner: Owner::Blocks(i as u32..i as u32 + 1) });
            }
        }
    }
    pieces.extend(open);
}

fn run(memory: &dyn Memory, nodes: &[Node], index: &Index, options: &Options, pieces: &[Piece]) -> Vec<Edges> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut worker = Worker { memory, nodes, index, options, words: Words::default() };
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Relaxed);
            let Some(piece) = pieces.get(number) else { return done };
            done.push((number, worker.piece(piece)));
        }
    };
    let mut all: Vec<Edges> = Vec::new();
    all.resize_with(pieces.len(), Edges::default);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(pieces.len())).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done.into_iter().for_each(|(number, edges)| all[number] = edges);
    });
    all
}

/// Memory of a piece with its shadow.
#[derive(Default)]
struct Words {
    start: u64,
    bytes: Vec<u8>,
    v: Vec<u8>,
}

impl Words {
    /// Load `[start, end)`; what cannot be read counts as undefined.
    fn load(&mut self, memory: &dyn Memory, start: u64, end: u64) {
        let len = (end - start) as usize;
        self.start = start;
        self.bytes.resize(len, 0);
        self.v.resize(len, 0);
        fetch(start, &mut self.v, |addr, out| memory.v(addr, out), |gap| gap.fill(0xff));
        if !self.v.as_chunks::<8>().0.contains(&[0; 8]) {
            return; // nothing defined: what the bytes are does not matter
        }
        let mut holes: Vec<Range<usize>> = Vec::new();
        let base = self.bytes.as_ptr() as usize;
        fetch(
            start,
            &mut self.bytes,
            |addr, out| memory.read(addr, out),
            |gap| {
                let at = gap.as_ptr() as usize - base;
                holes.push(at..at + gap.len());
            },
        );
        holes.into_iter().for_each(|hole| self.v[hole].fill(0xff));
    }

    /// The defined words inside `[from, to)`.
    fn defined(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let first = (from.next_multiple_of(8) - self.start) as usize;
        let end = ((to & !7).saturating_sub(self.start) as usize).max(first);
        let (bytes, v) = (&self.bytes[first..end], &self.v[first..end]);
        bytes
            .as_chunks::<8>()
            .0
            .iter()
            .zip(v.as_chunks::<8>().0)
            .filter(|(_, v)| u64::from_ne_bytes(**v) == 0)
            .map(|(b, _)| u64::from_ne_bytes(*b))
    }

    /// The word at `addr` if it is there and defined.
    fn word(&self, addr: u64) -> Option<u64> {
        self.defined(addr, addr + 8).next()
    }
}

/// Fill `out` from `addr` on, page by page where something is missing; `gap` is told what is.
fn fetch(addr: u64, out: &mut [u8], read: impl Fn(u64, &mut [u8]) -> usize, mut gap: impl FnMut(&mut [u8])) {
    let mut done = 0;
    while done < out.len() {
        done += read(addr + done as u64, &mut out[done..]).min(out.len() - done);
        if done < out.len() {
            let at = addr + done as u64;
            let next = (((at & !(PAGE - 1)) + PAGE - addr) as usize).min(out.len());
            gap(&mut out[done..next]);
            done = next;
        }
    }
}

struct Worker<'a> {
    memory: &'a dyn Memory,
    nodes: &'a [Node],
    index: &'a Index<'a>,
    options: &'a Options,
    words: Words,
}

impl Worker<'_> {
    fn piece(&mut self, piece: &Piece) -> Edges {
        self.words.load(self.memory, piece.start, piece.end);
        let mut edges = Edges::default();
        match &piece.owner {
            Owner::Root => self.range(piece.start, piece.end, &mut edges),
            Owner::Part(block) => {
                let node = self.nodes[*block as usize];
                self.range(node.addr.max(piece.start), piece.end, &mut edges);
                if piece.start <= node.addr {
                    edges.shapes.push(self.shape(node));
                }
            }
            Owner::Blocks(range) => {
                for node in &self.nodes[range.start as usize..range.end as usize] {
                    self.range(node.addr, node.addr + node.size, &mut edges);
                    edges.ends.push((edges.starts.len() as u32, edges.interiors.len() as u32));
                    edges.shapes.push(self.shape(*node));
                }
            }
        }
        edges
    }

    /// The pointers in a range. The same pointer twice in a row is one edge.
    fn range(&self, from: u64, to: u64, edges: &mut Edges) {
        let mut last = 0;
        for word in self.words.defined(from, to) {
            if word == last {
                continue;
            }
            last = word;
            if let Some(target) = self.index.find(word) {
                let offset = word - self.nodes[target as usize].addr;
                if offset == 0 {
                    edges.starts.push(target);
                } else {
                    edges.interiors.push(Interior { target, offset: u32::try_from(offset).unwrap_or(u32::MAX) });
                }
            }
        }
    }

    /// One bit per heuristic that a pointer to the right place inside this block would satisfy.
    fn shape(&self, node: Node) -> u8 {
        let bit = |h: Heuristic, fits: bool| if fits && self.options.heuristics[h as usize] { 1 << h as u8 } else { 0 };
        let Some(first) = (node.size >= 8 && node.addr.is_multiple_of(8)).then(|| self.words.word(node.addr)).flatten() else { return 0 };
        let second = if node.size >= 16 { self.words.word(node.addr + 8) } else { None };
        let rest = node.size - 8;
        let is_string = second.is_some_and(|capacity| capacity.checked_add(25) == Some(node.size) && first <= capacity);
        bit(Heuristic::StdString, is_string)
            | bit(Heuristic::Length64, first > 0 && first == rest)
            | bit(Heuristic::NewArray, first > 0 && rest.is_multiple_of(first))
            | bit(Heuristic::MultipleInheritance, first % 8 == 0 && first >= PAGE && contains(&self.options.tables, first))
    }
}

/// Does one of the sorted ranges contain the address?
pub fn contains(ranges: &[Root], addr: u64) -> bool {
    let after = ranges.partition_point(|r| r.start <= addr);
    after > 0 && addr < ranges[after - 1].end
}

impl Scanned {
    /// The edges of the next piece; `last` = it is the last part of a block.
    fn append(&mut self, edges: Edges, last: bool) {
        let (s, i) = (self.starts.len(), self.interiors.len());
        self.starts.extend_from_slice(&edges.starts);
        self.interiors.extend_from_slice(&edges.interiors);
        self.ends.extend(edges.ends.iter().map(|e| (s + e.0 as usize, i + e.1 as usize)));
        self.shapes.extend_from_slice(&edges.shapes);
        if last {
            self.close();
        }
    }

    fn close(&mut self) {
        self.ends.push((self.starts.len(), self.interiors.len()));
    }

    /// Edges that start in the roots.
    pub fn root_edges(&self) -> (&[u32], &[Interior]) {
        let (s, i) = self.ends[0];
        (&self.starts[..s], &self.interiors[..i])
    }

    /// Edges that start in a block.
    #[inline]
    pub fn block_edges(&self, block: u32) -> (&[u32], &[Interior]) {
        let ((s0, i0), (s1, i1)) = (self.ends[block as usize], self.ends[block as usize + 1]);
        (&self.starts[s0..s1], &self.interiors[i0..i1])
    }
}
