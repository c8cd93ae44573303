//! Substrings and character sets: strstr, strcasestr, memmem, strspn, strcspn, strpbrk.
//!
//! Substring search first goes from one occurrence of the needle's first character to the next, which is what nearly all programs
//! need (two characters: most places are ruled out by vectors). When the failed comparisons cost more than the way made, it goes on with the two-way algorithm (Crochemore and Perrin,
//! 1991), which is linear in the worst case and needs no memory. The haystack is never measured as a whole: a program that
//! searches again and again in one long string must not pay for its length each time.
#![allow(unsafe_code, reason = "reads characters by address")]

use crate::call::Call;
use crate::compare::compare;
use crate::memory::UNBOUNDED;
use crate::raw::get;
use crate::scan::{find, unit_at};
use crate::unit::{Exact, Fold, Four, IgnoreCase, Nul};
use crate::vector::{Vector, by_width};
use memcheck_abi::layout::{PROGRAM_END, V_DISTANCE};

/// The needle in the haystack: address, or 0. `len` is the haystack's length (of a string: no limit), the needle is not empty.
fn search<F: Fold, const STRING: bool>(call: &mut Call, hay: u64, len: u64, needle: u64, n: u64) -> u64 {
    let Some(last) = len.checked_sub(n) else { return 0 };
    let start = Start::new::<F, STRING>(call, needle, n);
    let (mut at, mut work) = (0, 0);
    loop {
        at = start.next::<F, STRING>(call, hay, at, last);
        if at > last {
            return 0;
        }
        let found = hay.wrapping_add(at);
        // SAFETY: `next` read this byte.
        if STRING && unsafe { get::<u8>(found) } == 0 {
            return 0;
        }
        let Some(difference) = compare::<u8, F, false>(call, found, needle, n, false) else { return found };
        if STRING && difference.a == 0 {
            return 0;
        }
        at += 1;
        // A candidate costs about as much as 16 bytes of the way.
        work += 16 + difference.at;
        if work > 1024 + 4 * at {
            return two_way::<F, STRING>(call, hay.wrapping_add(at), len - at, needle, n);
        }
    }
}

/// What a place must look like to be worth a comparison: the first character, or the first two.
struct Start {
    /// Both cases of the first character; in strings also the terminator, which ends the search.
    first: Four<false>,
    /// The first two characters, folded; `None` for a needle of one.
    pair: Option<[u8; 2]>,
}

impl Start {
    fn new<F: Fold, const STRING: bool>(call: &mut Call, needle: u64, n: u64) -> Start {
        let (first, _) = unit_at::<u8>(call, needle);
        let lower = F::unit(u64::from(first)) as u8;
        let upper = if F::EXACT { first } else { first.to_ascii_uppercase() };
        // SAFETY: the needle has `n` bytes.
        let pair = (n > 1).then(|| [lower, F::unit(u64::from(unsafe { get::<u8>(needle + 1) })) as u8]);
        Start { first: Four([lower, upper, if STRING { 0 } else { lower }, lower]), pair }
    }

    /// First offset from `at` on that is a candidate or the terminator; more than `last` if there is none.
    fn next<F: Fold, const STRING: bool>(&self, call: &mut Call, hay: u64, mut at: u64, last: u64) -> u64 {
        let Some(pair) = self.pair else {
            return at + find(call, hay.wrapping_add(at), (last + 1).saturating_sub(at), self.first);
        };
        while at <= last {
            let addr = hay.wrapping_add(at);
            if addr < PROGRAM_END {
                // SAFETY: no terminator before, so C reads this byte.
                at += unsafe { no_pair::<F, STRING>(addr, last - at + 1, pair) };
            }
            // A candidate, the terminator, dirt, the end of a page, or the end of the haystack: look at this one byte.
            if at > last || find(call, hay.wrapping_add(at), 1, self.first) == 0 {
                return at;
            }
            at += 1;
        }
        at
    }
}

by_width! {
    /// Number of bytes from `addr` on at which neither the pair nor (in strings) the terminator nor dirt is; stops when it reaches
    /// `limit`, or early at the end of a page.
    ///
    /// # Safety
    /// C reads the byte at `addr`, which has shadow.
    unsafe fn no_pair[F: Fold, const STRING: bool][F, STRING](addr: u64, limit: u64, pair: [u8; 2]) -> u64 = no_pair_in
}

/// # Safety
/// As [`no_pair`].
#[inline(always)]
unsafe fn no_pair_in<V: Vector, F: Fold, const STRING: bool>(addr: u64, limit: u64, pair: [u8; 2]) -> u64 {
    let mut at = 0;
    // SAFETY: all loads are in the page of the byte at `at`, which C reads because no terminator came before.
    unsafe {
        let (first, second) = (V::splat8(pair[0]), V::splat8(pair[1]));
        while at < limit {
            if (addr + at) & 4095 > 4095 - V::BYTES {
                return at;
            }
            let data = V::load(addr + at);
            let hits = F::vector(data).equal8(first).and(F::vector(V::load(addr + at + 1)).equal8(second));
            let hits = if STRING { hits.or(data.equal8(V::zero())) } else { hits };
            let stop = hits.or(V::load(addr + at + V_DISTANCE));
            if !stop.is_zero() {
                let clean = stop.equal8(V::zero()).mask();
                return at + u64::from((!clean).trailing_zeros());
            }
            at += V::BYTES;
        }
    }
    at
}

/// Where the needle is cut for the two-way algorithm: index of the last byte of the left part (-1 if empty) and the period.
fn cut<F: Fold>(needle: u64, n: i64) -> (i64, i64) {
    let (a, b) = (maximal_suffix::<F>(needle, n, false), maximal_suffix::<F>(needle, n, true));
    if a.0 > b.0 { a } else { b }
}

/// The lexicographically largest suffix (by the reversed alphabet if `reversed`): index before it, and its period.
fn maximal_suffix<F: Fold>(needle: u64, n: i64, reversed: bool) -> (i64, i64) {
    let (mut start, mut j, mut k, mut period) = (-1, 0, 1, 1);
    while j + k < n {
        let (a, b) = (byte::<F>(needle, j + k), byte::<F>(needle, start + k));
        if a == b {
            if k == period {
                j += period;
                k = 1;
            } else {
                k += 1;
            }
        } else if (a < b) != reversed {
            j += k;
            k = 1;
            period = j - start;
        } else {
            start = j;
            j += 1;
            (k, period) = (1, 1);
        }
    }
    (start, period)
}

#[inline(always)]
fn byte<F: Fold>(base: u64, i: i64) -> u8 {
    // SAFETY: a byte of the needle, or of the haystack as far as it is known to reach.
    F::unit(u64::from(unsafe { get::<u8>(base.wrapping_add(i as u64)) })) as u8
}

/// [`search`], linear in the worst case.
fn two_way<F: Fold, const STRING: bool>(call: &mut Call, hay: u64, len: u64, needle: u64, n: u64) -> u64 {
    let mut known = Known { hay, len, checked: 0, string: STRING };
    let n = n as i64;
    let (left, period) = cut::<F>(needle, n);
    let periodic = period + left < n && (0..=left).all(|i| byte::<F>(needle, i) == byte::<F>(needle, i + period));
    let shift = if periodic { period } else { (left + 1).max(n - left - 1) + 1 };
    // The first `memory + 1` bytes of the needle are known to match at `at`.
    let (mut at, mut memory) = (0i64, -1i64);
    while known.reaches(call, (at + n) as u64) {
        let place = hay.wrapping_add(at as u64);
        let same = |i: i64| byte::<F>(needle, i) == byte::<F>(place, i);
        let mut i = left.max(memory) + 1;
        while i < n && same(i) {
            i += 1;
        }
        if i < n {
            at += i - left;
            memory = -1;
            continue;
        }
        i = left;
        while i > memory && same(i) {
            i -= 1;
        }
        if i <= memory {
            return place;
        }
        at += shift;
        memory = if periodic { n - period - 1 } else { -1 };
    }
    0
}

/// How much of a haystack has been seen.
struct Known {
    hay: u64,
    len: u64,
    checked: u64,
    string: bool,
}

impl Known {
    /// Does the haystack have at least `n` bytes? Looks (and checks) ahead by some kilobytes.
    fn reaches(&mut self, call: &mut Call, n: u64) -> bool {
        while self.checked < n && self.checked < self.len {
            let from = self.hay.wrapping_add(self.checked);
            let piece = (self.len - self.checked).min(4096);
            let seen = if self.string { find::<u8, _>(call, from, piece, Nul) } else { examine(call, from, piece) };
            self.checked += seen;
            if seen < piece {
                self.len = self.checked;
            }
        }
        n <= self.checked
    }
}

/// Read `n` bytes all of which matter.
fn examine(call: &mut Call, addr: u64, n: u64) -> u64 {
    for i in 0..n {
        if unit_at::<u8>(call, addr.wrapping_add(i)).1 != 0 {
            call.undefined(addr.wrapping_add(i));
        }
    }
    n
}

fn in_string<F: Fold>(hay: u64, needle: u64) -> u64 {
    let mut call = Call::once();
    let n = find::<u8, _>(&mut call, needle, UNBOUNDED, Nul);
    if n == 0 { hay } else { search::<F, true>(&mut call, hay, UNBOUNDED, needle, n) }
}

pub extern "C" fn strstr(hay: u64, needle: u64) -> u64 {
    in_string::<Exact>(hay, needle)
}

pub extern "C" fn strcasestr(hay: u64, needle: u64) -> u64 {
    in_string::<IgnoreCase>(hay, needle)
}

pub extern "C" fn memmem(hay: u64, len: u64, needle: u64, n: u64) -> u64 {
    if n == 0 { hay } else { search::<Exact, false>(&mut Call::once(), hay, len, needle, n) }
}

/// A set of bytes, one bit each; while there are at most four, also as a list.
struct Set {
    bits: [u64; 4],
    few: [u8; 4],
    count: usize,
}

impl Set {
    /// The characters of a string.
    fn of(call: &mut Call, s: u64) -> Set {
        let mut set = Set { bits: [0; 4], few: [0; 4], count: 0 };
        let mut at = s;
        loop {
            let (c, undefined) = unit_at::<u8>(call, at);
            if undefined != 0 {
                call.undefined(at);
            }
            if c == 0 {
                return set;
            }
            set.add(c);
            at = at.wrapping_add(1);
        }
    }

    fn add(&mut self, c: u8) {
        if self.has(c) {
            return;
        }
        self.bits[usize::from(c >> 6)] |= 1 << (c & 63);
        if self.count < 4 {
            self.few[self.count] = c;
        }
        self.count += 1;
    }

    #[inline(always)]
    fn has(&self, c: u8) -> bool {
        self.bits[usize::from(c >> 6)] >> (c & 63) & 1 != 0
    }
}

/// Number of characters at `s` before the first that is (`MEMBER`) or is not in the set.
fn span<const MEMBER: bool>(call: &mut Call, s: u64, set: &Set) -> u64 {
    let mut n = 0;
    loop {
        let at = s.wrapping_add(n);
        let (c, undefined) = unit_at::<u8>(call, at);
        if undefined != 0 {
            call.undefined(at);
        }
        if set.has(c) == MEMBER {
            return n;
        }
        n += 1;
        if n == BYTEWISE && (1..=4).contains(&set.count) {
            return n + span_few::<MEMBER>(call, s.wrapping_add(n), set);
        }
    }
}

/// The first characters are looked up one by one: most spans are short.
const BYTEWISE: u64 = 16;

/// [`span`] by vectors.
fn span_few<const MEMBER: bool>(call: &mut Call, s: u64, set: &Set) -> u64 {
    let mut few = set.few;
    few[set.count..].fill(set.few[0]);
    if MEMBER { find(call, s, UNBOUNDED, Four::<false>(few)) } else { find(call, s, UNBOUNDED, Four::<true>(few)) }
}

/// strcspn: the terminator ends it as well.
fn span_until(call: &mut Call, s: u64, stop: u64) -> u64 {
    let mut set = Set::of(call, stop);
    set.add(0);
    span::<true>(call, s, &set)
}

pub extern "C" fn strspn(s: u64, accept: u64) -> u64 {
    let mut call = Call::once();
    let set = Set::of(&mut call, accept);
    span::<false>(&mut call, s, &set)
}

pub extern "C" fn strcspn(s: u64, reject: u64) -> u64 {
    span_until(&mut Call::once(), s, reject)
}

pub extern "C" fn strpbrk(s: u64, accept: u64) -> u64 {
    let mut call = Call::once();
    let at = s.wrapping_add(span_until(&mut call, s, accept));
    if unit_at::<u8>(&mut call, at).0 == 0 { 0 } else { at }
}
