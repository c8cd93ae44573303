//! Shadow pages that are FF without being there.
//!
//! A fresh block of many megabytes is undefined from end to end, and so is a freed one inaccessible; painting them would make all their
//! shadow resident, though the program may never touch most of them (`sort` asks for a gigabyte to sort twenty megabytes). Their V pages,
//! and the A pages of a freed one, are instead private mappings of one file that holds nothing but FF: a page takes memory of its own only once it is written. The
//! main thread's stack is such a place, too: it grows without being told.
//!
//! Whoever wants zeros there must map fresh pages, as `shadow::fill_v` does: a discarded page reads as FF again.
#![allow(unsafe_code, reason = "maps shadow pages")]

use crate::layout::SHEET;
use memcheck_rt::sync::{Guard, Lock};
use memcheck_rt::{shadow, sys};

/// From this size on it is worth a file and its mappings.
pub const FROM: u64 = 16 << 20;
/// Length of the file: long enough to need few mappings, short enough to be written quickly.
const SHORTEST: u64 = 256 << 10;
const LONGEST: u64 = 16 << 20;
/// Mappings that a range of medium length takes.
const PIECES: u64 = 32;
const PAGE: u64 = 4096;

/// Something that sheets are made of, for several places.
pub struct File {
    descriptor: u64,
    length: u64,
    /// One at a time, and none while the process is being copied: the child would have the descriptor for ever.
    _one: Guard<'static, ()>,
}

const RLIMIT_FSIZE: u64 = 1;
const MFD_CLOEXEC: u64 = 1;

static MADE: Lock<()> = Lock::new(());

/// For the time of a fork.
pub fn hold() -> Guard<'static, ()> {
    MADE.lock()
}

/// Fill ranges of shadow (start, length; the first is the longest) with FF. False if that is impossible; their contents may have changed then.
pub fn lay<const N: usize>(ranges: [(u64, u64); N]) -> bool {
    let longest = ranges.first().map_or(0, |range| range.1);
    let length = (longest / PIECES).next_multiple_of(SHORTEST).clamp(SHORTEST, LONGEST);
    let Some(file) = filled(length) else { return false };
    let mut done = true;
    for (at, len) in ranges {
        done &= file.cover(at, len);
    }
    done
}

/// For many short ranges.
pub fn open() -> Option<File> {
    filled(SHORTEST / 2)
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: our own descriptor; the mappings keep the file.
        unsafe { sys::syscall3(sys::nr::CLOSE, self.descriptor, 0, 0) };
    }
}

impl File {
    /// Lay it over and over. False if that is impossible.
    pub fn cover(&self, at: u64, len: u64) -> bool {
        let (first, end) = (at.next_multiple_of(PAGE), (at + len) & !(PAGE - 1));
        let flags = sys::MAP_PRIVATE | sys::MAP_FIXED | sys::MAP_NORESERVE;
        let mut done = true;
        for piece in (first..end).step_by(self.length as usize) {
            let len = self.length.min(end - piece);
            // SAFETY: whole pages of shadow that the caller owns, and that shall be FF.
            let r = unsafe { sys::syscall6(sys::nr::MMAP, piece, len, sys::PROT_READ | sys::PROT_WRITE, flags, self.descriptor, 0) };
            done &= !sys::is_error(r);
        }
        // SAFETY: the edges are shadow of the caller's.
        unsafe {
            core::ptr::write_bytes(at as *mut u8, shadow::UNDEFINED, (first - at) as usize);
            core::ptr::write_bytes(end as *mut u8, shadow::UNDEFINED, (at + len - end) as usize);
        }
        done
    }
}

/// A new file of `len` bytes FF. Its descriptor is the program's as well, for a moment.
fn filled(len: u64) -> Option<File> {
    let mut limit = [0u64; 2];
    let flags = sys::MAP_SHARED | sys::MAP_FIXED_NOREPLACE;
    let one = MADE.lock();
    // SAFETY: the limit is only asked for (beyond it a file would cost the program a signal); the mapping lies in a range of ours and is gone
    // before the lock is.
    unsafe {
        let r = sys::syscall6(sys::nr::PRLIMIT64, 0, RLIMIT_FSIZE, 0, limit.as_mut_ptr() as u64, 0, 0);
        if sys::is_error(r) || limit[0] < len {
            return None;
        }
        let file = sys::syscall3(sys::nr::MEMFD_CREATE, c"undefined".as_ptr() as u64, MFD_CLOEXEC, 0);
        if sys::is_error(file) {
            return None;
        }
        let file = file as u64;
        let ready = !sys::is_error(sys::syscall3(sys::nr::FTRUNCATE, file, len, 0))
            && sys::syscall6(sys::nr::MMAP, SHEET, len, sys::PROT_READ | sys::PROT_WRITE, flags, file, 0) == SHEET as i64;
        if !ready {
            sys::syscall3(sys::nr::CLOSE, file, 0, 0);
            return None;
        }
        core::ptr::write_bytes(SHEET as *mut u8, shadow::UNDEFINED, len as usize);
        sys::syscall3(sys::nr::MUNMAP, SHEET, len, 0);
        Some(File { descriptor: file, length: len, _one: one })
    }
}
