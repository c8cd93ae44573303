//! What the runtime relies on when it maps a host address back to the program: checked for every region that a test makes.
//!
//! ```text
//! hot:  indirect entry   body           info[0].host .. own .. info[1].host ..              cold: stubs and link data
//!       mov rcx, slot 0  (code check)   checks, the instruction, what follows from it
//! ```

use crate::machine::Code;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use memcheck_translate::{Place, Region, decode, stack};
use std::collections::BTreeMap;

/// Bytes of a link stub in front of its data, as the runtime counts them.
const LINK_STUB: usize = 9 + 7 + 5;
use memcheck_translate::LINK_DATA_SIZE as LINK_DATA;

pub fn inspect(region: &Region, at: Place, code: &Code, pc: u64, writable: bool) -> Result<(), String> {
    let hot = boundaries(&region.code, at.hot)?;
    let cold = cold_boundaries(region, at)?;
    entries(region, at, pc, &hot, writable)?;
    program_counters(region, code)?;
    own_instructions(region, at, code, &hot)?;
    branches(region, at, &hot, &cold)?;
    exits(region, at)
}

/// Instructions by address; every byte belongs to one.
fn boundaries(bytes: &[u8], at: u64) -> Result<BTreeMap<u64, Instruction>, String> {
    let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
    let mut out = BTreeMap::new();
    while decoder.can_decode() {
        let insn = decoder.decode();
        // The processor's own complaint about bytes that are no instruction is `ud2`.
        if insn.is_invalid() {
            return Err(format!("offset {:#x} of {:#x} is no instruction", insn.ip() - at, bytes.len()));
        }
        out.insert(insn.ip(), insn);
    }
    Ok(out)
}

fn cold_boundaries(region: &Region, at: Place) -> Result<BTreeMap<u64, Instruction>, String> {
    let mut out = BTreeMap::new();
    let mut from = 0;
    for exit in &region.exits {
        let data = (exit.stub - at.cold) as usize + LINK_STUB;
        out.extend(boundaries(&region.cold[from..data], at.cold + from as u64)?);
        from = data + LINK_DATA;
    }
    out.extend(boundaries(&region.cold[from..], at.cold + from as u64)?);
    Ok(out)
}

fn entries(region: &Region, at: Place, pc: u64, hot: &BTreeMap<u64, Instruction>, writable: bool) -> Result<(), String> {
    let first = region.info.first().ok_or("no instructions")?;
    if region.start != pc || region.end <= pc {
        return Err(format!("covers {:#x}..{:#x}", region.start, region.end));
    }
    if !hot.contains_key(&(at.hot + u64::from(region.body))) || region.body != 9 {
        return Err(format!("the body begins at {}", region.body));
    }
    if first.host != region.body && !writable {
        return Err(format!("the first instruction begins at {}", first.host));
    }
    Ok(())
}

/// The instructions follow each other as in the program; behind a branch to the beginning they may begin again.
fn program_counters(region: &Region, code: &Code) -> Result<(), String> {
    let mut pc = region.start;
    for (i, info) in region.info.iter().enumerate() {
        let last = i + 1 == region.info.len();
        if info.pc == 0 && loops_before(region, i, code) {
            pc = region.start;
        }
        if region.start.wrapping_add(info.pc as i64 as u64) != pc {
            return Err(format!("instruction {i} is said to be at {:+#x}, but is at {pc:#x}", info.pc));
        }
        if info.len == 0 {
            // The way out of a round, or of the region.
            continue;
        }
        let offset = (pc - code.base) as usize;
        let insn = Decoder::with_ip(64, &code.bytes[offset..], pc, DecoderOptions::NONE).decode();
        if !(insn.len() == usize::from(info.len) || insn.is_invalid() && last) {
            return Err(format!("{insn} at {pc:#x} has {} bytes, not {}", insn.len(), info.len));
        }
        pc += u64::from(info.len);
    }
    if pc > region.end {
        return Err(format!("ends at {pc:#x}, not {:#x}", region.end));
    }
    Ok(())
}

/// Does the instruction in front of this entry (or the way out behind it) branch to the region's beginning?
fn loops_before(region: &Region, entry: usize, code: &Code) -> bool {
    let before = region.info[..entry].iter().rev().find(|info| info.len > 0);
    before.is_some_and(|info| {
        let pc = region.start.wrapping_add(info.pc as i64 as u64);
        let insn = Decoder::with_ip(64, &code.bytes[(pc - code.base) as usize..], pc, DecoderOptions::NONE).decode();
        insn.near_branch_target() == region.start
    })
}

/// Every program instruction has its host instructions for itself, and its own one among them.
fn own_instructions(region: &Region, at: Place, code: &Code, hot: &BTreeMap<u64, Instruction>) -> Result<(), String> {
    for (i, info) in region.info.iter().enumerate() {
        let next = region.info.get(i + 1).map_or(region.code.len() as u32, |n| n.host);
        let fine = info.host <= info.own && (info.own < next || info.len == 0 || info.host == next) && info.host <= next;
        if !fine {
            return Err(format!("instruction {i}: host {:#x}, own {:#x}, next {next:#x}", info.host, info.own));
        }
        let spill = info.spilled == 0xff
            || info.spill.0 >= info.host && info.spill.0 <= info.spill.1 && (info.spill.1 <= next || info.spill.1 == u32::MAX);
        if !spill {
            return Err(format!("instruction {i}: spilled in {:x?}, host {:#x}..{next:#x}", info.spill, info.host));
        }
        if info.host == next {
            continue;
        }
        let (Some(_), Some(own)) = (hot.get(&(at.hot + u64::from(info.host))), hot.get(&(at.hot + u64::from(info.own)))) else {
            return Err(format!("instruction {i}: host {:#x} or own {:#x} lies inside an instruction", info.host, info.own));
        };
        let pc = region.start.wrapping_add(info.pc as i64 as u64);
        if info.len > 0 && pc < code.end() {
            same_instruction(code, pc, own)?;
        }
    }
    Ok(())
}

fn same_instruction(code: &Code, pc: u64, own: &Instruction) -> Result<(), String> {
    let insn = Decoder::with_ip(64, &code.bytes[(pc - code.base) as usize..], pc, DecoderOptions::NONE).decode();
    let special = insn.is_invalid()
        || insn.mnemonic() == Mnemonic::Xlatb
        || !matches!(decode::flow(&insn), decode::Flow::Straight)
        || memcheck_translate::control::is_emulated(&insn)
        || stack::handles(&insn);
    if special {
        return Ok(());
    }
    let operands = (0..insn.op_count()).all(|i| {
        let same = insn.op_kind(i) == own.op_kind(i) && (insn.op_kind(i) != OpKind::Register || insn.op_register(i) == own.op_register(i));
        same || insn.op_kind(i) == OpKind::Memory && own.op_kind(i) == OpKind::Memory
    });
    if insn.mnemonic() != own.mnemonic()
        || insn.op_count() != own.op_count()
        || !operands
        || insn.has_lock_prefix() != own.has_lock_prefix()
    {
        return Err(format!("{insn} at {pc:#x} became {own}"));
    }
    Ok(())
}

/// Branches inside the region go to instructions.
fn branches(region: &Region, at: Place, hot: &BTreeMap<u64, Instruction>, cold: &BTreeMap<u64, Instruction>) -> Result<(), String> {
    let parts = [(at.hot, region.code.len(), hot), (at.cold, region.cold.len(), cold)];
    for insn in hot.values().chain(cold.values()) {
        let direct = matches!(insn.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
            && insn.near_branch_target() != 0;
        let lea = insn.mnemonic() == Mnemonic::Lea && insn.is_ip_rel_memory_operand();
        let target = if lea { insn.ip_rel_memory_address() } else { insn.near_branch_target() };
        let Some((start, _, part)) =
            parts.iter().find(|(start, len, _)| (direct || lea) && target >= *start && target < start + *len as u64)
        else {
            continue;
        };
        let data = lea && *start == at.cold && region.exits.iter().any(|e| e.stub + LINK_STUB as u64 == target);
        if !part.contains_key(&target) && !data {
            return Err(format!("{insn} goes into the middle of an instruction"));
        }
    }
    Ok(())
}

fn exits(region: &Region, at: Place) -> Result<(), String> {
    for exit in &region.exits {
        let patch = at.hot + u64::from(exit.patch);
        if patch % 64 > 60 {
            return Err(format!("the branch at {patch:#x} crosses a cache line"));
        }
        let word = |offset: usize| u64::from_le_bytes(region.cold[offset..offset + 8].try_into().unwrap_or_default());
        let data = (exit.stub - at.cold) as usize + LINK_STUB;
        if word(data) != exit.target || word(data + 8) != patch {
            return Err(format!("link data of the exit to {:#x} are {:#x}, {:#x}", exit.target, word(data), word(data + 8)));
        }
        let at_patch = exit.patch as usize;
        let rel = i32::from_le_bytes(region.code[at_patch..at_patch + 4].try_into().unwrap_or_default());
        if (patch + 4).wrapping_add(rel as i64 as u64) != exit.stub {
            return Err(format!("the exit to {:#x} does not go to its stub", exit.target));
        }
    }
    Ok(())
}
