//! Programs that speak to the tool by the requests of `valgrind.h` and `memcheck.h`: checks, marks, counts, pools, leak searches.
//!
//! The expectations are those of Valgrind 3.19; `MEMCHECK=valgrind cargo test --test requests` compares with it again.

mod common;

use common::compile;
use common::report::Report;
use common::run::valgrind;
use std::path::Path;

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

const COMMANDS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <valgrind/memcheck.h>
struct link { struct link *next, *other; };
char *kept;
int main(int count, char **words) {
    struct link *first = malloc(16);
    kept = (char *)first;
    first->next = malloc(16);
    first->next->next = 0;
    first->other = 0;
    int undefined[4];
    if (undefined[count & 3]) puts("?");
    for (int i = 1; i < count; i++) {
        char text[200], *to = text;
        for (char *from = words[i]; *from; from++)
            if (*from == '@') to += sprintf(to, "%p", *++from == 'b' ? (void *)first : *from == 'n' ? (void *)first->next : (void *)&kept);
            else *to++ = *from;
        *to = 0;
        if (words[i][0] == '!') kept = 0, first->other = 0, first = malloc(1);
        else fprintf(stderr, "<%d>\n", (int)VALGRIND_MONITOR_COMMAND(text));
    }
    _exit(0);
}
"#;

/// Each command with all that is printed for it, without addresses and process ids.
#[test]
fn commands_are_answered_in_valgrinds_words() {
    if !has_headers() {
        return;
    }
    let dir = common::scratch("dropin-commands");
    compile(&dir, "commands", COMMANDS, &[]);
    let told = |commands: &[&str]| {
        let outcome = valgrind(&dir).args(["-q", "--track-origins=no", "./commands"]).args(commands).finish("run");
        plain(&outcome.err())
    };
    let block = " Address A is 0 bytes inside a block of size 16 alloc'd\n   at A: malloc (in L)\n   by A: main (commands.c:9)\n";
    let rows: &[(&str, &str)] = &[
        ("nonsense", "<1>\n"),
        ("x", "x can match xb xtmemory\n<0>\n"),
        ("v.info n", "n_errs_found 1 n_errs_shown 1 (vgdb-error 999999999) \n<0>\n"),
        ("v.info last", "Conditional jump or move depends on uninitialised value(s)\n   at A: main (commands.c:15)\n\n<0>\n"),
        ("v.info all_errors", "ERROR SUMMARY: 1 errors from 1 contexts (suppressed: 0 from 0)\n<0>\n"),
        ("v.info location @b", &format!("{block}<0>\n")),
        ("v.info location @k", " Address A is 0 bytes inside data symbol \"kept\"\n<0>\n"),
        ("v.info location 12", "missing or malformed address\n<0>\n"),
        ("xb @b 3x", "malformed integer, expecting hex 0x..... or dec ...... or binary 0b.....\n<0>\n"),
        ("get_vbits @n 18", "00000000 00000000 ffffffff ffffffff ____\nAddress A len 18 has 2 bytes unaddressable\n<0>\n"),
        ("make_memory noaccess @k 2", "<0>\n"),
        ("xb @k 3", "\t\t  __\t  __\t  00\nA:\t0x??\t0x??\t0xVV\nAddress A len 3 has 2 bytes unaddressable\n<0>\n"),
        ("make_memory defined @k 2", "<0>\n"),
        ("check_memory defined @b 16", &format!("Address A len 16 defined\n{block}<0>\n")),
        ("check_memory addressable @b 17", &format!("Address A len 17 not addressable:\nbad address A\n{block}<0>\n")),
        ("check_memory defined @k[8]", "Address A len 8 defined\n Address A is 0 bytes inside data symbol \"kept\"\n<0>\n"),
        (
            "leak_check foo",
            "foo does not match any of 'full summary xtleak kinds reachable possibleleak definiteleak heuristics increased changed any unlimited limited '\n<0>\n",
        ),
        ("block_list 1", "Can't print block list : no valid leak search result\ninvalid loss record nr\n<0>\n"),
        (
            "v.clo --time-stamp=maybe",
            "Bad option: --time-stamp=maybe\nInvalid boolean value 'maybe' (should be 'yes' or 'no')\nUse --help for more information or consult the user manual.\n<0>\n",
        ),
        ("v.clo --num-callers=3", "Cannot change --num-callers option dynamically\n<0>\n"),
        ("v.set merge-recursive-frames 2", "merge-recursive-frames value changed from 0 to 2\n<0>\n"),
        ("v.wait", "gdbserver: continuing after wait ...\n<0>\n"),
    ];
    let commands: Vec<&str> = rows.iter().map(|row| row.0).collect();
    let all = told(&commands);
    let mut rest = all.split_once("(commands.c:15)\n\n").expect("the error").1;
    for (command, answer) in rows {
        rest = rest.strip_prefix(answer).unwrap_or_else(|| panic!("{command}: expected {answer:?}, found {rest}"));
    }
    let lost =
        told(&["who_points_at @n", "!", "leak_check full any limited 1", "block_list 1..2", "block_list 2 limited 1", "v.kill", "x"]);
    let stack = |line| format!("   at A: malloc (in L)\n   by A: main (commands.c:{line})\n");
    for expected in [
        format!("Searching for pointers to A\n*A points at A\n{block}<0>\n"),
        format!("32 (16 direct, 16 indirect) bytes in 1 blocks are definitely lost in loss record 3 of 3\n{}\n<0>\n", stack(9)),
        format!("1 bytes in 1 blocks are still reachable in loss record 1 of 3\n{}A[1]\n", stack(22)),
        format!("16 bytes in 1 blocks are indirectly lost in loss record 2 of 3\n{}A[16]\n<0>\n", stack(11)),
    ] {
        assert!(lost.contains(&expected), "{expected:?} not in {lost}");
    }
    assert!(lost.ends_with("monitor command request to kill this process\n"), "{lost}");
}

/// Without process ids, addresses, the values of bytes that are part of one, and names of libraries.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = line.strip_prefix("==").and_then(|rest| rest.split_once("== ")).map_or(line, |(_, rest)| rest);
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let hex = |word: &str| word.strip_prefix("0x").is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_hexdigit()));
            words.push(match word.find("0x") {
                Some(at) if hex(&word[at..]) && !word.contains('\t') => {
                    let end = word[at + 2..].find(|c: char| !c.is_ascii_hexdigit()).map_or(word.len(), |n| at + 2 + n);
                    format!("{}A{}", &word[..at], &word[end..])
                }
                _ => word.to_owned(),
            });
        }
        let mut line = words.join(" ");
        if let Some(row) = line.strip_prefix("0x").and_then(|_| line.split_once(":\t")) {
            let bytes = row.1.split('\t').map(|byte| if byte == "0x??" { byte } else { "0xVV" }).collect::<Vec<_>>().join("\t");
            line = format!("A:\t{bytes}");
        }
        if let Some((before, _)) = line.split_once(" (in ") {
            line = format!("{before} (in L)");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}
