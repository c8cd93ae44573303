//! Exactly the bytes that the kernel wrote become defined.
//!
//! The oracle is the kernel: a call is made on a buffer filled with one pattern, then with others. A byte that does not show
//! every pattern afterwards was written.

use super::{Program, get, get_i32, put, v};
use memcheck_rt::shadow;
use std::vec::Vec;

const PATTERNS: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// As [`exact`], but more may be marked than was written: records with padding between them.
fn at_least(p: &mut Program, what: &str, size: usize, run: impl FnMut(&mut Program, u64) -> i64) {
    compare(p, what, size, run, |marked, written| marked || !written);
}

/// Run a call on a fresh undefined buffer of `size` bytes: bytes written (by the kernel or by `run` with `put`) are defined
/// afterwards, all others are not.
fn exact(p: &mut Program, what: &str, size: usize, run: impl FnMut(&mut Program, u64) -> i64) {
    compare(p, what, size, run, |marked, written| marked == written);
}

fn compare(p: &mut Program, what: &str, size: usize, mut run: impl FnMut(&mut Program, u64) -> i64, right: fn(bool, bool) -> bool) {
    let mut written = std::vec![false; size];
    let mut marked: Option<Vec<bool>> = None;
    for pattern in PATTERNS {
        let buf = p.room(size);
        put(buf, &std::vec![pattern; size]);
        shadow::fill_v(buf, size as u64, shadow::UNDEFINED);
        let result = run(p, buf);
        assert!(result >= 0, "{what}: {result}");
        for (w, b) in written.iter_mut().zip(get(buf, size)) {
            *w |= b != pattern;
        }
        let now: Vec<bool> = v(buf, size).iter().map(|&b| b == 0).collect();
        assert!(marked.as_ref().is_none_or(|m| *m == now), "{what}: marks differ between runs");
        marked = Some(now);
    }
    let marked = marked.unwrap();
    assert!(written.contains(&true), "{what}: nothing was written at all");
    for i in 0..size {
        assert!(right(marked[i], written[i]), "{what}: byte {i} of {size}: marked {}, written {}", marked[i], written[i]);
    }
    assert_eq!(p.reports(), [], "{what}");
}

fn pipe(p: &mut Program) -> [u64; 2] {
    let fds = p.room(8);
    assert_eq!(p.call(293, &[fds, 0o4000]), 0);
    [get_i32(fds) as u64, get_i32(fds + 4) as u64]
}

fn sockets(p: &mut Program, kind: u64) -> [u64; 2] {
    let fds = p.room(8);
    assert_eq!(p.call(53, &[1, kind | 0o4000, 0, fds]), 0);
    [get_i32(fds) as u64, get_i32(fds + 4) as u64]
}

fn close(p: &mut Program, fds: &[u64]) {
    for &fd in fds {
        assert_eq!(p.call(3, &[fd]), 0);
    }
}

#[test]
fn files() {
    let p = &mut Program::new();
    let ends = pipe(p);
    let text = p.bytes(b"0123456789");
    exact(p, "read", 40, |p, b| {
        p.call(1, &[ends[1], text, 10]);
        p.call(0, &[ends[0], b + 3, 30])
    });
    exact(p, "readv", 60, |p, b| {
        p.call(1, &[ends[1], text, 10]);
        let iov = p.words(&[b + 30, 4, b, 0, b + 1, 20]);
        p.call(19, &[ends[0], iov, 3])
    });
    let path = p.string("/proc/self/status");
    let file = p.call(257, &[-100i64 as u64, path, 0]) as u64;
    exact(p, "pread64", 40, |p, b| p.call(17, &[file, b, 20, 3]));
    exact(p, "preadv", 40, |p, b| {
        let iov = p.words(&[b, 7]);
        p.call(295, &[file, iov, 1, 0, 0])
    });
    exact(p, "preadv2", 40, |p, b| {
        let iov = p.words(&[b, 7]);
        p.call(327, &[file, iov, 1, 0, 0, 0])
    });
    let root = p.string("/");
    exact(p, "stat", 160, |p, b| p.call(4, &[root, b]));
    exact(p, "fstat", 160, |p, b| p.call(5, &[file, b]));
    exact(p, "lstat", 160, |p, b| p.call(6, &[root, b]));
    exact(p, "newfstatat", 160, |p, b| p.call(262, &[-100i64 as u64, root, b, 0]));
    exact(p, "statx", 300, |p, b| p.call(332, &[-100i64 as u64, root, 0, 0x7ff, b]));
    exact(p, "statfs", 140, |p, b| p.call(137, &[root, b]));
    exact(p, "fstatfs", 140, |p, b| p.call(138, &[file, b]));
    exact(p, "getcwd", 300, |p, b| p.call(79, &[b, 300]));
    let link = p.string("/proc/self/exe");
    exact(p, "readlink", 300, |p, b| p.call(89, &[link, b, 299]));
    exact(p, "readlinkat cut", 30, |p, b| p.call(267, &[-100i64 as u64, link, b, 5]));
    let etc = p.string("/etc");
    at_least(p, "getdents64", 2000, |p, b| {
        let dir = p.call(2, &[etc, 0o200_000]) as u64;
        let n = p.call(217, &[dir, b, 100]);
        close(p, &[dir]);
        n
    });
    exact(p, "fcntl GETLK", 40, |p, b| {
        put(b, &[1, 0, 0, 0]);
        put(b + 8, &[0; 16]);
        p.call(72, &[file, 5, b])
    });
    exact(p, "pipe", 12, |p, b| {
        let r = p.call(22, &[b]);
        close(p, &[get_i32(b) as u64, get_i32(b + 4) as u64]);
        r
    });
    close(p, &[file, ends[0], ends[1]]);
}

#[test]
fn waiting() {
    let p = &mut Program::new();
    let ends = pipe(p);
    let byte = p.bytes(b"x");
    p.call(1, &[ends[1], byte, 1]);
    let entries = |fd: u64, at: u64| {
        for i in 0..2 {
            put(at + 8 * i, &(fd as u32).to_ne_bytes());
            put(at + 8 * i + 4, &1u16.to_ne_bytes());
        }
    };
    exact(p, "poll", 24, |p, b| {
        entries(ends[0], b);
        p.call(7, &[b, 2, 0])
    });
    exact(p, "ppoll", 24, |p, b| {
        entries(ends[0], b);
        let zero = p.words(&[0, 0]);
        p.call(271, &[b, 2, zero, 0, 8])
    });
    exact(p, "select", 24, |p, b| {
        let zero = p.words(&[0, 0]);
        put(b, &(1u64 << (ends[0] & 63)).to_ne_bytes());
        assert!(ends[0] < 64);
        p.call(23, &[ends[0] + 1, b, 0, 0, zero])
    });
    exact(p, "pselect6 timeout", 20, |p, b| {
        put(b, &0u64.to_ne_bytes());
        put(b + 8, &0u64.to_ne_bytes());
        p.call(270, &[0, 0, 0, 0, b, 0])
    });
    let epoll = p.call(291, &[0]) as u64;
    let event = p.bytes(&[1, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    assert_eq!(p.call(233, &[epoll, 1, ends[0], event]), 0);
    exact(p, "epoll_wait", 40, |p, b| p.call(232, &[epoll, b, 3, 0]));
    exact(p, "epoll_pwait", 40, |p, b| p.call(281, &[epoll, b, 3, 0, 0, 8]));
    exact(p, "ioctl FIONREAD", 12, |p, b| p.call(16, &[ends[0], 0x541b, b]));
    close(p, &[epoll, ends[0], ends[1]]);
}

#[test]
fn sockets_addresses_and_options() {
    let p = &mut Program::new();
    let pair = sockets(p, 2);
    exact(p, "socketpair", 12, |p, b| {
        let r = p.call(53, &[1, 1, 0, b]);
        close(p, &[get_i32(b) as u64, get_i32(b + 4) as u64]);
        r
    });
    exact(p, "getsockopt", 24, |p, b| {
        put(b + 16, &8u32.to_ne_bytes());
        p.call(55, &[pair[0], 1, 3, b, b + 16])
    });
    let name = p.bytes(b"\x01\0\0memcheck-kernel-test");
    let bound = p.call(41, &[1, 2, 0]) as u64;
    assert_eq!(p.call(49, &[bound, name, 12]), 0);
    exact(p, "getsockname", 48, |p, b| {
        put(b + 40, &30u32.to_ne_bytes());
        p.call(51, &[bound, b, b + 40])
    });
    exact(p, "getsockname cut", 48, |p, b| {
        put(b + 40, &5u32.to_ne_bytes());
        p.call(51, &[bound, b, b + 40])
    });
    let text = p.bytes(b"hello");
    exact(p, "recvfrom", 80, |p, b| {
        assert_eq!(p.call(44, &[bound, text, 5, 0, name, 12]), 5);
        put(b + 64, &30u32.to_ne_bytes());
        p.call(45, &[bound, b, 20, 0, b + 30, b + 64])
    });
    const MSG_TRUNC: u64 = 0x20;
    exact(p, "recvfrom more than fits", 8, |p, b| {
        assert_eq!(p.call(44, &[pair[0], text, 5, 0, 0, 0]), 5);
        p.call(45, &[pair[1], b, 2, MSG_TRUNC, 0, 0])
    });
    close(p, &[pair[0], pair[1], bound]);
}

/// A msghdr at `at` with two buffers behind it.
fn header(p: &mut Program, at: u64, first: (u64, u64), second: (u64, u64), control: (u64, u64)) {
    let iov = p.words(&[first.0, first.1, second.0, second.1]);
    for (offset, word) in [(0, 0), (16, iov), (24, 2), (32, control.0), (40, control.1)] {
        put(at + offset, &u64::to_ne_bytes(word));
    }
    put(at + 8, &0u32.to_ne_bytes());
}

#[test]
fn messages() {
    let p = &mut Program::new();
    let pair = sockets(p, 2);
    let text = p.bytes(b"0123456789");
    exact(p, "recvmsg data", 32, |p, b| {
        p.call(44, &[pair[0], text, 10, 0, 0, 0]);
        let h = p.room(56);
        header(p, h, (b + 20, 4), (b, 15), (0, 0));
        p.call(47, &[pair[1], h, 0])
    });
    exact(p, "recvmsg header", 56, |p, b| {
        p.call(44, &[pair[0], text, 10, 0, 0, 0]);
        let data = p.room(20);
        header(p, b, (data, 4), (data, 15), (0, 0));
        p.call(47, &[pair[1], b, 0])
    });
    exact(p, "recvmsg control", 64, |p, b| {
        let one = p.bytes(b"x");
        let rights = p.bytes(&[20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let h = p.room(56);
        header(p, h, (one, 1), (one, 0), (rights, 20));
        assert_eq!(p.call(46, &[pair[0], h, 0]), 1);
        header(p, h, (one, 1), (one, 0), (b, 60));
        let r = p.call(47, &[pair[1], h, 0]);
        close(p, &[get_i32(b + 16) as u64]);
        r
    });
    exact(p, "recvmmsg", 3 * 64, |p, b| {
        p.call(44, &[pair[0], text, 10, 0, 0, 0]);
        p.call(44, &[pair[0], text, 3, 0, 0, 0]);
        for i in 0..3 {
            let data = p.room(20);
            header(p, b + 64 * i, (data, 4), (data + 4, 15), (0, 0));
        }
        p.call(299, &[pair[1], b, 3, 0, 0])
    });
    exact(p, "recvmmsg data", 40, |p, b| {
        p.call(44, &[pair[0], text, 10, 0, 0, 0]);
        p.call(44, &[pair[0], text, 3, 0, 0, 0]);
        let h = p.room(128);
        header(p, h, (b, 4), (b + 4, 15), (0, 0));
        header(p, h + 64, (b + 20, 2), (b + 30, 9), (0, 0));
        p.call(299, &[pair[1], h, 2, 0, 0])
    });
    exact(p, "sendmmsg lengths", 128, |p, b| {
        header(p, b, (text, 4), (text, 0), (0, 0));
        header(p, b + 64, (text, 2), (text, 1), (0, 0));
        // What the kernel only reads, of a header: everything but flags and padding.
        p.call(307, &[pair[0], b, 2, 0])
    });
    close(p, &pair);
}

#[test]
fn time_and_process() {
    let p = &mut Program::new();
    exact(p, "clock_gettime", 24, |p, b| p.call(228, &[0, b]));
    exact(p, "clock_getres", 24, |p, b| p.call(229, &[0, b]));
    exact(p, "gettimeofday", 32, |p, b| p.call(96, &[b, b + 20]));
    exact(p, "time", 12, |p, b| p.call(201, &[b]));
    exact(p, "times", 40, |p, b| p.call(100, &[b]));
    exact(p, "getitimer", 40, |p, b| p.call(36, &[0, b]));
    exact(p, "getrlimit", 20, |p, b| p.call(97, &[7, b]));
    exact(p, "prlimit64", 20, |p, b| p.call(302, &[0, 7, 0, b]));
    exact(p, "getrusage", 150, |p, b| p.call(98, &[0, b]));
    exact(p, "sysinfo", 120, |p, b| p.call(99, &[b]));
    exact(p, "uname", 400, |p, b| p.call(63, &[b]));
    exact(p, "getresuid", 16, |p, b| p.call(118, &[b, b + 4, b + 8]));
    exact(p, "sched_getaffinity", 200, |p, b| p.call(204, &[0, 128, b]));
    exact(p, "sched_getparam", 8, |p, b| p.call(143, &[0, b]));
    exact(p, "sched_getattr", 64, |p, b| p.call(315, &[0, b, 48, 0]));
    exact(p, "getcpu", 12, |p, b| p.call(309, &[b, b + 8, 0]));
    exact(p, "getrandom", 90, |p, b| p.call(318, &[b, 80, 0]));
    exact(p, "prctl GET_NAME", 20, |p, b| p.call(157, &[16, b]));
    exact(p, "rt_sigprocmask", 12, |p, b| p.call(14, &[0, 0, b, 8]));
    exact(p, "rt_sigpending", 12, |p, b| p.call(127, &[b, 8]));
    exact(p, "rt_sigaction", 40, |p, b| p.call(13, &[10, 0, b, 8]));
    exact(p, "get_robust_list", 20, |p, b| p.call(274, &[0, b, b + 8]));
    let timer = p.call(283, &[0, 0]) as u64;
    exact(p, "timerfd_gettime", 40, |p, b| p.call(287, &[timer, b]));
    exact(p, "timer_create", 12, |p, b| {
        let event = p.words(&[0, 1 << 32, 0, 0, 0, 0, 0, 0]);
        p.call(222, &[1, event, b])
    });
    exact(p, "capget", 40, |p, b| {
        let header = p.words(&[0x2008_0522]);
        p.call(125, &[header, b])
    });
    exact(p, "mincore", 8, |p, b| p.call(27, &[b & !4095, 3 * 4096, b]));
    close(p, &[timer]);
}

#[test]
fn terminals() {
    let p = &mut Program::new();
    let name = p.string("/dev/ptmx");
    let master = p.call(2, &[name, 2]);
    if master < 0 {
        return; // no pseudo terminals here
    }
    let master = master as u64;
    exact(p, "TCGETS", 50, |p, b| p.call(16, &[master, 0x5401, b]));
    exact(p, "TCGETS2", 50, |p, b| p.call(16, &[master, 0x802c_542a, b]));
    exact(p, "TIOCGWINSZ", 12, |p, b| p.call(16, &[master, 0x5413, b]));
    exact(p, "TIOCGPTN", 12, |p, b| p.call(16, &[master, 0x8004_5430, b]));
    close(p, &[master]);
}

#[test]
fn children() {
    let p = &mut Program::new();
    let spawn = || std::process::Command::new("true").spawn().unwrap().id();
    exact(p, "wait4", 160, |p, b| p.call(61, &[u64::from(spawn()), b, 0, b + 8]));
    exact(p, "waitid", 280, |p, b| p.call(247, &[1, u64::from(spawn()), b, 4, b + 130]));
}

#[test]
fn a_failed_call_marks_nothing() {
    let p = &mut Program::new();
    let buf = p.undefined(16);
    assert_eq!(p.call(0, &[9999, buf, 16]), -9);
    assert_eq!(v(buf, 16), [shadow::UNDEFINED; 16]);
    assert_eq!(p.reports(), []);
}

#[test]
fn the_rest_of_a_sleep_is_defined_only_when_a_signal_ended_it() {
    use memcheck_rt::context;
    let p = &mut Program::new();
    let (request, rest) = (p.words(&[0, 1]), p.undefined(16));
    assert_eq!(p.call(35, &[request, rest]), 0);
    assert_eq!(v(rest, 16), [shadow::UNDEFINED; 16]);
    crate::after(context::current(), crate::EINTR);
    assert_eq!(v(rest, 16), [0; 16]);
    assert_eq!(p.reports(), []);
}

#[test]
fn bytes_that_are_not_the_programs_stay_so() {
    let p = &mut Program::new();
    let ends = pipe(p);
    let text = p.bytes(b"0123456789");
    p.call(1, &[ends[1], text, 10]);
    let block = p.block(4);
    p.call(0, &[ends[0], block - 2, 8]);
    let seen = p.reports();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].name.as_str(), seen[0].flag, seen[0].addr), ("read(buf)", 1, block - 2));
    let ff = shadow::UNDEFINED;
    assert_eq!(v(block - 2, 8), [ff, ff, 0, 0, 0, 0, ff, ff]);
    close(p, &ends);
}
