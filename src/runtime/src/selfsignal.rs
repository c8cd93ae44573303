//! Signals that a thread sends to itself, and the way back from every handler, without the tracer.
//!
//! The kernel stops a traced thread at each signal, and it takes some more stops to bring the thread to a handler's translation and home
//! again: 300 microseconds in all. Two parts of that need nobody else:
//!
//! | what                                  | how                                                                                 |
//! |---------------------------------------|-------------------------------------------------------------------------------------|
//! | `raise`, `pthread_kill(self)`, …: a handler is there, and nothing blocks the signal | the frame is built here, as the kernel builds it |
//! | rt_sigreturn                          | a real one, whose frame says that the thread goes on at `asm::resume`               |
//!
//! Whatever is unusual (another signal waits, no room for the frame, SIGTRAP, an alternate stack that disarms itself) is left to the kernel
//! and the tracer. Actions, masks and alternate stacks stay the kernel's: they are asked for every time.
//!
//! The frame, from the stack pointer of the handler on, in words:
//!
//! ```text
//! 0 restorer | 1 flags, link | 3 alternate stack: sp, flags, size | 6 r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip rflags segments (4 more)
//! 29 pointer to the vector state | 30 eight unused | 38 mask | 39 siginfo, 16 words | … vector state, at a multiple of 64 bytes
//! ```
//! Source: arch/x86/include/uapi/asm/sigcontext.h, arch/x86/kernel/signal_64.c, arch/x86/kernel/fpu/signal.c.
#![allow(unsafe_code, reason = "system calls, vector state")]

use crate::{asm, dirty, kept, safepoint, stackmove};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memcheck_abi::context::{R8, R11, RAX, RBP, RBX, RDI, RDX, RSI, RSP, ThreadContext, VectorState};
use memcheck_abi::layout::RED_ZONE;
use memcheck_kernel::sigtrap::{SIG_IGN, SIGTRAP};
use memcheck_rt::sys;
use memcheck_translate::slot;

const RT_SIGACTION: u64 = 13;
const RT_SIGPROCMASK: u64 = 14;
const KILL: u64 = 62;
const TKILL: u64 = 200;

const SET: u64 = 8;
const SIG_SETMASK: u64 = 2;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SA_RESETHAND: u64 = 0x8000_0000;
const SS_DISABLE: u64 = 2;
const SS_AUTODISARM: u64 = 1 << 31;
const SI_USER: i32 = 0;
const SI_TKILL: i32 = -6;

const FRAME_WORDS: usize = 55;
const FRAME_BYTES: u64 = 8 * FRAME_WORDS as u64;
const RIP_WORD: usize = 22;
const MASK_WORD: usize = 38;
const INFO_WORD: usize = 39;
/// The kernel restores vector state and the stack segment strictly.
const UC_FLAGS: u64 = 7;
/// Code and stack segment of 64-bit programs, in their places.
const SEGMENTS: u64 = 0x33 | 0x2b << 48;
const TRAP_FLAG: u64 = 0x100;
const DF_RF_TF: u64 = 0x400 | 0x1_0000 | TRAP_FLAG;

/// The kernel's struct sigaction.
#[repr(C)]
#[derive(Default)]
struct SigAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// The program's system call sends a signal to this very thread, and its handler begins: registers and slot 3 are as they must be for
/// that. False: nothing happened.
pub fn taken(ctx: &mut ThreadContext) -> bool {
    let Some((signal, code)) = signal_to_self(ctx) else { return false };
    let mut action = SigAction::default();
    // SAFETY: asks only; the structure has the kernel's layout.
    let known = unsafe { sys::syscall6(RT_SIGACTION, signal, 0, core::ptr::from_mut(&mut action) as u64, SET, 0, 0) };
    let blocked = mask(None);
    if known != 0 || action.handler <= SIG_IGN || action.flags & SA_RESTORER == 0 || blocked & bit(signal) != 0 {
        return false;
    }
    let Some(frame) = write_frame(ctx, signal, code, &action, blocked) else { return false };
    let now = blocked | action.mask | if action.flags & SA_NODEFER != 0 { 0 } else { bit(signal) };
    mask(Some(now & !bit(SIGTRAP)));
    if action.flags & SA_RESETHAND != 0 {
        let default = SigAction { handler: 0, ..action };
        // SAFETY: the default action runs no code.
        unsafe { sys::syscall6(RT_SIGACTION, signal, core::ptr::from_ref(&default) as u64, 0, SET, 0, 0) };
    }
    let g = &mut ctx.regs.gpr;
    (g[RAX], g[RDI], g[RSI], g[RDX], g[RSP]) = (0, signal, frame.start + 8 * INFO_WORD as u64, frame.start + 8, frame.start);
    ctx.regs.rip = action.handler;
    ctx.regs.rflags &= !DF_RF_TF;
    ctx.target = action.handler;
    ctx.scratch[7] = frame.end;
    clear_vectors(ctx);
    ctx.scratch[slot::CONTINUE as usize] = safepoint::handler_begins();
    true
}

/// The signal and its si_code, if the system call is one that sends it to the calling thread.
fn signal_to_self(ctx: &ThreadContext) -> Option<(u64, i32)> {
    let g = &ctx.regs.gpr;
    if !matches!(g[RAX], KILL | TKILL | sys::nr::TGKILL) || ctx.vfork_child != 0 || ctx.pending != 0 {
        return None;
    }
    // SAFETY: no arguments.
    let pid = unsafe { sys::syscall3(sys::nr::GETPID, 0, 0, 0) } as u32;
    let (first, second, tid) = (g[RDI] as u32, g[RSI] as u32, ctx.tid);
    let (signal, code) = match g[RAX] {
        sys::nr::TGKILL if first == pid && second == tid => (g[RDX] as u32, SI_TKILL),
        TKILL if first == tid => (second, SI_TKILL),
        // The kernel's first choice for a signal to a process is its first thread.
        KILL if first == pid && tid == pid => (second, SI_USER),
        _ => return None,
    };
    (1..=64).contains(&signal).then_some((u64::from(signal), code)).filter(|&(signal, _)| signal != SIGTRAP)
}

fn bit(signal: u64) -> u64 {
    1 << (signal - 1)
}

/// The thread's signal mask; perhaps sets a new one.
fn mask(new: Option<u64>) -> u64 {
    let mut old = 0u64;
    let set = new.as_ref().map_or(0, |set| core::ptr::from_ref(set) as u64);
    // SAFETY: both sets are ours.
    unsafe { sys::syscall6(RT_SIGPROCMASK, SIG_SETMASK, set, core::ptr::from_mut(&mut old) as u64, SET, 0, 0) };
    old
}

/// What lies on the program's stack now.
struct Frame {
    start: u64,
    end: u64,
}

fn write_frame(ctx: &mut ThreadContext, signal: u64, code: i32, action: &SigAction, blocked: u64) -> Option<Frame> {
    let mut alternate = [0u64; 3];
    // SAFETY: asks only; a stack_t is three words.
    unsafe { sys::syscall3(sys::nr::SIGALTSTACK, 0, alternate.as_mut_ptr() as u64, 0) };
    let [base, flags, size] = alternate;
    if flags & SS_AUTODISARM != 0 {
        return None;
    }
    let inside = |sp: u64| flags & SS_DISABLE == 0 && sp > base && sp - base <= size;
    let own = ctx.regs.gpr[RSP];
    let switches = action.flags & SA_ONSTACK != 0 && flags & SS_DISABLE == 0 && !inside(own);
    let top = if switches { base.checked_add(size)? } else { own.checked_sub(RED_ZONE)? };
    let state_bytes = state_size();
    let state_at = top.checked_sub(state_bytes + 4)? & !63;
    let start = (state_at.checked_sub(FRAME_BYTES)? & !15).checked_sub(8)?;
    if (switches || inside(own)) && !inside(start) {
        return None;
    }
    let words = frame_words(ctx, action, [base, flags, size], state_at, blocked, info(signal, code));
    let mut state = VectorState([0; 4096]);
    save_state(ctx, &mut state, state_bytes);
    let parts = [(start, word_bytes(&words)), (state_at, &state.0[..state_bytes as usize + 4])];
    sys::write_guarded(parts).then_some(Frame { start, end: state_at + state_bytes + 4 })
}

fn frame_words(
    ctx: &ThreadContext,
    action: &SigAction,
    alternate: [u64; 3],
    state_at: u64,
    blocked: u64,
    info: [u64; 3],
) -> [u64; FRAME_WORDS] {
    let g = &ctx.regs.gpr;
    let mut words = [0u64; FRAME_WORDS];
    (words[0], words[1]) = (action.restorer, UC_FLAGS);
    words[3..6].copy_from_slice(&alternate);
    words[6..14].copy_from_slice(&g[R8..]);
    // The call has succeeded, and left its return address and the flags where the instruction leaves them.
    words[6 + R11 - R8] = ctx.regs.rflags;
    words[14..22].copy_from_slice(&[g[RDI], g[RSI], g[RBP], g[RBX], g[RDX], 0, ctx.regs.rip, g[RSP]]);
    words[RIP_WORD..RIP_WORD + 3].copy_from_slice(&[ctx.regs.rip, ctx.regs.rflags, SEGMENTS]);
    (words[29], words[MASK_WORD]) = (state_at, blocked);
    words[INFO_WORD..INFO_WORD + 3].copy_from_slice(&info);
    words
}

/// The beginning of a siginfo: number, errno, code; pid and uid of the sender.
fn info(signal: u64, code: i32) -> [u64; 3] {
    // SAFETY: no arguments.
    let [pid, uid] = [sys::nr::GETPID, sys::nr::GETUID].map(|nr| unsafe { sys::syscall3(nr, 0, 0, 0) } as u32);
    [signal, u64::from(code as u32), u64::from(pid) | u64::from(uid) << 32]
}

fn word_bytes(words: &[u64; FRAME_WORDS]) -> &[u8] {
    // SAFETY: the same memory as bytes, of which every value is valid.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// Components of the vector state: x87, SSE, AVX, AVX-512 (three), protection keys. Larger ones have to be asked for by the program, and
/// are then missing in frames built here.
const COMPONENTS: u64 = 0x2e7;
/// Bytes of the legacy area and the header of an xsave area.
const XSAVE_MIN: u64 = 576;
/// Where the legacy area has room for software.
const SOFTWARE: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// Components and size of the state, once known; the size is 0 until then.
static COMPONENTS_HERE: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU64 = AtomicU64::new(0);

/// Bytes of the vector state in a frame.
fn state_size() -> u64 {
    let known = SIZE.load(Relaxed);
    if known != 0 {
        return known;
    }
    let has_xsave = __cpuid(1).ecx >> 27 & 1 != 0;
    let mut components = 0u32;
    if has_xsave {
        // SAFETY: OSXSAVE is set, so xgetbv is allowed.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") components, out("edx") _, options(nomem, nostack)) };
    }
    let components = u64::from(components) & COMPONENTS;
    let part = |i: u32| {
        let leaf = __cpuid_count(0xd, i);
        u64::from(leaf.ebx) + u64::from(leaf.eax)
    };
    let size = (2..10).filter(|i| components >> i & 1 != 0).map(part).max().unwrap_or(0).max(XSAVE_MIN);
    let size = if components == 0 { 512 } else { size };
    COMPONENTS_HERE.store(components, Relaxed);
    SIZE.store(size, Relaxed);
    size
}

/// Store the program's vector state as the kernel would.
fn save_state(ctx: &ThreadContext, state: &mut VectorState, size: u64) {
    let components = COMPONENTS_HERE.load(Relaxed);
    asm::store_vectors(core::ptr::from_ref(ctx), state.0.as_mut_ptr(), components);
    if components == 0 {
        return;
    }
    let mut put = |at: usize, value: u32| state.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(SOFTWARE, MAGIC1);
    put(SOFTWARE + 4, size as u32 + 4);
    put(SOFTWARE + 8, components as u32);
    put(SOFTWARE + 12, 0);
    put(SOFTWARE + 16, size as u32);
    put(size as usize, MAGIC2);
}

/// A handler begins with fresh vector registers.
fn clear_vectors(ctx: &mut ThreadContext) {
    const MXCSR: usize = 24;
    const FRESH: u32 = 0x1f80;
    ctx.xsave.0[..256].fill(0);
    let components = COMPONENTS_HERE.load(Relaxed) & !(1 << 9);
    if components != 0 {
        let mut state = VectorState([0; 4096]);
        state.0[MXCSR..MXCSR + 4].copy_from_slice(&FRESH.to_le_bytes());
        // SAFETY: an area whose header says that every component is in its initial state.
        unsafe { asm!("xrstor64 [{}]", in(reg) state.0.as_ptr(), in("eax") components as u32, in("edx") 0u32, options(nostack)) };
    }
}

/// The program's rt_sigreturn. Comes back only if the frame cannot be used: then it is the kernel's to complain about.
pub fn leave_handler(ctx: &mut ThreadContext) {
    let context = ctx.regs.gpr[RSP];
    dirty::shadow_regs(ctx).dirty = 0;
    // The frame without its first word, which the handler's `ret` has taken.
    let [rip_at, mask_at] = [RIP_WORD, MASK_WORD].map(|word| context.wrapping_add(8 * (word as u64 - 1)));
    // The stack pointer comes just before rip, the flags behind it.
    let (mut registers, mut flags, mut blocked) = ([0u8; 16], [0u8; 8], [0u8; 8]);
    let flags_at = rip_at.wrapping_add(8);
    let known = sys::read_guarded(rip_at.wrapping_sub(8), &mut registers)
        && sys::read_guarded(flags_at, &mut flags)
        && sys::read_guarded(mask_at, &mut blocked);
    // The trap flag must not trap in `resume`; the tracer takes it away.
    if !known || u64::from_le_bytes(flags) & TRAP_FLAG != 0 {
        return;
    }
    let registers = u128::from_le_bytes(registers);
    let (sp, rip) = (registers as u64, (registers >> 64) as u64);
    kept::end(ctx, context.wrapping_sub(8));
    let resume = (asm::resume as *const () as u64).to_le_bytes();
    let unblocked = (u64::from_le_bytes(blocked) & !bit(SIGTRAP)).to_le_bytes();
    if !sys::write_guarded([(rip_at, &resume[..]), (mask_at, &unblocked[..])]) {
        dirty::shadow_regs(ctx).dirty = 0;
        return;
    }
    stackmove::handler_returns(ctx, rip_at, sp);
    ctx.target = rip;
    asm::signal_return(context)
}
