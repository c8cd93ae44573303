//! Results of a loop's last rules that are still in a register.
//!
//! The V slot of a register is written by one instruction's rule and read by the next one's: a chain of values that go through memory would
//! be most of a round. Registers that are the loop's own keep their values between rules, so what was just written is taken from there.
//!
//! ```text
//! general   from the end of a rule to the first scratch register that a later rule writes (`mark`: nothing else was emitted)
//! vectors   likewise; rules read all of their operands first
//! ```

use crate::emitter::Emitter;
use crate::shadow_layout as layout;

/// A register by its bit in the mask, and who holds its V bits: what its slot says, all of it.
#[derive(Clone, Copy, Default)]
pub struct Held {
    general: Option<(u32, u8)>,
    vector: Option<(u32, u8)>,
    /// Up to here nothing has written to a scratch register.
    mark: usize,
    /// Where the vector register was last written.
    written: usize,
}

impl Emitter<'_> {
    pub(super) fn rule_begins(&mut self) {
        let here = self.asm.offset();
        if let Some(l) = &mut self.loops {
            l.held.mark = here;
        }
    }

    /// What scratch registers hold after a rule that began at `start`; `vectors`: it uses those, too.
    pub(super) fn rule_ends(&mut self, start: usize, vectors: bool) {
        let here = self.asm.offset();
        let Some(Held { general, vector, mark, written }) = self.loops.as_mut().map(|l| &mut l.held) else { return };
        if *mark != here {
            *general = None;
        }
        if vectors && *written <= start {
            *vector = None;
        }
    }

    /// The slot of `bit` was just written from this register.
    pub(crate) fn hold(&mut self, bit: u32, register: u8) {
        let here = self.asm.offset();
        let own = if bit < layout::VEC0 { self.free_registers() } else { self.free_vectors() } >> register & 1 != 0;
        let Some(held) = self.loops.as_mut().map(|l| &mut l.held) else { return };
        let now = own.then_some((bit, register));
        if bit < layout::VEC0 {
            (held.general, held.mark) = (now, here);
        } else {
            (held.vector, held.written) = (now, here);
        }
    }

    /// Who holds the V bits of `bit`.
    pub(crate) fn holder(&self, bit: u32) -> Option<u8> {
        let held = &self.loops.as_ref()?.held;
        let found = if bit >= layout::VEC0 { held.vector } else { held.general.filter(|_| held.mark == self.asm.offset()) };
        found.filter(|found| found.0 == bit).map(|found| found.1)
    }

    /// The code since `start` has written to the scratch register `register` and no other.
    pub(crate) fn writes_scratch(&mut self, register: u8, start: usize) {
        let here = self.asm.offset();
        let Some(held) = self.loops.as_mut().map(|l| &mut l.held) else { return };
        if held.mark == start {
            held.mark = here;
        }
        held.general = held.general.filter(|held| held.1 != register);
    }

    pub(crate) fn writes_vector(&mut self, register: u8) {
        if let Some(l) = &mut self.loops {
            l.held.vector = l.held.vector.filter(|held| held.1 != register);
        }
    }
}
