//! Origin words: what a store of undefined bytes leaves for who asks where they came from.
//!
//! Of a register the tag is known, or only the place that it was loaded from. A store writes the tag, or the distance to that place, or to
//! where the place's own bytes came from:
//!
//! ```text
//! origin word: 0 look at the place itself | kind != 0 a tag | kind 0: (source - target) & !3, a signed distance to another place
//! ```
//! Frames are gone soon; see `frames` for origins there.

use crate::emit::{CC_E, CC_NE, Mem};
use crate::emitter::Emitter;
use crate::moves::Reg;
use crate::rules::encode::{Alu, Turn};
use crate::shadow_layout as layout;
use alloc::vec::Vec;
use memcheck_abi::layout::{ORIGIN_DISTANCE, ORIGIN_MAP, ORIGIN_PAGES};

impl Emitter<'_> {
    /// Origin words of the target at the address in `p`, where its bytes are undefined. Uses `a` and `c`.
    pub fn store_origin(&mut self, from: Reg, size: u32, [p, a, c]: [u8; 3], not: &mut Vec<usize>) {
        self.asm.alu_imm(Alu::Test, 4, p, 3);
        not.push(self.asm.jcc_forward(CC_NE));
        let mut lazy = Vec::new();
        self.branch_if_any(layout::LAZY, 1 << from.bit(), &mut lazy);
        self.asm.load_zx(a, &from.origin(), 4);
        self.asm.alu(Alu::Test, 4, a, a);
        let none = self.asm.jcc_forward(CC_E);
        self.note_frame(p, size, c, not);
        self.origin_words(from, size, [p, a, c], |_, _| {});
        let done = self.asm.jmp_forward();
        for at in lazy {
            self.asm.patch_here(at);
        }
        // Changed in place: what is known there still holds.
        self.asm.op_mem(None, true, &[0x3b], p, &from.place());
        let same = self.asm.jcc_forward(CC_E);
        self.note_frame(p, size, c, not);
        let (alike, unlike) = if size >= 8 { self.origin_words_of_block(from, size, [p, a, c], not) } else { (None, Vec::new()) };
        for at in unlike {
            self.asm.patch_here(at);
        }
        self.origin_words(from, size, [p, a, c], |e, at| e.origin_of_place(from, at, [p, a, c], not));
        if let Some(alike) = alike {
            self.asm.patch_here(alike);
        }
        self.asm.patch_here(done);
        self.note_origin_page([p, a, c]);
        self.asm.patch_here(none);
        self.asm.patch_here(same);
    }

    /// For each of the target's words with undefined bytes: what is in `a` after `find`, which is given the word's offset.
    fn origin_words(&mut self, from: Reg, size: u32, [p, a, c]: [u8; 3], mut find: impl FnMut(&mut Self, u32)) {
        for at in (0..size.max(4)).step_by(4) {
            self.asm.cmp_zero(&from.shadow(at as i32), 4.min(size));
            let defined = self.asm.jcc_forward(CC_E);
            find(self, at);
            self.asm.mov_const(c, ORIGIN_DISTANCE);
            self.asm.op_mem(None, false, &[0x89], a, &Mem { index: Some((p, 0)), ..Mem::base(c, at as i32) });
            self.asm.patch_here(defined);
        }
    }

    /// Of undefined bytes that nobody moved before: all words say how far it is. (Those of defined bytes do not matter.) Jumps from where it
    /// is done, and from where the words differ.
    fn origin_words_of_block(&mut self, from: Reg, size: u32, [p, a, c]: [u8; 3], not: &mut Vec<usize>) -> (Option<usize>, Vec<usize>) {
        self.asm.load(c, &from.place());
        self.asm.alu_imm(Alu::And, 8, c, -4);
        self.asm.mov_const(a, ORIGIN_DISTANCE);
        self.asm.alu(Alu::Add, 8, a, c);
        let mut unlike = Vec::new();
        for at in (0..size as i32).step_by(8) {
            self.asm.cmp_zero(&Mem::base(a, at), 8);
            unlike.push(self.asm.jcc_forward(CC_NE));
        }
        self.asm.alu(Alu::Sub, 8, c, p);
        self.asm.sign_extend(a, c, 4);
        self.asm.alu(Alu::Cmp, 8, a, c);
        not.push(self.asm.jcc_forward(CC_NE));
        self.asm.mov_const(a, ORIGIN_DISTANCE);
        self.asm.alu(Alu::Add, 8, a, p);
        for at in (0..size as i32).step_by(4) {
            self.asm.store_sized(&Mem::base(a, at), c, 4);
        }
        (Some(self.asm.jmp_forward()), unlike)
    }

    /// `a` = what the place that a lazy register was loaded from knows: its tag, or the distance from the target at `p` to where the bytes
    /// came from. The place itself may be overwritten next, as when two elements change places.
    fn origin_of_place(&mut self, from: Reg, at: u32, [p, a, c]: [u8; 3], not: &mut Vec<usize>) {
        self.asm.load(c, &from.place());
        self.asm.alu_imm(Alu::And, 8, c, -4);
        self.asm.mov_const(a, ORIGIN_DISTANCE);
        self.asm.op_mem(None, false, &[0x8b], a, &Mem { index: Some((c, 0)), ..Mem::base(a, at as i32) });
        self.asm.alu_imm(Alu::Test, 4, a, 3);
        let tagged = self.asm.jcc_forward(CC_NE);
        self.asm.sign_extend(a, a, 4);
        self.asm.alu(Alu::Add, 8, a, c);
        self.asm.alu(Alu::Sub, 8, a, p);
        // Does it fit a word?
        self.asm.sign_extend(c, a, 4);
        self.asm.alu(Alu::Cmp, 8, c, a);
        not.push(self.asm.jcc_forward(CC_NE));
        self.asm.patch_here(tagged);
    }

    /// `rt::origins::note` for the word at `p`. (Larger targets that reach into the next page are rare, and of no consequence: their words
    /// would have to be the only ones there.)
    fn note_origin_page(&mut self, [p, a, c]: [u8; 3]) {
        self.asm.mov(a, p);
        self.asm.turn(Turn::Shr, 8, a, 12);
        self.asm.alu_imm(Alu::And, 4, a, ORIGIN_PAGES as i32 - 1);
        self.asm.mov_const(c, ORIGIN_MAP);
        self.asm.store_imm(&Mem { index: Some((a, 0)), ..Mem::base(c, 0) }, 1, 1);
    }
}
