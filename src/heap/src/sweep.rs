//! Slabs that nobody uses any more, found among the free slots of their class.
//!
//! A program that asks for other sizes now than it did before would pay for both: free slots stay in their class, 20 MB of them in a
//! compiler or in `git log --stat`. So before the heap grows, the slots on a shelf are counted by slab, and slabs that are complete go back to the free runs.
//! Nothing is counted while slots come and go.
//!
//! ```text
//! tally of a slab:  0 ..count..> free slots ──(all of them)──> so many more as were taken from the trays ──(all of them)──> given back
//!                                           └─(some are in use)──> 0
//! ```

use crate::chunk::{Trays, Work};
use crate::layout::{RECORD_SIZE, UNIT};
use crate::map::{self, Kind};
use crate::record;
use crate::spans::{self, Run, Spans};

/// Take the slots of complete slabs, whose slots have this length, from the trays, and give the slabs back. The trays that are left, and the
/// bytes that were taken.
pub fn complete_slabs(trays: Trays, slot: u64, spans: &mut Spans, work: &mut Work) -> (Trays, u64) {
    for free in trays.iter().flat_map(|tray| tray.slots()) {
        let first = free.slab();
        spans::set_tally(first, spans::tally(first) + 1);
    }
    let (mut all, mut left, mut bytes) = (trays, Trays::new(), 0);
    while let Some(tray) = all.pop() {
        let before = tray.len();
        tray.retain(|free| !leaves(free.slab(), slot, spans));
        bytes += (before - tray.len()) as u64 * slot;
        match tray.len() {
            0 => work.give_tray(tray),
            _ => left.push(tray),
        }
    }
    (left, bytes)
}

/// Does a free slot of this slab leave its class together with the slab? With the last one the slab goes.
fn leaves(first: u64, slot: u64, spans: &mut Spans) -> bool {
    let units = spans::run_len(first);
    let (tally, slots) = (spans::tally(first), (units * UNIT / slot) as u32);
    if tally < slots {
        spans::set_tally(first, 0);
        return false;
    }
    if tally + 1 < 2 * slots {
        spans::set_tally(first, tally + 1);
        return true;
    }
    spans::set_tally(first, 0);
    map::set(first, units, Kind::Nothing);
    record::erase(first * UNIT, u64::from(slots) * RECORD_SIZE);
    spans.give(Run { first, units, painted: true, zero: false });
    true
}
