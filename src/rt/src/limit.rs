//! RLIMIT_AS as the program set it for itself.
//!
//! The limit never reaches the kernel: this side of the process has terabytes reserved. What the program would see of it is imitated
//! where memory is handed out: its own mappings (crate kernel) and the heap's runs (crate heap) ask here first. Nobody asks the kernel
//! and nothing is counted exactly: stacks count as far as they are mapped, freed blocks while they wait.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static ALLOWED: AtomicU64 = AtomicU64::new(u64::MAX);
static MAPPED: AtomicU64 = AtomicU64::new(0);
static HEAP: AtomicU64 = AtomicU64::new(0);

/// The program's soft limit in bytes; all ones = none.
pub fn set(bytes: u64) {
    ALLOWED.store(bytes, Relaxed);
}

pub fn is_set() -> bool {
    ALLOWED.load(Relaxed) != u64::MAX
}

/// Bytes of the program's own mappings, from the one who knows them.
pub fn mapped(bytes: u64) {
    MAPPED.store(bytes, Relaxed);
}

/// The heap took `bytes` more for blocks.
pub fn heap_grew(bytes: u64) {
    HEAP.fetch_add(bytes, Relaxed);
}

pub fn heap_shrank(bytes: u64) {
    HEAP.fetch_sub(bytes, Relaxed);
}

/// Would `bytes` more be too much?
pub fn refuses(bytes: u64) -> bool {
    let allowed = ALLOWED.load(Relaxed);
    let used = MAPPED.load(Relaxed).saturating_add(HEAP.load(Relaxed));
    allowed != u64::MAX && used.saturating_add(bytes) > allowed
}
