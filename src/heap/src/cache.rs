//! What each thread has of its own: free slots of every class, the blocks it freed last, and counters.
//!
//! Two trays per class: slots are popped from `current` and pushed to `filling`; they change places when the first runs empty, and only
//! when both are empty, or the second is full, a whole tray moves from or to the central lists.
//!
//! A slot that comes back was last touched twenty megabytes ago: its record, shadow and bytes are in no cache. So the cache lines of the
//! slots that will be handed out next are asked for in advance.
#![allow(unsafe_code, reason = "caches live in the work area and are found through the thread context")]

use crate::central::{self, Central};
use crate::chunk::{Chunk, Slot, Tray};
use crate::classes::{CLASSES, COUNT};
use crate::record::prefetch;
use crate::superseded::{self, Superseded};
use crate::{fallow, paint, stacks};
use core::mem::swap;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use memcheck_abi::context::ThreadContext;
#[cfg(not(test))]
use memcheck_abi::context::local;
use memcheck_abi::layout::A_BASE;

#[repr(C)]
pub struct Cache {
    current: [Option<&'static mut Tray>; COUNT],
    filling: [Option<&'static mut Tray>; COUNT],
    /// Blocks freed by this thread, not yet in the common queue.
    pub buffer: Option<&'static mut Chunk>,
    /// Blocks that this thread's reallocs replaced.
    pub superseded: Superseded,
    pub stacks: stacks::Memory,
    pub allocs: Counter,
    pub frees: Counter,
    pub bytes: Counter,
    /// Address of the next cache in the list of all, under the central lock.
    next: u64,
    /// Its thread is gone, under the central lock.
    idle: bool,
}

/// How many slots before its turn the lines of a slot are asked for.
const AHEAD: usize = 4;

/// Ask for the lines that the next life of a slot will touch: first its record, its shadow and its bytes, and when it ends all of its V.
/// (Stores that wait for memory one after the other would hold up everything behind them.)
#[inline(always)]
fn warm(class: usize, slot: Slot) {
    let block = slot.block(class);
    for line in [slot.record().link(), A_BASE + block / 8, block] {
        prefetch(line);
    }
    paint::ask_for(block, CLASSES[class].slot);
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
    let mut central = central::lock();
    ALONE.store(central.caches == 0, Relaxed);
    central.new_cache().map_or(0, |c| core::ptr::from_mut(c) as u64)
}

/// Only one thread ever came here.
static ALONE: AtomicBool = AtomicBool::new(true);

#[inline(always)]
pub fn is_alone() -> bool {
    ALONE.load(Relaxed)
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

    /// A free slot; it belongs to the caller.
    #[inline(always)]
    pub fn pop(&mut self, class: usize) -> Option<Slot> {
        if let Some(tray) = &mut self.current[class]
            && let Some(slot) = tray.pop()
        {
            if let Some(later) = tray.peek(AHEAD) {
                warm(class, later);
            }
            return Some(slot);
        }
        self.refill(class)
    }

    #[cold]
    #[inline(never)]
    fn refill(&mut self, class: usize) -> Option<Slot> {
        fallow::may_have_grown();
        swap(&mut self.current[class], &mut self.filling[class]);
        if self.current[class].as_ref().is_none_or(|tray| tray.len() == 0) {
            let mut central = central::lock();
            let full = central.fetch(class)?;
            if let Some(empty) = self.current[class].replace(full) {
                central.store(class, empty);
            }
        }
        let tray = self.current[class].as_mut()?;
        if fallow::is_any() {
            tray.slots().for_each(|slot| fallow::wake(slot.block(class), CLASSES[class].slot));
        }
        (0..=AHEAD).filter_map(|ahead| tray.peek(ahead)).for_each(|slot| warm(class, slot));
        tray.pop()
    }

    /// Take a free slot.
    #[inline(always)]
    pub fn push(&mut self, class: usize, slot: Slot) {
        match &mut self.filling[class] {
            Some(tray) if tray.len() < CLASSES[class].batch as usize => tray.push(slot),
            _ => self.overflow(class, slot),
        }
    }

    /// Without memory for a tray the slot is never used again.
    #[cold]
    #[inline(never)]
    fn overflow(&mut self, class: usize, slot: Slot) {
        let mut central = central::lock();
        if let Some(full) = self.filling[class].take() {
            central.store(class, full);
        }
        if let Some(tray) = central.work.tray() {
            tray.push(slot);
            self.filling[class] = Some(tray);
        }
    }

    /// The thread ends: everything goes back.
    pub fn retire(&mut self) {
        superseded::retire(self);
        crate::quarantine::flush(self);
        let mut central = central::lock();
        for class in 0..COUNT {
            for tray in [self.current[class].take(), self.filling[class].take()].into_iter().flatten() {
                central.store(class, tray);
            }
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
