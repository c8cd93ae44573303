//! The state of a region being emitted, and its frame: entries, items in order, exits, cold stubs behind them.
//!
//! ```text
//! hot    restore rcx | body: item item ... exit        patched when their targets are translated
//! cold   stub stub ...                                  checks, exits, rules of dirty mode
//! ```
//! What an item becomes is in `clean` (ordinary instructions), `control`, `stack`; its operand in `operand`; its checks in `check`; what
//! precedes it in dirty mode in `dirty`.

use crate::decode::{Item, Tail};
use crate::emit::{Asm, Mem, RAX, RCX};
use crate::loops::Loop;
use crate::moves::Move;
use crate::{
    Exit, InsnInfo, LEAVE_CALL, LEAVE_JUMP, Place, Program, Region, Rule, Shadow, Translator, changing, check_descriptor, slot, stack,
};
use alloc::vec::Vec;
use iced_x86::{FlowControl, Mnemonic};
use memcheck_abi::context::offset;

pub const fn spill(k: i32) -> Mem {
    Mem::ctx(offset::SCRATCH + 8 * k)
}

pub const fn rip_slot() -> Mem {
    Mem::ctx(offset::REGS + 16 * 8)
}

/// Code that is emitted behind the region because it is seldom run.
pub enum Cold {
    Check {
        patches: Vec<usize>,
        restore_rcx: bool,
        mem: Mem,
        size: u32,
        kind: u32,
        back: usize,
    },
    Exit {
        patch: usize,
        target: u64,
    },
    /// Dirty mode: something that the instruction touches is undefined; apply its rule.
    Step {
        patches: Vec<usize>,
        /// The test that failed kept the flags, and left rcx in its slot.
        live: bool,
        pc: u64,
        rule: Rule,
        /// What the rule is if translated code can carry it out, and the memory operand that was checked.
        action: Option<Move>,
        memory: Option<(Mem, u32)>,
        back: usize,
    },
    /// Dirty mode: leave for an address, clean or dirty as the registers are then.
    DirtyExit {
        patch: usize,
        target: u64,
        argument: u32,
    },
    /// The program's code is not what was translated; see `changing`.
    Changed {
        patches: Vec<usize>,
        live: bool,
        pc: u64,
        back: usize,
    },
}

/// State of the instruction being emitted in dirty mode; see `dirty`.
pub struct Pending {
    pub rule: Rule,
    pub action: Option<Move>,
    /// The memory operand that the instruction was checked for.
    pub memory: Option<(Mem, u32)>,
    pub patches: Vec<usize>,
    pub live_patches: Vec<usize>,
    /// False once the rule has been placed: later checks of this instruction add nothing.
    pub open: bool,
}

pub struct Emitter<'a> {
    /// Where code is emitted: the region, and in the end its cold part.
    pub asm: Asm,
    /// Address of the region.
    pub hot: u64,
    pub t: &'a mut Translator,
    pub program: &'a dyn Program,
    pub cold: Vec<Cold>,
    pub exits: Vec<Exit>,
    pub info: Vec<InsnInfo>,
    /// Copy of the item being emitted.
    pub item: Item,
    /// Dirty mode: how to make plans, and the current instruction's state.
    pub shadow: Option<&'a mut dyn Shadow>,
    pub pending: Option<Pending>,
    /// Dirty mode: vector registers 0..16 that the region has written so far.
    pub vectors_written: u32,
    /// A loop in which undefined values go round; see `loops`.
    pub loops: Option<Loop>,
    /// Operands (and sizes) whose V bytes are known to be zero here: checked or defined by the region, registers unchanged since.
    pub known: Vec<(Mem, u32)>,
    /// rbp - rsp, if the region has set up a frame pointer.
    pub frame: Option<i32>,
    /// The operand is built on a scratch register: it means nothing later.
    pub passing: bool,
    /// ... and its V bytes were looked at before the rule.
    pub tested: bool,
    /// In a routine of `moves`: which instruction it is for is known when it runs.
    pub shared: bool,
}

pub fn emit_region<'a>(
    t: &'a mut Translator,
    program: &'a dyn Program,
    items: &[Item],
    tail: Tail,
    at: Place,
    shadow: Option<&'a mut dyn Shadow>,
) -> Region {
    let first = items.first().map_or(0, |i| i.pc);
    let start = match tail {
        Tail::Invalid(pc) if items.is_empty() => pc,
        _ => first,
    };
    let mut e = Emitter::alone(t, program, shadow, at.hot, Item::none(start));
    e.info.reserve(items.len() + 1);
    e.asm.load(RCX, &spill(slot::RCX));
    let body = e.asm.offset();
    if program.is_writable(start) {
        changing::check(&mut e, start, items);
    }
    let mut end = start + 1;
    for item in items {
        e.begin(item, start);
        e.instruction();
        e.forget();
        e.frame = stack::frame_behind(&item.insn, e.frame);
        end = item.pc + u64::from(item.len);
    }
    match tail {
        Tail::Control => {}
        Tail::Next(pc) => {
            let last = Item { pc, len: 0, ..e.item };
            e.begin(&last, start);
            e.exit_jmp(pc);
        }
        Tail::Invalid(pc) => {
            let last = Item { pc, len: 1, ..e.item };
            e.begin(&last, start);
            e.mark_own();
            e.asm.bytes(&[0x0f, 0x0b]);
            end = end.max(pc + 1);
        }
    }
    e.finish(body, start, end, at.cold)
}

impl<'a> Emitter<'a> {
    /// For code at an address of its own.
    pub fn alone(t: &'a mut Translator, program: &'a dyn Program, shadow: Option<&'a mut dyn Shadow>, at: u64, item: Item) -> Emitter<'a> {
        Emitter {
            asm: Asm::new(at),
            hot: at,
            t,
            program,
            cold: Vec::new(),
            exits: Vec::new(),
            info: Vec::new(),
            item,
            shadow,
            pending: None,
            vectors_written: 0,
            loops: None,
            known: Vec::new(),
            frame: None,
            passing: false,
            tested: false,
            shared: false,
        }
    }
}

impl Emitter<'_> {
    fn begin(&mut self, item: &Item, start: u64) {
        self.item = *item;
        let host = self.asm.offset() as u32;
        let pc = item.pc.wrapping_sub(start) as i32;
        self.info.push(InsnInfo { host, pc, spilled: 0xff, len: item.len, spill: (0, 0), own: host });
    }

    /// The program's own instruction starts here.
    pub fn mark_own(&mut self) {
        self.place_step();
        let here = self.asm.offset() as u32;
        if let Some(i) = self.info.last_mut() {
            i.own = here;
        }
    }

    /// The cold stubs go to code of their own, so that the warm code stays dense.
    pub fn finish(mut self, body: usize, start: u64, end: u64, cold: u64) -> Region {
        let mut hot = core::mem::replace(&mut self.asm, Asm::new(cold));
        for stub in core::mem::take(&mut self.cold) {
            self.cold_stub(&mut hot, stub);
        }
        let calls = matches!(self.item.insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        Region { code: hot.buf, cold: self.asm.buf, body: body as u32, info: self.info, exits: self.exits, start, end, calls }
    }

    fn cold_stub(&mut self, hot: &mut Asm, stub: Cold) {
        let here = self.asm.here();
        match stub {
            Cold::Check { patches, restore_rcx, mem, size, kind, back } => {
                for p in patches {
                    hot.patch_to_address(p, here);
                }
                if restore_rcx {
                    self.asm.load(RCX, &spill(slot::RCX));
                }
                self.asm.store(&spill(slot::RAX), RAX);
                self.asm.lea(RAX, &mem);
                self.asm.store(&spill(slot::ADDRESS), RAX);
                self.asm.store_imm(&spill(slot::ARGUMENT), 8, check_descriptor(size, kind) as i32);
                self.asm.lea_host(RAX, self.hot + back as u64);
                self.asm.store(&spill(slot::CONTINUE), RAX);
                self.asm.jmp(self.t.stubs.check);
            }
            Cold::Exit { patch, target } => {
                hot.patch_to_address(patch, here);
                self.exits.push(Exit { patch: patch as u32, stub: here, target });
                self.asm.store(&spill(slot::RAX), RAX);
                let data = self.asm.lea_forward(RAX);
                self.asm.jmp(self.t.stubs.link);
                self.asm.patch_here(data);
                self.asm.u64(target);
                self.asm.u64(self.hot + patch as u64);
            }
            Cold::Step { .. } | Cold::DirtyExit { .. } => self.dirty_stub(hot, stub),
            Cold::Changed { patches, live, pc, back } => self.changed_stub(hot, patches, live, pc, back),
        }
    }

    /// Leave the region for a program address.
    pub fn exit_jmp(&mut self, target: u64) {
        self.asm.align_for_patch(1);
        let patch = self.asm.jmp_forward();
        self.push_exit(patch, target);
    }

    pub fn exit_jcc(&mut self, cc: u8, target: u64) {
        self.asm.align_for_patch(2);
        let patch = self.asm.jcc_forward(cc);
        self.push_exit(patch, target);
    }

    fn push_exit(&mut self, patch: usize, target: u64) {
        let dirty = self.shadow.is_some();
        let argument = self.leave_argument(if self.item.insn.mnemonic() == Mnemonic::Call { LEAVE_CALL } else { LEAVE_JUMP });
        self.cold.push(if dirty { Cold::DirtyExit { patch, target, argument } } else { Cold::Exit { patch, target } });
    }
}
