//! Code addresses become stacks.
//!
//! The runtime gives a stack as the exact address of an instruction followed by return addresses. A call lies before its return
//! address, so callers are looked up, printed and compared minus one.

use std::ops::Range;

use memcheck_abi::context::{RSP, Registers};
use memcheck_abi::event::{DepotHeader, MAX_FRAMES};
use memcheck_abi::layout;
use memcheck_report as report;
use memcheck_report::Stack;
use memcheck_symbolize as symbolize;
use memcheck_tracer::{Process, ThreadInfo};

use super::watched::Watched;

/// Entries of a shadow call stack that are looked at, from its top.
const MAX_ENTRIES: u64 = 2048;

/// The addresses to print.
pub fn printed(raw: &[u64]) -> Vec<u64> {
    let callers = raw.iter().skip(1).map(|addr| addr.wrapping_sub(1));
    raw.iter().take(1).copied().chain(callers).collect()
}

/// A call that has not returned: where it returns to, and the address of the stack slot with that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    pub return_address: u64,
    pub slot: u64,
}

/// The calls that a thread is in, innermost first. Entries that do not rise from the stack pointer upwards were left without a
/// return (longjmp), or belong to another stack.
pub fn calls(process: &Process, thread: &ThreadInfo, sp: u64, most: usize) -> Vec<Call> {
    const ENTRY: u64 = 16;
    let depth = thread.call_top.saturating_sub(thread.call_base) / ENTRY;
    let taken = depth.min(MAX_ENTRIES);
    // The topmost entry is at `call_top`, the empty stack at `call_base`.
    let lowest = thread.call_top.wrapping_sub(ENTRY * taken.saturating_sub(1));
    let words = process.memory().values::<u64>(lowest, 2 * taken as usize);
    let entries = words.chunks_exact(2).rev().map(|pair| Call { return_address: pair[0], slot: pair[1] });
    rising(entries, sp..thread.stack_high).take(most).collect()
}

/// The entries that lie in `stack`, each above the one before.
fn rising(entries: impl Iterator<Item = Call>, stack: Range<u64>) -> impl Iterator<Item = Call> {
    let mut live = stack;
    entries.filter(move |call| {
        let is_live = live.contains(&call.slot);
        if is_live {
            live.start = call.slot + 1;
        }
        is_live
    })
}

/// Addresses to print of a stopped thread with these registers.
pub fn of_thread(process: &Process, thread: &ThreadInfo, regs: &Registers, most: usize) -> Vec<u64> {
    let calls = calls(process, thread, regs.gpr[RSP], most);
    // An address of the runtime or the code cache means nothing to the user.
    let own = (regs.rip < layout::PROGRAM_END).then_some(regs.rip);
    own.into_iter().chain(calls.into_iter().map(|call| call.return_address.wrapping_sub(1))).take(most).collect()
}

/// Addresses to print of a stack in the depot; `None` if there is none.
pub fn of_depot(process: &Process, id: u32) -> Option<Vec<u64>> {
    if id == 0 {
        return None;
    }
    let at = layout::DEPOT_START + 8 * u64::from(id);
    let header: DepotHeader = process.memory().value(at)?;
    let frames = process.memory().values::<u64>(at + size_of::<DepotHeader>() as u64, (header.len as usize).min(MAX_FRAMES));
    (!frames.is_empty()).then(|| printed(&frames))
}

impl Watched {
    /// Names for addresses to print.
    pub fn stack(&mut self, process: &Process, addresses: &[u64]) -> Stack {
        self.modules.read(process);
        let frames = addresses.iter().flat_map(|addr| self.modules.symbolizer.frames(*addr));
        Stack(frames.map(frame).collect())
    }

    pub fn depot_stack(&mut self, process: &Process, id: u32) -> Option<Stack> {
        let addresses = of_depot(process, id)?;
        Some(self.stack(process, &addresses))
    }
}

pub fn frame(frame: symbolize::Frame) -> report::Frame {
    report::Frame {
        addr: frame.addr,
        function: frame.function,
        raw_name: frame.raw_name,
        file: frame.file,
        dir: frame.dir,
        line: frame.line,
        column: frame.column,
        object: frame.object,
        inlined: frame.inlined,
        function_line: frame.function_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_before_their_return_address() {
        assert_eq!(printed(&[0x100, 0x200, 0x300]), [0x100, 0x1ff, 0x2ff]);
        assert_eq!(printed(&[]), []);
    }

    #[test]
    fn abandoned_and_foreign_calls_are_left_out() {
        let entries = [0x90, 0x120, 0x110, 0x9000, 0x140].map(|slot| Call { return_address: slot, slot });
        let slots: Vec<u64> = rising(entries.into_iter(), 0x100..0x1000).map(|call| call.slot).collect();
        assert_eq!(slots, [0x120, 0x140]);
    }
}
