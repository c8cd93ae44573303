//! Stacks stored once and known by a small number.
//!
//! ```text
//! DEPOT_START + 8 * id:  { next: u32, len: u32, hash: u64 }  frame frame frame ...
//! ```
//! Frames take 4 bytes: code lies below 2 GiB. A stack with code elsewhere is stored with 8 bytes a frame.
//! A hash table of 2^17 chain heads lies at the start. Inserting is one compare-and-swap on a chain head; entries never move or
//! go away, so readers (this side and the tracer) need no lock. Id 0 is "no stack". When the depot is full (64 GiB) id 0 is given.
#![allow(unsafe_code, reason = "the depot is raw shared memory")]

use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use memcheck_abi::event::DepotHeader;
use memcheck_abi::layout::{DEPOT_END, DEPOT_START};

/// Each touched page of the table costs a page fault: few for the stacks of small programs, short chains for those of large ones.
const BUCKETS: u64 = 1 << 17;
/// Words used by the table itself.
const TABLE_WORDS: u64 = BUCKETS / 2;
const HEADER_WORDS: u64 = core::mem::size_of::<DepotHeader>() as u64 / 8;

static NEXT_WORD: AtomicU64 = AtomicU64::new(TABLE_WORDS);

/// Reserve the depot's address range. Once.
pub fn init() -> bool {
    sys::map_fixed(DEPOT_START, DEPOT_END - DEPOT_START, sys::PROT_READ | sys::PROT_WRITE)
}

/// A hash of the frames, never 0.
#[inline]
fn hash(frames: &[u64]) -> u64 {
    let mut h = 0x9e37_79b9_7f4a_7c15u64 ^ frames.len() as u64;
    for &f in frames {
        h = (h ^ f).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 32;
    }
    h | 1
}

/// The id of this stack; stores it at first sight. 0 if empty or the depot is full.
#[inline]
pub fn intern(frames: &[u64]) -> u32 {
    if frames.is_empty() {
        return 0;
    }
    let h = hash(frames);
    // SAFETY: the table lies at the start of the depot, which is mapped; u32 cells, aligned.
    let head = unsafe { &*((DEPOT_START + 4 * (h >> 40 & (BUCKETS - 1))) as *const AtomicU32) };
    let first = head.load(Ordering::Acquire);
    match find(first, 0, h, frames) {
        Some(id) => id,
        None => insert(head, first, h, frames),
    }
}

/// Search the chain from `id` up to (not including) `stop`.
#[inline]
fn find(mut id: u32, stop: u32, h: u64, frames: &[u64]) -> Option<u32> {
    while id != stop && id != 0 {
        // SAFETY: ids come from the table, so a complete entry lies there (released by the compare-and-swap).
        unsafe {
            let header = &*((DEPOT_START + 8 * u64::from(id)) as *const DepotHeader);
            if header.hash == h && get(id).eq(frames.iter().copied()) {
                return Some(id);
            }
            id = header.next;
        }
    }
    None
}

#[cold]
fn insert(head: &AtomicU32, mut first: u32, h: u64, frames: &[u64]) -> u32 {
    let wide = frames.iter().any(|&frame| frame > u64::from(u32::MAX));
    let words = HEADER_WORDS + if wide { frames.len() } else { frames.len().div_ceil(2) } as u64;
    let at = NEXT_WORD.fetch_add(words, Ordering::Relaxed);
    if at + words > (DEPOT_END - DEPOT_START) / 8 || at + words > u64::from(u32::MAX) {
        return 0;
    }
    let id = at as u32;
    let base = DEPOT_START + 8 * at;
    loop {
        // SAFETY: [at, at + words) was just taken by this thread alone.
        unsafe {
            let len = frames.len() as u32 | if wide { DepotHeader::WIDE } else { 0 };
            *(base as *mut DepotHeader) = DepotHeader { next: first, len, hash: h };
            for (i, &frame) in frames.iter().enumerate() {
                let to = base + 8 * HEADER_WORDS;
                if wide { *(to as *mut u64).add(i) = frame } else { *(to as *mut u32).add(i) = frame as u32 }
            }
        }
        match head.compare_exchange(first, id, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return id,
            Err(now) => {
                if let Some(found) = find(now, first, h, frames) {
                    return found;
                }
                first = now;
            }
        }
    }
}

/// The frames of a stack.
#[inline]
pub fn get(id: u32) -> impl Iterator<Item = u64> {
    let base = DEPOT_START + 8 * u64::from(id);
    // SAFETY: ids are only made by `insert`, after the entry was written. 0 names none.
    let len = if id == 0 { 0 } else { unsafe { (*(base as *const DepotHeader)).len } };
    let frames = base + 8 * HEADER_WORDS;
    (0..(len & !DepotHeader::WIDE) as usize).map(move |i| {
        // SAFETY: so many frames of this width follow the header.
        unsafe { if len & DepotHeader::WIDE != 0 { *(frames as *const u64).add(i) } else { u64::from(*(frames as *const u32).add(i)) } }
    })
}
