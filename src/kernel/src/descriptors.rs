//! Where descriptors were opened, for `--track-fds`.
//!
//! A table by number: the stack of the call that made the descriptor, and how many were made before it (before its number was first
//! taken, if it was made over an open one). What is still open at the end is asked of the kernel; numbers without an entry were inherited.
//!
//! The table has no lock: a number belongs to the thread that just got it from the kernel, and a fork may happen at any time.
#![allow(unsafe_code, reason = "a table published through an atomic pointer")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::call::{Call, Phase};
use crate::table::network;
use memcheck_abi::context::RSP;
use memcheck_abi::event::{MAX_FRAMES, OpenedFd};
use memcheck_rt::{callstack, depot, report};

/// Descriptors from here on are not remembered.
const MOST: usize = 1 << 16;
const SYSCALL_LEN: u64 = 2;

/// How a call gives or takes descriptors.
#[derive(Clone, Copy)]
enum Effect {
    /// The result is a new one.
    Made,
    /// Two new ones, as ints at this argument.
    Pair(usize),
    /// `fcntl`: the result, if it duplicates.
    Fcntl,
    /// Those in the control messages of the header at argument 1, or of as many as the result says.
    Message,
    Messages,
    /// Argument 0 is gone.
    Closed,
    /// Arguments 0 to 1 are gone.
    ClosedRange,
}

#[rustfmt::skip]
const EFFECTS: &[(u64, Effect)] = &[
    (2, Effect::Made), // open
    (3, Effect::Closed), // close
    (22, Effect::Pair(0)), // pipe
    (32, Effect::Made), (33, Effect::Made), (292, Effect::Made), // dup, dup2, dup3
    (41, Effect::Made), (43, Effect::Made), (288, Effect::Made), // socket, accept, accept4
    (47, Effect::Message), (299, Effect::Messages), // recvmsg, recvmmsg
    (53, Effect::Pair(3)), // socketpair
    (72, Effect::Fcntl), // fcntl
    (85, Effect::Made), // creat
    (213, Effect::Made), (291, Effect::Made), // epoll_create, epoll_create1
    (240, Effect::Made), // mq_open
    (253, Effect::Made), (294, Effect::Made), // inotify_init, inotify_init1
    (257, Effect::Made), (304, Effect::Made), (437, Effect::Made), // openat, open_by_handle_at, openat2
    (282, Effect::Made), (289, Effect::Made), // signalfd, signalfd4
    (283, Effect::Made), // timerfd_create
    (284, Effect::Made), (290, Effect::Made), // eventfd, eventfd2
    (293, Effect::Pair(0)), // pipe2
    (298, Effect::Made), // perf_event_open
    (300, Effect::Made), // fanotify_init
    (319, Effect::Made), // memfd_create
    (323, Effect::Made), // userfaultfd
    (425, Effect::Made), // io_uring_setup
    (434, Effect::Made), (438, Effect::Made), // pidfd_open, pidfd_getfd
    (436, Effect::ClosedRange), // close_range
];

const ORDER: u64 = !0 << 32;

/// Entries are order << 32 | stack, order counting from 1; null while nobody wants to know.
static TABLE: AtomicPtr<[AtomicU64; MOST]> = AtomicPtr::new(core::ptr::null_mut());
static MADE: AtomicU32 = AtomicU32::new(0);

/// Remember from now on. Once.
pub fn init() {
    let table: Vec<AtomicU64> = (0..MOST).map(|_| AtomicU64::new(0)).collect();
    if let Ok(table) = Box::<[AtomicU64; MOST]>::try_from(table.into_boxed_slice()) {
        TABLE.store(Box::leak(table), Ordering::Release);
    }
}

fn table() -> Option<&'static [AtomicU64; MOST]> {
    let table = TABLE.load(Ordering::Acquire);
    // SAFETY: leaked by `init`, or null.
    unsafe { table.as_ref() }
}

/// A call with this number has returned.
#[inline(always)]
pub fn note(c: &mut Call, number: u64) {
    if let (Some(table), Phase::Mark) = (table(), c.phase) {
        apply(table, c, number);
    }
}

#[cold]
fn apply(table: &[AtomicU64; MOST], c: &mut Call, number: u64) {
    let Some((_, effect)) = EFFECTS.iter().find(|(nr, _)| *nr == number) else { return };
    let set = |fd: i64, entry: u64| {
        if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| table.get(fd)) {
            let order = match slot.load(Ordering::Relaxed) & ORDER {
                0 => entry & ORDER,
                before => before,
            };
            slot.store(if entry == 0 { 0 } else { order | entry & !ORDER }, Ordering::Relaxed);
        }
    };
    match *effect {
        Effect::Made => set(c.result, entry(c)),
        Effect::Fcntl if is_duplicate(c.args[1]) => set(c.result, entry(c)),
        Effect::Fcntl => {}
        Effect::Pair(at) => {
            let both: u64 = c.peek_or_zero(c.args[at]);
            set(both as i32 as i64, entry(c));
            set((both >> 32) as i32 as i64, entry(c));
        }
        Effect::Message => network::passed_descriptors(c, c.args[1], |c, fd| set(fd.into(), entry(c))),
        Effect::Messages => {
            for i in 0..c.result as u64 {
                let header = c.args[1].wrapping_add(i * network::MMSG_SIZE);
                network::passed_descriptors(c, header, |c, fd| set(fd.into(), entry(c)));
            }
        }
        Effect::Closed => set(c.args[0] as i32 as i64, 0),
        Effect::ClosedRange => {
            const MARK_ONLY: u64 = 4; // CLOSE_RANGE_CLOEXEC
            let last = (c.args[1] as u32).min(MOST as u32 - 1);
            if c.args[2] & MARK_ONLY == 0 {
                (c.args[0] as u32..=last).for_each(|fd| set(fd.into(), 0));
            }
        }
    }
}

fn is_duplicate(command: u64) -> bool {
    const DUPFD: u64 = 0;
    const DUPFD_CLOEXEC: u64 = 1030;
    matches!(command & 0xffff_ffff, DUPFD | DUPFD_CLOEXEC)
}

fn entry(c: &Call) -> u64 {
    let mut frames = [0; MAX_FRAMES];
    let limit = report::num_callers().min(MAX_FRAMES);
    let pc = c.ctx.regs.rip.wrapping_sub(SYSCALL_LEN);
    let n = callstack::capture(c.ctx, pc, c.ctx.regs.gpr[RSP], &mut frames[..limit]);
    u64::from(MADE.fetch_add(1, Ordering::Relaxed) + 1) << 32 | u64::from(depot::intern(&frames[..n]))
}

/// What is known about descriptors that may be open, in the order in which they were made.
pub fn opened() -> Vec<OpenedFd> {
    let Some(table) = table() else { return Vec::new() };
    let entries = table.iter().zip(0..).map(|(slot, fd)| (slot.load(Ordering::Relaxed), fd));
    let mut known: Vec<(u64, i32)> = entries.filter(|(entry, _)| *entry != 0).collect();
    known.sort_unstable();
    known.into_iter().map(|(entry, fd)| OpenedFd { fd, stack: entry as u32 }).collect()
}
