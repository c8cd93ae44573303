//! Bytes at machine speed, without any check: the only file that loads and stores by address.
//!
//! Short ranges take 16 bytes at a time, long ones the widest vectors there are. The same functions serve data and shadow, because the
//! V shadow of a range is just another range. Nothing here may become a call of `memcpy` or `memset`: those symbols of the runtime image can
//! be built on this file, so loops that a compiler would recognise as such carry an empty `asm!` that hides them.
//!
//! The contract of all functions: an address is either shadow that is mapped, or memory of the program which the replaced C
//! function would touch itself — then a fault is the program's fault and is delivered to it as such.
#![allow(unsafe_code, reason = "loads and stores by address")]

use crate::vector::{Vector, by_width};
use core::arch::asm;
use core::arch::x86_64::__m128i;

/// # Safety
/// The contract of this module, for 16 bytes.
#[inline(always)]
unsafe fn load16(addr: u64) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { __m128i::load(addr) }
}

/// # Safety
/// The contract of this module, for 16 bytes.
#[inline(always)]
unsafe fn store16(addr: u64, value: __m128i) {
    // SAFETY: the caller's promise.
    unsafe { value.store(addr) }
}

/// # Safety
/// The contract of this module, for the bytes of a `T`, which must be a plain integer.
#[inline(always)]
pub unsafe fn get<T: Copy>(addr: u64) -> T {
    // SAFETY: the caller's promise.
    unsafe { (addr as *const T).read_unaligned() }
}

/// # Safety
/// The contract of this module, for the bytes of a `T`, which must be a plain integer.
#[inline(always)]
pub unsafe fn put<T: Copy>(addr: u64, value: T) {
    // SAFETY: the caller's promise.
    unsafe { (addr as *mut T).write_unaligned(value) }
}

/// Are all bytes of `[addr, addr + len)` zero?
///
/// # Safety
/// The contract of this module.
#[inline(always)]
pub unsafe fn all_zero(addr: u64, len: u64) -> bool {
    // SAFETY: the caller's promise; every load lies inside the range.
    unsafe {
        match len {
            65.. => all_zero_long(addr, len),
            16.. => {
                let mut x = load16(addr).or(load16(addr + len - 16));
                if len > 32 {
                    x = x.or(load16(addr + 16).or(load16(addr + len - 32)));
                }
                x.is_zero()
            }
            _ => small_or(addr, len) == 0,
        }
    }
}

by_width! {
    /// [`all_zero`] for more than 64 bytes.
    ///
    /// # Safety
    /// The contract of this module.
    unsafe fn all_zero_long[][](addr: u64, len: u64) -> bool = all_zero_in
}

/// # Safety
/// As [`all_zero_long`].
#[inline(always)]
unsafe fn all_zero_in<V: Vector>(addr: u64, len: u64) -> bool {
    // SAFETY: the caller's promise; every load lies inside the range.
    unsafe {
        let last = addr + len - V::BYTES;
        let mut at = addr;
        while at + 3 * V::BYTES < last {
            let low = V::load(at).or(V::load(at + V::BYTES));
            let high = V::load(at + 2 * V::BYTES).or(V::load(at + 3 * V::BYTES));
            if !low.or(high).is_zero() {
                return false;
            }
            at += 4 * V::BYTES;
        }
        let mut x = V::load(last);
        while at < last {
            x = x.or(V::load(at));
            at += V::BYTES;
        }
        x.is_zero()
    }
}

/// OR of fewer than 16 bytes, as one word (bytes may be counted twice).
///
/// # Safety
/// The contract of this module; `len < 16`.
#[inline(always)]
unsafe fn small_or(addr: u64, len: u64) -> u64 {
    // SAFETY: the caller's promise; every load lies inside the range.
    unsafe {
        match len {
            8.. => get::<u64>(addr) | get::<u64>(addr + len - 8),
            4.. => u64::from(get::<u32>(addr) | get::<u32>(addr + len - 4)),
            2.. => u64::from(get::<u16>(addr) | get::<u16>(addr + len - 2)),
            1 => u64::from(get::<u8>(addr)),
            0 => 0,
        }
    }
}

/// Copy `n` bytes; the ranges may overlap.
///
/// # Safety
/// The contract of this module.
#[inline(always)]
pub unsafe fn move_bytes(dst: u64, src: u64, n: u64) {
    // SAFETY: the caller's promise. In each arm all loads come before the first store, which makes overlaps harmless.
    unsafe {
        match n {
            65.. => move_long(dst, src, n),
            33.. => {
                let (a, b) = (load16(src), load16(src + 16));
                let (c, d) = (load16(src + n - 32), load16(src + n - 16));
                store16(dst, a);
                store16(dst + 16, b);
                store16(dst + n - 32, c);
                store16(dst + n - 16, d);
            }
            16.. => {
                let (a, b) = (load16(src), load16(src + n - 16));
                store16(dst, a);
                store16(dst + n - 16, b);
            }
            8.. => move_two::<u64>(dst, src, n - 8),
            4.. => move_two::<u32>(dst, src, n - 4),
            2.. => move_two::<u16>(dst, src, n - 2),
            1 => put(dst, get::<u8>(src)),
            0 => {}
        }
    }
}

/// Pages that are copied past the caches.
pub const PAGE: u64 = 4096;

by_width! {
    /// Copy the page at `src` (any alignment) to the aligned page at `dst` past the caches; they do not overlap.
    ///
    /// # Safety
    /// The contract of this module; [`fence`] before anybody relies on the order of these stores.
    pub unsafe fn stream_page[][](dst: u64, src: u64) = stream_page_in
}

/// # Safety
/// As [`stream_page`].
#[inline(always)]
unsafe fn stream_page_in<V: Vector>(dst: u64, src: u64) {
    let mut i = 0;
    let w = V::BYTES;
    while i < PAGE {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (V::load(src + i), V::load(src + i + w));
            let (c, d) = (V::load(src + i + 2 * w), V::load(src + i + 3 * w));
            a.stream(dst + i);
            b.stream(dst + i + w);
            c.stream(dst + i + 2 * w);
            d.stream(dst + i + 3 * w);
        }
        i += 4 * w;
    }
}

by_width! {
    /// Fill an aligned page past the caches.
    ///
    /// # Safety
    /// As [`stream_page`].
    pub unsafe fn stream_fill[][](dst: u64, byte: u8) = stream_fill_in
}

/// # Safety
/// As [`stream_fill`].
#[inline(always)]
unsafe fn stream_fill_in<V: Vector>(dst: u64, byte: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let x = V::splat8(byte);
        let mut i = 0;
        while i < PAGE {
            x.stream(dst + i);
            x.stream(dst + i + V::BYTES);
            i += 2 * V::BYTES;
        }
    }
}

/// Order the stores of [`stream_page`] and [`stream_fill`] before all later ones.
pub fn fence() {
    // SAFETY: SSE is part of the architecture.
    unsafe { core::arch::x86_64::_mm_sfence() };
}

/// Two words, the second `gap` bytes behind the first.
///
/// # Safety
/// The contract of this module.
#[inline(always)]
unsafe fn move_two<T: Copy>(dst: u64, src: u64, gap: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (get::<T>(src), get::<T>(src + gap));
        put(dst, a);
        put(dst + gap, b);
    }
}

by_width! {
    /// [`move_bytes`] for more than 64 bytes.
    ///
    /// # Safety
    /// The contract of this module.
    unsafe fn move_long[][](dst: u64, src: u64, n: u64) = move_in
}

/// # Safety
/// As [`move_long`].
#[inline(always)]
unsafe fn move_in<V: Vector>(dst: u64, src: u64, n: u64) {
    // SAFETY: the caller's promise. The first and last vectors are loaded first and stored last, so the aligned stores of the
    // loop can not destroy them; in between, a store only reaches source bytes that were already loaded.
    unsafe {
        let w = V::BYTES;
        let (first, last) = (V::load(src), V::load(src + n - w));
        if dst.wrapping_sub(src) >= n {
            let mut i = w - dst % w;
            while i + 4 * w <= n {
                move_block::<V>(dst + i, src + i);
                i += 4 * w;
            }
            while i + w <= n {
                V::load(src + i).store(dst + i);
                asm!("", options(nostack, preserves_flags));
                i += w;
            }
        } else {
            let mut i = n - (dst + n) % w;
            while i >= 4 * w {
                i -= 4 * w;
                move_block::<V>(dst + i, src + i);
            }
            while i >= w {
                i -= w;
                V::load(src + i).store(dst + i);
                asm!("", options(nostack, preserves_flags));
            }
        }
        first.store(dst);
        last.store(dst + n - w);
    }
}

/// Four vectors: all loads, then all stores.
///
/// # Safety
/// The contract of this module.
#[inline(always)]
unsafe fn move_block<V: Vector>(dst: u64, src: u64) {
    let w = V::BYTES;
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b, c, d) = (V::load(src), V::load(src + w), V::load(src + 2 * w), V::load(src + 3 * w));
        a.store(dst);
        b.store(dst + w);
        c.store(dst + 2 * w);
        d.store(dst + 3 * w);
    }
}

by_width! {
    /// [`fill_bytes`] for more than 64 bytes.
    ///
    /// # Safety
    /// The contract of this module.
    unsafe fn fill_long[][](dst: u64, byte: u8, n: u64) = fill_in
}

/// # Safety
/// As [`fill_long`].
#[inline(always)]
unsafe fn fill_in<V: Vector>(dst: u64, byte: u8, n: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let x = V::splat8(byte);
        let w = V::BYTES;
        let last = dst + n - w;
        x.store(dst);
        let mut at = dst + w - dst % w;
        while at + 3 * w < last {
            x.store(at);
            x.store(at + w);
            x.store(at + 2 * w);
            x.store(at + 3 * w);
            asm!("", options(nostack, preserves_flags));
            at += 4 * w;
        }
        while at < last {
            x.store(at);
            asm!("", options(nostack, preserves_flags));
            at += w;
        }
        x.store(last);
    }
}

/// Set `n` bytes.
///
/// # Safety
/// The contract of this module.
#[inline(always)]
pub unsafe fn fill_bytes(dst: u64, byte: u8, n: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if n > 64 {
            return fill_long(dst, byte, n);
        }
        if n >= 16 {
            let x = __m128i::splat8(byte);
            store16(dst, x);
            store16(dst + n - 16, x);
            if n > 32 {
                store16(dst + 16, x);
                store16(dst + n - 32, x);
            }
            return;
        }
        let word = u64::from(byte) * 0x0101_0101_0101_0101;
        match n {
            8.. => fill_two(dst, n - 8, word),
            4.. => fill_two(dst, n - 4, word as u32),
            2.. => fill_two(dst, n - 2, word as u16),
            1 => put(dst, byte),
            0 => {}
        }
    }
}

/// # Safety
/// The contract of this module.
#[inline(always)]
unsafe fn fill_two<T: Copy>(dst: u64, gap: u64, word: T) {
    // SAFETY: the caller's promise.
    unsafe {
        put(dst, word);
        put(dst + gap, word);
    }
}

/// Set the 4-byte words of `n` bytes, a multiple of 4.
///
/// # Safety
/// The contract of this module.
pub unsafe fn fill_words(dst: u64, word: u32, n: u64) {
    let mut i = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let x = __m128i::splat32(word);
        while i + 16 <= n {
            store16(dst + i, x);
            i += 16;
        }
        while i < n {
            put(dst + i, word);
            i += 4;
        }
    }
}

/// Touch every page of the range for writing without changing anything.
///
/// # Safety
/// The contract of this module: the whole range is going to be written.
#[inline(never)]
pub unsafe fn probe_write(addr: u64, n: u64) {
    let mut done = 0;
    while done < n {
        let at = addr.wrapping_add(done);
        // SAFETY: the caller's promise; the locked OR with zero keeps concurrent writers intact.
        unsafe { asm!("lock or byte ptr [{}], 0", in(reg) at, options(nostack)) };
        done = done.saturating_add(4096 - (at & 4095));
    }
}
