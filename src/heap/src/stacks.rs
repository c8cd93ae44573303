//! Where a block was allocated or freed, as a depot id.
//!
//! A program allocates from the same places again and again, so each thread remembers the ids of the stacks it saw last, by a hash of 64 bits of
//! the frames. A hit costs one cache line; only a miss asks the depot, which touches its table, a header and all frames.

use crate::settings;
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::MAX_FRAMES;
use memcheck_rt::{callstack, depot, report};

/// Frames of the usual case; clearing a longer array would cost more than walking the stack.
const USUAL: usize = 16;
const BITS: u32 = 16;

#[repr(C)]
#[derive(Clone, Copy)]
struct Known {
    /// 0 = nothing here.
    hash: u64,
    id: u32,
}

/// Zeros are an empty memory.
#[repr(C)]
pub struct Memory {
    known: [Known; 1 << BITS],
}

/// Two chains, so that the processor multiplies twice at a time. Never 0.
#[inline(always)]
fn hash(frames: &[u64]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let (mut a, mut b) = (frames.len() as u64, K);
    let (pairs, rest) = frames.as_chunks::<2>();
    for pair in pairs {
        a = (a.rotate_left(23) ^ pair[0]).wrapping_mul(K);
        b = (b.rotate_left(29) ^ pair[1]).wrapping_mul(K);
    }
    for &frame in rest {
        a = (a.rotate_left(23) ^ frame).wrapping_mul(K);
    }
    let h = (a ^ b.rotate_left(32)).wrapping_mul(K);
    h ^ h >> 32 | 1
}

impl Memory {
    #[inline(always)]
    fn id(&mut self, frames: &[u64]) -> u32 {
        let hash = hash(frames);
        let known = &mut self.known[(hash >> (64 - BITS)) as usize];
        if known.hash == hash { known.id } else { known.learn(hash, frames) }
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

impl Known {
    #[cold]
    #[inline(never)]
    fn learn(&mut self, hash: u64, frames: &[u64]) -> u32 {
        *self = Known { hash, id: depot::intern(frames) };
        self.id
    }
}

/// The same for those who have no cache at hand.
pub fn at_alloc(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_alloc(ctx))
}

pub fn at_free(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_free(ctx))
}
