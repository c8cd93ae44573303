//! The event loop: one report of the kernel after the other, until no traced process is left.
//!
//! ```text
//! wait ─► whose? ─► which stop? ── Signal ──► our trap (traps.rs) or a real signal (deliver.rs)
//!                                ─ Event  ──► birth, exec, exit
//!                                ─ Group  ──► job control: stay stopped
//! ```
//!
//! One thread does everything: ptrace belongs to the thread that attached.
//!
//! A new thread and its parent report independently, in any order: a stop of an unknown thread waits among the `strays` for the
//! parent's report.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::handler::Handler;
use crate::inject::{self, Failure, Image};
use crate::launch::Launched;
use crate::process::{Life, Phase, Process, Thread};
use crate::resolve::Refusal;
use crate::signals;
use crate::tracee::{self, Ending, Error, How, Regs, Report, Result, Stop, Stopped, general};
use memcheck_abi::layout;

/// Bytes of the instruction that makes a system call.
const SYSCALL_SIZE: u64 = 2;

/// A program under control.
pub struct Tracer<'a> {
    pub(crate) image: Option<Image<'a>>,
    /// Pid of the program that was launched.
    main: i32,
    personality: u32,
    pub(crate) processes: HashMap<i32, Process>,
    /// Thread id to process id.
    owner: HashMap<i32, i32>,
    strays: HashMap<i32, (Stopped, Stop)>,
    /// Reports since everybody was asked in turn, and whose turn is yet to come.
    reports: usize,
    turns: Vec<i32>,
    /// How the main program ended.
    ending: Option<Ending>,
}

impl<'a> Tracer<'a> {
    /// Take over a launched program. Without an image it runs natively, only followed.
    pub fn start(launched: Launched, image: Option<Image<'a>>, handler: &mut dyn Handler) -> std::result::Result<Tracer<'a>, Refusal> {
        let Launched { pid, stopped, personality } = launched;
        if image.is_some() && !crate::limits::has_fsgsbase() {
            let _ = stopped.resume(How::Continue, libc::SIGKILL);
            return Err(Refusal::new(1, "memcheck needs a processor and a kernel with the fsgsbase instructions (Linux 5.9)".to_string()));
        }
        let mut tracer = Tracer {
            image,
            main: pid,
            personality,
            processes: HashMap::new(),
            owner: HashMap::from([(pid, pid)]),
            strays: HashMap::new(),
            reports: 0,
            turns: Vec::new(),
            ending: None,
        };
        tracer.processes.insert(pid, Process::new(pid, Life::Starting));
        if let Err(failure) = tracer.take_over(pid, stopped, handler) {
            tracer.kill(pid);
            wait_for_end(pid);
            return Err(match failure {
                Failure::Bits32 => Refusal::new(126, failure.to_string()),
                _ => Refusal::new(1, failure.to_string()),
            });
        }
        Ok(tracer)
    }

    /// Pid of the program that was launched.
    pub fn pid(&self) -> i32 {
        self.main
    }

    /// Follow everything to its end; the answer is the main program's.
    pub fn run(mut self, handler: &mut dyn Handler) -> Ending {
        let forwarding = crate::forward::Forwarding::to(self.main);
        let mut ended = false;
        while !(self.processes.is_empty() && self.ending.is_some()) {
            match self.next_report() {
                Report::Ended(tid, ending) => self.ended(tid, ending, handler),
                Report::Stopped(stopped, stop) => self.dispatch(stopped, stop, handler),
                Report::Nothing | Report::Nobody => break,
            }
            if let Some(ending) = self.ending
                && !ended
            {
                ended = true;
                forwarding.nobody();
                if !self.processes.is_empty() {
                    crate::front::release(handler.outlived(self.main, ending));
                }
            }
        }
        let verdict = self.processes.get(&self.main).and_then(|p| p.verdict);
        self.ending.or(verdict).unwrap_or(Ending::Failed)
    }

    /// The kernel looks through its traced threads in one order, always. Whoever is stopped again at once (by signals that come faster than
    /// they can be delivered) would keep those behind it waiting for ever; so now and then everybody is asked in turn.
    fn next_report(&mut self) -> Report {
        const ROUND: usize = 64;
        while let Some(tid) = self.turns.pop() {
            let report = tracee::wait(tid, false);
            if matches!(report, Report::Stopped(..) | Report::Ended(..)) {
                return report;
            }
        }
        self.reports += 1;
        if self.reports >= ROUND.max(self.owner.len()) {
            self.reports = 0;
            self.turns.extend(self.owner.keys());
        }
        tracee::wait(-1, true)
    }

    /// Inject the runtime at an exec stop and let the process go.
    fn take_over(&mut self, pid: i32, stopped: Stopped, handler: &mut dyn Handler) -> std::result::Result<(), Failure> {
        let mut process = Process::new(pid, Life::Starting);
        if let Some(before) = self.processes.remove(&pid) {
            process.parent = before.parent;
        }
        process.threads.insert(pid, Thread::new(true));
        let process = self.processes.entry(pid).insert_entry(process).into_mut();
        let stopped = match &self.image {
            Some(image) => inject::inject(stopped, process, image, self.personality, handler)?,
            None => stopped,
        };
        Ok(stopped.resume(How::Continue, 0)?)
    }

    /// Handle a stop, and the ways in which handling can fail.
    pub(crate) fn dispatch(&mut self, stopped: Stopped, stop: Stop, handler: &mut dyn Handler) {
        let tid = stopped.tid();
        let Some(&pid) = self.owner.get(&tid) else {
            self.stray(stopped, stop);
            return;
        };
        match self.stopped(pid, stopped, stop, handler) {
            Ok(()) | Err(Error::Died) => {}
            Err(error) => self.give_up(pid, &error.to_string(), handler),
        }
    }

    /// A thread whose birth was not reported yet waits; one whose parent will never report it must not wait for ever.
    fn stray(&mut self, stopped: Stopped, stop: Stop) {
        if stop == Stop::Event(libc::PTRACE_EVENT_EXIT) {
            let _ = stopped.resume(How::Continue, 0);
        } else {
            self.strays.insert(stopped.tid(), (stopped, stop));
        }
    }

    /// Memcheck cannot go on with a process.
    pub(crate) fn give_up(&mut self, pid: i32, why: &str, handler: &mut dyn Handler) {
        self.end_because(pid, why, handler, Handler::internal);
    }

    pub(crate) fn end_because<'h>(
        &mut self,
        pid: i32,
        why: &str,
        handler: &mut (dyn Handler + 'h),
        tell: fn(&mut (dyn Handler + 'h), &Process, &str),
    ) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.verdict.get_or_insert(Ending::Failed);
            process.life = Life::Ending;
            tell(handler, process, why);
        }
        self.kill(pid);
    }

    pub(crate) fn kill(&mut self, pid: i32) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }

    fn stopped(&mut self, pid: i32, stopped: Stopped, stop: Stop, handler: &mut dyn Handler) -> Result<()> {
        let tid = stopped.tid();
        match stop {
            Stop::Event(libc::PTRACE_EVENT_EXEC) => return self.executed(pid, stopped, handler),
            Stop::Event(libc::PTRACE_EVENT_EXIT) => return self.leaving(pid, stopped, handler),
            Stop::Event(event @ (libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK)) => {
                let child = stopped.message()? as i32;
                if event == libc::PTRACE_EVENT_VFORK
                    && let Some(thread) = self.thread_mut(pid, tid)
                {
                    thread.in_vfork = true;
                }
                self.resume(pid, stopped, 0)?;
                self.born(pid, child, handler);
                return Ok(());
            }
            Stop::Event(libc::PTRACE_EVENT_VFORK_DONE) => {
                if let Some(thread) = self.thread_mut(pid, tid) {
                    thread.in_vfork = false;
                }
            }
            Stop::Group(_) => {
                stopped.resume(How::Listen, 0)?;
                if tid == self.main {
                    crate::forward::program_stopped(true);
                }
                return Ok(());
            }
            Stop::Interrupt if tid == self.main => crate::forward::program_stopped(false),
            Stop::Signal(signo) => return self.signal(pid, stopped, signo, handler),
            Stop::Syscall => return self.syscall_stop(pid, stopped),
            Stop::Event(_) | Stop::Interrupt => {}
        }
        self.resume(pid, stopped, 0)
    }

    pub(crate) fn thread_mut(&mut self, pid: i32, tid: i32) -> Option<&mut Thread> {
        self.processes.get_mut(&pid)?.threads.get_mut(&tid)
    }

    /// Go on in the way that the thread's phase asks for.
    pub(crate) fn resume(&mut self, pid: i32, stopped: Stopped, signal: i32) -> Result<()> {
        let mut how = How::Continue;
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.regs = None;
            how = match thread.phase {
                Phase::Run | Phase::Passing(_) | Phase::Dying(..) => How::Continue,
                Phase::Stepping(_) | Phase::Delivering => How::Step,
                Phase::SigReturn => How::Syscall,
            };
        }
        stopped.resume(how, signal)
    }

    /// A thread or process appeared; it is stopped, or will be soon.
    fn born(&mut self, parent: i32, child: i32, handler: &mut dyn Handler) {
        if thread_group(child) == Some(parent) {
            self.owner.insert(child, parent);
            if let Some(process) = self.processes.get_mut(&parent) {
                process.threads.insert(child, Thread::new(process.life == Life::Starting));
            }
        } else if let Some(process) = self.processes.get(&parent) {
            let mut copy = Process::new(child, process.life);
            copy.code = process.code;
            copy.ignores_sigtrap = process.ignores_sigtrap;
            copy.break_at = process.break_at;
            copy.parent = Some(parent);
            copy.threads.insert(child, Thread::new(true));
            handler.forked(process, &copy);
            self.owner.insert(child, child);
            self.processes.insert(child, copy);
        }
        if let Some((stopped, stop)) = self.strays.remove(&child) {
            self.dispatch(stopped, stop, handler);
        }
    }

    /// The process became another program. The kernel has ended its other threads, and the caller has the leader's id now.
    fn executed(&mut self, pid: i32, stopped: Stopped, handler: &mut dyn Handler) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let follow = process.follow_exec && !inject::is_32_bit(&stopped)?;
        self.owner.retain(|_, owner| *owner != pid);
        handler.exec_done(process, follow);
        if !follow {
            self.forget(pid);
            return stopped.detach();
        }
        self.owner.insert(pid, pid);
        match self.take_over(pid, stopped, handler) {
            Err(Failure::Ptrace(error)) => Err(error),
            Err(failure) => {
                self.give_up(pid, &failure.to_string(), handler);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The process is not ours any more.
    pub(crate) fn forget(&mut self, pid: i32) -> Option<Process> {
        self.owner.retain(|_, owner| *owner != pid);
        self.processes.remove(&pid)
    }

    /// A thread is on its way out; its memory is still there. The last chance to say something about SIGKILL.
    fn leaving(&mut self, pid: i32, stopped: Stopped, handler: &mut dyn Handler) -> Result<()> {
        let tid = stopped.tid();
        let ending = tracee::ending(stopped.message()? as i32);
        let regs = stopped.registers()?;
        if let Some(process) = self.processes.get_mut(&pid) {
            process.leaves(tid);
            if let (Life::Ready, Some(Ending::Signaled(signo))) = (process.life, ending) {
                process.life = Life::Ending;
                let info = process.describe(tid, &regs);
                let (code, addr) = (libc::SI_USER, 0);
                handler.fatal_signal(process, &info, &crate::handler::FatalSignal { signo, code, addr, regs: general(&regs) });
            }
        }
        stopped.resume(How::Continue, 0)
    }

    fn ended(&mut self, tid: i32, ending: Ending, handler: &mut dyn Handler) {
        self.strays.remove(&tid);
        let owner = self.owner.remove(&tid);
        if tid == self.main && self.ending.is_none() {
            let verdict = self.processes.get(&tid).and_then(|p| p.verdict);
            self.ending = Some(verdict.unwrap_or(ending));
        }
        match owner {
            // The leader is reported last of all its threads.
            Some(pid) if pid == tid => {
                let process = self.forget(pid);
                self.kill_orphans();
                if let Some(process) = process {
                    handler.process_ended(pid, process.verdict.unwrap_or(ending));
                }
            }
            Some(pid) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.threads.remove(&tid);
                }
            }
            None => {}
        }
    }

    /// Strays whose parent ended before it could report them: their runtime would trap with nobody listening.
    fn kill_orphans(&mut self) {
        let known = |tid: &i32| {
            let group = thread_group(*tid);
            group.is_some_and(|g| self.processes.contains_key(&g)) || parent_of(*tid).is_some_and(|p| self.processes.contains_key(&p))
        };
        let orphans: Vec<i32> = self.strays.keys().copied().filter(|tid| !known(tid)).collect();
        for tid in orphans {
            self.strays.remove(&tid);
            self.kill(tid);
        }
    }

    /// Stop all threads of a process but one. Whatever stop they make instead of our interruption is handled when they go on.
    pub(crate) fn stop_world(&mut self, pid: i32, except: i32, handler: &mut dyn Handler) {
        let Some(process) = self.processes.get(&pid) else { return };
        let running = |t: &Thread| t.parked.is_none() && !t.leaving && !t.in_vfork;
        let others: Vec<i32> = process.threads.iter().filter(|(tid, t)| **tid != except && running(t)).map(|(tid, _)| *tid).collect();
        for &tid in &others {
            if let Some((stopped, stop)) = self.strays.remove(&tid) {
                self.park(pid, stopped, stop);
            } else {
                // Fails if it was killed just now; that is reported then.
                let _ = tracee::interrupt(tid);
            }
        }
        for tid in others {
            if self.thread_mut(pid, tid).is_none_or(|t| t.parked.is_some()) {
                continue;
            }
            match wait_patiently(tid) {
                Report::Stopped(stopped, stop) => self.park(pid, stopped, stop),
                Report::Ended(tid, ending) => self.ended(tid, ending, handler),
                // In an uninterruptible sleep: it does not run, which is all we want.
                Report::Nothing | Report::Nobody => {}
            }
        }
    }

    /// Keep a stopped thread stopped until the end of its process.
    pub(crate) fn hold(&mut self, pid: i32, stopped: Stopped) {
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.held = true;
        }
        self.park(pid, stopped, Stop::Interrupt);
    }

    fn park(&mut self, pid: i32, stopped: Stopped, stop: Stop) {
        let regs = stopped.registers().ok().map(|regs| self.resumed_call(pid, &stopped, stop, regs));
        if let Some(thread) = self.thread_mut(pid, stopped.tid()) {
            thread.regs = regs;
            thread.parked = Some((stopped, stop));
        }
    }

    /// Most system calls that our interruption has ended are made again by the kernel. Those that say EINTR instead, though no signal came,
    /// are made again here.
    fn resumed_call(&self, pid: i32, stopped: &Stopped, stop: Stop, regs: Regs) -> Regs {
        /// What has happened in part, and may not be asked for again.
        const NOT_AGAIN: [i64; 2] = [libc::SYS_connect, libc::SYS_close];
        let nr = regs.orig_rax as i64;
        let ended = stop == Stop::Interrupt && nr >= 0 && regs.rax as i64 == -i64::from(libc::EINTR) && !NOT_AGAIN.contains(&nr);
        let ours =
            self.processes.get(&pid).is_some_and(|p| (layout::IMAGE_BASE..layout::CACHE_START).contains(&regs.rip) && p.code.trap != 0);
        if !ended || !ours || signals::is_waiting(stopped.tid()) {
            return regs;
        }
        let again = Regs { rip: regs.rip - SYSCALL_SIZE, rax: regs.orig_rax, orig_rax: u64::MAX, ..regs };
        if stopped.set_registers(&again).is_ok() { again } else { regs }
    }

    /// The opposite of `stop_world`.
    pub(crate) fn release_world(&mut self, pid: i32, handler: &mut dyn Handler) {
        // One by one: handling a stop can stop and release the world again.
        while let Some(process) = self.processes.get_mut(&pid)
            && let Some((stopped, stop)) = process.threads.values_mut().filter(|t| !t.held).find_map(|t| t.parked.take())
        {
            self.dispatch(stopped, stop, handler);
        }
    }
}

/// Wait for the end of a process that was killed; it still stops on its way out.
fn wait_for_end(pid: i32) {
    loop {
        match tracee::wait(pid, true) {
            Report::Stopped(stopped, _) => drop(stopped.resume(How::Continue, 0)),
            Report::Ended(..) | Report::Nothing | Report::Nobody => return,
        }
    }
}

/// Wait for one thread that was interrupted, some seconds at most.
fn wait_patiently(tid: i32) -> Report {
    const PATIENCE: Duration = Duration::from_secs(3);
    let start = Instant::now();
    let mut pause = Duration::from_micros(10);
    loop {
        match tracee::wait(tid, false) {
            Report::Nothing if start.elapsed() < PATIENCE => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(2));
            }
            report => return report,
        }
    }
}

fn status_field(tid: i32, key: &str) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

/// The process that a thread belongs to.
fn thread_group(tid: i32) -> Option<i32> {
    status_field(tid, "Tgid:")
}

fn parent_of(tid: i32) -> Option<i32> {
    status_field(tid, "PPid:")
}
