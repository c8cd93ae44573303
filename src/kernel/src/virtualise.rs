//! Calls whose honest answer would show the tool, or take from it what it needs.
//!
//! | call | answer |
//! |---|---|
//! | arch_prctl SET/GET FS/GS | the program's own bases live in the thread context, the real ones are ours |
//! | arch_prctl others (shadow stacks, AMX permission) | EINVAL, as on a processor without |
//! | personality | without the flags that the tool set before exec |
//! | getppid | who started the tool, if the tool started the program |
//! | ptrace TRACEME | the tool lets a child go, which its parent traces from then on; others get 0 once, then EPERM |
//! | prctl SET_SYSCALL_USER_DISPATCH | EINVAL: system calls of the runtime would be dispatched too |
//! | seccomp, prctl SET_SECCOMP | as it is, but the filter has a few instructions in front, see [`crate::filter`] |
//! | mlockall | 0: the shadow is terabytes of reserved pages, which would be made real |
//! | limits of address space and data | remembered, see [`crate::limits`] |
//! | rseq, clone3 with shared memory | ENOSYS, and libraries fall back |
//! | uretprobe, uprobe | ENOSYS: only pages that the kernel has made may call them, SIGILL tells others so |
#![allow(unsafe_code, reason = "executes personality")]

use crate::action::Action;
use crate::call::Call;
use crate::{EFAULT, EINVAL, EPERM, filter};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use memcheck_abi::layout::PROGRAM_END;
use memcheck_rt::report;
use memcheck_rt::sys::{self, nr};

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

/// The first address that is no user address: bases above are refused by the kernel, too.
const TASK_END: u64 = 0x7fff_ffff_f000;
const _: () = assert!(PROGRAM_END < TASK_END);

pub(crate) fn arch_prctl(c: &mut Call) -> Action {
    let [code, addr, ..] = c.args;
    Action::Done(match code {
        ARCH_SET_FS | ARCH_SET_GS if addr >= TASK_END => EPERM,
        ARCH_SET_FS => {
            c.ctx.guest_fs = addr;
            0
        }
        ARCH_SET_GS => {
            c.ctx.guest_gs = addr;
            0
        }
        ARCH_GET_FS | ARCH_GET_GS => {
            let value = if code == ARCH_GET_FS { c.ctx.guest_fs } else { c.ctx.guest_gs };
            c.output(addr, 8, "arch_prctl(addr)");
            if c.poke(addr, value) { 0 } else { EFAULT }
        }
        _ => EINVAL,
    })
}

static PERSONALITY: AtomicU32 = AtomicU32::new(0);
const QUERY: u32 = 0xffff_ffff;

pub(crate) fn set_personality(flags: u32) {
    PERSONALITY.store(flags, Ordering::Relaxed);
}

/// The personality flags that the program believes to have; children started by exec must get exactly these.
pub fn personality() -> u32 {
    PERSONALITY.load(Ordering::Relaxed)
}

pub(crate) fn set_or_query_personality(c: &mut Call) -> Action {
    let old = personality();
    let wanted = c.args[0] as u32;
    if wanted != QUERY {
        // SAFETY: changes flags that only matter for exec and for places that are chosen here anyway.
        let result = unsafe { sys::syscall3(nr::PERSONALITY, u64::from(wanted), 0, 0) };
        if sys::is_error(result) {
            return Action::Done(result);
        }
        PERSONALITY.store(wanted, Ordering::Relaxed);
    }
    Action::Done(i64::from(old))
}

static TRACER: AtomicU32 = AtomicU32::new(0);
static PARENT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn set_parent(tracer: u32, parent: u32) {
    TRACER.store(tracer, Ordering::Relaxed);
    PARENT.store(parent, Ordering::Relaxed);
}

pub(crate) fn getppid(_: &mut Call) -> Action {
    // SAFETY: only asks.
    let real = unsafe { sys::syscall3(nr::GETPPID, 0, 0, 0) };
    let is_tracer = real == i64::from(TRACER.load(Ordering::Relaxed));
    Action::Done(if is_tracer { i64::from(PARENT.load(Ordering::Relaxed)) } else { real })
}

const PTRACE_TRACEME: u64 = 0;
/// The process that has asked who started it to be traced by it. (Its number: children have this memory, too.)
static TRACED: AtomicU32 = AtomicU32::new(0);

/// A program that asks to be traced by who started the tool only looks whether somebody traces it. A child of the program's means it: its
/// parent waits for its stops. It goes on in the runtime, but unheard: nobody reports what is found in it.
pub(crate) fn ptrace(c: &mut Call) -> Action {
    if c.args[0] != PTRACE_TRACEME {
        return Action::Native;
    }
    // SAFETY: both only ask.
    let [me, parent] = [nr::GETPID, nr::GETPPID].map(|nr| unsafe { sys::syscall3(nr, 0, 0, 0) as u32 });
    if TRACED.load(Ordering::Relaxed) == me {
        return Action::Done(EPERM);
    }
    if parent != TRACER.load(Ordering::Relaxed) {
        return if report::leave_tracer(c.ctx.vfork_child != 0) { Action::Native } else { Action::Done(EPERM) };
    }
    TRACED.store(me, Ordering::Relaxed);
    Action::Done(0)
}

static FILTERED: AtomicBool = AtomicBool::new(false);

/// Has the program installed a system call filter? Then what it opens is for the filter to say.
pub(crate) fn seccomp_installed() -> bool {
    FILTERED.load(Ordering::Relaxed)
}

pub(crate) fn note_seccomp(_: &mut Call) {
    FILTERED.store(true, Ordering::Relaxed);
}

/// Numbers of the two calls that install filters.
const PRCTL: u64 = 157;
const SECCOMP: u64 = 317;

const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
const PR_SET_SECCOMP: u32 = 22;
const SECCOMP_MODE_FILTER: u64 = 2;

pub(crate) fn prctl(c: &mut Call) -> Action {
    match c.args[0] as u32 {
        PR_SET_SYSCALL_USER_DISPATCH => Action::Done(EINVAL),
        PR_SET_SECCOMP if c.args[1] == SECCOMP_MODE_FILTER => filter::install(c, PRCTL),
        _ => Action::Native,
    }
}

const SECCOMP_SET_MODE_FILTER: u32 = 1;

pub(crate) fn seccomp(c: &mut Call) -> Action {
    if c.args[0] as u32 == SECCOMP_SET_MODE_FILTER { filter::install(c, SECCOMP) } else { Action::Native }
}

/// MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT: the last says how, not what.
pub(crate) fn mlockall(c: &mut Call) -> Action {
    let flags = c.args[0] as u32;
    Action::Done(if flags & !7 == 0 && flags & 3 != 0 { 0 } else { EINVAL })
}
