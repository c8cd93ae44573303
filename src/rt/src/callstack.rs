//! The current stack of the program, read from the shadow call stack.
//!
//! Every translated call pushes {return address, stack pointer}; every return pops. Entries that lie below the current stack
//! pointer, or on another stack, are dead or foreign and skipped, so longjmp, exceptions and coroutines need no hooks:
//!
//! ```text
//! call_base [main's caller] [main] [f] [g] ... call_top          live while sp >= the program's stack pointer, rising downwards
//! ```
#![allow(unsafe_code, reason = "walks the shadow call stack by address")]

use memcheck_abi::context::{CallEntry, ThreadContext};

/// Fill `out` with the current stack: out[0] = `pc`, then return addresses, innermost first. Returns how many.
/// `sp` is the program's stack pointer at `pc`.
#[inline]
pub fn capture(ctx: &ThreadContext, pc: u64, sp: u64, out: &mut [u64]) -> usize {
    if out.is_empty() {
        return 0;
    }
    out[0] = pc;
    let mut n = 1;
    let mut below = sp;
    let mut at = ctx.call_top;
    let foreign = ctx.stack_high;
    while at > ctx.call_base && n < out.len() {
        // SAFETY: (call_base, call_top] are entries that translated calls wrote.
        let entry = unsafe { *(at as *const CallEntry) };
        at -= core::mem::size_of::<CallEntry>() as u64;
        if entry.sp >= below && entry.sp < foreign {
            out[n] = entry.return_address;
            n += 1;
            below = entry.sp + 1;
        }
    }
    n
}
