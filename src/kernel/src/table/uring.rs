//! io_uring: what each entry of a submission ring makes the kernel read and write.
//!
//! Results arrive later, at a moment that no call needs to tell, so what an entry lets the kernel fill counts as defined from the
//! submission on. What it reads is checked then, too.
//!
//! ```text
//! struct io_uring_sqe: opcode 1, flags 1, priority 2, descriptor 4, second address 8, address 8, length 4, operation's flags 4, ...
//! ```
//!
//! Refused, as an older kernel or one that is less permissive would: rings that the kernel polls (their entries are never announced),
//! rings in memory of the program's, rings that change their size, entries of mixed sizes.

use super::network;
use crate::action::Action;
use crate::call::{Call, Name, Phase};
use crate::row::Rule::Do;
use crate::row::{Row, fill_iov, for_iov, iov_bytes, row};
use crate::space::{self, rings};
use crate::{EINVAL, EPERM};

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    row(425, "io_uring_setup", "entries:4 params", &[Do(setup)]).act(setup_allowed),
    row(426, "io_uring_enter", "fd:4 to_submit:4 min_complete:4 flags:4 sig sigsz", &[Do(enter)]).uses(enter_uses),
    row(427, "io_uring_register", "fd:4 opcode:4 arg nr_args:4", &[Do(register)]).act(register_allowed),
];

const PARAMS: u64 = 120;
const SETUP_FLAGS_AT: u64 = 8;

mod setup_flag {
    pub const SQPOLL: u32 = 1 << 1;
    pub const NO_MMAP: u32 = 1 << 14;
    pub const REGISTERED_FD_ONLY: u32 = 1 << 15;
    /// The last that is understood here.
    pub const HYBRID_IOPOLL: u32 = 1 << 17;
}

fn setup_allowed(c: &mut Call) -> Action {
    use setup_flag::{HYBRID_IOPOLL, NO_MMAP, REGISTERED_FD_ONLY, SQPOLL};
    let flags: u32 = c.peek_or_zero(c.args[1].wrapping_add(SETUP_FLAGS_AT));
    if flags & (NO_MMAP | REGISTERED_FD_ONLY) != 0 || flags >= 2 * HYBRID_IOPOLL {
        Action::Done(EINVAL)
    } else if flags & SQPOLL != 0 {
        Action::Done(EPERM)
    } else {
        Action::Native
    }
}

fn setup(c: &mut Call) {
    c.both(c.args[1], PARAMS, "io_uring_setup(params)");
    if c.phase == Phase::Mark {
        rings::made(c, c.args[1]);
    }
}

const GETEVENTS: u64 = 1;
const EXT_ARG: u64 = 8;
/// The argument is no address, but an offset in memory that was registered for this.
const EXT_ARG_REG: u64 = 64;

fn enter_uses(a: &[u64; 6]) -> u8 {
    if a[3] & (GETEVENTS | EXT_ARG) != 0 { 0x3f } else { 0xf }
}

fn enter(c: &mut Call) {
    let [_, _, _, flags, sig, size] = c.args;
    if flags & (GETEVENTS | EXT_ARG_REG) == GETEVENTS && c.phase != Phase::Mark {
        c.input(sig, size.min(64), "io_uring_enter(sig)");
    }
    if matches!(c.phase, Phase::Check | Phase::Mark) {
        lent(c);
    }
    if c.phase == Phase::Check {
        while let Some(entry) = rings::next_entry(c) {
            submitted(c, entry);
        }
    }
}

fn lent(c: &mut Call) {
    while let Some((at, len)) = rings::next_lent(c) {
        c.mark(at, len);
    }
}

/// The entry's fields that have to do with memory.
struct Entry {
    fd: u64,
    second: u64,
    address: u64,
    len: u64,
    flags: u32,
    third: u64,
    /// The kernel chooses the buffer among those that were lent; the entry's own is none.
    selects: bool,
}

#[derive(Clone, Copy)]
enum At {
    Address,
    Second,
    Third,
}

#[derive(Clone, Copy)]
enum Bytes {
    Fix(u64),
    /// The entry's length times so much.
    Len(u64),
    /// The length is where another address might be.
    Second,
    /// So many buffers of that length.
    Buffers,
}

enum Piece {
    Reads(At, Bytes),
    Fills(At, Bytes),
    Path(At),
    ReadsVector,
    FillsVector,
    Other(fn(&mut Call, &Entry)),
}

use At::{Address, Second, Third};
use Bytes::{Buffers, Fix, Len};
use Piece::{Fills, FillsVector, Other, Path, Reads, ReadsVector};

/// Opcode, name in reports, memory.
type Operation = (u8, &'static str, &'static [Piece]);

#[rustfmt::skip] // one operation per line
const OPERATIONS: &[Operation] = &[
    (1, "io_uring_enter(READV)", &[FillsVector]),
    (2, "io_uring_enter(WRITEV)", &[ReadsVector]),
    (4, "io_uring_enter(READ_FIXED)", &[Fills(Address, Len(1))]),
    (5, "io_uring_enter(WRITE_FIXED)", &[Reads(Address, Len(1))]),
    (9, "io_uring_enter(SENDMSG)", &[Other(|c, e| if !e.selects { network::send_by_ring(c, e.address) })]),
    (10, "io_uring_enter(RECVMSG)", &[Other(|c, e| network::receive_by_ring(c, e.address, e.selects))]),
    (11, "io_uring_enter(TIMEOUT)", &[Reads(Address, Fix(16))]),
    (12, "io_uring_enter(TIMEOUT_REMOVE)", &[Other(timeout_update)]),
    (13, "io_uring_enter(ACCEPT)", &[Other(accept)]),
    (15, "io_uring_enter(LINK_TIMEOUT)", &[Reads(Address, Fix(16))]),
    (16, "io_uring_enter(CONNECT)", &[Reads(Address, Bytes::Second)]),
    (18, "io_uring_enter(OPENAT)", &[Path(Address)]),
    (20, "io_uring_enter(FILES_UPDATE)", &[Reads(Address, Len(4)), Fills(Address, Len(4))]),
    (21, "io_uring_enter(STATX)", &[Path(Address), Fills(Second, Fix(256))]),
    (22, "io_uring_enter(READ)", &[Fills(Address, Len(1))]),
    (23, "io_uring_enter(WRITE)", &[Reads(Address, Len(1))]),
    (25, "io_uring_enter(MADVISE)", &[Other(madvise)]),
    (26, "io_uring_enter(SEND)", &[Reads(Address, Len(1))]),
    (27, "io_uring_enter(RECV)", &[Fills(Address, Len(1))]),
    (28, "io_uring_enter(OPENAT2)", &[Path(Address), Reads(Second, Len(1))]),
    (29, "io_uring_enter(EPOLL_CTL)", &[Other(epoll_ctl)]),
    (31, "io_uring_enter(PROVIDE_BUFFERS)", &[Fills(Address, Buffers)]),
    (35, "io_uring_enter(RENAMEAT)", &[Path(Address), Path(Second)]),
    (36, "io_uring_enter(UNLINKAT)", &[Path(Address)]),
    (37, "io_uring_enter(MKDIRAT)", &[Path(Address)]),
    (38, "io_uring_enter(SYMLINKAT)", &[Path(Address), Path(Second)]),
    (39, "io_uring_enter(LINKAT)", &[Path(Address), Path(Second)]),
    (41, "io_uring_enter(FSETXATTR)", &[Path(Address), Reads(Second, Len(1))]),
    (42, "io_uring_enter(SETXATTR)", &[Path(Address), Reads(Second, Len(1)), Path(Third)]),
    (43, "io_uring_enter(FGETXATTR)", &[Path(Address), Fills(Second, Len(1))]),
    (44, "io_uring_enter(GETXATTR)", &[Path(Address), Fills(Second, Len(1)), Path(Third)]),
    (47, "io_uring_enter(SEND_ZC)", &[Reads(Address, Len(1))]),
    (48, "io_uring_enter(SENDMSG_ZC)", &[Other(|c, e| if !e.selects { network::send_by_ring(c, e.address) })]),
    (50, "io_uring_enter(WAITID)", &[Fills(Second, Fix(128))]),
    (53, "io_uring_enter(FUTEX_WAITV)", &[Reads(Address, Len(24))]),
    (56, "io_uring_enter(BIND)", &[Reads(Address, Bytes::Second)]),
    (59, "io_uring_enter(EPOLL_WAIT)", &[Fills(Address, Len(12))]),
    (60, "io_uring_enter(READV_FIXED)", &[FillsVector]),
    (61, "io_uring_enter(WRITEV_FIXED)", &[ReadsVector]),
    (62, "io_uring_enter(PIPE)", &[Fills(Address, Fix(8))]),
];

const BUFFER_SELECT: u8 = 1 << 5;

fn submitted(c: &mut Call, at: u64) {
    let Some([first, second]) = c.peek::<[u64; 2]>(at) else { return };
    let [address, len_and_flags] = c.peek_or_zero::<[u64; 2]>(at + 16);
    let [opcode, flags, ..] = first.to_le_bytes();
    let entry = Entry {
        fd: first >> 32,
        second,
        address,
        len: len_and_flags & 0xffff_ffff,
        flags: (len_and_flags >> 32) as u32,
        third: c.peek_or_zero(at + 48),
        selects: flags & BUFFER_SELECT != 0,
    };
    let Some((_, name, pieces)) = OPERATIONS.iter().find(|row| row.0 == opcode) else { return };
    for piece in *pieces {
        apply(c, &entry, piece, name);
    }
}

fn apply(c: &mut Call, e: &Entry, piece: &Piece, name: &'static str) {
    let at = |at: At| match at {
        At::Address => e.address,
        At::Second => e.second,
        At::Third => e.third,
    };
    let bytes = |bytes: Bytes| match bytes {
        Fix(n) => n,
        Len(n) => e.len * n,
        Bytes::Second => e.second.min(128),
        Buffers => e.len * e.fd,
    };
    match *piece {
        Reads(..) | Fills(_, Len(_)) | ReadsVector | FillsVector if e.selects => {}
        Reads(a, n) => c.input(at(a), bytes(n), name),
        Fills(a, n) => filled_later(c, |c| c.output(at(a), bytes(n), name)),
        Path(a) => c.string(at(a), name),
        ReadsVector => {
            c.input(e.address, iov_bytes(e.len), name);
            for_iov(c, e.address, e.len, |c, _, base, len| c.input(base, len, name));
        }
        FillsVector => {
            c.input(e.address, iov_bytes(e.len), name);
            filled_later(c, |c| fill_iov(c, e.address, e.len, Name::from(name)));
        }
        Other(f) => f(c, e),
    }
}

/// What `f` calls outputs is checked, and defined from now on.
fn filled_later(c: &mut Call, f: impl Fn(&mut Call)) {
    f(c);
    marked(c, f);
}

/// What `f` calls outputs is defined from now on.
pub fn marked(c: &mut Call, f: impl FnOnce(&mut Call)) {
    let result = core::mem::replace(&mut c.result, i64::MAX);
    c.phase = Phase::Mark;
    f(c);
    c.phase = Phase::Check;
    c.result = result;
}

fn timeout_update(c: &mut Call, e: &Entry) {
    const UPDATE: u32 = 1 << 1 | 1 << 4;
    if e.flags & UPDATE != 0 {
        c.input(e.second, 16, "io_uring_enter(TIMEOUT_REMOVE)");
    }
}

fn accept(c: &mut Call, e: &Entry) {
    c.input(e.second, 4, "io_uring_enter(ACCEPT)");
    let room = u64::from(c.peek_or_zero::<u32>(e.second)).min(128);
    filled_later(c, |c| c.output(e.address, room, "io_uring_enter(ACCEPT)"));
}

fn madvise(c: &mut Call, e: &Entry) {
    let len = if e.second != 0 { e.second } else { e.len };
    if space::empties(u64::from(e.flags)) {
        c.mark(e.address, len);
    }
}

/// The operation is where the length might be.
fn epoll_ctl(c: &mut Call, e: &Entry) {
    const DEL: u64 = 2;
    if e.len != DEL {
        c.input(e.address, 4, "io_uring_enter(EPOLL_CTL)");
    }
}

mod registered {
    pub const BUFFERS: u64 = 0;
    pub const FILES: u64 = 2;
    pub const EVENT: u64 = 4;
    pub const ASYNC_EVENT: u64 = 7;
    pub const PROBE: u64 = 8;
    pub const MAX_WORKERS: u64 = 19;
    pub const RING_FDS: u64 = 20;
    pub const LEND: u64 = 22;
    pub const TAKE_BACK: u64 = 23;
    pub const LENT_STATUS: u64 = 26;
    pub const NAPI: u64 = 27;
    pub const NO_NAPI: u64 = 28;
    pub const RESIZE: u64 = 33;
    /// The descriptor is the number of a registered one.
    pub const BY_NUMBER: u64 = 1 << 31;
}

fn register_allowed(c: &mut Call) -> Action {
    if c.args[1] & 0xffff_ffff & !registered::BY_NUMBER == registered::RESIZE { Action::Done(EINVAL) } else { Action::Native }
}

fn register(c: &mut Call) {
    let [fd, operation, arg, ..] = c.args;
    let count = c.count(3);
    match operation & 0xffff_ffff & !registered::BY_NUMBER {
        registered::BUFFERS => c.input(arg, iov_bytes(count), "io_uring_register(BUFFERS)"),
        registered::FILES => c.input(arg, 4 * count, "io_uring_register(FILES)"),
        registered::EVENT | registered::ASYNC_EVENT => c.input(arg, 4, "io_uring_register(EVENTFD)"),
        registered::PROBE => c.output(arg, 16 + 8 * count, "io_uring_register(PROBE)"),
        registered::MAX_WORKERS => c.both(arg, 8, "io_uring_register(IOWQ_MAX_WORKERS)"),
        registered::RING_FDS => c.both(arg, 16 * count, "io_uring_register(RING_FDS)"),
        registered::LENT_STATUS => c.output(arg, 40, "io_uring_register(PBUF_STATUS)"),
        registered::NAPI | registered::NO_NAPI => c.output(arg, 16, "io_uring_register(NAPI)"),
        registered::LEND => {
            c.input(arg, 16, "io_uring_register(PBUF_RING)");
            if c.phase == Phase::Mark {
                let [at, rest] = c.peek_or_zero::<[u64; 2]>(arg);
                let is_mapped_later = rest >> 48 & 1 != 0;
                rings::lend(fd, (rest >> 32) as u16, if is_mapped_later { 0 } else { at }, rest as u32);
            }
        }
        registered::TAKE_BACK if c.phase == Phase::Mark => {
            let [_, rest] = c.peek_or_zero::<[u64; 2]>(arg);
            rings::take_back(fd, (rest >> 32) as u16);
        }
        _ => {}
    }
}
