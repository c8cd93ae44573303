//! Shifts and rotates.
//!
//! With a defined count the V bits move exactly as the value does. With an undefined one the result is the union over all counts
//! that are possible, and every flag is undefined. A count of zero leaves all flags alone, so the old flags are an input.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask, sign_extend};
use crate::cx::Cx;
use crate::machine::Machine;
use crate::plan::Operand;
use crate::regs::{AF, ARITH, CF, OF, PF, SF, ZF};
use crate::table::{Row, Rule};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shift {
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Rcl,
    Rcr,
    Shld,
    Shrd,
    /// shlx, shrx, sarx, rorx: no flags.
    Plain(PlainShift),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlainShift {
    Shl,
    Shr,
    Sar,
    Ror,
}

const fn row(names: &'static [M], op: Shift) -> Row {
    (names, Rule::Shift(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Shl, Sal], Shift::Shl),
    row(&[Shr], Shift::Shr),
    row(&[Sar], Shift::Sar),
    row(&[Rol], Shift::Rol),
    row(&[Ror], Shift::Ror),
    row(&[Rcl], Shift::Rcl),
    row(&[Rcr], Shift::Rcr),
    row(&[Shld], Shift::Shld),
    row(&[Shrd], Shift::Shrd),
    row(&[Shlx], Shift::Plain(PlainShift::Shl)),
    row(&[Shrx], Shift::Plain(PlainShift::Shr)),
    row(&[Sarx], Shift::Plain(PlainShift::Sar)),
    row(&[Rorx], Shift::Plain(PlainShift::Ror)),
];

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Shift) {
    let width = cx.size(0) as u32 * 8;
    let modulus = if width == 64 { 63 } else { 31 };
    match op {
        Shift::Plain(op) => {
            let a = cx.bits(cx.op(1));
            let count = cx.bits(cx.op(2)).masked(modulus);
            let v = bits::choose_v(count, mask(width), |n| plain(op, a, n as u32, width));
            cx.set(cx.op(0), v);
        }
        Shift::Shld | Shift::Shrd => double(cx, op, width, modulus),
        Shift::Rcl | Shift::Rcr => through_carry(cx, op, width, modulus),
        _ => simple(cx, op, width, modulus),
    }
}

/// One operand, one count below 64, no carry.
fn plain(op: PlainShift, a: Bits, count: u32, width: u32) -> Bits {
    let each = |word: u64| match op {
        PlainShift::Shl => word << count,
        PlainShift::Shr => (word & mask(width)) >> count,
        PlainShift::Sar => (sign_extend(word, width) >> count) as u64,
        PlainShift::Ror => rotate_right(word, count, width),
    };
    Bits { x: each(a.x), v: each(a.v) }.masked(mask(width))
}

fn rotate_right(word: u64, count: u32, width: u32) -> u64 {
    let (word, count) = (word & mask(width), count % width);
    if count == 0 { word } else { (word >> count | word << (width - count)) & mask(width) }
}

fn bit(word: u64, at: u32) -> bool {
    at < 64 && word >> at & 1 != 0
}

fn simple<M: Machine>(cx: &mut Cx<M>, op: Shift, width: u32, modulus: u64) {
    let a = cx.bits(cx.op(0));
    let count = cx.bits(cx.op(1)).masked(modulus);
    let result = |n: u64| match op {
        Shift::Shl => plain(PlainShift::Shl, a, n as u32, width),
        Shift::Shr => plain(PlainShift::Shr, a, n as u32, width),
        Shift::Sar => plain(PlainShift::Sar, a, n as u32, width),
        Shift::Ror => plain(PlainShift::Ror, a, n as u32, width),
        _ => plain(PlainShift::Ror, a, (width - n as u32 % width) % width, width),
    };
    let v = bits::choose_v(count, mask(width), result);
    cx.set(cx.op(0), v);
    let rotates = matches!(op, Shift::Rol | Shift::Ror);
    let written = if rotates { CF | OF } else { ARITH };
    if count.v != 0 {
        return flags(cx, written, written);
    }
    let n = count.x as u32;
    if n == 0 {
        return;
    }
    let r = result(count.x);
    let top = width - 1;
    // The carry is the last bit that left; for too large a count of an 8 or 16 bit shift the processor promises nothing.
    let carry = match op {
        Shift::Shl if n <= width => bit(a.v, width - n),
        Shift::Shr if n <= width => bit(a.v, n - 1),
        Shift::Sar => bit(a.v, (n - 1).min(top)),
        Shift::Rol => bit(r.v, 0),
        Shift::Ror => bit(r.v, top),
        _ => a.v != 0,
    };
    let overflow = match op {
        _ if n != 1 => a.v != 0,
        Shift::Shl | Shift::Rol => carry || bit(r.v, top),
        Shift::Shr => bit(a.v, top),
        Shift::Sar => false,
        _ => bit(r.v, top) || bit(r.v, top - 1),
    };
    let mut open = if carry { CF } else { 0 } | if overflow { OF } else { 0 };
    if !rotates {
        open |= bits::result_flags(r, width) | if a.v != 0 { AF } else { 0 };
    }
    flags(cx, written, open);
}

fn flags<M: Machine>(cx: &mut Cx<M>, written: u64, v: u64) {
    if !cx.fault {
        cx.regs.set_flags(written, v, cx.origin);
    }
}

/// rcl, rcr: a rotation of width + 1 bits, the carry on top.
fn through_carry<M: Machine>(cx: &mut Cx<M>, op: Shift, width: u32, modulus: u64) {
    let a = cx.bits(cx.op(0));
    let carry = cx.flag(CF);
    let count = cx.bits(cx.op(1)).masked(modulus);
    let span = width + 1;
    let all = u128::MAX >> (128 - span);
    let turn = |word: u64, carry: u64, n: u64| {
        let whole = u128::from(word & mask(width)) | u128::from(carry) << width;
        let n = n as u32 % span;
        let n = if op == Shift::Rcr || n == 0 { n } else { span - n };
        if n == 0 { whole } else { (whole >> n | whole << (span - n)) & all }
    };
    let low = |n| Bits { x: turn(a.x, carry.x, n) as u64, v: turn(a.v, carry.v, n) as u64 }.masked(mask(width));
    let v = bits::choose_v(count, mask(width), low);
    cx.set(cx.op(0), v);
    if count.v != 0 {
        return flags(cx, CF | OF, CF | OF);
    }
    if count.x == 0 {
        return;
    }
    let after = turn(a.v, carry.v, count.x);
    let out = after >> width & 1 != 0;
    let (r, top) = (after as u64, width - 1);
    let overflow = match (count.x, op) {
        (1, Shift::Rcl) => out || bit(r, top),
        (1, _) => bit(r, top) || bit(r, top - 1),
        _ => a.v | carry.v != 0,
    };
    flags(cx, CF | OF, if out { CF } else { 0 } | if overflow { OF } else { 0 });
}

/// shld, shrd: bits of the second operand come in.
fn double<M: Machine>(cx: &mut Cx<M>, op: Shift, width: u32, modulus: u64) {
    let (a, b) = (cx.bits(cx.op(0)), cx.bits(cx.op(1)));
    let count = cx.bits(cx.op(2)).masked(modulus);
    let inputs = a.v | b.v | count.v;
    let beyond = count.max() as u32 > width;
    let shift = |hi: u64, lo: u64, n: u32| {
        if op == Shift::Shld {
            let whole = u128::from(hi & mask(width)) << width | u128::from(lo & mask(width));
            (whole << n >> width) as u64
        } else {
            let whole = u128::from(lo & mask(width)) << width | u128::from(hi & mask(width));
            (whole >> n) as u64
        }
    };
    let result = |n: u64| Bits { x: shift(a.x, b.x, n as u32), v: shift(a.v, b.v, n as u32) }.masked(mask(width));
    let spoilt = beyond && inputs != 0;
    let v = if spoilt { mask(width) } else { bits::choose_v(count, mask(width), result) };
    cx.set(cx.op(0), v);
    if count.v != 0 || spoilt {
        return flags(cx, ARITH, ARITH);
    }
    let n = count.x as u32;
    if n == 0 {
        return;
    }
    let r = result(count.x);
    // Beyond the width (16 bit forms) nothing is undefined here, or it would have been spoilt above.
    let out = n <= width && if op == Shift::Shld { bit(a.v, width - n) } else { bit(a.v, n - 1) };
    let overflow = if n == 1 { bit(a.v | r.v, width - 1) } else { inputs != 0 };
    let mut open = bits::result_flags(r, width) & (ZF | SF | PF);
    open |= if out { CF } else { 0 } | if overflow { OF } else { 0 } | if inputs != 0 { AF } else { 0 };
    flags(cx, ARITH, open);
}

/// The count operand of a flag-setting shift, for the planner: a constant other than zero does not read the old flags.
pub(crate) fn keeps_flags(op: Shift, count: Operand, width: usize) -> bool {
    let modulus = if width == 8 { 63 } else { 31 };
    match op {
        Shift::Plain(_) => false,
        _ => !matches!(count, Operand::Imm(n) if n & modulus != 0),
    }
}
