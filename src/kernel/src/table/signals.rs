//! Signals: the calls run natively, only their memory is looked at; except for SIGTRAP, see [`sigtrap`].

use crate::call::{Call, Phase};
use crate::row::Rule::{Do, In, Set};
use crate::row::Size::{Arg, Fix};
use crate::row::{Row, plain, row};
use crate::{action, sigtrap, warn};

const SIGINFO: u64 = 128;

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    row(13, "rt_sigaction", "signum:4 act oldact sigsetsize", &[Do(sigaction), Set(2, Fix(32), "rt_sigaction(oldact)")]).act(sigtrap::sigaction),
    row(14, "rt_sigprocmask", "how:4 set oldset sigsetsize", &[
        In(1, Arg(3), "rt_sigprocmask(set)"), Set(2, Arg(3), "rt_sigprocmask(oldset)")]).act(sigtrap::sigprocmask),
    plain(15, "rt_sigreturn", "").act(action::rt_sigreturn),
    plain(34, "pause", ""),
    row(127, "rt_sigpending", "set sigsetsize", &[Set(0, Arg(1), "rt_sigpending(set)")]),
    row(128, "rt_sigtimedwait", "set info timeout sigsetsize", &[
        In(0, Arg(3), "rt_sigtimedwait(set)"), Set(1, Fix(SIGINFO), "rt_sigtimedwait(info)"), In(2, Fix(16), "rt_sigtimedwait(timeout)")]),
    row(129, "rt_sigqueueinfo", "pid:4 sig:4 uinfo", &[Do(|c| queued(c, c.args[2], "rt_sigqueueinfo(uinfo)"))]),
    row(130, "rt_sigsuspend", "mask size", &[In(0, Fix(8), "rt_sigsuspend(mask)")]),
    row(131, "sigaltstack", "ss oss", &[Do(altstack), Set(1, Fix(24), "sigaltstack(oss)")]),
    plain(200, "tkill", "tid:4 sig:4").act(action::tkill),
    plain(234, "tgkill", "tgid:4 tid:4 sig:4").act(action::tgkill),
    row(282, "sys_signalfd", "fd:4 sigmask sigsetsize", &[In(1, Fix(8), "signalfd(sigmask)")]),
    row(289, "sys_signalfd4", "fd:4 sigmask sigsetsize flags:4", &[In(1, Fix(8), "signalfd(sigmask)")]),
    row(297, "rt_tgsigqueueinfo", "tgid:4 pid:4 sig:4 uinfo", &[Do(|c| queued(c, c.args[3], "rt_tgsigqueueinfo(uinfo)"))]),
];

const SA_RESTORER: u64 = 0x0400_0000;

/// The kernel's struct: handler 8, flags 8, restorer 8 (if the flag says so), mask 8.
fn sigaction(c: &mut Call) {
    let act = c.args[1];
    if c.phase == Phase::Check {
        warn::action(c.args[0] as i32, c.peek::<u64>(act));
    }
    if act == 0 {
        return;
    }
    c.input(act, 8, "rt_sigaction(act->sa_handler)");
    c.input(act.wrapping_add(24), 8, "rt_sigaction(act->sa_mask)");
    c.input(act.wrapping_add(8), 8, "rt_sigaction(act->sa_flags)");
    if c.peek_or_zero::<u64>(act.wrapping_add(8)) & SA_RESTORER != 0 {
        c.input(act.wrapping_add(16), 8, "rt_sigaction(act->sa_restorer)");
    }
}

/// stack_t: pointer 8, flags 4, padding 4, size 8.
fn altstack(c: &mut Call) {
    let ss = c.args[0];
    if ss != 0 {
        c.input(ss, 12, "sigaltstack(ss)");
        c.input(ss.wrapping_add(16), 8, "sigaltstack(ss)");
    }
}

/// A siginfo of the program's making: signal, errno and code count, of the union only what the sender filled.
fn queued(c: &mut Call, info: u64, name: &'static str) {
    c.input(info, 12, name);
}
