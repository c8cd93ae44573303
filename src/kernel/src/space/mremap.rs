//! mremap: memory that grows, shrinks and moves with its shadow.
//!
//! The kernel must not choose the address, so a growing mapping is first tried in place (if the map says that there is room),
//! then moved to a place that was chosen and probed here.
#![allow(unsafe_code, reason = "executes the program's mremap")]

use super::gaps::PAGE;
use super::map::{Map, Piece};
use super::place::{self, Request};
use super::{Effects, MAP, ORDER, round_up, shadow};
use crate::action::Action;
use crate::call::Call;
use crate::{EEXIST, EFAULT, EINVAL, ENOMEM};
use alloc::vec::Vec;
use memcheck_rt::limit;
use memcheck_rt::sys::{self, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, nr};

const MAYMOVE: u64 = 1;
const FIXED: u64 = 2;
const DONTUNMAP: u64 = 4;
const TRIES: usize = 64;

struct Move {
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u64,
}

pub(crate) fn mremap(c: &mut Call) -> Action {
    let [old, old_len, new_len, flags, target, _] = c.args;
    let (Some(old_len), Some(new_len)) = (round_up(old_len), round_up(new_len)) else { return Action::Done(EINVAL) };
    let m = Move { old, old_len, new_len, flags };
    let Some(old_end) = old.checked_add(old_len) else { return Action::Done(EINVAL) };
    if new_len == 0 || !old.is_multiple_of(PAGE) || flags & FIXED != 0 && flags & MAYMOVE == 0 {
        return Action::Done(EINVAL);
    }
    if place::forbidden(old, old_end) {
        return Action::Done(EFAULT);
    }
    let order = ORDER.lock();
    let mut effects = Effects::default();
    let result = if limit::refuses(new_len.saturating_sub(old_len)) && new_len > old_len {
        ENOMEM
    } else if flags & FIXED != 0 {
        fixed(&m, target, &mut effects)
    } else if flags & DONTUNMAP == 0 && new_len <= old_len && old_len != 0 {
        shrink(&m, &mut effects)
    } else {
        grow(&m, &mut effects)
    };
    effects.tell();
    drop(order);
    Action::Done(result)
}

fn run(m: &Move, flags: u64, target: u64) -> i64 {
    // SAFETY: old and new place are the program's, checked by the callers.
    unsafe { sys::syscall6(nr::MREMAP, m.old, m.old_len, m.new_len, flags, target, 0) }
}

fn shrink(m: &Move, effects: &mut Effects) -> i64 {
    let result = run(m, 0, 0);
    if !sys::is_error(result) && m.new_len < m.old_len {
        let (start, end) = (m.old + m.new_len, m.old + m.old_len);
        shadow::forget(start, end - start);
        effects.gone(&MAP.lock().clear(start, end));
    }
    result
}

fn grow(m: &Move, effects: &mut Effects) -> i64 {
    let end = m.old.saturating_add(m.new_len);
    let in_place = m.flags & DONTUNMAP == 0 && m.old_len != 0 && !place::forbidden(m.old, end);
    let may_move = m.flags & MAYMOVE != 0;
    // Where something is in the way the kernel finds it as well, and says what else may be wrong.
    if in_place && (!may_move || MAP.lock().is_free(m.old + m.old_len, end)) {
        let result = run(m, 0, 0);
        if !sys::is_error(result) {
            let mut map = MAP.lock();
            if let Some(piece) = map.at(m.old) {
                let grown = Piece { start: m.old + m.old_len, end, ..piece };
                map.set(grown);
                effects.came(grown);
            }
            return result;
        }
        if !may_move {
            return result;
        }
    }
    if !may_move {
        return run(m, m.flags, 0);
    }
    for _ in 0..TRIES {
        match probe(m) {
            Ok(target) => {
                let result = move_to(m, target, effects);
                if sys::is_error(result) {
                    // SAFETY: the probe is ours and nothing was moved over it.
                    unsafe { sys::syscall3(nr::MUNMAP, target, m.new_len, 0) };
                }
                return result;
            }
            Err(EEXIST) => {}
            Err(error) => return error,
        }
    }
    ENOMEM
}

/// Choose a place and occupy it by a mapping that the move will replace: nothing unknown can be hit that way.
fn probe(m: &Move) -> Result<u64, i64> {
    let Some(piece) = MAP.lock().at(m.old) else { return Err(EFAULT) };
    let request = Request {
        addr: 0,
        len: m.new_len,
        prot: u64::from(piece.prot),
        // MAP_STACK: not a reservation that may become code.
        flags: MAP_PRIVATE | MAP_ANONYMOUS | place::MAP_STACK,
        fd: u64::MAX,
        offset: 0,
    };
    let Some(at) = place::choose(&mut MAP.lock(), &request) else { return Err(ENOMEM) };
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE touches nothing that exists.
    let result = unsafe { sys::syscall6(nr::MMAP, at, m.new_len, 0, flags, u64::MAX, 0) };
    if result == EEXIST {
        MAP.lock().take(at, at + m.new_len);
    }
    if sys::is_error(result) { Err(result) } else { Ok(at) }
}

fn fixed(m: &Move, target: u64, effects: &mut Effects) -> i64 {
    let Some(end) = target.checked_add(m.new_len) else { return EINVAL };
    if place::forbidden(target, end) {
        return ENOMEM;
    }
    move_to(m, target, effects)
}

/// Move to an address that is the program's or the probe's.
fn move_to(m: &Move, target: u64, effects: &mut Effects) -> i64 {
    let result = run(m, m.flags | MAYMOVE | FIXED, target);
    if sys::is_error(result) {
        return result;
    }
    let mut map = MAP.lock();
    let moved = shifted(&map, m, target);
    // Between several mappings, what is at the new place stays.
    for piece in &moved {
        effects.gone(&map.clear(piece.start, piece.end));
        shadow::forget(piece.start, piece.end - piece.start);
    }
    if m.old_len != 0 {
        let carried = target + m.old_len.min(m.new_len);
        for piece in &moved {
            shadow::move_(piece.start - target + m.old, piece.start, piece.end.min(carried) - piece.start);
        }
        if m.flags & DONTUNMAP == 0 {
            shadow::forget(m.old, m.old_len);
            let gone = map.clear(m.old, m.old + m.old_len);
            effects.gone(&gone);
        }
    }
    for piece in moved {
        map.set(piece);
        effects.came(piece);
    }
    drop(map);
    result
}

/// The pieces at the old place as they will be at the new one, no more of them than the new length says, the last of them as long as it
/// says. (Newer kernels move several mappings at once if the length stays.) An old length of 0 makes a second view of a shared mapping.
fn shifted(map: &Map, m: &Move, target: u64) -> Vec<Piece> {
    let end = m.old + m.old_len.max(1).min(m.new_len);
    let cut = |p: Piece| Piece { start: p.start.max(m.old) - m.old + target, end: p.end.min(end) - m.old + target, ..p };
    let mut pieces: Vec<Piece> = map.overlapping(m.old, end).map(cut).collect();
    if m.new_len > m.old_len
        && let Some(last) = pieces.last_mut()
    {
        last.end = target + m.new_len;
    }
    pieces
}
