//! Copies of undefined bytes in clean code.
//!
//! Structures with padding and half-filled unions are copied all the time, by moves through a few registers. Clean code would leave at the
//! first of them for dirty code, which asks at every instruction, and come back behind the last. A place where that happens again and again
//! is translated once more, as clean code in which the copies take their V bytes along in private registers:
//!
//! ```text
//! entry    all that will be copied, asked for once: addressable? origins go along now       no: to the dirty region
//!          movdqu xmm0, [rsi]         private register = V of [rsi]
//!          mov    edx, [rdi+8]        another load: checked as always; if it finds something, out
//!          movups [rdi], xmm0         V of [rdi] = private register                          unasked, unchecked
//! end      what is still undefined in registers that live? to dirty code with them           nothing: on in clean code
//! out      (cold) the registers' slots and the mask written, to dirty code
//! ```
//! The V bytes move when the program's bytes do, so that it does not matter how source, target and what else is stored overlap. A signal
//! in between goes on in clean code behind it, where what the registers held counts as defined.
//!
//! Bit-fields among others that nobody has written yet are the same but for what is done to the register in between:
//!
//! ```text
//! entry    as above, for one place; V to the slot of eax
//!          movzx eax, byte [rdi]
//!          and eax, -2                slot &= -2
//!          mov [rdi], al              V of [rdi] = slot
//! ```
//!
//! - `changes`     bit-fields
//! - `emit`        entry, moves and ways out
//!
//! Deliberately absent: copies in loops (`loops`), between more than two objects, of single bytes, through other registers.

mod changes;
mod emit;

pub use emit::SLOT_TARGET;

use crate::decode::{self, Flow, Item, Tail, flow};
use crate::emit::{Mem, RSP};
use crate::kinds::Kinds;
use crate::moves::{Move, Reg};
use crate::{Program, Shadow, Translator, clean, control, gpr, merge, plan, spread, stack};
use alloc::vec::Vec;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};

/// Longest run, and most instructions between one copy and the next.
const MAX_INSTRUCTIONS: usize = 48;
const MAX_GAP: usize = 12;
/// Private registers for V bytes: 16 is a scratch register of the runtime, 30 and 31 are constants.
const FIRST_PRIVATE: u8 = 17;
const PRIVATE: u8 = 13;
/// Growth of the stack by more than this is painted, which a run does not expect.
const MAX_GROWTH: i64 = 4000;

/// A register whose V bytes are in a private one.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    reg: Reg,
    /// None: they are in its slot.
    private: Option<u8>,
    size: u32,
    /// Where it was loaded from: displacement in the source.
    from: i32,
}

#[derive(Clone, Copy)]
enum Part {
    Load(Held),
    Store {
        private: u8,
        size: u32,
    },
    /// V bits of a slot that stay, because of a constant or of another register (one by one, or those that are 0 there).
    Keep(Keep),
    /// A register is stored whose V bits are in its slot.
    Put {
        reg: u8,
        size: u32,
    },
}

#[derive(Clone, Copy)]
enum Keep {
    Constant(u8, u64),
    Ones(u8, u8),
    Zeros(u8, u8),
}

/// What an instruction of the run does with undefined bytes, which registers hold some in front of it, and how far the source's base
/// register has come there.
struct Step {
    part: Option<Part>,
    held: Vec<Held>,
    since: i32,
}

/// A run of copies.
pub struct Copies {
    /// By instruction, and one for the end.
    steps: Vec<Step>,
    /// Registers behind it that count only if they look like a number.
    stale: u64,
    /// Source and target: operands as of the entry, without displacements. What is copied, by its displacement in the source; its
    /// displacement in the target is larger by the distance.
    from: Mem,
    to: Mem,
    ranges: Vec<(i32, u32)>,
    distance: i32,
    /// Dirty code of the first instruction.
    region: u64,
    /// Flags that live at the end.
    flags_live: bool,
    /// A bit-field is changed: its place and size, the register, and do flags live at the entry?
    change: Option<(Mem, u32, u8, bool)>,
}

/// An instruction with what matters of it here.
struct Fact {
    item: Item,
    uses: Uses,
    /// Runs end here at the latest.
    ends: bool,
    /// A plain move from or to memory, and its operand as of the entry.
    moved: Option<Move>,
    operand: Option<Mem>,
    /// How far each general register has come since the entry, in front of it.
    since: Since,
}

type Since = [Option<i64>; 16];

/// General and vector registers by their bits in the mask.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// Read, or written in part.
    reads: u64,
    overwrites: u64,
    /// General registers that may change.
    changes: u64,
}

/// The run at `pc`; its instructions to `items`.
pub fn find(
    t: &mut Translator,
    program: &dyn Program,
    pc: u64,
    shadow: &mut dyn Shadow,
    region: u64,
    items: &mut Vec<Item>,
) -> Option<(Copies, Tail)> {
    if !t.options.undef || t.options.ask_on_stack {
        return None;
    }
    let facts = collect(&mut t.kinds, program, pc);
    if let Some(change) = changes::find(t, program, &facts, shadow, region, items) {
        return Some(change);
    }
    if !t.options.private_vectors {
        return None;
    }
    let (from, to, distance) = objects(&facts)?;
    let mut run = Run { facts: &facts, from, to, distance, steps: Vec::new() };
    let length = run.walk()?;
    let Run { mut steps, .. } = run;
    steps.truncate(length + 1);
    let ranges = ranges(&steps[..length]);
    items.clear();
    items.extend(facts[..length].iter().map(|fact| fact.item));
    let end = facts[length].item.pc;
    let (dead, stale) = shadow.dead_at(end)?;
    steps[length].held.retain(|held| dead >> held.reg.bit() & 1 == 0);
    let flags_live = plan::live_at(program, end) != 0;
    Some((Copies { steps, stale, from, to, ranges, distance, region, flags_live, change: None }, Tail::Next(end)))
}

/// Straight-line code from `pc` on, and the instruction that ends it.
fn collect(kinds: &mut Kinds, program: &dyn Program, pc: u64) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut since = [Some(0); 16];
    let mut at = pc;
    while facts.len() < MAX_INSTRUCTIONS {
        let Some(item) = decode::one(kinds, program, at) else { break };
        let ends = !is_usual(&item.insn) || program.redirect(at).is_some() || program.is_writable(at);
        at += u64::from(item.len);
        let uses = uses(&mut kinds.factory, &item.insn);
        let operand = merge::operand(&item.insn).and_then(|mem| at_entry(mem, &since));
        facts.push(Fact { item, uses, ends, moved: moved(&item.insn), operand, since });
        if ends {
            break;
        }
        step(&mut since, &item.insn, uses.changes);
    }
    facts
}

/// Nothing that goes elsewhere, releases stack, or asks in its own way for what it touches.
fn is_usual(insn: &Instruction) -> bool {
    let growth = insn.op0_register() == Register::RSP && added(insn).is_some_and(|by| (-MAX_GROWTH..=0).contains(&by));
    matches!(flow(insn), Flow::Straight)
        && !control::is_emulated(insn)
        && !insn.is_string_instruction()
        && !insn.has_lock_prefix()
        && !clean::is_state_area(insn)
        && !spread::goes_elsewhere(insn)
        && !crate::has_masked_memory(insn)
        && !crate::uses_private_registers(insn)
        && !insn.memory_index().is_vector_register()
        && (growth || !stack::writes_rsp(insn) && (insn.mnemonic() == Mnemonic::Push || !stack::handles(insn)))
}

/// A plain move between memory and a whole register.
fn moved(insn: &Instruction) -> Option<Move> {
    let plain = !matches!(insn.mnemonic(), Mnemonic::Push | Mnemonic::Pop | Mnemonic::Movzx);
    Move::of(insn).filter(|m| plain && matches!(m, Move::Load { size: 4 | 8 | 16 | 32, .. } | Move::Store { size: 4 | 8 | 16 | 32, .. }))
}

fn uses(factory: &mut InstructionInfoFactory, insn: &Instruction) -> Uses {
    let mut found = Uses::default();
    for used in factory.info(insn).used_registers() {
        let register = used.register();
        let bit = match gpr(register) {
            Some(n) => 1 << n,
            None if register.is_vector_register() && register.number() < 16 => 1 << Reg::Vector(register.number() as u8).bit(),
            None => continue,
        };
        match used.access() {
            OpAccess::None | OpAccess::NoMemAccess => continue,
            OpAccess::Write if register.is_gpr64() || register.is_gpr32() => found.overwrites |= bit,
            _ => found.reads |= bit,
        }
        if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
            found.changes |= bit;
        }
    }
    found.overwrites &= !found.reads;
    found
}

/// The constant that an instruction adds to its first operand.
fn added(insn: &Instruction) -> Option<i64> {
    let value = insn.try_immediate(1).ok()? as i64;
    match insn.mnemonic() {
        Mnemonic::Add => Some(value),
        Mnemonic::Sub => value.checked_neg(),
        _ => None,
    }
}

/// What an instruction that may change these registers does to how far they have come.
fn step(since: &mut Since, insn: &Instruction, changes: u64) {
    let target = if insn.op0_register().is_gpr64() { gpr(insn.op0_register()) } else { None };
    let grown = i64::from(insn.stack_pointer_increment());
    for (n, distance) in since.iter_mut().enumerate().filter(|(n, _)| changes >> n & 1 != 0) {
        let by = match added(insn).filter(|_| target == Some(n as u8)) {
            None if n == usize::from(RSP) && grown != 0 => Some(grown),
            by => by,
        };
        *distance = distance.zip(by).and_then(|(d, by)| d.checked_add(by));
    }
}

/// How far the registers of an operand have come, if its index has not.
fn moved_on(mem: &Mem, since: &Since) -> Option<i32> {
    let distance = |r: Option<u8>| r.map_or(Some(0), |r| since[usize::from(r)]);
    let index = distance(mem.index.map(|(r, _)| r))?;
    if index == 0 { distance(mem.base).and_then(|d| i32::try_from(d).ok()) } else { None }
}

/// An operand by the registers as they were at the entry.
fn at_entry(mem: Mem, since: &Since) -> Option<Mem> {
    Some(Mem { disp: mem.disp.checked_add(moved_on(&mem, since)?)?, ..mem })
}

fn is_in(mem: &Mem, object: &Mem) -> bool {
    mem.base == object.base && mem.index == object.index && mem.addr32 == object.addr32
}

/// What the first instruction loads from, where that is stored first, and how much further on.
fn objects(facts: &[Fact]) -> Option<(Mem, Mem, i32)> {
    let first = facts.first().filter(|fact| !fact.ends)?;
    let Some(Move::Load { to: reg, .. }) = first.moved else { return None };
    let from = first.operand?;
    let next = facts[1..].iter().find(|fact| (fact.uses.reads | fact.uses.overwrites) >> reg.bit() & 1 != 0)?;
    let to = next.operand.filter(|_| matches!(next.moved, Some(Move::Store { from, .. }) if from == reg))?;
    Some((Mem { disp: 0, ..from }, Mem { disp: 0, ..to }, to.disp.checked_sub(from.disp)?))
}

struct Run<'a> {
    facts: &'a [Fact],
    from: Mem,
    to: Mem,
    distance: i32,
    steps: Vec<Step>,
}

impl Run<'_> {
    /// Make the steps; how many instructions count.
    fn walk(&mut self) -> Option<usize> {
        let mut held: Vec<Held> = Vec::new();
        let mut length = 0;
        for (at, fact) in self.facts.iter().enumerate() {
            let Some(since) = moved_on(&self.from, &fact.since) else { break };
            let ends = fact.ends || at > length + MAX_GAP || held.iter().any(|h| is_kept_in_part(fact, h));
            let part = if ends { None } else { self.part(at, &held) };
            self.steps.push(Step { part, held: held.clone(), since });
            let touched = |h: &Held| fact.uses.reads >> h.reg.bit() & 1 != 0;
            match part {
                _ if ends => break,
                Some(Part::Load(new)) => {
                    held.retain(|h| h.reg != new.reg);
                    held.push(new);
                }
                Some(_) => length = at + 1,
                None => {
                    held.retain(|h| !is_loaded(fact, h.reg) && fact.uses.overwrites >> h.reg.bit() & 1 == 0);
                    if held.iter().any(touched) {
                        break;
                    }
                }
            }
        }
        let begins = matches!(self.steps.first()?.part, Some(Part::Load(_)));
        (begins && length > 0 && length < self.steps.len()).then_some(length)
    }

    fn part(&self, at: usize, held: &[Held]) -> Option<Part> {
        let fact = &self.facts[at];
        let mem = fact.operand?;
        match fact.moved? {
            Move::Load { to: reg, size, .. } if is_in(&mem, &self.from) && self.is_only_copied(at, reg, size, mem.disp) => {
                let used = |n: &u8| held.iter().any(|h| h.reg != reg && h.private == Some(*n));
                let private = (FIRST_PRIVATE..FIRST_PRIVATE + PRIVATE).find(|n| !used(n));
                private.is_some().then_some(Part::Load(Held { reg, private, size, from: mem.disp }))
            }
            Move::Store { from: reg, size } => {
                let h = held.iter().find(|h| h.reg == reg)?;
                Some(Part::Store { private: h.private?, size })
            }
            _ => None,
        }
    }

    /// Is what is loaded there stored to its place in the target, and not used otherwise?
    fn is_only_copied(&self, at: usize, reg: Reg, size: u32, disp: i32) -> bool {
        let place = disp.checked_add(self.distance);
        let mut stored = false;
        for fact in self.facts[at + 1..].iter().take_while(|fact| !fact.ends) {
            let fits = |mem: Mem, n: u32| n <= size && is_in(&mem, &self.to) && Some(mem.disp) == place;
            match (fact.moved, fact.operand) {
                (Some(Move::Store { from, size: n }), Some(mem)) if from == reg && fits(mem, n) => stored = true,
                _ if is_loaded(fact, reg) || fact.uses.overwrites >> reg.bit() & 1 != 0 => break,
                _ if fact.uses.reads >> reg.bit() & 1 != 0 => return false,
                _ => {}
            }
        }
        stored
    }
}

/// What these steps load, all of it, whether or not it is stored: nothing else asks for it. Neighbours are joined.
fn ranges(steps: &[Step]) -> Vec<(i32, u32)> {
    let mut ranges: Vec<(i32, u32)> = Vec::new();
    for step in steps {
        let Some(Part::Load(Held { from, size, .. })) = step.part else { continue };
        let (start, end) = (i64::from(from), i64::from(from) + i64::from(size));
        let inside = |r: &&mut (i32, u32)| i64::from(r.0) <= start && i64::from(r.0) + i64::from(r.1) >= start;
        match ranges.iter_mut().find(inside) {
            Some(range) => range.1 = range.1.max((end - i64::from(range.0)) as u32),
            None => ranges.push((from, size)),
        }
    }
    ranges
}

/// Does the instruction load the register, or all that copies know of it? Its address may be read from it.
fn is_loaded(fact: &Fact, reg: Reg) -> bool {
    let address =
        fact.item.insn.memory_base().full_register() == register(reg) || fact.item.insn.memory_index().full_register() == register(reg);
    !address && matches!(fact.moved, Some(Move::Load { to, .. }) if to == reg)
}

/// Does the instruction load the lower half of a register whose upper half keeps its undefined bytes?
fn is_kept_in_part(fact: &Fact, held: &Held) -> bool {
    held.size > 16 && matches!(fact.moved, Some(Move::Load { to, keeps: true, .. }) if to == held.reg)
}

fn register(reg: Reg) -> Register {
    match reg {
        Reg::General(n) => Register::RAX + u32::from(n),
        Reg::Vector(n) => Register::XMM0 + u32::from(n),
    }
}
