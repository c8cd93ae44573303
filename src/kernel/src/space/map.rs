//! The program's mappings, as this side knows them.
//!
//! A piece is what one `mmap` made, or what `mprotect` and `munmap` left of it. Pieces of the same origin merge when their
//! protection becomes equal again; pieces of different origin never do, so that two thread stacks that touch stay two.

use super::gaps::Gaps;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use memcheck_abi::layout::{LOW_END, LOW_START, MMAP_END, MMAP_START};
use memcheck_rt::sys;

/// Kind flags of a mapping.
pub mod kind {
    pub const FILE: u32 = 1;
    pub const SHARED: u32 = 2;
    /// MAP_STACK, MAP_GROWSDOWN or the main stack.
    pub const STACK: u32 = 4;
    pub const BRK: u32 = 8;
    /// System V shared memory.
    pub const SHM: u32 = 16;
    /// Its owner took all access away by mprotect: to touch it is his business, and may be his way to be told.
    pub const CLOSED: u32 = 32;
}

/// `[start, end)` with its PROT_* bits and [`kind`] flags; `origin` = serial number of the call that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub start: u64,
    pub end: u64,
    pub prot: u32,
    pub kind: u32,
    pub origin: u64,
}

pub struct Map {
    pieces: BTreeMap<u64, Piece>,
    pub low: Gaps,
    pub high: Gaps,
    next_origin: u64,
    /// Where code of files was, oldest first: not handed out again for a while, since stacks of blocks and errors still name it.
    retired: VecDeque<(u64, u64)>,
    retired_bytes: u64,
}

/// Of so many bytes of unloaded code the addresses wait.
const RETIRED_MAX: u64 = 64 << 20;

impl Map {
    pub const fn empty() -> Self {
        Map { pieces: BTreeMap::new(), low: Gaps::empty(), high: Gaps::empty(), next_origin: 1, retired: VecDeque::new(), retired_bytes: 0 }
    }

    pub fn new() -> Self {
        Map { low: Gaps::new(LOW_START, LOW_END), high: Gaps::new(MMAP_START, MMAP_END), ..Map::empty() }
    }

    /// The piece around `addr`.
    pub fn at(&self, addr: u64) -> Option<Piece> {
        self.pieces.range(..=addr).next_back().map(|(_, p)| *p).filter(|p| addr < p.end)
    }

    /// All pieces that overlap the range, whole, in order. An empty range overlaps nothing, wherever it is.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = Piece> + '_ {
        let first = self.at(start).filter(|_| start < end).map_or(start, |p| p.start);
        self.pieces.range(first..end.max(first)).map(|(_, p)| *p)
    }

    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_none()
    }

    /// Where the first hole in `[start, end)` begins; `end` if there is none.
    pub fn contiguous_end(&self, start: u64, end: u64) -> u64 {
        let mut at = start;
        for piece in self.overlapping(start, end) {
            if piece.start > at {
                break;
            }
            at = piece.end;
        }
        at.min(end)
    }

    /// Serial number for a new mapping.
    pub fn origin(&mut self) -> u64 {
        self.next_origin += 1;
        self.next_origin
    }

    /// Replace whatever lies in the piece's range by it.
    pub fn set(&mut self, piece: Piece) {
        self.clear(piece.start, piece.end);
        self.take(piece.start, piece.end);
        self.insert_merged(piece);
    }

    /// Nothing is mapped in the range any more. Returns what was, cut to the range.
    pub fn clear(&mut self, start: u64, end: u64) -> Vec<Piece> {
        let removed = self.cut(start, end);
        self.low.give(start, end);
        self.high.give(start, end);
        removed
    }

    /// As [`Map::clear`]; if an object was unloaded, its addresses wait.
    pub fn unload(&mut self, start: u64, end: u64) -> Vec<Piece> {
        let removed = self.cut(start, end);
        self.high.give(start, end);
        let is_code = |p: &Piece| p.kind & kind::FILE != 0 && p.prot & sys::PROT_EXEC as u32 != 0;
        if !removed.iter().any(is_code) {
            self.low.give(start, end);
            return removed;
        }
        self.retired.push_back((start, end));
        self.retired_bytes += end - start;
        while self.retired_bytes > RETIRED_MAX && self.revive_oldest() {}
        removed
    }

    /// The room of the code that was unloaded first is free again, as far as nothing was mapped there meanwhile. False: there is none.
    pub fn revive_oldest(&mut self) -> bool {
        let Some((start, end)) = self.retired.pop_front() else { return false };
        self.retired_bytes -= end - start;
        self.low.give(start, end);
        for piece in self.overlapping(start, end).collect::<Vec<_>>() {
            self.low.take(piece.start, piece.end);
        }
        true
    }

    /// Change protections; pieces keep their origin and, but for [`kind::CLOSED`], their kind. Returns what was, cut to the range.
    pub fn protect(&mut self, start: u64, end: u64, prot: u32) -> Vec<Piece> {
        let old = self.cut(start, end);
        for &piece in &old {
            let kind = match (prot, piece.prot) {
                (0, 0) => piece.kind,
                (0, _) => piece.kind | kind::CLOSED,
                _ => piece.kind & !kind::CLOSED,
            };
            self.insert_merged(Piece { prot, kind, ..piece });
        }
        old
    }

    /// Do not hand out these addresses (something that the map does not know lies there).
    pub fn take(&mut self, start: u64, end: u64) {
        self.low.take(start, end);
        self.high.take(start, end);
    }

    /// Remove pieces and cut those at the ends; the range stays taken.
    fn cut(&mut self, start: u64, end: u64) -> Vec<Piece> {
        let mut inside = Vec::new();
        for piece in self.overlapping(start, end).collect::<Vec<_>>() {
            self.pieces.remove(&piece.start);
            if piece.start < start {
                self.pieces.insert(piece.start, Piece { end: start, ..piece });
            }
            if piece.end > end {
                self.pieces.insert(end, Piece { start: end, ..piece });
            }
            inside.push(Piece { start: piece.start.max(start), end: piece.end.min(end), ..piece });
        }
        inside
    }

    fn insert_merged(&mut self, mut piece: Piece) {
        let same = |p: &Piece, q: &Piece| p.origin == q.origin && p.prot == q.prot && p.kind == q.kind;
        if let Some(before) = self.pieces.range(..piece.start).next_back().map(|(_, p)| *p)
            && before.end == piece.start
            && same(&before, &piece)
        {
            self.pieces.remove(&before.start);
            piece.start = before.start;
        }
        if let Some(after) = self.pieces.get(&piece.end).copied()
            && same(&after, &piece)
        {
            self.pieces.remove(&after.start);
            piece.end = after.end;
        }
        self.pieces.insert(piece.start, piece);
    }
}

impl Default for Map {
    fn default() -> Self {
        Map::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Map, Piece, kind};
    use memcheck_abi::layout::LOW_START;

    fn piece(start: u64, end: u64, prot: u32, origin: u64) -> Piece {
        Piece { start, end, prot, kind: 0, origin }
    }

    fn list(map: &Map) -> alloc::vec::Vec<(u64, u64, u32, u64)> {
        map.overlapping(0, u64::MAX).map(|p| (p.start, p.end, p.prot, p.origin)).collect()
    }

    #[test]
    fn pieces_of_one_origin_merge_again() {
        let mut map = Map::new();
        map.set(piece(0x1000, 0x9000, 0, 1));
        map.protect(0x2000, 0x4000, 3);
        assert_eq!(list(&map), [(0x1000, 0x2000, 0, 1), (0x2000, 0x4000, 3, 1), (0x4000, 0x9000, 0, 1)]);
        map.protect(0x4000, 0x6000, 3);
        assert_eq!(list(&map)[1], (0x2000, 0x6000, 3, 1));
        map.protect(0x1000, 0x9000, 1);
        assert_eq!(list(&map), [(0x1000, 0x9000, 1, 1)]);
    }

    #[test]
    fn what_was_open_once_is_closed_and_not_nothing() {
        let mut map = Map::new();
        map.set(piece(0x1000, 0x4000, 0, 1));
        map.protect(0x2000, 0x3000, 3);
        map.protect(0x1000, 0x3000, 0);
        let closed = |at| map.at(at).is_some_and(|p| p.kind & kind::CLOSED != 0);
        assert_eq!([0x1000, 0x2000, 0x3000].map(closed), [false, true, false]);
        map.protect(0x2000, 0x3000, 1);
        assert_eq!(map.at(0x2000).map(|p| p.kind), Some(0));
    }

    #[test]
    fn neighbours_of_different_origin_stay_apart() {
        let mut map = Map::new();
        map.set(piece(0x1000, 0x2000, 3, 1));
        map.set(piece(0x2000, 0x3000, 3, 2));
        assert_eq!(map.at(0x1fff).map(|p| p.end), Some(0x2000));
        assert_eq!(map.at(0x2000).map(|p| p.start), Some(0x2000));
        assert_eq!(map.at(0x3000), None);
    }

    #[test]
    fn clearing_cuts_both_ends_and_tells_what_was_there() {
        let mut map = Map::new();
        map.set(piece(0x1000, 0x5000, 5, 1));
        map.set(piece(0x6000, 0x8000, 3, 2));
        let gone = map.clear(0x2000, 0x7000);
        assert_eq!(gone, [piece(0x2000, 0x5000, 5, 1), piece(0x6000, 0x7000, 3, 2)]);
        assert_eq!(list(&map), [(0x1000, 0x2000, 5, 1), (0x7000, 0x8000, 3, 2)]);
        assert_eq!((map.contiguous_end(0x1800, 0x9000), map.contiguous_end(0x7000, 0x7800)), (0x2000, 0x7800));
        assert_eq!(map.contiguous_end(0x3000, 0x9000), 0x3000);
        assert!(map.is_free(0x2000, 0x7000) && !map.is_free(0x2000, 0x7001) && !map.is_free(0x1fff, 0x2000));
    }

    #[test]
    fn nothing_changes_where_nothing_is_meant() {
        let mut map = Map::new();
        map.set(piece(0x1000, 0x5000, 7, 1));
        assert_eq!(map.protect(0x3000, 0x3000, 1), []);
        assert_eq!(map.clear(0x3000, 0x3000), []);
        assert_eq!(list(&map), [(0x1000, 0x5000, 7, 1)]);
        assert!(map.is_free(0x3000, 0x3000));
    }

    #[test]
    fn areas_follow_the_pieces() {
        let mut map = Map::new();
        map.set(piece(LOW_START, LOW_START + 0x4000, 5, 1));
        assert!(!map.low.is_free(LOW_START, LOW_START + 0x1000));
        map.protect(LOW_START, LOW_START + 0x4000, 0);
        assert!(!map.low.is_free(LOW_START, LOW_START + 0x1000));
        map.clear(LOW_START, LOW_START + 0x1000);
        assert!(map.low.is_free(LOW_START, LOW_START + 0x1000));
        assert!(!map.low.is_free(LOW_START, LOW_START + 0x2000));
    }

    #[test]
    fn addresses_of_unloaded_code_wait() {
        let code = Piece { kind: kind::FILE, ..piece(LOW_START, LOW_START + 0x2000, 5, 1) };
        let mut map = Map::new();
        map.set(code);
        map.unload(LOW_START, LOW_START + 0x2000);
        assert!(map.is_free(LOW_START, LOW_START + 0x2000) && !map.low.is_free(LOW_START, LOW_START + 0x1000));
        map.set(piece(LOW_START, LOW_START + 0x1000, 3, 2));
        assert!(map.revive_oldest() && !map.revive_oldest());
        assert!(!map.low.is_free(LOW_START, LOW_START + 0x1000));
        assert!(map.low.is_free(LOW_START + 0x1000, LOW_START + 0x2000));
        // Data, and code that was made at run time, leave nothing behind.
        map.unload(LOW_START, LOW_START + 0x1000);
        assert!(map.low.is_free(LOW_START, LOW_START + 0x1000));
    }
}
