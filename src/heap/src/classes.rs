//! Size classes: how long the slot is that a request gets.
//!
//! Slots of 64 to 1024 bytes in steps of 16, then eight steps per doubling up to 128 KiB; what is longer gets units of its own.
//! A slot holds the block and both red zones, so "need" below always includes them.

use crate::chunk::TRAY;

pub const COUNT: usize = FINE + 8 * 7;
pub const MIN_SLOT: u64 = 64;
const FINE_END: u64 = 1024;
const FINE: usize = ((FINE_END - MIN_SLOT) / 16 + 1) as usize;
pub const MAX_SLOT: u64 = 128 << 10;

/// The smallest class whose slots hold `need` bytes; `need <= MAX_SLOT`.
#[inline(always)]
pub const fn of(need: u64) -> usize {
    if need <= FINE_END {
        let need = if need < MIN_SLOT { MIN_SLOT } else { need };
        (need.div_ceil(16) - MIN_SLOT / 16) as usize
    } else {
        let last = need - 1;
        let log = 63 - last.leading_zeros();
        FINE + (log as usize - 10) * 8 + ((last >> (log - 3)) & 7) as usize
    }
}

/// The same with two steps per doubling, for blocks that grow step by step: they come by few classes, and so more often where one of their
/// predecessors was not long ago. `need <= MAX_SLOT`.
pub const fn roomy(need: u64) -> usize {
    let class = of(need);
    if class < FINE { class } else { FINE + ((class - FINE) | 3) }
}

const fn slot_len(class: usize) -> u64 {
    if class < FINE {
        MIN_SLOT + 16 * class as u64
    } else {
        let (log, step) = ((class - FINE) / 8 + 10, (class - FINE) % 8);
        (8 + step as u64 + 1) << (log - 3)
    }
}

/// What the hot paths need to know of a class.
#[derive(Clone, Copy)]
pub struct Class {
    /// Bytes of a slot, a multiple of 16.
    pub slot: u64,
    /// 2^32 / (slot / 16), rounded up: turns a division into a multiplication.
    reciprocal: u64,
    /// Slots that move together between a thread and the central lists.
    pub batch: u32,
}

pub static CLASSES: [Class; COUNT] = {
    let mut table = [Class { slot: 0, reciprocal: 0, batch: 0 }; COUNT];
    let mut i = 0;
    while i < COUNT {
        let slot = slot_len(i);
        let batch = (32 << 10) / slot;
        table[i] = Class {
            slot,
            reciprocal: (1u64 << 32).div_ceil(slot / 16),
            batch: if batch > TRAY as u64 {
                TRAY as u32
            } else if batch < 2 {
                2
            } else {
                batch as u32
            },
        };
        i += 1;
    }
    table
};

impl Class {
    /// `offset / slot`, exact for offsets inside a slab (below 1 MiB).
    #[inline(always)]
    pub const fn index(&self, offset: u64) -> u64 {
        ((offset >> 4) * self.reciprocal) >> 32
    }

    /// Bytes of the next slab when `slabs` exist already: the first ones are small, so that a short program touches little.
    pub const fn slab_len(&self, slabs: u32) -> u64 {
        let base = if self.slot > crate::layout::UNIT { self.slot } else { crate::layout::UNIT };
        let limit = if self.slot > 256 << 10 { self.slot } else { 256 << 10 };
        let want = base << (if slabs > 4 { 4 } else { slabs });
        let want = if want > limit { limit } else { want };
        want / self.slot * self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_gets_the_tightest_class() {
        for need in 1..=MAX_SLOT {
            let class = of(need);
            assert!(CLASSES[class].slot >= need, "need {need}");
            assert!(class == 0 || CLASSES[class - 1].slot < need, "need {need}");
        }
        assert_eq!(of(MAX_SLOT), COUNT - 1);
    }

    #[test]
    fn growing_blocks_get_a_half_more_room_at_most() {
        for need in 1..=MAX_SLOT {
            let slot = CLASSES[roomy(need)].slot;
            assert!(slot >= need && slot * 2 <= need.next_multiple_of(16).max(MIN_SLOT) * 3, "need {need}");
        }
    }

    #[test]
    fn reciprocal_divides_exactly() {
        for class in &CLASSES {
            for offset in (0..1 << 20).step_by(16) {
                assert_eq!(class.index(offset), offset / class.slot, "slot {}", class.slot);
            }
        }
    }

    #[test]
    fn slabs_hold_at_least_one_slot_and_their_records_fit() {
        for class in &CLASSES {
            for slabs in 0..8 {
                let len = class.slab_len(slabs);
                assert!(len >= class.slot && len < 1 << 20);
                assert!(len / class.slot * crate::layout::RECORD_SIZE <= len / 4);
            }
        }
    }
}
