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
//! That is over when blocks leave the quarantine for the first time. From then on memory comes and goes in turn, and the faults would cost as
//! much as the allocations. Neither is memory of several threads looked at: one could write a byte that another has just seen.
#![allow(unsafe_code, reason = "reads shadow by address")]

use crate::layout::{UNIT, address_of, unit_of};
use crate::{quarantine, sheet, spans};
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

/// The heap may have grown. Not under the central lock.
#[inline]
pub fn may_have_grown() {
    let (used, before) = (spans::used_units(), SEARCHED.load(Relaxed));
    if used >= SMALL && used - before >= STEP.max(before / SHARE) && !quarantine::was_full() && !context::is_shared() {
        SEARCHED.store(used, Relaxed);
        give_back();
    }
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
