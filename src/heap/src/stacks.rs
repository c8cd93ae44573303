//! Where a block was allocated or freed, as a depot id.
//!
//! A program allocates from the same places again and again, so each thread remembers the stacks it saw last, and finds them by a hash of
//! their frames; only a new one is written down and asked for in the depot, which touches its table, a header and all frames.
//!
//! ```text
//! the stack before ──next──> the one that followed it last time: is it this one?
//!                            └─ no ──> bucket (by hash) ──> a known stack ──> from now on it follows the one before
//! ```
//! Places follow each other as they did before, too, and stacks lie in the order in which they were first seen. So the next one lies where
//! the processor has read already, while in the buckets each would be a cache line of its own: a walk over a tree has tens of thousands.
#![allow(unsafe_code, reason = "SSE2 intrinsics on tags")]

use crate::settings;
use core::arch::x86_64::{__m128i, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_load_si128, _mm_movemask_ps, _mm_set1_epi32};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::MAX_FRAMES;
use memcheck_rt::callstack::{self, Guides, USUAL};
use memcheck_rt::{depot, report};

const BITS: u32 = 14;
const WAYS: usize = 8;
const STACKS: usize = WAYS << BITS;

/// One cache line: eight stacks whose hashes begin alike.
#[repr(C, align(64))]
struct Bucket {
    /// Other bits of their hashes; 0 = nothing here.
    tags: [u32; WAYS],
    /// Which they are, see [`Memory::stacks`].
    stacks: [u32; WAYS],
}

/// A stack that was seen.
#[repr(C)]
struct Known {
    hash: u64,
    /// In the depot.
    id: u32,
    /// The one that followed it last.
    next: u32,
}

/// Zeros are an empty memory.
#[repr(C)]
pub struct Memory {
    buckets: [Bucket; 1 << BITS],
    /// A ring: the newest takes the place of the oldest, and buckets may name one that is gone.
    stacks: [Known; STACKS],
    guides: Guides,
    /// The stack that was asked for last.
    current: usize,
    /// How many stacks were learned: whoever must make room in a bucket is chosen in turn, so that stacks that come again and again find a
    /// place each.
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
        // Not 0, which is the hash of no stack.
        let hash = hash | 1;
        let expected = self.stacks[self.current % STACKS].next as usize % STACKS;
        self.current = if self.stacks[expected].hash == hash { expected } else { self.search(hash, ctx, frames) };
        self.stacks[self.current].id
    }

    /// The stack of this hash, which is not the expected one.
    #[inline(never)]
    fn search(&mut self, hash: u64, ctx: &ThreadContext, frames: usize) -> usize {
        let bucket = &self.buckets[(hash >> (64 - BITS)) as usize];
        let found = bucket.find(hash as u32).map(|way| bucket.stacks[way] as usize % STACKS);
        let found = match found {
            Some(found) if self.stacks[found].hash == hash => found,
            _ => self.learn(hash, ctx, frames),
        };
        self.stacks[self.current % STACKS].next = found as u32;
        found
    }

    /// The current stack becomes known.
    #[cold]
    #[inline(never)]
    fn learn(&mut self, hash: u64, ctx: &ThreadContext, limit: usize) -> usize {
        depot::expect(hash);
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
        let new = self.learned % STACKS;
        self.learned += 1;
        self.stacks[new] = Known { hash, id: depot::intern(&frames[..n]), next: (new + 1) as u32 };
        let bucket = &mut self.buckets[(hash >> (64 - BITS)) as usize];
        let way = bucket.find(hash as u32).or_else(|| bucket.find(0)).unwrap_or(self.learned % WAYS);
        (bucket.tags[way], bucket.stacks[way]) = (hash as u32, new as u32);
        new
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

/// The same for those who have no cache at hand.
pub fn at_alloc(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_alloc(ctx))
}

pub fn at_free(ctx: &mut ThreadContext) -> u32 {
    crate::cache::current(ctx).map_or(0, |c| c.stacks.at_free(ctx))
}
