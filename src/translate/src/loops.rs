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
//! - `held`     results that need not go through memory
//! - `ways`     into the loop, round and out
//! - `rules`    what an instruction does to the V bits
//!
//! Deliberately absent: loops that branch within or contain loops, stack instructions other than calls, AVX, x87, code that may change.

mod held;
mod rules;
mod ways;

use crate::decode::{self, Item, Tail};
use crate::emit::{CC_NE, Mem, RSP};
use crate::emitter::Emitter;
use crate::needs::{self, Needs};
use crate::rules::Form;
use crate::rules::operand::{FLAGS, POOL};
use crate::{
    DEAD_OVER_CALL, DEAD_OVER_RETURN, KEPT_IN_LOOP, LOOP_COUNTERS, LOOP_SLOTS_SIZE, Program, Rule, Shadow, Translator, control, gpr, leaf,
    plan, shadow_layout as layout, stack,
};
use alloc::vec::Vec;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use memcheck_abi::layout::{RED_ZONE, RETURN_MARK};
use ways::{Flags, Out};

/// Longest loop, and calls within one another.
const MAX_INSTRUCTIONS: usize = 64;
const MAX_CALLS: usize = 3;
/// Vector registers that a rule uses.
const MOST_VECTORS: usize = 6;
/// The registers of which the loop knows: general ones, the flags, xmm0 to xmm15.
const KNOWN: u64 = 0xffff | 1 << FLAGS | 0xffff << layout::VEC0;

/// Counters of mistakes; several loops may share one.
const COUNTERS: u64 = 64;
const _: () = assert!(LOOP_COUNTERS as usize + 4 * COUNTERS as usize == KEPT_IN_LOOP as usize + LOOP_SLOTS_SIZE);

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
    held: held::Held,
    /// Where its mistakes are counted.
    counter: i32,
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
    let tail = collect(t, program, &entry, &mut items)?;
    plan::flags(&mut t.kinds, program, &mut items, tail, plan::Who::All);
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
            e.go_round(pc, head, entered & !left);
            e.leave_loop(patches, region, caller.is_some());
            return Some((e.asm.buf, items.iter().map(|item| (item.pc, item.pc + u64::from(item.len))).collect()));
        }
        entered |= left;
    }
    None
}

/// The instructions of one round: back along branches, on past others.
fn collect(t: &mut Translator, program: &dyn Program, entry: &Entry, items: &mut Vec<Item>) -> Option<Tail> {
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
        let item = decode::one(&mut t.kinds, program, at)?;
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
                let leaf = items[begins.pop()?..].iter().any(|item| leaf::below_stack(&item.insn));
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
    t.kinds.factory.info(insn).used_registers().iter().fold(0, |all, used| all | bit(used.register()))
}

impl Loop {
    fn new(touched: u64, undefined: u64, pc: u64) -> Loop {
        let free = POOL.iter().fold(0, |all, r| all | 1 << r) & !(touched as u32);
        let vectors = touched >> layout::VEC0;
        let free_vectors = (0..16).filter(|n| vectors != 0 && vectors >> n & 1 == 0).take(MOST_VECTORS).fold(0, |all, n| all | 1 << n);
        Loop {
            undefined,
            touched,
            free,
            free_vectors,
            outs: Vec::new(),
            held: held::Held::default(),
            counter: LOOP_COUNTERS + 4 * ((pc ^ pc >> 6) % COUNTERS) as i32,
        }
    }
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
                self.asm.store_imm(&Mem::base(RSP, -8).shadow(0), 8, RETURN_MARK as i32);
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
}
