//! What all threads share: free slots by class, runs of units, the common queue of freed blocks; behind one lock.
//!
//! A thread comes here once per batch of slots, not per block (see `cache`), so one lock is enough.

use crate::cache::Cache;
use crate::chunk::{Queue, Slot, Tray, Trays, Work};
use crate::classes::{CLASSES, COUNT};
use crate::layout::{RECORD_SIZE, UNIT, address_of};
use crate::map::{self, Kind};
use crate::record::{self, Head, Record, State};
use crate::spans::{Run, Spans};
use crate::{paint, settings};
use memcheck_abi::event::Family;
use memcheck_abi::layout::HEAP_START;
use memcheck_rt::sync::{Guard, Lock};

struct Shelf {
    trays: Trays,
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

/// After this many slabs of a class the next ones are long, and will soon be full.
const POPULAR: u32 = 4;

const SHELF: Shelf = Shelf { trays: Trays::new(), slab: 0, next: 0, end: 0, slabs: 0 };

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
    /// Free slots of a class, at most a batch and at least one; `None` when memory is exhausted.
    pub fn fetch(&mut self, class: usize) -> Option<&'static mut Tray> {
        let shelf = &mut self.shelves[class];
        if let Some(tray) = shelf.trays.pop() {
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
            _ => self.shelves[class].trays.push(tray),
        }
    }

    fn new_slab(&mut self, class: usize) -> bool {
        let shelf = &mut self.shelves[class];
        let facts = &CLASSES[class];
        let units = facts.slab_len(shelf.slabs).div_ceil(UNIT);
        let Some(run) = self.spans.take(units) else { return false };
        let start = address_of(run.first);
        if !run.painted {
            if shelf.slabs >= POPULAR {
                let slots = units * UNIT / facts.slot;
                paint::populate(start, units * UNIT, record::at(start - HEAP_START, 0).link(), slots * RECORD_SIZE);
            }
            paint::close_run(start, units * UNIT);
        }
        map::set(run.first, units, Kind::Slab(class));
        *shelf = Shelf {
            trays: core::mem::replace(&mut shelf.trays, Trays::new()),
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
    /// Fill a tray with the next slots of the current slab, to be popped in order of address.
    fn carve(&mut self, class: usize, tray: &mut Tray) {
        let facts = &CLASSES[class];
        let count = (self.end - self.next).min(u64::from(facts.batch));
        let front = settings::get().front;
        for index in (self.next..self.next + count).rev() {
            let record: &'static Record = record::at(self.slab, index);
            let block = HEAP_START + self.slab + index * facts.slot + front;
            record.set_head(Head::new(block, State::Free, Family::Malloc, 0));
            tray.push(Slot { link: record.link(), block });
        }
        self.next += count;
    }
}
