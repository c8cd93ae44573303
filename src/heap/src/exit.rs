//! What the summaries and the leak search want to know: all live blocks and the totals.
#![allow(unsafe_code, reason = "the list lives in a fixed range that the tracer reads")]

use crate::layout::{LIVE, LIVE_END};
use crate::record::State;
use crate::{cache, client, map, spans};
use memcheck_abi::event::{ExitReport, Family, LiveBlock};
use memcheck_rt::sync::{Guard, Lock};
use memcheck_rt::sys;

const SIZE: u64 = core::mem::size_of::<LiveBlock>() as u64;
const STEP: u64 = 1 << 22;

/// Bytes of the list's range that are mapped.
static MAPPED: Lock<u64> = Lock::new(0);

/// For the time of a fork.
pub fn hold() -> Guard<'static, u64> {
    MAPPED.lock()
}

struct List {
    len: u64,
    mapped: u64,
    /// Of those that are in no pool of the program.
    bytes: u64,
    blocks: u64,
}

impl List {
    /// One more block in use. A chunk of a pool lies in memory that is counted already: `None`.
    fn count(&mut self, size: Option<u64>) {
        if let Some(size) = size {
            self.bytes = self.bytes.wrapping_add(size);
            self.blocks += 1;
        }
    }

    /// Append; silently full when memory is exhausted.
    fn push(&mut self, block: LiveBlock) {
        let end = (self.len + 1) * SIZE;
        if end > self.mapped {
            if LIVE + self.mapped + STEP > LIVE_END || !sys::map_fixed(LIVE + self.mapped, STEP, sys::PROT_READ | sys::PROT_WRITE) {
                return;
            }
            self.mapped += STEP;
        }
        // SAFETY: mapped above; only the holder of the lock writes here.
        unsafe { ((LIVE + self.len * SIZE) as *mut LiveBlock).write(block) };
        self.len += 1;
    }
}

/// Fill the heap's part of a report: live blocks in order of address (declared ones included, they may lie inside others), and totals.
/// The list stays valid until the next call. Other threads should stand still.
pub fn report(out: &mut ExitReport) {
    let mut mapped = MAPPED.lock();
    let mut list = List { len: 0, mapped: *mapped, bytes: 0, blocks: 0 };
    let mut declared = alloc::vec::Vec::new();
    client::for_each(|addr, in_pool, m| {
        declared.push(LiveBlock { addr, size: m.size, stack: m.stack, family: Family::Custom as u32, ..LiveBlock::default() });
        list.count(if in_pool { None } else { Some(m.size) });
    });
    let mut declared = declared.into_iter().peekable();
    map::for_each(spans::used_units(), |record| {
        if record.head().state() != State::Live {
            return;
        }
        let b = record.block();
        list.count(Some(b.size));
        while let Some(marked) = declared.next_if(|m| m.addr < b.addr) {
            list.push(marked);
        }
        list.push(LiveBlock { addr: b.addr, size: b.size, stack: b.alloc_stack, family: b.family, age: record.age(), unused: 0 });
    });
    declared.for_each(|marked| list.push(marked));
    *mapped = list.mapped;
    out.blocks = LIVE;
    out.block_count = list.len;
    (out.bytes_in_use, out.blocks_in_use) = (list.bytes, list.blocks);
    (out.allocs, out.frees, out.bytes_allocated) = cache::totals();
}

/// Bytes in use, and bytes of freed blocks. Other threads may run: then it is what they had about now.
pub fn usage() -> (u64, u64) {
    let (mut used, mut freed) = (0, 0);
    map::for_each(spans::used_units(), |record| match record.head().state() {
        State::Live => used += record.size(),
        State::Quarantined => freed += record.size(),
        _ => {}
    });
    (used, freed)
}

/// The list that the last [`report`] made.
#[cfg(test)]
pub fn listed(report: &ExitReport) -> &'static [LiveBlock] {
    if report.block_count == 0 {
        return &[];
    }
    // SAFETY: written by `report`, mapped for good.
    unsafe { core::slice::from_raw_parts(report.blocks as *const LiveBlock, report.block_count as usize) }
}
