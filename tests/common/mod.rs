//! What the integration tests share: where things are, how a program is run under a time limit, and how a report is read.
//!
//! The tool under test is the `memcheck` of this build; the variable `MEMCHECK` names another one. `MEMCHECK=valgrind` is useful: it
//! checks the expectations themselves against an independent tool (see `tests/fixtures.rs` for what is then excused).
//! Nothing here knows what a fixture is.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub mod report;
pub mod run;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};

/// The directory that holds `fixtures/`, `src/` and this test.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The tool under test.
pub fn memcheck() -> OsString {
    std::env::var_os("MEMCHECK").unwrap_or_else(|| env!("CARGO_BIN_EXE_memcheck").into())
}

/// Options that it gets besides, in all fixtures and programs.
pub fn further_options() -> Vec<String> {
    let words = std::env::var("MEMCHECK_OPTIONS").unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// Whether the tool under test is the reference tool, whose known gaps are excused.
pub fn testing_reference() -> bool {
    Path::new(&memcheck()).file_name().is_some_and(|name| name == "valgrind")
}

/// An empty directory under the build directory that belongs to `name` alone.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a scratch directory under the build directory");
    dir
}

/// A C program made of `source`, as `name` in the directory.
pub fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (file, exe) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&file, source).expect("a source file");
    let status = Command::new("gcc").args(["-g", "-O0", "-w"]).arg(&file).arg("-o").arg(&exe).args(flags).status();
    assert!(status.is_ok_and(|status| status.success()), "gcc failed on {name}");
    exe
}

/// The file that a command name stands for, by `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Says that a test was not made, and why: a skip must be visible in the log.
pub fn skip(what: &str, why: &str) {
    println!("skipped: {what}: {why}");
}

/// How many more programs may start now; absent until the first one asks.
static FREE: Mutex<Option<usize>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// The right to run one program, given back when dropped, also by a failed assertion.
struct Slot;

impl Slot {
    fn take() -> Slot {
        let processors = || std::thread::available_parallelism().map_or(2, usize::from);
        let mut free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *free.get_or_insert_with(processors) == 0 {
            free = CHANGED.wait(free).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *free = free.map(|n| n - 1);
        Slot
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *free = free.map(|n| n + 1);
        CHANGED.notify_one();
    }
}

/// As many programs run at once as there are processors, however many test threads ask.
pub fn with_slot<T>(body: impl FnOnce() -> T) -> T {
    let _slot = Slot::take();
    body()
}

/// Runs `check` on every case with two workers and returns what failed, in the order of the cases.
pub fn check_all<C: Sync>(cases: &[C], check: impl Fn(&C) -> Result<(), String> + Sync) -> Vec<String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    if let Err(text) = with_slot(|| check(case)) {
                        failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, text));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort();
    failures.into_iter().map(|(_, text)| text).collect()
}
