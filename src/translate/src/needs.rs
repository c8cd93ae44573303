//! Which questions the program will still ask of its flags: liveness by condition, not by flag.
//!
//! A comparison whose only reader is `je` need not say whether its carry is defined. Dirty mode computes the V bits of flags only as far
//! as somebody asks; what calls and returns leave in the flags, nobody does.

use crate::Program;
use crate::decode::{Item, Tail};
use crate::plan::{ARITHMETIC, killed, may_change};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, RflagsBits};

/// A set of conditions; single flags are conditions, too.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Needs(u16);

/// By the condition codes of the processor, without their last bit: the flags each condition looks at.
const LOOKS_AT: [u32; 9] = [
    RflagsBits::OF,
    RflagsBits::CF,
    RflagsBits::ZF,
    RflagsBits::CF | RflagsBits::ZF,
    RflagsBits::SF,
    RflagsBits::PF,
    RflagsBits::SF | RflagsBits::OF,
    RflagsBits::SF | RflagsBits::OF | RflagsBits::ZF,
    RflagsBits::AF,
];

/// Instructions looked at behind an exit, and branches followed there.
const STEPS: usize = 10;
const DEPTH: usize = 2;

impl Needs {
    pub const NONE: Needs = Needs(0);
    pub const OVERFLOW: Needs = Needs(1 << 0);
    pub const BELOW: Needs = Needs(1 << 1);
    pub const EQUAL: Needs = Needs(1 << 2);
    pub const BELOW_EQUAL: Needs = Needs(1 << 3);
    pub const SIGN: Needs = Needs(1 << 4);
    pub const PARITY: Needs = Needs(1 << 5);
    pub const LESS: Needs = Needs(1 << 6);
    pub const LESS_EQUAL: Needs = Needs(1 << 7);
    /// Nobody knows who asks.
    pub const ALL: Needs = Needs(0x1ff);

    pub const fn or(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }

    pub const fn has(self, some: Needs) -> bool {
        self.0 & some.0 != 0
    }

    pub const fn within(self, all: Needs) -> bool {
        self.0 & !all.0 == 0
    }

    pub const fn is_single(self) -> bool {
        self.0.is_power_of_two()
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// A condition by its code; the single flags of a set.
    fn condition(code: u8) -> Needs {
        Needs(1 << (code >> 1))
    }

    fn flags(flags: u32) -> Needs {
        let single = |i: &usize| LOOKS_AT[*i].count_ones() == 1 && flags & LOOKS_AT[*i] != 0;
        Needs((0..LOOKS_AT.len()).filter(single).fold(0, |all, i| all | 1 << i))
    }

    /// Everything that can be asked of a set of flags.
    fn questions(flags: u32) -> Needs {
        Needs((0..LOOKS_AT.len()).filter(|i| LOOKS_AT[*i] & !flags == 0).fold(0, |all, i| all | 1 << i))
    }

    /// What is left of these needs where only some flags can still answer: of a condition in part, its single flags.
    fn of(self, alive: u32) -> Needs {
        let mut left = Needs::NONE;
        for (i, looks_at) in LOOKS_AT.iter().enumerate().filter(|(i, _)| self.0 >> i & 1 != 0) {
            let whole = looks_at & !alive == 0;
            left = left.or(if whole { Needs(1 << i) } else { Needs::flags(looks_at & alive) });
        }
        left
    }
}

/// What an instruction asks itself.
fn asks(insn: &Instruction) -> Needs {
    let read = insn.rflags_read() & ARITHMETIC;
    match (read, crate::control::condition(insn.condition_code())) {
        (0, _) => Needs::NONE,
        (_, Some(code)) => Needs::condition(code),
        // fcmov and the like: their condition is in their name only.
        (flags, None) => Needs::questions(flags),
    }
}

/// For every item, what is asked behind it.
pub fn find(program: &dyn Program, items: &[Item], tail: Tail, out: &mut alloc::vec::Vec<Needs>) {
    out.clear();
    out.resize(items.len(), Needs::ALL);
    let mut live = match tail {
        Tail::Next(pc) => ahead(program, pc, DEPTH),
        Tail::Invalid(_) => Needs::ALL,
        Tail::Control => items.last().map_or(Needs::ALL, |last| behind(program, &last.insn)),
    };
    for (item, after) in items.iter().zip(out.iter_mut()).rev() {
        let insn = &item.insn;
        *after = live;
        if insn.flow_control() == FlowControl::ConditionalBranch {
            live = live.or(ahead(program, item.aside(), DEPTH));
        }
        live = if item.client_request { Needs::ALL } else { live.of(!killed(insn)).or(asks(insn)) };
    }
}

/// Asked behind the control transfer that ends a region.
fn behind(program: &dyn Program, insn: &Instruction) -> Needs {
    match insn.flow_control() {
        FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => ahead(program, insn.near_branch_target(), DEPTH),
        FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return => Needs::NONE,
        _ => Needs::ALL,
    }
}

/// Asked by the code at `pc` and where it leads.
fn ahead(program: &dyn Program, pc: u64, depth: usize) -> Needs {
    if may_change(program, pc, STEPS) {
        return Needs::ALL;
    }
    let Some(code) = program.code(pc) else { return Needs::NONE };
    let mut decoder = Decoder::with_ip(64, code, pc, DecoderOptions::NONE);
    let (mut found, mut alive) = (Needs::NONE, ARITHMETIC);
    for _ in 0..STEPS {
        let insn = decoder.decode();
        if insn.is_invalid() {
            break;
        }
        found = found.or(asks(&insn).of(alive));
        match insn.flow_control() {
            FlowControl::Next => {}
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return => return found,
            FlowControl::ConditionalBranch if depth > 0 => found = found.or(ahead(program, insn.near_branch_target(), depth - 1).of(alive)),
            FlowControl::UnconditionalBranch if depth > 0 && insn.op0_kind() == OpKind::NearBranch64 => {
                return found.or(ahead(program, insn.near_branch_target(), depth - 1).of(alive));
            }
            _ => break,
        }
        alive &= !killed(&insn);
        if alive == 0 {
            return found;
        }
    }
    found.or(Needs::ALL.of(alive))
}
