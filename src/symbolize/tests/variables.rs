//! Variables by address. No program runs: a frame is an address, and gcc's places are fixed distances from it.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{BIAS, compile, function, map, scratch, tool};
use memcheck_symbolize::{Options, Variable};

const SOURCE: &str = "\
struct inner { char a; long b; };
struct outer { int first; struct inner pair[2]; union { int i; char c[4]; } either; };
typedef const struct outer outer_t;
static struct outer table[3];
int matrix[2][3];
int *pointer;
int work(int count, struct outer *unused)
{
    long numbers[4] = {count};
    struct outer local = {0};
    outer_t *where = &local;
    if (count > 3) {
        static int kept = 9;
        short narrow = count;
        numbers[1] = narrow + kept;
    }
    {
        char narrow = 1;
        numbers[2] = narrow;
    }
    return numbers[0] + where->first + table[count].first + matrix[0][1] + *pointer;
}
int main(int argc, char **argv) { return work(argc, 0); }
";

const CFA: u64 = 0x7fff_0000;

/// All variables of `work` at line `line`, by path, with the distance of their first byte from the frame.
fn frame_at(flags: &[&str], line: u32) -> Option<BTreeMap<String, (i64, Variable)>> {
    let dir = scratch(&format!("variables{}{line}", flags.concat()));
    Some(locals(&compile(&dir, "vars.c", SOURCE, flags)?, line))
}

fn locals(program: &Path, line: u32) -> BTreeMap<String, (i64, Variable)> {
    let mut symbolizer = map(program, Options::default());
    let (start, size) = function(program, "work");
    let pc = (start..start + size)
        .map(|vaddr| BIAS + vaddr)
        .find(|&addr| symbolizer.frames(addr)[0].line == Some(line))
        .unwrap_or_else(|| panic!("line {line} of {} has no code", program.display()));
    let mut found = BTreeMap::new();
    for addr in CFA - 400..CFA + 32 {
        if let Some(variable) = symbolizer.local_variable(pc, CFA, addr) {
            assert!(variable.offset < variable.size);
            found.entry(variable.path.clone()).or_insert((addr as i64 - CFA as i64, variable));
        }
    }
    found
}

#[test]
fn locals_and_parameters_of_a_frame() {
    let types = "-fdebug-types-section";
    for flags in [
        &["-g", "-O0"][..],
        &["-gdwarf-4", "-O0"],
        &["-g", "-gsplit-dwarf", "-O0"],
        &["-gdwarf-4", types, "-O0"],
        &["-gdwarf-5", types, "-O0"],
    ] {
        let Some(found) = frame_at(flags, 15) else {
            continue;
        };
        let paths: Vec<&str> = found.keys().map(String::as_str).collect();
        for wanted in ["count", "unused", "where", "narrow", "numbers[0]", "numbers[3]"] {
            assert!(paths.contains(&wanted), "{wanted} in {paths:?} with {flags:?}");
        }
        for wanted in ["local.first", "local.pair[0].a", "local.pair[1].b", "local.either.i"] {
            assert!(paths.contains(&wanted), "{wanted} in {paths:?} with {flags:?}");
        }
        let distance = |from: &str, to: &str| found[to].0 - found[from].0;
        assert_eq!(distance("numbers[0]", "numbers[3]"), 24);
        assert_eq!(distance("local.first", "local.pair[0].a"), 8);
        assert_eq!(distance("local.pair[0].b", "local.pair[1].b"), 16);

        let count = &found["count"].1;
        assert_eq!((count.name.as_str(), count.size, count.line), ("count", 4, Some(7)));
        assert_eq!(count.file.as_deref(), Some("vars.c"));
        let numbers = &found["numbers[3]"].1;
        assert_eq!((numbers.name.as_str(), numbers.size, numbers.line), ("numbers", 32, Some(9)));
    }
}

#[test]
fn frames_that_are_found_by_their_frame_pointer() {
    let dir = scratch("variables-clang");
    std::fs::write(dir.join("vars.c"), SOURCE).expect("write source");
    if tool(&dir, "clang", &["vars.c", "-o", "program", "-g", "-O0"]).is_none() {
        return;
    }
    let found = locals(&dir.join("program"), 15);
    // The frame pointer is saved below the return address; clang keeps the first parameter right below that.
    assert_eq!((found["count"].0, found["count"].1.size), (-20, 4));
    assert_eq!(found["numbers[3]"].0 - found["numbers[0]"].0, 24);
}

#[test]
fn only_the_scope_that_runs_counts() {
    let Some(inside) = frame_at(&["-g", "-O0"], 14) else {
        return;
    };
    let Some(sibling) = frame_at(&["-g", "-O0"], 18) else {
        return;
    };
    let Some(outside) = frame_at(&["-g", "-O0"], 21) else {
        return;
    };
    assert_eq!(inside["narrow"].1.size, 2);
    assert_eq!(sibling["narrow"].1.size, 1);
    assert!(!outside.contains_key("narrow"));
}

#[test]
fn globals_with_element_and_member() {
    let dir = scratch("globals");
    let Some(program) = compile(&dir, "vars.c", SOURCE, &["-g"]) else {
        return;
    };
    let Some(symbols) = tool(&dir, "nm", &["program"]) else {
        return;
    };
    let address = |name: &str| {
        let line = symbols.lines().find(|line| line.split(' ').next_back().is_some_and(|last| last.starts_with(name)));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        u64::from_str_radix(line.split(' ').next().unwrap_or_default(), 16).expect("address")
    };
    let mut symbolizer = map(&program, Options::default());
    // struct outer: first 0, pair 8 (a 0, b 8; 16 each), either 40; 48 bytes.
    for (name, offset, path, rest, line) in [
        ("table", 0, "table[0].first", 0, 4),
        ("table", 48 + 8 + 16 + 10, "table[1].pair[1].b", 2, 4),
        ("table", 96 + 41, "table[2].either.i", 1, 4),
        ("table", 5, "table[0]", 5, 4),
        ("matrix", 4 * 4 + 1, "matrix[1][1]", 1, 5),
        ("pointer", 7, "pointer", 7, 6),
        ("kept", 0, "kept", 0, 13),
    ] {
        let found = symbolizer.global_variable(BIAS + address(name) + offset).expect(path);
        assert_eq!((found.path.as_str(), found.offset, found.line), (path, rest, Some(line)));
        assert_eq!(found.name, name);
    }
    assert_eq!(symbolizer.global_variable(BIAS + address("main")), None);
}
