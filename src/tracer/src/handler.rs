//! What the tracer tells the session.
//!
//! The tracer knows processes, threads and stops; it does not know names, reports or leaks. Whatever the runtime found is passed on
//! through this trait, with the thread that found it stopped. Every method has an empty default, so that a test says only what it tests.

use std::ffi::OsString;
use std::path::Path;

use memcheck_abi::config::Config;
use memcheck_abi::context::Registers;
use memcheck_abi::errand::{Errand, Exchange};
use memcheck_abi::event::{ErrorEvent, ExitReport, Redirect, Repeat};
use memcheck_abi::replace::Func;

use crate::front::Farewell;
use crate::process::{Process, ThreadInfo};
use crate::tracee::Ending;

/// A signal that will kill the process.
#[derive(Clone, Copy, Debug)]
pub struct FatalSignal {
    pub signo: i32,
    /// si_code: positive = raised by the kernel.
    pub code: i32,
    /// Address of the fault, for SEGV, BUS, FPE, ILL, TRAP.
    pub addr: u64,
    /// The program's registers, rip = the instruction that faulted or would be next.
    pub regs: Registers,
}

impl FatalSignal {
    /// Raised by an instruction of the program, not sent.
    pub fn is_fault(&self) -> bool {
        crate::tracee::SigInfo::fault(self.signo, self.code, self.addr).is_synchronous()
    }
}

/// Something that users should know and that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// No process can have a descriptor with this number.
    Descriptor { number: i32, call: String },
    /// Nobody can handle this signal.
    Uncatchable { signal: i32 },
    /// There is no signal with this number.
    NoSignal { signal: i32 },
    /// What the request reads and writes is not known.
    Ioctl { request: u32 },
    /// A thread ends that has switched error reporting off.
    ReportingOff,
}

/// What became of a command in words.
#[derive(Clone, Debug)]
pub enum Command {
    Unknown,
    Understood,
    /// The runtime has to do this first; then the command comes again.
    Errands(Vec<Errand>),
}

#[allow(unused_variables, reason = "empty defaults, with names that explain the arguments")]
pub trait Handler {
    /// Before the runtime's first instruction: set the options. The rest is filled.
    fn configure(&mut self, process: &Process, config: &mut Config) {}
    /// Start-up is done; objects can be listed. The program begins next.
    fn ready(&mut self, process: &Process) {}
    /// An executable mapping appeared. The answer: functions to replace.
    fn mapped(&mut self, process: &Process, start: u64, end: u64) -> Vec<Redirect> {
        Vec::new()
    }
    fn unmapped(&mut self, process: &Process, start: u64, end: u64) {}
    /// A new error. The answer: its serial number, by which repeats are counted.
    fn error(&mut self, process: &Process, thread: &ThreadInfo, error: &ErrorEvent) -> u64 {
        0
    }
    /// Errors seen again.
    fn repeats(&mut self, process: &Process, repeats: &[Repeat]) {}
    /// Errors reported so far, for the client request that asks.
    fn error_count(&mut self, process: &Process) -> u64 {
        0
    }
    /// The process is about to end, by itself or by a signal (then after `fatal_signal`). All its threads are stopped. The answer: the
    /// status to exit with, if not the program's own.
    fn exiting(&mut self, process: &Process, thread: &ThreadInfo, ending: Ending, report: &ExitReport) -> Option<i32> {
        None
    }
    /// This signal will kill the process. All its threads are stopped for the moment. `exiting` follows, except after SIGKILL
    /// and when the runtime is not able to report.
    fn fatal_signal(&mut self, process: &Process, thread: &ThreadInfo, signal: &FatalSignal) {}
    /// The process is gone. (Not called for one that was let go.)
    fn process_ended(&mut self, pid: i32, ending: Ending) {}
    /// The main program is gone, other processes live on. The answer is for who waits for memcheck.
    fn outlived(&mut self, pid: i32, ending: Ending) -> Farewell {
        match ending {
            Ending::Exited(code) => Farewell::Code(code),
            Ending::Signaled(signo) => Farewell::Signal(signo),
            Ending::Failed => Farewell::Code(1),
        }
    }
    /// Client request: text for the log.
    fn print(&mut self, process: &Process, thread: &ThreadInfo, text: &[u8], backtrace: bool) {}
    /// Client request: check for leaks now. All other threads are stopped.
    fn leak_check(&mut self, process: &Process, mode: u64, report: &ExitReport) {}
    /// Client request: an option to set from now on, or a command of the debugger; or the debugger itself is to be talked to (`asked` is one
    /// of [`memcheck_abi::errand::asked`]). All other threads are stopped.
    fn command(&mut self, process: &Process, thread: &ThreadInfo, asked: u64, text: &str, exchange: &Exchange) -> Command {
        Command::Unknown
    }
    /// Client request: sums of the last leak check, in blocks or bytes: definite and indirect, possible, reachable, suppressed.
    fn leak_counts(&mut self, process: &Process, blocks: bool) -> [u64; 4] {
        [0; 4]
    }
    /// Client request: "file:line" of a code address.
    fn source_line(&mut self, process: &Process, addr: u64) -> Option<String> {
        None
    }
    /// Memcheck itself cannot go on with this process, which is killed next.
    fn internal(&mut self, process: &Process, text: &str) {}
    /// The system does not let the runtime start in this process, which ends.
    fn refused(&mut self, process: &Process, text: &str) {}
    /// `--trace-malloc`: a function was called with these arguments and gave a block, if it gives any.
    fn traced(&mut self, process: &Process, func: Func, arguments: [u64; 2], block: u64) {}
    fn warning(&mut self, process: &Process, warning: &Warning) {}
    /// Text for -v.
    fn note(&mut self, process: &Process, text: &str) {}
    fn thread_started(&mut self, process: &Process, thread: &ThreadInfo) {}
    /// A child appeared that is a copy of its parent (of vfork: until its exec).
    fn forked(&mut self, parent: &Process, child: &Process) {}
    /// execve is about to be called. The answer: shall the new program be checked, too?
    fn exec_started(&mut self, process: &Process, path: &Path, arguments: &[OsString]) -> bool {
        false
    }
    fn exec_failed(&mut self, process: &Process) {}
    /// The process is another program now. Not followed: it runs natively, nothing more is heard of it.
    /// Followed: `configure` and `ready` come next.
    fn exec_done(&mut self, process: &Process, followed: bool) {}
}
