//! Requests about the state of memory.
//!
//! | request | shadow |
//! |---|---|
//! | make no-access, undefined, defined | A and V set |
//! | check | first bad byte, reported as an error of kind User |
//! | get, set V bits | V copied from or to memory of the program; 1 = undefined, as in V bytes |
//!
//! On the stack that the thread runs on, addressability is decided by the stack pointer, and stores that surely go there do not ask. When a
//! program forbids part of a stack for the first time, its code is translated anew, so that they do.
#![allow(unsafe_code, reason = "V bits are copied to memory of the program; origin words are reached by address")]

use crate::cache::CACHE;
use crate::{origin, startup};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::event::{Kind, MAX_FRAMES};
use memcheck_abi::layout::{FORBIDDEN_END, FORBIDDEN_START, ORIGIN_DISTANCE, PROGRAM_END};
use memcheck_kernel::{check, space};
use memcheck_rt::access::Bad;
use memcheck_rt::sync::Lock;
use memcheck_rt::{access, callstack, depot, report, shadow, sys};

/// Origin kinds, see `origin`.
pub const HEAP: u32 = 1;
const CLIENT: u32 = 3;
/// In longer ranges origins are not written: the words take as much memory as the range.
const MAX_ORIGINS: u64 = 256 << 20;

/// The parts of a range that have shadow: below and above the forbidden range.
fn parts(addr: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = addr.saturating_add(len);
    [(0, FORBIDDEN_START), (FORBIDDEN_END, PROGRAM_END)].into_iter().filter_map(move |(low, high)| {
        let (low, high) = (low.max(addr), high.min(end));
        (low < high).then(|| (low, high - low))
    })
}

pub fn make_defined(addr: u64, len: u64) {
    parts(addr, len).for_each(|(at, n)| shadow::make_defined(at, n));
}

pub fn make_undefined(ctx: &ThreadContext, addr: u64, len: u64) {
    parts(addr, len).for_each(|(at, n)| shadow::make_undefined(at, n));
    set_origin(ctx, addr, len, CLIENT);
}

/// No-access.
pub fn forbid(addr: u64, len: u64) {
    parts(addr, len).for_each(|(at, n)| access::forbid(at, n));
}

/// After a request: are there marks on a stack that no translation knows of?
pub fn follow_marks() {
    static FOLLOWED: AtomicBool = AtomicBool::new(false);
    if access::STACK_MARKS.load(Ordering::Relaxed) && !FOLLOWED.swap(true, Ordering::Relaxed) {
        CACHE.lock().ask_on_stack();
    }
}

pub fn make_defined_if_addressable(ctx: &ThreadContext, addr: u64, len: u64) {
    parts(addr, len).for_each(|(at, n)| check::mark_defined(ctx, ctx.regs.gpr[RSP], at, n));
}

/// Undefined values in the range come from here.
pub fn set_origin(ctx: &ThreadContext, addr: u64, len: u64, kind: u32) {
    if len == 0 || len > MAX_ORIGINS || startup::config().track_origins == 0 {
        return;
    }
    let tag = stack(ctx) << 2 | kind;
    memcheck_rt::origins::note(addr, len);
    for (at, n) in parts(addr, len).filter(|(at, n)| origin::covered(at + n)) {
        for word in (at & !3..at + n).step_by(4) {
            // SAFETY: inside the origin range, which is mapped; program addresses up to `covered` have words.
            unsafe { *((word + ORIGIN_DISTANCE) as *mut u32) = tag };
        }
    }
}

/// Depot id of the stack at the request.
fn stack(ctx: &ThreadContext) -> u32 {
    let mut frames = [0; MAX_FRAMES];
    let limit = report::num_callers().min(MAX_FRAMES);
    let n = callstack::capture(ctx, ctx.regs.rip, ctx.regs.gpr[RSP], &mut frames[..limit]);
    depot::intern(&frames[..n])
}

/// First byte of the range that the program must not touch, or that is not there.
pub fn first_unaddressable(ctx: &ThreadContext, addr: u64, len: u64) -> Option<u64> {
    let sp = ctx.regs.gpr[RSP];
    let end = addr.saturating_add(len);
    let mut there = addr;
    while there < end {
        let next = space::present_end(there, sp);
        if next <= there {
            break;
        }
        there = next;
    }
    let there = there.min(end);
    let bad = if there > addr { check::first_unaddressable(ctx, sp, addr, there - addr) } else { None };
    bad.or((there < end).then_some(there))
}

fn first_undefined(ctx: &ThreadContext, addr: u64, len: u64) -> Option<u64> {
    let end = addr.saturating_add(len);
    let mut at = addr;
    while at < end {
        match access::first_bad(ctx, ctx.regs.gpr[RSP], at, end - at)? {
            Bad::Undefined(bad) => return Some(bad),
            Bad::Unaddressable(bad) => at = bad + 1,
        }
    }
    None
}

fn complain(ctx: &ThreadContext, at: u64, unaddressable: bool) {
    report::raise(Kind::User, ctx.regs.rip, ctx.regs.gpr[RSP], |e| {
        (e.addr, e.has_addr, e.flag) = (at, 1, unaddressable.into());
        if !unaddressable {
            origin::describe(e, at);
        }
    });
}

/// 0, or the first bad address.
pub fn check_addressable(ctx: &ThreadContext, addr: u64, len: u64) -> u64 {
    let Some(bad) = first_unaddressable(ctx, addr, len) else { return 0 };
    complain(ctx, bad, true);
    bad
}

/// First byte that the program must not touch, first that is undefined. What lies behind a byte that is out of bounds is not asked for, but
/// the other way round it is.
pub fn first_bad(ctx: &ThreadContext, addr: u64, len: u64) -> (Option<u64>, Option<u64>) {
    let unaddressable = first_unaddressable(ctx, addr, len);
    let end = addr.saturating_add(len);
    let wanted = startup::config().undef_value_errors != 0;
    let undefined = parts(addr, end - addr).find_map(|(at, n)| first_undefined(ctx, at, n)).filter(|_| wanted);
    (unaddressable, undefined.filter(|at| unaddressable.is_none_or(|bad| *at < bad)))
}

/// 0, or the first bad address; what is undefined and what is unaddressable are two errors.
pub fn check_defined(ctx: &ThreadContext, addr: u64, len: u64) -> u64 {
    let (unaddressable, undefined) = first_bad(ctx, addr, len);
    if let Some(at) = undefined {
        complain(ctx, at, false);
    }
    if let Some(at) = unaddressable {
        complain(ctx, at, true);
    }
    [undefined, unaddressable].into_iter().flatten().min().unwrap_or(0)
}

/// Answers of the two V bit requests.
const DONE: u64 = 1;
const BAD_ADDRESS: u64 = 3;

/// Copy the V bits of `[addr, addr + len)` to the bytes at `to`.
pub fn get_v(ctx: &ThreadContext, addr: u64, to: u64, len: u64) -> u64 {
    if first_unaddressable(ctx, addr, len).is_some() || first_unaddressable(ctx, to, len).is_some() {
        return BAD_ADDRESS;
    }
    let mut bits = [0; 512];
    for at in (0..len).step_by(bits.len()) {
        let piece = &mut bits[..(len - at).min(512) as usize];
        shadow::read_v(addr + at, piece);
        for (i, v) in piece.iter_mut().enumerate().filter(|(_, v)| **v != 0) {
            if callstack::is_mark(addr + at + i as u64) {
                *v = 0;
            }
        }
        write(to + at, piece);
    }
    DONE
}

/// The opposite.
pub fn set_v(ctx: &ThreadContext, addr: u64, from: u64, len: u64) -> u64 {
    if first_unaddressable(ctx, addr, len).is_some() || first_unaddressable(ctx, from, len).is_some() {
        return BAD_ADDRESS;
    }
    let mut bits = [0; 512];
    for at in (0..len).step_by(bits.len()) {
        let piece = &mut bits[..(len - at).min(512) as usize];
        if !sys::read_guarded(from + at, piece) {
            return BAD_ADDRESS;
        }
        shadow::write_v(addr + at, piece);
    }
    set_origin(ctx, addr, len, CLIENT);
    DONE
}

/// Write to memory of the program, if it is there; the bytes are defined then.
pub fn write(addr: u64, bytes: &[u8]) -> bool {
    const PROCESS_VM_WRITEV: u64 = 311;
    let local = [bytes.as_ptr() as u64, bytes.len() as u64];
    let remote = [addr, bytes.len() as u64];
    if !check::has_shadow(addr, bytes.len() as u64) {
        return false;
    }
    // SAFETY: the kernel checks the target; it is memory of the program, which asked for the write.
    let written = unsafe {
        let pid = sys::syscall3(sys::nr::GETPID, 0, 0, 0) as u64;
        sys::syscall6(PROCESS_VM_WRITEV, pid, local.as_ptr() as u64, 1, remote.as_ptr() as u64, 1, 0)
    };
    let done = written == bytes.len() as i64;
    if done {
        shadow::fill_v(addr, bytes.len() as u64, shadow::DEFINED);
    }
    done
}

/// Append the string at `addr` to `out`, without its NUL, up to `most` bytes or where memory ends.
pub fn read_string(addr: u64, most: usize, out: &mut Vec<u8>) {
    let mut at = addr;
    let mut left = most;
    let mut piece = [0; 256];
    while left > 0 {
        // Never over the end of a page, behind which there may be nothing.
        let n = (256 - (at & 255) as usize).min(left);
        if !sys::read_guarded(at, &mut piece[..n]) {
            return;
        }
        let end = piece[..n].iter().position(|&b| b == 0);
        out.extend_from_slice(&piece[..end.unwrap_or(n)]);
        if end.is_some() {
            return;
        }
        (at, left) = (at.wrapping_add(n as u64), left - n);
    }
}

/// Ranges in which invalid accesses are not reported, disjoint.
static IGNORED: Lock<Vec<(u64, u64)>> = Lock::new(Vec::new());
static ANY: AtomicBool = AtomicBool::new(false);

/// For the time of a fork.
pub fn hold() -> impl Drop {
    IGNORED.lock()
}

/// Hook of `rt::report`.
pub fn is_ignored(addr: u64) -> bool {
    ANY.load(Ordering::Relaxed) && IGNORED.lock().iter().any(|&(start, end)| addr >= start && addr < end)
}

/// What remains of `ranges` without `[start, end)`.
fn without(ranges: &[(u64, u64)], start: u64, end: u64) -> Vec<(u64, u64)> {
    let parts = ranges.iter().flat_map(|&(low, high)| [(low, high.min(start)), (low.max(end), high)]);
    parts.filter(|(low, high)| low < high).collect()
}

/// All of them, sorted, without gaps between neighbours.
pub fn ignored() -> Vec<(u64, u64)> {
    let mut ranges = IGNORED.lock().clone();
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let adjacent = range.1 == next.0;
        range.1 = if adjacent { next.1 } else { range.1 };
        adjacent
    });
    ranges
}

pub fn ignore(addr: u64, len: u64) -> u64 {
    let mut ranges = IGNORED.lock();
    let end = addr.saturating_add(len);
    *ranges = without(&ranges, addr, end);
    ranges.push((addr, end));
    ANY.store(true, Ordering::Relaxed);
    1
}

pub fn report_again(addr: u64, len: u64) -> u64 {
    let mut ranges = IGNORED.lock();
    *ranges = without(&ranges, addr, addr.saturating_add(len));
    1
}

#[cfg(test)]
mod tests {
    use super::{parts, without};
    use memcheck_abi::layout::{FORBIDDEN_END, FORBIDDEN_START, PROGRAM_END};

    #[test]
    fn ranges_without_a_part() {
        let ranges = [(10, 20), (30, 40)];
        assert_eq!(without(&ranges, 15, 35), [(10, 15), (35, 40)]);
        assert_eq!(without(&ranges, 12, 14), [(10, 12), (14, 20), (30, 40)]);
        assert_eq!(without(&ranges, 0, 100), []);
        assert_eq!(without(&ranges, 20, 30), ranges);
    }

    #[test]
    fn the_branch_table_is_left_out() {
        let all: alloc::vec::Vec<_> = parts(0, u64::MAX).collect();
        assert_eq!(all, [(0, FORBIDDEN_START), (FORBIDDEN_END, PROGRAM_END - FORBIDDEN_END)]);
        assert_eq!(parts(FORBIDDEN_START, 4096).count(), 0);
        assert_eq!(parts(0x1000, 0).count(), 0);
    }
}
