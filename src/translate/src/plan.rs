//! What must be known about a region before it is emitted: which flags live, and what its tail does to the stack pointer.

use crate::Program;
use crate::decode::{Item, Tail};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};
use memcheck_abi::layout::RED_ZONE;

/// The arithmetic flags.
pub const ARITHMETIC: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// Longest run of pops that one check covers.
const MAX_BATCH: usize = 8;

/// Instructions looked at behind an exit to see whether flags are dead there.
const LOOKAHEAD: usize = 6;

pub fn plan(program: &dyn Program, items: &mut [Item], tail: Tail) {
    releases(items);
    flags(program, items, tail);
    batches(items);
}

/// Flags that the instruction surely overwrites.
pub fn killed(insn: &Instruction) -> u32 {
    let mut set = insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set() | insn.rflags_undefined() & RflagsBits::AF;
    let shift = matches!(
        insn.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Sal
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shld
            | Mnemonic::Shrd
    );
    if shift {
        let last = insn.op_count() - 1;
        let by_register = insn.op_kind(last) == OpKind::Register;
        let mask =
            if insn.op0_kind() == OpKind::Register && insn.op0_register().is_gpr64() || insn.memory_size().size() == 8 { 63 } else { 31 };
        if by_register || insn.immediate8() & mask == 0 {
            set = 0;
        }
    }
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        set = 0;
    }
    set & ARITHMETIC
}

pub fn flags(program: &dyn Program, items: &mut [Item], tail: Tail) {
    let mut live = match tail {
        Tail::Next(pc) => live_at(program, pc),
        Tail::Invalid(_) => ARITHMETIC,
        Tail::Control => match items.last() {
            Some(last) if last.noise => 0,
            Some(last) => live_after(program, &last.insn),
            None => ARITHMETIC,
        },
    };
    for item in items.iter_mut().rev() {
        let insn = &item.insn;
        if insn.flow_control() == FlowControl::ConditionalBranch {
            live |= live_at(program, item.aside());
        }
        if item.client_request {
            live = ARITHMETIC;
        }
        live = live & !killed(insn) | insn.rflags_read() & ARITHMETIC;
        item.flags_live = live != 0;
    }
}

/// Flags live after the control transfer that ends a region.
fn live_after(program: &dyn Program, insn: &Instruction) -> u32 {
    match insn.flow_control() {
        FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => live_at(program, insn.near_branch_target()),
        // Only subroutines written by hand take flags, and those read them at once.
        FlowControl::Call if insn.op0_kind() == OpKind::NearBranch64 => read_at(program, insn.near_branch_target()),
        FlowControl::IndirectCall => 0,
        // Through a linkage table to a function.
        FlowControl::IndirectBranch if insn.is_ip_rel_memory_operand() => 0,
        _ => ARITHMETIC,
    }
}

/// Flags that may be read at `pc` before they are written: looks at a few instructions, and gives up with "all".
pub fn live_at(program: &dyn Program, pc: u64) -> u32 {
    let (read, dead) = look_ahead(program, pc);
    ARITHMETIC & !dead | read
}

/// Flags that are seen to be read.
pub fn read_at(program: &dyn Program, pc: u64) -> u32 {
    look_ahead(program, pc).0
}

/// Flags read, and flags written before they are read, by the next few instructions.
fn look_ahead(program: &dyn Program, pc: u64) -> (u32, u32) {
    let Some(code) = program.code(pc) else { return (0, 0) };
    let mut decoder = Decoder::with_ip(64, code, pc, DecoderOptions::NONE);
    let (mut read, mut dead) = (0, 0);
    for _ in 0..LOOKAHEAD {
        let insn = decoder.decode();
        if insn.is_invalid() {
            break;
        }
        if insn.flow_control() != FlowControl::Next {
            read |= insn.rflags_read() & ARITHMETIC & !dead;
            break;
        }
        read |= insn.rflags_read() & ARITHMETIC & !dead;
        dead |= killed(&insn);
        if dead == ARITHMETIC {
            break;
        }
    }
    (read, dead)
}

/// Bytes that an instruction releases at the top of the stack, if that is a constant.
pub fn released(insn: &Instruction) -> Option<u32> {
    match insn.mnemonic() {
        Mnemonic::Pop | Mnemonic::Popfq if insn.op_count() == 0 || insn.op0_register() != Register::RSP => {
            Some(insn.stack_pointer_increment() as u32)
        }
        Mnemonic::Add
            if insn.op0_register() == Register::RSP && insn.op1_kind() != OpKind::Register && insn.op1_kind() != OpKind::Memory =>
        {
            u32::try_from(insn.immediate(1)).ok().filter(|&n| n < 1 << 20)
        }
        _ => None,
    }
}

/// In front of a `ret`, let the ret paint what pops and additions have released: one batch, and the caller's red zone is dead there.
fn releases(items: &mut [Item]) {
    let Some((last, before)) = items.split_last_mut() else { return };
    if last.insn.mnemonic() != Mnemonic::Ret {
        return;
    }
    let mut total = 8;
    for item in before.iter_mut().rev() {
        if let Some(n) = released(&item.insn) {
            total += n;
            item.deferred = true;
        } else if item.insn.mnemonic() == Mnemonic::Leave {
            // It paints what it releases itself, here up to the stack pointer: the lowest part of a frame is nobody's initial value.
            item.deferred = true;
            break;
        } else if !harmless(&item.insn) {
            break;
        }
    }
    if total == 16 && before.last().is_some_and(|i| i.insn.op0_register() == Register::RBP) || before.iter().any(|i| below_stack(&i.insn)) {
        // A leaf: what it left in its red zone is nobody's initial value either.
        total += RED_ZONE as u32;
    }
    last.released = total;
    // A function that takes down a frame is compiled: its caller expects nothing in the flags. (Leaves written by hand may.)
    last.noise = before.iter().any(|i| i.deferred);
}

/// Does it touch memory below the stack pointer?
pub fn below_stack(insn: &Instruction) -> bool {
    insn.memory_base() == Register::RSP && (insn.memory_displacement64() as i64) < 0 && insn.mnemonic() != Mnemonic::Lea
}

/// Runs of pops are checked, and runs of pushes made defined, at once, by the first. Prologues save a register between moves: what
/// does not touch the stack may stand between pushes.
fn batches(items: &mut [Item]) {
    let plain = |i: &Item, m| {
        i.insn.mnemonic() == m
            && i.insn.op0_kind() == OpKind::Register
            && i.insn.op0_register().is_gpr64()
            && i.insn.op0_register() != Register::RSP
    };
    push_runs(items);
    let mut at = 0;
    while at < items.len() {
        let run = items[at..].iter().take(MAX_BATCH).take_while(|i| plain(i, Mnemonic::Pop)).count();
        if run > 1 {
            items[at].batch = run as u8;
            for i in &mut items[at + 1..at + run] {
                i.batch = 0;
            }
        }
        at += run.max(1);
    }
}

fn push_runs(items: &mut [Item]) {
    let is_push =
        |i: &Item| i.insn.mnemonic() == Mnemonic::Push && i.insn.op0_kind() == OpKind::Register && i.insn.op0_register().is_gpr64();
    let between = |i: &Item| harmless(&i.insn) && (0..i.insn.op_count()).all(|k| i.insn.op_kind(k) != OpKind::Memory);
    let mut at = 0;
    while at < items.len() {
        if !is_push(&items[at]) {
            at += 1;
            continue;
        }
        let (first, mut last, mut count) = (at, at, 1);
        for (next, item) in items.iter().enumerate().skip(at + 1) {
            if is_push(item) && count < MAX_BATCH {
                (last, count) = (next, count + 1);
            } else if !between(item) {
                break;
            }
        }
        for i in items[first..=last].iter_mut().filter(|i| is_push(i)) {
            i.batch = 0;
        }
        items[first].batch = count as u8;
        at = last + 1;
    }
}

/// May stand between a release and the `ret` without mattering: neither uses the stack pointer nor leaves.
fn harmless(insn: &Instruction) -> bool {
    insn.flow_control() == FlowControl::Next
        && insn.stack_pointer_increment() == 0
        && (0..insn.op_count()).all(|i| match insn.op_kind(i) {
            OpKind::Register => insn.op_register(i).full_register() != Register::RSP,
            OpKind::Memory => insn.memory_base() != Register::RSP,
            _ => true,
        })
}
