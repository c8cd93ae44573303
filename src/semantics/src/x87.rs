//! The old floating point unit, and MMX state.
//!
//! A register is one lane: any undefined bit that an operation reads spoils its result. Plain copies of registers and of 80-bit memory
//! move bit by bit. Shadow registers are numbered physically (R0..R7), so the concrete top of stack says which one is meant. Control word,
//! tags and the stack pointer are always defined; of the status word only the four condition codes may not be.

use iced_x86::Mnemonic::{self as M, *};
use iced_x86::{Code, Instruction};

use crate::cx::Cx;
use crate::flags;
use crate::machine::Machine;
use crate::plan::{Operand, Plan};
use crate::regs::{CF, PF, X87, ZF};
use crate::table::{Row, Rule};
use crate::wide::Wide;

/// Condition codes in the status word.
const C0: u64 = 1 << 8;
const C1: u64 = 1 << 9;
const C2: u64 = 1 << 10;
const C3: u64 = 1 << 14;
const COMPARED: u64 = C0 | C1 | C2 | C3;

/// What it does; popping afterwards moves no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum X87Op {
    /// Push of memory (converted unless 80 bits) or of a register.
    Load,
    LoadInteger,
    /// Push of a constant.
    Constant,
    /// st0 to memory or a register.
    Store,
    StoreInteger,
    /// st(i) = st(i) op other; the first operand is the destination, memory forms mean st0.
    Binary,
    /// st0 = f(st0)
    Unary,
    /// The same, and C2 tells whether st0 was in range.
    Angle,
    /// fchs: the sign bit turns, its V stays.
    Negate,
    /// fabs: the sign becomes known.
    Absolute,
    /// st0 = f(st0, st1); fprem also tells C0, C1, C3 about the quotient.
    Partial,
    /// st1 = f(st0, st1), pop.
    Into1,
    /// st0 = f(st0), push g(st0); whether fptan pushes its 1 depends on st0 as well.
    Split,
    Exchange,
    /// fcom, fucom, ftst, fxam: condition codes from st0 and an operand.
    Compare,
    /// fcompp, fucompp: st0 and st1.
    Compare1,
    /// fcomi: CPU flags.
    CompareFlags,
    ConditionalMove,
    /// Status word into ax or memory.
    Status,
    /// fnop, fincstp, ffree, emms, fldcw…: moves no data.
    Nothing,
    /// fninit: condition codes become 0.
    Reset,
}

const fn row(names: &'static [M], op: X87Op) -> Row {
    (names, Rule::X87(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Fld], X87Op::Load),
    row(&[Fild, Fbld], X87Op::LoadInteger),
    row(&[Fld1, Fldl2e, Fldl2t, Fldlg2, Fldln2, Fldpi, Fldz], X87Op::Constant),
    row(&[Fst, Fstp, Fstpnce], X87Op::Store),
    row(&[Fist, Fistp, Fisttp, Fbstp], X87Op::StoreInteger),
    row(&[Fadd, Faddp, Fiadd, Fsub, Fsubp, Fisub, Fsubr, Fsubrp, Fisubr, Fmul, Fmulp, Fimul,
          Fdiv, Fdivp, Fidiv, Fdivr, Fdivrp, Fidivr], X87Op::Binary),
    row(&[Fsqrt, Frndint, F2xm1], X87Op::Unary),
    row(&[Fsin, Fcos], X87Op::Angle),
    row(&[Fchs], X87Op::Negate),
    row(&[Fabs], X87Op::Absolute),
    row(&[Fprem, Fprem1, Fscale], X87Op::Partial),
    row(&[Fpatan, Fyl2x, Fyl2xp1], X87Op::Into1),
    row(&[Fsincos, Fxtract, Fptan], X87Op::Split),
    row(&[Fxch], X87Op::Exchange),
    row(&[Fcom, Fcomp, Fucom, Fucomp, Ficom, Ficomp, Ftst, Fxam], X87Op::Compare),
    row(&[Fcompp, Fucompp], X87Op::Compare1),
    row(&[Fcomi, Fcomip, Fucomi, Fucomip], X87Op::CompareFlags),
    row(&[Fcmovb, Fcmovbe, Fcmove, Fcmovnb, Fcmovnbe, Fcmovne, Fcmovnu, Fcmovu], X87Op::ConditionalMove),
    row(&[Fnstsw, Fstsw], X87Op::Status),
    row(&[Fnop, Fincstp, Fdecstp, Ffree, Ffreep, Emms, Femms, Fldcw, Fnclex, Fclex, Ldmxcsr, Vldmxcsr], X87Op::Nothing),
    row(&[Fninit, Finit], X87Op::Reset),
];

/// Every x87 instruction may meet dirt anywhere in the stack.
pub(crate) fn adjust(op: X87Op, insn: &Instruction, plan: &mut Plan) {
    plan.reads |= 1 << X87;
    if op == X87Op::ConditionalMove {
        plan.condition = condition(insn.code());
    }
    if op == X87Op::Nothing {
        plan.preload = false;
    }
}

fn condition(code: Code) -> iced_x86::ConditionCode {
    use iced_x86::ConditionCode as C;
    match code {
        Code::Fcmovb_st0_sti => C::b,
        Code::Fcmove_st0_sti => C::e,
        Code::Fcmovbe_st0_sti => C::be,
        Code::Fcmovu_st0_sti => C::p,
        Code::Fcmovnb_st0_sti => C::ae,
        Code::Fcmovne_st0_sti => C::ne,
        Code::Fcmovnbe_st0_sti => C::a,
        _ => C::np,
    }
}

const SPOILT: [u64; 2] = [u64::MAX, 0xFFFF];

fn lane(v: [u64; 2]) -> [u64; 2] {
    if v == [0, 0] { v } else { SPOILT }
}

fn both(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    lane([a[0] | b[0], a[1] | b[1]])
}

impl<M: Machine> Cx<'_, M> {
    /// Physical number of st(i); i = -1 is the register that a push fills.
    fn physical(&self, i: i32) -> usize {
        (i32::from(self.m.x87_top()) + i).rem_euclid(8) as usize
    }

    fn st(&self, i: i32) -> [u64; 2] {
        self.regs.st(self.physical(i))
    }

    fn set_top(&mut self, i: i32, v: [u64; 2]) {
        if !self.fault {
            let physical = self.physical(i);
            self.regs.set_st(physical, v, self.origin);
        }
    }

    /// V of an operand read as a number.
    fn number(&self, operand: Operand) -> [u64; 2] {
        match operand {
            Operand::St { n } => self.st(i32::from(n)),
            Operand::Mem => {
                let v = self.wide_v(operand);
                [v.0[0], v.0[1] & 0xFFFF]
            }
            _ => [0, 0],
        }
    }
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: X87Op) {
    match op {
        X87Op::Load | X87Op::LoadInteger => {
            let v = cx.number(cx.op(0));
            let exact = cx.size(0) == 10 && op == X87Op::Load;
            cx.set_top(-1, if exact { v } else { lane(v) });
        }
        X87Op::Constant => cx.set_top(-1, [0, 0]),
        X87Op::Store => store(cx, true),
        X87Op::StoreInteger => store(cx, false),
        X87Op::Binary => binary(cx),
        X87Op::Unary => {
            let v = lane(cx.st(0));
            cx.set_top(0, v);
        }
        X87Op::Angle => {
            let v = lane(cx.st(0));
            cx.set_top(0, v);
            set_codes(cx, v != [0, 0]);
        }
        X87Op::Negate => {}
        X87Op::Absolute => {
            let [significand, v] = cx.st(0);
            cx.set_top(0, [significand, v & 0x7FFF]);
        }
        X87Op::Partial => {
            let v = both(cx.st(0), cx.st(1));
            cx.set_top(0, v);
            set_codes(cx, v != [0, 0]);
        }
        X87Op::Into1 => {
            let v = both(cx.st(0), cx.st(1));
            cx.set_top(1, v);
        }
        X87Op::Split => {
            let v = lane(cx.st(0));
            cx.set_top(0, v);
            cx.set_top(-1, v);
            set_codes(cx, v != [0, 0]);
        }
        X87Op::Exchange => {
            let (a, b) = (cx.number(cx.op(0)), cx.number(cx.op(1)));
            put(cx, cx.op(0), b);
            put(cx, cx.op(1), a);
        }
        X87Op::Compare1 => {
            let any = both(cx.st(0), cx.st(1)) != [0, 0];
            set_codes(cx, any);
        }
        X87Op::Compare => {
            let any = compared(cx);
            set_codes(cx, any);
        }
        X87Op::CompareFlags => {
            let any = compared(cx);
            cx.set_flags(if any { ZF | PF | CF } else { 0 }, 0);
        }
        X87Op::ConditionalMove => conditional(cx),
        X87Op::Status => {
            let v = cx.regs.fsw();
            cx.set(cx.op(0), v);
        }
        X87Op::Nothing => {}
        X87Op::Reset => cx.regs.set_fsw(0, 0),
    }
}

fn set_codes<M: Machine>(cx: &mut Cx<M>, undefined: bool) {
    if !cx.fault {
        cx.regs.set_fsw(if undefined { COMPARED } else { 0 }, cx.origin);
    }
}

fn put<M: Machine>(cx: &mut Cx<M>, operand: Operand, v: [u64; 2]) {
    if let Operand::St { n } = operand {
        cx.set_top(i32::from(n), v);
    }
}

/// 80-bit stores move bits (but fbstp converts); the others convert.
fn store<M: Machine>(cx: &mut Cx<M>, moves: bool) {
    let v = cx.st(0);
    match cx.op(0) {
        Operand::Mem => {
            let size = cx.size(0);
            let exact = size == 10 && moves;
            let v = if exact { v } else { lane(v) };
            let mut wide = Wide::ZERO;
            wide.0[0] = v[0];
            wide.0[1] = v[1];
            if !exact && v != [0, 0] {
                wide = Wide::ONES;
            }
            cx.store_v(cx.addr, size, wide);
        }
        register => put(cx, register, v),
    }
}

fn binary<M: Machine>(cx: &mut Cx<M>) {
    let (target, v) = match (cx.op(0), cx.op(1)) {
        (Operand::Mem, _) => (Operand::St { n: 0 }, both(cx.st(0), cx.number(Operand::Mem))),
        (a, b) => (a, both(cx.number(a), cx.number(b))),
    };
    put(cx, target, v);
}

/// st0 against the operand (or zero).
fn compared<M: Machine>(cx: &Cx<M>) -> bool {
    let other = match (cx.op(0), cx.op(1)) {
        (Operand::None, _) => [0, 0],
        (Operand::Mem, _) => cx.number(Operand::Mem),
        (_, second @ Operand::St { .. }) => cx.number(second),
        (first, _) => cx.number(first),
    };
    both(cx.st(0), other) != [0, 0]
}

fn conditional<M: Machine>(cx: &mut Cx<M>) {
    let rflags = cx.m.rflags();
    let (old, new) = (cx.number(cx.op(0)), cx.number(cx.op(1)));
    let v = if flags::is_condition_undefined(cx.plan.condition, cx.regs, rflags) {
        SPOILT
    } else if flags::holds(cx.plan.condition, rflags) {
        new
    } else {
        old
    };
    put(cx, cx.op(0), v);
}
