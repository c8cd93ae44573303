//! The program's address space: which mappings it has, where new ones go, and what happens to their shadow.
//!
//! The calls that change it are executed here and not by the glue, because map and kernel must change together: two threads
//! that unmap and map the same place at once would otherwise leave the map in the wrong order.
//!
//! ```text
//! ORDER   held over {kernel call, map, shadow, hooks}: one change at a time; the outermost lock
//! MAP     held only to look, and inside ORDER to edit; the innermost lock, so hooks may ask questions
//! ```
//!
//! Where a new mapping goes (`place`): code and what may become code below 2 GiB, everything else high. [`layout`] has the plan.
//! A program that forces an address gets it, unless the heap, the branch table or the pseudo entry points are there.
//!
//! [`layout`]: memcheck_abi::layout
#![allow(unsafe_code, reason = "keeps lock guards in a static over fork")]

mod advice;
mod aio;
mod brk;
pub use brk::program_break;
mod gaps;
mod map;
mod mmap;
mod mremap;
mod place;
mod protect;
pub(crate) mod rings;
mod shadow;
mod shm;

pub(crate) use aio::{io_destroyed, io_setup};
pub use map::{Piece, kind};
pub use place::forbidden;
pub(crate) use {advice::empties, advice::madvise, advice::remap_file_pages, brk::brk, mmap::mmap, mmap::munmap, mremap::mremap};
pub(crate) use {protect::mprotect, protect::pkey_mprotect, shm::semaphore_count, shm::shmat, shm::shmdt};

use crate::hooks::{self, exec};
use crate::proc_files;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use gaps::PAGE;
use map::Map;
use memcheck_abi::config::{Config, mapping};
use memcheck_abi::layout::{HEAP_END, HEAP_START};
use memcheck_rt::sync::{Guard, Lock};
use memcheck_rt::{limit, sys};

static ORDER: Lock<()> = Lock::new(());
pub(crate) static MAP: Lock<Map> = Lock::new(Map::empty());
/// The main stack may grow down to here.
static STACK_FLOOR: AtomicU64 = AtomicU64::new(0);
static STACK_TOP: AtomicU64 = AtomicU64::new(0);

/// A stack without a limit is taken to be this big.
const STACK_MAX: u64 = 32 << 30;
const READ: u32 = sys::PROT_READ as u32;
const WRITE: u32 = sys::PROT_WRITE as u32;
const EXEC: u32 = sys::PROT_EXEC as u32;

/// The mappings that exist at the exec stop.
pub fn init(config: &Config) {
    let mut map = MAP.lock();
    *map = Map::new();
    let count = (config.mapping_count as usize).min(config.mappings.len());
    for m in &config.mappings[..count] {
        let kind = match m.kind {
            mapping::STACK => kind::STACK,
            mapping::PROGRAM | mapping::INTERPRETER => kind::FILE,
            _ => 0,
        };
        let origin = map.origin();
        map.set(Piece { start: m.start, end: m.end, prot: m.prot, kind, origin });
        if m.kind == mapping::STACK {
            let room = config.stack_limit.clamp(m.end - m.start, STACK_MAX) & !(PAGE - 1);
            STACK_FLOOR.store(m.end.saturating_sub(room), Ordering::Relaxed);
            STACK_TOP.store(m.end, Ordering::Relaxed);
            map.take(m.end.saturating_sub(room), m.end);
        }
    }
    brk::reset();
}

/// The mapping around `addr`: (start, end, PROT_* bits, [`kind`] flags). The main stack is given with all the room that it may
/// grow into. The heap is not listed, but for what was made executable in it: ask the heap.
pub fn mapping_of(addr: u64) -> Option<(u64, u64, u32, u32)> {
    let (floor, top) = (STACK_FLOOR.load(Ordering::Relaxed), STACK_TOP.load(Ordering::Relaxed));
    if (floor..top).contains(&addr) {
        // Where the kernel has not extended it yet, it will be like the rest.
        let map = MAP.lock();
        let prot = map.at(addr).or_else(|| map.at(top - 1)).map_or(READ | WRITE, |p| p.prot);
        return Some((floor, top, prot, kind::STACK));
    }
    let piece = if (HEAP_START..HEAP_END).contains(&addr) { protect::HEAP_CODE.lock().at(addr) } else { MAP.lock().at(addr) };
    piece.map(|p| (p.start, p.end, p.prot, p.kind))
}

/// Call `f` for every mapping in order; the map is locked meanwhile.
pub fn for_each(mut f: impl FnMut(Piece)) {
    MAP.lock().overlapping(0, u64::MAX).for_each(&mut f);
}

/// End of the readable memory that begins at `addr`; `addr` or less if it is not readable. `sp`: the main stack is extended by
/// the kernel when touched, so from just below the stack pointer on it is there.
pub(crate) fn readable_end(addr: u64, sp: u64) -> u64 {
    end_with(addr, sp, |p| p.prot & READ != 0)
}

/// End of the memory from `addr` on that can be used in some way, or could before its owner closed it; `addr` or less if there is none.
pub fn present_end(addr: u64, sp: u64) -> u64 {
    end_with(addr, sp, |p| p.prot & (READ | WRITE | EXEC) != 0 || p.kind & kind::CLOSED != 0)
}

pub(crate) fn writable(addr: u64, len: u64, sp: u64) -> bool {
    end_with(addr, sp, |p| p.prot & WRITE != 0) >= addr.saturating_add(len)
}

fn end_with(addr: u64, sp: u64, fits: impl Fn(&Piece) -> bool) -> u64 {
    if (HEAP_START..HEAP_END).contains(&addr) {
        return heap_end(addr);
    }
    let top = STACK_TOP.load(Ordering::Relaxed);
    if addr < top && addr >= STACK_FLOOR.load(Ordering::Relaxed) && addr >= (sp & !(PAGE - 1)).saturating_sub(PAGE) {
        return top;
    }
    match MAP.lock().at(addr) {
        Some(p) if fits(&p) => p.end,
        _ => 0,
    }
}

/// Heap memory below this address was seen to be mapped; the heap grows upwards without holes.
static HEAP_SEEN: AtomicU64 = AtomicU64::new(HEAP_START);

/// As `end_with`, for one page of the heap. Freed blocks may be without access, so what is not addressable is not looked at.
fn heap_end(addr: u64) -> u64 {
    let end = (addr | (PAGE - 1)) + 1;
    if shadow_says_no(addr) || end > HEAP_SEEN.load(Ordering::Relaxed) && !sys::is_mapped(addr, 1) {
        return 0;
    }
    HEAP_SEEN.fetch_max(end, Ordering::Relaxed);
    end
}

fn shadow_says_no(addr: u64) -> bool {
    memcheck_rt::shadow::v(addr) != 0 && !memcheck_rt::shadow::a_clear(addr)
}

/// ORDER, while the process is being copied, and the process that holds it. Only the holder of ORDER touches it.
struct Held(UnsafeCell<Option<(Guard<'static, ()>, i64)>>);

// SAFETY: written and taken only by the thread that holds ORDER.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

fn process() -> i64 {
    // SAFETY: asks only.
    unsafe { sys::syscall3(sys::nr::GETPID, 0, 0, 0) }
}

/// Enter the state in which the process may be copied: nobody edits the map. Paired with [`release`] in each copy. MAP itself is
/// not taken: it is the innermost lock, which others ask for while they hold locks that the caller wants next.
pub fn hold() {
    let order = ORDER.lock();
    // SAFETY: ORDER is held by this thread.
    unsafe { *HELD.0.get() = Some((order, process())) };
}

/// Leave it, in the parent as well as in the child.
pub fn release() {
    // SAFETY: `hold` in this thread (or in the thread it is a copy of) left ORDER held.
    let held = unsafe { (*HELD.0.get()).take() };
    if let Some((order, holder)) = held {
        if process() != holder {
            // SAFETY: a child with one thread; whoever held one of these in the parent only read: edits need ORDER, and AUXV has none.
            unsafe {
                MAP.force_unlock();
                protect::HEAP_CODE.force_unlock();
                proc_files::AUXV.force_unlock();
            }
        }
        drop(order);
    }
}

/// What a change did to executable memory; told to the glue when the change is complete.
#[derive(Default)]
struct Effects {
    /// Executable pieces that went away or changed.
    changed: alloc::vec::Vec<(u64, u64)>,
    /// (start, end, flags) of memory that became executable.
    appeared: alloc::vec::Vec<(u64, u64, u32)>,
}

impl Effects {
    fn gone(&mut self, pieces: &[Piece]) {
        self.changed.extend(pieces.iter().filter(|p| p.prot & EXEC != 0).map(|p| (p.start, p.end)));
    }

    fn came(&mut self, piece: Piece) {
        if piece.prot & EXEC != 0 {
            let writable = if piece.prot & WRITE != 0 { exec::WRITABLE } else { 0 };
            let file = if piece.kind & kind::FILE != 0 { exec::FILE } else { 0 };
            self.appeared.push((piece.start, piece.end, writable | file));
        }
    }

    fn tell(self) {
        account();
        let hooks = hooks::get();
        for (start, end) in self.changed {
            (hooks.code_changed)(start, end - start);
        }
        for (start, end, flags) in self.appeared {
            (hooks.exec_mapped)(start, end, flags);
        }
    }
}

/// While the program limits itself, the sum of its mappings is kept.
pub(crate) fn account() {
    if limit::is_set() {
        limit::mapped(MAP.lock().overlapping(0, u64::MAX).map(|p| p.end - p.start).sum());
    }
}

/// Memory that can be executed must be readable for the translator, whatever the program asked.
fn real_prot(prot: u64) -> u64 {
    if prot & sys::PROT_EXEC != 0 { prot | sys::PROT_READ } else { prot }
}

fn round_up(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}
