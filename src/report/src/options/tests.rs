//! The command line against what Valgrind 3.19 prints and does.

use super::testing::FakeEnv;
use super::*;
use crate::error::LeakKind;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parse_as(name: &str, line: &str) -> Result<Invocation, UsageError> {
    parse(OsStr::new(name), &words(line), &FakeEnv::default())
}

fn run(line: &str) -> Run {
    match parse_as("/usr/bin/valgrind", line) {
        Ok(Invocation::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn complaint(line: &str) -> Vec<String> {
    parse_as("valgrind", line).expect_err(line).lines
}

#[test]
fn the_table_makes_a_valid_parser() {
    table::command().debug_assert();
}

#[test]
fn the_program_begins_at_the_first_word_that_is_not_an_option() {
    let given = run("-q --leak-check=full ./p --leak-check=no -- -q");
    assert_eq!(given.command, words("./p --leak-check=no -- -q"));
    assert_eq!(given.given, words("-q --leak-check=full"));
    assert!(given.options.is_quiet());
    assert_eq!(run("-- -odd-name x").command, words("-odd-name x"));
}

#[test]
fn the_last_one_wins_and_lists_collect() {
    let options = run("--num-callers=3 --num-callers=5 --suppressions=a --suppressions=b --log-file=x --log-fd=9 p").options;
    assert_eq!(options.num_callers, 5);
    assert_eq!(options.suppressions, [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!(options.log, Destination::Descriptor(9));
    let options = run("--show-leak-kinds=definite --show-reachable=yes --show-possibly-lost=no p").options;
    assert!(options.show_leak_kinds.contains(LeakKind::Reachable) && !options.show_leak_kinds.contains(LeakKind::Possible));
    let options = run("--show-leak-kinds=indirect,reachable --show-reachable=no p").options;
    assert_eq!(options.show_leak_kinds.0, run("--show-leak-kinds=indirect p").options.show_leak_kinds.0, "only that kind goes");
    let options = run("--show-reachable=yes --show-leak-kinds=indirect p").options;
    assert_eq!(options.show_leak_kinds, LeakKindSet(2));
}

#[test]
fn flags_count() {
    assert_eq!(run("-v -v p").options.verbosity, 3);
    assert_eq!(run("--quiet -v p").options.verbosity, 1);
    assert!(run("-s p").options.show_error_list);
}

#[test]
fn other_tools_options_are_skipped_and_ours_may_be_named() {
    let options = run("--helgrind:foo=1 --memcheck:num-callers=7 --tool=memcheck p").options;
    assert_eq!(options.num_callers, 7);
}

#[test]
fn complaints_are_word_by_word() {
    const USE_HELP: &str = "valgrind: Use --help for more information or consult the user manual.";
    for (line, expected) in [
        ("--foo p", &["Unknown option: --foo"][..]),
        ("--leak-check=foo p", &["Unknown option: --leak-check=foo"]),
        ("--leak-check p", &["Unknown option: --leak-check"]),
        ("--memcheck:foo=1 p", &["Unknown option: --foo=1"]),
        ("--num-callers=1000 p", &["Bad option: --num-callers=1000", "'--num-callers' argument must be between 1 and 500"]),
        ("--num-callers=0x10 p", &["Bad option: --num-callers=0x10", "Invalid integer value '0x10'"]),
        ("--error-exitcode=99999999999 p", &["Bad option: --error-exitcode=99999999999", "Invalid integer value '99999999999'"]),
        ("--trace-children=maybe p", &["Bad option: --trace-children=maybe", "Invalid boolean value 'maybe' (should be 'yes' or 'no')"]),
        ("--show-leak-kinds=foo p", &["Bad option: --show-leak-kinds=foo", "foo is an invalid show-leak-kinds set"]),
        ("--errors-for-leak-kinds=,, p", &["Bad option: --errors-for-leak-kinds=,,", ",, is an invalid errors-for-leak-kinds set"]),
        ("--malloc-fill=zz p", &["Bad option: --malloc-fill=zz", "Invalid integer value 'zz'"]),
        ("--malloc-fill=256 p", &["Bad option: --malloc-fill=256", "'--malloc-fill' argument must be between 0 and 255"]),
        ("--malloc-fill=-1 p", &["Bad option: --malloc-fill=-1", "'--malloc-fill' argument must be between 0 and 255"]),
        ("--freelist-vol=-1 p", &["Bad option: --freelist-vol=-1", "'--freelist-vol' argument must be between 0 and 10000000000"]),
        ("--alignment=7 p", &["Bad option: --alignment=7", "Alignment must be a power of 2 in the range 16..4096."]),
        ("--track-fds=q p", &["Bad option: --track-fds=q", "Bad argument, should be 'yes', 'all' or 'no'"]),
        ("--vex-iropt-level=9 p", &["Bad option: --vex-iropt-level=9", "'--vex-iropt-level' argument must be between 0 and 2"]),
        (
            "--undef-value-errors=no --track-origins=yes p",
            &["Bad option: --track-origins=yes", "--track-origins=yes has no effect when --undef-value-errors=no."],
        ),
    ] {
        let mut whole: Vec<String> = expected.iter().map(|text| format!("valgrind: {text}")).collect();
        whole.push(USE_HELP.to_string());
        assert_eq!(complaint(line), whole, "{line}");
    }
    assert_eq!(
        complaint("--tool=helgrind p"),
        ["valgrind: failed to start tool 'helgrind' for platform 'amd64-linux': No such file or directory"]
    );
    assert_eq!(complaint("-q"), ["valgrind: no program specified", "valgrind: Use --help for more information."]);
}

#[test]
fn what_is_judged_late_carries_the_process_id() {
    let pid = std::process::id();
    assert_eq!(
        complaint("--exit-on-first-error=yes p")[1],
        format!("=={pid}== You must define a non nul exit error code, with --error-exitcode=...")
    );
    assert_eq!(complaint("--xml=yes p")[0], format!("=={pid}== Bad option: --xml=yes, but no XML destination specified"));
    assert_eq!(
        complaint("--xml=yes --xml-fd=9 --gen-suppressions=yes p")[0],
        format!("=={pid}== Bad option: --xml=yes together with --gen-suppressions=yes")
    );
}

#[test]
fn xml_lists_everything() {
    assert_eq!(complaint("--xml=yes --xml-fd=-1 p"), complaint("--xml=yes p"));
    let options = run("--xml=yes --xml-file=x p").options;
    assert_eq!((options.leak_check, options.error_limit), (LeakCheck::Full, false));
}

#[test]
fn origins_are_tracked_unless_values_are_not_checked() {
    assert!(run("p").options.track_origins);
    assert!(!run("--undef-value-errors=no p").options.track_origins);
}

#[test]
fn own_name_gives_a_hint() {
    let lines = parse_as("memcheck", "--leak-chek=full p").expect_err("misspelt").lines;
    assert_eq!(lines[..2], ["memcheck: Unknown option: --leak-chek=full", "memcheck: Did you mean --leak-check=<no|summary|yes|full>?"]);
}

#[test]
fn versions_and_help() {
    let text = |name, line| match parse_as(name, line) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(text("my-valgrind-link", "--version"), "valgrind-3.19.0\n");
    assert_eq!(text("memcheck", "--compat=valgrind --version"), "valgrind-3.19.0\n");
    assert_eq!(text("memcheck", "--version"), format!("memcheck {}\n", env!("CARGO_PKG_VERSION")));
    let help = text("valgrind", "--tool=memcheck --help");
    for row in table::rows().filter(|row| !row.ignored) {
        assert!(help.contains(row.name), "{} is missing from the help", row.name);
    }
}

#[test]
fn sources_come_before_the_command_line() {
    let env = || {
        FakeEnv::default()
            .with("HOME", "/h")
            .with_file("/h/.valgrindrc", RcFile::Text("--num-callers=4 --trace-children=yes".into()))
            .with("VALGRIND_OPTS", "--num-callers=5 --leak-check=full")
    };
    let options = |env: FakeEnv, line: &str| match parse(OsStr::new("valgrind"), &words(line), &env) {
        Ok(Invocation::Run(run)) => run.options,
        other => panic!("{other:?}"),
    };
    let all = options(env(), "--leak-check=no p");
    assert_eq!((all.num_callers, all.leak_check, all.trace_children), (5, LeakCheck::No, true));
    let alone = options(env(), "--command-line-only=yes p");
    assert_eq!((alone.num_callers, alone.trace_children), (12, false));
}

#[test]
fn unknown_words_in_the_others_files_are_notes_under_our_own_name() {
    let env = || FakeEnv::default().with("VALGRIND_OPTS", "--from-the-future=1 --num-callers=3");
    let Ok(Invocation::Run(run)) = parse(OsStr::new("memcheck"), &words("p"), &env()) else { panic!("runs") };
    assert_eq!(run.options.num_callers, 3);
    assert_eq!(run.notes, ["$VALGRIND_OPTS: Unknown option: --from-the-future=1"]);
    assert!(parse(OsStr::new("valgrind"), &words("p"), &env()).is_err());
}

#[test]
fn structured_values() {
    let options = run("--ignore-ranges=0x10-0x20,0x30-0x40 --ignore-range-below-sp=8192-8189 --error-markers=B,E \
        --report=json:out --trace-children-skip=a,b p")
    .options;
    assert_eq!(options.ignore_ranges, [(0x10, 0x20), (0x30, 0x40)]);
    assert_eq!(options.ignore_range_below_sp, Some((8192, 8189)));
    assert_eq!(options.error_markers, Some(("B".into(), "E".into())));
    assert_eq!(options.reports, [ReportRequest { format: ReportFormat::Json, file: Some("out".into()) }]);
    assert_eq!(options.trace_children_skip, ["a", "b"]);
    assert!(parse_as("valgrind", "--ignore-range-below-sp=1-2 p").is_err());
}

#[test]
fn ignored_options_are_remembered_by_name() {
    let given = "--fair-sched=yes -d --sim-hints=lax-ioctls,fuse-compatible --smc-check=all";
    assert_eq!(run(&format!("{given} p")).options.ignored.join(" "), given);
    assert!(parse_as("valgrind", "--sim-hints=lax p").is_err(), "their values are checked");
}

#[test]
fn two_log_files_are_worth_a_word() {
    assert_eq!(run("--log-file=a --log-file=b p").notes.len(), 1);
    let warning = ["Warning: --freelist-big-blocks value 1000000 has no effect", "as it is >= to --freelist-vol value 100"];
    assert_eq!(run("--freelist-vol=100 p").notes, warning);
    assert!(run("-q --freelist-vol=100 p").notes.is_empty());
    assert!(run("--log-file=a p").notes.is_empty());
}

#[test]
fn waiting_for_a_debugger_is_worth_a_word() {
    assert!(run("--vgdb=no --vgdb-error=999999999 p").notes.is_empty());
    assert_eq!(run("--vgdb-error=-1 p").options.debugger_error, run("p").options.debugger_error);
    let looked_at = run("--vgdb=full --vgdb-error=2 --vgdb-stop-at=exit p");
    assert_eq!((looked_at.notes.len(), looked_at.options.debugger, looked_at.options.debugger_error), (1, true, 2));
    assert!(!run("--vgdb=no p").options.debugger);
    let at_start = run("--vgdb-stop-at=startup p");
    assert_eq!((at_start.notes.len(), at_start.options.debugger_at_start), (0, true));
}
