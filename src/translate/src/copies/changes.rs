//! Changes of bit-fields: a load, logic, and a store to the same place.
//!
//! What logic leaves undefined is what it keeps of the undefined bits, as in `rules::integer`, the other side being defined. Its flags must
//! be nobody's business: their V bits are not kept. Only the low half of a register takes part in logic with another one.

use super::{Copies, Fact, Held, Keep, MAX_GAP, Part, Step, moved_on};
use crate::decode::{Item, Tail};
use crate::emit::{Mem, RSP};
use crate::moves::Reg;
use crate::plan::{self, Who};
use crate::{Program, Shadow, Translator, gpr};
use alloc::vec::Vec;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// The change that begins with the first instruction; its instructions to `items`.
pub(super) fn find(
    t: &mut Translator,
    program: &dyn Program,
    facts: &[Fact],
    shadow: &mut dyn Shadow,
    region: u64,
    items: &mut Vec<Item>,
) -> Option<(Copies, Tail)> {
    let first = facts.first().filter(|fact| !fact.ends && t.options.pext)?;
    let (reg, size) = loaded(&first.item.insn)?;
    let place = first.operand?;
    let from = Mem { disp: 0, ..place };
    let mut found: Vec<Item> = facts.iter().map(|fact| fact.item).collect();
    let last = found.last()?;
    let tail = Tail::Next(last.pc + u64::from(last.len));
    plan::flags(&mut t.kinds, program, &mut found, tail, Who::All);
    let held = Held { reg: Reg::General(reg), private: None, size, from: place.disp };
    let mut steps = alloc::vec![Step { part: Some(Part::Load(held)), held: Vec::new(), since: 0 }];
    let mut parts = 0;
    for (at, fact) in facts.iter().enumerate().skip(1).take(MAX_GAP) {
        let insn = &fact.item.insn;
        let since = moved_on(&from, &fact.since).filter(|_| !fact.ends)?;
        let touched = (fact.uses.reads | fact.uses.overwrites) >> reg & 1 != 0;
        let part = if touched { Some(part(insn, fact.operand, reg, size, &place)?) } else { None };
        steps.push(Step { part, held: alloc::vec![held], since });
        match part {
            Some(Part::Keep(_)) if found.get(at + 1).is_none_or(|next| next.flags_live) => return None,
            Some(Part::Keep(_)) => parts += 1,
            Some(_) => {
                let end = facts.get(at + 1)?;
                let since = moved_on(&from, &end.since)?;
                let (dead, _) = shadow.dead_at(end.item.pc)?;
                let lives = dead >> reg & 1 == 0 && !program.is_unread(end.item.pc, reg, true);
                steps.push(Step { part: None, held: if lives { alloc::vec![held] } else { Vec::new() }, since });
                let (entry, behind) = (found[0].flags_live, found[at + 1].flags_live);
                items.clear();
                items.extend(&found[..=at]);
                let change = Some((place, size, reg, entry));
                let copies =
                    Copies { steps, stale: 0, from, to: from, ranges: Vec::new(), distance: 0, region, flags_live: behind, change };
                return (parts > 0).then_some((copies, Tail::Next(end.item.pc)));
            }
            None => {}
        }
    }
    None
}

/// A load of a whole register: which, and how many bytes.
fn loaded(insn: &Instruction) -> Option<(u8, u32)> {
    let whole = matches!(insn.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx) && insn.op1_kind() == OpKind::Memory;
    let to = insn.op0_register();
    let reg = gpr(to).filter(|&r| whole && r != RSP && (to.is_gpr32() || to.is_gpr64()))?;
    Some((reg, insn.memory_size().size() as u32))
}

/// What an instruction that touches the register does to its undefined bits.
fn part(insn: &Instruction, operand: Option<Mem>, reg: u8, size: u32, place: &Mem) -> Option<Part> {
    let high = |r: Register| matches!(r, Register::AH | Register::BH | Register::CH | Register::DH);
    if insn.mnemonic() == Mnemonic::Mov && insn.op0_kind() == OpKind::Memory {
        let from = insn.op1_register();
        let same = operand.is_some_and(|mem| mem.base == place.base && mem.index == place.index && mem.disp == place.disp);
        let whole = gpr(from) == Some(reg) && !high(from) && insn.memory_size().size() as u32 == size;
        let addressed = [insn.memory_base(), insn.memory_index()].iter().any(|&r| gpr(r) == Some(reg));
        return (same && whole && !addressed).then_some(Part::Put { reg, size });
    }
    let to = insn.op0_register();
    if insn.op_count() != 2 || insn.op0_kind() != OpKind::Register || gpr(to) != Some(reg) {
        return None;
    }
    let by = insn.op1_register();
    match (insn.mnemonic(), insn.op1_kind()) {
        (_, OpKind::Memory) => None,
        (Mnemonic::And | Mnemonic::Or | Mnemonic::Xor, OpKind::Register) => {
            let by = gpr(by).filter(|&by| by != reg && to.is_gpr32() && size <= 4)?;
            Some(Part::Keep(match insn.mnemonic() {
                Mnemonic::And => Keep::Ones(reg, by),
                Mnemonic::Or => Keep::Zeros(reg, by),
                _ => Keep::Constant(reg, u64::MAX),
            }))
        }
        (mnemonic, _) => {
            let shift = if high(to) { 8 } else { 0 };
            let width = u64::MAX >> (64 - 8 * to.size());
            let value = (insn.try_immediate(1).ok()? & width) << shift;
            let kept = match mnemonic {
                Mnemonic::And => value | !(width << shift),
                Mnemonic::Or => !value,
                Mnemonic::Xor => u64::MAX,
                _ => return None,
            };
            // Of a register of 4 bytes nothing above is left.
            Some(Part::Keep(Keep::Constant(reg, if to.is_gpr32() { kept & u64::from(u32::MAX) } else { kept })))
        }
    }
}
