//! Conditions on flags, and the instructions that do nothing but flags.
//!
//! Definedness is kept per flag. A condition made of several flags is undefined if some way of choosing the undefined flags changes
//! it, except where the comparison that set them left a refinement ([`crate::regs::KNOWN_BE`] and its sisters): flags that come
//! from one comparison are not independent of each other.

use iced_x86::ConditionCode;

use crate::cx::Cx;
use crate::machine::Machine;
use crate::regs::{ARITH, CF, KNOWN_BE, KNOWN_L, KNOWN_LE, OF, PF, SF, ShadowRegs, ZF};

/// The flags a condition looks at and the refinement that may know better.
fn looks_at(condition: ConditionCode) -> (u64, u64) {
    use ConditionCode as C;
    match condition {
        C::o | C::no => (OF, 0),
        C::b | C::ae => (CF, 0),
        C::e | C::ne => (ZF, 0),
        C::be | C::a => (CF | ZF, KNOWN_BE),
        C::s | C::ns => (SF, 0),
        C::p | C::np => (PF, 0),
        C::l | C::ge => (SF | OF, KNOWN_L),
        C::le | C::g => (SF | OF | ZF, KNOWN_LE),
        _ => (0, 0),
    }
}

/// Does the condition hold for these concrete flags?
pub fn holds(condition: ConditionCode, flags: u64) -> bool {
    use ConditionCode as C;
    let is = |flag: u64| flags & flag != 0;
    match condition {
        C::o => is(OF),
        C::no => !is(OF),
        C::b => is(CF),
        C::ae => !is(CF),
        C::e => is(ZF),
        C::ne => !is(ZF),
        C::be => is(CF | ZF),
        C::a => !is(CF | ZF),
        C::s => is(SF),
        C::ns => !is(SF),
        C::p => is(PF),
        C::np => !is(PF),
        C::l => is(SF) != is(OF),
        C::ge => is(SF) == is(OF),
        C::le => is(ZF) || is(SF) != is(OF),
        C::g => !is(ZF) && is(SF) == is(OF),
        _ => true,
    }
}

/// Is the condition undefined, given V bits of the flags and their concrete values?
pub fn condition_v(condition: ConditionCode, v: u64, rflags: u64) -> bool {
    let (flags, refinement) = looks_at(condition);
    let open = v & flags;
    if open == 0 || v & refinement != 0 {
        return false;
    }
    let first = holds(condition, rflags);
    let mut subset = open;
    while subset != 0 {
        if holds(condition, rflags ^ subset) != first {
            return true;
        }
        subset = (subset - 1) & open;
    }
    false
}

/// The same for a whole shadow.
pub fn is_condition_undefined(condition: ConditionCode, regs: &ShadowRegs, rflags: u64) -> bool {
    condition_v(condition, regs.flags(), rflags)
}

/// What a comparison of floating-point numbers leaves undefined, and nothing else does: one answer in three flags.
const COMPARED_NUMBERS: u64 = CF | PF | ZF;

/// After a branch was complained about. Other branches on the same flags ask something else, as those of a switch do, and are reported
/// as well, unless the condition was `excused`. Equality of floating-point numbers takes two jumps (on PF and ZF), but is one report.
pub fn settle(condition: ConditionCode, regs: &mut ShadowRegs, excused: bool) {
    let flags = match regs.flags() & ARITH {
        COMPARED_NUMBERS => COMPARED_NUMBERS,
        _ if excused => looks_at(condition).0,
        _ => 0,
    };
    regs.define(0, flags);
}

/// Instructions on flags alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagOp {
    /// CF becomes its opposite: V stays.
    Complement,
    /// Flags into ah.
    Lahf,
    /// ah into the flags.
    Sahf,
    Pushf,
    Popf,
}

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: FlagOp) {
    match op {
        FlagOp::Complement => cx.regs.set_flags(0, 0, cx.flags_origin()),
        FlagOp::Lahf => {
            let v = cx.regs.gpr(0) & !0xFF00 | (cx.regs.flags() & ARITH & 0xFF) << 8;
            cx.regs.set_gpr(0, v, cx.origin);
        }
        FlagOp::Sahf => {
            let v = cx.regs.gpr(0) >> 8 & ARITH & 0xFF;
            cx.regs.set_flags(ARITH & 0xFF, v, cx.origin);
        }
        FlagOp::Pushf => {
            let v = cx.regs.flags() & ARITH;
            cx.set(crate::plan::Operand::Mem, v);
        }
        FlagOp::Popf => {
            let v = cx.v(crate::plan::Operand::Mem) & ARITH;
            cx.regs.set_flags(ARITH, v, cx.origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{condition_v, holds};
    use crate::regs::{CF, KNOWN_BE, ZF};
    use iced_x86::ConditionCode as C;

    #[test]
    fn one_known_flag_may_settle_it() {
        assert!(condition_v(C::be, CF, 0), "CF decides while ZF is known to be 0");
        assert!(!condition_v(C::be, CF, ZF), "ZF = 1 settles be");
        assert!(!condition_v(C::be, CF | ZF | KNOWN_BE, 0));
        assert!(condition_v(C::e, ZF | KNOWN_BE, 0), "a refinement speaks of its own condition only");
        assert!(holds(C::a, 0) && !holds(C::a, ZF));
    }
}
