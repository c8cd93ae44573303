//! Lists of blocks, and the memory they come from.
//!
//! Lists are arrays instead of chains through the records: walking a chain of records that were last touched twenty megabytes ago is
//! one cache miss after the other, while an array says early what will be needed. *Chunks* list freed blocks that wait, *trays* free slots.
#![allow(unsafe_code, reason = "hands out memory of a fixed range")]

use crate::classes::CLASSES;
use crate::layout::{UNIT, UNITS, WORK, WORK_END, address_of};
use crate::record::{self, Record};
use crate::settings;
use memcheck_rt::sys;

const STEP: u64 = 1 << 20;
pub const CAPACITY: usize = 507;
/// Slots of a tray: an eighth of a page with its header.
pub const TRAY: usize = 62;

/// One page. The owner is whoever holds the reference: a thread's cache or the central lists.
#[repr(C)]
pub struct Chunk {
    pub next: Option<&'static mut Chunk>,
    /// The links are those from here on, up to `len`.
    first: usize,
    pub len: usize,
    /// Sum of what the blocks take, see `quarantine`.
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

    #[inline(always)]
    pub fn filled(&self) -> &[u64] {
        &self.links[self.first..self.len]
    }
}

/// The work area; under the central lock.
pub struct Work {
    next: u64,
    mapped: u64,
    free: Option<&'static mut Chunk>,
    trays: Trays,
}

impl Work {
    pub const fn new() -> Work {
        Work { next: WORK, mapped: WORK, free: None, trays: Trays::new() }
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
            (chunk.first, chunk.len, chunk.bytes) = (0, 0, 0);
            return Some(chunk);
        }
        match self.raw(4096) {
            0 => None,
            // SAFETY: a fresh page of zeros, aligned, handed out once; zeros are a valid empty chunk.
            at => Some(unsafe { &mut *(at as *mut Chunk) }),
        }
    }

    /// An empty tray.
    pub fn tray(&mut self) -> Option<&'static mut Tray> {
        if let Some(tray) = self.trays.pop() {
            tray.len = 0;
            return Some(tray);
        }
        let page = self.raw(4096);
        if page == 0 {
            return None;
        }
        for at in (page..page + 4096).step_by(core::mem::size_of::<Tray>()) {
            // SAFETY: a part of a fresh page of zeros, aligned, handed out once; zeros are a valid empty tray.
            self.trays.push(unsafe { &mut *(at as *mut Tray) });
        }
        self.trays.pop()
    }

    pub fn give_tray(&mut self, tray: &'static mut Tray) {
        self.trays.push(tray);
    }

    pub fn give(&mut self, chunk: &'static mut Chunk) {
        chunk.next = self.free.take();
        self.free = Some(chunk);
    }
}

/// A free slot: the first unit of its slab, and its number there.
///
/// Everything else follows from these. Trays lie beside each other in the processor's nearest cache, two for each class that is in use, so
/// they are short.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Slot {
    slab: u32,
    index: u32,
}

const _: () = assert!(UNITS <= 1 << 32);

impl Slot {
    #[inline(always)]
    pub const fn new(slab: u64, index: u64) -> Slot {
        Slot { slab: slab as u32, index: index as u32 }
    }

    /// The first unit of the slab.
    #[inline(always)]
    pub const fn slab(self) -> u64 {
        self.slab as u64
    }

    #[inline(always)]
    pub fn record(self) -> &'static Record {
        record::at(self.slab() * UNIT, u64::from(self.index))
    }

    /// Where the block of a slot of this class usually begins.
    #[inline(always)]
    pub fn block(self, class: usize) -> u64 {
        address_of(self.slab()) + u64::from(self.index) * CLASSES[class].slot + settings::get().front
    }
}

/// Free slots of one class. The owner is whoever holds the reference, as with chunks.
#[repr(C)]
pub struct Tray {
    pub next: Option<&'static mut Tray>,
    len: usize,
    slots: [Slot; TRAY],
}

const _: () = assert!(4096 % core::mem::size_of::<Tray>() == 0);

impl Tray {
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The caller saw that there is room.
    #[inline(always)]
    pub fn push(&mut self, slot: Slot) {
        self.slots[self.len] = slot;
        self.len += 1;
    }

    #[inline(always)]
    pub fn pop(&mut self) -> Option<Slot> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        self.slots.get(last).copied()
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots[..self.len.min(TRAY)].iter().copied()
    }

    /// Keep those slots of which `stays` says so, in their order.
    pub fn retain(&mut self, mut stays: impl FnMut(Slot) -> bool) {
        let mut kept = 0;
        for i in 0..self.len.min(TRAY) {
            let slot = self.slots[i];
            if stays(slot) {
                self.slots[kept] = slot;
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// The slot that is popped after `ahead` others.
    #[inline(always)]
    pub fn peek(&self, ahead: usize) -> Option<Slot> {
        self.slots[..self.len.min(TRAY)].get(self.len.wrapping_sub(ahead + 1)).copied()
    }
}

/// A stack of trays.
pub struct Trays {
    top: Option<&'static mut Tray>,
}

impl Trays {
    pub const fn new() -> Trays {
        Trays { top: None }
    }

    pub fn push(&mut self, tray: &'static mut Tray) {
        tray.next = self.top.take();
        self.top = Some(tray);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Tray> {
        core::iter::successors(self.top.as_deref(), |tray| tray.next.as_deref())
    }

    pub fn pop(&mut self) -> Option<&'static mut Tray> {
        let tray = self.top.take()?;
        self.top = tray.next.take();
        Some(tray)
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

    /// Is this link in one of the chunks?
    #[cfg(test)]
    pub fn holds(&self, link: u64) -> bool {
        let mut at = &self.head;
        while let Some(chunk) = at {
            if chunk.filled().contains(&link) {
                return true;
            }
            at = &chunk.next;
        }
        false
    }

    pub fn pop(&mut self) -> Option<&'static mut Chunk> {
        let chunk = self.head.take()?;
        self.head = chunk.next.take();
        Some(chunk)
    }

    /// For links that come and go one by one: behind the others. False without memory.
    pub fn put_last(&mut self, link: u64, work: &mut Work) -> bool {
        // SAFETY: as in `push`.
        let room = self.head.is_some() && unsafe { !(*self.tail).is_full() };
        if !room {
            let Some(chunk) = work.chunk() else { return false };
            self.push(chunk);
        }
        // SAFETY: as in `push`; the chunk that was pushed is the tail.
        unsafe { (*self.tail).push(link, 0) };
        true
    }

    /// In front of the others.
    pub fn put_first(&mut self, link: u64, work: &mut Work) -> bool {
        if self.head.as_ref().is_none_or(|chunk| chunk.first == 0) {
            let Some(chunk) = work.chunk() else { return false };
            (chunk.first, chunk.len) = (CAPACITY, CAPACITY);
            if self.head.is_none() {
                self.tail = core::ptr::from_mut(chunk);
            }
            chunk.next = self.head.take();
            self.head = Some(chunk);
        }
        let Some(chunk) = &mut self.head else { return false };
        chunk.first -= 1;
        chunk.links[chunk.first] = link;
        true
    }

    /// The foremost.
    pub fn take_first(&mut self, work: &mut Work) -> Option<u64> {
        let chunk = self.head.as_mut()?;
        let link = chunk.filled().first().copied();
        chunk.first += 1;
        if chunk.filled().is_empty()
            && let Some(empty) = self.pop()
        {
            work.give(empty);
        }
        link
    }
}
