//! Freed blocks wait here, so that a use after free finds memory that is still marked as freed.
//!
//! ```text
//! free ── small ──> buffer of the thread ──(full, or 64 KiB of blocks)──> queue of chunks ──┐
//!      └─ big ────────────────────────────────────────────────> list of big blocks ─────────┴─> free slots
//! ```
//! The volume counts what the blocks in queue and list take of the heap, with their red zones: a million blocks of 16 bytes would
//! otherwise keep a quarter of a gigabyte with all that belongs to them, and every allocation would find its memory in no cache. The next *allocation* trims it down to the limit: the big list first,
//! so that a few huge frees do not flush all small ones; a block that alone exceeds the limit goes to the head of the big list.
//! Order is first in, first out up to the grain of a chunk, 1/256 of the volume at most.
//!
//! Slots that left and that nobody wanted since count as well, up to a quarter of the volume: they still say what they were, and a program
//! that asks for other sizes now than it did before would otherwise pay for both.

use crate::cache::Cache;
use crate::central::{self, Central};
use crate::chunk::{Chunk, Slot};
use crate::classes::MIN_SLOT;
use crate::layout::address_of;
use crate::map::{self, Kind};
use crate::record::{self, Head, Record};
use crate::spans::{self, Run};
use crate::{paint, settings};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Free slots fill at most this part of the volume.
const IDLE_SHARE: u64 = 4;

/// Bytes in the common queue and list. Written under the central lock, as are the others.
static VOLUME: AtomicU64 = AtomicU64::new(0);
/// Bytes of free slots on the shelves.
static IDLE: AtomicU64 = AtomicU64::new(0);
/// What counts for the limit.
static LEVEL: AtomicU64 = AtomicU64::new(0);
/// Blocks have left.
static WAS_FULL: AtomicBool = AtomicBool::new(false);

/// A block was freed: its record is in state quarantined and belongs to the caller.
#[inline(always)]
pub fn add(cache: &mut Cache, record: &'static Record, size: u64) {
    let settings = settings::get();
    let taken = taken(size);
    if size >= settings.big || size >= settings.volume {
        return add_big(record, size, size >= settings.volume);
    }
    if cache.buffer.is_none() {
        cache.buffer = central::lock().work.chunk();
    }
    // Without memory for the list the block is simply never used again.
    let Some(buffer) = &mut cache.buffer else { return };
    buffer.push(record.link(), taken);
    if buffer.is_full() || buffer.bytes >= settings.buffer {
        flush(cache);
    }
}

#[cold]
fn add_big(record: &'static Record, size: u64, first: bool) {
    let mut central = central::lock();
    let Central { big, work, .. } = &mut *central;
    // Without memory for the list the block is simply never used again.
    if if first { big.put_first(record.link(), work) } else { big.put_last(record.link(), work) } {
        grow(taken(size));
    }
}

/// Bytes that a block of this size takes of the heap.
#[inline(always)]
fn taken(size: u64) -> u64 {
    (settings::get().around + size).max(MIN_SLOT)
}

/// Under the central lock, here and below.
fn grow(by: u64) {
    VOLUME.store(VOLUME.load(Relaxed) + by, Relaxed);
    weigh();
}

fn shrink(by: u64) {
    VOLUME.store(VOLUME.load(Relaxed) - by, Relaxed);
    weigh();
}

/// The free slots on a shelf take so many bytes now.
pub fn idle_changed(before: u64, after: u64) {
    IDLE.store(IDLE.load(Relaxed) + after - before, Relaxed);
    weigh();
}

fn weigh() {
    let idle = IDLE.load(Relaxed).min(settings::get().volume / IDLE_SHARE);
    LEVEL.store(VOLUME.load(Relaxed) + idle, Relaxed);
}

/// Hand the thread's freed blocks to the common queue.
#[cold]
pub fn flush(cache: &mut Cache) {
    if let Some(chunk) = cache.buffer.take() {
        let mut central = central::lock();
        if chunk.len == 0 {
            return central.work.give(chunk);
        }
        grow(chunk.bytes);
        central.small.push(chunk);
    }
}

/// Has anything been trimmed yet?
pub fn was_full() -> bool {
    WAS_FULL.load(Relaxed)
}

/// Is it time to [`trim`]?
#[inline(always)]
pub fn is_over() -> bool {
    LEVEL.load(Relaxed) > settings::get().volume
}

/// Release the oldest blocks until the volume is within its limit.
#[cold]
#[inline(never)]
pub fn trim(cache: &mut Cache) {
    WAS_FULL.store(true, Relaxed);
    loop {
        // A statement of its own: the lock must be free again while blocks are released.
        let next = oldest(&mut central::lock());
        match next {
            None => return,
            Some(Oldest::Big(record)) => release(cache, record.link()),
            Some(Oldest::Small(chunk)) => {
                for &link in chunk.filled() {
                    release(cache, link);
                }
                central::lock().work.give(chunk);
            }
        }
    }
}

enum Oldest {
    Big(&'static Record),
    Small(&'static mut Chunk),
}

fn oldest(central: &mut Central) -> Option<Oldest> {
    if !is_over() {
        return None;
    }
    let Central { big, work, .. } = central;
    if let Some(record) = big.take_first(work).and_then(Record::from_link) {
        shrink(taken(record.size()));
        return Some(Oldest::Big(record));
    }
    let chunk = central.small.pop()?;
    shrink(chunk.bytes);
    Some(Oldest::Small(chunk))
}

/// The block's memory may be used again. Records of small ones are not touched: they are in no cache, and say what they said until
/// the slot's next life begins.
#[inline(always)]
pub fn release(cache: &mut Cache, link: u64) {
    let Some(record) = Record::from_link(link) else { return };
    let (first, kind) = map::run_of(record::unit_of_link(link));
    match kind {
        Kind::Slab(class) => cache.push(class, Slot::new(first, record::index_of_link(link, first))),
        Kind::Large => release_large(first, record.head()),
        Kind::Nothing => {}
    }
}

#[cold]
fn release_large(first: u64, head: Head) {
    let units = spans::run_len(first);
    let huge = head.has(record::HUGE);
    if huge {
        paint::unseal(address_of(first), address_of(first + units));
    }
    central::lock().give_large(Run { first, units, painted: !huge, zero: huge });
}

/// Does the freed block of this record wait, in the common queue or in this thread's buffer?
#[cfg(test)]
pub fn holds(cache: &Cache, record: &'static Record) -> bool {
    let own = cache.buffer.as_ref().is_some_and(|chunk| chunk.filled().contains(&record.link()));
    own || crate::superseded::holds(cache, record) || central::lock().small.holds(record.link())
}
