//! Arithmetic on partly known numbers: pure functions from values and V bits to V bits.
//!
//! A [`Bits`] is the set of all numbers that agree with `x` wherever `v` is 0. Two facts carry most rules:
//!
//! 1. *Intervals*: the smallest member is `x & !v`, the largest `x | v`. If a function is monotone, all its results lie between
//!    its values at the ends, so the bits above the highest one in which the ends differ are known ([`prefix_v`]).
//! 2. *Carries are monotone*: bit i of a sum is known if bit i of both addends is and the carry into it is the same for the smallest
//!    and for the largest addends. Hence the exact rule of [`add`], and of subtraction as a + !b + 1.

use crate::regs::{AF, CF, KNOWN_BE, KNOWN_L, KNOWN_LE, OF, PF, SF, ZF};

/// A value and which of its bits are undefined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bits {
    pub x: u64,
    pub v: u64,
}

impl Bits {
    #[inline]
    pub const fn known(x: u64) -> Bits {
        Bits { x, v: 0 }
    }

    /// The smallest possible value.
    #[inline]
    pub const fn min(self) -> u64 {
        self.x & !self.v
    }

    /// The largest possible value.
    #[inline]
    pub const fn max(self) -> u64 {
        self.x | self.v
    }

    #[inline]
    pub const fn not(self) -> Bits {
        Bits { x: !self.x, v: self.v }
    }

    #[inline]
    pub const fn masked(self, mask: u64) -> Bits {
        Bits { x: self.x & mask, v: self.v & mask }
    }

    /// Smallest and largest value as two's complement of `bits` bits.
    #[inline]
    pub const fn signed_range(self, bits: u32) -> (i64, i64) {
        let top = self.v & (1 << (bits - 1));
        (sign_extend(self.min() | top, bits), sign_extend(self.max() & !top, bits))
    }
}

/// The low `bits` bits set (1 to 64).
#[inline]
pub const fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[inline]
pub const fn sign_extend(x: u64, bits: u32) -> i64 {
    ((x << (64 - bits)) as i64) >> (64 - bits)
}

/// From the lowest set bit upwards all ones.
#[inline]
pub const fn smear_left(x: u64) -> u64 {
    x | x.wrapping_neg()
}

/// From the highest set bit downwards all ones.
#[inline]
pub const fn smear_right(x: u64) -> u64 {
    if x == 0 { 0 } else { u64::MAX >> x.leading_zeros() }
}

/// V of a number known to lie between `lo` and `hi` (inclusive, unsigned).
#[inline]
pub const fn prefix_v(lo: u64, hi: u64) -> u64 {
    smear_right(lo ^ hi)
}

/// Is "the number is zero" undefined? A defined 1 anywhere settles it.
#[inline]
pub const fn zero_v(b: Bits) -> bool {
    b.v != 0 && b.min() == 0
}

/// Is "a equals b" undefined? One bit defined on both sides and different settles it.
#[inline]
pub const fn eq_v(a: Bits, b: Bits) -> bool {
    let v = a.v | b.v;
    v != 0 && (a.x ^ b.x) & !v == 0
}

/// Is "a < b" (unsigned) undefined?
#[inline]
pub const fn below_v(a: Bits, b: Bits) -> bool {
    (a.min() < b.max()) != (a.max() < b.min())
}

/// Is "a > b" (signed, `bits` wide) undefined?
#[inline]
pub const fn greater_v(a: Bits, b: Bits, bits: u32) -> bool {
    let (a, b) = (a.signed_range(bits), b.signed_range(bits));
    (a.0 > b.1) != (a.1 > b.0)
}

/// A defined 0 on either side defines the bit.
#[inline]
pub const fn and_v(a: Bits, b: Bits) -> u64 {
    (a.v | b.v) & (a.v | a.x) & (b.v | b.x)
}

/// A defined 1 on either side defines the bit.
#[inline]
pub const fn or_v(a: Bits, b: Bits) -> u64 {
    and_v(a.not(), b.not())
}

/// Result of an arithmetic operation: its value where defined, its V bits, and V bits of the flags (with refinements).
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub r: Bits,
    pub flags: u64,
}

const fn flag(undefined: bool, flag: u64) -> u64 {
    if undefined { flag } else { 0 }
}

/// V of SF, ZF and PF of a result.
#[inline]
pub const fn result_flags(r: Bits, bits: u32) -> u64 {
    flag(zero_v(r), ZF) | flag(r.v >> (bits - 1) & 1 != 0, SF) | flag(r.v & 0xFF != 0, PF)
}

/// a + b + carry, `bits` wide; `carry` is one bit. All six flags.
pub fn add(a: Bits, b: Bits, carry: Bits, bits: u32) -> Outcome {
    let (a, b) = (a.masked(mask(bits)), b.masked(mask(bits)));
    let carry = carry.masked(1);
    let lo = u128::from(a.min()) + u128::from(b.min()) + u128::from(carry.min());
    let hi = u128::from(a.max()) + u128::from(b.max()) + u128::from(carry.max());
    let x = a.x.wrapping_add(b.x).wrapping_add(carry.x);
    let carries = (lo ^ u128::from(a.min() ^ b.min())) ^ (hi ^ u128::from(a.max() ^ b.max()));
    let r = Bits { x, v: a.v | b.v | lo as u64 ^ hi as u64 }.masked(mask(bits));

    let ((a_min, a_max), (b_min, b_max)) = (a.signed_range(bits), b.signed_range(bits));
    let low = i128::from(a_min) + i128::from(b_min) + i128::from(carry.min());
    let high = i128::from(a_max) + i128::from(b_max) + i128::from(carry.max());
    let top = 1i128 << (bits - 1);
    // Below what fits, inside, above.
    let side = |sum: i128| if sum < -top { -1 } else { i32::from(sum >= top) };

    let mut flags = result_flags(r, bits);
    flags |= flag(carries >> bits & 1 != 0, CF) | flag(carries >> 4 & 1 != 0, AF);
    flags |= flag(side(low) != side(high), OF);
    flags |= flag((low < 0) == (high < 0), KNOWN_L) | flag((low <= 0) == (high <= 0), KNOWN_LE);
    Outcome { r, flags }
}

/// x + x + carry: a shift, in which no bit of x meets another. (As a sum of two numbers that are not known to be equal, an undefined
/// bit would carry into the next one. Compilers sign-extend bit fields by `lea`, and `adc` shifts bits in.)
pub fn double(x: Bits, carry: Bits, bits: u32) -> Outcome {
    let (x, carry) = (x.masked(mask(bits)), carry.masked(1));
    let r = Bits { x: x.x << 1 | carry.x, v: x.v << 1 | carry.v }.masked(mask(bits));
    let top = x.v >> (bits - 1) & 1 != 0;
    let below = x.v >> (bits - 2) & 1 != 0;
    let mut flags = result_flags(r, bits);
    flags |= flag(top, CF) | flag(x.v >> 3 & 1 != 0, AF) | flag(top || below, OF);
    // SF != OF is the sign of x.
    flags |= flag(!top, KNOWN_L);
    Outcome { r, flags }
}

/// a - b - borrow, `bits` wide. All six flags, ZF by the exact rule for equality.
pub fn sub(a: Bits, b: Bits, borrow: Bits, bits: u32) -> Outcome {
    let (a, b) = (a.masked(mask(bits)), b.masked(mask(bits)));
    let mut out = add(a, b.not(), borrow.not(), bits);
    if borrow == Bits::known(0) {
        if !eq_v(a, b) {
            out.flags &= !ZF;
        }
        out.flags |= flag((a.max() <= b.min()) || (a.min() > b.max()), KNOWN_BE);
    }
    out
}

/// Flags of and, or, xor, test: CF = OF = 0, AF as the inputs.
pub const fn logic_flags(r: Bits, inputs_v: u64, bits: u32) -> u64 {
    let (low, high) = r.signed_range(bits);
    result_flags(r, bits) | flag(inputs_v != 0, AF) | flag((low <= 0) == (high <= 0), KNOWN_LE)
}

/// V of the double-width product as (low half, high half).
pub fn mul(a: Bits, b: Bits, bits: u32, signed: bool) -> (u64, u64) {
    let (a, b) = (a.masked(mask(bits)), b.masked(mask(bits)));
    if a.v | b.v == 0 {
        return (0, 0);
    }
    // Below `first` no product bit can vary: it needs an undefined bit of one factor times a possible bit of the other.
    let reach = |v: u64, other: Bits| if v == 0 { 128 } else { v.trailing_zeros() + other.max().trailing_zeros() };
    let first = reach(a.v, b).min(reach(b.v, a));
    let above = if first >= 128 { 0 } else { u128::MAX << first };
    let lo = u128::from(a.min()) * u128::from(b.min());
    let hi = u128::from(a.max()) * u128::from(b.max());
    let below = match (lo ^ hi).leading_zeros() {
        128 => 0,
        n => u128::MAX >> n,
    };
    let unsigned = above & below;
    let low = unsigned as u64 & mask(bits);
    let high = if signed { above >> bits } else { unsigned >> bits };
    (low, high as u64 & mask(bits))
}

/// V of an operation whose second operand chooses among few results: the union over all values `choice` may have.
/// `f` gives the result for one choice; there must be at most 64 choices (6 undefined bits), more count as all undefined.
pub fn choose_v(choice: Bits, all: u64, mut f: impl FnMut(u64) -> Bits) -> u64 {
    if choice.v.count_ones() > 6 {
        return all;
    }
    let first = f(choice.x);
    let (mut v, mut subset) = (first.v, choice.v);
    while subset != 0 {
        let other = f(choice.x ^ subset);
        v |= other.v | (other.x ^ first.x);
        subset = (subset - 1) & choice.v;
    }
    v & all
}

#[cfg(test)]
mod tests {
    use super::{Bits, add, below_v, choose_v, eq_v, greater_v, mul, sub};
    use crate::regs::{CF, KNOWN_BE, KNOWN_L, KNOWN_LE, OF, ZF};

    /// Every 4-bit pair with every V: the rules against brute force, in both directions.
    #[test]
    fn small_numbers_exhaustively() {
        let members = |b: Bits| (0..16u64).filter(move |n| (n ^ b.x) & !b.v == 0);
        for code in 0..1u64 << 16 {
            let a = Bits { x: code & 15, v: code >> 4 & 15 };
            let b = Bits { x: code >> 8 & 15, v: code >> 12 & 15 };
            let sums = add(a, b, Bits::known(0), 4);
            let differences = sub(a, b, Bits::known(0), 4);
            let (mut sum_v, mut difference_v, mut low_v, mut high_v) = (0, 0, 0, 0);
            let (mut equal, mut below, mut greater, mut not_above) = (0, 0, 0, 0);
            for m in members(a) {
                for n in members(b) {
                    sum_v |= (m + n) ^ (a.x + b.x);
                    difference_v |= m.wrapping_sub(n) ^ a.x.wrapping_sub(b.x);
                    low_v |= (m * n) ^ (a.x * b.x);
                    high_v |= (m * n) >> 4 ^ (a.x * b.x) >> 4;
                    equal |= 1 << u32::from(m == n);
                    below |= 1 << u32::from(m < n);
                    not_above |= 1 << u32::from(m <= n);
                    greater |= 1 << u32::from((m ^ 8) > (n ^ 8));
                }
            }
            assert_eq!(sums.r.v, sum_v & 15, "add {a:?} {b:?}");
            assert_eq!(sums.flags & CF != 0, sum_v & 16 != 0, "carry {a:?} {b:?}");
            assert_eq!(differences.r.v, difference_v & 15, "sub {a:?} {b:?}");
            assert_eq!(differences.flags & CF != 0, below == 3, "borrow {a:?} {b:?}");
            assert_eq!(differences.flags & ZF != 0, equal == 3, "zero {a:?} {b:?}");
            assert_eq!(differences.flags & KNOWN_BE == 0, not_above == 3, "be {a:?} {b:?}");
            assert_eq!((eq_v(a, b), below_v(a, b)), (equal == 3, below == 3));
            assert_eq!(greater_v(a, b, 4), greater == 3);
            let (low, high) = mul(a, b, 4, false);
            assert_eq!((low_v & !low & 15, high_v & !high & 15), (0, 0), "mul {a:?} {b:?}");
        }
    }

    #[test]
    fn signed_order_is_known_where_its_flags_are_not() {
        // x in {-128, -127}: x - 1 overflows for one of them only, yet x < 1 always.
        let out = sub(Bits { x: 0x80, v: 1 }, Bits::known(1), Bits::known(0), 8);
        assert_ne!(out.flags & OF, 0);
        assert_ne!(out.flags & KNOWN_L, 0);
        assert_ne!(out.flags & KNOWN_LE, 0);
    }

    #[test]
    fn an_undefined_choice_is_the_union() {
        assert_eq!(choose_v(Bits { x: 0, v: 2 }, 0xFF, |n| Bits::known(1 << n)), 0b101);
    }
}
