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
