//! From a fault in translated code to the program's state, and to a report.
#![allow(unsafe_code, reason = "reads the fault record that the tracer wrote")]

use crate::cache::{CACHE, Position, is_dirty_code};
use crate::exception::{self, Exception, SIGSEGV, SIGTRAP};
use crate::safepoint;
use iced_x86::Instruction;
use memcheck_abi::context::{RCX, RSP, ThreadContext};
use memcheck_abi::event::Kind;
use memcheck_abi::layout::{CACHE_END, CACHE_START, IMAGE_BASE, PROGRAM_END, RED_ZONE, TABLE_DISPLACEMENT, V_DISTANCE};
use memcheck_abi::replace::{Func, place};
use memcheck_rt::{access, context, report, sys};
use memcheck_translate::control;

/// What the tracer wrote: the kernel's register set, signal, code and address.
#[repr(C)]
pub struct Fault {
    /// r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs
    regs: [u64; 27],
    signo: u64,
    code: u64,
    addr: u64,
}

impl Fault {
    fn exception(&self) -> Exception {
        Exception { signo: self.signo, code: self.code, addr: self.addr }
    }
}

/// Index into `Fault::regs` of each general register in encoding order.
const ORDER: [usize; 16] = [10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0];
const RIP: usize = 16;
const FLAGS: usize = 18;
/// Where the record lies in a thread's slot, for the tracer as well.
const RECORD: u64 = 0x8000;

/// There is no code at `target`: report the jump, then let the program have its SIGSEGV there. ctx.regs holds the state at the branch.
pub fn bad_jump(target: u64) -> ! {
    crate::inner::end_clean_up();
    let ctx = context::current();
    let sp = ctx.regs.gpr[RSP];
    ctx.regs.rip = target;
    report::raise(Kind::InvalidJump, target, sp, |e| (e.addr, e.has_addr) = (target, 1));
    exception::deliver(ctx, Exception::jump(target, is_present(target, sp)))
}

/// Entry from `asm::fault_entry`. Returns the host address to go on at, when the fault was repaired.
pub extern "C" fn handle(fault: u64) -> u64 {
    let ctx = context::current();
    // SAFETY: the tracer filled the record in this thread's slot.
    let fault = unsafe { &*(fault as *const Fault) };
    let host = fault.regs[RIP];
    let in_image = (IMAGE_BASE..CACHE_START).contains(&host);
    let in_cache = (CACHE_START..CACHE_END).contains(&host);
    let lookup = if fault.signo == SIGSEGV && (in_image || in_cache) { looked_up(host) } else { None };
    if in_image && lookup.is_none() {
        return in_runtime(ctx, fault);
    }
    for (i, &k) in ORDER.iter().enumerate() {
        ctx.regs.gpr[i] = fault.regs[k];
    }
    ctx.regs.rflags = fault.regs[FLAGS];
    if lookup.is_some() || !in_cache {
        // The target is too high for the branch table, or its entry is garbage. The branch itself is done, but for rcx.
        let target = lookup.map_or_else(|| source_of(ctx, host), |register| ctx.regs.gpr[register]);
        ctx.regs.gpr[RCX] = ctx.scratch[0];
        if in_cache {
            CACHE.lock().branch_goes_far(host);
        }
        return crate::dispatch::body_of(target);
    }
    if fault.signo != 0
        && let Some(resume) = CACHE.lock().after_probe(host)
    {
        return resume;
    }
    let position = CACHE.lock().position(host);
    let Some(p) = position else { report::internal("a fault in the code cache at an unknown place") };
    if fault.signo == 0 {
        return interrupted(ctx, &p, !is_dirty_code(host));
    }
    if let Some((reg, slot)) = p.spilled {
        ctx.regs.gpr[reg as usize] = ctx.scratch[slot];
    }
    // Of what a mask leaves out only the check fails; the instruction itself decides.
    if p.before_own
        && !p.at_own
        && fault.exception().is_about_memory()
        && memcheck_translate::has_masked_memory(&crate::helpers::decode(p.pc))
        && let Some(own) = CACHE.lock().own_instruction(host)
    {
        return own;
    }
    // A trap is reported behind its instruction; `int1` is not in some virtual machines.
    ctx.regs.rip = if fault.signo == SIGTRAP && !p.at_own { p.pc + u64::from(p.len) } else { p.pc };
    program_fault(ctx, fault, p.pc)
}

/// Is the instruction at `host` the lookup of a branch target? Then the register that holds it. (A high target has no address in the table.)
fn looked_up(host: u64) -> Option<usize> {
    // SAFETY: code of the image or of the cache, both far from the end of their mappings.
    control::looked_up(unsafe { &*(host as *const [u8; control::LOOKUP]) })
}

/// The target of a branch for which `entry` was read where the branch table would have had it: in ctx.target, in a register, or just popped.
fn source_of(ctx: &ThreadContext, entry: u64) -> u64 {
    let word = |at: u64| {
        let mut word = [0; 8];
        sys::read_guarded(at, &mut word).then(|| u64::from_le_bytes(word))
    };
    let leads = |target: &u64| word(target.wrapping_mul(8).wrapping_add(V_DISTANCE + TABLE_DISPLACEMENT)) == Some(entry);
    let popped = word(ctx.regs.gpr[RSP].wrapping_sub(8));
    let mut known = [ctx.target].into_iter().chain(popped).chain(ctx.regs.gpr);
    known.find(leads).unwrap_or(ctx.target)
}

/// Stop request of the tracer in translated code: at a boundary the state is exact, elsewhere one more step is needed. Before an instruction
/// of the program in clean code the state is that of the boundary before its check; a step might not come to an end, if a user-space handler
/// of page faults (userfaultfd) lets the access wait.
fn interrupted(ctx: &mut ThreadContext, p: &Position, is_clean: bool) -> u64 {
    if p.at_start || p.at_own && is_clean {
        if let Some((reg, slot)) = p.spilled {
            ctx.regs.gpr[reg as usize] = ctx.scratch[slot];
        }
        ctx.regs.rip = p.pc;
        safepoint::between_instructions(ctx, p)
    }
    safepoint::step()
}

/// On the way back from the runtime to `host`, with the registers that it will have there: a step from there on.
pub fn step_from(ctx: &ThreadContext, host: u64) -> ! {
    let mut regs = [0; 27];
    for (i, &k) in ORDER.iter().enumerate() {
        regs[k] = ctx.regs.gpr[i];
    }
    (regs[RIP], regs[FLAGS]) = (host, ctx.regs.rflags);
    // SAFETY: this thread's record; nobody reads it before the trap.
    unsafe { ((ctx.self_ptr + RECORD) as *mut Fault).write(Fault { regs, signo: 0, code: 0, addr: 0 }) };
    safepoint::step()
}

/// The program's own instruction faulted: report what it accessed and hand over.
fn program_fault(ctx: &mut ThreadContext, fault: &Fault, pc: u64) -> ! {
    crate::inner::end_clean_up();
    let sp = ctx.regs.gpr[RSP];
    let insn = crate::helpers::decode(pc);
    let e = fault.exception();
    if !e.is_about_memory() {
        exception::deliver(ctx, e.of_instruction(pc, ctx.regs.rip, &insn))
    }
    if e.is_privilege(&insn) {
        exception::deliver(ctx, e.of_access(&insn, 0, false))
    }
    let Access { kind, size, at, writes } = describe_access(ctx, &insn, fault.addr);
    let reported = at < PROGRAM_END && access::first_unaddressable(ctx, sp, at, size.max(1)).is_some();
    let byte = if fault.addr > at && fault.addr < at + size { fault.addr } else { at };
    if !reported && !is_present(byte, sp) && !overflows(ctx, byte, sp) {
        let invalid = |at, n| report::raise(kind, pc, sp, |e| (e.addr, e.has_addr, e.size) = (at, 1, n));
        if kind == Kind::InvalidWrite {
            let bad = |at, n| !is_present(at, sp) || !is_present(at + n - 1, sp);
            crate::check::bad_words(at, size, bad).for_each(|(at, n)| invalid(at, n));
        } else {
            invalid(at, size);
        }
    }
    exception::deliver(ctx, e.of_access(&insn, at, writes))
}

/// Is this the thread's own frame, for which its stack has no room? That is named as a stack overflow, not as an error of addressing.
fn overflows(ctx: &ThreadContext, addr: u64, sp: u64) -> bool {
    const PUSHED: u64 = 8;
    /// A stack pointer further below the stack than this is a wild one.
    const FRAME_MAX: u64 = 64 << 20;
    (sp.saturating_sub(RED_ZONE + PUSHED)..ctx.stack_high).contains(&addr) && sp.saturating_add(FRAME_MAX) > ctx.stack_low
}

/// Is something mapped here that the program may use in some way? Then the fault is about permissions, or the end of a file: no error of
/// addressing.
fn is_present(addr: u64, sp: u64) -> bool {
    memcheck_kernel::space::present_end(addr, sp) > addr
}

/// An access of the program.
struct Access {
    kind: Kind,
    size: u64,
    at: u64,
    /// It writes, perhaps after reading.
    writes: bool,
}

/// The access that faulted. The kernel's address wins, unless it has none or the shadow faulted instead.
fn describe_access(ctx: &ThreadContext, insn: &Instruction, addr: u64) -> Access {
    use iced_x86::{InstructionInfoFactory, OpAccess, Register};
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(insn);
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
        let only_writes = matches!(m.access(), OpAccess::Write | OpAccess::CondWrite);
        let writes = only_writes || matches!(m.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite);
        return Access { kind: if only_writes { Kind::InvalidWrite } else { Kind::InvalidRead }, size, at, writes };
    }
    Access { kind: Kind::InvalidRead, size: 1, at: addr, writes: false }
}

/// The program gave a replaced function a pointer to nothing. Its state is that of the call: rip at the function's entry.
fn in_replaced(ctx: &mut ThreadContext, fault: &Fault, func: Func) -> ! {
    let (pc, sp) = (ctx.regs.rip, ctx.regs.gpr[RSP]);
    ctx.regs.rflags = 0x202;
    let args = crate::replaced::ARGUMENTS.map(|r| ctx.regs.gpr[r]);
    let access = memcheck_replace::fault::blame(func, &args, fault.addr);
    let earlier = memcheck_replace::fault::before(func, &args);
    let last = (!is_present(access.addr, sp)).then_some(access);
    for access in earlier.into_iter().flatten().chain(last) {
        let at = if access.kind == Kind::InvalidWrite { place::WRITE } else { place::FIRST_OPERAND };
        report::raise(access.kind, pc + at, sp, |e| (e.addr, e.has_addr, e.size) = (access.addr, 1, access.size));
    }
    exception::deliver(ctx, fault.exception().of_access(&Instruction::default(), access.addr, access.kind == Kind::InvalidWrite))
}

/// A fault in the runtime's own code: in a replaced function it is the program's access; elsewhere it is ours.
fn in_runtime(ctx: &mut ThreadContext, fault: &Fault) -> u64 {
    let replaced = crate::program::redirect(ctx.regs.rip).and_then(|(func, _)| Func::from_number(func));
    if let Some(func) = replaced.filter(|func| fault.exception().is_about_memory() && (!func.is_allocator() || fault.addr < PROGRAM_END)) {
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
