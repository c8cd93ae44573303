//! What this crate asks of the glue. Installed once, before the first system call; until then nothing happens.
#![allow(unsafe_code, reason = "a static structure published through an atomic pointer")]

use core::sync::atomic::{AtomicPtr, Ordering};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::ErrorEvent;

/// Flags of [`Hooks::exec_mapped`].
pub mod exec {
    /// The range is writable as well: the program may change the code at any time without telling.
    pub const WRITABLE: u32 = 1;
    /// It maps a file: the tracer may find an object there.
    pub const FILE: u32 = 2;
}

pub struct Hooks {
    /// The address behind the instruction that makes the program's calls.
    pub program_call: fn() -> u64,
    /// V bits of the general registers in encoding order (1 = undefined); `None` while all are defined, the usual answer.
    pub register_v: fn(&ThreadContext) -> Option<[u64; 16]>,
    /// Fill in where the undefined byte at an address came from.
    pub memory_origin: fn(&mut ErrorEvent, u64),
    /// The same for a general register, in encoding order.
    pub register_origin: fn(&mut ErrorEvent, &ThreadContext, usize),
    /// Executable memory in `[start, start + len)` went away, changed or became unexecutable: drop its translations. Called after
    /// the change and before the system call returns, one at a time: the lock that orders changes is held and the map's is not, so
    /// a hook may ask about mappings but not change them.
    pub code_changed: fn(start: u64, len: u64),
    /// `[start, end)` became executable; `flags` are [`exec`]. Called as above, after `code_changed` of the same call.
    pub exec_mapped: fn(start: u64, end: u64, flags: u32),
}

static NONE: Hooks = Hooks {
    program_call: || 0,
    register_v: |_| None,
    memory_origin: |_, _| {},
    register_origin: |_, _, _| {},
    code_changed: |_, _| {},
    exec_mapped: |_, _, _| {},
};
static HOOKS: AtomicPtr<Hooks> = AtomicPtr::new(&raw const NONE as *mut Hooks);

/// Install the glue's functions.
pub fn install(hooks: &'static Hooks) {
    HOOKS.store(core::ptr::from_ref(hooks).cast_mut(), Ordering::Release);
}

#[inline(always)]
pub(crate) fn get() -> &'static Hooks {
    // SAFETY: only references to statics are ever stored, and nobody writes through them.
    unsafe { &*HOOKS.load(Ordering::Acquire) }
}
