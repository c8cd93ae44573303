//! Range questions about the shadow, in bulk.
//!
//! `rt::access` answers byte by byte; a `read` into a fresh megabyte must not ask a million times. The A map decides first: one
//! bit per byte, so it is an eighth of the data, and where no A bit is set only "below the stack pointer" is left to ask.
#![allow(unsafe_code, reason = "reads the A shadow by address")]

use memcheck_abi::context::ThreadContext;
use memcheck_abi::layout::{A_BASE, FORBIDDEN_END, FORBIDDEN_START, PROGRAM_END, RED_ZONE, in_program};
use memcheck_rt::access::{self, Bad};
use memcheck_rt::shadow;

/// From this length on, marking looks whether anything is undefined before it writes: fresh shadow pages stay untouched.
const LOOK_FIRST: u64 = 2048;
/// Outside the heap only client requests set A bits; in ranges this long they are not looked for.
const TRUST_A: u64 = 64 << 20;

/// May the shadow of this range be asked? It must be the program's, and not the hole whose V shadow holds the branch table:
/// nothing is ever mapped there, so the kernel's EFAULT says what is to be said.
#[inline(always)]
pub fn has_shadow(addr: u64, len: u64) -> bool {
    in_program(addr, len) && (addr >= FORBIDDEN_END || addr + len <= FORBIDDEN_START)
}

/// First address of the range whose A bit is set. The range has shadow.
pub fn first_a(addr: u64, len: u64) -> Option<u64> {
    let end = addr + len;
    let mut at = addr;
    while at < end {
        // SAFETY: the A map covers the program's space; the word read starts at a byte of it and the map is followed by more of it
        // (the last word of the space is below PROGRAM_END / 8 by the check).
        let word = unsafe {
            if at & 63 == 0 && end - at >= 64 {
                let word = *((A_BASE + at / 8) as *const u64);
                if word == 0 {
                    at += 64;
                    continue;
                }
                word
            } else {
                u64::from(*((A_BASE + at / 8) as *const u8) >> (at & 7))
            }
        };
        if word != 0 {
            let found = at + u64::from(word.trailing_zeros());
            return (found < end).then_some(found);
        }
        at = (at | 7) + 1;
    }
    None
}

/// Where the range first lies on the current stack below what may be used; `None` if nowhere.
fn first_below(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) -> Option<u64> {
    if sp < ctx.stack_low || sp > ctx.stack_high {
        return None;
    }
    let first = addr.max(ctx.stack_low).max(ctx.stack_floor);
    (first < (addr + len).min(sp.saturating_sub(RED_ZONE))).then_some(first)
}

/// First byte of the range that the program must not touch. The range has shadow.
#[inline]
pub fn first_unaddressable(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) -> Option<u64> {
    let from = match (first_a(addr, len), first_below(ctx, sp, addr, len)) {
        (None, None) => return None,
        (a, b) => a.unwrap_or(u64::MAX).min(b.unwrap_or(u64::MAX)),
    };
    access::first_unaddressable(ctx, sp, from, addr + len - from)
}

/// First bad byte of a range that the kernel reads. The range has shadow.
#[inline]
pub fn first_bad(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) -> Option<Bad> {
    access::first_bad(ctx, sp, addr, len)
}

/// The kernel wrote here: every byte that the program may touch is defined now. Clips to the program's space.
#[inline]
pub fn mark_defined(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) {
    if addr >= PROGRAM_END || len == 0 {
        return;
    }
    let len = len.min(PROGRAM_END - addr);
    if !has_shadow(addr, len) {
        return;
    }
    // What lies below the stack pointer stays as it is. A thread that ends gives back megabytes there that were never touched: they are
    // not looked at.
    match first_below(ctx, sp, addr, len) {
        Some(first) => {
            let above = (addr + len).min(sp - RED_ZONE);
            mark(ctx, sp, addr, first - addr);
            mark(ctx, sp, above, addr + len - above);
        }
        None => mark(ctx, sp, addr, len),
    }
}

/// `mark_defined` for a range with shadow, none of which is below the stack pointer.
#[inline]
fn mark(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) {
    if len >= TRUST_A && !in_heap(addr) {
        return shadow::fill_v(addr, len, 0);
    }
    if first_a(addr, len).is_some() {
        return mark_carefully(ctx, sp, addr, len);
    }
    if len <= 8 {
        for at in addr..addr + len {
            shadow::set_v(at, 0);
        }
    } else if len < LOOK_FIRST {
        shadow::fill_v(addr, len, 0);
    } else if let Some(first) = shadow::first_nonzero_v(addr, len) {
        shadow::fill_v(first, addr + len - first, 0);
    }
}

#[cold]
fn mark_carefully(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) {
    let end = addr + len;
    let mut at = addr;
    while at < end {
        let Some(next) = shadow::first_nonzero_v(at, end - at) else { return };
        if access::addressable(ctx, sp, next) {
            shadow::set_v(next, 0);
        }
        at = next + 1;
    }
}

fn in_heap(addr: u64) -> bool {
    (memcheck_abi::layout::HEAP_START..memcheck_abi::layout::HEAP_END).contains(&addr)
}
