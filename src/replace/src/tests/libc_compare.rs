//! The same call, ours on program memory and libc's on a copy, must give the same value and the same memory.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each is a call of libc on test memory, right for C")]

use super::{AREA, ONE, Random, TWO, at_end, read, silent, world, write};
use crate::{memory as m, search as f, string as s, vector};

unsafe extern "C" {
    fn strlen(s: u64) -> u64;
    fn strnlen(s: u64, n: u64) -> u64;
    fn strchr(s: u64, c: u32) -> u64;
    fn strchrnul(s: u64, c: u32) -> u64;
    fn strrchr(s: u64, c: u32) -> u64;
    fn strcmp(a: u64, b: u64) -> i32;
    fn strncmp(a: u64, b: u64, n: u64) -> i32;
    fn strcasecmp(a: u64, b: u64) -> i32;
    fn strncasecmp(a: u64, b: u64, n: u64) -> i32;
    fn strcpy(d: u64, s: u64) -> u64;
    fn stpcpy(d: u64, s: u64) -> u64;
    fn strncpy(d: u64, s: u64, n: u64) -> u64;
    fn stpncpy(d: u64, s: u64, n: u64) -> u64;
    fn strcat(d: u64, s: u64) -> u64;
    fn strncat(d: u64, s: u64, n: u64) -> u64;
    fn strstr(h: u64, n: u64) -> u64;
    fn strcasestr(h: u64, n: u64) -> u64;
    fn strpbrk(h: u64, n: u64) -> u64;
    fn strspn(h: u64, n: u64) -> u64;
    fn strcspn(h: u64, n: u64) -> u64;
    fn memchr(s: u64, c: u32, n: u64) -> u64;
    fn memrchr(s: u64, c: u32, n: u64) -> u64;
    fn rawmemchr(s: u64, c: u32) -> u64;
    fn memcmp(a: u64, b: u64, n: u64) -> i32;
    fn memmove(d: u64, s: u64, n: u64) -> u64;
    fn memcpy(d: u64, s: u64, n: u64) -> u64;
    fn mempcpy(d: u64, s: u64, n: u64) -> u64;
    fn memccpy(d: u64, s: u64, c: u32, n: u64) -> u64;
    fn memset(d: u64, c: u32, n: u64) -> u64;
    fn memmem(h: u64, len: u64, n: u64, k: u64) -> u64;
    fn wcslen(s: u64) -> u64;
    fn wcsnlen(s: u64, n: u64) -> u64;
    fn wcscmp(a: u64, b: u64) -> i32;
    fn wcsncmp(a: u64, b: u64, n: u64) -> i32;
    fn wcschr(s: u64, c: u32) -> u64;
    fn wcsrchr(s: u64, c: u32) -> u64;
    fn wmemchr(s: u64, c: u32, n: u64) -> u64;
    fn wmemcmp(a: u64, b: u64, n: u64) -> i32;
    fn wcscpy(d: u64, s: u64) -> u64;
    fn wcpcpy(d: u64, s: u64) -> u64;
    fn wcsncpy(d: u64, s: u64, n: u64) -> u64;
    fn wcpncpy(d: u64, s: u64, n: u64) -> u64;
    fn wcscat(d: u64, s: u64) -> u64;
    fn wmemset(d: u64, c: u32, n: u64) -> u64;
    fn wmemmove(d: u64, s: u64, n: u64) -> u64;
}

/// Run `theirs`, and `ours` with both vector widths, from the same memory; all must return the same and leave the same. No reports.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, theirs: impl Fn() -> T, ours: impl Fn() -> T) {
    let before = (read(ONE, AREA), read(TWO, AREA));
    let expected = theirs();
    let after = (read(ONE, AREA), read(TWO, AREA));
    for wide in [false, true] {
        write(ONE, &before.0);
        write(TWO, &before.1);
        vector::detect(wide);
        assert_eq!(ours(), expected, "{what}, wide: {wide}");
        assert!(after == (read(ONE, AREA), read(TWO, AREA)), "{what}, wide: {wide}: memory differs");
    }
    write(ONE, &before.0);
    write(TWO, &before.1);
    silent();
}

macro_rules! same {
    ($module:ident :: $name:ident ( $($arg:expr),* )) => {
        // SAFETY: libc on test memory, with arguments that are right for C.
        same(concat!(stringify!($name), stringify!(($($arg),*))), || unsafe { $name($($arg),*) }, || $module::$name($($arg),*))
    };
}

/// `n` characters of a small alphabet (so that comparisons go far and searches nearly match), and a terminator.
fn text(r: &mut Random, n: u64) -> Vec<u8> {
    const ALPHABET: &[u8] = b"aAzZb\xe9@[`{B";
    let kinds = 1 + r.below(ALPHABET.len() as u64);
    let mut t: Vec<u8> = (0..n).map(|_| ALPHABET[r.below(kinds) as usize]).collect();
    t.push(0);
    t
}

/// Two strings at random places (often against the page that faults); the second is often a variant of the first.
fn two_strings(r: &mut Random) -> (u64, u64, u64) {
    let n = r.length(5000);
    let a = text(r, n);
    let b = match r.below(4) {
        0 => {
            let n = r.length(5000);
            text(r, n)
        }
        1 => a.to_ascii_lowercase(),
        2 => a.clone(),
        _ => {
            let mut b = a.clone();
            let end = b.len() as u64 - 1;
            if end > 0 {
                b[r.below(end) as usize] = b"aB\x00\x80"[r.below(4) as usize];
            }
            b
        }
    };
    (place(r, ONE, &a), place(r, TWO, &b), n)
}

fn place(r: &mut Random, base: u64, bytes: &[u8]) -> u64 {
    let room = AREA - bytes.len() as u64;
    let back = if r.below(2) == 0 { 0 } else { r.length(room) };
    let addr = base + room - back;
    write(addr, bytes);
    addr
}

#[test]
fn reading_strings() {
    let _world = world();
    let mut r = Random(0x1234_5678_9abc_def1);
    for _ in 0..1000 {
        let (a, b, n) = two_strings(&mut r);
        let c = u32::from(b"aAbB@\0z\xe9"[r.below(8) as usize]) | (r.next() as u32) << 8;
        let k = r.length(n + 3);
        same!(s::strlen(a));
        same!(s::strnlen(a, k));
        same!(s::strnlen(a, u64::MAX));
        same!(s::strchr(a, c));
        same!(s::strchrnul(a, c));
        same!(s::strrchr(a, c));
        same!(s::strcmp(a, b));
        same!(s::strcmp(b, a));
        same!(s::strncmp(a, b, k));
        same!(s::strcasecmp(a, b));
        same!(s::strncasecmp(a, b, k));
        same!(f::strstr(a, b));
        same!(f::strpbrk(a, b));
        same!(f::strspn(a, b));
        same!(f::strcspn(a, b));
    }
}

#[test]
fn writing_strings() {
    let _world = world();
    let mut r = Random(0xfeed_5678_9abc_def1);
    for _ in 0..1000 {
        let (a, n) = (r.length(3000), r.length(3000));
        let (old, new) = (text(&mut r, a), text(&mut r, n));
        let src = place(&mut r, TWO, &new);
        let k = r.length(n + 40);
        let d = at_end(ONE, &vec![0xaa; (n + 1).max(k) as usize]);
        same!(s::strcpy(d, src));
        same!(s::stpcpy(d, src));
        same!(s::strncpy(d, src, k));
        same!(s::stpncpy(d, src, k));
        let d = ONE + AREA - (a + n + 1);
        write(d, &old);
        same!(s::strcat(d, src));
        same!(s::strncat(d, src, k));
    }
}

#[test]
fn strlcpy_and_strlcat_do_what_their_manual_says() {
    let _world = world();
    let d = at_end(ONE, b"xxxx");
    let src = at_end(TWO, b"hello\0");
    assert_eq!((s::strlcpy(d, src, 4), read(d, 4)), (5, b"hel\0".to_vec()));
    assert_eq!((s::strlcpy(d, src, 0), read(d, 4)), (5, b"hel\0".to_vec()));
    write(d, b"a\0xx");
    assert_eq!((s::strlcat(d, src, 4), read(d, 4)), (6, b"ahe\0".to_vec()));
    write(d, b"abcd");
    assert_eq!((s::strlcat(d, src, 4), read(d, 4)), (9, b"abcd".to_vec()), "no terminator within the size");
    silent();
}

#[test]
fn memory_functions() {
    let _world = world();
    let mut r = Random(0x1234_0000_9abc_def1);
    for _ in 0..1000 {
        let n = r.length(AREA);
        let data: Vec<u8> = (0..n).map(|_| b"abc\0"[r.below(4) as usize]).collect();
        let mut other = data.clone();
        if n > 0 && r.below(2) == 0 {
            other[r.below(n) as usize] = 0x90;
        }
        let (a, b) = (place(&mut r, ONE, &data), place(&mut r, TWO, &other));
        let c = u32::from(b"abz\x90"[r.below(4) as usize]) | 0x5500;
        same!(m::memchr(a, c, n));
        same!(m::memrchr(b, c, n));
        same!(m::memcmp(a, b, n));
        // SAFETY: as in `same!`: the areas hold what is compared or copied.
        same("bcmp", || unsafe { memcmp(b, a, n) } == 0, || m::bcmp(b, a, n) == 0);
        same!(m::memcpy(a, b, n));
        same!(m::mempcpy(a, b, n));
        same!(m::memccpy(a, b, c, n));
        same!(m::memset(a, c, n));
        if data.contains(&b'a') {
            same!(m::rawmemchr(a, u32::from(b'a')));
        }
        let k = r.length(n.min(40));
        let from = if n == k { 0 } else { r.below(n - k) };
        same!(f::memmem(a, n, b + from, k));
    }
}

#[test]
fn moves_with_every_kind_of_overlap() {
    let _world = world();
    let mut r = Random(0x77);
    let data: Vec<u8> = (0..AREA).map(|_| r.next() as u8).collect();
    write(ONE, &data);
    for _ in 0..1500 {
        let n = r.length(AREA - 200);
        let a = ONE + r.below(AREA - n + 1);
        let b = ONE + (a - ONE + r.length(300)).min(AREA - n);
        same!(m::memmove(a, b, n));
        same!(m::memmove(b, a, n));
        // SAFETY: as in `same!`: the areas hold what is compared or copied.
        same("bcopy", || _ = unsafe { memmove(a, b, n) }, || m::bcopy(b, a, n));
    }
}

/// Case-insensitive search, where libc's own is not vectorised: ASCII only.
#[test]
fn searching_without_case() {
    let _world = world();
    let mut r = Random(0xabcd);
    for _ in 0..1000 {
        let (n, k) = (r.length(600), r.length(12));
        let hay: Vec<u8> = (0..n).map(|_| b"abAB"[r.below(4) as usize]).chain([0]).collect();
        let needle: Vec<u8> = (0..k).map(|_| b"aAbB"[r.below(4) as usize]).chain([0]).collect();
        let (h, d) = (place(&mut r, ONE, &hay), place(&mut r, TWO, &needle));
        same!(f::strcasestr(h, d));
        same!(f::strstr(h, d));
    }
}

/// Periodic needles in nearly matching haystacks: the two-way algorithm takes over.
#[test]
fn searching_periodic_text() {
    let _world = world();
    let mut r = Random(0x9999);
    for _ in 0..400 {
        let period = 1 + r.below(7);
        let unit: Vec<u8> = (0..period).map(|_| b"ab"[r.below(2) as usize]).collect();
        let mut hay: Vec<u8> = unit.iter().copied().cycle().take(6000).collect();
        for _ in 0..r.below(4) {
            hay[r.below(6000) as usize] = b'c';
        }
        hay.push(0);
        let k = 1 + r.length(900);
        let mut needle: Vec<u8> = unit.iter().copied().cycle().skip(r.below(period) as usize).take(k as usize).collect();
        if r.below(2) == 0 {
            needle[r.below(k) as usize] = b'c';
        }
        needle.push(0);
        let (h, d) = (place(&mut r, ONE, &hay), place(&mut r, TWO, &needle));
        same!(f::strstr(h, d));
        same!(f::strcasestr(h, d));
        same!(f::memmem(h, 6000, d, k));
    }
}

fn wide_text(r: &mut Random, n: u64) -> Vec<u8> {
    let mut t: Vec<u32> = (0..n).map(|_| [0x61, 0x100, 0x1_0000, 0xffff_ffff][r.below(4) as usize]).collect();
    t.push(0);
    t.iter().flat_map(|c| c.to_le_bytes()).collect()
}

fn sign(x: i32) -> i32 {
    x.signum()
}

#[test]
fn wide_functions() {
    let _world = world();
    let mut r = Random(0x5a5a_1111);
    for _ in 0..1000 {
        let n = r.length(1000);
        let t = wide_text(&mut r, n);
        let mut u = t.clone();
        if r.below(2) == 0 {
            let at = 4 * r.below(n + 1) as usize;
            u[at..at + 4].copy_from_slice(&[0, 0, 1, r.next() as u8]);
        }
        let back = 4 * r.below(20);
        let (a, b) = (ONE + AREA - t.len() as u64 - back, TWO + AREA - u.len() as u64);
        write(a, &t);
        write(b, &u);
        let c = [0x61, 0x100, 0x6100, 0, 0xffff_ffff][r.below(5) as usize];
        let k = r.length(n + 1);
        same!(s::wcslen(a));
        same!(s::wcsnlen(a, k));
        same!(s::wcschr(a, c));
        same!(s::wcsrchr(a, c));
        same!(s::wmemchr(a, c, k));
        // SAFETY: as in `same!`: the areas hold what is compared or copied, and the strings end.
        same("wcscmp", || sign(unsafe { wcscmp(a, a) }), || s::wcscmp(a, a));
        same("wcsncmp", || sign(unsafe { wcsncmp(a, b, k) }), || s::wcsncmp(a, b, k));
        same("wmemcmp", || sign(unsafe { wmemcmp(a, b, k) }), || s::wmemcmp(a, b, k));
        let d = TWO + AREA - 4 * (n + 1);
        same!(s::wcscpy(d, a));
        same!(s::wcpcpy(d, a));
        same!(s::wcsncpy(d, a, k));
        same!(s::wcpncpy(d, a, k));
        same!(s::wmemset(d, c, k));
        same!(s::wmemmove(d, a, k));
        // SAFETY: k characters from a and to d lie inside the test's areas.
        same("wmemcpy", || unsafe { wmemmove(d, a, k) }, || s::wmemcpy(d, a, k));
        let (d, half) = (TWO + AREA - 4 * (2 * n + 1), &t);
        write(d, half);
        same!(s::wcscat(d, a));
    }
}

/// libc allows it on this architecture, so it must work.
#[test]
fn wide_functions_at_odd_addresses() {
    let _world = world();
    let t: Vec<u8> = [0x61u32, 0x62, 0x61, 0].iter().flat_map(|c| c.to_le_bytes()).collect();
    let (a, b) = (at_end(ONE, &t) - 3, at_end(TWO, &t));
    write(a, &t);
    assert_eq!((s::wcslen(a), s::wcschr(a, 0x62), s::wcsrchr(a, 0x61), s::wcscmp(a, b)), (3, a + 4, a + 8, 0));
    silent();
}

/// Memory above the program's space has no shadow; the functions still work on it.
#[test]
fn memory_without_shadow() {
    let _world = world();
    // On the host's stack, which lies behind all that belongs to the tool.
    let mut v = *b"hello world hello\0";
    let p = v.as_mut_ptr() as u64;
    assert!(p > 0x7000_0000_0000);
    assert_eq!((s::strlen(p), s::strrchr(p, u32::from(b'h')), f::strstr(p, p + 12)), (17, p + 12, p));
    assert_eq!(m::memcmp(p, p + 12, 6), i32::from(b' '), "space against terminator");
    m::memmove(p + 1, p, 16);
    m::memset(p, 0x78, 1);
    assert_eq!(&v, b"xhello world hell\0");
    silent();
}
