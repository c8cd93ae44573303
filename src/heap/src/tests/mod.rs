//! The heap as a whole, in an ordinary process: its address ranges are fixed, so it works anywhere.
//!
//! [`model`] compares with a naive model after random operations, [`errors`] has the reports, [`waiting`] the quarantine, [`fallow`] its shadow,
//! [`parallel`] threads, [`requests`] the client's own blocks, [`speed`] numbers to read (ignored).
#![allow(unsafe_code, reason = "tests touch the blocks they get")]

extern crate std;

mod errors;
mod fallow;
mod model;
mod parallel;
mod requests;
mod speed;
mod waiting;

use memcheck_abi::config::Config;
use memcheck_abi::context::ThreadContext;
use memcheck_rt::{context, shadow, sys};
use std::sync::{Mutex, MutexGuard, PoisonError};

static SERIAL: Mutex<bool> = Mutex::new(false);

/// Tests share one heap, one context and one log of errors: one at a time.
pub fn start() -> (MutexGuard<'static, bool>, &'static mut ThreadContext) {
    let mut ready = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ready {
        let config = config(20_000_000);
        assert!(shadow_there() && memcheck_rt::depot::init() && crate::init(&config));
        memcheck_rt::report::init(12, crate::describe);
        *ready = true;
    }
    let ctx = context::current();
    (ctx.regs.rip, ctx.guest_rsp) = (0x1000, 0x0ff0_0000_0000);
    (ctx.stack_low, ctx.stack_high) = (0x0ff0_0000_0000, 0x0ff0_0000_0000);
    memcheck_rt::report::host::drain();
    (ready, ctx)
}

pub fn config(volume: u64) -> std::boxed::Box<Config> {
    // SAFETY: all fields are plain numbers.
    let mut config: std::boxed::Box<Config> = unsafe { std::boxed::Box::new_zeroed().assume_init() };
    (config.redzone, config.alignment, config.keep_stacks) = (16, 16, 3);
    (config.freelist_volume, config.freelist_big_blocks) = (volume, 1_000_000);
    (config.malloc_fill, config.free_fill, config.show_mismatched_frees) = (-1, -1, 1);
    config
}

/// V, A and the map of origin words, all that the heap uses of the shadow.
fn shadow_there() -> bool {
    use memcheck_abi::layout::{A_BASE, ORIGIN_MAP, ORIGIN_PAGES, PROGRAM_END, V_DISTANCE};
    let parts = [(V_DISTANCE & !4095, PROGRAM_END + 8192), (A_BASE, PROGRAM_END / 8), (ORIGIN_MAP, ORIGIN_PAGES)];
    parts.into_iter().all(|(start, len)| sys::map_fixed(start, len, sys::PROT_READ | sys::PROT_WRITE))
}

/// A small generator with a printed seed would be luxury: runs are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// Mostly small, sometimes large sizes.
    pub fn size(&mut self) -> u64 {
        match self.below(20) {
            0 => self.below(4),
            1 => self.below(3_000_000),
            2 => self.below(300_000),
            3..6 => self.below(20_000),
            _ => self.below(400),
        }
    }
}

/// Every byte of the range has this A bit.
pub fn assert_a(addr: u64, len: u64, noaccess: bool) {
    for at in addr..addr + len {
        assert_eq!(shadow::a_clear(at), !noaccess, "A of {at:#x} in [{addr:#x}, +{len})");
    }
}

pub fn assert_v(addr: u64, len: u64, value: u8) {
    let mut bytes = std::vec![0; len as usize];
    shadow::read_v(addr, &mut bytes);
    if let Some(at) = bytes.iter().position(|&b| b != value) {
        panic!("V of {:#x} in [{addr:#x}, +{len}) is {:#x}, not {value:#x}", addr + at as u64, bytes[at]);
    }
}

/// The memory around a live block is red zone, the block is open.
pub fn assert_live(p: u64, size: u64) {
    assert_a(p - 24, 24, true);
    assert_v(p - 24, 24, 0xff);
    assert_a(p, size, false);
    assert_a(p + size, 16, true);
    assert_v(p + size, 16, 0xff);
}

pub fn bytes_mut(p: u64, len: u64) -> &'static mut [u8] {
    // SAFETY: tests pass blocks they own.
    unsafe { core::slice::from_raw_parts_mut(p as *mut u8, len as usize) }
}
