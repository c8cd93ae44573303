//! Whole reports of small runs, line by line as Valgrind 3.19 printed them for the same findings.

use std::sync::Mutex;

use super::*;
use crate::address::{Address, Block, BlockState};
use crate::error::LeakKind;
use crate::frame::testing::{frame, library_frame};
use crate::leak::{self, LeakSearch, LossRecord, Tally};
use crate::options::testing::FakeEnv;
use crate::options::{Invocation, parse};
use crate::render::HeapSummary;
use crate::sink::Sink;

/// A reporter with pid 7 whose log is in memory.
struct Probe {
    run: Arc<RunOutput>,
    reporter: Reporter,
    log: Arc<Mutex<Vec<u8>>>,
}

fn output(line: &str) -> Arc<RunOutput> {
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

#[test]
fn leaks_in_full_with_hidden_and_suppressed_records() {
    let rules = "{\nleaky\nMemcheck:Leak\nfun:calloc\n}\n";
    let mut probe = probe_with_rules("--leak-check=full --show-leak-kinds=definite", rules);
    probe.reporter.error(ErrorRecord::invalid_read(4, 2, at(1)));
    probe.printed();
    let records = vec![loss(LeakKind::Definite, 32, 64, "malloc"), loss(LeakKind::Indirect, 64, 0, "malloc"),
        loss(LeakKind::Possible, 272, 0, "malloc"), loss(LeakKind::Definite, 85, 0, "calloc"), loss(LeakKind::Reachable, 10, 0, "malloc")];
    let totals = probe.reporter.leaks(search(true, records));
    assert_eq!(probe.printed(), "Thread 1:
96 (32 direct, 64 indirect) bytes in 1 blocks are definitely lost in loss record 4 of 5
   at 0x48417B4: malloc (in /lib/heap.so)
   by 0x1092FF: main (a.c:11)

LEAK SUMMARY:
   definitely lost: 32 bytes in 1 blocks
   indirectly lost: 64 bytes in 1 blocks
     possibly lost: 272 bytes in 1 blocks
   still reachable: 10 bytes in 1 blocks
        suppressed: 85 bytes in 1 blocks
Reachable blocks (those to which a pointer was found) are not shown.
To see them, rerun with: --leak-check=full --show-leak-kinds=all

");
    assert_eq!(totals.suppressed, Tally::new(85, 1));
    probe.reporter.finish();
    // Possible leaks count though they are hidden; of the suppressed ones the definite counts as suppressed.
    assert_eq!(probe.printed(), "For lists of detected and suppressed errors, rerun with: -s
ERROR SUMMARY: 3 errors from 3 contexts (suppressed: 1 from 1)
");
}

#[test]
fn differences_from_the_check_before() {
    let mut probe = probe("--leak-check=full");
    probe.reporter.leaks(search(false, vec![loss(LeakKind::Reachable, 20, 0, "malloc")]));
    probe.printed();
    let change = |bytes, blocks| Some(leak::Change { bytes, indirect_bytes: 0, blocks });
    let grown = LossRecord { change: change(7, 1), ..loss(LeakKind::Definite, 7, 0, "malloc") };
    let same = LossRecord { change: change(0, 0), ..loss(LeakKind::Definite, 20, 0, "calloc") };
    probe.reporter.leaks(LeakSearch { delta: Some(leak::DeltaMode::Changed), ..search(true, vec![same, grown]) });
    assert_eq!(probe.printed(), "7 (+7) bytes in 1 (+1) blocks are definitely lost in loss record 1 of 2
   at 0x48417B4: malloc (in /lib/heap.so)
   by 0x1092FF: main (a.c:11)

LEAK SUMMARY:
   definitely lost: 27 (+27) bytes in 2 (+2) blocks
   indirectly lost: 0 (+0) bytes in 0 (+0) blocks
     possibly lost: 0 (+0) bytes in 0 (+0) blocks
   still reachable: 0 (-20) bytes in 0 (-1) blocks
        suppressed: 0 (+0) bytes in 0 (+0) blocks

");
}

#[test]
fn the_list_at_the_end() {
    let mut probe = probe_with_rules("-s --error-markers=B,E", "{\nmine\nMemcheck:Cond\nfun:main\n}\n");
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    probe.reporter.error(ErrorRecord::invalid_read(1, 2, at(2)));
    assert_eq!(probe.reporter.error(ErrorRecord::condition(1, at(3))), Outcome::Suppressed);
    assert!(probe.reporter.repeat(&ErrorKind::Cond, &[3]));
    assert!(probe.reporter.repeat(&ErrorKind::Read { size: 1 }, &[2]));
    probe.printed();
    probe.reporter.finish();
    assert_eq!(probe.printed(), "ERROR SUMMARY: 3 errors from 2 contexts (suppressed: 2 from 1)

1 errors in context 1 of 2:
B
Thread 1:
Invalid free() / delete / delete[] / realloc()
   at 0x1: main (a.c:9)

E

2 errors in context 2 of 2:
B
Thread 2:
Invalid read of size 1
   at 0x2: main (a.c:9)

E
--7-- 
--7-- used_suppression:      2 mine s.supp:2

ERROR SUMMARY: 3 errors from 2 contexts (suppressed: 2 from 1)
");
    probe.reporter.finish();
    assert_eq!(probe.printed(), "");
}

#[test]
fn quiet_keeps_findings_and_records_only() {
    let mut probe = probe("-q --leak-check=full");
    probe.reporter.error(ErrorRecord::invalid_read(1, 1, at(2)));
    probe.reporter.heap_summary(&HEAP);
    probe.reporter.leaks(search(true, vec![loss(LeakKind::Definite, 5, 0, "malloc")]));
    let abort = FatalSignal { signo: 6, code: -6, thread: 1, ..FatalSignal::default() };
    probe.reporter.fatal_signal(&abort, false);
    probe.reporter.finish();
    assert_eq!(probe.printed(), "Invalid read of size 1
   at 0x2: main (a.c:9)

5 bytes in 1 blocks are definitely lost in loss record 1 of 1
   at 0x48417B4: malloc (in /lib/heap.so)
   by 0x1092FF: main (a.c:11)

");
}

#[test]
fn hints_at_the_end_depend_on_options_and_findings() {
    let end = |line: &str, record: Option<ErrorRecord>| {
        let mut probe = probe(line);
        record.map(|record| probe.reporter.error(record));
        probe.printed();
        probe.reporter.heap_summary(&HeapSummary::default());
        probe.reporter.finish();
        probe.printed().lines().skip(5).map(str::to_string).collect::<Vec<_>>()
    };
    const TRACK: &str = "Use --track-origins=yes to see where uninitialised values come from";
    let condition = || Some(ErrorRecord::condition(1, at(1)));
    assert!(end("--track-origins=no", condition()).iter().any(|line| line == TRACK));
    assert!(!end("--track-origins=no", Some(ErrorRecord::invalid_free(1, at(1)))).iter().any(|line| line == TRACK));
    assert!(!end("", condition()).iter().any(|line| line == TRACK));
    assert_eq!(end("", None), ["All heap blocks were freed -- no leaks are possible", "",
        "For lists of detected and suppressed errors, rerun with: -s", "ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 0 from 0)"]);
    assert_eq!(end("-s --leak-check=no", None), ["For a detailed leak analysis, rerun with: --leak-check=full", "",
        "ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 0 from 0)"]);
}

#[test]
fn generated_suppressions_have_no_prefix() {
    let mut probe = probe("--gen-suppressions=all");
    probe.reporter.error(ErrorRecord::condition(1, at(0x109202)));
    assert_eq!(probe.printed(), "Conditional jump or move depends on uninitialised value(s)
   at 0x109202: main (a.c:9)

{
   <insert_a_suppression_name_here>
   Memcheck:Cond
   fun:main
}
");
}

#[test]
fn stacks_are_kept_to_the_length_asked_for() {
    let mut probe = probe_with_rules("--num-callers=1", "{\ntwo\nMemcheck:Free\nfun:f\nfun:main\n}\n");
    let stack = Stack(vec![frame(1, "f", "a.c", 1), frame(2, "main", "a.c", 2)]);
    // A rule that needs a second frame cannot match what was not kept.
    assert_eq!(probe.reporter.error(ErrorRecord::invalid_free(1, stack)), Outcome::Shown);
    assert_eq!(probe.printed(), "Invalid free() / delete / delete[] / realloc()\n   at 0x1: f (a.c:1)\n\n");
}

#[test]
fn the_first_error_may_be_the_last() {
    let mut probe = probe("--exit-on-first-error=yes --error-exitcode=9");
    assert_eq!(probe.reporter.exit_code(0), 0);
    assert_eq!(probe.reporter.error(ErrorRecord::invalid_free(1, at(1))), Outcome::ShownAndExit);
    assert!(probe.printed().ends_with("\n\n\nExit program on first error (--exit-on-first-error=yes)\n"));
    assert_eq!(probe.reporter.exit_code(0), 9);
}

#[test]
fn too_many_findings() {
    let mut probe = probe("");
    for addr in 0..1000 {
        assert_eq!(probe.reporter.error(ErrorRecord::invalid_free(1, at(addr))), Outcome::Shown);
    }
    assert!(probe.printed().contains(
        "\n\n\nMore than 100 errors detected.  Subsequent errors\nwill still be recorded, but in less detail than before.\nInvalid free"));
    assert_eq!(probe.reporter.error(ErrorRecord::invalid_free(1, at(2000))), Outcome::Dropped);
    assert_eq!(probe.printed(), "
More than 1000 different errors detected.  I'm not reporting any more.
Final error counts will be inaccurate.  Go fix your program!
Rerun with --error-limit=no to disable this cutoff.  Note
that errors may occur in your program without prior warning from
Valgrind, because errors are no longer being displayed.

");
    assert_eq!(probe.reporter.error(ErrorRecord::invalid_free(1, at(2001))), Outcome::Dropped);
    assert_eq!(probe.printed(), "");
}

#[test]
fn a_child_goes_on_from_its_parents_counts_and_exec_starts_anew() {
    let mut probe = probe("");
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    probe.printed();
    let mut child = probe.reporter.fork(8);
    assert_eq!(child.error(ErrorRecord::invalid_free(1, at(1))), Outcome::Repeated);
    assert_eq!((child.error_count(), probe.reporter.error_count()), (2, 1));
    child.error(ErrorRecord::invalid_free(1, at(2)));
    assert_eq!(probe.printed(), "==8== Invalid free() / delete / delete[] / realloc()\n==8==    at 0x2: main (a.c:9)\n==8== \n");
    let next = child.exec(vec!["./q".into()]);
    assert_eq!((next.error_count(), next.pid()), (0, 8));
    assert!(probe.printed().ends_with("==8== Command: ./q\n==8== \n"));
}

#[test]
fn a_silenced_child_speaks_again_after_exec() {
    let probe = probe("--child-silent-after-fork=yes");
    let mut child = probe.reporter.fork(8);
    child.error(ErrorRecord::invalid_free(1, at(1)));
    child.heap_summary(&HEAP);
    assert_eq!(probe.printed(), "");
    let mut next = child.exec(vec!["./q".into()]);
    next.error(ErrorRecord::invalid_free(1, at(1)));
    assert!(probe.printed().contains("==8== Invalid free()"));
}

#[test]
fn the_programs_own_text() {
    let mut probe = probe("");
    probe.reporter.client_print(1, None, "no nl", None);
    probe.reporter.client_print(1, None, "bt 3\n", Some(at(0x109378)));
    assert_eq!(probe.printed(), "**7** no nlbt 3\n   at 0x109378: main (a.c:9)\n");
}

/// A fresh directory of this test process.
fn scratch(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("memcheck-reporter-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary directory");
    dir
}

fn xml_probe(dir: &std::path::Path) -> Probe {
    probe(&format!("--xml=yes --xml-file={}/x.xml", dir.display()))
}

/// Opening and closing tags in balance, one root.
fn is_complete(document: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = document.strip_prefix("<?xml version=\"1.0\"?>").unwrap_or("");
    while let Some((_, after)) = rest.split_once('<') {
        let Some((tag, next)) = after.split_once('>') else { return false };
        if let Some(closing) = tag.strip_prefix('/') {
            if open.pop() != Some(closing) {
                return false;
            }
        } else if !tag.starts_with('!') {
            open.push(tag);
        }
        rest = next;
    }
    open.is_empty() && document.trim_end().ends_with("</valgrindoutput>")
}

#[test]
fn an_xml_document_is_complete_and_ends_with_the_last_process() {
    let dir = scratch("complete");
    let mut probe = xml_probe(&dir);
    let read = || std::fs::read_to_string(dir.join("x.xml")).expect("written");
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    let mut child = probe.reporter.fork(8);
    probe.reporter.heap_summary(&HEAP);
    probe.reporter.leaks(search(true, vec![loss(LeakKind::Definite, 5, 0, "malloc")]));
    probe.reporter.finish();
    assert!(!is_complete(&read()), "the child may still report");
    child.error(ErrorRecord::invalid_free(1, at(2)));
    child.heap_summary(&HEAP);
    child.finish();
    let document = read();
    assert!(is_complete(&document), "{document}");
    let mut uniques: Vec<_> = document.lines().filter(|line| line.starts_with("  <unique>")).collect();
    uniques.sort_unstable();
    uniques.dedup();
    assert_eq!(uniques.len(), 3, "two findings and a leak: {uniques:?}");
    let position = |text: &str| document.find(text).unwrap_or_else(|| panic!("{text} in {document}"));
    let order = ["RUNNING", "<kind>InvalidFree", "FINISHED", "Leak_DefinitelyLost", "<errorcounts>", "<suppcounts>"].map(position);
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(document.matches("FINISHED").count(), 1);
    assert_eq!(probe.printed(), "", "findings are not in the log too");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn an_xml_document_is_complete_even_if_the_run_is_cut_short() {
    let dir = scratch("cut");
    let mut probe = xml_probe(&dir);
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    probe.run.close();
    probe.run.close();
    assert!(is_complete(&std::fs::read_to_string(dir.join("x.xml")).expect("written")));
    drop(probe);
    assert!(is_complete(&std::fs::read_to_string(dir.join("x.xml")).expect("written")), "one end tag only");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn reports_beside_the_log() {
    let dir = scratch("reports");
    let mut probe = probe(&format!("--report=json:{0}/r.json --report=sarif:{0}/r.sarif --report=github:{0}/r.txt", dir.display()));
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    probe.reporter.repeat(&ErrorKind::InvalidFree, &[1]);
    probe.reporter.heap_summary(&HEAP);
    probe.reporter.leaks(search(true, vec![loss(LeakKind::Definite, 5, 0, "malloc")]));
    probe.reporter.fork(8).finish(); // has found nothing itself
    probe.reporter.finish();
    probe.run.close();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("written");
    let events: Vec<_> = read("r.json").lines().filter(|line| line.contains("\"pid\":7,")).map(|line| line.split('"').nth(3).unwrap_or("").to_string()).collect();
    assert_eq!(events, ["start", "error", "heap_summary", "error", "leak_summary", "finish"]);
    assert!(read("r.json").contains("\"counts\":[{\"id\":0,\"count\":2}]"));
    assert_eq!(read("r.txt").matches("::error ").count(), 2);
    assert!(read("r.sarif").contains("\"ruleId\":\"leak-definite\"") && read("r.sarif").contains("\"occurrenceCount\":2"));
    assert_eq!(read("r.sarif").matches("\"occurrenceCount\"").count(), 2, "nothing is there twice");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn rules_that_cannot_be_read_end_the_run() {
    let dir = scratch("rules");
    let (log, rules) = (dir.join("log"), dir.join("bad.supp"));
    std::fs::write(&rules, "{\n n\n Memcheck:Foo\n fun:a\n}\n").expect("written");
    let fatal = |file: &str| {
        let run = output(&format!("-q --log-file={} --suppressions={file}", log.display()));
        let error = run.process(7, 6, vec!["./p".into()]).err().expect("no rules, no run");
        (error.exit_code, std::fs::read_to_string(&log).expect("log"))
    };
    let bad = rules.display().to_string();
    assert_eq!(fatal(&bad), (1, format!(
        "==7== FATAL: in suppressions file \"{bad}\" near line 3:\n==7==    unknown tool suppression type\n==7== exiting now.\n")));
    assert_eq!(fatal("/nonexistent/x"), (1, "==7== FATAL: can't open suppressions file \"/nonexistent/x\"\n".to_string()));
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn every_process_may_have_its_own_file() {
    let dir = scratch("own");
    let run = output(&format!("--default-suppressions=no --log-file={}/%p", dir.display()));
    let parent = run.process(7, 6, vec!["./p".into()]).expect("starts");
    let mut child = parent.fork(8);
    child.error(ErrorRecord::invalid_free(1, at(1)));
    let text = std::fs::read_to_string(dir.join("8")).expect("own file");
    assert!(text.contains("==8== Command: ./p\n==8== Parent PID: 7\n==8== \n==8== Invalid free()"), "{text}");
    assert!(!std::fs::read_to_string(dir.join("7")).expect("file").contains("==8=="));
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn open_descriptors_come_before_the_heap() {
    use crate::render::descriptors::{Descriptor, OpenDescriptor};
    let open = [OpenDescriptor { number: 3, descriptor: Descriptor::File(None), opened: Some(at(1)) }];
    let mut probe = probe("--track-fds=yes");
    probe.reporter.open_descriptors(&open);
    probe.reporter.heap_summary(&HEAP);
    assert!(probe.printed().starts_with(
        "\nFILE DESCRIPTORS: 1 open (0 std) at exit.\nOpen file descriptor 3:\n   at 0x1: main (a.c:9)\n\n\nHEAP SUMMARY:\n"));
    let mut untracked = self::probe("");
    untracked.reporter.open_descriptors(&open);
    assert_eq!(untracked.printed(), "");
}
