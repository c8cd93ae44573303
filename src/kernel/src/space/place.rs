//! Where a new mapping goes.
//!
//! | request | place |
//! |---|---|
//! | MAP_FIXED | where it says, outside [`forbidden`] |
//! | a hint that is free and usable | there, except code that would come to lie high |
//! | PROT_EXEC, MAP_32BIT, an ELF file from offset 0 | low: code must be below 2 GiB |
//! | PROT_NONE of half a GiB at most | low while there is plenty: JITs reserve their code space so |
//! | everything else | high |
//!
//! The dynamic linkers reserve a whole object by one read-only mapping of the file and put the segments over it, so the first
//! mapping must already go low. Whether a file is an object is asked of the file itself; once the program has a system call
//! filter, which might not like the question, its size decides.
#![allow(unsafe_code, reason = "looks at the first bytes of a file that is about to be mapped")]

use super::gaps::PAGE;
use super::map::Map;
use memcheck_abi::layout::{CODE_END, FORBIDDEN_END, HEAP_END, HEAP_START, LOW_END, MAGIC_BASE, MAGIC_END, MMAP_END, PROGRAM_END};
use memcheck_rt::sys;

pub const MAP_32BIT: u64 = 0x40;
pub const MAP_GROWSDOWN: u64 = 0x100;
pub const MAP_STACK: u64 = 0x2_0000;
pub const MAP_HUGETLB: u64 = 0x4_0000;
const HUGE_SHIFT: u64 = 26;
const HUGE_MASK: u64 = 0x3f;
const HUGE: u64 = 2 << 20;

/// The kernel does not map below this for unprivileged programs; hints there are no hints.
const LOWEST_HINT: u64 = 0x1_0000;
/// Reservations between these sizes may become code: Java's code cache has 240 MiB, V8's code range 512 MiB and a little.
const RESERVATION: core::ops::RangeInclusive<u64> = (256 << 10)..=(520 << 20);
/// ... as long as this much of the low area stays free.
const KEEP_LOW: u64 = 640 << 20;

/// A mapping request; `len` is rounded up to pages.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub addr: u64,
    pub len: u64,
    pub prot: u64,
    pub flags: u64,
    pub fd: u64,
    pub offset: u64,
}

/// May the program never have this range? (heap, branch table, pseudo entry points, the tool's own)
pub fn forbidden(start: u64, end: u64) -> bool {
    let hits = |from: u64, to: u64| start < to && from < end;
    end > PROGRAM_END || start > end || hits(HEAP_START, HEAP_END) || hits(CODE_END, FORBIDDEN_END) || hits(MAGIC_BASE, MAGIC_END)
}

/// Alignment of the result.
pub fn alignment(r: &Request) -> u64 {
    if r.flags & MAP_HUGETLB != 0 {
        match r.flags >> HUGE_SHIFT & HUGE_MASK {
            0 => HUGE,
            shift => 1 << shift.clamp(12, 34),
        }
    } else if r.len.is_multiple_of(HUGE) && r.flags & sys::MAP_ANONYMOUS != 0 {
        HUGE
    } else {
        PAGE
    }
}

/// A free address for the request; `None` = no memory.
pub fn choose(map: &mut Map, r: &Request) -> Option<u64> {
    loop {
        let place = chosen(map, r);
        if place.is_some() || !map.revive_oldest() {
            return place;
        }
    }
}

fn chosen(map: &Map, r: &Request) -> Option<u64> {
    let align = alignment(r);
    let low = wants_low(map, r);
    if usable_hint(map, r, align, low) {
        return Some(r.addr & !(PAGE - 1));
    }
    let (low_place, high_place) = (|| map.low.find(r.len, align), || map.high.find(r.len, align));
    match low {
        true if r.flags & MAP_32BIT != 0 => low_place(),
        true => low_place().or_else(high_place),
        false => high_place().or_else(low_place),
    }
}

fn usable_hint(map: &Map, r: &Request, align: u64, low: bool) -> bool {
    let start = r.addr & !(PAGE - 1);
    let Some(end) = start.checked_add(r.len) else { return false };
    start >= LOWEST_HINT
        && start.is_multiple_of(align.min(if r.flags & MAP_HUGETLB != 0 { align } else { PAGE }))
        && end <= if low { LOW_END } else { MMAP_END }
        && !forbidden(start, end)
        && !super::brk::reserved(start, end)
        && map.is_free(start, end)
}

fn wants_low(map: &Map, r: &Request) -> bool {
    if r.flags & MAP_32BIT != 0 || r.prot & sys::PROT_EXEC != 0 {
        return true;
    }
    if r.flags & sys::MAP_ANONYMOUS != 0 {
        let reservation = r.prot == sys::PROT_NONE && r.flags & (MAP_STACK | sys::MAP_SHARED) == 0;
        return reservation && RESERVATION.contains(&r.len) && map.low.total() >= KEEP_LOW + r.len;
    }
    r.flags & sys::MAP_PRIVATE != 0 && r.offset == 0 && is_object(r)
}

fn is_object(r: &Request) -> bool {
    let mut magic = [0u8; 4];
    // SAFETY: reads four bytes of the file into our own array; a file that cannot be read is no object.
    let n = unsafe { sys::syscall6(sys::nr::PREAD64, r.fd, magic.as_mut_ptr() as u64, 4, 0, 0, 0) };
    n == 4 && magic == *b"\x7fELF"
}
