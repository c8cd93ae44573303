//! The instructions of a loop with their rules: only where something may be undefined, and without asking the mask.

use super::bits;
use crate::check::pieces;
use crate::emit::{CC_E, CC_NE, Mem, Seg};
use crate::emitter::Emitter;
use crate::moves::{Move, Reg, store};
use crate::needs::Needs;
use crate::rules::encode::Alu;
use crate::rules::{Form, Job};
use crate::{Rule, control, gpr, spread, stack};
use alloc::vec::Vec;
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpAccess, OpKind, Register};

/// Instructions that are none of a loop's business.
fn is_foreign(insn: &Instruction) -> bool {
    let memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    let address = [insn.memory_base(), insn.memory_index()];
    stack::handles(insn)
        || stack::writes_rsp(insn)
        || insn.is_string_instruction()
        || insn.has_lock_prefix()
        || control::is_emulated(insn)
        || crate::has_masked_memory(insn)
        || spread::goes_elsewhere(insn)
        || crate::uses_private_registers(insn)
        || !matches!(insn.encoding(), EncodingKind::Legacy)
            && !matches!(
                insn.mnemonic(),
                Mnemonic::Shlx | Mnemonic::Shrx | Mnemonic::Sarx | Mnemonic::Andn | Mnemonic::Bextr | Mnemonic::Rorx
            )
        || matches!(insn.mnemonic(), Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Xlatb | Mnemonic::Int3 | Mnemonic::Ud2)
        || memory && (matches!(insn.segment_prefix(), Register::FS | Register::GS) || address.iter().any(|r| r.is_gpr32()))
}

impl Emitter<'_> {
    pub(super) fn computation(&mut self, rule: &Rule, needs: Needs) -> Option<()> {
        let insn = self.item.insn;
        if is_foreign(&insn) {
            return None;
        }
        let undefined = self.loops.as_ref()?.undefined;
        let memory = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory);
        let access = memory.map_or(OpAccess::NoMemAccess, |at| self.t.kinds.factory.info(&insn).op_access(at));
        let stores = matches!(access, OpAccess::Write);
        if matches!(access, OpAccess::CondWrite | OpAccess::CondRead | OpAccess::ReadCondWrite) {
            return None;
        }
        let size = insn.memory_size().size() as u32;
        let accessed = !matches!(access, OpAccess::None | OpAccess::NoMemAccess);
        let form = Form::of(&insn, &self.item.raw, needs);
        let dirty = (rule.reads | rule.address) & undefined != 0;
        let mut done = None;
        if memory.is_none() {
            self.apply_rule(rule, needs, form, dirty, None)?;
            let n = self.item.len as usize;
            let raw = self.item.raw;
            self.asm.bytes(&raw[..n]);
            return Some(());
        }
        self.with_operand(|e, mem, rewritten| {
            if e.passing {
                // A way out would have to bring the scratch register back.
                return;
            }
            let operand = accessed.then_some((mem, size));
            done = if stores { e.store_rule(rule, &mem, size) } else { e.apply_rule(rule, needs, form, dirty, operand) };
            let own = e.asm.here();
            if rewritten {
                e.rewrite(&mem);
            } else {
                let n = e.item.len as usize;
                let raw = e.item.raw;
                e.asm.bytes(&raw[..n]);
            }
            e.faults_at(own);
        });
        done
    }

    fn apply_rule(&mut self, rule: &Rule, needs: Needs, form: Option<Form>, dirty: bool, memory: Option<(Mem, u32)>) -> Option<()> {
        if memory.is_none() && !dirty && rule.quick {
            self.define_registers(rule.writes);
            return Some(());
        }
        if let Some(form) = form {
            self.rule_in_loop(rule, form, needs, memory);
            return Some(());
        }
        if !rule.quick || dirty {
            return None;
        }
        // No rule for undefined memory here.
        let (mem, size) = memory?;
        let words = pieces(size);
        if words.is_empty() {
            return None;
        }
        let live = self.item.flags_live;
        let before = self.loops.as_ref()?.undefined;
        if live {
            self.keep_flags();
        }
        let (mut patches, mut probes) = (Vec::new(), Vec::new());
        for &(at, n) in words.iter() {
            probes.push(self.asm.here());
            self.asm.cmp_zero(&mem.shadow(at), n);
            patches.push(self.asm.jcc_forward(CC_NE));
        }
        if live {
            self.flags_back();
        }
        self.mistake(patches, probes, None, live, before);
        self.define_registers(rule.writes);
        Some(())
    }

    /// General registers that the instruction touches.
    fn busy(&mut self) -> u32 {
        let insn = self.item.insn;
        self.t.kinds.factory.info(&insn).used_registers().iter().fold(0, |busy, used| busy | gpr(used.register()).map_or(0, |n| 1 << n))
    }

    pub(super) fn rule_in_loop(&mut self, rule: &Rule, form: Form, needs: Needs, memory: Option<(Mem, u32)>) {
        let live = self.item.flags_live;
        let busy = self.busy();
        let before = self.loops.as_ref().map_or(0, |l| l.undefined);
        if live {
            self.keep_flags();
        }
        let mut early = Vec::new();
        for bit in bits(rule.address) {
            self.unless_defined(bit, &mut early);
        }
        let mut job = Job { rule, needs, busy, memory, live, not: Vec::new(), probes: Vec::new() };
        let scratch = self.take_scratch(form.scratch(needs), busy);
        let start = self.asm.offset();
        self.rule_begins();
        self.apply(form, &scratch, &mut job);
        self.rule_ends(start, form.uses_vectors());
        self.give_back(&scratch);
        if live {
            self.flags_back();
        }
        let (not, probes) = (core::mem::take(&mut job.not), core::mem::take(&mut job.probes));
        self.mistake(early, Vec::new(), None, live, before);
        self.mistake(not, probes, Some(scratch), live, before);
    }

    /// A plain store: V bits to the shadow, and where they come from.
    fn store_rule(&mut self, rule: &Rule, mem: &Mem, size: u32) -> Option<()> {
        let insn = self.item.insn;
        let from = match insn.op1_kind() {
            OpKind::Register => Some(match store(&insn, insn.op1_register())? {
                Move::Store { from, .. } => from,
                _ => return None,
            }),
            OpKind::Memory => return None,
            _ if insn.mnemonic() == Mnemonic::Mov => None,
            _ => return None,
        };
        let from = from.filter(|from| self.may_be_undefined(from.bit()) == Some(true));
        let live = self.item.flags_live;
        let busy = self.busy();
        let before = self.loops.as_ref()?.undefined;
        if live {
            self.keep_flags();
        }
        let (mut early, mut not, mut probes, mut done) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for bit in bits(rule.address) {
            self.unless_defined(bit, &mut early);
        }
        let scratch = self.take_scratch(4, busy);
        let start = self.asm.offset();
        self.rule_begins();
        let [v, p, a, c] = [scratch[0], scratch[1], scratch[2], scratch[3]];
        let words = pieces(size);
        // Nothing to do where defined bytes take the place of defined ones.
        let mut some = Vec::new();
        for &(at, n) in words.iter() {
            probes.push(self.asm.here());
            match from {
                None => self.asm.cmp_zero(&mem.shadow(at), n),
                Some(from) => {
                    self.asm.load_zx(v, &mem.shadow(at), n);
                    self.asm.op_mem(None, true, &[0x0b], v, &from.shadow(at));
                    self.asm.alu(Alu::Test, n, v, v);
                }
            }
            if at as u32 + n == size {
                done.push(self.asm.jcc_forward(CC_E));
            } else {
                some.push(self.asm.jcc_forward(CC_NE));
            }
        }
        for at in some {
            self.asm.patch_here(at);
        }
        if self.is_reached(mem, size) {
            self.asm.lea(p, mem);
        } else {
            self.ordinary_address(mem, size, p, [a, c], true, &mut not);
            self.reach(mem, size);
        }
        let word = |at: i32| Mem { seg: Seg::Gs, ..Mem::base(p, at) };
        match from {
            None => words.iter().for_each(|&(at, n)| self.asm.store_imm(&word(at), n, 0)),
            Some(from) => {
                if self.t.options.origins {
                    self.origin_of_store(from, size, [p, a, c], &mut not);
                }
                for &(at, n) in words.iter() {
                    self.asm.load(v, &from.shadow(at));
                    self.asm.store_sized(&word(at), v, n);
                }
            }
        }
        for at in done {
            self.asm.patch_here(at);
        }
        self.rule_ends(start, false);
        self.give_back(&scratch);
        if live {
            self.flags_back();
        }
        self.mistake(early, Vec::new(), None, live, before);
        self.mistake(not, probes, Some(scratch), live, before);
        Some(())
    }

    /// Only undefined bytes have an origin.
    fn origin_of_store(&mut self, from: Reg, size: u32, registers: [u8; 3], not: &mut Vec<usize>) {
        let [_, a, _] = registers;
        self.asm.load_zx(a, &from.shadow(0), size.min(8));
        if size > 8 {
            self.asm.op_mem(None, true, &[0x0b], a, &from.shadow(8));
        }
        self.asm.alu(Alu::Test, size.min(8), a, a);
        let defined = self.asm.jcc_forward(CC_E);
        self.store_origin(from, size, registers, not);
        self.asm.patch_here(defined);
    }
}
