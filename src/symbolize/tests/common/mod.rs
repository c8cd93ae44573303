//! Programs compiled for one test, and addresses in them.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use memcheck_symbolize::{Frame, Options, Symbolizer, elf_layout, find_functions};

/// Where objects are pretended to be mapped.
pub const BIAS: u64 = 0x5_0000_0000;

/// An empty directory of this test's own.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("scratch directory");
    dir
}

/// Run a tool in `dir`; `None` with a message if it is missing or refuses (so that the test can be skipped).
pub fn tool(dir: &Path, program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).current_dir(dir).output() {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("skipped: {program} {args:?} failed: {reason}");
            None
        }
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            None
        }
    }
}

/// Compile `source` as `file` in `dir` with `flags`; the program is `dir/program`.
pub fn compile(dir: &Path, file: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    std::fs::write(dir.join(file), source).expect("write source");
    let compiler = if file.ends_with(".cpp") { "g++" } else { "gcc" };
    let mut args = vec![file, "-o", "program"];
    args.extend(flags);
    tool(dir, compiler, &args)?;
    Some(dir.join("program"))
}

/// A symbolizer with `object` mapped at `BIAS`.
pub fn map(object: &Path, options: Options) -> Symbolizer {
    let layout = elf_layout(object).expect("layout");
    let mut symbolizer = Symbolizer::new(options);
    symbolizer.add_module(object, BIAS + layout.lowest, BIAS + layout.end, BIAS);
    symbolizer
}

/// ELF addresses and sizes of functions by name.
pub fn function(object: &Path, name: &str) -> (u64, u64) {
    let found = find_functions(object, &|candidate| candidate == name).expect("readable");
    let symbol = found.first().unwrap_or_else(|| panic!("no {name} in {}", object.display()));
    (symbol.value, symbol.size)
}

/// A stack as one word per frame: `function@file:line`.
pub fn brief(frames: &[Frame]) -> Vec<String> {
    let text = |part: &Option<String>| part.clone().unwrap_or_else(|| "?".to_owned());
    frames.iter().map(|frame| format!("{}@{}:{}", text(&frame.function), text(&frame.file), frame.line.unwrap_or(0))).collect()
}

/// All distinct stacks of the code of `name`.
pub fn stacks_of(symbolizer: &mut Symbolizer, object: &Path, name: &str) -> Vec<Vec<String>> {
    let (start, size) = function(object, name);
    let mut stacks: Vec<_> = (start..start + size).map(|vaddr| brief(&symbolizer.frames(BIAS + vaddr))).collect();
    stacks.dedup();
    stacks
}
