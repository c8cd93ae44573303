//! The command line as a shell user or a build tool sees it: options, messages, exit codes, where the report goes.
//!
//! Texts and codes are Valgrind's, because tools that start it look for them. Each test compiles the small program it needs.

mod common;

use common::compile;
use common::report::Report;
use common::run::{Ended, Outcome, Run};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// A program with one invalid write, a leak, output on both streams and the exit status given as its argument.
const FAULTY: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    char *p = malloc(10);
    p[10] = 1;
    p = NULL;
    printf("to stdout\n");
    fprintf(stderr, "to stderr\n");
    return argc > 1 ? atoi(argv[1]) : 0;
}
"#;

const CLEAN: &str = r#"
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) printf("[%s]\n", argv[i]);
    int c, n = 0;
    while ((c = getchar()) != EOF) n++;
    printf("%d\n", n);
    return argc - 1;
}
"#;

fn tool(dir: &Path) -> Run {
    Run::new(common::memcheck(), dir)
}

fn check(outcome: &Outcome, ended: Ended, text: &str) {
    assert_eq!(outcome.ended, ended, "stderr: {}", outcome.err());
    assert!(outcome.err().contains(text), "'{text}' is not in: {}", outcome.err());
}

#[test]
fn help_lists_the_options() {
    let dir = common::scratch("cli-help");
    for option in ["--help", "-h"] {
        let outcome = tool(&dir).arg(option).finish("run");
        assert_eq!(outcome.ended, Ended::Code(0), "{option}");
        for word in ["--leak-check", "--error-exitcode", "--num-callers", "--log-file", "--trace-children"] {
            assert!(outcome.out().contains(word), "{option} does not mention {word}");
        }
    }
    let outcome = tool(&dir).args(["--tool=memcheck", "--help"]).finish("run");
    assert_eq!(outcome.ended, Ended::Code(0), "configure scripts ask exactly this");
}

#[test]
fn version_is_one_line_with_a_number() {
    let dir = common::scratch("cli-version");
    let outcome = tool(&dir).arg("--version").finish("run");
    assert_eq!(outcome.ended, Ended::Code(0));
    let text = outcome.out();
    assert_eq!(text.lines().count(), 1, "{text}");
    let dots = text.chars().filter(|c| *c == '.').count();
    assert!(dots >= 2 && text.chars().any(|c| c.is_ascii_digit()), "{text}");
}

#[test]
fn bad_options_end_with_one() {
    let dir = common::scratch("cli-bad-options");
    check(&tool(&dir).args(["--no-such-option", "true"]).finish("run"), Ended::Code(1), "Unknown option: --no-such-option");
    check(&tool(&dir).args(["--num-callers=1000", "true"]).finish("run"), Ended::Code(1), "--num-callers=1000");
    check(&tool(&dir).args(["--leak-check=perhaps", "true"]).finish("run"), Ended::Code(1), "--leak-check=perhaps");
    assert_eq!(tool(&dir).args(["--tool=helgrind-not-here", "true"]).finish("run").ended, Ended::Code(1));
    check(&tool(&dir).finish("run"), Ended::Code(1), "no program specified");
}

/// Where the complaint itself cannot be written, the status is all that is left.
#[test]
fn complaints_that_cannot_be_written_keep_their_status() {
    let dir = common::scratch("cli-full");
    let end = |words: &str| {
        Run::new("sh", &dir).args(["-c", &format!("\"$0\" {words} 2> /dev/full")]).arg(common::memcheck()).finish("run").ended
    };
    assert_eq!(end("--no-such-option true"), Ended::Code(1));
    assert_eq!(end("./no-such-program"), Ended::Code(127));
    assert_eq!(end("--log-file=no/such/directory true"), Ended::Code(1));
}

#[test]
fn missing_programs_end_with_127() {
    let dir = common::scratch("cli-missing");
    check(&tool(&dir).arg("./no-such-program").finish("run"), Ended::Code(127), "./no-such-program: No such file or directory");
    check(&tool(&dir).arg("no-such-program-here").finish("run"), Ended::Code(127), "no-such-program-here: command not found");
}

#[test]
fn unusable_programs_end_with_126() {
    let dir = common::scratch("cli-unusable");
    let write = |name: &str, bytes: &[u8], mode: u32| {
        let file = dir.join(name);
        std::fs::write(&file, bytes).expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    let mut elf = std::fs::read(compile(&dir, "whole", CLEAN, &[])).expect("a program");
    write("not-executable", &elf, 0o644);
    check(&tool(&dir).arg("./not-executable").finish("run"), Ended::Code(126), "./not-executable");
    write("truncated", &elf[..40], 0o755);
    let outcome = tool(&dir).arg("./truncated").finish("run");
    assert!(outcome.ended == Ended::Code(126) || common::testing_reference(), "{outcome:?}");
    // Its headers are whole, what they describe is not: the kernel gives up in the midst of exec.
    write("half", &elf[..2000], 0o755);
    let outcome = tool(&dir).arg("./half").finish("run");
    assert!(outcome.ended == Ended::Code(126) || common::testing_reference(), "{outcome:?}");
    write("no-interpreter", b"#!/no/such/interpreter\n", 0o755);
    check(
        &tool(&dir).arg("./no-interpreter").finish("run"),
        Ended::Code(126),
        "./no-interpreter: bad interpreter: No such file or directory",
    );
    elf[18] = 0x28; // e_machine: ARM
    write("foreign", &elf, 0o755);
    assert_eq!(tool(&dir).arg("./foreign").finish("run").ended, Ended::Code(126));
    std::fs::create_dir(dir.join("directory")).expect("a directory");
    assert_eq!(tool(&dir).arg("./directory").finish("run").ended, Ended::Code(126));
}

/// Random damage in an ELF file must end in an orderly way: any exit status, but no panic and no endless run.
#[test]
fn damaged_programs_end_in_order() {
    let dir = common::scratch("cli-damaged");
    let whole = std::fs::read(compile(&dir, "whole", CLEAN, &["-Wl,-z,noseparate-code"])).expect("a program");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..12 {
        let mut bytes = whole.clone();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // The file header and the program headers, where every word is read by someone.
            let at = 24 + usize::try_from(state % 800).unwrap_or(0);
            bytes[at] ^= u8::try_from(state >> 40 & 0xff).unwrap_or(1) | 1;
        }
        let file = dir.join(format!("damaged{round}"));
        std::fs::write(&file, bytes).expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        let outcome = tool(&dir).arg(&file).limit(Duration::from_secs(30)).finish("run");
        assert_ne!(outcome.ended, Ended::TimedOut, "round {round}");
        assert!(!outcome.err().contains("panicked"), "round {round}: {}", outcome.err());
    }
}

/// Runs a program after it has given up a system call: the number, then the program and its arguments.
const REFUSING: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, atoi(argv[1]), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {4, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 77;
    execvp(argv[2], argv + 2);
    return 78;
}
"#;

#[test]
fn systems_that_refuse_are_told_from_faults_of_memcheck() {
    let dir = common::scratch("cli-refusing");
    let (refusing, program) = (compile(&dir, "refusing", REFUSING, &[]), compile(&dir, "clean", CLEAN, &[]));
    let run = |call: libc::c_long| Run::new(&refusing, &dir).arg(call.to_string()).arg(common::memcheck()).arg(&program).finish("run");
    if run(-1).ended == Ended::Code(77) {
        return common::skip("refused system calls", "no seccomp filters here");
    }
    check(&run(libc::SYS_ptrace), Ended::Code(1), "memcheck: this system does not let memcheck trace programs");
    check(&run(libc::SYS_process_vm_readv), Ended::Code(125), "memcheck cannot run this program: a process may not read its own memory");
    check(&run(libc::SYS_mremap), Ended::Code(125), "memcheck cannot run this program: its mappings cannot be moved");
    let limited =
        Run::new("sh", &dir).args(["-c", "ulimit -v 4000000; exec \"$0\" \"$1\""]).arg(common::memcheck()).arg(&program).finish("run");
    check(&limited, Ended::Code(125), "memcheck cannot run this program: the address space for the shadow memory cannot be reserved");
}

#[test]
fn exit_status_is_the_programs_own() {
    let dir = common::scratch("cli-exit");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    for code in [0, 1, 3, 77, 255] {
        let outcome = tool(&dir).arg("-q").arg(&exe).arg(code.to_string()).finish("run");
        assert_eq!(outcome.ended, Ended::Code(code));
    }
    let outcome = tool(&dir).args(["-q", "--error-exitcode=9"]).arg(&exe).arg("3").finish("run");
    assert_eq!(outcome.ended, Ended::Code(9), "an error was found");
    let clean = compile(&dir, "clean", CLEAN, &[]);
    let outcome = tool(&dir).args(["-q", "--error-exitcode=9"]).arg(&clean).args(["a", "b"]).finish("run");
    assert_eq!(outcome.ended, Ended::Code(2), "nothing was found");
}

#[test]
fn machines_are_told_what_kind_of_mistake_it_is() {
    let dir = common::scratch("cli-machines");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let reports = ["--leak-check=full", "--report=sarif:s", "--report=json:j", "--report=github:g"];
    assert_eq!(tool(&dir).args(reports).arg(&exe).finish("run").ended, Ended::Code(0));
    for (name, [overflow, leak]) in [
        ("s", ["\"ruleId\":\"heap-buffer-overflow\"", "\"ruleId\":\"leak-definite\""]),
        ("j", ["\"rule\":\"heap-buffer-overflow\"", "\"rule\":\"leak-definite\""]),
        ("g", ["title=heap-buffer-overflow in main", "title=leak-definite in main"]),
    ] {
        let text = std::fs::read_to_string(dir.join(name)).expect("the report");
        assert!(text.contains(overflow) && text.contains(leak), "{name}: {text}");
    }
}

#[test]
fn leaks_as_a_tree_of_calls() {
    let dir = common::scratch("cli-tree");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let outcome = tool(&dir).args(["--xtree-leak=yes", "--xtree-leak-file=tree.%q{NAME}"]).env("NAME", "x").arg(&exe).finish("run");
    let path = dir.join("tree.x");
    check(&outcome, Ended::Code(0), &format!("xtree leak report: {}", path.display()));
    assert!(!outcome.err().contains("loss record"), "the file has them: {}", outcome.err());
    check(&outcome, Ended::Code(0), "definitely lost: 10 bytes in 1 blocks");
    let tree = std::fs::read_to_string(&path).expect("the tree");
    assert!(tree.starts_with("# callgrind format\n") && tree.contains("cfn=(2) malloc\ncalls=0 0\n"), "{tree}");
    assert!(tree.contains("fn=(1) main\n5\n"), "the line that allocates: {tree}");
    assert!(tree.ends_with("totals: 0 0 0 10 0 0 0 0 1 0 0 0 10 0 0 0 0 1 0 0 0 0 0 0 0 0 0\n"), "{tree}");
}

#[test]
fn the_heap_as_a_tree_of_calls() {
    const PLACES: &str = "#include <stdlib.h>\nvoid *f(int n) { return malloc(n); }\nvoid g(void *p) { free(p); }\n\
        int main(void) {\nvoid *kept = f(100);\nfor (int i = 0; i < 3; i++)\ng(f(10));\nkept = realloc(kept, 7);\nreturn !kept; }\n";
    let dir = common::scratch("cli-memory-tree");
    let exe = compile(&dir, "places", PLACES, &[]);
    let tree = |options: &[&str]| {
        let outcome = tool(&dir).args(options).arg("--xtree-memory-file=memory.ms-or-not").arg(&exe).finish("run");
        check(&outcome, Ended::Code(0), &format!("xtree memory report: {}\n", dir.join("memory.ms-or-not").display()));
        std::fs::read_to_string(dir.join("memory.ms-or-not")).expect("the tree")
    };
    let massif = tree(&["--xtree-memory=full"]);
    assert!(massif.starts_with("desc: xtree.produce_report\ncmd: ") && massif.contains("mem_heap_B=137\n"), "{massif}");
    assert!(massif.contains("f (places.c:2)\n  n0: 100 0x"), "the caller stands below: {massif}");
    let outcome = tool(&dir).args(["-q", "--xtree-memory=full", "--xtree-memory-file=full.%p"]).arg(&exe).finish("run");
    assert_eq!((outcome.ended, outcome.err().as_str()), (Ended::Code(0), ""), "nothing is said about it");
    let files: Vec<_> = std::fs::read_dir(&dir).expect("the directory").flatten().map(|entry| entry.path()).collect();
    let full =
        files.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("full."))).expect("the tree");
    let full = std::fs::read_to_string(full).expect("the tree");
    assert!(full.contains("\n8 7 1 7 1 100 1\n"), "realloc frees and allocates at one place: {full}");
    assert!(full.contains("\n7 0 0 0 0 30 3\n") && full.contains("\n7 0 0 30 3 0 0\n"), "frees have places of their own: {full}");
    assert!(full.ends_with("\ntotals: 7 1 137 5 130 4\n"), "{full}");
    let outcome = tool(&dir).args(["--xtree-memory=full", "--keep-stacktraces=free"]).arg(&exe).finish("run");
    check(&outcome, Ended::Code(1), "you must keep at least the alloc stacktrace");
}

#[test]
fn death_by_signal_is_preserved() {
    let dir = common::scratch("cli-signal");
    for (signal, number) in [("SIGSEGV", 11), ("SIGABRT", 6), ("SIGTERM", 15), ("SIGKILL", 9), ("SIGPIPE", 13)] {
        let source = format!("#include <signal.h>\n#include <unistd.h>\nint main(void) {{ kill(getpid(), {signal}); pause(); }}");
        let exe = compile(&dir, signal, &source, &[]);
        let outcome = tool(&dir).args(["--error-exitcode=5"]).arg(&exe).finish("run");
        assert_eq!(outcome.ended, Ended::Signal(number), "{signal}: {}", outcome.err());
        assert_eq!(Report::parse(&outcome.err()).summaries.len(), 1, "{signal}: the report must be complete");
    }
}

#[test]
fn report_goes_to_stderr_and_output_stays() {
    let dir = common::scratch("cli-streams");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let outcome = tool(&dir).arg("--leak-check=full").arg(&exe).finish("run");
    assert_eq!(outcome.out(), "to stdout\n");
    assert!(outcome.err().contains("to stderr\n"));
    let report = Report::parse(&outcome.err());
    let kinds: Vec<&str> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, ["invalid-write", "leak"]);
    assert_eq!((report.summaries[0].errors, report.summaries[0].contexts), (2, 2));
}

#[test]
fn quiet_is_silent_about_clean_programs_only() {
    let dir = common::scratch("cli-quiet");
    let clean = compile(&dir, "clean", CLEAN, &[]);
    let outcome = tool(&dir).arg("-q").arg(&clean).finish("run");
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("0\n", ""));
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let text = tool(&dir).arg("-q").arg(&exe).finish("run").err();
    assert!(text.contains("Invalid write of size 1"), "{text}");
    assert!(!text.contains("HEAP SUMMARY") && !text.contains("ERROR SUMMARY"), "{text}");
}

/// Undefined data that is multiplied.
const UNDEFINED: &str = r"
#include <stdlib.h>
int main(void) {
    int *p = malloc(sizeof(int));
    volatile int x = *p * 3;
    free(p);
    return 0;
}
";

#[test]
fn verbose_counts_work_on_undefined_data() {
    let dir = common::scratch("cli-verbose");
    let undefined = compile(&dir, "undefined", UNDEFINED, &[]);
    let count = |exe: &Path, before: &str| -> u64 {
        let outcome = tool(&dir).arg("-v").arg(exe).finish("run");
        let text = outcome.err();
        let line = text.lines().find(|line| line.contains(before)).unwrap_or_else(|| panic!("'{before}' is not in: {text}"));
        let number = line.split(before).nth(1).and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.replace(',', "").parse().ok()).unwrap_or_else(|| panic!("no number in: {line}"))
    };
    assert!(count(&undefined, "code: ") > 10);
    assert!(count(&undefined, "translated, ") > 0);
    assert!(count(&undefined, "which was met ") > 0);
    count(&undefined, "undefined data: ");
}

#[test]
fn arguments_of_the_program_are_untouched() {
    let dir = common::scratch("cli-arguments");
    let exe = compile(&dir, "clean", CLEAN, &[]);
    let args = ["--leak-check=full", "-q", "--", "two words", "", "*"];
    let outcome = tool(&dir).arg("--tool=memcheck").arg(&exe).args(args).finish("run");
    assert_eq!(outcome.out(), "[--leak-check=full]\n[-q]\n[--]\n[two words]\n[]\n[*]\n0\n");
    assert_eq!(outcome.ended, Ended::Code(6));
    assert!(outcome.err().contains("two\\ words"), "the Command line escapes: {}", outcome.err());
    let outcome = tool(&dir).args(["-q", "--"]).arg(&exe).arg("x").finish("run");
    assert_eq!(outcome.out(), "[x]\n0\n");
}

#[test]
fn names_are_looked_up_in_path() {
    let dir = common::scratch("cli-path");
    compile(&dir, "found-by-path", CLEAN, &[]);
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let outcome = tool(&dir).args(["-q", "found-by-path"]).env("PATH", path).finish("run");
    assert_eq!((outcome.out().as_str(), outcome.ended), ("0\n", Ended::Code(0)));
}

#[test]
fn standard_input_reaches_the_program() {
    let dir = common::scratch("cli-stdin");
    let exe = compile(&dir, "clean", CLEAN, &[]);
    let outcome = Run::new("sh", &dir).args(["-c", "printf 12345 | \"$0\" -q \"$1\""]);
    let outcome = outcome.arg(common::memcheck()).arg(&exe).finish("run");
    assert_eq!(outcome.out(), "5\n");
}

#[test]
fn questions_take_a_line_each_and_leave_the_rest() {
    const ASKING: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    char *p = malloc(10);
    p[10] = 1;
    p[11] = 2;
    free(p);
    int n = 0;
    while (getchar() != EOF) n++;
    printf("%d\n", n);
    return 0;
}
"#;
    let dir = common::scratch("cli-questions");
    let exe = compile(&dir, "asking", ASKING, &[]);
    std::fs::write(dir.join("answers"), "n\ny\n12345").expect("the answers");
    let run = |script: &str| {
        let outcome = Run::new("sh", &dir).args(["-c", script]).arg(common::memcheck()).arg(&exe).finish("run");
        (outcome.out(), outcome.err().matches("insert_a_suppression_name_here").count())
    };
    let (five, none) = ("5\n".to_string(), "0\n".to_string());
    assert_eq!(run("cat answers | \"$0\" -q --gen-suppressions=yes \"$1\""), (five.clone(), 1), "a pipe");
    assert_eq!(run("\"$0\" -q --gen-suppressions=yes \"$1\" < answers"), (five, 1), "a file");
    assert_eq!(run("\"$0\" -q --gen-suppressions=yes --input-fd=3 \"$1\" 3< answers < /dev/null"), (none.clone(), 1), "another descriptor");
    assert_eq!(run("\"$0\" -q --gen-suppressions=yes --input-fd=9 \"$1\" < /dev/null"), (none, 0), "nobody there to answer");
}

#[test]
fn scripts_run_by_their_interpreter() {
    let dir = common::scratch("cli-script");
    let script = dir.join("script");
    std::fs::write(&script, "#!/bin/sh\necho \"script $1\"\nexit 4\n").expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let outcome = tool(&dir).args(["-q", "./script", "argument"]).finish("run");
    assert_eq!((outcome.out().as_str(), outcome.ended), ("script argument\n", Ended::Code(4)), "{}", outcome.err());
}

#[test]
fn log_file_patterns() {
    let dir = common::scratch("cli-log");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let run = |pattern: &str| tool(&dir).arg(format!("--log-file={pattern}")).arg(&exe).env("LOG_NAME", "named").finish("run");
    let outcome = run("plain.log");
    assert_eq!(outcome.err(), "to stderr\n", "nothing of the report is mixed in");
    assert!(std::fs::read_to_string(dir.join("plain.log")).expect("plain.log").contains("Parent PID:"));
    run("by-%q{LOG_NAME}-100%%.log");
    assert!(dir.join("by-named-100%.log").exists());
    run("pid-%p.log");
    let entries = std::fs::read_dir(&dir).expect("the directory").flatten();
    let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let number = |name: &String| name.strip_prefix("pid-").and_then(|rest| rest.strip_suffix(".log")).map(str::to_owned);
    let numbers: Vec<String> = names.iter().filter_map(number).collect();
    assert!(numbers.len() == 1 && numbers[0].parse::<u32>().is_ok(), "{names:?}");
    check(&run("%q{NO_SUCH_VARIABLE_HERE}"), Ended::Code(1), "NO_SUCH_VARIABLE_HERE");
    check(&run("%x"), Ended::Code(1), "%x");
}

#[test]
fn log_file_is_not_the_programs_output() {
    let dir = common::scratch("cli-log-fd");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let script = "\"$0\" --log-fd=9 \"$1\" 9>nine.log";
    let outcome = Run::new("sh", &dir).args(["-c", script]).arg(common::memcheck()).arg(&exe).finish("run");
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("to stdout\n", "to stderr\n"));
    let log = std::fs::read_to_string(dir.join("nine.log")).unwrap_or_default();
    assert!(Report::parse(&log).summaries.len() == 1, "{log}");
}

#[test]
fn closed_descriptors_do_not_matter() {
    let dir = common::scratch("cli-closed");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let script = "\"$0\" --log-file=closed.log \"$1\" 3 <&- >&- 2>&-";
    let outcome = Run::new("sh", &dir).args(["-c", script]).arg(common::memcheck()).arg(&exe).finish("run");
    assert_eq!(outcome.ended, Ended::Code(3));
    let report = Report::parse(&std::fs::read_to_string(dir.join("closed.log")).unwrap_or_default());
    assert_eq!(report.findings.iter().filter(|finding| finding.kind == "invalid-write").count(), 1, "{}", report.text);
}

#[test]
fn stripped_programs_name_their_object() {
    let dir = common::scratch("cli-stripped");
    let exe = compile(&dir, "faulty", FAULTY, &["-s"]);
    let text = tool(&dir).arg(&exe).finish("run").err();
    assert!(text.contains("Invalid write of size 1"), "{text}");
    assert!(text.contains(&format!("??? (in {})", exe.display())), "{text}");
    assert!(text.contains("0 bytes after a block of size 10 alloc'd"), "{text}");
}

/// Without an allocator in sight there is nothing to be said about leaks, least of all something comforting.
#[test]
fn no_all_clear_without_an_allocator() {
    let dir = common::scratch("cli-no-allocator");
    let source = "static long call(long n, long a) { long r; __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n), \"D\"(a) : \"rcx\", \"r11\"); return r; }\n\
        void _start(void) { call(231, 3); __builtin_unreachable(); }";
    let exe = compile(&dir, "bare", source, &["-static", "-nostdlib", "-O1", "-s"]);
    let outcome = tool(&dir).arg(&exe).finish("run");
    assert_eq!(outcome.ended, Ended::Code(3));
    assert!(common::testing_reference() || !outcome.err().contains("no leaks are possible"), "{}", outcome.err());
}

#[test]
fn num_callers_limits_stacks() {
    let dir = common::scratch("cli-callers");
    let source = "#include <stdlib.h>\nstatic void f(char *p, int n) { if (n) f(p, n - 1); else *p = 1; }\n\
        int main(void) { char *p = malloc(1); f(p + 1, 60); free(p); }";
    let exe = compile(&dir, "deep", source, &[]);
    let frames = |option: &str| {
        let report = Report::parse(&tool(&dir).arg(option).arg(&exe).finish("run").err());
        assert_eq!(report.findings.len(), 1, "{}", report.text);
        report.findings[0].frames.len()
    };
    assert_eq!(frames("--num-callers=5"), 5);
    assert_eq!(frames("--tool=memcheck"), 12);
    assert_eq!(frames("--num-callers=100"), 62);
}

#[test]
fn children_are_traced_on_demand() {
    let dir = common::scratch("cli-children");
    let exe = compile(&dir, "faulty", FAULTY, &[]);
    let found = |option: &str| {
        let outcome = tool(&dir).arg(option).args(["sh", "-c", "\"$0\"; exit 5"]).arg(&exe).finish("run");
        assert_eq!((outcome.out().as_str(), outcome.ended), ("to stdout\n", Ended::Code(5)), "{}", outcome.err());
        Report::parse(&outcome.err()).findings.iter().filter(|finding| finding.kind == "invalid-write").count()
    };
    assert_eq!(found("--trace-children=yes"), 1);
    assert_eq!(found("--trace-children=no"), 0);
}

#[test]
fn untraced_exec_runs_natively() {
    let dir = common::scratch("cli-exec");
    let source = "#include <unistd.h>\nint main(void) { execl(\"/bin/sh\", \"sh\", \"-c\", \"echo replaced; exit 6\", NULL); }";
    let exe = compile(&dir, "replaced", source, &[]);
    let outcome = tool(&dir).arg(&exe).finish("run");
    assert_eq!((outcome.out().as_str(), outcome.ended), ("replaced\n", Ended::Code(6)), "{}", outcome.err());
}

#[test]
fn numbers_of_joined_threads_are_used_again() {
    let dir = common::scratch("cli-threads");
    let source = "#include <pthread.h>\n#include <stdlib.h>\nstatic pthread_barrier_t both;\n\
        static void *f(void *p) { ((char *)p)[1] = 1; return p; }\n\
        static void *g(void *p) { ((char *)p)[2] = 1; pthread_barrier_wait(&both); return p; }\n\
        static void *h(void *p) { pthread_barrier_wait(&both); return p; }\n\
        int main(void) { char *p = malloc(1); pthread_t a, b; pthread_barrier_init(&both, NULL, 2);\n\
        pthread_create(&a, NULL, f, p); pthread_join(a, NULL); pthread_create(&a, NULL, h, p); pthread_create(&b, NULL, g, p);\n\
        pthread_join(b, NULL); pthread_join(a, NULL); p[3] = 1; free(p); }";
    let exe = compile(&dir, "threads", source, &["-pthread"]);
    let err = tool(&dir).arg(&exe).finish("run").err();
    let headers: Vec<&str> = err.lines().filter_map(|line| line.split_once("== Thread ").map(|(_, number)| number)).collect();
    assert_eq!(headers, ["2:", "3:", "1:"], "{err}");
}

#[test]
fn unloaded_libraries_keep_their_names() {
    let dir = common::scratch("cli-unload");
    let library = compile(&dir, "plugin.so", "#include <stdlib.h>\nvoid f(void) { malloc(7); }", &["-shared", "-fPIC"]);
    let source = "#include <dlfcn.h>\nint main(int n, char **names) { void *h = dlopen(names[1], RTLD_NOW);\n\
        ((void (*)(void))dlsym(h, \"f\"))(); dlclose(h); return !dlopen(\"libm.so.6\", RTLD_LAZY); }";
    let exe = compile(&dir, "host", source, &["-ldl"]);
    let outcome = tool(&dir).arg("--leak-check=full").arg("--keep-debuginfo=yes").arg(&exe).arg(&library).finish("run");
    assert_eq!(outcome.ended, Ended::Code(0));
    assert!(outcome.err().contains(": f (plugin.so.c:2)"), "{}", outcome.err());
}

#[test]
fn checkers_that_the_compiler_builds_in_are_named() {
    let dir = common::scratch("cli-sanitizer");
    let exe = compile(&dir, "sanitized", "void __tsan_init(void) {}\nint main(void) { __tsan_init(); return 4; }", &[]);
    let outcome = tool(&dir).arg("-q").arg(&exe).finish("run");
    assert_eq!(outcome.ended, Ended::Code(4));
    let err = outcome.err();
    assert!(err.contains("Warning: ThreadSanitizer") && err.contains("without -fsanitize=thread"), "{err}");
}
