//! What users are told of calls that are no errors of memory, in the cases in which Valgrind 3.19 tells it.
//!
//! Deliberately absent: descriptors that are possible but not open; the kernel's EBADF says that to the program.
#![allow(unsafe_code, reason = "asks for the limit of descriptors")]

use crate::EBADF;
use crate::call::Call;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use memcheck_abi::event::Warning;
use memcheck_rt::{report, sys};

/// Which numbers of descriptors a call can be given.
#[derive(Clone, Copy, PartialEq)]
enum Limit {
    /// Those of descriptors that are open.
    Hard,
    /// Those that a new one can have.
    Soft,
}
use Limit::{Hard, Soft};

/// Call, argument, and how the call is named. The first argument of a call that is wrong is told.
#[rustfmt::skip] // one argument per line
const DESCRIPTORS: &[(u64, usize, Limit, &str)] = &[
    (0, 0, Hard, "read"),
    (1, 0, Hard, "write"),
    (3, 0, Hard, "close"),
    (19, 0, Hard, "readv"),
    (20, 0, Hard, "writev"),
    (33, 1, Soft, "dup2"),
    (187, 0, Hard, "readahead"),
    (242, 0, Hard, "mq_timedsend"),
    (243, 0, Hard, "mq_timedreceive"),
    (244, 0, Hard, "mq_notify"),
    (245, 0, Hard, "mq_getsetattr"),
    (257, 0, Hard, "openat"),
    (275, 0, Hard, "splice(fd_in)"),
    (275, 2, Hard, "splice(fd_out)"),
    (276, 0, Hard, "tee(fd_in)"),
    (276, 1, Hard, "tee(fd_out)"),
    (277, 0, Hard, "sync_file_range"),
    (278, 0, Hard, "vmsplice(fd)"),
    (285, 0, Hard, "fallocate"),
    (286, 0, Hard, "timerfd_settime"),
    (287, 0, Hard, "timerfd_gettime"),
    (292, 1, Soft, "dup3"),
    (295, 0, Hard, "preadv"),
    (296, 0, Hard, "pwritev"),
    (326, 0, Hard, "copy_file_range(fd_in)"),
    (326, 2, Hard, "copy_file_range(fd_in)"),
    (327, 0, Hard, "preadv2"),
    (328, 0, Hard, "pwritev2"),
];

/// The call failed: for a descriptor that no process can have?
#[cold]
pub fn descriptor(c: &Call, number: u64) {
    if c.result != EBADF {
        return;
    }
    let arguments = DESCRIPTORS.iter().filter(|row| row.0 == number).map(|row| (c.args[row.1] as i32, row.2, row.3));
    if let Some((fd, _, name)) = { arguments }.find(|&(fd, limit, _)| fd < 0 || fd as u64 >= most(limit)) {
        report::warn(Warning::Descriptor, [fd as u64, name.as_ptr() as u64, name.len() as u64]);
    }
}

fn most(limit: Limit) -> u64 {
    const PRLIMIT64: u64 = 302;
    const RLIMIT_NOFILE: u64 = 7;
    let mut limits = [u64::MAX; 2];
    // SAFETY: asks for a limit of this process, into a structure of ours.
    unsafe { sys::syscall6(PRLIMIT64, 0, RLIMIT_NOFILE, 0, limits.as_mut_ptr() as u64, 0, 0) };
    limits[usize::from(limit == Hard)]
}

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const LAST_SIGNAL: i32 = 64;

/// An action is going to be asked for or set; `handler` of the new one, if there is one.
pub fn action(signal: i32, handler: Option<u64>) {
    if !(1..=LAST_SIGNAL).contains(&signal) {
        report::warn(Warning::NoSignal, [signal as u64, 0, 0]);
    } else if matches!(signal, SIGKILL | SIGSTOP) && handler.is_some_and(|handler| handler != 0) {
        report::warn(Warning::Uncatchable, [signal as u64, 0, 0]);
    }
}

/// Requests that were told of; 0 = room for one.
static IOCTLS: [AtomicU32; 10] = [const { AtomicU32::new(0) }; 10];

/// What this request reads and writes is not known. Each is told once, and only the first few.
#[cold]
pub fn ioctl(request: u32) {
    for slot in &IOCTLS {
        match slot.compare_exchange(0, request, Relaxed, Relaxed) {
            Ok(_) => return report::warn(Warning::Ioctl, [request.into(), 0, 0]),
            Err(known) if known == request => return,
            Err(_) => {}
        }
    }
}
