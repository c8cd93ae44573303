//! Shadow of memory that lies fallow, given back.
//!
//! What was freed is inaccessible from end to end: its V is FF and its A is 1, as many bytes as wait in the quarantine and more. Before the
//! heap takes more memory from the system, stretches of this are replaced by sheets (`sheet`), which say the same without being there; a
//! page of them takes memory again once it is written.
//!
//! ```text
//! A of units   | 0 live | 1 ........ 1 | 1 | 0 live |        looked at unit by unit, up to the first byte that is something else
//!                       |<-- a sheet ->|  short: stays
//! ```
//!
//! Once blocks leave the quarantine memory comes and goes in turn. Then it is searched whenever a quarter of the volume has left, but not
//! sooner than some time after the last search: where blocks live for a moment the faults would cost as much as the allocations.
//! Memory of several threads is not looked at: one could write a byte that another has just seen.
#![allow(unsafe_code, reason = "reads shadow by address")]

use crate::layout::{UNIT, address_of, unit_of};
use crate::{quarantine, settings, sheet, spans};
use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use memcheck_abi::layout::{A_BASE, v_of};
use memcheck_rt::{context, shadow, sys};

/// So many units from the start of the heap are looked at: 256 MiB.
const UNITS: usize = 1 << 14;
/// A smaller heap is left alone.
const SMALL: u64 = (6 << 20) / UNIT;
/// It is searched when it has grown by so much, and by this share of itself.
const STEP: u64 = (1 << 20) / UNIT;
const SHARE: u64 = 16;
/// Later, when this part of the quarantine's volume has left it, and so many ticks of the clock have passed: 30 to 40 ms.
const TURN: u64 = 4;
const PAUSE: u64 = 80_000_000;
/// Shorter stretches are not worth a mapping, of A even less.
const LEAST: u64 = (64 << 10) / UNIT;
const LEAST_FOR_A: u64 = (256 << 10) / UNIT;
const PAGE: u64 = 4096;

/// Units that were given back and not used since.
static GIVEN: [AtomicBool; UNITS] = [const { AtomicBool::new(false) }; UNITS];
/// There are such.
static ANY: AtomicBool = AtomicBool::new(false);
/// Units of the heap when it was searched last.
static SEARCHED: AtomicU64 = AtomicU64::new(0);
/// What had left the quarantine by then, and when that was.
static LEFT: AtomicU64 = AtomicU64::new(0);
static WHEN: AtomicU64 = AtomicU64::new(0);

/// The heap may have grown, or blocks may have left the quarantine. Not under the central lock.
#[inline]
pub fn may_be_worth_it() {
    let (used, left) = (spans::used_units(), quarantine::left());
    let worth = if left == 0 { has_grown(used) } else { left - LEFT.load(Relaxed) >= settings::get().volume / TURN && is_time() };
    if used >= SMALL && worth && !context::is_shared() {
        SEARCHED.store(used, Relaxed);
        LEFT.store(left, Relaxed);
        give_back();
    }
}

fn has_grown(used: u64) -> bool {
    let before = SEARCHED.load(Relaxed);
    used - before >= STEP.max(before / SHARE)
}

/// Is the last search long past? If so, the next one begins now.
#[cold]
fn is_time() -> bool {
    // SAFETY: reads a counter.
    let now = unsafe { _rdtsc() };
    let long_past = now.wrapping_sub(WHEN.load(Relaxed)) >= PAUSE;
    if long_past {
        WHEN.store(now, Relaxed);
    }
    long_past
}

/// Is there any?
#[inline]
pub fn is_any() -> bool {
    ANY.load(Relaxed)
}

/// Memory of the heap that will be used soon.
pub fn wake(addr: u64, len: u64) {
    for unit in unit_of(addr)..=unit_of(addr + len - 1) {
        if is_given(unit) {
            GIVEN[unit as usize].store(false, Relaxed);
            populate(unit);
        }
    }
}

/// Units that may be used by and by.
pub fn forget(first: u64, units: u64) {
    GIVEN.iter().skip(first as usize).take(units as usize).for_each(|given| given.store(false, Relaxed));
}

fn is_given(unit: u64) -> bool {
    GIVEN.get(unit as usize).is_some_and(|given| given.load(Relaxed))
}

/// Have the pages of a unit's V made at once. If the kernel does not know how, a fault each does it, or two.
#[cold]
#[inline(never)]
fn populate(unit: u64) {
    let (first, end) = (v_of(address_of(unit)) & !(PAGE - 1), v_of(address_of(unit + 1)).next_multiple_of(PAGE));
    // SAFETY: mapped shadow; contents do not change.
    unsafe { sys::syscall3(sys::nr::MADVISE, first, end - first, sys::MADV_POPULATE_WRITE) };
}

/// Search now.
pub fn give_back() {
    let end = spans::used_units().min(UNITS as u64);
    let mut file = None;
    let mut unit = 0;
    while unit < end {
        let first = unit;
        while unit < end && is_fallow(unit) {
            unit += 1;
        }
        if unit - first >= LEAST
            && let Some(file) = file.get_or_insert_with(sheet::open)
        {
            replace(first, unit, file);
        }
        unit += 1;
    }
}

/// Is nothing of this unit accessible? Where A is 1 throughout, V is FF.
fn is_fallow(unit: u64) -> bool {
    // SAFETY: A of the heap; a unit has a multiple of 64 bytes of it, aligned.
    let lines = unsafe { core::slice::from_raw_parts((A_BASE + address_of(unit) / 8) as *const [u64; 8], (UNIT / 8 / 64) as usize) };
    !is_given(unit) && lines.iter().all(|line| line.iter().fold(u64::MAX, |all, word| all & word) == u64::MAX)
}

fn replace(first: u64, end: u64, file: &sheet::File) {
    shadow::expect_sheets();
    ANY.store(true, Relaxed);
    let (at, len) = (address_of(first), (end - first) * UNIT);
    let _ = file.cover(v_of(at), len);
    if end - first >= LEAST_FOR_A {
        let _ = file.cover(A_BASE + at / 8, len / 8);
    }
    GIVEN[first as usize..end as usize].iter().for_each(|given| given.store(true, Relaxed));
}
