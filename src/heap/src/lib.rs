//! The heap of the traced program.
//!
//! Every allocation function of the program ends here (`entries`). Blocks lie between red zones in slots of size classes, or in
//! units of their own when they are large; what is known about them lies elsewhere, out of the program's reach:
//!
//! ```text
//! program:   | red | block 0 | red .. | red | block 1 | red .. |        one slab: slots of one size
//!                ▲                        ▲
//! metadata:  [ record 0 ]             [ record 1 ]                      address → record by arithmetic (`map`)
//! ```
//!
//! A block's way: `cache` (free slots of this thread) → live → `quarantine` (freed, still described) → `cache` of whoever trims it.
//! The common part (`central`) is visited once per batch, so threads allocate in parallel and without a lock.
//!
//! - [`entries`]  malloc, free, new … as the C library declares them
//! - `block`      birth, death and move of a block
//! - `cache`, `central`, `quarantine`, `superseded`, `chunk`   where slots wait;  `sweep`  slabs that nobody uses any more
//! - `spans`, `map`, `classes`, `record`, `layout`   memory and what is known of it
//! - `paint`      V, A and bytes of blocks;  `sheet`  V of very long ones;  `fallow`  V of what was freed;  `tally`  sums by place
//! - [`client`]   blocks that the program declares by client requests
//! - `describe`   what an address is;  `exit`  what is left at the end;  `fork`
//!
//! Absent on purpose: text, errno, exceptions (see `entries`), other threads' stacks.
#![no_std]

extern crate alloc;

mod block;
mod cache;
mod central;
mod chunk;
mod classes;
pub mod client;
mod describe;
pub mod entries;
mod exit;
mod fallow;
mod fork;
mod layout;
mod map;
mod paint;
mod quarantine;
mod record;
mod settings;
pub mod sheet;
mod spans;
mod stacks;
mod superseded;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;

pub use describe::{describe, find};
pub use entries::{entry, fails_with_errno, throws};
pub use exit::report;
pub use fork::{after_fork, before_fork};
pub use layout::owns;

use memcheck_abi::config::Config;
use memcheck_abi::context::{ThreadContext, local};
use memcheck_rt::sys;

/// Reserve the metadata and take over the options. Once, before the program runs and after the shadow is there.
/// False if the address space cannot be had.
pub fn init(config: &Config) -> bool {
    settings::set(config);
    let rw = sys::PROT_READ | sys::PROT_WRITE;
    sys::map_fixed(layout::RECORDS, layout::RECORDS_LEN, rw)
        && sys::map_fixed(layout::UNIT_MAP, layout::UNITS * 4, rw)
        && sys::map_fixed(layout::SPANS, layout::UNITS * 16, rw)
        && tally::init()
}

/// The thread ends: its free slots and freed blocks go to the others.
pub fn thread_exit(ctx: &mut ThreadContext) {
    if ctx.locals[local::HEAP] != 0
        && let Some(cache) = cache::current(ctx)
    {
        cache.retire();
        ctx.locals[local::HEAP] = 0;
    }
}

/// Does the range lie in the part of the heap that was handed out so far, now or earlier? All of that can be read.
pub fn in_use(addr: u64, len: u64) -> bool {
    owns(addr) && addr.saturating_add(len) <= layout::address_of(spans::used_units())
}

/// Allocations, frees and bytes allocated so far.
pub fn totals() -> (u64, u64, u64) {
    cache::totals()
}
