//! Free address ranges of one area, and the choice among them.
//!
//! Best fit, and inside the chosen gap its high end: holes of the size of a thread stack are filled by the next thread stack, and
//! the large gap shrinks from above, so that neighbours in time are neighbours in space. All operations are logarithmic in the
//! number of gaps, whatever their size.

use alloc::collections::{BTreeMap, BTreeSet};

pub const PAGE: u64 = 4096;

/// Gaps never touch each other: adjacent ones are merged.
pub struct Gaps {
    by_start: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    start: u64,
    end: u64,
}

impl Gaps {
    pub const fn empty() -> Self {
        Gaps { by_start: BTreeMap::new(), by_len: BTreeSet::new(), start: 0, end: 0 }
    }

    /// All of `[start, end)` is free.
    pub fn new(start: u64, end: u64) -> Self {
        let mut gaps = Gaps { start, end, ..Gaps::empty() };
        gaps.insert(start, end);
        gaps
    }

    fn insert(&mut self, start: u64, end: u64) {
        if start < end {
            self.by_start.insert(start, end);
            self.by_len.insert((end - start, start));
        }
    }

    fn remove(&mut self, start: u64, end: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(end - start, start));
    }

    /// Where `len` bytes aligned to `align` (a power of two) would go. Nothing is taken.
    pub fn find(&self, len: u64, align: u64) -> Option<u64> {
        let fits = |&(size, start): &(u64, u64)| {
            let at = (start + size - len) & !(align - 1);
            (at >= start).then_some(at)
        };
        self.by_len.range((len, 0)..).find_map(fits)
    }

    /// Is the whole range free and inside the area?
    #[cfg(test)]
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        start < end && self.by_start.range(..=start).next_back().is_some_and(|(_, &e)| end <= e)
    }

    /// Bytes free in all.
    pub fn total(&self) -> u64 {
        self.by_start.iter().map(|(s, e)| e - s).sum()
    }

    /// The range is no longer free (parts of it may not have been). Clips to the area.
    pub fn take(&mut self, start: u64, end: u64) {
        let (start, end) = (start.max(self.start), end.min(self.end));
        while let Some((&s, &e)) = self.by_start.range(..end).next_back() {
            if start >= end || e <= start {
                return;
            }
            self.remove(s, e);
            self.insert(s, start.min(e));
            self.insert(end.max(s), e);
            if s <= start {
                return;
            }
        }
    }

    /// The range is free again (parts of it may have been). Clips to the area.
    pub fn give(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start.max(self.start), end.min(self.end));
        if start >= end {
            return;
        }
        while let Some((&s, &e)) = self.by_start.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.remove(s, e);
            start = start.min(s);
            end = end.max(e);
        }
        self.insert(start, end);
    }

    #[cfg(test)]
    pub fn list(&self) -> alloc::vec::Vec<(u64, u64)> {
        assert_eq!(self.by_len.len(), self.by_start.len());
        assert!(self.by_start.iter().all(|(&s, &e)| self.by_len.contains(&(e - s, s))));
        self.by_start.iter().map(|(&s, &e)| (s, e)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Gaps;
    use alloc::vec::Vec;

    /// The model: one boolean per unit.
    struct Model([bool; 200]);

    impl Model {
        fn list(&self) -> Vec<(u64, u64)> {
            let mut out = Vec::new();
            let mut at = 0;
            while at < 200 {
                let start = at;
                while at < 200 && self.0[at] {
                    at += 1;
                }
                if at > start {
                    out.push((start as u64, at as u64));
                }
                at = at.max(start + 1);
            }
            out
        }

        /// Smallest gap that fits, the lowest among equals; its high end, aligned.
        fn find(&self, len: u64, align: u64) -> Option<u64> {
            let mut gaps: Vec<_> = self.list().into_iter().map(|(s, e)| (e - s, s)).collect();
            gaps.sort_unstable();
            gaps.iter().filter(|g| g.0 >= len).map(|g| (g.1, (g.1 + g.0 - len) / align * align)).find(|(s, at)| at >= s).map(|x| x.1)
        }
    }

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state >> 11
    }

    #[test]
    fn agrees_with_a_model_of_booleans() {
        let mut seed = 0x1234_5678_9abc_def1;
        for _ in 0..50 {
            let mut gaps = Gaps::new(10, 190);
            let mut model = Model([false; 200]);
            model.0[10..190].fill(true);
            for _ in 0..200 {
                let (start, len) = (random(&mut seed) % 200, random(&mut seed) % 30 + 1);
                let end = (start + len).min(200);
                let inside = start.max(10) as usize..end.clamp(10, 190).max(start.max(10)) as usize;
                let free = random(&mut seed).is_multiple_of(2);
                if inside.start < inside.end {
                    if free {
                        gaps.give(start, end)
                    } else {
                        gaps.take(start, end)
                    }
                    model.0[inside].fill(free);
                }
                assert_eq!(gaps.list(), model.list());
                let align = 1 << (random(&mut seed) % 4);
                assert_eq!(gaps.find(len, align), model.find(len, align));
                let all_free = (start..end).all(|i| model.0[i as usize]);
                assert_eq!(gaps.is_free(start, end), all_free);
            }
            assert_eq!(gaps.total(), model.0.iter().filter(|&&b| b).count() as u64);
        }
    }

    #[test]
    fn neighbours_in_time_are_neighbours_in_space() {
        let mut gaps = Gaps::new(0x1000, 0x10_0000);
        let a = gaps.find(0x2000, 0x1000).unwrap();
        gaps.take(a, a + 0x2000);
        let b = gaps.find(0x3000, 0x1000).unwrap();
        assert_eq!((a, b), (0xf_e000, 0xf_b000));
        gaps.take(b, b + 0x3000);
        gaps.give(a, a + 0x2000);
        assert_eq!(gaps.find(0x2000, 0x1000), Some(a), "a hole of the right size is filled first");
    }
}
