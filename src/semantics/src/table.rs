//! The table: what every instruction does to definedness, one row per rule, keyed by mnemonic.
//!
//! The rows stand beside the code that interprets them, one file per family; here they are put together, at compile time, into an array
//! indexed by mnemonic. Operand roles (which are read, which are written, sizes) are not in the rows: the decoder library knows them.
//! An instruction without a row gets [`Rule::Conservative`]: every output undefined if any input is.

use iced_x86::{Instruction, Mnemonic, Mnemonic as M};

use crate::bitop::{self, BitOp};
use crate::compare::{self, Compare};
use crate::control::{self, Control};
use crate::convert::{self, Convert};
use crate::cx::Cx;
use crate::flags::{self, FlagOp};
use crate::gather;
use crate::integer::{self, Int};
use crate::kmask::{self, KOp};
use crate::lanes::{self, Lane, LaneShift, Logic, Scalar};
use crate::machine::Machine;
use crate::moves::{self, Move};
use crate::plan::{Operand, Plan};
use crate::regs::{ARITH, FLAGS, MASK0, VEC0, X87};
use crate::shift::{self, Shift};
use crate::shuffle::{self, Shuffle};
use crate::state::{self, State};
use crate::string::{self, Str};
use crate::vmoves::{self, VMove};
use crate::wide::Wide;
use crate::x87::{self, X87Op};

/// Mnemonics that follow one rule.
pub type Row = (&'static [Mnemonic], Rule);

/// How V bits go through an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// No row.
    Conservative,
    /// Nothing to do: no outputs, or none that can be undefined.
    Nop,
    /// Whatever it writes is defined.
    Defined,
    Move(Move),
    Int(Int),
    Shift(Shift),
    Bit(BitOp),
    Flag(FlagOp),
    Control(Control),
    Str(Str),
    VMove(VMove),
    /// (operation, lane of a write mask)
    Logic(Logic, u8),
    Lane(Lane, u8),
    /// (operation, lane, a count for every lane)
    LaneShift(LaneShift, u8, bool),
    Scalar(Scalar, u8),
    /// (bytes that mix, lane of a write mask)
    Mix(u8, u8),
    Shuffle(Shuffle),
    Convert(Convert),
    Compare(Compare),
    KMask(KOp, u8),
    Gather(u8),
    Scatter(u8),
    X87(X87Op),
    State(State),
}

#[rustfmt::skip] // one row per rule
const MISCELLANEOUS: &[Row] = &[
    (&[M::Nop, M::Reservednop, M::Pause, M::Endbr64, M::Endbr32, M::Lfence, M::Mfence, M::Sfence, M::Serialize,
       M::Prefetch, M::Prefetchnta, M::Prefetcht0, M::Prefetcht1, M::Prefetcht2, M::Prefetchw, M::Prefetchwt1,
       M::Clflush, M::Clflushopt, M::Clwb, M::Cldemote, M::Cld, M::Std, M::Int3, M::Ud0, M::Ud1, M::Ud2, M::Hlt,
       M::Wait, M::Wrfsbase, M::Wrgsbase, M::Wrpkru, M::Xend, M::Xabort], Rule::Nop),
    (&[M::Clc, M::Stc, M::Cpuid, M::Rdtsc, M::Rdtscp, M::Rdpid, M::Rdrand, M::Rdseed, M::Xgetbv, M::Rdfsbase,
       M::Rdgsbase, M::Rdpkru, M::Rdpmc, M::Rdpru, M::Syscall, M::Sysenter, M::Xtest, M::Xbegin, M::Smsw, M::Str, M::Sldt,
       M::Rdsspd, M::Rdsspq, M::Stmxcsr, M::Vstmxcsr, M::Fnstcw, M::Fstcw, M::Sgdt, M::Sidt], Rule::Defined),
    (&[M::Cmc], Rule::Flag(FlagOp::Complement)),
    (&[M::Lahf], Rule::Flag(FlagOp::Lahf)),
    (&[M::Sahf], Rule::Flag(FlagOp::Sahf)),
    (&[M::Pushf, M::Pushfq], Rule::Flag(FlagOp::Pushf)),
    (&[M::Popf, M::Popfq], Rule::Flag(FlagOp::Popf)),
];

const FAMILIES: &[&[Row]] = &[
    MISCELLANEOUS,
    moves::ROWS,
    integer::ROWS,
    shift::ROWS,
    bitop::ROWS,
    control::ROWS,
    vmoves::ROWS,
    lanes::ROWS,
    shuffle::ROWS,
    convert::ROWS,
    compare::ROWS,
    kmask::ROWS,
    gather::ROWS,
    x87::ROWS,
    state::ROWS,
];

/// More than there are mnemonics; checked by a test.
const SPACE: usize = 2048;

static RULES: [Rule; SPACE] = {
    let mut rules = [Rule::Conservative; SPACE];
    let mut f = 0;
    while f < FAMILIES.len() {
        let mut r = 0;
        while r < FAMILIES[f].len() {
            let (names, rule) = FAMILIES[f][r];
            let mut n = 0;
            while n < names.len() {
                rules[names[n] as usize] = rule;
                n += 1;
            }
            r += 1;
        }
        f += 1;
    }
    rules
};

/// The row of an instruction.
pub fn rule(insn: &Instruction) -> Rule {
    match string::recognise(insn) {
        Some(string) => Rule::Str(string),
        None => RULES.get(insn.mnemonic() as usize).copied().unwrap_or(Rule::Conservative),
    }
}

impl Rule {
    /// Masked-off lanes of a memory source are not loaded (false for shuffles, which need them all).
    pub(crate) fn is_lanewise(self) -> bool {
        matches!(
            self,
            Rule::VMove(VMove::Full(_) | VMove::Scalar(_))
                | Rule::Logic(..)
                | Rule::Lane(..)
                | Rule::LaneShift(_, _, true)
                | Rule::Scalar(..)
                | Rule::Convert(_)
                | Rule::Compare(_)
                | Rule::Shuffle(Shuffle::BlendMask(_))
        )
    }

    /// Bytes of memory that one bit of the write mask switches on and off.
    fn guarded_bytes(self, to_memory: bool) -> Option<u8> {
        match self {
            Rule::VMove(VMove::Full(lane) | VMove::Scalar(lane))
            | Rule::Logic(_, lane)
            | Rule::Lane(_, lane)
            | Rule::LaneShift(_, lane, _)
            | Rule::Scalar(_, lane)
            | Rule::Shuffle(Shuffle::BlendMask(lane)) => Some(lane),
            Rule::Convert(op) if to_memory => op.target_lane(),
            Rule::Convert(op) => op.source_lane(),
            Rule::Compare(op) => op.lane(),
            _ => None,
        }
    }

    /// What a rule wants changed in the plan the operands alone suggest.
    pub(crate) fn adjust(self, insn: &Instruction, plan: &mut Plan) {
        if let (Some(mem), true) = (&mut plan.mem, plan.mask.is_some()) {
            mem.element = self.guarded_bytes(mem.write).unwrap_or(mem.element);
        }
        match self {
            Rule::Move(op) => plan.rule = moves::adjust(op, insn, plan),
            Rule::Control(op) => control::adjust(op, insn, plan),
            Rule::Str(_) => string::adjust(plan),
            Rule::Shift(op) => {
                let count = plan.ops.iter().rev().find(|op| **op != Operand::None).copied();
                if shift::keeps_flags(op, count.unwrap_or(Operand::None), plan.size(plan.ops[0])) {
                    plan.reads |= 1 << FLAGS;
                }
            }
            Rule::Bit(BitOp::Bt | BitOp::Bts | BitOp::Btr | BitOp::Btc) if plan.ops[0] == Operand::Mem => {
                plan.preload = false;
                plan.quick = false;
            }
            // With one count for all lanes the memory operand is that count, or the value if the count is an immediate.
            Rule::LaneShift(_, _, false) => plan.lanewise = matches!(plan.ops[2], Operand::Imm(_)),
            Rule::Flag(op) => adjust_flag_op(op, insn, plan),
            Rule::X87(op) => x87::adjust(op, insn, plan),
            Rule::Gather(_)
            | Rule::Scatter(_)
            | Rule::State(_)
            | Rule::VMove(VMove::Masked(_) | VMove::MaskedBytes)
            | Rule::Shuffle(Shuffle::Compress(_) | Shuffle::Expand(_)) => {
                // They find out themselves which memory they touch.
                plan.preload = false;
                plan.quick = false;
            }
            Rule::VMove(VMove::ZeroUpper | VMove::Direct | VMove::ZeroLine) => plan.quick = false,
            Rule::Compare(Compare::Text(..)) => plan.reads |= 1 << VEC0,
            Rule::Conservative if plan.mem.is_some_and(|mem| mem.size > 64) => plan.quick = false,
            _ => {}
        }
    }
}

fn adjust_flag_op(op: FlagOp, insn: &Instruction, plan: &mut Plan) {
    let size = insn.stack_pointer_increment().unsigned_abs() as u16;
    match op {
        FlagOp::Pushf => moves::use_stack(plan, -i64::from(size), size, false),
        FlagOp::Popf => moves::use_stack(plan, 0, size, true),
        FlagOp::Lahf => plan.reads |= 1 << 0,
        FlagOp::Complement | FlagOp::Sahf => plan.reads |= 1 << FLAGS,
    }
}

/// Interprets the rule; false if it was the conservative one.
pub(crate) fn dispatch<M: Machine>(cx: &mut Cx<M>) -> bool {
    match cx.plan.rule {
        Rule::Nop => {}
        Rule::Defined => defined(cx),
        Rule::Move(op) => moves::run(cx, op),
        Rule::Int(op) => integer::run(cx, op),
        Rule::Shift(op) => shift::run(cx, op),
        Rule::Bit(op) => bitop::run(cx, op),
        Rule::Flag(op) => flags::run(cx, op),
        Rule::Control(op) => control::run(cx, op),
        Rule::Str(s) => string::run(cx, s),
        Rule::VMove(op) => vmoves::run(cx, op),
        Rule::Logic(op, width) => lanes::run_logic(cx, op, width),
        Rule::Lane(op, width) => lanes::run_lane(cx, op, width),
        Rule::LaneShift(op, width, each) => lanes::run_shift(cx, op, width, each),
        Rule::Scalar(op, width) => lanes::run_scalar(cx, op, width),
        Rule::Mix(group, width) => lanes::run_mix(cx, group, width),
        Rule::Shuffle(op) => shuffle::run(cx, op),
        Rule::Convert(op) => convert::run(cx, op),
        Rule::Compare(op) => compare::run(cx, op),
        Rule::KMask(op, bytes) => kmask::run(cx, op, bytes),
        Rule::Gather(lane) => gather::gather(cx, lane),
        Rule::Scatter(lane) => gather::scatter(cx, lane),
        Rule::X87(op) => x87::run(cx, op),
        Rule::State(op) => state::run(cx, op),
        Rule::Conservative => {
            conservative(cx);
            return false;
        }
    }
    true
}

fn defined<M: Machine>(cx: &mut Cx<M>) {
    cx.regs.define(cx.plan.writes, cx.plan.flags_written);
    if let Some(mem) = cx.plan.mem.filter(|mem| mem.write) {
        cx.store_zeros(cx.addr, usize::from(mem.size));
    }
}

/// A memory source of more than 64 bytes, looked at piece by piece.
fn large_source_undefined<M: Machine>(cx: &mut Cx<M>) -> bool {
    let Some(mem) = cx.plan.mem.filter(|mem| mem.read && mem.size > 64) else { return false };
    for at in (0..mem.size).step_by(64) {
        let (addr, piece) = (cx.addr.wrapping_add(u64::from(at)), usize::from(mem.size - at).min(64));
        if !cx.load_v(addr, piece).is_zero() {
            cx.origin = cx.m.load_origin(addr, piece);
            return true;
        }
    }
    false
}

/// Every output undefined if any input is.
fn conservative<M: Machine>(cx: &mut Cx<M>) {
    if cx.regs.dirty & cx.plan.reads == 0 && !cx.memory_undefined() && !large_source_undefined(cx) {
        return defined(cx);
    }
    let origin = cx.origin;
    for bit in (0..64usize).filter(|bit| cx.plan.writes >> bit & 1 != 0) {
        if bit >= VEC0 {
            cx.regs.set_vec(bit - VEC0, Wide::ONES, origin);
        } else if bit >= MASK0 {
            cx.regs.set_mask(bit - MASK0, u64::MAX, origin);
        } else if bit == X87 {
            (0..8).for_each(|i| cx.regs.set_st(i, [u64::MAX, 0xFFFF], origin));
        } else if bit < FLAGS {
            cx.regs.set_gpr(bit, u64::MAX, origin);
        }
    }
    let written = cx.plan.flags_written & ARITH;
    if written != 0 {
        cx.regs.set_flags(written, written, origin);
    }
    if let Some(mem) = cx.plan.mem.filter(|mem| mem.write) {
        let mut done = 0;
        while done < usize::from(mem.size) {
            let piece = (usize::from(mem.size) - done).min(64);
            cx.store_v(cx.addr.wrapping_add(done as u64), piece, Wide::ONES);
            done += piece;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FAMILIES, RULES, Rule, SPACE};
    use iced_x86::Mnemonic;

    #[test]
    fn every_mnemonic_fits_and_no_row_hides_another() {
        assert!(Mnemonic::values().len() <= SPACE);
        for family in FAMILIES {
            for (names, rule) in *family {
                for name in *names {
                    assert_eq!(RULES[*name as usize], *rule, "{name:?} has two rows");
                }
            }
        }
        assert_eq!(RULES[Mnemonic::INVALID as usize], Rule::Conservative);
    }
}
