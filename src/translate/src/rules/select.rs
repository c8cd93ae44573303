//! What depends on a condition: conditional moves, setcc, conditional jumps.
//!
//! A condition is defined if no flag that it looks at is undefined, or if the comparison left a refinement that says so. An undefined one
//! is left to the interpreter, which reports it where it decides something; only a byte set by a single flag is carried out here.

use super::Job;
use super::form::{Select, Set};
use super::operand::{FLAGS, Origin, Scratch, flags_shadow};
use crate::emit::{CC_E, CC_NE, Mem};
use crate::emitter::Emitter;
use alloc::vec::Vec;

/// By condition code without its last bit: the flags looked at, and the bit of the refinement in the upper half.
const LOOKS_AT: [(u32, u32); 8] = [
    (1 << 11, 0),
    (1 << 0, 0),
    (1 << 6, 0),
    (1 << 0 | 1 << 6, 1 << 0),
    (1 << 7, 0),
    (1 << 2, 0),
    (1 << 7 | 1 << 11, 1 << 1),
    (1 << 7 | 1 << 11 | 1 << 6, 1 << 2),
];

impl Emitter<'_> {
    /// Jumps to `defined` if the condition is.
    fn if_defined(&mut self, code: u8, defined: &mut Vec<usize>) {
        let (flags, known) = LOOKS_AT[usize::from(code >> 1)];
        match self.may_be_undefined(FLAGS) {
            Some(true) => {}
            Some(false) => return defined.push(self.asm.jmp_forward()),
            None => {
                self.test_bit(0, FLAGS);
                defined.push(self.asm.jcc_forward(CC_E));
            }
        }
        for (at, mask, cc) in [(0, flags, CC_E), (4, known, CC_NE)] {
            if mask != 0 {
                self.asm.op_mem(None, false, &[0xf7], 0, &Mem { disp: flags_shadow().disp + at, ..flags_shadow() });
                self.asm.u32(mask);
                defined.push(self.asm.jcc_forward(cc));
            }
        }
    }

    pub(super) fn branch_rule(&mut self, code: u8, job: &mut Job) {
        if self.may_be_undefined(FLAGS) == Some(false) {
            return;
        }
        let mut defined = Vec::new();
        self.if_defined(code, &mut defined);
        job.not.push(self.asm.jmp_forward());
        for at in defined {
            self.asm.patch_here(at);
        }
    }

    pub(super) fn select(&mut self, op: &Select, scratch: &Scratch, job: &mut Job) {
        let [v, w, t] = [scratch[0], scratch[1], scratch[2]];
        self.branch_rule(op.code, job);
        self.load_v(v, op.to, op.size);
        self.load_v(w, op.from, op.size);
        self.flags_back();
        self.asm.cmov(op.code, v, w);
        let from = [Origin::Register(u32::from(op.to)), Origin::Register(u32::from(op.from))];
        self.set_register(op.to, op.size, v, t, &from, false);
    }

    pub(super) fn set(&mut self, op: &Set, scratch: &Scratch, job: &mut Job) {
        let [v, t] = [scratch[0], scratch[1]];
        let mut defined = Vec::new();
        self.asm.zero(v);
        self.if_defined(op.code, &mut defined);
        if LOOKS_AT[usize::from(op.code >> 1)].1 == 0 {
            self.asm.mov_const(v, 1);
        } else {
            job.not.push(self.asm.jmp_forward());
        }
        for at in defined {
            self.asm.patch_here(at);
        }
        self.set_register(op.to, 1, v, t, &[Origin::Register(FLAGS)], false);
    }
}
