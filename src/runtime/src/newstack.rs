//! Stacks of threads and coroutines when they begin.
//!
//! Growing marks nothing (see `translate::stack`): what lies below the stack pointer is undefined because released frames were painted. On a
//! new stack none was released yet, and fresh memory counts as defined. So what its first frames will hold is painted when it begins, if it
//! is known to be nothing but a stack:
//!
//! | a stack of | is known by | painted |
//! |---|---|---|
//! | a thread | the guard page below | whatever it held: the thread before has ended |
//! | a coroutine | makecontext, which is told its bounds | what was never used |
//! | a coroutine of another library | the guard page below, when it is switched to near its upper end | what was never used |
//!
//! Never used: all its bytes are zero and defined. A pattern that the program looks for later, to see how deep a stack became, stays.
//!
//! Nobody calls the function that a context begins with, but makecontext has put an address behind it to return to. When the context is begun,
//! that slot becomes a call in progress, the outermost: stacks show it, and what lies below are frames, also in a block of the heap.
//!
//! Deliberately absent: frames more than `PAINTED` bytes down, in memory never touched before, read as defined.
#![allow(unsafe_code, reason = "reads the program's memory")]

use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::event::Place;
use memcheck_abi::layout::{RED_ZONE, V_DISTANCE};
use memcheck_kernel::space;
use memcheck_rt::{callstack, shadow, sys};

/// Bytes below the first stack pointer that are undefined from the start.
const PAINTED: u64 = 64 << 10;
const PAGE: u64 = 4096;

pub fn made_for_thread(child: &ThreadContext) {
    let (low, sp) = (child.stack_low, child.regs.gpr[RSP]);
    if low < sp && sp <= child.stack_high && is_guarded(low) {
        let from = low.max(sp.saturating_sub(PAINTED));
        shadow::fill_v(from, sp - from, shadow::UNDEFINED);
    }
}

/// Stands in for `makecontext(context, function, ...)`. Returns 0: the program's own function does the work.
pub extern "C" fn made_for_context(context: u64, _function: u64, arguments: u64) -> u64 {
    /// Of `uc_stack` in `ucontext_t`: ss_sp, and behind ss_flags ss_size.
    const STACK: u64 = 16;
    const SIZE: u64 = STACK + 16;
    if is_writable(context, SIZE + 8) {
        // SAFETY: the program's memory, mapped, as was just seen.
        let [low, size] = [STACK, SIZE].map(|at| unsafe { core::ptr::read_unaligned((context + at) as *const u64) });
        let end = low.saturating_add(size);
        paint_unused(low, end);
        // The address to return to, then the next context and arguments that do not fit into registers.
        const IN_REGISTERS: i32 = 6;
        let more = (arguments as i32).saturating_sub(IN_REGISTERS).max(0) as u64;
        let slot = (end.wrapping_sub(8 * (1 + more)) & !15).wrapping_sub(8);
        beginning(slot).store(slot, Ordering::Relaxed);
    }
    0
}

/// Where contexts that were made will begin: the slots with the address to return to. Direct-mapped; who is pushed out has no outermost call.
static BEGINNINGS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

fn beginning(slot: u64) -> &'static AtomicU64 {
    &BEGINNINGS[((slot >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize]
}

/// The stack pointer was moved to `sp`, by something that may be a switch: perhaps a context begins.
pub fn begins_at(sp: u64) {
    let known = beginning(sp);
    if sp != 0 && known.load(Ordering::Relaxed) == sp && known.compare_exchange(sp, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        callstack::mark_outermost(sp);
    }
}

/// A thread runs on the stack around `sp` for the first time, or again. (Nothing says that there is any memory at `sp`.)
pub fn switched_to(ctx: &ThreadContext, sp: u64) {
    let near_end = (ctx.stack_low..=ctx.stack_high).contains(&sp) && ctx.stack_high - sp < PAGE;
    let end = sp.saturating_sub(RED_ZONE) & !7;
    // On a stack in use the frames that were released are painted.
    if near_end && end > ctx.stack_low && shadow::v(end - 1) == shadow::DEFINED && is_guarded(ctx.stack_low) {
        paint_unused(ctx.stack_low, end);
    }
}

/// What was never used of the last `PAINTED` bytes in front of `end` becomes undefined, down to what was used, or to `low`.
fn paint_unused(low: u64, end: u64) {
    let low = low.max(end.saturating_sub(PAINTED)).next_multiple_of(8);
    let end = end & !7;
    if low >= end || !is_writable(low, end - low) {
        return;
    }
    let mut from = end;
    while from > low && is_unused(from - 8) {
        from -= 8;
    }
    shadow::fill_v(from, end - from, shadow::UNDEFINED);
}

/// Is the word at `addr`, which is mapped, zero and defined?
fn is_unused(addr: u64) -> bool {
    // SAFETY: aligned; whoever asks knows that it is mapped, and all memory of the program has V bytes.
    unsafe { core::ptr::read_volatile(addr as *const u64) | core::ptr::read_volatile((addr + V_DISTANCE) as *const u64) == 0 }
}

/// Is this one piece of memory that the program may write to? (Blocks of the heap: one live block.)
fn is_writable(addr: u64, len: u64) -> bool {
    const READ_WRITE: u32 = (sys::PROT_READ | sys::PROT_WRITE) as u32;
    let end = addr.saturating_add(len);
    if memcheck_heap::owns(addr) {
        return memcheck_heap::find(addr).is_some_and(|(place, block)| place == Place::LiveBlock && end <= block.addr + block.size);
    }
    space::mapping_of(addr).is_some_and(|(_, mapped, prot, _)| end <= mapped && prot & READ_WRITE == READ_WRITE)
}

/// Does a page without access lie below, as thread libraries put it under their stacks?
pub fn is_guarded(low: u64) -> bool {
    space::mapping_of(low.wrapping_sub(1)).is_some_and(|(_, _, prot, _)| prot == 0)
}
