//! What all threads share: free slots by class, runs of units, the common queue of freed blocks; behind one lock.
//!
//! A thread comes here once per batch of slots, not per block (see `cache`), so one lock is enough.

use crate::cache::Cache;
use crate::chunk::{Queue, Slot, Tray, Trays, Work};
use crate::classes::{CLASSES, COUNT};
use crate::layout::{RECORD_SIZE, UNIT, address_of};
use crate::map::{self, Kind};
use crate::record::{self, Head, State};
use crate::spans::{Run, Spans};
use crate::{paint, quarantine, spans, sweep};
use memcheck_abi::event::Family;
use memcheck_abi::layout::HEAP_START;
use memcheck_rt::sync::{Guard, Lock};

struct Shelf {
    trays: Trays,
    /// Bytes of the slots on them, now and when it was last looked for free slabs among them.
    idle: u64,
    searched: u64,
    /// The slab whose slots are being given out for the first time: offset in the heap, next slot, end.
    slab: u64,
    next: u64,
    end: u64,
    /// End of what is red zone already, an address.
    closed: u64,
    slabs: u32,
}

pub struct Central {
    pub spans: Spans,
    pub work: Work,
    shelves: [Shelf; COUNT],
    pub small: Queue,
    /// Blocks that leave the quarantine first.
    pub big: Queue,
    /// Address of the newest thread cache, 0 = none.
    pub caches: u64,
}

/// After this many slabs of a class the next ones are long, and will soon be full.
const POPULAR: u32 = 4;
/// A slab becomes red zone as its slots are given out, in steps of this many bytes, and always as far ahead as overruns usually go.
const STEP: u64 = 32 << 10;
const AHEAD: u64 = 4 << 10;
/// From this address on slabs lie in large pages, where the kernel has them. Small programs keep small ones.
const DENSE_FROM: u64 = HEAP_START + (4 << 20);
/// Fewer bytes of free slots are not searched for complete slabs.
const SEARCH_FROM: u64 = 256 << 10;

const SHELF: Shelf = Shelf { trays: Trays::new(), idle: 0, searched: 0, slab: 0, next: 0, end: 0, closed: 0, slabs: 0 };

static CENTRAL: Lock<Central> = Lock::new(Central {
    spans: Spans::new(),
    work: Work::new(),
    shelves: [SHELF; COUNT],
    small: Queue::new(),
    big: Queue::new(),
    caches: 0,
});

pub fn lock() -> Guard<'static, Central> {
    CENTRAL.lock()
}

impl Central {
    /// Free slots of a class, at most a batch and at least one; `None` when memory is exhausted.
    pub fn fetch(&mut self, class: usize) -> Option<&'static mut Tray> {
        let shelf = &mut self.shelves[class];
        if let Some(tray) = shelf.trays.pop() {
            shelf.count(shelf.idle - tray.len() as u64 * CLASSES[class].slot);
            return Some(tray);
        }
        if shelf.next == shelf.end && !self.new_slab(class) {
            return None;
        }
        let tray = self.work.tray()?;
        self.shelves[class].carve(class, tray);
        Some(tray)
    }

    /// Take a tray back, empty or not.
    pub fn store(&mut self, class: usize, tray: &'static mut Tray) {
        match tray.len() {
            0 => self.work.give_tray(tray),
            len => {
                let shelf = &mut self.shelves[class];
                shelf.count(shelf.idle + len as u64 * CLASSES[class].slot);
                shelf.trays.push(tray);
            }
        }
    }

    fn new_slab(&mut self, class: usize) -> bool {
        let facts = &CLASSES[class];
        let units = facts.slab_len(self.shelves[class].slabs).div_ceil(UNIT);
        let Some(run) = self.take(units) else { return false };
        let shelf = &mut self.shelves[class];
        let start = address_of(run.first);
        map::set(run.first, units, Kind::Slab(class));
        spans::set_tally(run.first, 0);
        (shelf.slab, shelf.next, shelf.end) = (start - HEAP_START, 0, units * UNIT / facts.slot);
        shelf.closed = if run.painted { start + units * UNIT } else { start };
        shelf.slabs += 1;
        if shelf.slabs > POPULAR && !run.painted && start >= DENSE_FROM {
            paint::expect_dense(start, units * UNIT);
        }
        true
    }

    /// Units for any purpose: from free runs, from slabs that nobody uses any more, at last from fresh memory.
    fn take(&mut self, units: u64) -> Option<Run> {
        while !self.spans.has(units) && self.find_free_slabs() {}
        self.spans.take(units)
    }

    /// Give the units of slabs back all of whose slots are on the shelf of their class: of the class with the most bytes there, if they are
    /// many more than last time. False if there is no such class.
    fn find_free_slabs(&mut self) -> bool {
        let worth = |shelf: &Shelf| shelf.idle >= SEARCH_FROM + shelf.searched + shelf.searched / 4;
        let most = (0..COUNT).filter(|&class| worth(&self.shelves[class])).max_by_key(|&class| self.shelves[class].idle);
        let Some(class) = most else { return false };
        let shelf = &mut self.shelves[class];
        let trays = core::mem::replace(&mut shelf.trays, Trays::new());
        let (left, bytes) = sweep::complete_slabs(trays, CLASSES[class].slot, &mut self.spans, &mut self.work);
        shelf.trays = left;
        shelf.count(shelf.idle - bytes);
        shelf.searched = shelf.idle;
        true
    }

    /// Units for a large block; its map entries and its record are ready.
    pub fn take_large(&mut self, units: u64) -> Option<Run> {
        let run = self.take(units)?;
        map::set(run.first, units, Kind::Large);
        Some(run)
    }

    /// Give the units of a large block back.
    pub fn give_large(&mut self, run: Run) {
        map::set(run.first, run.units, Kind::Nothing);
        record::erase(run.first * UNIT, 2 * RECORD_SIZE);
        self.spans.give(run);
    }

    pub fn new_cache(&mut self) -> Option<&'static mut Cache> {
        Cache::adopt_or_create(self)
    }
}

impl Shelf {
    /// So many bytes lie on the trays now.
    fn count(&mut self, idle: u64) {
        quarantine::idle_changed(self.idle, idle);
        self.idle = idle;
    }

    /// Fill a tray with the next slots of the current slab, to be popped in order of address.
    fn carve(&mut self, class: usize, tray: &mut Tray) {
        let facts = &CLASSES[class];
        let count = (self.end - self.next).min(u64::from(facts.batch));
        self.close(facts.slot, HEAP_START + self.slab + (self.next + count) * facts.slot);
        for index in (self.next..self.next + count).rev() {
            let slot = Slot::new(self.slab / UNIT, index);
            slot.record().set_head(Head::new(slot.block(class), State::Free, Family::Malloc, 0));
            tray.push(slot);
        }
        self.next += count;
    }

    /// Slots up to `end` will be given out: they and what follows become red zone now.
    fn close(&mut self, slot: u64, end: u64) {
        let limit = (HEAP_START + self.slab + self.end * slot).next_multiple_of(UNIT);
        let to = (end + AHEAD).next_multiple_of(STEP).min(limit);
        if to <= self.closed {
            return;
        }
        let (at, len) = (self.closed, to - self.closed);
        if self.slabs > POPULAR {
            let first = (at - HEAP_START - self.slab) / slot;
            paint::populate(at, len, record::at(self.slab, first).link(), (len / slot + 2) * RECORD_SIZE);
        }
        paint::close_run(at, len);
        self.closed = to;
    }
}
