//! Vectors of 16 bytes (SSE2, part of the architecture) and 32 bytes (AVX2, where the processor has it) behind one trait.
//!
//! Short data is always handled with 16 bytes: no detection, no transition costs. Only the loops over long ranges exist in both
//! widths: generic code marked `inline(always)`, instantiated once plainly and once inside a function that enables AVX2
//! ([`by_width!`]). Such code must not use closures or iterators: these would not be inlined and then lack AVX2. Vector registers need no saving here: for the program these functions are ordinary calls.
//!
//! # Safety
//! All unsafe functions of this file: the contract of [`Vector`], which stands there.
#![allow(unsafe_code, reason = "vector instructions, loads and stores by address")]

use core::arch::x86_64::{
    __cpuid, __cpuid_count, __m128i, __m256i, _mm_add_epi8, _mm_and_si128, _mm_andnot_si128, _mm_cmpeq_epi8, _mm_cmpeq_epi32,
    _mm_cmpgt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_set1_epi32, _mm_setzero_si128, _mm_storeu_si128,
    _mm_stream_si128, _mm256_add_epi8, _mm256_and_si256, _mm256_andnot_si256, _mm256_cmpeq_epi8, _mm256_cmpeq_epi32, _mm256_cmpgt_epi8,
    _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_stream_si256,
};
use core::sync::atomic::{AtomicBool, Ordering};

/// The operations the kernels need.
///
/// # Safety
/// Every operation: the processor has the instructions. Loads and stores: the contract of [`crate::raw`].
#[allow(clippy::missing_safety_doc, reason = "one contract for all methods, above")]
pub unsafe trait Vector: Copy {
    const BYTES: u64;
    unsafe fn load(addr: u64) -> Self;
    unsafe fn store(self, addr: u64);
    /// Store past the caches; `addr` is aligned, and a store fence must follow the last one.
    unsafe fn stream(self, addr: u64);
    unsafe fn zero() -> Self;
    unsafe fn splat8(x: u8) -> Self;
    unsafe fn splat32(x: u32) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    /// `self & !other`
    unsafe fn without(self, other: Self) -> Self;
    unsafe fn add8(self, other: Self) -> Self;
    /// All-ones lanes where equal (`equal*`), or signed greater.
    unsafe fn equal8(self, other: Self) -> Self;
    unsafe fn equal32(self, other: Self) -> Self;
    unsafe fn greater8(self, other: Self) -> Self;
    /// The top bit of every byte.
    unsafe fn mask(self) -> u32;
    /// Are all bits zero?
    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.equal8(Self::zero()).mask() == (u64::MAX >> (64 - Self::BYTES)) as u32 }
    }
}

macro_rules! vector {
    ($type:ty, $bytes:literal, $load:ident, $store:ident, $stream:ident, $zero:ident, $splat8:ident ($i8:ty), $splat32:ident, $or:ident, $and:ident,
     $andnot:ident, $add:ident, $eq8:ident, $eq32:ident, $gt8:ident, $mask:ident) => {
        // SAFETY: each method is one instruction; what it needs is the trait's contract.
        unsafe impl Vector for $type {
            const BYTES: u64 = $bytes;
            #[inline(always)]
            unsafe fn load(addr: u64) -> Self {
                // SAFETY: the trait's contract.
                unsafe { $load(addr as *const $type) }
            }
            #[inline(always)]
            unsafe fn store(self, addr: u64) {
                // SAFETY: the trait's contract.
                unsafe { $store(addr as *mut $type, self) }
            }
            #[inline(always)]
            unsafe fn stream(self, addr: u64) {
                // SAFETY: the trait's contract.
                unsafe { $stream(addr as *mut $type, self) }
            }
            vector!(@ops zero() = $zero(); splat8(x: u8) = $splat8(x as $i8); splat32(x: u32) = $splat32(x as i32););
            vector!(@pairs $type; or = $or, and = $and, add8 = $add, equal8 = $eq8, equal32 = $eq32, greater8 = $gt8);
            #[inline(always)]
            unsafe fn without(self, other: Self) -> Self {
                // SAFETY: the trait's contract.
                unsafe { $andnot(other, self) }
            }
            #[inline(always)]
            unsafe fn mask(self) -> u32 {
                // SAFETY: the trait's contract.
                unsafe { $mask(self) as u32 }
            }
        }
    };
    (@ops $($name:ident($($x:ident: $t:ty)?) = $call:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name($($x: $t)?) -> Self {
            // SAFETY: the trait's contract.
            unsafe { $call }
        })*
    };
    (@pairs $type:ty; $($name:ident = $call:ident),*) => {
        $(#[inline(always)]
        unsafe fn $name(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { $call(self, other) }
        })*
    };
}

vector!(
    __m128i,
    16,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_stream_si128,
    _mm_setzero_si128,
    _mm_set1_epi8(i8),
    _mm_set1_epi32,
    _mm_or_si128,
    _mm_and_si128,
    _mm_andnot_si128,
    _mm_add_epi8,
    _mm_cmpeq_epi8,
    _mm_cmpeq_epi32,
    _mm_cmpgt_epi8,
    _mm_movemask_epi8
);
vector!(
    __m256i,
    32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_stream_si256,
    _mm256_setzero_si256,
    _mm256_set1_epi8(i8),
    _mm256_set1_epi32,
    _mm256_or_si256,
    _mm256_and_si256,
    _mm256_andnot_si256,
    _mm256_add_epi8,
    _mm256_cmpeq_epi8,
    _mm256_cmpeq_epi32,
    _mm256_cmpgt_epi8,
    _mm256_movemask_epi8
);

static WIDE: AtomicBool = AtomicBool::new(false);

/// May 32-byte vectors be used?
#[inline(always)]
pub fn wide() -> bool {
    WIDE.load(Ordering::Relaxed)
}

/// Ask the processor; tests may insist on 16 bytes.
pub fn detect(allow: bool) {
    WIDE.store(allow && has_avx2(), Ordering::Relaxed);
}

/// Processor manual, CPUID leaves 1 and 7: OSXSAVE and AVX, the system saves ymm registers, AVX2.
fn has_avx2() -> bool {
    const OSXSAVE_AVX: u32 = 1 << 27 | 1 << 28;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE_AVX != OSXSAVE_AVX {
        return false;
    }
    let saved: u32;
    // SAFETY: OSXSAVE says that xgetbv exists.
    unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") saved, out("edx") _, options(nomem, nostack, preserves_flags)) };
    saved & 6 == 6 && __cpuid_count(7, 0).ebx & 1 << 5 != 0
}

/// Define `$name` as the generic `$body` with the widest vectors this processor has.
macro_rules! by_width {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident [$($g:tt)*] [$($use:tt)*] ($($arg:ident : $t:ty),* $(,)?) $(-> $r:ty)? = $body:ident) => {
        $(#[$doc])*
        #[inline(never)]
        $vis unsafe fn $name<$($g)*>($($arg: $t),*) $(-> $r)? {
            #[target_feature(enable = "avx2")]
            unsafe fn with_avx2<$($g)*>($($arg: $t),*) $(-> $r)? {
                // SAFETY: the caller's promise.
                unsafe { $body::<core::arch::x86_64::__m256i, $($use)*>($($arg),*) }
            }
            // SAFETY: the caller's promise; AVX2 was detected.
            unsafe {
                if crate::vector::wide() {
                    with_avx2::<$($use)*>($($arg),*)
                } else {
                    $body::<core::arch::x86_64::__m128i, $($use)*>($($arg),*)
                }
            }
        }
    };
}
pub(crate) use by_width;
