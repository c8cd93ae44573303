//! One translated run: stands in for the runtime.
//!
//! It answers every stub as `memcheck_runtime` would, and checks on the way what the translator promises to it (what the slots hold, that a
//! check means what its instruction does, that state is exact where code says so).

use super::{Code, End, GENERAL_PROTECTION, Kind, Machine, NOT_CANONICAL, Outcome, Placed, Plans, Position, View, Way, kind_of, plan_mask};
use crate::gate::{CACHE, CACHE_SIZE, COLD, Reason};
use crate::interpreter::{self, Real, Rules};
use crate::positions;
use crate::random::Random;
use crate::world::{CODE, STACK};
use iced_x86::{Instruction, MemorySize, Mnemonic, Register};
use memcheck_abi::layout::{A_BASE, PROGRAM_END, RED_ZONE};
use memcheck_translate::copies::SLOT_TARGET;
use memcheck_translate::loops::Entry;
use memcheck_translate::spread::goes_elsewhere;
use memcheck_translate::{
    DEAD_OVER_CALL, DEAD_OVER_RETURN, LEAVE_CALL, LEAVE_RETURN, LOAD, Place, Region, SPREAD, STATE_AREA, STORE, helper, slot,
};

/// One translated run.
pub struct Run<'a> {
    pub m: &'a mut Machine,
    pub code: &'a Code,
    pub way: &'a Way,
    pub random: Random,
    pub rounds: u32,
}

/// What to do next: run at a host address, or stop.
enum Next {
    At(u64),
    Stop(End),
}

impl Run<'_> {
    pub fn go(mut self) -> Result<Outcome, String> {
        let mut next = self.continue_at(self.code.entry, self.way.kind == Kind::Dirty)?;
        loop {
            let host = match next {
                Next::At(host) => host,
                Next::Stop(end) => return Ok(self.m.outcome(end)),
            };
            self.rounds += 1;
            if self.rounds > 200_000 {
                return Ok(self.m.outcome(End::Hang));
            }
            let reason = self.m.gate.run(host);
            next = self.answer(reason)?;
        }
    }

    fn answer(&mut self, reason: Reason) -> Result<Next, String> {
        match reason {
            Reason::Dispatch => {
                let target = self.m.gate.context().target;
                self.continue_at(target, false)
            }
            Reason::Link => self.link(),
            Reason::Check => self.check(),
            Reason::Helper => self.helper(),
            Reason::Release => Ok(self.release()),
            Reason::StackMoved => Ok(Next::At(self.scratch(slot::CONTINUE))),
            Reason::DirtyBranch => {
                let target = self.m.gate.context().target;
                // By the ABI these carry nothing; the random programs may think otherwise, but all runs alike.
                let way = self.scratch(slot::ARGUMENT) as u32 & 0xff;
                let dead = match way {
                    LEAVE_CALL => DEAD_OVER_CALL,
                    LEAVE_RETURN => DEAD_OVER_RETURN,
                    _ => 0,
                };
                interpreter::shadow_regs().dirty &= !dead;
                let dirty = match self.way.kind {
                    Kind::Clean => return Err("clean code came to the dirty branch".into()),
                    Kind::Dirty => true,
                    Kind::Mixed => self.random.one_in(2),
                    Kind::Whole => interpreter::shadow_regs().dirty != 0,
                };
                if dirty
                    && self.way.rules == Rules::Inline
                    && let Some(code) = self.find_loop(target, way == LEAVE_CALL)?
                {
                    return Ok(Next::At(code));
                }
                self.continue_at(target, dirty)
            }
            Reason::Copies => Ok(self.begin_copies()),
            Reason::Fault => self.fault(),
            Reason::End | Reason::Syscall | Reason::Replace => Err(format!("unexpected way out: {reason:?}")),
        }
    }

    fn scratch(&mut self, k: i32) -> u64 {
        self.m.gate.context().scratch[k as usize]
    }

    /// Go on at a program address, which may be the program's end, or nowhere.
    fn continue_at(&mut self, pc: u64, dirty: bool) -> Result<Next, String> {
        if pc == self.code.end() {
            return Ok(Next::Stop(End::Finished));
        }
        Ok(match self.body(pc, dirty)? {
            Some(host) => Next::At(host),
            // The processor would have stayed at the branch, the runtime reports the jump and is at its target.
            None if (NOT_CANONICAL..NOT_CANONICAL.wrapping_neg()).contains(&pc) => Next::Stop(End::Outside),
            None => Next::Stop(End::Fault { signal: libc::SIGSEGV, pc }),
        })
    }

    /// The code of the loop at `pc`, if it is one.
    fn find_loop(&mut self, pc: u64, called: bool) -> Result<Option<u64>, String> {
        // They are made anew each time: half of the cache is theirs.
        let full = self.m.next.cold > COLD + CACHE_SIZE / 2;
        if pc == self.code.end() || !CODE.contains(pc) || full || self.random.one_in(4) {
            return Ok(None);
        }
        let Some(region) = self.body(pc, true)? else { return Ok(None) };
        let m = &mut *self.m;
        let sp = m.gate.state().gpr[4];
        let returns_to = (called && STACK.contains(sp) && STACK.contains(sp + 7)).then(|| m.world.stack_word(sp));
        let entry = Entry { pc, returns_to, dirty: interpreter::shadow_regs().dirty, region };
        let at = m.next.cold.next_multiple_of(64);
        let view =
            View { world: &m.world, code: self.code, known: &m.clean, writable: self.way.writable, constants: self.way.seed % 2 == 1 };
        let mut rules = Real { planner: &mut m.planner, plans: &mut m.plans, inline: true };
        let Some((code, _)) = m.translator.translate_loop(&view, entry, at, &mut rules) else { return Ok(None) };
        m.probes.extend(m.translator.probes.drain(..).map(|probe| (probe.host, probe.resume)));
        m.gate.write_cache(at, &code);
        m.next.cold = at + code.len() as u64;
        m.loops += 1;
        Ok(Some(at))
    }

    /// Where the runtime goes on when a clean check has met undefined bytes: in dirty code, or in a run of copies.
    fn enter_dirty(&mut self, pc: u64) -> Result<Next, String> {
        interpreter::shadow_regs().dirty = 0;
        let Some(region) = self.body(pc, true)? else { return self.continue_at(pc, true) };
        let m = &mut *self.m;
        let known = m.copies.get(&pc).copied();
        let run = match known {
            Some(run) => run,
            None => {
                let at = Place { hot: m.next.hot.next_multiple_of(16), cold: m.next.cold };
                let view = View { world: &m.world, code: self.code, known: &m.clean, writable: self.way.writable, constants: false };
                let mut rules = Real { planner: &mut m.planner, plans: &mut m.plans, inline: true };
                let made = m.translator.translate_copies(&view, pc, at, &mut rules, region);
                made.map(|made| self.put(pc, at, false, made)).transpose()?
            }
        };
        self.m.copies.insert(pc, run);
        self.m.runs[0] += u64::from(run.is_some());
        Ok(Next::At(run.unwrap_or(region)))
    }

    /// May all of it be touched? Says no too often, as the runtime.
    fn begin_copies(&mut self) -> Next {
        let (from, to, on) = (self.scratch(slot::ADDRESS), self.scratch(SLOT_TARGET), self.scratch(slot::CONTINUE));
        let data = self.scratch(slot::ARGUMENT);
        let (region, ranges) = self.m.gate.copies_data(data);
        let plain = |at: u64, len: u32| (at..at + u64::from(len)).all(|at| self.is_plain(at));
        let all = ranges.iter().all(|&(at, len)| {
            let at = i64::from(at) as u64;
            plain(from.wrapping_add(at), len) && plain(to.wrapping_add(at), len)
        });
        interpreter::shadow_regs().dirty = 0;
        if !all || self.random.one_in(12) {
            return Next::At(region);
        }
        self.m.runs[1] += 1;
        Next::At(on)
    }

    fn is_plain(&self, at: u64) -> bool {
        let sp = self.m.gate.state_ref().gpr[4];
        let below = STACK.contains(at) && at < sp.wrapping_sub(RED_ZONE);
        self.m.world.has_shadow(at, 1) && interpreter::is_allocated(at) && !below && !interpreter::is_mark(&self.m.world, at)
    }

    /// The body of a translation, made now if there is none.
    fn body(&mut self, pc: u64, dirty: bool) -> Result<Option<u64>, String> {
        let m = &mut *self.m;
        if let Some(&body) = if dirty { &m.dirty } else { &m.clean }.get(&pc) {
            return Ok(Some(body));
        }
        let at = Place { hot: m.next.hot.next_multiple_of(16) + self.random.below(4) * 16, cold: m.next.cold + self.random.below(8) };
        let view =
            View { world: &m.world, code: self.code, known: &m.clean, writable: self.way.writable, constants: self.way.seed % 2 == 1 };
        let made = if dirty && self.way.rules != Rules::Marks {
            let inline = self.way.rules == Rules::Inline;
            m.translator.translate_dirty(&view, pc, at, &mut Real { planner: &mut m.planner, plans: &mut m.plans, inline })
        } else if dirty {
            m.translator.translate_dirty(&view, pc, at, &mut Plans(self.way.seed))
        } else {
            m.translator.translate(&view, pc, at)
        };
        let Some(region) = made else { return Ok(None) };
        let entry = at.hot;
        let body = self.put(pc, at, dirty, region)?;
        if dirty {
            self.m.dirty.insert(pc, body);
        } else {
            if CODE.contains(pc) {
                self.m.gate.set_table(pc, entry);
            }
            self.m.clean.insert(pc, body);
        }
        Ok(Some(body))
    }

    /// Put it into the cache; its body.
    fn put(&mut self, pc: u64, at: Place, dirty: bool, region: Region) -> Result<u64, String> {
        let m = &mut *self.m;
        if m.inspect {
            positions::inspect(&region, at, self.code, pc, self.way.writable).map_err(|e| format!("region of {pc:#x}: {e}"))?;
        }
        m.probes.extend(m.translator.probes.drain(..).map(|probe| (probe.host, probe.resume)));
        m.gate.write_cache(at.hot, &region.code);
        m.gate.write_cache(at.cold, &region.cold);
        m.next = Place { hot: at.hot + region.code.len() as u64, cold: at.cold + region.cold.len() as u64 };
        if m.next.hot > CACHE + CACHE_SIZE - 0x8000 || m.next.cold > COLD + CACHE_SIZE - 0x8000 {
            return Err("the cache is full".into());
        }
        let body = at.hot + u64::from(region.body);
        m.placed.push(Placed { at: at.hot, cold: at.cold, pc, dirty, region });
        Ok(body)
    }

    fn link(&mut self) -> Result<Next, String> {
        let (target, patch) = self.m.gate.link_data();
        let placed = self.m.region_of(patch).ok_or("a link stub that patches no region")?;
        let offset = (patch - placed.at) as u32;
        if !placed.region.exits.iter().any(|e| e.patch == offset && e.target == target) {
            return Err(format!("link data {target:#x}, {patch:#x} are no exit of their region"));
        }
        let next = self.continue_at(target, false)?;
        if let Next::At(body) = next
            && self.way.link
        {
            let rel = body.wrapping_sub(patch + 4) as u32;
            self.m.gate.write_cache(patch, &rel.to_le_bytes());
        }
        Ok(next)
    }

    /// The position of a continue address, with the spilled register brought home.
    fn restored(&mut self, host: u64) -> Result<Position, String> {
        let p = self.m.position(host).ok_or_else(|| format!("host address {host:#x} is in no region ({:x?})", self.m.gate.fault()))?;
        if let Some((register, k)) = p.spilled {
            self.m.gate.state().gpr[register] = self.m.gate.context().scratch[k];
        }
        Ok(p)
    }

    /// Does the access of `insn` go as far as `limit`? (Whose operand cannot be told is taken to.)
    fn reaches(&mut self, insn: &Instruction, limit: u64) -> bool {
        self.m.operand_address(insn).is_none_or(|at| at.saturating_add(insn.memory_size().size() as u64) > limit)
    }

    fn check(&mut self) -> Result<Next, String> {
        let (addr, host, descriptor) = (self.scratch(slot::ADDRESS), self.scratch(slot::CONTINUE), self.scratch(slot::ARGUMENT));
        let (size, kind) = (descriptor as u32 & 0xffff, descriptor as u32 >> 16);
        let saved = self.m.gate.state().gpr;
        let p = self.restored(host)?;
        if size == SPREAD || size == STATE_AREA {
            // Their rule is for the runtime; what it would check cannot be told from the operand.
            let pc = self.m.gate.context().regs.rip;
            let insn = self.m.decode(self.code, pc);
            if size == SPREAD && !insn.is_vsib() && !goes_elsewhere(&insn) {
                return Err(format!("an instruction that stays with its operand: {insn}"));
            }
            if self.way.kind == Kind::Whole {
                return self.enter_dirty(pc);
            }
            self.m.gate.state().gpr = saved;
            return Ok(Next::At(host));
        }
        self.check_is_right(&p, addr, size, kind).map_err(|e| format!("check at {:#x}: {e}", p.pc))?;
        if self.way.kind == Kind::Mixed && kind != STORE && self.m.world.any_v(addr, u64::from(size)) && self.random.percent(60) {
            return self.continue_at(p.pc, true);
        }
        if self.way.kind == Kind::Whole && kind != STORE && self.m.world.any_v(addr, u64::from(size)) {
            return self.enter_dirty(p.pc);
        }
        self.m.gate.state().gpr = saved;
        if kind == STORE && self.m.world.has_shadow(addr, u64::from(size)) {
            // As the runtime, which leaves the others as they are.
            let rules = self.way.rules != Rules::Marks;
            for at in addr..addr + u64::from(size) {
                if !rules || interpreter::is_allocated(at) {
                    self.m.world.paint(at, 1, 0);
                } else {
                    self.m.invalid.insert((at, p.pc));
                }
            }
        }
        Ok(Next::At(host))
    }

    /// Does the check say what its instruction does?
    fn check_is_right(&mut self, p: &Position, addr: u64, size: u32, kind: u32) -> Result<(), String> {
        let insn = self.m.decode(self.code, p.pc);
        let whole = size > 64;
        if !whole && self.m.world.has_shadow(addr, u64::from(size)) && !self.m.world.any_v(addr, u64::from(size)) {
            return Err(format!("{size} bytes at {addr:#x} are all defined"));
        }
        let stack = matches!(insn.mnemonic(), Mnemonic::Pop | Mnemonic::Popf | Mnemonic::Popfq);
        let (want, want_size, want_kind) = if stack && kind == LOAD {
            (self.m.gate.state().gpr[4], self.popped(&insn, size), LOAD)
        } else {
            let mut at = self.m.operand_address(&insn).ok_or("the instruction has no memory operand")?;
            if stack && insn.memory_base() == Register::RSP {
                at = at.wrapping_add(insn.stack_pointer_increment() as u64);
            }
            (at, insn.memory_size().size() as u32, kind_of(&insn))
        };
        if (addr, size, kind) != (want, want_size, want_kind) && !(kind == LOAD && want_kind == LOAD && self.is_run(&insn, addr, size)) {
            return Err(format!(
                "address {addr:#x} size {size} kind {kind}, but the instruction {insn} has {want:#x}, {want_size}, {want_kind}"
            ));
        }
        Ok(())
    }

    /// Are these bytes exactly what the instruction and those behind it load by the same registers? Such a run is checked at once.
    fn is_run(&mut self, insn: &Instruction, addr: u64, size: u32) -> bool {
        let mut loaded = vec![false; size as usize];
        let mut next = *insn;
        // A place relative to the instruction is a constant, by whichever width it is reckoned.
        let base = |insn: &Instruction| Some(insn.memory_base()).filter(|_| !insn.is_ip_rel_memory_operand()).unwrap_or(Register::None);
        for _ in 0..=12 {
            let same = base(&next) == base(insn) && next.memory_index() == insn.memory_index();
            if let Some(at) = self.m.operand_address(&next).filter(|_| same && kind_of(&next) == LOAD) {
                let first = at.wrapping_sub(addr) as usize;
                let inside = loaded.get_mut(first..).and_then(|rest| rest.get_mut(..next.memory_size().size()));
                inside.into_iter().flatten().for_each(|byte| *byte = true);
            }
            if next.next_ip() >= self.code.end() {
                break;
            }
            next = self.m.decode(self.code, next.next_ip());
        }
        size <= 64 && loaded.iter().all(|&byte| byte)
    }

    /// Bytes that a check in front of a pop may cover: a run of pops is checked at once.
    fn popped(&mut self, insn: &Instruction, size: u32) -> u32 {
        let (mut insn, mut sum) = (*insn, 0);
        while insn.mnemonic() == Mnemonic::Pop && sum < size && insn.next_ip() <= self.code.end() {
            sum += insn.stack_pointer_increment() as u32;
            insn = self.m.decode(self.code, insn.next_ip());
        }
        sum.max(if sum == 0 { insn.stack_pointer_increment() as u32 } else { 0 })
    }

    fn helper(&mut self) -> Result<Next, String> {
        let (argument, host) = (self.scratch(slot::ARGUMENT), self.scratch(slot::CONTINUE));
        let pc = self.m.gate.context().regs.rip;
        let insn = self.m.decode(self.code, pc);
        let p = self.m.position(host);
        match argument as u32 & 0xff {
            helper::STRING => {
                if !insn.is_string_instruction() {
                    return Err(format!("string helper for {insn} at {pc:#x}"));
                }
                if self.way.kind == Kind::Whole && self.m.region_of(host).is_some_and(|placed| !placed.dirty) {
                    return self.enter_dirty(pc);
                }
            }
            helper::STEP => self.step(pc, &insn)?,
            helper::EMULATE => self.emulate(&insn)?,
            helper::CODE_CHECK if self.way.writable => {}
            other => return Err(format!("unexpected helper {other} at {pc:#x}")),
        }
        // An emulated instruction is done when its helper returns.
        let here = if argument as u32 & 0xff == helper::EMULATE { insn.next_ip() } else { pc };
        if p.is_none_or(|p| p.pc != here) && argument as u32 & 0xff != helper::CODE_CHECK {
            return Err(format!("helper {argument:#x} for {pc:#x} goes on at {host:#x}, which is {p:x?}"));
        }
        Ok(Next::At(host))
    }

    fn step(&mut self, pc: u64, insn: &Instruction) -> Result<(), String> {
        if self.way.rules != Rules::Marks {
            let plan = self.scratch(slot::ADDRESS) as usize;
            let plan = *self.m.plans.get(plan).ok_or("no such plan")?;
            let ctx = self.m.gate.context();
            let (fs, gs) = (ctx.guest_fs, ctx.guest_gs);
            let found = interpreter::apply(&plan, &mut self.m.gate, &mut self.m.world, fs, gs);
            self.m.complaints.extend(found.complaints.into_iter().map(|kind| (pc, kind)));
            self.m.invalid.extend(found.invalid.into_iter().map(|addr| (addr, pc)));
            return Ok(());
        }
        let plan = self.scratch(slot::ADDRESS);
        if plan != pc {
            return Err(format!("plan {plan:#x} for the instruction at {pc:#x}"));
        }
        // Lanes with addresses of their own always go through their rule. Where flags live the filter looks at whole bytes of the mask.
        let wide = |mask: u64| u64::from_le_bytes(mask.to_le_bytes().map(|b| if b == 0 { 0 } else { 0xff }));
        let marked = wide(plan_mask(self.way.seed, pc)) & wide(self.way.dirty) != 0;
        let size_unknown = matches!(insn.memory_size(), MemorySize::Xsave | MemorySize::Xsave64);
        if marked || insn.is_string_instruction() || insn.is_vsib() || goes_elsewhere(insn) || size_unknown {
            return Ok(());
        }
        let stack = matches!(insn.mnemonic(), Mnemonic::Pop | Mnemonic::Popfq);
        let popped = stack.then(|| (self.m.gate.state().gpr[4], insn.stack_pointer_increment() as u64));
        // Loaded; or stored to, where a scratch register is needed.
        let operand = self.m.operand_address(insn).map(|at| (at, insn.memory_size().size() as u64));
        match [popped, operand].into_iter().flatten().any(|(at, size)| size > 64 || self.m.world.any_v(at, size)) {
            true => Ok(()),
            false => Err(format!("step for {insn} at {pc:#x} without anything undefined")),
        }
    }

    fn emulate(&mut self, insn: &Instruction) -> Result<(), String> {
        let number = insn.op0_register().number();
        let mask = if insn.op0_register().is_gpr32() { u64::from(u32::MAX) } else { u64::MAX };
        match insn.mnemonic() {
            Mnemonic::Rdfsbase => self.m.gate.state().gpr[number] = self.m.gate.context().guest_fs & mask,
            Mnemonic::Rdgsbase => self.m.gate.state().gpr[number] = self.m.gate.context().guest_gs & mask,
            Mnemonic::Wrfsbase => self.m.gate.context().guest_fs = self.m.gate.state().gpr[number] & mask,
            Mnemonic::Wrgsbase => self.m.gate.context().guest_gs = self.m.gate.state().gpr[number] & mask,
            _ => return Err(format!("asked to emulate {insn}")),
        }
        Ok(())
    }

    fn release(&mut self) -> Next {
        let (old, argument) = (self.scratch(slot::ADDRESS), self.scratch(slot::ARGUMENT));
        let shift = if argument & 1 != 0 { 0 } else { RED_ZONE };
        let end = self.m.gate.state().gpr[4].wrapping_add(argument >> 8).wrapping_sub(shift);
        let from = old.wrapping_sub(shift);
        if end > from && self.m.world.has_shadow(from, end - from) {
            self.m.world.paint(from, end - from, 0xff);
        }
        Next::At(self.scratch(slot::CONTINUE))
    }

    fn fault(&mut self) -> Result<Next, String> {
        let fault = self.m.gate.fault();
        if fault.signal == libc::SIGALRM {
            return Ok(Next::Stop(End::Hang));
        }
        if let Some(&resume) = self.m.probes.get(&fault.rip) {
            return Ok(Next::At(resume));
        }
        // The runtime has A bits for all addresses, the test for its areas only.
        if (A_BASE..A_BASE + PROGRAM_END / 8).contains(&fault.addr) && self.m.position(fault.rip).is_none() {
            return Ok(Next::Stop(End::Outside));
        }
        if let Some(register) = self.m.looked_up(fault.rip) {
            // Its target is too high for the branch table. The branch itself is done, but for rcx.
            let (rcx, target) = (self.scratch(slot::RCX), self.m.gate.state().gpr[register]);
            self.m.gate.state().gpr[1] = rcx;
            return self.continue_at(target, false);
        }
        let p = self.restored(fault.rip)?;
        let insn = self.m.decode(self.code, p.pc);
        // A trap is reported behind its instruction; `int1` is not in some virtual machines.
        let trap = fault.signal == libc::SIGTRAP && p.offset != p.info.own;
        let pc = if trap { p.pc + u64::from(p.len) } else { p.pc };
        let wild = fault.signal == libc::SIGSEGV && !self.m.world.has_shadow(fault.addr, 1);
        // Of what a mask leaves out only the check fails; the instruction itself decides.
        if wild && p.offset < p.info.own && !p.info.is_spilled(p.info.own) && memcheck_translate::has_masked_memory(&insn) {
            return Ok(Next::At(fault.rip + u64::from(p.info.own - p.offset)));
        }
        if !(trap || wild || p.offset == p.info.own) {
            return Err(format!(
                "{fault:x?} in the code of {insn} at {:#x}, offset {:#x}, but its own instruction is at {:#x}",
                p.pc, p.offset, p.info.own
            ));
        }
        let protection = fault.signal == libc::SIGSEGV && fault.code == GENERAL_PROTECTION;
        // An operand that is neither aligned nor possible has two faults, and instructions differ in which comes first.
        if protection && self.m.operand_address(&insn).is_some_and(|at| at % 16 != 0) && insn.memory_size().size() >= 16 {
            return Ok(Next::Stop(End::Outside));
        }
        // The check went through gs, the instruction itself would not have.
        let wrong_segment = protection && p.offset != p.info.own && self.reaches(&insn, NOT_CANONICAL);
        let signal = if wrong_segment && memcheck_translate::uses_stack_segment(&insn) { libc::SIGBUS } else { fault.signal };
        Ok(Next::Stop(End::Fault { signal, pc }))
    }
}
