//! `--trace-malloc=yes`: every call of an allocation function is told to the tracer when it has returned.
//!
//! One function stands in the table for all of them; the number of the one that was called is in the thread's slot, as for any replaced
//! function.
#![allow(unsafe_code, reason = "calls functions by their addresses, as the table's reader does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memcheck_abi::event::Trap;
use memcheck_abi::replace::{ALL, Func};
use memcheck_rt::{context, report, sys};
use memcheck_translate::slot;

type Entry = extern "C" fn(u64, u64, u64) -> u64;

/// What the functions really are.
static REAL: [AtomicU64; ALL.len()] = [const { AtomicU64::new(0) }; ALL.len()];

/// Remember what `func` really is; the address to call in its place.
pub fn stand_in(func: Func, entry: u64) -> u64 {
    REAL[func as usize].store(entry, Relaxed);
    call as Entry as usize as u64
}

extern "C" fn call(a: u64, b: u64, c: u64) -> u64 {
    let func = context::current().scratch[slot::ARGUMENT as usize] as u32 as usize;
    // SAFETY: an entry of the heap's table, all of which take up to three words and give one.
    let real: Entry = unsafe { core::mem::transmute::<u64, Entry>(REAL[func].load(Relaxed)) };
    let result = real(a, b, c);
    let told = if func == Func::posix_memalign as usize { placed(a, result) } else { result };
    let size = if func == Func::posix_memalign as usize { [b, c] } else { [a, b] };
    report::trap(Trap::Traced, func as u64, size[0], size[1], told);
    result
}

/// The block that posix_memalign gave, from the place that the program named.
fn placed(place: u64, error: u64) -> u64 {
    let mut word = [0; 8];
    if error == 0 && sys::read_guarded(place, &mut word) { u64::from_ne_bytes(word) } else { 0 }
}
