//! Whole reports of small runs, line by line as Valgrind 3.19 printed them for the same findings.

mod end;
mod findings;
mod outputs;

use std::sync::{Arc, Mutex};

use super::*;
use crate::address::{Address, Block, BlockState};
use crate::error::LeakKind;
use crate::frame::testing::{frame, library_frame};
use crate::leak::{self, LeakSearch, LossRecord, Tally};
use crate::names::Names;
use crate::options::testing::FakeEnv;
use crate::options::{Invocation, parse};
use crate::render::HeapSummary;
use crate::sink::Sink;

/// A reporter with pid 7 whose log is in memory.
struct Probe {
    run: Rc<RunOutput>,
    reporter: Reporter,
    log: Arc<Mutex<Vec<u8>>>,
}

fn output(line: &str) -> Rc<RunOutput> {
    let words: Vec<_> = format!("{line} ./p").split_whitespace().map(Into::into).collect();
    match parse("valgrind".as_ref(), &words, &FakeEnv::default()) {
        Ok(Invocation::Run(run)) => RunOutput::new(run.options, vec!["valgrind".into()], Box::new(FakeEnv::default())),
        other => panic!("{line}: {other:?}"),
    }
}

/// With the log in memory; other destinations are what the options say.
fn probe(line: &str) -> Probe {
    probe_with_rules(line, "")
}

fn probe_with_rules(line: &str, rules: &str) -> Probe {
    let run = output(&format!("--default-suppressions=no {line}"));
    let (log, bytes) = Sink::memory();
    let start = ProcessStart { pid: 7, parent: 6, command: vec!["./p".into()], tool_command: vec!["valgrind".into()] };
    let outputs = run.open(&start).expect("opens");
    let mut reporter = Reporter::begin(run.clone(), start, Outputs { log, ..outputs }).expect("starts");
    reporter.rules = Suppressions::new(crate::suppress::parse::parse("s.supp", rules).expect("well formed"));
    bytes.lock().expect("memory").clear(); // the banner has its own test
    Probe { run, reporter, log: bytes }
}

impl Probe {
    /// What was printed since the last call, with `==7== ` taken off where it stands.
    fn printed(&self) -> String {
        let bytes = std::mem::take(&mut *self.log.lock().expect("memory"));
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| format!("{}\n", line.strip_prefix("==7== ").unwrap_or(line))).collect()
    }
}

fn at(addr: u64) -> Stack {
    Stack(vec![frame(addr, "main", "a.c", 9)])
}

/// Where the allocation functions are.
const ALLOCATORS: [(u64, &str); 2] = [(0x48417b4, "malloc"), (0x48427b4, "calloc")];

fn loss(kind: LeakKind, bytes: u64, indirect: u64, name: &str) -> LossRecord {
    let allocator = ALLOCATORS.iter().find(|known| known.1 == name).expect("a known name").0;
    let addresses = vec![allocator, 0x1092ff];
    LossRecord { kind, direct: Tally::new(bytes, 1), indirect_bytes: indirect, change: None, addresses }
}

/// Knows them, and takes the rest for `main`.
struct Known;

impl Names for Known {
    fn outline(&mut self, addresses: &[u64]) -> Stack {
        self.full(addresses)
    }

    fn full(&mut self, addresses: &[u64]) -> Stack {
        let name = |&addr| match ALLOCATORS.iter().find(|known| known.0 == addr) {
            Some((_, name)) => library_frame(addr, name, "/lib/heap.so"),
            None => frame(addr, "main", "a.c", 11),
        };
        Stack(addresses.iter().map(name).collect())
    }
}

fn search(full: bool, records: Vec<LossRecord>) -> LeakSearch {
    LeakSearch { records, full, ..LeakSearch::default() }
}

const HEAP: HeapSummary = HeapSummary { in_use: Tally { bytes: 350, blocks: 6 }, allocs: 7, frees: 3, allocated_bytes: 3350 };
