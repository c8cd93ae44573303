//! Sums, logic and comparisons: `semantics::integer` and `semantics::bits` as code.
//!
//! ```text
//! and    (va | vb) & (va | a) & (vb | b)       or    (va | vb) & ~(a & ~va) & ~(b & ~vb)       xor   va | vb
//! add    va | vb | ((amin + bmin) ^ (amax + bmax))      sub   va | vb | ((amin - bmax) ^ (amax - bmin))
//!        where min = x & ~v and max = x | v
//! ZF     of a result: some bit is undefined and the others are 0; of a comparison: some bit is undefined and the others agree
//! CF     (amin < bmax) != (amax < bmin); signed order the same with the top bits flipped
//! ```

use super::Job;
use super::encode::{Alu, Turn};
use super::form::{Binary, Lea, Multiply, Operand, Operation};
use super::operand::{Origin, Scratch};
use crate::emit::{CC_AE, CC_B, CC_BE, CC_E, CC_LE, CC_NE, Mem, Seg};
use crate::emitter::Emitter;
use crate::needs::Needs;
use alloc::vec::Vec;

/// V bits of the flags at their EFLAGS positions, and the refinements above (`semantics::regs`).
const CF: i32 = 1 << 0;
const ZF: i32 = 1 << 6;
const SF: i32 = 1 << 7;
const OF: i32 = 1 << 11;
const KNOWN_BE: u8 = 32;
const KNOWN_L: u8 = 33;
const KNOWN_LE: u8 = 34;

/// The registers of one binary operation: V bits of both sides, of the result, two more, and the value of memory and its address.
struct Regs {
    v: u8,
    w: u8,
    r: u8,
    t: u8,
    u: u8,
    y: u8,
    x: u8,
    p: u8,
}

impl Emitter<'_> {
    pub(super) fn binary(&mut self, op: &Binary, scratch: &Scratch, job: &mut Job) {
        match op.op {
            Operation::Nothing | Operation::Equal => {
                if let (Operation::Nothing, Operand::Register(to)) = (op.op, op.to) {
                    self.asm.zero(scratch[0]);
                    self.set_register(to, op.size, scratch[0], scratch[1], &[], false);
                }
                return self.flags_are_dead();
            }
            Operation::Not => {
                if op.to == Operand::Memory {
                    let stack = true;
                    self.load_memory(scratch[0], None, scratch[1], [scratch[2], scratch[3]], stack, job);
                }
                return;
            }
            _ => {}
        }
        // Without memory the last two are not there; a constant has no V bits, so that `w` is not used then.
        let at = |i: usize| scratch.get(i);
        let g = Regs { v: at(0), r: at(1), t: at(2), u: at(3), y: at(4), w: at(5), x: at(6), p: at(7) };
        if !self.operands(op, &g, job) {
            return;
        }
        let constant = if let Operand::Constant(value) = op.from { Some(value) } else { None };
        self.result(op, &g, constant);
        self.flags(op, &g, constant, job.needs);
        self.target(op, &g, job);
    }

    /// V bits of both sides to `v` and `w`, the value of memory to `x`.
    fn operands(&mut self, op: &Binary, g: &Regs, job: &mut Job) -> bool {
        // What stays in its place needs no origin.
        let stack = job.needs.is_none() && !matches!(op.op, Operation::Cmp | Operation::Test);
        if op.to == Operand::Memory && !self.load_memory(g.v, Some(g.x), g.p, [g.t, g.u], stack, job) {
            return false;
        }
        if op.from == Operand::Memory && !self.load_memory(g.w, Some(g.x), g.p, [g.t, g.u], false, job) {
            return false;
        }
        if let Operand::Register(n) = op.to {
            self.load_v(g.v, n, op.size);
        }
        if let Operand::Register(n) = op.from {
            self.load_v(g.w, n, op.size);
        }
        true
    }

    /// V bits of the result to `r`; the low `size` bytes count.
    fn result(&mut self, op: &Binary, g: &Regs, constant: Option<i32>) {
        let size = op.size.max(4);
        let wide = size == 8;
        let (a, b) = (value(op.to, g), value(op.from, g));
        let asm = &mut self.asm;
        asm.alu(Alu::Mov, size, g.r, g.v);
        match (op.op, constant) {
            (Operation::Xor, Some(_)) => {}
            (Operation::And | Operation::Test, Some(value)) => asm.alu_imm(Alu::And, size, g.r, value),
            (Operation::Or, Some(value)) => asm.alu_imm(Alu::And, size, g.r, !value),
            (Operation::Add | Operation::Sub | Operation::Cmp, Some(value)) => {
                let by = if op.op == Operation::Add { Alu::Add } else { Alu::Sub };
                asm.andn(wide, g.t, g.v, a);
                asm.alu(Alu::Mov, size, g.u, a);
                asm.alu(Alu::Or, size, g.u, g.v);
                asm.alu_imm(by, size, g.t, value);
                asm.alu_imm(by, size, g.u, value);
                asm.alu(Alu::Xor, size, g.t, g.u);
                asm.alu(Alu::Or, size, g.r, g.t);
            }
            (Operation::Neg, _) => {
                asm.andn(wide, g.t, g.v, a);
                asm.alu(Alu::Mov, size, g.u, a);
                asm.alu(Alu::Or, size, g.u, g.v);
                asm.unary(3, size, g.t);
                asm.unary(3, size, g.u);
                asm.alu(Alu::Xor, size, g.t, g.u);
                asm.alu(Alu::Or, size, g.r, g.t);
            }
            (Operation::Double, _) => asm.alu(Alu::Add, size, g.r, g.r),
            (Operation::And | Operation::Test, None) => {
                asm.alu(Alu::Or, size, g.r, g.w);
                for (v, x) in [(g.v, a), (g.w, b)] {
                    asm.alu(Alu::Mov, size, g.t, x);
                    asm.alu(Alu::Or, size, g.t, v);
                    asm.alu(Alu::And, size, g.r, g.t);
                }
            }
            (Operation::Or, None) => {
                asm.alu(Alu::Or, size, g.r, g.w);
                for (v, x) in [(g.v, a), (g.w, b)] {
                    asm.andn(wide, g.t, v, x);
                    asm.andn(wide, g.r, g.t, g.r);
                }
            }
            (Operation::Add, None) => {
                asm.andn(wide, g.t, g.v, a);
                asm.andn(wide, g.u, g.w, b);
                asm.alu(Alu::Add, size, g.t, g.u);
                asm.alu(Alu::Or, size, g.r, a);
                asm.alu(Alu::Mov, size, g.u, b);
                asm.alu(Alu::Or, size, g.u, g.w);
                asm.alu(Alu::Add, size, g.r, g.u);
                Self::join(asm, size, g);
            }
            (Operation::Sub | Operation::Cmp, None) => {
                asm.andn(wide, g.t, g.v, a);
                asm.alu(Alu::Mov, size, g.u, b);
                asm.alu(Alu::Or, size, g.u, g.w);
                asm.alu(Alu::Sub, size, g.t, g.u);
                asm.alu(Alu::Or, size, g.r, a);
                asm.andn(wide, g.u, g.w, b);
                asm.alu(Alu::Sub, size, g.r, g.u);
                Self::join(asm, size, g);
            }
            _ => asm.alu(Alu::Or, size, g.r, g.w),
        }
    }

    /// r = (r ^ t) | v | w
    fn join(asm: &mut crate::emit::Asm, size: u32, g: &Regs) {
        asm.alu(Alu::Xor, size, g.r, g.t);
        asm.alu(Alu::Or, size, g.r, g.v);
        asm.alu(Alu::Or, size, g.r, g.w);
    }

    fn target(&mut self, op: &Binary, g: &Regs, job: &mut Job) {
        if matches!(op.op, Operation::Cmp | Operation::Test) {
            return;
        }
        if let Operand::Register(to) = op.to {
            return self.set_register(to, op.size, g.r, g.t, &origins(op, g), false);
        }
        let Some((mem, size)) = job.memory else { return };
        if self.t.options.origins {
            self.keeps_origin(size, g, job);
        }
        self.asm.store_sized(&mem.shadow(0), g.r, size);
    }

    /// Origin words of memory stay what they are: so every word with undefined bits must have had some.
    fn keeps_origin(&mut self, size: u32, g: &Regs, job: &mut Job) {
        self.asm.alu(Alu::Test, size, g.r, g.r);
        let defined = self.asm.jcc_forward(CC_E);
        self.asm.alu(Alu::Test, size, g.v, g.v);
        job.not.push(self.asm.jcc_forward(CC_E));
        if size > 1 {
            self.asm.alu_imm(Alu::Test, 4, g.p, size as i32 - 1);
            job.not.push(self.asm.jcc_forward(CC_NE));
        }
        if size == 8 {
            for half in 0..2 {
                for (into, from) in [(g.t, g.v), (g.u, g.r)] {
                    self.asm.mov(into, from);
                    if half == 1 {
                        self.asm.turn(Turn::Shr, 8, into, 32);
                    }
                }
                self.asm.alu(Alu::Test, 4, g.u, g.u);
                let defined = self.asm.jcc_forward(CC_E);
                self.asm.alu(Alu::Test, 4, g.t, g.t);
                job.not.push(self.asm.jcc_forward(CC_E));
                self.asm.patch_here(defined);
            }
        }
        self.asm.patch_here(defined);
    }

    /// V bits of the flags that somebody will ask for.
    fn flags(&mut self, op: &Binary, g: &Regs, constant: Option<i32>, needs: Needs) {
        if needs.is_none() {
            return self.flags_are_dead();
        }
        self.open_flags();
        match op.op {
            Operation::And | Operation::Or | Operation::Xor | Operation::Test => self.flags_of_logic(op, g, needs),
            Operation::Add => {
                if needs.has(Needs::EQUAL) {
                    self.zero_flag(op.size, g.r, g.t, |e| e.plain_result(op, g, g.t));
                }
                if needs.has(Needs::BELOW) {
                    self.carry_flag(op, g, constant);
                }
            }
            _ => self.flags_of_difference(op, g, constant, needs),
        }
        if needs.has(Needs::SIGN) {
            self.sign_flag(op.size, g.r);
        }
        if needs.has(Needs::PARITY) {
            self.parity_flag(g.r);
        }
        self.close_flags(g.t, &origins(op, g));
    }

    fn flags_of_logic(&mut self, op: &Binary, g: &Regs, needs: Needs) {
        let ordered = needs.has(Needs::LESS.or(Needs::LESS_EQUAL));
        if needs.has(Needs::EQUAL.or(Needs::BELOW_EQUAL).or(Needs::LESS_EQUAL)) {
            self.zero_flag(op.size, g.r, g.t, |e| e.plain_result(op, g, g.t));
        }
        if ordered && !needs.has(Needs::SIGN) {
            self.sign_flag(op.size, g.r);
        }
        if needs.has(Needs::LESS_EQUAL) {
            // Is the largest possible result positive, but not the smallest?
            let (size, top) = (op.size.max(4), top_bit(op.size));
            self.plain_result(op, g, g.t);
            self.asm.bit(BTC, g.t, top);
            self.asm.alu(Alu::Mov, size, g.u, g.t);
            self.asm.andn(size == 8, g.t, g.r, g.t);
            self.asm.alu(Alu::Or, size, g.u, g.r);
            for (into, from) in [(g.y, g.t), (g.t, g.u)] {
                self.asm.bit(BTC, from, top);
                self.asm.alu(Alu::Test, op.size, from, from);
                self.asm.setcc(CC_LE, into);
            }
            self.asm.alu(Alu::Cmp, 1, g.y, g.t);
            self.flag_if(CC_NE, 0, Some(KNOWN_LE));
        }
    }

    fn flags_of_difference(&mut self, op: &Binary, g: &Regs, constant: Option<i32>, needs: Needs) {
        // Where one condition alone is asked for, its flags may be undefined together, or not at all.
        let alone = |flags: i32| if needs.is_single() { flags } else { 0 };
        let below_equal = needs.has(Needs::BELOW_EQUAL) && !needs.is_single();
        if needs.has(Needs::EQUAL) || below_equal {
            self.equality(op, g, constant);
        }
        let orders = [
            (needs.has(Needs::BELOW) || below_equal, CC_B, false, CF, None),
            (needs.has(Needs::BELOW_EQUAL), CC_BE, false, alone(CF | ZF), Some(KNOWN_BE)),
            (needs.has(Needs::LESS), CC_B, true, alone(SF | OF), Some(KNOWN_L)),
            (needs.has(Needs::LESS_EQUAL), CC_BE, true, alone(SF | OF | ZF), Some(KNOWN_LE)),
        ];
        for (_, code, signed, flags, known) in orders.into_iter().filter(|o| o.0) {
            self.order(op, g, constant, code, signed);
            self.flag_if(CC_NE, flags, known);
        }
    }

    /// ZF of a comparison.
    fn equality(&mut self, op: &Binary, g: &Regs, constant: Option<i32>) {
        let size = op.size.max(4);
        let asm = &mut self.asm;
        asm.alu(Alu::Mov, size, g.t, g.v);
        if constant.is_none() {
            asm.alu(Alu::Or, size, g.t, g.w);
        }
        asm.alu(Alu::Test, op.size, g.t, g.t);
        let defined = asm.jcc_forward(CC_E);
        asm.alu(Alu::Mov, size, g.u, value(op.to, g));
        match constant {
            Some(value) => asm.alu_imm(Alu::Xor, size, g.u, value),
            None => asm.alu(Alu::Xor, size, g.u, value(op.from, g)),
        }
        asm.andn(size == 8, g.u, g.t, g.u);
        asm.alu(Alu::Test, op.size, g.u, g.u);
        self.flag_if(CC_E, ZF, None);
        self.asm.patch_here(defined);
    }

    /// Not equal: "a is below (below or equal) b" is not known.
    fn order(&mut self, op: &Binary, g: &Regs, constant: Option<i32>, code: u8, signed: bool) {
        let (size, top) = (op.size.max(4), top_bit(op.size));
        let b = value(op.from, g);
        for smallest in [true, false] {
            let asm = &mut self.asm;
            asm.alu(Alu::Mov, size, g.t, value(op.to, g));
            match constant {
                Some(value) => asm.mov_const(g.u, if size == 8 { i64::from(value) as u64 } else { u64::from(value as u32) }),
                None => asm.alu(Alu::Mov, size, g.u, b),
            }
            if signed {
                asm.bit(BTC, g.t, top);
                asm.bit(BTC, g.u, top);
            }
            if smallest {
                asm.andn(size == 8, g.t, g.v, g.t);
            } else {
                asm.alu(Alu::Or, size, g.t, g.v);
            }
            match constant {
                Some(_) => {}
                None if smallest => asm.alu(Alu::Or, size, g.u, g.w),
                None => asm.andn(size == 8, g.u, g.w, g.u),
            }
            asm.alu(Alu::Cmp, op.size, g.t, g.u);
            asm.setcc(code, if smallest { g.y } else { g.t });
        }
        self.asm.alu(Alu::Cmp, 1, g.y, g.t);
    }

    /// CF of a sum.
    fn carry_flag(&mut self, op: &Binary, g: &Regs, constant: Option<i32>) {
        let size = op.size.max(4);
        for smallest in [true, false] {
            let asm = &mut self.asm;
            if smallest {
                asm.andn(size == 8, g.t, g.v, value(op.to, g));
            } else {
                asm.alu(Alu::Mov, size, g.t, value(op.to, g));
                asm.alu(Alu::Or, size, g.t, g.v);
            }
            match constant {
                Some(value) => asm.alu_imm(Alu::Add, op.size, g.t, value),
                None => {
                    if smallest {
                        asm.andn(size == 8, g.u, g.w, value(op.from, g));
                    } else {
                        asm.alu(Alu::Mov, size, g.u, value(op.from, g));
                        asm.alu(Alu::Or, size, g.u, g.w);
                    }
                    asm.alu(Alu::Add, op.size, g.t, g.u);
                }
            }
            asm.setcc(CC_B, if smallest { g.y } else { g.t });
        }
        self.asm.alu(Alu::Cmp, 1, g.y, g.t);
        self.flag_if(CC_NE, CF, None);
    }

    /// The result as it will be, undefined bits and all.
    fn plain_result(&mut self, op: &Binary, g: &Regs, into: u8) {
        let size = op.size.max(4);
        let alu = match op.op {
            Operation::And | Operation::Test => Alu::And,
            Operation::Or => Alu::Or,
            Operation::Xor => Alu::Xor,
            _ => Alu::Add,
        };
        self.asm.alu(Alu::Mov, size, into, value(op.to, g));
        match op.from {
            Operand::Constant(constant) => self.asm.alu_imm(alu, size, into, constant),
            from => self.asm.alu(alu, size, into, value(from, g)),
        }
    }

    /// Base, scaled index and displacement, added exactly: this is arithmetic, not an address.
    pub(super) fn address_sum(&mut self, op: &Lea, scratch: &Scratch) {
        let [v, w, t, u, y] = [scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]];
        let doubled = op.index.is_some_and(|(n, scale)| scale == 0 && op.base == Some(n));
        let mut from = Vec::new();
        match (op.base, op.index) {
            (None, None) => self.asm.zero(v),
            (Some(n), None) => self.load_v(v, n, 8),
            (base, Some((n, scale))) => {
                self.load_v(v, n, 8);
                self.asm.turn(Turn::Shl, 8, v, scale + u8::from(doubled));
                if let Some(base) = base.filter(|_| !doubled) {
                    self.load_v(w, base, 8);
                    self.asm.mov(y, n);
                    self.asm.turn(Turn::Shl, 8, y, scale);
                    self.asm.andn(true, t, v, y);
                    self.asm.andn(true, u, w, base);
                    self.asm.alu(Alu::Add, 8, t, u);
                    self.asm.alu(Alu::Or, 8, y, v);
                    self.asm.mov(u, base);
                    self.asm.alu(Alu::Or, 8, u, w);
                    self.asm.alu(Alu::Add, 8, u, y);
                    self.asm.alu(Alu::Xor, 8, t, u);
                    self.asm.alu(Alu::Or, 8, v, w);
                    self.asm.alu(Alu::Or, 8, v, t);
                }
            }
        }
        if op.displacement != 0 {
            self.asm.lea(y, &Mem { seg: Seg::None, base: op.base, index: op.index, disp: 0, addr32: false });
            self.asm.andn(true, t, v, y);
            self.asm.alu(Alu::Or, 8, y, v);
            self.asm.alu_imm(Alu::Add, 8, t, op.displacement);
            self.asm.alu_imm(Alu::Add, 8, y, op.displacement);
            self.asm.alu(Alu::Xor, 8, t, y);
            self.asm.alu(Alu::Or, 8, v, t);
        }
        if op.size == 4 {
            self.asm.zero_extend(v, v, 4);
        }
        from.extend(op.base.map(|n| Origin::Register(u32::from(n))));
        from.extend(op.index.map(|(n, _)| Origin::Register(u32::from(n))));
        self.set_register(op.to, op.size, v, t, &from, true);
    }

    /// The low half of a product of 32 bits: nothing varies below the first undefined bit times the first possible one, nor above the
    /// highest bit in which the smallest and the largest product differ.
    pub(super) fn multiply(&mut self, op: &Multiply, scratch: &Scratch) {
        let [v, w, t, u, y] = [scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]];
        let mut from = alloc::vec![Origin::Register(u32::from(op.a))];
        self.load_v(v, op.a, 4);
        self.asm.trailing_zeros(t, v);
        match op.b {
            Operand::Register(b) => {
                from.push(Origin::Register(u32::from(b)));
                self.load_v(w, b, 4);
                self.possible(u, w, b);
                self.asm.alu(Alu::Add, 8, t, u);
                self.asm.trailing_zeros(y, w);
                self.possible(u, v, op.a);
                self.asm.alu(Alu::Add, 8, y, u);
                self.asm.alu(Alu::Cmp, 8, t, y);
                self.asm.cmov(CC_AE, t, y);
                self.all_from(u, t, y, SHLX);
                self.asm.andn(false, t, v, op.a);
                self.asm.andn(false, y, w, b);
                self.asm.multiply(t, y);
                self.asm.alu(Alu::Or, 4, v, op.a);
                self.asm.alu(Alu::Or, 4, w, b);
                self.asm.multiply(v, w);
            }
            Operand::Constant(value) => {
                self.asm.alu_imm(Alu::Add, 8, t, value.trailing_zeros() as i32);
                self.all_from(u, t, y, SHLX);
                self.asm.mov_const(y, u64::from(value as u32));
                self.asm.andn(false, t, v, op.a);
                self.asm.multiply(t, y);
                self.asm.alu(Alu::Or, 4, v, op.a);
                self.asm.multiply(v, y);
            }
            Operand::Memory => {}
        }
        self.asm.alu(Alu::Xor, 8, t, v);
        self.asm.leading_zeros(v, t);
        self.all_from(t, v, y, SHRX);
        self.asm.alu(Alu::And, 4, u, t);
        self.set_register(op.to, 4, u, t, &from, op.to != op.a);
        self.flags_are_dead();
    }

    /// `t` = number of zeros below the lowest bit that may be set.
    fn possible(&mut self, t: u8, v: u8, x: u8) {
        self.asm.alu(Alu::Mov, 4, t, x);
        self.asm.alu(Alu::Or, 4, t, v);
        self.asm.trailing_zeros(t, t);
    }

    /// `to` = all ones shifted by `by`, nothing for 64 and more. Uses `y`.
    fn all_from(&mut self, to: u8, by: u8, y: u8, direction: u8) {
        self.asm.alu_imm(Alu::Cmp, 8, by, 64);
        self.asm.alu(Alu::Sbb, 8, y, y);
        self.asm.shift_by(direction, true, to, y, by);
    }
}

const SHLX: u8 = 1;
const SHRX: u8 = 3;
const BTC: u8 = 7;

fn top_bit(size: u32) -> u8 {
    (size * 8 - 1) as u8
}

/// The register that holds an operand's value.
fn value(operand: Operand, g: &Regs) -> u8 {
    if let Operand::Register(n) = operand { n } else { g.x }
}

/// Registers first: an address is only there if its memory has undefined bits.
fn origins(op: &Binary, g: &Regs) -> Vec<Origin> {
    let mut found: Vec<Origin> = Vec::new();
    for operand in [op.to, op.from] {
        if let Operand::Register(n) = operand {
            found.push(Origin::Register(u32::from(n)));
        }
    }
    if op.to == Operand::Memory || op.from == Operand::Memory {
        found.push(Origin::Place(g.p));
    }
    found
}
