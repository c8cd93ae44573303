//! From an address to its record: unit → slab → slot, three loads.
//!
//! The map has a word per unit: which class the slab there has, and how many units before it the slab begins.
//!
//! ```text
//! bits 0..8  0 = nothing here, class + 1, or LARGE      bits 8..32  units from the first unit of the run
//! ```
//! Written under the central lock, read without it: a program that holds a pointer to a block got it after the words were written.
#![allow(unsafe_code, reason = "the map is reached by address arithmetic")]

use crate::classes::CLASSES;
use crate::layout::{RECORD_SIZE, UNIT, UNIT_MAP, address_of, owns, unit_of};
use crate::record::{self, Record, State};
use crate::{paint, settings, spans};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use memcheck_abi::layout::{A_BASE, HEAP_START, v_of};

const LARGE: u32 = 255;
/// Longest run of units (the distance has 24 bits): 256 GiB.
pub const MAX_RUN: u64 = 1 << 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Nothing,
    Slab(usize),
    Large,
}

#[inline(always)]
fn cell(unit: u64) -> &'static AtomicU32 {
    // SAFETY: callers pass units of the heap; the map covers all of them and stays mapped.
    unsafe { &*((UNIT_MAP + 4 * unit) as *const AtomicU32) }
}

/// Declare `count` units from `first` to be a run of this kind.
pub fn set(first: u64, count: u64, kind: Kind) {
    let low = match kind {
        Kind::Nothing => 0,
        Kind::Slab(class) => class as u32 + 1,
        Kind::Large => LARGE,
    };
    for distance in 0..count {
        let word = if low == 0 { 0 } else { low | (distance as u32) << 8 };
        cell(first + distance).store(word, Relaxed);
    }
}

/// The run that a unit belongs to: first unit and kind.
#[inline(always)]
pub fn run_of(unit: u64) -> (u64, Kind) {
    let word = cell(unit).load(Relaxed);
    let first = unit - u64::from(word >> 8);
    match word & 255 {
        0 => (unit, Kind::Nothing),
        LARGE => (first, Kind::Large),
        class => (first, Kind::Slab(class as usize - 1)),
    }
}

/// The slot around an address.
#[derive(Clone, Copy)]
pub struct Slot {
    pub record: &'static Record,
    /// First byte of the slot (of the run, for large blocks).
    pub start: u64,
    pub kind: Kind,
}

impl Slot {
    /// Where blocks lie in a slot of this class: from the first byte of one that is aligned as usual to the last of the longest one. This is
    /// known before the record is.
    #[inline(always)]
    pub fn room(&self) -> Option<(u64, u64)> {
        let Kind::Slab(class) = self.kind else { return None };
        let settings = settings::get();
        Some((self.start + settings.front, CLASSES[class].slot - settings.around))
    }

    /// Ask for the lines that will be touched when the block at `addr` dies.
    #[inline(always)]
    pub fn ask_for(&self, addr: u64) {
        record::prefetch(self.record.link());
        record::prefetch(A_BASE + addr / 8);
        match self.kind {
            Kind::Slab(class) => paint::ask_for(addr, CLASSES[class].slot),
            _ => record::prefetch(v_of(addr)),
        }
    }

    /// Is this the slot of a live block that begins exactly at `addr`?
    #[inline(always)]
    pub fn is_live_at(&self, addr: u64) -> bool {
        let head = self.record.head();
        head.address() == addr && head.state() == State::Live
    }
}

/// The slot that contains `addr`, whatever its state.
#[inline(always)]
pub fn slot_of(addr: u64) -> Option<Slot> {
    if !owns(addr) {
        return None;
    }
    let (first, kind) = run_of(unit_of(addr));
    let start = address_of(first);
    match kind {
        Kind::Slab(class) => {
            let class = &CLASSES[class];
            let index = class.index(addr - start);
            Some(Slot { record: record::at(start - HEAP_START, index), start: start + index * class.slot, kind })
        }
        Kind::Large => Some(Slot { record: record::at(start - HEAP_START, 0), start, kind }),
        Kind::Nothing => None,
    }
}

/// The slot of the live block that begins exactly at `addr`.
#[inline(always)]
pub fn live_slot_at(addr: u64) -> Option<Slot> {
    slot_of(addr).filter(|slot| slot.is_live_at(addr))
}

/// Its record.
#[inline(always)]
pub fn live_at(addr: u64) -> Option<&'static Record> {
    live_slot_at(addr).map(|slot| slot.record)
}

/// Call `visit` with every record that was ever used, in order of address, up to unit `end`.
pub fn for_each(end: u64, mut visit: impl FnMut(&'static Record)) {
    let mut unit = 0;
    while unit < end {
        let (first, kind) = run_of(unit);
        let units = spans::run_len(first);
        let offset = first * UNIT;
        match kind {
            Kind::Nothing => {}
            Kind::Large => visit(record::at(offset, 0)),
            Kind::Slab(class) => {
                let slots = units * UNIT / CLASSES[class].slot;
                debug_assert!(slots * RECORD_SIZE <= units * UNIT / 4);
                for index in 0..slots {
                    let record = record::at(offset, index);
                    if record.head().state() == State::None {
                        break;
                    }
                    visit(record);
                }
            }
        }
        unit = first + units.max(1);
    }
}
