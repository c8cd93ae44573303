//! When the stack pointer jumps: large frames, stack switches.
//!
//! A move inside one mapping (or heap block) is growth or release; a move to another one is a switch of stacks and marks nothing.
//!
//! That is so for stacks that have a mapping of their own: the main thread's, those of a thread library with their guard page, declared ones.
//! Any other may be one of many in a pool of coroutines, or in the heap of a language's runtime (Go): there a jump within the mapping can
//! be a switch as well. It marks nothing either, and only what the stack has used since counts as "below the stack pointer"
//! (`stack_floor`). Frames are released by ordinary instructions and painted there as everywhere.
//!
//! A stack of its own can still hold others: coroutines in a local array. From outside, their first switch goes upwards, as longjmp and
//! exceptions do. But those end in a frame right where it has made its innermost call, while the array lies further up in the frame:
//!
//! ```text
//! old sp -> | ... | ra | locals of the scheduler | ra <- sp of its caller | array: <- here, a switch | ra | ...
//!                                                         longjmp ^
//! ```
//! From the first such switch on the stack is treated like a pool, at the price of dead frames whose bytes look defined.

use crate::newstack::{self, is_guarded};
use crate::requests::stacks as declared;
use memcheck_abi::context::{RSP, ThreadContext, local};
use memcheck_abi::event::Place;
use memcheck_abi::layout::RED_ZONE;
use memcheck_kernel::space;
use memcheck_rt::{callstack, context, shadow};
use memcheck_translate::slot;
use memcheck_translate::stack::FROM_ANYWHERE;

/// Growth of at least this many bytes may reach memory that was never painted.
pub const LARGE: u64 = 4096;

/// Entry from `asm::stack_slow`, for what `asm::stack_moved` does not settle itself: slot 2 = old stack pointer, ctx.regs holds the new one.
pub extern "C" fn moved() {
    let ctx = context::current();
    let (old, new) = (ctx.scratch[slot::ADDRESS as usize], ctx.regs.gpr[RSP]);
    if !is_inside(ctx, new) || !is_inside(ctx, old) || declared::around(new) != declared::around(old) {
        leaves(ctx, old);
        return settle(ctx, new);
    }
    if ctx.stack_floor != 0 {
        return settle(ctx, new);
    }
    if new > old {
        let from_anywhere = ctx.scratch[slot::ARGUMENT as usize] & u64::from(FROM_ANYWHERE) != 0;
        if from_anywhere && is_switch(ctx, old, new) {
            (ctx.locals[local::POOLED], ctx.stack_floor) = (1, 1);
            return settle(ctx, new);
        }
        // In front of a `ret` the red zone is dead too: see `translate::stack`.
        let before_ret = ctx.scratch[slot::ARGUMENT as usize] & 1 != 0;
        release(old, new, if before_ret { new } else { new.wrapping_sub(RED_ZONE) });
    } else if old - new >= LARGE {
        shadow::fill_v(new, old.min(ctx.painted_low).saturating_sub(new), shadow::UNDEFINED);
        ctx.painted_low = ctx.painted_low.min(new);
    }
}

/// The stack pointer went up, and what lies below `end` is dead.
fn release(old: u64, new: u64, end: u64) {
    let from = old.wrapping_sub(RED_ZONE);
    shadow::fill_v(from, end.wrapping_sub(from), shadow::UNDEFINED);
    forget_calls(end, new);
}

/// The thread goes from the stack that it began on, where the stack pointer is `sp`, to another one: a coroutine's, a handler's. If it comes
/// back further up (`siglongjmp` out of a handler on the alternate stack), the frames in between are released.
///
/// A stack that overflowed may be left from below its end: small frames get there unasked.
pub fn leaves(ctx: &mut ThreadContext, sp: u64) {
    if ctx.stack_floor == 0 && sp <= ctx.stack_high && is_inside(ctx, ctx.first_sp) {
        ctx.locals[local::LEFT_AT] = sp.max(ctx.stack_low + RED_ZONE);
    }
}

fn comes_back(ctx: &mut ThreadContext, sp: u64) {
    let left_at = ctx.locals[local::LEFT_AT];
    if ctx.stack_floor == 0 && is_inside(ctx, left_at) && is_inside(ctx, sp) {
        ctx.locals[local::LEFT_AT] = 0;
        if sp > left_at {
            release(left_at, sp, sp.wrapping_sub(RED_ZONE));
        }
    }
}

fn is_inside(ctx: &ThreadContext, sp: u64) -> bool {
    (ctx.stack_low..=ctx.stack_high).contains(&sp)
}

/// Of calls that a jump has left, the innermost of the frame where it ended put its return address into what is now the red zone.
fn forget_calls(from: u64, to: u64) {
    for slot in (from.next_multiple_of(8)..to & !7).step_by(8).filter(|&slot| callstack::is_mark(slot)) {
        shadow::fill_v(slot, 8, shadow::UNDEFINED);
    }
}

/// A signal handler returns to `sp`: its frame is gone, up to what the program may use below there. The kernel is yet to read it, the
/// saved rip at `rip_at`, whose slot bears the mark.
pub fn handler_returns(ctx: &ThreadContext, rip_at: u64, sp: u64) {
    shadow::fill_v(rip_at, 8, shadow::DEFINED);
    let from = ctx.regs.gpr[RSP].wrapping_sub(RED_ZONE);
    let end = sp.wrapping_sub(RED_ZONE);
    let same_stack = from >= ctx.stack_low && from < end && end <= ctx.stack_high;
    if same_stack && ctx.stack_floor == 0 {
        shadow::fill_v(from, end - from, shadow::UNDEFINED);
    }
}

/// Does the stack pointer leave calls in progress that it will come back to?
fn is_switch(ctx: &mut ThreadContext, old: u64, new: u64) -> bool {
    /// Arguments and small allocations between the frame's stack pointer and its innermost call.
    const PUSHED: u64 = 512;
    // The frame that an exception ends in returns there from its innermost call, too, to where its handler is: the unwinder puts that in
    // place of the return address and pops it, alone or with one register more.
    let redirected = core::mem::take(&mut ctx.locals[local::REDIRECTED]);
    if redirected == new || redirected == new.wrapping_add(8) {
        return false;
    }
    !callstack::is_mark(new.wrapping_sub(8))
        && callstack::frame_begins(ctx, old, new).is_some_and(|begin| new.saturating_sub(begin) > PUSHED)
}

/// The thread now runs on the stack around `sp`: find its bounds.
pub fn settle(ctx: &mut ThreadContext, sp: u64) {
    newstack::begins_at(sp);
    ctx.painted_low = shadow::stack_sheet_below(sp).unwrap_or(u64::MAX);
    if let Some(bounds) = declared::around(sp) {
        (ctx.stack_low, ctx.stack_high) = bounds;
        ctx.stack_floor = 0;
        return;
    }
    if sp < ctx.stack_low || sp >= ctx.stack_high {
        if let Some((Place::LiveBlock, block)) = memcheck_heap::owns(sp).then(|| memcheck_heap::find(sp)).flatten() {
            (ctx.stack_low, ctx.stack_high) = (block.addr, block.addr + block.size);
        } else if let Some((start, end, _, _)) = space::mapping_of(sp).or_else(|| space::mapping_of(sp.wrapping_sub(1))) {
            (ctx.stack_low, ctx.stack_high) = (start, end);
        }
        ctx.stack_floor = u64::from(!has_own_mapping(ctx));
        newstack::switched_to(ctx, sp);
    }
    if ctx.stack_floor != 0 {
        ctx.stack_floor = sp.saturating_sub(RED_ZONE).max(1);
    }
    comes_back(ctx, sp);
}

/// For debug assertions: on a stack of its own, no call is in progress just below what the thread may use.
pub fn is_painted_below(ctx: &ThreadContext, sp: u64) -> bool {
    const NEAR: u64 = 1024;
    let end = sp.saturating_sub(RED_ZONE) & !7;
    let inside = ctx.vfork_child == 0 && ctx.stack_floor == 0 && sp <= ctx.stack_high && end.saturating_sub(NEAR) >= ctx.stack_low;
    !inside || !(end - NEAR..end).step_by(8).any(callstack::is_mark)
}

/// Is the mapping that the thread runs on its stack and nothing else?
fn has_own_mapping(ctx: &ThreadContext) -> bool {
    const MAIN: u32 = 1;
    let is_first = is_inside(ctx, ctx.first_sp);
    is_first && ctx.locals[local::POOLED] == 0 && (ctx.number == MAIN || is_guarded(ctx.stack_low))
}
