//! How much was allocated and freed at each place, for `--xtree-memory=full`.
//!
//! A table with one entry for every stack that the depot may hold, at its number: most of it is never touched and takes no memory, and
//! the tracer reads it where it lies. Without the option it is not mapped.
#![allow(unsafe_code, reason = "a table at a fixed place, shared with the tracer")]

use crate::settings;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memcheck_abi::event::PlaceTally;
use memcheck_abi::layout::{TALLIES_END, TALLIES_START};
use memcheck_rt::sys;

/// Reserve the table if it is wanted. Once.
pub fn init() -> bool {
    !settings::get().tallies || sys::map_fixed(TALLIES_START, TALLIES_END - TALLIES_START, sys::PROT_READ | sys::PROT_WRITE)
}

pub fn allocated(stack: u32, size: u64) {
    if settings::get().tallies {
        let entry = entry(stack);
        // SAFETY: the entry is mapped, its fields are words that are only changed this way.
        unsafe { count(&raw mut (*entry).allocated_bytes, &raw mut (*entry).allocated_blocks, size) }
    }
}

pub fn freed(stack: u32, size: u64) {
    if settings::get().tallies {
        let entry = entry(stack);
        // SAFETY: as above.
        unsafe { count(&raw mut (*entry).freed_bytes, &raw mut (*entry).freed_blocks, size) }
    }
}

fn entry(stack: u32) -> *mut PlaceTally {
    (TALLIES_START + u64::from(stack) * size_of::<PlaceTally>() as u64) as *mut PlaceTally
}

/// # Safety
/// Both are aligned words in mapped memory that nobody accesses otherwise.
unsafe fn count(bytes: *mut u64, blocks: *mut u64, size: u64) {
    // SAFETY: the caller's promise.
    let (bytes, blocks) = unsafe { (AtomicU64::from_ptr(bytes), AtomicU64::from_ptr(blocks)) };
    bytes.fetch_add(size, Relaxed);
    blocks.fetch_add(1, Relaxed);
}
