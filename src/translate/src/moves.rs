//! Dirty mode without the runtime: moves of undefined values, and instructions that overwrite them with defined ones.
//!
//! Structures with padding and half-filled unions are copied all the time; that must not cost a call of the runtime for every load and
//! store. The cold stub of an instruction whose filter hit (`dirty`) tries two things before it calls for the rule:
//!
//! ```text
//! quick    nothing that the instruction reads is undefined: clear the mask bits of what it writes
//! move     load, store or copy of a whole register: move its V bits, by the same address, and its origin
//! ```
//! Loads and stores share a routine for each register and size, which lies where it was first wanted: the code of whole programs' copies would
//! not fit the caches. An access to memory must be plainly addressable (A bits clear, not below the stack pointer, no slot of a return address); everything
//! else is left to the rule. A loaded register does not look up its origin; it remembers the place (`shadow_layout::LAZY`, `PLACE`).
//! What a store writes to the origin words of its target: `origins`.

use crate::check::pieces;
use crate::dirty::mask_at;
use crate::emit::{CC_B, CC_E, CC_NE, Mem, RAX, RCX, RDX, RSP, Seg};
use crate::emitter::{Emitter, spill};
use crate::needs::Needs;
use crate::rules::encode::Alu;
use crate::rules::{Form, Job, Probe};
use crate::{Rule, SHADOW_REGS, gpr, shadow_layout as layout, slot};
use alloc::vec::Vec;
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};
use memcheck_abi::context::offset;
use memcheck_abi::layout::{RETURN_MARK, SIGNAL_MARK};

/// Slots for the scratch registers, for the address, and for where a routine goes on.
const SLOT_RCX: i32 = 8;
const SLOT_RDX: i32 = 9;
const SLOT_ADDRESS: i32 = 10;
const SLOT_BEHIND: i32 = 11;

/// A register of a move: its number among the general or the vector registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reg {
    General(u8),
    Vector(u8),
}

/// Moves that only carry V bits from one place to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// `size` bytes from memory, zeros above; `keeps`: what lies above bit 128 stays.
    Load {
        to: Reg,
        size: u32,
        keeps: bool,
    },
    Store {
        from: Reg,
        size: u32,
    },
    /// A store of 8 bytes below the stack pointer.
    Push {
        from: Reg,
    },
    /// A rule of `rules`.
    Rule {
        form: Form,
        needs: Needs,
        /// General registers that the instruction touches.
        busy: u32,
    },
    /// Between general registers; 4 bytes clear the rest.
    Copy {
        to: u8,
        from: u8,
        size: u32,
    },
}

/// A move between a register and memory at an address that is no part of it: code that many instructions share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Load { to: Reg, size: u32, keeps: bool },
    Store { from: Reg, size: u32 },
}

impl Move {
    pub fn of(insn: &Instruction) -> Option<Move> {
        let kinds = (insn.op_count() > 0).then(|| insn.op0_kind()).zip((insn.op_count() > 1).then(|| insn.op1_kind()));
        let (a, b) = (insn.op0_register(), insn.op1_register());
        match (insn.mnemonic(), kinds) {
            (Mnemonic::Push, _) if insn.op_count() == 1 && a.is_gpr64() && a != Register::RSP => {
                Some(Move::Push { from: Reg::General(gpr(a)?) })
            }
            (Mnemonic::Pop, _) if insn.op_count() == 1 && a.is_gpr64() && a != Register::RSP => {
                Some(Move::Load { to: Reg::General(gpr(a)?), size: 8, keeps: false })
            }
            (Mnemonic::Mov, Some((OpKind::Register, OpKind::Register))) if a.is_gpr64() && b.is_gpr64() || a.is_gpr32() && b.is_gpr32() => {
                let (to, from) = (gpr(a)?, gpr(b)?);
                (to != RSP && from != RSP).then_some(Move::Copy { to, from, size: a.size() as u32 })
            }
            (_, Some((OpKind::Register, OpKind::Memory))) => load(insn, a),
            (_, Some((OpKind::Memory, OpKind::Register))) => store(insn, b),
            _ => None,
        }
    }
}

fn load(insn: &Instruction, to: Register) -> Option<Move> {
    let size = insn.memory_size().size() as u32;
    match insn.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx if to.is_gpr64() || to.is_gpr32() => {
            let to = gpr(to).filter(|&r| r != RSP)?;
            Some(Move::Load { to: Reg::General(to), size, keeps: false })
        }
        _ => Some(Move::Load { to: vector(insn, to)?, size, keeps: insn.encoding() == EncodingKind::Legacy }),
    }
}

pub fn store(insn: &Instruction, from: Register) -> Option<Move> {
    let size = insn.memory_size().size() as u32;
    if insn.mnemonic() == Mnemonic::Mov {
        let high = matches!(from, Register::AH | Register::BH | Register::CH | Register::DH);
        let from = gpr(from).filter(|&r| !high && r != RSP)?;
        return Some(Move::Store { from: Reg::General(from), size });
    }
    Some(Move::Store { from: vector(insn, from)?, size })
}

/// The vector register of a plain move between it and memory.
fn vector(insn: &Instruction, register: Register) -> Option<Reg> {
    let whole = matches!(
        insn.mnemonic(),
        Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movaps
            | Mnemonic::Movapd
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
            | Mnemonic::Lddqu
            | Mnemonic::Movd
            | Mnemonic::Movq
            | Mnemonic::Movss
            | Mnemonic::Movsd
            | Mnemonic::Vmovups
            | Mnemonic::Vmovupd
            | Mnemonic::Vmovaps
            | Mnemonic::Vmovapd
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovdqu
            | Mnemonic::Vlddqu
            | Mnemonic::Vmovd
            | Mnemonic::Vmovq
            | Mnemonic::Vmovss
            | Mnemonic::Vmovsd
    );
    let kind = register.is_xmm() || register.is_ymm();
    let encoding = matches!(insn.encoding(), EncodingKind::Legacy | EncodingKind::VEX);
    (whole && kind && encoding && insn.op_count() == 2 && register.number() < 16).then_some(Reg::Vector(register.number() as u8))
}

impl Reg {
    /// Its bit in the mask of dirty registers.
    pub fn bit(self) -> u32 {
        match self {
            Reg::General(n) => u32::from(n),
            Reg::Vector(n) => layout::VEC0 + u32::from(n),
        }
    }

    /// Its V bits, `at` bytes in.
    pub fn shadow(self, at: i32) -> Mem {
        Mem::ctx(
            SHADOW_REGS
                + at
                + if let Reg::Vector(n) = self { layout::VEC + 64 * i32::from(n) } else { layout::GPR + 8 * self.bit() as i32 },
        )
    }

    pub fn origin(self) -> Mem {
        Mem::ctx(SHADOW_REGS + layout::ORIGIN + 4 * self.bit() as i32)
    }

    pub fn place(self) -> Mem {
        Mem::ctx(SHADOW_REGS + layout::PLACE + 8 * self.bit() as i32)
    }
}

const DIRTY: i32 = 0;
const CLC: u8 = 0xf8;
const STC: u8 = 0xf9;

/// V bytes at the address in rdx.
const fn v_at(at: u32) -> Mem {
    Mem { seg: Seg::Gs, ..Mem::base(RDX, at as i32) }
}

impl Emitter<'_> {
    /// Try to settle the instruction without its rule, and go on at `back`; falls through with all registers in place if that fails.
    /// On entry they are in place, too; `live`: the flags matter.
    pub fn step_in_place(&mut self, live: bool, rule: &Rule, action: Option<Move>, memory: Option<(Mem, u32)>, back: usize) {
        let back = self.hot + back as u64;
        let mut generic = Vec::new();
        let loads = memory.map(|(_, size)| pieces(size));
        // Only memory whose V bytes the filter looks at counts.
        let quick = rule.quick && (!rule.loads || loads.is_some_and(|p| !p.is_empty()));
        if !quick && action.is_none() {
            return;
        }
        if live {
            self.keep_flags();
        }
        if let Some(Move::Rule { form, needs, busy }) = action {
            let mut job = Job { rule, needs, busy, memory, live, not: Vec::new(), probes: Vec::new() };
            self.carry_out(form, &mut job, back);
            if live {
                self.flags_back();
            }
            return;
        }
        if quick {
            self.overwrite(live, rule, memory, back);
        }
        if let Some(action) = action {
            self.carry(live, rule, action, memory, back, &mut generic);
        }
        for at in generic {
            self.asm.patch_here(at);
        }
        if live {
            self.flags_back();
        }
    }

    /// Flags to their slot; rax stays what it was.
    pub fn keep_flags(&mut self) {
        self.asm.store(&spill(slot::RAX), RAX);
        self.asm.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
        self.asm.store(&spill(slot::FLAGS), RAX);
        self.asm.load(RAX, &spill(slot::RAX));
    }

    pub fn flags_back(&mut self) {
        self.asm.store(&spill(slot::RAX), RAX);
        self.asm.load(RAX, &spill(slot::FLAGS));
        self.asm.bytes(&[0x04, 0x7f, 0x9e]);
        self.asm.load(RAX, &spill(slot::RAX));
    }

    pub fn done(&mut self, live: bool, back: u64) {
        if live {
            self.flags_back();
        }
        self.asm.jmp(back);
    }

    /// test / and / or of a mask in the thread's shadow registers, in the halves that have bits.
    pub fn branch_if(&mut self, word: i32, mask: u64, cc: u8, to: &mut Vec<usize>) {
        for (at, part) in halves(mask) {
            self.asm.op_mem(None, false, &[0xf7], 0, &mask_at(word + at));
            self.asm.u32(part);
            to.push(self.asm.jcc_forward(cc));
        }
    }

    pub fn branch_if_any(&mut self, word: i32, mask: u64, to: &mut Vec<usize>) {
        self.branch_if(word, mask, CC_NE, to);
    }

    fn set_bits(&mut self, word: i32, mask: u64) {
        for (at, part) in halves(mask) {
            self.asm.op_mem(None, false, &[0x81], 1, &mask_at(word + at));
            self.asm.u32(part);
        }
    }

    fn clear_bits(&mut self, word: i32, mask: u64) {
        for (at, part) in halves(mask) {
            self.asm.op_mem(None, false, &[0x81], 4, &mask_at(word + at));
            self.asm.u32(!part);
        }
    }

    /// If nothing undefined goes in, nothing undefined comes out.
    fn overwrite(&mut self, live: bool, rule: &Rule, memory: Option<(Mem, u32)>, back: u64) {
        let mut not = Vec::new();
        let mut probes = Vec::new();
        self.branch_if_any(DIRTY, rule.reads, &mut not);
        if let Some((mem, size)) = memory {
            for &(at, n) in pieces(size).iter() {
                // A wild address has no shadow either.
                probes.push(self.asm.here());
                self.asm.cmp_zero(&mem.shadow(at), n);
                not.push(self.asm.jcc_forward(CC_NE));
            }
        }
        self.clear_bits(DIRTY, rule.writes);
        self.done(live, back);
        let resume = self.asm.here();
        self.t.probes.extend(probes.into_iter().map(|host| Probe { host, resume }));
        for at in not {
            self.asm.patch_here(at);
        }
    }

    fn carry(&mut self, live: bool, rule: &Rule, action: Move, memory: Option<(Mem, u32)>, back: u64, generic: &mut Vec<usize>) {
        let (access, mem) = match (action, memory) {
            (Move::Copy { to, from, size }, _) => return self.copy(live, to, from, size, back, generic),
            (Move::Load { to, size, keeps }, Some((mem, n))) if n == size => (Access::Load { to, size, keeps }, mem),
            (Move::Store { from, size }, Some((mem, n))) if n == size => (Access::Store { from, size }, mem),
            (Move::Push { from }, _) => (Access::Store { from, size: 8 }, Mem::base(RSP, -8)),
            _ => return,
        };
        self.branch_if_any(DIRTY, rule.address, generic);
        self.asm.store(&spill(slot::RAX), RAX);
        self.asm.lea(RAX, &mem);
        self.asm.store(&spill(SLOT_ADDRESS), RAX);
        let behind = self.asm.lea_forward(RAX);
        self.asm.store(&spill(SLOT_BEHIND), RAX);
        if self.t.options.origins {
            self.asm.store_const(&Mem::ctx(offset::FRAME_PC), self.item.pc);
        }
        match self.t.routines.iter().find(|routine| routine.0 == access) {
            Some(&(_, routine)) => self.asm.jmp(routine),
            None => self.routine(access),
        }
        self.asm.patch_here(behind);
        generic.push(self.asm.jcc_forward(CC_B));
        self.done(live, back);
    }

    /// The code of a move, here and for all that want the same. With the carry flag it has failed, and nothing has changed.
    fn routine(&mut self, access: Access) {
        self.t.routines.push((access, self.asm.here()));
        self.shared = true;
        self.asm.store(&spill(SLOT_RCX), RCX);
        self.asm.store(&spill(SLOT_RDX), RDX);
        self.asm.load(RDX, &spill(SLOT_ADDRESS));
        let mut not = Vec::new();
        let (Access::Load { size, .. } | Access::Store { size, .. }) = access;
        if let Access::Store { from, .. } = access {
            // Where flags live the filter looks at whole bytes of the mask: the source need not be dirty.
            self.branch_if(DIRTY, 1 << from.bit(), CC_E, &mut not);
        }
        self.ordinary_address(&Mem::base(RDX, 0), size, RDX, [RAX, RCX], true, &mut not);
        match access {
            Access::Load { to, size, keeps } => self.load_shadow(to, size, keeps, &mut not),
            Access::Store { from, size } => self.store_shadow(from, size, &mut not),
        }
        self.shared = false;
        self.routine_ends(CLC);
        for at in not {
            self.asm.patch_here(at);
        }
        self.routine_ends(STC);
    }

    fn routine_ends(&mut self, carry: u8) {
        self.asm.load(RAX, &spill(slot::RAX));
        self.asm.load(RCX, &spill(SLOT_RCX));
        self.asm.load(RDX, &spill(SLOT_RDX));
        self.asm.buf.push(carry);
        self.asm.op_mem(None, false, &[0xff], 4, &spill(SLOT_BEHIND));
    }

    fn copy(&mut self, live: bool, to: u8, from: u8, size: u32, back: u64, generic: &mut Vec<usize>) {
        let mut late = Vec::new();
        self.branch_if(DIRTY, 1 << from, CC_E, generic);
        self.copy_registers(to, from, size, &mut late);
        self.asm.load(RAX, &spill(slot::RAX));
        self.done(live, back);
        for at in late {
            self.asm.patch_here(at);
        }
        self.asm.load(RAX, &spill(slot::RAX));
    }

    /// None of the slots around the bytes at rdx may hold a return address. Uses rcx.
    fn no_marks(&mut self, size: u32, not: &mut Vec<usize>) {
        // rcx = rdx & !7
        self.asm.bytes(&[0x48, 0x89, 0xd1, 0x48, 0x83, 0xe1, 0xf8]);
        let slots = size.div_ceil(8);
        for slot in 0..slots {
            self.no_mark(slot, not);
        }
        // Not aligned: the next one, too. test dl, 7
        self.asm.bytes(&[0xf6, 0xc2, 7]);
        let aligned = self.asm.jcc_forward(CC_E);
        self.no_mark(slots, not);
        self.asm.patch_here(aligned);
    }

    fn no_mark(&mut self, slot: u32, not: &mut Vec<usize>) {
        for mark in [RETURN_MARK, SIGNAL_MARK] {
            self.asm.op_mem(None, false, &[0x81], 7, &Mem { seg: Seg::Gs, ..Mem::base(RCX, 8 * slot as i32) });
            self.asm.u32(mark as u32);
            not.push(self.asm.jcc_forward(CC_E));
        }
    }

    fn load_shadow(&mut self, to: Reg, size: u32, keeps: bool, not: &mut Vec<usize>) {
        let bit = 1u64 << to.bit();
        let vector = matches!(to, Reg::Vector(_));
        if self.t.options.origins {
            self.ask_frame(RDX, RAX, not);
        }
        if size <= 8 {
            self.asm.load_zx(RAX, &v_at(0), size);
            self.no_mark_in(RAX, size, RDX, RCX, not);
        } else {
            self.no_marks(size, not);
            self.asm.load(RAX, &v_at(0));
        }
        if size >= 16 {
            self.asm.load(RCX, &v_at(8));
        }
        // test rax, rax
        self.asm.bytes(&[0x48, 0x85, 0xc0]);
        let mut zero = Vec::new();
        if vector {
            let some = self.asm.jcc_forward(CC_NE);
            if size >= 16 {
                // test rcx, rcx
                self.asm.bytes(&[0x48, 0x85, 0xc9]);
            }
            if size == 32 {
                let some = self.asm.jcc_forward(CC_NE);
                self.asm.cmp_zero(&v_at(16), 8);
                let more = self.asm.jcc_forward(CC_NE);
                self.asm.cmp_zero(&v_at(24), 8);
                zero.push(self.asm.jcc_forward(CC_E));
                self.asm.patch_here(some);
                self.asm.patch_here(more);
            } else {
                zero.push(self.asm.jcc_forward(CC_E));
            }
            self.asm.patch_here(some);
            self.vector_shadow(to, size, keeps);
        } else {
            zero.push(self.asm.jcc_forward(CC_E));
            self.asm.store(&to.shadow(0), RAX);
        }
        self.set_bits(DIRTY, bit);
        if self.t.options.origins {
            self.origin_from(to.bit(), RDX, RAX);
        }
        let out = self.asm.jmp_forward();
        for at in zero {
            self.asm.patch_here(at);
        }
        if keeps && vector {
            self.only_above(to);
        } else {
            self.clear_bits(DIRTY, bit);
        }
        self.asm.patch_here(out);
    }

    /// The low 16 bytes of a vector register become defined. Uses rax.
    fn only_above(&mut self, to: Reg) {
        let mut out = Vec::new();
        self.branch_if(DIRTY, 1 << to.bit(), CC_E, &mut out);
        self.asm.load(RAX, &to.shadow(16));
        for at in (24..64).step_by(8) {
            self.asm.op_mem(None, true, &[0x0b], RAX, &to.shadow(at));
        }
        self.asm.alu(Alu::Test, 8, RAX, RAX);
        let some = self.asm.jcc_forward(CC_NE);
        self.clear_bits(DIRTY, 1 << to.bit());
        out.push(self.asm.jmp_forward());
        self.asm.patch_here(some);
        for at in [0, 8] {
            self.asm.store_imm(&to.shadow(at), 8, 0);
        }
        for at in out {
            self.asm.patch_here(at);
        }
    }

    /// Low words in rax and rcx, the others behind rdx.
    fn vector_shadow(&mut self, to: Reg, size: u32, keeps: bool) {
        let mut has = Vec::new();
        if keeps {
            self.branch_if_any(DIRTY, 1 << to.bit(), &mut has);
        }
        let above = if size == 32 { 32 } else { 16 };
        if self.t.options.private_vectors {
            self.asm.store_wide(&to.shadow(0), false, 64);
        } else {
            for at in (above..64).step_by(8) {
                self.asm.store_imm(&to.shadow(at), 8, 0);
            }
        }
        for at in has {
            self.asm.patch_here(at);
        }
        self.asm.store(&to.shadow(0), RAX);
        if size >= 16 {
            self.asm.store(&to.shadow(8), RCX);
        } else {
            self.asm.store_imm(&to.shadow(8), 8, 0);
        }
        if size == 32 {
            for at in [16, 24] {
                self.asm.load(RAX, &v_at(at));
                self.asm.store(&to.shadow(at as i32), RAX);
            }
        }
    }

    fn store_shadow(&mut self, from: Reg, size: u32, not: &mut Vec<usize>) {
        if self.t.options.origins {
            self.store_origin(from, size, [RDX, RAX, RCX], not);
        }
        for at in (0..size.max(8)).step_by(8) {
            self.asm.load(RAX, &from.shadow(at as i32));
            match size {
                1 => self.asm.op_mem(None, false, &[0x88], RAX, &v_at(at)),
                2 => self.asm.op_mem(Some(0x66), false, &[0x89], RAX, &v_at(at)),
                4 => self.asm.op_mem(None, false, &[0x89], RAX, &v_at(at)),
                _ => self.asm.store(&v_at(at), RAX),
            }
        }
    }

    fn copy_registers(&mut self, to: u8, from: u8, size: u32, not: &mut Vec<usize>) {
        let (to, from) = (Reg::General(to), Reg::General(from));
        self.asm.store(&spill(slot::RAX), RAX);
        self.asm.load_zx(RAX, &from.shadow(0), size);
        self.asm.bytes(&[0x48, 0x85, 0xc0]);
        not.push(self.asm.jcc_forward(CC_E));
        self.asm.store(&to.shadow(0), RAX);
        self.set_bits(DIRTY, 1 << to.bit());
        self.asm.op_mem(None, false, &[0x8b], RAX, &from.origin());
        self.asm.op_mem(None, false, &[0x89], RAX, &to.origin());
        self.asm.load(RAX, &from.place());
        self.asm.store(&to.place(), RAX);
        let mut lazy = Vec::new();
        self.branch_if_any(layout::LAZY, 1 << from.bit(), &mut lazy);
        self.clear_bits(layout::LAZY, 1 << to.bit());
        let out = self.asm.jmp_forward();
        for at in lazy {
            self.asm.patch_here(at);
        }
        self.set_bits(layout::LAZY, 1 << to.bit());
        self.asm.patch_here(out);
    }
}

/// The 32-bit halves of a mask that have bits: offset, bits.
pub fn halves(mask: u64) -> impl Iterator<Item = (i32, u32)> {
    [(0, mask as u32), (4, (mask >> 32) as u32)].into_iter().filter(|h| h.1 != 0)
}
