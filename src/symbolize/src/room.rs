//! Which instruction of a function makes room for its local variables.
//!
//! That is where Valgrind says that undefined values of a frame were created. It looks at the stack pointer when memory is accessed or code
//! branches, so of several changes in between the last one counts:
//!
//! ```text
//! push rbp                accesses memory, makes room for itself only
//! mov  rbp, rsp
//! sub  rsp, 0xc0          <- if the next access is another one, or a branch comes first
//! lea  rdi, [rbp-0xc0]
//! call init               <- otherwise: pushes the return address
//! ```
//! Deliberately absent: room that is made later, for arrays of variable length.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

/// Instructions that are looked at.
const MOST: usize = 200;

/// The address of that instruction in the function whose code begins with these bytes at `start`.
pub(crate) fn made(code: &[u8], start: u64) -> Option<u64> {
    let mut info = InstructionInfoFactory::new();
    let mut room = None;
    for insn in Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter().take(MOST) {
        if insn.code() == Code::INVALID {
            break;
        }
        if lowers(&insn) {
            room = Some(insn.ip());
        } else if insn.flow_control() != FlowControl::Next || !info.info(&insn).used_memory().is_empty() {
            // Without room yet: what leaves early without a frame.
            let pushes = matches!(insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall) || insn.mnemonic() == Mnemonic::Push;
            if room.is_some() {
                return if pushes { Some(insn.ip()) } else { room };
            }
        }
    }
    room
}

/// Does it move the stack pointer down without an access to memory?
fn lowers(insn: &Instruction) -> bool {
    if insn.op_count() != 2 || insn.op0_kind() != OpKind::Register || insn.op0_register() != Register::RSP {
        return false;
    }
    let immediate = !matches!(insn.op1_kind(), OpKind::Register | OpKind::Memory);
    match insn.mnemonic() {
        Mnemonic::Sub => immediate,
        Mnemonic::Add => immediate && (insn.immediate(1) as i64) < 0,
        Mnemonic::And => immediate,
        Mnemonic::Lea => insn.memory_base() == Register::RSP && (insn.memory_displacement64() as i64) < 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::made;

    #[test]
    fn the_last_change_before_an_access_counts() {
        // push rbp; mov rbp, rsp; sub rsp, 0x40
        let prologue = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x40];
        let with = |more: &[u8]| made(&[&prologue, more].concat(), 0x1000);
        assert_eq!(with(&[0xc7, 0x45, 0xfc, 0, 0, 0, 0]), Some(0x1004), "mov dword [rbp-4], 0");
        assert_eq!(with(&[0x48, 0x8d, 0x7d, 0xc0, 0xe8, 0, 0, 0, 0]), Some(0x100c), "lea rdi, [rbp-0x40]; call");
        assert_eq!(with(&[0x85, 0xff, 0x74, 5, 0xe8, 0, 0, 0, 0]), Some(0x1004), "test edi, edi; je; call");
        assert_eq!(with(&[0x53, 0xe8, 0, 0, 0, 0]), Some(0x1008), "push rbx; call");
        assert_eq!(with(&[0x48, 0x83, 0xe4, 0xe0, 0xc3]), Some(0x1008), "and rsp, -32; ret");
    }

    #[test]
    fn a_frame_may_be_made_late_or_not_at_all() {
        // test edi, edi; je +1; ret; sub rsp, 8; mov eax, [rdi]
        assert_eq!(made(&[0x85, 0xff, 0x74, 1, 0xc3, 0x48, 0x83, 0xec, 8, 0x8b, 7], 0), Some(5));
        assert_eq!(made(&[0x55, 0x5d, 0xc3], 0), None);
        assert_eq!(made(&[], 0), None);
    }
}
