//! What is said beside the findings: warnings, answers to requests of the program, lists at the end.
//!
//! Each test is a program and the lines that must come, in this order and letter by letter; they are what Valgrind 3.19 prints
//! (`MEMCHECK=valgrind` proves it). Numbers that depend on the run are written as `N`.

mod common;

use common::run::Run;
use std::path::PathBuf;
use std::process::Command;

/// The lines that a run says, with process numbers and addresses made equal.
fn lines(name: &str, source: &str, options: &[&str]) -> Option<Vec<String>> {
    let dir = common::scratch(&format!("texts-{name}"));
    let file = dir.join("program.c");
    std::fs::write(&file, source).expect("a source file");
    let header = source.lines().find_map(|line| line.strip_prefix("#include <valgrind/"));
    if header.is_some() && !PathBuf::from("/usr/include/valgrind/memcheck.h").exists() {
        common::skip(name, "the request headers are not installed");
        return None;
    }
    let status = Command::new("gcc").args(["-g", "-O0", "-w", "-pthread", "-o"]).arg(dir.join("program")).arg(&file).status();
    assert!(status.is_ok_and(|status| status.success()), "gcc failed on {name}");
    let outcome = Run::new(common::memcheck(), &dir).args(options).arg("./program").finish("run");
    Some(outcome.err().lines().map(plain).collect())
}

/// `==12345== ` as `== `; addresses as `0xN`.
fn plain(line: &str) -> String {
    let mut rest = line.to_owned();
    for mark in ["==", "--", "**"] {
        if let Some((number, text)) = rest.strip_prefix(mark).and_then(|text| text.split_once(mark))
            && number.bytes().all(|b| b.is_ascii_digit())
        {
            rest = format!("{mark}{text}");
            break;
        }
    }
    let mut out = String::new();
    let mut pieces = rest.split("0x");
    out.push_str(pieces.next().unwrap_or(""));
    for piece in pieces {
        out.push_str("0xN");
        out.push_str(piece.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

/// All of `wanted` in this order; other lines may stand between.
#[track_caller]
fn says(name: &str, source: &str, options: &[&str], wanted: &[&str]) {
    let Some(said) = lines(name, source, options) else { return };
    let mut left = said.iter();
    for line in wanted {
        assert!(left.any(|other| other == line), "'{line}' is missing or too late in:\n{}", said.join("\n"));
    }
}

/// Nothing but `wanted`.
#[track_caller]
fn says_only(name: &str, source: &str, options: &[&str], wanted: &[&str]) {
    if let Some(said) = lines(name, source, options) {
        assert_eq!(said, wanted);
    }
}

const IMPOSSIBLE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/ioctl.h>
#include <unistd.h>
int main(void) {
    char c = 0, room[64];
    long action[4] = {1};
    read(-1, &c, 1);
    openat(-1, "relative", O_RDONLY);
    openat(-1, "/absolute/and/missing", O_RDONLY);
    dup2(1, 2000000000);
    fcntl(-1, F_GETFD);
    syscall(SYS_rt_sigaction, SIGKILL, action, NULL, 8);
    syscall(SYS_rt_sigaction, SIGSTOP, NULL, action, 8);
    syscall(SYS_rt_sigaction, 65, action, NULL, 8);
    for (int i = 0; i < 3; i++) ioctl(-1, 0x12345670, &c);
    ioctl(-1, 0x5401, room);
    return 0;
}
"#;

#[test]
fn impossible_arguments() {
    let ioctl = [
        "== Warning: noted but unhandled ioctl 0xN with no size/direction hints.",
        "==    This could cause spurious value errors to appear.",
        "==    See README_MISSING_SYSCALL_OR_IOCTL for guidance on writing a proper wrapper.",
    ];
    let wanted = [
        "== Warning: invalid file descriptor -1 in syscall read()",
        "== Warning: invalid file descriptor -1 in syscall openat()",
        "== Warning: invalid file descriptor 2000000000 in syscall dup2()",
        "== Warning: ignored attempt to set SIGKILL handler in sigaction();",
        "==          the SIGKILL signal is uncatchable",
        "== Warning: bad signal number 65 in sigaction()",
        ioctl[0],
        ioctl[1],
        ioctl[2],
        "== HEAP SUMMARY:",
    ];
    says("impossible", IMPOSSIBLE, &[], &wanted);
    says_only("impossible-quiet", IMPOSSIBLE, &["-q"], &ioctl);
}

#[test]
fn reporting_that_was_left_off() {
    let source = r#"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include <valgrind/memcheck.h>
static void *thread(void *p) { VALGRIND_DISABLE_ERROR_REPORTING; return p; }
int main(void) {
    static char a[100];
    pthread_t t;
    pthread_create(&t, NULL, thread, NULL);
    pthread_join(t, NULL);
    write(2, "joined\n", 7);
    VALGRIND_DISABLE_ERROR_REPORTING;
    VALGRIND_ENABLE_ERROR_REPORTING;
    VALGRIND_DISABLE_ADDR_ERROR_REPORTING_IN_RANGE(a, 10);
    VALGRIND_DISABLE_ADDR_ERROR_REPORTING_IN_RANGE(a + 10, 10);
    VALGRIND_DISABLE_ADDR_ERROR_REPORTING_IN_RANGE(a + 50, 10);
    VALGRIND_DISABLE_ADDR_ERROR_REPORTING_IN_RANGE(a + 80, 10);
    VALGRIND_ENABLE_ADDR_ERROR_REPORTING_IN_RANGE(a + 80, 10);
    return 0;
}
"#;
    let wanted = [
        "== WARNING: exiting thread has error reporting disabled.",
        "== WARNING: possibly as a result of some mistake in the use",
        "== WARNING: of the VALGRIND_DISABLE_ERROR_REPORTING macros.",
        "joined",
        "== WARNING: exiting program has the following client-requested",
        "== WARNING: address error disablement range(s) still in force,",
        "== WARNING: possibly as a result of some mistake in the use of the",
        "== WARNING: VALGRIND_{DISABLE,ENABLE}_ERROR_REPORTING_IN_RANGE macros.",
        "==    [3]  0xN-0xN  ClientReq",
        "==    [5]  0xN-0xN  ClientReq",
    ];
    says_only("reporting-off", source, &["-q", "--ignore-ranges=0x10-0x1f"], &wanted);
}

#[test]
fn lines_that_the_program_begins() {
    let source = r#"
#include <stdlib.h>
#include <valgrind/memcheck.h>
int main(void) {
    char *volatile p = malloc(4);
    VALGRIND_PRINTF("one ");
    VALGRIND_PRINTF("two\n");
    VALGRIND_PRINTF("open");
    p[4] = 1;
    VALGRIND_PRINTF("next ");
    (void)VALGRIND_MONITOR_COMMAND("v.set merge-recursive-frames 3");
    VALGRIND_PRINTF("last\n");
    free(p);
    return 0;
}
"#;
    let wanted = [
        "** one two",
        "** openInvalid write of size 1",
        "==    at 0xN: main (program.c:9)",
        "==  Address 0xN is 0 bytes after a block of size 4 alloc'd",
        "==    at 0xN: ???",
        "== ",
        "** next merge-recursive-frames value changed from 0 to 3",
        "last",
    ];
    says_only("open-lines", source, &["-q", "--keep-stacktraces=free"], &wanted);
}

/// Searches in the middle of a run: none to look for, records that were there before, heuristics, commands in words.
#[test]
fn leak_searches_on_request() {
    let source = r#"
#include <stdlib.h>
#include <unistd.h>
#include <valgrind/memcheck.h>
static char *a, *b, *inner;
__attribute__((noinline)) static void begin(void) {
    a = malloc(100);
    b = malloc(10);
    unsigned long *sized = malloc(40);
    *sized = 32;
    inner = (char *)(sized + 1);
}
int main(void) {
    VALGRIND_DO_LEAK_CHECK;
    begin();
    VALGRIND_DO_LEAK_CHECK;
    b = NULL;
    VALGRIND_DO_ADDED_LEAK_CHECK;
    write(2, "now in words\n", 13);
    (void)VALGRIND_MONITOR_COMMAND("leak_check summary heuristics none");
    (void)VALGRIND_MONITOR_COMMAND("leak_check full nonsense");
    (void)VALGRIND_MONITOR_COMMAND("leak_check full definiteleak any heuristics none");
    free(a);
    a = NULL;
    return 0;
}
"#;
    let wanted = [
        "== All heap blocks were freed -- no leaks are possible",
        "== ",
        "== LEAK SUMMARY:",
        "==    still reachable: 150 bytes in 3 blocks",
        "==                       of which reachable via heuristic:",
        "==                         length64           : 40 bytes in 1 blocks",
        "== Reachable blocks (those to which a pointer was found) are not shown.",
        "== 10 (+10) bytes in 1 (+1) blocks are definitely lost in loss record 2 of 4",
        "==    definitely lost: 10 (+10) bytes in 1 (+1) blocks",
        "==                         length64           : 40 (+0) bytes in 1 (+0) blocks",
        "now in words",
        "==      possibly lost: 40 (+40) bytes in 1 (+1) blocks",
        "==                       of which reachable via heuristic:",
        "==                         length64           : 0 (-40) bytes in 0 (-1) blocks",
        "== To see details of leaked memory, give 'full' arg to leak_check",
        "nonsense does not match any of 'full summary xtleak kinds reachable possibleleak definiteleak heuristics increased changed any \
         unlimited limited '",
        "== 10 bytes in 1 blocks are definitely lost in loss record 1 of 3",
        "== To see them, add 'reachable any' args to leak_check",
        "== HEAP SUMMARY:",
        "== ERROR SUMMARY: 2 errors from 2 contexts (suppressed: 0 from 0)",
    ];
    says("leak-requests", source, &["--leak-check=full", "--run-libc-freeres=no"], &wanted);
}

#[test]
fn allocations_are_told() {
    let source = r#"
#include <malloc.h>
#include <stdlib.h>
int main(void) {
    void *volatile p = malloc(10);
    p = realloc(p, 20);
    free(p);
    p = realloc(NULL, 5);
    free(p);
    p = calloc(3, 4);
    free(p);
    posix_memalign((void **)&p, 32, 100);
    free(p);
    return 0;
}
"#;
    let wanted = [
        "-- malloc(10) = 0xN",
        "-- realloc(0xN,20) = 0xN",
        "-- free(0xN)",
        "-- malloc(5) = 0xN",
        "-- free(0xN)",
        "-- calloc(3,4) = 0xN",
        "-- free(0xN)",
        "-- memalign(al 32, size 100) = 0xN",
        "-- free(0xN)",
    ];
    says_only("trace-malloc", source, &["-q", "--trace-malloc=yes", "--run-libc-freeres=no"], &wanted);
}

#[test]
fn descriptors_that_came_in_a_message_and_over_others() {
    let source = r#"
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
static void pass(int to, int fd) {
    char c = 0, room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&c, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    sendmsg(to, &m, 0);
}
static void take(int from) {
    char c, room[100];
    struct iovec part = {&c, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    recvmsg(from, &m, 0);
}
int main(void) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 40);
    dup2(null, 50);
    dup2(null, 40);
    pass(pair[0], null);
    take(pair[1]);
    close(null);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
"#;
    let wanted = [
        "== Open file descriptor 6: /dev/null",
        "==    by 0xN: take (program.c:22)",
        "== Open file descriptor 50: /dev/null",
        "==    by 0xN: main (program.c:29)",
        "== Open file descriptor 40: /dev/null",
        "==    by 0xN: main (program.c:30)",
    ];
    says("passed", source, &["--track-fds=yes"], &wanted);
}

#[test]
fn symbols_that_a_library_must_have() {
    let source = "int main(void) { return 0; }";
    says_only("symbol-there", source, &["-q", "--require-text-symbol=:libc.so*:mall?c"], &[]);
    let wanted = [
        "",
        "valgrind:  Fatal error at when loading library with soname",
        "valgrind:     libc.so.6",
        "valgrind:  Cannot find any text symbol with a name that matches the pattern",
        "valgrind:     no_such_*",
        "valgrind:  as required by a --require-text-symbol= specification.",
        "",
        "valgrind:  Cannot continue -- exiting now.",
        "",
    ];
    says_only("symbol-missing", source, &["-q", "--require-text-symbol=:libc.so.6:no_such_*"], &wanted);
}

const INTERRUPTED: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static char *p;
static volatile int zero;
static void handler(int number) {
    p[8] = 1;
    if (number == SIGFPE) _exit(0);
}
static long divide(void) {
    long a = zero;
    return
        5 / a;
}
int main(void) {
    p = malloc(8);
    signal(SIGUSR1, handler);
    signal(SIGFPE, handler);
    long r, me = getpid(), what = SIGUSR1;
    __asm__ volatile("syscall"
        : "=a"(r) : "a"(SYS_kill), "D"(me), "S"(what) : "rcx", "r11", "memory");
    r = 5;
    return divide();
}
"#;

/// A system call that a signal has interrupted is shown where it was made, an instruction that faulted where it stands.
#[test]
fn places_that_signals_interrupt() {
    let Some(said) = lines("interrupted", INTERRUPTED, &["-q"]) else { return };
    let below: Vec<&str> = said.windows(2).filter(|w| w[0].contains("(in ") && !w[0].contains("malloc")).map(|w| w[1].as_str()).collect();
    assert_eq!(below, ["==    by 0xN: main (program.c:22)", "==    by 0xN: divide (program.c:15)"], "in:\n{}", said.join("\n"));
}
