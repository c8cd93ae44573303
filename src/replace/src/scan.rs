//! The kernels: search and comparison over data and V shadow in one pass.
//!
//! ```text
//! data    h e l l o 0 ? ?        stop at the first unit that matches (hit) or whose V is not zero (dirt)
//! V       0 0 0 0 0 0 . .
//! ```
//! A hit with V = 0 ends the search; dirt goes to [`Call::judge`] one unit at a time, and the kernel goes on behind it. So a clean
//! string costs one pass and no report can be missed, and an error is reported before a later byte can fault.
//!
//! Page rule: a search loads aligned vectors of which at least one byte is one that C may read; a comparison loads inside
//! the pages of such bytes. So a fault happens exactly where the C function would fault.
//!
//! Memory outside `[0, PROGRAM_END)` has no shadow: plain loops; the tool's own part of it is made to fault ([`outside`]).
#![allow(unsafe_code, reason = "vector loads by address")]

use crate::call::Call;
use crate::raw::{get, load16};
use core::arch::x86_64::{
    __m128i, _mm_add_epi8, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpeq_epi32, _mm_cmpgt_epi8, _mm_movemask_epi8, _mm_or_si128,
    _mm_set1_epi8, _mm_set1_epi32, _mm_setzero_si128,
};
use memcheck_abi::layout::{PROGRAM_END, V_DISTANCE};

/// End of the tool's own memory, see `layout`.
const TOOL_END: u64 = 0x7000_0000_0000;

/// A character: `u8`, or `u32` for `wchar_t` (which is signed when ordered).
pub trait Unit: Copy + PartialEq {
    const SIZE: u64;
    const NUL: Self;
    /// Xor with this makes unsigned order the order of the type.
    const SIGN: u64;
    fn splat(self) -> __m128i;
    fn equal(a: __m128i, b: __m128i) -> __m128i;
    fn bits(self) -> u64;
}

impl Unit for u8 {
    const SIZE: u64 = 1;
    const NUL: u8 = 0;
    const SIGN: u64 = 0;
    #[inline(always)]
    fn splat(self) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_set1_epi8(self as i8) }
    }
    #[inline(always)]
    fn equal(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_cmpeq_epi8(a, b) }
    }
    #[inline(always)]
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl Unit for u32 {
    const SIZE: u64 = 4;
    const NUL: u32 = 0;
    const SIGN: u64 = 1 << 31;
    #[inline(always)]
    fn splat(self) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_set1_epi32(self as i32) }
    }
    #[inline(always)]
    fn equal(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_cmpeq_epi32(a, b) }
    }
    #[inline(always)]
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

/// What a search looks for.
pub trait Needle<U: Unit>: Copy {
    /// All-ones lanes where the vector matches.
    fn lanes(self, data: __m128i) -> __m128i;
    /// Could a unit match whose bits outside `undefined` are those of `bits`?
    fn may_match(self, bits: u64, undefined: u64) -> bool;
}

/// The terminator.
#[derive(Clone, Copy)]
pub struct Nul;
/// One character.
#[derive(Clone, Copy)]
pub struct One<U>(pub U);
/// One character or the terminator.
#[derive(Clone, Copy)]
pub struct OneOrNul<U>(pub U);

impl<U: Unit> Needle<U> for Nul {
    #[inline(always)]
    fn lanes(self, data: __m128i) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        U::equal(data, unsafe { _mm_setzero_si128() })
    }
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        bits & !undefined == 0
    }
}

impl<U: Unit> Needle<U> for One<U> {
    #[inline(always)]
    fn lanes(self, data: __m128i) -> __m128i {
        U::equal(data, self.0.splat())
    }
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        (bits ^ self.0.bits()) & !undefined == 0
    }
}

impl<U: Unit> Needle<U> for OneOrNul<U> {
    #[inline(always)]
    fn lanes(self, data: __m128i) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_or_si128(U::equal(data, self.0.splat()), U::equal(data, _mm_setzero_si128())) }
    }
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        One(self.0).may_match(bits, undefined) || Needle::<U>::may_match(Nul, bits, undefined)
    }
}

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
fn outside(addr: u64) -> bool {
    if (V_DISTANCE & !4095..TOOL_END).contains(&addr) {
        // SAFETY: by the layout nothing is mapped at this distance from tool memory, so the load faults; see `layout`.
        unsafe { core::ptr::read_volatile(addr.wrapping_add(V_DISTANCE) as *const u8) };
    }
    false
}

/// First unit of `[s, s + limit)` that matches: its byte offset, or `limit`. `limit` is a multiple of the unit's size.
#[inline(always)]
pub fn find<U: Unit, N: Needle<U>>(call: &mut Call, s: u64, limit: u64, needle: N) -> u64 {
    if limit == 0 {
        return 0;
    }
    if !shadowed(s) || s % U::SIZE != 0 {
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
    let aligned = s % U::SIZE == 0;
    while at < limit {
        let addr = s.wrapping_add(at);
        let shadow = shadowed(addr);
        // SAFETY: C reads this unit; V of program memory is mapped.
        let (data, v) = unsafe { (get::<U>(addr), if shadow { get::<U>(addr + V_DISTANCE) } else { U::NUL }) };
        if v != U::NUL {
            let undefined = call.judge(addr, U::SIZE);
            if undefined != 0 && needle.may_match(data.bits(), undefined) {
                call.undefined(addr);
            }
        }
        if needle.may_match(data.bits(), 0) {
            return at;
        }
        at += U::SIZE;
        if shadow && aligned && v == U::NUL && at < limit {
            // SAFETY: the unit at `at` was reached without a match, so C reads it.
            let stop = unsafe { first_vector::<U, N>(s + at, limit - at, needle) };
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
        let hits = needle.lanes(load16(addr));
        let clean = U::equal(load16(addr + V_DISTANCE), _mm_setzero_si128());
        (_mm_movemask_epi8(hits) as u32, _mm_movemask_epi8(clean) as u32 ^ 0xffff)
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
            let addr = s + at;
            if addr & 63 == 0 && quiet64::<U, N>(addr, needle) {
                at += 64;
                continue;
            }
            let (hit, dirt) = masks::<U, N>(addr, needle);
            if hit | dirt != 0 {
                let stop = settle(u64::from((hit | dirt).trailing_zeros()), dirt, limit - at);
                return Stop { at: at + stop.at, dirty: stop.dirty };
            }
            at += 16;
        }
    }
    Stop { at: limit, dirty: false }
}

/// Neither hit nor dirt in the 64-aligned 64 bytes at `addr`?
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn quiet64<U: Unit, N: Needle<U>>(addr: u64, needle: N) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let hits = _mm_or_si128(
            _mm_or_si128(needle.lanes(load16(addr)), needle.lanes(load16(addr + 16))),
            _mm_or_si128(needle.lanes(load16(addr + 32)), needle.lanes(load16(addr + 48))),
        );
        let v = addr + V_DISTANCE;
        let dirt = _mm_or_si128(_mm_or_si128(load16(v), load16(v + 16)), _mm_or_si128(load16(v + 32), load16(v + 48)));
        _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_or_si128(hits, dirt), _mm_setzero_si128())) == 0xffff
    }
}

/// Last unit of `[s, s + len)` equal to `c`: its byte offset.
pub fn find_last<U: Unit>(call: &mut Call, s: u64, len: u64, c: U) -> Option<u64> {
    let mut end = len;
    while end > 0 {
        let addr = s.wrapping_add(end - U::SIZE);
        if shadowed(addr) && addr % U::SIZE == 0 && end >= 16 {
            // SAFETY: the 16 bytes before `end` are in the range.
            let (hit, dirt) = unsafe { masks::<U, One<U>>(addr + U::SIZE - 16, One(c)) };
            if dirt == 0 {
                if hit != 0 {
                    return Some(end - 16 + (u64::from(31 - hit.leading_zeros()) & !(U::SIZE - 1)));
                }
                end -= 16;
                continue;
            }
        }
        let (data, undefined) = unit_at::<U>(call, addr);
        if undefined != 0 && One(c).may_match(data.bits(), undefined) {
            call.undefined(addr);
        }
        end -= U::SIZE;
        if data == c {
            return Some(end);
        }
    }
    None
}

/// One unit that C reads, and its undefined bits (reports it when it is not addressable).
#[inline]
pub fn unit_at<U: Unit>(call: &mut Call, addr: u64) -> (U, u64) {
    let shadow = shadowed(addr);
    // SAFETY: C reads this unit; V of program memory is mapped.
    let (data, v) = unsafe { (get::<U>(addr), if shadow { get::<U>(addr + V_DISTANCE) } else { U::NUL }) };
    let undefined = if v == U::NUL { 0 } else { call.judge(addr, U::SIZE) };
    (data, undefined)
}

/// How characters are compared.
pub trait Fold {
    const EXACT: bool;
    fn vector(x: __m128i) -> __m128i;
    fn unit(x: u64) -> u64;
}

/// As they are.
pub struct Exact;
/// ASCII letters without case: what C's `tolower` does in the C and UTF-8 locales.
pub struct IgnoreCase;

impl Fold for Exact {
    const EXACT: bool = true;
    #[inline(always)]
    fn vector(x: __m128i) -> __m128i {
        x
    }
    #[inline(always)]
    fn unit(x: u64) -> u64 {
        x
    }
}

impl Fold for IgnoreCase {
    const EXACT: bool = false;
    #[inline(always)]
    fn vector(x: __m128i) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe {
            let above = _mm_cmpgt_epi8(x, _mm_set1_epi8(b'A' as i8 - 1));
            let below = _mm_cmpgt_epi8(_mm_set1_epi8(b'Z' as i8 + 1), x);
            _mm_add_epi8(x, _mm_and_si128(_mm_and_si128(above, below), _mm_set1_epi8(0x20)))
        }
    }
    #[inline(always)]
    fn unit(x: u64) -> u64 {
        if (0x41..=0x5a).contains(&x) { x + 0x20 } else { x }
    }
}

/// Where a comparison ended: the two units that differ or are the terminator, `None` when `limit` was reached first.
pub struct Difference {
    pub at: u64,
    pub a: u64,
    pub b: u64,
}

/// Compare up to `limit` bytes (a multiple of the unit's size); with `STRING` the common terminator ends it as well.
/// `ordered`: the caller uses which of the two is larger.
#[inline(always)]
pub fn compare<U: Unit, F: Fold, const STRING: bool>(call: &mut Call, a: u64, b: u64, limit: u64, ordered: bool) -> Option<Difference> {
    let mut at = 0;
    while at < limit {
        let (x, y) = (a.wrapping_add(at), b.wrapping_add(at));
        if (x | y) % U::SIZE == 0 && shadowed(x) && shadowed(y) {
            // SAFETY: everything before was equal, so C reads the unit at `at`.
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
    let (q, vq) = unit_at::<U>(call, y);
    let (p, q) = (p.bits(), q.bits());
    if vp | vq != 0 && influences::<U, F>((p, vp), (q, vq), ordered) {
        call.undefined(if vp != 0 { x } else { y });
    }
    let (p, q) = (F::unit(p), F::unit(q));
    if p != q || (STRING && p == 0) { Some((p, q)) } else { None }
}

/// Can the undefined bits of two units change whether they are equal, or which is larger?
fn influences<U: Unit, F: Fold>(a: (u64, u64), b: (u64, u64), ordered: bool) -> bool {
    if !F::EXACT || (a.0 ^ b.0) & !(a.1 | b.1) == 0 {
        return true;
    }
    let low = |x: (u64, u64)| (x.0 ^ U::SIGN) & !x.1;
    let high = |x: (u64, u64)| (x.0 ^ U::SIGN) | x.1;
    ordered && low(a) <= high(b) && low(b) <= high(a)
}

/// Number of bytes (a multiple of the unit's size) from `a` and `b` on that are equal, not the terminator, and have V = 0; at least
/// `limit` if that is reached. May stop early near the end of a page.
///
/// # Safety
/// C may read the first unit of both; both are aligned and have shadow.
#[inline(always)]
unsafe fn equal_run<U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64, limit: u64) -> u64 {
    let room = 4096 - (a & 4095).max(b & 4095);
    if room < 16 {
        return 0;
    }
    // SAFETY: `room` bytes from both are in the pages of their first bytes.
    let stop = unsafe { differences::<U, F, STRING>(a, b) };
    if stop != 0 {
        return u64::from(stop.trailing_zeros()) & !(U::SIZE - 1);
    }
    if limit <= 16 {
        return limit;
    }
    // SAFETY: the first 16 bytes were equal, so C reads the next unit.
    unsafe { equal_more::<U, F, STRING>(a, b, limit) }
}

/// # Safety
/// As [`equal_run`]; the first 16 bytes are equal and clean.
#[inline(never)]
unsafe fn equal_more<U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64, limit: u64) -> u64 {
    let mut at = 16;
    while at < limit {
        let room = 4096 - ((a + at) & 4095).max((b + at) & 4095);
        let stop_at = limit.min(at + room);
        // SAFETY: all loads lie in the pages of the units at `at`, which C reads because everything before was equal.
        unsafe {
            while at + 64 <= stop_at && equal64::<U, F, STRING>(a + at, b + at) {
                at += 64;
            }
            while at + 16 <= stop_at {
                let stop = differences::<U, F, STRING>(a + at, b + at);
                if stop != 0 {
                    return at + (u64::from(stop.trailing_zeros()) & !(U::SIZE - 1));
                }
                at += 16;
            }
            if at < stop_at {
                // The last bytes before the limit or the page end: again with some that were compared already.
                let back = 16 - (stop_at - at);
                let stop = differences::<U, F, STRING>(a + at - back, b + at - back);
                if stop != 0 {
                    return at - back + (u64::from(stop.trailing_zeros()) & !(U::SIZE - 1));
                }
                at = stop_at;
            }
        }
    }
    at
}

/// Mask of the bytes among 16 that end an equal run.
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn differences<U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64) -> u32 {
    // SAFETY: the caller's promise; V is mapped.
    unsafe { _mm_movemask_epi8(same::<U, F, STRING>(a, b)) as u32 ^ 0xffff }
}

/// # Safety
/// The page rule, for 64 bytes.
#[inline(always)]
unsafe fn equal64<U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm_and_si128(same::<U, F, STRING>(a, b), same::<U, F, STRING>(a + 16, b + 16));
        let high = _mm_and_si128(same::<U, F, STRING>(a + 32, b + 32), same::<U, F, STRING>(a + 48, b + 48));
        _mm_movemask_epi8(_mm_and_si128(low, high)) == 0xffff
    }
}

/// All-ones lanes where the 16 bytes are equal, clean and no terminator.
///
/// # Safety
/// The page rule.
#[inline(always)]
unsafe fn same<U: Unit, F: Fold, const STRING: bool>(a: u64, b: u64) -> __m128i {
    // SAFETY: the caller's promise; V is mapped.
    unsafe {
        let zero = _mm_setzero_si128();
        let x = load16(a);
        let equal = U::equal(F::vector(x), F::vector(load16(b)));
        let clean = U::equal(_mm_or_si128(load16(a + V_DISTANCE), load16(b + V_DISTANCE)), zero);
        let good = _mm_and_si128(equal, clean);
        if STRING { core::arch::x86_64::_mm_andnot_si128(U::equal(x, zero), good) } else { good }
    }
}

/// Length of the string at `s`, at most `limit`, without any check or report.
pub fn plain_length(s: u64, limit: u64) -> u64 {
    let mut at = 0;
    while at < limit {
        let addr = s.wrapping_add(at);
        shadowed(addr);
        // SAFETY: the aligned vector holds a byte that C reads.
        let hit = unsafe { _mm_movemask_epi8(Needle::<u8>::lanes(Nul, load16(addr & !15))) as u32 } >> (addr & 15);
        if hit != 0 {
            return limit.min(at + u64::from(hit.trailing_zeros()));
        }
        at += 16 - (addr & 15);
    }
    limit
}
