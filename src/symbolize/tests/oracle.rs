//! The same addresses, asked of addr2line (binutils), which shares no code with this crate.

mod common;

use common::{BIAS, map, tool};
use memcheck_symbolize::{Options, find_functions};
use std::path::{Path, PathBuf};

/// Addresses spread over the functions of `object`.
fn sample(object: &Path, wanted: usize) -> Vec<u64> {
    let functions = find_functions(object, &|_| true).expect("readable");
    let step = (functions.len() / wanted).max(1);
    functions.iter().step_by(step).filter(|f| f.size > 8).map(|f| f.value + f.size / 2).collect()
}

/// Per address the stack as `function@file:line`, from addr2line.
fn ask(debug: &Path, addresses: &[u64]) -> Option<Vec<Vec<String>>> {
    let words: Vec<String> = addresses.iter().map(|address| format!("{address:#x}")).collect();
    let file = debug.to_str()?;
    let mut args = vec!["-a", "-f", "-i", "-e", file];
    args.extend(words.iter().map(String::as_str));
    let output = tool(Path::new("/"), "addr2line", &args)?;
    let mut stacks: Vec<Vec<String>> = Vec::new();
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            stacks.push(Vec::new());
            continue;
        }
        let place = lines.next()?.split(" (").next()?;
        stacks.last_mut()?.push(format!("{line}@{place}"));
    }
    Some(stacks)
}

/// Names differ on purpose (symbol table first), so places are compared: ours may leave out directories. Where addr2line says "no line", anything goes.
/// `files` is false for code on which addr2line names the unit's file instead of the included one that the line is in
/// (`readelf --debug-dump=decodedline` says so too).
fn agree(ours: &str, theirs: &str, files: bool) -> bool {
    let place = |text: &str| text.rsplit(if files { '@' } else { ':' }).next().unwrap_or_default().to_owned();
    theirs.ends_with(":?") || theirs.ends_with(":0") || format!("/{}", place(theirs)).ends_with(&format!("/{}", place(ours)))
}

fn compare(object: &Path, addresses: &[u64], files: bool) {
    let Some(theirs) = ask(object, addresses) else {
        return;
    };
    assert_eq!(theirs.len(), addresses.len());
    let mut symbolizer = map(object, Options::default());
    let mut different = Vec::new();
    for (&address, theirs) in addresses.iter().zip(&theirs) {
        let frames = symbolizer.frames(BIAS + address);
        let ours = common::brief(&frames);
        if ours.len() != theirs.len() || !ours.iter().zip(theirs).all(|(a, b)| agree(a, b, files)) {
            different.push(format!("{address:#x}: {ours:?} / {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{} of {}:\n{}", different.len(), addresses.len(), different.join("\n"));
}

#[test]
fn this_test_itself() {
    let own = std::env::current_exe().expect("own path");
    compare(&own, &sample(&own, 300), true);
}

#[test]
fn libc_with_its_separate_debug_file() {
    let libc = PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6");
    if !libc.exists() {
        eprintln!("skipped: no {}", libc.display());
        return;
    }
    compare(&libc, &sample(&libc, 400), false);
}
