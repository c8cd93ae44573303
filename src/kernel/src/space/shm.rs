//! System V shared memory: mapped by shmat, whose size only the segment knows.
#![allow(unsafe_code, reason = "executes the program's shmat and shmdt")]

use super::gaps::PAGE;
use super::map::{Piece, kind};
use super::place::{self, Request};
use super::{EXEC, Effects, MAP, ORDER, READ, WRITE, round_up, shadow};
use crate::action::Action;
use crate::call::Call;
use crate::{EINVAL, ENOMEM};
use memcheck_rt::sys::{self, MAP_ANONYMOUS};

const SHMAT: u64 = 30;
const SHMCTL: u64 = 31;
const SHMDT: u64 = 67;
const IPC_STAT: u64 = 2;
/// struct shmid_ds: its size, and where shm_segsz is.
const SHMID_DS: usize = 112;
const SEGSZ: usize = 48;
const SHM_RDONLY: u64 = 0o10000;
const SHM_RND: u64 = 0o20000;
const SHM_REMAP: u64 = 0o40000;
const SHM_EXEC: u64 = 0o100000;

/// Size of a segment in bytes, rounded to pages; or the kernel's error, which is that of shmat as well: both look for the segment and for
/// the right to read it.
fn segment_size(id: u64) -> Result<u64, i64> {
    let mut ds = [0u8; SHMID_DS];
    // SAFETY: the kernel writes one shmid_ds into our array.
    let result = unsafe { sys::syscall3(SHMCTL, id, IPC_STAT, ds.as_mut_ptr() as u64) };
    if sys::is_error(result) {
        return Err(result);
    }
    let size = ds[SEGSZ..SEGSZ + 8].first_chunk().map_or(0, |size| u64::from_ne_bytes(*size));
    round_up(size).ok_or(ENOMEM)
}

const SEMCTL: u64 = 66;
/// struct semid_ds: its size, and where sem_nsems is.
const SEMID_DS: usize = 104;
const NSEMS: usize = 80;

/// How many semaphores a set has; 0 if it cannot be asked.
pub(crate) fn semaphore_count(id: u64) -> u64 {
    let mut ds = [0u8; SEMID_DS];
    // SAFETY: the kernel writes one semid_ds into our array.
    let result = unsafe { sys::syscall6(SEMCTL, id, 0, IPC_STAT, ds.as_mut_ptr() as u64, 0, 0) };
    if sys::is_error(result) { 0 } else { ds[NSEMS..NSEMS + 8].try_into().map_or(0, u64::from_ne_bytes).min(1 << 16) }
}

pub(crate) fn shmat(c: &mut Call) -> Action {
    let [id, addr, flags, ..] = c.args;
    let order = ORDER.lock();
    let mut effects = Effects::default();
    let result = attach(id, addr, flags, &mut effects);
    effects.tell();
    drop(order);
    Action::Done(result)
}

fn attach(id: u64, addr: u64, flags: u64, effects: &mut Effects) -> i64 {
    let len = match segment_size(id) {
        Ok(len) => len,
        Err(error) => return error,
    };
    let at = if addr == 0 {
        let prot = if flags & SHM_EXEC != 0 { u64::from(READ | EXEC) } else { u64::from(READ) };
        let request = Request { addr: 0, len, prot, flags: sys::MAP_SHARED | MAP_ANONYMOUS, fd: u64::MAX, offset: 0 };
        match place::choose(&mut MAP.lock(), &request) {
            Some(at) => at,
            None => return ENOMEM,
        }
    } else if flags & SHM_RND != 0 {
        addr & !(PAGE - 1)
    } else {
        addr
    };
    let Some(end) = at.checked_add(len) else { return EINVAL };
    if place::forbidden(at, end) || flags & SHM_REMAP == 0 && !MAP.lock().is_free(at, end) {
        return EINVAL;
    }
    // SAFETY: at a place that is free or, with SHM_REMAP, the program's.
    let result = unsafe { sys::syscall3(SHMAT, id, at, flags) };
    if sys::is_error(result) {
        return result;
    }
    let write = if flags & SHM_RDONLY == 0 { WRITE } else { 0 };
    let exec = if flags & SHM_EXEC != 0 { EXEC } else { 0 };
    let mut map = MAP.lock();
    let origin = map.origin();
    let piece = Piece { start: at, end, prot: READ | write | exec, kind: kind::SHM | kind::SHARED, origin };
    let old = map.clear(at, end);
    map.set(piece);
    drop(map);
    shadow::forget(at, len);
    effects.gone(&old);
    effects.came(piece);
    result
}

pub(crate) fn shmdt(c: &mut Call) -> Action {
    let order = ORDER.lock();
    let mut effects = Effects::default();
    // SAFETY: detaches one of the program's segments.
    let result = unsafe { sys::syscall3(SHMDT, c.args[0], 0, 0) };
    if !sys::is_error(result) {
        let mut map = MAP.lock();
        if let Some(piece) = map.at(c.args[0]).filter(|p| p.kind & kind::SHM != 0) {
            let gone: alloc::vec::Vec<_> = map.overlapping(piece.start, u64::MAX).take_while(|p| p.origin == piece.origin).collect();
            let end = gone.last().map_or(piece.end, |p| p.end);
            shadow::forget(piece.start, end - piece.start);
            effects.gone(&map.clear(piece.start, end));
        }
    }
    effects.tell();
    drop(order);
    Action::Done(result)
}
