//! Moves of vectors and parts of them: bits go along, nothing is computed.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::sign_extend;
use crate::cx::Cx;
use crate::lanes::pair;
use crate::machine::{ComplaintKind, Machine};
use crate::plan::Operand;
use crate::table::{Row, Rule};
use crate::wide::{Wide, lane_mask};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VMove {
    /// The whole operand; the number is the lane of a write mask.
    Full(u8),
    /// movd, movq: that many bytes, zeros up to 16.
    Low(u8),
    /// movss, movsd: like `Low` with memory, between registers only the low lane.
    Scalar(u8),
    /// movlps, movlpd; movhps, movhpd.
    LowHalf,
    HighHalf,
    HighToLow,
    LowToHigh,
    /// Even or odd lanes doubled: (lane, which).
    Double(u8, u8),
    /// (unit that is repeated, lane of a write mask)
    Broadcast(u8, u8),
    /// vinsertf128 and kin: (unit, lane of a write mask).
    Insert(u8, u8),
    Extract(u8, u8),
    /// pinsr, pextr: one lane from or to an integer.
    InsertLane(u8),
    ExtractLane(u8),
    InsertPs,
    /// movq2dq, movdq2q.
    ToXmm,
    ToMmx,
    /// vmaskmov, vpmaskmov: lanes by the top bits of a register.
    Masked(u8),
    /// maskmovq, maskmovdqu.
    MaskedBytes,
    ZeroUpper,
    ZeroAll,
    /// movdir64b: 64 bytes from memory to the address in a register.
    Direct,
    /// clzero: the cache line at rax becomes zero.
    ZeroLine,
}

const fn row(names: &'static [M], op: VMove) -> Row {
    (names, Rule::VMove(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Movaps, Movups, Movntps, Vmovaps, Vmovups, Vmovntps, Vmovdqa32, Vmovdqu32], VMove::Full(4)),
    row(&[Movapd, Movupd, Movntpd, Movdqa, Movdqu, Movntdq, Movntdqa, Lddqu, Movntq, Vmovapd, Vmovupd, Vmovntpd, Vmovdqa, Vmovdqu,
          Vmovntdq, Vmovntdqa, Vlddqu, Vmovdqa64, Vmovdqu64], VMove::Full(8)),
    row(&[Vmovdqu16], VMove::Full(2)),
    row(&[Vmovdqu8], VMove::Full(1)),
    row(&[Movd, Vmovd], VMove::Low(4)),
    row(&[Movq, Vmovq], VMove::Low(8)),
    row(&[Vmovw], VMove::Low(2)),
    row(&[Movss, Vmovss, Movntss], VMove::Scalar(4)),
    row(&[Movsd, Vmovsd, Movntsd], VMove::Scalar(8)),
    row(&[Vmovsh], VMove::Scalar(2)),
    row(&[Movlps, Movlpd, Vmovlps, Vmovlpd], VMove::LowHalf),
    row(&[Movhps, Movhpd, Vmovhps, Vmovhpd], VMove::HighHalf),
    row(&[Movhlps, Vmovhlps], VMove::HighToLow),
    row(&[Movlhps, Vmovlhps], VMove::LowToHigh),
    row(&[Movddup, Vmovddup], VMove::Double(8, 0)),
    row(&[Movsldup, Vmovsldup], VMove::Double(4, 0)),
    row(&[Movshdup, Vmovshdup], VMove::Double(4, 1)),
    row(&[Vpbroadcastb], VMove::Broadcast(1, 1)),
    row(&[Vpbroadcastw], VMove::Broadcast(2, 2)),
    row(&[Vpbroadcastd, Vbroadcastss], VMove::Broadcast(4, 4)),
    row(&[Vpbroadcastq, Vbroadcastsd], VMove::Broadcast(8, 8)),
    row(&[Vbroadcastf32x2, Vbroadcasti32x2], VMove::Broadcast(8, 4)),
    row(&[Vbroadcastf128, Vbroadcasti128, Vbroadcastf64x2, Vbroadcasti64x2], VMove::Broadcast(16, 8)),
    row(&[Vbroadcastf32x4, Vbroadcasti32x4], VMove::Broadcast(16, 4)),
    row(&[Vbroadcastf32x8, Vbroadcasti32x8], VMove::Broadcast(32, 4)),
    row(&[Vbroadcastf64x4, Vbroadcasti64x4], VMove::Broadcast(32, 8)),
    row(&[Vinsertf128, Vinserti128, Vinsertf64x2, Vinserti64x2], VMove::Insert(16, 8)),
    row(&[Vinsertf32x4, Vinserti32x4], VMove::Insert(16, 4)),
    row(&[Vinsertf32x8, Vinserti32x8], VMove::Insert(32, 4)),
    row(&[Vinsertf64x4, Vinserti64x4], VMove::Insert(32, 8)),
    row(&[Vextractf128, Vextracti128, Vextractf64x2, Vextracti64x2], VMove::Extract(16, 8)),
    row(&[Vextractf32x4, Vextracti32x4], VMove::Extract(16, 4)),
    row(&[Vextractf32x8, Vextracti32x8], VMove::Extract(32, 4)),
    row(&[Vextractf64x4, Vextracti64x4], VMove::Extract(32, 8)),
    row(&[Pinsrb, Vpinsrb], VMove::InsertLane(1)),
    row(&[Pinsrw, Vpinsrw], VMove::InsertLane(2)),
    row(&[Pinsrd, Vpinsrd], VMove::InsertLane(4)),
    row(&[Pinsrq, Vpinsrq], VMove::InsertLane(8)),
    row(&[Pextrb, Vpextrb], VMove::ExtractLane(1)),
    row(&[Pextrw, Vpextrw], VMove::ExtractLane(2)),
    row(&[Pextrd, Vpextrd, Extractps, Vextractps], VMove::ExtractLane(4)),
    row(&[Pextrq, Vpextrq], VMove::ExtractLane(8)),
    row(&[M::Insertps, Vinsertps], VMove::InsertPs),
    row(&[Movq2dq], VMove::ToXmm),
    row(&[Movdq2q], VMove::ToMmx),
    row(&[Vmaskmovps, Vpmaskmovd], VMove::Masked(4)),
    row(&[Vmaskmovpd, Vpmaskmovq], VMove::Masked(8)),
    row(&[Maskmovq, Maskmovdqu, Vmaskmovdqu], VMove::MaskedBytes),
    row(&[Vzeroupper], VMove::ZeroUpper),
    row(&[Vzeroall], VMove::ZeroAll),
    row(&[Movdir64b], VMove::Direct),
    row(&[Clzero], VMove::ZeroLine),
];

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: VMove) {
    let target = cx.op(0);
    match op {
        VMove::Full(lane) => {
            let v = cx.wide_v(cx.op(1));
            cx.put(target, v, usize::from(lane));
        }
        VMove::Low(bytes) => low(cx, usize::from(bytes)),
        VMove::Scalar(bytes) => scalar(cx, usize::from(bytes)),
        VMove::LowHalf => half(cx, 0),
        VMove::HighHalf => half(cx, 1),
        VMove::HighToLow => cross(cx, 0, 1),
        VMove::LowToHigh => cross(cx, 1, 0),
        VMove::Double(lane, which) => double(cx, usize::from(lane), usize::from(which)),
        VMove::Broadcast(unit, lane) => {
            let v = cx.wide_v(cx.op(1)).repeated(usize::from(unit));
            cx.put(target, v, usize::from(lane));
        }
        VMove::Insert(unit, lane) => insert(cx, usize::from(unit), usize::from(lane)),
        VMove::Extract(unit, lane) => extract(cx, usize::from(unit), usize::from(lane)),
        VMove::InsertLane(lane) => insert_lane(cx, usize::from(lane)),
        VMove::ExtractLane(lane) => extract_lane(cx, usize::from(lane)),
        VMove::InsertPs => insert_ps(cx),
        VMove::ToXmm => {
            let v = cx.wide_v(cx.op(1));
            cx.put(target, v, 8);
        }
        VMove::ToMmx => {
            let v = cx.wide_v(cx.op(1)).0[0];
            cx.set(target, v);
        }
        VMove::Masked(lane) => masked(cx, usize::from(lane)),
        VMove::MaskedBytes => masked_bytes(cx),
        VMove::ZeroUpper => (0..16).for_each(|n| zero_above(cx, n, 16)),
        VMove::ZeroAll => (0..16).for_each(|n| zero_above(cx, n, 0)),
        VMove::Direct => {
            if let Operand::Gpr { n, .. } = target {
                cx.check_address(1 << n);
            }
            let (to, v) = (cx.x(target), cx.wide_v(Operand::Mem));
            cx.store_v(to, 64, v);
        }
        VMove::ZeroLine => {
            cx.check_address(1);
            let line = cx.m.gpr(0) & !63;
            cx.store_zeros(line, 64);
        }
    }
}

fn zero_above<M: Machine>(cx: &mut Cx<M>, n: usize, bytes: usize) {
    let v = cx.regs.vec(n).truncated(bytes);
    let origin = cx.regs.origin[crate::regs::VEC0 + n];
    cx.regs.set_vec(n, v, origin);
}

/// To a vector: zeros up to 16 bytes; to anything else: just the bytes.
fn low<M: Machine>(cx: &mut Cx<M>, bytes: usize) {
    let target = cx.op(0);
    let v = cx.wide_v(cx.op(1)).truncated(bytes);
    match target {
        Operand::Vec { .. } => cx.put_sized(target, v, 8, 16),
        _ => cx.set(target, v.0[0]),
    }
}

fn scalar<M: Machine>(cx: &mut Cx<M>, bytes: usize) {
    let (target, source) = (cx.op(0), cx.op(1));
    if target == Operand::Mem {
        let v = cx.wide_v(source).truncated(bytes);
        return cx.put(target, v, bytes);
    }
    if source == Operand::Mem {
        let v = cx.wide_v(source).lane(bytes, 0);
        return cx.put_scalar(v, bytes, Operand::None);
    }
    let (base, source) = pair(cx);
    let v = cx.wide_v(source).lane(bytes, 0);
    cx.put_scalar(v, bytes, base);
}

/// movlps and movhps: one half from or to memory.
fn half<M: Machine>(cx: &mut Cx<M>, which: usize) {
    if cx.op(0) == Operand::Mem {
        let v = cx.wide_v(cx.op(1)).0[which];
        return cx.set(Operand::Mem, v);
    }
    let (base, source) = pair(cx);
    let mut v = cx.wide_v(base).truncated(16);
    v.0[which] = cx.wide_v(source).0[0];
    cx.put_sized(cx.op(0), v, 8, 16);
}

fn cross<M: Machine>(cx: &mut Cx<M>, to: usize, from: usize) {
    let (base, source) = pair(cx);
    let mut v = cx.wide_v(base).truncated(16);
    v.0[to] = cx.wide_v(source).0[from];
    cx.put_sized(cx.op(0), v, 8, 16);
}

fn double<M: Machine>(cx: &mut Cx<M>, lane: usize, which: usize) {
    let source = cx.wide_v(cx.op(1));
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        v.set(lane, i, source.lane(lane, i & !1 | which));
    }
    cx.put(cx.op(0), v, lane);
}

fn insert<M: Machine>(cx: &mut Cx<M>, unit: usize, lane: usize) {
    let (words, part) = (unit / 8, cx.plan.immediate() as usize % (cx.size(0) / unit).max(1));
    let mut v = cx.wide_v(cx.op(1));
    let source = cx.wide_v(cx.op(2));
    for i in 0..words {
        if let Some(word) = v.0.get_mut(part * words + i) {
            *word = source.0[i];
        }
    }
    cx.put(cx.op(0), v, lane);
}

fn extract<M: Machine>(cx: &mut Cx<M>, unit: usize, lane: usize) {
    let (words, part) = (unit / 8, cx.plan.immediate() as usize % (cx.size(1) / unit).max(1));
    let source = cx.wide_v(cx.op(1));
    let mut v = Wide::ZERO;
    for i in 0..words {
        v.0[i] = source.0.get(part * words + i).copied().unwrap_or(0);
    }
    cx.put(cx.op(0), v, lane);
}

fn insert_lane<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (base, source) = pair(cx);
    let at = cx.plan.immediate() as usize % (cx.size(0) / lane).max(1);
    let mut v = cx.wide_v(base);
    v.set(lane, at, cx.v(source));
    cx.put(cx.op(0), v, lane);
}

fn extract_lane<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let at = cx.plan.immediate() as usize % (cx.size(1) / lane).max(1);
    let v = cx.wide_v(cx.op(1)).lane(lane, at);
    cx.set(cx.op(0), v);
}

/// Immediate: source lane (7:6), target lane (5:4), lanes to clear (3:0).
fn insert_ps<M: Machine>(cx: &mut Cx<M>) {
    let (base, source) = pair(cx);
    let control = cx.plan.immediate() as usize;
    let from = if source == Operand::Mem { 0 } else { control >> 6 & 3 };
    let mut v = cx.wide_v(base).truncated(16);
    v.set(4, control >> 4 & 3, cx.wide_v(source).lane(4, from));
    (0..4).filter(|i| control >> i & 1 != 0).for_each(|i| v.set(4, i, 0));
    cx.put(cx.op(0), v, 4);
}

/// The lanes of a mask register whose top bit is set; undefined top bits are complained about and then count as they are.
fn guards<M: Machine>(cx: &mut Cx<M>, operand: Operand, lane: usize, lanes: usize) -> u64 {
    let control = cx.vector(operand);
    let mut on = 0;
    let mut undefined = false;
    for i in 0..lanes {
        let top = 1u64 << (lane * 8 - 1);
        undefined |= control.v.lane(lane, i) & top != 0;
        on |= u64::from(control.x.lane(lane, i) & top != 0) << i;
    }
    if undefined {
        cx.complain(ComplaintKind::Cond, cx.origin);
        if let Operand::Vec { n, .. } = operand {
            cx.regs.set_vec(usize::from(n), Wide::ZERO, 0);
        }
    }
    on
}

fn masked<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (control, store) = (cx.op(1), cx.op(0) == Operand::Mem);
    let lanes = cx.size(1) / lane;
    let on = guards(cx, control, lane, lanes);
    let source = if store { cx.wide_v(cx.op(2)) } else { Wide::ZERO };
    let mut v = Wide::ZERO;
    for i in (0..lanes).filter(|i| on >> i & 1 != 0) {
        let at = cx.addr.wrapping_add((i * lane) as u64);
        if store {
            let mut one = Wide::ZERO;
            one.0[0] = source.lane(lane, i);
            cx.store_v(at, lane, one);
        } else {
            let one = cx.load_v(at, lane).0[0];
            if one != 0 {
                cx.origin = cx.m.load_origin(at, lane);
            }
            v.set(lane, i, one);
        }
    }
    if !store {
        cx.put(cx.op(0), v, lane);
    }
}

fn masked_bytes<M: Machine>(cx: &mut Cx<M>) {
    let (source, control) = (cx.op(1), cx.op(2));
    let lanes = cx.size(1);
    let on = guards(cx, control, 1, lanes);
    let v = cx.wide_v(source);
    for i in (0..lanes).filter(|i| on >> i & 1 != 0) {
        let mut one = Wide::ZERO;
        one.0[0] = v.lane(1, i);
        cx.store_v(cx.addr.wrapping_add(i as u64), 1, one);
    }
}

/// Sign or zero extension of a lane's V.
pub(crate) fn extended(v: u64, from: usize, to: usize, signed: bool) -> u64 {
    let v = if signed { sign_extend(v, from as u32 * 8) as u64 } else { v };
    v & lane_mask(to)
}
