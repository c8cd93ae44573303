//! Running a plan: address, memory source, the quick way out, and the accessors that rules are written with.

use crate::bits::Bits;
use crate::machine::{Complaint, ComplaintKind, Machine, Outcome, Segment};
use crate::moves::Move;
use crate::plan::{Mem, NONE, Operand, Path, Plan};
use crate::regs::{FLAGS, MASK0, ShadowRegs};
use crate::table::{self, Rule};
use crate::wide::{Wide, lane_mask};

/// Applies one instruction to the shadow. Call it before the instruction itself runs.
#[inline]
pub fn run<M: Machine>(plan: &Plan, regs: &mut ShadowRegs, m: &mut M) -> Outcome {
    match plan.path {
        Path::Registers if regs.dirty & plan.reads == 0 => {
            regs.define(plan.writes, plan.flags_written);
            Outcome { exact: true, clean: regs.is_clean(), fault: false }
        }
        Path::Word => run_word(plan, regs, m),
        Path::Registers => {
            if let (Rule::Move(Move::Plain), Operand::Gpr { n: to, size: 8, .. }, Operand::Gpr { n: from, size: 8, .. }) =
                (plan.rule, plan.ops[0], plan.ops[1])
            {
                let from = usize::from(from);
                regs.set_gpr(usize::from(to), regs.gpr(from), regs.origin[from & 15]);
                return Outcome { exact: true, clean: false, fault: false };
            }
            run_general(plan, regs, m)
        }
        Path::General => run_general(plan, regs, m),
    }
}

impl<'a, M: Machine> Cx<'a, M> {
    fn new(plan: &'a Plan, regs: &'a mut ShadowRegs, m: &'a mut M) -> Self {
        Cx { plan, regs, m, addr: 0, origin: 0, mem_v: Wide::ZERO, mem_x: None, fault: false }
    }

    /// All inputs are defined, so all outputs are.
    fn finish_defined(&mut self) -> Outcome {
        self.regs.define(self.plan.writes, self.plan.flags_written);
        if let Some(mem) = self.plan.mem.filter(|mem| mem.write) {
            match mem.size {
                1 | 2 | 4 | 8 => self.m.store_v_word(self.addr, usize::from(mem.size), 0, 0),
                size => self.store_zeros(self.addr, usize::from(size)),
            }
        }
        Outcome { exact: true, clean: self.regs.is_clean(), fault: false }
    }

    fn finish(&mut self) -> Outcome {
        let exact = table::dispatch(self);
        Outcome { exact, clean: self.regs.is_clean(), fault: self.fault }
    }
}

/// The common case of a memory source: one word. A plain move of it ends here, too.
fn run_word<M: Machine>(plan: &Plan, regs: &mut ShadowRegs, m: &mut M) -> Outcome {
    let mut cx = Cx::new(plan, regs, m);
    let Some(mem) = &plan.mem else { return cx.finish() };
    cx.check_address(plan.address);
    cx.addr = cx.effective(mem);
    let v = cx.m.load_v_word(cx.addr, usize::from(mem.size));
    if v == 0 {
        if cx.regs.dirty & plan.reads == 0 {
            return cx.finish_defined();
        }
        cx.origin = cx.regs.origin_of(plan.reads);
        return cx.finish();
    }
    cx.origin = cx.m.load_origin(cx.addr, usize::from(mem.size));
    if let (Rule::Move(Move::Plain), Operand::Gpr { n, size: 4.., .. }) = (plan.rule, plan.ops[0]) {
        cx.regs.set_gpr(usize::from(n), v, cx.origin);
        return Outcome { exact: true, clean: false, fault: false };
    }
    cx.mem_v.0[0] = v;
    cx.finish()
}

fn run_general<M: Machine>(plan: &Plan, regs: &mut ShadowRegs, m: &mut M) -> Outcome {
    let mut cx = Cx::new(plan, regs, m);
    if let Some(mem) = &plan.mem {
        cx.check_address(plan.address);
        cx.check_guard();
        cx.addr = cx.effective(mem);
    }
    if plan.preload {
        cx.mem_v = cx.fetch(false);
    }
    let memory_clean = cx.mem_v.is_zero();
    if plan.quick && memory_clean && cx.regs.dirty & plan.reads == 0 {
        return cx.finish_defined();
    }
    cx.origin = match (memory_clean, &plan.mem) {
        (false, Some(mem)) => cx.m.load_origin(cx.addr, usize::from(mem.size)),
        _ => cx.regs.origin_of(plan.reads),
    };
    cx.finish()
}

/// One instruction being applied.
pub(crate) struct Cx<'a, M: Machine> {
    pub plan: &'a Plan,
    pub regs: &'a mut ShadowRegs,
    pub m: &'a mut M,
    /// Effective address of the memory operand.
    pub addr: u64,
    /// Origin tag that undefined outputs get.
    pub origin: u32,
    mem_v: Wide,
    mem_x: Option<Wide>,
    pub fault: bool,
}

/// Memory.
impl<M: Machine> Cx<'_, M> {
    /// Address registers must be defined; if not, complain. The stack pointer counts as defined then: everything goes by it.
    pub fn check_address(&mut self, registers: u64) {
        let guilty = self.regs.dirty & registers;
        if guilty != 0 {
            let complaint = Complaint { kind: ComplaintKind::Value { size: 8 }, origin: self.regs.origin_of(guilty), registers: guilty };
            let settled = self.m.complain(complaint, self.regs) & guilty;
            self.regs.dirty &= !(settled | guilty & 1 << 4);
        }
    }

    /// About anything but an address; what becomes of the value is the caller's business, by the answer.
    pub fn complain(&mut self, kind: ComplaintKind, origin: u32) -> u64 {
        self.m.complain(Complaint { kind, origin, registers: 0 }, self.regs)
    }

    /// The mask of a masked load or store decides which memory is touched, so it must be defined.
    fn check_guard(&mut self) {
        let Some(mask) = self.plan.mask else { return };
        let k = usize::from(mask.k);
        let guards = self.plan.mem.is_some_and(|mem| mem.write || mem.read && self.plan.lanewise && !self.plan.broadcast);
        if guards && self.regs.mask(k) & self.lanes_mask() != 0 {
            self.complain(ComplaintKind::Cond, self.regs.origin[MASK0 + k]);
            self.regs.set_mask(k, 0, 0);
        }
    }

    /// One bit per lane of the memory operand.
    fn lanes_mask(&self) -> u64 {
        let lanes = self.plan.mem.map_or(0, |mem| usize::from(mem.size) / usize::from(mem.element).max(1));
        if lanes >= 64 { u64::MAX } else { (1 << lanes) - 1 }
    }

    /// base + index * scale + displacement + segment.
    pub fn effective(&self, mem: &Mem) -> u64 {
        let mut addr = mem.displacement;
        if mem.base != NONE {
            addr = addr.wrapping_add(self.m.gpr(usize::from(mem.base)));
        }
        if mem.index != NONE && mem.vsib == 0 {
            let index = self.m.gpr(usize::from(mem.index));
            let index = if mem.width == 8 { index & 0xFF } else { index };
            addr = addr.wrapping_add(index.wrapping_mul(u64::from(mem.scale)));
        }
        if mem.width == 32 {
            addr &= 0xFFFF_FFFF;
        }
        self.with_segment(addr, mem.segment)
    }

    pub fn with_segment(&self, addr: u64, segment: Option<Segment>) -> u64 {
        segment.map_or(addr, |segment| addr.wrapping_add(self.m.segment_base(segment)))
    }

    /// The memory source as the operation sees it: broadcast repeated, masked-off lanes untouched and zero.
    fn fetch(&mut self, concrete: bool) -> Wide {
        let Some(mem) = self.plan.mem else { return Wide::ZERO };
        let (size, element) = (usize::from(mem.size).min(64), usize::from(mem.element).clamp(1, 8));
        let enabled = match self.plan.mask {
            Some(mask) if self.plan.lanewise => self.m.kmask(usize::from(mask.k)),
            _ => u64::MAX,
        };
        if self.plan.broadcast {
            return self.fetch_plain(self.addr, size, concrete).repeated(size);
        }
        if enabled & self.lanes_mask() == self.lanes_mask() {
            return self.fetch_plain(self.addr, size, concrete);
        }
        let mut out = Wide::ZERO;
        for i in (0..size / element).filter(|i| enabled >> i & 1 != 0) {
            let one = self.fetch_plain(self.addr.wrapping_add((i * element) as u64), element, concrete);
            out.set(element, i, one.0[0]);
        }
        out
    }

    fn fetch_plain(&mut self, addr: u64, size: usize, concrete: bool) -> Wide {
        if concrete { self.load(addr, size) } else { self.load_v(addr, size) }
    }

    /// Concrete bytes, at most 64.
    pub fn load(&mut self, addr: u64, size: usize) -> Wide {
        let mut buffer = [0; 64];
        let size = size.min(64);
        if !self.m.load(addr, &mut buffer[..size]) {
            self.fault = true;
        }
        Wide::from_bytes(&buffer)
    }

    /// V bytes, at most 64.
    pub fn load_v(&mut self, addr: u64, size: usize) -> Wide {
        let mut buffer = [0; 64];
        self.m.load_v(addr, &mut buffer[..size.min(64)]);
        Wide::from_bytes(&buffer)
    }

    pub fn store_v(&mut self, addr: u64, size: usize, v: Wide) {
        if !self.fault {
            self.m.store_v(addr, &v.to_bytes()[..size.min(64)], self.origin);
        }
    }

    pub fn store_zeros(&mut self, addr: u64, size: usize) {
        let mut done = 0;
        while done < size {
            let piece = (size - done).min(64);
            self.store_v(addr.wrapping_add(done as u64), piece, Wide::ZERO);
            done += piece;
        }
    }

    /// Did the memory source carry undefined bits?
    pub fn memory_undefined(&self) -> bool {
        !self.mem_v.is_zero()
    }

    fn memory_x(&mut self) -> Wide {
        match self.mem_x {
            Some(x) => x,
            None => {
                let x = self.fetch(true);
                self.mem_x = Some(x);
                x
            }
        }
    }
}

/// Operands up to 64 bits.
impl<M: Machine> Cx<'_, M> {
    pub fn op(&self, i: usize) -> Operand {
        self.plan.ops[i]
    }

    pub fn size(&self, i: usize) -> usize {
        self.plan.size(self.plan.ops[i])
    }

    /// V bits of an operand at its own size.
    pub fn v(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Gpr { n, size, high } => self.regs.gpr(usize::from(n)) >> (u32::from(high) * 8) & lane_mask(usize::from(size)),
            Operand::Mem => self.mem_v.0[0] & lane_mask(self.plan.size(operand)),
            Operand::Vec { n, .. } => self.regs.vec(usize::from(n)).0[0],
            Operand::Mask { n } => self.regs.mask(usize::from(n)),
            Operand::Mm { n } => self.regs.st(usize::from(n))[0],
            _ => 0,
        }
    }

    /// Concrete value of an operand at its own size.
    pub fn x(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Gpr { n, size, high } => self.m.gpr(usize::from(n)) >> (u32::from(high) * 8) & lane_mask(usize::from(size)),
            Operand::Mem => self.memory_x().0[0] & lane_mask(self.plan.size(operand)),
            Operand::Vec { n, .. } => self.m.vec(usize::from(n)).0[0],
            Operand::Mask { n } => self.m.kmask(usize::from(n)),
            Operand::Mm { n } => self.m.mm(usize::from(n)),
            Operand::Imm(value) => value,
            _ => 0,
        }
    }

    pub fn bits(&mut self, operand: Operand) -> Bits {
        Bits { x: self.x(operand), v: self.v(operand) }
    }

    /// Writes V bits to an integer operand: 8 and 16 bit registers keep the rest, 32 bit ones define it.
    pub fn set(&mut self, operand: Operand, v: u64) {
        if self.fault {
            return;
        }
        match operand {
            Operand::Gpr { n, size, high } => {
                let n = usize::from(n);
                let v = v & lane_mask(usize::from(size));
                let v = match size {
                    8 | 4 => v,
                    _ => {
                        let shift = u32::from(high) * 8;
                        self.regs.gpr(n) & !(lane_mask(usize::from(size)) << shift) | v << shift
                    }
                };
                // What is kept of the old value keeps its origin unless new undefined bits come in.
                let origin = if self.v_only_kept(operand, v) { self.regs.origin[n] } else { self.origin };
                self.regs.set_gpr(n, v, origin);
            }
            Operand::Mem => self.m.store_v_word(self.addr, self.plan.size(operand), v, self.origin),
            Operand::Mask { n } => self.regs.set_mask(usize::from(n), v, self.origin),
            Operand::Mm { n } => self.regs.set_st(usize::from(n), [v, 0], self.origin),
            _ => {}
        }
    }

    fn v_only_kept(&self, operand: Operand, v: u64) -> bool {
        match operand {
            Operand::Gpr { size: size @ (1 | 2), high, .. } => v & lane_mask(usize::from(size)) << (u32::from(high) * 8) == 0,
            _ => false,
        }
    }

    /// Replaces flags that the instruction writes; those the processor leaves undefined follow `inputs_v`.
    pub fn set_flags(&mut self, v: u64, inputs_v: u64) {
        if self.fault {
            return;
        }
        let loose = if inputs_v != 0 { self.plan.flags_undefined } else { 0 };
        let v = v & !self.plan.flags_undefined | loose;
        let written = self.plan.flags_written;
        self.regs.set_flags(written, v & (written | !crate::regs::ARITH), self.origin);
    }

    /// V and value of one arithmetic flag, as bit 0.
    pub fn flag(&self, flag: u64) -> Bits {
        let at = flag.trailing_zeros();
        Bits { x: self.m.rflags() >> at & 1, v: self.regs.flags() >> at & 1 }
    }

    pub fn flags_origin(&self) -> u32 {
        self.regs.origin[FLAGS]
    }

    /// A general register by number, all 64 bits.
    pub fn gpr(&self, n: usize) -> Bits {
        Bits { x: self.m.gpr(n), v: self.regs.gpr(n) }
    }
}

/// Operands as vectors.
impl<M: Machine> Cx<'_, M> {
    /// V bits of a vector, MMX or memory operand; zero beyond its size.
    pub fn wide_v(&self, operand: Operand) -> Wide {
        match operand {
            Operand::Vec { n, size } => self.regs.vec(usize::from(n)).truncated(usize::from(size)),
            Operand::Mem => self.mem_v,
            _ => {
                let mut out = Wide::ZERO;
                out.0[0] = self.v(operand);
                out
            }
        }
    }

    pub fn wide_x(&mut self, operand: Operand) -> Wide {
        match operand {
            Operand::Vec { n, size } => self.m.vec(usize::from(n)).truncated(usize::from(size)),
            Operand::Mem => self.memory_x(),
            _ => {
                let mut out = Wide::ZERO;
                out.0[0] = self.x(operand);
                out
            }
        }
    }

    /// Writes a vector result whose lanes (for the write mask) are `lane` bytes, by the encoding's rule for what lies above.
    pub fn put(&mut self, operand: Operand, v: Wide, lane: usize) {
        let size = self.plan.size(operand);
        self.put_sized(operand, v, lane, size);
    }

    /// The same for instructions that write only the low `size` bytes of what the operand names.
    pub fn put_sized(&mut self, operand: Operand, v: Wide, lane: usize, size: usize) {
        if self.fault {
            return;
        }
        let v = self.through_mask(operand, v, lane, size);
        match operand {
            Operand::Vec { n, .. } => {
                let n = usize::from(n);
                let above = if self.plan.vex { Wide::ZERO } else { self.regs.vec(n) };
                self.regs.set_vec(n, v.with_upper(size, above), self.origin);
            }
            Operand::Mem => self.store_lanes(v, lane, size),
            _ => self.set(operand, v.0[0]),
        }
    }

    /// Merging lanes keep the old V, zeroing lanes become defined, lanes with an undefined mask bit undefined.
    fn through_mask(&mut self, operand: Operand, mut v: Wide, lane: usize, size: usize) -> Wide {
        let (Some(mask), Operand::Vec { n, .. }) = (self.plan.mask, operand) else { return v };
        let k = self.mask_bits(mask.k);
        let old = self.regs.vec(usize::from(n));
        for i in 0..size / lane {
            if k.v >> i & 1 != 0 {
                v.set(lane, i, u64::MAX);
            } else if k.x >> i & 1 == 0 {
                v.set(lane, i, if mask.zeroing { 0 } else { old.lane(lane, i) });
            }
        }
        v
    }

    pub fn mask_bits(&self, k: u8) -> Bits {
        Bits { x: self.m.kmask(usize::from(k)), v: self.regs.mask(usize::from(k)) }
    }

    fn store_lanes(&mut self, v: Wide, lane: usize, size: usize) {
        let Some(mask) = self.plan.mask else { return self.store_v(self.addr, size, v) };
        let k = self.m.kmask(usize::from(mask.k));
        for i in (0..size / lane).filter(|i| k >> i & 1 != 0) {
            let mut one = Wide::ZERO;
            one.0[0] = v.lane(lane, i);
            self.store_v(self.addr.wrapping_add((i * lane) as u64), lane, one);
        }
    }

    /// The operands that are inputs, in order.
    pub fn sources(&self) -> impl Iterator<Item = Operand> + use<M> {
        let (ops, inputs) = (self.plan.ops, self.plan.inputs);
        (0..5).filter(move |i| inputs >> i & 1 != 0).map(move |i| ops[i])
    }

    /// V of all vector inputs or'ed together.
    pub fn any_v(&self) -> Wide {
        self.sources().fold(Wide::ZERO, |all, operand| all | self.wide_v(operand))
    }
}
