//! The end of a signal handler: rt_sigreturn, and frames that the kernel does not accept.
//!
//! The runtime returns from most handlers by itself: it lets the frame say that the thread goes on at `resume`. What it cannot read, it
//! leaves to a real system call made with the program's registers, between two stops.
//!
//! A handler may have damaged its frame. Then the kernel forces SIGSEGV (SI_KERNEL) upon the thread:
//!
//! | the frame's fault              | the processor holds                     | the program is at             |
//! |--------------------------------|-----------------------------------------|-------------------------------|
//! | it cannot be read              | the registers of the call               | behind its `syscall`          |
//! | its vector state is none       | the frame's registers                   | where the frame says          |
//! | its segments are none          | the frame's registers, and the segments | where the frame says          |
//!
//! The trap flag is not taken from a frame: it would step through the runtime.
//!
//! Source: arch/x86/kernel/signal_64.c.

use std::mem::offset_of;

use memcheck_abi::context::ThreadContext;

use crate::deliver::disposition;
use crate::frame::Exception;
use crate::handler::Handler;
use crate::process::{Phase, Process};
use crate::run::Tracer;
use crate::signals::Disposition;
use crate::tracee::{Regs, Result, SigInfo, Stopped, with_general};

const SI_KERNEL: i32 = 0x80;
const TRAP_FLAG: u64 = 1 << 8;
/// Code and stack segment of 64-bit programs.
const CODE_SEGMENT: u64 = 0x33;
const STACK_SEGMENT: u64 = 0x2b;
/// The lowest bits of a selector, which an error word does not have.
const PRIVILEGE: u64 = 3;
const GENERAL_PROTECTION: u64 = 13;

impl Tracer<'_> {
    /// rt_sigreturn: the kernel restores the registers from the frame, in a real system call made with the program's registers.
    pub(crate) fn signal_return(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let Some(program) = process.context(&regs).and_then(|c| process.saved_registers(c)) else {
            self.give_up(pid, "a signal return without a thread context", handler);
            return Ok(());
        };
        let rip = process.code.syscall_insn;
        if let Some(thread) = process.threads.get_mut(&stopped.tid()) {
            thread.phase = Phase::SigReturn;
            thread.in_sigreturn = false;
        }
        stopped.set_registers(&Regs { rip, rax: libc::SYS_rt_sigreturn as u64, ..with_general(&regs, &program) })?;
        self.resume(pid, stopped, 0)
    }

    /// The two system call stops of rt_sigreturn.
    pub(crate) fn syscall_stop(&mut self, pid: i32, stopped: Stopped) -> Result<()> {
        let Some(thread) = self.thread_mut(pid, stopped.tid()) else { return self.resume(pid, stopped, 0) };
        match thread.phase {
            Phase::SigReturn if thread.in_sigreturn => {
                let regs = stopped.registers()?;
                let restored = self.behind_call(pid, &regs).unwrap_or(regs.rip);
                let regs = Regs { rip: restored, eflags: regs.eflags & !TRAP_FLAG, ..regs };
                self.enter_program(pid, stopped, regs, false, 0)
            }
            Phase::SigReturn => {
                thread.in_sigreturn = true;
                self.resume(pid, stopped, 0)
            }
            _ => self.resume(pid, stopped, 0),
        }
    }

    /// If the call has restored nothing: the program's address behind it.
    fn behind_call(&self, pid: i32, regs: &Regs) -> Option<u64> {
        let process = self.processes.get(&pid).filter(|process| regs.rip == process.code.syscall_after)?;
        Some(process.saved_registers(process.context(regs)?)?.rip)
    }

    /// The kernel has refused a frame: SIGSEGV, where the program would have gone on. The kernel has seen to it that the signal is not blocked, nor ignored.
    pub(crate) fn bad_return(&mut self, pid: i32, stopped: Stopped, regs: Regs, info: SigInfo) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let context = process.context(&regs);
        let target = context.and_then(|context| process.context_field(context, offset_of!(ThreadContext, target)));
        let program = Regs { rip: target.unwrap_or(regs.rip), ..regs };
        let Some(thread) = process.threads.get_mut(&stopped.tid()) else { return Ok(()) };
        if disposition(stopped.tid(), info.signo) == Disposition::Handler {
            thread.exception = Some(exception(&regs));
            stopped.set_registers(&program)?;
            return self.inject_signal(pid, stopped, &info);
        }
        thread.queue.push_back(info);
        self.enter_program(pid, stopped, Regs { cs: CODE_SEGMENT, ss: STACK_SEGMENT, ..program }, false, 0)
    }
}

/// Does this signal say that the kernel refused the frame with which the thread has just left a handler?
pub(crate) fn is_refused(process: &Process, regs: &Regs, info: &SigInfo) -> bool {
    regs.rip == process.code.resume && info.signo == libc::SIGSEGV && info.code == SI_KERNEL
}

/// The processor complains of segments; of the rest it is the kernel that does.
fn exception(regs: &Regs) -> Exception {
    match (regs.cs, regs.ss) {
        (CODE_SEGMENT, STACK_SEGMENT) => Exception::new(0, 0),
        (CODE_SEGMENT, _) => Exception::new(GENERAL_PROTECTION, 0),
        (selector, _) => Exception::new(GENERAL_PROTECTION, selector & !PRIVILEGE),
    }
}
