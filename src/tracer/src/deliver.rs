//! Signals: from the moment the kernel offers one to a thread, to the first instruction of the program's handler.
//!
//! The kernel builds the frame, honours masks, alternate stacks and SA_* flags, and restores everything at sigreturn. For that, the
//! processor must hold the *program's* registers when the signal is injected, with rip = a program address. Then:
//!
//! ```text
//! program registers, PTRACE_SINGLESTEP + signal ─► kernel builds frame, stops before the handler's first instruction
//!        ctx.target = handler, rip = signal_entry ─► the runtime continues in the translation of the handler
//! ```
//!
//! How a thread comes to hold the program's registers depends on where it is when the signal is offered:
//!
//! | rip                              | way                                                                             |
//! |----------------------------------|---------------------------------------------------------------------------------|
//! | code cache                       | run `fault_entry` with `Fault::signo` 0: it finds the program's state, or asks for single steps |
//! | runtime                          | `ctx.pending` = 1: it comes to a safe point when it leaves                       |
//! | before the program's `syscall`   | back to `syscall_check`, which looks at `ctx.pending`                            |
//! | in it, interrupted               | they are in the processor already; only rip is the runtime's                     |
//! | after it, with a result          | as in the runtime, so that the result is not lost                                |
//!
//! On the way back from a system call the thread blocks further signals until then: a thousand that were waiting for the end of a mask stay
//! with the kernel, in their order, and are not taken and given back a thousand times while one handler after the other runs.
//!
//! The first three end in the trap `SafePoint`, which is itself a signal-delivery-stop (of SIGTRAP), so that any signal can be
//! injected there. An interrupted system call must be finished at once: a temporary mask (sigsuspend, ppoll) holds only now.
//!
//! Faults of the program come from the code cache with the cache's addresses; `fault_entry` translates them and answers with
//! `SafePoint`, too, or repairs and goes on.
//!
//! A signal that kills needs no frame, but a report: the runtime is asked for it by the answer of `SafePoint`.

use std::mem::offset_of;

use memcheck_abi::context::{RAX, Registers, ThreadContext};
use memcheck_abi::layout;

use crate::frame::{self, Exception};
use crate::handler::{FatalSignal, Handler};
use crate::memory::Plain;
use crate::process::{Life, Phase, Process};
use crate::run::Tracer;
use crate::signals::{self, Choices, Disposition};
use crate::sigreturn;
use crate::tracee::{Ending, How, Regs, Result, SigInfo, Stopped, with_general};

/// Where in a thread's slot the tracer writes a [`Fault`].
pub const FAULT_OFFSET: u64 = 0x8000;
/// `SafePoint` with this in rdi: "step me once more from the registers I was interrupted at".
pub const STEP_ME: u64 = u64::MAX;
/// Answer of `SafePoint`: "a signal will kill this process: prepare the exit report and trap `Exit`". Otherwise `SafePoint` does
/// not return: the thread continues at `resume`, `signal_entry`, or is dead.
pub const ANSWER_DYING: u64 = 1;

/// Steps after which we stop believing that a safe point is near.
const MAX_STEPS: u32 = 10_000;
/// Faults at one place of the runtime after which we stop believing in its repairs.
const MAX_FAULTS: u32 = 10_000;
/// Bits of rflags that must be clear on entry to the runtime: trap and direction.
const TF_DF: u64 = 1 << 8 | 1 << 10;
/// Kernel-internal results of an interrupted system call: it will be restarted or become EINTR when a handler runs.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
/// si_code of the stop that PTRACE_SINGLESTEP makes at a handler's first instruction (ptrace_notify(SIGTRAP)).
const CODE_NOTIFY: i32 = libc::SIGTRAP;
const TRAP_BRKPT: i32 = 1;
/// si_code of the SIGSYS of a seccomp filter.
const SYS_SECCOMP: i32 = 1;
const TRAP_TRACE: i32 = 2;
const TRAP_HWBKPT: i32 = 4;

/// What `fault_entry` finds at rdi.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fault {
    /// The processor's registers at the fault.
    pub regs: [u64; 27],
    /// 0: no fault, come to a safe point.
    pub signo: u64,
    pub code: u64,
    pub addr: u64,
}

// SAFETY: integers only, no padding.
#[allow(unsafe_code, reason = "a marker: see memory.rs")]
unsafe impl Plain for Fault {}

/// Where a repeated string instruction at `rip` ends, if there is one.
fn end_of_repeated(process: &Process, rip: u64) -> Option<u64> {
    const REPEATED: [u8; 2] = [0xf2, 0xf3];
    /// Operand and address size, segments, REX.
    const OTHERS: [std::ops::RangeInclusive<u8>; 3] = [0x66..=0x67, 0x64..=0x65, 0x40..=0x4f];
    /// movs, cmps; stos, lods, scas.
    const STRINGS: [std::ops::RangeInclusive<u8>; 2] = [0xa4..=0xa7, 0xaa..=0xaf];
    let code: [u8; 8] = process.memory.value::<u64>(rip)?.to_le_bytes();
    let length = code.iter().take_while(|byte| REPEATED.contains(byte) || OTHERS.iter().any(|range| range.contains(byte))).count();
    let is_string = STRINGS.iter().any(|range| code.get(length).is_some_and(|byte| range.contains(byte)));
    (is_string && code[..length].iter().any(|byte| REPEATED.contains(byte))).then_some(rip + length as u64 + 1)
}

impl Tracer<'_> {
    /// A signal-delivery-stop.
    pub(crate) fn signal(&mut self, pid: i32, stopped: Stopped, signo: i32, handler: &mut dyn Handler) -> Result<()> {
        let regs = stopped.registers()?;
        let tid = stopped.tid();
        let Some(process) = self.processes.get_mut(&pid) else { return stopped.resume(How::Continue, signo) };
        // Without a runtime in it, the process gets its signals as they come.
        if process.code.trap == 0 {
            return stopped.resume(How::Continue, signo);
        }
        let ours = signo == libc::SIGTRAP && regs.rip == process.code.trap + 1;
        let Some(thread) = process.threads.get_mut(&tid) else { return stopped.resume(How::Continue, signo) };
        thread.regs = Some(regs);
        if ours {
            if let Phase::Stepping(_) = thread.phase {
                thread.phase = Phase::Run;
            }
            thread.faults = (0, 0);
            return self.trap(pid, stopped, regs, handler);
        }
        let (mut info, phase) = (stopped.siginfo()?, thread.phase);
        if let Phase::Passing(_) = phase
            && info.is_synchronous()
        {
            stopped.break_at(None)?;
            thread.phase = Phase::Run;
        }
        if info.signo == libc::SIGSYS
            && info.code == SYS_SECCOMP
            && let Some(program) = who_calls(process, &regs)
        {
            if program.gpr[RAX] != regs.rax {
                let why = format!("its seccomp filter refuses system call {}, which memcheck needs", regs.rax);
                self.end_because(pid, &why, handler, Handler::refused);
                return Ok(());
            }
            // Sandboxes make sure that the call comes from where their handler is told that it does.
            info.addr = program.rip;
        }
        match phase {
            Phase::Passing(steps) if signo == libc::SIGTRAP && info.code == TRAP_HWBKPT => self.stepped(pid, stopped, regs, steps, handler),
            Phase::Delivering => self.injected(pid, stopped, regs, info),
            Phase::Stepping(steps) if signo == libc::SIGTRAP && matches!(info.code, TRAP_TRACE | TRAP_BRKPT) => {
                self.stepped(pid, stopped, regs, steps, handler)
            }
            Phase::Dying(..) if info.is_synchronous() => self.finish_dying(pid, stopped),
            Phase::Dying(..) => self.resume(pid, stopped, 0),
            _ if sigreturn::is_refused(process, &regs, &info) => self.bad_return(pid, stopped, regs, info),
            _ if info.signo == libc::SIGTRAP && info.code == TRAP_TRACE && process.code.is_in_runtime(regs.rip) => {
                self.trapped_inside(pid, stopped, regs, info)
            }
            _ if info.is_synchronous() => self.fault(pid, stopped, regs, info, handler),
            _ => self.asynchronous(pid, stopped, regs, info),
        }
    }

    /// A fault in the code cache or in the runtime: the runtime knows what it means.
    fn fault(&mut self, pid: i32, stopped: Stopped, regs: Regs, info: SigInfo, handler: &mut dyn Handler) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let context = process.context(&regs);
        let Some(thread) = process.threads.get_mut(&stopped.tid()) else { return Ok(()) };
        let (rip, count) = thread.faults;
        thread.faults = (regs.rip, if rip == regs.rip { count + 1 } else { 0 });
        let context = context.filter(|_| count < MAX_FAULTS && process.code.fault_entry != 0);
        let Some(context) = context else {
            let name = signals::name(info.signo);
            let why = format!("{name} (code {}, address {:#x}) in the runtime at {:#x}", info.code, info.addr, regs.rip);
            self.give_up(pid, &why, handler);
            return Ok(());
        };
        thread.fault = Some(info);
        enter_fault(process, &stopped, context, &regs, info.signo as u64, info.code as u64, info.addr)?;
        self.resume(pid, stopped, 0)
    }

    /// The program has set the trap flag, and the next instruction of the processor was the runtime's.
    fn trapped_inside(&mut self, pid: i32, stopped: Stopped, regs: Regs, info: SigInfo) -> Result<()> {
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.queue.push_back(info);
        }
        let regs = Regs { eflags: regs.eflags & !TF_DF, ..regs };
        stopped.set_registers(&regs)?;
        self.bring_to_safe_point(pid, stopped, regs)
    }

    /// Somebody sent a signal.
    fn asynchronous(&mut self, pid: i32, stopped: Stopped, regs: Regs, info: SigInfo) -> Result<()> {
        if info.signo == libc::SIGTRAP && self.processes.get(&pid).is_some_and(|process| process.ignores_sigtrap) {
            return self.resume(pid, stopped, 0);
        }
        let disposition = disposition(stopped.tid(), info.signo);
        let (Disposition::Handler | Disposition::Default(signals::Default::Kill)) = disposition else {
            // Nothing changes in the thread, or it is stopped as it is.
            return self.resume(pid, stopped, passed_on(disposition, info.signo));
        };
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        if disposition == Disposition::Handler
            && let Some(program) = interrupted_call(process, &regs)
        {
            define_remainder(process, &regs);
            stopped.set_registers(&program)?;
            return self.inject_signal(pid, stopped, &info);
        }
        let leaving = [process.code.syscall_after, process.code.resume].contains(&regs.rip);
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.queue.push_back(info);
            if leaving && thread.started && thread.mask.is_none() && matches!(thread.phase, Phase::Run) {
                let mask = stopped.blocked()?;
                stopped.set_blocked(mask | !signals::SYNCHRONOUS)?;
                thread.mask = Some(mask);
            }
        }
        self.bring_to_safe_point(pid, stopped, regs)
    }

    /// Bring a thread with queued signals to a safe point (the table above).
    fn bring_to_safe_point(&mut self, pid: i32, stopped: Stopped, regs: Regs) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let context = process.context(&regs);
        let code = process.code;
        let Some(thread) = process.threads.get_mut(&stopped.tid()) else { return Ok(()) };
        let (Some(context), true) = (context, thread.started) else {
            // Its `Ready` or `ThreadStart` comes first, and looks at the queue.
            return self.resume(pid, stopped, 0);
        };
        if let Phase::Stepping(_) | Phase::Passing(_) = thread.phase {
            return self.resume(pid, stopped, 0);
        }
        process.set_context_field(context, offset_of!(ThreadContext, pending), 1u32);
        if (layout::CACHE_START..layout::CACHE_END).contains(&regs.rip) {
            enter_fault(process, &stopped, context, &regs, 0, 0, 0)?;
        } else if (code.syscall_check..=code.syscall_insn).contains(&regs.rip) {
            stopped.set_registers(&Regs { rip: code.syscall_check, orig_rax: u64::MAX, ..regs })?;
        } else if regs.rip == code.syscall_after && is_restart(&regs) {
            // Only for signals that kill: the call is over.
            stopped.set_registers(&Regs { rax: -i64::from(libc::EINTR) as u64, orig_rax: u64::MAX, ..regs })?;
        }
        self.resume(pid, stopped, 0)
    }

    /// One instruction of the code cache further.
    fn stepped(&mut self, pid: i32, stopped: Stopped, regs: Regs, steps: u32, handler: &mut dyn Handler) -> Result<()> {
        if steps >= MAX_STEPS {
            self.give_up(pid, &format!("no safe point near {:#x}", regs.rip), handler);
            return Ok(());
        }
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.phase = Phase::Run;
            thread.steps = steps + 1;
        }
        self.bring_to_safe_point(pid, stopped, regs)
    }

    /// The processor holds the program's registers: let the kernel deliver, and stop at the handler.
    pub(crate) fn inject_signal(&mut self, pid: i32, stopped: Stopped, info: &SigInfo) -> Result<()> {
        stopped.set_siginfo(info)?;
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.phase = Phase::Delivering;
        }
        self.resume(pid, stopped, info.signo)
    }

    /// The stop after an injection.
    fn injected(&mut self, pid: i32, stopped: Stopped, mut regs: Regs, info: SigInfo) -> Result<()> {
        let is_trap = info.signo == libc::SIGTRAP && matches!(info.code, CODE_NOTIFY | TRAP_TRACE | TRAP_BRKPT);
        if !is_trap {
            // Another signal came first, or the frame could not be written (SIGSEGV).
            let disposition = disposition(stopped.tid(), info.signo);
            if matches!(disposition, Disposition::Ignored | Disposition::Default(signals::Default::Ignore | signals::Default::Stop)) {
                return self.resume(pid, stopped, passed_on(disposition, info.signo));
            }
            if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
                thread.queue.push_front(info);
            }
            if is_restart(&regs) {
                (regs.rip, regs.rax) = (regs.rip - 2, regs.orig_rax);
            }
        }
        self.enter_program(pid, stopped, regs, is_trap && info.code == CODE_NOTIFY, 0)
    }

    /// Continue in translated code with the program's registers `regs`. `frame`: a signal frame starts at its rsp.
    pub(crate) fn enter_program(&mut self, pid: i32, stopped: Stopped, regs: Regs, frame: bool, signal: i32) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let code = process.code;
        let Some(thread) = process.threads.get_mut(&stopped.tid()) else { return Ok(()) };
        thread.phase = Phase::Run;
        thread.steps = 0;
        let exception = thread.exception.take();
        let pending = u32::from(!thread.queue.is_empty());
        if let Some(context) = process.context(&regs) {
            process.set_context_field(context, offset_of!(ThreadContext, target), regs.rip);
            process.set_context_field(context, offset_of!(ThreadContext, pending), pending);
            if frame {
                let end = frame::end(process, regs.rsp);
                if let Some(exception) = exception {
                    frame::describe(process, regs.rsp, &exception);
                }
                process.set_context_field(context, offset_of!(ThreadContext, scratch) + 7 * 8, end);
            }
        }
        let rip = if frame { code.signal_entry } else { code.resume };
        stopped.set_registers(&Regs { rip, orig_rax: u64::MAX, ..regs })?;
        self.resume(pid, stopped, signal)
    }

    /// The trap `SafePoint`: the program's registers are in ctx.regs.
    pub(crate) fn safe_point(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let context = process.context(&regs);
        let saved = context.and_then(|c| process.saved_registers(c));
        if let Some(mask) = process.threads.get_mut(&stopped.tid()).and_then(|thread| thread.mask.take()) {
            stopped.set_blocked(mask)?;
        }
        let (Some(context), Some(program)) = (context, saved) else {
            self.give_up(pid, "a safe point without a thread context", handler);
            return Ok(());
        };
        if regs.rdi == STEP_ME {
            let interrupted = process.memory.value::<Fault>(context + FAULT_OFFSET).map(|f| f.regs);
            let regs = registers_of(&interrupted.unwrap_or([0; 27]), &regs);
            let behind = end_of_repeated(process, regs.rip).filter(|&end| stopped.break_at(Some(end)).is_ok());
            if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
                thread.phase = if behind.is_some() { Phase::Passing(thread.steps) } else { Phase::Stepping(thread.steps) };
            }
            stopped.set_registers(&regs)?;
            return self.resume(pid, stopped, 0);
        }
        if process.freezing && process.ending_thread != Some(stopped.tid()) {
            self.hold(pid, stopped);
            return Ok(());
        }
        let Some(thread) = process.threads.get_mut(&stopped.tid()) else { return Ok(()) };
        thread.steps = 0;
        if let Phase::Dying(..) = thread.phase {
            return self.finish_dying(pid, stopped);
        }
        let (info, forced) = match regs.rdi as i32 {
            0 => match thread.queue.pop_front() {
                Some(info) => (info, false),
                None => return self.enter_program(pid, stopped, with_general(&regs, &program), false, 0),
            },
            signo => {
                let original = thread.fault.take().filter(|info| info.signo == signo);
                let original = original.unwrap_or(SigInfo::fault(signo, 0, 0));
                thread.exception = Some(Exception::of(regs.rsi, regs.rdx));
                (original.corrected(regs.rsi as i32, regs.rdx), true)
            }
        };
        self.deliver(pid, stopped, regs, program, info, forced, handler)
    }

    /// Deliver a signal at a safe point. `forced`: it is the program's own fault, which cannot be put off.
    #[allow(clippy::too_many_arguments, reason = "one stop and one signal, both in full")]
    fn deliver(
        &mut self,
        pid: i32,
        stopped: Stopped,
        regs: Regs,
        program: Registers,
        info: SigInfo,
        forced: bool,
        handler: &mut dyn Handler,
    ) -> Result<()> {
        let blocked = stopped.blocked()? & signals::bit(info.signo) != 0;
        let disposition = disposition(stopped.tid(), info.signo);
        let program_regs = with_general(&regs, &program);
        match disposition {
            // The program blocked it meanwhile: back to the kernel, which keeps it.
            _ if blocked && !forced => {
                stopped.set_siginfo(&info)?;
                self.enter_program(pid, stopped, program_regs, false, info.signo)
            }
            Disposition::Handler if !blocked => {
                stopped.set_registers(&program_regs)?;
                self.inject_signal(pid, stopped, &info)
            }
            Disposition::Ignored | Disposition::Default(signals::Default::Ignore) if !forced => {
                self.enter_program(pid, stopped, program_regs, false, 0)
            }
            Disposition::Default(signals::Default::Stop) => {
                stopped.set_siginfo(&info)?;
                self.enter_program(pid, stopped, program_regs, false, info.signo)
            }
            _ => self.die(pid, stopped, regs, program, info, handler),
        }
    }

    /// A signal will kill the process: tell the session, and let the runtime prepare the final report.
    pub(crate) fn die(
        &mut self,
        pid: i32,
        stopped: Stopped,
        regs: Regs,
        program: Registers,
        info: SigInfo,
        handler: &mut dyn Handler,
    ) -> Result<()> {
        let tid = stopped.tid();
        if !self.ends_by(pid, tid) {
            self.hold(pid, stopped);
            return Ok(());
        }
        self.stop_world(pid, tid, handler);
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let signal =
            FatalSignal { signo: info.signo, code: info.code, addr: if info.is_synchronous() { info.addr } else { 0 }, regs: program };
        let mut thread_info = process.describe(tid, &regs);
        thread_info.regs = program;
        if process.life != Life::Ending {
            handler.fatal_signal(process, &thread_info, &signal);
        }
        if let Some(thread) = process.threads.get_mut(&tid) {
            thread.phase = Phase::Dying(info);
        }
        stopped.set_registers(&Regs { rax: ANSWER_DYING, ..regs })?;
        self.resume(pid, stopped, 0)?;
        // The others may hold locks that the report needs; they are stopped again at its end.
        self.release_world(pid, handler);
        Ok(())
    }

    /// May this thread end the process? The first that asks may; others must stay where they are.
    pub(crate) fn ends_by(&mut self, pid: i32, tid: i32) -> bool {
        self.processes.get_mut(&pid).is_some_and(|process| *process.ending_thread.get_or_insert(tid) == tid)
    }

    /// The report is made: let the signal kill.
    pub(crate) fn finish_dying(&mut self, pid: i32, stopped: Stopped) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        process.life = Life::Ending;
        let Some(Phase::Dying(info)) = process.threads.get(&stopped.tid()).map(|t| t.phase) else { return Ok(()) };
        process.verdict = Some(Ending::Signaled(info.signo));
        crate::limits::forbid_core(process.living());
        if matches!(disposition(stopped.tid(), info.signo), Disposition::Default(signals::Default::Kill)) {
            stopped.set_blocked(stopped.blocked()? & !signals::bit(info.signo))?;
            stopped.set_siginfo(&info)?;
            return stopped.resume(How::Continue, info.signo);
        }
        // A fault that is blocked or ignored kills all the same; only the kernel could do it by that signal.
        self.kill(pid);
        Ok(())
    }
}

/// The program's registers, if these stand in a system call of the runtime: its own, or one that it makes for the program, as rax tells.
fn who_calls(process: &Process, regs: &Regs) -> Option<Registers> {
    let is_inside = process.code.is_in_runtime(regs.rip) || process.code.in_call(regs.rip);
    process.context(regs).filter(|_| is_inside).and_then(|context| process.saved_registers(context))
}

/// What the kernel would do with the signal. If the process cannot be asked, it is dead.
pub(crate) fn disposition(tid: i32, signo: i32) -> Disposition {
    Choices::read(tid).unwrap_or_default().of(signo)
}

/// What to give to the kernel of a signal that runs no handler. One that is ignored ends here: were it handed on, and another thread
/// sets a handler at this moment, the kernel would start that handler outside translated code.
fn passed_on(disposition: Disposition, signo: i32) -> i32 {
    if disposition == Disposition::Default(signals::Default::Stop) { signo } else { 0 }
}

fn is_restart(regs: &Regs) -> bool {
    regs.orig_rax as i64 >= 0 && RESTARTS.contains(&(regs.rax as i64))
}

/// If these registers stand in a system call of the program that the signal has interrupted: the program's registers.
fn interrupted_call(process: &Process, regs: &Regs) -> Option<Regs> {
    let interrupted = is_restart(regs) || regs.rax as i64 == -i64::from(libc::EINTR);
    if regs.rip != process.code.syscall_after || !interrupted {
        return None;
    }
    let saved = process.saved_registers(process.context(regs)?)?;
    // The instruction leaves its return address in rcx; the kernel restarts at rip - 2, the program's own `syscall`.
    Some(Regs { rip: saved.rip, rcx: saved.rip, ..*regs })
}

/// The kernel has written how much of an interrupted sleep was left; the runtime's second half of the call will not run.
fn define_remainder(process: &Process, regs: &Regs) {
    const ABSOLUTE: u64 = 1;
    let at = match regs.orig_rax as i64 {
        libc::SYS_nanosleep => regs.rsi,
        libc::SYS_clock_nanosleep if regs.rsi & ABSOLUTE == 0 => regs.r10,
        _ => 0,
    };
    if at != 0 && layout::in_program(at, 16) {
        process.memory.set(layout::v_of(at), 0u64);
        process.memory.set(layout::v_of(at) + 8, 0u64);
    }
}

/// Let the thread run `fault_entry` with a [`Fault`] that has its present registers.
fn enter_fault(process: &Process, stopped: &Stopped, context: u64, regs: &Regs, signo: u64, code: u64, addr: u64) -> Result<()> {
    let at = context + FAULT_OFFSET;
    process.memory.set(at, Fault { regs: words_of(regs), signo, code, addr });
    // In the runtime itself, its stack below rsp is free; from translated code, all of it.
    let own = context + layout::SLOT_RUNTIME_STACK..=context + layout::SLOT_RUNTIME_STACK_TOP;
    let rsp = if own.contains(&regs.rsp) {
        (regs.rsp - 256) & !15
    } else {
        process.context_field(context, offset_of!(ThreadContext, runtime_rsp)).unwrap_or(context + layout::SLOT_RUNTIME_STACK_TOP)
    };
    stopped.set_registers(&Regs { rip: process.code.fault_entry, rsp, rdi: at, eflags: regs.eflags & !TF_DF, orig_rax: u64::MAX, ..*regs })
}

/// The registers in the order of `user_regs_struct`.
fn words_of(r: &Regs) -> [u64; 27] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi, r.orig_rax, r.rip, r.cs,
        r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs, r.gs,
    ]
}

/// The inverse, for the registers that a program can change; segments from `base`.
fn registers_of(w: &[u64; 27], base: &Regs) -> Regs {
    Regs {
        r15: w[0],
        r14: w[1],
        r13: w[2],
        r12: w[3],
        rbp: w[4],
        rbx: w[5],
        r11: w[6],
        r10: w[7],
        r9: w[8],
        r8: w[9],
        rax: w[10],
        rcx: w[11],
        rdx: w[12],
        rsi: w[13],
        rdi: w[14],
        orig_rax: u64::MAX,
        rip: w[16],
        eflags: w[18],
        rsp: w[19],
        ..*base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_the_kernels_order() {
        let base = crate::tracee::zero_registers();
        let mut words = [0u64; 27];
        for (i, word) in words.iter_mut().enumerate() {
            *word = 1000 + i as u64;
        }
        let regs = registers_of(&words, &base);
        assert_eq!((regs.r15, regs.rax, regs.rip, regs.rsp), (1000, 1010, 1016, 1019));
        let back = words_of(&regs);
        assert_eq!(back[..15], words[..15]);
        assert_eq!(back[16], words[16]);
        assert_eq!(crate::tracee::general(&regs).rip, 1016);
    }

    #[test]
    fn restarted_calls() {
        let zero = crate::tracee::zero_registers();
        assert!(is_restart(&Regs { rax: -512i64 as u64, orig_rax: 0, ..zero }));
        assert!(!is_restart(&Regs { rax: -512i64 as u64, orig_rax: u64::MAX, ..zero }), "not in a system call");
        assert!(!is_restart(&Regs { rax: 5, orig_rax: 0, ..zero }));
    }
}
