//! memcheck in place of Valgrind, called by its name: the words and statuses of a bad command line, where options come from,
//! suppression files, XML, reports of processes that are killed.
//!
//! The texts are those of Valgrind 3.19 and were compared with it; `MEMCHECK=valgrind cargo test --test dropin` does it again where it
//! is installed.

mod common;

use common::compile;
use common::report::Report;
use common::run::{Ended, Outcome, Run, valgrind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One invalid write, one leak, and the exit status given as its argument.
const FAULTY: &str = "#include <stdlib.h>
int main(int argc, char **argv) {
    char *p = malloc(10);
    p[10] = 1;
    p = NULL;
    return argc > 1 ? atoi(argv[1]) : 0;
}
";

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
    ("--leak-check ./faulty", 1, &["Unknown option: --leak-check"]),
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
    // Two words for one: the value is taken for the program.
    assert_eq!(answer(&["--leak-check", "full", "./faulty"]), (Ended::Code(127), "valgrind: full: command not found\n".into()));
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
    for (place, mode, text) in
        [(&home, 0o644, "--error-exitcode=41\n"), (&safe, 0o644, "--error-exitcode=43\n"), (&open, 0o666, "--error-exitcode=44\n")]
    {
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
        // Valgrind leaves out the signal.
        let expected: &[&str] = if common::testing_reference() { &["leak"] } else { &["signal", "leak"] };
        assert_eq!(kinds, expected, "{way}: {}", report.text);
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

/// Faults of every family, a thread with a name, and an end of the kind that the argument names.
const ENDS: &str = "#include <fcntl.h>\n#include <pthread.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <string.h>
#include <sys/prctl.h>\n#include <sys/wait.h>\n#include <unistd.h>
static void *work(void *a) { prctl(PR_SET_NAME, \"w<o>&k\"); volatile char *p = malloc(4); p[4] = 1; return 0; }
int main(int c, char **v) {
    volatile char *p = malloc(10);
    p[10] = 1;
    volatile int *q = malloc(4);
    if (*q) p[0] = 1;
    pthread_t t;
    pthread_create(&t, 0, work, 0);
    pthread_join(t, 0);
    write(open(\"/dev/null\", 1), (void *)p, 10);
    free((void *)q);
    free((void *)q);
    p = 0;
    switch (*v[1]) {
    case 'k': kill(getpid(), SIGKILL);
    case 'a': abort();
    case 's': *(volatile int *)0 = 1;
    case 't': kill(getpid(), SIGTERM); pause();
    case 'E': _exit(5);
    case 'x': execl(\"/bin/sh\", \"sh\", \"-c\", \"exit 3\", NULL);
    case 'f': if (fork() == 0) kill(getpid(), SIGKILL); wait(0); break;
    case 'F': if (fork() == 0) _exit(0); wait(0); break;
    }
    return 3;
}
";

/// Reads documents with a parser of somebody else, and says what is in them: states, kinds, signals, whether counts are there.
const READER: &str = "import sys, xml.etree.ElementTree as E
for name in sys.argv[1:]:
    r = E.parse(name).getroot()
    states = [s.findtext('state') for s in r.iter('status')]
    kinds = sorted(e.findtext('kind') for e in r.iter('error'))
    signals = [s.findtext('signame') for s in r.iter('fatal_signal')]
    names = {e.findtext('threadname') for e in r.iter('error')} - {None}
    whole = all(e.find('unique').text.startswith('0x') and e.find('stack/frame/ip') is not None for e in r.iter('error'))
    print(states, kinds, signals, sorted(names), whole, r.find('errorcounts') is not None, r.find('suppcounts') is not None)
";

#[test]
fn xml_is_whole_however_a_program_ends() {
    if common::find_program("python3").is_none() {
        return common::skip("XML by another parser", "no python3 here");
    }
    if common::testing_reference() {
        return common::skip("XML by another parser", "the reference does not escape thread names");
    }
    let dir = common::scratch("dropin-xml");
    compile(&dir, "ends", ENDS, &["-pthread"]);
    std::fs::write(dir.join("reader.py"), READER).expect("a script");
    let found =
        ["InvalidFree", "InvalidWrite", "InvalidWrite", "Leak_DefinitelyLost", "Leak_DefinitelyLost", "SyscallParam", "UninitCondition"];
    for (how, ended, signal, extra) in [
        ("0", Ended::Code(3), None, None),
        ("k", Ended::Signal(9), Some("SIGKILL"), None),
        ("a", Ended::Signal(6), Some("SIGABRT"), None),
        ("s", Ended::Signal(11), Some("SIGSEGV"), Some("InvalidWrite")),
        ("t", Ended::Signal(15), Some("SIGTERM"), None),
        ("E", Ended::Code(5), None, None),
        ("x", Ended::Code(3), None, None),
        ("F", Ended::Code(3), None, None),
    ] {
        let xml = format!("{how}.xml");
        let outcome = valgrind(&dir)
            .args(["--xml=yes", &format!("--xml-file={xml}"), "--child-silent-after-fork=yes", "--show-leak-kinds=definite"])
            .args(["./ends", how]);
        assert_eq!(outcome.finish(how).ended, ended, "{how}");
        let read = Run::new("python3", &dir).args(["reader.py", &xml]).finish("reader");
        assert_eq!(read.ended, Ended::Code(0), "{how}: {}", read.err());
        let mut kinds: Vec<&str> = found.iter().copied().chain(extra).collect();
        kinds.sort_unstable();
        let list = |words: &[&str]| format!("[{}]", words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", "));
        let signals = list(signal.as_slice());
        // An exec that is not followed ends the document early.
        let expected = match how {
            "x" => format!(
                "['RUNNING'] {} [] ['w<o>&k'] True False False\n",
                list(&kinds.iter().copied().filter(|k| !k.starts_with("Leak")).collect::<Vec<_>>())
            ),
            _ => format!("['RUNNING', 'FINISHED'] {} {signals} ['w<o>&k'] True True True\n", list(&kinds)),
        };
        assert_eq!(read.out(), expected, "{how}");
    }
    // Several processes in one file, one of them killed; and a file for each.
    for file in ["one.xml", "each-%p.xml"] {
        valgrind(&dir).args(["--xml=yes", &format!("--xml-file={file}"), "./ends", "f"]).finish("fork");
    }
    let files = std::fs::read_dir(&dir).expect("the directory").flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> = files.filter(|file| file.to_string_lossy().contains("/each-") || file.ends_with("one.xml")).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    let read = Run::new("python3", &dir).arg("reader.py").args(&files).finish("reader");
    assert_eq!(read.ended, Ended::Code(0), "{}", read.err());
}

/// A listener, a pipe, a file, a duplicate; what is closed must not be listed.
const OPENS: &str = "#include <fcntl.h>\n#include <unistd.h>\n#include <sys/socket.h>\n#include <netinet/in.h>
int main(void) {
    int file = open(\"/etc/passwd\", O_RDONLY);
    int pair[2];
    pipe(pair);
    int net = socket(AF_INET, SOCK_STREAM, 0);
    close(pair[0]);
    int copy = fcntl(file, F_DUPFD, 60);
    close(dup(net));
    return 0;
}
";

#[test]
fn open_descriptors_are_listed_with_their_stacks() {
    let dir = common::scratch("dropin-fds");
    compile(&dir, "opens", OPENS, &[]);
    let outcome = valgrind(&dir).args(["--track-fds=yes", "./opens"]).finish("run");
    let all = lines(&outcome);
    let heads: Vec<&str> = all.iter().filter_map(|line| line.strip_prefix("==PID== Open ")).collect();
    let own: Vec<&str> = heads.iter().copied().filter(|head| !head.contains("<inherited")).collect();
    let expected = [
        "file descriptor 60: /etc/passwd",
        "AF_INET socket 6: <unbound> <-> unbound",
        "file descriptor 5:",
        "file descriptor 3: /etc/passwd",
    ];
    assert_eq!(own.get(..4), Some(&expected[..]), "{}", outcome.err());
    let at = |text: &str| all.iter().position(|line| line.ends_with(text)).unwrap_or_else(|| panic!("{text}: {}", outcome.err()));
    assert!(all[at("Open file descriptor 3: /etc/passwd") + 2].ends_with("main (opens.c:6)"), "{}", outcome.err());
    assert!(all.iter().any(|line| line.contains("FILE DESCRIPTORS: ") && line.contains("(3 std) at exit.")), "{}", outcome.err());
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = common::scratch("dropin-full");
    compile(&dir, "faulty", FAULTY, &[]);
    if !Path::new("/dev/full").exists() || common::testing_reference() {
        return common::skip("a full disk", "no /dev/full, or the reference, which loses the report");
    }
    let outcome = valgrind(&dir).args(["--log-file=/dev/full", "./faulty", "4"]).finish("run");
    assert_eq!(outcome.ended, Ended::Code(4));
    assert!(outcome.err().starts_with("memcheck: cannot write to the log destination: No space left on device;"), "{}", outcome.err());
    assert_eq!(Report::parse(&outcome.err()).summaries[0].errors, 1, "{}", outcome.err());
}

/// Files in the manner of those that GLib, Python and Qt ship: tabs, comments, other tools, no blank after a colon, `...` at the end.
const SHIPPED: &[&str] = &[
    "# GLib\n#\n\n{\n\tgnutls-init-calloc\n\tMemcheck:Leak\n\tmatch-leak-kinds:reachable\n\tfun:calloc\n\t...\n\tfun:gtls_gnutls_init\n}\n\
     # types are never freed\n{\n\tg-type-register-static\n\tMemcheck:Leak\n\tmatch-leak-kinds:possible,reachable\n\tfun:malloc\n\t...\n\
     \tfun:g_type_register_static\n}\n",
    "###{\n###   ADDRESS_IN_RANGE/Invalid read of size 4\n###   Memcheck:Addr4\n###   fun:address_in_range\n###}\n\n{\n   ADDRESS_IN_RANGE/x\n   \
     Memcheck:Value8\n   fun:address_in_range\n}\n{\n   Generic ld leaks\n   Memcheck:Leak\n   obj:/lib/ld-2.4.so\n   obj:/lib/ld-2.4.so\n}\n{\n   \
     GDBM problems, see test_gdbm\n   Memcheck:Param\n   write(buf)\n   fun:write\n   fun:gdbm_open\n}\n",
    "{\n   X on SUSE11 writev uninit padding\n   Memcheck:Param\n   writev(vector[...])\n   fun:writev\n   obj:*/libQt?Core.so*\n   ...\n}\n{\n   races\n   \
     Helgrind:Race\n   fun:_ZN6QMutex*\n   obj:*\n}\n{\n   drd\n   drd:ConflictingAccess\n   ...\n   fun:_ZN10QMutexPool*\n}\n{\n   core\n   \
     CoreError:FdNotClosed\n   fun:open\n}\n{\n   both\n   Helgrind,Memcheck:Addr1\n   src:faulty.c:4\n   ...\n}\n",
];

#[test]
fn files_that_projects_ship_load_unchanged() {
    let dir = common::scratch("dropin-shipped");
    compile(&dir, "faulty", FAULTY, &[]);
    let mut run =
        valgrind(&dir).args(["-s", "--show-unused-suppressions=yes"].iter().filter(|word| !common::testing_reference() || word.len() == 2));
    for (number, text) in SHIPPED.iter().enumerate() {
        let file = format!("shipped{number}.supp");
        std::fs::write(dir.join(&file), text).expect("a file");
        run = run.arg(format!("--suppressions={file}"));
    }
    let outcome = run.arg("./faulty").finish("run");
    assert_eq!(outcome.ended, Ended::Code(0), "{}", outcome.err());
    let text = outcome.err();
    assert!(text.contains("ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 1 from 1)"), "{text}");
    assert!(text.contains("used_suppression:      1 both shipped2.supp:"), "{text}");
    let unused = text.lines().filter(|line| line.contains("shipped1.supp")).count();
    assert!(unused == 3 || common::testing_reference(), "three of Python's rules hid nothing: {text}");
}
