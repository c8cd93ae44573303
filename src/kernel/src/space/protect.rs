//! mprotect: code comes and goes by it.
#![allow(unsafe_code, reason = "executes the program's mprotect")]

use super::map::Piece;
use super::place;
use super::{EXEC, Effects, MAP, ORDER, WRITE, real_prot, round_up};
use crate::action::Action;
use crate::call::Call;
use crate::{EINVAL, ENOMEM};
use alloc::vec::Vec;
use memcheck_rt::sync::Lock;
use memcheck_rt::sys::{self, nr};

const PKEY_MPROTECT: u64 = 329;

pub(crate) fn mprotect(c: &mut Call) -> Action {
    let [addr, len, prot, ..] = c.args;
    // SAFETY: `protect` checked that the range is the program's.
    protect(addr, len, prot, || unsafe { sys::syscall3(nr::MPROTECT, addr, len, real_prot(prot)) })
}

pub(crate) fn pkey_mprotect(c: &mut Call) -> Action {
    let [addr, len, prot, key, ..] = c.args;
    // SAFETY: as above.
    protect(addr, len, prot, || unsafe { sys::syscall6(PKEY_MPROTECT, addr, len, real_prot(prot), key, 0, 0) })
}

fn protect(addr: u64, len: u64, prot: u64, run: impl FnOnce() -> i64) -> Action {
    let Some(end) = round_up(len).and_then(|len| addr.checked_add(len)) else { return Action::Done(ENOMEM) };
    if place::forbidden(addr, end) && len != 0 {
        return heap_or_refused(addr, end, prot, run);
    }
    let order = ORDER.lock();
    let mut effects = Effects::default();
    let result = run();
    let mut map = MAP.lock();
    let done = match result {
        // The kernel stops at the first hole, and leaves changed what lies before it.
        ENOMEM => map.contiguous_end(addr, end),
        r if sys::is_error(r) => addr,
        _ => end,
    };
    let old = map.protect(addr, done, prot as u32 & 7);
    drop(map);
    for piece in &old {
        transition(piece, prot as u32 & 7, &mut effects);
    }
    effects.tell();
    drop(order);
    Action::Done(result)
}

/// Heap blocks may be protected (debugging allocators, guard pages inside aligned blocks); nothing else of the forbidden ranges.
fn heap_or_refused(addr: u64, end: u64, prot: u64, run: impl FnOnce() -> i64) -> Action {
    use memcheck_abi::layout::{HEAP_END, HEAP_START};
    if addr < HEAP_START || end > HEAP_END {
        return Action::Done(if end < addr { EINVAL } else { ENOMEM });
    }
    let order = ORDER.lock();
    let result = run();
    if sys::is_error(result) {
        return Action::Done(result);
    }
    let piece = Piece { start: addr, end, prot: prot as u32 & 7, kind: 0, origin: 0 };
    let mut effects = Effects::default();
    if HEAP_CODE.lock().protect(piece) {
        effects.changed.push((addr, end));
    }
    if piece.prot & EXEC != 0 {
        effects.came(piece);
    }
    effects.tell();
    drop(order);
    Action::Done(result)
}

/// Parts of the heap, which is in no map, that can be executed: programs compile into blocks. Few, and most programs have none.
pub(super) static HEAP_CODE: Lock<HeapCode> = Lock::new(HeapCode(Vec::new()));

pub(super) struct HeapCode(Vec<Piece>);

impl HeapCode {
    pub fn at(&self, addr: u64) -> Option<Piece> {
        self.0.iter().copied().find(|piece| (piece.start..piece.end).contains(&addr))
    }

    /// This is what the range is from now on. Was some of it code?
    fn protect(&mut self, new: Piece) -> bool {
        let mut kept = Vec::new();
        let mut was_code = false;
        for old in self.0.drain(..) {
            let apart = old.end <= new.start || new.end <= old.start;
            was_code |= !apart;
            let parts = if apart {
                [old, Piece { end: old.start, ..old }]
            } else {
                [Piece { end: new.start, ..old }, Piece { start: new.end, ..old }]
            };
            kept.extend(parts.into_iter().filter(|part| part.start < part.end));
        }
        if new.prot & EXEC != 0 {
            kept.push(new);
        }
        self.0 = kept;
        was_code
    }
}

/// | before | after | told |
/// |---|---|---|
/// | X | no X | changed |
/// | no X | X | appeared |
/// | X | X and W, or the other way round | both: the code may have been or may now be rewritten |
fn transition(old: &Piece, prot: u32, effects: &mut Effects) {
    let new = Piece { prot, ..*old };
    let rewritten = (old.prot ^ prot) & WRITE != 0;
    if old.prot & EXEC != 0 && (prot & EXEC == 0 || rewritten) {
        effects.gone(&[*old]);
    }
    if prot & EXEC != 0 && (old.prot & EXEC == 0 || rewritten) {
        effects.came(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_in_the_heap_comes_and_goes() {
        let piece = |start, end, prot| Piece { start, end, prot, kind: 0, origin: 0 };
        let mut code = HeapCode(Vec::new());
        assert!(!code.protect(piece(0x1000, 0x5000, 7)));
        assert!(code.protect(piece(0x2000, 0x3000, 3)), "some of it is data again");
        let prot = |code: &HeapCode, addr| code.at(addr).map(|piece| piece.prot);
        assert_eq!([0x1fff, 0x2000, 0x3000, 0x5000].map(|addr| prot(&code, addr)), [Some(7), None, Some(7), None]);
        assert!(code.protect(piece(0x0, 0x2000, 5)));
        assert_eq!([0x1000, 0x4fff].map(|addr| prot(&code, addr)), [Some(5), Some(7)]);
    }
}
