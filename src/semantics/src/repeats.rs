//! Which uses of one undefined address are worth a report of their own.
//!
//! Whoever reads a report mends the place it names, so another place that uses the same value is another thing to say. Not so within one
//! stretch of straight code: there a pointer that was followed is taken for granted until the stretch ends, and for good if it moves on
//! from there.
//!
//! ```text
//!        mov eax, [rdx]      <- reported; rdx is the whole address
//!        mov ecx, [rdx+8]    <- the same stretch, the same value: nothing new (`is_repeat`)
//!        call f
//!        mov eax, [rbx]      <- rbx held the same value, but elsewhere: reported
//!  1:    mov al, [rsi]       <- reported once,
//!        inc rsi             <- for rsi moves on from a value that was reported (`moves_on`)
//!        jne 1b
//! ```
//!
//! That is how users of Valgrind know it, whose blocks are such stretches. Costs nothing until a report is due.
//!
//! Deliberately absent: stretches that go on over a call.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::lookahead::Code;

/// Instructions in a stretch.
const STRETCH: usize = 60;
/// Earlier reports that are looked at.
pub const PLACES: usize = 3;

/// Registers as a mask, by number of encoding.
type Registers = u64;

fn number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

fn bit(register: Register) -> Registers {
    number(register).map_or(0, |n| 1 << n)
}

/// Registers that an instruction reads, and that it writes.
fn accesses(info: &mut InstructionInfoFactory, insn: &Instruction) -> (Registers, Registers) {
    let (mut reads, mut writes) = (0, 0);
    for used in info.info(insn).used_registers() {
        let one = bit(used.register());
        let (read, write) = match used.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write | OpAccess::CondWrite => (false, true),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            _ => (false, false),
        };
        reads |= if read { one } else { 0 };
        writes |= if write { one } else { 0 };
    }
    (reads, writes)
}

/// The next instruction of the stretch, unless it ends here: at a call, a return, or a jump that goes anywhere.
fn next(code: &impl Code, insn: &Instruction) -> Option<Instruction> {
    match insn.flow_control() {
        FlowControl::Next | FlowControl::ConditionalBranch => code.instruction(insn.next_ip()),
        FlowControl::UnconditionalBranch => code.instruction(insn.near_branch_target()),
        _ => None,
    }
}

/// The registers that are addresses by themselves, nothing added.
fn bare(insn: &Instruction) -> Registers {
    let any = |kind| insn.op_kinds().any(|k| k == kind);
    let source = if any(OpKind::MemorySegRSI) { bit(Register::RSI) } else { 0 };
    let target = if any(OpKind::MemoryESRDI) { bit(Register::RDI) } else { 0 };
    let alone = any(OpKind::Memory) && insn.memory_index() == Register::None && insn.memory_displacement64() == 0;
    source | target | if alone && insn.segment_prefix() == Register::None { bit(insn.memory_base()) } else { 0 }
}

/// Of the registers that are the undefined address of `access` all by themselves: those that the stretch gives a value made from themselves.
/// They count as defined from the report on.
pub fn moves_on(code: &impl Code, access: &Instruction) -> u64 {
    let mut info = InstructionInfoFactory::new();
    let (mut open, mut moved) = (bare(access), 0);
    let mut insn = *access;
    for _ in 0..STRETCH {
        let (reads, writes) = accesses(&mut info, &insn);
        moved |= open & writes & reads;
        open &= !writes;
        match next(code, &insn) {
            Some(following) if open != 0 => insn = following,
            _ => break,
        }
    }
    moved
}

/// Was the undefined address of `access`, made of the registers `guilty`, reported at one of the places `earlier` in the same stretch, or so
/// much of it that the rest goes without saying?
pub fn is_repeat(code: &impl Code, earlier: &[u64], access: &Instruction, guilty: u64) -> bool {
    earlier.iter().any(|&start| code.instruction(start).is_some_and(|first| is_said_from(code, first, earlier, access, guilty)))
}

/// The same of the stretch that begins at `first`, one of those places; it may lead past others.
fn is_said_from(code: &impl Code, first: Instruction, earlier: &[u64], access: &Instruction, guilty: u64) -> bool {
    let mut info = InstructionInfoFactory::new();
    let (mut values, mut asked, mut followed) = (Values::new(), [const { None }; PLACES], 0);
    let mut insn = first;
    for _ in 0..STRETCH {
        if let Some(place) = earlier.iter().take(PLACES).position(|&ip| ip == insn.ip()) {
            asked[place] = Some(values.address(&insn));
            followed |= values.of(bare(&insn));
        }
        let (_, writes) = accesses(&mut info, &insn);
        values.step(&insn, writes);
        match next(code, &insn) {
            Some(following) if following.ip() == first.ip() => return false,
            Some(following) if following.ip() == access.ip() => {
                return asked.contains(&Some(values.address(access))) || values.of(guilty) & !followed == 0;
            }
            Some(following) => insn = following,
            None => return false,
        }
    }
    false
}

/// What the registers hold in the course of a stretch: values without a known number, and distances from them.
struct Values {
    /// By register: which value, and how far from it.
    held: [(u32, u64); 16],
    values: u32,
}

/// An address made of values: base, index with its scale, the rest, the segment.
#[derive(PartialEq, Eq)]
struct Address {
    base: Option<u32>,
    index: Option<(u32, u32)>,
    rest: u64,
    segment: Register,
}

impl Values {
    /// Every register has a value of its own.
    fn new() -> Values {
        Values { held: core::array::from_fn(|n| (n as u32, 0)), values: 16 }
    }

    /// The values in registers, as a mask; those that came later than the first 64 are one.
    fn of(&self, registers: Registers) -> u64 {
        let one = |n: usize| if registers >> n & 1 != 0 { 1 << self.held[n].0.min(63) } else { 0 };
        (0..16).fold(0, |all, n| all | one(n))
    }

    fn address(&self, insn: &Instruction) -> Address {
        let part = |register| number(register).map(|n| self.held[n & 15]);
        let (base, index, scale) = (part(insn.memory_base()), part(insn.memory_index()), insn.memory_index_scale());
        let far = |part: Option<(u32, u64)>| part.map_or(0, |(_, far)| far);
        let rest = far(base).wrapping_add(far(index).wrapping_mul(u64::from(scale)));
        Address {
            base: base.map(|(value, _)| value),
            index: index.map(|(value, _)| (value, scale)),
            rest: rest.wrapping_add(insn.memory_displacement64()),
            segment: insn.segment_prefix(),
        }
    }

    /// After an instruction that writes the registers `writes`.
    fn step(&mut self, insn: &Instruction, writes: Registers) {
        let copied = self.copied(insn);
        for n in (0..16).filter(|n| writes >> n & 1 != 0) {
            self.held[n] = (self.values, 0);
            self.values += 1;
        }
        if let (Some(value), Some(n)) = (copied, number(insn.op0_register())) {
            self.held[n & 15] = value;
        }
    }

    /// What a whole register gets if it is another's value, or a place at a fixed distance from it.
    fn copied(&self, insn: &Instruction) -> Option<(u32, u64)> {
        if insn.op_count() != 2 || insn.op0_kind() != OpKind::Register || insn.op0_register().size() != 8 {
            return None;
        }
        let from = |register, far: u64| number(register).map(|n| (self.held[n & 15].0, self.held[n & 15].1.wrapping_add(far)));
        match insn.mnemonic() {
            Mnemonic::Mov if insn.op1_kind() == OpKind::Register => from(insn.op1_register(), 0),
            Mnemonic::Lea if insn.memory_index() == Register::None => from(insn.memory_base(), insn.memory_displacement64()),
            _ => None,
        }
    }
}
