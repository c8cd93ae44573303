//! Calls that replace the contents of mappings: what was undefined is zero or file contents afterwards.
#![allow(unsafe_code, reason = "executes the program's madvise")]

use super::round_up;
use crate::action::Action;
use crate::call::Call;
use memcheck_rt::sys::{self, nr};

const DONTNEED: u64 = 4;
const FREE: u64 = 8;
const REMOVE: u64 = 9;
const DONTNEED_LOCKED: u64 = 24;
const REMAP_FILE_PAGES: u64 = 216;

pub(crate) fn madvise(c: &mut Call) -> Action {
    let [addr, len, advice, ..] = c.args;
    // SAFETY: advice about the program's memory; a range of ours can only be hit by a wild argument, and is refused.
    let result = refused(addr, len).unwrap_or_else(|| unsafe { sys::syscall3(nr::MADVISE, addr, len, advice) });
    if result == 0 && empties(advice) {
        c.mark(addr, round_up(len).unwrap_or(0));
    }
    Action::Done(result)
}

/// Is what was there gone afterwards?
pub(crate) fn empties(advice: u64) -> bool {
    matches!(advice & 0xffff_ffff, DONTNEED | FREE | REMOVE | DONTNEED_LOCKED)
}

pub(crate) fn remap_file_pages(c: &mut Call) -> Action {
    let [addr, len, prot, offset, flags, _] = c.args;
    // SAFETY: replaces pages of one of the program's own shared mappings in place.
    let result = refused(addr, len).unwrap_or_else(|| unsafe { sys::syscall6(REMAP_FILE_PAGES, addr, len, prot, offset, flags, 0) });
    if result == 0 {
        c.mark(addr, len);
    }
    Action::Done(result)
}

/// ENOMEM where the program has nothing.
fn refused(addr: u64, len: u64) -> Option<i64> {
    (!memcheck_abi::layout::in_program(addr, len)).then_some(crate::ENOMEM)
}
