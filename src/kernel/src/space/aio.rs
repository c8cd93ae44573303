//! The completion ring of kernel AIO.
//!
//! io_setup maps a ring at a place of the kernel's choice, out of the program's reach, and its address is the name of the context.
//! A ring may be moved: the kernel follows an mremap and renames the context. So it is moved to where the program's mappings are.
#![allow(unsafe_code, reason = "executes io_setup and moves the ring")]

use super::gaps::PAGE;
use super::map::{Piece, kind};
use super::place::{self, MAP_STACK, Request};
use super::{MAP, ORDER, READ, WRITE};
use crate::action::Action;
use crate::call::Call;
use crate::{EFAULT, ENOMEM};
use memcheck_rt::sys::{self, MAP_ANONYMOUS, MAP_PRIVATE, nr};

const IO_SETUP: u64 = 206;
const IO_DESTROY: u64 = 207;
const MREMAP_MAYMOVE_FIXED: u64 = 3;

pub(crate) fn io_setup(c: &mut Call) -> Action {
    let [events, place, ..] = c.args;
    if !super::writable(place, 8, 0) || c.peek::<u64>(place).is_none_or(|old| old != 0) {
        // Wrong arguments: nothing is mapped, the kernel has the error.
        return Action::Native;
    }
    let mut ring = 0u64;
    let order = ORDER.lock();
    // SAFETY: the kernel writes the context to our variable.
    let mut result = unsafe { sys::syscall3(IO_SETUP, events, &raw mut ring as u64, 0) };
    if result == 0 {
        match move_ring(ring) {
            Some(at) => result = if c.poke(place, at) { 0 } else { EFAULT },
            None => {
                // SAFETY: the context was just made and nobody knows it.
                unsafe { sys::syscall3(IO_DESTROY, ring, 0, 0) };
                result = ENOMEM;
            }
        }
    }
    drop(order);
    Action::Done(result)
}

/// The ring's header (32 bytes, as long as an event) has the number of events at 4; the kernel makes as many as fill its pages.
fn ring_len(ring: u64) -> Option<u64> {
    const EVENT: u64 = 32;
    const MOST: u64 = 1 << 20;
    let mut header = [0u8; 8];
    if !sys::read_guarded(ring, &mut header) {
        return None;
    }
    let events = u64::from(u32::from_ne_bytes([header[4], header[5], header[6], header[7]]));
    (events <= MOST).then(|| (EVENT + EVENT * events).next_multiple_of(PAGE))
}

/// The new place of the ring at `from`.
fn move_ring(from: u64) -> Option<u64> {
    let len = ring_len(from)?;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
    let to = place::choose(&mut MAP.lock(), &Request { addr: 0, len, prot: 3, flags, fd: u64::MAX, offset: 0 })?;
    // SAFETY: `to` is free by the map; the ring belongs to the call that is being answered, and `len` is exactly its length.
    let result = unsafe { sys::syscall6(nr::MREMAP, from, len, len, MREMAP_MAYMOVE_FIXED, to, 0) };
    if sys::is_error(result) {
        return None;
    }
    let mut map = MAP.lock();
    let origin = map.origin();
    map.set(Piece { start: to, end: to + len, prot: READ | WRITE, kind: kind::FILE | kind::SHARED, origin });
    Some(to)
}

/// io_destroy unmaps the ring.
pub(crate) fn io_destroyed(c: &mut Call) {
    let _order = ORDER.lock();
    let mut map = MAP.lock();
    if let Some(piece) = map.at(c.args[0]).filter(|p| p.start == c.args[0]) {
        map.clear(piece.start, piece.end);
        super::shadow::forget(piece.start, piece.end - piece.start);
    }
}
