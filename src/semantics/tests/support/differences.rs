//! Two states compared bit by bit, and a shadow laid out the same way.

use memcheck_semantics::ShadowRegs;
use memcheck_semantics::regs::ARITH;

use super::native::State;
use super::states::WINDOW;

/// One bit per bit of state: registers, flags, x87 and the data window.
pub struct Differences {
    pub words: Vec<u64>,
}

impl Differences {
    const VEC: usize = 16;
    const MASK: usize = Self::VEC + 32 * 8;
    pub const FLAGS: usize = Self::MASK + 8;
    pub const FSW: usize = Self::FLAGS + 1;
    const ST: usize = Self::FSW + 1;
    const MEMORY: usize = Self::ST + 16;
    const ALL: usize = Self::MEMORY + WINDOW / 8;

    pub fn none() -> Differences {
        Differences { words: vec![0; Self::ALL] }
    }

    pub fn add(&mut self, a: &State, b: &State, a_window: &[u8], b_window: &[u8]) {
        let words = &mut self.words;
        for (word, (x, y)) in words.iter_mut().zip(a.gpr.iter().zip(&b.gpr)) {
            *word |= x ^ y;
        }
        for i in 0..256 {
            words[Self::VEC + i] |= a.zmm[i / 8][i % 8] ^ b.zmm[i / 8][i % 8];
        }
        for i in 0..8 {
            words[Self::MASK + i] |= a.k[i] ^ b.k[i];
            let (x, y) = (a.st(i), b.st(i));
            words[Self::ST + i * 2] |= x[0] ^ y[0];
            words[Self::ST + i * 2 + 1] |= x[1] ^ y[1];
        }
        words[Self::FLAGS] |= (a.rflags ^ b.rflags) & ARITH;
        words[Self::FSW] |= a.fsw() ^ b.fsw();
        for (i, (x, y)) in a_window.chunks(8).zip(b_window.chunks(8)).enumerate() {
            words[Self::MEMORY + i] |= word(x) ^ word(y);
        }
    }

    pub fn of_shadow(regs: &ShadowRegs, window_v: &[u8]) -> Differences {
        let mut out = Self::none();
        let words = &mut out.words;
        for (i, word) in words.iter_mut().enumerate().take(16) {
            *word = regs.gpr(i);
        }
        for i in 0..32 {
            words[Self::VEC + i * 8..Self::VEC + i * 8 + 8].copy_from_slice(&regs.vec(i).0);
        }
        for i in 0..8 {
            words[Self::MASK + i] = regs.mask(i);
            words[Self::ST + i * 2..Self::ST + i * 2 + 2].copy_from_slice(&regs.st(i));
        }
        words[Self::FLAGS] = regs.flags() & ARITH;
        words[Self::FSW] = regs.fsw();
        for (i, chunk) in window_v.chunks(8).enumerate() {
            words[Self::MEMORY + i] = word(chunk);
        }
        out
    }

    pub fn name(index: usize) -> String {
        match index {
            0..16 => format!("gpr {index}"),
            Self::FLAGS => "flags".into(),
            Self::FSW => "x87 status".into(),
            i if i < Self::MASK => format!("zmm{} word {}", (i - Self::VEC) / 8, (i - Self::VEC) % 8),
            i if i < Self::FLAGS => format!("k{}", i - Self::MASK),
            i if i < Self::MEMORY => format!("R{} part {}", (i - Self::ST) / 2, (i - Self::ST) % 2),
            i => format!("memory {:+}", (i - Self::MEMORY) as i64 * 8 - WINDOW as i64 / 2),
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}
