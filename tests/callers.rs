//! Tools that start Valgrind, started with memcheck in its place: what they understand of it must be what there is to understand.
//!
//! Each is looked for in `PATH` and skipped with a message where it is missing or does not run: `cmake` and `ctest`, `meson` with `ninja`,
//! `cargo-nextest`, `cargo-valgrind`, `valgrind-ci` (PyPI: ValgrindCI), `pytest` with pytest-valgrind. The projects are made here.

mod common;

use common::run::{Ended, Outcome, Run};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Programs with known findings, by name.
const PROGRAMS: &[(&str, &str)] = &[
    ("fine", "#include <stdlib.h>\nint main(void) { free(malloc(10)); return 0; }\n"),
    ("leak", "#include <stdlib.h>\nint main(void) { char *p = malloc(10); p = malloc(20); p[0] = 1; p = 0; return 0; }\n"),
    ("overrun", "#include <stdlib.h>\nint main(void) { char *p = malloc(10); p[10] = 1; int c = p[11]; free(p); return 0; }\n"),
    (
        "undefined",
        "#include <fcntl.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
         int main(void) { int *p = malloc(10); if (p[0]) p[1] = 0; write(open(\"/dev/null\", 1), p, 8); free(p); return 0; }\n",
    ),
    ("twice", "#include <stdlib.h>\nint main(void) { char *p = malloc(10); free(p); free(p); return 1; }\n"),
];

fn write(file: &Path, text: &str) {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).expect("a directory");
    }
    std::fs::write(file, text).expect("a file");
}

fn sources(dir: &Path) {
    PROGRAMS.iter().for_each(|(name, text)| write(&dir.join(format!("{name}.c")), text));
}

/// Is there such a program, and does it run at all? A wrapper that leads nowhere counts as missing.
fn works(command: &[&str]) -> bool {
    let quiet = |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet(Command::new(command[0]).args(&command[1..])).is_ok_and(|status| status.success())
}

/// Skips the test that asks unless all of these run.
macro_rules! needs {
    ($test:literal, $($command:expr),+) => {
        for command in [$(&$command[..]),+] {
            if !works(command) {
                return common::skip($test, &format!("`{}` does not run here", command.join(" ")));
            }
        }
    };
}

fn tool() -> String {
    let tool = common::memcheck();
    common::find_program(&tool.to_string_lossy()).unwrap_or_else(|| tool.into()).to_string_lossy().into_owned()
}

/// A directory that holds the tool under the name `valgrind`, and a `PATH` that begins with it.
fn as_valgrind(dir: &Path) -> (PathBuf, String) {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).expect("a directory");
    let link = bin.join("valgrind");
    std::os::unix::fs::symlink(tool(), &link).expect("a symbolic link");
    (link, format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()))
}

fn succeeds(outcome: &Outcome, what: &str) {
    assert_eq!(outcome.ended, Ended::Code(0), "{what}: {}\n{}", outcome.out(), outcome.err());
}

fn contains(text: &str, parts: &[&str]) {
    let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
    assert!(missing.is_empty(), "{missing:?} not in:\n{text}");
}

#[test]
fn ctest_counts_defects() {
    needs!("ctest", ["cmake", "--version"], ["ctest", "--version"], ["make", "--version"]);
    let dir = common::scratch("callers-ctest");
    sources(&dir);
    let names: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
    write(
        &dir.join("CMakeLists.txt"),
        &format!(
            "cmake_minimum_required(VERSION 3.16)\nproject(Probe C)\ninclude(CTest)\nset(CMAKE_C_FLAGS \"-g -O0 -w\")\n\
             foreach(name {})\n  add_executable(${{name}} ${{name}}.c)\n  add_test(NAME ${{name}} COMMAND ${{name}})\nendforeach()\n",
            names.join(" ")
        ),
    );
    let build = dir.join("build");
    let command = format!("-DMEMORYCHECK_COMMAND={}", tool());
    succeeds(&Run::new("cmake", &dir).args(["-S", ".", "-B", "build", "-DMEMORYCHECK_TYPE=Valgrind", &command]).finish("cmake"), "cmake");
    succeeds(&Run::new("cmake", &dir).args(["--build", "build"]).finish("make"), "make");
    let outcome = Run::new("ctest", &dir).args(["-T", "memcheck"]).dir(&build).finish("ctest");
    contains(
        &outcome.out(),
        &[
            "#2: leak .............................   Defects: 2",
            "#3: overrun ..........................   Defects: 2",
            "#4: undefined ........................   Defects: 2",
            "#5: twice ............................   Defects: 1",
            "FIM - 1\n",
            "IPW - 1\n",
            "Memory Leak - 2\n",
            "Uninitialized Memory Conditional - 1\n",
            "Uninitialized Memory Read - 2\n",
            "5 - twice (Failed)",
        ],
    );
    assert!(!outcome.out().contains("#1: fine .............................   Defects"), "{}", outcome.out());
}

#[test]
fn meson_runs_tests_in_a_wrapper() {
    needs!("meson", ["meson", "--version"], ["ninja", "--version"]);
    let dir = common::scratch("callers-meson");
    sources(&dir);
    write(
        &dir.join("meson.build"),
        "project('probe', 'c', default_options: ['buildtype=debug'])\nforeach n : ['fine', 'overrun', 'undefined']\n  \
         test(n, executable(n, n + '.c'))\nendforeach\n",
    );
    succeeds(&Run::new("meson", &dir).args(["setup", "build"]).finish("setup"), "meson setup");
    let ended = |wrapper: &str, label: &str| {
        let outcome = Run::new("meson", &dir).args(["test", "-C", "build", &format!("--wrapper={wrapper}")]).finish(label);
        let text = outcome.out();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).map(str::to_owned).unwrap_or_default();
        [line("fine ").contains("OK"), line("overrun ").contains("FAIL"), line("undefined ").contains("FAIL")]
    };
    // Meson sets MALLOC_PERTURB_, which must not make undefined memory defined.
    assert_eq!(ended(&format!("{} -q --error-exitcode=1", tool()), "own-name"), [true; 3]);
    // Newer versions give a wrapper of this name its exit status through VALGRIND_OPTS.
    let (link, _) = as_valgrind(&dir);
    assert_eq!(ended(&format!("{} --error-exitcode=1", link.display()), "as-valgrind"), [true; 3]);
}

/// A crate with one good test and one that writes beyond its memory.
fn crate_with_tests(dir: &Path) {
    write(&dir.join("Cargo.toml"), "[package]\nname = \"probe\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n");
    write(
        &dir.join("src/lib.rs"),
        "#[cfg(test)]\nmod tests {\n    #[test]\n    fn good() { assert_eq!(vec![1; 10].iter().sum::<i32>(), 10); }\n    #[test]\n    \
         fn wild() { let mut v = vec![0u8; 10]; unsafe { std::hint::black_box(v.as_mut_ptr()).add(10).write_volatile(1) }; drop(v); }\n}\n",
    );
    write(
        &dir.join("src/main.rs"),
        "fn main() { let v = vec![0u8; 10]; println!(\"{}\", unsafe { v.as_ptr().add(10).read_volatile() }); }\n",
    );
}

fn cargo(dir: &Path, arguments: &[&str]) -> Run {
    let run = Run::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()), dir).args(arguments);
    run.env("CARGO_TARGET_DIR", dir.join("target")).env("CARGO_NET_OFFLINE", "true").limit(Duration::from_secs(400))
}

const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

#[test]
fn cargo_test_runs_tests_in_a_runner() {
    needs!("cargo test", ["cargo", "--version"]);
    let dir = common::scratch("callers-cargo");
    crate_with_tests(&dir);
    let runner = format!("{} -q --error-exitcode=9", tool());
    let test = |name: &str| cargo(&dir, &["test", "--lib", name]).env(RUNNER, &runner).finish(name);
    succeeds(&test("good"), "a good test");
    let wild = test("wild");
    assert_ne!(wild.ended, Ended::Code(0), "{}", wild.err());
    contains(&wild.err(), &["Invalid write of size 1", "probe::tests::wild (lib.rs:6)"]);
    if !works(&["cargo", "nextest", "--version"]) {
        return common::skip("cargo nextest", "`cargo nextest --version` does not run here");
    }
    // It lists the tests through the runner: one word too much on standard output, and it understands nothing.
    let outcome = cargo(&dir, &["nextest", "run", "--lib", "--no-fail-fast"]).env(RUNNER, &runner).finish("nextest");
    contains(&outcome.err(), &["1 passed", "1 failed", "Invalid write of size 1"]);
}

#[test]
fn cargo_valgrind_reads_the_xml() {
    needs!("cargo-valgrind", ["cargo", "valgrind", "--help"]);
    let dir = common::scratch("callers-cargo-valgrind");
    crate_with_tests(&dir);
    let (_, path) = as_valgrind(&dir);
    let outcome = cargo(&dir, &["valgrind", "run"]).env("PATH", path).finish("run");
    contains(&outcome.err(), &["Invalid read of size 1", "main.rs:1"]);
    assert_ne!(outcome.ended, Ended::Code(0));
}

#[test]
fn valgrind_ci_reads_the_xml() {
    needs!("ValgrindCI", ["valgrind-ci", "--help"]);
    let dir = common::scratch("callers-valgrind-ci");
    sources(&dir);
    let count = |name: &str| {
        let compiled = Run::new("gcc", &dir).args(["-g", "-O0", "-w", "-o", name, &format!("{name}.c")]).finish("gcc");
        succeeds(&compiled, "gcc");
        let xml = format!("--xml-file={name}.xml");
        Run::new(tool(), &dir).args(["--xml=yes", &xml, "--leak-check=full"]).arg(format!("./{name}")).finish(name);
        let outcome = Run::new("valgrind-ci", &dir).args([&format!("{name}.xml"), "--number-of-errors"]).finish("ci");
        succeeds(&outcome, "valgrind-ci");
        outcome.out().trim().to_owned()
    };
    let expected = ["0", "2", "2", "2", "1"].map(|count| format!("{count} errors."));
    assert_eq!(["fine", "leak", "overrun", "undefined", "twice"].map(count), expected);
}

#[test]
fn pytest_sees_leaks_and_errors_of_a_test() {
    needs!("pytest-valgrind", ["python3", "-c", "import pytest, pytest_valgrind"]);
    let dir = common::scratch("callers-pytest");
    write(
        &dir.join("test_probe.py"),
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\nlibc.malloc.argtypes = [ctypes.c_size_t]\n\
         def test_leak():\n    libc.malloc(1234)\ndef test_wild():\n    ctypes.memset(libc.malloc(10) + 10, 1, 1)\n",
    );
    let python =
        String::from_utf8_lossy(&Run::new("python3", &dir).args(["-c", "import sys; print(sys.executable)"]).finish("which").stdout)
            .trim()
            .to_owned();
    let outcome = Run::new(tool(), &dir)
        .args(["--show-leak-kinds=definite", "--log-file=log", &python, "-m", "pytest", "--valgrind", "--valgrind-log=log"])
        .env("PYTHONMALLOC", "malloc")
        .limit(Duration::from_secs(400))
        .finish("pytest");
    let text = outcome.out();
    let verdict = |name: &str| text.lines().find(|line| line.starts_with("FAILED") && line.contains(name)).unwrap_or_default();
    assert!(verdict("test_leak").contains("LEAK"), "{text}");
    assert!(verdict("test_wild").contains("ERROR"), "{text}");
    assert!(text.contains("1,234") && text.contains("Invalid write of size 1"), "{text}");
}

/// What AX_VALGRIND_CHECK makes of a project: a probe, then each test below the tool, with a log per test.
const CHECK: &str = r#"
"$VALGRIND" --tool=memcheck --help >/dev/null 2>/dev/null || exit 99
status=0
for test in fine leak overrun undefined; do
    gcc -g -O0 -w -o $test $test.c || exit 98
    "$VALGRIND" --error-exitcode=1 --num-callers=30 --tool=memcheck --leak-check=full --show-leak-kinds=all --log-file=$test.log ./$test
    if [ $? -eq 0 ]; then echo "PASS: $test"; else echo "FAIL: $test"; status=1; fi
done
grep -h "ERROR SUMMARY" *.log | sed 's/^==[0-9]*==//'
exit $status
"#;

#[test]
fn autotools_check_scripts() {
    let dir = common::scratch("callers-check");
    sources(&dir);
    let (link, _) = as_valgrind(&dir);
    let outcome = Run::new("sh", &dir).args(["-c", CHECK]).env("VALGRIND", &link).finish("check");
    assert_eq!(outcome.ended, Ended::Code(1), "{}", outcome.err());
    let summary = |n: u32| format!(" ERROR SUMMARY: {n} errors from {n} contexts (suppressed: 0 from 0)\n");
    let expected =
        format!("PASS: fine\nFAIL: leak\nFAIL: overrun\nFAIL: undefined\n{}{}{}{}", summary(0), summary(2), summary(2), summary(2));
    assert_eq!(outcome.out(), expected);
}
