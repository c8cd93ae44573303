//! Threads, programs, scheduling, limits and identity.

use crate::action::{self, CloneBlock, block, clone};
use crate::call::Call;
use crate::row::Rule::{Do, In, Out, Pre, Set, Str};
use crate::row::Size::{Arg, Fix, Int, Ret, RetMul};
use crate::row::{Row, plain, row};
use crate::{limits, virtualise};

const RUSAGE: u64 = 144;
const RLIMIT: u64 = 16;
const SIGINFO: u64 = 128;
const UTSNAME: u64 = 390;

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    plain(24, "sched_yield", ""),
    plain(39, "getpid", ""),
    row(56, "clone", "flags child_stack parent_tidptr child_tidptr tlsinfo", &[Do(clone_tids)]).uses(clone_uses).act(action::clone_),
    plain(57, "fork", "").act(action::fork),
    plain(58, "vfork", "").act(action::vfork),
    row(59, "execve", "filename argv envp", &[Pre(execve_filename), Pre(execve_argv), Pre(|c| vector(c, c.args[2], "execve(envp)", ["execve(envp[i])"; 2]))]).act(action::execve),
    plain(60, "exit", "status:4").act(action::exit),
    row(61, "wait4", "pid:4 status options:4 rusage", &[Do(wait4)]),
    plain(62, "kill", "pid:4 signal:4").act(action::kill),
    row(63, "uname", "buf", &[Set(0, Fix(UTSNAME), "uname(buf)")]),
    row(97, "getrlimit", "resource:4 rlim", &[Set(1, Fix(RLIMIT), "getrlimit(rlim)")]).act(limits::getrlimit),
    row(98, "getrusage", "who:4 usage", &[Set(1, Fix(RUSAGE), "getrusage(usage)")]),
    row(99, "sysinfo", "info", &[Set(0, Fix(112), "sysinfo(info)")]),
    row(101, "ptrace", "request pid:4 addr data", &[Do(ptrace)]).act(virtualise::ptrace),
    plain(102, "getuid", ""),
    plain(104, "getgid", ""),
    plain(105, "setuid", "uid:4"),
    plain(106, "setgid", "gid:4"),
    plain(107, "geteuid", ""),
    plain(108, "getegid", ""),
    plain(109, "setpgid", "pid:4 pgid:4"),
    plain(110, "getppid", "").act(virtualise::getppid),
    plain(111, "getpgrp", ""),
    plain(112, "setsid", ""),
    plain(113, "setreuid", "ruid:4 euid:4"),
    plain(114, "setregid", "rgid:4 egid:4"),
    row(115, "getgroups", "size:4 list", &[Out(1, Int(0, 4), RetMul(4), "getgroups(list)")]),
    row(116, "setgroups", "size:4 list", &[In(1, Int(0, 4), "setgroups(list)")]),
    plain(117, "setresuid", "ruid:4 euid:4 suid:4"),
    row(118, "getresuid", "ruid euid suid", &[
        Set(0, Fix(4), "getresuid(ruid)"), Set(1, Fix(4), "getresuid(euid)"), Set(2, Fix(4), "getresuid(suid)")]),
    plain(119, "setresgid", "rgid:4 egid:4 sgid:4"),
    row(120, "getresgid", "rgid egid sgid", &[
        Set(0, Fix(4), "getresgid(rgid)"), Set(1, Fix(4), "getresgid(egid)"), Set(2, Fix(4), "getresgid(sgid)")]),
    plain(121, "getpgid", "pid:4"),
    plain(122, "setfsuid", "uid:4"),
    plain(123, "setfsgid", "gid:4"),
    plain(124, "getsid", "pid:4"),
    row(125, "capget", "header data", &[In(0, Fix(8), "capget(header)"), Do(capget)]),
    row(126, "capset", "header data", &[In(0, Fix(8), "capset(header)"), Do(capset)]),
    plain(135, "personality", "persona").act(virtualise::set_or_query_personality),
    plain(140, "getpriority", "which:4 who:4"),
    plain(141, "setpriority", "which:4 who:4 prio:4"),
    row(142, "sched_setparam", "pid:4 p", &[In(1, Fix(4), "sched_setparam(p)")]),
    row(143, "sched_getparam", "pid:4 p", &[Set(1, Fix(4), "sched_getparam(p)")]),
    row(144, "sched_setscheduler", "pid:4 policy:4 p", &[In(2, Fix(4), "sched_setscheduler(p)")]),
    plain(145, "sched_getscheduler", "pid:4"),
    plain(146, "sched_get_priority_max", "policy:4"),
    plain(147, "sched_get_priority_min", "policy:4"),
    row(148, "sched_rr_get_interval", "pid:4 tp", &[Set(1, Fix(16), "sched_rr_get_interval(timespec)")]),
    plain(153, "vhangup", ""),
    row(157, "prctl", "option:4 arg2 arg3 arg4 arg5", &[Do(super::misc::prctl)]).uses(super::misc::prctl_uses).act(virtualise::prctl),
    plain(158, "arch_prctl", "option:4 arg2").act(virtualise::arch_prctl),
    row(160, "setrlimit", "resource:4 rlim", &[In(1, Fix(RLIMIT), "setrlimit(rlim)")]).act(limits::setrlimit),
    plain(186, "gettid", ""),
    row(203, "sched_setaffinity", "pid:4 len:4 mask", &[In(2, Int(1, 1), "sched_setaffinity(mask)")]),
    row(204, "sched_getaffinity", "pid:4 len:4 mask", &[Out(2, Int(1, 1), Ret, "sched_getaffinity(mask)")]),
    plain(218, "set_tid_address", "tidptr"),
    plain(219, "restart_syscall", ""),
    plain(231, "exit_group", "status:4").act(action::exit_group),
    row(247, "sys_waitid", "which:4 pid:4 infop options:4 ru", &[Do(waitid)]),
    plain(251, "ioprio_set", "which:4 who:4 ioprio:4"),
    plain(252, "ioprio_get", "which:4 who:4"),
    plain(272, "unshare", "flags"),
    row(273, "set_robust_list", "head len", &[In(0, Arg(1), "set_robust_list(head)")]),
    row(274, "get_robust_list", "pid:4 head_ptr len_ptr", &[
        Set(1, Fix(8), "get_robust_list(head_ptr)"), Set(2, Fix(8), "get_robust_list(len_ptr)")]),
    row(302, "prlimit64", "pid:4 resource:4 new_rlim old_rlim", &[
        In(2, Fix(RLIMIT), "rlimit64(new_rlim)"), Set(3, Fix(RLIMIT), "rlimit64(old_rlim)")]).act(limits::prlimit),
    plain(308, "setns", "fd:4 nstype:4"),
    row(309, "getcpu", "cpu node tcache", &[Set(0, Fix(4), "getcpu(cpu)"), Set(1, Fix(4), "getcpu(node)")]),
    row(310, "process_vm_readv", "pid:4 lvec liovcnt rvec riovcnt flags", &[
        crate::row::Rule::IovOut(1, 2, "process_vm_readv(lvec)", "process_vm_readv(lvec[...])"),
        In(3, crate::row::Size::Mul(4, 16), "process_vm_readv(rvec)")]),
    row(311, "process_vm_writev", "pid:4 lvec liovcnt rvec riovcnt flags", &[
        crate::row::Rule::IovIn(1, 2, "process_vm_writev(lvec)", "process_vm_writev(lvec[...])"),
        In(3, crate::row::Size::Mul(4, 16), "process_vm_writev(rvec)")]),
    plain(312, "kcmp", "pid1:4 pid2:4 type:4 idx1 idx2"),
    row(314, "sched_setattr", "pid:4 p flags:4", &[Do(sched_setattr)]),
    row(315, "sched_getattr", "pid:4 p size:4 flags:4", &[Out(1, Int(2, 1), Int(2, 1), "sched_getattr(attr)")]),
    row(322, "execveat", "fd:4 filename argv envp flags:4", &[
        Str(1, "execveat(filename)"), Pre(execveat_argv), Pre(|c| vector(c, c.args[3], "execveat(envp)", ["execveat(envp[i])"; 2]))]).act(action::execveat),
    plain(334, "rseq", "rseq rseq_len:4 flags:4 sig:4").act(action::not_implemented),
    plain(335, "uretprobe", "").act(action::not_implemented),
    plain(336, "uprobe", "").act(action::not_implemented),
    row(424, "pidfd_send_signal", "pidfd:4 sig:4 info flags:4", &[In(2, Fix(SIGINFO), "pidfd_send_signal(info)")]),
    plain(434, "pidfd_open", "pid:4 flags:4"),
    row(435, "clone3", "cl_args size", &[Do(clone3_block)]).act(action::clone3),
    plain(438, "pidfd_getfd", "pidfd:4 targetfd:4 flags:4"),
];

fn clone_uses(a: &[u64; 6]) -> u8 {
    let mut used = 0b00011;
    if a[0] & (clone::PARENT_SETTID | clone::PIDFD) != 0 {
        used |= 0b00100;
    }
    if a[0] & (clone::CHILD_SETTID | clone::CHILD_CLEARTID) != 0 {
        used |= 0b01000;
    }
    if a[0] & clone::SETTLS != 0 {
        used |= 0b10000;
    }
    used
}

/// The kernel writes thread ids to the places named; in a thread also the child's.
fn clone_tids(c: &mut Call) {
    let [flags, _, parent, child, ..] = c.args;
    if flags & (clone::PARENT_SETTID | clone::PIDFD) != 0 {
        c.output(parent, 4, "clone(parent_tidptr)");
    }
    if flags & clone::CHILD_SETTID != 0 && (flags & clone::VM != 0 || c.result == 0) {
        c.output(child, 4, "clone(child_tidptr)");
    }
}

/// The block, and what is written to the places that it names: as of clone, but the descriptor has a place of its own.
fn clone3_block(c: &mut Call) {
    if (block::SMALLEST..=block::LARGEST).contains(&c.args[1]) {
        c.input(c.args[0], c.args[1], "clone3(cl_args)");
    }
    let Ok(CloneBlock { words, .. }) = CloneBlock::read(c, c.args[0], c.args[1]) else { return };
    let flags = words[block::FLAGS];
    if flags & clone::PIDFD != 0 {
        c.output(words[block::PIDFD], 4, "clone3(pidfd)");
    }
    if flags & clone::PARENT_SETTID != 0 {
        c.output(words[block::PARENT_TID], 4, "clone3(parent_tid)");
    }
    if flags & clone::CHILD_SETTID != 0 && c.result == 0 {
        c.output(words[block::CHILD_TID], 4, "clone3(child_tid)");
    }
}

/// The status word is only written when a child was found.
fn wait4(c: &mut Call) {
    if c.phase == crate::call::Phase::Mark && c.result == 0 {
        return;
    }
    c.output(c.args[1], 4, "wait4(status)");
    c.output(c.args[3], RUSAGE, "wait4(rusage)");
}

/// Of the siginfo the kernel writes signal, errno, code, and behind the padding pid, uid and status: zeros if there was no
/// child. The usage is only written for a child.
fn waitid(c: &mut Call) {
    let (info, usage) = (c.args[2], c.args[4]);
    if c.phase != crate::call::Phase::Mark {
        c.output(info, SIGINFO, "waitid(infop)");
        return c.output(usage, RUSAGE, "waitid(ru)");
    }
    if info != 0 {
        c.mark(info, 12);
        c.mark(info.wrapping_add(16), 12);
    }
    if info == 0 || c.peek_or_zero::<u32>(info) != 0 {
        c.mark(usage, RUSAGE);
    }
}

fn execve_filename(c: &mut Call) {
    let name = "execve(filename)";
    if c.args[0] == 0 { c.missing(name) } else { c.string(c.args[0], name) }
}

fn execve_argv(c: &mut Call) {
    arguments(c, c.args[1], "execve(argv)", ["execve(argv[0])", "execve(argv[i])"]);
}

fn execveat_argv(c: &mut Call) {
    arguments(c, c.args[2], "execveat(argv)", ["execveat(argv[0])", "execveat(argv[i])"]);
}

/// The arguments of a program. Linux takes none for one that is empty; programs rely on the first.
fn arguments(c: &mut Call, at: u64, name: &'static str, entries: [&'static str; 2]) {
    if at == 0 {
        return c.missing(name);
    }
    vector(c, at, name, entries);
    if c.peek::<u64>(at) == Some(0) {
        c.missing(entries[0]);
    }
}

/// A null-terminated vector of strings; names of the first and of the others.
fn vector(c: &mut Call, at: u64, name: &'static str, [first, other]: [&'static str; 2]) {
    const MOST: u64 = 1 << 16;
    if at == 0 {
        return;
    }
    for i in 0..MOST {
        let slot = at.wrapping_add(8 * i);
        c.input(slot, 8, name);
        match c.peek::<u64>(slot) {
            None | Some(0) => return,
            Some(string) => c.string_up_to(string, 128 << 10, if i == 0 { first } else { other }),
        }
    }
}

/// v1 has one data entry of 12 bytes, v2 and v3 two.
fn cap_data(c: &Call) -> u64 {
    const VERSION_1: u32 = 0x1998_0330;
    if c.peek_or_zero::<u32>(c.args[0]) == VERSION_1 { 12 } else { 24 }
}

/// An unknown version is answered by writing the right one to the header; that makes it no less defined.
fn capget(c: &mut Call) {
    let size = cap_data(c);
    c.output(c.args[1], size, "capget(data)");
}

fn capset(c: &mut Call) {
    let size = cap_data(c);
    c.input(c.args[1], size, "capset(data)");
}

/// struct sched_attr tells its own size.
fn sched_setattr(c: &mut Call) {
    c.input(c.args[1], 4, "sched_setattr(attr->size)");
    let size = u64::from(c.peek_or_zero::<u32>(c.args[1])).min(4096);
    c.input(c.args[1], size, "sched_setattr(attr)");
}

/// Requests of ptrace that move memory. For the peeks the raw call stores through `data`.
fn ptrace(c: &mut Call) {
    let data = c.args[3];
    match c.args[0] {
        1..=3 => c.output(data, 8, "ptrace(peek)"),
        12 => c.output(data, 216, "ptrace(getregs)"),
        13 => c.input(data, 216, "ptrace(setregs)"),
        14 => c.output(data, 512, "ptrace(getfpregs)"),
        15 => c.input(data, 512, "ptrace(setfpregs)"),
        0x4201 => c.output(data, 8, "ptrace(geteventmsg)"),
        0x4202 => c.output(data, SIGINFO, "ptrace(getsiginfo)"),
        0x4203 => c.input(data, SIGINFO, "ptrace(setsiginfo)"),
        0x4204 => regset(c, true),
        0x4205 => regset(c, false),
        0x420a => c.output(data, 8, "ptrace(getsigmask)"),
        0x420b => c.input(data, 8, "ptrace(setsigmask)"),
        _ => {}
    }
}

/// {address, length} that the kernel fills and shortens, or reads.
fn regset(c: &mut Call, get: bool) {
    let iov = c.args[3];
    let (base, len) = if get {
        ("ptrace(getregset iovec->iov_base)", "ptrace(getregset iovec->iov_len)")
    } else {
        ("ptrace(setregset iovec->iov_base)", "ptrace(setregset iovec->iov_len)")
    };
    c.input(iov, 8, base);
    c.input(iov.wrapping_add(8), 8, len);
    let [at, n] = c.peek_or_zero::<[u64; 2]>(iov);
    if get {
        c.output(at, n, "ptrace(getregset *(iovec->iov_base))");
    } else {
        c.input(at, n, "ptrace(setregset *(iovec->iov_base))");
    }
}
