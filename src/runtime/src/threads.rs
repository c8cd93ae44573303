//! Thread slots: context and runtime stack of each thread of the program.
#![allow(unsafe_code, reason = "sets up contexts in fresh memory and the segment bases")]

use crate::cache::CACHE;
use crate::{asm, newstack, stackmove};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::{RAX, RSP, ThreadContext, local};
use memcheck_abi::event::{Trap, Warning};
use memcheck_abi::layout::{SLOT_RUNTIME_STACK_TOP, THREAD_SLOT, THREADS_END, THREADS_START, V_DISTANCE};
use memcheck_kernel::CloneArgs;
use memcheck_kernel::action::clone;
use memcheck_rt::sync::Lock;
use memcheck_rt::{context, report, sys};

static NEXT_SLOT: AtomicU64 = AtomicU64::new(THREADS_START);
/// Numbers of threads in use, a bit each: like Valgrind's, the least free one is the next thread's.
static NUMBERS: Lock<Vec<u64>> = Lock::new(Vec::new());

/// Slots whose thread has said it will exit: (slot, tid). They are free once the kernel no longer knows the thread.
static LEAVING: Lock<VecDeque<(u64, u32)>> = Lock::new(VecDeque::new());
/// How many of them to ask about: the oldest have most likely gone, but one may be kept waiting for long.
const ASKED: usize = 4;

fn take_number() -> u32 {
    let mut words = NUMBERS.lock();
    let at = match words.iter().position(|&word| word != u64::MAX) {
        Some(at) => at,
        None => {
            words.push(0);
            words.len() - 1
        }
    };
    let bit = words[at].trailing_ones();
    words[at] |= 1 << bit;
    at as u32 * u64::BITS + bit + 1
}

fn give_number_back(number: u32) {
    let bit = number.wrapping_sub(1);
    if let Some(word) = NUMBERS.lock().get_mut((bit / u64::BITS) as usize) {
        *word &= !(1 << (bit % u64::BITS));
    }
}

/// For the time of a fork.
pub fn hold() -> (impl Drop, impl Drop) {
    (NUMBERS.lock(), LEAVING.lock())
}

/// In a forked child only the thread that forked goes on.
pub fn keep_number(number: u32) {
    let bit = number.wrapping_sub(1);
    for (at, word) in NUMBERS.lock().iter_mut().enumerate() {
        *word = if at as u32 == bit / u64::BITS { 1 << (bit % u64::BITS) } else { 0 };
    }
}

fn reuse() -> Option<u64> {
    let mut leaving = LEAVING.lock();
    for _ in 0..ASKED {
        let (slot, tid) = leaving.pop_front()?;
        if !is_alive(tid) {
            return Some(slot);
        }
        leaving.push_back((slot, tid));
    }
    None
}

/// Does the kernel still know this thread of the process? (0: it was never born.)
fn is_alive(tid: u32) -> bool {
    // SAFETY: signal 0 only asks whether the thread exists.
    tid != 0 && unsafe { sys::syscall3(sys::nr::TGKILL, sys::syscall3(sys::nr::GETPID, 0, 0, 0) as u64, u64::from(tid), 0) } == 0
}

/// A context in a fresh or reused slot.
fn slot() -> Option<&'static mut ThreadContext> {
    let at = match reuse() {
        Some(at) => {
            // SAFETY: mapped, left by an ended thread.
            crate::statistics::retire(unsafe { &*(at as *const ThreadContext) });
            at
        }
        None => {
            let at = NEXT_SLOT.fetch_add(THREAD_SLOT, Ordering::Relaxed);
            if at >= THREADS_END || !sys::map_fixed(at, SLOT_RUNTIME_STACK_TOP, sys::PROT_READ | sys::PROT_WRITE) {
                return None;
            }
            at
        }
    };
    // SAFETY: mapped, zeroed or left by an ended thread; all fields are plain integers.
    let ctx = unsafe { &mut *(at as *mut ThreadContext) };
    // SAFETY: only this thread knows the slot.
    unsafe { core::ptr::write_bytes(core::ptr::from_mut(ctx).cast::<u8>(), 0, size_of::<ThreadContext>()) };
    ctx.self_ptr = at;
    ctx.runtime_rsp = at + SLOT_RUNTIME_STACK_TOP;
    ctx.number = take_number();
    Some(ctx)
}

/// The contexts of all threads, also of those that have ended and whose contexts nobody has taken over.
pub fn for_each(mut visit: impl FnMut(&ThreadContext)) {
    let end = NEXT_SLOT.load(Ordering::Relaxed).min(THREADS_END);
    for at in (THREADS_START..end).step_by(THREAD_SLOT as usize) {
        // A slot that is counted but not yet mapped is left out.
        if sys::read_guarded(at, &mut [0]) {
            // SAFETY: mapped; its thread may be counting on, and plain integers may be read as they stand.
            visit(unsafe { &*(at as *const ThreadContext) });
        }
    }
}

/// The main thread: sets the segment bases. `rsp` and `rip` are the program's.
pub fn first(rsp: u64, rip: u64) -> Option<&'static mut ThreadContext> {
    let ctx = slot()?;
    ctx.regs.gpr[RSP] = rsp;
    ctx.regs.rip = rip;
    ctx.first_sp = rsp;
    ctx.regs.rflags = 0x202;
    // SAFETY: no arguments.
    ctx.tid = unsafe { sys::syscall3(sys::nr::GETTID, 0, 0, 0) } as u32;
    // SAFETY: from here on fs and gs are ours; the program's own bases live in the context. Kernel and processor support
    // these instructions (checked by the tracer before it started the program).
    unsafe {
        asm!("wrfsbase {}", in(reg) ctx.self_ptr, options(nostack));
        asm!("wrgsbase {}", in(reg) V_DISTANCE, options(nostack));
    }
    // At exec the kernel has cleared the vector registers, and the context is zeroed.
    Some(ctx)
}

/// The program's clone with shared memory: a thread, or a vfork-like child. Returns the kernel's answer.
pub fn create(parent: &mut ThreadContext, args: &CloneArgs) -> i64 {
    let Some(child) = slot() else { return -12 };
    child.regs = parent.regs;
    child.regs.gpr[RAX] = 0;
    if args.stack != 0 {
        child.regs.gpr[RSP] = args.stack;
    }
    child.guest_fs = if args.flags & clone::SETTLS != 0 { args.tls } else { parent.guest_fs };
    child.guest_gs = parent.guest_gs;
    child.xsave.0.copy_from_slice(&parent.xsave.0);
    child.vfork_child = u32::from(!args.is_thread);
    child.locals[local::TRAP_BLOCKED] = parent.locals[local::TRAP_BLOCKED];
    child.first_sp = child.regs.gpr[RSP];
    if args.is_thread {
        stackmove::settle(child, child.regs.gpr[RSP]);
        newstack::made_for_thread(child);
    } else {
        copy_calls(parent, child);
    }
    if !args.is_thread {
        CACHE.lock().sharers += 1;
    }
    if !args.is_vfork_like {
        context::share();
    }
    let flags = args.flags & !clone::SETTLS;
    let r = asm::clone_thread(flags, child.runtime_rsp, args.parent_tid, args.child_tid, child.self_ptr);
    if !args.is_thread && (args.is_vfork_like || sys::is_error(r)) {
        CACHE.lock().sharers -= 1;
    }
    if r > 0 && !args.is_thread && args.is_vfork_like {
        // The child has ended or become another program: its slot is free.
        LEAVING.lock().push_back((child.self_ptr, r as u32));
    }
    if sys::is_error(r) {
        if args.is_thread {
            give_number_back(child.number);
        }
        LEAVING.lock().push_back((child.self_ptr, 0));
    }
    r
}

/// A child on its parent's stack returns through its parent's frames.
fn copy_calls(parent: &ThreadContext, child: &mut ThreadContext) {
    give_number_back(child.number);
    (child.stack_low, child.stack_high, child.number) = (parent.stack_low, parent.stack_high, parent.number);
    (child.first_sp, child.stack_floor, child.painted_low) = (parent.first_sp, parent.stack_floor, u64::MAX);
}

/// First Rust code of a new thread, on its runtime stack, with its segment bases set.
pub extern "C" fn started(ctx: &mut ThreadContext) {
    // SAFETY: no arguments.
    ctx.tid = unsafe { sys::syscall3(sys::nr::GETTID, 0, 0, 0) } as u32;
    report::trap(Trap::ThreadStart, ctx.self_ptr, 0, 0, 0);
}

/// A thread ends, and perhaps errors were kept back that nobody wanted to be kept back.
pub fn warn_if_reporting_is_off(ctx: &ThreadContext) {
    if ctx.errors_disabled != 0 {
        report::warn(Warning::ReportingOff, [0; 3]);
    }
}

/// The thread ends: exit(status), with everything given back.
pub fn exit(status: u64) -> ! {
    let ctx = context::current();
    memcheck_heap::thread_exit(ctx);
    // A process of its own leaves its slot to the parent that waited for it. If nobody did, nobody knows when it is free.
    if ctx.vfork_child == 0 {
        warn_if_reporting_is_off(ctx);
        give_number_back(ctx.number);
        LEAVING.lock().push_back((ctx.self_ptr, ctx.tid));
    }
    loop {
        // SAFETY: ends this thread; its slot stays mapped until the kernel has forgotten it.
        unsafe { sys::syscall3(sys::nr::EXIT, status, 0, 0) };
    }
}
