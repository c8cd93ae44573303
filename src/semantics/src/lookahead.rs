//! The excuse for branches that compilers reordered.
//!
//! `if (a && b)` with a harmless `b` may be compiled as a test of `b` first, then of `a`, because it does not matter what `b` is when
//! `a` is false. If `b` was never written the first branch is undefined, yet the program is right:
//!
//! ```text
//!        test b ; jz  no      <- undefined: goes to `no` or falls through
//!        test a ; jz  no      <- defined, and goes to `no`
//! yes:   ...
//! no:    ...                  <- every way leads here: nothing to report
//! ```
//!
//! So, when an undefined branch is about to be reported, [`same_way`] walks on from one of its two successors through a few pure
//! instructions, with their real values and their V bits. If a branch that is defined takes it straight to the other successor
//! (passing undefined ones of which one way is that same place), the first branch made no difference. Merely falling into the
//! other successor is no excuse: `x = b ? 1 : 2` looks like that. Costs nothing until a report is due.
//!
//! Deliberately absent: anything that loads, stores, calls, or is not integer arithmetic on general registers; it ends the walk, in
//! doubt for the report. A second test that fetches its operand is mostly one that nobody reordered: unoptimised code loads each
//! operand where the source has it, and `if (unset && flag)` is then an error, whatever `flag` is.

use iced_x86::{FlowControl, Instruction};

use crate::bits::{mask, sign_extend};
use crate::cx::run;
use crate::flags::{self, holds};
use crate::integer::Int;
use crate::machine::{Complaint, Machine, Segment};
use crate::moves::Move;
use crate::plan::{Mem, NONE, Operand, Plan, Planner};
use crate::regs::{AF, ARITH, CF, OF, PF, SF, ShadowRegs, ZF};
use crate::shift::Shift;
use crate::table::Rule;
use crate::wide::{Wide, lane_mask};

/// Instructions looked at on each of the two ways.
const PATIENCE: usize = 12;

/// The program's code.
pub trait Code {
    /// The instruction at an address, or nothing if there is none to be had.
    fn instruction(&self, addr: u64) -> Option<Instruction>;
}

/// Do both ways of this undefined conditional jump lead to the same place? `regs` and `m` are as they are before the jump.
pub fn same_way<M: Machine>(code: &impl Code, planner: &mut Planner, branch: &Instruction, regs: &ShadowRegs, m: &mut M) -> bool {
    let (taken, through) = (branch.near_branch_target(), branch.next_ip());
    [(through, taken), (taken, through)].into_iter().any(|(from, to)| {
        let mut regs = regs.clone();
        let mut ahead = Ahead::new(m);
        ahead.walk(code, planner, &mut regs, from, to)
    })
}

/// A thread that runs ahead of the real one: its registers are copies.
struct Ahead<'a, M> {
    m: &'a mut M,
    gpr: [u64; 16],
    rflags: u64,
    /// Something happened that ends the walk.
    stuck: bool,
}

impl<'a, M: Machine> Ahead<'a, M> {
    fn new(m: &'a mut M) -> Self {
        let gpr = core::array::from_fn(|i| m.gpr(i));
        let rflags = m.rflags();
        Ahead { m, gpr, rflags, stuck: false }
    }

    /// From `at`, does every possible way come to `meet`?
    fn walk(&mut self, code: &impl Code, planner: &mut Planner, regs: &mut ShadowRegs, mut at: u64, meet: u64) -> bool {
        // A defined branch has chosen this way, and nothing but jumps came after it.
        let mut decided = false;
        for _ in 0..PATIENCE {
            let Some(insn) = code.instruction(at) else { return false };
            at = match insn.flow_control() {
                FlowControl::Next => {
                    let plan = planner.plan(&insn);
                    if !is_pure(&plan) {
                        return false;
                    }
                    run(&plan, regs, self);
                    self.execute(&plan);
                    decided = false;
                    insn.next_ip()
                }
                FlowControl::UnconditionalBranch => insn.near_branch_target(),
                FlowControl::ConditionalBranch if insn.is_jcc_short_or_near() => {
                    let (condition, taken, through) = (insn.condition_code(), insn.near_branch_target(), insn.next_ip());
                    decided = !flags::is_condition_undefined(condition, regs, self.rflags);
                    match holds(condition, self.rflags) {
                        true if decided => taken,
                        false if decided => through,
                        _ if taken == meet => through,
                        _ if through == meet => taken,
                        _ => return false,
                    }
                }
                _ => return false,
            };
            if self.stuck {
                return false;
            }
            if at == meet {
                return decided;
            }
        }
        false
    }
}

/// Integer work on general registers, no memory.
fn is_pure(plan: &Plan) -> bool {
    let understood = match plan.rule {
        Rule::Nop => plan.mem.is_none(),
        Rule::Move(op) => {
            matches!(op, Move::Plain | Move::Signed | Move::Widen(_) | Move::Sign(_) | Move::Lea | Move::Conditional | Move::Set)
        }
        Rule::Int(op) => matches!(
            op,
            Int::Add | Int::Sub | Int::Cmp | Int::Inc | Int::Dec | Int::Neg | Int::Not | Int::And | Int::Or | Int::Xor | Int::Test
        ),
        Rule::Shift(op) => matches!(op, Shift::Shl | Shift::Shr | Shift::Sar),
        _ => false,
    };
    let address = matches!(plan.rule, Rule::Move(Move::Lea));
    let plain = |op: &Operand| address || matches!(op, Operand::Gpr { .. } | Operand::Imm(_) | Operand::None);
    understood && plan.ops.iter().all(plain) && (address || plan.mem.is_none())
}

/// The concrete effect of a pure instruction.
impl<M: Machine> Ahead<'_, M> {
    fn execute(&mut self, plan: &Plan) {
        let width = plan.size(plan.ops[0]) as u32 * 8;
        match plan.rule {
            Rule::Move(op) => self.execute_move(plan, op),
            Rule::Int(op) => self.execute_int(plan, op, width),
            Rule::Shift(op) => self.execute_shift(plan, op, width),
            _ => {}
        }
    }

    fn execute_move(&mut self, plan: &Plan, op: Move) {
        let (target, source) = (plan.ops[0], plan.ops[1]);
        let rax = |size| Operand::Gpr { n: 0, size, high: false };
        match op {
            Move::Plain => {
                let x = self.read(source);
                self.write(target, x);
            }
            Move::Signed => {
                let x = sign_extend(self.read(source), plan.size(source) as u32 * 8);
                self.write(target, x as u64);
            }
            Move::Widen(size) => {
                let x = sign_extend(self.read(rax(size / 2)), u32::from(size) * 4);
                self.write(rax(size), x as u64);
            }
            Move::Sign(size) => {
                let x = sign_extend(self.read(rax(size)), u32::from(size) * 8) >> 63;
                self.write(Operand::Gpr { n: 2, size, high: false }, x as u64);
            }
            Move::Lea => {
                let x = plan.mem.map_or(0, |mem| self.address(&mem));
                self.write(target, x);
            }
            Move::Conditional => {
                let chosen = if holds(plan.condition, self.rflags) { source } else { target };
                let x = self.read(chosen);
                self.write(target, x);
            }
            _ => self.write(target, u64::from(holds(plan.condition, self.rflags))),
        }
    }

    fn execute_int(&mut self, plan: &Plan, op: Int, width: u32) {
        let a = self.read(plan.ops[0]) & mask(width);
        let b = self.read(plan.ops[1]) & mask(width);
        let (r, flags) = match op {
            Int::Add => sum(a, b, 0, width),
            Int::Inc => sum(a, 1, 0, width),
            Int::Sub | Int::Cmp => difference(a, b, width),
            Int::Dec => difference(a, 1, width),
            Int::Neg => difference(0, a, width),
            Int::And | Int::Test => (a & b, 0),
            Int::Or => (a | b, 0),
            Int::Xor => (a ^ b, 0),
            _ => (!a, 0),
        };
        let r = r & mask(width);
        let flags = (flags | result_flags(r, width)) & plan.flags_written;
        self.rflags = self.rflags & !plan.flags_written | flags;
        if !matches!(op, Int::Cmp | Int::Test) {
            self.write(plan.ops[0], r);
        }
    }

    fn execute_shift(&mut self, plan: &Plan, op: Shift, width: u32) {
        let a = self.read(plan.ops[0]) & mask(width);
        let count = self.read(plan.ops[1]) as u32 & if width == 64 { 63 } else { 31 };
        if count == 0 || count >= width {
            // Zero keeps everything; counts beyond an 8 or 16 bit operand are not worth the walk.
            self.stuck |= count != 0;
            return;
        }
        let (r, out) = match op {
            Shift::Shl => (a << count, a >> (width - count)),
            Shift::Shr => (a >> count, a >> (count - 1)),
            _ => ((sign_extend(a, width) >> count) as u64, a >> (count - 1)),
        };
        let r = r & mask(width);
        self.rflags = self.rflags & !ARITH | result_flags(r, width) | out & CF;
        self.write(plan.ops[0], r);
    }

    /// What `lea` computes: segments do not count.
    fn address(&self, mem: &Mem) -> u64 {
        let part = |n: u8| if n == NONE { 0 } else { self.gpr[usize::from(n & 15)] };
        let addr = part(mem.base).wrapping_add(part(mem.index).wrapping_mul(u64::from(mem.scale.max(1)))).wrapping_add(mem.displacement);
        if mem.width == 32 { addr & 0xFFFF_FFFF } else { addr }
    }

    fn read(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Gpr { n, size, high } => self.gpr[usize::from(n & 15)] >> (u32::from(high) * 8) & lane_mask(usize::from(size)),
            Operand::Imm(x) => x,
            _ => 0,
        }
    }

    fn write(&mut self, operand: Operand, x: u64) {
        let Operand::Gpr { n, size, high } = operand else {
            self.stuck = true;
            return;
        };
        let word = &mut self.gpr[usize::from(n & 15)];
        let shift = u32::from(high) * 8;
        *word = match size {
            8 => x,
            4 => x & 0xFFFF_FFFF,
            _ => *word & !(lane_mask(usize::from(size)) << shift) | (x & lane_mask(usize::from(size))) << shift,
        };
    }
}

fn result_flags(r: u64, width: u32) -> u64 {
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    flag(r == 0, ZF) | flag(r >> (width - 1) & 1 != 0, SF) | flag((r as u8).count_ones().is_multiple_of(2), PF)
}

/// a + b + carry, with CF, OF and AF.
fn sum(a: u64, b: u64, carry: u64, width: u32) -> (u64, u64) {
    let whole = u128::from(a) + u128::from(b) + u128::from(carry);
    let r = whole as u64;
    let overflow = (a ^ r) & (b ^ r);
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    let flags = flag(whole >> width & 1 != 0, CF) | flag(overflow >> (width - 1) & 1 != 0, OF) | flag((a ^ b ^ r) >> 4 & 1 != 0, AF);
    (r, flags)
}

/// a - b as a + !b + 1, whose carries are the borrows turned round.
fn difference(a: u64, b: u64, width: u32) -> (u64, u64) {
    let (r, flags) = sum(a, !b & mask(width), 1, width);
    (r, flags ^ (CF | AF))
}

/// The rules run on the walker's own registers; what asks for memory or complains ends the walk.
impl<M: Machine> Machine for Ahead<'_, M> {
    fn gpr(&self, index: usize) -> u64 {
        self.gpr[index & 15]
    }
    fn rflags(&self) -> u64 {
        self.rflags
    }
    fn vec(&self, index: usize) -> Wide {
        self.m.vec(index)
    }
    fn kmask(&self, index: usize) -> u64 {
        self.m.kmask(index)
    }
    fn mm(&self, index: usize) -> u64 {
        self.m.mm(index)
    }
    fn x87_top(&self) -> u8 {
        self.m.x87_top()
    }
    fn segment_base(&self, segment: Segment) -> u64 {
        self.m.segment_base(segment)
    }
    fn xstate_offset(&self, component: u32) -> u32 {
        self.m.xstate_offset(component)
    }
    fn xcr0(&self) -> u64 {
        self.m.xcr0()
    }
    fn load(&mut self, _: u64, _: &mut [u8]) -> bool {
        self.stuck = true;
        false
    }
    fn load_v(&mut self, _: u64, _: &mut [u8]) {
        self.stuck = true;
    }
    fn store_v(&mut self, _: u64, _: &[u8], _: u32) {
        self.stuck = true;
    }
    fn load_origin(&mut self, _: u64, _: usize) -> u32 {
        0
    }
    fn complain(&mut self, _: Complaint, _: &ShadowRegs) -> u64 {
        self.stuck = true;
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{CF, OF, difference, sum};

    #[test]
    fn carries_and_borrows() {
        for (a, b) in [(0u8, 0u8), (1, 255), (127, 1), (128, 128), (5, 7), (200, 100), (128, 1), (255, 255)] {
            let (x, y) = (u64::from(a), u64::from(b));
            let (r, flags) = sum(x, y, 0, 8);
            assert_eq!(r as u8, a.wrapping_add(b));
            assert_eq!(flags & CF != 0, a.checked_add(b).is_none());
            assert_eq!(flags & OF != 0, (a as i8).checked_add(b as i8).is_none());
            let (r, flags) = difference(x, y, 8);
            assert_eq!(r as u8, a.wrapping_sub(b));
            assert_eq!(flags & CF != 0, a < b);
            assert_eq!(flags & OF != 0, (a as i8).checked_sub(b as i8).is_none());
        }
    }
}
