//! The current stack of the program, read from the V shadow of its stack.
//!
//! A translated call writes RETURN_MARK to the V bytes of the slot that it pushes the return address to; returning (and everything else
//! that releases stack) paints over it. So the calls in progress are the marked slots from the stack pointer upwards, on every
//! stack there is: longjmp, exceptions and coroutines need no hooks, and a call costs nothing extra.
//!
//! ```text
//! sp -> | locals | ra f | locals | ra main | locals | ...        program memory
//!       | V      | MARK | V      | MARK    | V      |            its shadow
//! ```
//! Frames can be long, so their sizes are remembered: at one call site the distance from the slot of the return address to the next
//! marked slot is nearly always the same. A remembered distance counts only if a mark is there.
#![allow(unsafe_code, reason = "reads shadow and marked stack slots by address")]

use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::layout::{PROGRAM_END, RETURN_MARK, SIGNAL_MARK, V_DISTANCE};

/// A walk looks at no more than this much stack between two calls.
const REACH: u64 = 4 << 20;

/// V of an aligned slot.
#[inline(always)]
fn v_of_slot(slot: u64) -> u64 {
    // SAFETY: the callers stay below PROGRAM_END, whose whole V shadow is mapped.
    unsafe { *((slot + V_DISTANCE) as *const u64) }
}

/// Does the aligned word around `addr` hold a return address of a call in progress (or the like)? Its V bytes are no V bits.
#[inline]
pub fn is_mark(addr: u64) -> bool {
    addr < PROGRAM_END && matches!(v_of_slot(addr & !7), RETURN_MARK | SIGNAL_MARK)
}

/// The first marked slot in [at, end), 8-aligned.
#[inline]
fn next_mark(mut at: u64, end: u64) -> Option<u64> {
    while at < end {
        if matches!(v_of_slot(at), RETURN_MARK | SIGNAL_MARK) {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// Where the search ends: above the first stack pointer of the thread nothing was called.
fn limit(ctx: &ThreadContext, sp: u64) -> u64 {
    let top = if ctx.first_sp >= sp && ctx.first_sp < ctx.stack_high { ctx.first_sp + 8 } else { ctx.stack_high };
    top.min(sp.saturating_add(REACH)).min(PROGRAM_END - 8)
}

/// Calls in progress above `sp`, innermost first: (slot, return address) to `visit`, until it says false.
#[inline]
pub fn walk(ctx: &ThreadContext, sp: u64, mut visit: impl FnMut(u64, u64) -> bool) {
    let mut at = sp.wrapping_add(7) & !7;
    if at >= PROGRAM_END {
        return;
    }
    let mut end = limit(ctx, at);
    let mut slot = next_mark(at, end);
    while let Some(this) = slot {
        // SAFETY: a marked slot was written by the call that marked it, or by the kernel's signal frame; its page is there.
        let value = unsafe { *(this as *const u64) };
        let signal = v_of_slot(this) == SIGNAL_MARK;
        // The interrupted instruction is not a return address: one more, so that all callers may subtract one.
        if !visit(this, if signal { value.wrapping_add(1) } else { value }) {
            return;
        }
        if signal {
            // SAFETY: the word below it in the signal frame is the interrupted stack pointer.
            let saved = unsafe { *((this - 8) as *const u64) };
            at = (saved.wrapping_add(7)) & !7;
            if at >= PROGRAM_END {
                return;
            }
            end = if ctx.first_sp >= at { ctx.first_sp + 8 } else { at + REACH }.min(at + REACH).min(PROGRAM_END - 8);
            slot = next_mark(at, end);
        } else {
            slot = caller(this, value, end);
        }
    }
}

/// Frame sizes by call site: return address << 17 | size / 8. A direct-mapped table; losing an entry costs a search.
static SIZES: [AtomicU64; 1 << 13] = [const { AtomicU64::new(0) }; 1 << 13];
const SIZE_BITS: u32 = 17;

/// The marked slot above `slot`, which holds `return_address`.
#[inline]
fn caller(slot: u64, return_address: u64, end: u64) -> Option<u64> {
    let entry = &SIZES[(return_address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize];
    let known = entry.load(Ordering::Relaxed);
    if known >> SIZE_BITS == return_address {
        let guess = slot + 8 * (known & ((1 << SIZE_BITS) - 1));
        if guess > slot && guess < end && v_of_slot(guess) == RETURN_MARK {
            return Some(guess);
        }
    }
    let found = next_mark(slot + 8, end)?;
    let words = (found - slot) / 8;
    if words >> SIZE_BITS == 0 && return_address >> (64 - SIZE_BITS) == 0 {
        entry.store(return_address << SIZE_BITS | words, Ordering::Relaxed);
    }
    Some(found)
}

/// Fill `out` with the current stack: out[0] = `pc`, then return addresses, innermost first. Returns how many.
/// `sp` is the program's stack pointer at `pc`.
#[inline]
pub fn capture(ctx: &ThreadContext, pc: u64, sp: u64, out: &mut [u64]) -> usize {
    if out.is_empty() {
        return 0;
    }
    out[0] = pc;
    let mut n = 1;
    if out.len() == 1 {
        return 1;
    }
    walk(ctx, sp, |_, address| {
        out[n] = address;
        n += 1;
        n < out.len()
    });
    n
}

/// Host tests: make stacks.
#[cfg(feature = "host")]
pub mod host {
    use super::{RETURN_MARK, V_DISTANCE};
    use crate::{shadow, sys};

    /// A call in progress whose return address lies at `slot`.
    pub fn push(slot: u64, return_address: u64) {
        let _ = sys::map_fixed(slot & !4095, 4096, 3);
        // SAFETY: mapped just now or by an earlier call; its shadow too.
        unsafe {
            *(slot as *mut u64) = return_address;
            *((slot + V_DISTANCE) as *mut u64) = RETURN_MARK;
        }
    }

    /// No calls in [low, high).
    pub fn clear(low: u64, high: u64) {
        shadow::fill_v(low, high - low, 0);
    }
}
