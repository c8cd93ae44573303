//! The only place that issues system calls on the runtime's own behalf.
#![allow(unsafe_code, reason = "the system call instruction")]

use core::arch::asm;

/// Linux system call numbers the runtime itself uses.
pub mod nr {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const CLOSE: u64 = 3;
    pub const STAT: u64 = 4;
    pub const MMAP: u64 = 9;
    pub const MPROTECT: u64 = 10;
    pub const MUNMAP: u64 = 11;
    pub const PREAD64: u64 = 17;
    pub const MREMAP: u64 = 25;
    pub const MINCORE: u64 = 27;
    pub const MADVISE: u64 = 28;
    pub const NANOSLEEP: u64 = 35;
    pub const GETPID: u64 = 39;
    pub const EXIT: u64 = 60;
    pub const FTRUNCATE: u64 = 77;
    pub const GETUID: u64 = 102;
    pub const GETPPID: u64 = 110;
    pub const SIGALTSTACK: u64 = 131;
    pub const PERSONALITY: u64 = 135;
    pub const GETTID: u64 = 186;
    pub const FUTEX: u64 = 202;
    pub const EXIT_GROUP: u64 = 231;
    pub const TGKILL: u64 = 234;
    pub const PRLIMIT64: u64 = 302;
    pub const PROCESS_VM_READV: u64 = 310;
    pub const MEMFD_CREATE: u64 = 319;
    pub const PROCESS_VM_WRITEV: u64 = 311;
}

pub const PROT_NONE: u64 = 0;
pub const PROT_READ: u64 = 1;
pub const PROT_WRITE: u64 = 2;
pub const PROT_EXEC: u64 = 4;
pub const MAP_SHARED: u64 = 1;
pub const MAP_PRIVATE: u64 = 2;
pub const MAP_FIXED: u64 = 0x10;
pub const MAP_ANONYMOUS: u64 = 0x20;
pub const MAP_NORESERVE: u64 = 0x4000;
pub const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
pub const MREMAP_MAYMOVE: u64 = 1;
pub const MREMAP_FIXED: u64 = 2;
/// Pages move, the mapping stays.
pub const MREMAP_DONTUNMAP: u64 = 4;
pub const MADV_DONTNEED: u64 = 4;
const MADV_HUGEPAGE: u64 = 14;
pub const MADV_POPULATE_WRITE: u64 = 23;

/// A raw system call; the result is negative errno on failure.
///
/// # Safety
/// The call must not break the runtime's or the program's memory; the caller knows what it asks for.
#[inline(always)]
pub unsafe fn syscall6(n: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
    let result: i64;
    // SAFETY: the kernel's calling convention; rcx and r11 are destroyed; memory effects are the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") n as i64 => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// As [`syscall6`].
#[inline(always)]
pub unsafe fn syscall3(n: u64, a: u64, b: u64, c: u64) -> i64 {
    // SAFETY: passed on to the caller.
    unsafe { syscall6(n, a, b, c, 0, 0, 0) }
}

/// Is this raw result an error? Then -errno.
pub const fn is_error(result: i64) -> bool {
    result < 0 && result >= -4095
}

/// Map anonymous, private, lazily backed memory at exactly `addr` (which must be free). Returns success.
pub fn map_fixed(addr: u64, len: u64, prot: u64) -> bool {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE never touches existing mappings.
    let r = unsafe { syscall6(nr::MMAP, addr, len, prot, flags, u64::MAX, 0) };
    r == addr as i64
}

/// Memory that will be filled from one end to the other: large pages, where the kernel has them, so that it is not asked for every 4 KiB.
pub fn will_be_dense(addr: u64, len: u64) {
    // SAFETY: contents stay what they are.
    unsafe { syscall3(nr::MADVISE, addr, len, MADV_HUGEPAGE) };
}

/// Give the pages of a range back; they read as zero afterwards. Page-aligned.
///
/// # Safety
/// The range belongs to the runtime and nobody needs its contents.
pub unsafe fn discard(addr: u64, len: u64) {
    // SAFETY: the caller's promise.
    unsafe { syscall3(nr::MADVISE, addr, len, MADV_DONTNEED) };
}

/// Fresh zero pages in place of a range, whatever is mapped there. Page-aligned.
///
/// # Safety
/// As [`discard`]; the range is readable and writable.
pub unsafe fn renew(addr: u64, len: u64) {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    // SAFETY: the caller's promise; without new pages the old ones must do.
    unsafe {
        if is_error(syscall6(nr::MMAP, addr, len, PROT_READ | PROT_WRITE, flags, u64::MAX, 0)) {
            core::ptr::write_bytes(addr as *mut u8, 0, len as usize);
        }
    }
}

/// Copy program memory that may be unmapped. Returns false if any byte could not be read.
pub fn read_guarded(addr: u64, out: &mut [u8]) -> bool {
    let local = [out.as_mut_ptr() as u64, out.len() as u64];
    let remote = [addr, out.len() as u64];
    // SAFETY: the kernel checks both ranges and writes only to `out`.
    let r = unsafe {
        let pid = syscall3(nr::GETPID, 0, 0, 0) as u64;
        syscall6(nr::PROCESS_VM_READV, pid, local.as_ptr() as u64, 1, remote.as_ptr() as u64, 1, 0)
    };
    r == out.len() as i64
}

/// Write to program memory that may not be there or not writable, two pieces in order. Returns false if any byte could not be written.
pub fn write_guarded(parts: [(u64, &[u8]); 2]) -> bool {
    let local = parts.map(|(_, bytes)| [bytes.as_ptr() as u64, bytes.len() as u64]);
    let remote = parts.map(|(addr, bytes)| [addr, bytes.len() as u64]);
    // SAFETY: the kernel checks all ranges; that the program's may be written is the caller's business.
    let r = unsafe {
        let pid = syscall3(nr::GETPID, 0, 0, 0) as u64;
        syscall6(nr::PROCESS_VM_WRITEV, pid, local.as_ptr() as u64, 2, remote.as_ptr() as u64, 2, 0)
    };
    r == parts.iter().map(|(_, bytes)| bytes.len() as i64).sum::<i64>()
}

/// Are all pages of the range mapped? (Says nothing about protection.)
pub fn is_mapped(addr: u64, len: u64) -> bool {
    if len == 0 {
        return true;
    }
    let first = addr & !4095;
    let Some(end) = addr.checked_add(len) else { return false };
    let mut at = first;
    let mut residency = [0u8; 64];
    while at < end {
        let n = (end - at).min(64 * 4096);
        // SAFETY: mincore writes one byte per page, at most 64 of them.
        let r = unsafe { syscall3(nr::MINCORE, at, n, residency.as_mut_ptr() as u64) };
        if is_error(r) {
            return false;
        }
        at += 64 * 4096;
    }
    true
}
