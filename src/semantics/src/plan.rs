//! An instruction made ready: operands as register numbers, and which registers it reads and writes.
//!
//! Planning is done once, when the instruction is translated; running a [`Plan`] needs no decoder, no tables and no allocation.
//! [`Plan::reads`] is deliberately wide: it also names registers that are written only in part, or only perhaps. So *if nothing
//! in it is dirty and no loaded byte is undefined, every output is defined*, whatever the rule: the quick way out of nearly all
//! instructions that dirty mode meets.

use iced_x86::{ConditionCode, EncodingKind, Instruction, InstructionInfoFactory, MemorySize, OpAccess, OpKind, Register, RflagsBits};

use crate::regs::{AF, CF, FLAGS, MASK0, OF, PF, SF, VEC0, X87, ZF};
use crate::table::{self, Rule};

/// No register.
pub const NONE: u8 = 0xFF;

/// An explicit operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    None,
    /// `size` bytes of a general register; `high` for ah, ch, dh, bh.
    Gpr {
        n: u8,
        size: u8,
        high: bool,
    },
    /// xmm, ymm or zmm by `size` in bytes.
    Vec {
        n: u8,
        size: u8,
    },
    Mask {
        n: u8,
    },
    Mm {
        n: u8,
    },
    /// st(n), counted from the top.
    St {
        n: u8,
    },
    Mem,
    Imm(u64),
    /// Always defined: segment, control and bound registers, branch targets.
    Fixed,
}

/// The memory operand (for push, pop, call, ret and leave: the stack slot).
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    pub base: u8,
    pub index: u8,
    pub scale: u8,
    /// Bytes touched; 0 if the rule has to find out.
    pub size: u16,
    /// Bytes of one element.
    pub element: u8,
    /// The index is a vector register of this element size (gathers); 0 otherwise.
    pub vsib: u8,
    /// Bytes of that vector register.
    pub index_size: u8,
    /// 64 or 32 bit address arithmetic; 8: the index is al (xlat).
    pub width: u8,
    pub segment: Option<crate::machine::Segment>,
    pub displacement: u64,
    pub read: bool,
    pub write: bool,
}

/// An EVEX write mask.
#[derive(Clone, Copy, Debug)]
pub struct WriteMask {
    pub k: u8,
    pub zeroing: bool,
}

/// How much of the machinery an instruction needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// Registers only.
    Registers,
    /// Loads one word of 1, 2, 4 or 8 bytes by general registers, perhaps stores it back.
    Word,
    /// Anything else.
    General,
}

/// One instruction, ready to run on shadows.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rule: Rule,
    pub ops: [Operand; 5],
    pub mem: Option<Mem>,
    /// Registers whose dirt can reach an output; bits as in `ShadowRegs::dirty`.
    pub reads: u64,
    /// Registers that receive something.
    pub writes: u64,
    /// Registers that form the memory address.
    pub address: u64,
    /// Arithmetic flags that are written, and those of them that the processor leaves undefined.
    pub flags_written: u64,
    pub flags_undefined: u64,
    /// Bit i: operand i is an input.
    pub inputs: u8,
    /// VEX or EVEX: bits above the result become zero.
    pub vex: bool,
    pub mask: Option<WriteMask>,
    pub broadcast: bool,
    /// Both sources are the same register, so that x^x, x-x, x==x do not depend on it.
    pub same: bool,
    /// Prefixes of string instructions.
    pub rep: bool,
    pub repne: bool,
    /// Condition of a jump, set or conditional move.
    pub condition: ConditionCode,
    /// May the quick way out be taken at all?
    pub quick: bool,
    /// The shortest way to run it.
    pub path: Path,
    /// Fetch the V bytes of the memory operand before looking further.
    pub preload: bool,
    /// Masked-off lanes of a memory source are not touched.
    pub lanewise: bool,
}

impl Plan {
    /// Size in bytes of an explicit operand.
    #[inline]
    pub fn size(&self, operand: Operand) -> usize {
        match operand {
            Operand::Gpr { size, .. } | Operand::Vec { size, .. } => usize::from(size),
            Operand::Mem => self.mem.map_or(0, |mem| usize::from(mem.size)),
            Operand::St { .. } => 10,
            _ => 8,
        }
    }

    /// If nothing in `reads` and `address` is dirty and nothing that is loaded is undefined, then is all that this does to make `writes` and
    /// the flags defined? (What it writes to memory then is defined already, being what it read.)
    pub fn defines_by_itself(&self) -> bool {
        match (self.path, self.mem) {
            (Path::Registers, _) => true,
            (Path::Word, Some(mem)) => mem.read,
            (Path::General, Some(mem)) => {
                let plain = self.mask.is_none() && !self.broadcast && !self.lanewise && mem.vsib == 0;
                self.quick && self.preload && plain && !mem.write && matches!(mem.size, 16 | 32 | 64)
            }
            _ => false,
        }
    }

    /// The last immediate operand.
    pub fn immediate(&self) -> u64 {
        let found = self.ops.iter().rev().find_map(|op| if let Operand::Imm(value) = op { Some(*value) } else { None });
        found.unwrap_or(0)
    }
}

/// Makes plans. Keeps the decoder library's scratch space, the only allocation there is.
pub struct Planner {
    factory: InstructionInfoFactory,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new()
    }
}

impl Planner {
    pub fn new() -> Planner {
        Planner { factory: InstructionInfoFactory::new() }
    }

    pub fn plan(&mut self, insn: &Instruction) -> Plan {
        let rule = table::rule(insn);
        let mut plan = Plan {
            rule,
            ops: [Operand::None; 5],
            mem: None,
            reads: 0,
            writes: 0,
            address: 0,
            flags_written: arith(insn.rflags_modified()),
            flags_undefined: arith(insn.rflags_undefined()),
            inputs: 0,
            vex: insn.encoding() != EncodingKind::Legacy,
            mask: write_mask(insn),
            broadcast: insn.is_broadcast(),
            same: false,
            rep: insn.has_rep_prefix(),
            repne: insn.has_repne_prefix(),
            condition: insn.condition_code(),
            quick: true,
            path: Path::General,
            preload: false,
            lanewise: false,
        };
        for i in 0..insn.op_count().min(5) {
            plan.ops[i as usize] = operand(insn, i);
        }
        self.registers(insn, &mut plan);
        self.memory(insn, &mut plan);
        plan.same = same_sources(&plan, insn);
        plan.lanewise = rule.is_lanewise();
        plan.preload = plan.mem.is_some_and(|mem| mem.read && (1..=64).contains(&mem.size));
        // A masked store touches only some lanes; it is not for the quick way's plain zeros.
        plan.quick = !(plan.mask.is_some() && plan.mem.is_some_and(|mem| mem.write));
        rule.adjust(insn, &mut plan);
        plan.path = path(&plan);
        plan
    }

    /// Fills `reads`, `writes` and `inputs`.
    fn registers(&mut self, insn: &Instruction, plan: &mut Plan) {
        let info = self.factory.info(insn);
        for used in info.used_registers() {
            let Some((bit, partial)) = dirty_bit(used.register(), plan.vex) else { continue };
            let (read, written, perhaps) = effect(used.access());
            if written || perhaps {
                plan.writes |= 1 << bit;
            }
            if read || perhaps || written && partial {
                plan.reads |= 1 << bit;
            }
        }
        if arith(insn.rflags_read()) != 0 {
            plan.reads |= 1 << FLAGS;
        }
        // Which operands the operation itself reads: a merging write mask is not the operation's reading.
        let mut plain = *insn;
        plain.set_op_mask(Register::None);
        let info = self.factory.info(&plain);
        for i in 0..insn.op_count().min(5) {
            let read = effect(info.op_access(i)).0;
            plan.inputs |= u8::from(read && !matches!(plan.ops[i as usize], Operand::Imm(_))) << i;
        }
    }

    /// Fills `mem` and `address` for a written-out memory operand.
    fn memory(&mut self, insn: &Instruction, plan: &mut Plan) {
        let info = self.factory.info(insn);
        let Some(i) = (0..insn.op_count()).find(|&i| is_memory(insn.op_kind(i))) else { return };
        let access = info.op_access(i);
        let (read, written, perhaps) = effect(access);
        let mut mem = explicit_memory(insn, insn.op_kind(i));
        mem.read = read;
        mem.write = written || perhaps;
        plan.mem = Some(mem);
        // lea and prefetch; the long no-operations.
        if matches!(access, OpAccess::NoMemAccess | OpAccess::None) {
            return;
        }
        for register in [mem.base, if mem.vsib == 0 { mem.index } else { NONE }] {
            if register != NONE {
                plan.address |= 1 << register;
            }
        }
    }
}

fn path(plan: &Plan) -> Path {
    let word = |mem: Mem| matches!(mem.size, 1 | 2 | 4 | 8) && mem.vsib == 0 && plan.preload && plan.mask.is_none() && !plan.broadcast;
    match plan.mem {
        None if plan.quick => Path::Registers,
        Some(mem) if plan.quick && word(mem) => Path::Word,
        _ => Path::General,
    }
}

/// (read, surely written, perhaps written)
fn effect(access: OpAccess) -> (bool, bool, bool) {
    match access {
        OpAccess::Read | OpAccess::CondRead => (true, false, false),
        OpAccess::Write => (false, true, false),
        OpAccess::CondWrite => (false, false, true),
        OpAccess::ReadWrite => (true, true, false),
        OpAccess::ReadCondWrite => (true, false, true),
        _ => (false, false, false),
    }
}

/// Number of the register's dirty bit, and whether writing this name leaves part of it alone.
fn dirty_bit(register: Register, vex: bool) -> Option<(usize, bool)> {
    let full = register.full_register();
    if full.is_gpr() {
        Some((full.number(), register.size() < 4))
    } else if register.is_vector_register() {
        Some((VEC0 + full.number(), !vex))
    } else if register.is_k() {
        Some((MASK0 + register.number(), false))
    } else if register.is_st() || register.is_mm() {
        Some((X87, true))
    } else {
        None
    }
}

fn operand(insn: &Instruction, i: u32) -> Operand {
    match insn.op_kind(i) {
        OpKind::Register => register_operand(insn.op_register(i)),
        kind if is_memory(kind) => Operand::Mem,
        OpKind::NearBranch16
        | OpKind::NearBranch32
        | OpKind::NearBranch64
        | OpKind::FarBranch16
        | OpKind::FarBranch32
        | OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemoryESDI
        | OpKind::MemoryESEDI
        | OpKind::MemoryESRDI => Operand::Fixed,
        _ => insn.try_immediate(i).map_or(Operand::Fixed, Operand::Imm),
    }
}

fn register_operand(register: Register) -> Operand {
    let n = register.full_register().number() as u8;
    if register.is_gpr() {
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        Operand::Gpr { n, size: register.size() as u8, high }
    } else if register.is_vector_register() {
        Operand::Vec { n, size: register.size() as u8 }
    } else if register.is_k() {
        Operand::Mask { n: register.number() as u8 }
    } else if register.is_mm() {
        Operand::Mm { n: register.number() as u8 }
    } else if register.is_st() {
        Operand::St { n: register.number() as u8 }
    } else {
        Operand::Fixed
    }
}

/// Written-out memory operands and the hidden rdi of maskmovq; the others belong to the string rules.
fn is_memory(kind: OpKind) -> bool {
    matches!(kind, OpKind::Memory | OpKind::MemorySegRDI | OpKind::MemorySegEDI | OpKind::MemorySegDI)
}

fn explicit_memory(insn: &Instruction, kind: OpKind) -> Mem {
    let (mut base, index) = (insn.memory_base(), insn.memory_index());
    if kind != OpKind::Memory {
        base = if kind == OpKind::MemorySegRDI { Register::RDI } else { Register::EDI };
    }
    let number = |r: Register| {
        if r == Register::None || r.is_ip() { NONE } else { r.full_register().number() as u8 }
    };
    let size = insn.memory_size();
    let vsib = match insn.vsib() {
        Some(true) => 8,
        Some(false) => 4,
        None => 0,
    };
    Mem {
        base: number(base),
        index: number(index),
        scale: insn.memory_index_scale() as u8,
        size: size.size() as u16,
        element: if size == MemorySize::Unknown { 8 } else { size.element_size() as u8 },
        vsib,
        index_size: index.size() as u8,
        width: match (index, base.size(), index.size()) {
            (Register::AL, ..) => 8,
            (_, 4, _) => 32,
            (_, 0, 4) if vsib == 0 => 32,
            _ => 64,
        },
        segment: match insn.memory_segment() {
            Register::FS => Some(crate::machine::Segment::Fs),
            Register::GS => Some(crate::machine::Segment::Gs),
            _ => None,
        },
        displacement: if kind == OpKind::Memory { insn.memory_displacement64() } else { 0 },
        read: false,
        write: false,
    }
}

fn write_mask(insn: &Instruction) -> Option<WriteMask> {
    match insn.op_mask() {
        Register::None | Register::K0 => None,
        k => Some(WriteMask { k: k.number() as u8, zeroing: insn.zeroing_masking() }),
    }
}

/// Legacy: both operands; VEX and EVEX: the two sources.
fn same_sources(plan: &Plan, insn: &Instruction) -> bool {
    let (a, b) = match plan.ops {
        [a @ (Operand::Gpr { .. } | Operand::Vec { .. } | Operand::Mm { .. } | Operand::Mask { .. }), b, Operand::None, ..] => (a, b),
        [_, a @ (Operand::Gpr { .. } | Operand::Vec { .. } | Operand::Mask { .. }), b, ..] if insn.op_count() >= 3 => (a, b),
        _ => return false,
    };
    a == b
}

/// Flags as iced numbers them to EFLAGS positions.
fn arith(bits: u32) -> u64 {
    [(RflagsBits::CF, CF), (RflagsBits::PF, PF), (RflagsBits::AF, AF), (RflagsBits::ZF, ZF), (RflagsBits::SF, SF), (RflagsBits::OF, OF)]
        .iter()
        .fold(0, |all, &(theirs, ours)| if bits & theirs != 0 { all | ours } else { all })
}
