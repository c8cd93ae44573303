//! The accesses that a plain loop over a range makes, for reports.
//!
//! Users know the sizes in reports about mem* functions from loops that move words where the alignment of both sides allows it, and
//! counts from loops that report every access:
//!
//! ```text
//! same alignment     bytes up to a word, words, then halves (copies only), bytes
//! otherwise          halves if both sides are even (copies only), bytes
//! ```
//! Seen from the end for overlapping moves to higher addresses. String functions go character by character.

/// As `unit`: words where possible.
pub const WORD: u64 = 8;

/// (offset, size) of each access of a copy, or of filling.
pub struct Steps {
    dst: u64,
    src: u64,
    /// What is left.
    n: u64,
    /// Size of one access, or [`WORD`].
    unit: u64,
    forward: bool,
    halves: bool,
    /// Words, or bytes up to one, may still come.
    words: bool,
    done: u64,
}

impl Steps {
    pub fn copy(dst: u64, src: u64, n: u64, unit: u64) -> Steps {
        let words = unit == WORD && (dst ^ src).is_multiple_of(WORD);
        Steps { dst, src, n, unit, forward: dst.wrapping_sub(src) >= n, halves: true, words, done: 0 }
    }

    /// Of a copy that does not care for overlaps.
    pub fn forward(dst: u64, src: u64, n: u64, unit: u64) -> Steps {
        Steps { forward: true, ..Steps::copy(dst, src, n, unit) }
    }

    pub fn fill(dst: u64, n: u64, unit: u64) -> Steps {
        Steps { halves: false, forward: true, ..Steps::copy(dst, dst, n, unit) }
    }

    /// The access of a copy from its start that byte `at` belongs to.
    pub fn around(dst: u64, src: u64, n: u64, at: u64) -> (u64, u64) {
        let head = dst.wrapping_neg() % WORD;
        let start = at.saturating_sub(head) / WORD * WORD + head;
        if (dst ^ src).is_multiple_of(WORD) && at >= head && start.saturating_add(WORD) <= n { (start, WORD) } else { (at, 1) }
    }

    fn size(&mut self) -> u64 {
        if self.unit != WORD {
            return self.unit.min(self.n);
        }
        let offset = if self.forward { self.done } else { self.n };
        let (d, s) = (self.dst.wrapping_add(offset), self.src.wrapping_add(offset));
        if self.words && !d.is_multiple_of(WORD) {
            return 1;
        }
        self.words &= self.n >= WORD;
        match (self.words, self.halves && (d | s).is_multiple_of(2) && self.n >= 2) {
            (true, _) => WORD,
            (false, true) => 2,
            (false, false) => 1,
        }
    }
}

impl Iterator for Steps {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.n == 0 {
            return None;
        }
        let size = self.size();
        self.n -= size;
        let at = if self.forward { self.done } else { self.n };
        self.done += size;
        Some((at, size))
    }
}

#[cfg(test)]
mod tests {
    use super::{Steps, WORD};

    fn sizes(steps: Steps) -> Vec<(u64, u64)> {
        steps.collect()
    }

    #[test]
    fn words_where_both_sides_are_aligned_alike() {
        assert_eq!(sizes(Steps::copy(0x1000, 0x2000, 19, WORD)), [(0, 8), (8, 8), (16, 2), (18, 1)]);
        assert_eq!(sizes(Steps::copy(0x1006, 0x2006, 11, WORD)), [(0, 1), (1, 1), (2, 8), (10, 1)]);
        assert_eq!(sizes(Steps::copy(0x1002, 0x2000, 5, WORD)), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(sizes(Steps::copy(0x1001, 0x2000, 2, WORD)), [(0, 1), (1, 1)]);
        assert_eq!(sizes(Steps::fill(0x1006, 14, WORD)), [(0, 1), (1, 1), (2, 8), (10, 1), (11, 1), (12, 1), (13, 1)]);
    }

    #[test]
    fn from_the_end_when_the_ranges_ask_for_it() {
        assert_eq!(sizes(Steps::copy(0x1008, 0x1000, 18, WORD)), [(17, 1), (16, 1), (8, 8), (0, 8)]);
    }

    #[test]
    fn the_access_around_a_byte() {
        assert_eq!(Steps::around(0x1006, 0x2006, 11, 1), (1, 1));
        assert_eq!(Steps::around(0x1006, 0x2006, 11, 9), (2, 8));
        assert_eq!(Steps::around(0x1006, 0x2006, 11, 10), (10, 1));
        assert_eq!(Steps::around(0, 0, 64, 0), (0, 8));
        assert_eq!(Steps::around(1, 0, 64, 3), (3, 1));
    }

    #[test]
    fn characters() {
        assert_eq!(sizes(Steps::copy(0x1000, 0x2000, 8, 4)), [(0, 4), (4, 4)]);
        assert_eq!(sizes(Steps::fill(0x1000, 2, 1)), [(0, 1), (1, 1)]);
    }
}
