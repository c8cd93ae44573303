//! Small programs, compiled here in the ways that matter: where the names are, and what is left when they are gone.

mod common;

use std::path::{Path, PathBuf};

use common::{BIAS, brief, compile, function, map, scratch, stacks_of, tool};
use memcheck_symbolize::{Options, Symbolizer, elf_layout, find_functions};

const PLAIN: &str = "\
int counter[4];
int ready = 7;
static int
helper(int x)
{
    return x * counter[1];
}
int entry(int x)
{
    int y = helper(x + 1);
    return y + ready;
}
int main(int argc, char **argv)
{
    return entry(argc);
}
";

const INLINED: &str = "\
namespace shop {
template <class T> struct Till {
    T sum;
    inline __attribute__((always_inline)) void add(T coin) {
        sum += coin * sum;
    }
};
static inline __attribute__((always_inline)) void twice(Till<long> &till, long coin) {
    till.add(coin);
    till.add(coin + 1);
}
__attribute__((noinline)) void close(Till<long> *till, int) {
    twice(*till, 5);
}
}
int main(int argc, char **) {
    shop::Till<long> till{argc};
    shop::close(&till, 1);
    return (int)till.sum;
}
";

fn default_map(program: &Path) -> Symbolizer {
    map(program, Options::default())
}

#[test]
fn functions_lines_and_directories() {
    let dir = scratch("functions");
    let Some(program) = compile(&dir, "plain.c", PLAIN, &["-g", "-O0"]) else {
        return;
    };
    let mut symbolizer = default_map(&program);
    for (name, lines) in [("helper", 5..=7), ("entry", 9..=12), ("main", 14..=16)] {
        let (start, size) = function(&program, name);
        for vaddr in start..start + size {
            let frames = symbolizer.frames(BIAS + vaddr);
            assert_eq!(frames.len(), 1);
            let frame = &frames[0];
            assert_eq!(frame.addr, BIAS + vaddr);
            assert_eq!(frame.function.as_deref(), Some(name));
            assert_eq!(frame.raw_name.as_deref(), Some(name));
            assert_eq!(frame.file.as_deref(), Some("plain.c"));
            assert_eq!(frame.dir.as_deref().map(Path::new), dir.canonicalize().ok().as_deref());
            assert_eq!(frame.object.as_deref(), Some(program.as_path()));
            assert!(!frame.inlined);
            assert!(frame.line.is_some_and(|line| lines.contains(&line)), "{frame:?}");
            assert_eq!(frame.function_line, Some(*lines.start()), "the opening brace");
        }
    }
}

#[test]
fn inlined_functions_innermost_first() {
    let dir = scratch("inlined");
    let Some(program) = compile(&dir, "inlined.cpp", INLINED, &["-g", "-O2"]) else {
        return;
    };
    let mut symbolizer = default_map(&program);
    let stacks = stacks_of(&mut symbolizer, &program, "_ZN4shop5closeEPNS_4TillIlEEi");
    let outer = "shop::close(shop::Till<long>*, int)@inlined.cpp:13";
    let first = ["add@inlined.cpp:5", "twice@inlined.cpp:9", outer].map(String::from);
    let second = ["add@inlined.cpp:5", "twice@inlined.cpp:10", outer].map(String::from);
    assert!(stacks.iter().any(|stack| *stack == first), "{stacks:#?}");
    assert!(stacks.iter().any(|stack| *stack == second), "{stacks:#?}");

    let (start, size) = function(&program, "_ZN4shop5closeEPNS_4TillIlEEi");
    let deep = (start..start + size).map(|vaddr| symbolizer.frames(BIAS + vaddr)).find(|frames| frames.len() == 3).expect("three deep");
    assert_eq!(deep.iter().map(|frame| frame.inlined).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(deep[1].raw_name.as_deref(), Some("twice"));
    assert_eq!(deep[2].raw_name.as_deref(), Some("_ZN4shop5closeEPNS_4TillIlEEi"));
    assert!(deep.iter().all(|frame| frame.addr == deep[0].addr));
}

#[test]
fn options_change_names_and_inlining() {
    let dir = scratch("options");
    let Some(program) = compile(&dir, "inlined.cpp", INLINED, &["-g", "-O2"]) else {
        return;
    };
    let options = Options { demangle: false, inline: false, extra_debug_dir: None };
    let mut symbolizer = map(&program, options);
    let stacks = stacks_of(&mut symbolizer, &program, "_ZN4shop5closeEPNS_4TillIlEEi");
    assert!(stacks.iter().all(|stack| stack.len() == 1), "{stacks:#?}");
    let innermost_line = "_ZN4shop5closeEPNS_4TillIlEEi@inlined.cpp:5".to_owned();
    assert!(stacks.contains(&vec![innermost_line]), "{stacks:#?}");
}

#[test]
fn every_way_to_store_debug_information_says_the_same() {
    let dir = scratch("formats");
    let Some(program) = compile(&dir, "inlined.cpp", INLINED, &["-gdwarf-5", "-O2"]) else {
        return;
    };
    let name = "_ZN4shop5closeEPNS_4TillIlEEi";
    let stacks = |program: &PathBuf| stacks_of(&mut default_map(program), program, name);
    let expected = stacks(&program);
    assert!(expected.iter().any(|stack| stack.len() == 3));
    let variants: [&[&str]; 9] = [
        &["-gdwarf-2"],
        &["-gdwarf-3"],
        &["-gdwarf-4"],
        &["-gdwarf-5", "-gz=zlib"],
        &["-gdwarf-4", "-gz=zlib-gnu"],
        &["-gdwarf-5", "-gz=zstd"],
        &["-gdwarf-5", "-gsplit-dwarf"],
        &["-gdwarf-4", "-gsplit-dwarf"],
        &["-gdwarf-4", "-fdebug-types-section"],
    ];
    let mut compared = 0;
    for variant in variants {
        let flags = [variant, &["-O2"]].concat();
        let Some(program) = compile(&dir, "inlined.cpp", INLINED, &flags) else {
            continue;
        };
        assert_eq!(stacks(&program), expected, "{flags:?}");
        compared += 1;
    }
    assert!(compared > 0, "no variant could be compiled");
}

#[test]
fn files_are_named_as_the_line_table_names_them() {
    let dir = scratch("names");
    std::fs::write(dir.join("plain.c"), PLAIN).expect("write");
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        if tool(&dir, "gcc", &["-S", version, "-O0", "plain.c"]).is_none() {
            return;
        }
        // As Rust and clang have it, where gcc splits the path behind its last directory.
        let assembly = std::fs::read_to_string(dir.join("plain.s")).expect("assembly");
        let changed = assembly.replace(".file 1 \"plain.c\"", ".file 1 \"/base\" \"library/sub/plain.c\"");
        assert_ne!(assembly, changed);
        let Some(program) = compile(&dir, "changed.s", &changed, &[]) else {
            continue;
        };
        let lines = stacks_of(&mut default_map(&program), &program, "entry").concat();
        assert!(lines.iter().all(|line| line.starts_with("entry@library/sub/plain.c:")), "{version}: {lines:?}");
    }
}

#[test]
fn code_without_a_line_gets_the_line_before_it() {
    let dir = scratch("zero");
    std::fs::write(dir.join("plain.c"), PLAIN).expect("write");
    if tool(&dir, "gcc", &["-S", "-g", "-O0", "plain.c"]).is_none() {
        return;
    }
    // Line 10 (the call in `entry`) loses its number, as clang does with code that it moved.
    let assembly = std::fs::read_to_string(dir.join("plain.s")).expect("assembly");
    let changed = assembly.replace(".loc 1 10 ", ".loc 1 0 ");
    assert_ne!(assembly, changed);
    let Some(program) = compile(&dir, "changed.s", &changed, &[]) else {
        return;
    };
    let mut lines: Vec<String> = stacks_of(&mut default_map(&program), &program, "entry").concat();
    lines.dedup();
    assert_eq!(lines, ["entry@plain.c:9", "entry@plain.c:11", "entry@plain.c:12"]);
}

#[test]
fn a_function_without_any_line_belongs_to_its_file() {
    let dir = scratch("no-line");
    std::fs::write(dir.join("init.cpp"), "static int first() { return 3; }\nint value = first();\nint main() { return value; }\n")
        .expect("write");
    if tool(&dir, "clang++", &["-g", "-O0", "init.cpp", "-o", "program"]).is_none() {
        return;
    }
    let program = dir.join("program");
    let frames = default_map(&program).frames(BIAS + function(&program, "_GLOBAL__sub_I_init.cpp").0);
    assert_eq!((frames[0].file.as_deref(), frames[0].line), (Some("init.cpp"), Some(0)));
}

#[test]
fn link_time_optimisation_keeps_inlined_names() {
    let dir = scratch("lto");
    std::fs::write(dir.join("other.c"), "extern int sink;\nint\nfrom_other_file(int x)\n{\n    sink = x * x;\n    return sink + 1;\n}\n")
        .expect("write");
    let source = "int sink;\nint from_other_file(int);\n__attribute__((noinline)) int outer(int x)\n{\n    return from_other_file(x);\n}\nint main(int c, char **v)\n{\n    return outer(c);\n}\n";
    let Some(program) = compile(&dir, "main.c", source, &["other.c", "-g", "-O2", "-flto"]) else {
        return;
    };
    let stacks = stacks_of(&mut default_map(&program), &program, "outer");
    let wanted = ["from_other_file@other.c:5", "outer@main.c:5"].map(String::from);
    assert!(stacks.iter().any(|stack| *stack == wanted), "{stacks:#?}");
}

#[test]
fn stripped_programs_keep_what_they_export() {
    let dir = scratch("stripped");
    let Some(program) = compile(&dir, "plain.c", PLAIN, &["-g", "-rdynamic"]) else {
        return;
    };
    let (entry, _) = function(&program, "entry");
    let (helper, _) = function(&program, "helper");
    if tool(&dir, "strip", &["program"]).is_none() {
        return;
    }
    let mut symbolizer = default_map(&program);
    assert_eq!(brief(&symbolizer.frames(BIAS + entry + 4)), ["entry@?:0"]);
    let hidden = symbolizer.frames(BIAS + helper + 4).remove(0);
    assert_eq!((hidden.function, hidden.line), (None, None));
    assert_eq!(hidden.object.as_deref(), Some(program.as_path()));
}

/// Make `program.debug`, strip `program` and connect the two as `how` says.
fn separate(dir: &Path, program: &Path, place: &Path) -> Option<()> {
    std::fs::create_dir_all(place.parent()?).ok()?;
    let debug = place.to_str()?;
    tool(dir, "objcopy", &["--only-keep-debug", program.to_str()?, debug])?;
    tool(dir, "strip", &[program.to_str()?])?;
    tool(dir, "objcopy", &[&format!("--add-gnu-debuglink={debug}"), program.to_str()?])?;
    Some(())
}

#[test]
fn separate_files_by_name_and_checksum() {
    let dir = scratch("debuglink");
    let no_id = ["-g", "-Wl,--build-id=none"];
    for (place, extra) in [("program.debug", None), (".debug/program.debug", None), ("x/program.debug", Some("x"))] {
        let Some(program) = compile(&dir, "plain.c", PLAIN, &no_id) else {
            return;
        };
        let (helper, _) = function(&program, "helper");
        let place = dir.join(place);
        if separate(&dir, &program, &place).is_none() {
            return;
        }
        let options = || Options { extra_debug_dir: extra.map(|extra| dir.join(extra)), ..Options::default() };
        assert_eq!(brief(&map(&program, options()).frames(BIAS + helper + 7)), ["helper@plain.c:6"], "{place:?}");

        // One changed byte, and the file is another one.
        let mut bytes = std::fs::read(&place).expect("debug file");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::remove_file(&place).expect("remove");
        std::fs::write(&place, bytes).expect("write");
        assert_eq!(map(&program, options()).frames(BIAS + helper + 7)[0].line, None, "{place:?}");
        std::fs::remove_file(&place).expect("remove");
    }
}

#[test]
fn separate_files_by_build_id() {
    let dir = scratch("buildid");
    let Some(program) = compile(&dir, "plain.c", PLAIN, &["-g", "-Wl,--build-id=0xab12cd34"]) else {
        return;
    };
    let (helper, _) = function(&program, "helper");
    if separate(&dir, &program, &dir.join("extra/.build-id/ab/12cd34.debug")).is_none() {
        return;
    }
    assert_eq!(default_map(&program).frames(BIAS + helper + 7)[0].function, None);
    let options = Options { extra_debug_dir: Some(dir.join("extra")), ..Options::default() };
    assert_eq!(brief(&map(&program, options).frames(BIAS + helper + 7)), ["helper@plain.c:6"]);
}

#[test]
fn a_deleted_file_is_still_read() {
    let dir = scratch("deleted");
    let Some(program) = compile(&dir, "plain.c", PLAIN, &["-g"]) else {
        return;
    };
    let (helper, _) = function(&program, "helper");
    let mut symbolizer = default_map(&program);
    std::fs::remove_file(&program).expect("remove");
    assert_eq!(brief(&symbolizer.frames(BIAS + helper + 7)), ["helper@plain.c:6"]);
}

#[test]
fn variables_and_sections() {
    let dir = scratch("sections");
    let Some(program) = compile(&dir, "plain.c", PLAIN, &["-g"]) else {
        return;
    };
    let mut symbolizer = default_map(&program);
    let symbols = tool(&dir, "nm", &["program"]);
    let Some(symbols) = symbols else { return };
    let address = |name: &str| {
        let line = symbols.lines().find(|line| line.split(' ').next_back() == Some(name)).expect("symbol");
        u64::from_str_radix(line.split(' ').next().unwrap_or_default(), 16).expect("address")
    };
    let counter = symbolizer.data_symbol(BIAS + address("counter") + 9).expect("counter");
    assert_eq!((counter.name.as_str(), counter.offset, counter.size), ("counter", 9, 16));
    assert_eq!(symbolizer.data_symbol(BIAS + address("counter") + 16).map(|data| data.offset).filter(|&o| o >= 16), None);
    assert_eq!(symbolizer.data_symbol(BIAS + address("ready")).expect("ready").size, 4);
    assert!(symbolizer.data_symbol(BIAS + address("main")).is_none());
    for (name, kind) in [("main", "Text"), ("ready", "Data"), ("counter", "BSS"), ("_GLOBAL_OFFSET_TABLE_", "GOT")] {
        assert_eq!(symbolizer.section(BIAS + address(name)), Some((kind, program.clone())), "{name}");
    }
    assert_eq!(symbolizer.section(BIAS + address("_IO_stdin_used")), None, "read-only data");
}

#[test]
fn ifuncs_versions_and_assembly_are_found() {
    let dir = scratch("ifunc");
    let source = "\
static void *impl(void *a) { return a; }
static void *resolve(void) { return impl; }
void *memcpy(void *, const void *, unsigned long) __attribute__((ifunc(\"resolve\")));
__asm__(\".globl bare\\nbare: nop\\nret\\n.globl untyped\\nuntyped: nop\\n ret\\n\");
__attribute__((visibility(\"hidden\"))) void hidden(void) {}
static void local(void) {}
void old_one(void) {}
__asm__(\".symver old_one, thing@OLD_1\");
void new_one(void) { local(); }
__asm__(\".symver new_one, thing@@NEW_2\");
";
    let script = "OLD_1 { global: thing; };\nNEW_2 { global: memcpy; bare; thing; old_one; new_one; local: untyped; } OLD_1;\n";
    std::fs::write(dir.join("versions"), script).expect("write");
    let flags = ["-fPIC", "-shared", "-Wl,--version-script=versions", "-Wl,-soname,libthing.so.3"];
    let Some(library) = compile(&dir, "ifunc.c", source, &flags) else {
        return;
    };
    let find = |name: &str| find_functions(&library, &|candidate| candidate == name).expect("readable");

    let memcpy = find("memcpy");
    assert_eq!(memcpy.len(), 1, "{memcpy:?}");
    assert!(memcpy[0].is_ifunc && memcpy[0].is_global_dynamic);
    assert_eq!(memcpy[0].version.as_deref(), Some("NEW_2"));

    let things = find("thing");
    let brief: Vec<_> = things.iter().map(|f| (f.version.as_deref(), f.default_version)).collect();
    assert_eq!(brief, [(Some("OLD_1"), false), (Some("NEW_2"), true)], "{things:?}");

    assert!(!find("hidden")[0].is_global_dynamic);
    assert!(!find("local")[0].is_global_dynamic);
    assert_eq!(find("bare").len(), 1);
    let layout = elf_layout(&library).expect("layout");
    assert_eq!(layout.soname.as_deref(), Some("libthing.so.3"));
    assert!(!layout.is_static);

    let mut symbolizer = default_map(&library);
    let bare = find("bare")[0].value;
    assert_eq!(symbolizer.frames(BIAS + bare + 1)[0].function.as_deref(), Some("bare"));
    assert_eq!(symbolizer.frames(BIAS + bare + 2)[0].function.as_deref(), Some("untyped"), "up to the next symbol");
    assert_eq!(symbolizer.frames(BIAS + things[1].value)[0].raw_name.as_deref(), Some("thing@@NEW_2"));

    // Cut the section headers off: offset, count and index of names in the ELF header.
    let mut bytes = std::fs::read(&library).expect("library");
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    let bare_library = dir.join("bare");
    std::fs::write(&bare_library, bytes).expect("write");
    let found = find_functions(&bare_library, &|name| name == "thing").expect("readable");
    assert_eq!(found.len(), 2, "by the dynamic segment alone: {found:?}");
    let mut symbolizer = default_map(&bare_library);
    assert_eq!(symbolizer.frames(BIAS + found[0].value)[0].function.as_deref(), Some("thing"));
    assert_eq!(symbolizer.section(BIAS + found[0].value).map(|(kind, _)| kind), Some("Text"));
}

#[test]
fn layouts_tell_how_a_program_is_loaded() {
    let dir = scratch("layouts");
    for (flags, is_static, moves) in
        [(&["-pie"][..], false, true), (&["-no-pie"], false, false), (&["-static"], true, false), (&["-static-pie"], true, true)]
    {
        let Some(program) = compile(&dir, "plain.c", PLAIN, flags) else {
            continue;
        };
        let layout = elf_layout(&program).expect("layout");
        assert_eq!((layout.is_static, layout.lowest == 0), (is_static, moves), "{flags:?}");
        assert!(layout.lowest <= layout.entry && layout.entry < layout.end);
    }
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let dir = scratch("escapes");
    let source = "void evil_31m_(void) {}\nint main(void) { evil_31m_(); return 0; }\n";
    let Some(program) = compile(&dir, "evilfile_.c", source, &["-g"]) else {
        return;
    };
    // No compiler writes such names, but a hex editor does.
    let mut bytes = std::fs::read(&program).expect("program");
    for (from, to) in [(&b"evil_31m_"[..], &b"evil\x1b31m\n"[..]), (b"evilfile_.c", b"evilfile\x9b.c")] {
        for at in 0..bytes.len() - from.len() {
            if bytes[at..].starts_with(from) {
                bytes[at..at + to.len()].copy_from_slice(to);
            }
        }
    }
    std::fs::write(&program, bytes).expect("write");
    let found = find_functions(&program, &|name| name.starts_with("evil")).expect("readable");
    let mut symbolizer = default_map(&program);
    let frame = symbolizer.frames(BIAS + found[0].value).remove(0);
    assert_eq!(frame.function.as_deref(), Some("evil\\u{1b}31m\\u{a}"));
    assert_eq!(frame.raw_name.as_deref(), Some("evil\\u{1b}31m\\u{a}"));
    assert_eq!(frame.file.as_deref(), Some("evilfile\u{fffd}.c"));
}
