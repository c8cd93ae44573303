//! The rings of io_uring: where they lie in the program's memory, and what the program has put into them.
//!
//! ```text
//! io_uring_setup   descriptor, offsets of the words          Ring
//! mmap             where the ring and its entries are          |
//! io_uring_enter   entries in [head, tail) not seen before     v    one address at a time
//! register, mmap   a ring of buffers that the kernel may fill  Lent
//! ```
//!
//! Every call looks at all rings: which of them a registered descriptor means is not known, and an entry seen early does no harm. Nobody
//! tells when a ring ends; one whose constant words have changed is forgotten.
//!
//! Facts: linux/io_uring.h. Absent: rings that the kernel polls (SQPOLL), which need no call, and rings in memory of the program's.

use super::ORDER;
use crate::call::Call;
use alloc::vec::Vec;
use memcheck_rt::sync::Lock;

/// Only edited while ORDER is held.
pub(super) static RINGS: Lock<Rings> = Lock::new(Rings { rings: Vec::new(), lent: Vec::new() });

pub(super) struct Rings {
    rings: Vec<Ring>,
    lent: Vec<Lent>,
}

/// A submission queue. Addresses are 0 until they are mapped.
struct Ring {
    fd: i32,
    words: u64,
    entries: u64,
    /// Offsets from `words`: head, tail, mask, and the array of entry numbers; 0: there is no array.
    head: u32,
    tail: u32,
    mask_at: u32,
    array: u32,
    mask: u32,
    entry_len: u64,
    /// Entries before this one were seen.
    seen: u32,
}

/// A ring of buffers that the program fills and the kernel takes from: {address 8, length 4, number 2, 2}; the second bytes of the
/// first entry's last word are the tail.
struct Lent {
    fd: i32,
    group: u16,
    at: u64,
    count: u32,
    seen: u16,
}

mod params {
    pub const ENTRIES: u64 = 0;
    pub const FLAGS: u64 = 8;
    pub const HEAD: u64 = 40;
    pub const TAIL: u64 = 44;
    pub const MASK: u64 = 48;
    pub const ARRAY: u64 = 64;
}

const SQE128: u32 = 1 << 10;
const NO_SQARRAY: u32 = 1 << 16;
const ENTRY: u64 = 64;
const LENT_ENTRY: u64 = 16;
const LENT_TAIL: u64 = 14;

/// Offsets in the descriptor by which mmap says what it wants.
const WORDS_OFFSET: u64 = 0;
const ENTRIES_OFFSET: u64 = 0x1000_0000;
const LENT_OFFSET: u64 = 0x8000_0000;
const LENT_SHIFT: u32 = 16;

/// io_uring_setup has made a ring and written its parameters to `params`.
pub(crate) fn made(c: &Call, params: u64) {
    let word = |offset: u64| c.peek_or_zero::<u32>(params.wrapping_add(offset));
    let flags = word(params::FLAGS);
    let ring = Ring {
        fd: c.result as i32,
        words: 0,
        entries: 0,
        head: word(params::HEAD),
        tail: word(params::TAIL),
        mask_at: word(params::MASK),
        array: if flags & NO_SQARRAY == 0 { word(params::ARRAY) } else { 0 },
        mask: word(params::ENTRIES).wrapping_sub(1),
        entry_len: if flags & SQE128 == 0 { ENTRY } else { 2 * ENTRY },
        seen: 0,
    };
    let _order = ORDER.lock();
    let mut all = RINGS.lock();
    for old in all.rings.iter_mut().filter(|old| old.fd == ring.fd) {
        old.fd = -1;
    }
    all.rings.push(ring);
}

/// A descriptor was mapped at `at`. ORDER is held.
pub(super) fn mapped(fd: u64, offset: u64, at: u64) {
    let fd = fd as i32;
    let mut all = RINGS.lock();
    if offset & LENT_OFFSET != 0 {
        let group = (offset >> LENT_SHIFT) as u16 & 0x7fff;
        if let Some(lent) = all.lent.iter_mut().find(|lent| lent.at == 0 && lent.group == group) {
            lent.at = at;
        }
    } else if let Some(ring) = all.rings.iter_mut().find(|ring| ring.fd == fd) {
        match offset {
            WORDS_OFFSET if ring.words == 0 => ring.words = at,
            ENTRIES_OFFSET if ring.entries == 0 => ring.entries = at,
            _ => {}
        }
    }
}

/// An entry that is about to be submitted and was not seen yet.
pub(crate) fn next_entry(c: &Call) -> Option<u64> {
    let _order = ORDER.lock();
    let mut all = RINGS.lock();
    all.rings.retain(|ring| ring.words == 0 || c.peek(ring.words + u64::from(ring.mask_at)) == Some(ring.mask));
    all.rings.iter_mut().find_map(|ring| ring.next(c))
}

impl Ring {
    fn next(&mut self, c: &Call) -> Option<u64> {
        if self.words == 0 || self.entries == 0 {
            return None;
        }
        loop {
            let [head, tail] = [self.head, self.tail].map(|offset| c.peek_or_zero::<u32>(self.words + u64::from(offset)));
            let left = tail.wrapping_sub(self.seen).min(tail.wrapping_sub(head));
            if left == 0 || left - 1 > self.mask {
                return None;
            }
            let slot = tail.wrapping_sub(left) & self.mask;
            self.seen = tail.wrapping_sub(left - 1);
            let number = match self.array {
                0 => slot,
                array => c.peek_or_zero::<u32>(self.words + u64::from(array) + 4 * u64::from(slot)),
            };
            if number <= self.mask {
                return Some(self.entries + u64::from(number) * self.entry_len);
            }
        }
    }
}

/// The program lends the kernel the buffers of a ring with `count` entries at `at` (0: it will be mapped).
pub(crate) fn lend(fd: u64, group: u16, at: u64, count: u32) {
    let _order = ORDER.lock();
    RINGS.lock().lent.push(Lent { fd: fd as i32, group, at, count, seen: 0 });
}

pub(crate) fn take_back(fd: u64, group: u16) {
    let _order = ORDER.lock();
    RINGS.lock().lent.retain(|lent| (lent.fd, lent.group) != (fd as i32, group));
}

/// A lent buffer that was not seen yet: address and length.
pub(crate) fn next_lent(c: &Call) -> Option<(u64, u64)> {
    let _order = ORDER.lock();
    RINGS.lock().lent.iter_mut().find_map(|lent| lent.next(c))
}

impl Lent {
    fn next(&mut self, c: &Call) -> Option<(u64, u64)> {
        if self.at == 0 || !self.count.is_power_of_two() {
            return None;
        }
        let tail: u16 = c.peek(self.at + LENT_TAIL)?;
        let left = tail.wrapping_sub(self.seen);
        if left == 0 || u32::from(left) > self.count {
            self.seen = tail;
            return None;
        }
        let entry = self.at + LENT_ENTRY * u64::from(u32::from(self.seen) & (self.count - 1));
        self.seen = self.seen.wrapping_add(1);
        let [address, length] = c.peek::<[u64; 2]>(entry)?;
        Some((address, length & 0xffff_ffff))
    }
}
