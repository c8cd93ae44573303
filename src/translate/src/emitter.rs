//! The state of a region being emitted, and its frame: entries, items in order, exits, cold stubs behind them.
//!
//! ```text
//! hot    restore rcx | body: item item ... exit        patched when their targets are translated
//! cold   stub stub ...                                  checks, exits, rules of dirty mode
//! ```
//! What an item becomes is in `clean` (ordinary instructions), `control`, `stack`; its operand in `operand`; its checks in `check`; what
//! precedes it in dirty mode in `dirty`.

use crate::copies::Copies;
use crate::decode::{Item, Tail};
use crate::emit::{Asm, Mem, RAX, RCX};
use crate::loops::Loop;
use crate::moves::Move;
use crate::{
    Exit, InsnInfo, LEAVE_CALL, LEAVE_JUMP, Place, Program, Region, Rule, STORE, Shadow, Translator, changing, check_descriptor, slot,
    stack,
};
use alloc::vec::Vec;
use iced_x86::{FlowControl, Mnemonic, Register};
use memcheck_abi::context::offset;

pub const fn spill(k: i32) -> Mem {
    Mem::ctx(offset::SCRATCH + 8 * k)
}

pub const fn rip_slot() -> Mem {
    Mem::ctx(offset::REGS + 16 * 8)
}

/// Cold code that is emitted when the region is complete.
pub enum Later {
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
    DirtyExit { patch: usize, target: u64, argument: u32 },
    /// The program's code is not what was translated; see `changing`.
    Changed { patches: Vec<usize>, pc: u64, back: usize },
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
    /// Where code is emitted: the region, and in the end what is put off of its cold part.
    pub asm: Asm,
    /// The cold part.
    pub cold: Asm,
    /// Address of the region.
    pub hot: u64,
    pub t: &'a mut Translator,
    pub program: &'a dyn Program,
    pub later: Vec<Later>,
    pub exits: Vec<Exit>,
    pub info: Vec<InsnInfo>,
    /// Copy of the item being emitted.
    pub item: Item,
    /// Dirty mode: how to make plans, and the current instruction's state.
    pub shadow: Option<&'a mut dyn Shadow>,
    pub pending: Option<Pending>,
    /// Dirty mode: vector registers 0..16 that the region has written so far.
    pub vectors_written: u32,
    /// A run of copies, which takes undefined bytes along; see `copies`.
    pub copies: Option<Copies>,
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
    /// The instruction's access was looked at by the loop that it is in; see `rounds`.
    pub covered: bool,
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
    copies: Option<Copies>,
) -> Region {
    let first = items.first().map_or(0, |i| i.pc);
    let start = match tail {
        Tail::Invalid(pc) if items.is_empty() => pc,
        _ => first,
    };
    let mut e = Emitter::alone(t, program, shadow, at.hot, Item::none(start));
    e.cold.base = at.cold;
    e.asm.load(RCX, &spill(slot::RCX));
    let body = e.asm.offset();
    if program.is_writable(start) {
        changing::check(&mut e, start, items);
    }
    e.copies = copies;
    e.enter_copies();
    let mut end = start + 1;
    for item in items {
        e.begin(item, start);
        e.keep_bits();
        e.instruction();
        e.forget();
        if e.frame.is_some() || item.insn.op1_register() == Register::RSP {
            e.frame = stack::frame_behind(&item.insn, e.frame);
        }
        end = item.pc + u64::from(item.len);
    }
    match tail {
        Tail::Control => {}
        Tail::Next(pc) => {
            let last = Item { pc, len: 0, ..e.item };
            e.begin(&last, start);
            e.leave_copies(pc);
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
    e.finish(body, start, end)
}

fn emptied<T>(list: &mut Vec<T>) -> Vec<T> {
    let mut list = core::mem::take(list);
    list.clear();
    list
}

impl<'a> Emitter<'a> {
    /// For code at an address of its own.
    pub fn alone(t: &'a mut Translator, program: &'a dyn Program, shadow: Option<&'a mut dyn Shadow>, at: u64, item: Item) -> Emitter<'a> {
        Emitter {
            asm: Asm::new(at, core::mem::take(&mut t.spare.code)),
            cold: Asm::new(at, core::mem::take(&mut t.spare.cold)),
            known: emptied(&mut t.spare.known),
            exits: emptied(&mut t.spare.exits),
            info: emptied(&mut t.spare.info),
            hot: at,
            t,
            program,
            later: Vec::new(),
            item,
            shadow,
            pending: None,
            vectors_written: 0,
            copies: None,
            loops: None,
            frame: None,
            passing: false,
            tested: false,
            covered: false,
            shared: false,
        }
    }
}

impl Emitter<'_> {
    pub fn begin(&mut self, item: &Item, start: u64) {
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
    pub fn finish(mut self, body: usize, start: u64, end: u64) -> Region {
        core::mem::swap(&mut self.asm, &mut self.cold);
        for stub in core::mem::take(&mut self.later) {
            self.later_stub(stub);
        }
        self.t.spare.known = self.known;
        let calls = matches!(self.item.insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        Region { code: self.cold.buf, cold: self.asm.buf, body: body as u32, info: self.info, exits: self.exits, start, end, calls }
    }

    fn later_stub(&mut self, stub: Later) {
        match stub {
            Later::Step { .. } | Later::DirtyExit { .. } => self.dirty_stub(stub),
            Later::Changed { patches, pc, back } => self.changed_stub(patches, pc, back),
        }
    }

    /// The slow side of the check that ends here, which has jumped to the end of the cold part so far.
    pub fn check_stub(&mut self, restore_rcx: bool, mem: &Mem, size: u32, kind: u32) {
        if kind != STORE && self.is_holding() {
            return self.leave_copies_here(restore_rcx);
        }
        let back = self.asm.here();
        let cold = &mut self.cold;
        if restore_rcx {
            cold.load(RCX, &spill(slot::RCX));
        }
        cold.store(&spill(slot::RAX), RAX);
        cold.lea(RAX, mem);
        cold.store(&spill(slot::ADDRESS), RAX);
        cold.store_imm(&spill(slot::ARGUMENT), 8, check_descriptor(size, kind) as i32);
        cold.lea_host(RAX, back);
        cold.store(&spill(slot::CONTINUE), RAX);
        cold.jmp(self.t.stubs.check);
    }

    /// Where the branch that ends here, which has jumped to the end of the cold part, leads until it is linked.
    fn exit_stub(&mut self, target: u64) {
        let patch = self.asm.offset() - 4;
        self.exits.push(Exit { patch: patch as u32, stub: self.cold.here(), target });
        let cold = &mut self.cold;
        cold.store(&spill(slot::RAX), RAX);
        // lea rax, [rip + 5]: behind the jump.
        cold.bytes(&[0x48, 0x8d, 0x05, 5, 0, 0, 0]);
        cold.jmp(self.t.stubs.link);
        cold.u64(target);
        cold.u64(self.hot + patch as u64);
    }

    /// Leave the region for a program address.
    pub fn exit_jmp(&mut self, target: u64) {
        self.asm.align_for_patch(1);
        self.asm.jmp(self.cold.here());
        self.push_exit(target);
    }

    pub fn exit_jcc(&mut self, cc: u8, target: u64) {
        self.asm.align_for_patch(2);
        self.asm.jcc(cc, self.cold.here());
        self.push_exit(target);
    }

    fn push_exit(&mut self, target: u64) {
        if self.shadow.is_none() {
            return self.exit_stub(target);
        }
        let argument = self.leave_argument(if self.item.insn.mnemonic() == Mnemonic::Call { LEAVE_CALL } else { LEAVE_JUMP });
        self.later.push(Later::DirtyExit { patch: self.asm.offset() - 4, target, argument });
    }
}
