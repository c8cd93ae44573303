//! What the glue has to do with a system call.

use crate::call::Call;
use crate::limits;

/// How a system call is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Execute it with the program's registers, then call `after`.
    Native,
    /// Execute another call with these arguments (in the kernel's order) and number, then call `after`.
    NativeWith([u64; 6], u64),
    /// Executed or refused already: the result. No `after`.
    Done(i64),
    /// The glue's own business. `after` is called with the result where the call returns and really ran.
    Special(Special),
}

/// Calls that concern threads, signals and the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// `clone`, `fork` and `vfork`.
    Clone(CloneArgs),
    Exit {
        status: i32,
    },
    ExitGroup {
        status: i32,
    },
    /// Addresses of path, argument vector and environment vector.
    Execve {
        path: u64,
        argv: u64,
        envp: u64,
    },
    Execveat {
        dirfd: i32,
        path: u64,
        argv: u64,
        envp: u64,
        flags: u32,
    },
    RtSigreturn,
    /// SIGKILL to the own process: nobody can say anything afterwards.
    KillSelf,
    /// SIGTRAP: call `sigtrap::action`, then tell the tracer. `new` is the address of the kernel's struct sigaction, 0 for a query.
    RtSigaction {
        signal: u32,
        new: u64,
        old: u64,
    },
}

/// The decoded arguments of a `clone`-like call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloneArgs {
    /// CLONE_* and the exit signal in the low byte.
    pub flags: u64,
    /// The child's stack pointer, 0 = the parent's.
    pub stack: u64,
    pub parent_tid: u64,
    pub child_tid: u64,
    pub tls: u64,
    /// The argument block of clone3, to be passed on but for stack and tls; None: a call without one.
    pub block: Option<CloneBlock>,
    /// A thread of this process (CLONE_VM and CLONE_THREAD).
    pub is_thread: bool,
    /// The child borrows our memory while the caller waits (CLONE_VM and CLONE_VFORK).
    pub is_vfork_like: bool,
}

/// The kernel's `struct clone_args`, of which `size` bytes are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloneBlock {
    pub words: [u64; CLONE_WORDS],
    pub size: u64,
}

const CLONE_WORDS: usize = 11;

/// Sizes that the kernel takes, and numbers of the words that memcheck has to know.
pub mod block {
    pub const SMALLEST: u64 = 64;
    pub const LARGEST: u64 = 4096;
    pub const FLAGS: usize = 0;
    pub const PIDFD: usize = 1;
    pub const CHILD_TID: usize = 2;
    pub const PARENT_TID: usize = 3;
    pub const STACK: usize = 5;
    pub const STACK_SIZE: usize = 6;
    pub const TLS: usize = 7;
}

impl CloneBlock {
    /// The block at `addr`, or the kernel's error. What lies behind the words known here must be zero, as for an older kernel.
    pub(crate) fn read(c: &Call, addr: u64, size: u64) -> Result<CloneBlock, i64> {
        if size > block::LARGEST {
            return Err(crate::E2BIG);
        }
        if size < block::SMALLEST {
            return Err(crate::EINVAL);
        }
        let mut words = [0; CLONE_WORDS];
        for at in 0..size {
            let byte: u8 = c.peek(addr + at).ok_or(crate::EFAULT)?;
            match words.get_mut((at / 8) as usize) {
                Some(word) => *word |= u64::from(byte) << (at % 8 * 8),
                None if byte != 0 => return Err(crate::E2BIG),
                None => {}
            }
        }
        Ok(CloneBlock { words, size: size.min(8 * CLONE_WORDS as u64) })
    }
}

pub mod clone {
    pub const VM: u64 = 0x100;
    pub const VFORK: u64 = 0x4000;
    pub const THREAD: u64 = 0x1_0000;
    pub const SETTLS: u64 = 0x8_0000;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    pub const CHILD_SETTID: u64 = 0x100_0000;
    pub const PIDFD: u64 = 0x1000;

    /// CLONE_PTRACE, CLONE_UNTRACED: whether the child is traced is for memcheck to say. Natively, with no tracer, they mean nothing.
    pub(super) const ABOUT_TRACING: u64 = 0x2000 | 0x80_0000;
}

const SIGCHLD: u64 = 17;

impl CloneArgs {
    const fn new(flags: u64, stack: u64, parent_tid: u64, child_tid: u64, tls: u64) -> Self {
        CloneArgs {
            flags: flags & !clone::ABOUT_TRACING,
            stack,
            parent_tid,
            child_tid,
            tls,
            block: None,
            is_thread: flags & (clone::VM | clone::THREAD) == clone::VM | clone::THREAD,
            is_vfork_like: flags & (clone::VM | clone::VFORK) == clone::VM | clone::VFORK,
        }
    }
}

pub(crate) fn clone_(c: &mut Call) -> Action {
    let [flags, stack, parent, child, tls, _] = c.args;
    Action::Special(Special::Clone(CloneArgs::new(flags, stack, parent, child, tls)))
}

/// Processes of their own only: what shares memory (libraries' threads and spawns) is made by clone, to which libraries fall back, so that
/// stacks begin where Valgrind's do.
pub(crate) fn clone3(c: &mut Call) -> Action {
    let mut block = match CloneBlock::read(c, c.args[0], c.args[1]) {
        Ok(block) => block,
        Err(error) => return Action::Done(error),
    };
    block.words[block::FLAGS] &= !clone::ABOUT_TRACING;
    let [flags, _, child, parent, _, stack, size, tls, ..] = block.words;
    if flags & clone::VM != 0 {
        return Action::Done(crate::ENOSYS);
    }
    let stack = if stack == 0 { 0 } else { stack.wrapping_add(size) };
    Action::Special(Special::Clone(CloneArgs { block: Some(block), ..CloneArgs::new(flags, stack, parent, child, tls) }))
}

pub(crate) fn fork(_: &mut Call) -> Action {
    Action::Special(Special::Clone(CloneArgs::new(SIGCHLD, 0, 0, 0, 0)))
}

pub(crate) fn vfork(_: &mut Call) -> Action {
    Action::Special(Special::Clone(CloneArgs::new(SIGCHLD | clone::VM | clone::VFORK, 0, 0, 0, 0)))
}

pub(crate) fn exit(c: &mut Call) -> Action {
    Action::Special(Special::Exit { status: c.args[0] as i32 })
}

pub(crate) fn exit_group(c: &mut Call) -> Action {
    Action::Special(Special::ExitGroup { status: c.args[0] as i32 })
}

pub(crate) fn execve(c: &mut Call) -> Action {
    Action::Special(Special::Execve { path: c.args[0], argv: c.args[1], envp: c.args[2] })
}

pub(crate) fn execveat(c: &mut Call) -> Action {
    let [dirfd, path, argv, envp, flags, _] = c.args;
    Action::Special(Special::Execveat { dirfd: dirfd as i32, path, argv, envp, flags: flags as u32 })
}

const SIGKILL: u64 = 9;

/// `kill` of a process; of a whole group the kernel takes care.
pub(crate) fn kill(c: &mut Call) -> Action {
    let [pid, signal, ..] = c.args;
    kill_if(signal == SIGKILL && pid as u32 == limits::own_pid())
}

/// `tkill` of the calling thread.
pub(crate) fn tkill(c: &mut Call) -> Action {
    let [tid, signal, ..] = c.args;
    kill_if(signal == SIGKILL && tid as u32 == c.ctx.tid)
}

/// `tgkill` of the calling thread, which is what `raise` does.
pub(crate) fn tgkill(c: &mut Call) -> Action {
    let [pid, tid, signal, ..] = c.args;
    kill_if(signal == SIGKILL && tid as u32 == c.ctx.tid && pid as u32 == limits::own_pid())
}

fn kill_if(itself: bool) -> Action {
    if itself { Action::Special(Special::KillSelf) } else { Action::Native }
}

pub(crate) fn rt_sigreturn(_: &mut Call) -> Action {
    Action::Special(Special::RtSigreturn)
}

/// The call is refused with ENOSYS: libc then uses the older call, which is understood here.
pub(crate) fn not_implemented(_: &mut Call) -> Action {
    Action::Done(crate::ENOSYS)
}
