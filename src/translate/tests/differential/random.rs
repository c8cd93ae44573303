//! A small generator of random numbers with a taste for the values that break things.

/// xorshift64*; the same seed gives the same run.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((mixed ^ mixed >> 31) | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.word() >> 32) % n.max(1)
    }

    /// Inclusive on both sides.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Zero, all ones, small, single bits, repeated bytes, floating point numbers, or anything.
    pub fn value(&mut self) -> u64 {
        match self.below(11) {
            0 => 0,
            1 => u64::MAX,
            2 => self.word() & 0xff,
            3 => (self.word() & 0xff).wrapping_neg(),
            4 => 1 << self.below(64),
            5 => u64::from(self.word() as u8) * 0x0101_0101_0101_0101,
            6 => f64::to_bits(f64::from(self.word() as i16) / 8.0),
            7 => u64::from(f32::to_bits(f32::from(self.word() as i16) / 8.0)) * 0x1_0000_0001,
            8 => self.word() & self.word() & self.word(),
            9 => u64::from(self.word() as u32),
            _ => self.word(),
        }
    }
}
