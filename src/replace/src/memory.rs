//! mem*: ranges of known length.

use crate::call::{Call, overlap};
use crate::compare::compare;
use crate::copy::{fill, transfer};
use crate::scan::{find, find_last};
use crate::steps::WORD;
use crate::unit::{Exact, One};

/// No limit; a multiple of every unit's size.
pub const UNBOUNDED: u64 = !3;

/// A negative length is another mistake than that ranges overlap.
#[inline(always)]
pub fn overlaps(dst: u64, src: u64, n: u64) -> bool {
    (n as i64) > 0 && (dst.wrapping_sub(src) < n || src.wrapping_sub(dst) < n)
}

/// memcpy and its relatives. Compilers copy a structure onto itself by memcpy, so `dst == src` is no error.
#[inline(always)]
pub fn copy(name: &str, dst: u64, src: u64, n: u64, unit: u64) {
    if overlaps(dst, src, n) && dst != src {
        overlap(name, dst, src, Some(if unit == WORD { n } else { n / unit }));
    }
    transfer(&mut Call::new(), dst, src, n, unit);
}

pub extern "C" fn memcpy(dst: u64, src: u64, n: u64) -> u64 {
    copy("memcpy", dst, src, n, WORD);
    dst
}

pub extern "C" fn mempcpy(dst: u64, src: u64, n: u64) -> u64 {
    copy("mempcpy", dst, src, n, 1);
    dst.wrapping_add(n)
}

pub extern "C" fn memmove(dst: u64, src: u64, n: u64) -> u64 {
    transfer(&mut Call::new(), dst, src, n, WORD);
    dst
}

pub extern "C" fn bcopy(src: u64, dst: u64, n: u64) {
    transfer(&mut Call::new(), dst, src, n, 1);
}

pub extern "C" fn memset(dst: u64, c: u32, n: u64) -> u64 {
    fill(&mut Call::new(), dst, c as u8, n, WORD);
    dst
}

pub extern "C" fn bzero(dst: u64, n: u64) {
    fill(&mut Call::new(), dst, 0, n, WORD);
}

pub extern "C" fn memccpy(dst: u64, src: u64, c: u32, n: u64) -> u64 {
    let mut call = Call::new();
    let at = find(&mut call, src, n, One(c as u8));
    let len = n.min(at + 1);
    if overlaps(dst, src, len) {
        overlap("memccpy", dst, src, Some(len));
    }
    call.reads_again();
    transfer(&mut call, dst, src, len, 1);
    if at < n { dst.wrapping_add(len) } else { 0 }
}

/// memcmp's order is that of the differing bytes; the value is their difference, as in libc.
pub extern "C" fn memcmp(a: u64, b: u64, n: u64) -> i32 {
    compare::<u8, Exact, false>(&mut Call::new(), a, b, n, true).map_or(0, |d| d.a as i32 - d.b as i32)
}

/// Equal or not: undefined bytes behind a difference that is certain do not matter, whatever the order.
pub extern "C" fn bcmp(a: u64, b: u64, n: u64) -> i32 {
    compare::<u8, Exact, false>(&mut Call::new(), a, b, n, false).map_or(0, |d| d.a as i32 - d.b as i32)
}

pub extern "C" fn memchr(s: u64, c: u32, n: u64) -> u64 {
    let at = find(&mut Call::new(), s, n, One(c as u8));
    if at < n { s.wrapping_add(at) } else { 0 }
}

pub extern "C" fn rawmemchr(s: u64, c: u32) -> u64 {
    s.wrapping_add(find(&mut Call::new(), s, UNBOUNDED, One(c as u8)))
}

pub extern "C" fn memrchr(s: u64, c: u32, n: u64) -> u64 {
    find_last(&mut Call::new(), s, n, c as u8).map_or(0, |at| s.wrapping_add(at))
}

// The fortified versions: 0 without doing anything when there is no room, see `crate::FORTIFIED`.

pub extern "C" fn memcpy_chk(dst: u64, src: u64, n: u64, room: u64) -> u64 {
    if n > room {
        return 0;
    }
    copy("memcpy_chk", dst, src, n, WORD);
    dst
}

pub extern "C" fn memmove_chk(dst: u64, src: u64, n: u64, room: u64) -> u64 {
    if n > room { 0 } else { memmove(dst, src, n) }
}

pub extern "C" fn mempcpy_chk(dst: u64, src: u64, n: u64, room: u64) -> u64 {
    if n > room {
        return 0;
    }
    copy("mempcpy_chk", dst, src, n, 1);
    dst.wrapping_add(n)
}

pub extern "C" fn memset_chk(dst: u64, c: u32, n: u64, room: u64) -> u64 {
    if n > room { 0 } else { memset(dst, c, n) }
}
