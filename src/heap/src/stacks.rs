//! Where a block was allocated or freed, as a depot id.

use crate::settings;
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::MAX_FRAMES;
use memcheck_rt::{callstack, depot, report};

/// Frames of the usual case; clearing a longer array would cost more than walking the stack.
const USUAL: usize = 16;

#[inline(always)]
fn here(ctx: &ThreadContext) -> u32 {
    let limit = report::num_callers();
    if limit <= USUAL {
        let mut frames = [0; USUAL];
        let n = callstack::capture(ctx, ctx.regs.rip, ctx.guest_rsp, &mut frames[..limit]);
        return depot::intern(&frames[..n]);
    }
    deep(ctx, limit)
}

#[cold]
#[inline(never)]
fn deep(ctx: &ThreadContext, limit: usize) -> u32 {
    let mut frames = [0; MAX_FRAMES];
    let n = callstack::capture(ctx, ctx.regs.rip, ctx.guest_rsp, &mut frames[..limit.min(MAX_FRAMES)]);
    depot::intern(&frames[..n])
}

/// The stack of the allocation that is going on; 0 if options say so.
#[inline(always)]
pub fn at_alloc(ctx: &ThreadContext) -> u32 {
    if settings::get().alloc_stacks { here(ctx) } else { 0 }
}

#[inline(always)]
pub fn at_free(ctx: &ThreadContext) -> u32 {
    if settings::get().free_stacks { here(ctx) } else { 0 }
}

/// Serves the new block and the old one.
pub fn at_realloc(ctx: &ThreadContext) -> u32 {
    let settings = settings::get();
    if settings.alloc_stacks || settings.free_stacks { here(ctx) } else { 0 }
}
