//! What all threads share: free slots by class, runs of units, the common queue of freed blocks; behind one lock.
//!
//! A thread comes here once per batch of slots, not per block (see `cache`), so one lock is enough.

use crate::cache::Cache;
use crate::chunk::{Links, Queue, Work};
use crate::classes::{CLASSES, COUNT};
use crate::layout::{UNIT, address_of};
use crate::map::{self, Kind};
use crate::record::{self, Head, Record, State};
use crate::spans::{Run, Spans};
use crate::{paint, settings};
use memcheck_abi::event::Family;
use memcheck_abi::layout::HEAP_START;
use memcheck_rt::sync::{Guard, Lock};

/// A chain of free records of one class.
#[derive(Clone, Copy)]
pub struct Batch {
    /// Link of the first record, 0 = empty.
    pub head: u64,
    pub count: u32,
}

impl Batch {
    pub const EMPTY: Batch = Batch { head: 0, count: 0 };
    const COUNT_SHIFT: u32 = 48;

    fn pack(self) -> u64 {
        self.head | u64::from(self.count) << Self::COUNT_SHIFT
    }

    fn unpack(word: u64) -> Batch {
        Batch { head: word & ((1 << Self::COUNT_SHIFT) - 1), count: (word >> Self::COUNT_SHIFT) as u32 }
    }
}

struct Shelf {
    batches: Links,
    /// The slab whose slots are being given out for the first time: offset in the heap, next slot, end.
    slab: u64,
    next: u64,
    end: u64,
    slabs: u32,
}

/// Blocks that leave the quarantine first, chained through their records.
pub struct Big {
    pub head: u64,
    pub tail: u64,
}

pub struct Central {
    pub spans: Spans,
    pub work: Work,
    shelves: [Shelf; COUNT],
    pub small: Queue,
    pub big: Big,
    /// Address of the newest thread cache, 0 = none.
    pub caches: u64,
}

const SHELF: Shelf = Shelf { batches: Links::new(), slab: 0, next: 0, end: 0, slabs: 0 };

static CENTRAL: Lock<Central> = Lock::new(Central {
    spans: Spans::new(),
    work: Work::new(),
    shelves: [SHELF; COUNT],
    small: Queue::new(),
    big: Big { head: 0, tail: 0 },
    caches: 0,
});

pub fn lock() -> Guard<'static, Central> {
    CENTRAL.lock()
}

impl Central {
    /// Free slots of a class, at most a batch; empty when memory is exhausted.
    pub fn fetch(&mut self, class: usize) -> Batch {
        let shelf = &mut self.shelves[class];
        if let Some(word) = shelf.batches.pop(&mut self.work) {
            return Batch::unpack(word);
        }
        if shelf.next == shelf.end && !self.new_slab(class) {
            return Batch::EMPTY;
        }
        self.shelves[class].carve(class)
    }

    pub fn store(&mut self, class: usize, batch: Batch) {
        if batch.count != 0 {
            self.shelves[class].batches.push(batch.pack(), &mut self.work);
        }
    }

    fn new_slab(&mut self, class: usize) -> bool {
        let shelf = &mut self.shelves[class];
        let facts = &CLASSES[class];
        let units = facts.slab_len(shelf.slabs).div_ceil(UNIT);
        let Some(run) = self.spans.take(units) else { return false };
        let start = address_of(run.first);
        if !run.painted {
            paint::close_run(start, units * UNIT);
        }
        map::set(run.first, units, Kind::Slab(class));
        *shelf = Shelf {
            batches: core::mem::replace(&mut shelf.batches, Links::new()),
            slab: start - HEAP_START,
            next: 0,
            end: units * UNIT / facts.slot,
            slabs: shelf.slabs + 1,
        };
        true
    }

    /// Units for a large block; its map entries and its record are ready.
    pub fn take_large(&mut self, units: u64) -> Option<Run> {
        let run = self.spans.take(units)?;
        map::set(run.first, units, Kind::Large);
        Some(run)
    }

    /// Give the units of a large block back.
    pub fn give_large(&mut self, run: Run) {
        map::set(run.first, run.units, Kind::Nothing);
        record::at(run.first * UNIT, 0).set_head(Head(0));
        self.spans.give(run);
    }

    pub fn new_cache(&mut self) -> Option<&'static mut Cache> {
        Cache::adopt_or_create(self)
    }
}

impl Shelf {
    /// The next slots of the current slab, in order of address.
    fn carve(&mut self, class: usize) -> Batch {
        let facts = &CLASSES[class];
        let count = (self.end - self.next).min(u64::from(facts.batch));
        let front = settings::get().front;
        let mut head = 0;
        for index in (self.next..self.next + count).rev() {
            let record: &'static Record = record::at(self.slab, index);
            record.set_head(Head::new(HEAP_START + self.slab + index * facts.slot + front, State::Free, Family::Malloc, 0));
            record.set_next(head);
            head = record.link();
        }
        self.next += count;
        Batch { head, count: count as u32 }
    }
}
