//! Does the function that a `ret` ends keep anything below the stack pointer?
//!
//! Leaf functions do: the 128 bytes there, the red zone, are theirs without asking. What they leave in it must not pass for the initial
//! values of the next function's locals, so their `ret` paints it, as far down as they go. In a longer function the instructions that use
//! it are in other regions than the `ret`. Code cannot be decoded backwards, but the operand that gives them away can be seen in the bytes
//! alone:
//!
//! ```text
//! [opcode] [mod r/m: disp8 or disp32, SIB follows] [SIB: base = rsp] [displacement < 0]
//! ```
//! Bytes that only look like it, or that belong to the function before, cost the painting of a red zone that nobody has used; what is
//! further away is overlooked. That the answer goes by the bytes alone lets a region be translated again to the same code.

use crate::Program;
use iced_x86::{Instruction, Mnemonic, Register};
use memcheck_abi::layout::RED_ZONE;

/// Bytes in front of a `ret` that are looked at.
const WINDOW: u64 = 256;
const PAGE: u64 = 4096;

/// Does it touch memory below the stack pointer?
pub fn below_stack(insn: &Instruction) -> bool {
    insn.memory_base() == Register::RSP && (insn.memory_displacement64() as i64) < 0 && insn.mnemonic() != Mnemonic::Lea
}

/// How far below the stack pointer the code in front of the `ret` at `pc` goes: bytes, a multiple of 8, at most the red zone.
pub fn reaches_below(program: &dyn Program, pc: u64) -> u32 {
    let from = pc.saturating_sub(WINDOW);
    // In the first page of a mapping there may be less.
    let Some(code) = [from, pc & !(PAGE - 1)].into_iter().find_map(|from| program.code(from)?.get(..(pc - from) as usize)) else {
        return 0;
    };
    if program.is_writable(from) || program.is_writable(pc) { 0 } else { reach(code) }
}

fn reach(code: &[u8]) -> u32 {
    // Most bytes are none: they are looked at singly first.
    let operands = code.iter().enumerate().filter(|&(_, &byte)| matches!(byte & FORM, SHORT | LONG));
    let depths = operands.filter_map(|(at, _)| depth(&code[at..]).filter(|_| !extends_base(&code[..at])));
    depths.max().map_or(0, |most| most.next_multiple_of(8).min(RED_ZONE as u32))
}

/// Of a ModRM byte: everything but the register.
const FORM: u8 = 0xc7;
/// A SIB byte follows, and a displacement of 1 byte or of 4.
const SHORT: u8 = 0x44;
const LONG: u8 = 0x84;

/// The n of ModRM, SIB and displacement of `[rsp - n]` or `[rsp + index - n]`.
fn depth(bytes: &[u8]) -> Option<u32> {
    const RSP: u8 = 4;
    let (&[mod_rm, sib], displacement) = bytes.split_first_chunk()?;
    let displacement = match mod_rm & FORM {
        SHORT => i32::from(*displacement.first()? as i8),
        LONG => i32::from_le_bytes(*displacement.first_chunk()?),
        _ => return None,
    };
    (sib & 7 == RSP && displacement < 0).then_some(displacement.unsigned_abs())
}

/// Does a REX prefix in front of an opcode of one or two bytes make the base r12?
fn extends_base(before: &[u8]) -> bool {
    let rex = |distance: usize| before.len().checked_sub(distance).is_some_and(|at| before[at] & 0xf1 == 0x41);
    rex(2) || rex(3)
}

#[cfg(test)]
mod tests {
    use super::reach;

    #[test]
    fn operands_below_the_stack_pointer_are_seen() {
        let uses: [&[u8]; 5] = [
            &[0x90, 0x89, 0x7c, 0x24, 0xdc, 0x90, 0x90, 0x90], // mov [rsp-36], edi
            &[0xc6, 0x44, 0x04, 0xf7, 0x00, 0x90, 0x90],       // mov byte [rsp+rax-9], 0
            &[0x48, 0x8d, 0x44, 0x24, 0xc8, 0x90, 0x90],       // lea rax, [rsp-56]
            &[0xc5, 0xf8, 0x29, 0x44, 0x24, 0x88, 0x90, 0x90], // vmovaps [rsp-120], xmm0
            &[0x89, 0x84, 0x8c, 0x80, 0xff, 0xff, 0xff, 0x90], // mov [rsp+4*rcx-128], eax
        ];
        assert_eq!(uses.map(reach), [40, 16, 56, 120, 128]);
        let others: [&[u8]; 5] = [
            &[0x89, 0x7c, 0x24, 0x1c, 0x90, 0x90, 0x90],       // mov [rsp+28], edi
            &[0x49, 0x89, 0x44, 0x24, 0xf8, 0x90, 0x90, 0x90], // mov [r12-8], rax
            &[0x48, 0x89, 0x45, 0xf8, 0x90, 0x90, 0x90],       // mov [rbp-8], rax
            &[0x89, 0x84, 0x24, 0x80, 0x00, 0x00, 0x00, 0x90], // mov [rsp+128], eax
            &[0x24, 0xdc],
        ];
        assert_eq!(others.map(reach), [0; 5]);
    }
}
