//! fork: the child must not inherit a lock that another thread holds.
//!
//! The forking thread takes the heap's locks before the system call and drops them after it, on both sides, so the shared lists
//! are whole in the child. What other threads had in their caches is lost to the child: memory, nothing else.
#![allow(unsafe_code, reason = "guards are kept across the system call in a global")]

use crate::central::{self, Central};
use crate::{client, exit, sheet};
use core::cell::UnsafeCell;
use memcheck_rt::sync::Guard;

/// From the outermost lock to the innermost: a list of live blocks asks the two in the middle, sheets are laid without any of them.
type Guards = (Guard<'static, u64>, Guard<'static, Central>, client::Held, Guard<'static, ()>);

struct Kept(UnsafeCell<Option<Guards>>);

// SAFETY: only the thread that holds the central lock touches this.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new(None));

/// Before the system call.
pub fn before_fork() {
    let guards = (exit::hold(), central::lock(), client::hold(), sheet::hold());
    // SAFETY: see `Kept`.
    unsafe { *KEPT.0.get() = Some(guards) }
}

/// After it, in the parent and in the child.
pub fn after_fork() {
    // SAFETY: see `Kept`; taken out before the locks are dropped.
    let guards = unsafe { (*KEPT.0.get()).take() };
    drop(guards);
}
