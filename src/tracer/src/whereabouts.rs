//! Which addresses of the code cache do threads have in hand? The runtime wants to give translations back.
//!
//! All threads are stopped for a moment, at once the one that asks. Of each: registers, context, the fault that it may be looking at, and the
//! part of the runtime's stack that is in use. Any word may be meant that looks like an address there; and in the runtime the dispatcher
//! also has offsets from the cache's start in its hands.
//!
//! A stopped system call goes on by itself afterwards (see [`crate::run`]).

use memcheck_abi::context::ThreadContext;
use memcheck_abi::layout;
use std::collections::BTreeSet;
use std::mem::offset_of;

use crate::deliver::{FAULT_OFFSET, Fault};
use crate::process::Process;
use crate::tracee::{Regs, general};

/// Of a slot, what can hold an address: context, shadow registers, what loops keep, fault.
const SLOT: u64 = FAULT_OFFSET + size_of::<Fault>() as u64;

fn is_in_cache(word: &u64) -> bool {
    (layout::CACHE_START..layout::CACHE_END).contains(word)
}

impl Process {
    /// With the world stopped: all such addresses. None if a thread is neither stopped nor about to end, or its memory cannot be read.
    pub(crate) fn whereabouts(&self, asking: i32, regs: &Regs) -> Option<Vec<u64>> {
        let mut found = BTreeSet::new();
        self.look_at(regs, &mut found)?;
        for (_, thread) in self.threads.iter().filter(|&(&tid, thread)| tid != asking && !thread.leaving) {
            let (stopped, _) = thread.parked.as_ref()?;
            self.look_at(thread.regs.as_ref()?, &mut found)?;
            // What moves two words at a time.
            let vectors = stopped.vectors().ok()?;
            let words = vectors.chunks_exact(2).map(|two| u64::from(two[0]) | u64::from(two[1]) << 32);
            found.extend(words.filter(is_in_cache));
        }
        Some(found.into_iter().collect())
    }

    fn look_at(&self, regs: &Regs, found: &mut BTreeSet<u64>) -> Option<()> {
        let registers = general(regs);
        let all = || registers.gpr.into_iter().chain([registers.rip]);
        found.extend(all().filter(is_in_cache));
        if self.code.is_in_runtime(regs.rip) {
            let offset = |word: u64| layout::CACHE_START + u64::from(word as u32);
            found.extend(all().map(offset).filter(is_in_cache));
        }
        let Some(context) = self.context(regs) else { return Some(()) };
        let words = |at, bytes: u64| {
            let words = self.memory.values::<u64>(at, (bytes / 8) as usize);
            (words.len() as u64 == bytes / 8).then_some(words)
        };
        let slot = words(context, SLOT)?;
        found.extend(slot.iter().copied().filter(is_in_cache));
        let top = context + layout::SLOT_RUNTIME_STACK_TOP;
        let stack = context + layout::SLOT_RUNTIME_STACK..top;
        // Where it begins for whoever comes from translated code; deeper, if the thread is on it.
        let ends = [slot[offset_of!(ThreadContext, runtime_rsp) / 8], regs.rsp.wrapping_sub(layout::RED_ZONE)];
        let from = ends.into_iter().filter(|at| stack.contains(at)).min().unwrap_or(top) & !7;
        found.extend(words(from, top - from)?.into_iter().filter(is_in_cache));
        Some(())
    }
}
