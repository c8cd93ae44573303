//! Errors leave the runtime here: counted if the same one was told before, else handed to the tracer by a trap.
//!
//! The key of an error is its kind, size, name and the top four frames; the tracer's own de-duplication (by the same rule) has the
//! last word, this table only saves the stop.
#![allow(unsafe_code, reason = "the trap, and the describe hook as a function pointer")]

use crate::sync::{Guard, Lock};
use crate::{callstack, context};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use memcheck_abi::config::LEAST_CALLERS;
use memcheck_abi::event::{ErrorEvent, FOR_DEBUGGER, Kind, Repeat, Trap, Warning};

const TABLE: usize = 2048;

#[derive(Clone, Copy)]
pub struct Seen {
    key: u64,
    serial: u64,
    count: u64,
}

static SEEN: Lock<[Seen; TABLE]> = Lock::new([Seen { key: 0, serial: 0, count: 0 }; TABLE]);
static FRAMES: AtomicU32 = AtomicU32::new(12);
static DESCRIBE: AtomicUsize = AtomicUsize::new(0);
static SCRATCH: Lock<ErrorEvent> = Lock::new(ErrorEvent::new(Kind::Core));

/// Says whether invalid accesses to an address are not to be reported; installed by the runtime.
pub type Ignored = fn(u64) -> bool;
static IGNORED: AtomicUsize = AtomicUsize::new(0);

pub fn set_ignored(hook: Ignored) {
    IGNORED.store(hook as usize, Ordering::Release);
}

fn is_ignored(e: &ErrorEvent) -> bool {
    let hook = IGNORED.load(Ordering::Acquire);
    if hook == 0 || e.has_addr == 0 || e.kind != Kind::InvalidRead as u32 && e.kind != Kind::InvalidWrite as u32 {
        return false;
    }
    // SAFETY: only `set_ignored` stores here, and it stores an `Ignored`.
    let hook: Ignored = unsafe { core::mem::transmute::<usize, Ignored>(hook) };
    hook(e.addr)
}

/// The program stands still, at this instruction and with this stack pointer, for a debugger; installed by the runtime.
pub type Stand = fn(u64, u64);
static STAND: AtomicUsize = AtomicUsize::new(0);

pub fn set_stand(hook: Stand) {
    STAND.store(hook as usize, Ordering::Release);
}

#[cold]
fn stand(pc: u64, sp: u64) {
    let hook = STAND.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_stand` stores here, and it stores a `Stand`.
        let hook: Stand = unsafe { core::mem::transmute::<usize, Stand>(hook) };
        hook(pc, sp);
    }
}

/// Errors raised so far, repeats included.
pub static ERRORS: AtomicU64 = AtomicU64::new(0);

/// Fills place and block of an event from `addr`; installed by the runtime (the heap knows blocks, this crate does not).
pub type Describe = fn(&mut ErrorEvent);

pub fn init(num_callers: u32, describe: Describe) {
    FRAMES.store(num_callers.max(LEAST_CALLERS), Ordering::Relaxed);
    DESCRIBE.store(describe as usize, Ordering::Release);
}

/// Number of frames that stacks keep.
#[inline(always)]
pub fn num_callers() -> usize {
    FRAMES.load(Ordering::Relaxed) as usize
}

/// Report an error of the current thread at program address `pc` with stack pointer `sp`. `fill` sets the facts; stack, thread and
/// description of `addr` are added here.
#[cold]
pub fn raise(kind: Kind, pc: u64, sp: u64, fill: impl FnOnce(&mut ErrorEvent)) {
    let ctx = context::current();
    if ctx.errors_disabled != 0 {
        return;
    }
    let mut event = SCRATCH.lock();
    let e = &mut *event;
    reset(e, kind);
    fill(e);
    if is_ignored(e) {
        return;
    }
    ERRORS.fetch_add(1, Ordering::Relaxed);
    e.thread = ctx.number;
    e.sp = sp;
    let limit = num_callers().min(e.stack.len());
    e.stack_len = callstack::capture(ctx, pc, sp, &mut e.stack[..limit]) as u32;
    let key = key_of(e);
    if count_if_seen(key) {
        return;
    }
    let describe = DESCRIBE.load(Ordering::Acquire);
    if e.has_addr != 0 && describe != 0 {
        // SAFETY: only `init` stores here, and it stores a `Describe`.
        let describe: Describe = unsafe { core::mem::transmute::<usize, Describe>(describe) };
        describe(e);
    }
    let serial = trap(Trap::Error, core::ptr::from_ref(e) as u64, 0, 0, 0);
    remember(key, serial & !FOR_DEBUGGER);
    drop(event);
    if serial & FOR_DEBUGGER != 0 {
        stand(pc, sp);
    }
}

/// For fork: no report is going on while this lives.
pub struct Held(#[expect(dead_code, reason = "held, not read")] (Guard<'static, ErrorEvent>, Guard<'static, [Seen; TABLE]>));

/// Wait until nobody is reporting.
pub fn hold() -> Held {
    let event = SCRATCH.lock();
    Held((event, SEEN.lock()))
}

fn reset(e: &mut ErrorEvent, kind: Kind) {
    e.kind = kind as u32;
    (e.flag, e.size, e.addr, e.has_addr, e.args) = (0, 0, 0, 0, [0; 4]);
    (e.place, e.place_thread, e.place_distance) = (0, 0, 0);
    e.block = Default::default();
    (e.origin_stack, e.origin_kind) = (0, 0);
    e.name[0] = 0;
    e.name2[0] = 0;
}

fn key_of(e: &ErrorEvent) -> u64 {
    let mut h = u64::from(e.kind) << 8 | u64::from(e.flag);
    let mut add = |x: u64| h = (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    add(e.size);
    for &b in e.name.iter().take_while(|&&b| b != 0) {
        add(u64::from(b));
    }
    for &f in &e.stack[..(e.stack_len as usize).min(4)] {
        add(f);
    }
    h | 1
}

fn count_if_seen(key: u64) -> bool {
    let mut table = SEEN.lock();
    for i in 0..8 {
        let slot = &mut table[(key as usize + i) % TABLE];
        if slot.key == key {
            slot.count += 1;
            return true;
        }
    }
    false
}

fn remember(key: u64, serial: u64) {
    let mut table = SEEN.lock();
    for i in 0..8 {
        let slot = &mut table[(key as usize + i) % TABLE];
        if slot.key == 0 {
            *slot = Seen { key, serial, count: 0 };
            return;
        }
    }
}

/// Counts not yet told to the tracer, written to `out`; returns how many.
pub fn take_repeats(out: &mut [Repeat]) -> usize {
    let mut table = SEEN.lock();
    let mut n = 0;
    for slot in table.iter_mut().filter(|s| s.count != 0) {
        if n == out.len() {
            break;
        }
        out[n] = Repeat { serial: slot.serial, count: slot.count };
        slot.count = 0;
        n += 1;
    }
    n
}

/// The runtime cannot go on: say so and end the process.
#[cold]
pub fn internal(text: &str) -> ! {
    end(text, false)
}

/// The system does not give what the runtime needs to start.
#[cold]
pub fn refused(text: &str) -> ! {
    end(text, true)
}

#[cold]
fn end(text: &str, refused: bool) -> ! {
    trap(Trap::Internal, text.as_ptr() as u64, text.len() as u64, refused.into(), 0);
    // SAFETY: ends the process.
    unsafe { crate::sys::syscall3(crate::sys::nr::EXIT_GROUP, 1, 0, 0) };
    loop {
        core::hint::spin_loop();
    }
}

/// A line for -v.
pub fn note(text: &str) {
    trap(Trap::Note, text.as_ptr() as u64, text.len() as u64, 0, 0);
}

/// Something that users should know and that is no error.
#[cold]
pub fn warn(what: Warning, words: [u64; 3]) {
    trap(Trap::Warning, what as u64, words[0], words[1], words[2]);
}

/// The process that the tracer has let go: what its traps say, nobody hears.
static UNHEARD: AtomicU32 = AtomicU32::new(HEARD);
const HEARD: u32 = 0;
/// This process and its children.
const ALL: u32 = u32::MAX;

/// Ask the tracer to let this process go, which another is to trace. Done? `guest`: it lives in the memory of its parent, which stays.
pub fn leave_tracer(guest: bool) -> bool {
    let done = trap(Trap::LeaveTracer, 0, 0, 0, 0) == 0;
    if done {
        UNHEARD.store(if guest { own_pid() } else { ALL }, Ordering::Relaxed);
    }
    done
}

fn own_pid() -> u32 {
    // SAFETY: only asks.
    unsafe { crate::sys::syscall3(crate::sys::nr::GETPID, 0, 0, 0) as u32 }
}

#[cfg(not(feature = "host"))]
fn is_unheard() -> bool {
    match UNHEARD.load(Ordering::Relaxed) {
        HEARD => false,
        ALL => true,
        pid => pid == own_pid(),
    }
}

/// What the tracer would say if it had nothing to say.
#[cfg(not(feature = "host"))]
fn answer_unheard(code: Trap, a: u64) -> u64 {
    match code {
        Trap::Exit => a,
        Trap::Whereabouts | Trap::LeaveTracer => u64::MAX,
        _ => 0,
    }
}

/// Stop and let the tracer act; its answer.
#[cfg(not(feature = "host"))]
pub fn trap(code: Trap, a: u64, b: u64, c: u64, d: u64) -> u64 {
    if is_unheard() {
        return answer_unheard(code, a);
    }
    let answer: u64;
    // SAFETY: the tracer recognises the int3 by its address and may only change rax and memory that this call names.
    unsafe {
        core::arch::asm!("call {stub}", stub = sym trap_stub, inlateout("rax") code as u64 => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d);
    }
    answer
}

/// The one trap instruction; its address is in the configuration block. Host tests have it too, for what only names it.
#[unsafe(naked)]
pub extern "C" fn trap_stub() {
    core::arch::naked_asm!("int3", "ret")
}

/// Host tests: events are collected instead.
#[cfg(feature = "host")]
pub mod host {
    use super::{ErrorEvent, Kind, Lock, SEEN, Seen};
    pub static LOG: Lock<([ErrorEvent; 16], usize)> = Lock::new(([ErrorEvent::new(Kind::Core); 16], 0));

    /// The errors raised since the last call: (number, copy of the last one). Also forgets what was seen.
    pub fn drain() -> (usize, ErrorEvent) {
        SEEN.lock().fill(Seen { key: 0, serial: 0, count: 0 });
        let mut log = LOG.lock();
        let n = log.1;
        log.1 = 0;
        (n, log.0[n.saturating_sub(1).min(15)])
    }
}

#[cfg(feature = "host")]
pub fn trap(code: Trap, a: u64, _b: u64, _c: u64, _d: u64) -> u64 {
    if code == Trap::Error {
        let mut log = host::LOG.lock();
        let at = log.1.min(15);
        // SAFETY: `raise` passes the address of its event.
        log.0[at] = unsafe { *(a as *const ErrorEvent) };
        log.1 += 1;
    }
    0
}
