//! One traced thread, its states as types.
//!
//! The kernel accepts ptrace requests only for a thread that is stopped. So the only way to make a request here is to own a
//! [`Stopped`], the only source of a `Stopped` is [`wait`], and resuming consumes it:
//!
//! ```text
//!            wait() ──────────────► Stopped ── registers, siginfo, memory words
//!              ▲                       │
//!              └────── (running) ◄─────┴─ resume / detach
//! ```
//!
//! A stopped thread can still be killed by SIGKILL at any moment; every request then fails with ESRCH, which is
//! [`Error::Died`]: not a failure, the end of the thread will be reported by `wait`.
//!
//! Source of the facts: ptrace(2), "Stopped states" and "Attaching with PTRACE_SEIZE".
//! Deliberately absent: what a stop means (see `run`), registers of other architectures.
#![allow(unsafe_code, reason = "ptrace and waitpid: signals of real-time numbers, which the safe wrappers do not know")]

use std::io;
use std::marker::PhantomData;
use std::mem::offset_of;

use memcheck_abi::context::{self, Registers};

/// The processor's registers as the kernel gives them.
pub type Regs = libc::user_regs_struct;

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// The thread was killed meanwhile.
    Died,
    /// Anything else: the request and its errno.
    Refused(&'static str, io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Died => write!(f, "the traced thread died"),
            Error::Refused(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// How a process or thread ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Exited(i32),
    /// Killed by this signal.
    Signaled(i32),
    /// Ended by memcheck itself, which could not go on.
    Failed,
}

/// Why a thread stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// About to receive this signal, which has been taken from the queue: signal-delivery-stop.
    Signal(i32),
    /// A PTRACE_EVENT_* of the options below.
    Event(i32),
    /// Before or after a system call, with [`How::Syscall`].
    Syscall,
    /// The whole process is stopped by this job-control signal: group-stop.
    Group(i32),
    /// By [`interrupt`], or a new thread's first stop, or the end of a group-stop.
    Interrupt,
}

/// What [`wait`] reports.
pub enum Report {
    Stopped(Stopped, Stop),
    Ended(i32, Ending),
    /// Nothing yet; only when not blocking.
    Nothing,
    /// There is nobody to wait for.
    Nobody,
}

/// How to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Continue,
    /// One instruction; with a signal: to the first instruction of its handler.
    Step,
    /// To the next entry to or return from a system call.
    Syscall,
    /// Stay in group-stop, but hear about its end.
    Listen,
}

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEVFORKDONE
    | libc::PTRACE_O_TRACEEXIT
    | libc::PTRACE_O_EXITKILL;

/// The event number of [`Stop::Group`] and [`Stop::Interrupt`].
const EVENT_STOP: i32 = 128;

fn request(name: &'static str, op: libc::c_uint, tid: i32, addr: usize, data: usize) -> Result<()> {
    // SAFETY: `addr` and `data` are numbers, or point to a live value of the size that the kernel reads or writes for this
    // request; the callers in this file see to that.
    let answer = unsafe { libc::ptrace(op, tid, addr, data) };
    if answer != -1 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ESRCH) => Err(Error::Died),
        _ => Err(Error::Refused(name, error)),
    }
}

/// Become the tracer of a process that is our own child.
pub fn seize(pid: i32) -> Result<()> {
    request("PTRACE_SEIZE", libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize)
}

/// Ask a running thread to stop; `wait` will report a stop of some kind.
pub fn interrupt(tid: i32) -> Result<()> {
    request("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, tid, 0, 0)
}

/// Wait for a report of thread `tid` (-1: of anyone).
pub fn wait(tid: i32, block: bool) -> Report {
    // A thread's own tracees and children only: others of this process may have theirs.
    let flags = libc::__WALL | libc::__WNOTHREAD | if block { 0 } else { libc::WNOHANG };
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        match unsafe { libc::waitpid(tid, &mut status, flags) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
            -1 => return Report::Nobody,
            0 => return Report::Nothing,
            tid => return decode(tid, status),
        }
    }
}

/// A wait status is `signal or exit code << 8 | kind`, with the ptrace event in the third byte.
fn decode(tid: i32, status: i32) -> Report {
    if let Some(ending) = ending(status) {
        return Report::Ended(tid, ending);
    }
    let (signal, event) = (status >> 8 & 0xff, status >> 16);
    let stop = match (signal, event) {
        (s, 0) if s == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (s, 0) => Stop::Signal(s),
        (libc::SIGTRAP, EVENT_STOP) => Stop::Interrupt,
        (s, EVENT_STOP) => Stop::Group(s),
        (_, event) => Stop::Event(event),
    };
    Report::Stopped(Stopped { tid, here: PhantomData }, stop)
}

/// The ending in a wait status, `None` if it says something else. Also the message of PTRACE_EVENT_EXIT.
pub fn ending(status: i32) -> Option<Ending> {
    if libc::WIFEXITED(status) {
        Some(Ending::Exited(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Some(Ending::Signaled(libc::WTERMSIG(status)))
    } else {
        None
    }
}

/// A thread in a ptrace stop. Exists at most once per stop, and stays on the thread of ours that is the tracer: the kernel
/// takes requests from no other.
#[derive(Debug)]
pub struct Stopped {
    tid: i32,
    here: PhantomData<*const ()>,
}

impl Stopped {
    pub fn tid(&self) -> i32 {
        self.tid
    }

    pub fn registers(&self) -> Result<Regs> {
        let mut regs = zero_registers();
        request("PTRACE_GETREGS", libc::PTRACE_GETREGS, self.tid, 0, &raw mut regs as usize)?;
        Ok(regs)
    }

    /// xmm0 to xmm15.
    pub fn vectors(&self) -> Result<[u32; 64]> {
        // SAFETY: the structure has only integer fields.
        let mut state: libc::user_fpregs_struct = unsafe { std::mem::zeroed() };
        request("PTRACE_GETFPREGS", libc::PTRACE_GETFPREGS, self.tid, 0, &raw mut state as usize)?;
        Ok(state.xmm_space)
    }

    pub fn set_registers(&self, regs: &Regs) -> Result<()> {
        request("PTRACE_SETREGS", libc::PTRACE_SETREGS, self.tid, 0, &raw const *regs as usize)
    }

    pub fn siginfo(&self) -> Result<SigInfo> {
        let mut info = SigInfo::default();
        request("PTRACE_GETSIGINFO", libc::PTRACE_GETSIGINFO, self.tid, 0, &raw mut info as usize)?;
        Ok(info)
    }

    pub fn set_siginfo(&self, info: &SigInfo) -> Result<()> {
        request("PTRACE_SETSIGINFO", libc::PTRACE_SETSIGINFO, self.tid, 0, &raw const *info as usize)
    }

    /// Blocked signals, bit `signo - 1`.
    pub fn blocked(&self) -> Result<u64> {
        let mut mask = 0u64;
        request("PTRACE_GETSIGMASK", libc::PTRACE_GETSIGMASK as libc::c_uint, self.tid, 8, &raw mut mask as usize)?;
        Ok(mask)
    }

    pub fn set_blocked(&self, mask: u64) -> Result<()> {
        request("PTRACE_SETSIGMASK", libc::PTRACE_SETSIGMASK as libc::c_uint, self.tid, 8, &raw const mask as usize)
    }

    /// A breakpoint of this thread alone, in a debug register: SIGTRAP before the instruction at `addr`. `None`: not any more.
    pub fn break_at(&self, addr: Option<u64>) -> Result<()> {
        /// Local breakpoint 0, for the execution of one instruction.
        const ENABLED: u64 = 1;
        let register = |n: usize| offset_of!(libc::user, u_debugreg) + n * 8;
        let set = |n: usize, value: u64| request("PTRACE_POKEUSER", libc::PTRACE_POKEUSER, self.tid, register(n), value as usize);
        match addr {
            Some(addr) => {
                set(0, addr)?;
                set(7, ENABLED)
            }
            None => set(7, 0),
        }
    }

    /// The number that belongs to a [`Stop::Event`]: new thread, former thread id, wait status.
    pub fn message(&self) -> Result<u64> {
        let mut message = 0u64;
        request("PTRACE_GETEVENTMSG", libc::PTRACE_GETEVENTMSG, self.tid, 0, &raw mut message as usize)?;
        Ok(message)
    }

    /// Overwrite 8 bytes of any mapping, even one that is not writable.
    pub fn poke(&self, addr: u64, word: u64) -> Result<()> {
        request("PTRACE_POKEDATA", libc::PTRACE_POKEDATA, self.tid, addr as usize, word as usize)
    }

    /// Go on, receiving `signal` (0: none).
    pub fn resume(self, how: How, signal: i32) -> Result<()> {
        let (name, op) = match how {
            How::Continue => ("PTRACE_CONT", libc::PTRACE_CONT),
            How::Step => ("PTRACE_SINGLESTEP", libc::PTRACE_SINGLESTEP),
            How::Syscall => ("PTRACE_SYSCALL", libc::PTRACE_SYSCALL),
            How::Listen => ("PTRACE_LISTEN", libc::PTRACE_LISTEN),
        };
        request(name, op, self.tid, 0, signal as usize)
    }

    /// Let the thread go, untraced from now on.
    pub fn detach(self) -> Result<()> {
        request("PTRACE_DETACH", libc::PTRACE_DETACH, self.tid, 0, 0)
    }
}

/// What came with a signal: the kernel's siginfo_t, with the fields used here.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, Debug)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    /// SI_* or the signal's own codes; positive = from the kernel.
    pub code: i32,
    pad: i32,
    /// First word of the union: the address of a fault, or (low half) the pid of a sender.
    pub addr: u64,
    rest: [u64; 13],
}

const _: () = assert!(size_of::<SigInfo>() == 128);

impl SigInfo {
    /// A fault at `addr`, as the kernel would describe it.
    pub fn fault(signo: i32, code: i32, addr: u64) -> SigInfo {
        SigInfo { signo, code, addr, ..SigInfo::default() }
    }

    /// As `kill` sends it.
    pub fn sent(signo: i32, sender: i32) -> SigInfo {
        SigInfo { signo, code: libc::SI_USER, addr: sender as u64, ..SigInfo::default() }
    }

    /// The same with another code and address.
    pub fn corrected(self, code: i32, addr: u64) -> SigInfo {
        SigInfo { code, addr, ..self }
    }

    /// Caused by the instruction at rip (or just before it), as opposed to sent by someone.
    pub fn is_synchronous(&self) -> bool {
        matches!(self.signo, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP) && self.code > 0
    }
}

/// Registers with every field zero.
pub fn zero_registers() -> Regs {
    // SAFETY: the structure has only integer fields.
    unsafe { std::mem::zeroed() }
}

/// The general registers in the order of the abi.
pub fn general(regs: &Regs) -> Registers {
    Registers {
        gpr: [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10, regs.r11, regs.r12,
            regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        rflags: regs.eflags,
    }
}

/// `regs` with its general registers, rip and flags replaced; segments and their bases stay. No system call is in progress then.
pub fn with_general(regs: &Regs, from: &Registers) -> Regs {
    let g = &from.gpr;
    Regs {
        rax: g[context::RAX],
        rcx: g[context::RCX],
        rdx: g[context::RDX],
        rbx: g[context::RBX],
        rsp: g[context::RSP],
        rbp: g[context::RBP],
        rsi: g[context::RSI],
        rdi: g[context::RDI],
        r8: g[8],
        r9: g[9],
        r10: g[10],
        r11: g[11],
        r12: g[12],
        r13: g[13],
        r14: g[14],
        r15: g[15],
        rip: from.rip,
        eflags: from.rflags,
        orig_rax: u64::MAX,
        ..*regs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop_of(status: i32) -> Option<Stop> {
        match decode(1, status) {
            Report::Stopped(_, stop) => Some(stop),
            _ => None,
        }
    }

    #[test]
    fn wait_statuses() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(stop_of(stopped(libc::SIGSEGV, 0)), Some(Stop::Signal(libc::SIGSEGV)));
        assert_eq!(stop_of(stopped(40, 0)), Some(Stop::Signal(40)), "real-time signals have no special form");
        assert_eq!(stop_of(stopped(libc::SIGTRAP | 0x80, 0)), Some(Stop::Syscall));
        assert_eq!(stop_of(stopped(libc::SIGTRAP, 0)), Some(Stop::Signal(libc::SIGTRAP)));
        assert_eq!(stop_of(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC)), Some(Stop::Event(libc::PTRACE_EVENT_EXEC)));
        assert_eq!(stop_of(stopped(libc::SIGTRAP, 128)), Some(Stop::Interrupt));
        assert_eq!(stop_of(stopped(libc::SIGTSTP, 128)), Some(Stop::Group(libc::SIGTSTP)));
        assert_eq!(ending(3 << 8), Some(Ending::Exited(3)));
        assert_eq!(ending(libc::SIGKILL), Some(Ending::Signaled(libc::SIGKILL)));
        assert_eq!(ending(0x80 | libc::SIGSEGV), Some(Ending::Signaled(libc::SIGSEGV)), "with the core-dumped bit");
        assert_eq!(ending(stopped(libc::SIGSTOP, 0)), None);
    }

    #[test]
    fn registers_survive_the_round_trip() {
        let mut wanted = Registers { rip: 100, rflags: 101, ..Registers::default() };
        for (i, register) in wanted.gpr.iter_mut().enumerate() {
            *register = 200 + i as u64;
        }
        let base = Regs { fs_base: 7, cs: 0x33, orig_rax: 1, ..zero_registers() };
        let regs = with_general(&base, &wanted);
        assert_eq!((regs.fs_base, regs.cs, regs.orig_rax), (7, 0x33, u64::MAX));
        let back = general(&regs);
        assert_eq!((back.gpr, back.rip, back.rflags), (wanted.gpr, 100, 101));
        assert_eq!((regs.rsi, regs.rdi, regs.rsp), (206, 207, 204), "processor's encoding order");
    }
}
