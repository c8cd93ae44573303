//! Comparison of two ranges or strings, with their V shadow, in one pass.
//!
//! The kernel counts the bytes that are equal, clean and no terminator; the unit behind them is then looked at alone: it differs, ends
//! the string, or has shadow to be judged. Page rule: vectors are loaded inside the pages of units that C reads.
#![allow(unsafe_code, reason = "vector loads by address")]

use crate::call::Call;
use crate::raw::get;
use crate::scan::unit_at;
use crate::unit::{Fold, Unit};
use crate::vector::{Vector, by_width};
use core::arch::x86_64::__m128i;
use memcheck_abi::layout::{PROGRAM_END, V_DISTANCE};

/// Bytes that are compared without a call.
const SHORT: u64 = 64;

/// Where a comparison ended: the (folded) units that differ or are the terminator, and their byte offset.
pub struct Difference {
    pub at: u64,
    pub a: u64,
    pub b: u64,
}

/// Compare up to `limit` bytes (a multiple of the unit's size); with `STRING` the common terminator ends it as well. `None`: the limit
/// was reached. `ordered`: the caller uses which of the two is larger.
#[inline(always)]
pub fn compare<U: Unit, F: Fold, const STRING: bool>(call: &mut Call, a: u64, b: u64, limit: u64, ordered: bool) -> Option<Difference> {
    if limit == 0 {
        return None;
    }
    let mut at = 0;
    if (a | b) < PROGRAM_END && (a | b).is_multiple_of(U::SIZE) {
        let room = room(a, b).min(SHORT);
        while at + 16 <= room {
            // SAFETY: everything before was equal, so C reads the units at `at`, and 16 bytes are in their pages.
            let (stop, dirt) = unsafe { differences::<U, F, STRING>(a + at, b + at) };
            if stop != 0 {
                let skip = u64::from(stop.trailing_zeros()) & !(U::SIZE - 1);
                at += skip;
                if at >= limit {
                    return None;
                }
                if dirt >> skip & 1 != 0 {
                    break;
                }
                // SAFETY: as above.
                let (p, q) = unsafe { (get::<U>(a + at).bits(), get::<U>(b + at).bits()) };
                return Some(Difference { at, a: F::unit(p), b: F::unit(q) });
            }
            at += 16;
            if at >= limit {
                return None;
            }
        }
    }
    compare_rest::<U, F, STRING>(call, (a, b), at, limit, ordered)
}

/// [`compare`] from offset `at` on.
#[inline(never)]
fn compare_rest<U: Unit, F: Fold, const STRING: bool>(
    call: &mut Call,
    (a, b): (u64, u64),
    mut at: u64,
    limit: u64,
    ordered: bool,
) -> Option<Difference> {
    while at < limit {
        let (x, y) = (a.wrapping_add(at), b.wrapping_add(at));
        if (x | y) < PROGRAM_END && (x | y).is_multiple_of(U::SIZE) && room(x, y) >= 16 {
            // SAFETY: everything before was equal, so C reads the units at `at`.
            at += unsafe { equal_run::<U, F, STRING>(x, y, limit - at) };
            if at >= limit {
                return None;
            }
        }
        let end = compare_unit::<U, F, STRING>(call, a.wrapping_add(at), b.wrapping_add(at), ordered);
        if let Some((p, q)) = end {
            return Some(Difference { at, a: p, b: q });
        }
        at += U::SIZE;
    }
    None
}

/// Compare one unit: `Some` when it ends the comparison.
#[inline]
fn compare_unit<U: Unit, F: Fold, const STRING: bool>(call: &mut Call, x: u64, y: u64, ordered: bool) -> Option<(u64, u64)> {
    let (p, vp) = unit_at::<U>(call, x);
    call.second = true;
    let (q, vq) = unit_at::<U>(call, y);
    call.second = false;
    let (p, q) = (p.bits(), q.bits());
    if vp | vq != 0 && influences::<U, F>((p, vp), (q, vq), ordered) {
        call.undefined(if vp != 0 { x } else { y });
    }
    let (p, q) = (F::unit(p), F::unit(q));
    if p != q || (STRING && p == 0) { Some((p, q)) } else { None }
}

/// Can the undefined bits of two units change whether they are equal, or which is larger? Units are (bits, undefined bits).
fn influences<U: Unit, F: Fold>(a: (u64, u64), b: (u64, u64), ordered: bool) -> bool {
    if !F::EXACT || (a.0 ^ b.0) & !(a.1 | b.1) == 0 {
        return true;
    }
    let low = |x: (u64, u64)| (x.0 ^ U::SIGN) & !x.1;
    let high = |x: (u64, u64)| (x.0 ^ U::SIGN) | x.1;
    ordered && low(a) <= high(b) && low(b) <= high(a)
}

/// Bytes up to the nearer page end.
#[inline(always)]
fn room(a: u64, b: u64) -> u64 {
    4096 - (a & 4095).max(b & 4095)
}

/// Masks of the bytes among 16 that end an equal run, and of those units that are dirty.
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn differences<U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64) -> (u32, u32) {
    // SAFETY: the caller's promise; V is mapped.
    unsafe {
        let (equal, clean) = same::<__m128i, U, F, STRING>(a, b);
        (equal.and(clean).mask() ^ 0xffff, clean.mask() ^ 0xffff)
    }
}

/// All-ones lanes where the vectors at `a` and `b` are equal and no terminator; and where they are clean.
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn same<V: Vector, U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64) -> (V, V) {
    // SAFETY: the caller's promise; V is mapped.
    unsafe {
        let x = V::load(a);
        let equal = U::equal(F::vector(x), F::vector(V::load(b)));
        let clean = U::equal(V::load(a + V_DISTANCE).or(V::load(b + V_DISTANCE)), V::zero());
        (if STRING { equal.without(U::equal(x, V::zero())) } else { equal }, clean)
    }
}

by_width! {
    /// Number of bytes (a multiple of the unit's size) from `a` and `b` on that are equal, not the terminator, and have V = 0; at least
    /// `limit` if that is reached. May stop early at the end of a page.
    ///
    /// # Safety
    /// C may read the first unit of both; both are aligned and have shadow, and 16 bytes of room.
    unsafe fn equal_run[U: Unit, F: Fold, const STRING: bool][U, F, STRING](a: u64, b: u64, limit: u64) -> u64 = equal_run_in
}

/// # Safety
/// As [`equal_run`].
#[inline(always)]
unsafe fn equal_run_in<V: Vector, U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64, limit: u64) -> u64 {
    let mut at = 0;
    // SAFETY: all loads lie in the pages of the units at `at`, which C reads because everything before was equal; or (the last) they
    // also reach back to bytes that were compared already.
    unsafe {
        while at < limit {
            let page_end = at + room(a + at, b + at);
            while at + 4 * V::BYTES <= page_end && at < limit && equal_block::<V, U, F, STRING>(a + at, b + at) {
                at += 4 * V::BYTES;
            }
            while at + 16 <= page_end {
                let (stop, _) = differences::<U, F, STRING>(a + at, b + at);
                if stop != 0 {
                    return at + (u64::from(stop.trailing_zeros()) & !(U::SIZE - 1));
                }
                at += 16;
                if at >= limit {
                    return at;
                }
            }
            if at < page_end && at < limit {
                if at < 16 {
                    return at;
                }
                let back = at + 16 - page_end;
                let (stop, _) = differences::<U, F, STRING>(a + at - back, b + at - back);
                if stop != 0 {
                    return at - back + (u64::from(stop.trailing_zeros()) & !(U::SIZE - 1));
                }
                at = page_end;
            }
        }
    }
    at
}

/// Are four vectors equal, clean and without terminator?
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn equal_block<V: Vector, U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let n = V::BYTES;
        let (e0, c0) = same::<V, U, F, STRING>(a, b);
        let (e1, c1) = same::<V, U, F, STRING>(a + n, b + n);
        let (e2, c2) = same::<V, U, F, STRING>(a + 2 * n, b + 2 * n);
        let (e3, c3) = same::<V, U, F, STRING>(a + 3 * n, b + 3 * n);
        let all = e0.and(c0).and(e1.and(c1)).and(e2.and(c2).and(e3.and(c3)));
        all.equal8(V::zero()).is_zero()
    }
}
