//! From a fault in translated code to the program's state, and to a report.
#![allow(unsafe_code, reason = "reads the fault record that the tracer wrote")]

use crate::cache::CACHE;
use crate::safepoint::deliver;
use memcheck_abi::context::{RCX, RSP, ThreadContext};
use memcheck_abi::event::Kind;
use memcheck_abi::layout::{CACHE_END, CACHE_START, IMAGE_BASE, PROGRAM_END, RED_ZONE};
use memcheck_abi::replace::Func;
use memcheck_rt::{access, context, report};

const SIGILL: u64 = 4;
const SIGTRAP: u64 = 5;
const SIGBUS: u64 = 7;
const SIGSEGV: u64 = 11;
const SEGV_MAPERR: u64 = 1;
const SEGV_ACCERR: u64 = 2;
/// The processor names no address: si_addr is 0.
const SI_KERNEL: u64 = 0x80;
/// Addresses between these do not exist: their upper bits do not repeat bit 47.
const CANONICAL_END: u64 = 1 << 47;
const KERNEL_START: u64 = !(CANONICAL_END - 1);

/// What the tracer wrote: the kernel's register set, signal, code and address.
#[repr(C)]
pub struct Fault {
    /// r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs
    regs: [u64; 27],
    signo: u64,
    code: u64,
    addr: u64,
}

/// Index into `Fault::regs` of each general register in encoding order.
const ORDER: [usize; 16] = [10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0];
const RIP: usize = 16;
const FLAGS: usize = 18;

/// There is no code at `target`: report the jump, then let the program have its SIGSEGV there. ctx.regs holds the state at the branch.
pub fn bad_jump(target: u64) -> ! {
    crate::inner::end_clean_up();
    let ctx = context::current();
    let sp = ctx.regs.gpr[RSP];
    ctx.regs.rip = target;
    report::raise(Kind::InvalidJump, target, sp, |e| (e.addr, e.has_addr) = (target, 1));
    let code = if is_present(target, sp) { SEGV_ACCERR } else { SEGV_MAPERR };
    deliver(ctx, SIGSEGV, code, target)
}

/// Entry from `asm::fault_entry`. Returns the host address to go on at, when the fault was repaired.
pub extern "C" fn handle(fault: u64) -> u64 {
    let ctx = context::current();
    // SAFETY: the tracer filled the record in this thread's slot.
    let fault = unsafe { &*(fault as *const Fault) };
    let host = fault.regs[RIP];
    let in_image = (IMAGE_BASE..CACHE_START).contains(&host);
    let in_cache = (CACHE_START..CACHE_END).contains(&host);
    let at_lookup = fault.signo == SIGSEGV && (in_image || in_cache) && is_lookup(host);
    if in_image && !at_lookup {
        return in_runtime(ctx, fault);
    }
    for (i, &k) in ORDER.iter().enumerate() {
        ctx.regs.gpr[i] = fault.regs[k];
    }
    ctx.regs.rflags = fault.regs[FLAGS];
    if at_lookup || !in_cache {
        // The target is too high for the branch table, or its entry is garbage. The branch itself is done, but for rcx.
        ctx.regs.gpr[RCX] = ctx.scratch[0];
        if in_cache {
            CACHE.lock().branch_goes_far(host);
        }
        return crate::dispatch::body_of(ctx.target);
    }
    if is_access(fault)
        && let Some(resume) = CACHE.lock().after_probe(host)
    {
        return resume;
    }
    let position = CACHE.lock().position(host);
    let Some(p) = position else { report::internal("a fault in the code cache at an unknown place") };
    if fault.signo == 0 {
        return interrupted(ctx, host, &p);
    }
    if let Some((reg, slot)) = p.spilled {
        ctx.regs.gpr[reg as usize] = ctx.scratch[slot];
    }
    ctx.regs.rip = if fault.signo == SIGTRAP { p.pc + u64::from(p.len) } else { p.pc };
    program_fault(ctx, fault, p.pc)
}

/// Is the instruction at `host` the lookup of a branch target, `mov rcx, gs:[rcx*8+table]`? For a high target that has no address.
fn is_lookup(host: u64) -> bool {
    const LOOKUP: [u8; 5] = [0x65, 0x48, 0x8b, 0x0c, 0xcd];
    // SAFETY: code of the image or of the cache, both far from the end of their mappings.
    let code = unsafe { *(host as *const [u8; 5]) };
    code == LOOKUP
}

/// Stop request of the tracer in translated code: at a boundary the state is exact, elsewhere one more step is needed.
fn interrupted(ctx: &mut ThreadContext, _host: u64, p: &crate::cache::Position) -> u64 {
    if p.at_start {
        if let Some((reg, slot)) = p.spilled {
            ctx.regs.gpr[reg as usize] = ctx.scratch[slot];
        }
        ctx.regs.rip = p.pc;
        deliver(ctx, 0, 0, 0)
    }
    deliver(ctx, u64::MAX, 0, 0)
}

/// The program's own access faulted: report it and hand over.
fn program_fault(ctx: &mut ThreadContext, fault: &Fault, pc: u64) -> ! {
    crate::inner::end_clean_up();
    let sp = ctx.regs.gpr[RSP];
    let mut addr = fault.addr;
    if fault.signo == SIGSEGV || fault.signo == SIGBUS {
        let (kind, size, at) = describe_access(ctx, pc, addr);
        addr = at;
        let reported = at < PROGRAM_END && access::first_unaddressable(ctx, sp, at, size.max(1)).is_some();
        let byte = if fault.addr > at && fault.addr < at + size { fault.addr } else { at };
        if !reported && !is_present(byte, sp) && !overflows(ctx, byte, sp) {
            report::raise(kind, pc, sp, |e| (e.addr, e.has_addr, e.size) = (at, 1, size));
        }
    }
    if fault.signo == SIGSEGV && fault.code == SI_KERNEL {
        let (signo, code, addr) = beyond_canonical(pc, addr).unwrap_or((SIGSEGV, SI_KERNEL, 0));
        deliver(ctx, signo, code, addr)
    }
    deliver(ctx, fault.signo, fault.code, if fault.signo == SIGILL { pc } else { addr })
}

/// A general protection fault at `pc`, which wanted to access `at`: the check goes through gs and asks for an address further up, where
/// the program's own access may have failed in another way. Nothing, if the fault is its own (an operand that is not aligned).
fn beyond_canonical(pc: u64, at: u64) -> Option<(u64, u64, u64)> {
    let insn = crate::helpers::decode(pc);
    let last = at.checked_add(insn.memory_size().size().max(1) as u64 - 1)?;
    match last {
        ..PROGRAM_END => None,
        ..CANONICAL_END => Some((SIGSEGV, SEGV_MAPERR, at)),
        _ if at < KERNEL_START && memcheck_translate::uses_stack_segment(&insn) => Some((SIGBUS, SI_KERNEL, 0)),
        _ => None,
    }
}

/// Is this the thread's own frame, for which its stack has no room? That is named as a stack overflow, not as an error of addressing.
fn overflows(ctx: &ThreadContext, addr: u64, sp: u64) -> bool {
    const PUSHED: u64 = 8;
    (sp.saturating_sub(RED_ZONE + PUSHED)..ctx.stack_high).contains(&addr)
}

/// Is something mapped here that the program may use in some way? Then the fault is about permissions, or the end of a file: no error of
/// addressing.
fn is_present(addr: u64, sp: u64) -> bool {
    memcheck_kernel::space::present_end(addr, sp) > addr
}

/// Kind, size and address of the access that faulted. The kernel's address wins, unless it has none or the shadow faulted instead.
fn describe_access(ctx: &ThreadContext, pc: u64, addr: u64) -> (Kind, u64, u64) {
    use iced_x86::{InstructionInfoFactory, OpAccess, Register};
    let insn = crate::helpers::decode(pc);
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&insn);
    let known = addr < PROGRAM_END && addr != 0;
    for m in info.used_memory() {
        let at = m.virtual_address(0, |reg, _, _| match reg {
            Register::FS => Some(ctx.guest_fs),
            Register::GS => Some(ctx.guest_gs),
            r if r.is_segment_register() => Some(0),
            r => {
                let full = r.full_register();
                if !full.is_gpr64() {
                    return None;
                }
                let v = ctx.regs.gpr[full.number()];
                Some(if r.is_gpr32() { v & 0xffff_ffff } else { v })
            }
        });
        let Some(at) = at else { continue };
        let size = (m.memory_size().size() as u64).max(1);
        if known && !(addr >= at && addr < at + size) && info.used_memory().len() > 1 {
            continue;
        }
        let write = matches!(m.access(), OpAccess::Write | OpAccess::CondWrite);
        return (if write { Kind::InvalidWrite } else { Kind::InvalidRead }, size, at);
    }
    (Kind::InvalidRead, 1, addr)
}

fn is_access(fault: &Fault) -> bool {
    fault.signo == SIGSEGV || fault.signo == SIGBUS
}

/// The program gave a replaced function a pointer to nothing. Its state is that of the call: rip at the function's entry.
fn in_replaced(ctx: &mut ThreadContext, fault: &Fault, func: Func) -> ! {
    let (pc, sp) = (ctx.regs.rip, ctx.regs.gpr[RSP]);
    ctx.regs.rflags = 0x202;
    let args = crate::replaced::ARGUMENTS.map(|r| ctx.regs.gpr[r]);
    let access = memcheck_replace::fault::blame(func, &args, fault.addr);
    if !is_present(access.addr, sp) {
        report::raise(access.kind, pc, sp, |e| (e.addr, e.has_addr, e.size) = (access.addr, 1, access.size));
    }
    deliver(ctx, fault.signo, fault.code, access.addr)
}

/// A fault in the runtime's own code: in a replaced function it is the program's access; elsewhere it is ours.
fn in_runtime(ctx: &mut ThreadContext, fault: &Fault) -> u64 {
    let replaced = crate::program::redirect(ctx.regs.rip).and_then(|(func, _)| Func::from_number(func));
    if let Some(func) = replaced.filter(|func| is_access(fault) && (!func.is_allocator() || fault.addr < PROGRAM_END)) {
        in_replaced(ctx, fault, func);
    }
    let mut line = crate::startup::Line { bytes: [0; 256], len: 0 };
    let _ = core::fmt::Write::write_fmt(
        &mut line,
        format_args!(
            "signal {} in the runtime at {:#x}, address {:#x}; the program was at {:#x}",
            fault.signo, fault.regs[RIP], fault.addr, ctx.regs.rip
        ),
    );
    report::internal(core::str::from_utf8(&line.bytes[..line.len]).unwrap_or("fault"))
}
