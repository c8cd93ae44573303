//! Origin words, and where there are any.
//!
//! A word says where the undefined bytes of an aligned 4 bytes came from (`runtime::origin` knows what it means); 0 = look at the place
//! itself. Words are written where undefined data is moved to, and nobody wipes them when the memory is freed. So memory that begins a new
//! life must lose those of its last one, and to find out quickly whether it has any there is a map of pages: translated code, the string
//! functions and the runtime's rules note in it what they write. Several pages share an entry, which is never cleared: all this may cost is
//! that words are wiped where there are none.
#![allow(unsafe_code, reason = "the words and the map are reached by address arithmetic")]

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use memcheck_abi::layout::{ORIGIN_DISTANCE, ORIGIN_MAP, ORIGIN_PAGES};

const PAGE: u64 = 4096;

#[inline(always)]
fn entry(addr: u64) -> &'static AtomicU8 {
    // SAFETY: inside the map, which is there before the program runs.
    unsafe { &*((ORIGIN_MAP + addr / PAGE % ORIGIN_PAGES) as *const AtomicU8) }
}

/// Words are written for `[addr, addr + len)`.
pub fn note(addr: u64, len: u64) {
    (addr / PAGE..=(addr + len - 1) / PAGE).take(ORIGIN_PAGES as usize).for_each(|page| entry(page * PAGE).store(1, Relaxed));
}

/// `[addr, addr + len)`, 16-aligned memory of the heap, begins a new life: what is undefined there was not moved there.
#[inline(always)]
pub fn forget(addr: u64, len: u64) {
    let last = addr + len;
    if last - addr <= PAGE && entry(addr).load(Relaxed) | entry(last).load(Relaxed) == 0 {
        return;
    }
    wipe(addr, last);
}

#[cold]
#[inline(never)]
fn wipe(addr: u64, end: u64) {
    let mut at = addr;
    while at < end {
        let next = end.min((at + PAGE) & !(PAGE - 1));
        if entry(at).load(Relaxed) != 0 {
            // SAFETY: words of the heap, which are mapped; the last one may cover bytes behind the range, which are red zone.
            unsafe { core::ptr::write_bytes((at + ORIGIN_DISTANCE) as *mut u32, 0, (next - at).div_ceil(4) as usize) };
        }
        at = next;
    }
}

/// Words of a block of the heap go along with what realloc moves. What has none was born in the old block, and now counts as born in the new
/// one: to give it a word would cost as much memory again as a large block that is mostly undefined has.
pub fn carry(to: u64, from: u64, len: u64) {
    let end = from + len;
    let mut at = from;
    while at < end {
        let next = end.min((at + PAGE) & !(PAGE - 1));
        if entry(at).load(Relaxed) != 0 {
            carry_noted(to + (at - from), at, next - at);
        }
        at = next;
    }
}

#[cold]
#[inline(never)]
fn carry_noted(to: u64, from: u64, len: u64) {
    for i in (0..len).step_by(4) {
        // SAFETY: words of the heap, which are mapped.
        let word = unsafe { *((from + i + ORIGIN_DISTANCE) as *const u32) };
        let word = if word & 3 == 0 && word != 0 { further(word, from.wrapping_sub(to) as i64) } else { word };
        if word != 0 {
            // SAFETY: as above.
            unsafe { *((to + i + ORIGIN_DISTANCE) as *mut u32) = word };
        }
    }
    note(to, len);
}

/// A distance is counted from the place where it stands.
fn further(distance: u32, by: i64) -> u32 {
    i32::try_from(i64::from(distance as i32) + by).map_or(0, |distance| distance as u32)
}
