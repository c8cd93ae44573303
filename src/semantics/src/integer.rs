//! Integer arithmetic and logic on general registers and memory.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask, smear_left};
use crate::cx::Cx;
use crate::machine::Machine;
use crate::plan::Operand;
use crate::regs::{AF, ARITH, CF, OF, SF, ZF};
use crate::table::{Row, Rule};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Int {
    Add,
    Adc,
    Sub,
    Sbb,
    Cmp,
    Inc,
    Dec,
    Neg,
    Not,
    And,
    Or,
    Xor,
    Test,
    /// !a & b, three operands.
    Andn,
    Xadd,
    CmpXchg,
    /// cmpxchg8b and cmpxchg16b.
    CmpXchgPair,
    /// Carry in and out through CF only.
    Adcx,
    /// Carry in and out through OF only.
    Adox,
    /// One operand, double-width result.
    Mul,
    Imul,
    Mulx,
    Div,
}

const fn row(names: &'static [M], op: Int) -> Row {
    (names, Rule::Int(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Add], Int::Add),
    row(&[Adc], Int::Adc),
    row(&[Sub], Int::Sub),
    row(&[Sbb], Int::Sbb),
    row(&[Cmp], Int::Cmp),
    row(&[Inc], Int::Inc),
    row(&[Dec], Int::Dec),
    row(&[Neg], Int::Neg),
    row(&[Not], Int::Not),
    row(&[And], Int::And),
    row(&[Or], Int::Or),
    row(&[Xor], Int::Xor),
    row(&[Test], Int::Test),
    row(&[Andn], Int::Andn),
    row(&[Xadd], Int::Xadd),
    row(&[Cmpxchg], Int::CmpXchg),
    row(&[Cmpxchg8b, Cmpxchg16b], Int::CmpXchgPair),
    row(&[Adcx], Int::Adcx),
    row(&[Adox], Int::Adox),
    row(&[Mul], Int::Mul),
    row(&[Imul], Int::Imul),
    row(&[Mulx], Int::Mulx),
    row(&[Div, Idiv], Int::Div),
];

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Int) {
    match op {
        Int::Add | Int::Adc | Int::Sub | Int::Sbb | Int::Cmp | Int::Inc | Int::Dec | Int::Neg => sums(cx, op),
        Int::Not => {
            let v = cx.v(cx.op(0));
            cx.set(cx.op(0), v);
        }
        Int::And | Int::Or | Int::Xor | Int::Test | Int::Andn => logic(cx, op),
        Int::Xadd => xadd(cx),
        Int::CmpXchg => cmpxchg(cx),
        Int::CmpXchgPair => cmpxchg_pair(cx),
        Int::Adcx => carry_chain(cx, CF),
        Int::Adox => carry_chain(cx, OF),
        Int::Mul => multiply_wide(cx, false),
        Int::Imul if cx.op(1) == Operand::None => multiply_wide(cx, true),
        Int::Imul => multiply_low(cx),
        Int::Mulx => mulx(cx),
        Int::Div => divide(cx),
    }
}

fn sums<M: Machine>(cx: &mut Cx<M>, op: Int) {
    let width = cx.size(0) as u32 * 8;
    if cx.plan.same && matches!(op, Int::Sub | Int::Cmp | Int::Sbb) {
        return same(cx, op, width);
    }
    let a = cx.bits(cx.op(0));
    let b = if matches!(op, Int::Inc | Int::Dec) { Bits::known(1) } else { cx.bits(cx.op(1)) };
    let none = Bits::known(0);
    let out = match op {
        Int::Add if cx.plan.same => bits::double(a, none, width),
        Int::Adc if cx.plan.same => bits::double(a, cx.flag(CF), width),
        Int::Add | Int::Inc => bits::add(a, b, none, width),
        Int::Adc => bits::add(a, b, cx.flag(CF), width),
        Int::Sbb => bits::sub(a, b, cx.flag(CF), width),
        Int::Neg => bits::sub(none, a, none, width),
        _ => bits::sub(a, b, none, width),
    };
    if op != Int::Cmp {
        cx.set(cx.op(0), out.r.v);
    }
    cx.set_flags(out.flags, a.v | b.v);
}

/// x - x is 0; x - x - c is 0 or all ones, by c alone.
fn same<M: Machine>(cx: &mut Cx<M>, op: Int, width: u32) {
    let carry = if op == Int::Sbb { cx.flag(CF).v } else { 0 };
    let spread = smear_left(carry) & mask(width);
    if op != Int::Cmp {
        cx.set(cx.op(0), spread);
    }
    let flags = if carry != 0 { CF | AF | ZF | SF } else { 0 };
    cx.set_flags(flags, 0);
}

fn logic<M: Machine>(cx: &mut Cx<M>, op: Int) {
    let width = cx.size(0) as u32 * 8;
    let first = usize::from(op == Int::Andn);
    let a = cx.bits(cx.op(first)).masked(mask(width));
    let b = cx.bits(cx.op(first + 1)).masked(mask(width));
    let (r, inputs) = match op {
        Int::Xor if cx.plan.same => (Bits::known(0), 0),
        Int::Andn if cx.plan.same => (Bits::known(0), 0),
        Int::Xor => (Bits { x: a.x ^ b.x, v: a.v | b.v }, a.v | b.v),
        Int::Or => (Bits { x: a.x | b.x, v: bits::or_v(a, b) }, a.v | b.v),
        Int::Andn => (Bits { x: !a.x & b.x, v: bits::and_v(a.not(), b) }, a.v | b.v),
        _ => (Bits { x: a.x & b.x, v: bits::and_v(a, b) }, a.v | b.v),
    };
    if op != Int::Test {
        cx.set(cx.op(0), r.v);
    }
    cx.set_flags(bits::logic_flags(r, inputs, width) & !(OF | CF), inputs);
}

fn xadd<M: Machine>(cx: &mut Cx<M>) {
    let width = cx.size(0) as u32 * 8;
    let (a, b) = (cx.bits(cx.op(0)), cx.bits(cx.op(1)));
    let out = bits::add(a, b, Bits::known(0), width);
    cx.set(cx.op(1), a.v);
    cx.set(cx.op(0), out.r.v);
    cx.set_flags(out.flags, 0);
}

/// The comparison counts as defined: lock-free code compares words with padding and retries until they match.
fn cmpxchg<M: Machine>(cx: &mut Cx<M>) {
    let size = cx.size(0);
    let accumulator = Operand::Gpr { n: 0, size: size as u8, high: false };
    let (old, acc) = (cx.bits(cx.op(0)), cx.bits(accumulator));
    if old.x == acc.x {
        let new = cx.v(cx.op(1));
        cx.set(cx.op(0), new);
    } else {
        cx.set(accumulator, old.v);
    }
    cx.regs.define(0, ARITH);
}

fn cmpxchg_pair<M: Machine>(cx: &mut Cx<M>) {
    let half = cx.size(0) as u8 / 2;
    let pair = |n| Operand::Gpr { n, size: half, high: false };
    let (a, d, b, c) = (pair(0), pair(2), pair(3), pair(1));
    let (x, v) = (cx.wide_x(Operand::Mem), cx.wide_v(Operand::Mem));
    let lane = |wide: &crate::wide::Wide, i| wide.lane(usize::from(half), i);
    let equal = cx.x(a) == lane(&x, 0) && cx.x(d) == lane(&x, 1);
    if equal {
        let mut new = crate::wide::Wide::ZERO;
        new.set(usize::from(half), 0, cx.v(b));
        new.set(usize::from(half), 1, cx.v(c));
        cx.store_v(cx.addr, usize::from(half) * 2, new);
    } else {
        cx.set(a, lane(&v, 0));
        cx.set(d, lane(&v, 1));
    }
    cx.regs.define(0, ZF);
}

fn carry_chain<M: Machine>(cx: &mut Cx<M>, flag: u64) {
    let width = cx.size(0) as u32 * 8;
    let (a, b) = (cx.bits(cx.op(0)), cx.bits(cx.op(1)));
    let out = bits::add(a, b, cx.flag(flag), width);
    cx.set(cx.op(0), out.r.v);
    cx.set_flags(if out.flags & CF != 0 { flag } else { 0 }, 0);
}

/// rdx:rax = rax * operand (ax = al * operand for bytes).
fn multiply_wide<M: Machine>(cx: &mut Cx<M>, signed: bool) {
    let size = cx.size(0) as u8;
    let width = u32::from(size) * 8;
    let a = cx.bits(Operand::Gpr { n: 0, size, high: false });
    let b = cx.bits(cx.op(0));
    let (low, high) = bits::mul(a, b, width, signed);
    if size == 1 {
        cx.set(Operand::Gpr { n: 0, size: 2, high: false }, low | high << 8);
    } else {
        cx.set(Operand::Gpr { n: 0, size, high: false }, low);
        cx.set(Operand::Gpr { n: 2, size, high: false }, high);
    }
    // CF = OF: is the high half more than an extension of the low one?
    let open = high != 0 || signed && low >> (width - 1) & 1 != 0;
    cx.set_flags(if open { CF | OF } else { 0 }, a.v | b.v);
}

fn multiply_low<M: Machine>(cx: &mut Cx<M>) {
    let width = cx.size(0) as u32 * 8;
    let (a, b) = match cx.op(2) {
        Operand::None => (cx.bits(cx.op(0)), cx.bits(cx.op(1))),
        factor => (cx.bits(cx.op(1)), cx.bits(factor)),
    };
    let (low, high) = bits::mul(a, b, width, true);
    cx.set(cx.op(0), low);
    let open = high != 0 || low >> (width - 1) & 1 != 0;
    cx.set_flags(if open { CF | OF } else { 0 }, a.v | b.v);
}

/// High half to the first operand, low half to the second; no flags.
fn mulx<M: Machine>(cx: &mut Cx<M>) {
    let size = cx.size(0) as u8;
    let a = cx.bits(Operand::Gpr { n: 2, size, high: false });
    let b = cx.bits(cx.op(2));
    let (low, high) = bits::mul(a, b, u32::from(size) * 8, false);
    cx.set(cx.op(1), low);
    cx.set(cx.op(0), high);
}

/// Any undefined bit spoils quotient and remainder.
fn divide<M: Machine>(cx: &mut Cx<M>) {
    let size = cx.size(0) as u8;
    let low = Operand::Gpr { n: 0, size: size.max(2), high: false };
    let high = Operand::Gpr { n: 2, size, high: false };
    let inputs = cx.v(low) | cx.v(cx.op(0)) | if size == 1 { 0 } else { cx.v(high) };
    let spoilt = if inputs != 0 { u64::MAX } else { 0 };
    cx.set(low, spoilt);
    if size != 1 {
        cx.set(high, spoilt);
    }
    cx.set_flags(0, inputs);
}
