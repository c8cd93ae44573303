//! memcheck in place of Valgrind, called by its name: the words and statuses of a bad command line, where options come from,
//! suppression files, XML, reports of processes that are killed.
//!
//! The texts are those of Valgrind 3.19 and were compared with it; `MEMCHECK=valgrind cargo test --test dropin` does it again where it
//! is installed.

mod common;

use common::report::Report;
use common::run::{Ended, Outcome, Run};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One invalid write, one leak, and the exit status given as its argument.
const FAULTY: &str = "#include <stdlib.h>
int main(int argc, char **argv) {
    char *p = malloc(10);
    p[10] = 1;
    p = NULL;
    return argc > 1 ? atoi(argv[1]) : 0;
}
";

fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (file, exe) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&file, source).expect("a source file");
    let status = Command::new("gcc").args(["-g", "-O0", "-w"]).arg(&file).arg("-o").arg(&exe).args(flags).status();
    assert!(status.is_ok_and(|status| status.success()), "gcc failed on {name}");
    exe
}

/// The tool under the name `valgrind`.
fn valgrind(dir: &Path) -> Run {
    let link = dir.join("valgrind");
    let target = common::memcheck();
    let target = common::find_program(&target.to_string_lossy()).unwrap_or_else(|| target.into());
    if !link.exists() {
        std::os::unix::fs::symlink(target, &link).expect("a symbolic link");
    }
    // Nobody's options file.
    let run = if common::testing_reference() { Run::new(common::memcheck(), dir) } else { Run::new(link, dir) };
    run.env("HOME", dir.join("no-home"))
}

/// Lines of a report with the process id replaced by its name.
fn lines(outcome: &Outcome) -> Vec<String> {
    let nameless = |line: &str| match line.strip_prefix("==").and_then(|rest| rest.split_once("==")) {
        Some((pid, rest)) if pid.bytes().all(|c| c.is_ascii_digit()) => format!("==PID=={rest}"),
        _ => line.to_owned(),
    };
    outcome.err().lines().map(nameless).collect()
}

const USE_HELP: &str = "Use --help for more information or consult the user manual.";

/// Command lines that are refused: the line, the status, the lines of the answer without `valgrind: ` and without the advice at the end.
const REFUSED: &[(&str, i32, &[&str])] = &[
    ("--no-such=1 ./faulty", 1, &["Unknown option: --no-such=1"]),
    ("-qv ./faulty", 1, &["Unknown option: -qv"]),
    ("--quiet=yes ./faulty", 1, &["Unknown option: --quiet=yes"]),
    ("--leak-check=perhaps ./faulty", 1, &["Unknown option: --leak-check=perhaps"]),
    ("--leak-resolution=x ./faulty", 1, &["Unknown option: --leak-resolution=x"]),
    ("--num-callers=1000 ./faulty", 1, &["Bad option: --num-callers=1000", "'--num-callers' argument must be between 1 and 500"]),
    ("--num-callers= ./faulty", 1, &["Bad option: --num-callers=", "'--num-callers' argument must be between 1 and 500"]),
    ("--num-callers=x ./faulty", 1, &["Bad option: --num-callers=x", "Invalid integer value 'x'"]),
    ("--demangle=maybe ./faulty", 1, &["Bad option: --demangle=maybe", "Invalid boolean value 'maybe' (should be 'yes' or 'no')"]),
    (
        "--show-leak-kinds=definite,foo ./faulty",
        1,
        &["Bad option: --show-leak-kinds=definite,foo", "definite,foo is an invalid show-leak-kinds set"],
    ),
    ("--alignment=17 ./faulty", 1, &["Bad option: --alignment=17", "Alignment must be a power of 2 in the range 16..4096."]),
    ("--redzone-size=5000 ./faulty", 1, &["Bad option: --redzone-size=5000", "'--redzone-size' argument must be between 0 and 4096"]),
    ("--track-fds=foo ./faulty", 1, &["Bad option: --track-fds=foo", "Bad argument, should be 'yes', 'all' or 'no'"]),
    (
        "--avg-transtab-entry-size=9999 ./faulty",
        1,
        &["Bad option: --avg-transtab-entry-size=9999", "'--avg-transtab-entry-size' argument must be between 50 and 5000"],
    ),
    (
        "--valgrind-stacksize=1 ./faulty",
        1,
        &["Bad option: --valgrind-stacksize=1", "'--valgrind-stacksize' argument must be between 8192 and 10485760"],
    ),
    (
        "--aspace-minaddr=0x1 ./faulty",
        1,
        &["Bad option: --aspace-minaddr=0x1", "Must be a page aligned address between 0x1000 and 0x200000000"],
    ),
    ("--require-text-symbol=foo ./faulty", 1, &["Bad option: --require-text-symbol=foo", "Invalid --require-text-symbol= specification."]),
    (
        "--undef-value-errors=no --track-origins=yes ./faulty",
        1,
        &["Bad option: --track-origins=yes", "--track-origins=yes has no effect when --undef-value-errors=no."],
    ),
];

#[test]
fn bad_command_lines_are_answered_in_the_known_words() {
    let dir = common::scratch("dropin-refused");
    compile(&dir, "faulty", FAULTY, &[]);
    let failures = common::check_all(REFUSED, |(line, status, texts)| {
        let outcome = valgrind(&dir).args(line.split(' ')).finish(&line.replace(['/', ' '], "_"));
        let mut expected: Vec<String> = texts.iter().map(|text| format!("valgrind: {text}")).collect();
        expected.push(format!("valgrind: {USE_HELP}"));
        let found = (outcome.ended, lines(&outcome));
        if found == (Ended::Code(*status), expected) { Ok(()) } else { Err(format!("{line}: {found:?}")) }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn nothing_to_run_is_said_before_anything_else() {
    let dir = common::scratch("dropin-nothing");
    let answer = |args: &[&str]| {
        let outcome = valgrind(&dir).args(args).finish("run");
        (outcome.ended, outcome.err())
    };
    let no_program = "valgrind: no program specified\nvalgrind: Use --help for more information.\n".to_string();
    assert_eq!(answer(&[]), (Ended::Code(1), no_program.clone()));
    assert_eq!(answer(&["--no-such"]), (Ended::Code(1), no_program));
    assert_eq!(answer(&["./absent"]), (Ended::Code(127), "valgrind: ./absent: No such file or directory\n".into()));
    assert_eq!(answer(&["absent-program"]), (Ended::Code(127), "valgrind: absent-program: command not found\n".into()));
    assert_eq!(answer(&["/tmp"]), (Ended::Code(126), "valgrind: /tmp: is a directory\n".into()));
    let other = "valgrind: failed to start tool 'nulgrind' for platform 'amd64-linux': No such file or directory\n";
    assert_eq!(answer(&["--tool=nulgrind", "true"]), (Ended::Code(1), other.into()));
}

#[test]
fn version_and_help_are_for_scripts() {
    let dir = common::scratch("dropin-version");
    for args in [&["--version"][..], &["--tool=memcheck", "--version"]] {
        let outcome = valgrind(&dir).args(args).finish("run");
        assert_eq!((outcome.ended, outcome.out().as_str(), outcome.err().as_str()), (Ended::Code(0), "valgrind-3.19.0\n", ""));
    }
    let outcome = valgrind(&dir).args(["--tool=memcheck", "--help"]).finish("run");
    assert_eq!(outcome.ended, Ended::Code(0));
    assert!(outcome.out().to_lowercase().contains("usage: valgrind [options] prog-and-args"), "{}", outcome.out());
}

#[test]
fn options_come_from_files_and_a_variable_too() {
    let dir = common::scratch("dropin-sources");
    compile(&dir, "faulty", FAULTY, &[]);
    let (home, safe, open) = (dir.join("home"), dir.join("safe"), dir.join("open"));
    for (place, mode, text) in [
        (&home, 0o644, "# of the house\n--error-exitcode=41\n"),
        (&safe, 0o644, "--error-exitcode=43\n"),
        (&open, 0o666, "--error-exitcode=44\n"),
    ] {
        std::fs::create_dir(place).expect("a directory");
        let file = place.join(".valgrindrc");
        std::fs::write(&file, text).expect("an options file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let run = |place: &Path, variable: Option<&str>, options: &[&str]| {
        let mut run = valgrind(&dir).env("HOME", &home).dir(place);
        if let Some(value) = variable {
            run = run.env("VALGRIND_OPTS", value);
        }
        run.args(options).arg("-q").arg(dir.join("faulty")).finish("run")
    };
    assert_eq!(run(&dir, None, &[]).ended, Ended::Code(41), "the file of the home directory");
    assert_eq!(run(&dir, Some("--error-exitcode=42"), &[]).ended, Ended::Code(42), "the variable is stronger");
    assert_eq!(run(&safe, Some("--error-exitcode=42"), &[]).ended, Ended::Code(43), "the file of the current directory is stronger");
    assert_eq!(run(&safe, None, &["--error-exitcode=45"]).ended, Ended::Code(45), "the command line is the strongest");
    let unsafe_one = run(&open, None, &[]);
    assert_eq!(unsafe_one.ended, Ended::Code(41), "a file that everybody can write is not read");
    assert!(unsafe_one.err().contains("./.valgrindrc was not read as it is either not a regular file,"), "{}", unsafe_one.err());
    assert_eq!(run(&safe, Some("--bad"), &["--command-line-only=yes"]).ended, Ended::Code(0));
    let refused = run(&dir, Some("--no-such=1"), &[]);
    assert_eq!((refused.ended, refused.err().lines().next()), (Ended::Code(1), Some("valgrind: Unknown option: --no-such=1")));
}

/// A rule may name the library that holds a caller; it must not mean the allocator that is called.
#[test]
fn a_rule_about_the_c_library_does_not_hide_every_leak() {
    let dir = common::scratch("dropin-libc-rule");
    compile(&dir, "faulty", FAULTY, &[]);
    let errors = |rule: &str| {
        std::fs::write(dir.join("r.supp"), format!("{{\n  r\n  Memcheck:Leak\n{rule}\n}}\n")).expect("a file");
        let outcome = valgrind(&dir).args(["--leak-check=full", "--suppressions=r.supp", "./faulty"]).finish("run");
        Report::parse(&outcome.err()).summaries[0].errors
    };
    assert_eq!(errors("obj:*/libc.so*"), 2);
    assert_eq!(errors("obj:*vgpreload_memcheck*\nfun:main"), 1);
    assert_eq!(errors("match-leak-kinds: definite\nfun:malloc\nsrc:faulty.c:3"), 1);
    assert_eq!(errors("match-leak-kinds: possible\nfun:malloc"), 2);
}

/// Rules for errors of threads end with the two functions that started the thread.
#[test]
fn threads_begin_in_clone() {
    let dir = common::scratch("dropin-clone");
    let source = "#include <pthread.h>\n#include <stdlib.h>\nstatic void *work(void *p) { ((char *)p)[10] = 1; return NULL; }\n\
        int main(void) { pthread_t t; char *p = malloc(10); pthread_create(&t, NULL, work, p); pthread_join(t, NULL); free(p); }";
    compile(&dir, "thread", source, &["-pthread"]);
    let report = Report::parse(&valgrind(&dir).arg("./thread").finish("run").err());
    let names: Vec<&str> = report.findings[0].frames.iter().map(|frame| frame.function.as_str()).collect();
    assert!(names.len() == 3 && names[0] == "work" && names[2].starts_with("clone"), "{names:?}");
}

/// A program that sends SIGKILL to itself, by each way there is.
const KILLS: &str = "#include <signal.h>\n#include <stdlib.h>\n#include <sys/syscall.h>\n#include <unistd.h>
int main(int argc, char **argv) {
    char *p = malloc(10);
    p = NULL;
    if (*argv[1] == 'k') kill(getpid(), SIGKILL);
    if (*argv[1] == 'r') raise(SIGKILL);
    syscall(SYS_tkill, syscall(SYS_gettid), SIGKILL);
}
";

#[test]
fn killing_oneself_is_reported_first() {
    let dir = common::scratch("dropin-kill");
    compile(&dir, "kills", KILLS, &[]);
    for way in ["k", "r", "t"] {
        let outcome = valgrind(&dir).args(["--leak-check=full", "./kills", way]).finish(way);
        assert_eq!(outcome.ended, Ended::Signal(9));
        let report = Report::parse(&outcome.err());
        let kinds: Vec<&str> = report.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, ["signal", "leak"], "{way}: {}", report.text);
        assert!(report.text.contains("in use at exit: 10 bytes in 1 blocks"), "{}", report.text);
    }
}

#[test]
fn origins_are_named_for_system_calls() {
    let dir = common::scratch("dropin-origins");
    let source = "#include <stdlib.h>\n#include <unistd.h>\n#include <fcntl.h>\nint main(void) {\n    int null = open(\"/dev/null\", O_WRONLY);\n\
        \x20   char *p = malloc(10);\n    write(null, p, 10);\n    char local[16];\n    write(null, local, 16);\n    free(p);\n}\n";
    compile(&dir, "params", source, &[]);
    let report = Report::parse(&valgrind(&dir).args(["--track-origins=yes", "./params"]).finish("run").err());
    let notes: Vec<_> = report.findings.iter().map(|finding| finding.notes.last().cloned().unwrap_or_default()).collect();
    assert_eq!(notes, ["Uninitialised value was created by a heap allocation", "Uninitialised value was created by a stack allocation"]);
}
