//! The end: of a process by a signal, of its report, of memcheck.
//!
//! memcheck ends as its program ended: the same status, or the same signal, so that a shell sees no difference. Three things change
//! that: `--error-exitcode` when errors were found (never after death by signal, as in Valgrind), `--exit-on-first-error`, and a
//! failure of memcheck itself, which is nobody's status: 125, as `env` and `timeout` have it.

use memcheck_abi::layout;
use memcheck_report::Stack;
use memcheck_report::render;
use memcheck_tracer::{Ending, Farewell, FatalSignal, Process, ThreadInfo};

use super::Session;

/// memcheck could not go on.
pub const INTERNAL_FAILURE: i32 = 125;
/// The largest main stack that Valgrind gives a program unless it is told, bytes; scripts look for its hint.
const MAX_MAIN_STACK: u64 = 16 << 20;
/// An access this far below the main stack's mapping is taken for an attempt to grow it, bytes.
const NEAR_STACK: u64 = 1 << 20;
/// Where Valgrind lets programs be, and where mappings without a wish are here, from above; what is fetched from elsewhere counts as
/// forbidden there, not as absent.
const FETCHABLE: [std::ops::Range<u64>; 2] = [0x400_0000..0x20_0000_0000, layout::MMAP_END - (64 << 30)..layout::MMAP_END];
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SI_KERNEL: i32 = 0x80;
const ILL_ILLOPC: i32 = 1;
const ILL_ILLOPN: i32 = 2;

/// How memcheck leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Status {
    pub fn leave(self) -> ! {
        match self {
            Status::Code(code) => std::process::exit(code),
            Status::Signal(signo) => memcheck_tracer::die_by(signo),
        }
    }
}

impl From<Status> for Farewell {
    fn from(status: Status) -> Farewell {
        match status {
            Status::Code(code) => Farewell::Code(code),
            Status::Signal(signo) => Farewell::Signal(signo),
        }
    }
}

/// What a process's report says about its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Use this one if the program exits by itself.
    Exited(i32),
    /// memcheck ended it: this code whatever the kernel says.
    Stopped(i32),
}

/// The status for a main program that ended so.
pub fn status(verdict: Option<Verdict>, ending: Ending) -> Status {
    match (verdict, ending) {
        (Some(Verdict::Stopped(code)), _) => Status::Code(code),
        (Some(Verdict::Exited(code)), Ending::Exited(_)) => Status::Code(code),
        (None, Ending::Exited(code)) => Status::Code(code),
        (_, Ending::Signaled(signo)) => Status::Signal(signo),
        (_, Ending::Failed) => Status::Code(INTERNAL_FAILURE),
    }
}

impl Session {
    /// "Process terminating with default action of signal …"
    pub(super) fn report_fatal_signal(&mut self, process: &Process, thread: &ThreadInfo, signal: &FatalSignal) {
        if let Some(Verdict::Stopped(_)) = self.codes.get(&process.pid()) {
            return;
        }
        let Some(watched) = self.watched.get_mut(&process.pid()) else { return };
        let callers = self.output.options.num_callers;
        let addresses = super::stacks::of_thread(process, thread, &signal.regs, callers);
        let stack: Stack = watched.stack(process, &addresses);
        let fatal = render::FatalSignal {
            signo: signal.signo,
            code: told_code(signal),
            address: if is_impossible(signal.regs.rip) { signal.regs.rip } else { signal.addr },
            thread: thread.number.max(1),
            thread_name: watched.thread_name(process, thread.tid),
            stack,
            stack_overflow: overflow(process, thread, signal),
            main_stack_size: watched.reporter.options().main_stacksize.unwrap_or(watched.stack_limit.min(MAX_MAIN_STACK)),
        };
        watched.reporter.fatal_signal(&fatal, signal.is_fault());
    }

    /// The process ends: everything that is left to say about it.
    pub(super) fn conclude(&mut self, pid: i32, ending: Ending) {
        let Some(watched) = self.watched.get_mut(&pid) else { return };
        watched.reporter.finish();
        if let Ending::Exited(code) = ending {
            self.codes.entry(pid).or_insert(Verdict::Exited(watched.reporter.exit_code(code)));
        }
    }

    /// `--exit-on-first-error`: end the process now.
    pub(super) fn stop(&mut self, pid: i32) {
        let Some(watched) = self.watched.get(&pid) else { return };
        self.kill(pid, watched.reporter.exit_code(0));
    }

    /// End a process with this status.
    pub(super) fn kill(&mut self, pid: i32, status: i32) {
        self.codes.insert(pid, Verdict::Stopped(status));
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Can no code be there, as the address is not canonical? The kernel then says nothing of where the program jumped to.
fn is_impossible(rip: u64) -> bool {
    (1 << 47..u64::MAX << 47).contains(&rip)
}

/// The code that a report names. The kernel knows better in two cases, but Valgrind, which finds both faults while it translates, says
/// otherwise, and people look for its words: a null function pointer is "Bad permissions", `ud2` an "Illegal opcode".
fn told_code(signal: &FatalSignal) -> i32 {
    match (signal.signo, signal.code) {
        (libc::SIGILL, ILL_ILLOPN) => ILL_ILLOPC,
        (libc::SIGSEGV, SEGV_MAPERR) if signal.regs.rip == signal.addr && !FETCHABLE.iter().any(|range| range.contains(&signal.addr)) => {
            SEGV_ACCERR
        }
        (libc::SIGSEGV, SI_KERNEL) if is_impossible(signal.regs.rip) => SEGV_ACCERR,
        (_, code) => code,
    }
}

/// The address that the thread's stack could not grow to, if that is what happened.
fn overflow(process: &Process, thread: &ThreadInfo, signal: &FatalSignal) -> Option<u64> {
    if signal.signo != libc::SIGSEGV {
        return None;
    }
    let maps = process.maps().ok()?;
    let beyond = match (thread.number, signal.code) {
        // The main stack grows as far as its limit allows.
        (1, SEGV_MAPERR) => {
            let stack = maps.iter().find(|map| map.end == layout::MAIN_STACK_TOP || map.path == "[stack]")?;
            stack.start.saturating_sub(NEAR_STACK)..stack.start
        }
        // Those of a thread library end at a page that nobody may touch.
        (_, SEGV_ACCERR) => {
            let guard = maps.iter().find(|map| map.end == thread.stack_low && map.prot == 0)?;
            guard.start..guard.end
        }
        _ => return None,
    };
    beyond.contains(&signal.addr).then_some(signal.addr & !0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memcheck_ends_as_its_program_did() {
        assert_eq!(status(None, Ending::Exited(3)), Status::Code(3));
        assert_eq!(status(Some(Verdict::Exited(9)), Ending::Exited(0)), Status::Code(9), "--error-exitcode");
        assert_eq!(status(Some(Verdict::Exited(9)), Ending::Signaled(11)), Status::Signal(11), "not after death by signal");
        assert_eq!(status(Some(Verdict::Stopped(7)), Ending::Signaled(9)), Status::Code(7), "--exit-on-first-error");
        assert_eq!(status(None, Ending::Failed), Status::Code(INTERNAL_FAILURE));
    }
}
