//! A small generator of random numbers, with a taste for the values that break rules.
#![allow(dead_code, reason = "several tests share this file, none uses all of it")]

/// xorshift64*; the same seed gives the same run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.word() >> 32) as usize) % n.max(1)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Zero, all ones, small, single bits, repeated bytes, floating point numbers, or anything.
    pub fn value(&mut self) -> u64 {
        match self.below(11) {
            0 => 0,
            1 => u64::MAX,
            2 => self.word() & 0xFF,
            3 => (self.word() & 0xFF).wrapping_neg(),
            4 => 1 << self.below(64),
            5 => u64::from(self.word() as u8) * 0x0101_0101_0101_0101,
            6 => f64::to_bits(self.word() as i16 as f64 / 8.0),
            7 => u64::from(f32::to_bits(self.word() as i16 as f32 / 8.0)) * 0x1_0000_0001,
            8 => self.word() & self.word() & self.word(),
            9 => self.word() | self.word() | self.word(),
            _ => self.word(),
        }
    }
}
