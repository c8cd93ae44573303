//! Waiting for many things, and talking between processes.

use crate::call::{Call, Name, Phase};
use crate::row::Rule::{Do, In, InOut, Out, Post, Pre, Set, Str};
use crate::row::Size::{Arg, Fix, Int, Mul, Ret, RetMul};
use crate::row::{Row, fill_iov, for_iov, plain, row};
use crate::space;

const EPOLL_EVENT: u64 = 12;
const MQ_ATTR: u64 = 64;

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    row(7, "poll", "ufds nfds:4 timeout:4", &[Do(|c| poll(c, ["poll(ufds.fd)", "poll(ufds.events)", "poll(ufds.revents)"]))]),
    row(271, "ppoll", "ufds nfds:4 tsp sigmask sigsetsize", &[
        Do(|c| poll(c, ["ppoll(ufds.fd)", "ppoll(ufds.events)", "ppoll(ufds.revents)"])),
        InOut(2, Fix(16), "ppoll(tsp)"), In(3, Arg(4), "ppoll(sigmask)")]),
    row(23, "select", "n:4 readfds writefds exceptfds timeout", &[
        Do(|c| select(c, ["select(readfds)", "select(writefds)", "select(exceptfds)"])), InOut(4, Fix(16), "select(timeout)")]),
    row(270, "pselect6", "n:4 readfds writefds exceptfds timeout sig", &[
        Do(|c| select(c, ["pselect6(readfds)", "pselect6(writefds)", "pselect6(exceptfds)"])),
        InOut(4, Fix(16), "pselect6(timeout)"), Do(pselect_mask)]),
    row(22, "pipe", "filedes", &[Set(0, Fix(8), "pipe(filedes)")]),
    row(293, "pipe2", "filedes flags:4", &[Set(0, Fix(8), "pipe2(filedes)")]),
    plain(213, "epoll_create", "size:4"),
    plain(291, "epoll_create1", "flags:4"),
    row(232, "epoll_wait", "epfd:4 events maxevents:4 timeout:4", &[
        Out(1, Int(2, EPOLL_EVENT), RetMul(EPOLL_EVENT), "epoll_wait(events)")]),
    row(281, "epoll_pwait", "epfd:4 events maxevents:4 timeout:4 sigmask sigsetsize", &[
        Out(1, Int(2, EPOLL_EVENT), RetMul(EPOLL_EVENT), "epoll_pwait(events)"), In(4, Arg(5), "epoll_pwait(sigmask)")]),
    row(441, "epoll_pwait2", "epfd:4 events maxevents:4 timeout sigmask sigsetsize", &[
        Out(1, Int(2, EPOLL_EVENT), RetMul(EPOLL_EVENT), "epoll_pwait2(events)"),
        In(3, Fix(16), "epoll_pwait2(timeout)"), In(4, Arg(5), "epoll_pwait2(sigmask)")]),
    row(233, "epoll_ctl", "epfd:4 op:4 fd:4 event", &[Do(epoll_ctl)]),
    row(202, "futex", "futex op:4 val:4 utime uaddr2 val3:4", &[Do(futex)]).uses(futex_uses),
    row(449, "futex_waitv", "waiters nr_futexes:4 flags:4 timeout clockid:4", &[
        In(0, Int(1, 24), "futex_waitv(waiters)"), In(3, Fix(16), "futex_waitv(timeout)")]),
    row(454, "futex_wake", "uaddr mask nr:4 flags:4", &[]),
    row(455, "futex_wait", "uaddr val mask flags:4 timeout clockid:4", &[In(4, Fix(16), "futex_wait(timeout)")]),
    row(456, "futex_requeue", "waiters flags:4 nr_wake:4 nr_requeue:4", &[In(0, Fix(48), "futex_requeue(waiters)")]),
    plain(284, "sys_eventfd", "count:4"),
    plain(290, "sys_eventfd2", "count:4 flags:4"),

    plain(29, "shmget", "key:4 size shmflg:4"),
    row(31, "shmctl", "shmid:4 cmd:4 buf", &[Do(shmctl)]),
    plain(64, "semget", "key:4 nsems:4 semflg:4"),
    row(65, "semop", "semid:4 sops nsoops", &[In(1, Mul(2, 6), "semop(sops)")]),
    row(66, "semctl", "semid:4 semnum:4 cmd:4 arg", &[Do(semctl)]).uses(semctl_uses),
    row(220, "semtimedop", "semid:4 sops nsoops timeout", &[In(1, Mul(2, 6), "semtimedop(sops)"), In(3, Fix(16), "semtimedop(timeout)")]),
    plain(68, "msgget", "key:4 msgflg:4"),
    row(69, "msgsnd", "msqid:4 msgp msgsz msgflg:4", &[In(1, Fix(8), "msgsnd(msgp->mtype)"), Do(message_text)]),
    row(70, "msgrcv", "msqid:4 msgp msgsz msgytp msgflg:4", &[Set(1, Fix(8), "msgrcv(msgp->mtype)"), Do(message_received)]),
    row(71, "msgctl", "msqid:4 cmd:4 buf", &[Do(msgctl)]),

    row(240, "mq_open", "name oflag:4 mode:4 attr", &[Str(0, "mq_open(name)"), Do(mq_open)])
        .uses(|a| if a[1] & 0o100 != 0 { 15 } else { 3 }),
    row(241, "mq_unlink", "name", &[Str(0, "mq_unlink(name)")]),
    row(242, "mq_timedsend", "mqdes:4 msg_ptr msg_len msg_prio:4 abs_timeout", &[
        In(1, Arg(2), "mq_timedsend(msg_ptr)"), In(4, Fix(16), "mq_timedsend(abs_timeout)")]),
    row(243, "mq_timedreceive", "mqdes:4 msg_ptr msg_len msg_prio abs_timeout", &[
        Out(1, Arg(2), Ret, "mq_timedreceive(msg_ptr)"), Set(3, Fix(4), "mq_timedreceive(msg_prio)"),
        In(4, Fix(16), "mq_timedreceive(abs_timeout)")]),
    row(244, "mq_notify", "mqdes:4 notification", &[Do(|c| super::time::sigevent(c, c.args[1], super::time::NOTIFY))]),
    row(245, "mq_getsetattr", "mqdes:4 mqstat omqstat", &[
        In(1, Fix(8), "mq_getsetattr(mqstat->mq_flags)"), Set(2, Fix(MQ_ATTR), "mq_getsetattr(omqstat)")]),

    row(206, "io_setup", "nr_events:4 ctxp", &[Pre(|c| c.output(c.args[1], 8, "io_setup(ctxp)"))]).act(space::io_setup),
    row(207, "io_destroy", "ctx", &[Post(space::io_destroyed)]),
    row(208, "io_getevents", "ctx_id min_nr nr events timeout", &[
        Out(3, Mul(2, 32), RetMul(32), "io_getevents(events)"), In(4, Fix(16), "io_getevents(timeout)")]),
    row(209, "io_submit", "ctx_id nr iocbpp", &[In(2, Mul(1, 8), "io_submit(iocbpp)"), Do(io_submit)]),
    row(210, "io_cancel", "ctx_id iocb result", &[In(1, Fix(64), "io_cancel(iocb)"), Set(2, Fix(32), "io_cancel(result)")]),
    row(333, "io_pgetevents", "ctx_id min_nr nr events timeout sigmask", &[
        Out(3, Mul(2, 32), RetMul(32), "io_pgetevents(events)"), In(4, Fix(16), "io_pgetevents(timeout)"), In(5, Fix(16), "io_pgetevents(sigmask)")]),
    row(181, "getpmsg", "fd:4 ctrl data bandp flagsp", &[]),
    row(182, "putpmsg", "fd:4 ctrl data band flags:4", &[]),
];

/// poll entries: fd 4, events 2, revents 2. An entry with a negative descriptor is skipped by the kernel, which still clears revents.
fn poll(c: &mut Call, names: [&'static str; 3]) {
    const MOST: u64 = 1 << 20;
    let (at, count) = (c.args[0], (c.args[1] & 0xffff_ffff).min(if c.args[0] == 0 { 1 } else { MOST }));
    if at == 0 && !c.null_is_bad {
        return;
    }
    if c.phase == Phase::Mark {
        return for_entries(at, count, |entry| c.output(entry + 6, 2, names[2]));
    }
    for_entries(at, count, |entry| {
        c.input(entry, 4, names[0]);
        if c.peek_or_zero::<i32>(entry) >= 0 {
            c.input(entry + 4, 2, names[1]);
        }
        c.output(entry + 6, 2, names[2]);
    });
}

fn for_entries(at: u64, count: u64, mut f: impl FnMut(u64)) {
    if at.checked_add(8 * count).is_some() {
        (0..count).for_each(|i| f(at + 8 * i));
    }
}

/// Descriptor sets are read and written in whole longs, but only the bytes that hold descriptors are looked at.
fn select(c: &mut Call, names: [&'static str; 3]) {
    let count = c.count(0).min(1 << 20);
    for (i, name) in names.into_iter().enumerate() {
        let set = c.args[1 + i];
        if c.phase == Phase::Mark {
            c.output(set, count.div_ceil(64) * 8, name);
        } else {
            c.input(set, count.div_ceil(8), name);
        }
    }
}

/// The sixth argument points to {set, its size}.
fn pselect_mask(c: &mut Call) {
    let sig = c.args[5];
    c.input(sig, 16, "pselect6(sig)");
    if sig != 0 && c.phase != Phase::Mark {
        let [set, size] = c.peek_or_zero::<[u64; 2]>(sig);
        c.input(set, size.min(128), "pselect6(sig->ss)");
    }
}

/// The user data of an event belongs to the program; only the mask is the kernel's.
fn epoll_ctl(c: &mut Call) {
    const ADD: u32 = 1;
    const MOD: u32 = 3;
    if matches!(c.args[1] as u32, ADD | MOD) {
        c.input(c.args[3], 4, "epoll_ctl(event)");
    }
}

const PRIVATE_AND_CLOCK: u64 = 128 | 256;

mod op {
    pub const WAIT: u64 = 0;
    pub const WAKE: u64 = 1;
    pub const FD: u64 = 2;
    pub const REQUEUE: u64 = 3;
    pub const CMP_REQUEUE: u64 = 4;
    pub const WAKE_OP: u64 = 5;
    pub const LOCK_PI: u64 = 6;
    pub const UNLOCK_PI: u64 = 7;
    pub const TRYLOCK_PI: u64 = 8;
    pub const WAIT_BITSET: u64 = 9;
    pub const WAKE_BITSET: u64 = 10;
    pub const WAIT_REQUEUE_PI: u64 = 11;
    pub const CMP_REQUEUE_PI: u64 = 12;
    pub const LOCK_PI2: u64 = 13;
}

fn futex_op(a: &[u64; 6]) -> u64 {
    (a[1] & 0xffff_ffff) & !PRIVATE_AND_CLOCK
}

fn futex_uses(a: &[u64; 6]) -> u8 {
    match futex_op(a) {
        op::WAIT => 0b00_1111,
        op::WAKE | op::FD => 0b00_0111,
        op::REQUEUE => 0b01_1111,
        op::CMP_REQUEUE | op::CMP_REQUEUE_PI | op::WAKE_OP => 0b11_1111,
        op::LOCK_PI | op::LOCK_PI2 => 0b00_1011,
        op::WAIT_BITSET => 0b10_1111,
        op::WAIT_REQUEUE_PI => 0b11_1111,
        op::WAKE_BITSET => 0b10_0111,
        _ => 0b00_0011,
    }
}

/// A wake may legally name memory that was freed meanwhile, so it is never checked.
fn futex(c: &mut Call) {
    let [word, _, _, timeout, second, _] = c.args;
    match futex_op(&c.args) {
        op::WAIT | op::WAIT_BITSET | op::LOCK_PI | op::LOCK_PI2 => {
            c.both(word, 4, "futex(futex)");
            c.input(timeout, 16, "futex(timeout)");
        }
        op::WAIT_REQUEUE_PI => {
            c.both(word, 4, "futex(futex)");
            c.both(second, 4, "futex(futex2)");
            c.input(timeout, 16, "futex(timeout)");
        }
        op::REQUEUE | op::CMP_REQUEUE | op::CMP_REQUEUE_PI => {
            c.both(word, 4, "futex(futex)");
            c.both(second, 4, "futex(futex2)");
        }
        op::TRYLOCK_PI => c.both(word, 4, "futex(futex)"),
        op::UNLOCK_PI | op::WAKE | op::WAKE_OP | op::WAKE_BITSET | op::FD => {}
        _ => {}
    }
}

/// struct iocb: data 8, key 4, flags 4, opcode 2, priority 2, descriptor 4, buffer 8, bytes 8, offset 8. What is read into a
/// buffer arrives later, at a moment that no system call needs to tell; it counts as defined from the submission on.
fn io_submit(c: &mut Call) {
    const PREAD: u16 = 0;
    const PWRITE: u16 = 1;
    const PREADV: u16 = 7;
    const PWRITEV: u16 = 8;
    const MOST: u64 = 1 << 16;
    // The result is how many were taken.
    let total = c.result;
    let count = if c.phase == Phase::Mark { total as u64 } else { c.args[1] };
    for i in 0..count.min(MOST) {
        let Some(iocb) = c.peek::<u64>(c.args[2].wrapping_add(8 * i)) else { break };
        c.input(iocb, 64, "io_submit(iocb)");
        let Some(opcode) = c.peek::<u16>(iocb.wrapping_add(16)) else { break };
        let [buffer, bytes] = c.peek_or_zero::<[u64; 2]>(iocb.wrapping_add(24));
        c.result = i64::MAX;
        match opcode {
            PREAD => c.output(buffer, bytes, "io_submit(PREAD)"),
            PWRITE => c.input(buffer, bytes, "io_submit(PWRITE)"),
            PREADV => {
                c.input(buffer, crate::row::iov_bytes(bytes), "io_submit(PREADV)");
                fill_iov(c, buffer, bytes, Name::from("io_submit(PREADV(iov[i]))"));
            }
            PWRITEV => {
                c.input(buffer, crate::row::iov_bytes(bytes), "io_submit(PWRITEV)");
                for_iov(c, buffer, bytes, |c, _, base, len| c.input(base, len, "io_submit(PWRITEV(iov[i]))"));
            }
            _ => {}
        }
        c.result = total;
    }
}

/// Commands of the System V calls; the 64-bit flag of other ABIs is ignored.
mod sysv {
    pub const RMID: u64 = 0;
    pub const SET: u64 = 1;
    pub const STAT: u64 = 2;
    pub const INFO: u64 = 3;
    pub const MSG_STAT: u64 = 11;
    pub const MSG_INFO: u64 = 12;
    pub const MSG_STAT_ANY: u64 = 13;
    pub const SHM_STAT: u64 = 13;
    pub const SHM_INFO: u64 = 14;
    pub const SHM_STAT_ANY: u64 = 15;
    pub const GETPID: u64 = 11;
    pub const GETVAL: u64 = 12;
    pub const GETALL: u64 = 13;
    pub const GETNCNT: u64 = 14;
    pub const GETZCNT: u64 = 15;
    pub const SETVAL: u64 = 16;
    pub const SETALL: u64 = 17;
    pub const SEM_STAT: u64 = 18;
    pub const SEM_INFO: u64 = 19;
    pub const SEM_STAT_ANY: u64 = 20;
    pub const MASK: u64 = 0xff;
}

/// Of the ds structures IPC_SET reads only {uid, gid, mode} in the permissions at 4 and 20, and for queues the size limit.
fn shmctl(c: &mut Call) {
    let buf = c.args[2];
    match c.args[1] & sysv::MASK {
        sysv::STAT => c.output(buf, 112, "shmctl(IPC_STAT, arg.buf)"),
        sysv::SHM_STAT | sysv::SHM_STAT_ANY => c.output(buf, 112, "shmctl(IPC_STAT, buf)"),
        sysv::INFO => c.output(buf, 72, "shmctl(IPC_INFO, buf)"),
        sysv::SHM_INFO => c.output(buf, 48, "shmctl(SHM_INFO, buf)"),
        sysv::SET => permissions(c, buf, "shmctl(IPC_SET, arg.buf)"),
        _ => {}
    }
}

fn permissions(c: &mut Call, buf: u64, name: &'static str) {
    if buf != 0 {
        c.input(buf.wrapping_add(4), 8, name);
        c.input(buf.wrapping_add(20), 4, name);
    }
}

fn semctl_uses(a: &[u64; 6]) -> u8 {
    match a[2] & sysv::MASK {
        sysv::RMID | sysv::GETPID | sysv::GETVAL | sysv::GETNCNT | sysv::GETZCNT => 7,
        _ => 15,
    }
}

fn semctl(c: &mut Call) {
    let arg = c.args[3];
    match c.args[2] & sysv::MASK {
        sysv::STAT | sysv::SEM_STAT | sysv::SEM_STAT_ANY => c.output(arg, 104, "semctl(IPC_STAT, arg.buf)"),
        sysv::INFO | sysv::SEM_INFO => c.output(arg, 40, "semctl(IPC_INFO, arg.buf)"),
        sysv::SET => permissions(c, arg, "semctl(IPC_SET, arg.buf)"),
        sysv::GETALL => {
            let n = 2 * semaphores(c.args[0]);
            c.output(arg, n, "semctl(IPC_GETALL, arg.array)");
        }
        sysv::SETALL if c.phase != Phase::Mark => {
            let n = 2 * semaphores(c.args[0]);
            c.input(arg, n, "semctl(IPC_SETALL, arg.array)");
        }
        sysv::SETVAL => {}
        _ => {}
    }
}

fn semaphores(id: u64) -> u64 {
    space::semaphore_count(id)
}

/// struct msgbuf: type 8, text.
fn message_text(c: &mut Call) {
    if c.args[1] != 0 && c.phase != Phase::Mark {
        c.input(c.args[1].wrapping_add(8), c.args[2], "msgsnd(msgp->mtext)");
    }
}

fn message_received(c: &mut Call) {
    if c.args[1] != 0 {
        let n = if c.phase == Phase::Mark { c.args[2].min(c.result as u64) } else { c.args[2] };
        c.output(c.args[1].wrapping_add(8), n, "msgrcv(msgp->mtext)");
    }
}

fn msgctl(c: &mut Call) {
    let buf = c.args[2];
    match c.args[1] & sysv::MASK {
        sysv::STAT | sysv::MSG_STAT | sysv::MSG_STAT_ANY => c.output(buf, 120, "msgctl(IPC_STAT, buf)"),
        sysv::INFO | sysv::MSG_INFO => c.output(buf, 32, "msgctl(IPC_INFO, buf)"),
        sysv::SET => {
            permissions(c, buf, "msgctl(IPC_SET, arg.buf)");
            if buf != 0 {
                c.input(buf.wrapping_add(88), 8, "msgctl(IPC_SET, arg.buf)");
            }
        }
        _ => {}
    }
}

/// struct mq_attr: flags 8, maxmsg 8, msgsize 8; flags do not count here.
fn mq_open(c: &mut Call) {
    const O_CREAT: u64 = 0o100;
    let attr = c.args[3];
    if c.args[1] & O_CREAT != 0 && attr != 0 {
        c.input(attr.wrapping_add(8), 8, "mq_open(attr->mq_maxmsg)");
        c.input(attr.wrapping_add(16), 8, "mq_open(attr->mq_msgsize)");
    }
}
