//! Vectors of 128 bits: `semantics::lanes` and the moves between and inside of vector registers as code.
//!
//! ```text
//! bits move    the instruction itself, run on the V bits in its own registers
//! logic        as in `integer`        sums   exact per lane        equality   per lane; one bit that is defined and differs settles it
//! others       one undefined bit of a lane spoils the lane (floating point)
//! ```
//! Computed with legacy SSE instructions, which leave the upper halves of the program's registers alone.

use super::Job;
use super::encode::{Alu, packed};
use super::form::Operand;
use super::operand::{Origin, Scratch};
use crate::emit::{CC_E, CC_NE, Mem};
use crate::emitter::Emitter;
use crate::{SHADOW_REGS, VECTOR_SLOTS, gpr, relocate, shadow_layout as layout};
use alloc::vec::Vec;
use iced_x86::{EncodingKind, Instruction, Mnemonic as M, Mnemonic, OpKind, Register};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lanes {
    Xor,
    And,
    Or,
    Andn,
    /// By the logarithm of the lane's bytes.
    Add(u8),
    Sub(u8),
    Equal(u8),
    /// One undefined bit spoils the lane.
    Any(u8),
    /// The same for the lowest lane, the others are the target's.
    Scalar(u8),
    /// x ^ x, x - x, x == x
    Nothing,
}

/// `to` = `to` op `b`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vectors {
    pub op: Lanes,
    pub to: u8,
    pub b: Operand,
    /// Bytes of the memory operand.
    pub size: u32,
}

/// An instruction that only moves bits: general or vector registers in and out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Carry {
    pub to: Place,
    pub from: [Option<Place>; 2],
    pub memory: bool,
    /// A load of all that `to` gets, zeros above.
    pub load: bool,
    /// Nothing of what `to` was before is left.
    pub whole: bool,
    pub raw: [u8; 16],
    pub len: u8,
    /// Bytes of the memory operand.
    pub size: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    General(u8),
    Vector(u8),
}

impl Place {
    fn bit(self) -> u32 {
        match self {
            Place::General(n) => u32::from(n),
            Place::Vector(n) => layout::VEC0 + u32::from(n),
        }
    }
}

const BYTE: u8 = 0;
const WORD: u8 = 1;
const DOUBLE: u8 = 2;
const QUAD: u8 = 3;

#[rustfmt::skip] // one row per rule
const OPERATIONS: &[(&[Mnemonic], Lanes)] = &[
    (&[M::Pxor, M::Xorps, M::Xorpd], Lanes::Xor),
    (&[M::Pand, M::Andps, M::Andpd], Lanes::And),
    (&[M::Por, M::Orps, M::Orpd], Lanes::Or),
    (&[M::Pandn, M::Andnps, M::Andnpd], Lanes::Andn),
    (&[M::Paddb], Lanes::Add(BYTE)),
    (&[M::Paddw], Lanes::Add(WORD)),
    (&[M::Paddd], Lanes::Add(DOUBLE)),
    (&[M::Paddq], Lanes::Add(QUAD)),
    (&[M::Psubb], Lanes::Sub(BYTE)),
    (&[M::Psubw], Lanes::Sub(WORD)),
    (&[M::Psubd], Lanes::Sub(DOUBLE)),
    (&[M::Psubq], Lanes::Sub(QUAD)),
    (&[M::Pcmpeqb], Lanes::Equal(BYTE)),
    (&[M::Pcmpeqw], Lanes::Equal(WORD)),
    (&[M::Pcmpeqd], Lanes::Equal(DOUBLE)),
    (&[M::Addps, M::Subps, M::Mulps, M::Divps, M::Minps, M::Maxps], Lanes::Any(DOUBLE)),
    (&[M::Addpd, M::Subpd, M::Mulpd, M::Divpd, M::Minpd, M::Maxpd], Lanes::Any(QUAD)),
    (&[M::Addss, M::Subss, M::Mulss, M::Divss, M::Minss, M::Maxss], Lanes::Scalar(DOUBLE)),
    (&[M::Addsd, M::Subsd, M::Mulsd, M::Divsd, M::Minsd, M::Maxsd], Lanes::Scalar(QUAD)),
];

/// Legacy instructions that move bits of their two operands, without change, under the control of at most an immediate.
#[rustfmt::skip]
const CARRIERS: &[Mnemonic] = &[
    M::Pshufd, M::Pshuflw, M::Pshufhw, M::Shufps, M::Shufpd, M::Palignr, M::Pblendw, M::Blendps, M::Blendpd,
    M::Punpcklbw, M::Punpcklwd, M::Punpckldq, M::Punpcklqdq, M::Punpckhbw, M::Punpckhwd, M::Punpckhdq, M::Punpckhqdq,
    M::Unpcklps, M::Unpcklpd, M::Unpckhps, M::Unpckhpd,
    M::Pmovzxbw, M::Pmovzxbd, M::Pmovzxbq, M::Pmovzxwd, M::Pmovzxwq, M::Pmovzxdq,
    M::Pmovsxbw, M::Pmovsxbd, M::Pmovsxbq, M::Pmovsxwd, M::Pmovsxwq, M::Pmovsxdq,
    M::Pmovmskb, M::Movmskps, M::Movmskpd, M::Movhlps, M::Movlhps, M::Movddup, M::Movshdup, M::Movsldup,
    M::Movaps, M::Movapd, M::Movups, M::Movupd, M::Movdqa, M::Movdqu, M::Movd, M::Movq, M::Movss, M::Movsd,
    M::Movhps, M::Movhpd, M::Movlps, M::Movlpd,
];

/// Of these only with an immediate, and of one operand.
const SHIFTS: &[Mnemonic] = &[M::Psllw, M::Pslld, M::Psllq, M::Psrlw, M::Psrld, M::Psrlq, M::Psraw, M::Psrad, M::Pslldq, M::Psrldq];

/// Of these with memory, those that do nothing else but load.
const LOADS: &[Mnemonic] = &[M::Movaps, M::Movapd, M::Movups, M::Movupd, M::Movdqa, M::Movdqu, M::Movd, M::Movq, M::Movss, M::Movsd];

/// Of all these, those of one operand: nothing of the target stays.
#[rustfmt::skip]
const WHOLE: &[Mnemonic] = &[
    M::Pshufd, M::Pshuflw, M::Pshufhw, M::Movddup, M::Movshdup, M::Movsldup,
    M::Pmovzxbw, M::Pmovzxbd, M::Pmovzxbq, M::Pmovzxwd, M::Pmovzxwq, M::Pmovzxdq,
    M::Pmovsxbw, M::Pmovsxbd, M::Pmovsxbq, M::Pmovsxwd, M::Pmovsxwq, M::Pmovsxdq,
];

fn vector(r: Register) -> Option<u8> {
    (r.is_xmm() && r.number() < 16).then_some(r.number() as u8)
}

fn place(r: Register) -> Option<Place> {
    match vector(r) {
        Some(n) => Some(Place::Vector(n)),
        None if r.is_gpr32() || r.is_gpr64() => gpr(r).filter(|&n| n != crate::emit::RSP).map(Place::General),
        None => None,
    }
}

impl Vectors {
    pub fn of(insn: &Instruction) -> Option<Vectors> {
        let op = OPERATIONS.iter().find(|row| row.0.contains(&insn.mnemonic()))?.1;
        if insn.encoding() != EncodingKind::Legacy || insn.op_count() != 2 || insn.op0_kind() != OpKind::Register {
            return None;
        }
        let to = vector(insn.op0_register())?;
        let b = match insn.op1_kind() {
            OpKind::Register => Operand::Register(vector(insn.op1_register())?),
            OpKind::Memory => Operand::Memory,
            _ => return None,
        };
        let op = match op {
            Lanes::Xor | Lanes::Andn | Lanes::Sub(_) | Lanes::Equal(_) if b == Operand::Register(to) => Lanes::Nothing,
            op => op,
        };
        let size = insn.memory_size().size() as u32;
        let fits = b != Operand::Memory || size == 16 || matches!((op, size), (Lanes::Scalar(DOUBLE), 4) | (Lanes::Scalar(QUAD), 8));
        fits.then_some(Vectors { op, to, b, size })
    }
}

impl Carry {
    pub fn of(insn: &Instruction, raw: &[u8; 16], len: u8) -> Option<Carry> {
        if insn.encoding() != EncodingKind::Legacy || insn.op_count() < 2 || insn.op0_kind() != OpKind::Register {
            return None;
        }
        let shift = SHIFTS.contains(&insn.mnemonic()) && insn.op1_kind() == OpKind::Immediate8;
        if !shift && !CARRIERS.contains(&insn.mnemonic()) || insn.op_count() > 2 && insn.op2_kind() != OpKind::Immediate8 {
            return None;
        }
        let to = place(insn.op0_register())?;
        let (second, memory) = match insn.op1_kind() {
            OpKind::Register => (Some(place(insn.op1_register())?).filter(|second| *second != to), false),
            OpKind::Memory => (None, true),
            _ => (None, false),
        };
        let size = insn.memory_size().size() as u32;
        let fits = !memory || matches!(size, 1 | 2 | 4 | 8 | 16);
        let vectors = matches!(to, Place::Vector(_)) || matches!(second, Some(Place::Vector(_)));
        // The target is always loaded, too: what the instruction leaves of it stays.
        fits.then_some(())?;
        let load = memory && LOADS.contains(&insn.mnemonic()) && matches!(size, 4 | 8 | 16);
        let whole = load || WHOLE.contains(&insn.mnemonic());
        vectors.then_some(Carry { load, whole, to, from: [Some(to), second], memory, raw: *raw, len, size })
    }
}

/// V bits of a vector register, `at` bytes in.
pub fn vector_shadow(n: u8, at: i32) -> Mem {
    Mem::ctx(SHADOW_REGS + layout::VEC + 64 * i32::from(n) + at)
}

/// Where the vector registers used are kept.
fn kept(i: usize) -> Mem {
    Mem::ctx(VECTOR_SLOTS + 16 * i as i32)
}

impl Emitter<'_> {
    /// Vector registers other than those in `busy`, kept.
    fn take_vectors<const N: usize>(&mut self, busy: u32) -> [u8; N] {
        let own = self.free_vectors();
        let mut free = (0..16u8).filter(|r| own >> r & 1 != 0).chain((0..16u8).filter(|r| (own | busy) >> r & 1 == 0));
        let taken = core::array::from_fn(|_| free.next().unwrap_or(0));
        for (i, &r) in taken.iter().enumerate().filter(|(_, r)| own >> **r & 1 == 0) {
            self.asm.store_vector(&kept(i), r);
        }
        taken
    }

    fn give_vectors_back(&mut self, taken: &[u8]) {
        let own = self.free_vectors();
        for (i, &r) in taken.iter().enumerate().filter(|(_, r)| own >> **r & 1 == 0) {
            self.asm.load_vector(r, &kept(i));
        }
    }

    /// `t` = the low V bits of a vector register.
    fn load_vector_v(&mut self, t: u8, n: u8) {
        let bit = layout::VEC0 + u32::from(n);
        match (self.may_be_undefined(bit), self.holder(bit)) {
            (Some(true), Some(holder)) if holder == t => return,
            (Some(true), Some(holder)) => self.asm.mov_vector(t, holder),
            (Some(true), None) => self.asm.load_vector(t, &vector_shadow(n, 0)),
            (Some(false), _) => self.asm.packed(packed::XOR, t, t),
            (None, _) => {}
        }
        if self.loops.is_some() {
            return self.writes_vector(t);
        }
        self.asm.packed(packed::XOR, t, t);
        self.test_bit(0, layout::VEC0 + u32::from(n));
        let defined = self.asm.jcc_forward(CC_E);
        self.asm.load_vector(t, &vector_shadow(n, 0));
        self.asm.patch_here(defined);
    }

    /// See that a memory operand may be read, and that reading it does not fault; its address to `p` if it has V bits.
    fn open_memory(&mut self, x: bool, [p, a, c, d]: [u8; 4], job: &mut Job) -> Option<Mem> {
        let Some((mem, size)) = job.memory else {
            job.not.push(self.asm.jmp_forward());
            return None;
        };
        if size <= 8 {
            self.load_memory(a, x.then_some(d), p, [c, d], false, job);
            return Some(mem);
        }
        job.probes.push(self.asm.here());
        self.asm.load(a, &mem.shadow(0));
        job.probes.push(self.asm.here());
        self.asm.op_mem(None, true, &[0x0b], a, &mem.shadow(8));
        let defined = self.asm.jcc_forward(CC_E);
        let no_origin = !self.t.options.origins;
        if !self.reached_address(&mem, size, p, a, no_origin, &mut job.not) {
            self.ordinary_address(&mem, size, p, [a, c], no_origin, &mut job.not);
            self.asm.load(a, &mem.shadow(0));
            self.asm.op_mem(None, true, &[0x23], a, &mem.shadow(8));
            self.no_mark_in(a, size, p, c, &mut job.not);
            self.reach(&mem, size);
        }
        self.asm.patch_here(defined);
        if x {
            for at in [0, 8] {
                job.probes.push(self.asm.here());
                self.asm.load(a, &Mem { disp: mem.disp.wrapping_add(at), ..mem });
            }
        }
        Some(mem)
    }

    /// `t` = 4, 8 or 16 bytes, zeros above.
    fn load_part(&mut self, t: u8, m: &Mem, size: u32) {
        match size {
            4 => self.asm.op_mem(Some(0xf3), false, &[0x0f, 0x10], t, m),
            8 => self.asm.op_mem(Some(0xf2), false, &[0x0f, 0x10], t, m),
            _ => self.asm.load_vector(t, m),
        }
    }

    pub(super) fn vectors(&mut self, op: &Vectors, scratch: &Scratch, job: &mut Job) {
        let [p, a, c, d] = [scratch[0], scratch[1], scratch[2], scratch[3]];
        let value = !matches!(op.op, Lanes::Xor | Lanes::Any(_) | Lanes::Scalar(_) | Lanes::Nothing);
        let memory = if op.b == Operand::Memory { self.open_memory(value, [p, a, c, d], job) } else { None };
        if op.b == Operand::Memory && memory.is_none() {
            return;
        }
        let b = if let Operand::Register(n) = op.b { Some(n) } else { None };
        let busy = 1 << op.to | b.map_or(0, |n| 1 << n);
        let taken: [u8; 6] = self.take_vectors(busy);
        let [v, w, t, u, y, x] = taken;
        self.load_vector_v(v, op.to);
        let other = match (b, memory) {
            (Some(n), _) => {
                self.load_vector_v(w, n);
                n
            }
            (None, Some(mem)) => {
                self.load_part(w, &mem.shadow(0), op.size);
                if value {
                    self.load_part(x, &mem, op.size);
                }
                x
            }
            _ => return,
        };
        self.lanes(op.op, [v, w, t, u, y], op.to, other);
        let second = b.map_or(Origin::Place(p), |n| Origin::Register(Place::Vector(n).bit()));
        self.set_vector(op.to, t, u, a, &[Origin::Register(Place::Vector(op.to).bit()), second]);
        self.give_vectors_back(&taken);
    }

    /// V bits of the result to `t`; `xa` and `xb` hold the values of both sides.
    fn lanes(&mut self, op: Lanes, [v, w, t, u, y]: [u8; 5], xa: u8, xb: u8) {
        let asm = &mut self.asm;
        match op {
            Lanes::Nothing => asm.packed(packed::XOR, t, t),
            Lanes::Xor => {
                asm.mov_vector(t, v);
                asm.packed(packed::OR, t, w);
            }
            Lanes::And | Lanes::Andn | Lanes::Or => {
                asm.mov_vector(t, v);
                asm.packed(packed::OR, t, w);
                for (v, x, one) in [(v, xa, op != Lanes::And), (w, xb, op == Lanes::Or)] {
                    asm.mov_vector(u, x);
                    if one {
                        // A defined 1 settles it: t &= ~(x & ~v)
                        asm.mov_vector(u, v);
                        asm.packed(packed::ANDN, u, x);
                        asm.packed(packed::ANDN, u, t);
                        asm.mov_vector(t, u);
                    } else {
                        asm.packed(packed::OR, u, v);
                        asm.packed(packed::AND, t, u);
                    }
                }
            }
            Lanes::Add(lane) => self.extremes(packed::ADD[usize::from(lane)], [v, w, t, u, y], [xa, xb], false),
            Lanes::Sub(lane) => self.extremes(packed::SUB[usize::from(lane)], [v, w, t, u, y], [xa, xb], true),
            Lanes::Equal(lane) => {
                let equal = packed::EQUAL[usize::from(lane)];
                asm.packed(packed::OR, v, w);
                asm.mov_vector(u, xa);
                asm.packed(packed::XOR, u, xb);
                asm.mov_vector(t, v);
                asm.packed(packed::ANDN, t, u);
                asm.packed(packed::XOR, u, u);
                asm.packed(equal, t, u);
                asm.packed(equal, v, u);
                asm.packed(packed::ANDN, v, t);
                asm.mov_vector(t, v);
            }
            Lanes::Any(lane) => {
                asm.mov_vector(t, v);
                asm.packed(packed::OR, t, w);
                self.spoil(lane, [t, u]);
            }
            Lanes::Scalar(lane) => {
                asm.mov_vector(t, v);
                asm.packed(packed::OR, w, v);
                self.spoil(lane, [w, u]);
                // movss or movsd: the others stay.
                self.asm.sse(if lane == DOUBLE { 0xf3 } else { 0xf2 }, &[0x10], t, w);
            }
        }
    }

    /// t = (least ^ greatest) | v | w: the sums or differences of both sides with their undefined bits cleared and set. For the least
    /// difference, the second side is `crossed`: as large as can be.
    fn extremes(&mut self, opcode: u8, [v, w, t, u, y]: [u8; 5], [xa, xb]: [u8; 2], crossed: bool) {
        for (to, largest) in [(t, false), (u, true)] {
            self.extreme(to, v, xa, largest);
            self.extreme(y, w, xb, largest != crossed);
            self.asm.packed(opcode, to, y);
        }
        self.asm.packed(packed::XOR, t, u);
        self.asm.packed(packed::OR, t, v);
        self.asm.packed(packed::OR, t, w);
    }

    /// `to` = x | v or x & ~v
    fn extreme(&mut self, to: u8, v: u8, x: u8, largest: bool) {
        let (first, opcode, second) = if largest { (x, packed::OR, v) } else { (v, packed::ANDN, x) };
        self.asm.mov_vector(to, first);
        self.asm.packed(opcode, to, second);
    }

    /// Lanes of `t` that are not zero become all ones.
    fn spoil(&mut self, lane: u8, [t, u]: [u8; 2]) {
        self.asm.packed(packed::XOR, u, u);
        match packed::EQUAL.get(usize::from(lane)) {
            Some(&equal) => self.asm.packed(equal, t, u),
            None => self.asm.sse(0x66, &packed::EQUAL_8, t, u),
        }
        self.asm.packed(packed::EQUAL[usize::from(DOUBLE)], u, u);
        self.asm.packed(packed::XOR, t, u);
    }

    /// The low half of the vector register `to` gets the V bits in `v`; what lies above stays, as legacy instructions have it. Uses the vector
    /// register `z` and the general one `t`.
    fn set_vector(&mut self, to: u8, v: u8, z: u8, t: u8, from: &[Origin]) {
        let bit = layout::VEC0 + u32::from(to);
        let mut out = Vec::new();
        if let Some(before) = self.may_be_undefined(bit) {
            if self.t.options.origins && !self.only_from(bit, from) {
                self.asm.sse(0x66, &packed::TEST, v, v);
                out.push(self.asm.jcc_forward(CC_E));
                if before && !matches!(from, [Origin::Place(_)]) {
                    self.asm.load(t, &vector_shadow(to, 0));
                    self.asm.op_mem(None, true, &[0x0b], t, &vector_shadow(to, 8));
                    out.push(self.asm.jcc_forward(CC_NE));
                }
                self.origin_to(bit, t, from);
            }
            for at in out {
                self.asm.patch_here(at);
            }
            self.asm.store_vector(&vector_shadow(to, 0), v);
            self.hold(bit, v);
            return self.now_undefined(bit, true);
        }
        self.asm.sse(0x66, &packed::TEST, v, v);
        let zero = self.asm.jcc_forward(CC_E);
        self.test_bit(0, bit);
        let fresh = self.asm.jcc_forward(CC_E);
        self.asm.store_vector(&vector_shadow(to, 0), v);
        if let [Origin::Place(_)] = from {
            self.origin_to(bit, t, from);
        }
        out.push(self.asm.jmp_forward());
        self.asm.patch_here(fresh);
        if self.t.options.private_vectors {
            self.asm.store_wide(&vector_shadow(to, 0), false, 64);
        } else {
            self.asm.packed(packed::XOR, z, z);
            for at in [16, 32, 48] {
                self.asm.store_vector(&vector_shadow(to, at), z);
            }
        }
        self.asm.store_vector(&vector_shadow(to, 0), v);
        self.origin_to(bit, t, from);
        self.set_bit(0, bit);
        out.push(self.asm.jmp_forward());
        self.asm.patch_here(zero);
        self.test_bit(0, bit);
        out.push(self.asm.jcc_forward(CC_E));
        self.asm.store_vector(&vector_shadow(to, 0), v);
        self.asm.load(t, &vector_shadow(to, 16));
        for at in [24, 32, 40, 48, 56] {
            self.asm.op_mem(None, true, &[0x0b], t, &vector_shadow(to, at));
        }
        self.asm.alu(Alu::Test, 8, t, t);
        out.push(self.asm.jcc_forward(CC_NE));
        self.clear_bit(0, bit);
        for at in out {
            self.asm.patch_here(at);
        }
    }

    /// Run the instruction on V bits in its own registers.
    pub(super) fn carry_bits(&mut self, op: &Carry, scratch: &Scratch, job: &mut Job) {
        let [p, a, c, d] = [scratch[0], scratch[1], scratch[2], scratch[3]];
        let memory = if op.memory { self.open_memory(false, [p, a, c, d], job) } else { None };
        if op.memory && memory.is_none() {
            return;
        }
        if let (true, Some(mem), Place::Vector(to)) = (op.load, memory, op.to) {
            let taken: [u8; 2] = self.take_vectors(0);
            self.load_part(taken[0], &mem.shadow(0), op.size);
            self.set_vector(to, taken[0], taken[1], c, &[Origin::Place(p)]);
            return self.give_vectors_back(&taken);
        }
        if op.memory && op.size == 16 {
            // Where it is not aligned the instruction faults.
            if let Some(mem) = memory {
                self.asm.lea(a, &mem);
                self.asm.alu_imm(Alu::Test, 4, a, 15);
                job.not.push(self.asm.jcc_forward(CC_NE));
            }
        }
        let mut busy = 0;
        for place in op.from.into_iter().flatten() {
            if let Place::Vector(n) = place {
                busy |= 1 << n;
            }
        }
        let taken: [u8; 2] = self.take_vectors(busy);
        // The program's own values.
        let own = |i: usize| Mem::ctx(VECTOR_SLOTS + 64 + 16 * i as i32);
        let places: Vec<Place> = op.from.into_iter().flatten().collect();
        for (i, &place) in places.iter().enumerate() {
            match place {
                Place::Vector(n) => {
                    self.asm.store_vector(&own(i), n);
                    self.load_vector_v(n, n);
                }
                Place::General(n) => {
                    self.asm.store(&own(i), n);
                    self.load_v(n, n, 8);
                }
            }
        }
        let raw = &op.raw[..usize::from(op.len)];
        match memory {
            Some(mem) => {
                self.asm.buf.push(0x65);
                if mem.addr32 {
                    self.asm.buf.push(0x67);
                }
                relocate::emit_with_mem(&mut self.asm, raw, &mem);
            }
            None => self.asm.bytes(raw),
        }
        match op.to {
            Place::Vector(n) => self.asm.mov_vector(taken[0], n),
            Place::General(n) => self.asm.mov(a, n),
        }
        for (i, &place) in places.iter().enumerate() {
            match place {
                Place::Vector(n) => self.asm.load_vector(n, &own(i)),
                Place::General(n) => self.asm.load(n, &own(i)),
            }
        }
        let mut from: Vec<Origin> = op.from[1..].iter().flatten().map(|place| Origin::Register(place.bit())).collect();
        // There is an address only if something is undefined there.
        if !(op.memory && op.whole) {
            from.push(Origin::Register(op.to.bit()));
        }
        if op.memory {
            from.push(Origin::Place(p));
        }
        match op.to {
            Place::Vector(n) => self.set_vector(n, taken[0], taken[1], c, &from),
            Place::General(n) => self.set_register(n, 8, a, c, &from, true),
        }
        self.give_vectors_back(&taken);
    }
}
