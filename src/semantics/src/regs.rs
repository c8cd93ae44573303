//! The shadow of a thread's registers: one V bit per bit, 1 = undefined.
//!
//! A shadow register is *valid only if its bit in [`ShadowRegs::dirty`] is set*; a clear bit means "fully defined, whatever is
//! stored here". So entering dirty mode is storing one mask, and leaving it is possible the moment the mask is zero. Everyone who
//! writes a shadow register keeps that mask exact: set if and only if some V bit of the register is set.
//!
//! ```text
//! bit   0..15  general registers in encoding order (rax rcx rdx rbx rsp rbp rsi rdi r8..r15)
//! bit   16     the arithmetic flags
//! bit   17     x87: the eight physical registers (shared with MMX) and the condition codes C0-C3
//! bit   18..25 mask registers k0..k7
//! bit   26..57 vector registers zmm0..zmm31
//! ```
//!
//! Beside every bit there is an origin word, the tag of where its undefined bits come from; its meaning is the caller's. Translated
//! code that moves undefined values does not look tags up: it leaves the address that a register was loaded from ([`ShadowRegs::lazy`]).

use crate::wide::Wide;

/// The arithmetic flags at their places in EFLAGS. The direction flag is always defined.
pub const CF: u64 = 1 << 0;
pub const PF: u64 = 1 << 2;
pub const AF: u64 = 1 << 4;
pub const ZF: u64 = 1 << 6;
pub const SF: u64 = 1 << 7;
pub const OF: u64 = 1 << 11;
/// All six of them.
pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;

/// Refinements, kept in the upper half of [`ShadowRegs::flags`]: a *set* bit says that a condition made of several flags is
/// defined although its flags are not. `4 <= x` is known for every x above 8, but neither CF nor ZF need be.
pub const KNOWN_BE: u64 = 1 << 32;
/// SF != OF is known.
pub const KNOWN_L: u64 = 1 << 33;
/// ZF or SF != OF is known.
pub const KNOWN_LE: u64 = 1 << 34;

/// Numbers of the bits in [`ShadowRegs::dirty`]; general register i is bit i.
pub const FLAGS: usize = 16;
pub const X87: usize = 17;
pub const MASK0: usize = 18;
pub const VEC0: usize = 26;

/// Registers that carry nothing into a function by the System V calling convention (rax counts vector arguments, r10 may be the static
/// chain, xmm0-7 are arguments): at a call their dirt may be dropped. Code that ignores the convention among its own functions at worst
/// goes unreported.
pub const DEAD_AT_CALL: u64 = 1 << 11 | 1 << FLAGS | 0xFF << MASK0 | 0xFF_FFFF << (VEC0 + 8);
/// Registers that carry nothing out of a function (rax, rdx, xmm0, xmm1 and the x87 stack may, rbx, rsp, rbp, r12-r15 are the caller's).
pub const DEAD_AT_RETURN: u64 = 1 << 1 | 0x3F << 6 | 1 << FLAGS | 0xFF << MASK0 | 0x3FFF_FFFF << (VEC0 + 2);

/// V bits of all registers of one thread. Plain data, addressed by offset from translated code.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct ShadowRegs {
    /// Which registers carry undefined bits; see the module's picture.
    pub dirty: u64,
    /// V bits of the flags at their EFLAGS positions, and the `KNOWN_*` refinements.
    pub flags: u64,
    /// V bits of the x87 status word; only C0 (bit 8), C1 (9), C2 (10) and C3 (14) are ever set.
    pub fsw: u64,
    /// Registers whose origin tag is not known yet: it is that of the memory at `place`, their undefined byte's offset further on.
    pub lazy: u64,
    /// Translated code's: how often a loop may still come round without undefined values before it is left for clean code.
    pub patience: u64,
    /// Where undefined addresses were reported last: places in the program, the newest first.
    pub asked: [u64; crate::repeats::PLACES],
    pub gpr: [u64; 16],
    pub k: [u64; 8],
    /// Physical x87 registers R0..R7: the 64-bit significand (which is also mmN), then sign and exponent in 16 bits.
    pub st: [[u64; 2]; 8],
    /// Origin tag per bit of `dirty`; only meaningful where that bit is set.
    pub origin: [u32; 64],
    pub vec: [Wide; 32],
    /// Per bit of `lazy`: where the register was loaded from.
    pub place: [u64; 64],
}

impl Default for ShadowRegs {
    fn default() -> Self {
        Self::new()
    }
}

impl ShadowRegs {
    /// Everything defined.
    pub const fn new() -> ShadowRegs {
        ShadowRegs {
            dirty: 0,
            flags: 0,
            fsw: 0,
            lazy: 0,
            patience: 0,
            asked: [0; crate::repeats::PLACES],
            gpr: [0; 16],
            k: [0; 8],
            st: [[0; 2]; 8],
            origin: [0; 64],
            vec: [Wide::ZERO; 32],
            place: [0; 64],
        }
    }

    /// Dirty registers among `registers` whose origin is only a place.
    #[inline]
    pub fn unsettled(&self, registers: u64) -> u64 {
        self.lazy & self.dirty & registers
    }

    /// Where the origin of an unsettled register is to be looked up: the address of its first undefined byte.
    pub fn place_of(&self, bit: usize) -> u64 {
        let first = match bit.checked_sub(VEC0) {
            Some(n) => {
                let words = &self.vec[n & 31].0;
                words.iter().position(|&w| w != 0).map_or(0, |i| i as u64 * 8 + u64::from(words[i].trailing_zeros() / 8))
            }
            // The flags were compared with memory as a whole.
            None if bit == FLAGS => 0,
            None => u64::from((self.gpr[bit & 15].trailing_zeros() / 8) & 7),
        };
        self.place[bit & 63].wrapping_add(first)
    }

    pub fn settle(&mut self, bit: usize, tag: u32) {
        self.origin[bit & 63] = tag;
        self.lazy &= !(1 << (bit & 63));
    }

    /// Are all registers defined?
    #[inline]
    pub fn is_clean(&self) -> bool {
        self.dirty == 0
    }

    #[inline]
    fn has(&self, bit: usize) -> bool {
        self.dirty >> (bit & 63) & 1 != 0
    }

    #[inline]
    fn mark(&mut self, bit: usize, undefined: bool, origin: u32) {
        let bit = bit & 63;
        self.dirty = self.dirty & !(1 << bit) | u64::from(undefined) << bit;
        if undefined {
            self.origin[bit] = origin;
            self.lazy &= !(1 << bit);
        }
    }

    /// V bits of a general register.
    #[inline]
    pub fn gpr(&self, index: usize) -> u64 {
        if self.has(index & 15) { self.gpr[index & 15] } else { 0 }
    }

    #[inline]
    pub fn set_gpr(&mut self, index: usize, v: u64, origin: u32) {
        self.gpr[index & 15] = v;
        self.mark(index & 15, v != 0, origin);
    }

    /// V bits of the flags, with the refinements.
    #[inline]
    pub fn flags(&self) -> u64 {
        if self.has(FLAGS) { self.flags } else { 0 }
    }

    /// Replaces the V bits of the flags in `written`; any refinement is lost unless `v` carries it.
    #[inline]
    pub fn set_flags(&mut self, written: u64, v: u64, origin: u32) {
        let v = self.flags() & ARITH & !written | v;
        self.flags = v;
        self.mark(FLAGS, v & ARITH != 0, origin);
    }

    #[inline]
    pub fn mask(&self, index: usize) -> u64 {
        if self.has(MASK0 + (index & 7)) { self.k[index & 7] } else { 0 }
    }

    #[inline]
    pub fn set_mask(&mut self, index: usize, v: u64, origin: u32) {
        self.k[index & 7] = v;
        self.mark(MASK0 + (index & 7), v != 0, origin);
    }

    #[inline]
    pub fn vec(&self, index: usize) -> Wide {
        if self.has(VEC0 + (index & 31)) { self.vec[index & 31] } else { Wide::ZERO }
    }

    #[inline]
    pub fn set_vec(&mut self, index: usize, v: Wide, origin: u32) {
        self.vec[index & 31] = v;
        self.mark(VEC0 + (index & 31), !v.is_zero(), origin);
    }

    /// Physical x87 or MMX register: significand, then sign and exponent.
    #[inline]
    pub fn st(&self, physical: usize) -> [u64; 2] {
        if self.has(X87) { self.st[physical & 7] } else { [0; 2] }
    }

    pub fn set_st(&mut self, physical: usize, v: [u64; 2], origin: u32) {
        self.open_x87();
        self.st[physical & 7] = v;
        self.close_x87(origin);
    }

    /// V bits of the condition codes in the x87 status word.
    pub fn fsw(&self) -> u64 {
        if self.has(X87) { self.fsw } else { 0 }
    }

    pub fn set_fsw(&mut self, v: u64, origin: u32) {
        self.open_x87();
        self.fsw = v;
        self.close_x87(origin);
    }

    /// The x87 group shares one bit: before the first write its stored words are garbage.
    fn open_x87(&mut self) {
        if !self.has(X87) {
            self.st = [[0; 2]; 8];
            self.fsw = 0;
        }
    }

    fn close_x87(&mut self, origin: u32) {
        let any = self.st.iter().flatten().fold(self.fsw, |all, v| all | v);
        self.mark(X87, any != 0, origin);
    }

    /// Everything in `registers` (bits as in `dirty`) becomes defined, and of the flags those in `flags`.
    #[inline]
    pub fn define(&mut self, registers: u64, flags: u64) {
        self.dirty &= !registers;
        if flags != 0 && self.has(FLAGS) {
            self.set_flags(flags, 0, self.origin[FLAGS]);
        }
    }

    /// The origin tag of the first undefined register among `registers`; 0 if there is none.
    pub fn origin_of(&self, registers: u64) -> u32 {
        match self.dirty & registers {
            0 => 0,
            some => self.origin[some.trailing_zeros() as usize & 63],
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{ARITH, CF, DEAD_AT_CALL, DEAD_AT_RETURN, KNOWN_BE, ShadowRegs, VEC0, X87, ZF};

    #[test]
    fn a_clear_dirty_bit_hides_garbage() {
        let mut regs = ShadowRegs::new();
        regs.gpr[3] = 7;
        regs.st[1] = [1, 1];
        assert_eq!(regs.gpr(3), 0);
        regs.set_st(0, [5, 0], 9);
        assert_eq!(regs.st(1), [0, 0], "garbage of the group is cleared by its first write");
        assert_eq!(regs.origin_of(1 << X87), 9);
        regs.set_st(0, [0, 0], 9);
        assert!(regs.is_clean());
    }

    #[test]
    fn what_a_call_and_a_return_keep() {
        let kept = |dead: u64| (0..58).filter(|bit| !dead >> bit & 1 != 0).collect::<std::vec::Vec<_>>();
        let results: std::vec::Vec<usize> = [0, 2, 3, 4, 5, 12, 13, 14, 15, X87, VEC0, VEC0 + 1].into();
        assert_eq!(kept(DEAD_AT_RETURN), results);
        let arguments = (0..16).filter(|&n| n != 11).chain([X87]).chain(VEC0..VEC0 + 8);
        assert_eq!(kept(DEAD_AT_CALL), arguments.collect::<std::vec::Vec<_>>());
    }

    #[test]
    fn refinements_do_not_outlive_their_flags() {
        let mut regs = ShadowRegs::new();
        regs.set_flags(ARITH, CF | ZF | KNOWN_BE, 1);
        assert_eq!(regs.flags(), CF | ZF | KNOWN_BE);
        regs.set_flags(CF, 0, 1);
        assert_eq!(regs.flags(), ZF);
        regs.define(0, ZF);
        assert!(regs.is_clean());
    }
}
