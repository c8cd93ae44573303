//! The heap at the end of a process, or when the program asks: totals, leak search, loss records with their stacks.
//!
//! The search looks at words of memory and knows nothing of processes; here its roots are collected from the mapping list and the
//! stopped threads:
//!
//! | root                         | left out                                                                        |
//! |------------------------------|---------------------------------------------------------------------------------|
//! | mappings that can be written | the replacement heap, device files, what lies below a thread's stack pointer     |
//! | pages that the loader wrote and then protected (RELRO): in static programs they hold heap pointers | other read-only memory |
//! | registers, also those that translated code has put aside for a moment | those of the thread that is exiting    |
//! | dynamic thread vectors       | those of threads that have ended                                                |
//! | the runtime's stacks         | those of threads that are in the program: a block on its way out of `malloc` is only there |

use std::collections::HashMap;

use memcheck_abi::context::{FRAME_REGISTERS, RSP, SPILL_SLOTS, offset, place};
use memcheck_abi::event::{ExitReport, LiveBlock};
use memcheck_abi::layout;
use memcheck_leak::records::{self, Grouped, Record, Resolution};
use memcheck_leak::{BlockState, Heuristic, Kind, Memory, Root};
use memcheck_report::LeakKind;
use memcheck_report::leak::{Change, DeltaMode, LeakSearch, LossRecord, Tally};
use memcheck_report::options::{LeakCheck, LeakResolution, Options};
use memcheck_report::render::HeapSummary;
use memcheck_tracer::{Exact, Map, Process, ThreadInfo};

use super::Session;
use super::frozen::Frozen;
use super::resident::Pages;
use super::stacks;
use super::trees;
use super::watched::Watched;

/// More blocks than any process has; a larger number is a damaged report.
pub const MAX_BLOCKS: u64 = 1 << 27;

/// From this size on it pays to ask which pages of a mapping are in use, bytes.
const LARGE: u64 = 1 << 18;

/// A search in the midst of a run, for those who ask for blocks.
#[derive(Clone)]
pub struct LastSearch {
    pub records: Vec<LossRecord>,
    /// By address.
    pub blocks: Vec<LiveBlock>,
    pub states: Vec<BlockState>,
    /// Numbers of their records.
    pub of_block: Vec<u32>,
}

/// What kind of check is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Check {
    pub full: bool,
    pub delta: Option<DeltaMode>,
    /// It was asked for in words.
    pub by_command: bool,
    /// Records are listed up to this number of them, the largest.
    pub most: Option<usize>,
    /// They go to a file, as a tree of calls.
    pub tree: bool,
}

impl Check {
    /// The two arguments of the client request, in the low bytes of `mode`: 0 full, 1 summary; 0 everything, 1 what increased,
    /// 2 what changed, 3 what is new.
    pub fn requested(mode: u64) -> Check {
        let delta = match mode >> 8 & 0xff {
            1 => Some(DeltaMode::Increased),
            2 => Some(DeltaMode::Changed),
            3 => Some(DeltaMode::New),
            _ => None,
        };
        Check { full: mode & 0xff == 0, delta, ..Check::default() }
    }
}

impl Session {
    /// Heap summary and leak search at the end. `exiting`: the thread that ends the process; its registers are no roots.
    pub(super) fn report_heap(&mut self, process: &Process, exiting: &ThreadInfo, report: &ExitReport) {
        let Some(watched) = self.watched.get_mut(&process.pid()) else { return };
        let options = &watched.reporter.options().clone();
        if report.allocs == 0 && report.allocator_seen == 0 && !watched.modules.allocator_seen {
            if !options.is_quiet() && !options.xml {
                watched.reporter.message(&[
                    "",
                    "HEAP SUMMARY:",
                    "    no allocation function was recognised in this program, so its heap was not checked",
                    "",
                ]);
            }
            return;
        }
        trees::at_exit(watched, process, report);
        let wants_search = watched.reporter.heap_summary(&HeapSummary {
            in_use: Tally::new(report.bytes_in_use, report.blocks_in_use),
            allocs: report.allocs,
            frees: report.frees,
            allocated_bytes: report.bytes_allocated,
        });
        if wants_search {
            let check = Check { full: options.leak_check == LeakCheck::Full, ..Check::default() };
            check_leaks(watched, options, process, Some(exiting), report, check);
        }
    }

    /// Client request: check for leaks now.
    pub(super) fn report_leaks_now(&mut self, process: &Process, mode: u64, report: &ExitReport) {
        if let Some(watched) = self.watched.get_mut(&process.pid()) {
            let options = watched.reporter.options().clone();
            check_leaks(watched, &options, process, None, report, Check::requested(mode));
        }
    }
}

pub fn check_leaks(
    watched: &mut Watched,
    options: &Options,
    process: &Process,
    exiting: Option<&ThreadInfo>,
    report: &ExitReport,
    check: Check,
) {
    let Ok(maps) = process.maps() else { return };
    let blocks: Vec<LiveBlock> = process.memory().values(report.blocks, report.block_count.min(MAX_BLOCKS) as usize);
    let Some(memory) = Frozen::open(process.living(), &maps) else { return };
    let threads = process.threads();
    let registers = registers(process, &threads, exiting);
    let roots = roots(&maps, &threads, Pages::open(process.living()).as_ref());
    let states = memcheck_leak::search(&memory, &blocks, &roots, &registers, &search_options(options, &maps));
    let Grouped { records, of_block } = group(watched, options, process, &blocks, &states);
    let mut depot = stacks::Depot::of(process);
    let found = LeakSearch {
        records: records.iter().filter_map(|record| loss(&mut depot, record, check)).collect(),
        heuristics: heuristics(&blocks, &states),
        full: check.full,
        delta: check.delta,
        thread: exiting.map_or(0, |thread| thread.number),
        searched_bytes: Some(roots.iter().map(|root| root.end - root.start).sum()),
        by_command: check.by_command,
        most: check.most,
        tree: check.tree || exiting.is_some() && options.xtree_leak,
    };
    // Somebody may ask for the blocks.
    watched.last_search = exiting.is_none().then(|| LastSearch { records: found.records.clone(), blocks, states, of_block });
    watched.reporter.leaks(found, &mut stacks::Namer::new(&mut watched.modules, process));
    watched.losses = records;
}

/// Blocks of equal fate and origin, together.
fn group(watched: &Watched, options: &Options, process: &Process, blocks: &[LiveBlock], states: &[BlockState]) -> Grouped {
    let resolution = match options.leak_resolution {
        LeakResolution::Low => Resolution::Low,
        LeakResolution::Med => Resolution::Medium,
        LeakResolution::High => Resolution::High,
    };
    let previous: &[Record] = &watched.losses;
    let (mut frames, mut depot) = (HashMap::<u32, Vec<u64>>::new(), stacks::Depot::of(process));
    // The runtime records more frames than few, for what is the same error; records are told apart by those that are shown.
    let depth = match resolution.frames().min(options.num_callers) {
        frames if frames < memcheck_abi::config::LEAST_CALLERS as usize || resolution != Resolution::High => frames,
        _ => Resolution::High.frames(),
    };
    if depth != Resolution::High.frames() {
        for stack in blocks.iter().map(|block| block.stack).chain(previous.iter().map(|record| record.stack)) {
            frames.entry(stack).or_insert_with(|| depot.addresses(stack).unwrap_or_default());
        }
    }
    records::group(blocks, states, |stack| frames.get(&stack).map_or(&[], Vec::as_slice), depth, previous)
}

fn loss(depot: &mut stacks::Depot, record: &Record, check: Check) -> Option<LossRecord> {
    let kind = match record.kind {
        Kind::Reachable => LeakKind::Reachable,
        Kind::Possible => LeakKind::Possible,
        Kind::Indirect => LeakKind::Indirect,
        Kind::Definite => LeakKind::Definite,
        Kind::Outer => return None,
    };
    let difference = |new: u64, old: u64| new.wrapping_sub(old) as i64;
    let change = (check.delta.is_some() || check.tree).then(|| Change {
        bytes: difference(record.direct.bytes, record.old_direct.bytes),
        indirect_bytes: difference(record.indirect.bytes, record.old_indirect.bytes),
        blocks: difference(record.direct.blocks, record.old_direct.blocks),
    });
    Some(LossRecord {
        kind,
        direct: Tally::new(record.direct.bytes, record.direct.blocks),
        indirect_bytes: record.indirect.bytes,
        change,
        addresses: depot.addresses(record.stack).unwrap_or_else(|| vec![0]),
    })
}

/// How much is reachable only thanks to each heuristic.
fn heuristics(blocks: &[LiveBlock], states: &[BlockState]) -> Vec<(&'static str, Tally)> {
    let mut sums = Heuristic::ALL.map(|heuristic| (heuristic.name(), Tally::default()));
    for (block, state) in blocks.iter().zip(states) {
        if let Some(heuristic) = state.heuristic {
            sums[heuristic as usize].1.add(Tally::new(block.size, 1));
        }
    }
    sums.to_vec()
}

fn search_options(options: &Options, maps: &[Map]) -> memcheck_leak::Options {
    let of_files = |bit: i32| {
        let wanted = maps.iter().filter(move |map| map.inode != 0 && map.prot & bit as u32 != 0 && map.end <= layout::PROGRAM_END);
        wanted.map(|map| Root { start: map.start, end: map.end }).collect()
    };
    memcheck_leak::Options {
        heuristics: Heuristic::ALL.map(|heuristic| options.leak_check_heuristics.contains(heuristic.name())),
        tables: of_files(libc::PROT_READ),
        code: of_files(libc::PROT_EXEC),
        threads: 0,
    }
}

/// Memory of the program that is searched for pointers.
fn roots(maps: &[Map], threads: &[ThreadInfo], pages: Option<&Pages>) -> Vec<Root> {
    let next = maps.iter().skip(1).map(Some).chain([None]);
    let found = maps.iter().zip(next).filter(|(map, next)| is_root(map) || next.is_some_and(|next| is_protected_data(map, next)));
    let mut roots: Vec<Root> = found.flat_map(|(map, _)| used(map, pages)).collect();
    for thread in threads {
        let sp = thread.regs.gpr[RSP];
        if (thread.stack_low..thread.stack_high).contains(&sp) {
            let floor = thread.stack_low.max(thread.stack_floor).next_multiple_of(8);
            let dead = Root { start: floor, end: floor.max(sp.saturating_sub(layout::RED_ZONE) & !7) };
            roots = roots.into_iter().flat_map(|root| without(root, dead)).collect();
        }
    }
    roots
}

/// The parts of a mapping that were ever written.
fn used(map: &Map, pages: Option<&Pages>) -> Vec<Root> {
    let all = Root { start: map.start, end: map.end };
    match pages {
        Some(pages) if !map.shared && map.end - map.start >= LARGE => pages.in_use(all),
        _ => vec![all],
    }
}

fn is_root(map: &Map) -> bool {
    const READ_WRITE: u32 = (libc::PROT_READ | libc::PROT_WRITE) as u32;
    let path = map.path.as_encoded_bytes();
    let is_device = path.starts_with(b"/dev/") && !path.starts_with(b"/dev/zero") && !path.starts_with(b"/dev/shm/");
    let is_heap = map.start >= layout::HEAP_START && map.end <= layout::HEAP_END;
    map.prot & READ_WRITE == READ_WRITE && map.end <= layout::PROGRAM_END && !is_heap && !is_device
}

/// Read-only pages of a file right below writable ones of it: what a linker calls RELRO.
fn is_protected_data(map: &Map, next: &Map) -> bool {
    let is_read_only = map.prot == libc::PROT_READ as u32 && !map.shared && map.inode != 0 && map.end <= layout::PROGRAM_END;
    let same_file = (map.device, map.inode) == (next.device, next.inode);
    is_read_only && same_file && map.end == next.start && next.prot & libc::PROT_WRITE as u32 != 0
}

/// Aligned words that the program may read and that are wanted: where they are, and what they are. Blocks of the heap come last.
pub fn words(process: &Process, report: &ExitReport, wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
    const PIECE: usize = 1 << 16;
    let Ok(maps) = process.maps() else { return Vec::new() };
    let Some(memory) = Frozen::open(process.living(), &maps) else { return Vec::new() };
    let blocks: Vec<LiveBlock> = process.memory().values(report.blocks, report.block_count.min(MAX_BLOCKS) as usize);
    let mut ranges = roots(&maps, &process.threads(), Pages::open(process.living()).as_ref());
    ranges.extend(blocks.iter().map(|block| Root { start: block.addr, end: block.addr.saturating_add(block.size) }));
    let (mut found, mut bytes, mut bits) = (Vec::new(), vec![0; PIECE], vec![0; PIECE]);
    for range in ranges {
        for at in (range.start.next_multiple_of(8)..range.end).step_by(PIECE) {
            let len = (range.end - at).min(PIECE as u64) as usize;
            let len = memory.read(at, &mut bytes[..len]).min(memory.v(at, &mut bits[..len]));
            let both = bytes[..len].as_chunks::<8>().0.iter().zip(bits[..len].as_chunks::<8>().0);
            let words = (at..).step_by(8).zip(both.map(|(bytes, bits)| (u64::from_ne_bytes(*bytes), *bits)));
            found.extend(words.filter(|(_, (word, bits))| *bits == [0; 8] && wanted(*word)).map(|(place, (word, _))| (place, word)));
        }
    }
    found
}

/// What remains of a range.
fn without(root: Root, hole: Root) -> impl Iterator<Item = Root> {
    let below = Root { end: root.end.min(hole.start), ..root };
    let above = Root { start: root.start.max(hole.end), ..root };
    let is_cut = hole.start < hole.end && hole.start < root.end && root.start < hole.end;
    let parts = if is_cut { [Some(below), Some(above)] } else { [Some(root), None] };
    parts.into_iter().flatten().filter(|part| part.start < part.end)
}

/// Words that are in no memory of the program.
fn registers(process: &Process, threads: &[ThreadInfo], exiting: Option<&ThreadInfo>) -> Vec<u64> {
    let mut words = thread_vectors(process, threads);
    for thread in threads.iter().filter(|thread| exiting.is_none_or(|gone| gone.tid != thread.tid)) {
        words.extend(thread.regs.gpr);
        words.push(thread.guest_fs);
        if thread.exact == Exact::Roughly && thread.context != 0 {
            words.extend(put_aside(process, thread.context));
        }
        if thread.context != 0 && process.memory().value(thread.context + offset::PLACE as u64) == Some(place::RUNTIME) {
            let size = layout::SLOT_RUNTIME_STACK_TOP - layout::SLOT_RUNTIME_STACK;
            let stack = thread.context + layout::SLOT_RUNTIME_STACK;
            words.extend(process.memory().values::<u64>(stack, (size / 8) as usize));
        }
    }
    words
}

/// What translated code keeps in a thread's context while it needs registers of the program for itself.
fn put_aside(process: &Process, context: u64) -> Vec<u64> {
    let words = |at: i32, count| process.memory().values::<u64>(context + at as u64, count);
    [words(offset::SCRATCH, SPILL_SLOTS), words(offset::FRAME_KEPT, FRAME_REGISTERS)].concat()
}

/// libc keeps the dynamic thread vector of a thread in its control block, by the address of the second entry. A running thread has no
/// need to give it back; that of a thread which has ended and was not joined is a leak.
fn thread_vectors(process: &Process, threads: &[ThreadInfo]) -> Vec<u64> {
    let control_blocks = threads.iter().map(|thread| thread.guest_fs).filter(|&fs| fs != 0);
    control_blocks.filter_map(|fs| process.memory().value::<u64>(fs.wrapping_add(8))).map(|vector| vector.wrapping_sub(16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(hole: (u64, u64)) -> Vec<(u64, u64)> {
        let root = Root { start: 0x1000, end: 0x2000 };
        without(root, Root { start: hole.0, end: hole.1 }).map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn dead_stack_is_cut_out() {
        assert_eq!(parts((0x1400, 0x1800)), [(0x1000, 0x1400), (0x1800, 0x2000)]);
        assert_eq!(parts((0x0800, 0x1800)), [(0x1800, 0x2000)]);
        assert_eq!(parts((0x1800, 0x3000)), [(0x1000, 0x1800)]);
        assert_eq!(parts((0, 0x4000)), []);
        assert_eq!(parts((0x2000, 0x4000)), [(0x1000, 0x2000)]);
        assert_eq!(parts((0x1400, 0x1200)), [(0x1000, 0x2000)], "the stack pointer at the very bottom");
    }

    const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;

    fn map(start: u64, prot: i32, path: &str) -> Map {
        let (shared, offset, device) = (false, 0, (0, 0));
        Map { start, end: start + 0x1000, prot: prot as u32, shared, offset, device, inode: 7, path: path.into() }
    }

    #[test]
    fn data_that_the_loader_protected_is_a_root() {
        let maps = [map(0x1000, libc::PROT_READ, "/p"), map(0x3000, libc::PROT_READ, "/p"), map(0x4000, BOTH, "/p")];
        let starts: Vec<u64> = roots(&maps, &[], None).iter().map(|root| root.start).collect();
        assert_eq!(starts, [0x3000, 0x4000]);
        let other = Map { inode: 8, ..map(0x4000, BOTH, "/q") };
        assert!(!is_protected_data(&maps[1], &other));
    }

    #[test]
    fn roots_are_what_the_program_can_write() {
        let both = BOTH;
        assert!(is_root(&map(0x1000, both, "/bin/prog")));
        assert!(is_root(&map(0x1000, both, "/dev/zero")));
        assert!(!is_root(&map(0x1000, libc::PROT_READ, "/bin/prog")));
        assert!(!is_root(&map(0x1000, both, "/dev/dri/card0")));
        assert!(!is_root(&map(layout::HEAP_START, both, "")));
        assert!(!is_root(&map(layout::ARENA_START, both, "")));
    }

    #[test]
    fn requests() {
        assert_eq!(Check::requested(0), Check { full: true, ..Check::default() });
        assert_eq!(Check::requested(1), Check::default());
        assert_eq!(Check::requested(0x100), Check { full: true, delta: Some(DeltaMode::Increased), ..Check::default() });
        assert_eq!(Check::requested(0x300), Check { full: true, delta: Some(DeltaMode::New), ..Check::default() });
    }
}
