//! The code of a run of copies.

use super::{Copies, Held, Keep, Part, Step};
use crate::dirty::mask_at;
use crate::emit::{CC_E, CC_NE, Mem, RAX, RCX};
use crate::emitter::{Emitter, rip_slot, spill};
use crate::moves::{Reg, halves};
use crate::rules::encode::Alu;
use crate::{LEAVE_JUMP, shadow_layout as layout, slot};
use alloc::vec::Vec;

/// Slot for the target's address.
pub const SLOT_TARGET: i32 = 8;

impl Emitter<'_> {
    /// The entry: ask for everything, then go on behind the data.
    ///
    /// ```text
    /// data: address of the dirty region (8 bytes) | number of ranges (4) | (displacement, size) (4 + 4) ...
    /// ```
    pub fn enter_copies(&mut self) {
        let Some(Copies { from, to, ranges, distance, region, change, .. }) = &self.copies else { return };
        if let Some((mem, size, reg, live)) = *change {
            return self.enter_change(mem, size, reg, live, *region);
        }
        let to = Mem { disp: *distance, ..*to };
        self.asm.store(&spill(slot::RAX), RAX);
        self.asm.lea(RAX, from);
        self.asm.store(&spill(slot::ADDRESS), RAX);
        self.asm.load(RAX, &spill(slot::RAX));
        self.asm.lea(RAX, &to);
        self.asm.store(&spill(SLOT_TARGET), RAX);
        let data = self.asm.lea_forward(RAX);
        self.asm.store(&spill(slot::ARGUMENT), RAX);
        let behind = self.asm.lea_forward(RAX);
        self.asm.store(&spill(slot::CONTINUE), RAX);
        self.asm.store_const(&rip_slot(), self.item.pc);
        self.asm.jmp(self.t.stubs.copies);
        self.asm.patch_here(data);
        self.asm.u64(*region);
        self.asm.u32(ranges.len() as u32);
        for &(at, size) in ranges {
            self.asm.u32(at as u32);
            self.asm.u32(size);
        }
        self.asm.patch_here(behind);
    }

    /// The entry of a change: may its place be touched? V bits to the slot.
    fn enter_change(&mut self, mem: Mem, size: u32, reg: u8, live: bool, region: u64) {
        let busy = [mem.base, mem.index.map(|(r, _)| r)].into_iter().flatten().fold(1 << reg, |busy, r| busy | 1 << r);
        if live {
            self.keep_flags();
        }
        let scratch = self.take_scratch(4, busy);
        let [v, p, a, c] = [scratch[0], scratch[1], scratch[2], scratch[3]];
        let mut not = Vec::new();
        self.asm.load_zx(v, &mem.shadow(0), size);
        self.ordinary_address(&mem, size, p, [a, c], true, &mut not);
        self.no_mark_in(v, size, p, c, &mut not);
        self.asm.store(&Reg::General(reg).shadow(0), v);
        self.give_back(&scratch);
        if live {
            self.flags_back();
        }
        let on = self.asm.jmp_forward();
        for at in not {
            self.asm.patch_here(at);
        }
        self.give_back(&scratch);
        if live {
            self.flags_back();
        }
        for half in [0, 4] {
            self.asm.store_imm(&mask_at(half), 4, 0);
        }
        self.asm.jmp(region);
        self.asm.patch_here(on);
    }

    /// In front of an instruction that only looks at some bits, and overwrites the flags.
    pub fn keep_bits(&mut self) {
        let Some(Part::Keep(keep)) = self.copy_step().and_then(|step| step.part) else { return };
        match keep {
            Keep::Constant(reg, bits) => {
                for (at, half) in [(0, bits as u32), (4, (bits >> 32) as u32)].into_iter().filter(|half| half.1 != u32::MAX) {
                    self.asm.alu_mem_imm(Alu::And, &Reg::General(reg).shadow(at), half);
                }
            }
            Keep::Ones(reg, by) => self.asm.op_mem(None, false, &[0x21], by, &Reg::General(reg).shadow(0)),
            Keep::Zeros(reg, by) => {
                let t = if by == RAX { RCX } else { RAX };
                self.asm.store(&spill(slot::RAX), t);
                self.asm.mov(t, by);
                self.asm.unary(2, 4, t);
                self.asm.op_mem(None, false, &[0x21], t, &Reg::General(reg).shadow(0));
                self.asm.load(t, &spill(slot::RAX));
            }
        }
    }

    fn put_slot(&mut self, mem: &Mem, reg: u8, size: u32) {
        let t = [RAX, RCX, 2].into_iter().find(|&t| !mem.uses(t)).unwrap_or(3);
        self.known.clear();
        self.asm.store(&spill(slot::RAX), t);
        self.asm.load_zx(t, &Reg::General(reg).shadow(0), size.max(4));
        self.asm.store_sized(&mem.shadow(0), t, size);
        self.asm.load(t, &spill(slot::RAX));
    }

    fn copy_step(&self) -> Option<&Step> {
        self.copies.as_ref()?.steps.get(self.info.len().checked_sub(1)?)
    }

    /// An access that is part of the copies takes its V bytes along, and needs no check.
    pub fn copied(&mut self, mem: &Mem) -> bool {
        match self.copy_step().and_then(|step| step.part) {
            None | Some(Part::Keep(_)) => return false,
            Some(Part::Load(Held { private: Some(private), size, .. })) => self.asm.move_private(&mem.shadow(0), private, size, false),
            Some(Part::Load(_)) => {}
            Some(Part::Put { reg, size }) => self.put_slot(mem, reg, size),
            Some(Part::Store { private, size }) => {
                self.known.clear();
                self.asm.move_private(&mem.shadow(0), private, size, true);
            }
        }
        true
    }

    /// Do registers hold undefined bytes in front of this instruction?
    pub fn is_holding(&self) -> bool {
        self.copy_step().is_some_and(|step| !step.held.is_empty())
    }

    /// The stub of a check in between: what the registers hold must not be lost.
    pub fn leave_copies_here(&mut self, restore_rcx: bool) {
        let (live, pc, at) = (self.item.flags_live, self.item.pc, self.info.len() - 1);
        self.in_cold(|e| {
            if restore_rcx {
                e.asm.load(RCX, &spill(slot::RCX));
            }
            if live {
                e.keep_flags();
            }
            e.write_slots(at, 0);
            e.go_on_dirty(live, pc);
        });
    }

    /// The end, in front of the way on to `pc`.
    pub fn leave_copies(&mut self, pc: u64) {
        let Some(copies) = &self.copies else { return };
        let (live, stale) = (copies.flags_live, copies.stale);
        let at = copies.steps.len() - 1;
        if copies.steps[at].held.is_empty() {
            return;
        }
        if live {
            self.keep_flags();
        }
        self.write_slots(at, stale);
        for half in [0, 4] {
            self.asm.cmp_zero(&mask_at(half), 4);
            self.asm.jcc(CC_NE, self.cold.here());
        }
        if live {
            self.flags_back();
        }
        self.in_cold(|e| e.go_on_dirty(live, pc));
    }

    fn go_on_dirty(&mut self, live: bool, pc: u64) {
        if live {
            self.flags_back();
        }
        self.leave_through(pc, LEAVE_JUMP, None);
    }

    fn in_cold(&mut self, emit: impl FnOnce(&mut Self)) {
        core::mem::swap(&mut self.asm, &mut self.cold);
        emit(self);
        core::mem::swap(&mut self.asm, &mut self.cold);
    }

    /// What the registers hold in front of a step goes to their slots, and the mask says which are undefined.
    fn write_slots(&mut self, at: usize, stale: u64) {
        let Some(Copies { steps, from, .. }) = &self.copies else { return };
        let since = steps[at].since;
        let held: Vec<(Held, Mem)> =
            steps[at].held.iter().map(|&held| (held, Mem { disp: held.from.wrapping_sub(since), ..*from })).collect();
        for half in [0, 4] {
            self.asm.store_imm(&mask_at(half), 4, 0);
        }
        for (held, place) in held {
            self.write_slot(&held, &place, stale >> held.reg.bit() & 1 != 0);
        }
    }

    fn write_slot(&mut self, held: &Held, place: &Mem, number: bool) {
        let reg = held.reg;
        let words = if let Reg::Vector(_) = reg { held.size.div_ceil(8) as i32 } else { 1 };
        if let Reg::Vector(_) = reg {
            self.asm.store_wide(&reg.shadow(0), false, 64);
        }
        if let Some(private) = held.private {
            self.asm.move_private(&reg.shadow(0), private, 8 * words as u32, true);
        }
        let (mut some, mut none) = (Vec::new(), Vec::new());
        if number {
            for at in 1..words {
                self.asm.cmp_zero(&reg.shadow(8 * at), 8);
                none.push(self.asm.jcc_forward(CC_NE));
            }
            self.asm.alu_mem_imm(Alu::Cmp, &reg.shadow(0), u32::MAX);
            none.push(self.asm.jcc_forward(CC_NE));
            self.asm.cmp_zero(&reg.shadow(4), 4);
            some.push(self.asm.jcc_forward(CC_E));
            self.asm.alu_mem_imm(Alu::Cmp, &reg.shadow(4), u32::MAX);
            none.push(self.asm.jcc_forward(CC_NE));
        } else {
            for at in 0..words {
                self.asm.cmp_zero(&reg.shadow(8 * at), 8);
                some.push(self.asm.jcc_forward(CC_NE));
            }
            none.push(self.asm.jmp_forward());
        }
        for at in some {
            self.asm.patch_here(at);
        }
        self.mark_dirty(reg, place);
        for at in none {
            self.asm.patch_here(at);
        }
    }

    /// In the mask, and where its origin is to be asked for.
    fn mark_dirty(&mut self, reg: Reg, place: &Mem) {
        let words = if self.t.options.origins { [Some(0), Some(layout::LAZY)] } else { [Some(0), None] };
        for word in words.into_iter().flatten() {
            for (half, bit) in halves(1 << reg.bit()) {
                self.asm.alu_mem_imm(Alu::Or, &mask_at(word + half), bit);
            }
        }
        if self.t.options.origins {
            self.asm.store(&spill(slot::RAX), RAX);
            self.asm.lea(RAX, place);
            self.asm.store(&reg.place(), RAX);
            self.asm.load(RAX, &spill(slot::RAX));
        }
    }
}
