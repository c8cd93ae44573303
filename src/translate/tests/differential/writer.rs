//! Writes programs that can be run: every memory operand points into the program's areas, every flag that is read is defined.
//!
//! The writer follows what it knows while it writes: which registers hold a known number (they serve as bases again), which flags are
//! architecturally undefined, how much stack above the stack pointer is free. At labels it forgets. `shapes` builds control flow on
//! top of it, `calls` what concerns the stack, `prepared` instructions with special needs.

use crate::assemble::{Op, has_memory};
use crate::forms::{self, Family};
use crate::random::Random;
use crate::world::{Area, CONSTANTS, HIGH, LOW, NEAR_HIGH, PAGE};
use iced_x86::{Code, Encoder, Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind, Register, RflagsBits};

pub const ARITHMETIC: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// Bases of the program's own segments.
pub const FS: u64 = LOW.start + 0x800;
pub const GS: u64 = HIGH.start + 0x900;

pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;

/// The last family's share.
const EVEX_WEIGHT: u64 = 7;

/// What programs are made of, worked out once.
pub struct Forms {
    families: Vec<(u64, Vec<Code>)>,
    /// Gathers; those that need mask registers, and scatters.
    spread: [Vec<Code>; 2],
}

impl Forms {
    /// `usable` says whether the processor has it.
    pub fn new(mut usable: impl FnMut(Code) -> bool) -> Forms {
        let codes: Vec<Code> = forms::candidates().into_iter().filter(|&c| usable(c)).collect();
        let weights =
            [(Family::Integer, 55), (Family::X87, 6), (Family::Mmx, 5), (Family::Sse, 13), (Family::Avx, 14), (Family::Evex, EVEX_WEIGHT)];
        let of = |f| codes.iter().copied().filter(|&c| forms::family(c) == f).collect::<Vec<_>>();
        let families = weights.into_iter().map(|(f, w)| (w, of(f))).collect();
        let (masked, plain): (Vec<Code>, Vec<Code>) = forms::spread().into_iter().partition(|c| c.op_code().can_use_op_mask_register());
        let has_masks = codes.iter().any(|&c| forms::family(c) == Family::Evex);
        Forms { families, spread: [plain, if has_masks { masked } else { Vec::new() }] }
    }

    pub fn all(&self) -> impl Iterator<Item = Code> + '_ {
        self.families.iter().flat_map(|(_, codes)| codes.iter().copied())
    }

    fn pick(&self, random: &mut Random, no_masks: bool) -> Code {
        let most = self.families.iter().map(|f| f.0).sum();
        let total = if no_masks { most - EVEX_WEIGHT } else { most };
        let mut at = random.below(total);
        for (weight, codes) in &self.families {
            if at < *weight && !codes.is_empty() {
                return random.pick(codes);
            }
            at = at.saturating_sub(*weight);
        }
        Code::Nopd
    }
}

/// What a program may contain.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    /// The code lies above 2 GiB.
    pub high: bool,
    /// Accesses that fault, now and then.
    pub faults: bool,
    /// No `pushfq` and the like: the trap flag of single-stepping would show.
    pub stepped: bool,
    /// Nothing below the stack pointer is used.
    pub no_red_zone: bool,
    /// No registers that only AVX-512 has.
    pub no_masks: bool,
    /// No operands in the program's own segments: dirty mode does not look at their V bits before each instruction.
    pub no_segments: bool,
}

impl Taste {
    pub const PLAIN: Taste = Taste { high: false, faults: false, stepped: false, no_red_zone: false, no_masks: false, no_segments: false };
}

/// A function that may be called.
#[derive(Clone, Copy)]
pub struct Function {
    pub label: usize,
    /// Flags that are undefined when it returns.
    pub undefined: u32,
    /// Bytes of arguments that its `ret` removes.
    pub arguments: i32,
}

pub struct Writer<'a> {
    pub random: &'a mut Random,
    forms: &'a Forms,
    pub taste: Taste,
    pub ops: Vec<Op>,
    pub labels: usize,
    /// Registers with a known value, by number.
    pub known: [Option<u64>; 16],
    /// Flags that are undefined here.
    pub undefined: u32,
    /// Flags that are undefined at jumps to a label.
    pub at_label: Vec<u32>,
    /// Direction flag, if known.
    pub direction: Option<bool>,
    /// Registers that must keep their value, by bit.
    pub keep: u32,
    /// Free bytes above the stack pointer.
    pub room: i32,
    pub functions: Vec<Function>,
    pub factory: InstructionInfoFactory,
    /// Instructions so far that released stack.
    pub releases: u32,
    /// The alternate stack is free.
    pub alternate_free: bool,
}

/// Where a memory operand shall point.
#[derive(Clone, Copy)]
pub struct Need {
    pub size: u64,
    pub aligned: bool,
    /// General registers that must not be changed to form the address.
    pub forbid: u32,
}

/// A memory operand.
#[derive(Clone, Copy)]
struct Operand {
    base: Register,
    index: Register,
    scale: u32,
    displacement: u64,
    displacement_size: u32,
    segment: Register,
}

impl Operand {
    const fn plain(base: Register, displacement: u64, displacement_size: u32) -> Operand {
        Operand { base, index: Register::None, scale: 1, displacement, displacement_size, segment: Register::None }
    }

    fn apply(&self, insn: &mut Instruction) {
        insn.set_memory_base(self.base);
        insn.set_memory_index(self.index);
        insn.set_memory_index_scale(self.scale);
        insn.set_memory_displacement64(self.displacement);
        insn.set_memory_displ_size(self.displacement_size);
        insn.set_segment_prefix(self.segment);
    }
}

pub fn r64(i: usize) -> Register {
    Register::RAX + i as u32
}

pub fn r32(i: usize) -> Register {
    Register::EAX + i as u32
}

impl<'a> Writer<'a> {
    pub fn new(random: &'a mut Random, forms: &'a Forms, taste: Taste) -> Writer<'a> {
        Writer {
            random,
            forms,
            taste,
            ops: Vec::new(),
            labels: 0,
            known: [None; 16],
            undefined: 0,
            at_label: Vec::new(),
            direction: None,
            keep: 0,
            room: 0,
            functions: Vec::new(),
            factory: InstructionInfoFactory::new(),
            releases: 0,
            alternate_free: true,
        }
    }

    pub fn new_label(&mut self) -> usize {
        self.labels += 1;
        self.at_label.push(0);
        self.labels - 1
    }

    /// Put a label here: several ways meet.
    pub fn place(&mut self, label: usize) {
        self.undefined |= self.at_label[label];
        self.known = [None; 16];
        self.direction = None;
        self.ops.push(Op::Label(label));
    }

    /// A direct branch to a label that comes later.
    pub fn branch(&mut self, code: Code, label: usize) {
        let reads = Instruction::with_branch(code, 0).map_or(ARITHMETIC, |i| i.rflags_read());
        self.need_flags(reads);
        self.at_label[label] |= self.undefined;
        let short = self.random.one_in(2);
        self.ops.push(Op::Branch { code, label, short });
    }

    /// Make the flags in `read` defined.
    pub fn need_flags(&mut self, read: u32) {
        if read & self.undefined & ARITHMETIC != 0 {
            let r = r32(self.random.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 13]));
            let value = self.random.value() as i32;
            self.ops.push(Op::Insn(Instruction::with2(Code::Cmp_rm32_imm32, r, value).expect("cmp")));
            self.undefined = 0;
        }
    }

    /// Append an instruction.
    pub fn put(&mut self, insn: Instruction) {
        self.need_flags(insn.rflags_read());
        self.note_effects(&insn);
        self.ops.push(Op::Insn(insn));
    }

    pub fn put2(&mut self, insn: Result<Instruction, iced_x86::IcedError>) {
        self.put(insn.expect("operands fit the code"));
    }

    fn note_effects(&mut self, insn: &Instruction) {
        let written = written_registers(&mut self.factory, insn);
        for i in 0..16 {
            if written >> i & 1 != 0 {
                self.known[i] = None;
            }
        }
        let surely = !matches!(insn.mnemonic(), M::Shl | M::Shr | M::Sar | M::Sal | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd)
            && !insn.has_rep_prefix()
            && !insn.has_repne_prefix();
        if surely {
            self.undefined &= !(insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set());
        }
        self.undefined |= insn.rflags_undefined() & ARITHMETIC;
        let leaves = matches!(insn.mnemonic(), M::Ret | M::Call);
        let moves = written >> RSP & 1 != 0 && !matches!(insn.mnemonic(), M::Push | M::Pushfq);
        self.releases += u32::from(moves && !leaves);
    }

    /// Would this change a register that must stay?
    pub fn is_allowed(&mut self, insn: &Instruction) -> bool {
        written_registers(&mut self.factory, insn) & (self.keep | 1 << RSP) == 0
    }

    /// A general register that may be changed and is none of `forbid`.
    pub fn free_register(&mut self, forbid: u32) -> usize {
        let forbid = forbid | self.keep | 1 << RSP;
        loop {
            let r = self.random.below(16) as usize;
            if forbid >> r & 1 == 0 {
                return r;
            }
        }
    }

    /// mov register, value
    pub fn set(&mut self, register: usize, value: u64) {
        let small = i64::from(value as i32) as u64 == value;
        let insn = if value <= u64::from(u32::MAX) && self.random.one_in(2) {
            Instruction::with2(Code::Mov_r32_imm32, r32(register), value as u32)
        } else if small {
            Instruction::with2(Code::Mov_rm64_imm32, r64(register), value as i32)
        } else {
            Instruction::with2(Code::Mov_r64_imm64, r64(register), value)
        };
        self.put2(insn);
        self.known[register] = Some(value);
    }

    pub fn near_area(&self) -> Area {
        if self.taste.high { NEAR_HIGH } else { LOW }
    }

    /// An address with room for `size` bytes, in an area that is not the stack.
    pub fn target(&mut self, area: Area, size: u64, aligned: bool) -> u64 {
        let last = area.size - size.max(1) - 64;
        let at = CONSTANTS + self.random.below((last - CONSTANTS).max(1));
        let addr = area.start + at;
        if aligned { addr & !(size.next_power_of_two().min(64) - 1) } else { addr }
    }

    fn any_target(&mut self, need: &Need) -> u64 {
        if self.taste.faults && self.random.below(1000) < 6 {
            let area = self.random.pick(&[LOW, HIGH]);
            return match self.random.below(3) {
                0 => area.end() + self.random.below(PAGE / 4),
                1 => area.end() - self.random.below(need.size.max(2)),
                _ => area.start - 1 - self.random.below(PAGE / 4),
            };
        }
        let area = if self.random.one_in(3) { HIGH } else { self.near_area() };
        self.target(area, need.size, need.aligned)
    }

    /// Give the memory operand of `insn` an address; writes instructions that load registers for it.
    pub fn point(&mut self, insn: &mut Instruction, need: Need) {
        let operand = self.operand(&need, insn.has_lock_prefix());
        operand.apply(insn);
    }

    fn operand(&mut self, need: &Need, locked: bool) -> Operand {
        if self.taste.faults && self.random.below(1000) < 2 {
            let r = self.free_register(need.forbid);
            let wild = self.random.pick(&[0x8000_1234_5678_9000, 0x7fff_ffff_fffc, 8, 0xdead_0000_0000_0000]);
            self.set(r, wild);
            return Operand::plain(r64(r), 0, 0);
        }
        let addr = self.any_target(need);
        match self.random.below(100) {
            0..=34 => self.known_base(addr, need).unwrap_or_else(|| self.base(addr, need)),
            35..=44 => self.base(addr, need),
            45..=59 => self.base_and_index(addr, need, 0),
            60..=64 => self.index_only(addr, need),
            65..=69 => self.absolute(need),
            70..=77 => self.rip(need),
            78..=81 => self.narrow(need),
            82..=91 => self.on_stack(need).unwrap_or_else(|| self.base(addr, need)),
            92..=97 if !self.taste.no_segments => self.own_segment(addr, need),
            _ if locked => self.base(addr, need),
            _ => Operand { segment: self.random.pick(&[Register::DS, Register::ES, Register::SS, Register::CS]), ..self.base(addr, need) },
        }
    }

    /// A base register whose value is known already.
    fn known_base(&mut self, addr: u64, need: &Need) -> Option<Operand> {
        let usable: Vec<usize> = (0..16)
            .filter(|&r| need.forbid >> r & 1 == 0)
            .filter(|&r| self.known[r].is_some_and(|v| [LOW, HIGH, NEAR_HIGH].iter().any(|a| v >= a.start - 0x200 && v < a.end() + 0x200)))
            .collect();
        if usable.is_empty() {
            return None;
        }
        let r = self.random.pick(&usable);
        let value = self.known[r]?;
        // Often close to the base, so that the same bytes are met again.
        let near = value.wrapping_add(self.random.between(-64, 64) as u64);
        let near = if need.aligned { near & !(need.size.next_power_of_two().min(64) - 1) } else { near };
        let in_area = |at: u64| [LOW, HIGH, NEAR_HIGH].iter().any(|a| at >= a.start + CONSTANTS && at + need.size + 8 <= a.end());
        let addr = if self.random.percent(70) && in_area(near) { near } else { addr };
        let displacement = addr.wrapping_sub(value);
        i32::try_from(displacement as i64).ok()?;
        Some(self.displaced(Operand::plain(r64(r), displacement, 0)))
    }

    /// Choose the width of the displacement.
    fn displaced(&mut self, o: Operand) -> Operand {
        let d = o.displacement as i64;
        let size = match d {
            0 if self.random.one_in(2) => 0,
            _ if i8::try_from(d).is_ok() && !self.random.one_in(4) => 1,
            _ => 8,
        };
        Operand { displacement_size: size, ..o }
    }

    fn displacement(&mut self) -> i64 {
        match self.random.below(4) {
            0 => 0,
            1 | 2 => self.random.between(-128, 127),
            _ => self.random.between(-0x7fff_ff00, 0x7fff_ff00),
        }
    }

    fn base(&mut self, addr: u64, need: &Need) -> Operand {
        let r = self.free_register(need.forbid);
        let d = self.displacement() as u64;
        self.set(r, addr.wrapping_sub(d));
        self.displaced(Operand::plain(r64(r), d, 0))
    }

    /// [base + index * scale + displacement], relative to `origin`.
    fn base_and_index(&mut self, addr: u64, need: &Need, origin: u64) -> Operand {
        let base = self.free_register(need.forbid);
        let index = self.free_register(need.forbid);
        let scale = self.random.pick(&[1u32, 2, 4, 8]);
        let d = self.displacement() as u64;
        let addr = addr.wrapping_sub(origin);
        if base == index {
            // base * (1 + scale): only the exact quotient will do.
            let n = u64::from(scale) + 1;
            let rest = addr.wrapping_sub(addr / n * n);
            self.set(base, addr / n);
            let o = Operand { index: r64(base), scale, ..Operand::plain(r64(base), rest, 0) };
            return self.displaced(o);
        }
        let known = self.known[index].filter(|_| self.random.one_in(2));
        let value = known.unwrap_or_else(|| if self.random.one_in(3) { self.random.value() } else { self.random.below(64) });
        if known.is_none() {
            self.set(index, value);
        }
        self.set(base, addr.wrapping_sub(d).wrapping_sub(value.wrapping_mul(u64::from(scale))));
        self.displaced(Operand { index: r64(index), scale, ..Operand::plain(r64(base), d, 0) })
    }

    fn index_only(&mut self, addr: u64, need: &Need) -> Operand {
        let index = self.free_register(need.forbid);
        let scale = self.random.pick(&[1u64, 2, 4, 8]);
        self.set(index, addr / scale);
        Operand { index: r64(index), scale: scale as u32, ..Operand::plain(Register::None, addr % scale, 8) }
    }

    fn absolute(&mut self, need: &Need) -> Operand {
        let addr = self.target(LOW, need.size, need.aligned);
        Operand::plain(Register::None, addr, 8)
    }

    fn rip(&mut self, need: &Need) -> Operand {
        let area = self.near_area();
        let addr = self.target(area, need.size, need.aligned);
        let register = if !self.taste.high && self.random.one_in(6) { Register::EIP } else { Register::RIP };
        Operand::plain(register, addr, if register == Register::EIP { 4 } else { 8 })
    }

    /// 32-bit address computation; the upper halves of the registers are garbage.
    fn narrow(&mut self, need: &Need) -> Operand {
        let addr = self.target(LOW, need.size, need.aligned);
        let garbage = self.random.word() << 32;
        let base = self.free_register(need.forbid);
        let d = self.random.between(-128, 0x7fff_ff00) as u64;
        let mut rest = addr.wrapping_sub(d) & 0xffff_ffff;
        let mut o = Operand::plain(r32(base), d & 0xffff_ffff, 4);
        if self.random.one_in(2) {
            let index = self.free_register(need.forbid | 1 << base);
            let value = self.random.value();
            self.set(index, value);
            (o.index, o.scale) = (r32(index), self.random.pick(&[1, 2, 4, 8]));
            rest = rest.wrapping_sub(value.wrapping_mul(u64::from(o.scale))) & 0xffff_ffff;
        }
        self.set(base, garbage | rest);
        o
    }

    /// [rsp + displacement], perhaps with an index.
    fn on_stack(&mut self, need: &Need) -> Option<Operand> {
        let low = if self.taste.no_red_zone { 0 } else { -128 };
        let high = i64::from(self.room.min(600)) - need.size as i64;
        if high < low || need.size > 256 || need.aligned && !self.random.one_in(8) {
            return None;
        }
        let d = self.random.between(low, high);
        if self.random.one_in(5) {
            let index = self.free_register(need.forbid);
            let value = self.random.below(64);
            let scale = self.random.pick(&[1u32, 2, 4, 8]);
            self.set(index, value);
            let d = d.wrapping_sub((value * u64::from(scale)) as i64);
            return Some(self.displaced(Operand { index: r64(index), scale, ..Operand::plain(Register::RSP, d as u64, 0) }));
        }
        Some(self.displaced(Operand::plain(Register::RSP, d as u64, 0)))
    }

    /// fs: or gs: with any form of address.
    fn own_segment(&mut self, addr: u64, need: &Need) -> Operand {
        let (segment, origin) = self.random.pick(&[(Register::FS, FS), (Register::FS, FS), (Register::GS, GS)]);
        let area = if segment == Register::FS { LOW } else { HIGH };
        let near = self.target(area, need.size, need.aligned);
        let o = match self.random.below(6) {
            0..=2 => Operand::plain(Register::None, near.wrapping_sub(origin), 8),
            3 => {
                let o = self.base(addr.wrapping_sub(origin), need);
                Operand { segment, ..o }
            }
            4 => {
                let index = self.free_register(need.forbid);
                let value = self.random.below(0x100);
                self.set(index, value);
                Operand {
                    index: r64(index),
                    scale: 4,
                    ..Operand::plain(Register::None, near.wrapping_sub(origin).wrapping_sub(4 * value), 8)
                }
            }
            _ => self.base_and_index(addr, need, origin),
        };
        Operand { segment, ..o }
    }

    /// Gathers and scatters that may be written.
    pub fn spread_codes(&self) -> Vec<Code> {
        let [plain, masked] = &self.forms.spread;
        let masked = masked.iter().filter(|_| !self.taste.no_masks);
        plain.iter().chain(masked).copied().collect()
    }

    /// One instruction of a random form.
    pub fn generic(&mut self) {
        let code = self.forms.pick(self.random, self.taste.no_masks);
        self.form(code, None);
    }

    /// The same without changing `register`.
    pub fn generic_keeping(&mut self, register: usize) {
        let keep = self.keep;
        self.keep |= 1 << register;
        self.generic();
        self.keep = keep;
    }

    /// One instruction of this form; `memory` decides where its operand is, if that is open.
    pub fn form(&mut self, code: Code, memory: Option<bool>) -> bool {
        for _ in 0..4 {
            let wish = memory.unwrap_or_else(|| self.random.percent(55));
            let Some(mut insn) = forms::instruction(code, self.random, wish) else { continue };
            if has_memory(&insn) {
                if !self.point_generic(&mut insn) {
                    continue;
                }
            } else if !self.is_allowed(&insn) {
                continue;
            }
            if Encoder::new(64).encode(&insn, self.near_area().start - 0x1000).is_err() {
                continue;
            }
            self.put(insn);
            return true;
        }
        false
    }

    fn point_generic(&mut self, insn: &mut Instruction) -> bool {
        if !self.is_allowed(insn) {
            return false;
        }
        let size = insn.memory_size().size() as u64;
        if forms::is_offset(insn.code()) {
            let addr = if self.random.one_in(2) { self.target(HIGH, 8, false) } else { self.target(LOW, 8, false) };
            Operand::plain(Register::None, addr, 8).apply(insn);
            if self.random.one_in(4) {
                insn.set_segment_prefix(Register::FS);
                insn.set_memory_displacement64(addr.wrapping_sub(FS));
            } else if LOW.contains(addr) && self.random.one_in(4) {
                insn.set_memory_displ_size(4);
            }
            return true;
        }
        let mut forbid = 0;
        let bits = matches!(insn.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) && insn.op1_kind() == OpKind::Register;
        if bits {
            // The bit offset reaches beyond the operand.
            let r = insn.op1_register().full_register().number();
            if self.keep >> r & 1 != 0 {
                return false;
            }
            forbid = 1 << r;
            let offset = self.random.between(-256, 256);
            self.set(r, offset as u64);
        }
        let no_access = size == 0 || matches!(insn.mnemonic(), M::Lea | M::Nop | M::Bndmk);
        let aligned = size >= 16 && !self.random.one_in(24) || insn.mnemonic() == M::Cmpxchg16b || self.random.one_in(4) && size > 0;
        let need = Need {
            size: if no_access {
                1
            } else if bits {
                64
            } else {
                size
            },
            aligned: aligned && !bits,
            forbid,
        };
        self.point(insn, need);
        true
    }
}

/// General registers that an instruction writes or may write, by bit.
pub fn written_registers(factory: &mut InstructionInfoFactory, insn: &Instruction) -> u32 {
    let mut mask = 0;
    for used in factory.info(insn).used_registers() {
        let full = used.register().full_register();
        let writes = matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite);
        if writes && full.is_gpr64() {
            mask |= 1 << full.number();
        }
    }
    mask
}
