//! The runtime's own memory: a global allocator over a reserved range.
//!
//! Every request is rounded up to a power of two, 16 bytes at least, and each power has a list of free blocks. Never returns memory to the
//! kernel; never touches the program's heap.
#![allow(unsafe_code, reason = "implements GlobalAlloc over raw memory")]

use crate::sync::{Guard, Lock};
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use memcheck_abi::layout::{ARENA_END, ARENA_START};

/// From here on memory comes in large pages. Most programs need less, and would leave the last one half empty.
const DENSE_FROM: u64 = ARENA_START + (4 << 20);

/// Free lists by power of two (index = log2 of the size).
pub struct State {
    next: u64,
    mapped: u64,
    free: [u64; 48],
}

static STATE: Lock<State> = Lock::new(State { next: ARENA_START, mapped: ARENA_START, free: [0; 48] });

/// The allocator; there is one arena, whoever names it.
pub struct Arena;

/// For fork: nobody is inside while this lives.
pub struct Held(#[expect(dead_code, reason = "held, not read")] Guard<'static, State>);

/// Wait until nobody is inside. The holder must not allocate.
pub fn hold() -> Held {
    Held(STATE.lock())
}

fn class_of(layout: Layout) -> u32 {
    layout.size().max(layout.align()).max(16).next_power_of_two().trailing_zeros()
}

// SAFETY: blocks are disjoint, aligned to their power-of-two size up to a page (ARENA_START is page-aligned), and live until freed.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = class_of(layout);
        let size = 1u64 << class;
        let mut state = STATE.lock();
        let head = state.free[class as usize];
        if head != 0 {
            // SAFETY: a free block's first word links to the next.
            state.free[class as usize] = unsafe { *(head as *const u64) };
            return head as *mut u8;
        }
        let at = state.next.next_multiple_of(size.min(4096));
        let end = at + size;
        if end > ARENA_END {
            return core::ptr::null_mut();
        }
        if end > state.mapped {
            let len = (end - state.mapped).next_multiple_of(1 << 22);
            if !sys::map_fixed(state.mapped, len, sys::PROT_READ | sys::PROT_WRITE) {
                return core::ptr::null_mut();
            }
            if end > DENSE_FROM {
                sys::will_be_dense(state.mapped, len);
            }
            state.mapped += len;
        }
        state.next = end;
        at as *mut u8
    }

    // SAFETY: the caller gives back what `alloc` gave out, by the contract of the trait.
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        let class = class_of(layout) as usize;
        let mut state = STATE.lock();
        // SAFETY: the block is at least 16 bytes and no longer used.
        unsafe { *(p as *mut u64) = state.free[class] };
        state.free[class] = p as u64;
    }
}
