//! The record of one slot: everything the heap knows about a block, out of reach of the program.
//!
//! ```text
//! head    bits 0..36 address of the block / 16, from HEAP_START on   36..38 state   40..43 family   43 HUGE   44 LONG   45..64 size
//! stacks  depot ids of allocation and free; of a live block instead of the latter its age, marked as such
//! ```
//! The size of a block that has units of its own (`LONG`) does not fit there: it is in the record behind, which belongs to nobody else.
//!
//! `head` is written last on allocation and changed by compare-and-swap on free, so that of two threads that free one block
//! only one succeeds. Everything else is plain data of whoever owns the block; the cells are atomic only so that a reader
//! (a description, the leak list) that comes at a bad moment sees an old or a new value and nothing else.
//! A record of zeros is a slot that was never used. Four records share a cache line: neighbours are often freed together.
#![allow(unsafe_code, reason = "records are reached by address arithmetic")]

use crate::classes::MAX_SLOT;
use crate::layout::{RECORD_SIZE, RECORDS, UNIT_SHIFT};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use core::sync::atomic::{Ordering::AcqRel, Ordering::Release};
use memcheck_abi::event::{Block, Family};
use memcheck_abi::layout::{HEAP_END, HEAP_START};
use memcheck_rt::sys;

const ADDRESS: u64 = (1 << 36) - 1;
const STATE_SHIFT: u32 = 36;
const FAMILY_SHIFT: u32 = 40;
const SIZE_SHIFT: u32 = 45;

const _: () = assert!((HEAP_END - HEAP_START) / 16 - 1 <= ADDRESS, "addresses fit");
const _: () = assert!(MAX_SLOT < 1 << (64 - SIZE_SHIFT), "sizes of what lies in slots fit");

/// Too large to paint: see `paint::HUGE`.
pub const HUGE: u64 = 1 << 43;
/// The block has units of its own.
pub const LONG: u64 = 1 << 44;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Never used.
    None = 0,
    Live = 1,
    /// Freed: waits, or may be given out again; sizes and stacks are those of the last block.
    Quarantined = 2,
    /// May be given out for the first time.
    Free = 3,
}

/// A copy of `head`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head(pub u64);

impl Head {
    #[inline(always)]
    pub const fn new(address: u64, state: State, family: Family, flags: u64) -> Head {
        let place = (address - HEAP_START) / 16;
        Head(place | (state as u64) << STATE_SHIFT | (family as u64) << FAMILY_SHIFT | flags)
    }

    /// Of a block in a slot.
    #[inline(always)]
    pub const fn with_size(self, size: u64) -> Head {
        Head(self.0 | size << SIZE_SHIFT)
    }

    #[inline(always)]
    pub const fn address(self) -> u64 {
        HEAP_START + 16 * (self.0 & ADDRESS)
    }

    #[inline(always)]
    pub const fn state(self) -> State {
        match self.0 >> STATE_SHIFT & 3 {
            1 => State::Live,
            2 => State::Quarantined,
            3 => State::Free,
            _ => State::None,
        }
    }

    /// [`Family`] as a number.
    #[inline(always)]
    pub const fn family(self) -> u32 {
        (self.0 >> FAMILY_SHIFT & 7) as u32
    }

    #[inline(always)]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline(always)]
    pub const fn with_state(self, state: State) -> Head {
        Head(self.0 & !(3 << STATE_SHIFT) | (state as u64) << STATE_SHIFT)
    }
}

#[repr(C)]
pub struct Record {
    head: AtomicU64,
    alloc_stack: AtomicU32,
    /// Or [`AGE`] and the block's age.
    free_stack: AtomicU32,
}

/// Not in the number of any stack (see `memcheck_rt::depot`).
const AGE: u32 = 1 << 31;

const _: () = assert!(core::mem::size_of::<Record>() as u64 == RECORD_SIZE);

/// The record number `index` of the run of units that begins at `offset` bytes into the heap.
#[inline(always)]
pub fn at(offset: u64, index: u64) -> &'static Record {
    // SAFETY: callers derive both from an address inside the heap, so the sum lies in the record range, which is mapped for
    // good by `init`; all fields are atomic, so any number of references may exist.
    unsafe { &*((RECORDS + offset / 4 + index * RECORD_SIZE) as *const Record) }
}

/// The slots of `len` bytes of records that begin as in [`at`] were never used. Their pages are this run's alone, and go back: the next
/// run often begins elsewhere.
pub fn erase(offset: u64, len: u64) {
    // SAFETY: records of a run that the caller owns, all of whose slots are free; see `at`. Those of a run of units begin with a page.
    unsafe { sys::discard(RECORDS + offset / 4, len.next_multiple_of(PAGE)) }
}

const PAGE: u64 = 4096;
const _: () = assert!(RECORDS.is_multiple_of(PAGE) && (1 << UNIT_SHIFT) / 4 == PAGE, "a page of records for each unit");

/// A unit of the run that the record of a link belongs to (records of a run take a quarter of its length at most).
#[inline(always)]
pub const fn unit_of_link(link: u64) -> u64 {
    (link - RECORDS) >> (UNIT_SHIFT - 2)
}

/// The number of a link's record in the run that begins at unit `first`.
#[inline(always)]
pub const fn index_of_link(link: u64, first: u64) -> u64 {
    (link - RECORDS - (first << (UNIT_SHIFT - 2))) / RECORD_SIZE
}

/// Ask for the cache line of an address that will be written soon.
#[inline(always)]
pub fn prefetch(address: u64) {
    // SAFETY: a prefetch never faults; processors that do not know this one do nothing.
    unsafe { core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
}

impl Record {
    /// The record whose [`Record::link`] this is; 0 = none.
    #[inline(always)]
    pub fn from_link(link: u64) -> Option<&'static Record> {
        // SAFETY: links are only made by `link` and kept in memory that the program cannot reach.
        if link == 0 { None } else { Some(unsafe { &*(link as *const Record) }) }
    }

    #[inline(always)]
    pub fn link(&'static self) -> u64 {
        core::ptr::from_ref(self) as u64
    }

    #[inline(always)]
    pub fn head(&self) -> Head {
        Head(self.head.load(Relaxed))
    }

    /// For a slot that belongs to the caller alone.
    #[inline(always)]
    pub fn set_head(&self, head: Head) {
        self.head.store(head.0, Release);
    }

    /// Live → quarantined, if the head is still `seen`. `alone`: no other thread uses the heap, so the head is what was seen, and there is
    /// no need to wait for all stores that are under way, as a locked instruction does.
    #[inline(always)]
    pub fn retire(&self, seen: Head, alone: bool) -> bool {
        let freed = seen.with_state(State::Quarantined);
        if alone {
            self.head.store(freed.0, Relaxed);
            return true;
        }
        self.head.compare_exchange(seen.0, freed.0, AcqRel, Relaxed).is_ok()
    }

    /// Where the size of a block is that has units of its own.
    fn size_behind(&self) -> &'static AtomicU64 {
        // SAFETY: the records of a run of units take a quarter of its length, and a run like this has one block: the record behind is mapped
        // and nobody else's. All records are atomic.
        unsafe { &(*core::ptr::from_ref(self).add(1)).head }
    }

    /// Requested bytes.
    #[inline(always)]
    pub fn size(&self) -> u64 {
        let head = self.head();
        if head.has(LONG) { self.size_behind().load(Relaxed) } else { head.0 >> SIZE_SHIFT }
    }

    /// Before the head says that there is a block that is [`LONG`].
    pub fn set_long_size(&self, size: u64) {
        self.size_behind().store(size, Relaxed);
    }

    /// Before the head says that there is a new block.
    #[inline(always)]
    pub fn set_birth(&self, stack: u32, age: u32) {
        self.alloc_stack.store(stack, Relaxed);
        self.free_stack.store(AGE | age, Relaxed);
    }

    /// Of a live block: how many its thread had allocated before (in 31 bits).
    pub fn age(&self) -> u32 {
        self.free_stack.load(Relaxed) & !AGE
    }

    #[inline(always)]
    pub fn set_free_stack(&self, stack: u32) {
        self.free_stack.store(stack, Relaxed);
    }

    pub fn block(&self) -> Block {
        let head = self.head();
        Block {
            addr: head.address(),
            size: self.size(),
            family: head.family(),
            alloc_stack: self.alloc_stack.load(Relaxed),
            free_stack: Some(self.free_stack.load(Relaxed)).filter(|&stack| stack & AGE == 0).unwrap_or(0),
        }
    }
}
