//! Dirty mode: some register carries undefined bits.
//!
//! Every instruction is preceded by a filter: is any register that it touches marked in the mask of dirty registers, or any V byte of
//! what it reads not zero? If so its rule is applied by the runtime (`helper::STEP`), which also reports; if not, the instruction
//! cannot change any shadow and runs as in clean mode:
//!
//! ```text
//!     test dword fs:[dirty], mask ; jnz step        registers read, written, used as address
//!     cmp dword gs:[rdi], 0       ; jne step        V of what is loaded
//! back:
//!     the program's instruction
//!     ...
//! step: (cold)  what translated code can do itself (`moves`), else
//!               spill rax, plan -> slot 2, back -> slot 3, jmp helper
//! ```
//! Where flags are live the tests are made with `pext` or loads and `jrcxz`; the latter take whole bytes of the mask at a time. Stores of defined registers are
//! checked as in clean mode. Regions end through `Stubs::dirty_branch`, which goes back to clean code when no register is dirty.

use crate::check::pieces;
use crate::decode::Item;
use crate::emit::{CC_NE, CC_S, Mem, RAX, RCX};
use crate::emitter::{Emitter, Later, Pending, rip_slot, spill};
use crate::moves::{Move, halves};
use crate::needs::Needs;
use crate::rules::Form;
use crate::spread::goes_elsewhere;
use crate::{DEAD_OVER_CALL, LEAVE_BACK, LEAVE_CALL, SHADOW_REGS, gpr, helper, plan, shadow_layout as layout, slot};
use alloc::vec::Vec;
use iced_x86::{Instruction, Mnemonic, OpAccess, OpKind};
use memcheck_abi::context::offset;

/// Longest region of dirty mode.
const MAX_INSTRUCTIONS: usize = 24;
/// Most instructions in which a bit-field is changed.
const MAX_CHANGE: usize = 12;

/// How many of these instructions make a region: not more than the change of a bit-field among others that are not defined yet, if it
/// begins with that. What was undefined is back in memory then, and the end of a region is where dirty mode is left.
pub fn length(items: &[Item]) -> usize {
    let memory = |insn: &Instruction| (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    let place = |insn: &Instruction| (insn.memory_base(), insn.memory_index(), insn.memory_displacement64(), insn.segment_prefix());
    let Some(first) = items.first().map(|item| item.insn).filter(memory) else { return MAX_INSTRUCTIONS };
    if first.op0_kind() == OpKind::Memory {
        return if first.op_count() == 2 && matches!(first.mnemonic(), Mnemonic::And | Mnemonic::Or) { 1 } else { MAX_INSTRUCTIONS };
    }
    let stored =
        |item: &Item| item.insn.mnemonic() == Mnemonic::Mov && item.insn.op0_kind() == OpKind::Memory && place(&item.insn) == place(&first);
    items.iter().take(MAX_CHANGE).position(stored).map_or(MAX_INSTRUCTIONS, |at| at + 1)
}

/// How often a loop may come round in dirty mode without meeting anything undefined.
const PATIENCE: i32 = 3;

/// The mask of dirty registers.
pub const fn mask_at(byte: i32) -> Mem {
    Mem::ctx(SHADOW_REGS + byte)
}

impl Emitter<'_> {
    /// Start an instruction: test its registers.
    pub fn begin_dirty(&mut self) {
        let Some(shadow) = &mut self.shadow else { return };
        let insn = self.item.insn;
        let rule = shadow.rule(&insn);
        let mask = rule.mask;
        let mut busy = 0;
        for used in self.t.kinds.factory.info(&insn).used_registers() {
            let r = used.register();
            busy |= gpr(r).map_or(0, |n| 1 << n);
            if r.is_vector_register() && r.number() < 16 && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
                self.vectors_written |= 1 << r.number();
            }
        }
        let needs = self.t.needs.get(self.info.len() - 1).copied().unwrap_or(Needs::ALL);
        let form = Form::of(&insn, &self.item.raw, needs).filter(|_| self.t.options.pext).map(|form| Move::Rule { form, needs, busy });
        let action = Move::of(&insn).or(form).filter(|_| rule.inline);
        self.pending = Some(Pending { rule, action, memory: None, patches: Vec::new(), live_patches: Vec::new(), open: true });
        if self.item.flags_live {
            self.test_mask_keeping_flags(mask);
        } else {
            self.test_mask(mask);
        }
        if goes_elsewhere(&insn) {
            self.step_always();
        }
    }

    /// Slot 4 for `Stubs::dirty_branch`: how the region is left, and from bit 8 on the vector registers that it wrote.
    pub fn leave_argument(&self, leave: u32) -> u32 {
        leave | self.vectors_written << 8
    }

    fn test_mask(&mut self, mask: u64) {
        for (byte, part) in [(0, mask as u32), (4, (mask >> 32) as u32)] {
            if part == 0 {
                continue;
            }
            self.asm.op_mem(None, false, &[0xf7], 0, &mask_at(byte));
            self.asm.u32(part);
            let patch = self.asm.jcc_forward(CC_NE);
            self.add_patch(patch, false);
        }
    }

    fn test_mask_keeping_flags(&mut self, mask: u64) {
        if mask == 0 {
            return;
        }
        self.asm.store(&spill(slot::RCX), RCX);
        if self.t.options.pext {
            for (at, half) in halves(mask) {
                self.asm.mov_const(RCX, u64::from(half));
                self.asm.and_keeping_flags(&mask_at(at));
                let clean = self.asm.jrcxz_forward();
                let patch = self.asm.jmp_forward();
                self.add_patch(patch, true);
                self.asm.patch8_here(clean);
            }
            return self.asm.load(RCX, &spill(slot::RCX));
        }
        for byte in (0..8).filter(|b| mask >> (8 * b) & 0xff != 0) {
            self.asm.load_zx(RCX, &mask_at(byte), 1);
            let clean = self.asm.jrcxz_forward();
            let patch = self.asm.jmp_forward();
            self.add_patch(patch, true);
            self.asm.patch8_here(clean);
        }
        self.asm.load(RCX, &spill(slot::RCX));
    }

    /// Test the V bytes of memory that the instruction reads.
    pub fn test_memory(&mut self, mem: &Mem, size: u32) {
        if !self.pending.as_ref().is_some_and(|p| p.open) {
            return;
        }
        let parts = pieces(size);
        if parts.is_empty() {
            return self.step_always();
        }
        if self.item.flags_live {
            self.asm.store(&spill(slot::RCX), RCX);
            for (i, &(at, n)) in parts.iter().enumerate() {
                if i > 0 && mem.uses(RCX) {
                    self.asm.load(RCX, &spill(slot::RCX));
                }
                self.asm.load_zx(RCX, &mem.shadow(at), n);
                let clean = self.asm.jrcxz_forward();
                let patch = self.asm.jmp_forward();
                self.add_patch(patch, true);
                self.asm.patch8_here(clean);
            }
            self.asm.load(RCX, &spill(slot::RCX));
            return;
        }
        for &(at, n) in parts.iter() {
            self.asm.cmp_zero(&mem.shadow(at), n);
            let patch = self.asm.jcc_forward(CC_NE);
            self.add_patch(patch, false);
        }
    }

    pub fn add_patch(&mut self, patch: usize, live: bool) {
        if let Some(p) = &mut self.pending {
            if live { &mut p.live_patches } else { &mut p.patches }.push(patch);
        }
    }

    /// Apply the rule of this instruction whatever its inputs are.
    pub fn step_always(&mut self) {
        if self.pending.as_ref().is_some_and(|p| p.open) {
            let patch = self.asm.jmp_forward();
            self.add_patch(patch, false);
            self.place_step();
        }
    }

    /// The filter of this instruction is complete; its rule, if applied, comes back here.
    #[inline]
    pub fn place_step(&mut self) {
        if self.pending.is_some() {
            self.place_pending();
        }
    }

    fn place_pending(&mut self) {
        let back = self.asm.offset();
        let pc = self.item.pc;
        let Some(p) = &mut self.pending else { return };
        if !p.open {
            return;
        }
        p.open = false;
        let (rule, action, memory) = (p.rule, p.action, p.memory);
        for (live, patches) in [(false, core::mem::take(&mut p.patches)), (true, core::mem::take(&mut p.live_patches))] {
            if !patches.is_empty() {
                self.later.push(Later::Step { patches, live, pc, rule, action, memory, back });
            }
        }
    }

    /// In the end: `asm` is the cold part, `cold` the region.
    pub fn dirty_stub(&mut self, stub: Later) {
        let here = self.asm.here();
        match stub {
            Later::Step { patches, live, pc, rule, action, memory, back } => {
                for p in patches {
                    self.cold.patch_to_address(p, here);
                }
                if live {
                    self.asm.load(RCX, &spill(slot::RCX));
                }
                self.asm.store_imm(&mask_at(layout::PATIENCE), 4, PATIENCE);
                let last = core::mem::replace(&mut self.item.pc, pc);
                self.step_in_place(live, &rule, action, memory, back);
                self.item.pc = last;
                self.asm.store_const(&rip_slot(), pc);
                self.asm.store_const(&spill(slot::ADDRESS), rule.plan);
                self.asm.store_imm(&spill(slot::ARGUMENT), 8, helper::STEP as i32);
                self.asm.store(&spill(slot::RAX), RAX);
                self.asm.lea_host(RAX, self.hot + back as u64);
                self.asm.store(&spill(slot::CONTINUE), RAX);
                self.asm.jmp(self.t.stubs.helper);
            }
            Later::DirtyExit { patch, target, argument } => {
                self.cold.patch_to_address(patch, here);
                self.leave_for(target, argument);
            }
            _ => {}
        }
    }

    /// Leave the region for a program address, if need be through the runtime; from then on directly where that can be:
    ///
    /// ```text
    ///     and qword fs:[dirty], live there ; je slow         nothing left: to clean code
    ///     test dword fs:[dirty], vectors that may be stale ; jne slow
    ///     jmp [cell]                                         at first to `unlinked`
    /// ```
    /// Without the tests where flags are live there.
    fn leave_for(&mut self, target: u64, argument: u32) {
        let call = argument & 0xff == LEAVE_CALL;
        let live = if call { plan::read_at(self.program, target) } else { plan::live_at(self.program, target) };
        let known = if live == 0 { self.shadow.as_mut().and_then(|shadow| shadow.dead_at(target)) } else { None };
        let mut cell = None;
        if let Some((dead, stale)) = known {
            let (dead, stale) = if call { (dead | DEAD_OVER_CALL, layout::VECTORS) } else { (dead, stale | 1 << 63) };
            let mut slow = Vec::new();
            // Loops that met something undefined meet it again: to come back costs more than to stay.
            let patient = !call && target <= self.item.pc;
            self.forget_dead(dead, patient, &mut slow);
            self.branch_if_any(0, stale & !dead, &mut slow);
            self.asm.bytes(&[0xff, 0x25]);
            self.asm.u32(0);
            cell = Some(self.asm.offset() - 4);
            for at in slow {
                self.asm.patch_here(at);
            }
        }
        self.leave_through(target, argument, None);
        if let Some(at) = cell {
            while !self.asm.here().is_multiple_of(8) {
                self.asm.buf.push(0xcc);
            }
            let cell = self.asm.here();
            self.asm.patch_here(at);
            self.asm.u64(cell + 8);
            self.leave_through(target, argument, Some(cell));
        }
    }

    /// What is dead counts as defined; to `slow` if nothing is left.
    fn forget_dead(&mut self, dead: u64, patient: bool, slow: &mut Vec<usize>) {
        for (at, half) in halves(dead) {
            self.asm.op_mem(None, false, &[0x81], 4, &mask_at(at));
            self.asm.u32(!half);
        }
        let mut left = Vec::new();
        for at in [0, 4] {
            self.asm.cmp_zero(&mask_at(at), 4);
            left.push(self.asm.jcc_forward(CC_NE));
        }
        if patient {
            self.asm.op_mem(None, false, &[0x83], 5, &mask_at(layout::PATIENCE));
            self.asm.buf.push(1);
            slow.push(self.asm.jcc_forward(CC_S));
        } else {
            slow.push(self.asm.jmp_forward());
        }
        for at in left {
            self.asm.patch_here(at);
        }
    }

    pub fn leave_through(&mut self, target: u64, argument: u32, cell: Option<u64>) {
        self.asm.store(&spill(slot::RCX), RCX);
        self.asm.store_const(&Mem::ctx(offset::TARGET), target);
        let back = cell.is_some() && target <= self.item.pc;
        self.asm.store_imm(&spill(slot::ARGUMENT), 8, (argument | if back { LEAVE_BACK } else { 0 }) as i32);
        match cell {
            Some(cell) => {
                self.asm.store_const(&spill(slot::ADDRESS), cell);
                self.asm.jmp(self.t.stubs.dirty_link);
            }
            None => self.asm.jmp(self.t.stubs.dirty_branch),
        }
    }
}
