//! Instructions that touch other memory than their operand names: only their rule knows what.
//!
//! ```text
//! gathers, scatters                       an address per lane
//! bt, bts, btr, btc mem, register         a bit that may lie beyond the operand
//! maskmovq, maskmovdqu, movdir64b, clzero the target is in a register, and no operand
//! ```
//! Clean code asks the runtime whether there is anything among it that is not plainly defined (`memcheck_runtime::spread`), and dirty code
//! always applies the rule.

use crate::emit::{Mem, RDI, RSP};
use crate::emitter::{Emitter, rip_slot};
use crate::{SPREAD, STORE};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// A bit of memory by an offset in a register.
pub fn is_far_bit(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && insn.op0_kind() == OpKind::Memory
        && insn.op1_kind() == OpKind::Register
}

/// Bytes are stored to where rdi points, by a mask.
fn is_byte_mask(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu)
}

/// Does it touch memory beside its operand? (Gathers and scatters have an operand of their own kind.)
pub fn goes_elsewhere(insn: &Instruction) -> bool {
    is_far_bit(insn) || is_byte_mask(insn) || matches!(insn.mnemonic(), Mnemonic::Movdir64b | Mnemonic::Clzero)
}

impl Emitter<'_> {
    /// In front of a gather or scatter.
    pub fn spread(&mut self) {
        if !matches!(self.t.kinds.access(&self.item.insn), Some(Some(_))) {
            return;
        }
        if self.shadow.is_some() {
            return self.step_always();
        }
        self.ask_for_rule();
    }

    /// Does the instruction touch anything that is not plainly defined?
    pub fn ask_for_rule(&mut self) {
        self.asm.store_const(&rip_slot(), self.item.pc);
        self.asm.jmp(self.cold.here());
        self.check_stub(false, &Mem::base(RSP, 0), SPREAD, STORE);
    }

    /// An instruction without a memory operand, as it is.
    pub fn copy_without_operand(&mut self) {
        if is_byte_mask(&self.item.insn) {
            return self.copy_moved(Some(RDI));
        }
        self.copy_raw();
    }
}
