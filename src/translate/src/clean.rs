//! Clean mode: every register is fully defined, so an instruction needs only the checks of its memory operands.

use crate::decode::{Flow, flow};
use crate::emit::{Mem, RSI, RSP};
use crate::emitter::{Emitter, spill};
use crate::spread::{goes_elsewhere, is_far_bit};
use crate::{LOAD, MODIFY, STATE_AREA, STORE, control, helper, slot, stack};
use iced_x86::{Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind};

/// Where the vector registers begin in the memory of xsave and xrstor.
const XMM_IN_STATE_AREA: i32 = 160;

impl Emitter<'_> {
    pub fn instruction(&mut self) {
        let insn = self.item.insn;
        if self.item.client_request {
            return control::client_request(self);
        }
        self.begin_dirty();
        if self.item.plain {
            return self.ordinary();
        }
        if control::is_emulated(&insn) {
            return control::emulate(self);
        }
        match flow(&insn) {
            Flow::Straight => {}
            _ => return control::transfer(self),
        }
        if stack::handles(&insn) {
            return stack::instruction(self);
        }
        if insn.is_string_instruction() {
            return self.string();
        }
        self.ordinary();
        if stack::writes_rsp(&insn) {
            stack::after_move(self);
        }
    }

    /// An instruction whose only special part can be one explicit memory operand.
    pub fn ordinary(&mut self) {
        let insn = self.item.insn;
        let moves_stack = !self.item.plain && stack::writes_rsp(&insn);
        if goes_elsewhere(&insn) && self.shadow.is_none() {
            self.ask_for_rule();
        }
        let Some(access) = self.t.kinds.access(&insn) else {
            if moves_stack {
                self.place_step();
                self.asm.store(&spill(slot::ADDRESS), RSP);
            }
            return self.copy_without_operand();
        };
        let size = insn.memory_size().size() as u32;
        self.with_operand(|e, mem, rewritten| {
            if is_state_area(&insn) {
                e.state_area(&mem, if access == Some(LOAD) { LOAD } else { STORE });
            } else if let Some(kind) = access {
                e.check(&mem, size, kind);
            } else if is_prefetch(&insn) {
                e.prefetch_shadow(&mem);
            }
            if moves_stack {
                e.place_step();
                e.asm.store(&spill(slot::ADDRESS), RSP);
            }
            e.mark_own();
            if rewritten { e.rewrite(&mem) } else { e.copy_raw_here() }
        });
    }

    /// What the program fetches ahead it will access, and the check of that access will wait for the V bytes.
    fn prefetch_shadow(&mut self, mem: &Mem) {
        const PREFETCHT0: u8 = 1;
        self.asm.op_mem(None, false, &[0x0f, 0x18], PREFETCHT0, &mem.shadow(0));
    }

    /// xsave and xrstor: how much they touch is not in the instruction. Their rule knows; clean code asks only whether it is needed.
    fn state_area(&mut self, mem: &Mem, kind: u32) {
        if self.shadow.is_some() {
            return self.step_always();
        }
        let mem = Mem { disp: mem.disp + XMM_IN_STATE_AREA, ..*mem };
        self.asm.jmp(self.cold.here());
        self.check_stub(false, &mem, STATE_AREA, kind);
    }

    pub fn copy_raw(&mut self) {
        self.mark_own();
        self.copy_raw_here();
    }

    fn copy_raw_here(&mut self) {
        self.asm.first_of(&self.item.raw, usize::from(self.item.len));
    }

    /// String instructions: the runtime checks and moves the shadow of the whole operation first.
    fn string(&mut self) {
        let insn = self.item.insn;
        let Some(argument) = control::string_argument(&insn) else { return self.copy_raw() };
        if self.pending.is_some() {
            self.step_always();
        } else {
            control::call_helper(self, helper::STRING | argument << 8);
        }
        let has_source = !matches!(
            insn.mnemonic(),
            Mnemonic::Stosb
                | Mnemonic::Stosw
                | Mnemonic::Stosd
                | Mnemonic::Stosq
                | Mnemonic::Scasb
                | Mnemonic::Scasw
                | Mnemonic::Scasd
                | Mnemonic::Scasq
        );
        self.copy_moved(has_source.then_some(RSI));
    }
}

/// Does it carry the vector registers to memory or back?
pub fn is_state_area(insn: &Instruction) -> bool {
    use Mnemonic::{Xrstor, Xrstor64, Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64};
    matches!(insn.mnemonic(), Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64)
}

fn is_prefetch(insn: &Instruction) -> bool {
    use Mnemonic::{Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw};
    matches!(insn.mnemonic(), Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchw)
}

pub fn is_masked_move(insn: &Instruction) -> bool {
    use Mnemonic::{Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq};
    matches!(insn.mnemonic(), Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq)
}

/// Explicit memory operand: None if there is none; Some(None) if it is not accessed (lea, nop, prefetch) or needs no check.
pub fn memory_access(factory: &mut InstructionInfoFactory, insn: &Instruction) -> Option<Option<u32>> {
    let at = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory)?;
    if is_far_bit(insn) {
        return Some(None);
    }
    // Which registers and memory it uses is not asked, and is most of the work.
    let only_operands = InstructionInfoOptions::NO_REGISTER_USAGE | InstructionInfoOptions::NO_MEMORY_USAGE;
    Some(match factory.info_options(insn, only_operands).op_access(at) {
        // Which bytes a masked store touches is for its rule to say. Where something is not plainly defined it is applied, as for a load.
        OpAccess::CondWrite => Some(LOAD),
        OpAccess::Write if is_masked_move(insn) => Some(LOAD),
        OpAccess::Read => Some(LOAD),
        OpAccess::Write => Some(STORE),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => Some(MODIFY),
        _ => None,
    })
}
