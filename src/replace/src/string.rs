//! str* and wcs*: one body per function, for both widths.
//!
//! Undefined bytes: a function that decides on them reports once; a character whose defined bits already settle the question is
//! fine. Copies move V, so undefined characters stay undefined in the copy.
//!
//! Case is folded for ASCII only. That is what C's `tolower` does in the C and UTF-8 locales (where bytes above 127 are no letters);
//! single-byte locales with letters above 127 would fold more.

use crate::call::{Call, overlap};
use crate::compare::compare;
use crate::copy::{fill, fill_wide, probe, transfer};
use crate::memory::UNBOUNDED;
use crate::scan::{find, find_last, plain_length, unit_at};
use crate::unit::{Exact, Fold, IgnoreCase, Nul, One, OneOrNul, Unit};

/// `n` units in bytes.
#[inline(always)]
fn bytes<U: Unit>(n: u64) -> u64 {
    n.saturating_mul(U::SIZE) & !(U::SIZE - 1)
}

/// Do `[a, a + m)` and `[b, b + n)` share a byte?
#[inline(always)]
fn share(a: u64, m: u64, b: u64, n: u64) -> bool {
    m != 0 && n != 0 && (a.wrapping_sub(b) < n || b.wrapping_sub(a) < m)
}

/// strlen: in units.
#[inline(always)]
pub fn length<U: Unit>(s: u64) -> u64 {
    find::<U, _>(&mut Call::new(), s, UNBOUNDED, Nul) / U::SIZE
}

/// strnlen: in units.
#[inline(always)]
pub fn length_within<U: Unit>(s: u64, n: u64) -> u64 {
    find::<U, _>(&mut Call::new(), s, bytes::<U>(n), Nul) / U::SIZE
}

/// strchr, or with `end` strchrnul.
#[inline(always)]
pub fn character<U: Unit>(s: u64, c: U, end: bool) -> u64 {
    let mut call = Call::new();
    let at = s.wrapping_add(find(&mut call, s, UNBOUNDED, OneOrNul(c)));
    call.reads_again();
    if end || unit_at::<U>(&mut call, at).0 == c { at } else { 0 }
}

/// strrchr.
#[inline(always)]
pub fn last_character<U: Unit>(s: u64, c: U) -> u64 {
    let mut call = Call::new();
    let len = find::<U, _>(&mut call, s, UNBOUNDED, Nul);
    if c == U::NUL {
        return s.wrapping_add(len);
    }
    call.reads_again();
    find_last(&mut call, s, len, c).map_or(0, |at| s.wrapping_add(at))
}

/// strncmp of bytes: the difference of the characters where they differ.
#[inline(always)]
fn order<F: Fold>(a: u64, b: u64, n: u64) -> i32 {
    compare::<u8, F, true>(&mut Call::new(), a, b, n, true).map_or(0, |d| d.a as i32 - d.b as i32)
}

/// wcsncmp, wmemcmp: -1, 0 or 1; `wchar_t` is signed.
#[inline(always)]
fn order_wide<const STRING: bool>(a: u64, b: u64, n: u64) -> i32 {
    compare::<u32, Exact, STRING>(&mut Call::new(), a, b, bytes::<u32>(n), true).map_or(0, |d| (d.a as i32).cmp(&(d.b as i32)) as i32)
}

/// strcpy: the address of the terminator in the copy.
#[inline(always)]
pub fn copy<U: Unit>(name: &str, dst: u64, src: u64) -> u64 {
    let mut call = Call::new();
    let n = find::<U, _>(&mut call, src, UNBOUNDED, Nul) + U::SIZE;
    if share(dst, n, src, n) {
        overlap(name, dst, src, None);
    }
    call.reads_again();
    transfer(&mut call, dst, src, n, U::SIZE);
    dst.wrapping_add(n - U::SIZE)
}

/// strncpy: the address behind the copied characters.
#[inline(always)]
pub fn copy_within<U: Unit>(name: &str, dst: u64, src: u64, count: u64) -> u64 {
    let mut call = Call::new();
    let n = bytes::<U>(count);
    let len = find::<U, _>(&mut call, src, n, Nul);
    call.reads_again();
    transfer(&mut call, dst, src, len, U::SIZE);
    fill(&mut call, dst.wrapping_add(len), 0, n - len, U::SIZE);
    // Only of a copy that comes to its end.
    if share(dst, n, src, n.min(len + U::SIZE)) {
        overlap(name, dst, src, Some(count));
    }
    dst.wrapping_add(len)
}

/// strcat.
#[inline(always)]
pub fn append<U: Unit>(name: &str, dst: u64, src: u64) -> u64 {
    let mut call = Call::new();
    let old = find::<U, _>(&mut call, dst, UNBOUNDED, Nul);
    let n = find::<U, _>(&mut call, src, UNBOUNDED, Nul) + U::SIZE;
    if share(dst, old + n, src, n) {
        overlap(name, dst, src, None);
    }
    let to = dst.wrapping_add(old);
    probe(to, n);
    call.reads_again();
    transfer(&mut call, to, src, n, U::SIZE);
    dst
}

/// strncat: at most `count` characters and a terminator.
fn append_within(name: &str, dst: u64, src: u64, count: u64) -> u64 {
    let mut call = Call::new();
    let old = find::<u8, _>(&mut call, dst, UNBOUNDED, Nul);
    let len = find::<u8, _>(&mut call, src, count, Nul);
    if share(dst, old + len + 1, src, count.min(len + 1)) {
        overlap(name, dst, src, Some(count));
    }
    append_at(&mut call, dst.wrapping_add(old), src, len);
    dst
}

/// `len` characters and a terminator.
fn append_at(call: &mut Call, to: u64, src: u64, len: u64) {
    probe(to, len + 1);
    call.reads_again();
    transfer(call, to, src, len, 1);
    fill(call, to.wrapping_add(len), 0, 1, 1);
}

pub extern "C" fn strlen(s: u64) -> u64 {
    length::<u8>(s)
}

pub extern "C" fn strnlen(s: u64, n: u64) -> u64 {
    length_within::<u8>(s, n)
}

pub extern "C" fn strchr(s: u64, c: u32) -> u64 {
    character(s, c as u8, false)
}

pub extern "C" fn strchrnul(s: u64, c: u32) -> u64 {
    character(s, c as u8, true)
}

pub extern "C" fn strrchr(s: u64, c: u32) -> u64 {
    last_character(s, c as u8)
}

pub extern "C" fn strcmp(a: u64, b: u64) -> i32 {
    order::<Exact>(a, b, UNBOUNDED)
}

pub extern "C" fn strncmp(a: u64, b: u64, n: u64) -> i32 {
    order::<Exact>(a, b, n)
}

/// Also strcasecmp_l, whose third argument is not looked at.
pub extern "C" fn strcasecmp(a: u64, b: u64) -> i32 {
    order::<IgnoreCase>(a, b, UNBOUNDED)
}

/// Also strncasecmp_l.
pub extern "C" fn strncasecmp(a: u64, b: u64, n: u64) -> i32 {
    order::<IgnoreCase>(a, b, n)
}

pub extern "C" fn strcpy(dst: u64, src: u64) -> u64 {
    copy::<u8>("strcpy", dst, src);
    dst
}

pub extern "C" fn stpcpy(dst: u64, src: u64) -> u64 {
    copy::<u8>("stpcpy", dst, src)
}

pub extern "C" fn strncpy(dst: u64, src: u64, n: u64) -> u64 {
    copy_within::<u8>("strncpy", dst, src, n);
    dst
}

pub extern "C" fn stpncpy(dst: u64, src: u64, n: u64) -> u64 {
    copy_within::<u8>("stpncpy", dst, src, n)
}

pub extern "C" fn strcat(dst: u64, src: u64) -> u64 {
    append::<u8>("strcat", dst, src)
}

pub extern "C" fn strncat(dst: u64, src: u64, n: u64) -> u64 {
    append_within("strncat", dst, src, n)
}

pub extern "C" fn strlcpy(dst: u64, src: u64, size: u64) -> u64 {
    let mut call = Call::new();
    let len = find::<u8, _>(&mut call, src, UNBOUNDED, Nul);
    if size != 0 {
        let n = len.min(size - 1);
        if share(dst, n + 1, src, n + 1) {
            overlap("strlcpy", dst, src, Some(size));
        }
        call.reads_again();
        transfer(&mut call, dst, src, n, 1);
        fill(&mut call, dst.wrapping_add(n), 0, 1, 1);
    }
    len
}

pub extern "C" fn strlcat(dst: u64, src: u64, size: u64) -> u64 {
    let mut call = Call::new();
    let old = find::<u8, _>(&mut call, dst, size, Nul);
    let len = find::<u8, _>(&mut call, src, UNBOUNDED, Nul);
    if old < size {
        let n = len.min(size - old - 1);
        if share(dst, old + n + 1, src, n + 1) {
            overlap("strlcat", dst, src, Some(size));
        }
        append_at(&mut call, dst.wrapping_add(old), src, n);
    }
    old.wrapping_add(len)
}

// The fortified versions: 0 without doing anything when there is no room, see `crate::FORTIFIED`. A size of -1 means "not known".

fn fits(src: u64, room: u64) -> bool {
    room == u64::MAX || plain_length(src, room) < room
}

pub extern "C" fn strcpy_chk(dst: u64, src: u64, room: u64) -> u64 {
    if !fits(src, room) {
        return 0;
    }
    copy::<u8>("strcpy_chk", dst, src);
    dst
}

pub extern "C" fn stpcpy_chk(dst: u64, src: u64, room: u64) -> u64 {
    if fits(src, room) { copy::<u8>("stpcpy_chk", dst, src) } else { 0 }
}

pub extern "C" fn strcat_chk(dst: u64, src: u64, room: u64) -> u64 {
    let left = if room == u64::MAX { room } else { room - plain_length(dst, room) };
    if fits(src, left) { append::<u8>("strcat_chk", dst, src) } else { 0 }
}

pub extern "C" fn strncpy_chk(dst: u64, src: u64, n: u64, room: u64) -> u64 {
    if n > room { 0 } else { strncpy(dst, src, n) }
}

pub extern "C" fn wcslen(s: u64) -> u64 {
    length::<u32>(s)
}

pub extern "C" fn wcsnlen(s: u64, n: u64) -> u64 {
    length_within::<u32>(s, n)
}

pub extern "C" fn wcschr(s: u64, c: u32) -> u64 {
    character(s, c, false)
}

pub extern "C" fn wcsrchr(s: u64, c: u32) -> u64 {
    last_character(s, c)
}

pub extern "C" fn wcscmp(a: u64, b: u64) -> i32 {
    order_wide::<true>(a, b, u64::MAX)
}

pub extern "C" fn wcsncmp(a: u64, b: u64, n: u64) -> i32 {
    order_wide::<true>(a, b, n)
}

pub extern "C" fn wmemcmp(a: u64, b: u64, n: u64) -> i32 {
    order_wide::<false>(a, b, n)
}

pub extern "C" fn wmemchr(s: u64, c: u32, n: u64) -> u64 {
    let limit = bytes::<u32>(n);
    let at = find(&mut Call::new(), s, limit, One(c));
    if at < limit { s.wrapping_add(at) } else { 0 }
}

pub extern "C" fn wcscpy(dst: u64, src: u64) -> u64 {
    copy::<u32>("wcscpy", dst, src);
    dst
}

pub extern "C" fn wcpcpy(dst: u64, src: u64) -> u64 {
    copy::<u32>("wcpcpy", dst, src)
}

pub extern "C" fn wcsncpy(dst: u64, src: u64, n: u64) -> u64 {
    copy_within::<u32>("wcsncpy", dst, src, n);
    dst
}

pub extern "C" fn wcpncpy(dst: u64, src: u64, n: u64) -> u64 {
    copy_within::<u32>("wcpncpy", dst, src, n)
}

pub extern "C" fn wcscat(dst: u64, src: u64) -> u64 {
    append::<u32>("wcscat", dst, src)
}

pub extern "C" fn wmemcpy(dst: u64, src: u64, n: u64) -> u64 {
    crate::memory::copy("wmemcpy", dst, src, bytes::<u32>(n), 4);
    dst
}

pub extern "C" fn wmemmove(dst: u64, src: u64, n: u64) -> u64 {
    transfer(&mut Call::new(), dst, src, bytes::<u32>(n), 4);
    dst
}

pub extern "C" fn wmemset(dst: u64, c: u32, n: u64) -> u64 {
    fill_wide(&mut Call::new(), dst, c, bytes::<u32>(n));
    dst
}
