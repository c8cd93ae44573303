//! Neighbouring loads are checked at once: the fields of a structure, the overlapping vectors of a stencil.
//!
//! ```text
//! mov eax, [rdi]           cmp qword gs:[rdi], 0 ; jne cold      for both
//! mov edx, [rdi+4]
//! ```
//! Most of what a check costs is its branch, so one is better than two. The first load of a run asks for the bytes of all of them, if these
//! lie without a gap: nothing is looked at that the program does not load. Between the loads the registers of their operands stay, nothing
//! is stored and no branch leaves, so the later checks would find what the first has found. When it finds something, dirty code goes on
//! at the first load and asks for each of them.

use crate::decode::{Flow, Item, flow};
use crate::emit::{Mem, Seg};
use crate::kinds::{Kinds, mark};
use crate::{LOAD, clean, control, gpr, stack};
use alloc::vec::Vec;
use iced_x86::{Instruction, InstructionInfoFactory, OpAccess, OpKind, Register};

/// How far a run reaches, in instructions, and the most bytes that one check takes.
const WINDOW: usize = 12;
const MOST: i64 = 64;
/// Only regions with vectors of at least so many bytes are looked at: among words too few runs are found to pay for the search.
pub const VECTOR: usize = 16;

/// What matters of an instruction.
#[derive(Clone, Copy, Default)]
struct Fact {
    /// What it loads.
    load: Option<(Mem, u32)>,
    /// General registers that it may change.
    writes: u32,
    /// No run reaches over it.
    ends: bool,
}

/// For every item, the bytes that its check shall cover; `private`: vectors of 16, 32 and 64 bytes are one test.
pub fn find(kinds: &mut Kinds, items: &mut [Item], private: bool) {
    let wide = |item: &&Item| match item.marks & mark::EVEX {
        0 => item.marks & mark::WIDE != 0,
        _ => item.insn.memory_size().size() >= VECTOR,
    };
    if items.iter().filter(wide).count() < 2 {
        return;
    }
    let facts: Vec<Fact> = items.iter().map(|item| fact(kinds, item)).collect();
    for (at, item) in items.iter_mut().enumerate() {
        item.covers = if item.flags_live { None } else { run(&facts[at..], private) };
    }
}

/// The bytes loaded by a run that begins here: displacement and size. None if one check for all is not cheaper than those it replaces.
fn run(facts: &[Fact], private: bool) -> Option<(i32, u32)> {
    let first = facts.first()?;
    let (mem, size) = first.load?;
    let span = |m: &Mem, n: u32| (i64::from(m.disp), i64::from(m.disp) + i64::from(n));
    let (mut low, mut high) = span(&mem, size);
    let mut separate = tests(size, private);
    let mut best = None;
    let mut gain = 0;
    let mut written = first.writes;
    for fact in facts.iter().skip(1).take(WINDOW) {
        let touched = |r: Option<u8>| r.is_some_and(|r| written >> r & 1 != 0);
        if fact.ends || touched(mem.base) || touched(mem.index.map(|(r, _)| r)) {
            break;
        }
        if let Some((other, n)) = fact.load.filter(|(other, _)| other.base == mem.base && other.index == mem.index) {
            let (from, to) = span(&other, n);
            let all = (low.min(from), high.max(to));
            let inside = from >= low && to <= high;
            if !inside && from <= high && to >= low && all.1 - all.0 <= MOST {
                (low, high) = all;
                separate += tests(n, private);
                let saved = separate - tests((high - low) as u32, private);
                if saved > gain {
                    (best, gain) = (Some((low as i32, (high - low) as u32)), saved);
                }
            }
        }
        written |= fact.writes;
    }
    best
}

/// Branches that a check of so many bytes takes, in halves: a test of a vector is dearer than one of a word.
pub fn tests(size: u32, private: bool) -> i32 {
    match size {
        1 | 2 | 4 | 8 => 2,
        0..=8 => 4,
        16 | 32 | 64 if private => 3,
        9..16 => 4,
        _ if private => 6,
        16 => 4,
        _ => 5,
    }
}

fn fact(kinds: &mut Kinds, item: &Item) -> Fact {
    let insn = &item.insn;
    let plain = matches!(flow(insn), Flow::Straight)
        && !item.client_request
        && !insn.is_string_instruction()
        && !control::is_emulated(insn)
        && !stack::handles(insn);
    if !plain {
        return Fact { ends: true, ..Fact::default() };
    }
    let access = kinds.access(insn);
    let load = (access == Some(Some(LOAD)) && !clean::is_masked_move(insn)).then(|| operand(insn)).flatten();
    let size = insn.memory_size().size() as u32;
    Fact {
        load: load.filter(|_| (1..=64).contains(&size)).map(|mem| (mem, size)),
        writes: kinds.written(insn),
        ends: !matches!(access, None | Some(None | Some(LOAD))),
    }
}

/// Its memory operand, if that is one that `with_operand` leaves as it is.
pub fn operand(insn: &Instruction) -> Option<Mem> {
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let wide = |r: Register| r == Register::None || r.is_gpr64();
    if matches!(insn.segment_prefix(), Register::FS | Register::GS) || !(0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory) {
        return None;
    }
    if insn.is_ip_rel_memory_operand() {
        let disp = i32::try_from(insn.ip_rel_memory_address()).ok()?;
        return Some(Mem { seg: Seg::None, base: None, index: None, disp, addr32: false });
    }
    let disp = i32::try_from(insn.memory_displacement64() as i64).ok()?;
    let scale = insn.memory_index_scale().trailing_zeros() as u8;
    (wide(base) && wide(index)).then(|| Mem { seg: Seg::None, base: gpr(base), index: gpr(index).map(|r| (r, scale)), disp, addr32: false })
}

/// General registers that an instruction may change, by their bits.
pub fn written(factory: &mut InstructionInfoFactory, insn: &Instruction) -> u32 {
    let mut written = 0;
    for used in factory.info(insn).used_registers() {
        if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None)
            && let Some(r) = gpr(used.register())
        {
            written |= 1 << r;
        }
    }
    written
}
