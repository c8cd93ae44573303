//! What each place of the program has allocated, for `--xtree-memory`.
//!
//! ```text
//! live blocks (from the runtime's list) ──► bytes and blocks by stack ──┐
//! the depot: all stacks there are ──► tallies at their numbers ─────────┴──► one use for each stack
//! ```
//! Tallies of what was ever allocated and freed exist in runs that ask for them only.

use std::collections::BTreeMap;

use memcheck_abi::event::{ExitReport, LiveBlock};
use memcheck_report::options::XtreeMemory;
use memcheck_report::render::xtree::memory::Use;
use memcheck_tracer::Process;

use super::leaks::MAX_BLOCKS;
use super::stacks::{Depot, Namer};
use super::watched::Watched;

/// The heap as it is now, by stack. `full`: with what went through it.
pub fn uses(process: &Process, report: &ExitReport, full: bool) -> Vec<Use> {
    let mut by_stack: BTreeMap<u32, [u64; 6]> = BTreeMap::new();
    for block in process.memory().values::<LiveBlock>(report.blocks, report.block_count.min(MAX_BLOCKS) as usize) {
        let costs = by_stack.entry(block.stack).or_default();
        costs[0] += block.size;
        costs[1] += 1;
    }
    if full {
        Depot::of(process).tallies(|stack, tally| {
            let costs = by_stack.entry(stack).or_default();
            costs[2..].copy_from_slice(&[tally.allocated_bytes, tally.allocated_blocks, tally.freed_bytes, tally.freed_blocks]);
        });
    }
    let mut depot = Depot::of(process);
    by_stack.into_iter().map(|(stack, costs)| Use { addresses: depot.addresses(stack).unwrap_or_default(), costs }).collect()
}

/// `--xtree-memory`, at the end.
pub fn at_exit(watched: &mut Watched, process: &Process, report: &ExitReport) {
    let mode = watched.reporter.options().xtree_memory;
    if mode != XtreeMemory::None {
        let uses = uses(process, report, mode == XtreeMemory::Full);
        watched.reporter.memory_tree_at_exit(uses, &mut Namer::new(&mut watched.modules, process));
    }
}
