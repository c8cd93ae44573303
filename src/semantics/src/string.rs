//! String instructions, alone or repeated.
//!
//! One call covers the whole repetition: the concrete rcx, rsi, rdi and direction flag say how far it goes, for the comparing ones the
//! memory itself. Counter and pointers must be defined; they are afterwards.

use iced_x86::{Instruction, OpKind, Register};

use crate::bits::{self, Bits};
use crate::cx::Cx;
use crate::machine::{ComplaintKind, Machine, Segment};
use crate::plan::{Operand, Plan};
use crate::regs::{ARITH, ZF};
use crate::wide::Wide;

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;
const DIRECTION: u64 = 1 << 10;

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StringOp {
    Movs,
    Stos,
    Lods,
    Cmps,
    Scas,
    /// Port input: memory becomes defined.
    Ins,
    Outs,
}

/// A string instruction's particulars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Str {
    pub op: StringOp,
    /// Bytes per element.
    pub size: u8,
    /// esi, edi, ecx instead of rsi, rdi, rcx.
    pub narrow: bool,
    /// Segment of the rsi operand.
    pub segment: Option<Segment>,
}

/// String instructions share names with SSE ones (movsd, cmpsd); their hidden operands tell them apart.
pub(crate) fn recognise(insn: &Instruction) -> Option<Str> {
    if !insn.is_string_instruction() {
        return None;
    }
    let kinds = [insn.op0_kind(), insn.op1_kind()];
    let source = |k: &OpKind| matches!(k, OpKind::MemorySegRSI | OpKind::MemorySegESI);
    let target = |k: &OpKind| matches!(k, OpKind::MemoryESRDI | OpKind::MemoryESEDI);
    let port = |at: usize| insn.op_kind(at as u32) == OpKind::Register && insn.op_register(at as u32) == Register::DX;
    let op = match (kinds.iter().any(source), kinds.iter().any(target)) {
        (true, true) if target(&kinds[0]) => StringOp::Movs,
        (true, true) => StringOp::Cmps,
        (true, false) if port(0) => StringOp::Outs,
        (true, false) => StringOp::Lods,
        (false, true) if port(1) => StringOp::Ins,
        (false, true) if target(&kinds[0]) => StringOp::Stos,
        (false, true) => StringOp::Scas,
        _ => return None,
    };
    let narrow = kinds.iter().any(|k| matches!(k, OpKind::MemorySegESI | OpKind::MemoryESEDI));
    let segment = match insn.memory_segment() {
        Register::FS => Some(Segment::Fs),
        Register::GS => Some(Segment::Gs),
        _ => None,
    };
    Some(Str { op, size: insn.memory_size().size() as u8, narrow, segment })
}

pub(crate) fn adjust(plan: &mut Plan) {
    plan.mem = None;
    plan.quick = false;
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, s: Str) {
    let from = matches!(s.op, StringOp::Movs | StringOp::Lods | StringOp::Cmps | StringOp::Outs);
    let to = !matches!(s.op, StringOp::Lods | StringOp::Outs);
    cx.check_address(u64::from(from) << RSI | u64::from(to) << RDI);
    let width = if s.narrow { 0xFFFF_FFFF } else { u64::MAX };
    let repeated = cx.plan.rep || cx.plan.repne;
    let mut count = 1;
    if repeated {
        if cx.regs.gpr(RCX) & width != 0 {
            cx.complain(ComplaintKind::Cond, cx.regs.origin[RCX]);
            cx.regs.define(1 << RCX, 0);
        }
        count = cx.m.gpr(RCX) & width;
    }
    let source = cx.with_segment(cx.m.gpr(RSI) & width, s.segment);
    let walk = Walk {
        source,
        target: cx.m.gpr(RDI) & width,
        step: if cx.m.rflags() & DIRECTION != 0 { u64::from(s.size).wrapping_neg() } else { u64::from(s.size) },
        count,
        size: usize::from(s.size),
    };
    if count == 0 {
        return;
    }
    match s.op {
        StringOp::Movs => copy(cx, walk),
        StringOp::Stos => fill(cx, walk, cx.regs.gpr(0)),
        StringOp::Ins => fill(cx, walk, 0),
        StringOp::Outs => {}
        StringOp::Lods => {
            let last = walk.source.wrapping_add(walk.step.wrapping_mul(count - 1));
            let v = load(cx, last, walk.size);
            cx.set(Operand::Gpr { n: 0, size: s.size, high: false }, v);
        }
        StringOp::Cmps | StringOp::Scas => compare(cx, walk, s.op),
    }
}

/// Where the elements are.
#[derive(Clone, Copy)]
struct Walk {
    source: u64,
    target: u64,
    step: u64,
    count: u64,
    size: usize,
}

/// V of one element, and its origin if it is undefined.
fn load<M: Machine>(cx: &mut Cx<M>, addr: u64, size: usize) -> u64 {
    let v = cx.load_v(addr, size).0[0];
    if v != 0 {
        cx.origin = cx.m.load_origin(addr, size);
    }
    v
}

/// Element after element, as the processor does; in pieces of up to 64 bytes where that cannot make a difference.
fn copy<M: Machine>(cx: &mut Cx<M>, walk: Walk) {
    let Walk { mut source, mut target, step, count, size } = walk;
    let forward = step as i64 > 0;
    let apart = target.wrapping_sub(source) >= 64;
    let mut left = count;
    while left > 0 {
        let batch = if forward && apart { left.min(64 / size as u64) } else { 1 };
        let bytes = batch as usize * size;
        let v = cx.load_v(source, bytes);
        if !v.is_zero() {
            cx.origin = cx.m.load_origin(source, bytes);
        }
        cx.store_v(target, bytes, v);
        source = source.wrapping_add(step.wrapping_mul(batch));
        target = target.wrapping_add(step.wrapping_mul(batch));
        left -= batch;
    }
}

fn fill<M: Machine>(cx: &mut Cx<M>, walk: Walk, v: u64) {
    let Walk { mut target, step, count, size, .. } = walk;
    let mut element = Wide::ZERO;
    element.0[0] = v;
    let pattern = element.repeated(size);
    cx.origin = cx.regs.origin_of(1);
    let forward = step as i64 > 0;
    let mut left = count;
    while left > 0 {
        let batch = if forward { left.min(64 / size as u64) } else { 1 };
        cx.store_v(target, batch as usize * size, pattern);
        target = target.wrapping_add(step.wrapping_mul(batch));
        left -= batch;
    }
}

/// Runs until the processor would stop; an undefined result of a test that decides about going on is reported once.
fn compare<M: Machine>(cx: &mut Cx<M>, walk: Walk, op: StringOp) {
    let Walk { mut source, mut target, step, count, size } = walk;
    let width = size as u32 * 8;
    let repeated = cx.plan.rep || cx.plan.repne;
    let mut reported = false;
    for left in (0..count).rev() {
        let a = if op == StringOp::Cmps {
            let v = load(cx, source, size);
            Bits { x: cx.load(source, size).0[0], v }
        } else {
            cx.gpr(0).masked(bits::mask(width))
        };
        let b = Bits { x: cx.load(target, size).0[0], v: load(cx, target, size) };
        if a.v != 0 && op == StringOp::Scas {
            cx.origin = cx.regs.origin_of(1);
        }
        if cx.fault {
            return;
        }
        let mut open = bits::sub(a, b, Bits::known(0), width).flags;
        let equal = a.x == b.x;
        if repeated && left > 0 && open & ZF != 0 {
            if !reported {
                cx.complain(ComplaintKind::Cond, cx.origin);
                reported = true;
            }
            open &= !ZF;
        }
        let stop = left == 0 || (cx.plan.rep && !equal) || (cx.plan.repne && equal);
        if stop {
            cx.regs.set_flags(ARITH, open, cx.origin);
            return;
        }
        source = source.wrapping_add(step);
        target = target.wrapping_add(step);
    }
}
