//! Pages of record links, and the memory they come from.
//!
//! Lists of blocks are kept as pages of links instead of chained through the records: walking a chain of records that were last
//! touched twenty megabytes ago is one cache miss after the other, a page of links can be prefetched.
#![allow(unsafe_code, reason = "hands out memory of a fixed range")]

use crate::layout::{WORK, WORK_END};
use memcheck_rt::sys;

const STEP: u64 = 1 << 20;
pub const CAPACITY: usize = 508;

/// One page. The owner is whoever holds the reference: a thread's cache or the central lists.
#[repr(C)]
pub struct Chunk {
    pub next: Option<&'static mut Chunk>,
    pub len: usize,
    /// Sum of the sizes of the blocks.
    pub bytes: u64,
    pub links: [u64; CAPACITY],
}

const _: () = assert!(core::mem::size_of::<Chunk>() <= 4096);

impl Chunk {
    #[inline(always)]
    pub fn push(&mut self, link: u64, bytes: u64) {
        self.links[self.len] = link;
        self.len += 1;
        self.bytes += bytes;
    }

    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == CAPACITY
    }
}

/// The work area; under the central lock.
pub struct Work {
    next: u64,
    mapped: u64,
    free: Option<&'static mut Chunk>,
}

impl Work {
    pub const fn new() -> Work {
        Work { next: WORK, mapped: WORK, free: None }
    }

    /// `len` bytes of zeros, page-aligned, never given back; 0 when exhausted.
    pub fn raw(&mut self, len: u64) -> u64 {
        let len = len.next_multiple_of(4096);
        let end = self.next + len;
        if end > self.mapped {
            let grow = (end - self.mapped).next_multiple_of(STEP);
            if self.mapped + grow > WORK_END || !sys::map_fixed(self.mapped, grow, sys::PROT_READ | sys::PROT_WRITE) {
                return 0;
            }
            self.mapped += grow;
        }
        let at = self.next;
        self.next = end;
        at
    }

    /// An empty chunk.
    pub fn chunk(&mut self) -> Option<&'static mut Chunk> {
        if let Some(chunk) = self.free.take() {
            self.free = chunk.next.take();
            (chunk.len, chunk.bytes) = (0, 0);
            return Some(chunk);
        }
        match self.raw(4096) {
            0 => None,
            // SAFETY: a fresh page of zeros, aligned, handed out once; zeros are a valid empty chunk.
            at => Some(unsafe { &mut *(at as *mut Chunk) }),
        }
    }

    pub fn give(&mut self, chunk: &'static mut Chunk) {
        chunk.next = self.free.take();
        self.free = Some(chunk);
    }
}

/// A stack of links.
pub struct Links {
    top: Option<&'static mut Chunk>,
}

impl Links {
    pub const fn new() -> Links {
        Links { top: None }
    }

    /// False when memory is exhausted: the link is lost (its blocks are never used again).
    pub fn push(&mut self, link: u64, work: &mut Work) -> bool {
        if self.top.as_ref().is_none_or(|t| t.is_full()) {
            let Some(fresh) = work.chunk() else { return false };
            fresh.next = self.top.take();
            self.top = Some(fresh);
        }
        if let Some(top) = &mut self.top {
            top.push(link, 0);
        }
        true
    }

    pub fn pop(&mut self, work: &mut Work) -> Option<u64> {
        let top = self.top.as_mut()?;
        // Chunks that become empty are given back at once, so the top is never empty.
        top.len -= 1;
        let link = top.links[top.len];
        if top.len == 0 && let Some(empty) = self.top.take() {
            self.top = empty.next.take();
            work.give(empty);
        }
        Some(link)
    }
}

/// A queue of chunks.
pub struct Queue {
    head: Option<&'static mut Chunk>,
    /// The last chunk, valid while `head` is there.
    tail: *mut Chunk,
}

// SAFETY: lives under the central lock only.
unsafe impl Send for Queue {}

impl Queue {
    pub const fn new() -> Queue {
        Queue { head: None, tail: core::ptr::null_mut() }
    }

    pub fn push(&mut self, chunk: &'static mut Chunk) {
        chunk.next = None;
        let at = core::ptr::from_mut(chunk);
        if self.head.is_none() {
            self.head = Some(chunk);
        } else {
            // SAFETY: the tail is the last chunk of our own list, and no other reference to it is in use.
            unsafe { (*self.tail).next = Some(chunk) };
        }
        self.tail = at;
    }

    pub fn pop(&mut self) -> Option<&'static mut Chunk> {
        let chunk = self.head.take()?;
        self.head = chunk.next.take();
        Some(chunk)
    }
}
