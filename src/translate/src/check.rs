//! Checks: are the shadow bytes of an access zero, that is, is it plainly addressable and (for loads) defined?
//!
//! ```text
//! cmp n gs:[operand], 0 ; jne cold          one compare for 1, 2, 4, 8 bytes
//! load, or, or ... ; jne cold               several words (`check_wide`), or one vector test with private registers
//! movzx ecx, gs:[operand] ; jrcxz ; jmp     where flags are live
//! test n gs:[operand], bits ; jne cold      where only some bits matter (`bits`)
//! ```
//! What was checked or defined is known until one of the operand's registers changes, and not asked again. Stores to the stack above its
//! red zone are never asked, only made defined.

use crate::emit::{CC_NE, Mem, RAX, RBP, RCX, RSP};
use crate::emitter::{Emitter, spill};
use crate::kinds::mark;
use crate::{LOAD, STORE, slot};
use iced_x86::Mnemonic;

/// Checked operands remembered at a time.
const MAX_KNOWN: usize = 12;

impl Emitter<'_> {
    /// An operand in a scratch register is never: what is known of that register is known of the program's own value.
    pub fn is_known(&self, mem: &Mem, size: u32) -> bool {
        if self.passing {
            return false;
        }
        let inside =
            |known: &Mem, n: u32| mem.disp >= known.disp && i64::from(mem.disp) + i64::from(size) <= i64::from(known.disp) + i64::from(n);
        let same = |known: &Mem| known.base == mem.base && known.index == mem.index && known.addr32 == mem.addr32;
        self.known.iter().any(|(known, n)| same(known) && inside(known, *n))
    }

    /// From here on the V bytes are zero: a check that finds something else leaves for dirty code, and does not come back to this.
    pub fn learn(&mut self, mem: &Mem, size: u32) {
        if self.shadow.is_some() || self.passing || size > 64 || self.item.bits != 0 {
            return;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.remove(0);
        }
        self.known.push((*mem, size));
    }

    /// What the instruction just emitted makes of that knowledge.
    pub fn forget(&mut self) {
        if self.item.client_request || self.item.marks & mark::SPECIAL != 0 && self.item.insn.is_string_instruction() {
            self.known.clear();
        }
        if self.known.is_empty() {
            return;
        }
        let written = self.t.kinds.written(&self.item.insn);
        if written == 0 {
            return;
        }
        let touched = |r: Option<u8>| r.is_some_and(|r| written >> r & 1 != 0);
        self.known.retain(|(m, _)| !touched(m.base) && !touched(m.index.map(|(r, _)| r)));
    }

    /// Does the operand lie on the stack above its red zone, for certain? A store there need not ask.
    fn is_on_stack(&self, mem: &Mem) -> bool {
        let lowest = match mem.base {
            Some(RSP) => Some(-128),
            Some(RBP) => self.frame.map(|frame| -128 - frame),
            _ => None,
        };
        !self.passing && mem.index.is_none() && !mem.addr32 && lowest.is_some_and(|lowest| mem.disp >= lowest)
    }

    /// Check an access of `size` bytes at `mem`.
    pub fn check(&mut self, mem: &Mem, size: u32, kind: u32) {
        if size == 0 || self.tested || self.covered || self.copied(mem) {
            return;
        }
        if let Some(p) = self.pending.as_mut().filter(|p| p.open) {
            p.memory = Some((*mem, size));
        }
        if kind != STORE && self.pending.is_some() {
            return self.test_memory(mem, size);
        }
        if mem.base.is_none() && mem.index.is_none() && kind == LOAD && self.program.is_constant(mem.disp as i64 as u64) {
            return;
        }
        if self.is_known(mem, size) {
            return;
        }
        let on_stack = self.is_on_stack(mem) && !self.t.options.ask_on_stack;
        let unasked = on_stack && kind == LOAD && !self.t.options.undef;
        let (mem, size) = match self.item.covers {
            Some((disp, size)) if kind == LOAD && !unasked && !self.passing => (&Mem { disp, ..*mem }, size),
            _ => (mem, size),
        };
        self.learn(mem, size);
        if on_stack && kind == STORE && size <= 64 {
            return self.define(mem, size);
        }
        if unasked {
            return;
        }
        let pieces = pieces(size);
        if pieces.is_empty() {
            self.asm.jmp(self.cold.here());
            self.check_stub(false, mem, size, kind);
        } else if self.item.flags_live {
            self.check_keeping_flags(mem, size, kind, &pieces);
        } else if self.item.insn.mnemonic() == Mnemonic::Pop {
            // The stores that these bytes come from are cut otherwise, and no processor puts a vector together from several of them while
            // they are on their way: it waits until they are in the cache.
            if pieces.len() >= 3 { self.check_words(mem, size, kind, &pieces) } else { self.check_pieces(mem, size, kind, &pieces) }
        } else if self.t.options.private_vectors && (size == 16 || size > 16 && self.item.covers.is_some()) {
            self.check_private(mem, size, kind);
        } else if (9..16).contains(&size) && self.item.covers.is_some() {
            self.check_pieces(mem, size, kind, &[(0, 8), (size as i32 - 8, 8)]);
        } else if pieces.len() >= 3 {
            self.check_wide(mem, size, kind, &pieces);
        } else {
            self.check_pieces(mem, size, kind, &pieces);
        }
    }

    fn check_pieces(&mut self, mem: &Mem, size: u32, kind: u32, pieces: &[(i32, u32)]) {
        for &(at, n) in pieces {
            match self.item.bits {
                0 => self.asm.cmp_zero(&mem.shadow(at), n),
                bits => self.asm.test_bits(&mem.shadow(at), n.min(4), bits),
            }
            self.asm.jcc(CC_NE, self.cold.here());
        }
        self.check_stub(false, mem, size, kind);
    }

    /// Several words: a vector test, or word by word.
    fn check_wide(&mut self, mem: &Mem, size: u32, kind: u32, pieces: &[(i32, u32)]) {
        if self.t.options.private_vectors && matches!(size, 16 | 32 | 48 | 64) {
            self.check_private(mem, size, kind);
        } else {
            self.check_words(mem, size, kind, pieces);
        }
    }

    /// Several words: or them together in a register, the smallest first: the flags are those of the last `or`, which must be of all bits.
    fn check_words(&mut self, mem: &Mem, size: u32, kind: u32, pieces: &[(i32, u32)]) {
        let r = [RCX, 2, RAX].into_iter().find(|&r| !mem.uses(r)).unwrap_or(6);
        self.asm.store(&spill(slot::RCX), r);
        debug_assert!(pieces.is_sorted_by(|a, b| a.1 >= b.1), "the largest piece comes first");
        let Some((&(at, n), larger)) = pieces.split_last() else { return };
        self.asm.load_zx(r, &mem.shadow(at), n);
        for &(at, n) in larger.iter().rev() {
            let opcode: &[u8] = if n == 1 { &[0x0a] } else { &[0x0b] };
            let prefix = (n == 2).then_some(0x66);
            self.asm.op_mem(prefix, n == 8, opcode, r, &mem.shadow(at));
        }
        self.asm.load(r, &spill(slot::RCX));
        self.asm.jcc(CC_NE, self.cold.here());
        self.check_stub(false, mem, size, kind);
    }

    /// The same with one vector test or two, which may overlap.
    fn check_private(&mut self, mem: &Mem, size: u32, kind: u32) {
        let n = [64, 32, 16].into_iter().find(|&n| n <= size).unwrap_or(16);
        self.asm.test_wide(&mem.shadow(0), n);
        self.asm.jcc(CC_NE, self.cold.here());
        if n < size {
            self.asm.test_wide(&mem.shadow((size - n) as i32), n);
            self.asm.jcc(CC_NE, self.cold.here());
        }
        self.check_stub(false, mem, size, kind);
    }

    fn check_keeping_flags(&mut self, mem: &Mem, size: u32, kind: u32, pieces: &[(i32, u32)]) {
        self.asm.store(&spill(slot::RCX), RCX);
        for (i, &(at, n)) in pieces.iter().enumerate() {
            if i > 0 && mem.uses(RCX) {
                self.asm.load(RCX, &spill(slot::RCX));
            }
            self.asm.load_zx(RCX, &mem.shadow(at), n);
            let clean = self.asm.jrcxz_forward();
            self.asm.jmp(self.cold.here());
            self.asm.patch8_here(clean);
        }
        self.asm.load(RCX, &spill(slot::RCX));
        self.check_stub(true, mem, size, kind);
    }

    /// Fill shadow bytes at `mem` (a gs operand) with ones or zeros from the private registers. Where the displacement is `even` the address is
    /// most often a multiple of 16: vectors are laid from there on, as a store that crosses a page costs as much as forty others.
    pub fn fill_wide(&mut self, mem: &Mem, size: u32, ones: bool, even: i32) {
        let end = mem.disp + size as i32;
        let mut at = mem.disp;
        while at < end {
            let left = (end - at) as u32;
            let to_even = (even - at).rem_euclid(16) as u32;
            let here = Mem { disp: at, ..*mem };
            let n = if to_even == 0 && left >= 16 {
                let n = [64, 32].into_iter().find(|&n| n <= left).unwrap_or(16);
                self.asm.store_wide(&here, ones, n);
                n
            } else {
                let most = if to_even == 0 { left } else { left.min(to_even) };
                let n = [8, 4, 2].into_iter().find(|&n| n <= most).unwrap_or(1);
                self.asm.store_imm(&here, n, if ones { -1 } else { 0 });
                n
            };
            at += n as i32;
        }
    }

    /// Mark bytes defined without asking.
    pub fn define(&mut self, mem: &Mem, size: u32) {
        self.define_from(mem, size, mem.disp);
    }

    /// The same, with the displacement at which the address is most often a multiple of 16.
    pub fn define_from(&mut self, mem: &Mem, size: u32, even: i32) {
        if self.t.options.private_vectors && size >= 16 && size.is_multiple_of(8) {
            return self.fill_wide(&mem.shadow(0), size, false, even);
        }
        for &(at, n) in pieces(size).iter() {
            self.asm.store_imm(&mem.shadow(at), n, 0);
        }
    }
}

/// Cut a size into words that one compare can take; empty for sizes that the slow check does whole.
pub fn pieces(size: u32) -> Pieces {
    let mut out = Pieces { list: [(0, 0); Pieces::MOST], count: 0 };
    if size > 64 {
        return out;
    }
    let mut at = 0;
    while at < size {
        let n = [8, 4, 2, 1].into_iter().find(|n| at + n <= size).unwrap_or(1);
        out.list[out.count] = (at as i32, n);
        out.count += 1;
        at += n;
    }
    out
}

/// Offset and size of words. Most accesses have one: no list is allocated for it.
pub struct Pieces {
    list: [(i32, u32); Pieces::MOST],
    count: usize,
}

impl Pieces {
    /// Of 63 bytes.
    const MOST: usize = 10;
}

impl core::ops::Deref for Pieces {
    type Target = [(i32, u32)];

    fn deref(&self) -> &[(i32, u32)] {
        &self.list[..self.count]
    }
}
