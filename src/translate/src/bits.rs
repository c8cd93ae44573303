//! Loads of which only some bits matter: those of a bit-field among others that nobody has written yet.
//!
//! ```text
//! test byte [rdi], 4                          test byte gs:[rdi], 4 ; jne cold
//! movzx eax, byte [rdi] ; and eax, 3          test byte gs:[rdi], 3 ; jne cold
//! movzx eax, byte [rdi] ; shr al, 5           bits 4 to 7: the last one that is shifted out goes to the carry flag
//! ```
//! The instruction behind the load, or the load itself, makes a defined value of it if these bits are defined, as the rules of dirty mode
//! have it. So its check asks for them only, and the others may be undefined. There must be one in every byte: V bits of memory that
//! may not be accessed are all set, and one of them must be among those that are looked at.

use crate::check::pieces;
use crate::decode::Item;
use crate::gpr;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// For every load of which only some bits matter, which.
pub fn find(items: &mut [Item]) {
    for at in 0..items.len() {
        let (item, behind) = (&items[at], &items[at + 1..]);
        let found = match item.insn.mnemonic() {
            Mnemonic::Test => tested(&item.insn),
            Mnemonic::Movzx | Mnemonic::Mov if item.insn.op1_kind() == OpKind::Memory => loaded(&item.insn, behind),
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
    let register = matches!(insn.op1_kind(), OpKind::Register | OpKind::Memory);
    (insn.op_count() == 2 && !register).then(|| insn.immediate(1) as u32)
}

/// test [memory], constant
fn tested(insn: &Instruction) -> Option<u32> {
    let narrow = insn.op0_kind() == OpKind::Memory && insn.memory_size().size() <= 4;
    immediate(insn).filter(|_| narrow)
}

/// A load of a register, by what is done to it next.
fn loaded(insn: &Instruction, behind: &[Item]) -> Option<u32> {
    let size = insn.memory_size().size() as u32;
    let to = insn.op0_register();
    if !matches!(size, 1 | 2 | 4) || !(to.is_gpr32() || to.is_gpr64()) {
        return None;
    }
    let next = &behind.first()?.insn;
    let same = next.op0_kind() == OpKind::Register && gpr(next.op0_register()) == gpr(to) && is_low(next.op0_register(), size);
    match next.mnemonic() {
        _ if !same => None,
        Mnemonic::And => immediate(next),
        Mnemonic::Shr => immediate(next).filter(|n| (2..8 * size).contains(n)).map(|n| u32::MAX << (n - 1)),
        _ => None,
    }
}

/// Does it name at least the low `size` bytes? (What is above them is zero.)
fn is_low(register: Register, size: u32) -> bool {
    let high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
    !high && register.size() as u32 >= size
}
