//! The address-space calls, really executed.

use super::{Program, get, put, v};
use crate::check;
use crate::space::{self, kind};
use memcheck_abi::layout::{HEAP_START, LOW_END, LOW_START, MAGIC_BASE, MMAP_END, MMAP_START};
use memcheck_rt::shadow;
use std::sync::Mutex;
use std::vec::Vec;

const MMAP: u64 = 9;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const BRK: u64 = 12;
const MREMAP: u64 = 25;
const MADVISE: u64 = 28;
const ANON: u64 = 0x22;
const FIXED: u64 = 0x10;
const NOREPLACE: u64 = 0x10_0000;
const NO_FD: u64 = u64::MAX;
const PAGE: u64 = 4096;

/// What the hooks were told: (start, end, flags), flags = u32::MAX for "changed".
static TOLD: Mutex<Vec<(u64, u64, u32)>> = Mutex::new(Vec::new());

pub fn note_changed(start: u64, len: u64) {
    assert!(space::mapping_of(0).is_none(), "the map can be asked from inside a hook");
    TOLD.lock().unwrap().push((start, start + len, u32::MAX));
}

pub fn note_mapped(start: u64, end: u64, flags: u32) {
    TOLD.lock().unwrap().push((start, end, flags));
}

static HOOKS: crate::Hooks = crate::Hooks {
    program_call: || 0,
    register_v: |_| None,
    memory_origin: |_, _| {},
    register_origin: |_, _, _| {},
    code_changed: note_changed,
    exec_mapped: note_mapped,
};

fn told() -> Vec<(u64, u64, u32)> {
    core::mem::take(&mut *TOLD.lock().unwrap())
}

fn map(p: &mut Program, len: u64, prot: u64) -> u64 {
    let at = p.call(MMAP, &[0, len, prot, ANON, NO_FD, 0]);
    assert!(at > 0, "{at}");
    at as u64
}

#[test]
fn code_goes_low_and_data_high() {
    let p = &mut Program::new();
    let data = map(p, PAGE, 3);
    assert!((MMAP_START..MMAP_END).contains(&data));
    let code = map(p, PAGE, 5);
    assert!((LOW_START..LOW_END).contains(&code));
    let low = p.call(MMAP, &[0, PAGE, 3, ANON | 0x40, NO_FD, 0]) as u64;
    assert!((LOW_START..LOW_END).contains(&low), "MAP_32BIT");
    let reservation = map(p, 128 << 20, 0);
    assert!((LOW_START..LOW_END).contains(&reservation), "may become code");
    let big = map(p, 1 << 40, 0);
    assert!((MMAP_START..MMAP_END).contains(&big));
    for (at, len) in [(data, PAGE), (code, PAGE), (low, PAGE), (reservation, 128 << 20), (big, 1 << 40)] {
        assert_eq!(p.call(MUNMAP, &[at, len]), 0);
        assert_eq!(space::mapping_of(at), None);
    }
}

#[test]
fn objects_go_low_and_other_files_high() {
    let p = &mut Program::new();
    for (path, low) in [("/proc/self/exe", true), ("/etc/passwd", false)] {
        let name = p.string(path);
        let fd = p.call(2, &[name, 0]) as u64;
        let at = p.call(MMAP, &[0, PAGE, 1, 2, fd, 0]) as u64;
        assert_eq!((LOW_START..LOW_END).contains(&at), low, "{path} at {at:#x}");
        assert_eq!(space::mapping_of(at), Some((at, at + PAGE, 1, kind::FILE)));
        p.call(MUNMAP, &[at, PAGE]);
        p.call(3, &[fd]);
    }
}

#[test]
fn hints_are_taken_when_they_are_good() {
    let p = &mut Program::new();
    let hint = 0x200_0000_0000;
    assert_eq!(p.call(MMAP, &[hint, PAGE, 3, ANON, NO_FD, 0]), hint as i64);
    let second = p.call(MMAP, &[hint, PAGE, 3, ANON, NO_FD, 0]) as u64;
    assert_ne!(second, hint, "taken");
    let code = p.call(MMAP, &[hint + 0x10_0000, PAGE, 5, ANON, NO_FD, 0]) as u64;
    assert!(code < LOW_END, "code does not go high for a hint");
    for bad in [HEAP_START, MAGIC_BASE, 0x7fff_0000_0000, 0x100] {
        let at = p.call(MMAP, &[bad, PAGE, 3, ANON, NO_FD, 0]) as u64;
        assert!((MMAP_START..MMAP_END).contains(&at));
        p.call(MUNMAP, &[at, PAGE]);
    }
    for at in [hint, second, code] {
        p.call(MUNMAP, &[at, PAGE]);
    }
}

#[test]
fn fixed_places_are_the_programs_or_refused() {
    let p = &mut Program::new();
    let at = 0x300_0000_0000;
    assert_eq!(p.call(MMAP, &[at, 4 * PAGE, 3, ANON | FIXED, NO_FD, 0]), at as i64);
    assert_eq!(p.call(MMAP, &[at + PAGE, PAGE, 3, ANON | NOREPLACE, NO_FD, 0]), -17);
    for bad in [HEAP_START, MAGIC_BASE, 0x7fff_f000, 0x6800_0000_0000, 0x7fff_0000_0000] {
        assert_eq!(p.call(MMAP, &[bad, PAGE, 3, ANON | FIXED, NO_FD, 0]), -12, "{bad:#x}");
        assert_eq!(p.call(MUNMAP, &[bad, PAGE]), -22, "{bad:#x}");
    }
    shadow::fill_v(at, 4 * PAGE, 0xff);
    assert_eq!(p.call(MMAP, &[at + PAGE, PAGE, 3, ANON | FIXED, NO_FD, 0]), (at + PAGE) as i64);
    assert_eq!((v(at, 1)[0], v(at + PAGE, 1)[0], v(at + 2 * PAGE, 1)[0]), (0xff, 0, 0xff));
    assert_eq!(p.call(MUNMAP, &[at, 4 * PAGE]), 0);
    assert_eq!(v(at, 4 * PAGE as usize), std::vec![0; 4 * PAGE as usize]);
}

#[test]
fn unmapping_forgets_large_and_small_shadow() {
    let p = &mut Program::new();
    for len in [PAGE, 8 << 20] {
        let at = map(p, len, 3);
        for probe in [at, at + len / 2, at + len - 1] {
            shadow::make_noaccess(probe, 1);
        }
        p.call(MUNMAP, &[at, len]);
        for probe in [at, at + len / 2, at + len - 1] {
            assert_eq!((shadow::v(probe), shadow::a_clear(probe)), (0, true));
        }
    }
}

#[test]
fn moving_carries_shadow() {
    let p = &mut Program::new();
    let at = map(p, 2 * PAGE, 3);
    let wall = p.call(MMAP, &[at + 2 * PAGE, PAGE, 0, ANON | FIXED, NO_FD, 0]) as u64;
    put(at, b"abc");
    shadow::make_noaccess(at + PAGE, 5);
    let to = p.call(MREMAP, &[at, 2 * PAGE, 8 * PAGE, 1, 0]) as u64;
    assert!(to != at && (MMAP_START..MMAP_END).contains(&to));
    assert_eq!(get(to, 3), b"abc");
    assert_eq!(v(to + PAGE - 1, 7), [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    assert!(!shadow::a_clear(to + PAGE) && shadow::a_clear(at + PAGE) && shadow::v(at + PAGE) == 0);
    assert_eq!((space::mapping_of(at), space::mapping_of(to).map(|m| m.1)), (None, Some(to + 8 * PAGE)));
    assert_eq!(p.call(MREMAP, &[to, 8 * PAGE, PAGE, 0, 0]), to as i64);
    assert_eq!((space::mapping_of(to).map(|m| m.1), shadow::v(to + PAGE)), (Some(to + PAGE), 0));
    assert_eq!(p.call(MREMAP, &[to, PAGE, 3 * PAGE, 0, 0]), to as i64, "room that was just given back");
    let target = 0x310_0000_0000;
    assert_eq!(p.call(MREMAP, &[to, 3 * PAGE, 3 * PAGE, 3, target]), target as i64);
    assert_eq!((get(target, 3), space::mapping_of(to)), (b"abc".to_vec(), None));
    assert_eq!(p.call(MREMAP, &[target, PAGE, PAGE, 3, HEAP_START]), -12);
    p.call(MUNMAP, &[target, 3 * PAGE]);
    p.call(MUNMAP, &[wall, PAGE]);
}

#[test]
fn advice_that_zeroes_also_defines() {
    let p = &mut Program::new();
    let at = map(p, 3 * PAGE, 3);
    shadow::fill_v(at, 3 * PAGE, 0xff);
    assert_eq!(p.call(MADVISE, &[at + PAGE, PAGE, 4]), 0);
    assert_eq!((v(at, 1)[0], v(at + PAGE, 1)[0], v(at + 2 * PAGE, 1)[0]), (0xff, 0, 0xff));
    assert_eq!(p.call(MADVISE, &[at, PAGE, 3]), 0, "MADV_WILLNEED");
    assert_eq!(v(at, 1)[0], 0xff);
    p.call(MUNMAP, &[at, 3 * PAGE]);
}

#[test]
fn brk_grows_shrinks_and_fails() {
    let p = &mut Program::new();
    let start = p.call(BRK, &[0]) as u64;
    assert_eq!(p.call(BRK, &[start + 5000]), start as i64 + 5000);
    put(start + 4990, b"0123456789");
    shadow::fill_v(start, 100, 0xff);
    assert_eq!(space::mapping_of(start).map(|m| (m.0, m.1, m.3)), Some((start, start + 2 * PAGE, kind::BRK)));
    assert_eq!(check::first_a(start, 2 * PAGE), Some(start + 5000), "what lies beyond in the page is not the program's");
    assert_eq!(p.call(BRK, &[start + 6000]), start as i64 + 6000);
    assert_eq!(check::first_a(start, 2 * PAGE), Some(start + 6000));
    assert_eq!(p.call(BRK, &[start + 2000]), start as i64 + 2000);
    assert_eq!(check::first_a(start, 2 * PAGE), Some(start + 2000));
    assert_eq!(p.call(BRK, &[start + 100_000]), start as i64 + 100_000);
    assert_eq!(space::mapping_of(start).map(|m| m.1), Some(start + 25 * PAGE), "one mapping");
    assert_eq!(p.call(BRK, &[1]), start as i64 + 100_000, "refused");
    assert_eq!(p.call(BRK, &[start]), start as i64);
    assert_eq!((space::mapping_of(start), shadow::v(start)), (None, 0));
}

#[test]
fn hooks_follow_code() {
    let p = &mut Program::new();
    crate::install(&HOOKS);
    told();
    let at = map(p, 4 * PAGE, 3);
    assert_eq!(told(), []);
    p.call(MPROTECT, &[at, 2 * PAGE, 5]);
    assert_eq!(told(), [(at, at + 2 * PAGE, 0)], "became code");
    p.call(MPROTECT, &[at, 2 * PAGE, 5]);
    assert_eq!(told(), [], "still code");
    p.call(MPROTECT, &[at, 4 * PAGE, 7]);
    let w = crate::hooks::exec::WRITABLE;
    assert_eq!(told(), [(at, at + 2 * PAGE, u32::MAX), (at, at + 2 * PAGE, w), (at + 2 * PAGE, at + 4 * PAGE, w)]);
    p.call(MPROTECT, &[at + PAGE, PAGE, 3]);
    assert_eq!(told(), [(at + PAGE, at + 2 * PAGE, u32::MAX)]);
    p.call(MUNMAP, &[at, 4 * PAGE]);
    assert_eq!(told(), [(at, at + PAGE, u32::MAX), (at + 2 * PAGE, at + 4 * PAGE, u32::MAX)]);
    let code = map(p, PAGE, 5);
    assert_eq!(told(), [(code, code + PAGE, 0)]);
    p.call(MMAP, &[code, PAGE, 5, ANON | FIXED, NO_FD, 0]);
    assert_eq!(told(), [(code, code + PAGE, u32::MAX), (code, code + PAGE, 0)], "replaced");
    p.call(MUNMAP, &[code, PAGE]);
    told();
}

#[test]
fn shared_memory_segments() {
    let p = &mut Program::new();
    let id = p.call(29, &[0, 3 * PAGE, 0o600]);
    if id < 0 {
        return; // not available here
    }
    let at = p.call(30, &[id as u64, 0, 0]) as u64;
    assert!((MMAP_START..MMAP_END).contains(&at), "{at:#x}");
    assert_eq!(space::mapping_of(at + PAGE), Some((at, at + 3 * PAGE, 3, kind::SHM | kind::SHARED)));
    assert_eq!(p.call(67, &[at]), 0);
    assert_eq!(space::mapping_of(at), None);
    p.call(31, &[id as u64, 0, 0]);
}

#[test]
fn the_map_can_be_held_over_a_fork() {
    let p = &mut Program::new();
    crate::before_fork();
    let base = p.base;
    let reader = std::thread::spawn(move || space::mapping_of(base));
    assert!(reader.join().unwrap().is_some(), "questions are answered meanwhile");
    let writer = std::thread::spawn(|| {
        space::hold();
        space::release();
    });
    crate::after_fork();
    writer.join().unwrap();
    assert!(map(p, PAGE, 3) != 0);
}

/// The child of a process in which another thread was reading the map at that moment.
#[test]
fn a_child_can_use_the_map() {
    let p = &mut Program::new();
    crate::before_fork();
    let reading = space::MAP.lock();
    // SAFETY: the child only takes locks, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that waits for ever is ended, and the test fails.
        unsafe { libc::alarm(20) };
        crate::after_fork();
        let found = space::mapping_of(p.base).is_some();
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!found)) };
    }
    drop(reading);
    crate::after_fork();
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
}

/// Random requests against the kernel's own list of mappings.
#[test]
fn the_map_agrees_with_the_kernel() {
    let p = &mut Program::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 20) % n
    };
    let base = 0x320_0000_0000;
    for _ in 0..400 {
        let (at, len) = (base + random(64) * PAGE, (1 + random(8)) * PAGE);
        match random(6) {
            0 | 1 => p.call(MMAP, &[at, len, random(4), ANON | FIXED, NO_FD, 0]),
            2 => p.call(MMAP, &[at, len, random(4), ANON, NO_FD, 0]),
            3 => p.call(MUNMAP, &[at, len]),
            4 => p.call(MPROTECT, &[at, len, random(4)]),
            _ => p.call(MREMAP, &[at, (1 + random(3)) * PAGE, len, 1, 0]),
        };
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut kernel = std::collections::BTreeMap::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |s| u64::from_str_radix(s, 16).unwrap();
        let prot = rest.bytes().take(3).enumerate().map(|(i, b)| u32::from(b != b'-') << i).sum::<u32>();
        for page in (number(start)..number(end)).step_by(PAGE as usize).take_while(|&a| a < MMAP_END) {
            kernel.insert(page, prot);
        }
    }
    let mut ours = std::collections::BTreeMap::new();
    space::for_each(|m| {
        (m.start..m.end).step_by(PAGE as usize).for_each(|page| {
            ours.insert(page, m.prot);
        })
    });
    kernel.retain(|&a, _| a >= MMAP_START);
    ours.retain(|&a, _| a >= MMAP_START);
    assert!(ours.len() > 50);
    // The kernel shows PROT_WRITE alone as it was asked; so do we.
    assert_eq!(ours, kernel);
    let arena = p.base..p.base + super::ARENA;
    for page in ours.into_keys().filter(|a| !arena.contains(a)) {
        p.call(MUNMAP, &[page, PAGE]);
    }
}
