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
//! Frames can be long, so the last walk is remembered: once a slot of it is met again, still marked and holding the same address,
//! the slots above it are taken from memory, one look each.
#![allow(unsafe_code, reason = "reads shadow and marked stack slots by address")]

use core::mem::MaybeUninit;
use memcheck_abi::context::{TRACE, ThreadContext};
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
    let known = (ctx.trace_len as usize).min(TRACE);
    let mut hint = 0;
    loop {
        let expected = if hint > 0 && hint < known { ctx.trace_slots[hint] } else { 0 };
        let slot = if expected >= at && expected < end && holds(ctx, hint) {
            expected
        } else {
            hint = 0;
            match next_mark(at, end) {
                Some(slot) => slot,
                None => return,
            }
        };
        // SAFETY: a marked slot was written by the call that marked it, or by the kernel's signal frame; its page is there.
        let value = unsafe { *(slot as *const u64) };
        let signal = v_of_slot(slot) == SIGNAL_MARK;
        // The interrupted instruction is not a return address: one more, so that all callers may subtract one.
        if !visit(slot, if signal { value.wrapping_add(1) } else { value }) {
            return;
        }
        if signal {
            // SAFETY: the word below it in the signal frame is the interrupted stack pointer.
            let saved = unsafe { *((slot - 8) as *const u64) };
            (at, hint) = ((saved.wrapping_add(7)) & !7, 0);
            if at >= PROGRAM_END {
                return;
            }
            end = if ctx.first_sp >= at { ctx.first_sp + 8 } else { at + REACH }.min(at + REACH).min(PROGRAM_END - 8);
            continue;
        }
        at = slot + 8;
        hint = if hint > 0 { hint + 1 } else { ctx.trace_slots[..known].iter().position(|&s| s == slot).filter(|&i| holds(ctx, i)).map_or(0, |i| i + 1) };
    }
}

/// Is remembered call `i` still in progress?
#[inline]
fn holds(ctx: &ThreadContext, i: usize) -> bool {
    let slot = ctx.trace_slots[i];
    // SAFETY: as in `walk`: marked slots are mapped.
    v_of_slot(slot) == RETURN_MARK && unsafe { *(slot as *const u64) } == ctx.trace_returns[i]
}

/// Fill `out` with the current stack: out[0] = `pc`, then return addresses, innermost first. Returns how many.
/// `sp` is the program's stack pointer at `pc`; `ctx` is the current thread's.
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
    let mut slots = [const { MaybeUninit::<u64>::uninit() }; TRACE];
    let mut same = true;
    walk(ctx, sp, |slot, address| {
        out[n] = address;
        if n <= TRACE {
            slots[n - 1].write(slot);
            same &= ctx.trace_slots[n - 1] == slot && ctx.trace_returns[n - 1] == address;
        }
        n += 1;
        n < out.len()
    });
    let len = (n - 1).min(TRACE);
    if !same || ctx.trace_len != len as u64 {
        remember(&slots[..len], &out[1..]);
    }
    n
}

/// Keep a walk for the next one.
#[cold]
fn remember(slots: &[MaybeUninit<u64>], returns: &[u64]) {
    let ctx = crate::context::current();
    for (i, slot) in slots.iter().enumerate() {
        // SAFETY: the walk wrote all slots that it is passed on with.
        ctx.trace_slots[i] = unsafe { slot.assume_init() };
        ctx.trace_returns[i] = returns[i];
    }
    ctx.trace_len = slots.len() as u64;
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
