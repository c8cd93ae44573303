//! The table of replacement functions, indexed by `abi::replace::Func`; read by `asm::replace`.
#![allow(unsafe_code, reason = "a static table written once at start-up")]

use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::replace::{ALL, Func};

#[repr(transparent)]
pub struct Table([AtomicU64; ALL.len()]);

pub static TABLE: Table = Table([const { AtomicU64::new(0) }; ALL.len()]);

/// Take the functions of the heap and of the string crate.
pub fn init() {
    for &func in ALL {
        if let Some(entry) = memcheck_heap::entry(func) {
            set(func, entry as u64);
        } else if let Some(entry) = memcheck_replace::entry(func) {
            set(func, entry);
        }
    }
}

fn set(func: Func, entry: u64) {
    TABLE.0[func as usize].store(entry, Ordering::Relaxed);
}

/// Is there an implementation?
pub fn has(func: u32) -> bool {
    TABLE.0.get(func as usize).is_some_and(|e| e.load(Ordering::Relaxed) != 0)
}
