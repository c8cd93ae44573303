//! Whole reports of small runs, line by line as Valgrind 3.19 printed them for the same findings.

use std::sync::Mutex;

use super::*;
use crate::address::{Address, Block, BlockState};
use crate::error::LeakKind;
use crate::frame::testing::{frame, library_frame};
use crate::leak::Tally;
use crate::options::testing::FakeEnv;
use crate::options::{Invocation, RcFile, parse};
use crate::sink::Sink;

/// A reporter with pid 7 whose log is in memory.
struct Probe {
    reporter: Reporter,
    log: Arc<Mutex<Vec<u8>>>,
}

fn options(line: &str) -> Options {
    let words: Vec<_> = format!("{line} ./p").split_whitespace().map(Into::into).collect();
    match parse("valgrind".as_ref(), &words, &FakeEnv::default().with_file("none", RcFile::Absent)) {
        Ok(Invocation::Run(run)) => run.options,
        other => panic!("{line}: {other:?}"),
    }
}

fn probe(line: &str) -> Probe {
    let run = RunOutput::new(options(line), vec!["valgrind".into()], Box::new(FakeEnv::default()));
    let (log, bytes) = Sink::memory();
    let start = ProcessStart { pid: 7, parent: 6, command: vec!["./p".into()], tool_command: vec!["valgrind".into()] };
    let outputs = Outputs { log, xml: None, reports: Vec::new(), notes: Vec::new() };
    let reporter = Reporter::begin(run, start, outputs).expect("starts");
    bytes.lock().expect("memory").clear(); // the banner has its own test
    Probe { reporter, log: bytes }
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

fn loss(kind: LeakKind, bytes: u64, indirect: u64, name: &str) -> LossRecord {
    let stack = Stack(vec![library_frame(0x48417b4, name, "/lib/heap.so"), frame(0x1092ff, "main", "a.c", 11)]);
    LossRecord { kind, direct: Tally::new(bytes, 1), indirect_bytes: indirect, change: None, stack }
}

fn search(full: bool, records: Vec<LossRecord>) -> LeakSearch {
    LeakSearch { records, full, ..LeakSearch::default() }
}

const HEAP: HeapSummary = HeapSummary { in_use: Tally { bytes: 350, blocks: 6 }, allocs: 7, frees: 3, allocated_bytes: 3350 };

#[test]
fn a_run_with_findings_in_two_threads() {
    let mut probe = probe("");
    let block = Block { start: 0x4a40040, size: 10, state: BlockState::Live, allocated: Some(at(0x1091f0)), freed: None };
    let write = ErrorRecord::invalid_write(1, 2, at(0x1091bd)).with_aux(Address::Block(block).aux(0x4a4004a));
    assert_eq!(probe.reporter.error(write.clone()), Outcome::Shown);
    assert_eq!(probe.reporter.error(write), Outcome::Repeated);
    assert_eq!(probe.reporter.error(ErrorRecord::condition(1, at(0x10ab))), Outcome::Shown);
    assert_eq!(probe.printed(), "Thread 2:
Invalid write of size 1
   at 0x1091BD: main (a.c:9)
 Address 0x4a4004a is 0 bytes after a block of size 10 alloc'd
   at 0x1091F0: main (a.c:9)

Thread 1:
Conditional jump or move depends on uninitialised value(s)
   at 0x10AB: main (a.c:9)

");
    assert!(probe.reporter.heap_summary(&HEAP));
    probe.reporter.leaks(search(false, vec![loss(LeakKind::Definite, 5, 0, "malloc"), loss(LeakKind::Reachable, 10, 0, "malloc")]));
    probe.reporter.finish();
    assert_eq!(probe.printed(), "
HEAP SUMMARY:
    in use at exit: 350 bytes in 6 blocks
  total heap usage: 7 allocs, 3 frees, 3,350 bytes allocated

LEAK SUMMARY:
   definitely lost: 5 bytes in 1 blocks
   indirectly lost: 0 bytes in 0 blocks
     possibly lost: 0 bytes in 0 blocks
   still reachable: 10 bytes in 1 blocks
        suppressed: 0 bytes in 0 blocks
Rerun with --leak-check=full to see details of leaked memory

For lists of detected and suppressed errors, rerun with: -s
ERROR SUMMARY: 3 errors from 2 contexts (suppressed: 0 from 0)
");
    assert_eq!((probe.reporter.error_count(), probe.reporter.exit_code(5)), (3, 5));
}
