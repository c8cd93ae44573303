//! The table of replacement functions, indexed by `abi::replace::Func`; read by `asm::replace`.
#![allow(unsafe_code, reason = "a static table written once at start-up")]

use core::sync::atomic::{AtomicU64, Ordering};
use crate::cache::CACHE;
use crate::{asm, inner};
use memcheck_abi::replace::{ALL, Func};
use memcheck_rt::context;
use memcheck_translate::slot;

#[repr(transparent)]
pub struct Table([AtomicU64; ALL.len() + 1]);

/// One more than there are functions: the last is the way back from program code that the runtime called.
pub static TABLE: Table = Table([const { AtomicU64::new(0) }; ALL.len() + 1]);

/// Take the functions of the heap and of the string crate.
pub fn init() {
    for &func in ALL {
        if let Some(entry) = memcheck_heap::entry(func) {
            set(func, entry as u64);
        } else if let Some(entry) = memcheck_replace::entry(func) {
            set(func, entry);
        }
    }
    TABLE.0[inner::RETURN].store(asm::program_returned as extern "C" fn() as usize as u64, Ordering::Relaxed);
}

fn set(func: Func, entry: u64) {
    TABLE.0[func as usize].store(entry, Ordering::Relaxed);
}

/// Is there an implementation?
pub fn has(func: u32) -> bool {
    TABLE.0.get(func as usize).is_some_and(|e| e.load(Ordering::Relaxed) != 0)
}

/// When these cannot serve a request, the program's own function must fail in its place: it throws, or stores errno.
const FAIL_AS_ORIGINAL: &[Func] = &[
    Func::malloc,
    Func::calloc,
    Func::memalign,
    Func::aligned_alloc,
    Func::valloc,
    Func::pvalloc,
    Func::_Znwm,
    Func::_Znam,
    Func::_ZnwmSt11align_val_t,
    Func::_ZnamSt11align_val_t,
];

/// A replaced function returned 0. Host address of the program's own version if that must run now (with the arguments as they were,
/// ctx.regs), else 0.
pub extern "C" fn null_result() -> u64 {
    let ctx = context::current();
    let func = ctx.scratch[slot::ARGUMENT as usize] as u32;
    if !Func::from_number(func).is_some_and(|f| FAIL_AS_ORIGINAL.contains(&f)) {
        return 0;
    }
    CACHE.lock().find_original(ctx.regs.rip).unwrap_or(0)
}
