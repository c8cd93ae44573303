//! Code in a page that the program may write to: it may change under us.
//!
//! Such a region ends behind every store and begins with a comparison of the code with what was translated, eight bytes at a time:
//!
//! ```text
//!     mov rax, program address     ; rax and rcx spilled
//!     mov rcx, first eight bytes
//!     cmp [rax], rcx ; jne cold
//!     ...
//! back:
//! cold: helper CODE_CHECK          ; drops the region and goes on in a new one
//! ```
//!
//! Flags are saved whether the region needs them or not: what stands there by now may. Where all is as it was, only living ones are restored.

use crate::control::call_helper;
use crate::decode::Item;
use crate::emit::{Asm, CC_NE, Mem, RAX, RCX};
use crate::emitter::{Emitter, Later, rip_slot, spill};
use crate::{helper, slot};
use alloc::vec::Vec;

/// Put the comparison of the code of `items`, which begins at `start`, here.
pub fn check(e: &mut Emitter, start: u64, items: &[Item]) {
    e.item.pc = start;
    let Some(code) = bytes(items) else { return call_helper(e, helper::CODE_CHECK) };
    let live = items[0].flags_live;
    e.asm.store(&spill(slot::RCX), RCX);
    e.asm.store(&spill(slot::RAX), RAX);
    // lahf; seto al
    e.asm.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
    e.asm.store(&spill(slot::FLAGS), RAX);
    e.asm.mov_const(RAX, start);
    let patches = pieces(code.len()).into_iter().map(|(at, size)| compare(&mut e.asm, &code, at, size)).collect();
    restore(&mut e.asm, live);
    let back = e.asm.offset();
    e.later.push(Later::Changed { patches, pc: start, back });
}

/// The code of a region; none if there is none, or not all of it was kept.
fn bytes(items: &[Item]) -> Option<Vec<u8>> {
    if items.is_empty() || items.iter().any(|item| usize::from(item.len) > item.raw.len()) {
        return None;
    }
    Some(items.iter().flat_map(|item| item.raw.iter().copied().take(usize::from(item.len))).collect())
}

/// (offset, size) of the words to compare; the last may overlap the one before.
fn pieces(len: usize) -> Vec<(usize, usize)> {
    let Some(size) = [8, 4, 2, 1].into_iter().find(|&size| size <= len) else { return Vec::new() };
    let mut pieces: Vec<_> = (0..len / size).map(|i| (i * size, size)).collect();
    if !len.is_multiple_of(size) {
        pieces.push((len - size, size));
    }
    pieces
}

/// cmp size [rax + at], constant; jne ?
fn compare(asm: &mut Asm, code: &[u8], at: usize, size: usize) -> usize {
    let mut word = [0; 8];
    word[..size].copy_from_slice(&code[at..at + size]);
    asm.mov_const(RCX, u64::from_le_bytes(word));
    let mem = Mem::base(RAX, at as i32);
    match size {
        1 => asm.op_mem(None, false, &[0x38], RCX, &mem),
        2 => asm.op_mem(Some(0x66), false, &[0x39], RCX, &mem),
        _ => asm.op_mem(None, size == 8, &[0x39], RCX, &mem),
    }
    asm.jcc_forward(CC_NE)
}

fn restore(asm: &mut Asm, live: bool) {
    if live {
        asm.load(RAX, &spill(slot::FLAGS));
        // add al, 0x7f; sahf
        asm.bytes(&[0x04, 0x7f, 0x9e]);
    }
    asm.load(RAX, &spill(slot::RAX));
    asm.load(RCX, &spill(slot::RCX));
}

impl Emitter<'_> {
    /// In the end: `asm` is the cold part, `cold` the region.
    pub fn changed_stub(&mut self, patches: Vec<usize>, pc: u64, back: usize) {
        let here = self.asm.here();
        for p in patches {
            self.cold.patch_to_address(p, here);
        }
        restore(&mut self.asm, true);
        self.asm.store_const(&rip_slot(), pc);
        self.asm.store_imm(&spill(slot::ARGUMENT), 8, (helper::CODE_CHECK | 1 << 8) as i32);
        self.asm.lea_host(RAX, self.hot + back as u64);
        self.asm.store(&spill(slot::CONTINUE), RAX);
        self.asm.jmp(self.t.stubs.helper);
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn every_byte_is_compared() {
        for len in 1..40 {
            let mut seen = alloc::vec![false; len];
            for (at, size) in pieces(len) {
                seen[at..at + size].fill(true);
            }
            assert!(seen.iter().all(|&s| s), "{len}");
        }
        assert_eq!(pieces(11), [(0, 8), (3, 8)]);
        assert_eq!(pieces(3), [(0, 2), (1, 2)]);
    }
}
