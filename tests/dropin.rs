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

/// Is there a header that programs are annotated with?
fn has_headers() -> bool {
    let found = ["/usr/include", "/usr/local/include"].iter().any(|dir| Path::new(dir).join("valgrind/memcheck.h").is_file());
    if !found {
        common::skip("client requests by the public headers", "valgrind/memcheck.h is not installed");
    }
    found
}

const REQUESTS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/memcheck.h>
#define AT(request) (int)((char *)(request) - p)
int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    printf("running %d\n", (int)RUNNING_ON_VALGRIND);
    VALGRIND_PRINTF("hello %d %s %c %x %5d|\n", 42, "str", 'c', 255, 7);
    VALGRIND_PRINTF_BACKTRACE("with backtrace\n");
    char *p = malloc(100);
    memset(p, 0, 100);
    VALGRIND_MAKE_MEM_NOACCESS(p + 10, 10);
    p[12] = 1;
    printf("addressable to %d\n", AT(VALGRIND_CHECK_MEM_IS_ADDRESSABLE(p, 100)));
    VALGRIND_MAKE_MEM_UNDEFINED(p + 10, 10);
    printf("defined to %d\n", AT(VALGRIND_CHECK_MEM_IS_DEFINED(p, 100)));
    VALGRIND_MAKE_MEM_DEFINED(p, 100);
    VALGRIND_MAKE_MEM_NOACCESS(p, 50);
    VALGRIND_MAKE_MEM_DEFINED_IF_ADDRESSABLE(p, 100);
    unsigned char bits[16];
    printf("bits %d %d\n", VALGRIND_GET_VBITS(p, bits, 16), VALGRIND_GET_VBITS(p + 50, bits, 16));
    bits[3] = 0x81;
    printf("bits %d %d\n", VALGRIND_SET_VBITS(p + 50, bits, 16), VALGRIND_SET_VBITS(p + 40, bits, 16));
    if (p[53] & 0x7e) puts("no");
    if (p[53] & 0x80) puts("no");
    int block = VALGRIND_CREATE_BLOCK(p + 60, 10, "my block");
    VALGRIND_MAKE_MEM_NOACCESS(p + 60, 10);
    p[62] = 1;
    printf("discard %d %d\n", (int)VALGRIND_DISCARD(block), (int)VALGRIND_DISCARD(12345));
    VALGRIND_DISABLE_ERROR_REPORTING;
    p[63] = 1;
    VALGRIND_ENABLE_ERROR_REPORTING;
    printf("errors %u\n", VALGRIND_COUNT_ERRORS);
    VALGRIND_DISABLE_ADDR_ERROR_REPORTING_IN_RANGE(p + 60, 4);
    p[61] = 3;
    VALGRIND_ENABLE_ADDR_ERROR_REPORTING_IN_RANGE(p + 60, 4);
    char where[64] = "";
    VALGRIND_MAP_IP_TO_SRCLOC((char *)main + 8, where);
    printf("at %s\n", where);
    VALGRIND_CLO_CHANGE("--show-leak-kinds=all");
    printf("monitor %d %d\n", (int)VALGRIND_MONITOR_COMMAND("leak_check summary"), (int)VALGRIND_MONITOR_COMMAND("nonsense"));
    return 0;
}
"#;

#[test]
fn annotated_programs_behave_as_under_valgrind() {
    if !has_headers() {
        return;
    }
    let dir = common::scratch("dropin-requests");
    compile(&dir, "requests", REQUESTS, &[]);
    let outcome = valgrind(&dir).args(["--track-origins=yes", "./requests"]).finish("run");
    let expected = "running 1\naddressable to 10\ndefined to 10\nbits 3 1\nbits 1 3\ndiscard 0 1\nerrors 5\nat requests.c:7\nmonitor 0 1\n";
    assert_eq!(outcome.out(), expected, "{}", outcome.err());
    let report = Report::parse(&outcome.err());
    let found: Vec<(&str, Option<u32>)> = report.findings.iter().map(|f| (f.kind, f.line_in("requests.c"))).collect();
    let expected = [("invalid-write", 15), ("user-unaddressable", 16), ("user", 18), ("cond", 27), ("invalid-write", 30)]
        .map(|(k, line)| (k, Some(line)));
    assert_eq!(found, expected, "{}", report.text);
    assert!(report.findings[4].mentions("is 2 bytes inside a my block of size 10 client-defined"), "{}", report.text);
    assert!(report.findings[3].mentions("was created by a client request") || common::testing_reference(), "{}", report.text);
    for text in
        ["** hello 42 str c ff     7|\n", "** with backtrace\n", "Handling new value --show-leak-kinds=all for option --show-leak-kinds\n"]
    {
        assert!(outcome.err().contains(text), "{text:?} not in: {}", outcome.err());
    }
}

const POOLS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/memcheck.h>
static char arena[10000];
static int pool, other;
int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    VALGRIND_MAKE_MEM_NOACCESS(arena, sizeof arena);
    VALGRIND_CREATE_MEMPOOL(&pool, 16, 0);
    char *a = arena + 16, *b = arena + 116;
    VALGRIND_MEMPOOL_ALLOC(&pool, a, 32);
    VALGRIND_MEMPOOL_ALLOC(&pool, b, 64);
    a[0] = 1;
    a[32] = 1;
    if (b[3]) puts("no");
    VALGRIND_MEMPOOL_FREE(&pool, a);
    a[5] = 1;
    VALGRIND_MEMPOOL_FREE(&pool, a);
    VALGRIND_MEMPOOL_TRIM(&pool, b + 8, 10);
    b[10] = 2;
    b[5] = 1;
    VALGRIND_MOVE_MEMPOOL(&pool, &other);
    printf("%d %d\n", (int)VALGRIND_MEMPOOL_EXISTS(&pool), (int)VALGRIND_MEMPOOL_EXISTS(&other));
    VALGRIND_MEMPOOL_ALLOC(&pool, arena + 1000, 10);
    VALGRIND_DESTROY_MEMPOOL(&other);
    b[10] = 1;
    char *m = arena + 2000;
    VALGRIND_MALLOCLIKE_BLOCK(m, 40, 8, 1);
    m[40] = 1;
    VALGRIND_RESIZEINPLACE_BLOCK(m, 40, 60, 8);
    m[45] = 1;
    m[60] = 1;
    VALGRIND_FREELIKE_BLOCK(m, 8);
    m[1] = 1;
    VALGRIND_FREELIKE_BLOCK(m, 8);
    VALGRIND_MALLOCLIKE_BLOCK(arena + 3000, 50, 0, 0);
    return 0;
}
"#;

#[test]
fn pools_and_declared_blocks() {
    if !has_headers() {
        return;
    }
    let dir = common::scratch("dropin-pools");
    compile(&dir, "pools", POOLS, &[]);
    let outcome = valgrind(&dir).args(["--leak-check=full", "./pools"]).finish("run");
    assert_eq!(outcome.out(), "0 1\n");
    let report = Report::parse(&outcome.err());
    let found: Vec<(&str, Option<u32>)> = report.findings.iter().map(|f| (f.kind, f.line_in("pools.c"))).collect();
    let expected = [
        ("invalid-write", 15),
        ("cond", 16),
        ("invalid-write", 18),
        ("invalid-free", 19),
        ("invalid-write", 21),
        ("invalid-write", 22),
        ("mempool", 25),
        ("invalid-write", 27),
        ("invalid-write", 30),
        ("invalid-write", 33),
        ("invalid-write", 35),
        ("invalid-free", 36),
        ("leak", 37),
    ];
    assert_eq!(found, expected.map(|(kind, line)| (kind, Some(line))), "{}", report.text);
    assert!(report.text.contains("in use at exit: 50 bytes in 1 blocks"), "chunks of pools are not in use twice: {}", report.text);
}

const CHECKS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/memcheck.h>
static char *kept;
__attribute__((noinline)) static void leak(int n) {
    for (int i = 0; i < n; i++) { volatile char *q = malloc(32); q = 0; }
    volatile char clear[4000];
    memset((void *)clear, 0, sizeof clear);
}
static void counts(void) {
    long a = 99, b = 99, c = 99, d = 99;
    VALGRIND_COUNT_LEAKS(a, b, c, d);
    printf("%ld %ld %ld %ld", a, b, c, d);
    VALGRIND_COUNT_LEAK_BLOCKS(a, b, c, d);
    printf(" in %ld %ld %ld %ld\n", a, b, c, d);
}
int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    kept = malloc(10);
    leak(2);
    VALGRIND_DO_LEAK_CHECK; counts();
    leak(1);
    VALGRIND_DO_ADDED_LEAK_CHECK; counts();
    kept = malloc(20);
    VALGRIND_DO_CHANGED_LEAK_CHECK; counts();
    free(kept);
    kept = 0;
    VALGRIND_DO_QUICK_LEAK_CHECK; counts();
    return 0;
}
"#;

#[test]
fn programs_check_for_leaks_whenever_they_like() {
    if !has_headers() {
        return;
    }
    let dir = common::scratch("dropin-checks");
    compile(&dir, "checks", CHECKS, &[]);
    // Also when no check was asked for at the end, which is how test drivers run.
    for option in ["--leak-check=full", "--leak-check=no"] {
        let outcome = valgrind(&dir).args([option, "./checks"]).finish("run");
        let expected = "64 0 10 0 in 2 0 1 0\n96 0 10 0 in 3 0 1 0\n106 0 20 0 in 4 0 1 0\n106 0 0 0 in 4 0 0 0\n";
        assert_eq!(outcome.out(), expected, "{option}: {}", outcome.err());
        for text in [
            "64 bytes in 2 blocks are definitely lost in loss record 2 of 2",
            "32 (+32) bytes in 1 (+1) blocks are definitely lost in loss record 2 of 3",
            "10 (+10) bytes in 1 (+1) blocks are definitely lost in loss record ",
            "   definitely lost: 106 (+10) bytes in 4 (+1) blocks",
        ] {
            assert!(outcome.err().contains(text), "{option}: {text:?} not in {}", outcome.err());
        }
    }
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
