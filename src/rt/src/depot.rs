//! Stacks stored once and known by a small number.
//!
//! ```text
//! DEPOT_START + 8 * id:  { next, hash, base, shape }  frame frame frame ...      see `DepotHeader`
//! ...
//! DEPOT_END - 8 << bits:  2^bits heads of chains, by hash; the tables of all sizes lie one below the other
//! ```
//! Frames take 4 bytes: code lies below 2 GiB. A stack with code elsewhere is stored with 8 bytes a frame. Most stacks have their outer
//! callers in common with one that was stored shortly before, and name it instead of repeating them; that one may do so, too, a few times over.
//!
//! Entries never move or go away, and are written completely before a chain has them, so readers (this side and the tracer) need no lock.
//! Who finds nothing looks again under the lock before it adds an entry: the table may just be growing, which changes the chains. `next` is
//! always a smaller number than that of the entry itself, so a chain ends whatever a reader sees of it. A small table is a few pages of a
//! small program, a large one keeps chains short where there are many stacks: each entry of a chain is a cache miss.
//!
//! Id 0 is "no stack". When the depot is full (16 GiB) id 0 is given.
#![allow(unsafe_code, reason = "the depot is raw shared memory")]

use crate::sync::{Guard, Lock};
use crate::{callstack, sys};
use core::sync::atomic::{AtomicU32, Ordering};
use memcheck_abi::event::DepotHeader;
use memcheck_abi::layout::{DEPOT_END, DEPOT_START};

/// Entries begin behind the word that would be id 0, and end where tables may begin.
const FIRST_WORD: u64 = 1;
/// The highest bit of an id is free for whoever keeps one.
const LAST_WORD: u64 = u32::MAX as u64 >> 1;
const LEAST_BITS: u32 = 13;
const MOST_BITS: u32 = 29;
/// A table with more entries per head than this becomes larger by so many bits.
const LOAD: u64 = 2;
const GROWTH: u32 = 2;

const _: () = assert!(DEPOT_START + 8 * LAST_WORD <= DEPOT_END - (8 << MOST_BITS), "entries end before the tables");

/// Written under the lock.
static BITS: AtomicU32 = AtomicU32::new(LEAST_BITS);

/// A stack may name another, which names another, and so on, so many times.
const DEPTH: usize = 4;
/// Longer stacks are stored as they are.
const SHARING: usize = callstack::USUAL;
/// Of stacks that were cut off at the same length one may have been so much deeper.
const DEEPER: usize = 3;

/// A stack that others may name.
#[derive(Clone, Copy)]
struct Base {
    id: u32,
    len: usize,
    frames: [u64; SHARING],
}

/// What is under the lock.
pub struct Depot {
    next_word: u64,
    entries: u64,
    /// The last stacks that are stored whole, that name one of those, and so on.
    bases: [Base; DEPTH],
}

const NO_BASE: Base = Base { id: 0, len: 0, frames: [0; SHARING] };

static DEPOT: Lock<Depot> = Lock::new(Depot { next_word: FIRST_WORD, entries: 0, bases: [NO_BASE; DEPTH] });

/// Reserve the depot's address range. Once.
pub fn init() -> bool {
    sys::map_fixed(DEPOT_START, DEPOT_END - DEPOT_START, sys::PROT_READ | sys::PROT_WRITE)
}

/// For fork: nobody is inside while this lives.
pub struct Held(#[expect(dead_code, reason = "held, not read")] Guard<'static, Depot>);

/// Wait until nobody is inside.
pub fn hold() -> Held {
    Held(DEPOT.lock())
}

/// A hash of the frames, never 0.
#[inline]
fn hash(frames: &[u64]) -> u64 {
    callstack::fingerprint_of(frames) | 1
}

fn table(bits: u32) -> u64 {
    DEPOT_END - (8 << bits)
}

/// Where the chain of this hash begins, in a table of this size.
#[inline(always)]
fn head(bits: u32, hash: u64) -> &'static AtomicU32 {
    // SAFETY: the tables lie at the end of the depot, which is mapped; u32 cells, aligned.
    unsafe { &*((table(bits) + 4 * u64::from(kept(hash) & ((1 << bits) - 1))) as *const AtomicU32) }
}

/// The part of a hash that is kept.
#[inline(always)]
fn kept(hash: u64) -> u32 {
    (hash >> 24) as u32
}

fn entry(id: u32) -> *mut DepotHeader {
    (DEPOT_START + 8 * u64::from(id)) as *mut DepotHeader
}

/// The next entry in a chain.
fn next(id: u32) -> &'static AtomicU32 {
    // SAFETY: a complete entry lies there; this cell of it is only reached here once it is in a chain.
    unsafe { AtomicU32::from_ptr(&raw mut (*entry(id)).next) }
}

/// A stack with this fingerprint will be asked for in a moment.
#[inline(always)]
pub fn expect(fingerprint: u64) {
    let head = core::ptr::from_ref(head(BITS.load(Ordering::Relaxed), fingerprint | 1));
    // SAFETY: a prefetch never faults.
    unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(head.cast()) }
}

/// The id of this stack; stores it at first sight. 0 if empty or the depot is full.
#[inline]
pub fn intern(frames: &[u64]) -> u32 {
    if frames.is_empty() {
        return 0;
    }
    let hash = hash(frames);
    find(BITS.load(Ordering::Acquire), hash, frames).unwrap_or_else(|| DEPOT.lock().add(hash, frames))
}

/// Search the chain of a hash.
#[inline]
fn find(bits: u32, hash: u64, frames: &[u64]) -> Option<u32> {
    let mut id = head(bits, hash).load(Ordering::Acquire);
    while id != 0 {
        // SAFETY: ids come from the table, so a complete entry lies there.
        if unsafe { (*entry(id)).hash } == kept(hash) && get(id).eq(frames.iter().copied()) {
            return Some(id);
        }
        id = next(id).load(Ordering::Acquire);
    }
    None
}

impl Depot {
    /// The id of a stack that was not found.
    #[cold]
    fn add(&mut self, hash: u64, frames: &[u64]) -> u32 {
        let bits = BITS.load(Ordering::Relaxed);
        if let Some(id) = find(bits, hash, frames) {
            return id;
        }
        let wide = frames.iter().any(|&frame| frame > u64::from(u32::MAX));
        let sharing = if wide { NOTHING } else { self.best(frames) };
        let own = frames.len() - sharing.frames;
        let shape = DepotHeader::shape(own, sharing.frames, sharing.skipped) | if wide { DepotHeader::WIDE } else { 0 };
        let header = DepotHeader { next: head(bits, hash).load(Ordering::Relaxed), hash: kept(hash), base: sharing.base, shape };
        if self.next_word + header.words() > LAST_WORD {
            return 0;
        }
        let id = self.next_word as u32;
        // SAFETY: memory of the depot that was never given out.
        unsafe {
            *entry(id) = header;
            let to = entry(id).add(1);
            for (i, &frame) in frames[..own].iter().enumerate() {
                if wide { *to.cast::<u64>().add(i) = frame } else { *to.cast::<u32>().add(i) = frame as u32 }
            }
        }
        head(bits, hash).store(id, Ordering::Release);
        if !wide && frames.len() <= SHARING {
            self.remember(id, sharing.depth, frames);
        }
        self.next_word += header.words();
        self.entries += 1;
        if self.entries > LOAD << bits && bits + GROWTH <= MOST_BITS {
            self.grow(bits, bits + GROWTH);
        }
        id
    }

    /// What these frames have in common with a base, if that is the larger part of them.
    fn best(&self, frames: &[u64]) -> Sharing {
        let mut best = NOTHING;
        for (depth, base) in self.bases.iter().enumerate() {
            let known = &base.frames[..base.len];
            let last = known.len() as isize - frames.len() as isize;
            let shifts = if last == 0 { -(DEEPER as isize)..=0 } else { last..=last };
            for shift in shifts {
                // Frame number i may be the base's number i + shift.
                let same = |&(i, frame): &(usize, &u64)| i.checked_add_signed(shift).and_then(|i| known.get(i)) == Some(frame);
                let count = frames.iter().enumerate().rev().take_while(same).count();
                if count > best.frames && count * 2 >= frames.len() {
                    let skipped = (frames.len() - count).saturating_add_signed(shift);
                    best = Sharing { base: base.id, frames: count, skipped, depth: depth + 1 };
                }
            }
        }
        best
    }

    /// Others may name this stack, which names so many one after the other.
    fn remember(&mut self, id: u32, depth: usize, frames: &[u64]) {
        if let Some(base) = self.bases.get_mut(depth) {
            (base.id, base.len) = (id, frames.len());
            base.frames[..frames.len()].copy_from_slice(frames);
        }
    }

    /// All entries move to the chains of a larger table, in their order.
    fn grow(&self, from: u32, to: u32) {
        let mut at = FIRST_WORD;
        while at < self.next_word {
            // SAFETY: entries lie one behind the other, all of them complete.
            let header = unsafe { *entry(at as u32) };
            let head = head(to, u64::from(header.hash) << 24);
            next(at as u32).store(head.load(Ordering::Relaxed), Ordering::Release);
            head.store(at as u32, Ordering::Release);
            at += header.words();
        }
        BITS.store(to, Ordering::Release);
        // Who still reads there finds empty chains, and then looks again.
        // SAFETY: whole pages that hold the old table alone.
        unsafe { sys::discard(table(from), 4 << from) };
    }
}

/// Frames that a stack has in common with another.
#[derive(Clone, Copy)]
struct Sharing {
    base: u32,
    frames: usize,
    skipped: usize,
    /// Of a stack that shares them.
    depth: usize,
}

const NOTHING: Sharing = Sharing { base: 0, frames: 0, skipped: 0, depth: 0 };

/// The frames of a stack.
#[inline]
pub fn get(id: u32) -> impl Iterator<Item = u64> {
    // SAFETY: ids are only made by `add`, after the entry was written. 0 names none.
    let left = if id == 0 { 0 } else { unsafe { (*entry(id)).own() + (*entry(id)).shared() } };
    Frames { id, at: 0, left }
}

/// Those that are left of a stack: so many from this one of this entry on.
struct Frames {
    id: u32,
    at: usize,
    left: usize,
}

impl Iterator for Frames {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        loop {
            // SAFETY: an entry and the bases that it names are complete, see `add`; so many frames of this width follow the header.
            unsafe {
                let header = *entry(self.id);
                let frames = entry(self.id).add(1);
                let Some(shared) = self.at.checked_sub(header.own()) else {
                    self.at += 1;
                    let at = self.at - 1;
                    return Some(if header.is_wide() { *frames.cast::<u64>().add(at) } else { u64::from(*frames.cast::<u32>().add(at)) });
                };
                (self.id, self.at) = (header.base, header.skipped() + shared);
            }
        }
    }
}
