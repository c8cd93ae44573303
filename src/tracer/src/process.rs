//! What is known about a traced process and its threads.
//!
//! A thread's own view of itself is its context (`abi::context`), found through the fs base of its registers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::offset_of;

use memcheck_abi::config::Config;
use memcheck_abi::context::{self, Registers, ThreadContext};
use memcheck_abi::layout;

use crate::frame::Exception;
use crate::maps::{self, Map};
use crate::memory::{Memory, Plain};
use crate::tracee::{Ending, Regs, SigInfo, Stop, Stopped, general};

/// The addresses in the runtime image that the tracer must know; from `Config`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Code {
    pub trap: u64,
    pub resume: u64,
    pub syscall_check: u64,
    pub syscall_insn: u64,
    pub syscall_after: u64,
    pub fault_entry: u64,
    pub signal_entry: u64,
}

impl Code {
    pub fn of(config: &Config) -> Code {
        Code {
            trap: config.trap,
            resume: config.resume,
            syscall_check: config.syscall_check,
            syscall_insn: config.syscall_insn,
            syscall_after: config.syscall_after,
            fault_entry: config.fault_entry,
            signal_entry: config.signal_entry,
        }
    }

    /// In the runtime, but not behind the program's system call?
    pub fn is_in_runtime(&self, rip: u64) -> bool {
        (layout::IMAGE_BASE..layout::CACHE_START).contains(&rip) && rip != self.syscall_after
    }

    /// Around the program's system call, where the processor holds the program's registers?
    pub fn in_call(&self, rip: u64) -> bool {
        (self.syscall_check..=self.syscall_insn).contains(&rip) || rip == self.syscall_after
    }
}

/// How far a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// The runtime starts; there are no thread contexts yet.
    Starting,
    /// The program runs under the runtime.
    Ready,
    /// The final report was made; whatever comes now is the end.
    Ending,
}

/// A traced process.
pub struct Process {
    pub(crate) pid: i32,
    pub(crate) code: Code,
    pub(crate) life: Life,
    pub(crate) threads: BTreeMap<i32, Thread>,
    pub(crate) memory: Memory,
    /// What the next successful exec is to do: follow (true) or let go.
    pub(crate) follow_exec: bool,
    /// The ending to report instead of the kernel's.
    pub(crate) verdict: Option<Ending>,
    /// The thread that ends the process: by exit_group, or by the signal that kills it.
    pub(crate) ending_thread: Option<i32>,
    /// Threads that come to a safe point are held there: `ending_thread` wants to be alone.
    pub(crate) freezing: bool,
    /// The program wants SIGTRAP to be ignored, which the kernel is not told.
    pub(crate) ignores_sigtrap: bool,
    /// Address of the word that holds the program break.
    pub(crate) break_at: u64,
    /// Set in children of fork.
    pub(crate) parent: Option<i32>,
}

/// What a thread is doing for us, between its stops.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Run,
    /// One instruction in the code cache, on the way to a safe point; the number of steps so far.
    Stepping(u32),
    /// A repeated string instruction in the code cache, which would be one step for each element: a breakpoint stands behind it.
    Passing(u32),
    /// A signal was injected while the processor held the program's registers; the kernel builds its frame.
    Delivering,
    /// Executing rt_sigreturn with the program's registers.
    SigReturn,
    /// This signal will kill it; the runtime prepares the final report.
    Dying(SigInfo),
}

pub(crate) struct Thread {
    pub phase: Phase,
    /// Signals taken from the kernel that wait for a safe point.
    pub queue: VecDeque<SigInfo>,
    /// What it really blocks, while it blocks all signals on its way to a safe point.
    pub mask: Option<u64>,
    /// The siginfo of the fault that the runtime is looking at.
    pub fault: Option<SigInfo>,
    /// What the processor said about the fault that is being delivered.
    pub exception: Option<Exception>,
    /// Stopped for the others' sake, with the stop to be handled when it goes on (`None`: just our interruption).
    pub parked: Option<(Stopped, Stop)>,
    /// Parked until the end of the process.
    pub held: bool,
    /// Registers of the current stop.
    pub regs: Option<Regs>,
    /// Its context exists.
    pub started: bool,
    /// Waits in the kernel for its vfork child: cannot be interrupted, and does not run.
    pub in_vfork: bool,
    /// Past its exit event.
    pub leaving: bool,
    /// Between the two stops of its rt_sigreturn.
    pub in_sigreturn: bool,
    /// Steps made towards the safe point.
    pub steps: u32,
    /// Address of the last fault, and how often in a row it was that.
    pub faults: (u64, u32),
}

impl Thread {
    pub fn new(started: bool) -> Thread {
        Thread {
            phase: Phase::Run,
            queue: VecDeque::new(),
            mask: None,
            fault: None,
            exception: None,
            parked: None,
            held: false,
            regs: None,
            started,
            in_vfork: false,
            leaving: false,
            in_sigreturn: false,
            steps: 0,
            faults: (0, 0),
        }
    }
}

/// Exactness of [`ThreadInfo::regs`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exact {
    /// The program's registers, all of them.
    Yes,
    /// Stopped in the midst of translated code: the processor's registers, most of them the program's, the others are in the thread's context;
    /// rip is in the code cache.
    Roughly,
}

/// A stopped thread as reports see it.
#[derive(Clone, Copy, Debug)]
pub struct ThreadInfo {
    pub tid: i32,
    /// memcheck's number, 1 = main. 0 while the thread has no context.
    pub number: u32,
    pub regs: Registers,
    pub exact: Exact,
    /// The program's fs base.
    pub guest_fs: u64,
    pub stack_low: u64,
    pub stack_high: u64,
    pub stack_floor: u64,
    /// The stack pointer with which the thread began.
    pub first_sp: u64,
    /// Address of its [`ThreadContext`], 0 = none.
    pub context: u64,
}

impl Process {
    pub(crate) fn new(pid: i32, life: Life) -> Process {
        Process {
            pid,
            code: Code::default(),
            life,
            threads: BTreeMap::new(),
            memory: Memory::new(pid),
            follow_exec: false,
            verdict: None,
            ending_thread: None,
            freezing: false,
            ignores_sigtrap: false,
            break_at: 0,
            parent: None,
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A thread of it that has not ended, for what /proc knows by thread: the first one may be gone, with its memory, files and directories.
    pub fn living(&self) -> i32 {
        self.memory.thread()
    }

    /// A thread is about to end.
    pub(crate) fn leaves(&mut self, tid: i32) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.leaving = true;
        }
        if self.living() == tid
            && let Some((other, _)) = self.threads.iter().find(|(_, thread)| !thread.leaving)
        {
            self.memory.ask(*other);
        }
    }

    /// The process that forked this one, if that happened under memcheck.
    pub fn parent(&self) -> Option<i32> {
        self.parent
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// See [`Memory::read`].
    pub fn read_memory(&self, addr: u64, buffer: &mut [u8]) -> usize {
        self.memory.read(addr, buffer)
    }

    pub fn write_memory(&self, addr: u64, bytes: &[u8]) -> bool {
        self.memory.write(addr, bytes)
    }

    /// The program break.
    pub fn program_break(&self) -> u64 {
        self.memory.value(self.break_at).unwrap_or(layout::BRK_START)
    }

    /// The mapping list as the kernel has it, the runtime's own mappings included.
    pub fn maps(&self) -> io::Result<Vec<Map>> {
        maps::read(self.living())
    }

    /// All threads that are stopped now. Complete in `exiting`, `leak_check` and `fatal_signal`.
    pub fn threads(&self) -> Vec<ThreadInfo> {
        self.threads.keys().filter_map(|&tid| self.thread(tid)).collect()
    }

    /// One stopped thread.
    pub fn thread(&self, tid: i32) -> Option<ThreadInfo> {
        let regs = self.threads.get(&tid)?.regs.as_ref()?;
        Some(self.describe(tid, regs))
    }

    pub(crate) fn describe(&self, tid: i32, regs: &Regs) -> ThreadInfo {
        let mut info = ThreadInfo {
            tid,
            number: 0,
            regs: general(regs),
            exact: Exact::Roughly,
            guest_fs: regs.fs_base,
            stack_low: 0,
            stack_high: 0,
            stack_floor: 0,
            first_sp: 0,
            context: 0,
        };
        let Some(context) = self.context(regs) else { return info };
        let Some(view) = ContextView::read(&self.memory, context) else { return info };
        info.context = context;
        info.number = view.word(offset_of!(ThreadContext, number));
        info.guest_fs = view.long(offset_of!(ThreadContext, guest_fs));
        info.stack_low = view.long(offset_of!(ThreadContext, stack_low));
        info.stack_high = view.long(offset_of!(ThreadContext, stack_high));
        info.stack_floor = view.long(offset_of!(ThreadContext, stack_floor));
        info.first_sp = view.long(offset_of!(ThreadContext, first_sp));
        let saved = view.registers();
        if self.code.in_call(regs.rip) {
            info.regs.rip = saved.rip;
            info.exact = Exact::Yes;
        } else if (layout::IMAGE_BASE..layout::CACHE_START).contains(&regs.rip) {
            (info.regs, info.exact) = (saved, Exact::Yes);
        }
        info
    }

    /// Of the stopped threads, hold those that stand in code of the program or in its system call, and so have no lock of the runtime; send
    /// the others to a safe point. True if all but `ending` are held.
    pub(crate) fn hold_outside(&mut self, ending: i32) -> bool {
        let code = self.code;
        let is_outside = |regs: &Regs| (layout::CACHE_START..layout::CACHE_END).contains(&regs.rip) || code.in_call(regs.rip);
        let mut inside = Vec::new();
        let mut all = true;
        for thread in self.threads.iter_mut().filter(|(tid, _)| **tid != ending).map(|(_, thread)| thread) {
            thread.held |= thread.parked.is_some() && thread.regs.as_ref().is_some_and(is_outside);
            if !thread.held && !thread.leaving {
                all = false;
                inside.extend(thread.regs);
            }
        }
        for context in inside.iter().filter_map(|regs| self.context(regs)).collect::<Vec<_>>() {
            self.set_context_field(context, offset_of!(ThreadContext, pending), 1u32);
        }
        all
    }

    /// The context of the thread with these registers: where fs points, if that is a thread slot.
    pub(crate) fn context(&self, regs: &Regs) -> Option<u64> {
        let context = regs.fs_base;
        let slot = (layout::THREADS_START..layout::THREADS_END).contains(&context);
        (self.life != Life::Starting && slot && context.is_multiple_of(layout::THREAD_SLOT)).then_some(context)
    }

    /// One field of a thread's context.
    pub(crate) fn context_field<T: Plain>(&self, context: u64, offset: usize) -> Option<T> {
        self.memory.value(context + offset as u64)
    }

    pub(crate) fn set_context_field<T: Plain>(&self, context: u64, offset: usize, value: T) {
        // Fails only if the process died, which its next request will say.
        self.memory.set(context + offset as u64, value);
    }

    /// The program's registers as its thread saved them.
    pub(crate) fn saved_registers(&self, context: u64) -> Option<Registers> {
        self.context_field(context, context::offset::REGS as usize)
    }
}

/// The part of a context before its vector state, in one read.
struct ContextView([u8; offset_of!(ThreadContext, xsave)]);

impl ContextView {
    fn read(memory: &Memory, context: u64) -> Option<ContextView> {
        let mut view = ContextView([0; offset_of!(ThreadContext, xsave)]);
        (memory.read(context, &mut view.0) == view.0.len()).then_some(view)
    }

    fn word(&self, offset: usize) -> u32 {
        self.0[offset..].first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
    }

    fn long(&self, offset: usize) -> u64 {
        self.0[offset..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
    }

    fn registers(&self) -> Registers {
        let mut regs = Registers::zeroed();
        let start = offset_of!(ThreadContext, regs);
        regs.bytes_mut().copy_from_slice(&self.0[start..start + size_of::<Registers>()]);
        regs
    }
}
