//! The interpreter of rules beside translated code: what the runtime does at `helper::STEP`, on the test's memory.
//!
//! A program is run twice in dirty mode from the same state: once every rule is applied by the interpreter, once translated code carries out
//! what it can. Registers, memory and reports must be the same, and all V bits.
#![allow(unsafe_code, reason = "the shadow registers lie behind the thread context")]

use crate::gate::Gate;
use crate::random::Random;
use crate::vectors;
use crate::world::{AREAS, PAGE, STACK, World};
use iced_x86::Instruction;
use memcheck_abi::layout::{A_BASE, ORIGIN_DISTANCE, ORIGIN_MAP, ORIGIN_PAGES, RED_ZONE, RETURN_MARK, SIGNAL_MARK, THREADS_START};
use memcheck_semantics::regs::{FLAGS, VEC0};
use memcheck_semantics::{Complaint, ComplaintKind, Machine, Plan, Planner, Segment, ShadowRegs, Wide, regs};
use memcheck_translate::{Rule, SHADOW_REGS, Shadow};

/// Who applies the rules of dirty mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// Nobody: masks are random, and steps are only counted.
    Marks,
    Interpreted,
    /// Translated code, and the interpreter where that cannot.
    Inline,
}

/// Real rules, kept for the steps.
pub struct Real<'a> {
    pub planner: &'a mut Planner,
    pub plans: &'a mut Vec<Plan>,
    pub inline: bool,
}

impl Shadow for Real<'_> {
    fn rule(&mut self, insn: &Instruction) -> Rule {
        let plan = self.planner.plan(insn);
        let flags = 1 << FLAGS;
        let (some, all) = (plan.flags_written != 0, plan.flags_written == regs::ARITH);
        self.plans.push(plan);
        Rule {
            mask: plan.reads | plan.writes | plan.address | if some { flags } else { 0 },
            reads: plan.reads | plan.address | if some && !all { flags } else { 0 },
            address: plan.address,
            writes: plan.writes | if all { flags } else { 0 },
            quick: plan.defines_by_itself(),
            loads: plan.mem.is_some_and(|m| m.read),
            inline: self.inline,
            plan: self.plans.len() as u64 - 1,
        }
    }

    fn dead_at(&mut self, _: u64) -> Option<(u64, u64)> {
        Some((0, 0))
    }
}

/// Map what rules look at beside V bits: A bits, origin words and their map.
pub fn map_shadows() {
    crate::world::map_private(ORIGIN_MAP, ORIGIN_PAGES, false);
    for area in AREAS {
        crate::world::map_private(A_BASE + (area.start - PAGE) / 8, (area.size + 2 * PAGE) / 8 + 16, false);
        crate::world::map_private(area.start - PAGE + ORIGIN_DISTANCE, area.size + 2 * PAGE, false);
    }
}

pub fn shadow_regs() -> &'static mut ShadowRegs {
    // SAFETY: behind the context in the same mapping; plain integers; the program does not run now.
    unsafe { &mut *((THREADS_START as i64 + i64::from(SHADOW_REGS)) as *mut ShadowRegs) }
}

fn a_bits(addr: u64) -> &'static mut u8 {
    // SAFETY: mapped by `map_shadows` for all areas and the pages around them.
    unsafe { &mut *((A_BASE + addr / 8) as *mut u8) }
}

/// Bits and bytes that are hard on rules.
fn some_v(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => u64::MAX,
        1 => 1 << random.below(64),
        2 => random.word() & random.word() & random.word(),
        3 => 0xff << (8 * random.below(8)),
        4 => u64::MAX << random.below(64),
        _ => random.value(),
    }
}

/// Undefined registers, and memory that may not be touched.
pub fn disturb(random: &mut Random, world: &mut World, dirty: u64) {
    let shadow = shadow_regs();
    *shadow = ShadowRegs::new();
    for bit in 0..64 {
        if dirty >> bit & 1 == 0 {
            continue;
        }
        match bit {
            0..16 if bit != 4 => shadow.set_gpr(bit, some_v(random), 5),
            FLAGS => shadow.set_flags(regs::ARITH, random.word() & regs::ARITH, 5),
            VEC0..42 => {
                let mut v = Wide::ZERO;
                for word in &mut v.0[..4] {
                    *word = some_v(random) & if random.one_in(3) { 0 } else { u64::MAX };
                }
                shadow.set_vec(bit - VEC0, v, 5);
            }
            _ => {}
        }
    }
    for area in AREAS {
        for at in (area.start - PAGE / 2..area.end() + PAGE / 2).step_by(8) {
            *a_bits(at) = 0;
        }
        for _ in 0..area.size / 256 {
            let at = area.start + random.below(area.size - 16);
            if area == STACK || random.one_in(2) {
                let mark = random.pick(&[RETURN_MARK, SIGNAL_MARK]).to_le_bytes();
                // What may not be touched has all its V bits set.
                *a_bits(at) = 0;
                for (i, v) in mark.into_iter().enumerate() {
                    world.paint((at & !7) + i as u64, 1, v);
                }
            } else {
                *a_bits(at) |= 1 << (at & 7);
                world.paint(at, 1, 0xff);
            }
        }
    }
}

/// What the A bits say.
pub fn is_allocated(addr: u64) -> bool {
    *a_bits(addr) >> (addr & 7) & 1 == 0
}

/// What a run leaves: V bits of registers, of memory, and the reports made.
#[derive(Clone, PartialEq, Eq)]
pub struct Left {
    registers: Vec<(String, Vec<u64>)>,
    memory: Vec<u8>,
    pub complaints: Vec<(u64, ComplaintKind)>,
}

impl Left {
    /// `sp` is the stack pointer: what lies below it does not count. (What a function without a frame leaves in its red zone is painted where
    /// the whole function is seen, and in front of a jump that may be one to another function.)
    pub fn take(world: &World, complaints: &[(u64, ComplaintKind)], forgotten: u64, sp: u64) -> Left {
        let shadow = shadow_regs();
        shadow.dirty &= !forgotten;
        let mut registers: Vec<_> = (0..16).map(|n| (format!("V of register {n}"), vec![shadow.gpr(n)])).collect();
        registers.extend((0..16).map(|n| (format!("V of vector {n}"), shadow.vec(n).0.to_vec())));
        registers.push(("mask of dirty registers".into(), vec![shadow.dirty & !(1 << FLAGS)]));
        let gone = STACK.start..sp.clamp(STACK.start, STACK.end());
        let memory = AREAS
            .iter()
            .flat_map(|a| a.start - PAGE / 2..a.end() + PAGE / 2)
            .map(|at| if gone.contains(&at) { 0 } else { world.v(at) })
            .collect();
        Left { registers, memory, complaints: complaints.to_vec() }
    }

    pub fn difference(&self, other: &Left) -> Option<String> {
        let registers = self.registers.iter().zip(&other.registers).filter(|(a, b)| a != b);
        let mut lines: Vec<String> = registers.map(|(a, b)| format!("{}: interpreted {:x?}, in place {:x?}", a.0, a.1, b.1)).collect();
        if let Some(at) = self.memory.iter().zip(&other.memory).position(|(a, b)| a != b) {
            let addr = AREAS.iter().flat_map(|a| a.start - PAGE / 2..a.end() + PAGE / 2).nth(at).unwrap_or(0);
            lines.push(format!("V of memory at {addr:#x}: interpreted {:#x}, in place {:#x}", self.memory[at], other.memory[at]));
        }
        if self.complaints != other.complaints {
            let at = self.complaints.iter().zip(&other.complaints).position(|(a, b)| a != b).unwrap_or(0);
            lines.push(format!("reports: interpreted {:x?}, in place {:x?}", self.complaints.get(at), other.complaints.get(at)));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Apply one rule to the shadow, with the gate's state as the machine.
pub fn apply(plan: &Plan, gate: &mut Gate, world: &mut World, fs: u64, gs: u64) -> Found {
    let shadow = shadow_regs();
    shadow.lazy = 0;
    let mut concrete = Concrete { gate, world, bases: [fs, gs], found: Found::default() };
    memcheck_semantics::run(plan, shadow, &mut concrete);
    concrete.found
}

/// What a rule reports, and the bytes that it touched though they do not belong to the program.
#[derive(Default)]
pub struct Found {
    pub complaints: Vec<ComplaintKind>,
    pub invalid: Vec<u64>,
}

struct Concrete<'a> {
    gate: &'a mut Gate,
    world: &'a mut World,
    bases: [u64; 2],
    found: Found,
}

impl Concrete<'_> {
    fn area(&self) -> Vec<u8> {
        let components = self.gate.components();
        vectors::normal(&self.gate.state_ref().xsave, components)
    }

    fn note_invalid(&mut self, addr: u64) {
        if self.world.has_shadow(addr, 1) && !is_allocated(addr) {
            self.found.invalid.push(addr);
        }
    }

    fn addressable(&self, addr: u64) -> bool {
        let sp = self.gate.state_ref().gpr[4];
        let below = STACK.contains(addr) && addr < sp.wrapping_sub(RED_ZONE) && STACK.contains(sp) && self.world.v(addr) == 0xff;
        self.world.has_shadow(addr, 1) && is_allocated(addr) && !below
    }
}

/// Does the byte lie in a slot that a return address or a signal's frame has marked?
pub fn is_mark(world: &World, addr: u64) -> bool {
    let slot = addr & !7;
    if !world.has_shadow(slot, 8) {
        return false;
    }
    let word = u64::from(u32::from_le_bytes(std::array::from_fn(|i| world.v(slot + i as u64))));
    word == RETURN_MARK || word == SIGNAL_MARK
}

impl Machine for Concrete<'_> {
    fn gpr(&self, index: usize) -> u64 {
        self.gate.state_ref().gpr[index & 15]
    }

    fn rflags(&self) -> u64 {
        self.gate.state_ref().rflags
    }

    fn vec(&self, index: usize) -> Wide {
        vectors::register(&self.area(), self.gate.components(), index)
    }

    fn kmask(&self, index: usize) -> u64 {
        vectors::mask(&self.area(), self.gate.components(), index)
    }

    fn mm(&self, index: usize) -> u64 {
        vectors::physical(&self.area(), index)
    }

    fn x87_top(&self) -> u8 {
        vectors::top(&self.area())
    }

    fn segment_base(&self, segment: Segment) -> u64 {
        self.bases[usize::from(segment == Segment::Gs)]
    }

    fn xstate_offset(&self, component: u32) -> u32 {
        std::arch::x86_64::__cpuid_count(0xd, component).ebx
    }

    fn xcr0(&self) -> u64 {
        self.gate.components()
    }

    fn load(&mut self, addr: u64, out: &mut [u8]) -> bool {
        let mapped = AREAS.iter().any(|a| addr >= a.start && addr.saturating_add(out.len() as u64) <= a.end());
        if mapped {
            // SAFETY: inside an area of the program's memory, which does not run now.
            unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, out.as_mut_ptr(), out.len()) };
        }
        mapped
    }

    fn load_v(&mut self, addr: u64, out: &mut [u8]) {
        // Half a mark that was written over may be read either way: code in place does not look for marks where no bit is defined.
        let blank = out.len() <= 16 && (addr..addr + out.len() as u64).all(|at| self.world.has_shadow(at, 1) && self.world.v(at) == 0xff);
        for (i, v) in out.iter_mut().enumerate() {
            let at = addr.wrapping_add(i as u64);
            self.note_invalid(at);
            let is_defined = !blank && is_mark(self.world, at) || !self.addressable(at);
            *v = if is_defined { 0 } else { self.world.v(at) };
        }
    }

    fn store_v(&mut self, addr: u64, v: &[u8], _: u32) {
        let sp = self.gate.state_ref().gpr[4];
        let pushed = addr < sp && addr + 16 >= sp;
        for (i, &v) in v.iter().enumerate() {
            let at = addr.wrapping_add(i as u64);
            self.note_invalid(at);
            if self.world.has_shadow(at, 1) && (pushed || self.addressable(at)) {
                self.world.paint(at, 1, v);
            }
        }
    }

    fn load_origin(&mut self, _: u64, _: usize) -> u32 {
        7
    }

    fn complain(&mut self, complaint: Complaint, _: &ShadowRegs) -> u64 {
        self.found.complaints.push(complaint.kind);
        u64::MAX
    }
}
