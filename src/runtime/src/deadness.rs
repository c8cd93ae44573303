//! Which registers are surely dead at an address: dirty mode must not wait for them.
//!
//! A register that was used for copying keeps its undefined bits until it is overwritten, often for thousands of instructions. So
//! before a thread goes on in dirty code, the code ahead is read: what it overwrites before it reads is dead.
//!
//! ```text
//! dead(pc) = overwritten on the straight way, or on both ways of a branch        (a few branches deep)
//! at a call: what is neither argument nor callee-saved; at a return: what is neither result nor callee-saved
//! ```
//! Source: the psABI for calls. What cannot be decoded or decided counts as live.

use crate::program;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use memcheck_semantics::lookahead::Code;
use memcheck_semantics::regs::{FLAGS, VEC0};

/// Instructions read on one way, and branches followed.
const INSTRUCTIONS: usize = 32;
const DEPTH: u32 = 3;
/// The same for a single register, which is soon overwritten or read on most ways.
pub const DEPTH_OF_ONE: u32 = 6;

/// Bits as in `ShadowRegs::dirty`.
pub const VECTORS: u64 = 0xffff_ffff << VEC0;
/// Neither argument (rdi rsi rdx rcx r8 r9, rax for varargs, r10 static chain, xmm0-7) nor callee-saved.
const DEAD_AT_CALL: u64 = 1 << 11 | 1 << FLAGS | VECTORS & !(0xff << VEC0);
/// Neither result (rax rdx xmm0 xmm1) nor callee-saved.
const DEAD_AT_RETURN: u64 = 1 << 1 | 1 << 6 | 1 << 7 | 0xf << 8 | 1 << FLAGS | VECTORS & !(3 << VEC0);

/// Registers whose contents do not matter at `pc`; and vector registers that matter only if they hold an argument or a result which
/// was put there before `pc`.
pub fn dead_at(code: &impl Code, factory: &mut InstructionInfoFactory, pc: u64) -> (u64, u64) {
    walk(code, factory, pc, DEPTH)
}

/// Is what a general register (by its bit) holds at `pc` overwritten, or not read on the way to the next return? What may be an argument of a
/// call is looked for in the callee if that is known, and else counts as read; so does, with `passed`, what may be an argument or result.
pub fn is_unread(code: &impl Code, factory: &mut InstructionInfoFactory, mut pc: u64, (bit, passed): (u64, bool), mut depth: u32) -> bool {
    /// rdi rsi rdx rcx r8 r9 r10; rax rdx.
    const ARGUMENTS: u64 = 1 << 7 | 1 << 6 | 1 << 2 | 1 << 1 | 7 << 8;
    const RESULTS: u64 = 1 | 1 << 2;
    /// They keep what the caller has in them.
    const KEPT: u64 = 1 << 3 | 1 << 5 | 0xf << 12;
    let is_argument = bit & (KEPT | ARGUMENTS) != 0;
    for _ in 0..INSTRUCTIONS {
        if program::redirect(pc).is_some() {
            return !is_argument;
        }
        let Some(insn) = code.instruction(pc) else { return false };
        let (reads, writes) = uses(factory, &insn);
        if reads & bit != 0 || writes & bit != 0 {
            return reads & bit == 0;
        }
        match insn.flow_control() {
            // Its arguments are not among the operands.
            FlowControl::Next if insn.mnemonic() != Mnemonic::Syscall => pc = insn.next_ip(),
            FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => pc = insn.near_branch_target(),
            FlowControl::ConditionalBranch if depth > 0 => {
                return is_unread(code, factory, insn.near_branch_target(), (bit, passed), depth - 1)
                    && is_unread(code, factory, insn.next_ip(), (bit, passed), depth - 1);
            }
            FlowControl::Call if insn.is_call_near() && bit & KEPT == 0 && !passed && is_argument && depth > 0 => {
                (pc, depth) = (insn.near_branch_target(), depth - 1);
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                return (insn.is_call_near() || insn.is_call_near_indirect()) && !is_argument;
            }
            FlowControl::Return => return bit & KEPT == 0 && !(passed && bit & RESULTS != 0),
            _ => return false,
        }
    }
    false
}

fn walk(code: &impl Code, factory: &mut InstructionInfoFactory, mut pc: u64, depth: u32) -> (u64, u64) {
    let (mut read, mut written) = (0u64, 0u64);
    for _ in 0..INSTRUCTIONS {
        if program::redirect(pc).is_some() {
            return (written | !read & DEAD_AT_CALL, VECTORS & !read);
        }
        let Some(insn) = code.instruction(pc) else { break };
        let (reads, writes) = uses(factory, &insn);
        read |= reads & !written;
        written |= writes & !read;
        match insn.flow_control() {
            FlowControl::Next => pc = insn.next_ip(),
            FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => pc = insn.near_branch_target(),
            FlowControl::ConditionalBranch if depth > 0 => {
                let taken = walk(code, factory, insn.near_branch_target(), depth - 1);
                let through = walk(code, factory, insn.next_ip(), depth - 1);
                return (written | taken.0 & through.0 & !read, (written | taken.1 & through.1 & !read) & VECTORS);
            }
            FlowControl::Call | FlowControl::IndirectCall if !insn.is_call_near() && !insn.is_call_near_indirect() => break,
            FlowControl::Call | FlowControl::IndirectCall => return (written | DEAD_AT_CALL & !read, VECTORS & !read),
            FlowControl::Return => return (written | DEAD_AT_RETURN & !read, VECTORS & !read),
            _ => break,
        }
    }
    (written, written & VECTORS)
}

/// Registers read and registers overwritten whole.
fn uses(factory: &mut InstructionInfoFactory, insn: &Instruction) -> (u64, u64) {
    let (mut reads, mut writes) = (0, 0);
    for used in factory.info(insn).used_registers() {
        let register = used.register();
        let full = register.full_register();
        let bit = if full.is_gpr64() {
            1u64 << full.number()
        } else if full.is_vector_register() {
            1u64 << (VEC0 + full.number())
        } else {
            continue;
        };
        let whole = register.is_gpr64() || register.is_gpr32() || register.is_vector_register();
        match used.access() {
            OpAccess::Write if whole => writes |= bit,
            OpAccess::NoMemAccess | OpAccess::None => {}
            _ => reads |= bit,
        }
    }
    if memcheck_translate::clean::is_state_area(insn) {
        // Lazy binding keeps the arguments of the call that it is for.
        reads |= VECTORS;
    }
    if insn.op_count() == 2 && insn.op1_kind() == OpKind::Register && insn.op0_register() == insn.op1_register() && is_zero_idiom(insn) {
        let bit = 1u64 << insn.op0_register().full_register().number();
        (reads, writes) = (reads & !bit, writes | bit);
    }
    if insn.rflags_modified() & memcheck_translate::plan::ARITHMETIC == memcheck_translate::plan::ARITHMETIC {
        writes |= 1 << FLAGS;
    }
    if insn.rflags_read() & memcheck_translate::plan::ARITHMETIC != 0 {
        reads |= 1 << FLAGS;
    }
    (reads, writes & !reads)
}

fn is_zero_idiom(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Xor | Mnemonic::Sub) && (insn.op0_register().is_gpr32() || insn.op0_register().is_gpr64())
}
