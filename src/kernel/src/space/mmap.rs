//! mmap and munmap.
#![allow(unsafe_code, reason = "executes the program's mmap and munmap")]

use super::gaps::PAGE;
use super::map::{Piece, kind};
use super::place::{self, MAP_32BIT, MAP_GROWSDOWN, MAP_HUGETLB, MAP_STACK, Request};
use super::{Effects, MAP, ORDER, real_prot, rings, round_up, shadow};
use crate::action::Action;
use crate::call::Call;
use crate::{EEXIST, EINVAL, ENOMEM};
use memcheck_rt::limit;
use memcheck_rt::sys::{self, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_SHARED, nr};

/// Places tried when something unknown is in the way.
const TRIES: usize = 64;

pub(crate) fn mmap(c: &mut Call) -> Action {
    let [addr, len, prot, flags, fd, offset] = c.args;
    let order = ORDER.lock();
    let mut effects = Effects::default();
    let result = match round_up(len) {
        // The kernel knows best which error that is.
        Some(0) => run(&Request { addr, len, prot, flags, fd, offset }, addr, flags),
        None => ENOMEM,
        Some(len) if limit::refuses(len) => ENOMEM,
        Some(len) => map_request(&Request { addr, len, prot, flags, fd, offset }, &mut effects),
    };
    effects.tell();
    drop(order);
    Action::Done(result)
}

fn run(r: &Request, addr: u64, flags: u64) -> i64 {
    // SAFETY: the program's own request at a place that was checked to be the program's.
    unsafe { sys::syscall6(nr::MMAP, addr, r.len, real_prot(r.prot), flags, r.fd, r.offset) }
}

fn map_request(r: &Request, effects: &mut Effects) -> i64 {
    if r.flags & MAP_FIXED_NOREPLACE != 0 {
        return map_fixed(r, effects, true);
    }
    if r.flags & MAP_FIXED != 0 {
        return map_fixed(r, effects, false);
    }
    for _ in 0..TRIES {
        let Some(at) = place::choose(&mut MAP.lock(), r) else { return ENOMEM };
        let result = run(r, at, r.flags & !MAP_32BIT | MAP_FIXED_NOREPLACE);
        if result == EEXIST {
            MAP.lock().take(at, at + r.len);
            continue;
        }
        return match result {
            EINVAL if r.flags & (MAP_ANONYMOUS | MAP_SHARED) == MAP_SHARED => where_the_kernel_likes(r, effects),
            r if sys::is_error(r) => r,
            at => mapped(r, at as u64, effects),
        };
    }
    ENOMEM
}

/// Some files choose the address themselves (io_uring's rings) and refuse every other. Below 2 GiB the kernel finds one that suits here, too.
fn where_the_kernel_likes(r: &Request, effects: &mut Effects) -> i64 {
    let result = run(r, 0, r.flags | MAP_32BIT);
    if sys::is_error(result) {
        return result;
    }
    let at = result as u64;
    if place::forbidden(at, at + r.len) {
        // SAFETY: it was just mapped, and nobody knows it.
        unsafe { sys::syscall3(nr::MUNMAP, at, r.len, 0) };
        return EINVAL;
    }
    mapped(r, at, effects)
}

/// The program insists on the address. It gets it unless something of ours is there.
fn map_fixed(r: &Request, effects: &mut Effects, keep_old: bool) -> i64 {
    let Some(end) = r.addr.checked_add(r.len) else { return ENOMEM };
    if !r.addr.is_multiple_of(PAGE) {
        return EINVAL;
    }
    if place::forbidden(r.addr, end) {
        return if keep_old { EEXIST } else { ENOMEM };
    }
    if keep_old && !MAP.lock().is_free(r.addr, end) {
        return EEXIST;
    }
    let result = run(r, r.addr, r.flags & !MAP_32BIT);
    if sys::is_error(result) {
        return result;
    }
    mapped(r, result as u64, effects)
}

/// The kernel made it: shadow, map, effects.
fn mapped(r: &Request, at: u64, effects: &mut Effects) -> i64 {
    let huge = if r.flags & MAP_HUGETLB != 0 { place::alignment(r) } else { PAGE };
    let end = at + r.len.next_multiple_of(huge);
    let mut kind = if r.flags & MAP_ANONYMOUS == 0 { kind::FILE } else { 0 };
    if r.flags & MAP_SHARED != 0 {
        kind |= kind::SHARED;
    }
    if r.flags & (MAP_STACK | MAP_GROWSDOWN) != 0 {
        kind |= kind::STACK;
    }
    let mut map = MAP.lock();
    let origin = map.origin();
    let piece = Piece { start: at, end, prot: r.prot as u32 & 7, kind, origin };
    let old = map.clear(at, end);
    map.set(piece);
    drop(map);
    if !old.is_empty() {
        shadow::forget(at, end - at);
    }
    if r.flags & MAP_ANONYMOUS == 0 {
        rings::mapped(r.fd, r.offset, at);
    }
    effects.gone(&old);
    effects.came(piece);
    at as i64
}

pub(crate) fn munmap(c: &mut Call) -> Action {
    let [addr, len, ..] = c.args;
    let Some(end) = round_up(len).and_then(|len| addr.checked_add(len)) else { return Action::Done(EINVAL) };
    if place::forbidden(addr, end) {
        return Action::Done(EINVAL);
    }
    let order = ORDER.lock();
    let mut effects = Effects::default();
    // SAFETY: the program's own memory: nothing of the runtime is in that range.
    let result = unsafe { sys::syscall3(nr::MUNMAP, addr, len, 0) };
    if !sys::is_error(result) {
        shadow::forget(addr, end - addr);
        let old = MAP.lock().unload(addr, end);
        effects.gone(&old);
    }
    effects.tell();
    drop(order);
    Action::Done(result)
}
