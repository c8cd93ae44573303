//! Shadow of whole mappings: forgotten when they go away, carried along when they move.
//!
//! The invariant that makes new mappings free: wherever the program has no mapping, V and A are zero, so a fresh mapping is
//! already "addressable and defined". Reservations of terabytes cost nothing, because untouched shadow has no pages.
//! V_DISTANCE is no multiple of the page size: the shadow of a page lies in two, and whole pages are those in between.
#![allow(unsafe_code, reason = "gives shadow pages back and copies between shadow ranges")]

use memcheck_abi::layout::{A_BASE, V_DISTANCE, in_program};
use memcheck_rt::sys;

/// From this many shadow bytes on their page tables are moved: a mapping of gigabytes is mostly untouched, and looking would touch it.
const LARGE: u64 = 16 << 20;

/// Below this many shadow bytes a look (and rarely a fill) is cheaper than a system call.
const SMALL: u64 = 64 << 10;

/// The program has nothing at `[addr, addr + len)` any more: V and A are zero again. Page-aligned.
pub fn forget(addr: u64, len: u64) {
    if in_program(addr, len) {
        zero(addr + V_DISTANCE, len);
        zero(A_BASE + addr / 8, len / 8);
    }
}

/// Carry V and A of a mapping that moved, then forget the old place; the ranges do not overlap. Page-aligned.
pub fn move_(from: u64, to: u64, len: u64) {
    if !in_program(from, len) || !in_program(to, len) {
        return;
    }
    forget(to, len);
    copy(from + V_DISTANCE, to + V_DISTANCE, len);
    copy(A_BASE + from / 8, A_BASE + to / 8, len / 8);
    forget(from, len);
}

/// Make shadow bytes zero; pages that are all zero are not touched.
fn zero(start: u64, len: u64) {
    if len < SMALL {
        return zero_small(start, len);
    }
    let first = start.next_multiple_of(4096);
    let end = (start + len) & !4095;
    zero_small(start, first - start);
    // SAFETY: whole pages of shadow, whose contents the caller gave up.
    unsafe { sys::discard(first, end - first) };
    zero_small(end, start + len - end);
}

fn zero_small(start: u64, len: u64) {
    if len == 0 {
        return;
    }
    // SAFETY: shadow of program addresses is mapped; nobody else uses the shadow of a range that is being unmapped.
    let bytes = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, len as usize) };
    if !is_zero(bytes) {
        bytes.fill(0);
    }
}

/// Copy shadow, leaving alone what is zero (the target is zero already). Whoever copies gives the source up.
fn copy(from: u64, to: u64, len: u64) {
    // The whole pages between two parts.
    let first = from.next_multiple_of(4096) - from;
    if len >= LARGE && (from ^ to) & 4095 == 0 {
        let whole = (len - first) & !4095;
        if carry(from + first, to + first, whole) {
            copy_bytes(from, to, first);
            let rest = first + whole;
            return copy_bytes(from + rest, to + rest, len - rest);
        }
    }
    copy_bytes(from, to, len);
}

fn copy_bytes(from: u64, to: u64, len: u64) {
    let mut at = 0;
    while at < len {
        let n = (len - at).min(4096);
        // SAFETY: both ranges are shadow of program addresses, disjoint, and the mapping they describe is held by the caller.
        unsafe {
            let source = core::slice::from_raw_parts((from + at) as *const u8, n as usize);
            if !is_zero(source) {
                core::ptr::copy_nonoverlapping(source.as_ptr(), (to + at) as *mut u8, n as usize);
            }
        }
        at += n;
    }
}

/// Let the kernel move the pages. The source stays mapped and is empty then (Linux 5.7).
fn carry(from: u64, to: u64, len: u64) -> bool {
    const MREMAP: u64 = 25;
    const MAYMOVE_FIXED_DONTUNMAP: u64 = 1 | 2 | 4;
    // SAFETY: both ranges are shadow of program addresses, apart from each other; the target holds zeros only.
    unsafe { sys::syscall6(MREMAP, from, len, len, MAYMOVE_FIXED_DONTUNMAP, to, 0) == to as i64 }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|w| u64::from_ne_bytes(*w) == 0) && rest.iter().all(|&b| b == 0)
}
