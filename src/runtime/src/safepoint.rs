//! Handing a thread to the tracer with exact program state, and taking it back.
//!
//! A signal waits (`ctx.pending`), or a fault is the program's own. The trap `SafePoint` promises: ctx.regs and the vector registers
//! are the program's, at an instruction boundary. The tracer sets the general registers and lets the kernel deliver; the thread
//! comes back through `asm::signal_entry` (at a handler's first instruction) or `asm::resume`.
#![allow(unsafe_code, reason = "unwinds nothing: loops on a trap that never returns")]

use crate::cache::{CACHE, Position};
use crate::{asm, stackmove};
use memcheck_abi::context::{RCX, RSP, ThreadContext};
use memcheck_abi::layout::{RETURN_MARK, SIGNAL_MARK, V_DISTANCE};
use memcheck_rt::{context, shadow};
use memcheck_translate::{LEAVE_JUMP, slot};

/// Saved rip in the kernel's rt_sigframe: return address, ucontext header (40), sixteen registers in front of it, rsp the last.
const FRAME_RIP: u64 = 8 + 40 + 16 * 8;

/// Answer of the trap: the signal will kill the process, after its report. Any other way on does not return here.
pub const DYING: u64 = 1;

/// Trap with the state of ctx.regs. Signal 0: a signal of the tracer's own waits.
pub fn deliver(ctx: &mut ThreadContext, signo: u64, code: u64, addr: u64) -> ! {
    // Whatever comes next begins in clean code: undefined registers count as defined from here on.
    crate::dirty::shadow_regs(ctx).dirty = 0;
    hand_over(ctx, signo, code, addr)
}

/// The tracer shall make the thread take one more step in translated code. Loops look whether a signal waits still.
pub fn step() -> ! {
    trap(u64::MAX, 0, 0)
}

/// At a system call, where the shadow registers mean what they say.
fn deliver_at_call(ctx: &mut ThreadContext) -> ! {
    hand_over(ctx, 0, 0, 0)
}

/// In translated code: where an instruction begins, dirty code has all its V bits in the shadow registers.
pub fn between_instructions(ctx: &mut ThreadContext, p: &Position) -> ! {
    if p.at_start && p.has_shadow {
        hand_over(ctx, 0, 0, 0)
    }
    deliver(ctx, 0, 0, 0)
}

fn hand_over(ctx: &mut ThreadContext, signo: u64, code: u64, addr: u64) -> ! {
    ctx.pending = 0;
    trap(signo, code, addr)
}

fn trap(signo: u64, code: u64, addr: u64) -> ! {
    loop {
        if asm::safe_trap(signo, code, addr) == DYING {
            crate::syscalls::exit_report(0);
        }
    }
}

/// On the way back into translated code at slot 3, a signal waits.
pub extern "C" fn leave() {
    let ctx = context::current();
    let host = ctx.scratch[slot::CONTINUE as usize];
    // A loop in dirty code (`translate::loops`) is no place of the program's; it looks by itself whether a signal waits.
    let Some(p) = CACHE.lock().position(host).filter(|p| p.pc != 0) else { return };
    if p.at_own && !p.at_start && (p.has_shadow || is_repeated(p.pc)) {
        // The instruction's rule has been applied; or its memory looked at, which may take longer than the time between two signals.
        crate::fault::step_from(ctx, host);
    }
    if let Some((reg, slot)) = p.spilled
        && slot != 0
    {
        ctx.regs.gpr[reg as usize] = ctx.scratch[slot];
    }
    ctx.regs.rip = if p.before_own { p.pc } else { p.pc + u64::from(p.len) };
    between_instructions(ctx, &p)
}

/// A string instruction of as many elements as it likes?
fn is_repeated(pc: u64) -> bool {
    let insn = crate::helpers::decode(pc);
    insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix())
}

/// Between the checks of a system call and the call: it is made again after the signal.
pub extern "C" fn before_syscall() {
    let ctx = context::current();
    memcheck_kernel::interrupted(ctx);
    ctx.regs.rip -= 2;
    deliver_at_call(ctx)
}

pub extern "C" fn after_syscall() {
    let ctx = context::current();
    ctx.regs.gpr[RCX] = ctx.regs.rip;
    deliver_at_call(ctx)
}

/// Never called: the fault path does not look at `pending`.
pub extern "C" fn none() {}

/// A replaced function has returned `_result` (in ctx.regs rax already); the signal is taken at the return address.
pub extern "C" fn after_replaced(_result: u64) {
    let ctx = context::current();
    let sp = ctx.guest_rsp;
    // SAFETY: the program's return address; the call just pushed it.
    ctx.regs.rip = unsafe { *(sp as *const u64) };
    ctx.regs.gpr[RSP] = sp + 8;
    ctx.regs.rflags = 0x202;
    deliver(ctx, 0, 0, 0)
}

/// The kernel built a signal frame on [rsp, slot 7) and a handler begins at ctx.target.
pub extern "C" fn handler_begins() -> u64 {
    let ctx = context::current();
    crate::vectors::prepare();
    let sp = ctx.regs.gpr[RSP];
    crate::kept::begin(ctx, sp);
    let frame_end = ctx.scratch[7];
    // SAFETY: the kernel has saved the interrupted stack pointer there.
    stackmove::leaves(ctx, unsafe { *((sp + FRAME_RIP - 8) as *const u64) });
    stackmove::settle(ctx, sp);
    let len = if frame_end > sp && frame_end - sp < 1 << 16 { frame_end - sp } else { ctx.stack_high.saturating_sub(sp).min(1 << 14) };
    shadow::fill_v(sp, len, shadow::DEFINED);
    // SAFETY: the frame begins with the handler's return address; the saved rip lies at a fixed place in it (sigcontext).
    unsafe {
        *((sp + V_DISTANCE) as *mut u64) = RETURN_MARK;
        *((sp + FRAME_RIP + V_DISTANCE) as *mut u64) = SIGNAL_MARK;
    }
    crate::dispatch::dispatch()
}

/// Program registers were set from outside: after a signal return, or because nothing was delivered after all.
pub extern "C" fn resumed() -> u64 {
    let ctx = context::current();
    crate::vectors::prepare();
    stackmove::settle(ctx, ctx.regs.gpr[RSP]);
    go_on(ctx)
}

/// Host address at which the thread goes on at ctx.target, in clean or dirty code.
pub fn go_on(ctx: &mut ThreadContext) -> u64 {
    if crate::dirty::shadow_regs(ctx).dirty == 0 {
        return crate::dispatch::dispatch();
    }
    ctx.scratch[slot::ARGUMENT as usize] = u64::from(LEAVE_JUMP);
    crate::dirty::leave()
}
