//! Dirty mode: a thread whose registers carry undefined bits.
//!
//! ```text
//! clean check: V undefined ──► asm::check ──► enter ──► dirty code of the same instruction, or a run of copies (`copies`)
//! dirty code: filter hits ──► helper STEP ──► step: the instruction's rule on the shadow registers, reports
//! dirty region ends ──► asm::dirty_branch ──► all defined? clean code of the target : leave: dirty code of the target
//! ```
//! Dirty translations are found through `Dirty::regions`, never through the branch table, so clean code cannot reach them. The shadow
//! registers lie in the thread's slot behind the context; only bits of their `dirty` mask say which of them mean anything.
#![allow(unsafe_code, reason = "shadow registers and plans are reached by address; reads the processor's vector state")]

use crate::cache::is_dirty_code;
use crate::renewal::for_more;
use crate::{check, deadness, fault, followed, origin, program, replaced, statistics};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::event::{ErrorEvent, Kind};
use memcheck_abi::layout::{PROGRAM_END, RED_ZONE, RETURN_MARK};
use memcheck_kernel::space;
use memcheck_rt::{access, callstack, context, report, shadow};
use memcheck_semantics::{Complaint, ComplaintKind, Machine, Plan, Planner, Segment, ShadowRegs, Wide, lookahead, regs};
use memcheck_translate::loops::Entry;
use memcheck_translate::{KEPT_IN_LOOP, LEAVE_BACK, LEAVE_JUMP, LOOP_SLOTS_SIZE, Rule, SHADOW_REGS, VECTOR_SLOTS, slot};

/// Registers that may carry a value over a call, by the ABI: everything but r11 and the flags.
const CALL_KEEPS: u64 = !(1 << 11 | 1 << regs::FLAGS);
/// Over a return: rax, rdx, the callee-saved ones, x87, xmm0 and xmm1.
const RETURN_KEEPS: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 0xf << 12 | 1 << regs::X87 | 3 << regs::VEC0;
/// By `LEAVE_JUMP`..: what may carry a value over it.
pub static KEEPS: [u64; 3] = [u64::MAX, CALL_KEEPS, RETURN_KEEPS];
/// Into a replaced function: the callee-saved ones.
pub const REPLACED_KEEPS: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 0xf << 12;

/// The shadow registers of a thread.
pub fn shadow_regs(ctx: &ThreadContext) -> &'static mut ShadowRegs {
    // SAFETY: behind the context in the same slot, zeroed at birth; used by its own thread only.
    unsafe { &mut *((ctx.self_ptr as i64 + i64::from(SHADOW_REGS)) as *mut ShadowRegs) }
}

const _: () = assert!(size_of::<ThreadContext>() as i32 <= SHADOW_REGS, "the shadow registers lie behind the context");
const _: () = {
    use core::mem::offset_of;
    use memcheck_translate::shadow_layout as layout;
    assert!(offset_of!(ShadowRegs, dirty) == 0 && offset_of!(ShadowRegs, lazy) == layout::LAZY as usize);
    assert!(offset_of!(ShadowRegs, gpr) == layout::GPR as usize && offset_of!(ShadowRegs, origin) == layout::ORIGIN as usize);
    assert!(offset_of!(ShadowRegs, vec) == layout::VEC as usize && offset_of!(ShadowRegs, place) == layout::PLACE as usize);
    assert!(regs::VEC0 == layout::VEC0 as usize && offset_of!(ShadowRegs, patience) == layout::PATIENCE as usize);
    assert!(offset_of!(ShadowRegs, flags) == layout::FLAGS as usize);
};
const _: () = assert!(SHADOW_REGS as usize + size_of::<ShadowRegs>() <= VECTOR_SLOTS as usize, "the room for vectors behind them");
const _: () = assert!(KEPT_IN_LOOP as usize + LOOP_SLOTS_SIZE <= 0x8000, "and in front of the fault record");

/// Makes plans for the translator, into storage that lives as long as the code.
pub struct Plans {
    planner: Planner,
    storage: Vec<Chunk>,
    used: usize,
    /// Where the cold part of the code begins that they are made for.
    cold: u64,
}

struct Chunk {
    plans: Box<[MaybeUninit<Plan>]>,
    /// The first and the last beginning of cold code whose plans are here.
    first: u64,
    last: u64,
}

const CHUNK: usize = 1024;

impl Plans {
    pub const fn empty() -> Option<Plans> {
        None
    }

    pub fn new() -> Plans {
        Plans { planner: Planner::new(), storage: Vec::new(), used: CHUNK, cold: 0 }
    }

    /// From now on for code whose cold part begins there: never before that of earlier code.
    pub fn at(&mut self, cold: u64) {
        self.cold = cold;
    }

    /// Keep only those of code whose cold part begins at one of these addresses.
    pub fn renew(&mut self, kept: &[u64]) {
        self.storage.retain(|chunk| kept.iter().any(|at| (chunk.first..=chunk.last).contains(at)));
        self.used = CHUNK;
    }
}

impl Default for Plans {
    fn default() -> Self {
        Self::new()
    }
}

impl memcheck_translate::Shadow for Plans {
    fn rule(&mut self, insn: &Instruction) -> Rule {
        let plan = self.planner.plan(insn);
        // `writes` names registers that are written whole; flags may be written in part.
        let flags = 1 << regs::FLAGS;
        let (some, all) = (plan.flags_written != 0, plan.flags_written == regs::ARITH);
        let mut rule = Rule {
            mask: plan.reads | plan.writes | plan.address | if some { flags } else { 0 },
            reads: plan.reads | plan.address | if some && !all { flags } else { 0 },
            address: plan.address,
            writes: plan.writes | if all { flags } else { 0 },
            quick: plan.defines_by_itself(),
            loads: plan.mem.is_some_and(|m| m.read),
            inline: !access::STACK_MARKS.load(Ordering::Relaxed),
            plan: 0,
        };
        if self.used == CHUNK {
            self.storage.push(Chunk { plans: Box::new_uninit_slice(CHUNK), first: self.cold, last: self.cold });
            self.used = 0;
        }
        let Some(chunk) = self.storage.last_mut() else { return rule };
        chunk.last = self.cold;
        let place = chunk.plans[self.used].write(plan);
        self.used += 1;
        rule.plan = core::ptr::from_mut(place) as u64;
        rule
    }

    fn dead_at(&mut self, pc: u64) -> Option<(u64, u64)> {
        Some(dead_at(pc, pc))
    }
}

/// Lookups that need no lock (`asm::check` makes the same one in `ENTRIES`, `leave::leave_known` in `TARGETS`): key -> [`Found`].
/// Direct-mapped; a writer takes the key out first.
#[repr(C)]
pub struct Known {
    keys: [AtomicU64; KNOWN],
    bodies: [AtomicU64; KNOWN],
    dead: [AtomicU64; KNOWN],
    stale: [AtomicU64; KNOWN],
}

/// A dirty translation: host address, registers dead there, vector registers that only an argument or result would keep alive.
pub type Found = (u64, u64, u64);

pub const KNOWN: usize = 1 << 13;

impl Known {
    pub(crate) const fn new() -> Known {
        Known {
            keys: [const { AtomicU64::new(0) }; KNOWN],
            bodies: [const { AtomicU64::new(0) }; KNOWN],
            dead: [const { AtomicU64::new(0) }; KNOWN],
            stale: [const { AtomicU64::new(0) }; KNOWN],
        }
    }

    fn slot(key: u64) -> usize {
        (key ^ key >> 12) as usize % KNOWN
    }

    pub fn get(&self, key: u64) -> Option<Found> {
        let i = Self::slot(key);
        if self.keys[i].load(Ordering::Acquire) != key {
            return None;
        }
        let found = (self.bodies[i].load(Ordering::Acquire), self.dead[i].load(Ordering::Acquire), self.stale[i].load(Ordering::Acquire));
        (self.keys[i].load(Ordering::Acquire) == key).then_some(found)
    }

    pub fn put(&self, key: u64, (body, dead, stale): Found) {
        let i = Self::slot(key);
        self.keys[i].store(0, Ordering::Release);
        self.bodies[i].store(body, Ordering::Release);
        self.dead[i].store(dead, Ordering::Release);
        self.stale[i].store(stale, Ordering::Release);
        self.keys[i].store(key, Ordering::Release);
    }

    pub fn clear(&self) {
        for key in &self.keys {
            key.store(0, Ordering::Release);
        }
    }
}

/// By program address, for `leave`; by host address of the check, for `enter`.
pub static TARGETS: Known = Known::new();
pub static ENTRIES: Known = Known::new();

/// Dirty translations were dropped.
pub fn forget() {
    TARGETS.clear();
    ENTRIES.clear();
    followed::JUDGED.clear();
}

/// Registers that are surely dead at `pc`, whose code up to `end` is compared when it is run.
pub fn dead_at(pc: u64, end: u64) -> (u64, u64) {
    deadness::dead_at(&Lasting(pc..end), &mut InstructionInfoFactory::new(), pc)
}

/// Dirty vector registers that do not look like an undefined number (4 or 8 bytes undefined, nothing else): what copies of structures
/// leave behind. As arguments and results such values are not passed on purpose.
fn stale(regs: &ShadowRegs) -> u64 {
    let mut found = 0;
    let mut left = regs.dirty & deadness::VECTORS;
    while left != 0 {
        let bit = left.trailing_zeros() as usize;
        let v = regs.vec[bit - regs::VEC0].0;
        let number = matches!(v[0], 0xffff_ffff | u64::MAX) && v[1..].iter().all(|&w| w == 0);
        found |= u64::from(!number) << bit;
        left &= left - 1;
    }
    found
}

/// Look up the origins of those of `registers` that moved without them.
pub fn settle(ctx: &ThreadContext, regs: &mut ShadowRegs, registers: u64) {
    let mut left = regs.unsettled(registers);
    while left != 0 {
        let bit = left.trailing_zeros() as usize;
        left &= left - 1;
        // The first bytes that were loaded may be defined ones.
        let loaded = if bit < regs::VEC0 { 8 } else { 16 };
        regs.settle(bit, origin::of_range(ctx, regs.place_of(bit), loaded));
    }
}

/// A clean check met undefined bytes: go on at the same instruction in dirty code. Returns its host address.
pub extern "C" fn enter() -> u64 {
    let ctx = context::current();
    let host = ctx.scratch[slot::CONTINUE as usize];
    shadow_regs(ctx).dirty = 0;
    statistics::count(ctx, statistics::ENTERED);
    if let Some((body, ..)) = ENTRIES.get(host) {
        return body;
    }
    let mut cache = for_more();
    let Some(p) = cache.position(host) else { report::internal("a check outside any region") };
    if let Some((reg, slot)) = p.spilled {
        ctx.regs.gpr[reg as usize] = ctx.scratch[slot];
    }
    let Some(found) = cache.find_dirty(p.pc) else { return host };
    if p.spilled.is_none()
        && let Some(code) = cache.find_loop(Entry { pc: p.pc, returns_to: returns_to(ctx), dirty: 0, region: found.0 })
    {
        // Where it is no loop it may be a copy.
        let copy = if code == found.0 { cache.find_copies(p.pc, code) } else { None };
        if let Some(copy) = copy {
            cache.lead_check(host, copy);
        }
        ENTRIES.put(host, (copy.unwrap_or(code), found.1, found.2));
    }
    found.0
}

/// Where a function returns to that has not touched the stack yet.
fn returns_to(ctx: &ThreadContext) -> Option<u64> {
    let sp = ctx.regs.gpr[RSP];
    let mut slot = [0; 8];
    shadow::read_v(sp, &mut slot);
    // SAFETY: the slot of a call in progress is on the program's stack.
    (u64::from_le_bytes(slot) == RETURN_MARK).then(|| unsafe { *(sp as *const u64) })
}

/// End of a dirty region with dirty registers: host address to go on at, for ctx.target.
pub extern "C" fn leave() -> u64 {
    let ctx = context::current();
    let target = ctx.target;
    let regs = shadow_regs(ctx);
    replaced::leave_dirty(ctx, regs);
    let argument = ctx.scratch[slot::ARGUMENT as usize] as u32;
    let written = u64::from(argument >> 8 & 0xffff) << regs::VEC0;
    if argument & 0xff != LEAVE_JUMP {
        regs.dirty &= KEEPS[argument as usize & 3] & !(stale(regs) & !written);
    }
    let known = TARGETS.get(target);
    if known.is_none()
        && let Some((func, resolver)) = program::redirect(target)
    {
        // The replacement checks memory itself and returns through `asm::replace`, which looks at the mask again.
        replaced::enter_dirty(ctx, regs, if resolver { 0 } else { func }, target);
        return crate::dispatch::body_of(target);
    }
    if regs.dirty == 0 {
        return crate::dispatch::body_of(target);
    }
    let Some((body, dead, unless)) = known.or_else(|| find_target(target)) else { fault::bad_jump(target) };
    regs.dirty &= !dead;
    if regs.dirty & unless != 0 {
        regs.dirty &= !(unless & stale(regs));
    }
    if regs.dirty == 0 { crate::dispatch::body_of(target) } else { body }
}

/// The dirty translation of `target`; the next time it is known. (All with the cache locked: what is known must not outlive it.)
fn find_target(target: u64) -> Option<Found> {
    let mut cache = for_more();
    let found = cache.find_dirty(target)?;
    TARGETS.put(target, found);
    Some(found)
}

/// The same at an end that can be linked: if it goes on in dirty code, the cell at slot 2 says so from now on.
pub extern "C" fn leave_and_link() -> u64 {
    let ctx = context::current();
    let (cell, target) = (ctx.scratch[slot::ADDRESS as usize], ctx.target);
    let host = match shadow_regs(ctx).dirty {
        // A loop that was patient.
        0 if program::redirect(target).is_none() => find_target(target).map_or_else(|| leave(), |found| found.0),
        _ => leave(),
    };
    if is_dirty_code(host) {
        let back = ctx.scratch[slot::ARGUMENT as usize] as u32 & LEAVE_BACK != 0;
        let dirty = shadow_regs(ctx).dirty;
        for_more().link_dirty(cell, target, host, back.then_some(dirty));
    }
    host
}

/// Helper STEP: apply the rule of the plan at slot 2.
pub fn step(ctx: &mut ThreadContext) {
    // SAFETY: the translator put the address of a complete plan there.
    let plan = unsafe { &*(ctx.scratch[slot::ADDRESS as usize] as *const Plan) };
    let regs = shadow_regs(ctx);
    let concerned = if matches!(plan.rule, memcheck_semantics::Rule::State(_)) { u64::MAX } else { plan.reads | plan.address };
    settle(ctx, regs, concerned);
    let mut thread = Thread { ctx, reported: 0, silent: false };
    let outcome = memcheck_semantics::run(plan, regs, &mut thread);
    statistics::count(ctx, statistics::RULES);
    if !outcome.exact {
        statistics::count(ctx, statistics::WITHOUT_ROW);
    }
}

/// V bits of the general registers for system call arguments; None if all are defined.
pub fn register_v(ctx: &ThreadContext) -> Option<[u64; 16]> {
    let regs = shadow_regs(ctx);
    (regs.dirty & 0xffff != 0).then(|| core::array::from_fn(|i| regs.gpr(i)))
}

/// Fill in where the undefined bits of a general register came from.
pub fn register_origin(e: &mut ErrorEvent, ctx: &ThreadContext, n: usize) {
    origin::fill(e, shadow_regs(ctx).origin[n]);
}

/// A system call has been checked, or made: the registers that it changes are defined.
pub fn after_syscall(ctx: &ThreadContext) {
    shadow_regs(ctx).dirty &= !(1 | 1 << 1 | 1 << 11);
}

/// The thread as the rules see it.
struct Thread<'a> {
    ctx: &'a mut ThreadContext,
    /// Kinds of invalid accesses that the instruction was blamed for: each once.
    reported: u32,
    /// Looking ahead: nothing is reported.
    silent: bool,
}

impl Thread<'_> {
    fn sp(&self) -> u64 {
        self.ctx.regs.gpr[RSP]
    }

    fn invalid(&mut self, kind: Kind, addr: u64, size: usize) {
        let bit = 1 << kind as u32;
        if self.reported & bit == 0 && !self.silent {
            self.reported |= bit;
            let (pc, sp) = (self.ctx.regs.rip, self.sp());
            let invalid = |at, n| report::raise(kind, pc, sp, |e| (e.addr, e.has_addr, e.size) = (at, 1, n));
            if kind != Kind::InvalidWrite {
                return invalid(addr, size as u64);
            }
            let bad = |at, n| access::first_unaddressable(self.ctx, sp, at, n).is_some();
            check::bad_words(addr, size as u64, bad).for_each(|(at, n)| invalid(at, n));
        }
    }

    /// Can this be read without a fault? Decided by the map of mappings, not by trying.
    fn readable(&self, addr: u64, len: u64) -> bool {
        if memcheck_heap::in_use(addr, len) || addr >= self.sp().wrapping_sub(RED_ZONE) && addr.saturating_add(len) <= self.ctx.stack_high {
            return true;
        }
        addr < PROGRAM_END && space::mapping_of(addr).is_some_and(|(_, end, prot, _)| prot & 1 != 0 && addr + len <= end)
    }
}

impl Machine for Thread<'_> {
    fn gpr(&self, index: usize) -> u64 {
        self.ctx.regs.gpr[index & 15]
    }

    fn rflags(&self) -> u64 {
        self.ctx.regs.rflags
    }

    fn vec(&self, index: usize) -> Wide {
        crate::vectors::register(self.ctx, index)
    }

    fn kmask(&self, index: usize) -> u64 {
        crate::vectors::mask(index)
    }

    fn mm(&self, index: usize) -> u64 {
        crate::vectors::x87().significand(index)
    }

    fn x87_top(&self) -> u8 {
        crate::vectors::x87().top()
    }

    fn segment_base(&self, segment: Segment) -> u64 {
        match segment {
            Segment::Fs => self.ctx.guest_fs,
            Segment::Gs => self.ctx.guest_gs,
        }
    }

    fn xstate_offset(&self, component: u32) -> u32 {
        core::arch::x86_64::__cpuid_count(0xd, component).ebx
    }

    fn xcr0(&self) -> u64 {
        crate::vectors::xcr0()
    }

    fn load(&mut self, addr: u64, out: &mut [u8]) -> bool {
        if !self.readable(addr, out.len() as u64) {
            return false;
        }
        // SAFETY: mapped and readable, as just checked.
        unsafe { core::ptr::copy_nonoverlapping(addr as *const u8, out.as_mut_ptr(), out.len()) };
        true
    }

    fn load_v(&mut self, addr: u64, out: &mut [u8]) {
        shadow::read_v(addr, out);
        if out.iter().all(|&v| v == 0) {
            return;
        }
        let sp = self.sp();
        if access::is_plain(self.ctx, sp, addr, out.len() as u64) {
            return;
        }
        let excused = crate::check::excused(self.ctx, sp, self.ctx.regs.rip, addr, out.len() as u64);
        let mut bad = addr >= PROGRAM_END;
        for (i, v) in out.iter_mut().enumerate() {
            if *v != 0 && callstack::is_mark(addr + i as u64) {
                *v = 0;
            } else if *v != 0 && !access::addressable(self.ctx, sp, addr + i as u64) {
                bad = true;
                if !excused {
                    *v = 0;
                }
            }
        }
        if bad && !excused && addr < PROGRAM_END {
            self.invalid(Kind::InvalidRead, addr, out.len());
        }
    }

    fn store_v(&mut self, addr: u64, v: &[u8], origin: u32) {
        if self.silent || addr >= PROGRAM_END {
            return;
        }
        let sp = self.sp();
        if access::is_plain(self.ctx, sp, addr, v.len() as u64) || access::first_unaddressable(self.ctx, sp, addr, v.len() as u64).is_none()
        {
            shadow::write_v(addr, v);
        } else {
            // A push writes below the stack pointer by its nature.
            let pushed = addr < sp && addr + 16 >= sp;
            if !pushed {
                self.invalid(Kind::InvalidWrite, addr, v.len());
            }
            for (i, &v) in v.iter().enumerate() {
                if pushed || access::addressable(self.ctx, sp, addr + i as u64) {
                    shadow::set_v(addr + i as u64, v);
                }
            }
        }
        origin::store(self.ctx, addr, v, origin);
    }

    fn load_origin(&mut self, addr: u64, len: usize) -> u32 {
        origin::of_range(self.ctx, addr, len)
    }

    fn complain(&mut self, complaint: Complaint, regs: &ShadowRegs) -> u64 {
        if self.silent || crate::startup::UNDEF.load(Ordering::Relaxed) == 0 {
            return u64::MAX;
        }
        let (pc, sp) = (self.ctx.regs.rip, self.sp());
        let mut settled = 0;
        let (kind, size) = match complaint.kind {
            ComplaintKind::Branch if self.harmless(pc, regs) => return u64::MAX,
            ComplaintKind::Value { .. } if complaint.registers != 0 => {
                match followed::judge(&mut shadow_regs(self.ctx).asked, pc, complaint.registers) {
                    None => return 0,
                    Some(moved) => {
                        settled = moved;
                        (Kind::Value, 8)
                    }
                }
            }
            ComplaintKind::Branch | ComplaintKind::Cond => (Kind::Cond, 0),
            ComplaintKind::Value { size } => (Kind::Value, u64::from(size)),
            ComplaintKind::Target => (Kind::Value, 8),
        };
        report::raise(kind, pc, sp, |e| {
            e.size = size;
            origin::fill(e, complaint.origin);
        });
        settled
    }
}

/// The program's code for those who look ahead.
pub struct Ahead;

impl lookahead::Code for Ahead {
    fn instruction(&self, addr: u64) -> Option<Instruction> {
        instruction(addr, |_, _| true)
    }
}

/// The same for what is found out once and believed from then on: code that may change is left out, but for the piece that is compared
/// whenever it is run.
pub struct Lasting(pub Range<u64>);

impl lookahead::Code for Lasting {
    fn instruction(&self, addr: u64) -> Option<Instruction> {
        instruction(addr, |prot, kind| self.0.contains(&addr) || !program::may_be_written(prot, kind))
    }
}

/// The instruction at `addr` if its mapping, with these rights and of this kind, is wanted.
fn instruction(addr: u64, wanted: impl Fn(u32, u32) -> bool) -> Option<Instruction> {
    let (_, end, prot, kind) = space::mapping_of(addr)?;
    if prot & 5 != 5 || !wanted(prot, kind) {
        return None;
    }
    let len = (end - addr).min(15) as usize;
    // SAFETY: mapped and readable code.
    let code = unsafe { core::slice::from_raw_parts(addr as *const u8, len) };
    let insn = Decoder::with_ip(64, code, addr, DecoderOptions::NONE).decode();
    (!insn.is_invalid()).then_some(insn)
}

impl Thread<'_> {
    /// Do both ways of the undefined branch at `pc` come to the same place?
    fn harmless(&mut self, pc: u64, regs: &ShadowRegs) -> bool {
        let Some(branch) = lookahead::Code::instruction(&Ahead, pc) else { return false };
        if branch.near_branch_target() == 0 {
            return false;
        }
        let mut planner = Planner::new();
        self.silent = true;
        let same = lookahead::same_way(&Ahead, &mut planner, &branch, regs, self);
        self.silent = false;
        same
    }
}
