//! Where undefined values come from.
//!
//! An origin is a tag: depot id of a stack, and a kind. Undefined bytes that were never moved need none: the heap block or the
//! frame they lie in is their origin. Where undefined data is stored, the tag goes to the origin shadow, 4 bytes for each aligned 4:
//!
//! ```text
//! tag = depot id << 2 | kind        kind 1 heap, 2 stack, 3 client request
//! word = tag, or a signed distance (kind 0, not 0) to another place that is to be asked: written by moves in translated code
//! ```
#![allow(unsafe_code, reason = "the origin shadow is reached by address arithmetic")]

use crate::owner;
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::{ErrorEvent, Place};
use memcheck_abi::layout::{ORIGIN_DISTANCE, PROGRAM_END};
use memcheck_rt::{context, depot, origins};

const HEAP: u32 = 1;
const STACK: u32 = 2;
/// Most moves that are followed backwards; places can come to refer to each other.
const MOVES: usize = 64;

pub fn word(addr: u64) -> *mut u32 {
    ((addr & !3) + ORIGIN_DISTANCE) as *mut u32
}

/// The last bytes of the program's space have no origin words.
pub fn covered(addr: u64) -> bool {
    addr < PROGRAM_END - (1 << 21)
}

/// Undefined bits were stored at `addr`.
pub fn store(ctx: &ThreadContext, addr: u64, v: &[u8], tag: u32) {
    if tag == 0 || !covered(addr + v.len() as u64) || crate::startup::config().track_origins == 0 {
        return;
    }
    let mut at = addr & !3;
    while at < addr + v.len() as u64 {
        let first = at.max(addr) - addr;
        let last = (at + 4 - addr).min(v.len() as u64);
        if v[first as usize..last as usize].iter().any(|&b| b != 0) {
            // SAFETY: inside the origin range, which is mapped.
            unsafe { *word(at) = tag };
        }
        at += 4;
    }
    origins::note(addr, v.len() as u64);
    owner::note(ctx, addr, v.len() as u64);
}

/// The hook of the string functions: origin words were moved to a range.
pub fn moved(addr: u64, len: u64) {
    origins::note(addr, len);
    owner::note(context::current(), addr, len);
}

/// Tag of the undefined bytes in a range.
pub fn of_range(ctx: &ThreadContext, addr: u64, len: usize) -> u32 {
    if crate::startup::config().track_origins == 0 {
        return 0;
    }
    let mut at = memcheck_rt::shadow::first_nonzero_v(addr, len as u64).unwrap_or(addr);
    for _ in 0..MOVES {
        if !covered(at) {
            break;
        }
        // SAFETY: inside the origin range.
        match unsafe { *word(at) } {
            0 => break,
            _ if owner::is_stale(ctx, at) => break,
            tag if tag & 3 != 0 => return tag,
            distance => at = at.wrapping_add(i64::from(distance as i32) as u64),
        }
    }
    native(ctx, at)
}

/// The hook of the string functions: the origin of undefined bytes that never moved.
pub fn of_place(addr: u64) -> u32 {
    of_range(context::current(), addr, 1)
}

/// The hook of the string functions: fill an event about the undefined byte at `addr`.
pub fn describe(e: &mut ErrorEvent, addr: u64) {
    let tag = of_range(context::current(), addr, 1);
    fill(e, tag);
}

fn native(ctx: &ThreadContext, addr: u64) -> u32 {
    if let Some((Place::LiveBlock | Place::FreedBlock, block)) = memcheck_heap::owns(addr).then(|| memcheck_heap::find(addr)).flatten()
        && !owner::is_in_frame(ctx, addr)
    {
        return block.alloc_stack << 2 | HEAP;
    }
    if addr >= ctx.stack_low && addr < ctx.stack_high {
        return of_frame(owner::frame(ctx, addr).0);
    }
    0
}

/// Tags of frames by what stands for them (`owner::frame`), for `asm::frame_origin`: that << 32 | tag.
pub static FRAME_TAGS: [AtomicU64; TAGS] = [const { AtomicU64::new(0) }; TAGS];
pub const TAGS: usize = 1 << 12;

fn tag_of(frame: u64) -> u32 {
    let pc = frame & !owner::FAR;
    let is_far = frame < 1 << 32 && frame & owner::FAR != 0;
    // Two frames say that it is far: see `abi::event::ErrorEvent::origin_stack`.
    let tag = if is_far { depot::intern(&[pc, pc + 1]) } else { depot::intern(&[frame]) } << 2 | STACK;
    if let Ok(low) = u32::try_from(frame) {
        FRAME_TAGS[(low ^ low >> 4) as usize % TAGS].store(frame << 32 | u64::from(tag), Ordering::Relaxed);
    }
    tag
}

/// Tag of what was born in this frame (`owner::frame`).
pub fn of_frame(frame: u64) -> u32 {
    let known = FRAME_TAGS[(frame ^ frame >> 4) as u32 as usize % TAGS].load(Ordering::Relaxed);
    if known >> 32 == frame { known as u32 } else { tag_of(frame) }
}

/// Put a tag into an event.
pub fn fill(e: &mut ErrorEvent, tag: u32) {
    if crate::startup::config().track_origins != 0 {
        (e.origin_kind, e.origin_stack) = (tag & 3, tag >> 2);
    }
}
