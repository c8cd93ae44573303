//! A lock on one futex word: 0 free, 1 held, 2 held and somebody waits.
#![allow(unsafe_code, reason = "futex calls and interior mutability of the lock's data")]

use crate::sys;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

pub struct Lock<T> {
    word: AtomicU32,
    data: UnsafeCell<T>,
}

// SAFETY: the lock hands out the data to one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Lock<T> {
    pub const fn new(data: T) -> Self {
        Lock { word: AtomicU32::new(0), data: UnsafeCell::new(data) }
    }

    pub fn lock(&self) -> Guard<'_, T> {
        if self.word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
        Guard { lock: self }
    }

    /// After a fork the child owns every lock that another thread of the parent held.
    ///
    /// # Safety
    /// Only in a process with one thread, when the data is known to be consistent.
    pub unsafe fn force_unlock(&self) {
        self.word.store(0, Ordering::Release);
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..100 {
            if self.word.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
            core::hint::spin_loop();
        }
        while self.word.swap(2, Ordering::Acquire) != 0 {
            // SAFETY: FUTEX_WAIT_PRIVATE (128) on our own word.
            unsafe { sys::syscall6(sys::nr::FUTEX, self.word.as_ptr() as u64, 128, 2, 0, 0, 0) };
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.lock.word.swap(0, Ordering::Release) == 2 {
            // SAFETY: FUTEX_WAKE_PRIVATE (129) of one waiter on our own word.
            unsafe { sys::syscall6(sys::nr::FUTEX, self.lock.word.as_ptr() as u64, 129, 1, 0, 0, 0) };
        }
    }
}
