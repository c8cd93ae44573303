//! AVX-512 mask registers as small integers.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask};
use crate::cx::Cx;
use crate::machine::Machine;
use crate::plan::Operand;
use crate::regs::{CF, ZF};
use crate::table::{Row, Rule};
use crate::wide::Wide;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KOp {
    Move,
    And,
    Andn,
    Or,
    Xor,
    Xnor,
    Not,
    Add,
    ShiftLeft,
    ShiftRight,
    /// Two masks of half the width joined.
    Unpack,
    /// ZF: a | b is zero; CF: it is all ones.
    OrTest,
    /// ZF: a & b is zero; CF: !a & b is zero.
    AndTest,
    /// Bits spread to lanes of a vector.
    ToLanes,
    /// Broadcast of the whole mask to lanes.
    Broadcast,
}

/// `bytes`: how many bits of the mask take part (for `ToLanes` and `Broadcast`: the lane).
const fn row(names: &'static [M], op: KOp, bytes: u8) -> Row {
    (names, Rule::KMask(op, bytes))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Kmovb], KOp::Move, 1), row(&[Kmovw], KOp::Move, 2), row(&[Kmovd], KOp::Move, 4), row(&[Kmovq], KOp::Move, 8),
    row(&[Kandb], KOp::And, 1), row(&[Kandw], KOp::And, 2), row(&[Kandd], KOp::And, 4), row(&[Kandq], KOp::And, 8),
    row(&[Kandnb], KOp::Andn, 1), row(&[Kandnw], KOp::Andn, 2), row(&[Kandnd], KOp::Andn, 4), row(&[Kandnq], KOp::Andn, 8),
    row(&[Korb], KOp::Or, 1), row(&[Korw], KOp::Or, 2), row(&[Kord], KOp::Or, 4), row(&[Korq], KOp::Or, 8),
    row(&[Kxorb], KOp::Xor, 1), row(&[Kxorw], KOp::Xor, 2), row(&[Kxord], KOp::Xor, 4), row(&[Kxorq], KOp::Xor, 8),
    row(&[Kxnorb], KOp::Xnor, 1), row(&[Kxnorw], KOp::Xnor, 2), row(&[Kxnord], KOp::Xnor, 4), row(&[Kxnorq], KOp::Xnor, 8),
    row(&[Knotb], KOp::Not, 1), row(&[Knotw], KOp::Not, 2), row(&[Knotd], KOp::Not, 4), row(&[Knotq], KOp::Not, 8),
    row(&[Kaddb], KOp::Add, 1), row(&[Kaddw], KOp::Add, 2), row(&[Kaddd], KOp::Add, 4), row(&[Kaddq], KOp::Add, 8),
    row(&[Kshiftlb], KOp::ShiftLeft, 1), row(&[Kshiftlw], KOp::ShiftLeft, 2), row(&[Kshiftld], KOp::ShiftLeft, 4), row(&[Kshiftlq], KOp::ShiftLeft, 8),
    row(&[Kshiftrb], KOp::ShiftRight, 1), row(&[Kshiftrw], KOp::ShiftRight, 2), row(&[Kshiftrd], KOp::ShiftRight, 4), row(&[Kshiftrq], KOp::ShiftRight, 8),
    row(&[Kunpckbw], KOp::Unpack, 1), row(&[Kunpckwd], KOp::Unpack, 2), row(&[Kunpckdq], KOp::Unpack, 4),
    row(&[Kortestb], KOp::OrTest, 1), row(&[Kortestw], KOp::OrTest, 2), row(&[Kortestd], KOp::OrTest, 4), row(&[Kortestq], KOp::OrTest, 8),
    row(&[Ktestb], KOp::AndTest, 1), row(&[Ktestw], KOp::AndTest, 2), row(&[Ktestd], KOp::AndTest, 4), row(&[Ktestq], KOp::AndTest, 8),
    row(&[Vpmovm2b], KOp::ToLanes, 1), row(&[Vpmovm2w], KOp::ToLanes, 2), row(&[Vpmovm2d], KOp::ToLanes, 4), row(&[Vpmovm2q], KOp::ToLanes, 8),
    row(&[Vpbroadcastmb2q], KOp::Broadcast, 8), row(&[Vpbroadcastmw2d], KOp::Broadcast, 4),
];

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: KOp, bytes: u8) {
    let n = u32::from(bytes) * 8;
    let a = cx.bits(cx.op(1)).masked(mask(n));
    let target = cx.op(0);
    match op {
        KOp::Move => cx.set(target, a.v),
        KOp::Not => cx.set(target, a.v),
        KOp::ShiftLeft | KOp::ShiftRight => {
            let by = cx.plan.immediate() & 0xFF;
            let v = match op {
                _ if by >= u64::from(n) => 0,
                KOp::ShiftLeft => a.v << by,
                _ => a.v >> by,
            };
            cx.set(target, v & mask(n));
        }
        KOp::ToLanes => to_lanes(cx, usize::from(bytes)),
        KOp::Broadcast => {
            let v = cx.v(cx.op(1)) & if bytes == 8 { 0xFF } else { 0xFFFF };
            let mut one = Wide::ZERO;
            one.0[0] = v;
            cx.put(target, one.repeated(usize::from(bytes)), usize::from(bytes));
        }
        KOp::OrTest | KOp::AndTest => test(cx, op, n),
        _ => {
            let b = cx.bits(cx.op(2)).masked(mask(n));
            let v = if cx.plan.same && matches!(op, KOp::Xor | KOp::Xnor | KOp::Andn) { 0 } else { combined(op, a, b, n) };
            cx.set(target, v);
        }
    }
}

fn combined(op: KOp, a: Bits, b: Bits, n: u32) -> u64 {
    let v = match op {
        KOp::And => bits::and_v(a, b),
        KOp::Andn => bits::and_v(a.not(), b),
        KOp::Or => bits::or_v(a, b),
        KOp::Add => bits::add(a, b, Bits::known(0), n).r.v,
        // The first source becomes the upper half.
        KOp::Unpack => return a.v << n | b.v,
        _ => a.v | b.v,
    };
    v & mask(n)
}

fn to_lanes<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let k = cx.v(cx.op(1));
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        v.set(lane, i, if k >> i & 1 != 0 { u64::MAX } else { 0 });
    }
    cx.put(cx.op(0), v, lane);
}

fn test<M: Machine>(cx: &mut Cx<M>, op: KOp, n: u32) {
    let (a, b): (Operand, Operand) = (cx.op(0), cx.op(1));
    let (a, b) = (cx.bits(a).masked(mask(n)), cx.bits(b).masked(mask(n)));
    let (first, second) = if op == KOp::OrTest {
        let or = Bits { x: a.x | b.x, v: bits::or_v(a, b) }.masked(mask(n));
        // All ones: no certain zero, so the complement tested for zero.
        (or, or.not().masked(mask(n)))
    } else {
        let other = a.not().masked(mask(n));
        (Bits { x: a.x & b.x, v: bits::and_v(a, b) }, Bits { x: other.x & b.x, v: bits::and_v(other, b) })
    };
    let flags = if bits::zero_v(first) { ZF } else { 0 } | if bits::zero_v(second) { CF } else { 0 };
    cx.set_flags(flags, 0);
}
