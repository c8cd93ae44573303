//! Undefined and unaddressable parameters raise the names that Valgrind 3.19 prints.
//!
//! The expected lists were taken from a run of that version over a program that makes the same calls.

use super::{Program, get_i32, put};
use memcheck_rt::context;
use std::string::String;
use std::vec::Vec;

const BAD_FD: u64 = u32::MAX as u64;

#[track_caller]
fn expect(p: &mut Program, number: u64, args: &[u64], names: &[&str]) {
    let got = p.names(number, args);
    assert_eq!(got, names, "system call {number}");
}

#[test]
fn simple_buffers_and_structures() {
    let p = &mut Program::new();
    let u = p.undefined(600);
    let path = p.string("/nonexistent-for-memcheck");
    let rows: &[(u64, &[u64], &[&str])] = &[
        (1, &[BAD_FD, u, 3], &["write(buf)"]),
        (18, &[BAD_FD, u, 3, 0], &["pwrite64(buf)"]),
        (2, &[u, 0], &["open(filename)"]),
        (257, &[BAD_FD, u, 0], &["openat(filename)"]),
        (132, &[path, u], &["utime(buf)"]),
        (235, &[path, u], &["utimes(tvp[0])", "utimes(tvp[1])"]),
        (261, &[BAD_FD, path, u], &["futimesat(tvp)"]),
        (35, &[u, 0], &["nanosleep(req)"]),
        (38, &[9, u, 0], &["setitimer(&value->it_interval)", "setitimer(&value->it_value)"]),
        (160, &[100, u], &["setrlimit(rlim)"]),
        (302, &[0, 100, u, 0], &["rlimit64(new_rlim)"]),
        (203, &[BAD_FD, 8, u], &["sched_setaffinity(mask)"]),
        (144, &[BAD_FD, 0, u], &["sched_setscheduler(p)"]),
        (131, &[u, 0], &["sigaltstack(ss)"]),
        (14, &[0, u, 0, 8], &["rt_sigprocmask(set)"]),
        (289, &[BAD_FD, u, 8, 0], &["signalfd(sigmask)"]),
        (286, &[BAD_FD, 0, u, 0], &["timerfd_settime(result)"]),
        (223, &[BAD_FD, 0, u, 0], &["timer_settime(value)"]),
        (116, &[2, u], &["setgroups(list)"]),
        (65, &[BAD_FD, u, 1], &["semop(sops)"]),
        (220, &[BAD_FD, u, 1, 0], &["semtimedop(sops)"]),
        (69, &[BAD_FD, u, 8, 0], &["msgsnd(msgp->mtype)", "msgsnd(msgp->mtext)"]),
        (233, &[BAD_FD, 1, 0, u], &["epoll_ctl(event)"]),
        (233, &[BAD_FD, 2, 0, u], &[]),
        (305, &[BAD_FD, u], &["clock_adjtime(timex->modes)"]),
        (157, &[15, u], &["prctl(set-name)"]),
        (240, &[path, 0o100, 0, u], &["mq_open(attr->mq_maxmsg)", "mq_open(attr->mq_msgsize)"]),
        (16, &[BAD_FD, 0x5402, u], &["ioctl(TCSET{S,SW,SF})"]),
        (16, &[BAD_FD, 0x5414, u], &["ioctl(TIOCSWINSZ)"]),
        (16, &[BAD_FD, 0x5421, u], &["ioctl(FIONBIO)"]),
        (16, &[BAD_FD, 0x4004_7a01, u], &["ioctl(generic)"]),
        (16, &[BAD_FD, 0x4004_9409, u], &[]),
        (16, &[BAD_FD, 0x5441, u], &[]),
        (72, &[BAD_FD, 6, u], &["fcntl(lock->l_type)", "fcntl(lock->l_whence)", "fcntl(lock->l_start)", "fcntl(lock->l_len)"]),
        (72, &[BAD_FD, 15, u], &["fcntl(F_SETOWN_EX)"]),
        (437, &[BAD_FD, path, u, 24], &["openat2(how)"]),
        (54, &[BAD_FD, 1, 7, u, 4], &["socketcall.setsockopt(optval)"]),
        (273, &[u, 24], &["set_robust_list(head)"]),
        (334, &[u, 32, 0, 0], &[]),
        (9999, &[u, u, u], &[]),
    ];
    for (number, args, names) in rows {
        expect(p, *number, args, names);
    }
}

#[test]
fn utimensat_looks_at_seconds_only_when_they_count() {
    let p = &mut Program::new();
    let path = p.string("/nonexistent-for-memcheck");
    let u = p.undefined(32);
    put(u + 8, &0x3fff_ffffu64.to_ne_bytes());
    put(u + 24, &5u64.to_ne_bytes());
    expect(p, 280, &[BAD_FD, path, u, 0], &["utimensat(times[1].tv_sec)"]);
}

#[test]
fn statx_without_a_name() {
    let p = &mut Program::new();
    let buf = p.words(&[0; 32]);
    expect(p, 332, &[0, 0, 0, 0, 0], &[]);
    expect(p, 332, &[BAD_FD, 0, 0x1000, 0x7ff, buf], &[]);
    expect(p, 332, &[BAD_FD, 0, 0, 0x7ff, buf], &["statx(filename)"]);
}

#[test]
fn vectors_and_sets() {
    let p = &mut Program::new();
    let (u, ok) = (p.undefined(64), p.words(&[0; 8]));
    let iov = p.words(&[ok, 8, u, 3]);
    expect(p, 20, &[BAD_FD, iov, 2], &["writev(vector[...])"]);
    expect(p, 296, &[BAD_FD, iov, 2, 0, 0], &["pwritev(vector[1])"]);
    expect(p, 311, &[1, iov, 2, u, 1, 0], &["process_vm_writev(lvec[...])", "process_vm_writev(rvec)"]);
    let u = p.undefined(64);
    expect(p, 20, &[BAD_FD, u, 2], &["writev(vector)"]);
    expect(p, 7, &[u, 1, 0], &["poll(ufds.fd)", "poll(ufds.events)"]);
    put(u, &(-1i32).to_ne_bytes());
    expect(p, 7, &[u, 1, 0], &[]);
    let (u, zero) = (p.undefined(64), p.words(&[0, 0]));
    expect(p, 23, &[1, u, 0, 0, zero], &["select(readfds)"]);
    let u = p.undefined(64);
    expect(p, 270, &[0, 0, 0, 0, zero, u], &["pselect6(sig)"]);
    let mask = p.undefined(8);
    let pair = p.words(&[mask, 8]);
    expect(p, 270, &[0, 0, 0, 0, zero, pair], &["pselect6(sig->ss)"]);
}

#[test]
fn socket_addresses_by_field() {
    let p = &mut Program::new();
    let address = |p: &mut Program, family: u16| {
        let a = p.undefined(64);
        put(a, &family.to_ne_bytes());
        a
    };
    let inet = address(p, 2);
    expect(p, 49, &[BAD_FD, inet, 16], &["socketcall.bind(my_addr.sin_port)", "socketcall.bind(my_addr.sin_addr)"]);
    put(inet + 2, &[0; 6]);
    expect(p, 42, &[BAD_FD, inet, 16], &[]);
    let inet6 = address(p, 10);
    expect(
        p,
        42,
        &[BAD_FD, inet6, 28],
        &[
            "socketcall.connect(serv_addr.sin6_port)",
            "socketcall.connect(serv_addr.sin6_flowinfo)",
            "socketcall.connect(serv_addr.sin6_addr)",
            "socketcall.connect(serv_addr.sin6_scope_id)",
        ],
    );
    let unix = address(p, 1);
    expect(p, 42, &[BAD_FD, unix, 20], &["socketcall.connect(serv_addr.sun_path)"]);
    put(unix + 2, b"/x\0");
    expect(p, 42, &[BAD_FD, unix, 110], &[]);
    put(unix + 2, b"\0x");
    expect(p, 42, &[BAD_FD, unix, 20], &["socketcall.connect(serv_addr.sun_path)"]);
    let unspecified = address(p, 0);
    expect(p, 42, &[BAD_FD, unspecified, 16], &[]);
    let other = address(p, 20);
    expect(p, 42, &[BAD_FD, other, 16], &["socketcall.connect(serv_addr.sa_data)"]);
    let (data, family) = (p.undefined(8), p.undefined(16));
    expect(p, 44, &[BAD_FD, data, 3, 0, family, 16], &["socketcall.sendto(msg)", "socketcall.sendto(to.sa_family)"]);
}

#[test]
fn message_headers() {
    let p = &mut Program::new();
    let u = p.undefined(64);
    let raw = p.undefined(64);
    assert_eq!(p.names(46, &[BAD_FD, raw, 0])[0], "sendmsg(msg)");
    let mut send = |words: [u64; 7], names: &[&str]| {
        let h = p.words(&words);
        expect(p, 46, &[BAD_FD, h, 0], names);
    };
    send([u, 10, 0, 0, 0, 0, 0], &["sendmsg(msg.msg_name)"]);
    send([0, 0, u, 2, 0, 0, 0], &["sendmsg(msg.msg_iov)"]);
    send([0, 0, 0, 0, u, 40, 0], &["sendmsg(msg.msg_control)"]);
    let iov = p.words(&[u, 3, u + 8, 3]);
    let h = p.words(&[0, 0, iov, 2, 0, 0, 0]);
    expect(p, 46, &[BAD_FD, h, 0], &["sendmsg(msg.msg_iov[0])", "sendmsg(msg.msg_iov[1])"]);
    let two = p.words(&[0, 0, iov, 1, 0, 0, 0, 0, 0, 0, iov, 2, 0, 0, 0, 0]);
    expect(
        p,
        307,
        &[BAD_FD, two, 2, 0],
        &["sendmsg(mmsg[0].msg_hdr.msg_iov[0])", "sendmsg(mmsg[1].msg_hdr.msg_iov[0])", "sendmsg(mmsg[1].msg_hdr.msg_iov[1])"],
    );
    // An array of msghdr where one of mmsghdr should be.
    let short = p.block(56);
    put(short, &[0; 56]);
    expect(p, 307, &[BAD_FD, short, 1, 0], &["sendmmsg(mmsg[0].msg_len)"]);
    expect(p, 299, &[BAD_FD, short, 1, 0, 0], &["recvmmsg(mmsg[0].msg_len)"]);
    // Padding between control messages is nobody's fault.
    let control = p.bytes(&[20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    memcheck_rt::shadow::fill_v(control + 20, 4, 0xff);
    let h = p.words(&[0, 0, 0, 0, control, 24, 0]);
    expect(p, 46, &[BAD_FD, h, 0], &[]);
}

#[test]
fn value_result_lengths() {
    let p = &mut Program::new();
    let (u, len) = (p.undefined(16), p.undefined(4));
    expect(p, 51, &[BAD_FD, u, len], &["socketcall.getsockname(namelen_in)"]);
    expect(p, 55, &[BAD_FD, 1, 3, u, len], &["socketcall.getsockopt(optlen)"]);
    let (small, len) = (p.block(3), p.words(&[10]));
    expect(p, 52, &[BAD_FD, small, len], &["socketcall.getpeername(name)"]);
    expect(p, 43, &[BAD_FD, small, len], &["socketcall.accept(addr)"]);
    expect(p, 45, &[BAD_FD, small, 5, 0, 0, 0], &["socketcall.recvfrom(buf)"]);
    expect(p, 206, &[0, small], &["io_setup(ctxp)"]);
}

#[test]
fn signals_and_timers() {
    let p = &mut Program::new();
    let u = p.undefined(64);
    expect(p, 13, &[9, u, 0, 8], &["rt_sigaction(act->sa_handler)", "rt_sigaction(act->sa_mask)", "rt_sigaction(act->sa_flags)"]);
    let act = p.undefined(32);
    put(act, &[0; 8]);
    put(act + 8, &0x0400_0000u64.to_ne_bytes());
    put(act + 24, &[0; 8]);
    expect(p, 13, &[9, act, 0, 8], &["rt_sigaction(act->sa_restorer)"]);
    let (u, small) = (p.undefined(64), p.block(3));
    expect(
        p,
        222,
        &[99, u, small],
        &["timer_create(evp.sigev_value)", "timer_create(evp.sigev_signo)", "timer_create(evp.sigev_notify)", "timer_create(timerid)"],
    );
}

#[test]
fn futex_by_operation() {
    let p = &mut Program::new();
    let u = p.undefined(8);
    put(u + 4, &[0; 4]);
    let soon = p.words(&[0, 1]);
    expect(p, 202, &[u, 128, 7, soon, 0, 0], &["futex(futex)"]);
    let u = p.undefined(8);
    expect(p, 202, &[u, 129, 1, 0, 0, 0], &[]);
    expect(p, 202, &[u, 4, 1, 1, u + 4, 9], &["futex(futex)", "futex(futex2)"]);
}

#[test]
fn execve_vectors() {
    let p = &mut Program::new();
    let path = p.string("/nonexistent-for-memcheck");
    let u = p.undefined(4);
    let (argv, envp) = (p.words(&[path, u, 0]), p.words(&[u, 0]));
    p.reports();
    let ctx = context::current();
    ctx.regs.gpr[memcheck_abi::context::RAX] = 59;
    for (r, x) in crate::call::ARGUMENTS.into_iter().zip([path, argv, envp, 0, 0, 0]) {
        ctx.regs.gpr[r] = x;
    }
    let action = crate::before(ctx);
    assert_eq!(action, crate::Action::Special(crate::Special::Execve { path, argv, envp }));
    let names: Vec<String> = p.reports().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["execve(argv[i])", "execve(envp[i])"]);
}

/// The names raised by an execve that fails, as the glue makes it.
fn execve(p: &mut Program, args: [u64; 3]) -> Vec<String> {
    p.reports();
    let ctx = context::current();
    ctx.regs.gpr[memcheck_abi::context::RAX] = 59;
    for (r, x) in crate::call::ARGUMENTS.into_iter().zip(args) {
        ctx.regs.gpr[r] = x;
    }
    assert!(matches!(crate::before(ctx), crate::Action::Special(crate::Special::Execve { .. })));
    // SAFETY: there is no such program.
    let result = unsafe { memcheck_rt::sys::syscall6(59, args[0], args[1], args[2], 0, 0, 0) };
    crate::after(ctx, result);
    p.reports().into_iter().map(|s| s.name).collect()
}

#[test]
fn execve_without_and_with_wild_pointers() {
    let p = &mut Program::new();
    let path = p.string("/nonexistent-for-memcheck");
    let (none, wild) = (p.words(&[0]), p.words(&[u64::MAX, 0]));
    assert_eq!(execve(p, [0, 0, 0]), ["execve(filename)", "execve(argv)"]);
    assert_eq!(execve(p, [path, none, none]), ["execve(argv[0])"]);
    assert_eq!(execve(p, [path, wild, wild]), ["execve(argv[0])", "execve(envp[i])"]);
    assert_eq!(execve(p, [path, u64::MAX, none]), ["execve(argv)"]);
}

#[test]
fn wild_pointers_are_found_whatever_the_error_is() {
    let p = &mut Program::new();
    let ok = p.words(&[0]);
    let iov = p.words(&[ok, 8, u64::MAX, 8]);
    expect(p, 20, &[BAD_FD, iov, 2], &["writev(vector[...])"]);
    expect(p, 20, &[BAD_FD, u64::MAX, 2], &["writev(vector)"]);
    expect(p, 20, &[BAD_FD, iov, u64::MAX], &[]); // a vector that is too long is not looked at
    expect(p, 326, &[BAD_FD, u64::MAX, BAD_FD, 0x10, 8, 0], &["copy_file_range(off_in)", "copy_file_range(off_out)"]);
    expect(p, 16, &[BAD_FD, 0x4004_7a01, 0x10], &[]); // the driver may take it for a number
    expect(p, 280, &[BAD_FD, 0, 0, 0], &[]);
}

#[test]
fn the_first_bad_byte_is_named_and_decides() {
    let p = &mut Program::new();
    let block = p.block(8);
    put(block, &[0; 8]);
    p.call(1, &[BAD_FD, block, 12]);
    let seen = p.reports();
    assert_eq!((seen[0].flag, seen[0].addr, seen.len()), (1, block + 8, 1));
    let block = p.block(8);
    put(block, &[0; 5]);
    p.call(1, &[BAD_FD, block, 12]);
    let seen = p.reports();
    assert_eq!((seen[0].flag, seen[0].addr, seen.len()), (0, block + 5, 1));
}

#[test]
fn strings_are_read_to_their_nul_only() {
    let p = &mut Program::new();
    let block = p.block(9);
    put(block, b"/nonexist");
    p.call(2, &[block, 0]);
    let seen = p.reports();
    assert_eq!((seen[0].flag, seen[0].addr, seen.len()), (1, block + 9, 1), "no NUL inside the block");
    let block = p.block(9);
    put(block, b"/nonex\0");
    expect(p, 2, &[block, 0], &[]);
}

#[test]
fn unmapped_memory_is_found_after_efault() {
    let p = &mut Program::new();
    let fds = p.room(8);
    p.call(22, &[fds]);
    let (from, to) = (get_i32(fds) as u64, get_i32(fds + 4) as u64);
    memcheck_rt::shadow::fill_v(0x8000_0000, 64, 0x5a);
    let rows: &[(u64, &[u64], &str, u64)] = &[
        (1, &[to, 0x10, 5], "write(buf)", 0x10),
        (2, &[0x1234, 0], "open(filename)", 0x1234),
        (228, &[0, 0x20], "clock_gettime(tp)", 0x20),
        (7, &[0x50_0000_0000, 1, 0], "poll(ufds.fd)", 0x50_0000_0000),
        (20, &[to, 0x30, 1], "writev(vector)", 0x30),
        // Where the shadow is the branch table.
        (1, &[to, 0x1_0000_0000, 5], "write(buf)", 0x1_0000_0000),
        (5, &[to, 0x8000_0000], "fstat(buf)", 0x8000_0000),
    ];
    for (number, args, name, addr) in rows {
        p.reports();
        assert_eq!(p.call(*number, args), -14, "{name}");
        let seen = p.reports();
        assert_eq!((seen[0].name.as_str(), seen[0].flag, seen[0].addr), (*name, 1, *addr));
    }
    p.call(3, &[from]);
    p.call(3, &[to]);
    assert_eq!(super::v(0x8000_0000, 64), [0x5a; 64]);
    memcheck_rt::shadow::fill_v(0x8000_0000, 64, 0);
}

static DIRTY: std::sync::Mutex<Option<[u64; 16]>> = std::sync::Mutex::new(None);
static HOOKS: crate::Hooks = crate::Hooks {
    program_call: || 0,
    register_v: |_| *DIRTY.lock().unwrap(),
    memory_origin: |_, _| {},
    register_origin: |_, _, _| {},
    code_changed: super::space::note_changed,
    exec_mapped: super::space::note_mapped,
};

#[test]
fn registers() {
    use memcheck_abi::context::{RAX, RDI, RDX, RSI};
    let p = &mut Program::new();
    crate::install(&HOOKS);
    let mut with = |dirty: &[(usize, u64)], number, args: &[u64], names: &[&str]| {
        let mut all = [0; 16];
        dirty.iter().for_each(|&(r, bits)| all[r] = bits);
        *DIRTY.lock().unwrap() = Some(all);
        let got = p.names(number, args);
        *DIRTY.lock().unwrap() = None;
        assert_eq!(got, names);
    };
    with(&[(RDI, 1)], 3, &[BAD_FD], &["close(fd)"]);
    with(&[(RDI, 1 << 32)], 3, &[BAD_FD], &[]);
    with(&[(RAX, 1 << 40), (RSI, 1 << 63)], 1, &[BAD_FD, 0, 0], &["write(buf)"]);
    with(&[(RAX, 2)], 39, &[], &["(syscallno)"]);
    let path = 0x1000;
    with(&[(RDX, 1)], 2, &[path, 0], &["open(filename)"]); // the path is not mapped; the mode does not count
    with(&[(RDX, 1)], 72, &[BAD_FD, 1, 0], &[]);
    with(&[(RDX, 1)], 72, &[BAD_FD, 2, 0], &["fcntl(arg)"]);
    with(&[(RSI, 1)], 72, &[BAD_FD, 1, 0], &["fcntl(cmd)"]);
}
