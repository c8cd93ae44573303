//! The objects of a process: their names for addresses, and what is replaced in them.
//!
//! ```text
//! executable mapping ─► line of the mapping list ─► file ─► bias ─► symbolizer
//!                                                     └──► symbols ─► redirects
//! ```
//!
//! The file of a mapping may be gone, replaced by another one of its name, or lie in another mount namespace; /proc still leads
//! to it, and where not even that is allowed, the object has just its name.
//!
//! A forked child begins with nothing and reads its own mapping list when its first stack is needed: most children execute
//! another program before they ever fail.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memcheck_abi::event::{Redirect, needed};
use memcheck_abi::layout;
use memcheck_abi::replace::{Func, place};
use memcheck_report::options::Options;
use memcheck_report::suppress::pattern;
use memcheck_symbolize::{self as symbolize, Symbolizer};
use memcheck_tracer::{Map, Process};

use super::requests;
use super::wanted::{Entry, Role, Wanted, folded};
use super::wrapping::Wrapping;

/// No vDSO is larger, bytes.
const MAX_VDSO: u64 = 1 << 20;

pub struct Modules {
    pub symbolizer: Symbolizer,
    /// Replaced functions that have a name at their pseudo entry point.
    named: HashSet<Func>,
    /// Some object has an allocator that was replaced.
    pub allocator_seen: bool,
    /// Functions that others of the program take the place of.
    wrapping: Wrapping,
    /// Objects of a forked child are not read yet.
    unread: bool,
    /// Somebody sees the frames that called `main`.
    pub shows_below_main: bool,
    /// `--soname-synonyms`
    synonyms: Vec<String>,
    /// `--require-text-symbol`
    required: Vec<(String, String)>,
    /// The soname of an object, and the pattern of a symbol that it should have and has not.
    pub missing: Option<(String, String)>,
    /// The sanitizer in an object that has appeared.
    pub sanitizer: Option<&'static Sanitizer>,
}

/// A checker that the compiler has built in, with a map of memory where memcheck has its own.
pub struct Sanitizer {
    /// A function of its run-time library.
    symbol: &'static str,
    pub name: &'static str,
    /// `-fsanitize=`
    pub option: &'static str,
}

const SANITIZERS: [Sanitizer; 4] = [
    Sanitizer { symbol: "__asan_init", name: "AddressSanitizer", option: "address" },
    Sanitizer { symbol: "__tsan_init", name: "ThreadSanitizer", option: "thread" },
    Sanitizer { symbol: "__msan_init", name: "MemorySanitizer", option: "memory" },
    Sanitizer { symbol: "__lsan_init", name: "LeakSanitizer", option: "leak" },
];

fn sanitizer(symbol: &str) -> Option<&'static Sanitizer> {
    SANITIZERS.iter().find(|sanitizer| sanitizer.symbol == symbol)
}

/// A file and how to open it.
struct Located {
    /// As the program knows it.
    name: PathBuf,
    /// As we can open it; `None`: we cannot.
    readable: Option<PathBuf>,
}

impl Modules {
    pub fn new(options: &Options) -> Modules {
        let shows_below_main = options.frames.show_below_main || !options.reports.is_empty();
        let synonyms = options.soname_synonyms.clone();
        let required = options.require_text_symbols.clone();
        let options = symbolize::Options {
            demangle: options.frames.demangle,
            inline: options.read_inline_info,
            extra_debug_dir: options.extra_debuginfo_path.clone(),
        };
        let symbolizer = Symbolizer::new(options);
        Modules {
            symbolizer,
            named: HashSet::new(),
            allocator_seen: false,
            wrapping: Wrapping::default(),
            unread: false,
            shows_below_main,
            synonyms,
            required,
            missing: None,
            sanitizer: None,
        }
    }

    pub fn fork(&self, options: &Options) -> Modules {
        Modules { allocator_seen: self.allocator_seen, unread: true, ..Modules::new(options) }
    }

    /// Make sure that the objects are known.
    pub fn read(&mut self, process: &Process) {
        if !std::mem::take(&mut self.unread) {
            return;
        }
        let wanted = Wanted::new(&self.synonyms);
        let maps = process.maps().unwrap_or_default();
        for map in maps.iter().filter(|map| map.prot & libc::PROT_EXEC as u32 != 0 && map.end <= layout::PROGRAM_END) {
            self.mapped(process, map.start, map.end, &wanted);
        }
    }

    /// Code appeared at `start..end`. The answer: functions in it to replace.
    pub fn mapped(&mut self, process: &Process, start: u64, end: u64, wanted: &Wanted) -> Vec<Redirect> {
        let Ok(maps) = process.maps() else { return Vec::new() };
        let Some(at) = maps.iter().position(|map| map.contains(start)) else { return Vec::new() };
        let map = &maps[at];
        if map.inode == 0 {
            self.anonymous(process, map);
            return Vec::new();
        }
        let located = locate(process, map);
        let (name, first) = (located.name.as_path(), first_piece(&maps, at));
        let file = located.readable.as_deref();
        let Some((file, elf)) = file.and_then(|file| Some((file, symbolize::elf_layout(file).ok()?))) else {
            self.symbolizer.add_module_bytes(name, Vec::new(), first.start, end, first.start);
            return Vec::new();
        };
        let bias = elf.bias(map.start, map.offset).unwrap_or(first.start.wrapping_sub(first.offset).wrapping_sub(elf.lowest));
        let module_start = elf.lowest.wrapping_add(bias).min(start);
        let module_end = elf.end.wrapping_add(bias).max(end);
        self.add(name, file, module_start, module_end, bias);
        let is_executable = fs::read_link(format!("/proc/{}/exe", process.living())).is_ok_and(|exe| exe.as_os_str() == map.path);
        let is_known =
            |name: &str| wanted.has(name) || requests::is_needed(name) || symbolize::is_wrapper(name) || sanitizer(name).is_some();
        let symbols = symbolize::find_functions(file, &is_known).unwrap_or_default();
        self.sanitizer = symbols.iter().find_map(|symbol| sanitizer(&symbol.name)).or(self.sanitizer);
        let role = Role::of(name, &elf, is_executable);
        let entries = wanted.choose(role, &symbols);
        self.require(file, elf.soname.as_deref());
        let here = |entry: &Entry| (start..end).contains(&entry.value.wrapping_add(bias));
        let allocates = wanted.wants_allocator_of(role, elf.soname.as_deref());
        let entries: Vec<Entry> = entries.into_iter().filter(|entry| here(entry) && (allocates || !entry.func.is_allocator())).collect();
        self.name_replaced(&entries, name, bias);
        let called = requests::needed_of(role, &symbols, bias).into_iter().filter(|found| (start..end).contains(&found.addr));
        let by_program = self.wrapping.appeared(file, elf.soname.as_deref(), &symbols, (module_start, module_end, bias));
        let folded = folded(&symbols).map(|value| Redirect { addr: value.wrapping_add(bias), func: needed::FOLDED, ..Redirect::default() });
        entries.iter().map(|entry| redirect(entry, bias)).chain(called).chain(by_program).chain(folded).collect()
    }

    /// Look whether the object has all symbols that the user wants it to have.
    fn require(&mut self, file: &Path, soname: Option<&str>) {
        let Some(soname) = soname.filter(|_| self.missing.is_none()) else { return };
        let wanted = self.required.iter().filter(|(object, _)| pattern::matches(object, soname));
        let has =
            |symbol: &str| symbolize::find_functions(file, &|name| pattern::matches(symbol, name)).is_ok_and(|found| !found.is_empty());
        let lacks = { wanted }.find(|(_, symbol)| !has(symbol));
        self.missing = lacks.map(|(_, symbol)| (soname.to_owned(), symbol.clone()));
    }

    fn add(&mut self, name: &Path, file: &Path, start: u64, end: u64, bias: u64) {
        let other = if name == file { None } else { fs::read(file).ok() };
        match other {
            Some(bytes) => self.symbolizer.add_module_bytes(name, bytes, start, end, bias),
            None => self.symbolizer.add_module(name, start, end, bias),
        }
    }

    /// Replaced functions show up in stacks by their own name, in the object that defines them. Without a source line, because the
    /// code on that line does not run.
    fn name_replaced(&mut self, entries: &[Entry], object: &Path, bias: u64) {
        for entry in entries {
            self.allocator_seen |= entry.func.is_allocator();
            if !entry.is_resolver {
                self.name_at(entry.value.wrapping_add(bias), entry.func, object);
            }
            if self.named.insert(entry.func) {
                self.name_at(entry.func.magic(), entry.func, object);
            }
        }
    }

    /// Overlaps name the function by the name that it was called by: of two that share a stand-in, only one may not overlap.
    fn name_at(&mut self, entry: u64, func: Func, object: &Path) {
        self.symbolizer.add_synthetic(entry, entry + place::OVERLAP, func.shown(), object);
        self.symbolizer.add_synthetic(entry + place::OVERLAP, entry + place::END, &[func.name()], object);
    }

    /// The vDSO is an object without a file; other anonymous code has no names.
    fn anonymous(&mut self, process: &Process, map: &Map) {
        if map.path != "[vdso]" {
            return;
        }
        let bytes = process.memory().bytes(map.start, (map.end - map.start).min(MAX_VDSO), MAX_VDSO as usize);
        self.symbolizer.add_module_bytes(Path::new("[vdso]"), bytes, map.start, map.end, map.start);
    }

    /// Code at `start..end` is gone, or has changed; only the first matters here.
    pub fn unmapped(&mut self, process: &Process, start: u64, end: u64) {
        if !self.symbolizer.modules().iter().any(|module| start < module.end && module.start < end) {
            return;
        }
        let maps = process.maps().unwrap_or_default();
        let still_there = maps.iter().any(|map| map.inode != 0 && map.start < end && start < map.end);
        if !still_there {
            self.wrapping.gone(start, end);
            self.symbolizer.remove_range(start, end);
        }
    }
}

fn redirect(entry: &Entry, bias: u64) -> Redirect {
    Redirect { addr: entry.value.wrapping_add(bias), func: entry.func as u32, resolver: entry.is_resolver.into(), target: 0 }
}

/// The mapping of the start of the file that mapping `at` belongs to: the first of the same file, going down without another file
/// in between.
fn first_piece(maps: &[Map], at: usize) -> &Map {
    let file = |map: &Map| (map.device, map.inode);
    let mut first = &maps[at];
    for map in maps[..at].iter().rev() {
        if file(map) == file(first) && map.offset < first.offset {
            first = map;
        } else if map.inode != 0 {
            break;
        }
    }
    first
}

fn locate(process: &Process, map: &Map) -> Located {
    const DELETED: &[u8] = b" (deleted)";
    let bytes = map.path.as_bytes();
    let tid = process.living();
    if let Some(name) = bytes.strip_suffix(DELETED) {
        let by_range = PathBuf::from(format!("/proc/{tid}/map_files/{:x}-{:x}", map.start, map.end));
        let exe = PathBuf::from(format!("/proc/{tid}/exe"));
        let is_exe = fs::read_link(&exe).is_ok_and(|target| target.as_os_str() == map.path);
        let readable = if fs::File::open(&by_range).is_ok() { Some(by_range) } else { is_exe.then_some(exe) };
        return Located { name: PathBuf::from(OsStr::from_bytes(name)), readable };
    }
    let name = PathBuf::from(&map.path);
    if name.exists() {
        return Located { readable: Some(name.clone()), name };
    }
    let mut rooted = OsStr::new(&format!("/proc/{tid}/root")).to_owned();
    rooted.push(&map.path);
    let rooted = PathBuf::from(rooted);
    Located { readable: rooted.exists().then_some(rooted), name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(start: u64, offset: u64, inode: u64) -> Map {
        Map { start, end: start + 0x1000, prot: 5, shared: false, offset, device: (8, 1), inode, path: "/lib/a.so".into() }
    }

    #[test]
    fn pieces_of_one_file_belong_together() {
        let maps = [map(0x1000, 0, 7), map(0x5000, 0, 7), map(0x6000, 0x1000, 7), map(0x7000, 0, 0), map(0x8000, 0x3000, 7)];
        assert_eq!(first_piece(&maps, 2).start, 0x5000, "not the other copy");
        assert_eq!(first_piece(&maps, 4).start, 0x5000, "over anonymous memory");
        assert_eq!(first_piece(&maps, 0).start, 0x1000);
        let other = [map(0x1000, 0, 7), map(0x2000, 0, 9), map(0x3000, 0x1000, 7)];
        assert_eq!(first_piece(&other, 2).start, 0x3000, "not beyond another file");
    }
}
