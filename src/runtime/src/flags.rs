//! Functions that may return something in the flags.
//!
//! Compiled ones do not, so checks in front of a `ret` need not keep flags. Code written by hand may, and then reads them right behind the
//! call. A call is translated before it is made: what is called there is remembered, and what was translated of it is forgotten.
//!
//! A function that does not come back is often called in front of code that reads the flags of some jump to it. It is remembered in vain.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far the code of such a function reaches, at most.
const REACH: u64 = 1 << 13;

static FUNCTIONS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
/// There were too many, or it is not known which.
static ANY: AtomicBool = AtomicBool::new(false);

fn reaches(function: u64, pc: u64) -> bool {
    function != 0 && (function..function + REACH).contains(&pc)
}

/// May the `ret` at `pc` return flags?
pub fn are_returned(pc: u64) -> bool {
    ANY.load(Ordering::Relaxed) || FUNCTIONS.iter().any(|function| reaches(function.load(Ordering::Relaxed), pc))
}

/// This function (0: any) returns flags. The code of which that was not known: start and length. With the cache locked.
pub fn are_asked_of(function: u64) -> Option<(u64, u64)> {
    if ANY.load(Ordering::Relaxed) || FUNCTIONS.iter().any(|known| function != 0 && known.load(Ordering::Relaxed) == function) {
        return None;
    }
    match FUNCTIONS.iter().find(|free| free.load(Ordering::Relaxed) == 0).filter(|_| function != 0) {
        Some(free) => {
            free.store(function, Ordering::Relaxed);
            Some((function, REACH))
        }
        None => {
            ANY.store(true, Ordering::Relaxed);
            Some((0, memcheck_abi::layout::PROGRAM_END))
        }
    }
}
