//! Null pointers where the kernel wants none.
//!
//! Null mostly means "not given", so it is only looked for when a call failed with EFAULT and no other argument explains that, and only
//! in the arguments that the kernel needs. Strings are looked at by `Call` itself.
//!
//! Deliberately absent: calls that are made with null to learn whether they exist (statx by Rust's library, seccomp and prctl with a
//! filter, clone3, bpf), and futex, whose words a legal call may name when they are gone.

use crate::call::Call;
use crate::row::{self, Row, Rule};

/// Instead of an argument's number: the row's code is run, and tells of what it finds to be null.
const CODE: u8 = 6;

/// Names of rows, and the arguments that are needed.
#[rustfmt::skip] // one kind per line
const NEEDED: &[(&[&str], &[u8])] = &[
    // Buffers and vectors of them.
    (&["read", "write", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2"], &[1]),
    (&["getrandom", "getcwd", "uname", "sysinfo", "pipe", "pipe2", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait"], &[0]),
    (&["getdents", "getdents64", "readlink", "listxattr", "llistxattr", "flistxattr", "epoll_wait", "epoll_pwait"], &[1]),
    (&["readlinkat", "setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr"], &[2]),
    (&["process_vm_readv", "process_vm_writev"], &[1, 3]),
    // Structures.
    (&["stat", "fstat", "lstat", "statfs", "fstatfs", "getrlimit", "setrlimit", "getrusage", "getgroups", "setgroups"], &[1]),
    (&["fstatat", "sched_getaffinity", "sched_setaffinity"], &[2]),
    (&["sched_rr_get_interval", "clock_gettime", "clock_settime", "timer_gettime", "timerfd_gettime"], &[1]),
    (&["timer_create", "timer_settime", "timerfd_settime", "clock_nanosleep"], &[2]),
    (&["nanosleep", "capget"], &[0]),
    (&["getresuid", "getresgid"], &[0, 1, 2]),
    (&["get_robust_list"], &[1, 2]),
    (&["sys_signalfd", "sys_signalfd4", "semop", "semtimedop"], &[1]),
    (&["io_getevents", "socketpair", "name_to_handle_at"], &[3]),
    (&["sendto"], &[1]),
    // What the pointer is for depends on another argument, or it is one of several parts.
    (&["recvfrom", "msgsnd", "msgrcv"], &[1, CODE]),
    (&["capset"], &[0, CODE]),
    (&["accept", "accept4", "getsockname", "getpeername", "getsockopt"], &[CODE]),
    (&["fcntl", "ioctl", "poll", "ppoll", "epoll_ctl", "getitimer", "mincore", "vmsplice", "shmctl", "semctl", "msgctl"], &[CODE]),
];

/// A call failed with EFAULT, and nothing was found that explains it.
#[cold]
pub fn look_for_null(c: &mut Call, row: &Row) {
    for (_, arguments) in NEEDED.iter().filter(|(names, _)| names.contains(&row.name)) {
        c.null_is_bad = true;
        row::run_some(c, row.rules, |rule| arguments.contains(&argument(rule)));
    }
}

fn argument(rule: &Rule) -> u8 {
    match *rule {
        Rule::In(a, ..) | Rule::Out(a, ..) | Rule::Set(a, ..) | Rule::InOut(a, ..) => a,
        Rule::Str(a, _) | Rule::Data(a, ..) | Rule::Room(a, ..) | Rule::IovIn(a, ..) | Rule::IovOut(a, ..) => a,
        Rule::Do(_) | Rule::Pre(_) | Rule::Post(_) | Rule::Fail(_) => CODE,
    }
}

#[cfg(test)]
mod tests {
    use super::{NEEDED, argument};
    use crate::table::find;
    use std::vec::Vec;

    #[test]
    fn every_name_is_that_of_a_row_with_such_rules() {
        let rows: Vec<_> = (0..500).filter_map(find).collect();
        for (names, arguments) in NEEDED {
            for name in *names {
                let row = rows.iter().find(|row| row.name == *name).unwrap_or_else(|| panic!("{name}"));
                assert!(arguments.iter().all(|a| row.rules.iter().any(|rule| argument(rule) == *a)), "{name}");
                let times = NEEDED.iter().flat_map(|(names, _)| names.iter()).filter(|other| *other == name).count();
                assert_eq!(times, 1, "{name}");
            }
        }
    }
}
