//! The order of the house, read from its sources: what cannot be seen by a compiler is a test here.
//!
//! - rooms import only what the table allows, and the manifests say the same as the table;
//! - every unsafe block, function and impl says why it may be, and files that hold any allow it at their top with a reason;
//! - no file outgrows its one idea, no panic hides on the host's way to a report, no path of the workshop is left in a file.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may import whom inside the workspace. A room that is missing here, or imports that differ, fail.
const IMPORTS: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("rt", &["abi"]),
    ("heap", &["abi", "rt"]),
    ("replace", &["abi", "rt"]),
    ("kernel", &["abi", "rt"]),
    ("semantics", &["abi"]),
    ("translate", &["abi"]),
    ("runtime", &["abi", "heap", "kernel", "replace", "rt", "semantics", "translate"]),
    ("tracer", &["abi"]),
    ("leak", &["abi"]),
    ("symbolize", &[]),
    ("report", &[]),
];

/// The root package is the session: it alone knows the order of things.
const ROOT_IMPORTS: &[&str] = &["abi", "leak", "report", "symbolize", "tracer"];

/// Crates from outside that a room inside the traced program may use.
const INSIDE: &[&str] = &["abi", "rt", "heap", "replace", "kernel", "semantics", "translate", "runtime"];
const INSIDE_MAY_USE: &[&str] = &["iced-x86"];

/// Longer files hold more than one idea.
const MAX_LINES: usize = 900;

/// Text that only makes sense on the machine or in the workshop where a file was written.
const FORBIDDEN: &[&str] =
    &["/work/", "/tmp/t-", "/root/", "FIELD-NOTES", "ECOSYSTEM.md", "brief.md", "ChatGPT", "Copilot", "Claude", "TODO: ask"];

struct Source {
    name: String,
    lines: Vec<String>,
}

/// Test modules and examples share the allowance of their parent and speak for themselves.
fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.contains("/examples/")
}

/// Every file below `dir` with one of the suffixes, by path relative to the root.
fn sources(dir: &str, suffixes: &[&str]) -> Vec<Source> {
    let root = common::root();
    let mut files = vec![];
    collect(&root.join(dir), suffixes, &mut files);
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        Source { name, lines: text.lines().map(str::to_owned).collect() }
    };
    files.into_iter().map(read).collect()
}

fn collect(dir: &Path, suffixes: &[&str], files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let suffix = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, suffixes, files);
        } else if suffixes.contains(&suffix.as_str()) {
            files.push(path);
        }
    }
}

fn rust_sources() -> Vec<Source> {
    let mut files = sources("src", &["rs"]);
    files.retain(|file| !is_test(&file.name));
    assert!(files.len() > 20, "the sources were not found");
    files
}

fn fail_if_any(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The code of a line: without strings, characters and the comment behind it. Good enough for searching words.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            c if !in_string => out.push(c),
            _ => {}
        }
    }
    out
}

fn has_word(code: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    code.match_indices(word).any(|(at, _)| boundary(code[..at].chars().next_back()) && boundary(code[at + word.len()..].chars().next()))
}

/// Lines that open an unsafe block, impl or function. `unsafe extern` declarations and function pointer types open nothing.
fn opens_unsafe(line: &str) -> bool {
    let code = code(line);
    let text = code.trim_start();
    if !has_word(&code, "unsafe") || text.starts_with('#') || code.contains("unsafe_code") {
        return false;
    }
    let pointer_type = code.contains(": unsafe ")
        || code.contains("<unsafe ")
        || code.contains("(unsafe extern")
        || code.contains("[unsafe extern")
        || code.contains("as unsafe ");
    !pointer_type
        && (code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn") || code.contains("unsafe extern"))
}

/// A note counts if it stands on the line, or above it with only attributes, comments and the same statement between.
fn has_note(lines: &[String], index: usize) -> bool {
    let is_note = |line: &String| line.contains("SAFETY") || line.contains("# Safety");
    let above = lines[index.saturating_sub(12)..=index].iter().rev();
    let mut statement_ended = 0;
    for (distance, line) in above.enumerate() {
        if is_note(line) {
            return true;
        }
        let text = line.trim();
        if distance > 0 && (text.ends_with(';') || text == "}") {
            statement_ended += 1;
            if statement_ended > 2 {
                return false;
            }
        }
    }
    // A safe-looking first line of a block may carry the note inside.
    lines.get(index + 1).is_some_and(is_note)
}

#[test]
fn unsafe_code_says_why() {
    let mut faults = vec![];
    for file in rust_sources() {
        // One contract in the header may cover all functions of a file (operations on vectors, a trait of them), never blocks.
        let header = file.lines.iter().take_while(|line| line.starts_with("//!") || line.is_empty());
        let contract = header.into_iter().any(|line| line.contains("# Safety"));
        for (index, line) in file.lines.iter().enumerate() {
            if contract && code(line).contains("unsafe fn") {
                continue;
            }
            if opens_unsafe(line) && !has_note(&file.lines, index) {
                faults.push(format!("{}:{}: no SAFETY note: {}", file.name, index + 1, line.trim()));
            }
        }
    }
    fail_if_any(&faults);
}

/// The allowance stands in the file itself, at its top or on the item, with a reason; nobody may allow it for a whole crate by a manifest.
#[test]
fn unsafe_files_are_named() {
    let mut faults = vec![];
    for file in rust_sources() {
        let uses = file.lines.iter().any(|line| opens_unsafe(line));
        let text = file.lines.join("\n");
        let allowance = text.split_once("[allow(unsafe_code").map(|(_, rest)| rest.split(")]").next().unwrap_or(""));
        match (uses, allowance) {
            (true, None) => faults.push(format!("{}: unsafe code without an allowance and its reason", file.name)),
            (_, Some(inside)) if !inside.contains("reason") => faults.push(format!("{}: the allowance gives no reason", file.name)),
            _ => {}
        }
    }
    for manifest in manifests() {
        let text = std::fs::read_to_string(&manifest).unwrap_or_default();
        if text.contains("unsafe_code = \"allow\"") || !text.contains("[lints]") {
            faults.push(format!("{}: must take the lints of the workspace", manifest.display()));
        }
    }
    fail_if_any(&faults);
}

#[test]
fn files_hold_one_idea() {
    let mut faults = vec![];
    let mut files = rust_sources();
    files.extend(sources("tests", &["rs"]));
    files.extend(sources("benches", &["rs"]));
    for file in files {
        if file.lines.len() > MAX_LINES {
            faults.push(format!("{}: {} lines, at most {MAX_LINES}", file.name, file.lines.len()));
        }
    }
    fail_if_any(&faults);
}

#[test]
fn modules_open_with_their_essay() {
    let lacking = |file: &Source| !file.lines.iter().take(12).any(|line| line.starts_with("//!"));
    let faults: Vec<String> = rust_sources().iter().filter(|file| lacking(file)).map(|file| file.name.clone()).collect();
    fail_if_any(&faults);
}

#[test]
fn no_trace_of_the_workshop() {
    let mut faults = vec![];
    let mut files = sources("src", &["rs", "toml", "s", "ld", "supp"]);
    for dir in ["tests", "benches", "fixtures"] {
        files.extend(sources(dir, &["rs", "c", "cpp", "py", "sh"]));
    }
    files.retain(|file| file.name != "tests/tidy.rs");
    for name in ["README.md", "Makefile", "Cargo.toml", "build.rs", ".ci/run"] {
        let text = std::fs::read_to_string(common::root().join(name)).unwrap_or_default();
        files.push(Source { name: name.to_owned(), lines: text.lines().map(str::to_owned).collect() });
    }
    for file in files {
        for (index, line) in file.lines.iter().enumerate() {
            if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", file.name, index + 1));
            }
        }
    }
    fail_if_any(&faults);
}

fn manifests() -> Vec<PathBuf> {
    let mut found = vec![];
    collect(&common::root().join("src"), &["toml"], &mut found);
    found.sort();
    found
}

/// The names under `[dependencies]` of one manifest; development dependencies are free.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let mut section = String::new();
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            line.clone_into(&mut section);
            if let Some(name) = line.strip_prefix("[dependencies.") {
                names.insert(name.trim_end_matches(']').to_owned());
            }
        } else if section == "[dependencies]" && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

fn rooms(names: &BTreeSet<String>) -> BTreeSet<String> {
    names.iter().filter_map(|name| name.strip_prefix("memcheck-")).map(str::to_owned).collect()
}

#[test]
fn rooms_import_by_the_table() {
    let table: BTreeMap<&str, BTreeSet<String>> =
        IMPORTS.iter().map(|(room, imports)| (*room, imports.iter().map(|name| (*name).to_owned()).collect())).collect();
    let mut faults = vec![];
    for manifest in manifests() {
        let room = manifest.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let found = rooms(&dependencies(&manifest));
        match table.get(room.as_str()) {
            None => faults.push(format!("{room} is not in the table")),
            Some(allowed) if *allowed != found => faults.push(format!("{room} imports {found:?}, the table says {allowed:?}")),
            Some(_) => {}
        }
    }
    let root: BTreeSet<String> = ROOT_IMPORTS.iter().map(|name| (*name).to_owned()).collect();
    let found = rooms(&dependencies(&common::root().join("Cargo.toml")));
    if found != root {
        faults.push(format!("the root package imports {found:?}, the table says {root:?}"));
    }
    fail_if_any(&faults);
}

/// What lives inside the traced program uses neither the standard library nor crates that do.
#[test]
fn the_inside_is_freestanding() {
    let mut faults = vec![];
    for room in INSIDE {
        let dir = common::root().join("src").join(room);
        for name in dependencies(&dir.join("Cargo.toml")) {
            if !name.starts_with("memcheck-") && !INSIDE_MAY_USE.contains(&name.as_str()) {
                faults.push(format!("{room} uses {name}"));
            }
        }
        let main = ["lib.rs", "main.rs"].iter().map(|name| dir.join("src").join(name)).find(|file| file.exists());
        let text = main.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        if !text.contains("no_std") {
            faults.push(format!("{room} is not no_std"));
        }
    }
    fail_if_any(&faults);
}

/// The checks above are only worth something if they can fail.
#[test]
fn the_checks_can_fail() {
    assert!(opens_unsafe("    let x = unsafe { *p };"));
    assert!(opens_unsafe("pub unsafe fn f() {"));
    assert!(!opens_unsafe("    // unsafe { } in a comment"));
    assert!(!opens_unsafe("    let s = \"unsafe { }\";"));
    assert!(!opens_unsafe("#![allow(unsafe_code, reason = \"x\")]"));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(has_note(&lines("// SAFETY: p is live.\nlet x =\n    unsafe { *p };"), 2));
    assert!(!has_note(&lines("a();\nb();\nc();\nlet x = unsafe { *p };"), 3));
    assert!(!has_note(&lines("// SAFETY: of another.\nunsafe { a() };\nb();\nc();\nlet x = unsafe { *p };"), 4));
}
