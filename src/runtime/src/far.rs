//! Branches to code above 2 GiB, which has no place in the branch table.
//!
//! ```text
//! first time    mov rcx, gs:[rcx*8+table] faults (or finds nothing)   fault.rs: `mark` the branch, drop its region
//! from then on  jmp dispatch                                          asm::branch: branch table, or `TABLE` here
//! not there     Rust: find or make the translation, `insert`
//! ```
//! An entry of `TABLE` is one word, so that it is read whole while others change it: the address without its lowest 16 bits, then the
//! offset of the translation in the code cache. The lowest bits are told by the place of the entry.

use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::layout::{CACHE_START, CODE_END};

const ENTRIES: usize = 1 << 16;
pub static TABLE: [AtomicU64; ENTRIES] = [const { AtomicU64::new(0) }; ENTRIES];

/// Branches that were seen to go far; open addressing, 0 = free.
const SITES: usize = 1 << 13;
static BRANCHES: [AtomicU64; SITES] = [const { AtomicU64::new(0) }; SITES];

fn entry(pc: u64) -> &'static AtomicU64 {
    &TABLE[((pc ^ pc >> 16) & 0xffff) as usize]
}

/// The translation of `pc` begins at `host`. With the cache locked.
pub fn insert(pc: u64, host: u64) {
    if pc >= CODE_END {
        entry(pc).store(pc >> 16 << 32 | (host - CACHE_START), Ordering::Release);
    }
}

/// `pc` has no translation any more. With the cache locked.
pub fn remove(pc: u64) {
    if pc >= CODE_END && entry(pc).load(Ordering::Relaxed) >> 32 == pc >> 16 {
        entry(pc).store(0, Ordering::Release);
    }
}

/// The branch at `pc` goes far. Forgotten if there are too many.
pub fn mark(pc: u64) {
    if let Some(site) = sites(pc).find(|site| matches!(site.load(Ordering::Relaxed), at if at == 0 || at == pc)) {
        site.store(pc, Ordering::Release);
    }
}

/// Must the branch at `pc` be made by the dispatcher? High code branches to its like.
pub fn is_far(pc: u64) -> bool {
    let found = || sites(pc).map(|site| site.load(Ordering::Acquire)).take_while(|&at| at != 0).any(|at| at == pc);
    pc >= CODE_END || found()
}

fn sites(pc: u64) -> impl Iterator<Item = &'static AtomicU64> {
    let first = (pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize;
    (0..64).map(move |i| &BRANCHES[(first + i) % SITES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_tell_addresses_apart() {
        let (a, b) = (0x123_4567_8000, 0x123_4567_8001);
        insert(a, CACHE_START + 64);
        insert(b, CACHE_START + 128);
        assert_eq!(entry(a).load(Ordering::Relaxed), 0x123_4567 << 32 | 64);
        remove(b);
        assert_eq!((entry(a).load(Ordering::Relaxed) & 0xffff_ffff, entry(b).load(Ordering::Relaxed)), (64, 0));
        // The same place, another address: the newer wins, and only its own removal counts.
        let same = a ^ 0x1_0001;
        assert_eq!(core::ptr::from_ref(entry(a)), core::ptr::from_ref(entry(same)));
        insert(same, CACHE_START + 192);
        remove(a);
        assert_eq!(entry(same).load(Ordering::Relaxed) & 0xffff_ffff, 192);
    }

    #[test]
    fn marked_branches() {
        assert!(!is_far(0x40_1000));
        mark(0x40_1000);
        mark(0x40_1000);
        assert!(is_far(0x40_1000) && !is_far(0x40_1001) && is_far(CODE_END));
    }
}
