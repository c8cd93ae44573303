//! Host tests. Two areas of program memory stand for the traced program: three pages each, followed by a page that faults.
//!
//! - `libc`     results and memory are those of libc, for random data, alignments and page ends; correct calls report nothing
//! - `shadow`   V, A and reports of copies against a byte-by-byte model
//! - `reports`  what is reported, one case at a time

#![allow(unsafe_code, reason = "test memory at fixed addresses, and calls of libc")]

mod libc_compare;
mod reports;
mod shadow_model;

use memcheck_abi::event::ErrorEvent;
use memcheck_abi::layout::{A_BASE, MMAP_START, ORIGIN_DISTANCE, V_DISTANCE};
use memcheck_rt::{context, report, shadow};
use std::sync::{Mutex, MutexGuard, Once};

pub const PAGE: u64 = 4096;
/// Bytes of an area.
pub const AREA: u64 = 3 * PAGE;
pub const ONE: u64 = MMAP_START;
pub const TWO: u64 = MMAP_START + 0x10_0000;
/// The entry of the function under test, as reports must name it.
pub const PC: u64 = 0x1234_5678;
const STACK: u64 = MMAP_START + 0x20_0000;

static WORLD: Mutex<()> = Mutex::new(());
static ONCE: Once = Once::new();

/// Exclusive use of the areas, the context and the report log; both areas defined, addressable and zero.
pub fn world() -> MutexGuard<'static, ()> {
    let guard = WORLD.lock().unwrap_or_else(|e| e.into_inner());
    ONCE.call_once(|| {
        reserve();
        for base in [ONE, TWO, STACK] {
            assert!(memcheck_rt::sys::map_fixed(base, AREA, 3));
            assert!(memcheck_rt::sys::map_fixed(base + AREA, PAGE, 0));
        }
        let ctx = context::current();
        ctx.regs.rip = PC;
        ctx.stack_low = STACK;
        ctx.stack_high = STACK + AREA;
        ctx.guest_rsp = STACK + 2 * PAGE;
    });
    for base in [ONE, TWO] {
        shadow::make_defined(base, AREA);
        write(base, &[0; AREA as usize]);
    }
    report::host::drain();
    guard
}

/// Shadow of the areas only: the whole range is not free in a test, which lies in it itself.
fn reserve() {
    let (from, span) = (MMAP_START, 0x40_0000);
    for (start, len) in [(from + V_DISTANCE, span), (A_BASE + from / 8, span / 8), (from + ORIGIN_DISTANCE, span)] {
        assert!(memcheck_rt::sys::map_fixed(start & !4095, len + PAGE, 3), "{start:#x} is free");
    }
}

pub fn write(addr: u64, bytes: &[u8]) {
    // SAFETY: tests write inside their areas.
    unsafe { std::ptr::copy(bytes.as_ptr(), addr as *mut u8, bytes.len()) }
}

pub fn read(addr: u64, n: u64) -> Vec<u8> {
    // SAFETY: tests read inside their areas.
    unsafe { std::slice::from_raw_parts(addr as *const u8, n as usize) }.to_vec()
}

/// Put bytes so that the last one is the last before the page that faults; returns their address.
pub fn at_end(base: u64, bytes: &[u8]) -> u64 {
    let addr = base + AREA - bytes.len() as u64;
    write(addr, bytes);
    addr
}

/// The reports since the last call.
pub fn reports() -> (usize, ErrorEvent) {
    report::host::drain()
}

#[track_caller]
pub fn silent() {
    let (n, e) = reports();
    assert_eq!(n, 0, "unexpected report of kind {} at {:#x}", e.kind, e.addr);
}

/// xorshift: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// Less than `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    /// Mostly small, sometimes up to `max`.
    pub fn length(&mut self, max: u64) -> u64 {
        let bound = [4, 20, 70, 300, max][self.below(5) as usize].min(max);
        self.below(bound + 1)
    }
}

#[test]
fn every_string_function_has_an_entry_and_no_other() {
    use memcheck_abi::replace::ALL;
    for &func in &ALL[1..] {
        assert_eq!(crate::entry(func).is_some(), func.is_string(), "{func:?}");
        assert_eq!(crate::ENTRIES.iter().filter(|e| e.func == func).count(), usize::from(func.is_string()), "{func:?}");
    }
}
