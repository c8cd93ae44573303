//! Where the heap and its metadata lie, and the numbers derived from that.
//!
//! ```text
//! 0x009d_6b00_0000   program memory, 1 TiB, in units of 16 KiB          (abi::layout::HEAP_START)
//! 0x6f00_0000_0000   records, 16 bytes per slot: the records of a run of units begin at RECORDS + offset / 4
//! 0x6f80_0000_0000   unit map, 4 bytes per unit
//! 0x6f81_0000_0000   span descriptors, 16 bytes per unit
//! 0x6f82_0000_0000   thread caches and chunks
//! 0x6fa0_0000_0000   the list of live blocks for the leak search
//! 0x6ff0_0000_0000   where a huge request is tried out, never backed
//! 0x6fff_0000_0000   where a file of FF is made (`sheet`)
//! ```
//! Nothing of this is near anything the program can reach: a checked access to it faults in the check (see `abi::layout`).

use memcheck_abi::layout::{HEAP_END, HEAP_START};

pub const UNIT_SHIFT: u32 = 14;
/// Bytes of a unit: the grain in which program memory is handed to slabs and large blocks.
pub const UNIT: u64 = 1 << UNIT_SHIFT;
pub const UNITS: u64 = (HEAP_END - HEAP_START) >> UNIT_SHIFT;

pub const RECORD_SIZE: u64 = 16;
pub const RECORDS: u64 = 0x6f00_0000_0000;
pub const RECORDS_LEN: u64 = (HEAP_END - HEAP_START) / 4;
pub const UNIT_MAP: u64 = 0x6f80_0000_0000;
pub const SPANS: u64 = 0x6f81_0000_0000;
pub const WORK: u64 = 0x6f82_0000_0000;
pub const WORK_END: u64 = 0x6fa0_0000_0000;
pub const LIVE: u64 = 0x6fa0_0000_0000;
pub const LIVE_END: u64 = 0x6ff0_0000_0000;
pub const TRIAL: u64 = 0x6ff0_0000_0000;
pub const TRIAL_END: u64 = 0x6fff_0000_0000;
pub const SHEET: u64 = 0x6fff_0000_0000;

/// Program memory is mapped in steps of this many units.
pub const GROW_UNITS: u64 = 1024;

const _: () = assert!(RECORDS + RECORDS_LEN <= UNIT_MAP, "records end before the unit map");
const _: () = assert!(UNIT_MAP + UNITS * 4 <= SPANS, "unit map ends before the spans");
const _: () = assert!(SPANS + UNITS * 16 <= WORK, "spans end before the work area");

/// Is this address in the range of the replacement heap? (Says nothing about blocks.)
#[inline(always)]
pub const fn owns(addr: u64) -> bool {
    addr.wrapping_sub(HEAP_START) < HEAP_END - HEAP_START
}

#[inline(always)]
pub const fn unit_of(addr: u64) -> u64 {
    (addr - HEAP_START) >> UNIT_SHIFT
}

#[inline(always)]
pub const fn address_of(unit: u64) -> u64 {
    HEAP_START + (unit << UNIT_SHIFT)
}
