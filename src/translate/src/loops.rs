//! Dirty mode: loops in which undefined values go round.
//!
//! The filters of dirty mode (`dirty`) ask before every instruction, which is right where undefined values are seldom. A loop that is met
//! again and again with undefined values in the same registers is translated once more, as a whole, calls of small functions included,
//! and without filters: at every instruction it is known which registers are surely defined, and of all others the V slot says exactly
//! what they are.
//!
//! ```text
//! entry   from the end of a dirty region that goes back, or from a check that finds something undefined
//!         is one dirty that is taken for defined? to the dirty region; slots of the others made exact, registers that the loop does not
//!         touch are kept: they are what its rules compute with
//! head    rule, instruction, rule, instruction ...        rules only where something may be undefined
//!         a round more? to the head
//! out     (one for every way out) registers back, the mask made exact; the dirty region of that instruction goes on
//! ```
//! Out is the answer to everything out of the ordinary: an undefined address or condition, memory that may not be accessed, a fault, a
//! waiting signal, and every few rounds to see whether anything is undefined still. Nothing here calls the runtime or reports.
//!
//! Deliberately absent: loops that branch within or contain loops, stack instructions other than calls, AVX, x87, code that may change.

use crate::check::pieces;
use crate::decode::{self, Item, Tail};
use crate::dirty::mask_at;
use crate::emit::{CC_E, CC_NE, Mem, RSP};
use crate::emitter::Emitter;
use crate::moves::{Reg, halves, store};
use crate::needs::{self, Needs};
use crate::rules::encode::{Alu, CC_S};
use crate::rules::operand::{FLAGS, POOL, slot_of};
use crate::rules::{Form, Job, Probe, Scratch};
use crate::{
    DEAD_OVER_CALL, DEAD_OVER_RETURN, KEPT_IN_LOOP, LEAVE_JUMP, LOOP_COUNTERS, Program, Rule, Shadow, Translator, control, gpr, plan,
    shadow_layout as layout, stack,
};
use alloc::vec::Vec;
use iced_x86::{EncodingKind, FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register};
use memcheck_abi::context::offset;
use memcheck_abi::layout::RED_ZONE;

/// Longest loop, and calls within one another.
const MAX_INSTRUCTIONS: usize = 64;
const MAX_CALLS: usize = 3;
/// Rounds until somebody looks whether anything is still undefined.
const ROUNDS: i32 = 64;
/// A loop that has been left this often in its first round is not entered any more.
const MISTAKES: i32 = 1000;
/// Vector registers that a rule uses.
const MOST_VECTORS: usize = 6;
/// The registers of which the loop knows: general ones, the flags, xmm0 to xmm15.
const KNOWN: u64 = 0xffff | 1 << FLAGS | 0xffff << layout::VEC0;

/// What is known while a loop is emitted.
pub struct Loop {
    /// Registers that may be undefined here; the slots of all of these say what they are.
    undefined: u64,
    /// Registers that the loop touches.
    touched: u64,
    /// General and vector registers that it does not touch, and uses.
    free: u32,
    free_vectors: u32,
    outs: Vec<Out>,
    /// Where its mistakes are counted.
    counter: i32,
}

/// A way out of the loop.
struct Out {
    patches: Vec<usize>,
    probes: Vec<u64>,
    scratch: Option<Scratch>,
    pc: u64,
    undefined: u64,
    flags: Flags,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flags {
    Dead,
    Live,
    Saved,
}

/// Code, and what it was made of: pieces of the program, [start, end).
pub type Made = (Vec<u8>, Vec<(u64, u64)>);

/// A way into a loop.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Where in the loop, perhaps in a function that it calls; and where that returns to then.
    pub pc: u64,
    pub returns_to: Option<u64>,
    /// Registers that are dirty there.
    pub dirty: u64,
    /// Host address of the dirty region there.
    pub region: u64,
}

/// The loop that `entry` is in, for `place` on.
pub fn translate(t: &mut Translator, program: &dyn Program, entry: Entry, place: u64, shadow: &mut dyn Shadow) -> Option<Made> {
    let Entry { pc, dirty, region, .. } = entry;
    if !t.options.pext || !t.options.undef {
        return None;
    }
    let mut items = Vec::new();
    let tail = collect(program, &entry, &mut items)?;
    plan::flags(program, &mut items, tail);
    if items[0].flags_live {
        return None;
    }
    // Somebody else who calls the function may want them.
    let caller = entry.returns_to.filter(|_| plan::live_at(program, pc) != 0);
    let mut needs = Vec::new();
    needs::find(program, &items, tail, &mut needs);
    let rules: Vec<Rule> = items.iter().map(|item| shadow.rule(&item.insn)).collect();
    let touched = rules.iter().fold(1 << RSP, |all, rule| all | rule.mask | rule.reads | rule.writes | rule.address);
    if touched & !KNOWN != 0 || dirty & 1 << RSP != 0 {
        return None;
    }
    let touched = items.iter().fold(touched, |all, item| all | registers(t, &item.insn));
    let mut entered = dirty & touched;
    // What goes round may come back undefined.
    for _ in 0..6 {
        t.probes.clear();
        let mut e = Emitter::alone(t, program, None, place, items[0]);
        e.loops = Some(Loop::new(touched, entered, pc));
        let patches = e.enter_loop(entered, caller);
        let head = e.asm.offset();
        let mut calls: Vec<u64> = entry.returns_to.into_iter().collect();
        for ((item, rule), needs) in items.iter().zip(&rules).zip(&needs) {
            e.item = *item;
            e.in_loop(rule, *needs, &mut calls)?;
            e.forget();
        }
        let left = e.loops.as_ref()?.undefined;
        if left & !entered == 0 {
            e.go_round(pc, head);
            e.leave_loop(patches, region, caller.is_some());
            return Some((e.asm.buf, items.iter().map(|item| (item.pc, item.pc + u64::from(item.len))).collect()));
        }
        entered |= left;
    }
    None
}

/// The instructions of one round: back along branches, on past others.
fn collect(program: &dyn Program, entry: &Entry, items: &mut Vec<Item>) -> Option<Tail> {
    let mut at = entry.pc;
    let mut calls: Vec<u64> = entry.returns_to.into_iter().collect();
    let depth = calls.len();
    let mut begins: Vec<usize> = calls.iter().map(|_| 0).collect();
    while items.len() < MAX_INSTRUCTIONS {
        if at == entry.pc && !items.is_empty() {
            return (calls.len() == depth && entry.returns_to == calls.last().copied()).then_some(Tail::Next(at));
        }
        if program.redirect(at).is_some() || program.is_writable(at) {
            return None;
        }
        let item = decode::one(program, at)?;
        items.push(item);
        let next = at + u64::from(item.len);
        let near = item.insn.op_count() == 1 && item.insn.op0_kind() == OpKind::NearBranch64;
        at = match item.insn.flow_control() {
            FlowControl::Next => next,
            FlowControl::ConditionalBranch if !item.insn.is_jcc_short_or_near() => return None,
            FlowControl::ConditionalBranch if item.insn.near_branch_target() <= at => {
                items.last_mut()?.followed = true;
                item.insn.near_branch_target()
            }
            FlowControl::ConditionalBranch => next,
            FlowControl::UnconditionalBranch if near => item.insn.near_branch_target(),
            FlowControl::Call if near && calls.len() < MAX_CALLS => {
                calls.push(next);
                begins.push(items.len());
                item.insn.near_branch_target()
            }
            FlowControl::Return if item.insn.mnemonic() == Mnemonic::Ret && item.insn.op_count() == 0 => {
                let leaf = items[begins.pop()?..].iter().any(|item| plan::below_stack(&item.insn));
                items.last_mut()?.released = 8 + if leaf { RED_ZONE as u32 } else { 0 };
                calls.pop()?
            }
            _ => return None,
        };
    }
    None
}

/// All registers that an instruction so much as mentions, by their bits in the mask.
fn registers(t: &mut Translator, insn: &Instruction) -> u64 {
    let bit = |r: Register| match gpr(r) {
        Some(n) => 1 << n,
        None if r.is_vector_register() && r.number() < 16 => 1 << (layout::VEC0 + r.number() as u32),
        None => 0,
    };
    t.factory.info(insn).used_registers().iter().fold(0, |all, used| all | bit(used.register()))
}

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
        || crate::uses_private_registers(insn)
        || !matches!(insn.encoding(), EncodingKind::Legacy)
            && !matches!(
                insn.mnemonic(),
                Mnemonic::Shlx | Mnemonic::Shrx | Mnemonic::Sarx | Mnemonic::Andn | Mnemonic::Bextr | Mnemonic::Rorx
            )
        || matches!(insn.mnemonic(), Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Xlatb | Mnemonic::Int3 | Mnemonic::Ud2)
        || memory && (matches!(insn.segment_prefix(), Register::FS | Register::GS) || address.iter().any(|r| r.is_gpr32()))
}

impl Loop {
    fn new(touched: u64, undefined: u64, pc: u64) -> Loop {
        let free = POOL.iter().fold(0, |all, r| all | 1 << r) & !(touched as u32);
        let vectors = touched >> layout::VEC0;
        let free_vectors = (0..16).filter(|n| vectors != 0 && vectors >> n & 1 == 0).take(MOST_VECTORS).fold(0, |all, n| all | 1 << n);
        Loop { undefined, touched, free, free_vectors, outs: Vec::new(), counter: LOOP_COUNTERS + 4 * (pc ^ pc >> 6) as i32 % 64 }
    }
}

/// Where the registers are kept that a loop uses.
const fn kept(r: u8) -> Mem {
    Mem::ctx(KEPT_IN_LOOP + 8 * r as i32)
}

const fn kept_vector(r: u8) -> Mem {
    Mem::ctx(KEPT_IN_LOOP + 128 + 16 * r as i32)
}

fn bits(mask: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |bit| mask >> bit & 1 != 0)
}

impl Emitter<'_> {
    /// In a loop: may this register be undefined? None: not in a loop, the mask says.
    pub fn may_be_undefined(&self, bit: u32) -> Option<bool> {
        self.loops.as_ref().map(|l| l.undefined >> bit & 1 != 0)
    }

    pub fn now_undefined(&mut self, bit: u32, undefined: bool) {
        if let Some(l) = &mut self.loops {
            l.undefined = l.undefined & !(1 << bit) | u64::from(undefined) << bit;
        }
    }

    pub fn free_registers(&self) -> u32 {
        self.loops.as_ref().map_or(0, |l| l.free)
    }

    pub fn free_vectors(&self) -> u32 {
        self.loops.as_ref().map_or(0, |l| l.free_vectors)
    }

    /// In a loop: an access to these bytes has been found in order, or had nothing undefined, in this round.
    pub fn is_reached(&self, mem: &Mem, size: u32) -> bool {
        self.loops.is_some() && self.is_known(mem, size)
    }

    pub fn reach(&mut self, mem: &Mem, size: u32) {
        if self.loops.is_some() {
            self.learn(mem, size);
        }
    }

    fn define_registers(&mut self, mask: u64) {
        if let Some(l) = &mut self.loops {
            l.undefined &= !mask;
        }
    }

    /// To the patches returned if the loop is not made for what is undefined now.
    fn enter_loop(&mut self, entered: u64, caller: Option<u64>) -> Vec<usize> {
        let Some(&Loop { touched, free, free_vectors, counter, .. }) = self.loops.as_ref() else { return Vec::new() };
        let mut bail = Vec::new();
        if let Some(caller) = caller {
            self.keep_flags();
            self.asm.op_mem(None, true, &[0x81], 7, &Mem::base(RSP, 0));
            self.asm.u32(caller as u32);
            bail.push(self.asm.jcc_forward(CC_NE));
        }
        self.asm.op_mem(None, false, &[0x81], 7, &Mem::ctx(counter));
        self.asm.u32(MISTAKES as u32);
        bail.push(self.asm.jcc_forward(15));
        self.branch_if_any(0, touched & !entered, &mut bail);
        for bit in bits(entered) {
            self.asm.alu_mem_imm(Alu::Test, &mask_at((bit / 32 * 4) as i32), 1 << (bit % 32));
            let dirty = self.asm.jcc_forward(CC_NE);
            let size = if bit >= layout::VEC0 { 64 } else { 8 };
            for at in (0..size).step_by(8) {
                self.asm.store_imm(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8, 0);
            }
            let clean = self.asm.jmp_forward();
            self.asm.patch_here(dirty);
            // Nothing may be undefined above: legacy instructions leave it.
            for at in (16..size).step_by(8) {
                self.asm.cmp_zero(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8);
                bail.push(self.asm.jcc_forward(CC_NE));
            }
            self.asm.patch_here(clean);
        }
        // Registers that become undefined in the loop only have no slot yet.
        for bit in bits(touched & !entered & !0 << layout::VEC0) {
            for at in (16..64).step_by(8) {
                self.asm.store_imm(&Mem { disp: slot_of(bit).disp + at, ..slot_of(bit) }, 8, 0);
            }
        }
        for r in bits(u64::from(free)) {
            self.asm.store(&kept(r as u8), r as u8);
        }
        for r in bits(u64::from(free_vectors)) {
            self.asm.store_vector(&kept_vector(r as u8), r as u8);
        }
        self.asm.store_imm(&mask_at(layout::PATIENCE), 4, ROUNDS);
        bail
    }

    fn out(&mut self, patches: Vec<usize>, pc: u64, flags: Flags) {
        if let Some(l) = &mut self.loops
            && !patches.is_empty()
        {
            l.outs.push(Out { patches, probes: Vec::new(), scratch: None, pc, undefined: l.undefined, flags });
        }
    }

    /// The end of a round: to the head, if nothing else wants to be looked at.
    fn go_round(&mut self, pc: u64, head: usize) {
        let mut rest = Vec::new();
        self.asm.cmp_zero(&Mem::ctx(offset::PENDING), 4);
        rest.push(self.asm.jcc_forward(CC_NE));
        self.asm.op_mem(None, false, &[0x83], 5, &mask_at(layout::PATIENCE));
        self.asm.buf.push(1);
        rest.push(self.asm.jcc_forward(CC_S));
        let back = self.asm.jmp_forward();
        self.asm.patch_to(back, head);
        self.out(rest, pc, Flags::Dead);
    }

    /// The ways out.
    fn leave_loop(&mut self, bail: Vec<usize>, region: u64, flags: bool) {
        for at in bail {
            self.asm.patch_here(at);
        }
        if flags {
            self.flags_back();
        }
        self.asm.jmp(region);
        let Some(l) = &mut self.loops else { return };
        let outs = core::mem::take(&mut l.outs);
        let (touched, free, free_vectors, counter) = (l.touched, l.free, l.free_vectors, l.counter);
        for out in outs {
            let resume = self.asm.here();
            for at in out.patches {
                self.asm.patch_here(at);
            }
            self.t.probes.extend(out.probes.into_iter().map(|host| Probe { host, resume }));
            if let Some(scratch) = &out.scratch {
                self.give_back(scratch);
            }
            for r in bits(u64::from(free)) {
                self.asm.load(r as u8, &kept(r as u8));
            }
            for r in bits(u64::from(free_vectors)) {
                self.asm.load_vector(r as u8, &kept_vector(r as u8));
            }
            if out.flags == Flags::Live {
                self.keep_flags();
            }
            // Was it worth while?
            self.asm.op_mem(None, false, &[0x81], 7, &mask_at(layout::PATIENCE));
            self.asm.u32(ROUNDS as u32);
            let not = self.asm.jcc_forward(CC_E);
            self.asm.store_imm(&Mem::ctx(counter), 4, -1);
            self.asm.patch_here(not);
            self.asm.op_mem(None, false, &[0x83], 0, &Mem::ctx(counter));
            self.asm.buf.push(1);
            self.exact_mask(touched, out.undefined);
            if out.flags != Flags::Dead {
                self.flags_back();
            }
            self.leave_through(out.pc, LEAVE_JUMP, None);
        }
    }

    fn exact_mask(&mut self, touched: u64, undefined: u64) {
        for (at, half) in halves(touched & !undefined) {
            self.asm.alu_mem_imm(Alu::And, &mask_at(at), !half);
        }
        for (at, half) in halves(undefined) {
            self.asm.alu_mem_imm(Alu::Or, &mask_at(at), half);
        }
        for bit in bits(undefined) {
            self.asm.cmp_zero(&slot_of(bit), if bit == FLAGS { 4 } else { 8 });
            let mut some = alloc::vec![self.asm.jcc_forward(CC_NE)];
            if bit >= layout::VEC0 {
                self.asm.cmp_zero(&Mem { disp: slot_of(bit).disp + 8, ..slot_of(bit) }, 8);
                some.push(self.asm.jcc_forward(CC_NE));
            }
            self.asm.alu_mem_imm(Alu::And, &mask_at((bit / 32 * 4) as i32), !(1 << (bit % 32)));
            for at in some {
                self.asm.patch_here(at);
            }
        }
    }

    /// One instruction with its rule. None: not in a loop.
    fn in_loop(&mut self, rule: &Rule, needs: Needs, calls: &mut Vec<u64>) -> Option<()> {
        let insn = self.item.insn;
        let next = self.item.pc + u64::from(self.item.len);
        match insn.flow_control() {
            FlowControl::Next => self.computation(rule, needs),
            FlowControl::ConditionalBranch => {
                let code = control::condition(insn.condition_code())?;
                if self.may_be_undefined(FLAGS) == Some(true) {
                    self.rule_in_loop(rule, Form::Branch(code), needs, None);
                }
                let to = self.item.aside();
                let patch = self.asm.jcc_forward(code ^ u8::from(self.item.followed));
                let live = plan::live_at(self.program, to) != 0;
                self.out(alloc::vec![patch], to, if live { Flags::Live } else { Flags::Dead });
                Some(())
            }
            FlowControl::UnconditionalBranch => Some(()),
            FlowControl::Call => {
                calls.push(next);
                self.known.clear();
                self.asm.store_imm(&Mem::base(RSP, -8).shadow(0), 8, memcheck_abi::layout::RETURN_MARK as i32);
                let own = self.asm.here();
                self.asm.push_imm(i32::try_from(next).ok()?);
                self.faults_at(own);
                self.define_registers(DEAD_OVER_CALL);
                Some(())
            }
            FlowControl::Return => {
                let expected = calls.pop()?;
                if self.item.flags_live || i32::try_from(expected).is_err() {
                    return None;
                }
                let own = self.asm.here();
                self.asm.op_mem(None, true, &[0x81], 7, &Mem::base(RSP, 0));
                self.asm.u32(expected as u32);
                let elsewhere = self.asm.jcc_forward(CC_NE);
                self.faults_at(own);
                self.out(alloc::vec![elsewhere], self.item.pc, Flags::Dead);
                self.asm.lea(RSP, &Mem::base(RSP, 8));
                let released = self.item.released;
                stack::paint(self, -(released as i32), released);
                self.define_registers(DEAD_OVER_RETURN);
                Some(())
            }
            _ => None,
        }
    }

    /// A fault at this host address is the program's: it happens again, elsewhere. Whatever was undefined does not count after that.
    fn faults_at(&mut self, host: u64) {
        let flags = if self.item.flags_live { Flags::Live } else { Flags::Dead };
        let pc = self.item.pc;
        if let Some(l) = &mut self.loops {
            l.outs.push(Out { patches: Vec::new(), probes: alloc::vec![host], scratch: None, pc, undefined: 0, flags });
        }
    }

    fn computation(&mut self, rule: &Rule, needs: Needs) -> Option<()> {
        let insn = self.item.insn;
        if is_foreign(&insn) {
            return None;
        }
        let undefined = self.loops.as_ref()?.undefined;
        let memory = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory);
        let access = memory.map_or(OpAccess::NoMemAccess, |at| self.t.factory.info(&insn).op_access(at));
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
        for (at, n) in words {
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

    fn mistake(&mut self, patches: Vec<usize>, probes: Vec<u64>, scratch: Option<Scratch>, live: bool, undefined: u64) {
        let pc = self.item.pc;
        if let Some(l) = &mut self.loops
            && !(patches.is_empty() && probes.is_empty())
        {
            let flags = if live { Flags::Saved } else { Flags::Dead };
            l.outs.push(Out { patches, probes, scratch, pc, undefined, flags });
        }
    }

    /// General registers that the instruction touches.
    fn busy(&mut self) -> u32 {
        let insn = self.item.insn;
        self.t.factory.info(&insn).used_registers().iter().fold(0, |busy, used| busy | gpr(used.register()).map_or(0, |n| 1 << n))
    }

    fn rule_in_loop(&mut self, rule: &Rule, form: Form, needs: Needs, memory: Option<(Mem, u32)>) {
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
        self.apply(form, &scratch, &mut job);
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
                crate::moves::Move::Store { from, .. } => from,
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
        let [v, p, a, c] = [scratch[0], scratch[1], scratch[2], scratch[3]];
        let words = pieces(size);
        // Nothing to do where defined bytes take the place of defined ones.
        let mut some = Vec::new();
        for &(at, n) in &words {
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
        let word = |at: i32| Mem { seg: crate::emit::Seg::Gs, ..Mem::base(p, at) };
        match from {
            None => words.iter().for_each(|&(at, n)| self.asm.store_imm(&word(at), n, 0)),
            Some(from) => {
                if self.t.options.origins {
                    self.origin_of_store(from, size, [p, a, c], &mut not);
                }
                for &(at, n) in &words {
                    self.asm.load(v, &from.shadow(at));
                    self.asm.store_sized(&word(at), v, n);
                }
            }
        }
        for at in done {
            self.asm.patch_here(at);
        }
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
