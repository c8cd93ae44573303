//! What each thread has of its own: free slots of every class, the blocks it freed last, and counters.
//!
//! Two magazines per class: slots are popped from and pushed to `current`; when it runs empty or full it changes places with `spare`,
//! and only when both are empty or full a whole batch moves from or to the central lists. So the lock is taken at most once
//! per batch, whatever the pattern.
#![allow(unsafe_code, reason = "caches live in the work area and are found through the thread context")]

use crate::central::{self, Batch, Central};
use crate::chunk::Chunk;
use crate::classes::{CLASSES, COUNT};
use crate::record::{Record, prefetch};
use crate::stacks;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memcheck_abi::context::ThreadContext;
#[cfg(not(test))]
use memcheck_abi::context::local;

#[repr(C)]
pub struct Cache {
    current: [Batch; COUNT],
    spare: [Batch; COUNT],
    /// Blocks freed by this thread, not yet in the common queue.
    pub buffer: Option<&'static mut Chunk>,
    pub stacks: stacks::Memory,
    pub allocs: Counter,
    pub frees: Counter,
    pub bytes: Counter,
    /// Address of the next cache in the list of all, under the central lock.
    next: u64,
    /// Its thread is gone, under the central lock.
    idle: bool,
}

/// Written by one thread, read by any.
pub struct Counter(AtomicU64);

impl Counter {
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The cache of the current thread; `None` when memory is exhausted.
#[cfg(not(test))]
#[inline(always)]
pub fn current(ctx: &mut ThreadContext) -> Option<&'static mut Cache> {
    let word = &mut ctx.locals[local::HEAP];
    of_word(word)
}

/// Unit tests: all threads share one context, so the word is a real thread-local.
#[cfg(test)]
pub fn current(_: &mut ThreadContext) -> Option<&'static mut Cache> {
    extern crate std;
    std::thread_local!(static WORD: core::cell::Cell<u64> = const { core::cell::Cell::new(0) });
    WORD.with(|cell| {
        let mut word = cell.get();
        let cache = of_word(&mut word);
        cell.set(word);
        cache
    })
}

#[inline(always)]
fn of_word(word: &mut u64) -> Option<&'static mut Cache> {
    if *word == 0 {
        *word = first();
    }
    // SAFETY: the word is 0 or the address of the cache that belongs to this thread alone; one entry point runs at a time.
    if *word == 0 { None } else { Some(unsafe { &mut *(*word as *mut Cache) }) }
}

#[cold]
#[inline(never)]
fn first() -> u64 {
    central::lock().new_cache().map_or(0, |c| core::ptr::from_mut(c) as u64)
}

impl Cache {
    /// An idle cache, or a new one.
    pub fn adopt_or_create(central: &mut Central) -> Option<&'static mut Cache> {
        let mut at = central.caches;
        while at != 0 {
            // SAFETY: the list holds caches only; an idle one has no other user, and `idle` changes under the lock we hold.
            let cache = unsafe { &mut *(at as *mut Cache) };
            if cache.idle {
                cache.idle = false;
                return Some(cache);
            }
            at = cache.next;
        }
        at = central.work.raw(core::mem::size_of::<Cache>() as u64);
        if at == 0 {
            return None;
        }
        // SAFETY: fresh zeros, page-aligned, handed out once; zeros are a valid empty cache.
        let cache = unsafe { &mut *(at as *mut Cache) };
        cache.next = central.caches;
        central.caches = at;
        Some(cache)
    }

    /// A free slot; its record belongs to the caller.
    #[inline(always)]
    pub fn pop(&mut self, class: usize) -> Option<&'static Record> {
        if self.current[class].head == 0 && !self.refill(class) {
            return None;
        }
        let magazine = &mut self.current[class];
        let record = Record::from_link(magazine.head)?;
        magazine.head = record.next();
        magazine.count -= 1;
        prefetch(magazine.head);
        Some(record)
    }

    #[cold]
    #[inline(never)]
    fn refill(&mut self, class: usize) -> bool {
        let fresh = match self.spare[class].count {
            0 => central::lock().fetch(class),
            _ => core::mem::replace(&mut self.spare[class], Batch::EMPTY),
        };
        self.current[class] = fresh;
        fresh.count != 0
    }

    /// Take a free slot.
    #[inline(always)]
    pub fn push(&mut self, class: usize, record: &'static Record) {
        if self.current[class].count >= CLASSES[class].batch {
            self.overflow(class);
        }
        let magazine = &mut self.current[class];
        record.set_next(magazine.head);
        magazine.head = record.link();
        magazine.count += 1;
    }

    #[cold]
    #[inline(never)]
    fn overflow(&mut self, class: usize) {
        if self.spare[class].count != 0 {
            central::lock().store(class, self.spare[class]);
        }
        self.spare[class] = core::mem::replace(&mut self.current[class], Batch::EMPTY);
    }

    /// The thread ends: everything goes back.
    pub fn retire(&mut self) {
        crate::quarantine::flush(self);
        let mut central = central::lock();
        for class in 0..COUNT {
            central.store(class, core::mem::replace(&mut self.current[class], Batch::EMPTY));
            central.store(class, core::mem::replace(&mut self.spare[class], Batch::EMPTY));
        }
        self.idle = true;
    }
}

/// Sums over all threads, past ones included: allocations, frees, bytes allocated.
pub fn totals() -> (u64, u64, u64) {
    let central = central::lock();
    let (mut allocs, mut frees, mut bytes) = (0, 0, 0u64);
    let mut at = central.caches;
    while at != 0 {
        // SAFETY: caches are never freed; counters are atomic and `next` does not change.
        let (a, f, b, next) = unsafe {
            let cache = at as *const Cache;
            ((*cache).allocs.get(), (*cache).frees.get(), (*cache).bytes.get(), (*cache).next)
        };
        (allocs, frees, bytes, at) = (allocs + a, frees + f, bytes.wrapping_add(b), next);
    }
    (allocs, frees, bytes)
}
