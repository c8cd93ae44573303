//! The current thread's context, through the fs segment.
#![allow(unsafe_code, reason = "reads the fs segment")]

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use memcheck_abi::context::ThreadContext;

/// There are, or were, several threads in this memory that run at the same time.
static SHARED: AtomicBool = AtomicBool::new(false);

/// Before another thread runs.
pub fn share() {
    SHARED.store(true, Relaxed);
}

pub fn is_shared() -> bool {
    SHARED.load(Relaxed)
}

/// The context of the running thread. Only the thread itself changes it while it runs.
#[cfg(not(feature = "host"))]
#[inline(always)]
pub fn current() -> &'static mut ThreadContext {
    // SAFETY: under memcheck fs:[0] is the context's own address, from before the first program instruction on.
    unsafe {
        let p: *mut ThreadContext;
        core::arch::asm!("mov {}, fs:[0]", out(reg) p, options(nostack, readonly, preserves_flags));
        &mut *p
    }
}

#[cfg(feature = "host")]
static HOST: core::sync::atomic::AtomicPtr<ThreadContext> = core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());

/// Host tests: one context for the whole process, allocated by `mmap` at first use.
#[cfg(feature = "host")]
pub fn current() -> &'static mut ThreadContext {
    use core::sync::atomic::Ordering;
    let mut p = HOST.load(Ordering::Acquire);
    if p.is_null() {
        let size = core::mem::size_of::<ThreadContext>() as u64;
        // SAFETY: fresh zeroed anonymous memory, valid for every field (all plain integers).
        p = unsafe { crate::sys::syscall6(crate::sys::nr::MMAP, 0, size + (1 << 20), 3, 0x22, u64::MAX, 0) } as *mut ThreadContext;
        // SAFETY: just mapped.
        unsafe {
            (*p).number = 1;
        }
        HOST.store(p, Ordering::Release);
    }
    // SAFETY: mapped above and never unmapped.
    unsafe { &mut *p }
}
