//! The ways into a loop, round, and out again.
//!
//! Registers that the loop does not touch are kept in the thread's slot while it uses them; every way out brings them back and makes the mask
//! say exactly what the V slots say.

use super::{Loop, bits};
use crate::dirty::mask_at;
use crate::emit::{CC_E, CC_G, CC_NE, CC_S, Mem, RSP};
use crate::emitter::Emitter;
use crate::moves::halves;
use crate::rules::encode::Alu;
use crate::rules::operand::{FLAGS, slot_of};
use crate::rules::{Probe, Scratch};
use crate::{KEPT_IN_LOOP, LEAVE_JUMP, shadow_layout as layout};
use alloc::vec::Vec;
use memcheck_abi::context::offset;

/// Rounds until somebody looks whether anything is still undefined.
const ROUNDS: i32 = 64;
/// A loop that has been left this often in its first round is not entered any more.
const MISTAKES: i32 = 1000;

/// A way out of the loop.
pub(super) struct Out {
    patches: Vec<usize>,
    probes: Vec<u64>,
    scratch: Option<Scratch>,
    pc: u64,
    undefined: u64,
    flags: Flags,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flags {
    Dead,
    Live,
    Saved,
}

/// Where the registers are kept that a loop uses.
const fn kept(r: u8) -> Mem {
    Mem::ctx(KEPT_IN_LOOP + 8 * r as i32)
}

const fn kept_vector(r: u8) -> Mem {
    Mem::ctx(KEPT_IN_LOOP + 128 + 16 * r as i32)
}

impl Emitter<'_> {
    /// To the patches returned if the loop is not made for what is undefined now.
    pub(super) fn enter_loop(&mut self, entered: u64, caller: Option<u64>) -> Vec<usize> {
        let Some(&Loop { touched, free, free_vectors, counter, .. }) = self.loops.as_ref() else { return Vec::new() };
        let mut bail = Vec::new();
        if let Some(caller) = caller {
            self.keep_flags();
            self.asm.op_mem(None, true, &[0x81], 7, &Mem::base(RSP, 0));
            self.asm.u32(caller as u32);
            bail.push(self.asm.jcc_forward(CC_NE));
        }
        self.asm.alu_mem_imm(Alu::Cmp, &Mem::ctx(counter), MISTAKES as u32);
        bail.push(self.asm.jcc_forward(CC_G));
        self.branch_if_any(0, touched & !entered, &mut bail);
        for bit in bits(entered) {
            self.asm.alu_mem_imm(Alu::Test, &mask_at((bit / 32 * 4) as i32), 1 << (bit % 32));
            let dirty = self.asm.jcc_forward(CC_NE);
            let size = if bit >= layout::VEC0 { 64 } else { 8 };
            for at in (0..size).step_by(8) {
                self.asm.store_imm(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8, 0);
            }
            let clean = self.asm.jmp_forward();
            self.asm.patch_here(dirty);
            // Nothing may be undefined above: legacy instructions leave it.
            for at in (16..size).step_by(8) {
                self.asm.cmp_zero(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8);
                bail.push(self.asm.jcc_forward(CC_NE));
            }
            self.asm.patch_here(clean);
        }
        // Registers that become undefined in the loop only have no slot yet.
        for bit in bits(touched & !entered & !0 << layout::VEC0) {
            for at in (16..64).step_by(8) {
                self.asm.store_imm(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8, 0);
            }
        }
        for r in bits(u64::from(free)) {
            self.asm.store(&kept(r as u8), r as u8);
        }
        for r in bits(u64::from(free_vectors)) {
            self.asm.store_vector(&kept_vector(r as u8), r as u8);
        }
        self.asm.store_imm(&mask_at(layout::PATIENCE), 4, ROUNDS);
        bail
    }

    pub(super) fn out(&mut self, patches: Vec<usize>, pc: u64, flags: Flags) {
        if let Some(l) = &mut self.loops
            && !patches.is_empty()
        {
            l.outs.push(Out { patches, probes: Vec::new(), scratch: None, pc, undefined: l.undefined, flags });
        }
    }

    /// The end of a round: to the head, if nothing else wants to be looked at. `defined`: what may be undefined at the head, and is not here.
    pub(super) fn go_round(&mut self, pc: u64, head: usize, defined: u64) {
        for bit in bits(defined) {
            for at in (0..if bit >= layout::VEC0 { 16 } else { 8 }).step_by(8) {
                self.asm.store_imm(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8, 0);
            }
        }
        let mut rest = Vec::new();
        self.asm.cmp_zero(&Mem::ctx(offset::PENDING), 4);
        rest.push(self.asm.jcc_forward(CC_NE));
        self.asm.alu_mem_imm(Alu::Sub, &mask_at(layout::PATIENCE), 1);
        rest.push(self.asm.jcc_forward(CC_S));
        let back = self.asm.jmp_forward();
        self.asm.patch_to(back, head);
        self.out(rest, pc, Flags::Dead);
    }

    /// The ways out.
    pub(super) fn leave_loop(&mut self, bail: Vec<usize>, region: u64, flags: bool) {
        for at in bail {
            self.asm.patch_here(at);
        }
        if flags {
            self.flags_back();
        }
        self.asm.jmp(region);
        let Some(l) = &mut self.loops else { return };
        let outs = core::mem::take(&mut l.outs);
        let (touched, free, free_vectors, counter) = (l.touched, l.free, l.free_vectors, l.counter);
        for out in outs {
            let resume = self.asm.here();
            for at in out.patches {
                self.asm.patch_here(at);
            }
            self.t.probes.extend(out.probes.into_iter().map(|host| Probe { host, resume }));
            if let Some(scratch) = &out.scratch {
                self.give_back(scratch);
            }
            for r in bits(u64::from(free)) {
                self.asm.load(r as u8, &kept(r as u8));
            }
            for r in bits(u64::from(free_vectors)) {
                self.asm.load_vector(r as u8, &kept_vector(r as u8));
            }
            if out.flags == Flags::Live {
                self.keep_flags();
            }
            // Was it worth while?
            self.asm.alu_mem_imm(Alu::Cmp, &mask_at(layout::PATIENCE), ROUNDS as u32);
            let not = self.asm.jcc_forward(CC_E);
            self.asm.store_imm(&Mem::ctx(counter), 4, -1);
            self.asm.patch_here(not);
            self.asm.alu_mem_imm(Alu::Add, &Mem::ctx(counter), 1);
            self.exact_mask(touched, out.undefined);
            if out.flags != Flags::Dead {
                self.flags_back();
            }
            self.leave_through(out.pc, LEAVE_JUMP, None);
        }
    }

    fn exact_mask(&mut self, touched: u64, undefined: u64) {
        for (at, half) in halves(touched & !undefined) {
            self.asm.alu_mem_imm(Alu::And, &mask_at(at), !half);
        }
        for (at, half) in halves(undefined) {
            self.asm.alu_mem_imm(Alu::Or, &mask_at(at), half);
        }
        for bit in bits(undefined) {
            self.asm.cmp_zero(&slot_of(bit), if bit == FLAGS { 4 } else { 8 });
            let mut some = alloc::vec![self.asm.jcc_forward(CC_NE)];
            if bit >= layout::VEC0 {
                self.asm.cmp_zero(&Mem { disp: slot_of(bit).disp + 8, ..slot_of(bit) }, 8);
                some.push(self.asm.jcc_forward(CC_NE));
            }
            self.asm.alu_mem_imm(Alu::And, &mask_at((bit / 32 * 4) as i32), !(1 << (bit % 32)));
            for at in some {
                self.asm.patch_here(at);
            }
        }
    }

    /// A fault at this host address is the program's: it happens again, elsewhere. Whatever was undefined does not count after that.
    pub(super) fn faults_at(&mut self, host: u64) {
        let flags = if self.item.flags_live { Flags::Live } else { Flags::Dead };
        let pc = self.item.pc;
        if let Some(l) = &mut self.loops {
            l.outs.push(Out { patches: Vec::new(), probes: alloc::vec![host], scratch: None, pc, undefined: 0, flags });
        }
    }

    pub(super) fn mistake(&mut self, patches: Vec<usize>, probes: Vec<u64>, scratch: Option<Scratch>, live: bool, undefined: u64) {
        let pc = self.item.pc;
        if let Some(l) = &mut self.loops
            && !(patches.is_empty() && probes.is_empty())
        {
            let flags = if live { Flags::Saved } else { Flags::Dead };
            l.outs.push(Out { patches, probes, scratch, pc, undefined, flags });
        }
    }
}
