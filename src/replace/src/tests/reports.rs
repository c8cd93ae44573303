//! What is reported, one case at a time.

use super::{AREA, ONE, PAGE, PC, STACK, TWO, at_end, read, reports, silent, world, write};
use crate::{memory as m, search as f, string as s};
use memcheck_abi::event::{ErrorEvent, Kind};
use memcheck_abi::replace::{Func, place};
use memcheck_rt::shadow;

#[track_caller]
fn one(kind: Kind) -> ErrorEvent {
    let (n, e) = reports();
    assert_eq!((n, e.kind), (1, kind as u32), "number and kind of reports");
    let at = match kind {
        Kind::InvalidWrite => place::WRITE,
        Kind::Overlap => place::OVERLAP,
        _ => place::FIRST_OPERAND,
    };
    assert_eq!((e.stack[0], e.sp), (PC + at, STACK + 2 * PAGE));
    e
}

/// A block of `text` without terminator between red zones, and zero bytes behind.
fn block(text: &[u8]) -> u64 {
    let at = ONE + 256;
    write(at, text);
    shadow::make_noaccess(at - 16, 16);
    shadow::make_noaccess(at + text.len() as u64, 16);
    at
}

#[test]
fn a_missing_terminator_is_an_invalid_read_at_the_first_byte_behind() {
    let _world = world();
    for len in [1, 7, 15, 16, 17, 63, 64, 100, 1000] {
        let text = vec![b'x'; len];
        let at = block(&text);
        let calls: [&dyn Fn() -> u64; 7] = [
            &|| s::strlen(at),
            &|| s::strchrnul(at, 0),
            &|| s::strchr(at, u32::from(b'q')),
            &|| s::strcmp(at, TWO + 4096) as u64,
            &|| s::strcpy(TWO, at),
            &|| f::strstr(at, TWO + 8000),
            &|| f::strspn(at, at_end(TWO, b"x\0")),
        ];
        write(TWO + 8000, b"nothing\0");
        write(TWO + 4096, &[text.as_slice(), b"\0"].concat());
        for (i, call) in calls.iter().enumerate() {
            call();
            let e = one(Kind::InvalidRead);
            assert_eq!((e.addr, e.size), (at + len as u64, 1), "call {i}, length {len}");
        }
        assert_eq!(s::strlen(at), len as u64, "and the value is the native one");
        reports();
        world_clean(at, len);
    }
}

#[test]
fn both_operands_of_a_comparison_are_blamed() {
    let _world = world();
    let at = block(b"12345");
    s::strcmp(at, at);
    let (n, e) = reports();
    assert_eq!((n, e.kind, e.addr), (2, Kind::InvalidRead as u32, at + 5), "two instructions, one address");
}

fn world_clean(at: u64, len: usize) {
    shadow::make_defined(at - 16, len as u64 + 32);
    write(at, &vec![0; len]);
}

#[test]
fn limits_are_respected() {
    let _world = world();
    let at = block(b"12345");
    assert_eq!(s::strnlen(at, 5), 5);
    assert_eq!(m::memchr(at, 0, 5), 0);
    assert_eq!(s::strncmp(at, at, 5), 0);
    assert_eq!(m::memcmp(at, at, 5), 0);
    assert_eq!(m::memrchr(at, 0, 5), 0);
    s::strncpy(TWO, at, 5);
    m::memcpy(TWO, at, 5);
    m::memset(at, 1, 5);
    silent();
}

/// The last byte of the access.
fn around(e: memcheck_abi::event::ErrorEvent) -> u64 {
    e.addr + e.size - 1
}

#[test]
fn one_byte_too_many() {
    let _world = world();
    let at = block(b"12345");
    m::memcpy(TWO, at, 6);
    assert_eq!(around(one(Kind::InvalidRead)), at + 5);
    m::memcpy(at, TWO, 6);
    assert_eq!(around(one(Kind::InvalidWrite)), at + 5);
    m::memset(at - 1, 0, 3);
    assert_eq!(one(Kind::InvalidWrite).addr, at - 1);
    m::memchr(at, 0x99, 6);
    assert_eq!(one(Kind::InvalidRead).addr, at + 5);
    m::memrchr(at, 0x99, 6);
    assert_eq!(one(Kind::InvalidRead).addr, at + 5);
    write(TWO, b"123456\0");
    s::strcpy(at, TWO);
    assert_eq!(one(Kind::InvalidWrite).addr, at + 5);
    assert_eq!(read(at, 7), b"123456\0", "the copy is made nevertheless");
    assert!(!shadow::a_clear(at + 5) && shadow::v(at + 5) == 0xff, "and the red zone stays");
}

#[test]
fn wide_accesses_have_size_four() {
    let _world = world();
    let at = block(&[1; 40]);
    s::wcslen(at);
    let e = one(Kind::InvalidRead);
    assert_eq!((e.addr, e.size), (at + 40, 4));
    s::wmemset(at, 5, 11);
    let e = one(Kind::InvalidWrite);
    assert_eq!((e.addr, e.size), (at + 40, 4));
    s::wmemcpy(TWO, at + 4, 10);
    let e = one(Kind::InvalidRead);
    assert_eq!((e.addr, e.size), (at + 40, 4));
}

#[test]
fn below_the_stack_pointer() {
    let _world = world();
    let sp = STACK + 2 * PAGE;
    shadow::fill_v(STACK, 2 * PAGE - 128, 0xff);
    m::memset(sp - 129, 0, 2);
    assert_eq!(one(Kind::InvalidWrite).addr, sp - 129);
    m::memset(sp - 128, 0, 300);
    silent();
}

#[test]
fn undefined_bytes_that_decide() {
    let _world = world();
    write(ONE, b"abcdefgh\0");
    write(TWO, b"abcdefgh\0");
    shadow::make_undefined(ONE + 3, 2);
    let calls: [&dyn Fn() -> u64; 10] = [
        &|| s::strlen(ONE),
        &|| s::strnlen(ONE, 4),
        &|| s::strcmp(ONE, TWO) as u64,
        &|| s::strcasecmp(TWO, ONE) as u64,
        &|| m::memcmp(ONE, TWO, 4) as u64,
        &|| m::bcmp(ONE, TWO, 8) as u64,
        &|| m::memchr(ONE, 0x68, 8),
        &|| m::memrchr(ONE, 0x61, 8),
        &|| s::strcpy(TWO + 100, ONE),
        &|| f::strcspn(ONE, TWO + 7),
    ];
    for (i, call) in calls.iter().enumerate() {
        call();
        let (n, e) = reports();
        assert_eq!((n, e.kind, e.has_addr), (1, Kind::Cond as u32, 0), "call {i}");
    }
    assert_eq!((shadow::v(TWO + 102), shadow::v(TWO + 103), shadow::v(TWO + 105)), (0, 0xff, 0), "V was copied");
    shadow::make_defined(TWO, 200);
}

#[test]
fn undefined_bytes_that_do_not_decide() {
    let _world = world();
    write(ONE, b"abcdefgh\0");
    write(TWO, b"abXdefgh\0");
    shadow::make_undefined(ONE + 3, 2);
    shadow::make_undefined(ONE + 9, 50);
    assert_eq!(m::memcmp(ONE, TWO, 9), i32::from(b'c') - i32::from(b'X'), "behind the difference");
    assert_eq!(s::strcmp(ONE, TWO), i32::from(b'c') - i32::from(b'X'));
    assert_eq!(m::memchr(ONE, 0x63, 9), ONE + 2);
    m::memcpy(TWO + 100, ONE, 60);
    silent();
    shadow::make_defined(ONE, 100);
    shadow::set_v(ONE + 3, 0x03);
    assert_eq!(s::strlen(ONE), 8, "a character with a defined bit set is no terminator");
    silent();
    // 'd' = 0x64 with the low bits unknown against 'X' = 0x58: different, but against 'd': perhaps the same.
    write(TWO + 3, b"X");
    write(TWO + 2, b"c");
    assert_ne!(m::memcmp(ONE, TWO, 8), 0);
    silent();
    write(TWO + 3, b"d");
    m::memcmp(ONE, TWO, 8);
    one(Kind::Cond);
    // 0x64 with bit 3 unknown against 0x66 with all known: certainly different, which is larger is not.
    shadow::set_v(ONE + 3, 0x08);
    write(TWO + 3, b"f");
    m::bcmp(ONE, TWO, 8);
    silent();
    m::memcmp(ONE, TWO, 8);
    one(Kind::Cond);
}

#[test]
fn searches_see_every_byte_on_their_way() {
    let _world = world();
    write(ONE, &[b'x'; 300]);
    write(TWO, b"yz\0");
    for at in [0, 1, 15, 16, 33, 200, 299] {
        shadow::set_v(ONE + at, 0xff);
        for search in [f::strstr, f::strcasestr, f::strpbrk, f::strcspn] {
            search(ONE, TWO);
            one(Kind::Cond);
        }
        f::memmem(ONE, 301, TWO, 2);
        one(Kind::Cond);
        shadow::make_noaccess(ONE + at, 1);
        f::strstr(ONE, TWO);
        assert_eq!(one(Kind::InvalidRead).addr, ONE + at);
        shadow::make_defined(ONE, 304);
    }
}

#[test]
fn no_definedness_errors_when_switched_off() {
    let _world = world();
    // SAFETY: zero is a valid value of every field.
    let mut config: Box<memcheck_abi::config::Config> = unsafe { Box::new(std::mem::zeroed()) };
    crate::init(&config);
    shadow::make_undefined(ONE, 8);
    s::strlen(ONE);
    silent();
    config.undef_value_errors = 1;
    crate::init(&config);
    s::strlen(ONE);
    one(Kind::Cond);
}

#[track_caller]
fn overlapping(name: &str, dst: u64, src: u64, len: Option<u64>) {
    let e = one(Kind::Overlap);
    let end = e.name.iter().position(|&b| b == 0).unwrap_or(0);
    assert_eq!(std::str::from_utf8(&e.name[..end]), Ok(name));
    assert_eq!((e.args[0], e.args[1], e.args[2], e.flag), (dst, src, len.unwrap_or(0), u32::from(len.is_some())), "{name}");
}

fn letters() {
    write(ONE, b"abcdefghijklmnopqrstuvwxyz\0");
}

#[test]
fn overlaps() {
    let _world = world();
    letters();
    m::memcpy(ONE + 2, ONE, 10);
    overlapping("memcpy", ONE + 2, ONE, Some(10));
    assert_eq!(read(ONE, 14), b"ababcdefghijmn", "done like memmove");
    letters();
    m::mempcpy(ONE, ONE + 2, 10);
    overlapping("mempcpy", ONE, ONE + 2, Some(10));
    m::memcpy_chk(ONE, ONE + 2, 10, 100);
    overlapping("memcpy_chk", ONE, ONE + 2, Some(10));
    m::memccpy(ONE, ONE + 2, u32::from(b'z'), 100);
    overlapping("memccpy", ONE, ONE + 2, Some(24));
    letters();
    s::strcpy(ONE, ONE + 2);
    overlapping("strcpy", ONE, ONE + 2, None);
    s::stpcpy(ONE, ONE);
    overlapping("stpcpy", ONE, ONE, None);
    letters();
    s::strncpy(ONE + 5, ONE, 8);
    overlapping("strncpy", ONE + 5, ONE, Some(8));
    s::stpncpy(ONE + 5, ONE, 8);
    overlapping("stpncpy", ONE + 5, ONE, Some(8));
    letters();
    s::strncat(ONE, ONE + 20, 3);
    overlapping("strncat", ONE, ONE + 20, Some(3));
    letters();
    write(ONE + 10, b"\0");
    s::strcat(ONE, ONE + 5);
    overlapping("strcat", ONE, ONE + 5, None);
    letters();
    s::strlcpy(ONE, ONE + 2, 50);
    overlapping("strlcpy", ONE, ONE + 2, Some(50));
    s::wmemcpy(ONE, ONE + 4, 5);
    overlapping("wmemcpy", ONE, ONE + 4, Some(5));
    write(ONE + 16, &[0; 4]);
    s::wcscpy(ONE, ONE + 4);
    overlapping("wcscpy", ONE, ONE + 4, None);
}

#[test]
fn moves_of_absurd_lengths_leave_their_blocks_first() {
    let _world = world();
    let (to, from) = (ONE + 256, ONE + 1024);
    for at in [to, from] {
        shadow::make_noaccess(at - 16, 16);
        shadow::make_noaccess(at + 20, 16);
    }
    let found = |func, args: [u64; 3]| {
        let accesses = crate::fault::before(func, &[args[0], args[1], args[2], 0, 0, 0]);
        accesses.map(|access| access.map(|access| (access.kind, access.addr, access.size)))
    };
    // The word at the end of the block may be read, but not written.
    let words = [Some((Kind::InvalidWrite, to + 16, 8)), Some((Kind::InvalidRead, from + 24, 8))];
    assert_eq!(found(Func::memmove, [to, from, u64::MAX]), words);
    let bytes = [Some((Kind::InvalidRead, from + 20, 1)), Some((Kind::InvalidWrite, to + 20, 1))];
    assert_eq!(found(Func::mempcpy, [to, from, u64::MAX]), bytes);
    assert_eq!(found(Func::memmove, [to, from, 20]), [None; 2], "they do not overlap: what is in front of the fault was told");
    assert_eq!(found(Func::strcpy, [to, from, 0]), [None; 2]);
    silent();
}

#[test]
fn no_overlap() {
    let _world = world();
    letters();
    m::memcpy(ONE, ONE, 20);
    m::memmove(ONE, ONE + 1, 20);
    m::bcopy(ONE, ONE + 1, 20);
    m::memcpy(ONE, ONE + 10, 10);
    m::memcpy(ONE, ONE + 10, 0);
    assert!(!m::overlaps(ONE, ONE + 10, u64::MAX), "a negative length is another mistake");
    s::strncpy(ONE, ONE + 5, 5);
    write(ONE, b"ab\0ef\0\0\0");
    s::strcpy(ONE + 3, ONE);
    silent();
}

#[test]
fn fortified_functions_without_room_do_nothing() {
    let _world = world();
    let text = at_end(ONE, b"12345\0");
    write(TWO, b"ab\0------");
    for call in [m::memcpy_chk, m::memmove_chk, m::mempcpy_chk, s::strncpy_chk] {
        assert_eq!(call(TWO, text, 6, 5), 0);
    }
    assert_eq!(m::memset_chk(TWO, 7, 6, 5), 0);
    assert_eq!((s::strcpy_chk(TWO, text, 5), s::stpcpy_chk(TWO, text, 5)), (0, 0));
    assert_eq!((s::strcat_chk(TWO, text, 7), s::strcat_chk(TWO, text, 2)), (0, 0));
    assert_eq!(read(TWO, 9), b"ab\0------");
    assert_eq!((s::strcat_chk(TWO, text, 8), read(TWO, 9)), (TWO, b"ab12345\0-".to_vec()));
    assert_eq!((s::strcpy_chk(TWO, text, 6), s::stpcpy_chk(TWO, text, u64::MAX)), (TWO, TWO + 5));
    assert_eq!((m::memcpy_chk(TWO, text, 5, 5), m::mempcpy_chk(TWO, text, 5, 6)), (TWO, TWO + 5));
    assert_eq!((m::memset_chk(TWO, 7, 5, 5), s::strncpy_chk(TWO, text, 5, 5), m::memmove_chk(TWO, text, 5, 5)), (TWO, TWO, TWO));
    silent();
    assert!(crate::FORTIFIED.iter().all(|f| f.name().ends_with("_chk") && crate::entry(*f).is_some()));
}

/// What the first byte of the destination was at the fault.
static AT_FAULT: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());

extern "C" fn on_fault(_: i32) {
    if let Ok(mut seen) = AT_FAULT.try_lock() {
        *seen = read(ONE, 2 * PAGE);
    }
    // SAFETY: the page was made read-only by the test.
    unsafe { libc::mprotect((ONE + 2 * PAGE) as *mut _, PAGE as usize, 3) };
}

/// A program that catches the fault of an overlapping move and makes the page writable gets the function run again from its start:
/// so nothing may have been written before the fault.
#[test]
fn overlapping_moves_fault_before_they_write() {
    let _world = world();
    let data: Vec<u8> = (0..AREA).map(|i| (i * 31 + (i >> 7)) as u8).collect();
    for (dst, src, n) in [(16, 0, 2 * PAGE), (2 * PAGE - 8, 2 * PAGE - 16, 24), (0, 16, 2 * PAGE + 100)] {
        write(ONE, &data);
        // SAFETY: test memory and a handler that only repairs the page.
        unsafe {
            libc::signal(libc::SIGSEGV, on_fault as *const () as usize);
            libc::mprotect((ONE + 2 * PAGE) as *mut _, PAGE as usize, 1);
        }
        m::memmove(ONE + dst, ONE + src, n);
        // SAFETY: back to the default.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        let seen = std::mem::take(&mut *AT_FAULT.lock().unwrap_or_else(|e| e.into_inner()));
        assert!(seen == data[..2 * PAGE as usize], "{dst} {src} {n}");
        assert!(read(ONE + dst, n) == data[src as usize..(src + n) as usize]);
    }
}
