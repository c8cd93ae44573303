//! Longer blocks that realloc replaced wait here, each thread's by themselves, and not as long as freed ones.
//!
//! A text that grows by a few bytes at a time leaves behind a copy of itself at every step. In the quarantine these copies would drive out
//! everything else, and every step would find its new place in no cache: reading it back from memory costs several times as much as the copy
//! does in a warm place. The stale pointer that is looked for here is one to a copy not long ago.
//!
//! ```text
//! realloc ── 4 KiB and more ──> the last eight, and more up to 1/64 of the quarantine's volume ──> free slots
//!         └─ others ─────────> quarantine
//! ```

use crate::cache::Cache;
use crate::record::Record;
use crate::{quarantine, settings};

/// Shorter blocks are cheap to copy, and few of them fill no cache.
pub const FROM: u64 = 4096;
/// So many wait at least.
const LEAST: usize = 8;
/// And so many at most.
const MOST: usize = 128;
const SHARE: u64 = 64;

/// A ring, the oldest at `first`. Zeros are an empty one.
#[repr(C)]
pub struct Superseded {
    links: [u64; MOST],
    sizes: [u64; MOST],
    first: usize,
    len: usize,
    bytes: u64,
}

impl Superseded {
    fn push(&mut self, link: u64, size: u64) {
        let at = (self.first + self.len) % MOST;
        (self.links[at], self.sizes[at]) = (link, size);
        self.len += 1;
        self.bytes += size;
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        self.len = self.len.checked_sub(1)?;
        let at = self.first;
        self.first = (at + 1) % MOST;
        self.bytes -= self.sizes[at];
        Some((self.links[at], self.sizes[at]))
    }

    fn is_over(&self, limit: u64) -> bool {
        self.len == MOST || (self.len > LEAST && self.bytes > limit)
    }
}

/// A block was replaced: its record is in state quarantined and belongs to the caller.
pub fn add(cache: &mut Cache, record: &'static Record, size: u64) {
    let limit = settings::get().volume / SHARE;
    if size < FROM || size >= limit {
        return quarantine::add(cache, record, size);
    }
    cache.superseded.push(record.link(), size);
    while cache.superseded.is_over(limit)
        && let Some((link, _)) = cache.superseded.pop()
    {
        quarantine::release(cache, link);
    }
}

/// The thread ends: what waits goes on waiting with the others.
pub fn retire(cache: &mut Cache) {
    while let Some((link, size)) = cache.superseded.pop() {
        if let Some(record) = Record::from_link(link) {
            quarantine::add(cache, record, size);
        }
    }
}

#[cfg(test)]
pub fn holds(cache: &Cache, record: &'static Record) -> bool {
    let ring = &cache.superseded;
    (0..ring.len).any(|i| ring.links[(ring.first + i) % MOST] == record.link())
}
