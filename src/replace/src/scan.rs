//! Search over data and V shadow in one pass.
//!
//! ```text
//! data    h e l l o 0 ? ?        stop at the first unit that matches (hit) or whose V is not zero (dirt)
//! V       0 0 0 0 0 0 . .
//! ```
//! A hit with V = 0 ends the search; dirt goes to [`Call::judge`] one unit at a time, and the kernel goes on behind it. So a clean
//! string costs one pass and no report can be missed, and an error is reported before a later byte can fault.
//!
//! Page rule: a search loads aligned vectors (and blocks of them) of which C may read at least one byte. So a fault happens exactly
//! where the C function would fault.
//!
//! Memory outside `[0, PROGRAM_END)` has no shadow: plain loops; the tool's own part of it is made to fault ([`shadowed`]).
#![allow(unsafe_code, reason = "vector loads by address")]

use crate::call::Call;
use crate::raw::get;
use crate::unit::{Needle, Nul, One, Unit};
use crate::vector::{Vector, by_width};
use core::arch::x86_64::__m128i;
use memcheck_abi::layout::{PROGRAM_END, V_DISTANCE};

/// End of the tool's own memory, see `layout`.
pub const TOOL_END: u64 = 0x7000_0000_0000;
/// Alignment from which the long loops start: four vectors of the widest kind.
const BLOCK: u64 = 128;

/// Why and where a kernel stopped: byte offset, and whether shadow is not zero there.
struct Stop {
    at: u64,
    dirty: bool,
}

/// Does memory at `addr` have shadow? If it is the tool's own memory, this does not return: it faults as an unmapped address would.
#[inline(always)]
pub fn shadowed(addr: u64) -> bool {
    addr < PROGRAM_END || outside(addr)
}

#[cold]
#[inline(never)]
fn outside(addr: u64) -> bool {
    if (V_DISTANCE & !4095..TOOL_END).contains(&addr) {
        // SAFETY: by the layout nothing is mapped at this distance from tool memory, so the load faults; see `layout`.
        unsafe { core::ptr::read_volatile(addr.wrapping_add(V_DISTANCE) as *const u8) };
    }
    false
}

/// One unit that C reads, and its undefined bits (reports it when it is not addressable).
#[inline(always)]
pub fn unit_at<U: Unit>(call: &mut Call, addr: u64) -> (U, u64) {
    let shadow = shadowed(addr);
    // SAFETY: C reads this unit; V of program memory is mapped.
    let (data, v) = unsafe { (get::<U>(addr), if shadow { get::<U>(addr + V_DISTANCE) } else { U::NUL }) };
    let undefined = if v == U::NUL { 0 } else { call.judge(addr, U::SIZE) };
    (data, undefined)
}

/// First unit of `[s, s + limit)` that matches: its byte offset, or `limit`. `limit` is a multiple of the unit's size.
#[inline(always)]
pub fn find<U: Unit, N: Needle<U>>(call: &mut Call, s: u64, limit: u64, needle: N) -> u64 {
    if limit == 0 {
        return 0;
    }
    if s >= PROGRAM_END || !s.is_multiple_of(U::SIZE) {
        return find_slow::<U, N>(call, s, 0, limit, needle);
    }
    // SAFETY: at least the first byte may be read.
    let stop = unsafe { first_vector::<U, N>(s, limit, needle) };
    if !stop.dirty {
        return stop.at;
    }
    find_slow::<U, N>(call, s, stop.at, limit, needle)
}

/// The rest of [`find`] from `at` on: unit by unit where shadow is not zero or missing, by the kernel elsewhere.
#[inline(never)]
fn find_slow<U: Unit, N: Needle<U>>(call: &mut Call, s: u64, mut at: u64, limit: u64, needle: N) -> u64 {
    while at < limit {
        let addr = s.wrapping_add(at);
        let (data, undefined) = unit_at::<U>(call, addr);
        if undefined != 0 && needle.may_match(data.bits(), undefined) {
            call.undefined(addr);
        }
        if needle.may_match(data.bits(), 0) {
            return at;
        }
        at += U::SIZE;
        let next = addr.wrapping_add(U::SIZE);
        if at < limit && next.is_multiple_of(U::SIZE) && next < PROGRAM_END {
            // SAFETY: the unit before did not match, so C reads this one.
            let stop = unsafe { first_vector::<U, N>(next, limit - at, needle) };
            at += stop.at;
            if !stop.dirty {
                return at;
            }
        }
    }
    limit
}

/// Bit masks over the bytes of the 16 at `addr`: hits, and units whose V is not zero.
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn masks<U: Unit, N: Needle<U>>(addr: u64, needle: N) -> (u32, u32) {
    // SAFETY: the caller's promise; V of the range is mapped.
    unsafe {
        let hits = needle.lanes(__m128i::load(addr));
        let clean = U::equal(__m128i::load(addr + V_DISTANCE), __m128i::zero());
        (hits.mask(), clean.mask() ^ 0xffff)
    }
}

/// # Safety
/// C may read the first byte; `s` is aligned to the unit and has shadow.
#[inline(always)]
unsafe fn first_vector<U: Unit, N: Needle<U>>(s: u64, limit: u64, needle: N) -> Stop {
    let skip = s & 15;
    // SAFETY: the aligned vector holds the byte at `s`.
    let (hit, dirt) = unsafe { masks::<U, N>(s - skip, needle) };
    let stop = (hit | dirt) >> skip;
    if stop != 0 {
        return settle(u64::from(stop.trailing_zeros()), dirt >> skip, limit);
    }
    if limit <= 16 - skip {
        return Stop { at: limit, dirty: false };
    }
    // SAFETY: the bytes so far did not match, so C reads the next one.
    unsafe { more_vectors::<U, N>(s, 16 - skip, limit, needle) }
}

#[inline(always)]
fn settle(at: u64, dirt: u32, limit: u64) -> Stop {
    if at < limit { Stop { at, dirty: dirt >> at & 1 != 0 } } else { Stop { at: limit, dirty: false } }
}

/// # Safety
/// C may read the byte at `s + at`, which is 16-aligned.
#[inline(never)]
unsafe fn more_vectors<U: Unit, N: Needle<U>>(s: u64, mut at: u64, limit: u64, needle: N) -> Stop {
    // SAFETY: every load is inside an aligned block of which C reads the first byte, because nothing matched before.
    unsafe {
        while at < limit {
            let (hit, dirt) = masks::<U, N>(s + at, needle);
            if hit | dirt != 0 {
                let stop = settle(u64::from((hit | dirt).trailing_zeros()), dirt, limit - at);
                return Stop { at: at + stop.at, dirty: stop.dirty };
            }
            at += 16;
            if (s + at).is_multiple_of(64) {
                at = quiet_blocks::<U, N>(s, at, limit, needle);
            }
        }
    }
    Stop { at: limit, dirty: false }
}

/// From offset `at` (64-aligned) over whole quiet blocks: the next block is not quiet, or at or behind `limit`.
///
/// # Safety
/// C may read the byte at `s + at` if it is before `limit`.
#[inline(always)]
unsafe fn quiet_blocks<U: Unit, N: Needle<U>>(s: u64, mut at: u64, limit: u64, needle: N) -> u64 {
    // SAFETY: as in `more_vectors`.
    unsafe {
        while at < limit {
            if at >= 256 && (s + at).is_multiple_of(BLOCK) {
                at += quiet_run::<U, N>(s + at, limit - at, needle);
                if at >= limit {
                    break;
                }
            }
            if !quiet_block::<__m128i, U, N>(s + at, needle) {
                break;
            }
            at += 64;
        }
    }
    at
}

by_width! {
    /// Number of bytes from `addr` (aligned to BLOCK) on, in whole blocks, without hit or dirt; stops when it reaches `limit`.
    ///
    /// # Safety
    /// The page rule.
    unsafe fn quiet_run[U: Unit, N: Needle<U>][U, N](addr: u64, limit: u64, needle: N) -> u64 = quiet_run_in
}

/// # Safety
/// As [`quiet_run`].
#[inline(always)]
unsafe fn quiet_run_in<V: Vector, U: Unit, N: Needle<U>>(addr: u64, limit: u64, needle: N) -> u64 {
    let mut at = 0;
    // SAFETY: the caller's promise.
    while at < limit && unsafe { quiet_block::<V, U, N>(addr + at, needle) } {
        at += 4 * V::BYTES;
    }
    at
}

/// Neither hit nor dirt in four vectors?
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn quiet_block<V: Vector, U: Unit, N: Needle<U>>(addr: u64, needle: N) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let (n, v) = (V::BYTES, addr + V_DISTANCE);
        let low = needle.lanes(V::load(addr)).or(V::load(v)).or(needle.lanes(V::load(addr + n)).or(V::load(v + n)));
        let (addr, v) = (addr + 2 * n, v + 2 * n);
        let high = needle.lanes(V::load(addr)).or(V::load(v)).or(needle.lanes(V::load(addr + n)).or(V::load(v + n)));
        low.or(high).is_zero()
    }
}

/// Last unit of `[s, s + len)` equal to `c`: its byte offset.
pub fn find_last<U: Unit>(call: &mut Call, s: u64, len: u64, c: U) -> Option<u64> {
    let mut end = s.wrapping_add(len);
    while end != s {
        if end <= PROGRAM_END && end > s && end.is_multiple_of(U::SIZE) {
            // SAFETY: the byte before `end` is in the range, and C comes to it.
            end = unsafe { last_stop::<U>(s, end, c) };
            if end == s {
                return None;
            }
        }
        end = end.wrapping_sub(U::SIZE);
        let (data, undefined) = unit_at::<U>(call, end);
        if undefined != 0 && One(c).may_match(data.bits(), undefined) {
            call.undefined(end);
        }
        if data == c {
            return Some(end.wrapping_sub(s));
        }
    }
    None
}

/// The end of the last unit in `[s, end)` that is a hit or dirty; `s` if there is none.
///
/// # Safety
/// C may read the byte before `end`; the range has shadow.
unsafe fn last_stop<U: Unit>(s: u64, mut end: u64, c: U) -> u64 {
    while end > s {
        let start = (end - 1) & !15;
        // SAFETY: the aligned vector holds the byte before `end`; nothing above matched, so C comes here.
        let (hit, dirt) = unsafe { masks::<U, One<U>>(start, One(c)) };
        let below_end = 0xffff >> (16 - (end - start));
        let stop = (hit | dirt) & below_end & (0xffff << s.saturating_sub(start).min(16));
        if stop != 0 {
            return start + u64::from(32 - stop.leading_zeros());
        }
        end = start.max(s);
        if end.is_multiple_of(BLOCK) && end - s >= BLOCK {
            // SAFETY: whole blocks inside the range.
            end -= unsafe { quiet_back::<U>(s, end, c) };
        }
    }
    s
}

by_width! {
    /// Number of bytes before `end` (aligned to BLOCK), in whole blocks inside `[s, end)`, without hit or dirt.
    ///
    /// # Safety
    /// C may read all of the range.
    unsafe fn quiet_back[U: Unit][U](s: u64, end: u64, c: U) -> u64 = quiet_back_in
}

/// # Safety
/// As [`quiet_back`].
#[inline(always)]
unsafe fn quiet_back_in<V: Vector, U: Unit>(s: u64, end: u64, c: U) -> u64 {
    let mut at = end;
    // SAFETY: the block is inside the range.
    while at - s >= 4 * V::BYTES && unsafe { quiet_block::<V, U, One<U>>(at - 4 * V::BYTES, One(c)) } {
        at -= 4 * V::BYTES;
    }
    end - at
}

/// Length of the string at `s`, at most `limit`, without any check or report.
pub fn plain_length(s: u64, limit: u64) -> u64 {
    let mut at = 0;
    while at < limit {
        let addr = s.wrapping_add(at);
        shadowed(addr);
        // SAFETY: the aligned vector holds a byte that C reads.
        let hit = unsafe { Needle::<u8>::lanes(Nul, __m128i::load(addr & !15)).mask() } >> (addr & 15);
        if hit != 0 {
            return limit.min(at + u64::from(hit.trailing_zeros()));
        }
        at += 16 - (addr & 15);
    }
    limit
}
