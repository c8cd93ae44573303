//! The current stack of the program, read from the V shadow of its stack.
//!
//! A translated call writes RETURN_MARK to the V bytes of the slot that it pushes the return address to; returning (and everything else
//! that releases stack) paints over it. So the calls in progress are the marked slots from the stack pointer upwards, on every
//! stack there is: longjmp, exceptions and coroutines need no hooks, and a call costs nothing extra.
//!
//! ```text
//! sp -> | locals | ra f | locals | ra main | locals | ...        program memory
//!       | V      | MARK | V      | MARK    | V      |            its shadow
//! ```
//! Frames can be long, so a walk writes the distance to the caller's slot into the upper half of the mark. It holds as long as the call is in
//! progress: the callers of a call do not change, and the next call at the same place writes a fresh mark. For fresh marks, frame sizes are
//! remembered: at one call site the distance is nearly always the same. A remembered distance counts only if a mark is there. In functions
//! whose frames are not of one size (alloca, arrays of variable length, alignment beyond 16) that would not do: a shorter frame than the
//! last one may have a mark of an outer call just there. So nothing is remembered for these ([`frames_vary`]).
#![allow(unsafe_code, reason = "reads shadow and marked stack slots by address")]

use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::MAX_FRAMES;
use memcheck_abi::layout::{PROGRAM_END, RETURN_MARK, SIGNAL_MARK, V_DISTANCE};

/// A walk looks at no more than this much stack between two calls.
const REACH: u64 = 4 << 20;
/// Bytes above a thread's first stack pointer in which its outermost call may have put the return address.
const FIRST_WORDS: u64 = 32;

/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC_FLAGS: u64 = 0x8d5;

/// V of an aligned slot.
#[inline(always)]
fn v_of_slot(slot: u64) -> u64 {
    // SAFETY: the callers stay below PROGRAM_END, whose whole V shadow is mapped.
    unsafe { *((slot + V_DISTANCE) as *const u64) }
}

/// Is this a return address of a call in progress?
#[inline(always)]
pub const fn is_return(v: u64) -> bool {
    v as u32 == RETURN_MARK as u32
}

#[inline(always)]
fn is_any(v: u64) -> bool {
    is_return(v) || v == SIGNAL_MARK
}

/// Does the aligned word around `addr` hold a return address of a call in progress (or the like)? Its V bytes are no V bits.
#[inline]
pub fn is_mark(addr: u64) -> bool {
    addr < PROGRAM_END && is_any(v_of_slot(addr & !7))
}

/// The first marked slot in [at, end), 8-aligned.
#[inline]
fn next_mark(mut at: u64, end: u64) -> Option<u64> {
    while at < end {
        if is_any(v_of_slot(at)) {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// Where the search ends: above the first stack pointer of the thread nothing was called. (A thread pops its function and the argument
/// from there first, so that call lies above.)
fn limit(ctx: &ThreadContext, sp: u64) -> u64 {
    let top = if ctx.first_sp >= sp && ctx.first_sp < ctx.stack_high { ctx.first_sp + FIRST_WORDS } else { ctx.stack_high };
    top.min(sp.saturating_add(REACH)).min(PROGRAM_END - 8)
}

/// Calls in progress above `sp`, innermost first: (slot, return address) to `visit`, until it says false.
#[inline]
pub fn walk(ctx: &ThreadContext, sp: u64, visit: impl FnMut(u64, u64) -> bool) {
    let at = sp.wrapping_add(7) & !7;
    if at < PROGRAM_END {
        let end = limit(ctx, at);
        climb(ctx, next_mark(at, end), end, visit);
    }
}

/// The same, often from the same places: how far the innermost slot was from the stack pointer at `pc` is remembered.
pub fn walk_from(ctx: &ThreadContext, pc: u64, sp: u64, visit: impl FnMut(u64, u64) -> bool) {
    if sp & 7 != 0 || sp >= PROGRAM_END {
        return walk(ctx, sp, visit);
    }
    let end = limit(ctx, sp);
    let innermost = if is_any(v_of_slot(sp)) { Some(sp) } else { distant_mark(sp, pc | INSIDE, end) };
    climb(ctx, innermost, end, visit);
}

/// Did a signal whose frame has its rip at `slot` come while a system call was made? The instruction leaves rip in rcx and the flags in r11.
#[cold]
fn is_behind_system_call(slot: u64, rip: u64) -> bool {
    // SAFETY: inside the kernel's signal frame (r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, flags).
    let word = |at: i64| unsafe { *(slot.wrapping_add_signed(8 * at) as *const u64) };
    let (rcx, r11, flags) = (word(-2), word(-13), word(1));
    rcx == rip && (r11 ^ flags) & ARITHMETIC_FLAGS == 0
}

/// Marked slots from `slot` on.
#[inline(always)]
fn climb(ctx: &ThreadContext, mut slot: Option<u64>, mut end: u64, mut visit: impl FnMut(u64, u64) -> bool) {
    while let Some(this) = slot {
        // SAFETY: a marked slot was written by the call that marked it, or by the kernel's signal frame; its page is there.
        let value = unsafe { *(this as *const u64) };
        let mark = v_of_slot(this);
        let signal = !is_return(mark);
        // The interrupted instruction is not a return address: one more, so that all callers may subtract one. But what a system call
        // has interrupted is that call, and the address behind it does as well as that of any other call.
        if !visit(this, if signal && !is_behind_system_call(this, value) { value.wrapping_add(1) } else { value }) {
            return;
        }
        if signal {
            // SAFETY: the word below it in the signal frame is the interrupted stack pointer.
            let saved = unsafe { *((this - 8) as *const u64) };
            let at = (saved.wrapping_add(7)) & !7;
            if at >= PROGRAM_END {
                return;
            }
            end = if ctx.first_sp >= at { ctx.first_sp + FIRST_WORDS } else { at + REACH }.min(at + REACH).min(PROGRAM_END - 8);
            slot = next_mark(at, end);
        } else {
            slot = caller(this, mark, value, end);
        }
    }
}

/// In the key of a frame size: measured from the stack pointer at an instruction, not from the slot of a return address.
pub const INSIDE: u64 = 1 << 46;

/// The stack pointer goes up to `new`: the lowest it can have been in the frame that it comes to lie in, when that frame made its innermost
/// call (or was interrupted by a signal). `None`: no call in progress ends.
pub fn frame_begins(ctx: &ThreadContext, sp: u64, new: u64) -> Option<u64> {
    let mut last = None;
    walk(ctx, sp, |slot, _| {
        let inside = slot < new;
        if inside {
            // SAFETY: a signal's mark lies in the kernel's frame, above the word with the interrupted stack pointer.
            last = Some(if is_return(v_of_slot(slot)) { slot + 8 } else { unsafe { *((slot - 8) as *const u64) } });
        }
        inside
    });
    last
}

/// Frame sizes by call site: return address << 17 | size / 8. A direct-mapped table; losing an entry costs a search. (Assembly of the
/// runtime reads it, too.)
pub static SIZES: [AtomicU64; 1 << 13] = [const { AtomicU64::new(0) }; 1 << 13];
pub const SIZE_BITS: u32 = 17;
/// What is remembered is shorter.
const LONGEST_FRAME: u64 = 8 << SIZE_BITS;
pub const SIZE_SHIFT: u32 = 64 - SIZES.len().trailing_zeros();

#[inline(always)]
fn size_entry(return_address: u64) -> &'static AtomicU64 {
    &SIZES[(return_address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> SIZE_SHIFT) as usize]
}

/// In the upper half of a mark: nobody called this.
const OUTERMOST: u64 = u32::MAX as u64;

/// The marked slot above `slot`, which has this mark and holds `return_address`.
#[inline(always)]
fn caller(slot: u64, mark: u64, return_address: u64, end: u64) -> Option<u64> {
    let distance = mark >> 32;
    if distance != 0 && distance != OUTERMOST && is_any(v_of_slot(slot + distance)) {
        return Some(slot + distance);
    }
    if distance == OUTERMOST { None } else { first_look(slot, return_address, end) }
}

/// The same for a fresh mark, which learns the answer.
#[inline]
fn first_look(slot: u64, return_address: u64, end: u64) -> Option<u64> {
    let found = distant_mark(slot, return_address, end);
    note(slot, found.map_or(OUTERMOST, |found| found - slot));
    found
}

/// The usual caller of this call site, if it is there. Less to ask than in [`distant_mark`], which decides otherwise.
#[inline(always)]
fn usual_caller(ctx: &ThreadContext, slot: u64, return_address: u64) -> Option<u64> {
    let known = size_entry(return_address).load(Ordering::Relaxed);
    let found = slot + 8 * (known & ((1 << SIZE_BITS) - 1));
    let usual = known >> SIZE_BITS == return_address && found < ctx.first_sp && found < ctx.stack_high && is_return(v_of_slot(found));
    usual.then_some(found)
}

/// The first marked slot above `slot`, whose distance is remembered by `key`.
#[inline]
fn distant_mark(slot: u64, key: u64, end: u64) -> Option<u64> {
    let entry = size_entry(key);
    let known = entry.load(Ordering::Relaxed);
    let found = slot + 8 * (known & ((1 << SIZE_BITS) - 1));
    if known >> SIZE_BITS == key && found > slot && found < end && is_return(v_of_slot(found)) {
        return Some(found);
    }
    let found = next_mark(slot + 8, end)?;
    let words = (found - slot) / 8;
    if words >> SIZE_BITS == 0 && key >> (64 - SIZE_BITS) == 0 {
        let pc = key & !INSIDE;
        if known >> SIZE_BITS == key {
            frames_vary(pc, pc);
        }
        if !varies(pc) {
            entry.store(key << SIZE_BITS | words, Ordering::Relaxed);
        }
    }
    Some(found)
}

/// One bit for each piece of code (the table is direct-mapped): frames there are not of one size.
static VARYING: [AtomicU64; 1 << 10] = [const { AtomicU64::new(0) }; 1 << 10];
const PIECE: u64 = 256;
/// The calls of a function are looked for this far behind the code that makes room in its frame.
const FUNCTION: u64 = 4096;

fn varying_bit(piece: u64) -> (&'static AtomicU64, u64) {
    (&VARYING[(piece / 64) as usize % VARYING.len()], 1 << (piece % 64))
}

fn varies(pc: u64) -> bool {
    let (word, bit) = varying_bit(pc / PIECE);
    word.load(Ordering::Relaxed) & bit != 0
}

/// Code between `start` and `end` moves the stack pointer by what is only known when it runs, or was seen to have done so.
pub fn frames_vary(start: u64, end: u64) {
    for piece in start / PIECE..=end.wrapping_add(FUNCTION) / PIECE {
        let (word, bit) = varying_bit(piece);
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

/// Write the distance into the mark of a slot.
#[inline(always)]
fn note(slot: u64, distance: u64) {
    if distance <= OUTERMOST {
        // SAFETY: the upper half of the V bytes of a marked slot; only this thread's walks and calls use them.
        unsafe { *((slot + V_DISTANCE + 4) as *mut u32) = distance as u32 }
    }
}

/// The aligned slot at `slot` holds the return address of a function that nobody called.
pub fn mark_outermost(slot: u64) {
    if slot < PROGRAM_END {
        // SAFETY: all V shadow of the program is mapped.
        unsafe { *((slot + V_DISTANCE) as *mut u64) = RETURN_MARK & OUTERMOST | OUTERMOST << 32 }
    }
}

/// Fill `out` with the current stack: out[0] = `pc`, then return addresses, innermost first. Returns how many.
/// `sp` is the program's stack pointer at `pc`.
#[inline]
pub fn capture(ctx: &ThreadContext, pc: u64, sp: u64, out: &mut [u64]) -> usize {
    if out.is_empty() {
        return 0;
    }
    out[0] = pc;
    let mut n = 1;
    if out.len() == 1 {
        return 1;
    }
    walk(ctx, sp, |_, address| {
        out[n] = address;
        n += 1;
        n < out.len()
    });
    n
}

/// Frames that [`Guides::fingerprint`] looks at, at most.
pub const USUAL: usize = 16;

/// Factors by position, from a well mixed sequence: a sum of products is a good hash of a list, and no product waits for another.
static FACTORS: [u64; MAX_FRAMES] = {
    let mut factors = [0; MAX_FRAMES];
    let mut i = 0;
    while i < MAX_FRAMES {
        let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        factors[i] = z ^ z >> 31 | 1;
        i += 1;
    }
    factors
};

#[inline(always)]
fn mixed(sum: u64) -> u64 {
    let h = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 29
}

/// A hash of a stack.
pub fn fingerprint_of(frames: &[u64]) -> u64 {
    mixed(frames.iter().zip(&FACTORS).fold(0, |sum, (frame, factor)| sum.wrapping_add(frame.wrapping_mul(*factor))))
}

/// The marks that a walk found when it last began at a call site, with their distances; zeros to begin with.
///
/// A walk is a chain of loads, each waiting for the one before. With a guess where the next frame will be, the processor reads on while
/// the guess is being checked.
pub struct Guides([[u64; USUAL]; GUIDES]);

const GUIDES: usize = 64;

/// Keeps the compiler from seeing that a guess equals what it was compared with.
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: no instructions.
    unsafe { core::arch::asm!("/* {} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) }
    value
}

impl Guides {
    /// [`fingerprint_of`] what [`capture`] would find, without writing it down. `frames` is at most [`USUAL`].
    #[inline(always)]
    pub fn fingerprint(&mut self, ctx: &ThreadContext, pc: u64, sp: u64, frames: usize) -> u64 {
        if frames < 2 || sp & 7 != 0 || sp >= PROGRAM_END - LONGEST_FRAME || !is_return(v_of_slot(sp)) {
            return captured(ctx, pc, sp, frames);
        }
        // SAFETY: as in `walk`, here and below.
        let first = unsafe { *(sp as *const u64) };
        let guide = &mut self.0[(first ^ first >> 6) as usize % GUIDES];
        let mut sum = pc.wrapping_mul(FACTORS[0]).wrapping_add(first.wrapping_mul(FACTORS[1]));
        // The call that is being served has a fresh mark, and nobody will ask again.
        let caller_of_first = usual_caller(ctx, sp, first).or_else(|| distant_mark(sp, first, limit(ctx, sp)));
        let Some(mut slot) = caller_of_first else { return mixed(sum) };
        for n in 2..frames.min(USUAL) {
            // SAFETY: see above.
            let value = unsafe { *(slot as *const u64) };
            let mark = v_of_slot(slot);
            sum = sum.wrapping_add(value.wrapping_mul(FACTORS[n]));
            if mark == guide[n] {
                slot = opaque(slot + (guide[n] >> 32));
                continue;
            }
            if !is_return(mark) {
                return captured(ctx, pc, sp, frames);
            }
            if n + 1 == frames {
                break;
            }
            let next = match usual_caller(ctx, slot, value) {
                Some(usual) if mark >> 32 == 0 => {
                    note(slot, usual - slot);
                    usual
                }
                _ => match caller(slot, mark, value, limit(ctx, sp)) {
                    Some(next) => next,
                    None => break,
                },
            };
            guide[n] = RETURN_MARK & u64::from(u32::MAX) | (next - slot) << 32;
            slot = next;
        }
        mixed(sum)
    }
}

#[cold]
#[inline(never)]
fn captured(ctx: &ThreadContext, pc: u64, sp: u64, frames: usize) -> u64 {
    let mut found = [0; USUAL];
    let n = capture(ctx, pc, sp, &mut found[..frames.min(USUAL)]);
    fingerprint_of(&found[..n])
}

/// Host tests: make stacks.
#[cfg(feature = "host")]
pub mod host {
    use super::{RETURN_MARK, V_DISTANCE};
    use crate::{shadow, sys};

    /// A call in progress whose return address lies at `slot`.
    pub fn push(slot: u64, return_address: u64) {
        let _ = sys::map_fixed(slot & !4095, 4096, 3);
        // SAFETY: mapped just now or by an earlier call; its shadow too.
        unsafe {
            *(slot as *mut u64) = return_address;
            *((slot + V_DISTANCE) as *mut u64) = RETURN_MARK;
        }
    }

    /// No calls in [low, high).
    pub fn clear(low: u64, high: u64) {
        shadow::fill_v(low, high - low, 0);
    }
}
