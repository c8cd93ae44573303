//! The memory operand of an instruction: reached by the program's own registers where it can be, else by a scratch register.
//!
//! ```text
//! [rdi+rcx*4+8]        as it is: the instruction is copied
//! [rip+x]              the target as a 32-bit displacement, else in a scratch register: the instruction is written anew
//! fs:[x]               the program's segment base is not in fs (that is ours): added in a scratch register
//! ```
//! The scratch register is one that the instruction does not touch. It is spilled around it, and where that is so stands in the region's
//! [`InsnInfo`](crate::InsnInfo), so that a fault shows the program's own value.

use crate::check::pieces;
use crate::emit::{CC_NE, Mem, RAX, RCX, Seg};
use crate::emitter::{Emitter, spill};
use crate::rules::Probe;
use crate::{gpr, relocate, slot};
use alloc::vec::Vec;
use iced_x86::{Code, Mnemonic, Register};
use memcheck_abi::context::offset;

/// Spill slot for the register that carries a rewritten address.
const SLOT_ADDRESS_REGISTER: i32 = 6;

impl Emitter<'_> {
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

    /// The program's instruction with its memory operand written as `mem`.
    pub fn rewrite(&mut self, mem: &Mem) {
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
    fn with_scratch(&mut self, load: impl Fn(&mut Self, u8), build: impl Fn(&Self, u8) -> Mem, f: impl FnOnce(&mut Self, Mem, bool)) {
        // A rule needs the program's registers as they are: it comes before the scratch register is taken.
        self.tested = self.test_through_scratch(&load, &build);
        self.place_step();
        let r = self.scratch_register();
        self.asm.store(&spill(SLOT_ADDRESS_REGISTER), r);
        let from = self.asm.offset() as u32;
        load(self, r);
        let mem = build(self, r);
        self.passing = true;
        f(self, mem, true);
        (self.passing, self.tested) = (false, false);
        let to = self.asm.offset() as u32;
        self.asm.load(r, &spill(SLOT_ADDRESS_REGISTER));
        if let Some(i) = self.info.last_mut() {
            (i.spilled, i.spill) = (r, (from, to));
        }
    }

    /// Dirty mode: test the V bytes of an operand that needs a scratch register, which has its own value again before a rule is applied.
    /// Also those that will be stored to: a check behind the rule would take what the rule has written there for an error. False: not done.
    fn test_through_scratch(&mut self, load: &impl Fn(&mut Self, u8), build: &impl Fn(&Self, u8) -> Mem) -> bool {
        let insn = self.item.insn;
        let open = self.pending.as_ref().is_some_and(|p| p.open);
        if !open || !matches!(self.t.kinds.access(&insn), Some(Some(_))) {
            return false;
        }
        let words = pieces(insn.memory_size().size() as u32);
        let r = self.scratch_register();
        let live = self.item.flags_live;
        if words.is_empty() || live && r == RCX {
            self.step_always();
            return true;
        }
        self.asm.store(&spill(SLOT_ADDRESS_REGISTER), r);
        load(self, r);
        let mem = build(self, r);
        let (mut patches, mut probes) = (Vec::new(), Vec::new());
        for &(at, n) in words.iter() {
            if live {
                self.asm.store(&spill(slot::RCX), RCX);
                probes.push(self.asm.here());
                self.asm.load_zx(RCX, &mem.shadow(at), n);
                let clean = self.asm.jrcxz_forward();
                self.asm.load(r, &spill(SLOT_ADDRESS_REGISTER));
                patches.push(self.asm.jmp_forward());
                self.asm.patch8_here(clean);
                self.asm.load(RCX, &spill(slot::RCX));
            } else {
                probes.push(self.asm.here());
                self.asm.cmp_zero(&mem.shadow(at), n);
                // The flags stay.
                self.asm.load(r, &spill(SLOT_ADDRESS_REGISTER));
                patches.push(self.asm.jcc_forward(CC_NE));
                load(self, r);
            }
        }
        // Where there is no shadow the instruction itself faults.
        let resume = self.asm.here();
        self.t.probes.extend(probes.into_iter().map(|host| Probe { host, resume }));
        self.asm.load(r, &spill(SLOT_ADDRESS_REGISTER));
        patches.into_iter().for_each(|patch| self.add_patch(patch, live));
        true
    }

    /// A low register that the current instruction does not touch at all. rcx last: checks spill it to their own slot.
    fn scratch_register(&mut self) -> u8 {
        let insn = self.item.insn;
        let used = self.t.kinds.factory.info(&insn);
        let mut mask = 0u32;
        for r in used.used_registers() {
            if let Some(n) = gpr(r.register()) {
                mask |= 1 << n;
            }
        }
        [2u8, 6, 7, 0, 3, 1].into_iter().find(|r| mask & 1 << r == 0).unwrap_or(5)
    }

    /// Copy an instruction whose memory operand cannot be written anew. If it lies in the program's fs or gs, the register of its
    /// address is moved by the segment's base meanwhile (a fault in between shows it moved: nobody has been seen to write this).
    pub fn copy_moved(&mut self, register: Option<u8>) {
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
