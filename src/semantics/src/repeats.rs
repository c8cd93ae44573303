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
//! Deliberately absent: stretches that go on over a jump or call whose target is known.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::lookahead::Code;

/// Instructions in a stretch.
const STRETCH: usize = 60;

/// Registers as a mask, by number of encoding.
type Registers = u64;

fn bit(register: Register) -> Registers {
    if register.is_gpr() { 1 << register.full_register().number() } else { 0 }
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

/// The memory operand as the instruction writes it down; the part of an address that can be compared.
#[derive(PartialEq, Eq)]
struct Address {
    base: Register,
    index: Register,
    scale: u32,
    displacement: u64,
    segment: Register,
}

impl Address {
    fn of(insn: &Instruction) -> Address {
        Address {
            base: insn.memory_base(),
            index: insn.memory_index(),
            scale: insn.memory_index_scale(),
            displacement: insn.memory_displacement64(),
            segment: insn.segment_prefix(),
        }
    }

    /// The registers that are addresses by themselves, nothing added.
    fn bare(insn: &Instruction) -> Registers {
        let address = Address::of(insn);
        let kinds = |kind| (0..insn.op_count()).any(|i| insn.op_kind(i) == kind);
        let source = if kinds(OpKind::MemorySegRSI) { bit(Register::RSI) } else { 0 };
        let target = if kinds(OpKind::MemoryESRDI) { bit(Register::RDI) } else { 0 };
        let alone = kinds(OpKind::Memory) && address.index == Register::None && address.displacement == 0;
        source | target | if alone && address.segment == Register::None { bit(address.base) } else { 0 }
    }

    fn registers(&self) -> Registers {
        bit(self.base) | bit(self.index)
    }
}

/// The next instruction of the stretch, unless it ends here.
fn next(code: &impl Code, insn: &Instruction) -> Option<Instruction> {
    let goes_on = matches!(insn.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch);
    goes_on.then(|| code.instruction(insn.next_ip())).flatten()
}

/// Of the registers that are the undefined address of `access` all by themselves: those that the stretch gives a value made from themselves.
/// They count as defined from the report on.
pub fn moves_on(code: &impl Code, access: &Instruction) -> u64 {
    let mut info = InstructionInfoFactory::new();
    let (mut open, mut moved) = (Address::bare(access), 0);
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

/// Was the undefined address of `access`, made of the registers `guilty`, reported at `earlier` in the same stretch, or so much of it that
/// the rest goes without saying?
pub fn is_repeat(code: &impl Code, earlier: u64, access: &Instruction, guilty: u64) -> bool {
    if earlier >= access.ip() {
        return false;
    }
    let Some(first) = code.instruction(earlier) else { return false };
    let same = Address::of(&first) == Address::of(access);
    let mut info = InstructionInfoFactory::new();
    let (mut settled, mut unchanged) = (Address::bare(&first), same);
    let mut insn = first;
    for _ in 0..STRETCH {
        let (_, writes) = accesses(&mut info, &insn);
        let copied = copy_of(&insn, settled);
        settled = settled & !writes | copied;
        unchanged &= writes & Address::of(access).registers() == 0;
        match next(code, &insn) {
            Some(following) if following.ip() < access.ip() => insn = following,
            Some(following) => return following.ip() == access.ip() && (unchanged || guilty & !settled == 0),
            None => return false,
        }
    }
    false
}

/// The register that gets one of the settled ones, or a place at a fixed distance from it.
fn copy_of(insn: &Instruction, settled: Registers) -> Registers {
    let whole = insn.op_count() == 2 && insn.op0_kind() == OpKind::Register && insn.op0_register().size() == 8;
    let from = match insn.mnemonic() {
        Mnemonic::Mov if insn.op1_kind() == OpKind::Register => bit(insn.op1_register()),
        Mnemonic::Lea if insn.memory_index() == Register::None => bit(insn.memory_base()),
        _ => 0,
    };
    if whole && from & settled != 0 { bit(insn.op0_register()) } else { 0 }
}
