//! Where a block was allocated or freed, as a depot id.
//!
//! A program allocates from the same places again and again, so each thread remembers the ids of the stacks it saw last, by a hash of their
//! frames. A hit costs the walk and one cache line; only a miss writes the frames down and asks the depot, which touches its table, a
//! header and all frames.
#![allow(unsafe_code, reason = "SSE2 intrinsics on tags")]

use crate::settings;
use core::arch::x86_64::{__m128i, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_load_si128, _mm_movemask_ps, _mm_set1_epi32};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::MAX_FRAMES;
use memcheck_rt::callstack::{self, Guides, USUAL};
use memcheck_rt::{depot, report};

const BITS: u32 = 14;
const WAYS: usize = 8;

/// One cache line: eight stacks whose hashes begin alike.
#[repr(C, align(64))]
struct Bucket {
    /// Other bits of their hashes; 0 = nothing here.
    tags: [u32; WAYS],
    ids: [u32; WAYS],
}

/// Zeros are an empty memory.
#[repr(C)]
pub struct Memory {
    known: [Bucket; 1 << BITS],
    guides: Guides,
    /// Counts what was learned: whoever must make room is chosen in turn, so that stacks that come again and again find a place each.
    learned: usize,
}

impl Bucket {
    /// Where this tag is.
    #[inline(always)]
    fn find(&self, tag: u32) -> Option<usize> {
        // SAFETY: both halves of the tags are aligned and inside the bucket.
        let mask = unsafe {
            let (low, wanted) = (self.tags.as_ptr().cast::<__m128i>(), _mm_set1_epi32(tag as i32));
            let equal = |at| _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(_mm_load_si128(at), wanted)));
            equal(low) | equal(low.add(1)) << 4
        };
        (mask != 0).then(|| mask.trailing_zeros() as usize % WAYS)
    }
}

impl Memory {
    #[inline(always)]
    fn here(&mut self, ctx: &ThreadContext) -> u32 {
        let frames = report::num_callers();
        let hash =
            if frames <= USUAL { self.guides.fingerprint(ctx, ctx.regs.rip, ctx.guest_rsp, frames) } else { deep_fingerprint(ctx, frames) };
        let bucket = &mut self.known[(hash >> (64 - BITS)) as usize];
        let tag = hash as u32 | 1;
        match bucket.find(tag) {
            Some(way) => bucket.ids[way],
            None => {
                self.learned += 1;
                bucket.learn(tag, self.learned % WAYS, ctx, frames)
            }
        }
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

#[cold]
#[inline(never)]
fn deep_fingerprint(ctx: &ThreadContext, limit: usize) -> u64 {
    let mut frames = [0; MAX_FRAMES];
    let n = callstack::capture(ctx, ctx.regs.rip, ctx.guest_rsp, &mut frames[..limit.min(MAX_FRAMES)]);
    callstack::fingerprint_of(&frames[..n])
}

impl Bucket {
    /// The id of the current stack, which takes the first free place, or `way`.
    #[cold]
    #[inline(never)]
    fn learn(&mut self, tag: u32, way: usize, ctx: &ThreadContext, limit: usize) -> u32 {
        // Clearing a longer array than needed would cost more than the walk.
        let (mut usual, mut long);
        let frames: &mut [u64] = if limit <= USUAL {
            usual = [0; USUAL];
            &mut usual[..limit]
        } else {
            long = [0; MAX_FRAMES];
            &mut long[..limit.min(MAX_FRAMES)]
        };
        let n = callstack::capture(ctx, ctx.regs.rip, ctx.guest_rsp, frames);
        let way = self.find(0).unwrap_or(way);
        self.tags[way] = tag;
        self.ids[way] = depot::intern(&frames[..n]);
        self.ids[way]
    }
}

/// The same for those who have no cache at hand.
pub fn at_alloc(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_alloc(ctx))
}

pub fn at_free(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_free(ctx))
}
