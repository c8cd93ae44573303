//! Shuffles, blends, interleavings and packs: lanes change place, by an immediate or by a register.
//!
//! Where a register chooses, an undefined choice gives the union over all lanes that could be chosen.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask};
use crate::cx::Cx;
use crate::lanes::{Lane, Vector, lane_v, pair, saturate, signed_prefix};
use crate::machine::Machine;
use crate::plan::Operand;
use crate::table::{Row, Rule};
use crate::wide::{Wide, lane_mask};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shuffle {
    /// pshufd, pshuflw, pshufhw by an immediate of 2-bit fields.
    Dwords,
    LowWords,
    HighWords,
    /// shufps, shufpd: lower half from the first source, upper from the second.
    Two(u8),
    /// vpermilps, vpermilpd: within 16 bytes, by immediate or register.
    InBlock(u8),
    /// vpermq, vpermpd by immediate within 32 bytes, or by register as `Across`.
    Quads,
    /// vpermb, vpermw, vpermd, vpermps: control in the first source.
    Across(u8),
    /// vpermi2*: control in the destination; vpermt2*: control in the first source.
    Index2(u8),
    Table2(u8),
    /// vperm2f128.
    Blocks2,
    /// vshuff32x4 and kin: 16-byte blocks, lower half from the first source; the number is the mask lane.
    Blocks(u8),
    /// Bytes of the two sources joined and shifted, per 16 bytes.
    AlignBytes,
    /// The same for whole vectors by lanes.
    AlignLanes(u8),
    ShiftBytesLeft,
    ShiftBytesRight,
    /// punpckl*, punpckh*: (lane, upper half).
    Unpack(u8, bool),
    /// pshufb.
    Bytes,
    /// Lane i from the second source if bit i of the immediate is set.
    Blend(u8),
    /// By the top bits of a register's lanes.
    BlendBy(u8),
    /// By the write mask.
    BlendMask(u8),
    /// Saturating packs from lanes of this size; signed or unsigned result.
    Pack(u8, bool),
    /// haddps, phaddd…: pairs of neighbours; (lane, what is done with them).
    Horizontal(u8, Lane),
    Compress(u8),
    Expand(u8),
    /// extrq, insertq: a field of the low word to its bottom, or the bottom of another word to a field.
    ExtractField,
    InsertField,
}

const fn row(names: &'static [M], op: Shuffle) -> Row {
    (names, Rule::Shuffle(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Pshufd, Vpshufd], Shuffle::Dwords),
    row(&[Pshuflw, Vpshuflw, Pshufw], Shuffle::LowWords),
    row(&[Pshufhw, Vpshufhw], Shuffle::HighWords),
    row(&[Shufps, Vshufps], Shuffle::Two(4)),
    row(&[Shufpd, Vshufpd], Shuffle::Two(8)),
    row(&[Vpermilps], Shuffle::InBlock(4)),
    row(&[Vpermilpd], Shuffle::InBlock(8)),
    row(&[Vpermq, Vpermpd], Shuffle::Quads),
    row(&[Vpermb], Shuffle::Across(1)),
    row(&[Vpermw], Shuffle::Across(2)),
    row(&[Vpermd, Vpermps], Shuffle::Across(4)),
    row(&[Vpermi2b], Shuffle::Index2(1)),
    row(&[Vpermi2w], Shuffle::Index2(2)),
    row(&[Vpermi2d, Vpermi2ps], Shuffle::Index2(4)),
    row(&[Vpermi2q, Vpermi2pd], Shuffle::Index2(8)),
    row(&[Vpermt2b], Shuffle::Table2(1)),
    row(&[Vpermt2w], Shuffle::Table2(2)),
    row(&[Vpermt2d, Vpermt2ps], Shuffle::Table2(4)),
    row(&[Vpermt2q, Vpermt2pd], Shuffle::Table2(8)),
    row(&[Vperm2f128, Vperm2i128], Shuffle::Blocks2),
    row(&[Vshuff32x4, Vshufi32x4], Shuffle::Blocks(4)),
    row(&[Vshuff64x2, Vshufi64x2], Shuffle::Blocks(8)),
    row(&[Palignr, Vpalignr], Shuffle::AlignBytes),
    row(&[Valignd], Shuffle::AlignLanes(4)),
    row(&[Valignq], Shuffle::AlignLanes(8)),
    row(&[Pslldq, Vpslldq], Shuffle::ShiftBytesLeft),
    row(&[Psrldq, Vpsrldq], Shuffle::ShiftBytesRight),
    row(&[Punpcklbw, Vpunpcklbw], Shuffle::Unpack(1, false)),
    row(&[Punpcklwd, Vpunpcklwd], Shuffle::Unpack(2, false)),
    row(&[Punpckldq, Vpunpckldq, Unpcklps, Vunpcklps], Shuffle::Unpack(4, false)),
    row(&[Punpcklqdq, Vpunpcklqdq, Unpcklpd, Vunpcklpd], Shuffle::Unpack(8, false)),
    row(&[Punpckhbw, Vpunpckhbw], Shuffle::Unpack(1, true)),
    row(&[Punpckhwd, Vpunpckhwd], Shuffle::Unpack(2, true)),
    row(&[Punpckhdq, Vpunpckhdq, Unpckhps, Vunpckhps], Shuffle::Unpack(4, true)),
    row(&[Punpckhqdq, Vpunpckhqdq, Unpckhpd, Vunpckhpd], Shuffle::Unpack(8, true)),
    row(&[Pshufb, Vpshufb], Shuffle::Bytes),
    row(&[Extrq], Shuffle::ExtractField),
    row(&[Insertq], Shuffle::InsertField),
    row(&[Pblendw, Vpblendw], Shuffle::Blend(2)),
    row(&[Blendps, Vblendps, Vpblendd], Shuffle::Blend(4)),
    row(&[Blendpd, Vblendpd], Shuffle::Blend(8)),
    row(&[Pblendvb, Vpblendvb], Shuffle::BlendBy(1)),
    row(&[Blendvps, Vblendvps], Shuffle::BlendBy(4)),
    row(&[Blendvpd, Vblendvpd], Shuffle::BlendBy(8)),
    row(&[Vpblendmb], Shuffle::BlendMask(1)),
    row(&[Vpblendmw], Shuffle::BlendMask(2)),
    row(&[Vpblendmd, Vblendmps], Shuffle::BlendMask(4)),
    row(&[Vpblendmq, Vblendmpd], Shuffle::BlendMask(8)),
    row(&[Packsswb, Vpacksswb], Shuffle::Pack(2, true)),
    row(&[Packuswb, Vpackuswb], Shuffle::Pack(2, false)),
    row(&[Packssdw, Vpackssdw], Shuffle::Pack(4, true)),
    row(&[Packusdw, Vpackusdw], Shuffle::Pack(4, false)),
    row(&[Phaddw, Vphaddw], Shuffle::Horizontal(2, Lane::Add)),
    row(&[Phsubw, Vphsubw], Shuffle::Horizontal(2, Lane::Sub)),
    row(&[Phaddsw, Vphaddsw], Shuffle::Horizontal(2, Lane::AddSatS)),
    row(&[Phsubsw, Vphsubsw], Shuffle::Horizontal(2, Lane::SubSatS)),
    row(&[Phaddd, Vphaddd], Shuffle::Horizontal(4, Lane::Add)),
    row(&[Phsubd, Vphsubd], Shuffle::Horizontal(4, Lane::Sub)),
    row(&[Haddps, Vhaddps, Hsubps, Vhsubps], Shuffle::Horizontal(4, Lane::Any)),
    row(&[Haddpd, Vhaddpd, Hsubpd, Vhsubpd], Shuffle::Horizontal(8, Lane::Any)),
    row(&[Vpcompressb], Shuffle::Compress(1)),
    row(&[Vpcompressw], Shuffle::Compress(2)),
    row(&[Vpcompressd, Vcompressps], Shuffle::Compress(4)),
    row(&[Vpcompressq, Vcompresspd], Shuffle::Compress(8)),
    row(&[Vpexpandb], Shuffle::Expand(1)),
    row(&[Vpexpandw], Shuffle::Expand(2)),
    row(&[Vpexpandd, Vexpandps], Shuffle::Expand(4)),
    row(&[Vpexpandq, Vexpandpd], Shuffle::Expand(8)),
];

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Shuffle) {
    let imm = cx.plan.immediate() as usize;
    match op {
        Shuffle::Dwords => one(cx, 4, |i| i & !3 | imm >> (i % 4 * 2) & 3),
        Shuffle::LowWords => one(cx, 2, |i| if i & 4 == 0 { i & !3 | imm >> (i % 4 * 2) & 3 } else { i }),
        Shuffle::HighWords => one(cx, 2, |i| if i & 4 != 0 { i & !3 | imm >> (i % 4 * 2) & 3 } else { i }),
        Shuffle::Two(4) => two(cx, 4, |i| (i & 2 != 0, i & !3 | imm >> (i % 4 * 2) & 3)),
        Shuffle::Two(_) => two(cx, 8, |i| (i & 1 != 0, i & !1 | imm >> i & 1)),
        Shuffle::Unpack(lane, high) => unpack(cx, usize::from(lane), high),
        Shuffle::Blend(lane) => two(cx, usize::from(lane), |i| (imm >> (i % 8) & 1 != 0, i)),
        Shuffle::AlignLanes(lane) => align_lanes(cx, usize::from(lane)),
        Shuffle::AlignBytes => align_bytes(cx, imm & 0xFF),
        Shuffle::ShiftBytesLeft | Shuffle::ShiftBytesRight => shift_bytes(cx, op == Shuffle::ShiftBytesLeft, imm & 0xFF),
        Shuffle::Blocks2 => blocks2(cx, imm),
        Shuffle::Blocks(lane) => blocks(cx, usize::from(lane), imm),
        Shuffle::InBlock(_) | Shuffle::Quads | Shuffle::Across(_) | Shuffle::Index2(_) | Shuffle::Table2(_) | Shuffle::Bytes => {
            by_register(cx, op, imm);
        }
        Shuffle::BlendBy(lane) => blend_by(cx, usize::from(lane)),
        Shuffle::BlendMask(lane) => blend_mask(cx, usize::from(lane)),
        Shuffle::Pack(lane, signed) => pack(cx, usize::from(lane), signed),
        Shuffle::Horizontal(lane, op) => horizontal(cx, usize::from(lane), op),
        Shuffle::Compress(lane) => compress(cx, usize::from(lane)),
        Shuffle::Expand(lane) => expand(cx, usize::from(lane)),
        Shuffle::ExtractField => extract_field(cx),
        Shuffle::InsertField => insert_field(cx),
    }
}

/// Bits of a field at the bottom, and where it begins, by two immediates from operand `at` on, or bits 0..6 and 8..14 of word `word` of operand 1. None: they are
/// undefined, or the field ends outside the word.
fn field<M: Machine>(cx: &mut Cx<M>, at: usize, word: usize) -> Option<(u64, u64)> {
    let (len, first) = match (cx.op(at), cx.op(at + 1)) {
        (Operand::Imm(len), Operand::Imm(first)) => (len, first),
        _ => {
            let by = cx.op(1);
            let known = cx.wide_v(by).0[word] & 0x3F3F == 0;
            let control = cx.wide_x(by).0[word];
            known.then_some((control, control >> 8))?
        }
    };
    let (len, first) = (if len & 63 == 0 { 64 } else { len & 63 }, first & 63);
    (len + first <= 64).then_some((u64::MAX >> (64 - len), first))
}

/// A field of which nothing is known: undefined if anything is.
fn spoilt<M: Machine>(cx: &Cx<M>) -> u64 {
    if cx.wide_v(cx.op(0)).is_zero() && cx.wide_v(cx.op(1)).is_zero() { 0 } else { u64::MAX }
}

fn extract_field<M: Machine>(cx: &mut Cx<M>) {
    let mut v = cx.wide_v(cx.op(0));
    v.0[0] = match field(cx, 1, 0) {
        Some((bits, first)) => v.0[0] >> first & bits,
        None => spoilt(cx),
    };
    cx.put(cx.op(0), v, 8);
}

fn insert_field<M: Machine>(cx: &mut Cx<M>) {
    let (mut v, from) = (cx.wide_v(cx.op(0)), cx.wide_v(cx.op(1)));
    v.0[0] = match field(cx, 2, 1) {
        Some((bits, first)) => v.0[0] & !(bits << first) | (from.0[0] & bits) << first,
        None => spoilt(cx),
    };
    cx.put(cx.op(0), v, 8);
}

/// Lane i of the result is lane `from(i)` of operand 1.
fn one<M: Machine>(cx: &mut Cx<M>, lane: usize, from: impl Fn(usize) -> usize) {
    let source = cx.wide_v(cx.op(1));
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        v.set(lane, i, source.lane(lane, from(i)));
    }
    cx.put(cx.op(0), v, lane);
}

/// Lane i of the result is a lane of the second source (true) or the first.
fn two<M: Machine>(cx: &mut Cx<M>, lane: usize, from: impl Fn(usize) -> (bool, usize)) {
    let (a, b) = pair(cx);
    let (a, b) = (cx.wide_v(a), cx.wide_v(b));
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        let (second, at) = from(i);
        v.set(lane, i, if second { b } else { a }.lane(lane, at));
    }
    cx.put(cx.op(0), v, lane);
}

fn unpack<M: Machine>(cx: &mut Cx<M>, lane: usize, high: bool) {
    let block = cx.size(0).min(16) / lane;
    two(cx, lane, |i| {
        let within = i % block;
        (within & 1 != 0, i - within + within / 2 + if high { block / 2 } else { 0 })
    });
}

fn align_lanes<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let lanes = cx.size(0) / lane;
    let by = cx.plan.immediate() as usize % lanes;
    // The second source is the lower part of the joined vector.
    two(cx, lane, |i| (i + by < lanes, (i + by) % lanes));
}

/// Per block: second source below, first above, shifted right by bytes.
fn align_bytes<M: Machine>(cx: &mut Cx<M>, by: usize) {
    let (a, b) = pair(cx);
    let (a, b) = (cx.wide_v(a), cx.wide_v(b));
    let block = cx.size(0).min(16);
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) {
        let (start, at) = (i / block * block, i % block + by);
        let byte = match at / block {
            0 => b.lane(1, start + at),
            1 => a.lane(1, start + at - block),
            _ => 0,
        };
        v.set(1, i, byte);
    }
    cx.put(cx.op(0), v, 1);
}

fn shift_bytes<M: Machine>(cx: &mut Cx<M>, left: bool, by: usize) {
    let source = cx.wide_v(pair(cx).0);
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) {
        let within = i % 16;
        let from = if left { within.checked_sub(by) } else { Some(within + by).filter(|&at| at < 16) };
        v.set(1, i, from.map_or(0, |at| source.lane(1, i - within + at)));
    }
    cx.put(cx.op(0), v, 1);
}

fn blocks2<M: Machine>(cx: &mut Cx<M>, imm: usize) {
    let (a, b) = pair(cx);
    let sources = [cx.wide_v(a), cx.wide_v(b)];
    let mut v = Wide::ZERO;
    for i in 0..2 {
        let control = imm >> (i * 4);
        if control & 8 == 0 {
            let from = sources[control >> 1 & 1];
            (0..2).for_each(|word| v.0[i * 2 + word] = from.0[(control & 1) * 2 + word]);
        }
    }
    cx.put(cx.op(0), v, 8);
}

fn blocks<M: Machine>(cx: &mut Cx<M>, lane: usize, imm: usize) {
    let (a, b) = pair(cx);
    let sources = [cx.wide_v(a), cx.wide_v(b)];
    let count = cx.size(0) / 16;
    let field = if count == 4 { 2 } else { 1 };
    let mut v = Wide::ZERO;
    for i in 0..count {
        let from = (imm >> (i * field)) & (count - 1);
        let source = sources[usize::from(i >= count / 2)];
        (0..2).for_each(|word| v.0[i * 2 + word] = source.0[from * 2 + word]);
    }
    cx.put(cx.op(0), v, lane);
}

/// Control lanes in a register.
fn by_register<M: Machine>(cx: &mut Cx<M>, op: Shuffle, imm: usize) {
    let by_immediate = matches!(cx.op(2), Operand::Imm(_));
    match op {
        Shuffle::InBlock(4) if by_immediate => return one(cx, 4, |i| i & !3 | imm >> (i % 4 * 2) & 3),
        Shuffle::InBlock(_) if by_immediate => return one(cx, 8, |i| i & !1 | imm >> i & 1),
        Shuffle::Quads if by_immediate => return one(cx, 8, |i| i & !3 | imm >> (i % 4 * 2) & 3),
        _ => {}
    }
    let size = cx.size(0);
    let (lane, control, first, second) = match op {
        Shuffle::InBlock(lane) => (usize::from(lane), cx.op(2), cx.op(1), Operand::None),
        Shuffle::Quads => (8, cx.op(1), cx.op(2), Operand::None),
        Shuffle::Across(lane) => (usize::from(lane), cx.op(1), cx.op(2), Operand::None),
        Shuffle::Index2(lane) => (usize::from(lane), cx.op(0), cx.op(1), cx.op(2)),
        Shuffle::Table2(lane) => (usize::from(lane), cx.op(1), cx.op(0), cx.op(2)),
        _ => {
            let (source, control) = pair(cx);
            (1, control, source, Operand::None)
        }
    };
    let (control, first, second) = (cx.vector(control), cx.vector(first), cx.vector(second));
    let lanes = size / lane;
    let mut v = Wide::ZERO;
    for i in 0..lanes {
        let c = control.lane(lane, i);
        v.set(lane, i, chosen(op, c, i, lanes, lane, &first, &second));
    }
    cx.put(cx.op(0), v, lane);
}

/// V of result lane `i` whose control lane is `c`.
fn chosen(op: Shuffle, c: Bits, i: usize, lanes: usize, lane: usize, first: &Vector, second: &Vector) -> u64 {
    let all = lane_mask(lane);
    let pick = |at: u64| first.lane(lane, at as usize);
    match op {
        Shuffle::InBlock(4) => bits::choose_v(c.masked(3), all, |n| pick((i & !3) as u64 | n)),
        Shuffle::InBlock(_) => bits::choose_v(c.masked(2), all, |n| pick((i & !1) as u64 | n >> 1)),
        Shuffle::Bytes => {
            let block = lanes.min(16) as u64;
            let start = i as u64 / block * block;
            let zero = |n: u64| if n & 0x80 != 0 { Bits::known(0) } else { pick(start + n % block) };
            bits::choose_v(c.masked(0x80 | (block - 1)), all, zero)
        }
        Shuffle::Index2(_) | Shuffle::Table2(_) => {
            let lanes = lanes as u64;
            let either = |n: u64| {
                let source = if n & lanes == 0 { first } else { second };
                source.lane(lane, (n % lanes) as usize)
            };
            bits::choose_v(c.masked(2 * lanes - 1), all, either)
        }
        _ => bits::choose_v(c.masked(lanes as u64 - 1), all, pick),
    }
}

/// V of "b if the choice is 1, else a".
pub(crate) fn select(choice: Bits, a: Bits, b: Bits) -> u64 {
    if choice.v != 0 {
        a.v | b.v | (a.x ^ b.x)
    } else if choice.x != 0 {
        b.v
    } else {
        a.v
    }
}

fn blend_by<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (a, b) = pair(cx);
    let control = if cx.plan.vex { cx.op(3) } else { Operand::Vec { n: 0, size: 16 } };
    let (a, b, control) = (cx.vector(a), cx.vector(b), cx.vector(control));
    let top = 1u64 << (lane * 8 - 1);
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        v.set(lane, i, select(control.lane(lane, i).masked(top), a.lane(lane, i), b.lane(lane, i)));
    }
    cx.put(cx.op(0), v, lane);
}

/// The write mask chooses between the two sources (or zero) instead of protecting the destination.
fn blend_mask<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (a, b) = (cx.vector(cx.op(1)), cx.vector(cx.op(2)));
    let (k, zeroing) = match cx.plan.mask {
        Some(mask) => (cx.mask_bits(mask.k), mask.zeroing),
        None => (Bits::known(u64::MAX), false),
    };
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        let choice = Bits { x: k.x >> i & 1, v: k.v >> i & 1 };
        let other = if zeroing { Bits::known(0) } else { a.lane(lane, i) };
        v.set(lane, i, select(choice, other, b.lane(lane, i)));
    }
    if let (Operand::Vec { n, .. }, false) = (cx.op(0), cx.fault) {
        cx.regs.set_vec(usize::from(n), v, cx.origin);
    }
}

/// Saturation is monotone, so intervals are exact enough.
fn pack<M: Machine>(cx: &mut Cx<M>, lane: usize, signed: bool) {
    let (a, b) = pair(cx);
    let (a, b) = (cx.vector(a), cx.vector(b));
    let (half, n) = (lane / 2, lane as u32 * 4);
    let block = cx.size(0).min(16) / half;
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / half {
        let (start, within) = (i / block * (block / 2), i % block);
        let source = if within < block / 2 { &a } else { &b };
        let (lo, hi) = source.lane(lane, start + within % (block / 2)).signed_range(lane as u32 * 8);
        let fit = |x: i64| if signed { saturate(x, n) } else { x.clamp(0, mask(n) as i64) };
        v.set(half, i, signed_prefix(fit(lo), fit(hi), n));
    }
    cx.put(cx.op(0), v, half);
}

/// Per block: pairs of the first source, then pairs of the second.
fn horizontal<M: Machine>(cx: &mut Cx<M>, lane: usize, op: Lane) {
    let (a, b) = pair(cx);
    let (a, b) = (cx.vector(a), cx.vector(b));
    let block = cx.size(0).min(16) / lane;
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / lane {
        let (start, within) = (i - i % block, i % block);
        let source = if within < block / 2 { &a } else { &b };
        let at = start + within % (block / 2) * 2;
        let (left, right) = (source.lane(lane, at), source.lane(lane, at + 1));
        if left.v | right.v != 0 {
            v.set(lane, i, lane_v(op, lane as u32 * 8, left, right));
        }
    }
    cx.put(cx.op(0), v, lane);
}

/// The lanes chosen by the mask, packed at the bottom; the rest keeps the destination or becomes zero, memory is written no further.
fn compress<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let (target, source) = (cx.op(0), cx.op(1));
    let from = cx.wide_v(source);
    let lanes = cx.size(1) / lane;
    let k = active(cx, lanes);
    let mut v = Wide::ZERO;
    let mut to = 0;
    for i in (0..lanes).filter(|i| k.x >> i & 1 != 0) {
        v.set(lane, to, from.lane(lane, i));
        to += 1;
    }
    if target == Operand::Mem {
        return cx.store_v(cx.addr, to * lane, v);
    }
    if k.v != 0 {
        v = v | Wide::ONES.truncated(lanes * lane);
    } else if !cx.plan.mask.is_some_and(|mask| mask.zeroing) {
        v = v.with_upper(to * lane, cx.wide_v(target));
    }
    if let (Operand::Vec { n, size }, false) = (target, cx.fault) {
        cx.regs.set_vec(usize::from(n), v.truncated(usize::from(size)), cx.origin);
    }
}

/// Lanes read from the bottom go where the mask says.
fn expand<M: Machine>(cx: &mut Cx<M>, lane: usize) {
    let lanes = cx.size(0) / lane;
    let k = active(cx, lanes);
    let count = k.x.count_ones() as usize;
    let from = if cx.op(1) == Operand::Mem {
        let v = cx.load_v(cx.addr, count * lane);
        if !v.is_zero() {
            cx.origin = cx.m.load_origin(cx.addr, count * lane);
        }
        v
    } else {
        cx.wide_v(cx.op(1))
    };
    let mut v = Wide::ZERO;
    for (next, i) in (0..lanes).filter(|i| k.x >> i & 1 != 0).enumerate() {
        v.set(lane, i, from.lane(lane, next));
    }
    if k.v != 0 {
        v = Wide::ONES.truncated(lanes * lane);
    }
    cx.put(cx.op(0), v, lane);
}

/// The write mask's bits for that many lanes.
fn active<M: Machine>(cx: &Cx<M>, lanes: usize) -> Bits {
    let all = mask(lanes.clamp(1, 64) as u32);
    cx.plan.mask.map_or(Bits::known(all), |mask| cx.mask_bits(mask.k).masked(all))
}
