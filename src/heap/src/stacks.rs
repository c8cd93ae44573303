//! Where a block was allocated or freed, as a depot id.
//!
//! A program allocates from few places again and again, so each thread remembers the ids of the stacks it saw last: a small table by a cheap
//! sum of the frames, checked against the frames in the depot. Only a miss costs the depot's own hash and chain.

use crate::settings;
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::MAX_FRAMES;
use memcheck_rt::{callstack, depot, report};

/// Frames of the usual case; clearing a longer array would cost more than walking the stack.
const USUAL: usize = 16;
const BITS: u32 = 10;

/// Depot ids by sum; 0 = nothing.
#[repr(C)]
pub struct Memory {
    ids: [u32; 1 << BITS],
}

/// The sum's terms do not depend on each other, so the processor works on several at once.
#[inline(always)]
fn place(frames: &[u64]) -> usize {
    let (mut sum, mut factor) = (0u64, 0x9e37_79b9_7f4a_7c15u64);
    for &frame in frames {
        sum = sum.wrapping_add(frame.wrapping_mul(factor));
        factor = factor.wrapping_add(0x5851_f42d_4c95_7f2e);
    }
    (sum >> (64 - BITS)) as usize
}

/// Word by word: the frames were stored a moment ago, and wide loads would have to wait until all of them are in the cache.
#[inline(always)]
fn same(a: &[u64], b: &[u64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x == y)
}

impl Memory {
    #[inline(always)]
    fn id(&mut self, frames: &[u64]) -> u32 {
        let known = &mut self.ids[place(frames)];
        if !same(depot::get(*known), frames) {
            *known = depot::intern(frames);
        }
        *known
    }

    #[inline(always)]
    fn here(&mut self, ctx: &ThreadContext) -> u32 {
        let limit = report::num_callers();
        if limit <= USUAL {
            let mut frames = [0; USUAL];
            let n = callstack::capture(ctx, ctx.regs.rip, ctx.guest_rsp, &mut frames[..limit]);
            return self.id(&frames[..n]);
        }
        self.deep(ctx, limit)
    }

    #[cold]
    #[inline(never)]
    fn deep(&mut self, ctx: &ThreadContext, limit: usize) -> u32 {
        let mut frames = [0; MAX_FRAMES];
        let n = callstack::capture(ctx, ctx.regs.rip, ctx.guest_rsp, &mut frames[..limit.min(MAX_FRAMES)]);
        self.id(&frames[..n])
    }

    /// The stack of the allocation that is going on; 0 if options say so.
    #[inline(always)]
    pub fn at_alloc(&mut self, ctx: &ThreadContext) -> u32 {
        if settings::get().alloc_stacks { self.here(ctx) } else { 0 }
    }

    #[inline(always)]
    pub fn at_free(&mut self, ctx: &ThreadContext) -> u32 {
        if settings::get().free_stacks { self.here(ctx) } else { 0 }
    }
}

/// The same for those who have no cache at hand.
pub fn at_alloc(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_alloc(ctx))
}

pub fn at_free(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_free(ctx))
}
