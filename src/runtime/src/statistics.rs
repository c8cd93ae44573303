//! What `-v` says about dirty mode: how much of the program ran with undefined data in its registers, and how much of that was interpreted.
//!
//! Every thread counts in its own context: on the way into dirty code threads must not wait for each other's cache lines.

use crate::threads;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memcheck_abi::context::{ThreadContext, local};
use memcheck_abi::event::ExitReport;

/// What a thread counts: times that it went from clean to dirty code (counted by `asm::check`, too), rules that translated code could not
/// carry out itself, and how many of them were the conservative one on undefined data.
pub const ENTERED: usize = local::STATISTICS;
pub const RULES: usize = local::STATISTICS + 1;
pub const WITHOUT_ROW: usize = local::STATISTICS + 2;
const COUNTERS: [usize; 3] = [ENTERED, RULES, WITHOUT_ROW];

/// Regions translated, counted with the cache locked.
pub static CLEAN_REGIONS: AtomicU64 = AtomicU64::new(0);
pub static DIRTY_REGIONS: AtomicU64 = AtomicU64::new(0);
/// Times that all of them were given back.
pub static RENEWALS: AtomicU64 = AtomicU64::new(0);
/// Counted by threads whose contexts others have taken over.
static ENDED: [AtomicU64; COUNTERS.len()] = [const { AtomicU64::new(0) }; COUNTERS.len()];

#[inline]
pub fn count(ctx: &mut ThreadContext, counter: usize) {
    ctx.locals[counter] += 1;
}

/// The context is about to be another thread's.
pub fn retire(ctx: &ThreadContext) {
    for (sum, counter) in ENDED.iter().zip(COUNTERS) {
        sum.fetch_add(ctx.locals[counter], Relaxed);
    }
}

pub fn fill(out: &mut ExitReport) {
    out.dirty_regions = DIRTY_REGIONS.load(Relaxed);
    out.regions = CLEAN_REGIONS.load(Relaxed) + out.dirty_regions;
    out.renewals = RENEWALS.load(Relaxed);
    let mut sums: [u64; COUNTERS.len()] = core::array::from_fn(|i| ENDED[i].load(Relaxed));
    threads::for_each(|ctx| sums.iter_mut().zip(COUNTERS).for_each(|(sum, counter)| *sum += ctx.locals[counter]));
    [out.dirty_entered, out.dirty_rules, out.dirty_without_row] = sums;
}
