//! Findings as they happen: shown, counted, suppressed, inherited.

use super::*;

#[test]
fn generated_suppressions_have_no_prefix() {
    let mut probe = probe("--gen-suppressions=all");
    probe.reporter.error(ErrorRecord::condition(1, at(0x109202)));
    assert_eq!(
        probe.printed(),
        "Conditional jump or move depends on uninitialised value(s)
   at 0x109202: main (a.c:9)

{
   <insert_a_suppression_name_here>
   Memcheck:Cond
   fun:main
}
"
    );
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
        "\n\n\nMore than 100 errors detected.  Subsequent errors\nwill still be recorded, but in less detail than before.\nInvalid free"
    ));
    assert_eq!(probe.reporter.error(ErrorRecord::invalid_free(1, at(2000))), Outcome::Dropped);
    assert_eq!(
        probe.printed(),
        "
More than 1000 different errors detected.  I'm not reporting any more.
Final error counts will be inaccurate.  Go fix your program!
Rerun with --error-limit=no to disable this cutoff.  Note
that errors may occur in your program without prior warning from
Valgrind, because errors are no longer being displayed.

"
    );
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
