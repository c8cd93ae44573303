//! Loads of which only some bits matter: those of a bit-field among others that nobody has written yet.
//!
//! ```text
//! test byte [rdi], 4                          test byte gs:[rdi], 4 ; jne cold
//! movzx eax, byte [rdi] ; and eax, 3          test byte gs:[rdi], 3 ; jne cold
//! movzx eax, byte [rdi] ; shr al, 5           bits 4 to 7: the last one that is shifted out goes to the carry flag
//! mov rdx, [rsp+16] ; shl rdx, 32             the low half, if nobody asks for the flags
//! ```
//! An instruction behind the load, the next one to touch the register, or the load itself makes a defined value of it if these bits are
//! defined, as the rules of dirty mode have it. So its check asks for them only, and the others may be undefined. There must be one in
//! every byte: V bits of memory that may not be accessed are all set, and one of them must be among those that are looked at. On the stack
//! above its pointer that is no question.

use crate::check::pieces;
use crate::decode::Item;
use crate::emit::RSP;
use crate::gpr;
use crate::kinds::{Kinds, mark};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// Instructions between a load and the one that takes bits of it.
const NEAR: usize = 6;

/// For every load of which only some bits matter, which.
pub fn find(kinds: &mut Kinds, items: &mut [Item]) {
    for at in 0..items.len() {
        let (item, behind) = (&items[at], &items[at + 1..]);
        let found = match item.insn.mnemonic() {
            Mnemonic::Test => tested(&item.insn),
            Mnemonic::Movzx | Mnemonic::Mov if item.insn.op1_kind() == OpKind::Memory => loaded(kinds, &item.insn, behind),
            _ => None,
        };
        let size = item.insn.memory_size().size() as u32;
        let whole = found.is_some_and(|bits| bits.to_le_bytes()[..size.min(4) as usize].iter().all(|&byte| byte != 0));
        if whole && !item.flags_live && item.covers.is_none() && pieces(size).len() == 1 {
            items[at].bits = found.unwrap_or(0);
        }
    }
}

fn immediate(insn: &Instruction) -> Option<u32> {
    insn.try_immediate(1).ok().map(|value| value as u32)
}

/// test [memory], constant
fn tested(insn: &Instruction) -> Option<u32> {
    let narrow = insn.op0_kind() == OpKind::Memory && insn.memory_size().size() <= 4;
    immediate(insn).filter(|_| narrow)
}

/// A load of a register, by what is done to it next.
fn loaded(kinds: &mut Kinds, insn: &Instruction, behind: &[Item]) -> Option<u32> {
    let size = insn.memory_size().size() as u32;
    let to = insn.op0_register();
    if !(to.is_gpr32() || to.is_gpr64()) || size == 8 && !is_above_stack_pointer(insn) {
        return None;
    }
    let takes = |next: &Instruction| next.op0_kind() == OpKind::Register && gpr(next.op0_register()) == gpr(to);
    let at = behind.iter().take(NEAR).position(|item| takes(&item.insn))?;
    let next = &behind[at].insn;
    if !matches!(next.mnemonic(), Mnemonic::And | Mnemonic::Shr | Mnemonic::Shl) || !is_low(next.op0_register(), size.min(4)) {
        return None;
    }
    if !behind[..at].iter().all(|item| item.marks & mark::STRAIGHT != 0 && !item.client_request && !touches(kinds, &item.insn, to)) {
        return None;
    }
    let value = immediate(next)?;
    match next.mnemonic() {
        Mnemonic::And if size <= 4 => Some(value),
        Mnemonic::Shr if size <= 4 => (2..8 * size).contains(&value).then(|| u32::MAX << (value - 1)),
        Mnemonic::Shl if size == 8 && next.op0_register().is_gpr64() => {
            let unasked = behind.get(at + 1).is_some_and(|item| !item.flags_live);
            (value == 32 && unasked).then_some(u32::MAX)
        }
        _ => None,
    }
}

/// Always accessible.
fn is_above_stack_pointer(insn: &Instruction) -> bool {
    gpr(insn.memory_base()) == Some(RSP)
        && insn.memory_base().is_gpr64()
        && insn.memory_index() == Register::None
        && insn.segment_prefix() == Register::None
        && (insn.memory_displacement64() as i64) >= 0
}

fn touches(kinds: &mut Kinds, insn: &Instruction, register: Register) -> bool {
    kinds.factory.info(insn).used_registers().iter().any(|used| gpr(used.register()).is_some() && gpr(used.register()) == gpr(register))
}

/// Does it name at least the low `size` bytes? (What is above them is zero, or not asked for.)
fn is_low(register: Register, size: u32) -> bool {
    let high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
    !high && register.size() as u32 >= size
}
