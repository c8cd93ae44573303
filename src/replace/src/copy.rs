//! Copying and filling: data and V shadow together.
//!
//! ```text
//! V(src) | V(dst) == 0      the usual case: move the data, the shadow is right already
//! otherwise                 report what is not addressable, move the data, then V (and origin words of undefined bytes)
//! ```
//! Unaddressable source bytes count as defined; unaddressable destination bytes keep V and A.
//!
//! Data moves before shadow: if the data faults, the shadow is as if the call had not happened, and the program may repair the
//! mapping and run the function again from its start. Where running it again would read what it has written (overlapping moves,
//! appending), the destination is probed first, so that the fault comes before the first byte.
#![allow(unsafe_code, reason = "moves bytes by address")]

use crate::call::{Call, here, tracks_origins};
use crate::raw::{self, all_zero, fill_bytes, get, move_bytes, probe_write, put};
use crate::scan::shadowed;
use crate::steps::{Steps, WORD};
use crate::vector::Vector;
use core::sync::atomic::{Ordering, compiler_fence};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::layout::{A_BASE, ORIGIN_DISTANCE, PROGRAM_END, RED_ZONE, V_DISTANCE, in_program};
use memcheck_rt::{access, shadow};

/// Long ranges are handled in pieces of at most this size: a page of the destination.
const CHUNK: u64 = raw::PAGE;
/// Ranges of this length go past the caches: they would only push out everything else (tests: far less, to come here at all).
const STREAM_FROM: u64 = if cfg!(test) { 8000 } else { 8 << 20 };

/// Copy `n` bytes, overlapping or not, with their shadow. `unit` is the access size to report.
#[inline(always)]
pub fn transfer(call: &mut Call, dst: u64, src: u64, n: u64, unit: u64) {
    if n > 64 || (dst | src) >= PROGRAM_END || dst & 4095 > 4096 - 64 {
        return transfer_long(call, dst, src, n, unit);
    }
    transfer_piece(call, dst, src, n, unit);
}

/// Copy at most CHUNK bytes between ranges that begin in the program's space.
#[inline(always)]
fn transfer_piece(call: &mut Call, dst: u64, src: u64, n: u64, unit: u64) {
    // SAFETY: the shadow of such a short range is mapped even if it goes beyond the program's space (there are spare pages behind it);
    // the data is exactly what C reads and writes.
    unsafe {
        if all_zero(src + V_DISTANCE, n) && all_zero(dst + V_DISTANCE, n) {
            move_bytes(dst, src, n);
        } else {
            transfer_dirty(call, dst, src, n, unit);
        }
    }
}

/// Is V zero for the range? Memory without shadow counts as clean.
#[inline]
fn clean(addr: u64, n: u64) -> bool {
    // SAFETY: V of the program's space is mapped.
    !in_program(addr, n) || unsafe { all_zero(addr + V_DISTANCE, n) }
}

#[inline(never)]
fn transfer_long(call: &mut Call, dst: u64, src: u64, n: u64, unit: u64) {
    if n <= CHUNK && (dst | src) < PROGRAM_END && (dst & 4095) + n <= 4096 {
        return transfer_piece(call, dst, src, n, unit);
    }
    if n == 0 {
        return;
    }
    shadowed(dst);
    shadowed(src);
    let forward = dst.wrapping_sub(src) >= n;
    let overlapping = !forward || src.wrapping_sub(dst) < n;
    if overlapping {
        probe(dst, n);
    }
    let stream = !overlapping && n >= STREAM_FROM;
    let mut left = n;
    while left > 0 {
        // Forward from the start, or backward from the end, to the next page boundary of the destination.
        let (offset, len) = if forward {
            let offset = n - left;
            (offset, left.min(CHUNK - (dst.wrapping_add(offset) & (CHUNK - 1))))
        } else {
            let len = left.min((dst.wrapping_add(left - 1) & (CHUNK - 1)) + 1);
            (left - len, len)
        };
        let (to, from) = (dst.wrapping_add(offset), src.wrapping_add(offset));
        if (to | from) >= PROGRAM_END {
            transfer_dirty(call, to, from, len, unit);
        } else if stream && len == CHUNK && clean(from, len) && clean(to, len) {
            // SAFETY: bytes that C reads and writes; the destination is a page.
            unsafe { raw::stream_page(to, from) };
        } else {
            transfer_piece(call, to, from, len, unit);
        }
        left -= len;
    }
    if stream {
        raw::fence();
    }
}

/// Let a fault of the coming write of `n` bytes happen now, before anything is written.
#[inline]
pub fn probe(dst: u64, n: u64) {
    if (dst & 4095).saturating_add(n) > 4096 {
        shadowed(dst);
        // SAFETY: C writes all of it.
        unsafe { probe_write(dst, n) };
    }
}

/// Copy a range in which some shadow is not zero.
#[cold]
#[inline(never)]
fn transfer_dirty(call: &mut Call, dst: u64, src: u64, n: u64, unit: u64) {
    let bad_read = first_bad(src, n);
    let bad_write = first_bad(dst, n);
    if bad_read.is_some() || bad_write.is_some() {
        let mut part = None;
        for (at, size) in Steps::copy(dst, src, n, unit) {
            let from = src.wrapping_add(at);
            if bad_read.is_some() && first_bad(from, size).is_some() {
                if size == WORD && is_partly_good(from) {
                    part = part.or(Some(from));
                } else {
                    part = Some(0);
                    call.bad_read(from, size);
                }
            }
            if bad_write.is_some() && first_bad(dst.wrapping_add(at), size).is_some() {
                call.bad_write(dst.wrapping_add(at), size);
            }
        }
        // A word at the edge of a block counts only if nothing worse was read.
        if let Some(from @ 1..) = part {
            call.bad_read(from, WORD);
        }
    }
    // SAFETY: the bytes that C reads and writes.
    unsafe { move_bytes(dst, src, n) };
    compiler_fence(Ordering::SeqCst);
    if !in_program(dst, n) {
        return;
    }
    move_origins(dst, src, n);
    if bad_read.is_none() && bad_write.is_none() && in_program(src, n) {
        // SAFETY: V of both ranges is mapped.
        unsafe { move_bytes(dst + V_DISTANCE, src + V_DISTANCE, n) };
    } else {
        move_v_exactly(dst, src, n);
    }
}

/// First unaddressable byte; `None` for memory without shadow.
#[inline]
pub fn first_bad(addr: u64, n: u64) -> Option<u64> {
    let (ctx, sp) = here();
    if suspicious(ctx, sp, addr, n) { access::first_unaddressable(ctx, sp, addr, n) } else { None }
}

/// Is any byte of the word addressable?
pub fn is_partly_good(word: u64) -> bool {
    let (ctx, sp) = here();
    (word..word + WORD).any(|at| access::addressable(ctx, sp, at))
}

/// Byte by byte, for ranges with unaddressable bytes.
fn move_v_exactly(dst: u64, src: u64, n: u64) {
    let (ctx, sp) = here();
    let forward = dst.wrapping_sub(src) >= n;
    for k in 0..n {
        let i = if forward { k } else { n - 1 - k };
        let (to, from) = (dst + i, src.wrapping_add(i));
        if access::addressable(ctx, sp, to) {
            let known = from < PROGRAM_END && access::addressable(ctx, sp, from);
            shadow::set_v(to, if known { shadow::v(from) } else { shadow::DEFINED });
        }
    }
}

/// Origin words go along with undefined bytes: the word of a destination's aligned 4 bytes is taken from an undefined byte that lands in
/// it, from the one that a copy byte by byte writes last. A word of 0 means "look at the place itself", which is no longer true after a
/// move; the runtime's hook says what to write instead. Called before V moves. Nothing happens if origins are not tracked.
pub fn move_origins(dst: u64, src: u64, n: u64) {
    // Origin words end a megabyte before the program's space does; nothing is mapped there.
    if !tracks_origins() || !in_program(src, n + (1 << 20)) || !in_program(dst, n + (1 << 20)) {
        return;
    }
    // For `rep movs` this runs amid the program's code, whose wide vectors live: none of the kernels that use them.
    if memcheck_rt::shadow::first_nonzero_v(src, n).is_none() {
        return;
    }
    let words = (((dst + n - 1) & !3) - (dst & !3)) / 4 + 1;
    let forward = dst.wrapping_sub(src) >= n;
    let ctx = memcheck_rt::context::current();
    // Words there may be left over from a frame that is gone.
    let from_stack = (ctx.stack_low..ctx.stack_high).contains(&src);
    let mut born = None;
    let mut k = 0;
    while k < words {
        let word = (dst & !3) + 4 * if forward { k } else { words - 1 - k };
        let from = src + word.saturating_sub(dst);
        let len = (word + 4).min(dst + n) - word.max(dst);
        k += 1;
        if forward && word >= dst && word + WORDS_TOGETHER * 4 <= dst + n && from.is_multiple_of(4) {
            // SAFETY: as below.
            if unsafe { move_words(word, from, from_stack, &mut born) } {
                k += WORDS_TOGETHER - 1;
                continue;
            }
        }
        // SAFETY: V and origin words of the program's space are mapped.
        unsafe {
            let undefined = |i: &u64| get::<u8>(from + i + V_DISTANCE) != 0;
            let Some(i) = (if forward { (0..len).rev().find(undefined) } else { (0..len).find(undefined) }) else { continue };
            let from = from + i;
            let mut tag = get::<u32>((from & !3) + ORIGIN_DISTANCE);
            if tag == 0 {
                tag = *born.get_or_insert_with(|| crate::call::origin_of(from));
            } else if tag & 3 == 0 || from_stack {
                // A distance means something at that place only.
                tag = crate::call::origin_of(from);
            }
            put(word + ORIGIN_DISTANCE, tag);
        }
    }
    crate::call::origins_moved(dst, n);
}

const WORDS_TOGETHER: u64 = 4;

/// The origin words of four aligned words at once, if none of those that matter is a distance (or, from the stack, was written before), and
/// either all or none were.
///
/// # Safety
/// V and origin words of both are mapped.
unsafe fn move_words(to: u64, from: u64, from_stack: bool, born: &mut Option<u32>) -> bool {
    use core::arch::x86_64::__m128i;
    // SAFETY: the caller's promise; SSE2.
    unsafe {
        let zero = __m128i::zero();
        let defined = __m128i::load(from + V_DISTANCE).equal32(zero);
        if defined.mask() == 0xffff {
            return true;
        }
        let tags = __m128i::load(from + ORIGIN_DISTANCE).without(defined);
        let distances = tags.and(__m128i::splat32(3)).equal32(zero);
        let first = u64::from((!defined.mask()).trailing_zeros() & !3);
        let tags = if tags.is_zero() {
            __m128i::splat32(*born.get_or_insert_with(|| crate::call::origin_of(from + first))).without(defined)
        } else if !from_stack && distances.without(defined).is_zero() {
            tags
        } else {
            return false;
        };
        let there = __m128i::load(to + ORIGIN_DISTANCE).and(defined);
        tags.or(there).store(to + ORIGIN_DISTANCE);
    }
    true
}

/// May the range contain unaddressable bytes? (`false` is certain.)
#[inline]
fn suspicious(ctx: &ThreadContext, sp: u64, addr: u64, n: u64) -> bool {
    if !in_program(addr, n.saturating_add(64)) {
        return in_program(addr, n);
    }
    let below_stack = addr < sp.wrapping_sub(RED_ZONE) && addr + n > ctx.stack_low;
    below_stack || n != 0 && a_any(addr, n)
}

/// Is any A bit of the range set?
#[inline]
fn a_any(addr: u64, n: u64) -> bool {
    let (first, last) = (addr >> 3, (addr + n - 1) >> 3);
    // SAFETY: A bits of the program's space are mapped, and the caller keeps 64 bytes away from its end.
    unsafe {
        if last - first < 8 {
            let bits = get::<u64>(A_BASE + first) >> (addr & 7);
            return if n < 64 { bits & ((1 << n) - 1) != 0 } else { bits != 0 };
        }
        let head = get::<u8>(A_BASE + first) >> (addr & 7);
        let tail = get::<u8>(A_BASE + last) << (7 - ((addr + n - 1) & 7));
        head | tail != 0 || !all_zero(A_BASE + first + 1, last - first - 1)
    }
}

/// Set `n` bytes to a defined value. `unit` is the access size to report.
#[inline(always)]
pub fn fill(call: &mut Call, dst: u64, byte: u8, n: u64, unit: u64) {
    if n > 64 || dst >= PROGRAM_END {
        return fill_long(call, dst, byte, n, unit);
    }
    fill_piece(call, dst, byte, n, unit);
}

/// Fill at most CHUNK bytes of a range that begins in the program's space.
#[inline(always)]
fn fill_piece(call: &mut Call, dst: u64, byte: u8, n: u64, unit: u64) {
    // SAFETY: as in `transfer_piece`.
    unsafe {
        if all_zero(dst + V_DISTANCE, n) {
            fill_bytes(dst, byte, n);
        } else {
            fill_dirty(call, dst, n, unit, |to, len| fill_bytes(to, byte, len));
        }
    }
}

#[inline(never)]
fn fill_long(call: &mut Call, dst: u64, byte: u8, n: u64, unit: u64) {
    let stream = n >= STREAM_FROM;
    let mut done = 0;
    while done < n {
        let to = dst.wrapping_add(done);
        shadowed(to);
        let len = (n - done).min(CHUNK - (to & (CHUNK - 1)));
        // SAFETY: bytes that C writes; a whole piece is an aligned page.
        unsafe {
            if to >= PROGRAM_END {
                fill_bytes(to, byte, len);
            } else if stream && len == CHUNK && clean(to, len) {
                raw::stream_fill(to, byte);
            } else {
                fill_piece(call, to, byte, len, unit);
            }
        }
        done += len;
    }
    if stream {
        raw::fence();
    }
}

/// Let `write` store defined data to a range in which some shadow is not zero.
#[cold]
#[inline(never)]
pub fn fill_dirty(call: &mut Call, dst: u64, n: u64, unit: u64, write: impl FnOnce(u64, u64)) {
    let bad = first_bad(dst, n);
    if bad.is_some() {
        for (at, size) in Steps::fill(dst, n, unit) {
            if first_bad(dst.wrapping_add(at), size).is_some() {
                call.bad_write(dst.wrapping_add(at), size);
            }
        }
    }
    write(dst, n);
    compiler_fence(Ordering::SeqCst);
    if bad.is_none() {
        if in_program(dst, n) {
            // SAFETY: V of the range is mapped.
            unsafe { fill_bytes(dst + V_DISTANCE, shadow::DEFINED, n) };
        }
        return;
    }
    let (ctx, sp) = here();
    for at in dst..dst + n {
        if access::addressable(ctx, sp, at) {
            shadow::set_v(at, shadow::DEFINED);
        }
    }
}

/// Set wide characters: `n` bytes, a multiple of 4.
pub fn fill_wide(call: &mut Call, dst: u64, value: u32, n: u64) {
    let mut done = 0;
    while done < n {
        let to = dst.wrapping_add(done);
        let len = (n - done).min(CHUNK);
        // SAFETY: what C writes.
        let write = |to, len| unsafe { raw::fill_words(to, value, len) };
        if !shadowed(to) || clean(to, len) {
            write(to, len);
        } else {
            fill_dirty(call, to, len, 4, write);
        }
        done += len;
    }
}
