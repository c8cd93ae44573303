//! Bytes at machine speed, without any check: the only file that loads and stores by address.
//!
//! Everything here is baseline SSE2 and moves 16 bytes at a time. The same functions serve data and shadow, because the V shadow of
//! a range is just another range. Nothing here may become a call of `memcpy` or `memset`: those symbols of the runtime image can
//! be built on this file, so loops that a compiler would recognise as such carry an empty `asm!` that hides them.
//!
//! The contract of all functions: an address is either shadow that is mapped, or memory of the program which the replaced C
//! function would touch itself — then a fault is the program's fault and is delivered to it as such.
#![allow(unsafe_code, reason = "loads and stores by address")]

use core::arch::asm;
use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_setzero_si128, _mm_storeu_si128,
};

/// # Safety
/// The contract of this module, for 16 bytes.
#[inline(always)]
pub unsafe fn load16(addr: u64) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(addr as *const __m128i) }
}

/// # Safety
/// The contract of this module, for 16 bytes.
#[inline(always)]
pub unsafe fn store16(addr: u64, value: __m128i) {
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(addr as *mut __m128i, value) }
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

/// Is any of these 16 bytes not zero?
#[inline(always)]
pub fn any(x: __m128i) -> bool {
    // SAFETY: SSE2 is part of the architecture.
    unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_setzero_si128())) != 0xffff }
}

#[inline(always)]
pub fn or(a: __m128i, b: __m128i) -> __m128i {
    // SAFETY: SSE2 is part of the architecture.
    unsafe { _mm_or_si128(a, b) }
}

/// Are all bytes of `[addr, addr + len)` zero?
///
/// # Safety
/// The contract of this module.
#[inline]
pub unsafe fn all_zero(addr: u64, len: u64) -> bool {
    // SAFETY: the caller's promise; every load lies inside the range.
    unsafe {
        if len < 16 {
            return small_or(addr, len) == 0;
        }
        let last = addr + len - 16;
        let mut at = addr;
        while at + 48 < last {
            let x = or(or(load16(at), load16(at + 16)), or(load16(at + 32), load16(at + 48)));
            if any(x) {
                return false;
            }
            at += 64;
        }
        let mut x = load16(last);
        while at < last {
            x = or(x, load16(at));
            at += 16;
        }
        !any(x)
    }
}

/// OR of fewer than 16 bytes, as one word (bytes may be counted twice).
///
/// # Safety
/// The contract of this module; `len < 16`.
#[inline(always)]
pub unsafe fn small_or(addr: u64, len: u64) -> u64 {
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
#[inline]
pub unsafe fn move_bytes(dst: u64, src: u64, n: u64) {
    // SAFETY: the caller's promise. In each arm all loads come before the first store, which makes overlaps harmless.
    unsafe {
        match n {
            65.. if n > 128 => move_long(dst, src, n),
            65.. => {
                let a = [load16(src), load16(src + 16), load16(src + 32), load16(src + 48)];
                let end = n - 64;
                let b = [load16(src + end), load16(src + end + 16), load16(src + end + 32), load16(src + end + 48)];
                store64(dst, a);
                store64(dst + end, b);
            }
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

/// # Safety
/// The contract of this module, for 64 bytes.
#[inline(always)]
unsafe fn store64(dst: u64, x: [__m128i; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        store16(dst, x[0]);
        store16(dst + 16, x[1]);
        store16(dst + 32, x[2]);
        store16(dst + 48, x[3]);
    }
}

/// # Safety
/// The contract of this module; `n > 64`.
#[inline(never)]
unsafe fn move_long(dst: u64, src: u64, n: u64) {
    // SAFETY: the caller's promise. The first and last vectors are loaded first and stored last, so the aligned stores of the
    // loop can not destroy them; in between, a store only reaches source bytes that were already loaded.
    unsafe {
        let (first, last) = (load16(src), load16(src + n - 16));
        if dst.wrapping_sub(src) >= n {
            let mut i = 16 - (dst & 15);
            while i + 64 <= n {
                let x = [load16(src + i), load16(src + i + 16), load16(src + i + 32), load16(src + i + 48)];
                store64(dst + i, x);
                i += 64;
            }
            while i + 16 <= n {
                let x = load16(src + i);
                store16(dst + i, x);
                asm!("", options(nostack, preserves_flags));
                i += 16;
            }
        } else {
            let mut i = n - ((dst + n) & 15);
            while i >= 64 {
                i -= 64;
                let x = [load16(src + i), load16(src + i + 16), load16(src + i + 32), load16(src + i + 48)];
                store64(dst + i, x);
            }
            while i >= 16 {
                i -= 16;
                let x = load16(src + i);
                store16(dst + i, x);
                asm!("", options(nostack, preserves_flags));
            }
        }
        store16(dst, first);
        store16(dst + n - 16, last);
    }
}

/// Set `n` bytes.
///
/// # Safety
/// The contract of this module.
#[inline]
pub unsafe fn fill_bytes(dst: u64, byte: u8, n: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if n >= 16 {
            let x = _mm_set1_epi8(byte as i8);
            let last = dst + n - 16;
            store16(dst, x);
            let mut at = (dst + 16) & !15;
            while at + 48 < last {
                store64(at, [x; 4]);
                asm!("", options(nostack, preserves_flags));
                at += 64;
            }
            while at < last {
                store16(at, x);
                asm!("", options(nostack, preserves_flags));
                at += 16;
            }
            store16(last, x);
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
