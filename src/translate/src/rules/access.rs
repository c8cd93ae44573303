//! May this memory be touched? For bytes some of which have V bits: undefined, or not addressable.
//!
//! ```text
//! heap      the A bits say so
//! elsewhere the A bits, not below the stack pointer, and not at the very end of the program's space (which has no origin words)
//! ```

use super::encode::{Alu, Turn};
use crate::emit::{CC_AE, CC_E, CC_GE, CC_NE, Mem, RSP, Seg};
use crate::emitter::Emitter;
use alloc::vec::Vec;
use memcheck_abi::context::offset;
use memcheck_abi::layout::{A_BASE, HEAP_END, HEAP_START, PROGRAM_END, RED_ZONE, RETURN_MARK, SIGNAL_MARK};

/// The heap's size is a power of two.
const HEAP_BITS: u8 = (HEAP_END - HEAP_START).trailing_zeros() as u8;
const _: () = assert!((HEAP_END - HEAP_START).is_power_of_two() && HEAP_START.is_multiple_of(8));

impl Emitter<'_> {
    /// In a loop that has found these bytes in order already: `p` = address of the operand, and as below. Uses `a`. False: somewhere else.
    pub(super) fn reached_address(&mut self, mem: &Mem, size: u32, p: u8, a: u8, no_origin: bool, not: &mut Vec<usize>) -> bool {
        let reached = self.is_reached(mem, size);
        if reached {
            self.asm.lea(p, mem);
            if !no_origin {
                self.ask_frame(p, a, not);
            }
        }
        reached
    }

    /// `p` = address of the operand; to `not` unless all its bytes may be accessed. If they lie in a frame, what is undefined there is asked
    /// for its origin, unless that does not matter (`no_origin`).
    /// Uses `a` and `c`.
    pub(crate) fn ordinary_address(&mut self, mem: &Mem, size: u32, p: u8, [a, c]: [u8; 2], no_origin: bool, not: &mut Vec<usize>) {
        let asm = &mut self.asm;
        asm.lea(p, mem);
        // Below all stacks, and none of the bytes around is out of bounds.
        asm.op_mem(None, true, &[0x3b], p, &Mem::ctx(offset::STACK_LOW));
        let high = asm.jcc_forward(CC_AE);
        asm.mov(c, p);
        asm.turn(Turn::Shr, 8, c, 3);
        asm.mov_const(a, A_BASE);
        asm.cmp_zero(&Mem { index: Some((c, 0)), ..Mem::base(a, 0) }, if size <= 8 { 2 } else { 8 });
        let plain = asm.jcc_forward(CC_E);
        asm.patch_here(high);
        asm.mov_const(c, HEAP_START.wrapping_neg());
        asm.alu(Alu::Add, 8, c, p);
        asm.mov(a, c);
        asm.turn(Turn::Shr, 8, a, HEAP_BITS);
        let elsewhere = asm.jcc_forward(CC_NE);
        // Stacks of coroutines lie in the heap.
        asm.op_mem(None, true, &[0x3b], p, &Mem::ctx(offset::STACK_LOW));
        let stack = asm.jcc_forward(CC_AE);
        let bits = asm.offset();
        asm.turn(Turn::Sar, 8, c, 3);
        asm.mov_const(a, A_BASE + HEAP_START / 8);
        asm.load(a, &Mem { index: Some((c, 0)), ..Mem::base(a, 0) });
        asm.alu(Alu::Mov, 4, c, p);
        asm.alu_imm(Alu::And, 4, c, 7);
        asm.shift_by(3, true, a, a, c);
        asm.alu_imm(Alu::Test, 4, a, if size >= 32 { -1 } else { (1 << size) - 1 });
        not.push(asm.jcc_forward(CC_NE));
        let done = asm.jmp_forward();
        asm.patch_here(elsewhere);
        asm.patch_here(stack);
        asm.mov(a, p);
        asm.turn(Turn::Shr, 8, a, 21);
        asm.alu_imm(Alu::Cmp, 8, a, (PROGRAM_END >> 21) as i32 - 1);
        not.push(asm.jcc_forward(CC_AE));
        asm.lea(a, &Mem::base(RSP, -(RED_ZONE as i32)));
        asm.alu(Alu::Cmp, 8, p, a);
        let above = asm.jcc_forward(CC_AE);
        asm.op_mem(None, true, &[0x3b], p, &Mem::ctx(offset::STACK_LOW));
        not.push(asm.jcc_forward(CC_AE));
        asm.patch_here(above);
        let back = asm.jmp_forward();
        asm.patch_to(back, bits);
        asm.patch_here(done);
        if !no_origin {
            self.ask_frame(p, a, not);
        }
        self.asm.patch_here(plain);
    }

    /// None of the slots around the bytes at `p`, at most 16, may hold a return address, `v` being their V bits (of two words those that both
    /// have). Uses `c`.
    pub(crate) fn no_mark_in(&mut self, v: u8, size: u32, p: u8, c: u8, not: &mut Vec<usize>) {
        // Undefined through and through, as most are.
        self.asm.alu_imm(Alu::Cmp, size.min(8), v, -1);
        let plain = self.asm.jcc_forward(CC_E);
        self.asm.mov(c, p);
        self.asm.alu_imm(Alu::And, 8, c, -8);
        self.no_mark_at(c, 0, not);
        if size > 8 {
            self.no_mark_at(c, 8, not);
        }
        // Does it reach into the next slot?
        let whole = if size > 8 { 8 } else { 0 };
        self.asm.alu(Alu::Sub, 8, c, p);
        self.asm.alu_imm(Alu::Cmp, 8, c, size as i32 - 8 - whole);
        let inside = self.asm.jcc_forward(CC_GE);
        self.asm.alu(Alu::Add, 8, c, p);
        self.no_mark_at(c, 8 + whole, not);
        self.asm.patch_here(inside);
        self.asm.patch_here(plain);
    }

    fn no_mark_at(&mut self, c: u8, at: i32, not: &mut Vec<usize>) {
        for mark in [RETURN_MARK, SIGNAL_MARK] {
            self.asm.op_mem(None, false, &[0x81], 7, &Mem { seg: Seg::Gs, ..Mem::base(c, at) });
            self.asm.u32(mark as u32);
            not.push(self.asm.jcc_forward(CC_E));
        }
    }
}
