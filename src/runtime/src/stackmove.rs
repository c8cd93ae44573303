//! When the stack pointer jumps: large frames, stack switches; and when returns do not match calls.
//!
//! A move inside one mapping (or heap block) is growth or release; a move to another one is a switch of stacks and marks nothing.
#![allow(unsafe_code, reason = "edits the shadow call stack in place")]

use memcheck_abi::context::{CallEntry, RSP, ThreadContext};
use memcheck_abi::event::Place;
use memcheck_abi::layout::RED_ZONE;
use memcheck_kernel::space;
use memcheck_rt::{context, shadow};
use memcheck_translate::slot;

/// Growth of at least this many bytes may reach memory that was never painted.
const LARGE: u64 = 4096;
const ENTRY: u64 = size_of::<CallEntry>() as u64;

/// Entry from `asm::stack_slow`: slot 2 = old stack pointer, ctx.regs holds the new one.
pub extern "C" fn moved() {
    let ctx = context::current();
    let (old, new) = (ctx.scratch[slot::ADDRESS as usize], ctx.regs.gpr[RSP]);
    let inside = |sp: u64| sp >= ctx.stack_low && sp <= ctx.stack_high;
    if !inside(new) || !inside(old) {
        return settle(ctx, new);
    }
    if new > old {
        let from = old.wrapping_sub(RED_ZONE);
        shadow::fill_v(from, new - old, shadow::UNDEFINED);
    } else if old - new >= LARGE {
        shadow::fill_v(new, old - new, shadow::UNDEFINED);
    }
}

/// The thread now runs on the stack around `sp`: find its bounds.
pub fn settle(ctx: &mut ThreadContext, sp: u64) {
    if sp >= ctx.stack_low && sp < ctx.stack_high {
        return;
    }
    if let Some((Place::LiveBlock, block)) = memcheck_heap::owns(sp).then(|| memcheck_heap::find(sp)).flatten() {
        (ctx.stack_low, ctx.stack_high) = (block.addr, block.addr + block.size);
    } else if let Some((start, end, _, _)) = space::mapping_of(sp).or_else(|| space::mapping_of(sp.wrapping_sub(1))) {
        (ctx.stack_low, ctx.stack_high) = (start, end);
    }
}

/// A `ret` whose stack pointer is not that of the topmost entry. On return the topmost entry is one that may be popped.
pub extern "C" fn ret_mismatch() {
    let ctx = context::current();
    let sp = ctx.regs.gpr[RSP];
    settle(ctx, sp);
    repair(ctx, sp);
}

/// The same for the return of a replaced function.
pub extern "C" fn resync() {
    let ctx = context::current();
    repair(ctx, ctx.guest_rsp);
}

fn repair(ctx: &mut ThreadContext, sp: u64) {
    let (low, high) = (ctx.stack_low, ctx.stack_high);
    let mut at = ctx.call_top;
    let mut foreign = false;
    let mut steps = 0;
    while at > ctx.call_base && steps < 1 << 16 {
        // SAFETY: (call_base, call_top] are entries.
        let entry = unsafe { *(at as *const CallEntry) };
        if entry.sp == sp {
            if !foreign {
                ctx.call_top = at;
                return;
            }
            // Entries of other stacks lie above: take this one out of the middle. The topmost slot is popped instead.
            // SAFETY: moves whole entries down inside the call stack.
            unsafe { core::ptr::copy((at + ENTRY) as *const CallEntry, at as *mut CallEntry, ((ctx.call_top - at) / ENTRY) as usize) };
            return;
        }
        let mine = entry.sp >= low && entry.sp < high;
        if mine && entry.sp > sp {
            break;
        }
        foreign |= !mine;
        at -= ENTRY;
        if mine && !foreign {
            ctx.call_top = at;
        }
        steps += 1;
    }
    push_dummy(ctx, sp);
}

/// Something for the `ret` to pop.
fn push_dummy(ctx: &mut ThreadContext, sp: u64) {
    push(ctx, 0, sp);
}

/// Push an entry; an overfull call stack starts anew.
pub fn push(ctx: &mut ThreadContext, return_address: u64, sp: u64) {
    if ctx.call_top + 2 * ENTRY >= ctx.call_limit {
        ctx.call_top = ctx.call_base;
    }
    ctx.call_top += ENTRY;
    // SAFETY: below call_limit.
    unsafe { *(ctx.call_top as *mut CallEntry) = CallEntry { return_address, sp } };
}
