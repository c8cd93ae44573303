//! Code addresses become stacks.
//!
//! The runtime gives a stack as the exact address of an instruction followed by return addresses. A call lies before its return
//! address, so callers are looked up, printed and compared minus one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use memcheck_abi::context::{RSP, Registers};
use memcheck_abi::event::{DepotHeader, MAX_FRAMES, PlaceTally};
use memcheck_abi::layout;
use memcheck_report as report;
use memcheck_report::Stack;
use memcheck_report::error::Origin;
use memcheck_report::names::Names;
use memcheck_symbolize as symbolize;
use memcheck_tracer::{Process, ThreadInfo};

use super::modules::Modules;
use super::watched::Watched;

/// Words of shadow that are read at once.
const CHUNK: u64 = 512;
/// Words of the depot that are read at once; the longest stack is shorter.
const WINDOW: usize = 2048;
const HEADER_WORDS: usize = size_of::<DepotHeader>() / 8;
const _: () = assert!(HEADER_WORDS + MAX_FRAMES <= WINDOW);
/// Bytes of a stack of unknown size that are searched.
const REACH: u64 = 1 << 20;

/// Bytes above a thread's first stack pointer in which its outermost call may have put the return address: as in `rt::callstack`.
const FIRST_WORDS: u64 = 32;
/// A stack pointer that points anywhere has no calls above it: beyond this much stack without one the search is given up.
const FRAME_MAX: u64 = 64 << 20;

/// The addresses to print.
pub fn printed(raw: &[u64]) -> Vec<u64> {
    let mut addresses = raw.to_vec();
    to_printed(&mut addresses);
    addresses
}

fn to_printed(frames: &mut [u64]) {
    frames.iter_mut().skip(1).for_each(|addr| *addr = addr.wrapping_sub(1));
}

/// A call that has not returned: where it returns to, and the address of the stack slot with that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    pub return_address: u64,
    pub slot: u64,
}

/// The calls that a thread is in, innermost first: the slots above the stack pointer whose V shadow is marked (`rt::callstack`).
pub fn calls(process: &Process, thread: &ThreadInfo, sp: u64, most: usize) -> Vec<Call> {
    let mut found = Vec::new();
    let mut at = sp.wrapping_add(7) & !7;
    let mut end = thread.stack_high.min(at.saturating_add(FRAME_MAX));
    while at < end && at < layout::PROGRAM_END && found.len() < most {
        let n = ((end - at) / 8).min(CHUNK);
        let marks = process.memory().values::<u64>(layout::v_of(at), n as usize);
        if marks.is_empty() {
            break;
        }
        let mut jumped = false;
        for (i, &mark) in marks.iter().enumerate() {
            let slot = at + 8 * i as u64;
            if mark as u32 == layout::RETURN_MARK as u32 {
                let Some(return_address) = process.memory().value(slot) else { continue };
                found.push(Call { return_address, slot });
                end = thread.stack_high.min(slot.saturating_add(FRAME_MAX));
            } else if mark == layout::SIGNAL_MARK {
                let (Some(saved), Some(rip)) = (process.memory().value::<u64>(slot - 8), process.memory().value::<u64>(slot)) else {
                    continue;
                };
                found.push(Call { return_address: rip.wrapping_add(1), slot });
                (at, end, jumped) = (
                    saved.wrapping_add(7) & !7,
                    if saved < thread.stack_high { thread.stack_high } else { saved.saturating_add(REACH) },
                    true,
                );
                break;
            }
            if slot >= thread.first_sp + FIRST_WORDS && at <= thread.first_sp || found.len() >= most {
                return found;
            }
        }
        if !jumped {
            at += 8 * marks.len() as u64;
        }
    }
    found
}

/// Addresses to print of a stopped thread with these registers.
pub fn of_thread(process: &Process, thread: &ThreadInfo, regs: &Registers, most: usize) -> Vec<u64> {
    let calls = calls(process, thread, regs.gpr[RSP], most);
    // An address of the runtime or the code cache means nothing to the user; one that nothing can be at is where the program jumped to.
    let own = (regs.rip < layout::PROGRAM_END || regs.rip >> 47 != 0).then_some(regs.rip);
    own.into_iter().chain(calls.into_iter().map(|call| call.return_address.wrapping_sub(1))).take(most).collect()
}

/// The depot of a stopped process. Stacks that lie side by side are read together.
pub struct Depot<'a> {
    process: &'a Process,
    /// What was read last: number of the first word, and the words.
    first: u64,
    words: Vec<u64>,
    /// Stacks that others name, which may lie far away.
    bases: HashMap<u32, Option<Rc<[u64]>>>,
}

/// A depot that is damaged may name stacks in a circle.
const DEEPEST: usize = 16;

impl<'a> Depot<'a> {
    pub fn of(process: &'a Process) -> Self {
        Depot { process, first: 0, words: vec![], bases: HashMap::new() }
    }

    /// Addresses to print of a stack; `None` if there is none.
    pub fn addresses(&mut self, id: u32) -> Option<Vec<u64>> {
        if id == 0 {
            return None;
        }
        let mut frames = self.frames(id, DEEPEST).filter(|frames| !frames.is_empty())?;
        to_printed(&mut frames);
        Some(frames)
    }

    /// What each stack has allocated and freed, for those that have.
    pub fn tallies(&mut self, mut visit: impl FnMut(u32, PlaceTally)) {
        let process = self.process;
        self.each(|id| {
            let tally = process.memory().value(layout::TALLIES_START + u64::from(id) * size_of::<PlaceTally>() as u64);
            tally.filter(|tally| *tally != PlaceTally::default()).inspect(|tally| visit(id, *tally));
        });
    }

    /// The numbers of all stacks. Their entries lie one behind the other; behind the last there is none.
    pub fn each(&mut self, mut visit: impl FnMut(u32)) {
        let mut at = 1;
        loop {
            let Some((header, _)) = self.entry(at).filter(|(header, _)| header.shape != 0) else { return };
            let Ok(id) = u32::try_from(at) else { return };
            visit(id);
            at += header.words();
        }
    }

    fn read(&mut self, at: u64) {
        self.first = at;
        self.words = self.process.memory().values(layout::DEPOT_START + 8 * at, WINDOW);
    }

    /// A header, and the frames that follow it.
    fn entry(&mut self, at: u64) -> Option<(DepotHeader, Vec<u64>)> {
        if let Some(entry) = self.entry_in_window(at) {
            return Some(entry);
        }
        self.read(at);
        self.entry_in_window(at)
    }

    fn entry_in_window(&self, at: u64) -> Option<(DepotHeader, Vec<u64>)> {
        let words = self.words.get(usize::try_from(at.checked_sub(self.first)?).ok()?..)?;
        let half = |i: usize| words.get(i / 2).map(|word| (word >> (i % 2 * 32)) as u32);
        let header = DepotHeader { next: half(0)?, hash: half(1)?, base: half(2)?, shape: half(3)? };
        let (own, frames) = (header.own().min(MAX_FRAMES), words.get(HEADER_WORDS..)?);
        if header.is_wide() {
            return Some((header, frames.get(..own)?.to_vec()));
        }
        let halves = frames.get(..own.div_ceil(2))?.iter().flat_map(|word| [*word & u64::from(u32::MAX), *word >> 32]);
        Some((header, halves.take(own).collect()))
    }

    fn frames(&mut self, id: u32, deepest: usize) -> Option<Vec<u64>> {
        let (header, mut frames) = self.entry(u64::from(id))?;
        if header.shared() != 0 {
            let base = self.base(header.base, deepest.checked_sub(1)?)?;
            frames.extend_from_slice(base.get(header.skipped()..header.skipped() + header.shared())?);
        }
        Some(frames)
    }

    fn base(&mut self, id: u32, deepest: usize) -> Option<Rc<[u64]>> {
        if let Some(known) = self.bases.get(&id) {
            return known.clone();
        }
        let frames = self.frames(id, deepest).map(Rc::from);
        self.bases.insert(id, frames.clone());
        frames
    }
}

/// Addresses to print of a stack in the depot; `None` if there is none.
pub fn of_depot(process: &Process, id: u32) -> Option<Vec<u64>> {
    Depot::of(process).addresses(id)
}

/// Names for stacks of a process, as the report asks for them. Lives no longer than its objects stay where they are.
pub struct Namer<'a> {
    modules: &'a mut Modules,
    outlines: HashMap<u64, Vec<report::Frame>, ByAddress>,
    named: HashMap<u64, Vec<report::Frame>, ByAddress>,
}

/// Code addresses are nobody's attempt to fill one bucket, and millions of them are looked up.
type ByAddress = BuildHasherDefault<AddressHasher>;

#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<'a> Namer<'a> {
    pub fn new(modules: &'a mut Modules, process: &Process) -> Self {
        modules.read(process);
        Namer { modules, outlines: HashMap::default(), named: HashMap::default() }
    }

    fn outline_of(&mut self, addr: u64) -> &[report::Frame] {
        let name = || self.modules.symbolizer.outline(addr).into_iter().map(frame).collect();
        self.outlines.entry(addr).or_insert_with(name)
    }

    fn frames_of(&mut self, addr: u64) -> &[report::Frame] {
        let name = || self.modules.symbolizer.frames(addr).into_iter().map(frame).collect();
        self.named.entry(addr).or_insert_with(name)
    }
}

impl Names for Namer<'_> {
    fn outline(&mut self, addresses: &[u64]) -> Stack {
        let mut frames = Vec::with_capacity(addresses.len());
        for &addr in addresses {
            frames.extend_from_slice(self.outline_of(addr));
        }
        Stack(frames)
    }

    /// Frames that called `main` are seldom shown, and the debug information of the C library is large: their symbols must do.
    fn full(&mut self, addresses: &[u64]) -> Stack {
        let mut frames: Vec<report::Frame> = Vec::with_capacity(addresses.len());
        let mut is_below_main = false;
        let is_main = |frame: Option<&report::Frame>| frame.is_some_and(|frame| frame.suppression_name() == Some("main"));
        for &addr in addresses {
            let outline = if is_below_main { self.outline_of(addr).last().cloned() } else { None };
            if is_below_main && !is_main(outline.as_ref()) {
                frames.extend(outline);
            } else {
                frames.extend_from_slice(self.frames_of(addr));
                is_below_main = is_main(frames.last()) && !self.modules.shows_below_main;
            }
        }
        Stack(frames)
    }
}

impl Watched {
    /// Names for addresses to print.
    pub fn stack(&mut self, process: &Process, addresses: &[u64]) -> Stack {
        Namer::new(&mut self.modules, process).full(addresses)
    }

    pub fn depot_stack(&mut self, process: &Process, id: u32) -> Option<Stack> {
        let addresses = of_depot(process, id)?;
        Some(self.stack(process, &addresses))
    }

    /// Where an undefined value was born. Of a frame some address in its function is known. The first bytes were the caller's red zone and
    /// are born with the call, so they are named by the beginning of the function, others by the instruction that made room for them.
    pub fn origin_stack(&mut self, process: &Process, origin: Origin, id: u32) -> Option<Stack> {
        let addresses = of_depot(process, id)?;
        if origin != Origin::Stack {
            return Some(self.stack(process, &addresses));
        }
        self.modules.read(process);
        let inside = *addresses.first()?;
        let is_far = addresses.len() > 1;
        if let Some(room) = self.modules.symbolizer.room(inside).filter(|_| is_far) {
            return Some(self.stack(process, &[room]));
        }
        let beginning = |line: &mut report::Line| (line.line, line.column, line.inlined) = (line.function_line.or(line.line), None, false);
        let function = self.stack(process, &[inside]).0.pop().map(|frame| frame.with(beginning));
        Some(Stack(function.into_iter().collect()))
    }
}

pub fn frame(frame: symbolize::Frame) -> report::Frame {
    let line = report::Line {
        addr: frame.addr,
        function: frame.function.map(Rc::from),
        raw_name: frame.raw_name.map(Rc::from),
        file: frame.file.map(Rc::from),
        dir: frame.dir.map(Rc::from),
        line: frame.line,
        column: frame.column,
        object: frame.object.map(Rc::from),
        inlined: frame.inlined,
        function_line: frame.function_line,
        replaced: frame.synthetic,
    };
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_before_their_return_address() {
        assert_eq!(printed(&[0x100, 0x200, 0x300]), [0x100, 0x1ff, 0x2ff]);
        assert_eq!(printed(&[]), []);
    }
}
