//! Vectors reduced to bits: compares into mask registers, sign masks, tests that set flags, string compares.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask};
use crate::cx::Cx;
use crate::machine::Machine;
use crate::plan::Operand;
use crate::regs::{ARITH, CF, PF, ZF};
use crate::table::{Row, Rule};
use crate::wide::{Wide, lane_mask};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// movmskps, movmskpd, pmovmskb: top bits of lanes into a general register.
    SignBits(u8),
    /// vpmovb2m and kin: into a mask register.
    SignMask(u8),
    /// cmpps and kin: into a vector (lane rule) or a mask register.
    Float(u8),
    FloatScalar(u8),
    /// vpcmpb…: predicate in the immediate; `true` for signed.
    Integer(u8, bool),
    /// vptestm, vptestnm.
    TestMask(u8),
    /// vfpclass.
    Class(u8),
    ClassScalar(u8),
    /// vpshufbitqmb.
    ShuffleBits,
    /// ptest: all bits; vtestps, vtestpd: sign bits of lanes.
    Test(u8),
    /// comis, ucomis: lane 0 of that size.
    Order(u8),
    /// pcmpistri, pcmpistrm; pcmpestri, pcmpestrm: (bytes of the explicit lengths or 0, result is a mask in xmm0).
    Text(u8, bool),
}

const fn row(names: &'static [M], op: Compare) -> Row {
    (names, Rule::Compare(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Pmovmskb, Vpmovmskb], Compare::SignBits(1)),
    row(&[Movmskps, Vmovmskps], Compare::SignBits(4)),
    row(&[Movmskpd, Vmovmskpd], Compare::SignBits(8)),
    row(&[Vpmovb2m], Compare::SignMask(1)),
    row(&[Vpmovw2m], Compare::SignMask(2)),
    row(&[Vpmovd2m], Compare::SignMask(4)),
    row(&[Vpmovq2m], Compare::SignMask(8)),
    row(&[Vcmpph], Compare::Float(2)),
    row(&[Vcmpps], Compare::Float(4)),
    row(&[Vcmppd], Compare::Float(8)),
    row(&[Vcmpss], Compare::FloatScalar(4)),
    row(&[Vcmpsd], Compare::FloatScalar(8)),
    row(&[Vpcmpb], Compare::Integer(1, true)),
    row(&[Vpcmpw], Compare::Integer(2, true)),
    row(&[Vpcmpd], Compare::Integer(4, true)),
    row(&[Vpcmpq], Compare::Integer(8, true)),
    row(&[Vpcmpub], Compare::Integer(1, false)),
    row(&[Vpcmpuw], Compare::Integer(2, false)),
    row(&[Vpcmpud], Compare::Integer(4, false)),
    row(&[Vpcmpuq], Compare::Integer(8, false)),
    row(&[Vptestmb, Vptestnmb], Compare::TestMask(1)),
    row(&[Vptestmw, Vptestnmw], Compare::TestMask(2)),
    row(&[Vptestmd, Vptestnmd], Compare::TestMask(4)),
    row(&[Vptestmq, Vptestnmq], Compare::TestMask(8)),
    row(&[Vfpclassps], Compare::Class(4)),
    row(&[Vfpclasspd], Compare::Class(8)),
    row(&[Vfpclassss], Compare::ClassScalar(4)),
    row(&[Vfpclasssd], Compare::ClassScalar(8)),
    row(&[Vpshufbitqmb], Compare::ShuffleBits),
    row(&[Ptest, Vptest], Compare::Test(0)),
    row(&[Vtestps], Compare::Test(4)),
    row(&[Vtestpd], Compare::Test(8)),
    row(&[Comiss, Ucomiss, Vcomiss, Vucomiss], Compare::Order(4)),
    row(&[Comisd, Ucomisd, Vcomisd, Vucomisd], Compare::Order(8)),
    row(&[Pcmpistri, Vpcmpistri], Compare::Text(0, false)),
    row(&[Pcmpistrm, Vpcmpistrm], Compare::Text(0, true)),
    row(&[Pcmpestri, Vpcmpestri], Compare::Text(4, false)),
    row(&[Pcmpestrm, Vpcmpestrm], Compare::Text(4, true)),
    row(&[Pcmpestri64, Vpcmpestri64], Compare::Text(8, false)),
    row(&[Pcmpestrm64, Vpcmpestrm64], Compare::Text(8, true)),
];

impl Compare {
    /// Bytes of one lane, for those that compare lanes.
    pub(crate) fn lane(self) -> Option<u8> {
        match self {
            Compare::Float(lane)
            | Compare::FloatScalar(lane)
            | Compare::Integer(lane, _)
            | Compare::TestMask(lane)
            | Compare::Class(lane)
            | Compare::ClassScalar(lane) => Some(lane),
            Compare::ShuffleBits => Some(1),
            _ => None,
        }
    }
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Compare) {
    let to_mask = matches!(cx.op(0), Operand::Mask { .. });
    match op {
        Compare::SignBits(lane) | Compare::SignMask(lane) => {
            let v = sign_bits(cx.wide_v(cx.op(1)), usize::from(lane));
            cx.set(cx.op(0), v & mask((cx.size(1) / usize::from(lane)) as u32));
        }
        Compare::Float(lane) if !to_mask => {
            let v = cx.any_v().smeared(usize::from(lane));
            cx.put(cx.op(0), v, usize::from(lane));
        }
        Compare::FloatScalar(lane) if !to_mask => {
            let v = cx.any_v().truncated(usize::from(lane)).smeared(usize::from(lane)).0[0];
            cx.put_scalar(v, usize::from(lane), cx.op(1));
        }
        Compare::Float(lane) | Compare::Class(lane) => {
            let any = cx.any_v().smeared(usize::from(lane));
            into_mask(cx, usize::from(lane), |i, lane| any.lane(lane, i) != 0);
        }
        Compare::FloatScalar(lane) | Compare::ClassScalar(lane) => {
            let any = cx.any_v().lane(usize::from(lane), 0) != 0;
            put_mask(cx, u64::from(any), 1);
        }
        Compare::Integer(lane, signed) => integer(cx, usize::from(lane), cx.plan.immediate(), signed),
        Compare::TestMask(lane) => test_mask(cx, usize::from(lane)),
        Compare::ShuffleBits => shuffle_bits(cx),
        Compare::Test(lane) => test(cx, usize::from(lane)),
        Compare::Order(lane) => {
            let (a, b) = (cx.wide_v(cx.op(0)), cx.wide_v(cx.op(1)));
            let any = (a | b).lane(usize::from(lane), 0);
            cx.set_flags(if any != 0 { ZF | PF | CF } else { 0 }, 0);
        }
        Compare::Text(explicit, to_vector) => text(cx, explicit, to_vector),
    }
}

fn sign_bits(v: Wide, lane: usize) -> u64 {
    if lane == 1 {
        // Eight top bits of a word gathered in its highest byte by one multiplication.
        let gather = |word: u64| ((word & 0x8080_8080_8080_8080) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        return v.0.iter().rev().fold(0, |all, &word| all << 8 | gather(word));
    }
    (0..64 / lane).fold(0, |all, i| all | (v.lane(lane, i) >> (lane * 8 - 1)) << i)
}

/// One bit per lane of the first source into the mask register of operand 0.
fn into_mask<M: Machine>(cx: &mut Cx<M>, lane: usize, open: impl Fn(usize, usize) -> bool) {
    let size = (1..3).map(|i| if let Operand::Vec { size, .. } = cx.op(i) { usize::from(size) } else { 0 }).max().unwrap_or(0);
    // A broadcast does not tell the length; too long only means bits that are zero anyway.
    let size = match size {
        0 if cx.plan.broadcast => 64,
        0 => cx.size(1),
        size => size,
    };
    let v = (0..size / lane).fold(0, |all, i| all | u64::from(open(i, lane)) << i);
    put_mask(cx, v, size / lane);
}

/// The write mask of a compare clears bits: a defined 0 there defines the result.
fn put_mask<M: Machine>(cx: &mut Cx<M>, mut v: u64, lanes: usize) {
    if let Some(write) = cx.plan.mask {
        let k = cx.mask_bits(write.k).masked(mask(lanes.clamp(1, 64) as u32));
        v = (v | k.v) & k.max();
    }
    cx.set(cx.op(0), v);
}

/// Predicates of vpcmp: 0 eq, 1 lt, 2 le, 3 false, 4 ne, 5 ge, 6 gt, 7 true.
/// Also the rule of vpcmpeq and vpcmpgt when their target is a mask register.
pub(crate) fn integer<M: Machine>(cx: &mut Cx<M>, lane: usize, predicate: u64, signed: bool) {
    if cx.plan.same {
        // x compared with itself is known, but for an undefined write mask.
        return put_mask(cx, 0, 64);
    }
    let (a, b) = (cx.vector(cx.op(1)), cx.vector(cx.op(2)));
    let flip = if signed { 1 << (lane * 8 - 1) } else { 0 };
    into_mask(cx, lane, |i, lane| {
        let flipped = |b: Bits| Bits { x: b.x ^ flip, v: b.v };
        let (a, b) = (flipped(a.lane(lane, i)), flipped(b.lane(lane, i)));
        match predicate & 7 {
            0 | 4 => bits::eq_v(a, b),
            1 | 5 => bits::below_v(a, b),
            2 | 6 => bits::below_v(b, a),
            _ => false,
        }
    });
}

fn test_mask<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (a, b) = (cx.vector(cx.op(1)), cx.vector(cx.op(2)));
    into_mask(cx, lane, |i, lane| {
        let (a, b) = (a.lane(lane, i), b.lane(lane, i));
        bits::zero_v(Bits { x: a.x & b.x, v: bits::and_v(a, b) })
    });
}

/// Bit i: the bit of quadword i/8 of the first source that control byte i names.
fn shuffle_bits<M: Machine>(cx: &mut Cx<M>) {
    let (a, control) = (cx.vector(cx.op(1)), cx.vector(cx.op(2)));
    into_mask(cx, 1, |i, _| {
        let word = a.lane(8, i / 8);
        let at = control.lane(1, i).masked(63);
        bits::choose_v(at, 1, |n| Bits { x: word.x >> n, v: word.v >> n }.masked(1)) != 0
    });
}

/// ZF: a & b is zero; CF: !a & b is zero, where b is the second operand.
fn test<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (a, b) = (cx.vector(cx.op(0)), cx.vector(cx.op(1)));
    let keep = match lane {
        4 => 0x8000_0000_8000_0000,
        8 => 0x8000_0000_0000_0000,
        _ => u64::MAX,
    };
    let (mut and, mut andn) = ([0; 2], [0; 2]);
    for i in 0..8 {
        let (a, b) = (a.lane(8, i).masked(keep), b.lane(8, i).masked(keep));
        and[0] |= bits::and_v(a, b);
        and[1] |= a.x & b.x & !bits::and_v(a, b);
        andn[0] |= bits::and_v(a.not(), b);
        andn[1] |= !a.x & b.x & !bits::and_v(a.not(), b);
    }
    // An undefined bit matters unless some other bit is a certain 1.
    let open = |sums: [u64; 2]| sums[0] != 0 && sums[1] == 0;
    let flags = if open(and) { ZF } else { 0 } | if open(andn) { CF } else { 0 };
    cx.set_flags(flags, 0);
}

/// Text compares: everything undefined if any byte that takes part is. With implicit lengths those are the bytes up to
/// the first certain terminator, with explicit ones those below the length.
fn text<M: Machine>(cx: &mut Cx<M>, explicit: u8, to_vector: bool) {
    let lane = if cx.plan.immediate() & 1 != 0 { 2 } else { 1 };
    let mut spoilt = false;
    for i in 0..2 {
        let operand = cx.vector(cx.op(i));
        let lanes = 16 / lane;
        let mut length = lanes;
        if explicit != 0 {
            // rax for the first operand, rdx for the second: the absolute value, saturated.
            let n = cx.gpr(i * 2).masked(lane_mask(usize::from(explicit)));
            spoilt |= n.v != 0;
            let n = bits::sign_extend(n.x, u32::from(explicit) * 8);
            length = n.unsigned_abs().min(lanes as u64) as usize;
        }
        for at in 0..length {
            let element = operand.lane(lane, at);
            spoilt |= element.v != 0;
            if explicit == 0 && element.max() == 0 {
                break;
            }
        }
    }
    let v = if spoilt { u64::MAX } else { 0 };
    if to_vector {
        let result = Wide([v; 8]).truncated(16);
        cx.put_sized(Operand::Vec { n: 0, size: 16 }, result, 8, 16);
    } else {
        cx.set(Operand::Gpr { n: 1, size: 4, high: false }, v);
    }
    cx.set_flags(if spoilt { ARITH } else { 0 }, 0);
}
