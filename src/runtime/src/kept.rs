//! Undefined registers across a signal handler: put aside when it begins, given back when it returns.
//!
//! ```text
//! a handler begins on a frame   (thread, frame): values, V bits and origins of the undefined general registers
//! it returns by that frame      those that the frame still has the same values for are undefined again, if the thread goes on where it was
//! ```
//! A handler may change what its frame restores, and nobody need ever return by it; another handler's frame at the same place makes an
//! older one void.
//!
//! So it is at system calls and where an instruction of dirty code begins. Deliberately absent: vector registers and flags, runs of copies,
//! and what is undefined around an instruction that faults (its rule has been applied, and will be once more).

use crate::dirty;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use memcheck_abi::context::ThreadContext;
use memcheck_rt::sync::Lock;
use memcheck_rt::sys;

/// The registers in a frame from its eighth word on: r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip.
const FIRST: u64 = 6 * 8;
type Words = [u64; 17];
const RIP: usize = 16;
/// General registers in the kernel's order, but the stack pointer.
const ORDER: [usize; 15] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1];
/// Handlers inside each other, and frames that nobody returned by.
const MOST: usize = 64;

struct Kept {
    thread: u64,
    frame: u64,
    words: Words,
    /// Index into `ORDER` and `words`, V bits, origin.
    registers: Vec<(usize, u64, u32)>,
}

static KEPT: Lock<Vec<Kept>> = Lock::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// For the time of a fork.
pub fn hold() -> impl Drop {
    KEPT.lock()
}

fn words(frame: u64) -> Option<Words> {
    let mut bytes = [[0u8; 8]; 17];
    let read = sys::read_guarded(frame.wrapping_add(FIRST), bytes.as_flattened_mut());
    read.then(|| bytes.map(u64::from_ne_bytes))
}

/// A handler begins on the frame at `frame`, with everything defined.
pub fn begin(ctx: &ThreadContext, frame: u64) {
    let regs = dirty::shadow_regs(ctx);
    if regs.dirty == 0 && COUNT.load(Relaxed) == 0 {
        return;
    }
    dirty::settle(ctx, regs, u64::MAX);
    let undefined = ORDER.iter().enumerate().map(|(word, &n)| (word, regs.gpr(n), regs.origin[n]));
    let registers: Vec<_> = undefined.filter(|&(_, v, _)| v != 0).collect();
    regs.dirty = 0;
    let mut all = KEPT.lock();
    all.retain(|kept| (kept.thread, kept.frame) != (ctx.self_ptr, frame));
    if let Some(words) = words(frame).filter(|_| !registers.is_empty()) {
        if all.len() == MOST {
            all.remove(0);
        }
        all.push(Kept { thread: ctx.self_ptr, frame, words, registers });
    }
    COUNT.store(all.len(), Relaxed);
}

/// The handler that began on this frame returns.
pub fn end(ctx: &ThreadContext, frame: u64) {
    let regs = dirty::shadow_regs(ctx);
    regs.dirty = 0;
    if COUNT.load(Relaxed) == 0 {
        return;
    }
    let mut all = KEPT.lock();
    let Some(at) = all.iter().position(|kept| (kept.thread, kept.frame) == (ctx.self_ptr, frame)) else { return };
    let kept = all.remove(at);
    COUNT.store(all.len(), Relaxed);
    let Some(now) = words(frame).filter(|now| now[RIP] == kept.words[RIP]) else { return };
    for (word, v, origin) in kept.registers {
        if now[word] == kept.words[word] {
            regs.set_gpr(ORDER[word], v, origin);
        }
    }
}
