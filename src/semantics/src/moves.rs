//! Moves of integers: plain, extending, conditional, exchanging, and through the stack.

use iced_x86::Mnemonic::{self as M, *};
use iced_x86::{Instruction, OpKind};

use crate::bits::{self, Bits, mask, sign_extend};
use crate::cx::Cx;
use crate::flags;
use crate::machine::{ComplaintKind, Machine};
use crate::plan::{Mem, NONE, Operand, Plan};
use crate::table::{Row, Rule};
use crate::wide::Wide;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// mov, movzx, movnti: the source's bits, zeros above.
    Plain,
    /// movsx, movsxd.
    Signed,
    /// cbw, cwde, cdqe: rax from its lower half; the number is the size of the result.
    Widen(u8),
    /// cwd, cdq, cqo: the sign of rax into rdx; the number is the size.
    Sign(u8),
    /// bswap and movbe.
    Swap,
    Lea,
    Exchange,
    Conditional,
    Set,
    Push,
    /// Push of a memory operand.
    PushMem,
    Pop,
    PopMem,
    Leave,
    Enter,
    /// al = [rbx + al].
    Xlat,
    /// salc-like and reading of always defined registers: all outputs defined.
    Defined,
}

const fn row(names: &'static [M], op: Move) -> Row {
    (names, Rule::Move(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Mov, Movzx, Movnti, Movdiri, Umov], Move::Plain),
    row(&[Movsx, Movsxd], Move::Signed),
    row(&[Cbw], Move::Widen(2)),
    row(&[Cwde], Move::Widen(4)),
    row(&[Cdqe], Move::Widen(8)),
    row(&[Cwd], Move::Sign(2)),
    row(&[Cdq], Move::Sign(4)),
    row(&[Cqo], Move::Sign(8)),
    row(&[Bswap, Movbe], Move::Swap),
    row(&[Lea], Move::Lea),
    row(&[Xchg], Move::Exchange),
    row(&[Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns, Cmovo, Cmovp, Cmovs], Move::Conditional),
    row(&[Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setno, Setnp, Setns, Seto, Setp, Sets], Move::Set),
    row(&[Push], Move::Push),
    row(&[Pop], Move::Pop),
    row(&[Leave], Move::Leave),
    row(&[Enter], Move::Enter),
    row(&[Xlatb], Move::Xlat),
];

/// A slot of the program's stack, `displacement` from rsp.
pub(crate) fn stack_slot(displacement: i64, size: u16, read: bool) -> Mem {
    Mem {
        base: 4,
        index: NONE,
        scale: 1,
        size,
        element: 8,
        vsib: 0,
        index_size: 0,
        width: 64,
        segment: None,
        displacement: displacement as u64,
        read,
        write: !read,
    }
}

/// Gives a stack instruction its hidden memory operand.
pub(crate) fn use_stack(plan: &mut Plan, displacement: i64, size: u16, read: bool) {
    plan.mem = Some(stack_slot(displacement, size, read));
    plan.address = 1 << 4;
    plan.preload = read;
}

pub(crate) fn adjust(op: Move, insn: &Instruction, plan: &mut Plan) -> Rule {
    let size = insn.stack_pointer_increment().unsigned_abs() as u16;
    let memory = insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory;
    match op {
        Move::Push if memory => {
            plan.quick = false;
            return Rule::Move(Move::PushMem);
        }
        Move::Pop if memory => {
            plan.quick = false;
            return Rule::Move(Move::PopMem);
        }
        Move::Push => use_stack(plan, -i64::from(size), size, false),
        Move::Pop => use_stack(plan, 0, size, true),
        Move::Leave => {
            use_stack(plan, 0, 8, true);
            plan.address = 1 << 5;
            plan.mem = plan.mem.map(|mem| Mem { base: 5, ..mem });
        }
        Move::Enter => {
            use_stack(plan, -8, 8, false);
            plan.quick = false;
        }
        Move::Xlat => {
            // al is the index and checked by the rule itself, apart from the rest of rax.
            plan.address &= 1 << 3;
            plan.preload = false;
            plan.quick = false;
        }
        _ => {}
    }
    Rule::Move(op)
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: Move) {
    let rax = |size| Operand::Gpr { n: 0, size, high: false };
    match op {
        Move::Plain => {
            let v = cx.v(cx.op(1));
            cx.set(cx.op(0), v);
        }
        Move::Signed => {
            let v = sign_extend(cx.v(cx.op(1)), cx.size(1) as u32 * 8) as u64;
            cx.set(cx.op(0), v);
        }
        Move::Widen(size) => {
            let v = sign_extend(cx.v(rax(size / 2)), u32::from(size) * 4) as u64;
            cx.set(rax(size), v);
        }
        Move::Sign(size) => {
            let v = (sign_extend(cx.v(rax(size)), u32::from(size) * 8) >> 63) as u64;
            cx.set(Operand::Gpr { n: 2, size, high: false }, v);
        }
        Move::Swap => {
            let (target, source) = if cx.op(1) == Operand::None { (0, 0) } else { (0, 1) };
            let v = cx.v(cx.op(source)).swap_bytes() >> (64 - cx.size(target) * 8);
            cx.set(cx.op(target), v);
        }
        Move::Lea => lea(cx),
        Move::Exchange => {
            let (a, b) = (cx.v(cx.op(0)), cx.v(cx.op(1)));
            cx.set(cx.op(0), b);
            cx.set(cx.op(1), a);
        }
        Move::Conditional => conditional(cx),
        Move::Set => {
            let open = flags::is_condition_undefined(cx.plan.condition, cx.regs, cx.m.rflags());
            cx.set(cx.op(0), u64::from(open));
        }
        Move::Defined => cx.regs.define(cx.plan.writes, cx.plan.flags_written),
        _ => stack(cx, op),
    }
}

/// Sums of base, scaled index and displacement: an ordinary exact addition, not an address check.
fn lea<M: Machine>(cx: &mut Cx<M>) {
    let Some(mem) = cx.plan.mem else { return };
    let part = |n: u8| if n == NONE { Bits::known(0) } else { cx.gpr(usize::from(n)) };
    let (base, index) = (part(mem.base), part(mem.index));
    let shift = mem.scale.max(1).trailing_zeros();
    let index = Bits { x: index.x << shift, v: index.v << shift };
    let sum = if mem.base == mem.index && mem.base != NONE && shift == 0 {
        bits::double(base, Bits::known(0), 64).r
    } else {
        bits::add(base, index, Bits::known(0), 64).r
    };
    let mut r = bits::add(sum, Bits::known(mem.displacement), Bits::known(0), 64).r;
    if mem.width == 32 {
        r = r.masked(mask(32));
    }
    cx.set(cx.op(0), r.v);
}

/// An undefined condition leaves defined what both sides agree on.
fn conditional<M: Machine>(cx: &mut Cx<M>) {
    let rflags = cx.m.rflags();
    let (old, new) = (cx.op(0), cx.op(1));
    let v = if flags::is_condition_undefined(cx.plan.condition, cx.regs, rflags) {
        let (a, b) = (cx.bits(old), cx.bits(new));
        a.v | b.v | (a.x ^ b.x)
    } else if flags::holds(cx.plan.condition, rflags) {
        cx.v(new)
    } else {
        cx.v(old)
    };
    cx.set(old, v);
}

fn stack<M: Machine>(cx: &mut Cx<M>, op: Move) {
    let rsp = cx.m.gpr(4);
    match op {
        Move::Push => {
            let v = cx.v(cx.op(0));
            cx.set(Operand::Mem, v);
        }
        Move::Pop => {
            let v = cx.v(Operand::Mem);
            cx.set(cx.op(0), v);
        }
        Move::PushMem => {
            cx.check_address(1 << 4);
            let size = cx.size(0);
            let v = cx.wide_v(Operand::Mem);
            cx.store_v(rsp.wrapping_sub(size as u64), size, v);
        }
        Move::PopMem => {
            cx.check_address(1 << 4);
            let size = cx.size(0);
            let v = cx.load_v(rsp, size);
            if !v.is_zero() {
                cx.origin = cx.m.load_origin(rsp, size);
            }
            // An address with rsp as its base uses rsp after the pop.
            let moved = cx.plan.mem.is_some_and(|mem| mem.base == 4);
            let addr = if moved { cx.addr.wrapping_add(size as u64) } else { cx.addr };
            cx.store_v(addr, size, v);
        }
        Move::Leave => {
            let v = cx.v(Operand::Mem);
            cx.regs.define(1 << 4, 0);
            cx.regs.set_gpr(5, v, cx.origin);
        }
        Move::Enter => {
            let mut v = Wide::ZERO;
            v.0[0] = cx.regs.gpr(5);
            cx.store_v(cx.addr, 8, v);
            cx.regs.define(1 << 5, 0);
        }
        Move::Xlat => {
            let al = Operand::Gpr { n: 0, size: 1, high: false };
            if cx.v(al) != 0 {
                cx.complain(ComplaintKind::Value { size: 8 }, cx.regs.origin[0]);
                cx.set(al, 0);
            }
            let v = cx.load_v(cx.addr, 1);
            cx.set(al, v.0[0]);
        }
        _ => {}
    }
}
