//! The runtime's traps: `int3` at `Config::trap`, code in rax, arguments in rdi, rsi, rdx, r10, answer in rax.
//!
//! Everything read here comes from memory that the program can reach: bounded, and never trusted.

use std::ffi::OsString;
use std::mem::offset_of;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use memcheck_abi::config::Config;
use memcheck_abi::context::ThreadContext;
use memcheck_abi::errand::{Exchange, answer};
use memcheck_abi::event::{ErrorEvent, ExitReport, Repeat, Trap};
use memcheck_abi::layout;
use memcheck_abi::replace::Func;

use crate::handler::{Command, Handler, Warning};
use crate::memory::{Plain, config_from_bytes};
use crate::process::{Code, Life, Phase, Process, ThreadInfo};
use crate::resolve;
use crate::run::Tracer;
use crate::tracee::{Ending, Regs, Result, SigInfo, Stopped};

/// Longest text taken from the runtime, bytes.
const MAX_TEXT: usize = 1 << 20;
const MAX_ARGUMENTS: u64 = 1 << 16;
const MAX_REPEATS: u64 = 1 << 20;
/// Bytes of the answer to `SourceLine`.
const SOURCE_LINE: usize = 64;

const ALL: [Trap; 26] = [
    Trap::Ready,
    Trap::Mapped,
    Trap::Unmapped,
    Trap::Error,
    Trap::Repeats,
    Trap::SafePoint,
    Trap::SigReturn,
    Trap::Exit,
    Trap::Exec,
    Trap::ExecFailed,
    Trap::Print,
    Trap::LeakCheck,
    Trap::Internal,
    Trap::Action,
    Trap::Note,
    Trap::ThreadStart,
    Trap::CountErrors,
    Trap::LeakCounts,
    Trap::SourceLine,
    Trap::Freeze,
    Trap::KillSelf,
    Trap::Command,
    Trap::Warning,
    Trap::Traced,
    Trap::Whereabouts,
    Trap::LeaveTracer,
];

/// The trap with this code.
fn trap_of(rax: u64) -> Option<Trap> {
    ALL.into_iter().find(|&t| t as u64 == rax)
}

impl Tracer<'_> {
    /// A thread trapped; `regs` are its registers.
    pub(crate) fn trap(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let tid = stopped.tid();
        let Some(trap) = trap_of(regs.rax) else {
            self.give_up(pid, &format!("unknown trap {}", regs.rax), handler);
            return Ok(());
        };
        match trap {
            // These decide themselves how the thread goes on.
            Trap::SafePoint => return self.safe_point(pid, stopped, regs, handler),
            Trap::SigReturn => return self.signal_return(pid, stopped, regs, handler),
            Trap::Internal => {
                let text = self.text(pid, regs.rdi, regs.rsi);
                let tell = if regs.rdx == 1 { Handler::refused } else { Handler::internal };
                self.end_because(pid, &String::from_utf8_lossy(&text), handler, tell);
                return Ok(());
            }
            Trap::Exit => return self.exit(pid, stopped, regs, handler),
            Trap::LeakCheck => {
                self.stop_world(pid, tid, handler);
                if let Some(process) = self.processes.get(&pid) {
                    handler.leak_check(process, regs.rdi, &process.memory.value::<ExitReport>(regs.rsi).unwrap_or_default());
                }
                self.answer(pid, stopped, regs, 0)?;
                self.release_world(pid, handler);
                return Ok(());
            }
            Trap::Command => {
                self.stop_world(pid, tid, handler);
                let answer = self.processes.get(&pid).map_or(answer::UNKNOWN, |process| command(process, tid, &regs, handler));
                self.answer(pid, stopped, regs, answer)?;
                self.release_world(pid, handler);
                return Ok(());
            }
            Trap::Whereabouts => {
                self.stop_world(pid, tid, handler);
                let words = self.processes.get(&pid).and_then(|process| {
                    let words = process.whereabouts(tid, &regs)?;
                    let bytes: Vec<u8> = words.iter().take(regs.rsi as usize).flat_map(|word| word.to_ne_bytes()).collect();
                    process.memory.write(regs.rdi, &bytes).then_some(words.len() as u64)
                });
                self.answer(pid, stopped, regs, words.unwrap_or(u64::MAX))?;
                self.release_world(pid, handler);
                return Ok(());
            }
            Trap::LeaveTracer => return self.leave(pid, stopped, regs, handler),
            Trap::Freeze => return self.freeze(pid, stopped, regs, handler),
            Trap::KillSelf => return self.kill_self(pid, stopped, regs, handler),
            _ => {}
        }
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let answer = simple(process, tid, trap, &regs, handler);
        if trap == Trap::Exec && !process.follow_exec && gains_privilege(process, regs.rdi) {
            return self.let_go(pid, stopped, regs, handler);
        }
        self.answer(pid, stopped, regs, answer)
    }

    /// Before exec instead of after it: the kernel gives no privilege to a traced thread. Should the exec fail, which it does not
    /// after these checks, the thread would trap with nobody to hear it.
    fn let_go(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        if let Some(process) = self.forget(pid) {
            handler.exec_done(&process, false);
        }
        stopped.set_registers(&Regs { rax: 0, ..regs })?;
        stopped.detach()
    }

    /// A process is to have another tracer, which is possible if it has one thread, and that has nothing of ours to wait for.
    fn leave(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let alone = self.processes.get(&pid).is_some_and(|p| p.threads.len() == 1 && p.threads.values().all(|t| t.queue.is_empty()));
        if alone { self.let_go(pid, stopped, regs, handler) } else { self.answer(pid, stopped, regs, 1) }
    }

    /// Write the answer and go on.
    fn answer(&mut self, pid: i32, stopped: Stopped, regs: Regs, answer: u64) -> Result<()> {
        if answer != regs.rax {
            stopped.set_registers(&Regs { rax: answer, ..regs })?;
        }
        self.resume(pid, stopped, 0)
    }

    fn text(&self, pid: i32, addr: u64, length: u64) -> Vec<u8> {
        self.processes.get(&pid).map(|p| p.memory.bytes(addr, length, MAX_TEXT)).unwrap_or_default()
    }

    /// exit_group is next, or a signal that kills. The other threads stay stopped: the end finds them so.
    fn exit(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let tid = stopped.tid();
        if !self.ends_by(pid, tid) {
            self.hold(pid, stopped);
            return Ok(());
        }
        self.stop_world(pid, tid, handler);
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let report = process.memory.value::<ExitReport>(regs.rsi).unwrap_or_default();
        let dying = match process.threads.get(&tid).map(|t| t.phase) {
            Some(Phase::Dying(info)) => Some(info.signo),
            _ => None,
        };
        let ending = dying.map_or(Ending::Exited(regs.rdi as i32 & 0xff), Ending::Signaled);
        let info = process.describe(tid, &regs);
        let status = handler.exiting(process, &info, ending, &report).map_or(regs.rdi, |status| status as u64);
        process.life = Life::Ending;
        match dying {
            Some(_) => self.finish_dying(pid, stopped),
            None => self.answer(pid, stopped, regs, status),
        }
    }

    /// The process is about to end, and the thread that ends it wants the others to stand still from now on. Those in the runtime may hold a
    /// lock: they go on to their next safe point, and the thread asks again.
    fn freeze(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let tid = stopped.tid();
        if !self.ends_by(pid, tid) {
            self.hold(pid, stopped);
            return Ok(());
        }
        self.stop_world(pid, tid, handler);
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        process.freezing = true;
        let still = process.hold_outside(tid);
        if !still {
            self.release_world(pid, handler);
        }
        self.answer(pid, stopped, regs, still.into())
    }

    /// The program is about to send SIGKILL to itself. The report comes first, then the signal.
    fn kill_self(&mut self, pid: i32, stopped: Stopped, regs: Regs, handler: &mut dyn Handler) -> Result<()> {
        let saved = self.processes.get(&pid).and_then(|process| process.saved_registers(process.context(&regs)?));
        let Some(program) = saved else { return self.answer(pid, stopped, regs, 0) };
        self.die(pid, stopped, regs, program, SigInfo::sent(libc::SIGKILL, pid), handler)
    }
}

/// A command in words: what became of it, and the errands that it takes.
fn command(process: &Process, tid: i32, regs: &Regs, handler: &mut dyn Handler) -> u64 {
    let Some(mut exchange) = process.memory.value::<Exchange>(regs.r10) else { return answer::UNKNOWN };
    let text = process.memory.bytes(regs.rsi, regs.rdx, MAX_TEXT);
    let thread = info(process, tid, regs);
    match handler.command(process, &thread, regs.rdi, &String::from_utf8_lossy(&text), &exchange) {
        Command::Unknown => answer::UNKNOWN,
        Command::Understood => answer::UNDERSTOOD,
        Command::Errands(errands) => {
            exchange.count = exchange.capacity.min(errands.len() as u64);
            let bytes: Vec<u8> = errands.iter().take(exchange.count as usize).flat_map(Plain::bytes).copied().collect();
            let written = process.memory.write(exchange.errands, &bytes) && process.memory.write(regs.r10, exchange.bytes());
            if written { answer::ERRANDS } else { answer::UNKNOWN }
        }
    }
}

/// The traps that are a call of the handler and an answer.
fn simple(process: &mut Process, tid: i32, trap: Trap, regs: &Regs, handler: &mut dyn Handler) -> u64 {
    let (rdi, rsi, rdx) = (regs.rdi, regs.rsi, regs.rdx);
    match trap {
        Trap::Ready => ready(process, tid, regs, handler),
        Trap::ThreadStart => {
            thread_started(process, tid, regs);
            handler.thread_started(process, &info(process, tid, regs));
        }
        Trap::Mapped => {
            let mut redirects = handler.mapped(process, rdi, rsi);
            redirects.truncate(regs.r10 as usize);
            let bytes: Vec<u8> = redirects.iter().flat_map(|r| r.bytes()).copied().collect();
            return if process.memory.write(rdx, &bytes) { redirects.len() as u64 } else { 0 };
        }
        Trap::Unmapped => handler.unmapped(process, rdi, rsi),
        Trap::Error => {
            let Some(mut error) = process.memory.value::<ErrorEvent>(rdi) else { return 0 };
            error.stack_len = error.stack_len.min(error.stack.len() as u32);
            return handler.error(process, &info(process, tid, regs), &error);
        }
        Trap::Repeats => {
            let count = rsi.clamp(1, MAX_REPEATS) as usize;
            handler.repeats(process, &process.memory.values::<Repeat>(rdi, count));
        }
        Trap::Exec => {
            let path = process.memory.c_string(rdi, MAX_TEXT);
            process.follow_exec = handler.exec_started(process, &PathBuf::from(OsString::from_vec(path)), &arguments(process, rsi));
            return process.follow_exec.into();
        }
        Trap::ExecFailed => {
            process.follow_exec = false;
            handler.exec_failed(process);
        }
        Trap::Print => handler.print(process, &info(process, tid, regs), &process.memory.bytes(rdi, rsi, MAX_TEXT), rdx & 1 != 0),
        Trap::Note => handler.note(process, &String::from_utf8_lossy(&process.memory.bytes(rdi, rsi, MAX_TEXT))),
        Trap::Warning => {
            if let Some(warning) = warning(process, regs) {
                handler.warning(process, &warning);
            }
        }
        Trap::Traced => {
            if let Some(func) = Func::from_number(rdi as u32) {
                handler.traced(process, func, [rsi, rdx], regs.r10);
            }
        }
        Trap::CountErrors => return handler.error_count(process),
        Trap::LeakCounts => {
            let counts = handler.leak_counts(process, rdi != 0);
            process.memory.write(rsi, &counts.map(u64::to_ne_bytes).concat());
        }
        Trap::SourceLine => {
            let mut text = handler.source_line(process, rdi).unwrap_or_default().into_bytes();
            text.truncate(SOURCE_LINE - 1);
            text.resize(SOURCE_LINE, 0);
            process.memory.write(rsi, &text);
        }
        // The kernel has all other actions and is asked for them.
        Trap::Action => process.ignores_sigtrap = rdi == libc::SIGTRAP as u64 && rsi == libc::SIG_IGN as u64,
        Trap::SafePoint
        | Trap::SigReturn
        | Trap::Exit
        | Trap::LeakCheck
        | Trap::Internal
        | Trap::Freeze
        | Trap::KillSelf
        | Trap::Command
        | Trap::Whereabouts
        | Trap::LeaveTracer => {}
    }
    0
}

/// What the runtime warns of.
fn warning(process: &Process, regs: &Regs) -> Option<Warning> {
    use memcheck_abi::event::Warning as Code;
    let is = |code: Code| regs.rdi == code as u64;
    let number = regs.rsi as i32;
    Some(match () {
        () if is(Code::Descriptor) => {
            let name = process.memory.bytes(regs.rdx, regs.r10, MAX_TEXT);
            Warning::Descriptor { number, call: String::from_utf8_lossy(&name).into_owned() }
        }
        () if is(Code::Uncatchable) => Warning::Uncatchable { signal: number },
        () if is(Code::NoSignal) => Warning::NoSignal { signal: number },
        () if is(Code::Ioctl) => Warning::Ioctl { request: regs.rsi as u32 },
        () if is(Code::ReportingOff) => Warning::ReportingOff,
        () => return None,
    })
}

/// Would the single-threaded process get rights that only an untraced one gets, by executing the file with its name at `addr`?
fn gains_privilege(process: &Process, addr: u64) -> bool {
    if nix::unistd::geteuid().is_root() || process.threads.len() != 1 {
        return false;
    }
    let name = PathBuf::from(OsString::from_vec(process.memory.c_string(addr, MAX_TEXT)));
    let path = PathBuf::from(format!("/proc/{}/cwd", process.living())).join(name);
    std::fs::metadata(&path).is_ok_and(|meta| resolve::is_executable(&path, &meta) && resolve::privilege(&path, &meta).is_some())
}

fn info(process: &Process, tid: i32, regs: &Regs) -> ThreadInfo {
    process.describe(tid, regs)
}

/// All of `Config` is valid now.
fn ready(process: &mut Process, tid: i32, regs: &Regs, handler: &mut dyn Handler) {
    let mut bytes = vec![0; size_of::<Config>()];
    if process.memory.read(layout::IMAGE_BASE, &mut bytes) == bytes.len()
        && let Some(config) = config_from_bytes(&bytes)
    {
        process.code = Code::of(&config);
    }
    process.life = Life::Ready;
    process.break_at = regs.rdi;
    process.memory.file();
    thread_started(process, tid, regs);
    handler.ready(process);
}

/// The thread has a context: signals that came before can be announced.
fn thread_started(process: &mut Process, tid: i32, regs: &Regs) {
    let Some(thread) = process.threads.get_mut(&tid) else { return };
    thread.started = true;
    if !thread.queue.is_empty()
        && let Some(context) = process.context(regs)
    {
        process.set_context_field(context, offset_of!(ThreadContext, pending), 1u32);
    }
}

/// The null-terminated argument vector at `addr`.
fn arguments(process: &Process, addr: u64) -> Vec<OsString> {
    let pointers = (0..MAX_ARGUMENTS).map(|i| process.memory.value::<u64>(addr + 8 * i).unwrap_or(0));
    pointers.take_while(|&p| p != 0).map(|p| OsString::from_vec(process.memory.c_string(p, MAX_TEXT))).collect()
}

/// The repeats of an exit report.
pub fn repeats(process: &Process, report: &ExitReport) -> Vec<Repeat> {
    process.memory.values(report.repeats, report.repeat_count.min(MAX_REPEATS) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_codes() {
        assert_eq!(trap_of(1), Some(Trap::Ready));
        assert_eq!(trap_of(17), Some(Trap::CountErrors));
        assert_eq!(trap_of(0), None);
        assert_eq!(trap_of(ALL.len() as u64 + 1), None);
        for (i, trap) in ALL.into_iter().enumerate() {
            assert_eq!(trap as usize, i + 1, "complete and in order");
        }
    }
}
