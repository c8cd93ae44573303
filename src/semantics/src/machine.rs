//! What the rules ask of their surroundings: concrete values before the instruction, shadow memory, and someone to complain to.

use crate::regs::ShadowRegs;
use crate::wide::Wide;

/// Which of the two segment bases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    Fs,
    Gs,
}

/// What was undefined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComplaintKind {
    /// "Conditional jump or move depends on uninitialised value(s)": a branch on flags. The only kind for which
    /// [`crate::lookahead::same_way`] may find an excuse.
    Branch,
    /// The same headline for a count (`rep`, `jrcxz`, `loop`) or the guard of a masked load or store.
    Cond,
    /// "Use of uninitialised value of size N": an address; `size` is 8.
    Value { size: u8 },
    /// The same headline: target of an indirect jump, call or return.
    Target,
}

/// Raised before the instruction has any effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Complaint {
    pub kind: ComplaintKind,
    /// Origin tag of the undefined bits; 0 if unknown.
    pub origin: u32,
    /// Of a value that is part of an address: the general registers with undefined bits, as a mask; otherwise 0.
    pub registers: u64,
}

/// The thread before the instruction, and the two memories.
///
/// Register numbers are those of the encoding. All methods but `complain` must be cheap; the rules call them only when an
/// undefined bit is around.
pub trait Machine {
    /// All 64 bits of a general register.
    fn gpr(&self, index: usize) -> u64;
    fn rflags(&self) -> u64;
    /// All that the processor has of zmm`index`; the rest zero.
    fn vec(&self, index: usize) -> Wide;
    fn kmask(&self, index: usize) -> u64;
    /// MMX register: the significand of the *physical* x87 register.
    fn mm(&self, index: usize) -> u64;
    /// TOP of the x87 status word, 0 to 7.
    fn x87_top(&self) -> u8;
    fn segment_base(&self, segment: Segment) -> u64;
    /// Offset of a state component in the standard (not compacted) xsave area: CPUID leaf 0xD, sub-leaf `component`, EBX.
    fn xstate_offset(&self, component: u32) -> u32;
    /// The state components that the system has enabled (XCR0): no others are saved, or have a place in a compacted area.
    fn xcr0(&self) -> u64;

    /// Copies concrete bytes. `false` if they cannot be read: the instruction is about to fault and its shadow effect is dropped.
    fn load(&mut self, addr: u64, out: &mut [u8]) -> bool;
    /// Copies V bytes. Addressability is the callee's business: an unaddressable byte reads as defined, after its own report.
    fn load_v(&mut self, addr: u64, out: &mut [u8]);
    /// The same for one little-endian word of 1, 2, 4 or 8 bytes: the commonest access by far, worth overriding.
    #[inline]
    fn load_v_word(&mut self, addr: u64, size: usize) -> u64 {
        let mut buffer = [0; 8];
        self.load_v(addr, &mut buffer[..size.min(8)]);
        u64::from_le_bytes(buffer)
    }
    /// Stores V bytes; `origin` matters only if some bit of `v` is set.
    fn store_v(&mut self, addr: u64, v: &[u8], origin: u32);
    #[inline]
    fn store_v_word(&mut self, addr: u64, size: usize, v: u64, origin: u32) {
        self.store_v(addr, &v.to_le_bytes()[..size.min(8)], origin);
    }
    /// Origin tag of the undefined bits in a range; asked only if there are any.
    fn load_origin(&mut self, addr: u64, len: usize) -> u32;

    /// `regs` is the shadow as it was when the guilty value was found. Returns the registers of [`Complaint::registers`] that count as
    /// defined from now on; for a branch, anything but 0 if its flags do.
    fn complain(&mut self, complaint: Complaint, regs: &ShadowRegs) -> u64;
}

/// What one instruction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// False: no row of its own, the conservative rule was used *and* undefined bits were involved.
    pub exact: bool,
    /// No register carries an undefined bit now.
    pub clean: bool,
    /// A concrete operand could not be read; nothing was changed.
    pub fault: bool,
}
