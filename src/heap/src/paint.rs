//! Bytes and shadow of blocks.
//!
//! The invariant that everything here keeps:
//!
//! | memory | V | A |
//! |---|---|---|
//! | red zone, free, quarantined | FF | 1 |
//! | block from malloc, new … | FF until written | 0 |
//! | block from calloc | 0 | 0 |
//!
//! Blocks are small and this is the hot path, so short fills are a few wide, overlapping stores instead of a call: few stores and, more
//! important, few branches, because sizes are not predictable.
//!
//! Painting gigabytes would make them resident, so of blocks of [`HUGE`] bytes and more only the ends are painted: the middle of a fresh one
//! counts as defined, and a freed one is made inaccessible for the processor instead.
#![allow(unsafe_code, reason = "writes program memory and its shadow by address")]

use crate::{record, sheet};
use core::arch::x86_64::{__m128i, _mm_set1_epi8, _mm_storeu_si128};
use memcheck_abi::layout::{A_BASE, v_of};
use memcheck_rt::{shadow, sys};

/// From this size on blocks are not painted.
pub const HUGE: u64 = if cfg!(test) { 64 << 20 } else { 1 << 30 };
/// How much of their start and end is painted all the same.
const HUGE_START: u64 = HUGE / 16;
const HUGE_END: u64 = HUGE / 1024;
const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
/// From this size on the pages of a block move to fresh memory instead of being copied there.
const MOVE_FROM: u64 = 1 << 20;
/// Blocks are copied in steps of this many bytes.
const STEP: u64 = 64 << 10;

/// Four stores of 16 bytes, at both ends of a range of 16 to 64 bytes (two are enough for 32) or of its parts.
///
/// # Safety
/// `[at, at + 32)` and the 32 bytes that end at `end` are mapped, writable and the caller's.
#[inline(always)]
unsafe fn ends(at: u64, end: u64, value: __m128i) {
    // SAFETY: the caller's promise; stores are unaligned.
    unsafe {
        _mm_storeu_si128(at as *mut __m128i, value);
        _mm_storeu_si128((at + 16) as *mut __m128i, value);
        _mm_storeu_si128((end - 32) as *mut __m128i, value);
        _mm_storeu_si128((end - 16) as *mut __m128i, value);
    }
}

/// Fill `[at, at + len)` with `byte`.
///
/// # Safety
/// The range is mapped, writable and belongs to the caller.
#[inline(always)]
unsafe fn fill(at: u64, len: u64, byte: u8) {
    let word = u64::from_ne_bytes([byte; 8]);
    // SAFETY: every store lies inside the range (the overlapping ones end or begin at its ends); stores are unaligned.
    unsafe {
        let (end, wide) = (at + len, _mm_set1_epi8(byte as i8));
        match len {
            0 => {}
            1 => (at as *mut u8).write(byte),
            2..4 => {
                (at as *mut u16).write_unaligned(word as u16);
                ((end - 2) as *mut u16).write_unaligned(word as u16);
            }
            4..8 => {
                (at as *mut u32).write_unaligned(word as u32);
                ((end - 4) as *mut u32).write_unaligned(word as u32);
            }
            8..16 => {
                (at as *mut u64).write_unaligned(word);
                ((end - 8) as *mut u64).write_unaligned(word);
            }
            16..32 => {
                _mm_storeu_si128(at as *mut __m128i, wide);
                _mm_storeu_si128((end - 16) as *mut __m128i, wide);
            }
            32..SHORT => long_fill(at, end, wide),
            _ => core::ptr::write_bytes(at as *mut u8, byte, len as usize),
        }
    }
}

/// From here on the processor's own fill is faster.
pub const SHORT: u64 = 1024;

/// Fill 32 bytes and more.
///
/// # Safety
/// As [`fill`].
#[inline(always)]
unsafe fn long_fill(at: u64, end: u64, value: __m128i) {
    let mut next = at;
    // SAFETY: all stores lie in the range: a step is made while more than 64 bytes are left, the rest is done from both ends.
    unsafe {
        while end - next > 64 {
            ends(next, next + 64, value);
            next += 64;
        }
        ends(next.min(end - 32), end, value);
    }
}

/// Fill A words.
///
/// # Safety
/// The words are the caller's.
#[inline(always)]
unsafe fn fill_words(at: u64, words: u64, value: u64) {
    let last = at + 8 * words;
    // SAFETY: every store lies inside the range; stores are unaligned.
    unsafe {
        let store = |at: u64| (at as *mut u64).write_unaligned(value);
        match words {
            0 => {}
            1..=2 => {
                store(at);
                store(last - 8);
            }
            3..=4 => {
                store(at);
                store(at + 8);
                store(last - 16);
                store(last - 8);
            }
            _ if value == 0 => shadow::set_a(8 * (at - A_BASE), 64 * words, false),
            _ => core::ptr::write_bytes(at as *mut u8, value as u8, 8 * words as usize),
        }
    }
}

/// Make a block of a painted slot addressable; V stays FF.
///
/// Whole A words are written: with the front zone of the slot behind it, 48 bytes of red zone follow every block, so what a word
/// reaches over the block's end is A = 1 anyway, in this slot or in the next one, and stays so.
#[inline(always)]
pub fn open(p: u64, size: u64) {
    let a = A_BASE + p / 8;
    let words = size / 64;
    // SAFETY: A bytes of the block, which the caller owns, and of red zone behind it.
    unsafe {
        fill_words(a, words, 0);
        if size & 63 != 0 {
            ((a + 8 * words) as *mut u64).write_unaligned(u64::MAX << (size & 63));
        }
    }
}

/// Make a block unaddressable again. Reaches over its end into red zone as [`open`] does.
///
/// Of short blocks callers name all the room that they may have had: how much it is does not depend on the record, which is in no cache when
/// a block dies that has lived long. A branch on the size would have to wait for it when it goes another way than last time.
#[inline(always)]
pub fn close(p: u64, size: u64) {
    let (v, a) = (v_of(p), A_BASE + p / 8);
    // SAFETY: shadow of a block that the caller owns, and of red zone behind it.
    unsafe {
        let value = _mm_set1_epi8(shadow::UNDEFINED as i8);
        if size <= 32 {
            _mm_storeu_si128(v as *mut __m128i, value);
            _mm_storeu_si128((v + 16) as *mut __m128i, value);
        } else if size < SHORT {
            long_fill(v, v + size, value);
        } else if size >= sheet::FROM && lay_sheet([(v, size), (a, 8 * size.div_ceil(64))]) {
            return;
        } else {
            core::ptr::write_bytes(v as *mut u8, shadow::UNDEFINED, size as usize);
        }
        fill_words(a, size.div_ceil(64), u64::MAX);
    }
}

/// `sheet::lay` over shadow that may be wanted zero again.
fn lay_sheet<const N: usize>(ranges: [(u64, u64); N]) -> bool {
    shadow::expect_sheets();
    sheet::lay(ranges)
}

/// V bytes of a block := FF.
fn undefine_long(v: u64, size: u64) {
    if size < sheet::FROM || !lay_sheet([(v, size)]) {
        // SAFETY: V bytes of a block that the callers own.
        unsafe { core::ptr::write_bytes(v as *mut u8, shadow::UNDEFINED, size as usize) }
    }
}

/// The whole of a fresh run becomes red zone.
pub fn close_run(start: u64, len: u64) {
    shadow::fill_v(start, len, shadow::UNDEFINED);
    shadow::set_a(start, len, true);
}

/// Slabs come to lie around here: large pages for blocks and V. Blocks that come back after a long time are far apart, and with small pages
/// each would cost the processor a walk through the page tables, or two.
pub fn expect_dense(start: u64, len: u64) {
    for at in [start, v_of(start)] {
        let (first, end) = (at & !(LARGE_PAGE - 1), (at + len).next_multiple_of(LARGE_PAGE));
        sys::will_be_dense(first, end - first);
    }
}

/// Have the pages of a fresh slab, its V and its records made at once instead of by a fault each. If the kernel does not know how, faults do it.
pub fn populate(start: u64, len: u64, records: u64, records_len: u64) {
    for (at, len) in [(start, len), (v_of(start), len), (records, records_len)] {
        let (first, end) = (at & !(PAGE - 1), (at + len).next_multiple_of(PAGE));
        // SAFETY: mapped memory of the heap and its metadata; contents do not change.
        unsafe { sys::syscall3(sys::nr::MADVISE, first, end - first, sys::MADV_POPULATE_WRITE) };
    }
}

/// The edges of a fresh, unpainted run `[start, end)` around the block become red zone.
pub fn close_edges(start: u64, end: u64, p: u64, size: u64) {
    close_run(start, p - start);
    close_run(p + size, end - p - size);
}

/// V of an addressable block := defined.
#[inline(always)]
pub fn define(p: u64, size: u64) {
    if size <= 256 {
        // SAFETY: V bytes of a block that the caller owns.
        unsafe { fill(v_of(p), size, shadow::DEFINED) }
    } else {
        shadow::fill_v(p, size, shadow::DEFINED);
    }
}

/// V of a block whose V is 0 := undefined, as far as it is worth it.
pub fn undefine(p: u64, size: u64) {
    if size < HUGE {
        return undefine_long(v_of(p), size);
    }
    shadow::fill_v(p, HUGE_START, shadow::UNDEFINED);
    shadow::fill_v(p + size - HUGE_END, HUGE_END, shadow::UNDEFINED);
}

/// [`set_bytes`] by options that few use.
#[cold]
#[inline(never)]
pub fn fill_bytes(p: u64, size: u64, byte: u8) {
    set_bytes(p, size, byte);
}

/// The program's bytes := `byte`; large zeros by giving the pages back.
#[inline(always)]
pub fn set_bytes(p: u64, size: u64, byte: u8) {
    // SAFETY: the bytes of a block that the caller owns; discarded pages read as zero.
    unsafe {
        if byte == 0 && size >= 1 << 20 {
            let (first, end) = (p.next_multiple_of(PAGE), (p + size) & !(PAGE - 1));
            fill(p, first - p, 0);
            sys::discard(first, end - first);
            fill(end, p + size - end, 0);
        } else {
            fill(p, size, byte);
        }
    }
}

/// Bytes and V bytes of one block into another. The old one is as good as freed: a long one may be left with zeros.
///
/// Pages that move leave others to be made when the old memory is used again. So it pays only where the new ones would have to be made as
/// well: in fresh memory, whose V is still zero.
pub fn copy(to: u64, from: u64, len: u64) {
    let moved = if len >= MOVE_FROM && shadow::v(to) == shadow::DEFINED { move_pages(to, from, len) } else { 0..0 };
    let mut done = 0;
    while done < len {
        let n = STEP.min(len - done);
        let (to, from) = (to + done, from + done);
        if moved.is_empty() {
            ask_for_pages(to, n);
            ask_for_pages(v_of(to), n);
        }
        // Copying zeros over zeros would make untouched pages resident.
        if n < STEP || !(is_zero(v_of(from)) && is_zero(v_of(to))) {
            shadow::copy_v(to, from, n);
        }
        if moved.is_empty() && (len < HUGE || n < STEP || !(is_zero(from) && is_zero(to))) {
            copy_bytes(to, from, n);
        }
        done += n;
    }
    if !moved.is_empty() {
        copy_bytes(to, from, moved.start - from);
        copy_bytes(to + (moved.end - from), moved.end, from + len - moved.end);
    }
}

fn copy_bytes(to: u64, from: u64, len: u64) {
    // SAFETY: parts of two different live blocks of the heap.
    unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, len as usize) }
}

/// Move the whole pages of a block to where another has its own at the same places in them, if it has, and the kernel knows how to
/// leave empty ones behind. What was moved, as addresses in the old block. What the program had protected there is not protected in the new one.
fn move_pages(to: u64, from: u64, len: u64) -> core::ops::Range<u64> {
    let (first, end) = (from.next_multiple_of(PAGE), (from + len) & !(PAGE - 1));
    if (to ^ from) & (PAGE - 1) != 0 {
        return 0..0;
    }
    let (target, len) = (to + (first - from), end - first);
    let flags = sys::MREMAP_MAYMOVE | sys::MREMAP_FIXED | sys::MREMAP_DONTUNMAP;
    // SAFETY: whole pages of two different live blocks of the heap; those of the new one hold nothing yet. A kernel may find out only after
    // it has removed them that the old ones lie in several mappings, which it cannot move.
    unsafe {
        if sys::syscall6(sys::nr::MREMAP, first, len, len, flags, target, 0) == target as i64 {
            sys::syscall3(sys::nr::MPROTECT, target, len, sys::PROT_READ | sys::PROT_WRITE);
            return first..end;
        }
        sys::renew(target, len);
    }
    0..0
}

/// Ask for the V lines of a block in a slot of this length, as far as they are painted by stores.
#[inline(always)]
pub fn ask_for(p: u64, slot: u64) {
    let v = v_of(p);
    for line in [v, v + 64, v + slot - 64] {
        record::prefetch(line);
    }
    for line in (128..(slot - 64).min(SHORT)).step_by(64) {
        record::prefetch(v + line);
    }
}

/// Ask for the first lines of every page of a range that will be written: what the processor asks for by itself ends with the page, and the
/// target of a copy has been in quarantine long enough to be in no cache.
#[inline(always)]
fn ask_for_pages(at: u64, len: u64) {
    for page in (at..at + len).step_by(PAGE as usize) {
        (0..6).for_each(|line| record::prefetch(page + 64 * line));
    }
}

/// Are the STEP bytes from `at` on zero?
fn is_zero(at: u64) -> bool {
    (0..STEP / 64).all(|i| {
        // SAFETY: inside a live block or its shadow; both are mapped; aligned to a multiple of 8 or not, bytes do not care.
        let line = unsafe { (at as *const [u8; 64]).add(i as usize).read() };
        line == [0; 64]
    })
}

/// For debug assertions: is the shadow of a block that was just handed out as the table above has it? Of long ones the first part.
pub fn is_born(p: u64, size: u64, zero: bool) -> bool {
    let mut v = [0; 512];
    let part = size.min(v.len() as u64);
    shadow::read_v(p, &mut v[..part as usize]);
    let expected = if zero { shadow::DEFINED } else { shadow::UNDEFINED };
    is_red(p - 1) && is_red(p + size) && shadow::first_a(p, part).is_none() && v[..part as usize].iter().all(|&v| v == expected)
}

/// The same for a block that has just died.
pub fn is_dead(p: u64, size: u64) -> bool {
    [p - 1, p, p + size / 2, p + size].into_iter().all(is_red)
}

fn is_red(at: u64) -> bool {
    !shadow::a_clear(at) && shadow::v(at) == shadow::UNDEFINED
}

/// A freed huge block: pages and shadow given back, accesses fault.
pub fn seal(p: u64, size: u64) {
    let (first, end) = (p.next_multiple_of(PAGE), (p + size) & !(PAGE - 1));
    close(p, first - p);
    close(end, p + size - end);
    shadow::make_defined(first, end - first);
    // SAFETY: whole pages inside a block that was just freed; nobody needs their contents.
    unsafe {
        sys::discard(first, end - first);
        sys::syscall3(sys::nr::MPROTECT, first, end - first, sys::PROT_NONE);
    }
}

/// Undo [`seal`] for the whole run `[start, end)`: accessible, zero, not painted.
pub fn unseal(start: u64, end: u64) {
    shadow::make_defined(start, end - start);
    // SAFETY: a run of units of the heap that holds no block.
    unsafe {
        sys::discard(start, end - start);
        sys::syscall3(sys::nr::MPROTECT, start, end - start, sys::PROT_READ | sys::PROT_WRITE);
    }
}
