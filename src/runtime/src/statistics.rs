//! What `-v` says about dirty mode: how much of the program ran with undefined data in its registers, and how much of that was interpreted.
//!
//! Counters are plain additions, not atomic ones: with several threads a few counts may be lost, and nobody waits for a cache line.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memcheck_abi::event::ExitReport;

/// Regions translated: all, and those of dirty mode.
pub static REGIONS: AtomicU64 = AtomicU64::new(0);
pub static DIRTY_REGIONS: AtomicU64 = AtomicU64::new(0);
/// Times that a thread went from clean to dirty code. Also counted by `asm::check`.
pub static ENTERED: AtomicU64 = AtomicU64::new(0);
/// Rules that translated code could not carry out itself, and how many of them were the conservative one on undefined data.
pub static RULES: AtomicU64 = AtomicU64::new(0);
pub static WITHOUT_ROW: AtomicU64 = AtomicU64::new(0);

#[inline]
pub fn count(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

pub fn fill(out: &mut ExitReport) {
    out.regions = REGIONS.load(Relaxed);
    out.dirty_regions = DIRTY_REGIONS.load(Relaxed);
    out.dirty_entered = ENTERED.load(Relaxed);
    out.dirty_rules = RULES.load(Relaxed);
    out.dirty_without_row = WITHOUT_ROW.load(Relaxed);
}
