//! Calls of program code from inside the runtime, and what is done with them: client calls, and the C library's own clean-up at exit.
//!
//! ```text
//! runtime: call ──► program state set, return address = RETURN ──► translated code ──► `ret` ──► RETURN: asm::program_returned ──► runtime
//! ```
//! The runtime's stack below the call is where the thread's runtime part goes on meanwhile, so everything (system calls, faults, signals,
//! checks) works as ever. A function that never returns (longjmp, exit) leaves the runtime's frames behind, which costs a little stack.
#![allow(unsafe_code, reason = "pushes on the program's stack, saves vector state")]

use crate::renewal::for_more;
use crate::replaced::ARGUMENTS;
use crate::{asm, dirty};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use memcheck_abi::context::{RAX, RDX, RSP, ThreadContext, VectorState};
use memcheck_abi::event::{Trap, needed};
use memcheck_abi::layout::{MAGIC_BASE, RED_ZONE, RETURN_MARK, V_DISTANCE};
use memcheck_abi::replace::ALL;
use memcheck_rt::{access, report, sys};
use memcheck_translate::slot;

/// Number of the pseudo function that is "return to the runtime".
pub const RETURN: usize = ALL.len();
/// Its address.
pub const RETURN_ADDRESS: u64 = MAGIC_BASE + 16 * RETURN as u64;

/// Call `function` with up to six arguments; its result. The program's registers are changed as by a call.
fn call(ctx: &mut ThreadContext, function: u64, arguments: &[u64]) -> u64 {
    let sp = (ctx.regs.gpr[RSP] - RED_ZONE) & !15;
    for (&register, &value) in ARGUMENTS.iter().zip(arguments) {
        ctx.regs.gpr[register] = value;
    }
    ctx.regs.gpr[RSP] = sp;
    ctx.regs.gpr[RAX] = 0;
    ctx.regs.rflags = 0x202;
    push_return(ctx, RETURN_ADDRESS);
    ctx.regs.rip = function;
    dirty::shadow_regs(ctx).dirty = 0;
    asm::call_program(ctx)
}

/// What a `call` instruction does.
fn push_return(ctx: &mut ThreadContext, address: u64) {
    let sp = ctx.regs.gpr[RSP] - 8;
    ctx.regs.gpr[RSP] = sp;
    // SAFETY: the program's stack just below its pointer; should it be full, the fault is the program's stack overflow. Its shadow is
    // always there.
    unsafe {
        *((sp + V_DISTANCE) as *mut u64) = RETURN_MARK;
        *(sp as *mut u64) = address;
    }
}

/// CLIENT_CALL: a function that the program wants to be run by the tool itself. It runs like any other code of the program, except that the
/// caller's registers all survive.
pub fn client_call(ctx: &mut ThreadContext, function: u64, arguments: [u64; 4]) -> u64 {
    let kept = (ctx.regs, ctx.scratch, ctx.guest_rsp, ctx.target);
    let mut low = [0u8; 256];
    low.copy_from_slice(&ctx.xsave.0[..256]);
    let mut vectors = VectorState([0; 4096]);
    save_vectors(&mut vectors);
    let result = call(ctx, function, &arguments);
    restore_vectors(&vectors);
    ctx.xsave.0[..256].copy_from_slice(&low);
    (ctx.regs, ctx.scratch, ctx.guest_rsp, ctx.target) = kept;
    result
}

/// Everything that the processor and the kernel support; it fits, or `xsave` would not be announced with a size that does.
fn save_vectors(state: &mut VectorState) {
    if !has_xsave() {
        return;
    }
    // SAFETY: 64-byte aligned, 4096 bytes: more than x87, SSE, AVX, AVX-512 and PKRU take (the mask is limited to them).
    unsafe { asm!("xsave64 [{}]", in(reg) state.0.as_mut_ptr(), in("eax") 0xe7u32, in("edx") 0u32, options(nostack)) };
}

fn restore_vectors(state: &VectorState) {
    if has_xsave() {
        // SAFETY: written by `save_vectors` with the same mask.
        unsafe { asm!("xrstor64 [{}]", in(reg) state.0.as_ptr(), in("eax") 0xe7u32, in("edx") 0u32, options(nostack)) };
    }
}

fn has_xsave() -> bool {
    core::arch::x86_64::__cpuid(1).ecx >> 27 & 1 != 0
}

/// `call *rax` of a wrapper: the function itself, even if it is replaced. `back` is the address after the request.
pub fn call_original(ctx: &mut ThreadContext, back: u64) {
    let function = ctx.regs.gpr[RAX];
    push_return(ctx, back);
    dirty::shadow_regs(ctx).dirty = 0;
    let body = for_more().find_original(function);
    ctx.scratch[slot::CONTINUE as usize] = body.unwrap_or_else(|| crate::fault::bad_jump(function));
}

/// Functions that give the C library's and libstdc++'s own memory back, that with which fortified functions end, and that which says where
/// errno is; 0 = not there.
static LIBC_FREERES: AtomicU64 = AtomicU64::new(0);
static CXX_FREERES: AtomicU64 = AtomicU64::new(0);
static CHK_FAIL: AtomicU64 = AtomicU64::new(0);
static ERRNO_LOCATION: AtomicU64 = AtomicU64::new(0);

/// The session's answer about a new object: is this one of those functions? Then remember it. Of two C libraries (dlmopen) the first is the
/// one that everybody uses.
pub fn remember(function: u32, addr: u64) -> bool {
    let place = match function {
        needed::LIBC_FREERES => &LIBC_FREERES,
        needed::CXX_FREERES => &CXX_FREERES,
        needed::CHK_FAIL => &CHK_FAIL,
        needed::ERRNO_LOCATION => &ERRNO_LOCATION,
        _ => return false,
    };
    let _ = place.compare_exchange(0, addr, Ordering::Relaxed, Ordering::Relaxed);
    true
}

/// Address of `__chk_fail`, or 0.
pub fn chk_fail() -> u64 {
    CHK_FAIL.load(Ordering::Relaxed)
}

/// Make the program's errno `value`, from within a replaced function. False if nobody knows where it is.
pub fn set_errno(ctx: &mut ThreadContext, value: i32) -> bool {
    let function = ERRNO_LOCATION.load(Ordering::Relaxed);
    if function == 0 {
        return false;
    }
    let kept = (ctx.regs, ctx.scratch, ctx.guest_rsp, ctx.target);
    let dirty = core::mem::take(&mut dirty::shadow_regs(ctx).dirty);
    let place = call(ctx, function, &[]);
    dirty::shadow_regs(ctx).dirty = dirty;
    (ctx.regs, ctx.scratch, ctx.guest_rsp, ctx.target) = kept;
    let known = access::addressable(ctx, ctx.regs.gpr[RSP], place);
    if known {
        // SAFETY: the C library says that its errno is there, and the byte is the program's.
        unsafe { *(place as *mut i32) = value };
    }
    known
}

/// Code in `[start, end)` is gone.
pub fn forget(start: u64, end: u64) {
    for place in [&LIBC_FREERES, &CXX_FREERES, &CHK_FAIL, &ERRNO_LOCATION] {
        if (start..end).contains(&place.load(Ordering::Relaxed)) {
            place.store(0, Ordering::Relaxed);
        }
    }
}

/// How often to ask the tracer to stop the other threads, when one of them stands where it may hold a lock of ours.
const ATTEMPTS: u32 = 100;

/// Before the report of a process that ends by itself: memory of the libraries is no leak of the program's.
pub fn free_libraries(ctx: &mut ThreadContext, alone: bool) {
    let functions = [&CXX_FREERES, &LIBC_FREERES].map(|f| f.load(Ordering::Relaxed));
    // Nothing to give back also means that the libraries may never have been made ready (`ld.so --list` only maps them).
    // (Frees that failed are counted too.)
    let (allocated, freed, _) = memcheck_heap::totals();
    let nothing_left = allocated == freed && report::ERRORS.load(Ordering::Relaxed) == 0;
    if functions == [0, 0] || nothing_left || !(alone || freeze()) {
        return;
    }
    let regs = ctx.regs;
    FREEING.store(true, Ordering::Relaxed);
    for function in functions.into_iter().filter(|&f| f != 0) {
        call(ctx, function, &[]);
    }
    FREEING.store(false, Ordering::Relaxed);
    ctx.regs = regs;
}

static FREEING: AtomicBool = AtomicBool::new(false);

/// A fault in the clean-up, in libraries that the program left in whatever state: no error of the program's. The function ends here.
pub fn end_clean_up() {
    if FREEING.load(Ordering::Relaxed) {
        asm::abandon_program()
    }
}

/// The clean-up would also write out what stdio has buffered, and put file positions back. After exit() that was done already; after _exit
/// it must not happen. The answer to such a system call, if this is the time.
pub fn refused(ctx: &ThreadContext) -> Option<i64> {
    const WRITE: u64 = 1;
    const LSEEK: u64 = 8;
    const WRITEV: u64 = 20;
    const ESPIPE: i64 = -29;
    const EBADF: i64 = -9;
    if !FREEING.load(Ordering::Relaxed) {
        return None;
    }
    match ctx.regs.gpr[RAX] {
        WRITE => Some(ctx.regs.gpr[RDX] as i64),
        WRITEV => Some(EBADF),
        LSEEK => Some(ESPIPE),
        _ => None,
    }
}

/// Stop all other threads for good: what is freed next may be theirs.
fn freeze() -> bool {
    for _ in 0..ATTEMPTS {
        if report::trap(Trap::Freeze, 0, 0, 0, 0) != 0 {
            return true;
        }
        let millisecond = [0u64, 1_000_000];
        // SAFETY: reads the two words.
        unsafe { sys::syscall3(sys::nr::NANOSLEEP, millisecond.as_ptr() as u64, 0, 0) };
    }
    false
}
