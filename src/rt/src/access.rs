//! May the program touch this range? The slow side of every check.
//!
//! `V != 0` says "undefined or not addressable"; this module decides which. A byte is not addressable when its A bit is set, or
//! when it lies on the current thread's stack below the stack pointer minus the red zone. Unmapped memory is not known here: the
//! access itself faults (or the kernel answers EFAULT).

use crate::{callstack, context, shadow};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::layout::{PROGRAM_END, RED_ZONE};

/// What is wrong with a range, at its first bad byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    Unaddressable(u64),
    Undefined(u64),
}

/// The program has forbidden parts of a stack: A bits count there, too.
pub static STACK_MARKS: AtomicBool = AtomicBool::new(false);

/// Make a range no-access, by request. On the stack that the thread runs on, the mark is gone with the frame.
pub fn forbid(addr: u64, len: u64) {
    let ctx = context::current();
    let end = addr.saturating_add(len);
    let (low, high) = (ctx.stack_low.clamp(addr, end), ctx.stack_high.clamp(addr, end));
    shadow::make_noaccess(addr, low - addr);
    if low < high {
        STACK_MARKS.store(true, Relaxed);
        shadow::make_noaccess_on_stack(low, high - low);
    }
    shadow::make_noaccess(high, end - high);
}

/// Is this one byte addressable, as far as shadow and stack pointer tell? `sp` is the program's stack pointer.
#[inline]
pub fn addressable(ctx: &ThreadContext, sp: u64, addr: u64) -> bool {
    addr < PROGRAM_END && !is_forbidden(ctx, addr) && !below_stack(ctx, sp, addr)
}

/// By its A bit. On the thread's stack that of a frame which is gone does not count.
#[inline]
fn is_forbidden(ctx: &ThreadContext, addr: u64) -> bool {
    let may_be_stale = (ctx.stack_low..ctx.stack_high).contains(&addr);
    !shadow::a_clear(addr) && (!may_be_stale || shadow::v(addr) != shadow::UNDEFINED)
}

/// Is `addr` on the thread's current stack, but below what it may use?
#[inline]
pub fn below_stack(ctx: &ThreadContext, sp: u64, addr: u64) -> bool {
    addr >= ctx.stack_low.max(ctx.stack_floor)
        && addr < sp.wrapping_sub(RED_ZONE)
        && sp <= ctx.stack_high
        && sp >= ctx.stack_low
        && shadow::v(addr) == shadow::UNDEFINED
}

/// Is all of the range (of at most 56 bytes) surely addressable, and no return address in it? Says no too often, but is quick.
#[inline]
pub fn is_plain(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) -> bool {
    let end = addr.saturating_add(len);
    if len > 56 || end >= PROGRAM_END - 64 || shadow::a_bits(addr) & ((1 << len) - 1) != 0 {
        return false;
    }
    let below_stack = addr < sp.wrapping_sub(RED_ZONE) && end > ctx.stack_low && addr < ctx.stack_high;
    // Other stacks than the current one have calls in progress, too.
    !below_stack && !(addr & !7..end).step_by(8).any(callstack::is_mark)
}

/// First byte of the range that is not addressable.
pub fn first_unaddressable(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) -> Option<u64> {
    let end = addr.saturating_add(len);
    let may_be_below = addr < sp.wrapping_sub(RED_ZONE) && end > ctx.stack_low && (ctx.stack_low..=ctx.stack_high).contains(&sp);
    if !may_be_below && end <= PROGRAM_END {
        return first_by_a(ctx, addr, end);
    }
    let mut at = addr;
    while at < end {
        at = shadow::first_nonzero_v(at, end - at)?;
        if callstack::is_mark(at) {
            at = (at & !7) + 8;
            continue;
        }
        if !addressable(ctx, sp, at) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The same where the stack pointer does not matter: eight bytes at a time, which large undefined ranges need.
fn first_by_a(ctx: &ThreadContext, addr: u64, end: u64) -> Option<u64> {
    let mut at = addr;
    while at < end {
        at = shadow::first_a(at, end - at)?;
        if shadow::v(at) != shadow::DEFINED && is_forbidden(ctx, at) && !callstack::is_mark(at) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// First bad byte of a range that is going to be read by the kernel or a replaced function.
pub fn first_bad(ctx: &ThreadContext, sp: u64, addr: u64, len: u64) -> Option<Bad> {
    let end = addr.saturating_add(len);
    let mut at = addr;
    loop {
        at = shadow::first_nonzero_v(at, end.checked_sub(at).filter(|&n| n != 0)?)?;
        if !callstack::is_mark(at) {
            break;
        }
        at = (at & !7) + 8;
    }
    Some(if addressable(ctx, sp, at) { Bad::Undefined(at) } else { Bad::Unaddressable(at) })
}
