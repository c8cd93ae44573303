//! Where something of its own begins in low code: a translation, a replaced function.
//!
//! ```text
//! a bit for every byte of code    may something begin here?    asked for every instruction that is decoded
//! numbers, hashed by address      which region does            asked where a bit says so, and by branches
//! ```
//! The branch table could tell, too, but it takes 8 bytes for every byte of code: reading it all along the code that is translated touches
//! more memory than anything else does at a start. So only targets of indirect branches are entered there, when they are first met.
//!
//! Bits are never taken back: one too many costs a search.
#![allow(unsafe_code, reason = "the bits lie at a fixed place")]

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use memcheck_abi::layout::{CODE_END, STARTS, STARTS_END};
use memcheck_rt::sys;

/// Map the bits. Once, before anything begins.
pub fn init() -> bool {
    sys::map_fixed(STARTS, STARTS_END - STARTS, sys::PROT_READ | sys::PROT_WRITE)
}

fn bits(pc: u64) -> &'static AtomicU8 {
    debug_assert!(pc < CODE_END, "low code");
    // SAFETY: the area is mapped and has a bit for every address of low code.
    unsafe { &*((STARTS + pc / 8) as *const AtomicU8) }
}

/// Something begins at `pc` from now on.
pub fn mark(pc: u64) {
    if pc < CODE_END && !is_marked(pc) {
        bits(pc).fetch_or(1 << (pc & 7), Ordering::Relaxed);
    }
}

/// May something begin at `pc`, which is low code?
pub fn is_marked(pc: u64) -> bool {
    bits(pc).load(Ordering::Relaxed) >> (pc & 7) & 1 != 0
}

const FREE: u64 = 0;
/// Of an address that is no longer translated: searches go on.
const GONE: u64 = 1;
/// Makes every other entry different from those.
const TAKEN: u64 = 1 << 63;
const FIRST_SIZE: usize = 1 << 12;

/// Regions by the address of low code that they translate.
pub struct Starts {
    /// The address in the upper half, the region's number in the lower; open addressing, a power of two, at most half used.
    entries: Vec<u64>,
    used: usize,
}

impl Starts {
    pub const fn new() -> Starts {
        Starts { entries: Vec::new(), used: 0 }
    }

    /// Where the entry of `pc` is looked for, and then on. Neighbours are near each other: they are asked for one after the other.
    fn first(&self, pc: u64) -> usize {
        const NEAR: u32 = 8;
        let bits = self.entries.len().trailing_zeros();
        let block = ((pc >> NEAR).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize;
        block & !31 | (pc >> 3) as usize & 31
    }

    fn place(&self, pc: u64) -> Option<usize> {
        let mask = self.entries.len().checked_sub(1)?;
        let mut at = self.first(pc);
        loop {
            match self.entries[at & mask] {
                FREE => return None,
                entry if (entry ^ TAKEN) >> 32 == pc => return Some(at & mask),
                _ => at += 1,
            }
        }
    }

    /// The number of the region that translates `pc`.
    pub fn get(&self, pc: u64) -> Option<u32> {
        self.place(pc).map(|at| self.entries[at] as u32)
    }

    pub fn insert(&mut self, pc: u64, region: u32) {
        let entry = TAKEN | pc << 32 | u64::from(region);
        if let Some(at) = self.place(pc) {
            self.entries[at] = entry;
            return;
        }
        if self.used * 2 >= self.entries.len() {
            self.grow();
        }
        self.put(entry);
    }

    pub fn remove(&mut self, pc: u64) {
        if let Some(at) = self.place(pc) {
            self.entries[at] = GONE;
        }
    }

    fn put(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut at = self.first((entry ^ TAKEN) >> 32);
        while self.entries[at & mask] & TAKEN != 0 {
            at += 1;
        }
        // Code that is made again and again leaves no trail of what is gone.
        self.used += usize::from(self.entries[at & mask] == FREE);
        self.entries[at & mask] = entry;
    }

    fn grow(&mut self) {
        let living = self.entries.iter().filter(|entry| **entry & TAKEN != 0).count();
        let size = (living * 4).next_power_of_two().max(FIRST_SIZE);
        let old = core::mem::replace(&mut self.entries, alloc::vec![FREE; size]);
        self.used = 0;
        for entry in old.into_iter().filter(|entry| entry & TAKEN != 0) {
            self.put(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_until_they_are_removed() {
        let mut starts = Starts::new();
        assert_eq!(starts.get(0x40_1000), None);
        starts.remove(0x40_1000);
        let pc = |i: u32| 0x40_0000 + u64::from(i) * 3;
        for i in 0..20_000 {
            starts.insert(pc(i), i);
        }
        assert!((0..20_000).all(|i| starts.get(pc(i)) == Some(i) && starts.get(pc(i) + 1).is_none()));
        (0..20_000).filter(|i| i % 3 == 0).for_each(|i| starts.remove(pc(i)));
        for i in 0..20_000 {
            assert_eq!(starts.get(pc(i)), (i % 3 != 0).then_some(i));
        }
        starts.insert(pc(1), 7);
        assert_eq!(starts.get(pc(1)), Some(7), "the newest counts");
    }

    #[test]
    fn what_comes_and_goes_takes_no_room() {
        let mut starts = Starts::new();
        for i in 0..100_000 {
            starts.insert(i, i as u32);
            starts.remove(i);
        }
        assert_eq!(starts.entries.len(), FIRST_SIZE);
        let used = starts.used;
        for i in 0..100_000 {
            starts.insert(7, i);
            starts.remove(7);
        }
        assert!(starts.used <= used + 1);
        assert!((0..100_000).all(|i| starts.get(i).is_none()));
    }
}
