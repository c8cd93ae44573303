//! Branches, calls and returns: where undefined bits come to light.

use iced_x86::Mnemonic::{self as M, *};
use iced_x86::{Instruction, OpKind};

use crate::cx::Cx;
use crate::flags;
use crate::machine::{ComplaintKind, Machine};
use crate::moves::use_stack;
use crate::plan::{Operand, Plan};
use crate::regs::{FLAGS, ZF};
use crate::table::{Row, Rule};
use crate::wide::Wide;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Conditional jump on flags.
    Jcc,
    /// jrcxz and friends; the number is the size of the counter.
    Jrcxz(u8),
    Loop,
    /// loope, loopne: the counter and ZF.
    LoopFlag,
    /// Indirect, or direct and nothing to do.
    Jump,
    Call,
    Ret,
}

const fn row(names: &'static [M], op: Control) -> Row {
    (names, Rule::Control(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Ja, Jae, Jb, Jbe, Je, Jg, Jge, Jl, Jle, Jne, Jno, Jnp, Jns, Jo, Jp, Js], Control::Jcc),
    row(&[Jrcxz], Control::Jrcxz(8)),
    row(&[Jecxz], Control::Jrcxz(4)),
    row(&[M::Loop], Control::Loop),
    row(&[Loope, Loopne], Control::LoopFlag),
    row(&[Jmp], Control::Jump),
    row(&[M::Call], Control::Call),
    row(&[M::Ret], Control::Ret),
];

pub(crate) fn adjust(op: Control, insn: &Instruction, plan: &mut Plan) {
    match op {
        Control::Call if insn.op0_kind() == OpKind::Memory => plan.quick = false,
        Control::Call => use_stack(plan, -8, 8, false),
        Control::Ret => use_stack(plan, 0, 8, true),
        _ => {}
    }
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Control) {
    match op {
        Control::Jcc => branch(cx),
        Control::Jrcxz(size) => counter(cx, size),
        Control::Loop => counter(cx, 8),
        Control::LoopFlag => {
            counter(cx, 8);
            branch_on_zf(cx);
        }
        Control::Jump => target(cx),
        Control::Call => {
            target(cx);
            if cx.op(0) == Operand::Mem {
                cx.check_address(1 << 4);
                let slot = cx.m.gpr(4).wrapping_sub(8);
                cx.store_v(slot, 8, Wide::ZERO);
            } else {
                cx.set(Operand::Mem, 0);
            }
        }
        Control::Ret => {
            if cx.memory_undefined() {
                cx.complain(ComplaintKind::Target, cx.origin);
            }
        }
    }
}

fn branch<M: Machine>(cx: &mut Cx<M>) {
    if flags::is_condition_undefined(cx.plan.condition, cx.regs, cx.m.rflags()) {
        let settled = cx.complain(ComplaintKind::Branch, cx.flags_origin());
        flags::settle(cx.plan.condition, cx.regs, settled != 0);
    }
}

fn branch_on_zf<M: Machine>(cx: &mut Cx<M>) {
    if cx.regs.flags() & ZF != 0 {
        cx.complain(ComplaintKind::Cond, cx.regs.origin[FLAGS]);
        cx.regs.define(0, ZF);
    }
}

/// rcx tested against zero; a defined 1 anywhere settles that, but then its later decrements are still undefined.
fn counter<M: Machine>(cx: &mut Cx<M>, size: u8) {
    let rcx = cx.bits(Operand::Gpr { n: 1, size, high: false });
    if crate::bits::zero_v(rcx) || rcx.v != 0 && !matches!(cx.plan.rule, Rule::Control(Control::Jrcxz(_))) {
        cx.complain(ComplaintKind::Cond, cx.regs.origin[1]);
        cx.regs.define(1 << 1, 0);
    }
}

/// The target of an indirect transfer must be defined.
fn target<M: Machine>(cx: &mut Cx<M>) {
    let target = cx.op(0);
    if cx.v(target) == 0 {
        return;
    }
    cx.complain(ComplaintKind::Target, cx.origin);
    if let Operand::Gpr { n, .. } = target {
        cx.regs.define(1 << n, 0);
    }
}
