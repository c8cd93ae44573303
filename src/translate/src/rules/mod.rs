//! Dirty mode without the runtime: the rules of the commonest instructions, carried out by translated code on the shadow itself.
//!
//! The cold stub of an instruction whose filter hit (`dirty`) computes the V bits of its result from those of its operands, by the same
//! formulas as the interpreter of rules, and goes on. What is not in the table of forms, or meets something out of the ordinary on its way
//! (an undefined address or condition, memory that may not be accessed), is left to the interpreter with nothing changed.
//!
//! ```text
//! form      which instructions, as operation and operands              needs (above)   which flags anyone will ask for
//! operand   scratch registers; V bits, values and origins of operands  access          may this memory be touched?
//! integer   sums, logic, comparisons      shift   extend   select      their V bits, and those of the flags
//! encode    the few encodings that the checks do not need
//! ```
//! V bits of a register mean nothing unless its bit in the mask of dirty registers is set; every result keeps that bit exact. Flags that
//! nobody will ask for count as defined.
//!
//! Deliberately absent: vectors above 128 bits, x87, string instructions, flags of which all six are asked for.

mod access;
pub(crate) mod encode;
mod form;
mod integer;
pub(crate) mod operand;
mod select;
mod shift;
mod vector;

pub use form::Form;
pub(crate) use operand::Scratch;

use crate::Rule;
use crate::emit::Mem;
use crate::emitter::Emitter;
use crate::needs::Needs;
use alloc::vec::Vec;

/// An access to memory in the cold code: should it fault, the program goes on at `resume`, where the interpreter takes over.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub host: u64,
    pub resume: u64,
}

/// What the emission of one rule works with.
pub(crate) struct Job<'a> {
    pub rule: &'a Rule,
    pub needs: Needs,
    /// General registers that the instruction touches.
    pub busy: u32,
    /// The memory operand and its size, as the filter saw it.
    pub memory: Option<(Mem, u32)>,
    /// The flags are live and saved: they must be as they were at the end.
    pub live: bool,
    /// Ways out to the interpreter, with the scratch registers still to be restored.
    pub not: Vec<usize>,
    /// Positions of memory accesses that may fault.
    pub probes: Vec<u64>,
}

impl Emitter<'_> {
    /// Carry out `form` and go on at `back`; falls through with all registers in place where that cannot be.
    pub(crate) fn carry_out(&mut self, form: Form, job: &mut Job, back: u64) {
        let mut early = Vec::new();
        self.branch_if_any(0, job.rule.address, &mut early);
        let scratch = self.take_scratch(form.scratch(job.needs), job.busy);
        self.apply(form, &scratch, job);
        self.give_back(&scratch);
        self.done(job.live, back);
        let resume = self.asm.here();
        for at in core::mem::take(&mut job.not) {
            self.asm.patch_here(at);
        }
        for host in core::mem::take(&mut job.probes) {
            self.t.probes.push(Probe { host, resume });
        }
        self.give_back(&scratch);
        for at in early {
            self.asm.patch_here(at);
        }
    }

    /// The V bits of what the instruction writes.
    pub(crate) fn apply(&mut self, form: Form, scratch: &Scratch, job: &mut Job) {
        match form {
            Form::Binary(op) => self.binary(&op, scratch, job),
            Form::Lea(op) => self.address_sum(&op, scratch),
            Form::Turn(op) => self.turn_rule(&op, scratch, job),
            Form::Extend(op) => self.extend(&op, scratch, job),
            Form::Multiply(op) => self.multiply(&op, scratch),
            Form::Select(op) => self.select(&op, scratch, job),
            Form::Set(op) => self.set(&op, scratch, job),
            Form::Vectors(op) => self.vectors(&op, scratch, job),
            Form::Carry(op) => self.carry_bits(&op, scratch, job),
            Form::Branch(code) => self.branch_rule(code, job),
        }
    }
}
