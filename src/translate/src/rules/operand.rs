//! Operands of a rule: scratch registers, V bits, values, and what becomes of a result.

use super::Job;
use super::encode::Alu;
use crate::dirty::mask_at;
use crate::emit::{CC_E, CC_NE, CC_S, Mem};
use crate::emitter::{Emitter, spill};
use crate::{SHADOW_REGS, shadow_layout as layout, slot};
use alloc::vec::Vec;

/// Scratch registers are taken from these, so that each has a byte form without REX.
pub const POOL: [u8; 12] = [0, 1, 2, 3, 8, 9, 10, 11, 14, 15, 12, 13];
/// Slots for their values.
const SLOTS: [i32; 8] = [8, 9, 10, 11, 12, 13, 14, slot::ADDRESS];
/// The flags' bit in the mask of dirty registers.
pub const FLAGS: u32 = 16;

/// Registers of the program that a rule may use: their values lie in slots.
#[derive(Clone)]
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

/// V bits of a register by its bit in the mask.
pub fn slot_of(bit: u32) -> Mem {
    match bit {
        FLAGS => flags_shadow(),
        layout::VEC0.. => super::vector::vector_shadow((bit - layout::VEC0) as u8, 0),
        _ => gpr_shadow(bit as u8),
    }
}

const DIRTY: i32 = 0;

/// The half of a mask that has a bit. Always the same four bytes: a load of more than the last store wrote would have to wait for it.
const fn half_of(word: i32, bit: u32) -> Mem {
    mask_at(word + (bit / 32 * 4) as i32)
}

impl Emitter<'_> {
    /// Registers that are not busy, spilled.
    pub(crate) fn take_scratch(&mut self, count: usize, busy: u32) -> Scratch {
        let mut regs = [0; SLOTS.len()];
        let free = self.free_registers();
        // What a loop has for itself comes first.
        let order = POOL.into_iter().filter(|r| free >> r & 1 != 0).chain(POOL.into_iter().filter(|r| (free | busy) >> r & 1 == 0));
        for (i, (to, r)) in regs[..count].iter_mut().zip(order).enumerate() {
            *to = r;
            if free >> r & 1 == 0 {
                self.asm.store(&spill(SLOTS[i]), r);
            }
        }
        Scratch { regs, count }
    }

    pub(crate) fn give_back(&mut self, scratch: &Scratch) {
        let free = self.free_registers();
        for (i, &r) in scratch.regs[..scratch.count].iter().enumerate().filter(|(_, r)| free >> **r & 1 == 0) {
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

    pub(crate) fn clear_bit(&mut self, word: i32, bit: u32) {
        self.asm.alu_mem_imm(Alu::And, &half_of(word, bit), !(1 << (bit % 32)));
    }

    /// `t` = V bits of a general register, at least its low `size` bytes; with 4 or 8, no others.
    pub(crate) fn load_v(&mut self, t: u8, register: u8, size: u32) {
        let start = self.asm.offset();
        match (self.may_be_undefined(u32::from(register)), self.holder(u32::from(register))) {
            (Some(true), Some(holder)) if holder == t && size == 8 => return,
            (Some(true), Some(holder)) => self.asm.alu(Alu::Mov, size.max(4), t, holder),
            (Some(true), None) => self.asm.load_zx(t, &gpr_shadow(register), size.max(4)),
            (Some(false), _) => self.asm.zero(t),
            (None, _) => {}
        }
        if self.loops.is_some() {
            return self.writes_scratch(t, start);
        }
        self.asm.zero(t);
        self.test_bit(DIRTY, u32::from(register));
        self.asm.cmov_mem(CC_NE, size == 8, t, &gpr_shadow(register));
    }

    /// The register `to` (a target of `size` bytes) gets the V bits in `v`, and if it was defined before, the origin of the first dirty
    /// one of `from`. `fresh`: what it had before means nothing.
    pub(super) fn set_register(&mut self, to: u8, size: u32, v: u8, t: u8, from: &[Origin], fresh: bool) {
        let bit = u32::from(to);
        if self.loops.is_some() {
            return self.set_register_in_loop(to, size, v, t, from, fresh);
        }
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

    /// The same where every slot says what its register is.
    fn set_register_in_loop(&mut self, to: u8, size: u32, v: u8, t: u8, from: &[Origin], fresh: bool) {
        let bit = u32::from(to);
        let before = self.may_be_undefined(bit) == Some(true);
        let mut out = Vec::new();
        if self.t.options.origins && !self.only_from(bit, from) {
            self.asm.alu(Alu::Test, if size < 4 { size } else { 8 }, v, v);
            out.push(self.asm.jcc_forward(CC_E));
            if before && !fresh {
                self.asm.cmp_zero(&gpr_shadow(to), 8);
                out.push(self.asm.jcc_forward(CC_NE));
            }
            self.origin_to(bit, t, from);
        }
        for at in out {
            self.asm.patch_here(at);
        }
        if size < 4 && before {
            self.asm.store_sized(&gpr_shadow(to), v, size);
        } else {
            if size < 4 {
                self.asm.zero_extend(v, v, size);
            }
            self.asm.store(&gpr_shadow(to), v);
            self.hold(bit, v);
        }
        self.now_undefined(bit, true);
    }

    /// Can undefined bits of the register come from nowhere else? Then its origin stays what it is.
    pub(super) fn only_from(&self, bit: u32, from: &[Origin]) -> bool {
        from.iter().all(|&o| matches!(o, Origin::Register(n) if n == bit || self.may_be_undefined(n) == Some(false)))
    }

    /// To `not` if a register is not defined.
    pub(crate) fn unless_defined(&mut self, bit: u32, not: &mut Vec<usize>) {
        match self.may_be_undefined(bit) {
            Some(false) => {}
            Some(true) => {
                self.asm.cmp_zero(&slot_of(bit), if bit == FLAGS { 4 } else { 8 });
                not.push(self.asm.jcc_forward(CC_NE));
            }
            None => {
                self.test_bit(DIRTY, bit);
                not.push(self.asm.jcc_forward(CC_NE));
            }
        }
    }

    /// To `next` if a register is defined.
    fn if_register_defined(&mut self, bit: u32, next: &mut Vec<usize>) {
        if self.loops.is_none() {
            self.test_bit(DIRTY, bit);
            return next.push(self.asm.jcc_forward(CC_E));
        }
        self.asm.cmp_zero(&slot_of(bit), if bit == FLAGS { 4 } else { 8 });
        if bit >= layout::VEC0 {
            let some = self.asm.jcc_forward(CC_NE);
            self.asm.cmp_zero(&Mem { disp: slot_of(bit).disp + 8, ..slot_of(bit) }, 8);
            next.push(self.asm.jcc_forward(CC_E));
            self.asm.patch_here(some);
        } else {
            next.push(self.asm.jcc_forward(CC_E));
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
        if self.loops.is_some() {
            self.asm.patch_here(zero);
            return self.now_undefined(FLAGS, true);
        }
        self.set_bit(DIRTY, FLAGS);
        let out = self.asm.jmp_forward();
        self.asm.patch_here(zero);
        self.flags_are_dead();
        self.asm.patch_here(out);
    }

    /// Flags that are written, and all that somebody will ask for are defined.
    pub(super) fn flags_are_dead(&mut self) {
        if self.loops.is_some() {
            return self.now_undefined(FLAGS, false);
        }
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
        let from: Vec<Origin> =
            from.iter().copied().filter(|o| !matches!(o, Origin::Register(bit) if self.may_be_undefined(*bit) == Some(false))).collect();
        for (i, &origin) in from.iter().enumerate() {
            let last = i + 1 == from.len();
            match origin {
                Origin::Register(bit) => {
                    let mut next = Vec::new();
                    if !last {
                        self.if_register_defined(bit, &mut next);
                    }
                    if bit != to {
                        self.copy_origin(bit, to, t);
                    }
                    if !last {
                        out.push(self.asm.jmp_forward());
                    }
                    for next in next {
                        self.asm.patch_here(next);
                    }
                }
                Origin::Place(address) => {
                    self.origin_from(to, address, t);
                    break;
                }
            }
        }
        for at in out {
            self.asm.patch_here(at);
        }
    }

    fn copy_origin(&mut self, from: u32, to: u32, t: u8) {
        self.test_bit(layout::LAZY, from);
        let known = self.asm.jcc_forward(CC_E);
        self.asm.load(t, &place_of(from));
        self.asm.store(&place_of(to), t);
        self.make_lazy(to);
        let out = self.asm.jmp_forward();
        self.asm.patch_here(known);
        self.asm.load_zx(t, &origin_of(from), 4);
        self.asm.store_sized(&origin_of(to), t, 4);
        self.clear_bit(layout::LAZY, to);
        self.asm.patch_here(out);
    }

    /// Test first: writes to the word would wait for each other.
    pub(crate) fn make_lazy(&mut self, bit: u32) {
        self.test_bit(layout::LAZY, bit);
        let already = self.asm.jcc_forward(CC_NE);
        self.set_bit(layout::LAZY, bit);
        self.asm.patch_here(already);
    }

    /// Load the V bits of the memory operand to `v`: if there are any, its address to `address`, and see that it is an ordinary place.
    /// With `x`, its value, too. Uses `a` and `c`.
    /// `no_origin`: where it came from does not matter.
    pub(super) fn load_memory(&mut self, v: u8, x: Option<u8>, address: u8, [a, c]: [u8; 2], no_origin: bool, job: &mut Job) -> bool {
        let Some((mem, size)) = job.memory else {
            job.not.push(self.asm.jmp_forward());
            return false;
        };
        // A wild address has no shadow either.
        job.probes.push(self.asm.here());
        self.asm.load_zx(v, &mem.shadow(0), size);
        self.asm.alu(Alu::Test, size, v, v);
        let defined = self.asm.jcc_forward(CC_E);
        let no_origin = no_origin || !self.t.options.origins;
        if !self.reached_address(&mem, size, address, a, no_origin, &mut job.not) {
            self.ordinary_address(&mem, size, address, [a, c], no_origin, &mut job.not);
            self.no_mark_in(v, size, address, c, &mut job.not);
            self.reach(&mem, size);
        }
        self.asm.patch_here(defined);
        if let Some(x) = x {
            job.probes.push(self.asm.here());
            self.asm.load_zx(x, &mem, size);
        }
        true
    }
}
