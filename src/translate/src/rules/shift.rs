//! Shifts and rotates: the V bits move as the value does. And moves that extend, swap or spread what they move.

use super::Job;
use super::encode::{Alu, Turn};
use super::form::{By, Extend, Extension, Operand, Turned};
use super::operand::{Origin, Scratch};
use crate::emit::RCX;
use crate::emitter::Emitter;
use crate::needs::Needs;

impl Emitter<'_> {
    pub(super) fn turn_rule(&mut self, op: &Turned, scratch: &Scratch, job: &mut Job) {
        let [v, t] = [scratch[0], scratch[1]];
        let count = match op.by {
            By::Constant(_) => None,
            By::Cl => Some(RCX),
            By::Register(n) => Some(n),
        };
        if let Some(count) = count {
            // By an undefined count: all counts are possible.
            self.unless_defined(u32::from(count), &mut job.not);
        }
        self.load_v(v, op.from, op.size);
        self.turned(op, v);
        if !matches!(op.by, By::Register(_)) {
            self.flags_of_shift(op, scratch, job.needs);
        }
        let from = [Origin::Register(u32::from(op.from))];
        self.set_register(op.to, op.size, v, t, &from, op.size >= 4);
    }

    fn turned(&mut self, op: &Turned, register: u8) {
        match op.by {
            By::Constant(n) => self.asm.turn(op.op, op.size, register, n),
            By::Cl => self.asm.turn_by_cl(op.op, op.size, register),
            By::Register(n) => {
                let prefix = match op.op {
                    Turn::Shl => 1,
                    Turn::Sar => 2,
                    _ => 3,
                };
                self.asm.shift_by(prefix, op.size == 8, register, register, n);
            }
        }
    }

    fn flags_of_shift(&mut self, op: &Turned, scratch: &Scratch, needs: Needs) {
        let [v, t] = [scratch[0], scratch[1]];
        if needs.is_none() {
            return self.flags_are_dead();
        }
        self.open_flags();
        if needs.has(Needs::EQUAL) {
            self.zero_flag(op.size, v, t, |e| {
                e.asm.alu(Alu::Mov, op.size.max(4), t, op.from);
                e.turned(op, t);
            });
        }
        if needs.has(Needs::SIGN) {
            self.sign_flag(op.size, v);
        }
        if needs.has(Needs::PARITY) {
            self.parity_flag(v);
        }
        self.close_flags(t, &[Origin::Register(u32::from(op.from))]);
    }

    pub(super) fn extend(&mut self, op: &Extend, scratch: &Scratch, job: &mut Job) {
        let [v, t] = [scratch[0], scratch[1]];
        let from = match op.from {
            Operand::Register(n) => {
                self.load_v(v, n, op.from_size);
                [Origin::Register(u32::from(n))]
            }
            _ => {
                let address = scratch[2];
                if !self.load_memory(v, None, address, [t, scratch[3]], false, job) {
                    return;
                }
                [Origin::Place(address)]
            }
        };
        match op.how {
            // Four bytes have been loaded so.
            Extension::Zero if op.from_size >= 4 => {}
            Extension::Zero => self.asm.zero_extend(v, v, op.from_size),
            Extension::Signed => self.asm.sign_extend(v, v, op.from_size),
            Extension::Sign => {
                self.asm.sign_extend(v, v, op.from_size);
                self.asm.turn(Turn::Sar, 8, v, 63);
            }
            Extension::Swap => self.asm.bswap(op.size, v),
        }
        if op.size == 4 && matches!(op.how, Extension::Signed | Extension::Sign) {
            self.asm.zero_extend(v, v, 4);
        }
        self.set_register(op.to, op.size, v, t, &from, op.size >= 4);
    }
}
