//! Sixty-four bytes, seen as lanes.
//!
//! One [`Wide`] holds the bytes, or the V bits, of a vector register of any length; what lies beyond the length in use is zero.
//! Lanes are numbered from the lowest byte upwards and are 1, 2, 4 or 8 bytes wide; bigger units are several 8-byte lanes.

use core::ops::{BitAnd, BitOr, BitXor, Not};

/// 512 bits, little end first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Wide(pub [u64; 8]);

/// The low `bytes * 8` bits set, for one lane (1 to 8 bytes).
#[inline]
pub const fn lane_mask(bytes: usize) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (bytes * 8)) - 1 }
}

impl Wide {
    pub const ZERO: Wide = Wide([0; 8]);
    pub const ONES: Wide = Wide([u64::MAX; 8]);

    /// Bytes in memory order.
    #[inline]
    pub fn from_bytes(bytes: &[u8; 64]) -> Wide {
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(chunk);
            *word = u64::from_le_bytes(eight);
        }
        Wide(words)
    }

    /// All bytes, in memory order.
    #[inline]
    pub fn to_bytes(self) -> [u8; 64] {
        let mut out = [0; 64];
        for (chunk, word) in out.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// One lane as the low bits of a word; lanes outside the 64 bytes read as zero.
    #[inline]
    pub fn lane(&self, width: usize, index: usize) -> u64 {
        let at = width * index;
        match self.0.get(at / 8) {
            Some(word) => (word >> (at % 8 * 8)) & lane_mask(width),
            None => 0,
        }
    }

    /// Replaces one lane; lanes outside the 64 bytes are ignored.
    #[inline]
    pub fn set(&mut self, width: usize, index: usize, value: u64) {
        let at = width * index;
        let mask = lane_mask(width) << (at % 8 * 8);
        if let Some(word) = self.0.get_mut(at / 8) {
            *word = (*word & !mask) | ((value << (at % 8 * 8)) & mask);
        }
    }

    /// Is every bit zero?
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    /// The low `bytes` kept, the rest zero.
    #[inline]
    pub fn truncated(self, bytes: usize) -> Wide {
        match bytes {
            64.. => self,
            32 => Wide([self.0[0], self.0[1], self.0[2], self.0[3], 0, 0, 0, 0]),
            16 => Wide([self.0[0], self.0[1], 0, 0, 0, 0, 0, 0]),
            _ => {
                let mut out = Wide::ZERO;
                for i in 0..8 {
                    out.0[i] = match bytes.saturating_sub(i * 8) {
                        0 => 0,
                        n => self.0[i] & lane_mask(n),
                    };
                }
                out
            }
        }
    }

    /// `self` below `bytes`, `above` from there on.
    #[inline]
    pub fn with_upper(self, bytes: usize, above: Wide) -> Wide {
        match bytes {
            64.. => self,
            32 => Wide([self.0[0], self.0[1], self.0[2], self.0[3], above.0[4], above.0[5], above.0[6], above.0[7]]),
            16 => Wide([self.0[0], self.0[1], above.0[2], above.0[3], above.0[4], above.0[5], above.0[6], above.0[7]]),
            _ => {
                let keep = Wide::ONES.truncated(bytes);
                (self & keep) | (above & !keep)
            }
        }
    }

    /// The first `bytes` repeated up to 64.
    pub fn repeated(self, bytes: usize) -> Wide {
        let mut out = Wide::ZERO;
        match bytes {
            1 | 2 | 4 | 8 => (0..64 / bytes).for_each(|i| out.set(bytes, i, self.lane(bytes, 0))),
            16 | 32 => (0..8).for_each(|i| out.0[i] = self.0[i % (bytes / 8)]),
            _ => out = self,
        }
        out
    }

    /// Every lane that has a bit set becomes all ones.
    pub fn smeared(self, width: usize) -> Wide {
        let mut out = Wide::ZERO;
        if width > 8 {
            let words = width / 8;
            for group in 0..8 / words {
                let any = (0..words).fold(0, |all, i| all | self.0[group * words + i]) != 0;
                (0..words).for_each(|i| out.0[group * words + i] = if any { u64::MAX } else { 0 });
            }
            return out;
        }
        // Every lane's top bit: is anything set in it? Then that bit spread downwards over its lane.
        let tops = match width {
            1 => 0x8080_8080_8080_8080,
            2 => 0x8000_8000_8000_8000,
            4 => 0x8000_0000_8000_0000,
            _ => 1 << 63,
        };
        for (to, from) in out.0.iter_mut().zip(self.0) {
            let any = (((from & !tops) + !tops) | from) & tops;
            let low = any >> (width * 8 - 1);
            *to = any | (any - low);
        }
        out
    }

    /// Word by word.
    #[inline]
    pub fn map(self, other: Wide, mut f: impl FnMut(u64, u64) -> u64) -> Wide {
        let mut out = Wide::ZERO;
        for i in 0..8 {
            out.0[i] = f(self.0[i], other.0[i]);
        }
        out
    }
}

impl BitOr for Wide {
    type Output = Wide;
    #[inline]
    fn bitor(self, other: Wide) -> Wide {
        self.map(other, |a, b| a | b)
    }
}

impl BitAnd for Wide {
    type Output = Wide;
    #[inline]
    fn bitand(self, other: Wide) -> Wide {
        self.map(other, |a, b| a & b)
    }
}

impl BitXor for Wide {
    type Output = Wide;
    #[inline]
    fn bitxor(self, other: Wide) -> Wide {
        self.map(other, |a, b| a ^ b)
    }
}

impl Not for Wide {
    type Output = Wide;
    #[inline]
    fn not(self) -> Wide {
        self.map(self, |a, _| !a)
    }
}

#[cfg(test)]
mod tests {
    use super::Wide;

    #[test]
    fn lanes_and_lengths() {
        let bytes: [u8; 64] = core::array::from_fn(|i| i as u8);
        let wide = Wide::from_bytes(&bytes);
        assert_eq!(wide.to_bytes(), bytes);
        assert_eq!(wide.lane(2, 3), 0x0706);
        assert_eq!(wide.truncated(3).0[0], 0x02_01_00);
        assert_eq!(wide.truncated(3).with_upper(3, wide), wide);
        assert_eq!(wide.repeated(4).lane(4, 15), 0x0302_0100);
        let mut one = Wide::ZERO;
        one.set(4, 3, 0x10);
        assert_eq!(one.smeared(16).0, [u64::MAX, u64::MAX, 0, 0, 0, 0, 0, 0]);
        assert_eq!(one.smeared(2).lane(2, 6), 0xFFFF);
        assert_eq!(one.smeared(2).lane(2, 7), 0);
    }
}
