//! The end of a run: heap, leaks, lists, hints.

use super::*;

#[test]
fn a_run_with_findings_in_two_threads() {
    let mut probe = probe("");
    let block = Block { start: 0x4a40040, size: 10, state: BlockState::Live, allocated: Some(at(0x1091f0)), freed: None };
    let write = ErrorRecord::invalid_write(1, 2, at(0x1091bd)).with_aux(Address::Block(block).aux(0x4a4004a));
    assert_eq!(probe.reporter.error(write.clone()), Outcome::Shown);
    assert_eq!(probe.reporter.error(write), Outcome::Repeated);
    assert_eq!(probe.reporter.error(ErrorRecord::condition(1, at(0x10ab))), Outcome::Shown);
    assert_eq!(
        probe.printed(),
        "Thread 2:
Invalid write of size 1
   at 0x1091BD: main (a.c:9)
 Address 0x4a4004a is 0 bytes after a block of size 10 alloc'd
   at 0x1091F0: main (a.c:9)

Thread 1:
Conditional jump or move depends on uninitialised value(s)
   at 0x10AB: main (a.c:9)

"
    );
    assert!(probe.reporter.heap_summary(&HEAP));
    probe
        .reporter
        .leaks(search(false, vec![loss(LeakKind::Definite, 5, 0, "malloc"), loss(LeakKind::Reachable, 10, 0, "malloc")]), &mut Known);
    probe.reporter.finish();
    assert_eq!(
        probe.printed(),
        "
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
"
    );
    assert_eq!((probe.reporter.error_count(), probe.reporter.exit_code(5)), (3, 5));
}

#[test]
fn leaks_in_full_with_hidden_and_suppressed_records() {
    let rules = "{\nleaky\nMemcheck:Leak\nfun:calloc\n}\n";
    let mut probe = probe_with_rules("--leak-check=full --show-leak-kinds=definite", rules);
    probe.reporter.error(ErrorRecord::invalid_read(4, 2, at(1)));
    probe.printed();
    let records = vec![
        loss(LeakKind::Definite, 32, 64, "malloc"),
        loss(LeakKind::Indirect, 64, 0, "malloc"),
        loss(LeakKind::Possible, 272, 0, "malloc"),
        loss(LeakKind::Definite, 85, 0, "calloc"),
        loss(LeakKind::Reachable, 10, 0, "malloc"),
    ];
    let totals = probe.reporter.leaks(search(true, records), &mut Known);
    assert_eq!(
        probe.printed(),
        "Thread 1:
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

"
    );
    assert_eq!(totals.suppressed, Tally::new(85, 1));
    probe.reporter.finish();
    // Possible leaks count though they are hidden; of the suppressed ones the definite counts as suppressed.
    assert_eq!(
        probe.printed(),
        "For lists of detected and suppressed errors, rerun with: -s
ERROR SUMMARY: 3 errors from 3 contexts (suppressed: 1 from 1)
"
    );
}

#[test]
fn differences_from_the_check_before() {
    let mut probe = probe("--leak-check=full");
    probe.reporter.leaks(search(false, vec![loss(LeakKind::Reachable, 20, 0, "malloc")]), &mut Known);
    probe.printed();
    let change = |bytes, blocks| Some(leak::Change { bytes, indirect_bytes: 0, blocks });
    let grown = LossRecord { change: change(7, 1), ..loss(LeakKind::Definite, 7, 0, "malloc") };
    let same = LossRecord { change: change(0, 0), ..loss(LeakKind::Definite, 20, 0, "calloc") };
    probe.reporter.leaks(LeakSearch { delta: Some(leak::DeltaMode::Changed), ..search(true, vec![same, grown]) }, &mut Known);
    assert_eq!(
        probe.printed(),
        "7 (+7) bytes in 1 (+1) blocks are definitely lost in loss record 1 of 2
   at 0x48417B4: malloc (in /lib/heap.so)
   by 0x1092FF: main (a.c:11)

LEAK SUMMARY:
   definitely lost: 27 (+27) bytes in 2 (+2) blocks
   indirectly lost: 0 (+0) bytes in 0 (+0) blocks
     possibly lost: 0 (+0) bytes in 0 (+0) blocks
   still reachable: 0 (-20) bytes in 0 (-1) blocks
        suppressed: 0 (+0) bytes in 0 (+0) blocks

"
    );
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
    assert_eq!(
        probe.printed(),
        "ERROR SUMMARY: 3 errors from 2 contexts (suppressed: 2 from 1)

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
"
    );
    probe.reporter.finish();
    assert_eq!(probe.printed(), "");
}

#[test]
fn quiet_keeps_findings_and_records_only() {
    let mut probe = probe("-q --leak-check=full");
    probe.reporter.error(ErrorRecord::invalid_read(1, 1, at(2)));
    probe.reporter.heap_summary(&HEAP);
    probe.reporter.leaks(search(true, vec![loss(LeakKind::Definite, 5, 0, "malloc")]), &mut Known);
    let abort = FatalSignal { signo: 6, code: -6, thread: 1, ..FatalSignal::default() };
    probe.reporter.fatal_signal(&abort, false);
    probe.reporter.finish();
    assert_eq!(
        probe.printed(),
        "Invalid read of size 1
   at 0x2: main (a.c:9)

5 bytes in 1 blocks are definitely lost in loss record 1 of 1
   at 0x48417B4: malloc (in /lib/heap.so)
   by 0x1092FF: main (a.c:11)

"
    );
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
    assert_eq!(
        end("", None),
        [
            "All heap blocks were freed -- no leaks are possible",
            "",
            "For lists of detected and suppressed errors, rerun with: -s",
            "ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 0 from 0)"
        ]
    );
    assert_eq!(
        end("-s --leak-check=no", None),
        [
            "For a detailed leak analysis, rerun with: --leak-check=full",
            "",
            "ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 0 from 0)"
        ]
    );
}

#[test]
fn open_descriptors_come_before_the_heap() {
    use crate::render::descriptors::{Descriptor, OpenDescriptor};
    let open = [OpenDescriptor { number: 3, descriptor: Descriptor::File(None), opened: Some(at(1)) }];
    let mut probe = probe("--track-fds=yes");
    probe.reporter.open_descriptors(&open, true);
    probe.reporter.heap_summary(&HEAP);
    assert!(
        probe.printed().starts_with(
            "\nFILE DESCRIPTORS: 1 open (0 std) at exit.\nOpen file descriptor 3:\n   at 0x1: main (a.c:9)\n\n\nHEAP SUMMARY:\n"
        )
    );
    let mut untracked = self::probe("");
    untracked.reporter.open_descriptors(&open, true);
    assert_eq!(untracked.printed(), "");
}
