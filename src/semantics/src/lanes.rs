//! Vector arithmetic lane by lane: logic, integers, shifts, floating point.
//!
//! Logic is exact bit by bit, integer sums exact per lane, monotone operations (minimum, saturating sums, averages…) by intervals. Floating
//! point follows the simple rule: any undefined bit in a lane spoils the lane.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask, prefix_v, sign_extend};
use crate::compare;
use crate::cx::Cx;
use crate::machine::Machine;
use crate::plan::Operand;
use crate::table::{Row, Rule};
use crate::wide::{Wide, lane_mask};

/// Bitwise operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logic {
    And,
    /// !a & b
    Andn,
    Or,
    Xor,
    /// Any function of three bits, by the immediate.
    Ternary,
}

/// What happens inside one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Anything else: one undefined bit spoils the lane.
    Any,
    Add,
    Sub,
    AddSatU,
    AddSatS,
    SubSatU,
    SubSatS,
    MinU,
    MaxU,
    MinS,
    MaxS,
    Average,
    MulLow,
    MulHighU,
    /// Low halves of the lanes multiplied to whole lanes.
    MulHalvesU,
    MulHalvesS,
    Equal,
    Greater,
    PopCount,
    LeadingZeros,
    Absolute,
    /// a, -a or 0 by the sign of b.
    Sign,
    /// Sum of absolute differences of bytes into 8-byte lanes.
    Sad,
}

/// Shifts and rotates of lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneShift {
    Left,
    Right,
    Arithmetic,
    RotateLeft,
    RotateRight,
    /// Double shifts: the second lane's bits come in.
    FunnelLeft,
    FunnelRight,
}

/// Scalar operations: only lane 0 is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// Lane 0 of both sources.
    Binary,
    /// Lane 0 of the last source only.
    Unary,
    /// Destination and both sources; the upper part stays the destination's.
    Fused,
}

const fn logic(names: &'static [M], op: Logic, width: u8) -> Row {
    (names, Rule::Logic(op, width))
}

const fn lane(names: &'static [M], op: Lane, width: u8) -> Row {
    (names, Rule::Lane(op, width))
}

/// One count for all lanes.
const fn shift(names: &'static [M], op: LaneShift, width: u8) -> Row {
    (names, Rule::LaneShift(op, width, false))
}

/// A count of its own for every lane, unless it is an immediate.
const fn each(names: &'static [M], op: LaneShift, width: u8) -> Row {
    (names, Rule::LaneShift(op, width, true))
}

const fn scalar(names: &'static [M], op: Scalar, width: u8) -> Row {
    (names, Rule::Scalar(op, width))
}

/// Groups of `group` bytes mixed freely; write mask lanes of `width`.
const fn mix(names: &'static [M], group: u8, width: u8) -> Row {
    (names, Rule::Mix(group, width))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    logic(&[Pand, Vpand, Vpandq, Andpd, Vandpd], Logic::And, 8),
    logic(&[Vpandd, Andps, Vandps], Logic::And, 4),
    logic(&[Pandn, Vpandn, Vpandnq, Andnpd, Vandnpd], Logic::Andn, 8),
    logic(&[Vpandnd, Andnps, Vandnps], Logic::Andn, 4),
    logic(&[Por, Vpor, Vporq, Orpd, Vorpd], Logic::Or, 8),
    logic(&[Vpord, Orps, Vorps], Logic::Or, 4),
    logic(&[Pxor, Vpxor, Vpxorq, Xorpd, Vxorpd], Logic::Xor, 8),
    logic(&[Vpxord, Xorps, Vxorps], Logic::Xor, 4),
    logic(&[Vpternlogd], Logic::Ternary, 4),
    logic(&[Vpternlogq], Logic::Ternary, 8),

    lane(&[Paddb, Vpaddb], Lane::Add, 1),
    lane(&[Paddw, Vpaddw], Lane::Add, 2),
    lane(&[Paddd, Vpaddd], Lane::Add, 4),
    lane(&[Paddq, Vpaddq], Lane::Add, 8),
    lane(&[Psubb, Vpsubb], Lane::Sub, 1),
    lane(&[Psubw, Vpsubw], Lane::Sub, 2),
    lane(&[Psubd, Vpsubd], Lane::Sub, 4),
    lane(&[Psubq, Vpsubq], Lane::Sub, 8),
    lane(&[Paddusb, Vpaddusb], Lane::AddSatU, 1),
    lane(&[Paddusw, Vpaddusw], Lane::AddSatU, 2),
    lane(&[Paddsb, Vpaddsb], Lane::AddSatS, 1),
    lane(&[Paddsw, Vpaddsw], Lane::AddSatS, 2),
    lane(&[Psubusb, Vpsubusb], Lane::SubSatU, 1),
    lane(&[Psubusw, Vpsubusw], Lane::SubSatU, 2),
    lane(&[Psubsb, Vpsubsb], Lane::SubSatS, 1),
    lane(&[Psubsw, Vpsubsw], Lane::SubSatS, 2),
    lane(&[Pminub, Vpminub], Lane::MinU, 1),
    lane(&[Pminuw, Vpminuw], Lane::MinU, 2),
    lane(&[Pminud, Vpminud], Lane::MinU, 4),
    lane(&[Vpminuq], Lane::MinU, 8),
    lane(&[Pmaxub, Vpmaxub], Lane::MaxU, 1),
    lane(&[Pmaxuw, Vpmaxuw], Lane::MaxU, 2),
    lane(&[Pmaxud, Vpmaxud], Lane::MaxU, 4),
    lane(&[Vpmaxuq], Lane::MaxU, 8),
    lane(&[Pminsb, Vpminsb], Lane::MinS, 1),
    lane(&[Pminsw, Vpminsw], Lane::MinS, 2),
    lane(&[Pminsd, Vpminsd], Lane::MinS, 4),
    lane(&[Vpminsq], Lane::MinS, 8),
    lane(&[Pmaxsb, Vpmaxsb], Lane::MaxS, 1),
    lane(&[Pmaxsw, Vpmaxsw], Lane::MaxS, 2),
    lane(&[Pmaxsd, Vpmaxsd], Lane::MaxS, 4),
    lane(&[Vpmaxsq], Lane::MaxS, 8),
    lane(&[Pavgb, Vpavgb], Lane::Average, 1),
    lane(&[Pavgw, Vpavgw], Lane::Average, 2),
    lane(&[Pmullw, Vpmullw], Lane::MulLow, 2),
    lane(&[Pmulld, Vpmulld], Lane::MulLow, 4),
    lane(&[Vpmullq], Lane::MulLow, 8),
    lane(&[Pmulhuw, Vpmulhuw], Lane::MulHighU, 2),
    lane(&[Pmuludq, Vpmuludq], Lane::MulHalvesU, 8),
    lane(&[Pmuldq, Vpmuldq], Lane::MulHalvesS, 8),
    lane(&[Pcmpeqb, Vpcmpeqb], Lane::Equal, 1),
    lane(&[Pcmpeqw, Vpcmpeqw], Lane::Equal, 2),
    lane(&[Pcmpeqd, Vpcmpeqd], Lane::Equal, 4),
    lane(&[Pcmpeqq, Vpcmpeqq], Lane::Equal, 8),
    lane(&[Pcmpgtb, Vpcmpgtb], Lane::Greater, 1),
    lane(&[Pcmpgtw, Vpcmpgtw], Lane::Greater, 2),
    lane(&[Pcmpgtd, Vpcmpgtd], Lane::Greater, 4),
    lane(&[Pcmpgtq, Vpcmpgtq], Lane::Greater, 8),
    lane(&[Vpopcntb], Lane::PopCount, 1),
    lane(&[Vpopcntw], Lane::PopCount, 2),
    lane(&[Vpopcntd], Lane::PopCount, 4),
    lane(&[Vpopcntq], Lane::PopCount, 8),
    lane(&[Psadbw, Vpsadbw], Lane::Sad, 8),
    lane(&[Pabsb, Vpabsb], Lane::Absolute, 1),
    lane(&[Pabsw, Vpabsw], Lane::Absolute, 2),
    lane(&[Pabsd, Vpabsd], Lane::Absolute, 4),
    lane(&[Vpabsq], Lane::Absolute, 8),
    lane(&[Psignb, Vpsignb], Lane::Sign, 1),
    lane(&[Psignw, Vpsignw], Lane::Sign, 2),
    lane(&[Psignd, Vpsignd], Lane::Sign, 4),
    lane(&[Vplzcntd], Lane::LeadingZeros, 4),
    lane(&[Vplzcntq], Lane::LeadingZeros, 8),
    lane(&[Gf2p8mulb, Vgf2p8mulb], Lane::Any, 1),
    lane(&[Pmulhw, Vpmulhw, Pmulhrsw, Vpmulhrsw, Pmaddubsw, Vpmaddubsw,
           Vaddph, Vsubph, Vmulph, Vdivph, Vminph, Vmaxph, Vsqrtph], Lane::Any, 2),
    lane(&[Pmaddwd, Vpmaddwd, Vpdpbusd, Vpdpbusds, Vpdpwssd, Vpdpwssds, Vdpbf16ps,
           Addps, Vaddps, Subps, Vsubps, Mulps, Vmulps, Divps, Vdivps, Minps, Vminps, Maxps, Vmaxps, Sqrtps, Vsqrtps,
           Rcpps, Vrcpps, Rsqrtps, Vrsqrtps, Roundps, Vroundps, Cmpps, Addsubps, Vaddsubps,
           Vrcp14ps, Vrsqrt14ps, Vrndscaleps, Vreduceps, Vrangeps, Vgetexpps, Vgetmantps, Vscalefps, Vfixupimmps,
           Vfmadd132ps, Vfmadd213ps, Vfmadd231ps, Vfmsub132ps, Vfmsub213ps, Vfmsub231ps,
           Vfnmadd132ps, Vfnmadd213ps, Vfnmadd231ps, Vfnmsub132ps, Vfnmsub213ps, Vfnmsub231ps,
           Vfmaddsub132ps, Vfmaddsub213ps, Vfmaddsub231ps, Vfmsubadd132ps, Vfmsubadd213ps, Vfmsubadd231ps,
           Cvtdq2ps, Vcvtdq2ps, Cvtps2dq, Vcvtps2dq, Cvttps2dq, Vcvttps2dq, Vcvtps2udq, Vcvttps2udq, Vcvtudq2ps], Lane::Any, 4),
    lane(&[Vpmadd52luq, Vpmadd52huq,
           Addpd, Vaddpd, Subpd, Vsubpd, Mulpd, Vmulpd, Divpd, Vdivpd, Minpd, Vminpd, Maxpd, Vmaxpd, Sqrtpd, Vsqrtpd,
           Roundpd, Vroundpd, Cmppd, Addsubpd, Vaddsubpd,
           Vrcp14pd, Vrsqrt14pd, Vrndscalepd, Vreducepd, Vrangepd, Vgetexppd, Vgetmantpd, Vscalefpd, Vfixupimmpd,
           Vfmadd132pd, Vfmadd213pd, Vfmadd231pd, Vfmsub132pd, Vfmsub213pd, Vfmsub231pd,
           Vfnmadd132pd, Vfnmadd213pd, Vfnmadd231pd, Vfnmsub132pd, Vfnmsub213pd, Vfnmsub231pd,
           Vfmaddsub132pd, Vfmaddsub213pd, Vfmaddsub231pd, Vfmsubadd132pd, Vfmsubadd213pd, Vfmsubadd231pd,
           Vcvtpd2qq, Vcvttpd2qq, Vcvtpd2uqq, Vcvttpd2uqq, Vcvtqq2pd, Vcvtuqq2pd], Lane::Any, 8),

    mix(&[Aesenc, Aesenclast, Aesdec, Aesdeclast, Aesimc, Aeskeygenassist, Vaesenc, Vaesenclast, Vaesdec, Vaesdeclast, Vaesimc,
          Vaeskeygenassist, Pclmulqdq, Vpclmulqdq, Mpsadbw, Vmpsadbw, Phminposuw, Vphminposuw,
          Sha1msg1, Sha1msg2, Sha1nexte, Sha1rnds4, Sha256msg1, Sha256msg2, Sha256rnds2, Dppd, Vdppd], 16, 8),
    mix(&[Dpps, Vdpps], 16, 4),
    mix(&[Vdbpsadbw], 16, 2),
    mix(&[Gf2p8affineqb, Gf2p8affineinvqb, Vgf2p8affineqb, Vgf2p8affineinvqb, Vpmultishiftqb], 8, 1),
    mix(&[Vpconflictd], 64, 4),
    mix(&[Vpconflictq], 64, 8),

    shift(&[Psllw, Vpsllw], LaneShift::Left, 2),
    each(&[Vpsllvw], LaneShift::Left, 2),
    shift(&[Pslld, Vpslld], LaneShift::Left, 4),
    each(&[Vpsllvd], LaneShift::Left, 4),
    shift(&[Psllq, Vpsllq], LaneShift::Left, 8),
    each(&[Vpsllvq], LaneShift::Left, 8),
    shift(&[Psrlw, Vpsrlw], LaneShift::Right, 2),
    each(&[Vpsrlvw], LaneShift::Right, 2),
    shift(&[Psrld, Vpsrld], LaneShift::Right, 4),
    each(&[Vpsrlvd], LaneShift::Right, 4),
    shift(&[Psrlq, Vpsrlq], LaneShift::Right, 8),
    each(&[Vpsrlvq], LaneShift::Right, 8),
    shift(&[Psraw, Vpsraw], LaneShift::Arithmetic, 2),
    each(&[Vpsravw], LaneShift::Arithmetic, 2),
    shift(&[Psrad, Vpsrad], LaneShift::Arithmetic, 4),
    each(&[Vpsravd], LaneShift::Arithmetic, 4),
    shift(&[Vpsraq], LaneShift::Arithmetic, 8),
    each(&[Vpsravq], LaneShift::Arithmetic, 8),
    each(&[Vprold, Vprolvd], LaneShift::RotateLeft, 4),
    each(&[Vprolq, Vprolvq], LaneShift::RotateLeft, 8),
    each(&[Vprord, Vprorvd], LaneShift::RotateRight, 4),
    each(&[Vprorq, Vprorvq], LaneShift::RotateRight, 8),
    each(&[Vpshldw, Vpshldvw], LaneShift::FunnelLeft, 2),
    each(&[Vpshldd, Vpshldvd], LaneShift::FunnelLeft, 4),
    each(&[Vpshldq, Vpshldvq], LaneShift::FunnelLeft, 8),
    each(&[Vpshrdw, Vpshrdvw], LaneShift::FunnelRight, 2),
    each(&[Vpshrdd, Vpshrdvd], LaneShift::FunnelRight, 4),
    each(&[Vpshrdq, Vpshrdvq], LaneShift::FunnelRight, 8),

    scalar(&[Addss, Vaddss, Subss, Vsubss, Mulss, Vmulss, Divss, Vdivss, Minss, Vminss, Maxss, Vmaxss, Cmpss,
             Vrangess, Vscalefss], Scalar::Binary, 4),
    scalar(&[Addsd, Vaddsd, Subsd, Vsubsd, Mulsd, Vmulsd, Divsd, Vdivsd, Minsd, Vminsd, Maxsd, Vmaxsd, Cmpsd,
             Vrangesd, Vscalefsd], Scalar::Binary, 8),
    scalar(&[Sqrtss, Vsqrtss, Rcpss, Vrcpss, Rsqrtss, Vrsqrtss, Roundss, Vroundss,
             Vrcp14ss, Vrsqrt14ss, Vrndscaless, Vreducess, Vgetexpss, Vgetmantss], Scalar::Unary, 4),
    scalar(&[Sqrtsd, Vsqrtsd, Roundsd, Vroundsd,
             Vrcp14sd, Vrsqrt14sd, Vrndscalesd, Vreducesd, Vgetexpsd, Vgetmantsd], Scalar::Unary, 8),
    scalar(&[Vfmadd132ss, Vfmadd213ss, Vfmadd231ss, Vfmsub132ss, Vfmsub213ss, Vfmsub231ss,
             Vfnmadd132ss, Vfnmadd213ss, Vfnmadd231ss, Vfnmsub132ss, Vfnmsub213ss, Vfnmsub231ss], Scalar::Fused, 4),
    scalar(&[Vfmadd132sd, Vfmadd213sd, Vfmadd231sd, Vfmsub132sd, Vfmsub213sd, Vfmsub231sd,
             Vfnmadd132sd, Vfnmadd213sd, Vfnmadd231sd, Vfnmsub132sd, Vfnmsub213sd, Vfnmsub231sd], Scalar::Fused, 8),
];

/// The two sources: legacy forms use the destination as the first.
pub(crate) fn pair<M: Machine>(cx: &Cx<M>) -> (Operand, Operand) {
    if cx.plan.vex { (cx.op(1), cx.op(2)) } else { (cx.op(0), cx.op(1)) }
}

/// Values and V bits of a vector operand.
#[derive(Clone, Copy)]
pub(crate) struct Vector {
    pub x: Wide,
    pub v: Wide,
}

impl Vector {
    pub fn lane(&self, width: usize, index: usize) -> Bits {
        Bits { x: self.x.lane(width, index), v: self.v.lane(width, index) }
    }
}

impl<M: Machine> Cx<'_, M> {
    pub fn vector(&mut self, operand: Operand) -> Vector {
        Vector { x: self.wide_x(operand), v: self.wide_v(operand) }
    }
}

pub(crate) fn run_logic<M: Machine>(cx: &mut Cx<M>, op: Logic, width: u8) {
    if op == Logic::Ternary {
        return ternary(cx, usize::from(width));
    }
    let (a, b) = pair(cx);
    if cx.plan.same && matches!(op, Logic::Xor | Logic::Andn) {
        return cx.put(cx.op(0), Wide::ZERO, usize::from(width));
    }
    let (va, vb) = (cx.wide_v(a), cx.wide_v(b));
    let v = if op == Logic::Xor {
        va | vb
    } else {
        let (a, b) = (cx.wide_x(a), cx.wide_x(b));
        match op {
            Logic::And => (va | vb) & (va | a) & (vb | b),
            Logic::Andn => (va | vb) & (va | !a) & (vb | b),
            _ => (va | vb) & (va | !a) & (vb | !b),
        }
    };
    cx.put(cx.op(0), v, usize::from(width));
}

/// A bit is undefined if the possible inputs reach both a 0 and a 1 of the truth table.
fn ternary<M: Machine>(cx: &mut Cx<M>, width: usize) {
    let table = cx.plan.immediate();
    let inputs = [cx.vector(cx.op(0)), cx.vector(cx.op(1)), cx.vector(cx.op(2))];
    let mut can = [Wide::ZERO; 2];
    for row in 0..8u64 {
        let mut possible = Wide::ONES;
        for (i, input) in inputs.iter().enumerate() {
            let one = row >> (2 - i) & 1 != 0;
            possible = possible & (input.v | if one { input.x } else { !input.x });
        }
        let out = (table >> row & 1) as usize;
        can[out] = can[out] | possible;
    }
    cx.put(cx.op(0), can[0] & can[1], width);
}

pub(crate) fn run_lane<M: Machine>(cx: &mut Cx<M>, op: Lane, width: u8) {
    let (width, target) = (usize::from(width), cx.op(0));
    if let (Operand::Mask { .. }, Lane::Equal | Lane::Greater) = (target, op) {
        let predicate = if op == Lane::Equal { 0 } else { 6 };
        return compare::integer(cx, width, predicate, op == Lane::Greater);
    }
    if cx.plan.same && matches!(op, Lane::Sub | Lane::SubSatU | Lane::SubSatS | Lane::Equal | Lane::Greater | Lane::Sad) {
        return cx.put(target, Wide::ZERO, width);
    }
    if op == Lane::Any {
        let v = cx.any_v().smeared(width);
        return cx.put(target, v, width);
    }
    let single = matches!(op, Lane::PopCount | Lane::LeadingZeros | Lane::Absolute);
    let (a, b) = if single { (cx.op(1), Operand::None) } else { pair(cx) };
    let (a, b) = (cx.vector(a), cx.vector(b));
    let open = (a.v | b.v).smeared(width);
    let mut v = Wide::ZERO;
    for i in 0..cx.size(0) / width {
        if open.lane(width, i) != 0 {
            v.set(width, i, lane_v(op, width as u32 * 8, a.lane(width, i), b.lane(width, i)));
        }
    }
    cx.put(target, v, width);
}

/// V of one lane, `n` bits wide, at least one of whose inputs is undefined somewhere.
pub(crate) fn lane_v(op: Lane, n: u32, a: Bits, b: Bits) -> u64 {
    let top = 1u64 << (n - 1);
    let flipped = |b: Bits| Bits { x: b.x ^ top, v: b.v };
    let between = |f: &dyn Fn(u64, u64) -> u64| prefix_v(f(a.min(), b.min()), f(a.max(), b.max()));
    let against = |f: &dyn Fn(u64, u64) -> u64| prefix_v(f(a.min(), b.max()), f(a.max(), b.min()));
    let all = mask(n);
    match op {
        Lane::Any => all,
        Lane::Add => bits::add(a, b, Bits::known(0), n).r.v,
        Lane::Sub => bits::sub(a, b, Bits::known(0), n).r.v,
        Lane::AddSatU => between(&|a, b| (a + b).min(all)),
        Lane::SubSatU => against(&|a, b| a.saturating_sub(b)),
        Lane::AddSatS => {
            let ((a0, a1), (b0, b1)) = (a.signed_range(n), b.signed_range(n));
            signed_prefix(saturate(a0 + b0, n), saturate(a1 + b1, n), n)
        }
        Lane::SubSatS => {
            let ((a0, a1), (b0, b1)) = (a.signed_range(n), b.signed_range(n));
            signed_prefix(saturate(a0 - b1, n), saturate(a1 - b0, n), n)
        }
        Lane::MinU | Lane::MaxU => extreme_v(op, a, b),
        Lane::MinS => lane_v(Lane::MinU, n, flipped(a), flipped(b)),
        Lane::MaxS => lane_v(Lane::MaxU, n, flipped(a), flipped(b)),
        Lane::Average => between(&|a, b| (a + b + 1) >> 1),
        Lane::MulLow => bits::mul(a, b, n, false).0,
        Lane::MulHighU => bits::mul(a, b, n, false).1,
        Lane::MulHalvesU => {
            let half = mask(n / 2);
            let (low, high) = bits::mul(a.masked(half), b.masked(half), n / 2, false);
            low | high << (n / 2)
        }
        Lane::MulHalvesS => {
            let half = mask(n / 2);
            let (low, high) = bits::mul(a.masked(half), b.masked(half), n / 2, true);
            low | high << (n / 2)
        }
        Lane::Equal => spread(bits::eq_v(a, b)),
        Lane::Greater => spread(bits::greater_v(a, b, n)),
        Lane::LeadingZeros => {
            let zeros = |x: u64| u64::from(x.leading_zeros() - (64 - n));
            prefix_v(zeros(a.max()), zeros(a.min()))
        }
        Lane::Absolute => turned_v(a, Bits { x: a.x & top, v: a.v & top }, n),
        Lane::Sign if b.v != 0 => all,
        Lane::Sign if b.x == 0 => 0,
        Lane::Sign => turned_v(a, b.masked(top), n),
        Lane::PopCount => prefix_v(u64::from(a.min().count_ones()), u64::from(a.max().count_ones())),
        Lane::Sad => sad_v(a, b),
    }
}

/// Minimum or maximum: one of the two, and perhaps known which.
fn extreme_v(op: Lane, a: Bits, b: Bits) -> u64 {
    let (small, large) = if op == Lane::MinU { (a, b) } else { (b, a) };
    if small.max() <= large.min() {
        return a.v;
    }
    if large.max() <= small.min() {
        return b.v;
    }
    let (lo, hi) = match op {
        Lane::MinU => (a.min().min(b.min()), a.max().min(b.max())),
        _ => (a.min().max(b.min()), a.max().max(b.max())),
    };
    prefix_v(lo, hi) & (a.v | b.v | (a.x ^ b.x))
}

/// V of "-a if negative (its top bit, alone), else a".
fn turned_v(a: Bits, negative: Bits, n: u32) -> u64 {
    let turned = bits::sub(Bits::known(0), a, Bits::known(0), n).r;
    if negative.v != 0 {
        (a.v | turned.v | (a.x ^ turned.x)) & mask(n)
    } else if negative.x != 0 {
        turned.v
    } else {
        a.v
    }
}

/// Eight distances of bytes, each between a smallest and a largest possible one, summed.
fn sad_v(a: Bits, b: Bits) -> u64 {
    let (mut low, mut high) = (0, 0);
    for i in 0..8 {
        let byte = |word: Bits| Bits { x: word.x >> (i * 8), v: word.v >> (i * 8) }.masked(0xFF);
        let (a, b) = (byte(a), byte(b));
        low += a.min().saturating_sub(b.max()).max(b.min().saturating_sub(a.max()));
        high += a.max().saturating_sub(b.min()).max(b.max().saturating_sub(a.min()));
    }
    prefix_v(low, high)
}

fn spread(undefined: bool) -> u64 {
    if undefined { u64::MAX } else { 0 }
}

pub(crate) fn saturate(x: i64, n: u32) -> i64 {
    x.clamp(-(1 << (n - 1)), (1 << (n - 1)) - 1)
}

/// [`prefix_v`] in signed order.
pub(crate) fn signed_prefix(lo: i64, hi: i64, n: u32) -> u64 {
    prefix_v(lo as u64 & mask(n), hi as u64 & mask(n))
}

/// Groups of bytes of which every output bit may depend on every input bit.
pub(crate) fn run_mix<M: Machine>(cx: &mut Cx<M>, group: u8, width: u8) {
    let mut any = cx.any_v();
    if matches!(cx.op(0), Operand::Vec { .. }) && !cx.plan.vex && cx.regs.dirty & cx.plan.reads & 1 << crate::regs::VEC0 != 0 {
        // sha256rnds2 has xmm0 as a hidden input.
        any = any | cx.regs.vec(0).truncated(16);
    }
    let v = if group == 64 && !any.is_zero() { Wide::ONES } else { any.smeared(usize::from(group)) };
    cx.put(cx.op(0), v, usize::from(width));
}

pub(crate) fn run_shift<M: Machine>(cx: &mut Cx<M>, op: LaneShift, width: u8, each: bool) {
    let width = usize::from(width);
    let lanes = cx.size(0) / width;
    let funnel = matches!(op, LaneShift::FunnelLeft | LaneShift::FunnelRight);
    let immediate = (1..4).any(|i| matches!(cx.op(i), Operand::Imm(_)));
    // Funnels by vector shift the destination, all others the first source.
    let (value, second) = match (funnel, immediate) {
        (true, true) => (cx.op(1), cx.op(2)),
        (true, false) => (cx.op(0), cx.op(1)),
        _ => (pair(cx).0, Operand::None),
    };
    let count = match (funnel, immediate) {
        (_, true) => Operand::Imm(cx.plan.immediate()),
        (true, false) => cx.op(2),
        _ => pair(cx).1,
    };
    let (a, b, counts) = (cx.vector(value), cx.vector(second), cx.vector(count));
    let mut v = Wide::ZERO;
    for i in 0..lanes {
        let count = if each && !immediate { counts.lane(width, i) } else { counts.lane(8, 0) };
        v.set(width, i, shifted_v(op, width, a.lane(width, i), b.lane(width, i), count));
    }
    cx.put(cx.op(0), v, width);
}

fn shifted_v(op: LaneShift, width: usize, a: Bits, b: Bits, count: Bits) -> u64 {
    let n = width as u32 * 8;
    let count = match op {
        LaneShift::Left | LaneShift::Right | LaneShift::Arithmetic => count,
        _ => count.masked(u64::from(n) - 1),
    };
    bits::choose_v(count, lane_mask(width), |by| Bits { x: shifted(op, n, a.x, b.x, by), v: shifted(op, n, a.v, b.v, by) })
}

fn shifted(op: LaneShift, n: u32, a: u64, b: u64, by: u64) -> u64 {
    let far = by >= u64::from(n);
    let (a, b) = (a & mask(n), b & mask(n));
    let by = by.min(63) as u32;
    let joined = |high: u64, low: u64| u128::from(high) << n | u128::from(low);
    let r = match op {
        LaneShift::Left if far => 0,
        LaneShift::Right if far => 0,
        LaneShift::Left => a << by,
        LaneShift::Right => a >> by,
        LaneShift::Arithmetic => (sign_extend(a, n) >> by) as u64,
        LaneShift::RotateLeft => (joined(a, a) << by >> n) as u64,
        LaneShift::RotateRight => (joined(a, a) >> by) as u64,
        LaneShift::FunnelLeft => (joined(a, b) << by >> n) as u64,
        LaneShift::FunnelRight => (joined(b, a) >> by) as u64,
    };
    r & mask(n)
}

pub(crate) fn run_scalar<M: Machine>(cx: &mut Cx<M>, op: Scalar, width: u8) {
    let width = usize::from(width);
    let low = |wide: Wide| wide.lane(width, 0);
    let any = match op {
        Scalar::Fused => [0, 1, 2].iter().fold(0, |all, &i| all | low(cx.wide_v(cx.op(i)))),
        Scalar::Binary => {
            let (a, b) = pair(cx);
            low(cx.wide_v(a)) | low(cx.wide_v(b))
        }
        Scalar::Unary => {
            let source = pair(cx).1;
            low(cx.wide_v(source))
        }
    };
    let base = if op == Scalar::Fused || !cx.plan.vex { cx.op(0) } else { cx.op(1) };
    cx.put_scalar(spread(any != 0), width, base);
}

impl<M: Machine> Cx<'_, M> {
    /// Lane 0 of the destination becomes `v` (through the write mask), the rest of the low 16 bytes comes from `base`.
    pub fn put_scalar(&mut self, v: u64, width: usize, base: Operand) {
        let target = self.op(0);
        let mut v = v;
        if let Some(mask) = self.plan.mask {
            let k = self.mask_bits(mask.k).masked(1);
            if k.v != 0 {
                v = u64::MAX;
            } else if k.x == 0 {
                v = if mask.zeroing { 0 } else { self.wide_v(target).lane(width, 0) };
            }
        }
        let mut out = self.wide_v(base).truncated(16);
        out.set(width, 0, v);
        if let (Operand::Vec { n, .. }, false) = (target, self.fault) {
            let n = usize::from(n);
            let above = if self.plan.vex { Wide::ZERO } else { self.regs.vec(n) };
            self.regs.set_vec(n, out.with_upper(16, above), self.origin);
        }
    }
}
