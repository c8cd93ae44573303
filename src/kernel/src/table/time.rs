//! Clocks, timers and sleeps.

use crate::EINTR;
use crate::call::Call;
use crate::row::Rule::{Do, Fail, In, Pre, Set};
use crate::row::Size::Fix;
use crate::row::{Row, plain, row};

const TIMEX: u64 = 208;

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    row(35, "nanosleep", "req rem", &[
        In(0, Fix(16), "nanosleep(req)"), Pre(|c| c.output(c.args[1], 16, "nanosleep(rem)")), Fail(|c| remaining(c, c.args[1]))]),
    row(36, "getitimer", "which:4 value", &[Do(|c| timer_out(c, c.args[1], ["getitimer(&value->it_interval)", "getitimer(&value->it_value)"]))]),
    plain(37, "alarm", "seconds:4"),
    row(38, "setitimer", "which:4 value ovalue", &[Do(setitimer)]),
    row(96, "gettimeofday", "tv tz", &[Set(0, Fix(16), "gettimeofday(tv)"), Set(1, Fix(8), "gettimeofday(tz)")]),
    row(100, "times", "buf", &[Set(0, Fix(32), "times(buf)")]),
    row(159, "adjtimex", "buf", &[Do(|c| timex(c, c.args[0], &ADJTIMEX))]),
    row(164, "settimeofday", "tv tz", &[In(0, Fix(16), "settimeofday(tv)"), In(1, Fix(8), "settimeofday(tz)")]),
    row(201, "time", "t", &[Set(0, Fix(8), "time(t)")]),
    row(222, "timer_create", "clockid:4 evp timerid", &[
        Do(|c| sigevent(c, c.args[1], CREATE)), Set(2, Fix(4), "timer_create(timerid)")]),
    row(223, "timer_settime", "timerid:4 flags:4 value ovalue", &[
        In(2, Fix(32), "timer_settime(value)"), Set(3, Fix(32), "timer_settime(ovalue)")]),
    row(224, "timer_gettime", "timerid:4 value", &[Set(1, Fix(32), "timer_gettime(value)")]),
    plain(225, "timer_getoverrun", "timerid:4"),
    plain(226, "timer_delete", "timerid:4"),
    row(227, "clock_settime", "clk_id:4 tp", &[In(1, Fix(16), "clock_settime(tp)")]),
    row(228, "clock_gettime", "clk_id:4 tp", &[Set(1, Fix(16), "clock_gettime(tp)")]),
    row(229, "clock_getres", "clk_id:4 res", &[Set(1, Fix(16), "clock_getres(res)")]),
    row(230, "clock_nanosleep", "clkid:4 flags:4 rqtp rmtp", &[
        In(2, Fix(16), "clock_nanosleep(rqtp)"), Pre(|c| c.output(c.args[3], 16, "clock_nanosleep(rmtp)")), Fail(clock_remaining)]),
    plain(283, "sys_timerfd_create", "clockid:4 flags:4"),
    row(286, "timerfd_settime", "ufd:4 flags:4 utmr otmr", &[
        In(2, Fix(32), "timerfd_settime(result)"), Set(3, Fix(32), "timerfd_settime(result)")]),
    row(287, "timerfd_gettime", "ufd:4 otmr", &[Set(1, Fix(32), "timerfd_gettime(result)")]),
    row(305, "clock_adjtime", "id:4 buf", &[Do(|c| timex(c, c.args[1], &CLOCK_ADJTIME))]),
];

/// The time that was left is only told when a signal ended the sleep.
fn remaining(c: &mut Call, at: u64) {
    if c.result == EINTR {
        c.mark(at, 16);
    }
}

/// A sleep until an absolute time has no remainder.
fn clock_remaining(c: &mut Call) {
    const ABSOLUTE: u64 = 1;
    if c.args[1] & ABSOLUTE == 0 {
        remaining(c, c.args[3]);
    }
}

/// struct itimerval: interval 16, value 16.
fn timer_out(c: &mut Call, at: u64, names: [&'static str; 2]) {
    if at != 0 || c.null_is_bad {
        c.output(at, 16, names[0]);
        c.output(at.wrapping_add(16), 16, names[1]);
    }
}

fn setitimer(c: &mut Call) {
    let value = c.args[1];
    if value != 0 {
        c.input(value, 16, "setitimer(&value->it_interval)");
        c.input(value.wrapping_add(16), 16, "setitimer(&value->it_value)");
    }
    timer_out(c, c.args[2], ["setitimer(&ovalue->it_interval)", "setitimer(&ovalue->it_value)"]);
}

/// Names of the parts of a sigevent: value, signo, notify, thread id.
pub type EventNames = [&'static str; 4];
const CREATE: EventNames = [
    "timer_create(evp.sigev_value)",
    "timer_create(evp.sigev_signo)",
    "timer_create(evp.sigev_notify)",
    "timer_create(evp.sigev_notify_thread_id)",
];
pub const NOTIFY: EventNames = ["mq_notify(notification)"; 4];

/// struct sigevent: value 8, signo 4, notify 4, thread id 4. A notification by nothing uses none of the others.
pub fn sigevent(c: &mut Call, at: u64, names: EventNames) {
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD_ID: i32 = 4;
    if at == 0 {
        return;
    }
    let notify = c.peek_or_zero::<i32>(at.wrapping_add(12));
    if notify != SIGEV_NONE {
        c.input(at, 8, names[0]);
        c.input(at.wrapping_add(8), 4, names[1]);
    }
    c.input(at.wrapping_add(12), 4, names[2]);
    if notify & SIGEV_THREAD_ID != 0 {
        c.input(at.wrapping_add(16), 4, names[3]);
    }
}

/// (mode bits, offset, size, name): the fields of a struct timex that a mode makes the kernel read.
type Modes = [(u32, u64, u64, &'static str); 7];

macro_rules! modes {
    ($call:literal) => {
        [
            (0x0001 | 0x8000, 8, 8, concat!($call, "(timex->offset)")),
            (0x0002, 16, 8, concat!($call, "(timex->freq)")),
            (0x0004, 24, 8, concat!($call, "(timex->maxerror)")),
            (0x0008, 32, 8, concat!($call, "(timex->esterror)")),
            (0x0010, 40, 4, concat!($call, "(timex->status)")),
            (0x0020, 48, 8, concat!($call, "(timex->constant)")),
            (0x4000, 88, 8, concat!($call, "(timex->tick)")),
        ]
    };
}

const ADJTIMEX: (&str, &str, Modes) = ("adjtimex(timex->modes)", "adjtimex(timex)", modes!("adjtimex"));
const CLOCK_ADJTIME: (&str, &str, Modes) = ("clock_adjtime(timex->modes)", "adjtimex(timex)", modes!("clock_adjtime"));

fn timex(c: &mut Call, at: u64, (modes_name, whole, modes): &(&'static str, &'static str, Modes)) {
    if at == 0 {
        return;
    }
    c.input(at, 4, *modes_name);
    let mode = c.peek_or_zero::<u32>(at);
    for &(bits, offset, size, name) in modes {
        if mode & bits != 0 {
            c.input(at.wrapping_add(offset), size, name);
        }
    }
    c.output(at, TIMEX, *whole);
}
