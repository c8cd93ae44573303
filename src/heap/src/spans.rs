//! Runs of units: where slabs and large blocks live.
//!
//! Free runs hang in lists by the power of two of their length; a descriptor at the first and at the last unit of every run makes
//! joining neighbours two loads (boundary tags). What lies behind `fresh` was never used and is mapped when it is reached.
//!
//! A free run is *painted* (its V is FF and its A is 1 throughout) or not (V and A are 0: never used, or too huge to paint), and
//! *zero* (its bytes read as zero) or not. Runs that differ in paint are not joined.
//!
//! While the heap is small, what lies behind `fresh` is painted before it is used, so that an access far behind all blocks is noticed, too:
//!
//! ```text
//! | runs | fresh: painted, 512 KiB to 1 MiB | mapped, never touched |        nothing
//! ```
//!
//! Under the central lock, except [`run_len`].
#![allow(unsafe_code, reason = "descriptors are reached by address arithmetic; pages of free runs are given back")]

use crate::layout::{GROW_UNITS, SPANS, TRIAL, TRIAL_END, UNIT, UNITS, address_of};
use crate::paint;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use memcheck_rt::{limit, sys};

const FREE: u32 = 1;
const PAINTED: u32 = 2;
const ZERO: u32 = 4;
/// Bytes of free runs whose pages are kept for the next request.
const KEEP_BYTES: u64 = 64 << 20;
/// A fresh request at least this long is first tried on the kernel, which refuses what it can never back.
const TRY_FROM: u64 = 256 << 20;
/// Units behind `fresh` that are painted at least and at most, as long as no more than `SMALL` are used.
const APRON_LEAST: u64 = (512 << 10) / UNIT;
const APRON: u64 = (1 << 20) / UNIT;
const SMALL: u64 = (4 << 20) / UNIT;
/// How many runs of the same power of two are looked at before the next power is taken.
const LOOK: usize = 8;

struct Span {
    len: AtomicU32,
    flags: AtomicU32,
    /// Neighbours in the list, unit + 1, 0 = none. Of a slab that is in use `next` is a tally, see `sweep`.
    next: AtomicU32,
    prev: AtomicU32,
}

#[inline(always)]
fn span(unit: u64) -> &'static Span {
    debug_assert!(unit < UNITS);
    // SAFETY: units of the heap only; the descriptors cover all of them and stay mapped; all fields are atomic.
    unsafe { &*((SPANS + 16 * unit) as *const Span) }
}

/// Units of the run that begins at `first` (0 = no run ever began there).
pub fn run_len(first: u64) -> u64 {
    u64::from(span(first).len.load(Relaxed))
}

/// What was counted last of the slab that begins at `first`.
pub fn tally(first: u64) -> u32 {
    span(first).next.load(Relaxed)
}

pub fn set_tally(first: u64, count: u32) {
    span(first).next.store(count, Relaxed);
}

/// End of the used part of the heap, a unit. Written under the central lock, read by anyone.
static FRESH: AtomicU64 = AtomicU64::new(0);

pub fn used_units() -> u64 {
    FRESH.load(Relaxed)
}

/// A run handed out or taken back.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub first: u64,
    pub units: u64,
    pub painted: bool,
    pub zero: bool,
}

pub struct Spans {
    /// First free run with `2^k <= units < 2^(k+1)`, unit + 1.
    bins: [u32; 27],
    mapped: u64,
    /// Up to here what was never used is painted.
    painted: u64,
    /// Bytes of free runs that are not zero.
    dirty: u64,
}

impl Spans {
    pub const fn new() -> Spans {
        Spans { bins: [0; 27], mapped: 0, painted: 0, dirty: 0 }
    }

    /// A run of exactly `units`, or `None` when memory is exhausted.
    pub fn take(&mut self, units: u64) -> Option<Run> {
        debug_assert!(units > 0);
        if units >= crate::map::MAX_RUN {
            return None;
        }
        if limit::refuses(units * UNIT) {
            return None;
        }
        let run = match self.find(units) {
            Some(first) => Some(self.split(first, units)),
            None => self.extend(units),
        };
        if run.is_some() {
            limit::heap_grew(units * UNIT);
        }
        run
    }

    /// Is there a free run this long?
    pub fn has(&self, units: u64) -> bool {
        self.find(units).is_some()
    }

    fn find(&self, units: u64) -> Option<u64> {
        let log = units.ilog2() as usize;
        let mut at = self.bins[log];
        for _ in 0..LOOK {
            if at == 0 {
                break;
            }
            let unit = u64::from(at - 1);
            if run_len(unit) >= units {
                return Some(unit);
            }
            at = span(unit).next.load(Relaxed);
        }
        self.bins[log + 1..].iter().find(|&&b| b != 0).map(|&b| u64::from(b - 1))
    }

    /// Take `units` from the start of a free run; the rest stays free.
    fn split(&mut self, first: u64, units: u64) -> Run {
        let whole = self.unlink(first);
        if whole.units > units {
            self.insert(Run { first: first + units, units: whole.units - units, ..whole });
        }
        let run = Run { units, ..whole };
        self.tag(run, 0);
        run
    }

    fn extend(&mut self, units: u64) -> Option<Run> {
        let used = used_units();
        // A run is painted throughout or not at all: if what is painted does not do, it is for somebody else.
        let rest = self.painted.saturating_sub(used);
        let painted = units <= rest;
        let first = if painted { used } else { used + rest };
        let end = first + units;
        if end > UNITS || (units * UNIT >= TRY_FROM && !can_back(units * UNIT)) || !self.map_to(end) {
            return None;
        }
        if first > used {
            self.insert(Run { first: used, units: rest, painted: true, zero: true });
        }
        let run = Run { first, units, painted, zero: true };
        self.tag(run, 0);
        FRESH.store(end, Relaxed);
        self.paint_apron(end);
        Some(run)
    }

    fn map_to(&mut self, end: u64) -> bool {
        if end > self.mapped {
            let grow = (end - self.mapped).next_multiple_of(GROW_UNITS).min(UNITS - self.mapped);
            if !sys::map_fixed(address_of(self.mapped), grow * UNIT, sys::PROT_READ | sys::PROT_WRITE) {
                return false;
            }
            self.mapped += grow;
        }
        true
    }

    /// Behind `fresh` nothing is accessible, for some way.
    fn paint_apron(&mut self, fresh: u64) {
        if fresh > SMALL || self.painted >= fresh + APRON_LEAST {
            return;
        }
        let (from, to) = (self.painted.max(fresh), (fresh + APRON).min(self.mapped));
        if from < to {
            paint::close_run(address_of(from), (to - from) * UNIT);
            self.painted = to;
        }
    }

    /// Take a run back. Its map entries are cleared already.
    pub fn give(&mut self, mut run: Run) {
        limit::heap_shrank(run.units * UNIT);
        if !run.zero && self.dirty + run.units * UNIT > KEEP_BYTES {
            // SAFETY: a free run belongs to the heap and nobody needs its contents.
            unsafe { sys::discard(address_of(run.first), run.units * UNIT) };
            run.zero = true;
        }
        let after = run.first + run.units;
        if after < used_units() && self.joins(after, &run) {
            let other = self.unlink(after);
            run.units += other.units;
            run.zero &= other.zero;
        }
        if run.first > 0 {
            let before = run.first - run_len(run.first - 1);
            if before < run.first && self.joins(before, &run) {
                let other = self.unlink(before);
                run = Run { first: before, units: run.units + other.units, zero: run.zero & other.zero, ..run };
            }
        }
        self.insert(run);
    }

    /// Is the run at `unit` free and of the same paint? Both must fit the map together.
    fn joins(&self, unit: u64, run: &Run) -> bool {
        let flags = span(unit).flags.load(Relaxed);
        flags & FREE != 0 && (flags & PAINTED != 0) == run.painted && run_len(unit) + run.units < crate::map::MAX_RUN
    }

    fn insert(&mut self, run: Run) {
        self.tag(run, FREE);
        if !run.zero {
            self.dirty += run.units * UNIT;
        }
        let bin = &mut self.bins[run.units.ilog2() as usize];
        let s = span(run.first);
        s.prev.store(0, Relaxed);
        s.next.store(*bin, Relaxed);
        if *bin != 0 {
            span(u64::from(*bin - 1)).prev.store(run.first as u32 + 1, Relaxed);
        }
        *bin = run.first as u32 + 1;
    }

    fn unlink(&mut self, first: u64) -> Run {
        let s = span(first);
        let (next, prev) = (s.next.load(Relaxed), s.prev.load(Relaxed));
        let flags = s.flags.load(Relaxed);
        let run = Run { first, units: run_len(first), painted: flags & PAINTED != 0, zero: flags & ZERO != 0 };
        match prev {
            0 => self.bins[run.units.ilog2() as usize] = next,
            p => span(u64::from(p - 1)).next.store(next, Relaxed),
        }
        if next != 0 {
            span(u64::from(next - 1)).prev.store(prev, Relaxed);
        }
        if !run.zero {
            self.dirty -= run.units * UNIT;
        }
        run
    }

    /// Write the descriptors at both ends.
    fn tag(&self, run: Run, free: u32) {
        let flags = free | if run.painted { PAINTED } else { 0 } | if run.zero { ZERO } else { 0 };
        for unit in [run.first, run.first + run.units - 1] {
            span(unit).len.store(run.units as u32, Relaxed);
            span(unit).flags.store(flags, Relaxed);
        }
    }
}

/// Would the kernel promise this much memory to an ordinary request?
fn can_back(len: u64) -> bool {
    if len > TRIAL_END - TRIAL {
        return false;
    }
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_FIXED_NOREPLACE;
    // SAFETY: a fixed range of ours that is otherwise unused; mapped and unmapped again, never touched. Two threads can not
    // meet here, the caller holds the central lock.
    unsafe {
        let r = sys::syscall6(sys::nr::MMAP, TRIAL, len, sys::PROT_READ | sys::PROT_WRITE, flags, u64::MAX, 0);
        if sys::is_error(r) {
            return false;
        }
        sys::syscall3(sys::nr::MUNMAP, TRIAL, len, 0);
    }
    true
}
