//! Origins of undefined values in frames.
//!
//! On the heap an origin can wait: a register remembers where it was loaded from, a stored word how far it is to where its bytes came from.
//! A frame is gone soon, so there the origin is asked for at once, and for words that are stored it is noted whose frame they lie in. Both
//! take a look at the calls in progress, which two routines of the runtime do without saving the registers:
//!
//! ```text
//! load     p on the stack?  frame_origin: tag, or another place (on the heap) that will know     -> the register's origin
//! store    p on the stack?  frame_note                                                            -> words as on the heap
//! ```
//! What they do not find out they leave to the rule.

use crate::emit::{CC_AE, CC_B, CC_E, CC_NE, Mem};
use crate::emitter::Emitter;
use crate::rules::encode::Alu;
use crate::{SHADOW_REGS, shadow_layout as layout};
use alloc::vec::Vec;
use memcheck_abi::context::offset;

impl Emitter<'_> {
    /// Jumps from where `p` is not on the stack of the thread.
    fn unless_on_stack(&mut self, p: u8) -> [usize; 2] {
        self.asm.op_mem(None, true, &[0x3b], p, &Mem::ctx(offset::STACK_LOW));
        let below = self.asm.jcc_forward(CC_B);
        self.asm.op_mem(None, true, &[0x3b], p, &Mem::ctx(offset::STACK_HIGH));
        [below, self.asm.jcc_forward(CC_AE)]
    }

    /// Undefined bytes at `p` are loaded: if they lie in a frame, find out where they came from; to `not` if that fails. Uses `a`.
    pub fn ask_frame(&mut self, p: u8, a: u8, not: &mut Vec<usize>) {
        let elsewhere = self.unless_on_stack(p);
        self.call_for_frame(self.t.stubs.frame_origin, p, a, not);
        for at in elsewhere {
            self.asm.patch_here(at);
        }
    }

    /// Origin words of `size` bytes at `p` will be written: if they lie in a frame, note whose. Uses `a`.
    pub fn note_frame(&mut self, p: u8, size: u32, a: u8, not: &mut Vec<usize>) {
        let elsewhere = self.unless_on_stack(p);
        self.asm.store_imm(&Mem::ctx(offset::FRAME_WORDS), 8, size.div_ceil(4) as i32);
        self.call_for_frame(self.t.stubs.frame_note, p, a, not);
        for at in elsewhere {
            self.asm.patch_here(at);
        }
    }

    fn call_for_frame(&mut self, routine: u64, p: u8, a: u8, not: &mut Vec<usize>) {
        self.asm.store(&Mem::ctx(offset::FRAME_ADDRESS), p);
        if !self.shared {
            self.asm.store_const(&Mem::ctx(offset::FRAME_PC), self.item.pc);
        }
        let back = self.asm.lea_forward(a);
        self.asm.store(&Mem::ctx(offset::FRAME_BACK), a);
        self.asm.jmp(routine);
        self.asm.patch_here(back);
        self.asm.cmp_zero(&Mem::ctx(offset::FRAME_KNOWN), 8);
        not.push(self.asm.jcc_forward(CC_E));
    }

    /// A register gets the origin of the undefined bytes at `p`, which `ask_frame` has seen. Uses `a`.
    pub fn origin_from(&mut self, bit: u32, p: u8, a: u8) {
        let elsewhere = self.unless_on_stack(p);
        self.asm.load(a, &Mem::ctx(offset::FRAME_PLACE));
        self.asm.alu(Alu::Test, 8, a, a);
        let moved = self.asm.jcc_forward(CC_NE);
        self.asm.load_zx(a, &Mem::ctx(offset::FRAME_TAG), 4);
        self.asm.store_sized(&Mem::ctx(SHADOW_REGS + layout::ORIGIN + 4 * bit as i32), a, 4);
        self.clear_bit(layout::LAZY, bit);
        let out = self.asm.jmp_forward();
        let place = Mem::ctx(SHADOW_REGS + layout::PLACE + 8 * bit as i32);
        self.asm.patch_here(moved);
        self.asm.store(&place, a);
        let lazy = self.asm.jmp_forward();
        for at in elsewhere {
            self.asm.patch_here(at);
        }
        self.asm.store(&place, p);
        self.asm.patch_here(lazy);
        self.make_lazy(bit);
        self.asm.patch_here(out);
    }
}
