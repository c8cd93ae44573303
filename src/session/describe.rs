//! What an address is, in the order in which users want to know it: heap blocks and stacks, which the runtime knows, then variables,
//! data symbols, the area below the stack pointer, sections, mappings.

use memcheck_abi::event::{ErrorEvent, Place};
use memcheck_abi::layout;
use memcheck_report::Frame;
use memcheck_report::address::{Address, Block, BlockState, Mapping};
use memcheck_report::error::SourcePlace;
use memcheck_report::options::{KeepStacktraces, Options};
use memcheck_symbolize::Variable;
use memcheck_tracer::{Map, Process, ThreadInfo};

use super::records::text;
use super::stacks::{self, Call};
use super::watched::Watched;

/// Unknown addresses this far below the red zone are taken for an access to a frame that is gone, bytes.
const JUST_BELOW: u64 = 1024;
const WORD: u64 = 8;
/// Frames searched for the one that an address on the stack belongs to.
const MAX_DEPTH: usize = 500;

/// Describe the address of an error of `thread`.
pub fn address(watched: &mut Watched, options: &Options, process: &Process, thread: &ThreadInfo, event: &ErrorEvent) -> Address {
    let place = event.place;
    if place == Place::LiveBlock as u32 {
        block(watched, options, process, event, BlockState::Live)
    } else if place == Place::FreedBlock as u32 {
        block(watched, options, process, event, BlockState::Freed)
    } else if place == Place::ReusedBlock as u32 {
        block(watched, options, process, event, BlockState::Recycled)
    } else if place == Place::ClientBlock as u32 {
        block(watched, options, process, event, BlockState::Client { name: text(&event.name2) })
    } else if place == Place::Stack as u32 {
        on_stack(watched, options, process, thread, event)
    } else if place == Place::BelowStack as u32 {
        below_stack(process, event)
    } else {
        elsewhere(watched, options, process, event)
    }
}

fn block(watched: &mut Watched, options: &Options, process: &Process, event: &ErrorEvent, state: BlockState) -> Address {
    let found = &event.block;
    let forgets = options.keep_stacktraces == KeepStacktraces::AllocThenFree && state == BlockState::Freed;
    let allocated = if forgets { None } else { watched.depot_stack(process, found.alloc_stack) };
    let freed = watched.depot_stack(process, found.free_stack);
    Address::Block(Block { start: found.addr, size: found.size, state, allocated, freed })
}

/// On a stack: in which frame, if it is the stack of the thread that has the error; other threads run and have no frames now.
fn on_stack(watched: &mut Watched, options: &Options, process: &Process, thread: &ThreadInfo, event: &ErrorEvent) -> Address {
    let number = event.place_thread.max(1);
    let unknown = Address::Stack { thread: number, frame: None };
    if number != thread.number {
        return unknown;
    }
    let calls = stacks::calls(process, thread, event.sp, MAX_DEPTH);
    let Some(at) = frame_of(&calls, event.addr) else { return unknown };
    let pc = if at == 0 { event.stack[0] } else { calls[at - 1].return_address.wrapping_sub(1) };
    if options.read_var_info
        && let Some(local) = local(watched, process, pc, &calls[at], event.addr)
    {
        let declared = declared(&local);
        return Address::LocalVariable { name: local.path, offset: local.offset, declared, frame: at, thread: number };
    }
    let frames = watched.stack(process, &[pc]).0;
    // Inlined functions have no frame of their own.
    let frame = frames.into_iter().rfind(|frame| frame.function.is_some()).map(|frame| (at, Box::new(frame)));
    Address::Stack { thread: number, frame }
}

/// The number of the frame that a stack address lies in: above the return address of the frame it called, up to its own.
fn frame_of(calls: &[Call], addr: u64) -> Option<usize> {
    calls.iter().position(|call| addr < call.slot + WORD)
}

fn local(watched: &mut Watched, process: &Process, pc: u64, call: &Call, addr: u64) -> Option<Variable> {
    watched.modules.read(process);
    watched.modules.symbolizer.local_variable(pc, call.slot + WORD, addr)
}

fn declared(variable: &Variable) -> SourcePlace {
    SourcePlace { file: variable.file.clone().unwrap_or_else(|| "???".into()), line: variable.line.unwrap_or(0), dir: None }
}

fn below_stack(process: &Process, event: &ErrorEvent) -> Address {
    let maps = process.maps().unwrap_or_default();
    let guard_page = maps.iter().any(|map| map.contains(event.addr) && map.prot == 0);
    Address::BelowStackPointer { thread: event.place_thread.max(1), bytes: event.place_distance, guard_page }
}

/// Nothing that the runtime knows.
fn elsewhere(watched: &mut Watched, options: &Options, process: &Process, event: &ErrorEvent) -> Address {
    let addr = event.addr;
    watched.modules.read(process);
    let names = &mut watched.modules.symbolizer;
    if options.read_var_info
        && let Some(global) = names.global_variable(addr)
    {
        let declared = declared(&global);
        return Address::GlobalVariable { text: global.path, offset: global.offset, declared };
    }
    if let Some(symbol) = names.data_symbol(addr) {
        return Address::DataSymbol { name: symbol.raw_name, offset: symbol.offset };
    }
    let maps = process.maps().unwrap_or_default();
    let map = maps.iter().find(|map| map.contains(addr) && map.prot != 0);
    if let (Some((kind, object)), Some(_)) = (names.section(addr), map) {
        let in_code = kind == "Text";
        let frame = in_code.then(|| names.frames(addr).into_iter().next_back()).flatten();
        let frame: Option<Box<Frame>> = frame.map(|frame| Box::new(stacks::frame(frame)));
        return Address::Section { kind, object: object.to_string_lossy().into_owned(), frame };
    }
    let below = event.sp.wrapping_sub(layout::RED_ZONE).wrapping_sub(addr);
    if map.is_none() && (1..=JUST_BELOW).contains(&below) {
        return Address::JustBelowStack;
    }
    mapped(&maps, process.program_break(), addr)
}

/// By the mapping list alone.
fn mapped(maps: &[Map], end_of_brk: u64, addr: u64) -> Address {
    let is_own = addr >= layout::PROGRAM_END || (layout::HEAP_START..layout::HEAP_END).contains(&addr);
    if is_own {
        return Address::Unknown;
    }
    if (layout::BRK_START..layout::BRK_END).contains(&addr) {
        return brk(end_of_brk, addr);
    }
    let Some(map) = maps.iter().find(|map| map.contains(addr)) else { return Address::Unknown };
    let path = map.path.to_string_lossy();
    let mapping = match (map.inode, map.shared) {
        (0, _) => Mapping::Anonymous,
        (_, true) if path.starts_with("/SYSV") || path.starts_with("/dev/zero") || path.starts_with("/dev/shm/") => Mapping::SharedMemory,
        _ => Mapping::File(path.into_owned()),
    };
    Address::Mapped { permissions: permissions(map), mapping }
}

fn brk(limit: u64, addr: u64) -> Address {
    match addr.checked_sub(limit) {
        None => Address::Brk { start: layout::BRK_START, limit },
        Some(bytes) => Address::AfterBrk { bytes, limit },
    }
}

fn permissions(map: &Map) -> String {
    let letters = [(libc::PROT_READ, 'r'), (libc::PROT_WRITE, 'w'), (libc::PROT_EXEC, 'x')];
    letters.iter().map(|(bit, letter)| if map.prot & *bit as u32 != 0 { *letter } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(start: u64, end: u64, prot: u32, path: &str) -> Map {
        let inode = u64::from(!path.is_empty());
        Map { start, end, prot, shared: false, offset: 0, device: (0, 0), inode, path: path.into() }
    }

    #[test]
    fn frames_reach_up_to_their_return_address() {
        let calls = [Call { return_address: 1, slot: 0x1000 }, Call { return_address: 2, slot: 0x1100 }];
        assert_eq!(frame_of(&calls, 0xff0), Some(0));
        assert_eq!(frame_of(&calls, 0x1007), Some(0));
        assert_eq!(frame_of(&calls, 0x1008), Some(1));
        assert_eq!(frame_of(&calls, 0x1108), None);
    }

    #[test]
    fn what_only_the_mapping_list_knows() {
        let maps = [map(0x1000, 0x2000, 1, "/data"), map(0x3000, 0x4000, 3, ""), map(0x5000, 0x6000, 0, "")];
        let mapped = |maps, addr| super::mapped(maps, layout::BRK_START + 0x1000, addr);
        assert_eq!(mapped(&maps, 0x1800), Address::Mapped { permissions: "r--".into(), mapping: Mapping::File("/data".into()) });
        assert_eq!(mapped(&maps, 0x3800), Address::Mapped { permissions: "rw-".into(), mapping: Mapping::Anonymous });
        assert_eq!(mapped(&maps, 0x5800), Address::Mapped { permissions: "---".into(), mapping: Mapping::Anonymous });
        assert_eq!(mapped(&maps, 0), Address::Unknown);
        let (start, limit) = (layout::BRK_START, layout::BRK_START + 0x1000);
        assert_eq!(mapped(&maps, start + 8), Address::Brk { start, limit });
        assert_eq!(mapped(&maps, limit + 8), Address::AfterBrk { bytes: 8, limit });
        assert_eq!(mapped(&maps, layout::HEAP_START + 8), Address::Unknown);
        assert_eq!(mapped(&maps, layout::IMAGE_BASE), Address::Unknown, "never a word about memcheck's own memory");
    }
}
