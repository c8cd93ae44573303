//! Base services of everything that lives inside the traced program.
//!
//! The rules of this side: no libc, no thread-locals of a libc, no symbols of the program; memory comes from [`sys`] or
//! [`arena`]; text is never formatted here; a fault of our own is reported by [`report::internal`], never as the user's bug.
//!
//! - [`sys`]       the system call instruction
//! - [`sync`]      a futex lock
//! - [`context`]   the current thread's context
//! - [`shadow`]    V and A bytes: set, copy, search
//! - [`origins`]   origin words: which memory has some, and their end
//! - [`access`]    may the program touch this range, and if not, what is wrong with it
//! - [`callstack`] the current stack, from the shadow call stack
//! - [`depot`]     stacks stored once, known by a small number
//! - [`limit`]     how much memory the program allows itself
//! - [`report`]    errors: counted if seen before, else told to the tracer
//! - [`arena`]     the global allocator of the runtime
#![no_std]
#![cfg_attr(feature = "host", allow(dead_code, reason = "host tests use a part"))]

pub mod access;
pub mod arena;
pub mod callstack;
pub mod context;
pub mod depot;
pub mod limit;
pub mod origins;
pub mod report;
pub mod shadow;
pub mod sync;
pub mod sys;
