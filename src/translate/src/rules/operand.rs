//! Operands of a rule: scratch registers, V bits, values, and what becomes of a result.

use super::Job;
use super::encode::{Alu, CC_S};
use crate::dirty::mask_at;
use crate::emit::{CC_E, CC_NE, Mem};
use crate::emitter::{Emitter, spill};
use crate::{SHADOW_REGS, shadow_layout as layout, slot};
use alloc::vec::Vec;

/// Scratch registers are taken from these, so that each has a byte form without REX.
const POOL: [u8; 12] = [0, 1, 2, 3, 8, 9, 10, 11, 14, 15, 12, 13];
/// Slots for their values.
const SLOTS: [i32; 8] = [8, 9, 10, 11, 12, 13, 14, slot::ADDRESS];
/// The flags' bit in the mask of dirty registers.
pub const FLAGS: u32 = 16;

/// Registers of the program that a rule may use: their values lie in slots.
pub struct Scratch {
    regs: [u8; SLOTS.len()],
    count: usize,
}

impl core::ops::Index<usize> for Scratch {
    type Output = u8;

    fn index(&self, i: usize) -> &u8 {
        &self.regs[..self.count][i]
    }
}

impl Scratch {
    /// One that may not be there, for who will not use it then.
    pub fn get(&self, i: usize) -> u8 {
        self.regs[i]
    }
}

/// Where a result's origin is to be found.
#[derive(Clone, Copy)]
pub enum Origin {
    /// A register, if it is dirty.
    Register(u32),
    /// Memory at the address in a scratch register.
    Place(u8),
}

pub const fn gpr_shadow(n: u8) -> Mem {
    Mem::ctx(SHADOW_REGS + layout::GPR + 8 * n as i32)
}

pub const fn flags_shadow() -> Mem {
    Mem::ctx(SHADOW_REGS + layout::FLAGS)
}

const fn origin_of(bit: u32) -> Mem {
    Mem::ctx(SHADOW_REGS + layout::ORIGIN + 4 * bit as i32)
}

const fn place_of(bit: u32) -> Mem {
    Mem::ctx(SHADOW_REGS + layout::PLACE + 8 * bit as i32)
}

const DIRTY: i32 = 0;

/// The half of a mask that has a bit. Always the same four bytes: a load of more than the last store wrote would have to wait for it.
const fn half_of(word: i32, bit: u32) -> Mem {
    mask_at(word + (bit / 32 * 4) as i32)
}

impl Emitter<'_> {
    /// Registers that are not busy, spilled.
    pub(super) fn take_scratch(&mut self, count: usize, busy: u32) -> Scratch {
        let mut regs = [0; SLOTS.len()];
        let free = POOL.into_iter().filter(|r| busy >> r & 1 == 0);
        for (i, (to, r)) in regs[..count].iter_mut().zip(free).enumerate() {
            *to = r;
            self.asm.store(&spill(SLOTS[i]), r);
        }
        Scratch { regs, count }
    }

    pub(super) fn give_back(&mut self, scratch: &Scratch) {
        for (i, &r) in scratch.regs[..scratch.count].iter().enumerate() {
            self.asm.load(r, &spill(SLOTS[i]));
        }
    }

    /// Flags of the processor: is one of these bits set in a word of the shadow registers?
    pub(super) fn test_bit(&mut self, word: i32, bit: u32) {
        self.asm.alu_mem_imm(Alu::Test, &half_of(word, bit), 1 << (bit % 32));
    }

    pub(super) fn set_bit(&mut self, word: i32, bit: u32) {
        self.asm.alu_mem_imm(Alu::Or, &half_of(word, bit), 1 << (bit % 32));
    }

    pub(super) fn clear_bit(&mut self, word: i32, bit: u32) {
        self.asm.alu_mem_imm(Alu::And, &half_of(word, bit), !(1 << (bit % 32)));
    }

    /// `t` = V bits of a general register, at least its low `size` bytes; with 4 or 8, no others.
    pub(super) fn load_v(&mut self, t: u8, register: u8, size: u32) {
        self.asm.zero(t);
        self.test_bit(DIRTY, u32::from(register));
        self.asm.cmov_mem(CC_NE, size == 8, t, &gpr_shadow(register));
    }

    /// The register `to` (a target of `size` bytes) gets the V bits in `v`, and if it was defined before, the origin of the first dirty
    /// one of `from`. `fresh`: what it had before means nothing.
    pub(super) fn set_register(&mut self, to: u8, size: u32, v: u8, t: u8, from: &[Origin], fresh: bool) {
        let bit = u32::from(to);
        let mut out = Vec::new();
        if size < 4 {
            self.test_bit(DIRTY, bit);
            let whole = self.asm.jcc_forward(CC_E);
            self.asm.load(t, &gpr_shadow(to));
            self.asm.alu(Alu::Mov, size, t, v);
            self.asm.store(&gpr_shadow(to), t);
            self.asm.alu(Alu::Test, 8, t, t);
            out.push(self.asm.jcc_forward(CC_NE));
            self.clear_bit(DIRTY, bit);
            out.push(self.asm.jmp_forward());
            self.asm.patch_here(whole);
            self.asm.zero_extend(v, v, size);
        }
        self.asm.store(&gpr_shadow(to), v);
        self.asm.alu(Alu::Test, 8, v, v);
        let zero = self.asm.jcc_forward(CC_E);
        if fresh {
            self.origin_to(bit, t, from);
        }
        self.test_bit(DIRTY, bit);
        out.push(self.asm.jcc_forward(CC_NE));
        if !fresh {
            self.origin_to(bit, t, from);
        }
        self.set_bit(DIRTY, bit);
        out.push(self.asm.jmp_forward());
        self.asm.patch_here(zero);
        self.test_bit(DIRTY, bit);
        out.push(self.asm.jcc_forward(CC_E));
        self.clear_bit(DIRTY, bit);
        for at in out {
            self.asm.patch_here(at);
        }
    }

    /// Begin to gather V bits of the flags.
    pub(super) fn open_flags(&mut self) {
        self.asm.store_imm(&flags_shadow(), 8, 0);
    }

    /// Add these V bits if the condition code holds; else the refinement.
    pub(super) fn flag_if(&mut self, code: u8, flags: i32, otherwise: Option<u8>) {
        let not = self.asm.jcc_forward(code ^ 1);
        if flags != 0 {
            self.asm.alu_mem_imm(Alu::Or, &flags_shadow(), flags as u32);
        }
        if let Some(known) = otherwise {
            let out = self.asm.jmp_forward();
            self.asm.patch_here(not);
            self.asm.alu_mem_imm(Alu::Or, &Mem { disp: flags_shadow().disp + 4, ..flags_shadow() }, 1 << (known - 32));
            self.asm.patch_here(out);
        } else {
            self.asm.patch_here(not);
        }
    }

    /// ZF of a result with the V bits `r`, whose value `x` puts into `t`.
    pub(super) fn zero_flag(&mut self, size: u32, r: u8, t: u8, x: impl FnOnce(&mut Self)) {
        self.asm.alu(Alu::Test, size, r, r);
        let defined = self.asm.jcc_forward(CC_E);
        x(self);
        self.asm.andn(size == 8, t, r, t);
        self.asm.alu(Alu::Test, size, t, t);
        self.flag_if(CC_E, 1 << 6, None);
        self.asm.patch_here(defined);
    }

    pub(super) fn sign_flag(&mut self, size: u32, r: u8) {
        self.asm.alu(Alu::Test, size, r, r);
        self.flag_if(CC_S, 1 << 7, None);
    }

    pub(super) fn parity_flag(&mut self, r: u8) {
        self.asm.alu(Alu::Test, 1, r, r);
        self.flag_if(CC_NE, 1 << 2, None);
    }

    /// All V bits of the flags are gathered: they come from the first dirty one of `from`.
    pub(super) fn close_flags(&mut self, t: u8, from: &[Origin]) {
        self.asm.cmp_zero(&flags_shadow(), 4);
        let zero = self.asm.jcc_forward(CC_E);
        self.origin_to(FLAGS, t, from);
        self.set_bit(DIRTY, FLAGS);
        let out = self.asm.jmp_forward();
        self.asm.patch_here(zero);
        self.flags_are_dead();
        self.asm.patch_here(out);
    }

    /// Flags that are written, and all that somebody will ask for are defined.
    pub(super) fn flags_are_dead(&mut self) {
        self.test_bit(DIRTY, FLAGS);
        let out = self.asm.jcc_forward(CC_E);
        self.clear_bit(DIRTY, FLAGS);
        self.asm.patch_here(out);
    }

    pub(super) fn origin_to(&mut self, to: u32, t: u8, from: &[Origin]) {
        if !self.t.options.origins {
            return;
        }
        let mut out = Vec::new();
        for (i, &origin) in from.iter().enumerate() {
            let last = i + 1 == from.len();
            match origin {
                Origin::Register(bit) => {
                    let mut next = None;
                    if !last {
                        self.test_bit(DIRTY, bit);
                        next = Some(self.asm.jcc_forward(CC_E));
                    }
                    if bit != to {
                        self.copy_origin(bit, to, t);
                    }
                    if let Some(next) = next {
                        out.push(self.asm.jmp_forward());
                        self.asm.patch_here(next);
                    }
                }
                Origin::Place(address) => {
                    self.asm.store(&place_of(to), address);
                    self.set_bit(layout::LAZY, to);
                    break;
                }
            }
        }
        for at in out {
            self.asm.patch_here(at);
        }
    }

    fn copy_origin(&mut self, from: u32, to: u32, t: u8) {
        self.asm.load_zx(t, &origin_of(from), 4);
        self.asm.store_sized(&origin_of(to), t, 4);
        self.asm.load(t, &place_of(from));
        self.asm.store(&place_of(to), t);
        self.test_bit(layout::LAZY, from);
        let known = self.asm.jcc_forward(CC_E);
        self.set_bit(layout::LAZY, to);
        let out = self.asm.jmp_forward();
        self.asm.patch_here(known);
        self.clear_bit(layout::LAZY, to);
        self.asm.patch_here(out);
    }

    /// Load the V bits of the memory operand to `v`: if there are any, its address to `address`, and see that it is an ordinary place.
    /// With `x`, its value, too. Uses `a` and `c`.
    /// `stack`: there, too. (Frames are soon gone, so that an origin in them must be looked up at once.)
    pub(super) fn load_memory(&mut self, v: u8, x: Option<u8>, address: u8, [a, c]: [u8; 2], stack: bool, job: &mut Job) -> bool {
        let Some((mem, size)) = job.memory else {
            job.not.push(self.asm.jmp_forward());
            return false;
        };
        // A wild address has no shadow either.
        job.probes.push(self.asm.here());
        self.asm.load_zx(v, &mem.shadow(0), size);
        self.asm.alu(Alu::Test, size, v, v);
        let defined = self.asm.jcc_forward(CC_E);
        self.ordinary_address(&mem, size, address, [a, c], &mut job.not);
        self.no_mark_in(v, size, address, c, &mut job.not);
        if self.t.options.origins && !stack {
            self.not_on_stack(address, &mut job.not);
        }
        self.asm.patch_here(defined);
        if let Some(x) = x {
            job.probes.push(self.asm.here());
            self.asm.load_zx(x, &mem, size);
        }
        true
    }
}
