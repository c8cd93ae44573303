//! Conversions between lane sizes, and between vectors and integers.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{mask, prefix_v};
use crate::cx::Cx;
use crate::lanes::{pair, saturate, signed_prefix};
use crate::machine::Machine;
use crate::plan::Operand;
use crate::table::{Row, Rule};
use crate::vmoves::extended;
use crate::wide::{Wide, lane_mask};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Convert {
    /// Lane i from lane i, any undefined bit spoils it; (from, to) in bytes, zeros above.
    Lanes(u8, u8),
    /// The same, but only the low 8 bytes of the destination are written (cvtpi2ps).
    LowLanes(u8, u8),
    /// Lane 0 from lane 0 of the last source, the rest as in scalar arithmetic.
    Scalar(u8, u8),
    /// A general register or memory integer into lane 0 of that size.
    FromInteger(u8),
    /// Lane 0 of that size into a general register.
    ToInteger(u8),
    /// pmovzx.
    Zero(u8, u8),
    /// pmovsx.
    Sign(u8, u8),
    /// vpmov: cut off, or saturated signed or unsigned.
    Cut(u8, u8),
    CutSigned(u8, u8),
    CutUnsigned(u8, u8),
}

const fn row(names: &'static [M], op: Convert) -> Row {
    (names, Rule::Convert(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Cvtdq2pd, Vcvtdq2pd, Cvtps2pd, Vcvtps2pd, Vcvtudq2pd, Vcvtps2qq, Vcvtps2uqq, Vcvttps2qq, Vcvttps2uqq, Cvtpi2pd], Convert::Lanes(4, 8)),
    row(&[Cvtpd2ps, Vcvtpd2ps, Cvtpd2dq, Vcvtpd2dq, Cvttpd2dq, Vcvttpd2dq, Vcvtpd2udq, Vcvttpd2udq, Vcvtqq2ps, Vcvtuqq2ps,
          Cvtpd2pi, Cvttpd2pi], Convert::Lanes(8, 4)),
    row(&[Cvtps2pi, Cvttps2pi], Convert::Lanes(4, 4)),
    row(&[Cvtpi2ps], Convert::LowLanes(4, 4)),
    row(&[Vcvtph2ps], Convert::Lanes(2, 4)),
    row(&[Vcvtps2ph, Vcvtneps2bf16], Convert::Lanes(4, 2)),
    row(&[Cvtss2sd, Vcvtss2sd], Convert::Scalar(4, 8)),
    row(&[Cvtsd2ss, Vcvtsd2ss], Convert::Scalar(8, 4)),
    row(&[Cvtsi2ss, Vcvtsi2ss, Vcvtusi2ss], Convert::FromInteger(4)),
    row(&[Cvtsi2sd, Vcvtsi2sd, Vcvtusi2sd], Convert::FromInteger(8)),
    row(&[Cvtss2si, Cvttss2si, Vcvtss2si, Vcvttss2si, Vcvtss2usi, Vcvttss2usi], Convert::ToInteger(4)),
    row(&[Cvtsd2si, Cvttsd2si, Vcvtsd2si, Vcvttsd2si, Vcvtsd2usi, Vcvttsd2usi], Convert::ToInteger(8)),
    row(&[Pmovzxbw, Vpmovzxbw], Convert::Zero(1, 2)),
    row(&[Pmovzxbd, Vpmovzxbd], Convert::Zero(1, 4)),
    row(&[Pmovzxbq, Vpmovzxbq], Convert::Zero(1, 8)),
    row(&[Pmovzxwd, Vpmovzxwd], Convert::Zero(2, 4)),
    row(&[Pmovzxwq, Vpmovzxwq], Convert::Zero(2, 8)),
    row(&[Pmovzxdq, Vpmovzxdq], Convert::Zero(4, 8)),
    row(&[Pmovsxbw, Vpmovsxbw], Convert::Sign(1, 2)),
    row(&[Pmovsxbd, Vpmovsxbd], Convert::Sign(1, 4)),
    row(&[Pmovsxbq, Vpmovsxbq], Convert::Sign(1, 8)),
    row(&[Pmovsxwd, Vpmovsxwd], Convert::Sign(2, 4)),
    row(&[Pmovsxwq, Vpmovsxwq], Convert::Sign(2, 8)),
    row(&[Pmovsxdq, Vpmovsxdq], Convert::Sign(4, 8)),
    row(&[Vpmovwb], Convert::Cut(2, 1)),
    row(&[Vpmovdb], Convert::Cut(4, 1)),
    row(&[Vpmovdw], Convert::Cut(4, 2)),
    row(&[Vpmovqb], Convert::Cut(8, 1)),
    row(&[Vpmovqw], Convert::Cut(8, 2)),
    row(&[Vpmovqd], Convert::Cut(8, 4)),
    row(&[Vpmovswb], Convert::CutSigned(2, 1)),
    row(&[Vpmovsdb], Convert::CutSigned(4, 1)),
    row(&[Vpmovsdw], Convert::CutSigned(4, 2)),
    row(&[Vpmovsqb], Convert::CutSigned(8, 1)),
    row(&[Vpmovsqw], Convert::CutSigned(8, 2)),
    row(&[Vpmovsqd], Convert::CutSigned(8, 4)),
    row(&[Vpmovuswb], Convert::CutUnsigned(2, 1)),
    row(&[Vpmovusdb], Convert::CutUnsigned(4, 1)),
    row(&[Vpmovusdw], Convert::CutUnsigned(4, 2)),
    row(&[Vpmovusqb], Convert::CutUnsigned(8, 1)),
    row(&[Vpmovusqw], Convert::CutUnsigned(8, 2)),
    row(&[Vpmovusqd], Convert::CutUnsigned(8, 4)),
];

impl Convert {
    /// Bytes of one lane of a vector result.
    pub(crate) fn target_lane(self) -> Option<u8> {
        match self {
            Convert::Lanes(_, to) | Convert::Cut(_, to) | Convert::CutSigned(_, to) | Convert::CutUnsigned(_, to) => Some(to),
            _ => None,
        }
    }

    /// Bytes of one source lane.
    pub(crate) fn source_lane(self) -> Option<u8> {
        match self {
            Convert::Lanes(from, _)
            | Convert::LowLanes(from, _)
            | Convert::Scalar(from, _)
            | Convert::Zero(from, _)
            | Convert::Sign(from, _)
            | Convert::Cut(from, _)
            | Convert::CutSigned(from, _)
            | Convert::CutUnsigned(from, _) => Some(from),
            Convert::FromInteger(_) | Convert::ToInteger(_) => None,
        }
    }
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Convert) {
    match op {
        Convert::Scalar(from, to) => {
            let (base, source) = pair(cx);
            let any = cx.wide_v(source).lane(usize::from(from), 0);
            cx.put_scalar(spoilt(any), usize::from(to), base);
        }
        Convert::FromInteger(to) => {
            let (base, source) = pair(cx);
            let any = cx.v(source);
            cx.put_scalar(spoilt(any), usize::from(to), base);
        }
        Convert::ToInteger(from) => {
            let any = cx.wide_v(cx.op(1)).lane(usize::from(from), 0);
            cx.set(cx.op(0), spoilt(any));
        }
        Convert::Lanes(from, to)
        | Convert::LowLanes(from, to)
        | Convert::Zero(from, to)
        | Convert::Sign(from, to)
        | Convert::Cut(from, to)
        | Convert::CutSigned(from, to)
        | Convert::CutUnsigned(from, to) => lanes(cx, op, usize::from(from), usize::from(to)),
    }
}

fn spoilt(any: u64) -> u64 {
    if any != 0 { u64::MAX } else { 0 }
}

fn lanes<M: Machine>(cx: &mut Cx<M>, op: Convert, from: usize, to: usize) {
    let (target, source) = (cx.op(0), cx.op(1));
    // A narrowing source may be half as long as its target register's name says; what is missing converts as zeros.
    let target_size = if matches!(op, Convert::LowLanes(..)) { 8 } else { cx.size(0) };
    let source_size = if source == Operand::Mem && cx.plan.broadcast { 64 } else { cx.size(1) };
    let count = (target_size / to).min(source_size / from);
    let narrows = matches!(op, Convert::CutSigned(..) | Convert::CutUnsigned(..));
    let x = if narrows { cx.wide_x(source) } else { Wide::ZERO };
    let source = cx.wide_v(source);
    let n = to as u32 * 8;
    let mut v = Wide::ZERO;
    for i in 0..count {
        let lane = crate::bits::Bits { x: x.lane(from, i), v: source.lane(from, i) };
        let out = match op {
            Convert::Zero(..) | Convert::Cut(..) => lane.v & lane_mask(to),
            Convert::Sign(..) => extended(lane.v, from, to, true),
            Convert::CutSigned(..) => {
                let (lo, hi) = lane.signed_range(from as u32 * 8);
                signed_prefix(saturate(lo, n), saturate(hi, n), n)
            }
            Convert::CutUnsigned(..) => prefix_v(lane.min().min(mask(n)), lane.max().min(mask(n))),
            _ => spoilt(lane.v),
        };
        v.set(to, i, out);
    }
    match target {
        // Between the converted lanes and the end of the register: zeros, up to 16 bytes at least.
        Operand::Vec { .. } if !matches!(op, Convert::LowLanes(..)) => cx.put(target, v, to),
        Operand::Vec { .. } => cx.put_sized(target, v, to, 8),
        _ => cx.put_sized(target, v, to, target_size),
    }
}
