//! Memory of another process.
//!
//! Two ways: process_vm_readv obeys page protections and is fast; /proc/PID/mem reads everything that is mapped (PROT_NONE,
//! execute-only) and is the fallback. What is not mapped is not an error here: a read says how many bytes it got.
//!
//! The program may write while we read, and may lie: nothing read here is trusted, and only types that are valid for every
//! bit pattern ([`Plain`]) can be read.
#![allow(unsafe_code, reason = "plain values as bytes and back")]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use memcheck_abi::config::{Config, Mapping};
use memcheck_abi::context::Registers;
use memcheck_abi::errand::{Errand, Exchange};
use memcheck_abi::event::{Block, DepotHeader, ErrorEvent, ExitReport, LiveBlock, OpenedFd, PlaceTally, Redirect, Repeat};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// A value that any bytes can be, and that has no padding.
///
/// # Safety
/// Integers and arrays and `repr(C)` structures of them only, without padding where the value is written.
pub unsafe trait Plain: Copy {
    fn zeroed() -> Self {
        // SAFETY: all-zero bytes are a valid value, by the trait's contract.
        unsafe { std::mem::zeroed() }
    }
    fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes of a live value; no padding among them, by the trait's contract.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any bytes are a valid value.
        unsafe { std::slice::from_raw_parts_mut((&raw mut *self).cast(), size_of::<Self>()) }
    }
}

macro_rules! plain {
    ($($t:ty),*) => { $(
        // SAFETY: integers and arrays of integers in a repr(C) structure.
        unsafe impl Plain for $t {}
    )* };
}
plain!(
    u8,
    u32,
    u64,
    Mapping,
    Registers,
    Block,
    DepotHeader,
    Errand,
    ErrorEvent,
    Exchange,
    ExitReport,
    LiveBlock,
    OpenedFd,
    PlaceTally,
    Redirect,
    Repeat
);

/// `Config` is not Copy, so it has its own pair of functions.
pub fn config_from_bytes(bytes: &[u8]) -> Option<Box<Config>> {
    if bytes.len() < size_of::<Config>() {
        return None;
    }
    // SAFETY: the length was checked; integers only, so any bytes are a valid value; the read allows any alignment.
    Some(Box::new(unsafe { bytes.as_ptr().cast::<Config>().read_unaligned() }))
}

pub fn config_bytes(config: &Config) -> &[u8] {
    // SAFETY: the bytes of a live value; its fields leave no padding (asserted below).
    unsafe { std::slice::from_raw_parts((&raw const *config).cast(), size_of::<Config>()) }
}

const _: () = {
    use memcheck_abi::config::MAX_MAPPINGS;
    use std::mem::offset_of;
    assert!(offset_of!(Config, mappings) + MAX_MAPPINGS * size_of::<Mapping>() == offset_of!(Config, exe));
    assert!(offset_of!(Config, exe) + 4096 == size_of::<Config>());
};

/// The memory of one process, until it ends or executes another program. Several threads may read at once.
#[derive(Debug)]
pub struct Memory {
    /// The thread that is asked. One that has ended has no memory any more, be it the first of a process that goes on.
    thread: AtomicI32,
    /// /proc/PID/mem
    file: OnceLock<Option<File>>,
}

/// The most bytes that one call takes.
const CHUNK: usize = 1 << 30;

impl Memory {
    pub fn new(pid: i32) -> Memory {
        Memory { thread: AtomicI32::new(pid), file: OnceLock::new() }
    }

    /// A thread that has this memory.
    pub(crate) fn thread(&self) -> i32 {
        self.thread.load(Relaxed)
    }

    /// From now on, this thread is to be asked.
    pub(crate) fn ask(&self, thread: i32) {
        self.thread.store(thread, Relaxed);
    }

    /// Open the fallback. Once is enough, and later it may be too late: a program can forbid it (PR_SET_DUMPABLE).
    pub(crate) fn file(&self) -> Option<&File> {
        let open = || File::options().read(true).write(true).open(format!("/proc/{}/mem", self.thread())).ok();
        self.file.get_or_init(open).as_ref()
    }

    /// Read from `addr` until `buffer` is full or memory ends; the number of bytes read.
    pub fn read(&self, addr: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let rest = &mut buffer[done..];
            let rest = if rest.len() > CHUNK { &mut rest[..CHUNK] } else { rest };
            let at = addr.wrapping_add(done as u64);
            let remote = RemoteIoVec { base: at as usize, len: rest.len() };
            let got = process_vm_readv(Pid::from_raw(self.thread()), &mut [IoSliceMut::new(rest)], &[remote]).unwrap_or(0);
            let got = if got == 0 { self.file().and_then(|f| f.read_at(rest, at).ok()).unwrap_or(0) } else { got };
            if got == 0 {
                break;
            }
            done += got;
        }
        done
    }

    /// Write all of `bytes`, or say no.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> bool {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..bytes.len().min(done + CHUNK)];
            let at = addr.wrapping_add(done as u64);
            let remote = RemoteIoVec { base: at as usize, len: rest.len() };
            let put = process_vm_writev(Pid::from_raw(self.thread()), &[IoSlice::new(rest)], &[remote]).unwrap_or(0);
            let put = if put == 0 { self.file().and_then(|f| f.write_at(rest, at).ok()).unwrap_or(0) } else { put };
            if put == 0 {
                return false;
            }
            done += put;
        }
        true
    }

    /// One value, `None` if not all of it is mapped.
    pub fn value<T: Plain>(&self, addr: u64) -> Option<T> {
        let mut value = T::zeroed();
        (self.read(addr, value.bytes_mut()) == size_of::<T>()).then_some(value)
    }

    pub fn set<T: Plain>(&self, addr: u64, value: T) -> bool {
        self.write(addr, value.bytes())
    }

    /// `count` values in a row; fewer if memory ends before. The caller bounds `count`.
    pub fn values<T: Plain>(&self, addr: u64, count: usize) -> Vec<T> {
        let mut list = vec![T::zeroed(); count];
        let size = size_of::<T>();
        // SAFETY: the bytes of a live slice of plain values.
        let bytes = unsafe { std::slice::from_raw_parts_mut(list.as_mut_ptr().cast::<u8>(), count * size) };
        let got = self.read(addr, bytes);
        list.truncate(got / size);
        list
    }

    /// A text of known length, at most `limit` bytes of it.
    pub fn bytes(&self, addr: u64, length: u64, limit: usize) -> Vec<u8> {
        let mut text = vec![0; usize::try_from(length).unwrap_or(limit).min(limit)];
        let got = self.read(addr, &mut text);
        text.truncate(got);
        text
    }

    /// A NUL-terminated text, at most `limit` bytes of it.
    pub fn c_string(&self, addr: u64, limit: usize) -> Vec<u8> {
        let mut text = Vec::new();
        while text.len() < limit {
            // Not beyond the page in one read: the next one may be unmapped.
            let at = addr.wrapping_add(text.len() as u64);
            let part = self.bytes(at, 4096 - at % 4096, limit - text.len());
            let end = part.iter().position(|&b| b == 0);
            text.extend_from_slice(&part[..end.unwrap_or(part.len())]);
            if end.is_some() || part.is_empty() {
                break;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Memory {
        Memory::new(std::process::id() as i32)
    }

    #[test]
    fn values_and_strings() {
        let words = [1u64, 2, 3];
        assert_eq!(own().values::<u64>(words.as_ptr() as u64, 3), words);
        assert_eq!(own().value::<u64>(&raw const words[1] as u64), Some(2));
        assert_eq!(own().c_string(c"hello".as_ptr() as u64, 100), b"hello");
        assert_eq!(own().c_string(c"hello".as_ptr() as u64, 3), b"hel");
    }

    #[test]
    fn unmapped_memory_is_an_answer() {
        assert_eq!(own().value::<u64>(8), None);
        assert_eq!(own().read(8, &mut [0; 16]), 0);
        assert!(!own().write(8, &[1]));
        assert!(own().values::<u64>(8, 4).is_empty());
    }

    #[test]
    fn read_only_memory_can_be_written() {
        static TEXT: [u8; 8] = *b"constant";
        let addr = TEXT.as_ptr() as u64;
        assert!(own().write(addr, b"C") || own().file().is_none(), "through /proc/PID/mem");
        assert_eq!(own().bytes(addr, 8, 3).len(), 3);
    }
}
