//! Clean mode: every register is fully defined, so an instruction needs only the checks of its memory operands.

use crate::decode::{Flow, Item, Tail, flow};
use crate::emit::{Asm, CC_NE, Mem, RAX, RBP, RCX, RSI, RSP, Seg};
use crate::moves::Move;
use crate::{
    Exit, InsnInfo, LEAVE_CALL, LEAVE_JUMP, LOAD, MODIFY, Place, Program, Region, Rule, SPREAD, STATE_AREA, STORE, Shadow, Translator,
    changing, check_descriptor, control, gpr, helper, relocate, slot, stack,
};
use alloc::vec::Vec;
use iced_x86::{Code, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register};
use memcheck_abi::context::offset;

/// Spill slot for the register that carries a rewritten address.
const SLOT_ADDRESS_REGISTER: i32 = 6;

pub const fn spill(k: i32) -> Mem {
    Mem::ctx(offset::SCRATCH + 8 * k)
}

pub const fn rip_slot() -> Mem {
    Mem::ctx(offset::REGS + 16 * 8)
}

/// Where the vector registers begin in the memory of xsave and xrstor.
const XMM_IN_STATE_AREA: i32 = 160;
/// Checked operands remembered at a time.
const MAX_KNOWN: usize = 12;

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
    /// Operands (and sizes) whose V bytes are known to be zero here: checked or defined by the region, registers unchanged since.
    known: Vec<(Mem, u32)>,
    /// rbp - rsp, if the region has set up a frame pointer.
    frame: Option<i32>,
    /// The operand is built on a scratch register: it means nothing later.
    pub passing: bool,
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
    let placeholder = Item {
        insn: Instruction::default(),
        raw: [0; 15],
        pc: start,
        len: 0,
        flags_live: true,
        deferred: false,
        released: 0,
        noise: false,
        batch: 1,
        client_request: false,
    };
    let mut e = Emitter {
        asm: Asm::new(at.hot),
        hot: at.hot,
        t,
        program,
        cold: Vec::new(),
        exits: Vec::new(),
        info: Vec::with_capacity(items.len() + 1),
        item: placeholder,
        shadow,
        pending: None,
        vectors_written: 0,
        known: Vec::new(),
        frame: None,
        passing: false,
    };
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
        Region { code: hot.buf, cold: self.asm.buf, body: body as u32, info: self.info, exits: self.exits, start, end }
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

    fn instruction(&mut self) {
        let insn = self.item.insn;
        if self.item.client_request {
            return control::client_request(self);
        }
        self.begin_dirty();
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
        let moves_stack = stack::writes_rsp(&insn);
        let Some(access) = memory_access(&mut self.t.factory, &insn) else {
            if moves_stack {
                self.place_step();
                self.asm.store(&spill(slot::ADDRESS), RSP);
            }
            return self.copy_raw();
        };
        let size = insn.memory_size().size() as u32;
        self.with_operand(|e, mem, rewritten| {
            if is_state_area(&insn) {
                e.state_area(&mem, if access == Some(LOAD) { LOAD } else { STORE });
            } else if let Some(kind) = access {
                e.check(&mem, size, kind);
            }
            if moves_stack {
                e.place_step();
                e.asm.store(&spill(slot::ADDRESS), RSP);
            }
            e.mark_own();
            if rewritten { e.rewrite(&mem) } else { e.copy_raw_here() }
        });
    }

    /// xsave and xrstor: how much they touch is not in the instruction. Their rule knows; clean code asks only whether it is needed.
    fn state_area(&mut self, mem: &Mem, kind: u32) {
        if self.shadow.is_some() {
            return self.step_always();
        }
        let mem = Mem { disp: mem.disp + XMM_IN_STATE_AREA, ..*mem };
        let patches = alloc::vec![self.asm.jmp_forward()];
        let back = self.asm.offset();
        self.cold.push(Cold::Check { patches, restore_rcx: false, mem, size: STATE_AREA, kind, back });
    }

    /// Gathers and scatters: only their rule knows what they touch. Clean code asks whether it is needed.
    fn spread(&mut self) {
        if !matches!(memory_access(&mut self.t.factory, &self.item.insn), Some(Some(_))) {
            return;
        }
        if self.shadow.is_some() {
            return self.step_always();
        }
        self.asm.store_const(&rip_slot(), self.item.pc);
        let patches = alloc::vec![self.asm.jmp_forward()];
        let back = self.asm.offset();
        let mem = Mem::base(RSP, 0);
        self.cold.push(Cold::Check { patches, restore_rcx: false, mem, size: SPREAD, kind: STORE, back });
    }

    pub fn copy_raw(&mut self) {
        self.mark_own();
        self.copy_raw_here();
    }

    fn copy_raw_here(&mut self) {
        let n = self.item.len as usize;
        let raw = self.item.raw;
        self.asm.bytes(&raw[..n]);
    }

    /// The program's instruction with its memory operand written as `mem`.
    fn rewrite(&mut self, mem: &Mem) {
        let n = self.item.len as usize;
        let raw = self.item.raw;
        let done = if self.item.insn.mnemonic() == Mnemonic::Xlatb {
            self.asm.op_mem(None, false, &[0x8a], RAX, mem);
            true
        } else if is_moffs(self.item.insn.code()) {
            self.rewrite_moffs(mem)
        } else {
            relocate::emit_with_mem(&mut self.asm, &raw[..n], mem)
        };
        if !done {
            self.asm.bytes(&[0x0f, 0x0b]);
        }
    }

    fn rewrite_moffs(&mut self, mem: &Mem) -> bool {
        let (prefix, wide, opcode) = match self.item.insn.code() {
            Code::Mov_AL_moffs8 => (None, false, 0x8a),
            Code::Mov_AX_moffs16 => (Some(0x66), false, 0x8b),
            Code::Mov_EAX_moffs32 => (None, false, 0x8b),
            Code::Mov_RAX_moffs64 => (None, true, 0x8b),
            Code::Mov_moffs8_AL => (None, false, 0x88),
            Code::Mov_moffs16_AX => (Some(0x66), false, 0x89),
            Code::Mov_moffs32_EAX => (None, false, 0x89),
            Code::Mov_moffs64_RAX => (None, true, 0x89),
            _ => return false,
        };
        self.asm.op_mem(prefix, wide, &[opcode], RAX, mem);
        true
    }

    /// Make the memory operand of the current instruction reachable and hand it to `f` (with "must be rewritten").
    pub fn with_operand(&mut self, f: impl FnOnce(&mut Self, Mem, bool)) {
        let insn = self.item.insn;
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let segment = insn.segment_prefix();
        // What is no access has no segment.
        let foreign = matches!(segment, Register::FS | Register::GS) && insn.mnemonic() != Mnemonic::Lea;
        if index.is_vector_register() {
            self.spread();
            return self.copy_moved(gpr(base));
        }
        let field = if segment == Register::FS { offset::GUEST_FS } else { offset::GUEST_GS };
        if insn.mnemonic() == Mnemonic::Xlatb {
            // Its index is the byte al.
            let table = |r| Mem { seg: Seg::None, base: gpr(base), index: Some((r, 0)), disp: 0, addr32: base.is_gpr32() };
            return self.with_scratch(
                |e, r| {
                    e.asm.bytes(&[0x0f, 0xb6, 0xc0 | r << 3]);
                    e.asm.lea(r, &table(r));
                    if foreign {
                        e.add_segment_base(r, field, false);
                    }
                },
                |_, r| Mem::base(r, 0),
                f,
            );
        }
        if insn.is_ip_rel_memory_operand() && !foreign {
            let target = insn.ip_rel_memory_address();
            if let Ok(disp) = i32::try_from(target) {
                let mem = Mem { seg: Seg::None, base: None, index: None, disp, addr32: false };
                return f(self, mem, true);
            }
            return self.with_scratch(|e, r| e.asm.mov_const(r, target), |_, r| Mem::base(r, 0), f);
        }
        let addr32 = base.is_gpr32() || index.is_gpr32();
        let displacement = insn.memory_displacement64();
        let narrow = i64::from(displacement as i32) as u64 == displacement || addr32;
        let scale = insn.memory_index_scale().trailing_zeros() as u8;
        let mem = Mem { seg: Seg::None, base: gpr(base), index: gpr(index).map(|r| (r, scale)), disp: displacement as i32, addr32 };
        if !foreign {
            if !narrow {
                return self.with_scratch(|e, r| e.asm.mov_const(r, displacement), |_, r| Mem::base(r, 0), f);
            }
            return f(self, mem, false);
        }
        let load_base = move |e: &mut Self, r: u8| e.asm.load(r, &Mem::ctx(field));
        if insn.is_ip_rel_memory_operand() || !narrow || addr32 || mem.base.is_some() && mem.index.is_some() {
            // General form: the whole address in the scratch register.
            let rip = insn.is_ip_rel_memory_operand().then(|| insn.ip_rel_memory_address());
            return self.with_scratch(
                move |e, r| {
                    match rip {
                        Some(target) => e.asm.mov_const(r, target),
                        None if !narrow => e.asm.mov_const(r, displacement),
                        None => e.asm.lea(r, &mem),
                    }
                    e.add_segment_base(r, field, false);
                },
                |_, r| Mem::base(r, 0),
                f,
            );
        }
        let build = move |_: &Self, r: u8| match mem.base {
            Some(b) => Mem { base: Some(b), index: Some((r, 0)), ..mem },
            None => Mem { base: Some(r), ..mem },
        };
        self.with_scratch(load_base, build, f);
    }

    /// r += the program's segment base (or -=), without touching flags: the sum's other part waits in a slot.
    fn add_segment_base(&mut self, r: u8, field: i32, subtract: bool) {
        let other = if r == RAX { 2 } else { RAX };
        self.asm.store(&spill(7), other);
        self.asm.load(other, &Mem::ctx(field));
        if subtract {
            // not: -x - 1
            self.asm.bytes(&[0x48, 0xf7, 0xd0 | other]);
        }
        self.asm.lea(r, &Mem { seg: Seg::None, base: Some(r), index: Some((other, 0)), disp: i32::from(subtract), addr32: false });
        self.asm.load(other, &spill(7));
    }

    /// Run `f` with a memory operand built on a scratch register, which is spilled around it.
    fn with_scratch(
        &mut self,
        load: impl FnOnce(&mut Self, u8),
        build: impl FnOnce(&Self, u8) -> Mem,
        f: impl FnOnce(&mut Self, Mem, bool),
    ) {
        // A rule needs the program's registers as they are: it comes before the scratch register is taken.
        self.place_step();
        let r = self.scratch_register();
        self.asm.store(&spill(SLOT_ADDRESS_REGISTER), r);
        let from = self.asm.offset() as u32;
        load(self, r);
        let mem = build(self, r);
        self.passing = true;
        f(self, mem, true);
        self.passing = false;
        let to = self.asm.offset() as u32;
        self.asm.load(r, &spill(SLOT_ADDRESS_REGISTER));
        if let Some(i) = self.info.last_mut() {
            (i.spilled, i.spill) = (r, (from, to));
        }
    }

    /// A low register that the current instruction does not touch at all. rcx last: checks spill it to their own slot.
    fn scratch_register(&mut self) -> u8 {
        let insn = self.item.insn;
        let used = self.t.factory.info(&insn);
        let mut mask = 0u32;
        for r in used.used_registers() {
            if let Some(n) = gpr(r.register()) {
                mask |= 1 << n;
            }
        }
        [2u8, 6, 7, 0, 3, 1].into_iter().find(|r| mask & 1 << r == 0).unwrap_or(5)
    }

    fn is_known(&self, mem: &Mem, size: u32) -> bool {
        let inside =
            |known: &Mem, n: u32| mem.disp >= known.disp && i64::from(mem.disp) + i64::from(size) <= i64::from(known.disp) + i64::from(n);
        let same = |known: &Mem| known.base == mem.base && known.index == mem.index && known.addr32 == mem.addr32;
        self.known.iter().any(|(known, n)| same(known) && inside(known, *n))
    }

    /// From here on the V bytes are zero: a check that finds something else leaves for dirty code, and does not come back to this.
    fn learn(&mut self, mem: &Mem, size: u32) {
        if self.shadow.is_some() || self.passing || size > 64 {
            return;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.remove(0);
        }
        self.known.push((*mem, size));
    }

    /// What the instruction just emitted makes of that knowledge.
    fn forget(&mut self) {
        let insn = self.item.insn;
        if insn.is_string_instruction() || self.item.client_request {
            self.known.clear();
        }
        if self.known.is_empty() {
            return;
        }
        let mut written = 0u32;
        for used in self.t.factory.info(&insn).used_registers() {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None)
                && let Some(r) = gpr(used.register())
            {
                written |= 1 << r;
            }
        }
        let touched = |r: Option<u8>| r.is_some_and(|r| written >> r & 1 != 0);
        self.known.retain(|(m, _)| !touched(m.base) && !touched(m.index.map(|(r, _)| r)));
    }

    /// Does the operand lie on the stack above its red zone, for certain? A store there need not ask.
    fn is_on_stack(&self, mem: &Mem) -> bool {
        let lowest = match mem.base {
            Some(RSP) => Some(-128),
            Some(RBP) => self.frame.map(|frame| -128 - frame),
            _ => None,
        };
        mem.index.is_none() && !mem.addr32 && lowest.is_some_and(|lowest| mem.disp >= lowest)
    }

    /// Check an access of `size` bytes at `mem`.
    pub fn check(&mut self, mem: &Mem, size: u32, kind: u32) {
        if size == 0 {
            return;
        }
        if let Some(p) = self.pending.as_mut().filter(|p| p.open) {
            p.memory = Some((*mem, size));
        }
        if kind != STORE && self.pending.is_some() {
            return self.test_memory(mem, size);
        }
        if mem.base.is_none() && mem.index.is_none() && kind == LOAD && self.program.is_constant(mem.disp as i64 as u64) {
            return;
        }
        if self.is_known(mem, size) {
            return;
        }
        self.learn(mem, size);
        let on_stack = self.is_on_stack(mem);
        if on_stack && kind == STORE && size <= 64 {
            return self.define(mem, size);
        }
        if on_stack && kind == LOAD && !self.t.options.undef {
            return;
        }
        let pieces = pieces(size);
        if pieces.is_empty() {
            let p = self.asm.jmp_forward();
            let back = self.asm.offset();
            self.cold.push(Cold::Check { patches: alloc::vec![p], restore_rcx: false, mem: *mem, size, kind, back });
        } else if self.item.flags_live {
            self.check_keeping_flags(mem, size, kind, &pieces);
        } else if pieces.len() >= 3 || size == 16 && self.t.options.private_vectors {
            self.check_wide(mem, size, kind, &pieces);
        } else {
            let mut patches = Vec::with_capacity(2);
            for &(at, n) in &pieces {
                self.asm.cmp_zero(&mem.shadow(at), n);
                patches.push(self.asm.jcc_forward(CC_NE));
            }
            let back = self.asm.offset();
            self.cold.push(Cold::Check { patches, restore_rcx: false, mem: *mem, size, kind, back });
        }
    }

    /// Several words: or them together in a register.
    fn check_wide(&mut self, mem: &Mem, size: u32, kind: u32, pieces: &[(i32, u32)]) {
        if self.t.options.private_vectors && matches!(size, 16 | 32 | 48 | 64) {
            return self.check_private(mem, size, kind);
        }
        let r = [RCX, 2, RAX].into_iter().find(|&r| !mem.uses(r)).unwrap_or(6);
        self.asm.store(&spill(slot::RCX), r);
        let (first, rest) = (pieces[0], &pieces[1..]);
        self.asm.load_zx(r, &mem.shadow(first.0), first.1);
        for &(at, n) in rest {
            let opcode: &[u8] = if n == 1 { &[0x0a] } else { &[0x0b] };
            let prefix = (n == 2).then_some(0x66);
            self.asm.op_mem(prefix, n == 8, opcode, r, &mem.shadow(at));
        }
        self.asm.load(r, &spill(slot::RCX));
        let patches = alloc::vec![self.asm.jcc_forward(CC_NE)];
        let back = self.asm.offset();
        self.cold.push(Cold::Check { patches, restore_rcx: false, mem: *mem, size, kind, back });
    }

    /// The same with one vector test or two.
    fn check_private(&mut self, mem: &Mem, size: u32, kind: u32) {
        let (first, second) = if size == 48 { (32, Some(16)) } else { (size, None) };
        self.asm.test_wide(&mem.shadow(0), first);
        let mut patches = alloc::vec![self.asm.jcc_forward(CC_NE)];
        if let Some(n) = second {
            self.asm.test_wide(&mem.shadow(first as i32), n);
            patches.push(self.asm.jcc_forward(CC_NE));
        }
        let back = self.asm.offset();
        self.cold.push(Cold::Check { patches, restore_rcx: false, mem: *mem, size, kind, back });
    }

    fn check_keeping_flags(&mut self, mem: &Mem, size: u32, kind: u32, pieces: &[(i32, u32)]) {
        self.asm.store(&spill(slot::RCX), RCX);
        let mut patches = Vec::with_capacity(2);
        for (i, &(at, n)) in pieces.iter().enumerate() {
            if i > 0 && mem.uses(RCX) {
                self.asm.load(RCX, &spill(slot::RCX));
            }
            self.asm.load_zx(RCX, &mem.shadow(at), n);
            let clean = self.asm.jrcxz_forward();
            patches.push(self.asm.jmp_forward());
            self.asm.patch8_here(clean);
        }
        self.asm.load(RCX, &spill(slot::RCX));
        let back = self.asm.offset();
        self.cold.push(Cold::Check { patches, restore_rcx: true, mem: *mem, size, kind, back });
    }

    /// Fill shadow bytes at `mem` (a gs operand) with ones or zeros from the private registers; the last store may overlap.
    pub fn fill_wide(&mut self, mem: &Mem, size: u32, ones: bool) {
        let mut at = 0;
        while at < size {
            let left = size - at;
            let n = [64, 32, 16].into_iter().find(|&n| n <= left);
            match n {
                Some(n) => {
                    self.asm.store_wide(&Mem { disp: mem.disp + at as i32, ..*mem }, ones, n);
                    at += n;
                }
                None if matches!(left, 1 | 2 | 4 | 8) => {
                    self.asm.store_imm(&Mem { disp: mem.disp + at as i32, ..*mem }, left, if ones { -1 } else { 0 });
                    at = size;
                }
                None => {
                    self.asm.store_wide(&Mem { disp: mem.disp + (size - 16) as i32, ..*mem }, ones, 16);
                    at = size;
                }
            }
        }
    }

    /// Mark bytes defined without asking.
    pub fn define(&mut self, mem: &Mem, size: u32) {
        if self.t.options.private_vectors && size >= 16 && size.is_multiple_of(8) {
            return self.fill_wide(&mem.shadow(0), size, false);
        }
        for (at, n) in pieces(size) {
            self.asm.store_imm(&mem.shadow(at), n, 0);
        }
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

    /// Copy an instruction whose memory operand cannot be written anew. If it lies in the program's fs or gs, the register of its
    /// address is moved by the segment's base meanwhile (a fault in between shows it moved: nobody has been seen to write this).
    fn copy_moved(&mut self, register: Option<u8>) {
        let segment = self.item.insn.segment_prefix();
        let (Some(r), Register::FS | Register::GS) = (register, segment) else { return self.copy_raw() };
        let field = if segment == Register::FS { offset::GUEST_FS } else { offset::GUEST_GS };
        self.place_step();
        self.add_segment_base(r, field, false);
        self.mark_own();
        let n = self.item.len as usize;
        let raw = self.item.raw;
        let prefixes = raw[..n].iter().take_while(|b| relocate::is_prefix(**b)).count();
        let kept = raw[..prefixes].iter().filter(|b| !matches!(b, 0x64 | 0x65));
        self.asm.buf.extend(kept);
        self.asm.bytes(&raw[prefixes..n]);
        self.add_segment_base(r, field, true);
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

/// Cut a size into words that one compare can take; empty for sizes that the slow check does whole.
pub fn pieces(size: u32) -> Vec<(i32, u32)> {
    let mut out = Vec::with_capacity(8);
    if size > 64 {
        return out;
    }
    let mut at = 0;
    while at < size {
        let n = [8, 4, 2, 1].into_iter().find(|n| at + n <= size).unwrap_or(1);
        out.push((at as i32, n));
        at += n;
    }
    out
}

fn is_state_area(insn: &Instruction) -> bool {
    use Mnemonic::{Xrstor, Xrstor64, Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64};
    matches!(insn.mnemonic(), Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64)
}

fn is_moffs(code: Code) -> bool {
    matches!(
        code,
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    )
}

fn is_masked_move(insn: &Instruction) -> bool {
    use Mnemonic::{Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq};
    matches!(insn.mnemonic(), Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq)
}

/// Explicit memory operand: None if there is none; Some(None) if it is not accessed (lea, nop, prefetch) or needs no check.
fn memory_access(factory: &mut InstructionInfoFactory, insn: &Instruction) -> Option<Option<u32>> {
    let at = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory)?;
    // A bit offset in a register reaches beyond the named operand.
    let bits = matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    if bits && insn.op1_kind() == OpKind::Register {
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
