//! What the kind of an instruction says once and for all.
//!
//! A decoded instruction answers questions by tables, each in a place of its own, and the questions are many. Most answers depend on the kind
//! of the instruction only (its opcode and encoding, `iced_x86::Code`), so they are put together when a kind is met for the first time:
//!
//! ```text
//! kind -> marks (straight, stack, string...) | flags read, flags overwritten | access to memory | general registers written
//! ```
//! Where operands have a say (repeat prefixes, counts of shifts, masks, `xor eax, eax`) the instruction is asked itself.

use crate::decode::{Flow, flow};
use crate::plan::ARITHMETIC;
use crate::{clean, control, gpr, merge, plan, stack};
use alloc::vec::Vec;
use iced_x86::{Code, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

/// Marks of a kind.
pub mod mark {
    /// The kind was met before.
    pub const KNOWN: u16 = 1 << 0;
    /// The next instruction follows.
    pub const STRAIGHT: u16 = 1 << 1;
    /// Emulated, or a string instruction, or one that moves the stack pointer as such (push, pop, leave...).
    pub const SPECIAL: u16 = 1 << 2;
    pub const PUSH: u16 = 1 << 3;
    pub const POP: u16 = 1 << 4;
    /// Flags depend on the operands.
    pub const SHIFT: u16 = 1 << 5;
    /// It may have a mask, and registers that other encodings do not reach.
    pub const EVEX: u16 = 1 << 6;
    /// Conditional branch.
    pub const BRANCH: u16 = 1 << 7;
    /// `Kind::access` was found out, the kind says what `Kind::written` holds.
    pub const ACCESS: u16 = 1 << 8;
    pub const WRITTEN: u16 = 1 << 9;
    /// Legacy and VEX encodings without mask registers: nothing that `uses_private_registers` looks for.
    pub const PUBLIC: u16 = 1 << 10;
    /// Its memory operand, if it has one, is a vector (EVEX encodings not told).
    pub const WIDE: u16 = 1 << 11;
}

/// Which general registers an instruction may change, where its kind says that.
#[derive(Clone, Copy, Default)]
enum Written {
    #[default]
    None,
    /// The first operand.
    First,
}

#[derive(Clone, Copy, Default)]
struct Kind {
    marks: u16,
    read: u16,
    killed: u16,
    access: u8,
    written: Written,
}

const NO_ACCESS: u8 = u8::MAX;

pub struct Kinds {
    pub factory: InstructionInfoFactory,
    kinds: Vec<Kind>,
}

impl Kinds {
    pub fn new() -> Kinds {
        Kinds { factory: InstructionInfoFactory::new(), kinds: Vec::new() }
    }

    #[inline]
    fn of(&mut self, insn: &Instruction) -> Kind {
        match self.kinds.get(insn.code() as usize) {
            Some(kind) if kind.marks != 0 => *kind,
            _ => self.meet(insn),
        }
    }

    #[cold]
    #[inline(never)]
    fn meet(&mut self, insn: &Instruction) -> Kind {
        if self.kinds.is_empty() {
            self.kinds.resize(Code::values().len(), Kind::default());
        }
        let kind = look(insn);
        // What the operands have a say in is looked at again, when they may have none.
        if has_say(insn) {
            return Kind { marks: kind.marks | mark::SHIFT, ..kind };
        }
        self.kinds[insn.code() as usize] = kind;
        kind
    }

    pub fn marks(&mut self, insn: &Instruction) -> u16 {
        self.of(insn).marks
    }

    /// Arithmetic flags that the instruction reads, and those that it surely overwrites.
    pub fn flags(&mut self, insn: &Instruction) -> (u32, u32) {
        let kind = self.of(insn);
        if kind.marks & mark::SHIFT != 0 || has_say(insn) {
            return (insn.rflags_read() & ARITHMETIC, plan::killed(insn));
        }
        (kind.read.into(), kind.killed.into())
    }

    /// As `clean::memory_access`.
    pub fn access(&mut self, insn: &Instruction) -> Option<Option<u32>> {
        let kind = self.of(insn);
        let memory = insn.op0_kind() == OpKind::Memory
            || insn.op1_kind() == OpKind::Memory
            || (2..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
        if !memory {
            return None;
        }
        if kind.marks & mark::ACCESS != 0 {
            return Some((kind.access != NO_ACCESS).then_some(u32::from(kind.access)));
        }
        let access = clean::memory_access(&mut self.factory, insn);
        if kind.marks & (mark::EVEX | mark::SHIFT) == 0 && !has_say(insn) {
            let kind = &mut self.kinds[insn.code() as usize];
            kind.marks |= mark::ACCESS;
            kind.access = access.flatten().map_or(NO_ACCESS, |access| access as u8);
        }
        access
    }

    /// General registers that the instruction may change, by their bits.
    pub fn written(&mut self, insn: &Instruction) -> u32 {
        let kind = self.of(insn);
        if kind.marks & mark::WRITTEN == 0 {
            return merge::written(&mut self.factory, insn);
        }
        match kind.written {
            Written::None => 0,
            Written::First if insn.op0_kind() == OpKind::Register => gpr(insn.op0_register()).map_or(0, |r| 1 << r),
            Written::First => 0,
        }
    }
}

/// Do operands and prefixes change what the kind says?
#[inline]
fn has_say(insn: &Instruction) -> bool {
    let first = insn.op0_register();
    insn.has_rep_prefix() || insn.has_repne_prefix() || first != Register::None && first == insn.op1_register()
}

fn look(insn: &Instruction) -> Kind {
    let mnemonic = insn.mnemonic();
    let evex = insn.encoding() == EncodingKind::EVEX;
    let names_masks = (0..insn.op_count()).any(|i| insn.op_register(i).is_k());
    let special = control::is_emulated(insn) || stack::is_stack_mnemonic(mnemonic) || insn.is_string_instruction();
    let written = writes(insn);
    let marks = [
        (mark::KNOWN, true),
        (mark::STRAIGHT, matches!(flow(insn), Flow::Straight)),
        (mark::BRANCH, matches!(flow(insn), Flow::Branch)),
        (mark::SPECIAL, special),
        (mark::PUSH, mnemonic == Mnemonic::Push),
        (mark::POP, mnemonic == Mnemonic::Pop),
        (mark::SHIFT, plan::is_shift(mnemonic)),
        (mark::EVEX, evex),
        (mark::WIDE, !evex && insn.memory_size().size() >= merge::VECTOR),
        (mark::WRITTEN, written.is_some()),
        (mark::PUBLIC, !evex && !names_masks),
    ];
    Kind {
        marks: marks.into_iter().fold(0, |all, (mark, has)| if has { all | mark } else { all }),
        read: (insn.rflags_read() & ARITHMETIC) as u16,
        killed: plan::killed(insn) as u16,
        access: NO_ACCESS,
        written: written.unwrap_or_default(),
    }
}

/// What common instructions write of the general registers; none of them has an operand that is not named.
fn writes(insn: &Instruction) -> Option<Written> {
    use Mnemonic::{
        Adc, Add, And, Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovns, Cmovs, Cmp, Dec, Inc, Ja, Jae,
        Jb, Jbe, Je, Jg, Jge, Jl, Jle, Jmp, Jne, Jns, Js, Lea, Mov, Movaps, Movd, Movdqa, Movdqu, Movq, Movsx, Movsxd, Movups, Movzx, Neg,
        Nop, Not, Or, Pxor, Rol, Ror, Sar, Sbb, Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setns, Sets, Shl, Shr,
        Sub, Test, Xor,
    };
    match insn.mnemonic() {
        Mov | Movzx | Movsx | Movsxd | Lea | Add | Sub | And | Or | Xor | Adc | Sbb | Inc | Dec | Neg | Not | Shl | Shr | Sar | Rol
        | Ror | Movd | Movq | Sete | Setne | Setb | Setae | Setbe | Seta | Setl | Setge | Setle | Setg | Sets | Setns | Cmove | Cmovne
        | Cmovb | Cmovae | Cmovbe | Cmova | Cmovl | Cmovge | Cmovle | Cmovg | Cmovs | Cmovns => Some(Written::First),
        Cmp | Test | Nop | Je | Jne | Jb | Jae | Jbe | Ja | Jl | Jge | Jle | Jg | Js | Jns | Jmp | Movaps | Movups | Movdqa | Movdqu
        | Pxor => Some(Written::None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use iced_x86::{Decoder, DecoderOptions};

    /// Every answer by kind is the instruction's own, whatever was asked before: bytes at random behind prefixes that change answers.
    #[test]
    fn kinds_answer_as_instructions_do() {
        const PREFIXES: [&[u8]; 10] =
            [&[], &[0x48], &[0xf3], &[0xf2], &[0x66], &[0x66, 0x48], &[0xf0], &[0x0f], &[0x62, 0xf1], &[0xf3, 0x0f]];
        let mut kinds = Kinds::new();
        let mut word = 0x1234_5678_9abc_def1u64;
        let mut seen = 0;
        for round in 0..600_000 {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let mut code = [0u8; 16];
            let prefix = PREFIXES[round % PREFIXES.len()];
            code[..prefix.len()].copy_from_slice(prefix);
            let mixed = (u128::from(word) << 64 | u128::from(word.rotate_left(29) ^ word >> 7)).to_be_bytes();
            code[prefix.len()..].copy_from_slice(&mixed[..16 - prefix.len()]);
            let insn = Decoder::with_ip(64, &code, 0x40_0000, DecoderOptions::NONE).decode();
            if insn.is_invalid() {
                continue;
            }
            seen += 1;
            let name = alloc::format!("{:?} {:02x?}", insn.code(), &code[..insn.len()]);
            assert_eq!(kinds.flags(&insn), (insn.rflags_read() & ARITHMETIC, plan::killed(&insn)), "flags of {name}");
            assert_eq!(kinds.access(&insn), clean::memory_access(&mut InstructionInfoFactory::new(), &insn), "access of {name}");
            assert_eq!(kinds.written(&insn), merge::written(&mut InstructionInfoFactory::new(), &insn), "written by {name}");
            let marks = kinds.marks(&insn);
            assert_eq!(marks & mark::STRAIGHT != 0, matches!(decode::flow(&insn), Flow::Straight), "flow of {name}");
            let special = control::is_emulated(&insn) || stack::is_stack_mnemonic(insn.mnemonic()) || insn.is_string_instruction();
            assert_eq!(marks & mark::SPECIAL != 0, special, "{name}");
            assert!(marks & mark::PUBLIC == 0 || !crate::uses_private_registers(&insn), "registers of {name}");
        }
        assert!(seen > 300_000);
    }
}
