//! brk, emulated in a range of its own.
//!
//! Growth is fresh zero pages, so it is defined. The end may lie inside a page; what is between it and the end of the page keeps
//! its contents, as with the kernel, but the program may not touch it. RLIMIT_DATA is not looked at.
#![allow(unsafe_code, reason = "unmaps what the program gave back")]

use super::gaps::PAGE;
use super::map::{Piece, kind};
use super::{MAP, ORDER, READ, WRITE, shadow};
use crate::action::Action;
use crate::call::Call;
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::layout::{BRK_END, BRK_START};
use memcheck_rt::limit;
use memcheck_rt::sys::{self, nr};

/// The program break. Changed with ORDER held.
static END: AtomicU64 = AtomicU64::new(BRK_START);

pub(super) fn reset() {
    END.store(BRK_START, Ordering::Relaxed);
}

/// Address of the word that holds the program break, for the tracer.
pub fn program_break() -> u64 {
    END.as_ptr() as u64
}

/// Does the range touch what brk may grow into? (For hints; a program that insists may map there and stops the growth.)
pub(super) fn reserved(start: u64, end: u64) -> bool {
    start < BRK_END && BRK_START < end
}

pub(crate) fn brk(c: &mut Call) -> Action {
    let order = ORDER.lock();
    let (old, new) = (END.load(Ordering::Relaxed), c.args[0]);
    let done = (BRK_START..=BRK_END).contains(&new) && if new > old { grow(old, new) } else { shrink(old, new) };
    if done {
        memcheck_rt::shadow::make_defined(old, new.min(old.next_multiple_of(PAGE)).saturating_sub(old));
        memcheck_rt::shadow::make_noaccess(new, new.next_multiple_of(PAGE) - new);
        END.store(new, Ordering::Relaxed);
    }
    super::account();
    let end = END.load(Ordering::Relaxed);
    drop(order);
    Action::Done(end as i64)
}

fn grow(old: u64, new: u64) -> bool {
    let (start, end) = (old.next_multiple_of(PAGE), new.next_multiple_of(PAGE));
    if start == end {
        return true;
    }
    let mut map = MAP.lock();
    if limit::refuses(end - start) || !map.is_free(start, end) || !sys::map_fixed(start, end - start, sys::PROT_READ | sys::PROT_WRITE) {
        return false;
    }
    // Origin 0: all pieces of the break are one.
    map.set(Piece { start, end, prot: READ | WRITE, kind: kind::BRK, origin: 0 });
    true
}

fn shrink(old: u64, new: u64) -> bool {
    let (start, end) = (new.next_multiple_of(PAGE), old.next_multiple_of(PAGE));
    if start < end {
        // SAFETY: the range lies between two positions of the program break.
        unsafe { sys::syscall3(nr::MUNMAP, start, end - start, 0) };
        shadow::forget(start, end - start);
        MAP.lock().clear(start, end);
    }
    true
}
