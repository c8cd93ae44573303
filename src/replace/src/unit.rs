//! What the kernels are generic over: the character, what is looked for, and how characters are compared.
//!
//! # Safety
//! All unsafe functions of this file are operations on vectors, with the contract of [`Vector`].
#![allow(unsafe_code, reason = "vector operations carry their contract")]

use crate::vector::Vector;

/// A character: `u8`, or `u32` for `wchar_t` (which is signed when ordered).
pub trait Unit: Copy + PartialEq {
    const SIZE: u64;
    const NUL: Self;
    /// Xor with this makes unsigned order the order of the type.
    const SIGN: u64;
    fn bits(self) -> u64;
    /// # Safety
    /// As [`Vector`].
    unsafe fn splat<V: Vector>(self) -> V;
    /// # Safety
    /// As [`Vector`].
    unsafe fn equal<V: Vector>(a: V, b: V) -> V;
}

macro_rules! unit {
    ($type:ty, $sign:expr, $splat:ident, $equal:ident) => {
        impl Unit for $type {
            const SIZE: u64 = size_of::<$type>() as u64;
            const NUL: $type = 0;
            const SIGN: u64 = $sign;
            #[inline(always)]
            fn bits(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            unsafe fn splat<V: Vector>(self) -> V {
                // SAFETY: the caller's promise.
                unsafe { V::$splat(self) }
            }
            #[inline(always)]
            unsafe fn equal<V: Vector>(a: V, b: V) -> V {
                // SAFETY: the caller's promise.
                unsafe { a.$equal(b) }
            }
        }
    };
}

unit!(u8, 0, splat8, equal8);
unit!(u32, 1 << 31, splat32, equal32);

/// What a search looks for.
pub trait Needle<U: Unit>: Copy {
    /// All-ones lanes where the vector matches.
    ///
    /// # Safety
    /// As [`Vector`].
    unsafe fn lanes<V: Vector>(self, data: V) -> V;
    /// Could a unit match whose bits outside `undefined` are those of `bits`?
    fn may_match(self, bits: u64, undefined: u64) -> bool;
}

/// The terminator.
#[derive(Clone, Copy)]
pub struct Nul;
/// One character.
#[derive(Clone, Copy)]
pub struct One<U>(pub U);
/// One character or the terminator.
#[derive(Clone, Copy)]
pub struct OneOrNul<U>(pub U);
/// Any of four bytes; with `NOT`, none of them.
#[derive(Clone, Copy)]
pub struct Four<const NOT: bool>(pub [u8; 4]);

impl<U: Unit> Needle<U> for Nul {
    #[inline(always)]
    unsafe fn lanes<V: Vector>(self, data: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { U::equal(data, V::zero()) }
    }
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        bits & !undefined == 0
    }
}

impl<U: Unit> Needle<U> for One<U> {
    #[inline(always)]
    unsafe fn lanes<V: Vector>(self, data: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { U::equal(data, self.0.splat()) }
    }
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        (bits ^ self.0.bits()) & !undefined == 0
    }
}

impl<U: Unit> Needle<U> for OneOrNul<U> {
    #[inline(always)]
    unsafe fn lanes<V: Vector>(self, data: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { U::equal(data, self.0.splat::<V>()).or(U::equal(data, V::zero())) }
    }
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        One(self.0).may_match(bits, undefined) || Needle::<U>::may_match(Nul, bits, undefined)
    }
}

impl<const NOT: bool> Needle<u8> for Four<NOT> {
    #[inline(always)]
    unsafe fn lanes<V: Vector>(self, data: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = self.0;
            let low = data.equal8(V::splat8(a)).or(data.equal8(V::splat8(b)));
            let any = low.or(data.equal8(V::splat8(c)).or(data.equal8(V::splat8(d))));
            if NOT { any.equal8(V::zero()) } else { any }
        }
    }
    /// With undefined bits it may be either.
    fn may_match(self, bits: u64, undefined: u64) -> bool {
        undefined != 0 || self.0.iter().any(|&c| u64::from(c) == bits) != NOT
    }
}

/// How characters are compared.
pub trait Fold {
    const EXACT: bool;
    /// # Safety
    /// As [`Vector`].
    unsafe fn vector<V: Vector>(x: V) -> V;
    fn unit(x: u64) -> u64;
}

/// As they are.
pub struct Exact;
/// ASCII letters without case: what C's `tolower` does in the C and UTF-8 locales.
pub struct IgnoreCase;

impl Fold for Exact {
    const EXACT: bool = true;
    #[inline(always)]
    unsafe fn vector<V: Vector>(x: V) -> V {
        x
    }
    #[inline(always)]
    fn unit(x: u64) -> u64 {
        x
    }
}

impl Fold for IgnoreCase {
    const EXACT: bool = false;
    #[inline(always)]
    unsafe fn vector<V: Vector>(x: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let upper = x.greater8(V::splat8(b'A' - 1)).and(V::splat8(b'Z' + 1).greater8(x));
            x.add8(upper.and(V::splat8(0x20)))
        }
    }
    #[inline(always)]
    fn unit(x: u64) -> u64 {
        if (0x41..=0x5a).contains(&x) { x + 0x20 } else { x }
    }
}
