//! When the stack pointer jumps: large frames, stack switches.
//!
//! A move inside one mapping (or heap block) is growth or release; a move to another one is a switch of stacks and marks nothing.

use crate::requests::stacks as declared;
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::event::Place;
use memcheck_abi::layout::RED_ZONE;
use memcheck_kernel::space;
use memcheck_rt::{context, shadow};
use memcheck_translate::slot;

/// Growth of at least this many bytes may reach memory that was never painted.
const LARGE: u64 = 4096;

/// Entry from `asm::stack_slow`: slot 2 = old stack pointer, ctx.regs holds the new one.
pub extern "C" fn moved() {
    let ctx = context::current();
    let (old, new) = (ctx.scratch[slot::ADDRESS as usize], ctx.regs.gpr[RSP]);
    let inside = |sp: u64| sp >= ctx.stack_low && sp <= ctx.stack_high;
    if !inside(new) || !inside(old) || declared::around(new) != declared::around(old) {
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
    if let Some(bounds) = declared::around(sp) {
        (ctx.stack_low, ctx.stack_high) = bounds;
        return;
    }
    if sp >= ctx.stack_low && sp < ctx.stack_high {
        return;
    }
    if let Some((Place::LiveBlock, block)) = memcheck_heap::owns(sp).then(|| memcheck_heap::find(sp)).flatten() {
        (ctx.stack_low, ctx.stack_high) = (block.addr, block.addr + block.size);
    } else if let Some((start, end, _, _)) = space::mapping_of(sp).or_else(|| space::mapping_of(sp.wrapping_sub(1))) {
        (ctx.stack_low, ctx.stack_high) = (start, end);
    }
}
