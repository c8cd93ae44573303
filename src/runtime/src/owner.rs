//! Does an origin word on the stack still belong to what lies there?
//!
//! A returning function paints the V bytes of its frame, not the origin words: that would cost every return, and few frames have any.
//! So the next function's fresh locals lie under words of the last one. For each word stored on a stack it is therefore noted which
//! call's frame it went to; it counts as long as that call's frame is the one there. What was not noted (the table forgets) counts.
//!
//! ```text
//! entry = word address / 4 << 20 | digest of (slot of the return address, return address)
//! ```
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::layout::RED_ZONE;
use memcheck_rt::callstack;

pub const ENTRIES: usize = 1 << 14;
pub const DIGEST_BITS: u32 = 20;

pub static NOTED: [AtomicU64; ENTRIES] = [const { AtomicU64::new(0) }; ENTRIES];

fn entry(addr: u64) -> &'static AtomicU64 {
    &NOTED[(addr >> 2) as usize % ENTRIES]
}

pub fn on_stack(ctx: &ThreadContext, addr: u64) -> bool {
    addr >= ctx.stack_low && addr < ctx.stack_high
}

/// The call whose frame holds `addr`.
pub fn digest(ctx: &ThreadContext, addr: u64) -> u64 {
    frame(ctx, addr).1
}

/// In what stands for a frame, with an address in its function (code lies below): the place is far from the frame's upper end.
pub const FAR: u64 = 1 << 31;
/// The red zone of the caller, whose bytes are born with the call, and what the function itself pushes first.
pub const NEAR: u64 = RED_ZONE + 8;

/// The same, and in front of it what stands for the frame: an address in the function whose frame that is, and whether the place is `FAR`.
pub fn frame(ctx: &ThreadContext, addr: u64) -> (u64, u64) {
    let (mut inside, mut found) = (ctx.regs.rip, 0);
    let mut end = 0;
    callstack::walk_from(ctx, ctx.regs.rip, ctx.regs.gpr[RSP], |slot, return_address| {
        found = (slot ^ return_address.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - DIGEST_BITS);
        if slot < addr {
            inside = return_address.wrapping_sub(1);
        } else {
            end = slot;
        }
        slot < addr
    });
    let is_far = inside < FAR && end.saturating_sub(addr) > NEAR;
    (if is_far { inside | FAR } else { inside }, found)
}

/// Does `addr` lie in the frame of a call in progress on the stack that the thread is on?
pub fn is_in_frame(ctx: &ThreadContext, addr: u64) -> bool {
    let sp = ctx.regs.gpr[RSP];
    let mut found = false;
    if on_stack(ctx, addr) && addr >= sp.saturating_sub(RED_ZONE) {
        callstack::walk_from(ctx, ctx.regs.rip, sp, |slot, _| {
            found = slot >= addr;
            !found
        });
    }
    found
}

/// Origin words are written for `[addr, addr + len)`.
pub fn note(ctx: &ThreadContext, addr: u64, len: u64) {
    if !on_stack(ctx, addr) {
        return;
    }
    let digest = digest(ctx, addr);
    let first = addr & !3;
    for word in (first..addr + len).step_by(4).take(ENTRIES) {
        note_word(word, digest);
    }
}

/// The origin word at `word`, on the stack, belongs to the call with this digest.
pub fn note_word(word: u64, digest: u64) {
    entry(word).store(word >> 2 << DIGEST_BITS | digest, Ordering::Relaxed);
}

/// Is the word at `addr` a leftover of a function that has returned?
pub fn is_stale(ctx: &ThreadContext, addr: u64) -> bool {
    on_stack(ctx, addr) && is_noted_elsewhere(addr, || digest(ctx, addr))
}

/// The same for a word on the stack, `digest` being that of its frame.
pub fn is_noted_elsewhere(addr: u64, digest: impl FnOnce() -> u64) -> bool {
    let noted = entry(addr).load(Ordering::Relaxed);
    noted >> DIGEST_BITS == addr >> 2 && noted & ((1 << DIGEST_BITS) - 1) != digest()
}
