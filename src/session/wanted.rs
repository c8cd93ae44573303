//! Which functions of an object are replaced.
//!
//! | object                         | allocation functions               | string functions                         |
//! |--------------------------------|------------------------------------|------------------------------------------|
//! | C library                      | all                                | all                                      |
//! | dynamic linker                 | none: its malloc is its own        | all                                      |
//! | other library                  | those that others can bind to      | none                                     |
//! | dynamic executable             | those that others can bind to      | none                                     |
//! | static executable              | all                                | resolvers, and names reserved to the C library |
//!
//! "Can bind to" is what makes an allocator *the* allocator: a hidden `malloc` of a plugin works on memory of its own. musl's
//! dynamic linker is its C library, and counts as that.
//!
//! `memcpy` of an old symbol version is `memmove`: programs from before 2.14 rely on it.

use std::collections::HashMap;
use std::path::Path;

use memcheck_abi::replace::{ALIASES, ALL, Func};
use memcheck_report::suppress::pattern;
use memcheck_symbolize::{ElfLayout, FoundSymbol};

/// What kind of object this is, as far as replacing goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Libc,
    DynamicLinker,
    Library,
    Executable,
    StaticExecutable,
}

impl Role {
    pub fn of(path: &Path, layout: &ElfLayout, is_executable: bool) -> Role {
        if is_executable {
            return if layout.is_static { Role::StaticExecutable } else { Role::Executable };
        }
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let names = [layout.soname.as_deref().unwrap_or_default(), file.as_str()];
        let starts = |prefixes: &[&str]| names.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        if starts(&["libc.so", "libc.musl", "ld-musl"]) {
            Role::Libc
        } else if starts(&["ld-linux", "ld.so", "ld-2."]) {
            Role::DynamicLinker
        } else {
            Role::Library
        }
    }

    fn replaces(self, func: Func, symbol: &FoundSymbol) -> bool {
        match (self, func.is_allocator()) {
            (Role::Libc, _) => true,
            (Role::DynamicLinker, is_allocator) => !is_allocator,
            (Role::Library | Role::Executable, is_allocator) => is_allocator && symbol.is_global_dynamic,
            (Role::StaticExecutable, true) => true,
            (Role::StaticExecutable, false) => symbol.is_ifunc || is_reserved(&symbol.name),
        }
    }
}

/// Names that a program must not define itself; unlike `index` or `bcopy`, which it may.
fn is_reserved(name: &str) -> bool {
    ["str", "mem", "wcs", "wmem", "stp", "wcp", "__"].iter().any(|prefix| name.starts_with(prefix))
}

/// The names of the functions to replace.
pub struct Wanted {
    names: HashMap<&'static str, Func>,
    /// Values of `--soname-synonyms=somalloc=…`: the only objects, besides the C and C++ libraries, whose allocators are replaced.
    allocators: Vec<String>,
}

/// An entry point to replace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// ELF address.
    pub value: u64,
    pub func: Func,
    pub is_resolver: bool,
}

impl Wanted {
    pub fn new(synonyms: &[String]) -> Wanted {
        let own = ALL[1..].iter().map(|func| (func.name(), *func));
        let allocators = synonyms.iter().filter_map(|synonym| synonym.strip_prefix("somalloc=").map(str::to_owned));
        Wanted { names: ALIASES.iter().copied().chain(own).collect(), allocators: allocators.collect() }
    }

    /// Does the user want the allocator of an object with this name replaced? An executable has none, which is written `NONE`.
    pub fn wants_allocator_of(&self, role: Role, soname: Option<&str>) -> bool {
        let name = soname.unwrap_or("NONE");
        let of_system = role == Role::Libc || name.starts_with("libstdc++") || name.starts_with("libc++");
        self.allocators.is_empty() || of_system || self.allocators.iter().any(|glob| pattern::matches(glob, name))
    }

    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The entry points among an object's symbols, each address once.
    pub fn choose(&self, role: Role, symbols: &[FoundSymbol]) -> Vec<Entry> {
        let mut chosen: Vec<Entry> = Vec::new();
        for symbol in symbols.iter().filter(|symbol| symbol.value != 0) {
            let Some(func) = self.func(symbol).filter(|func| role.replaces(*func, symbol)) else { continue };
            let entry = Entry { value: symbol.value, func, is_resolver: symbol.is_ifunc };
            match chosen.iter_mut().find(|other| other.value == symbol.value) {
                Some(other) => *other = better(*other, entry),
                None => chosen.push(entry),
            }
        }
        chosen
    }

    fn func(&self, symbol: &FoundSymbol) -> Option<Func> {
        match self.names.get(symbol.name.as_str()).copied() {
            Some(Func::memcpy) if !symbol.default_version => Some(Func::memmove),
            func => func,
        }
    }
}

/// Addresses at which an operator for single objects and one for arrays were made one by the linker.
pub fn folded(symbols: &[FoundSymbol]) -> impl Iterator<Item = u64> + '_ {
    let starts = |symbol: &FoundSymbol, prefixes: [&str; 2]| prefixes.iter().any(|prefix| symbol.name.starts_with(prefix));
    let single = symbols.iter().filter(move |symbol| symbol.value != 0 && starts(symbol, ["_Znw", "_Zdl"]));
    let is_array_too = move |&value: &u64| symbols.iter().any(|other| other.value == value && starts(other, ["_Zna", "_Zda"]));
    single.map(|symbol| symbol.value).filter(is_array_too)
}

/// Of two names for one address: the one that asks less of its caller, else the first in the table.
fn better(one: Entry, other: Entry) -> Entry {
    let moves = [one, other].into_iter().find(|entry| entry.func == Func::memmove);
    moves.unwrap_or(if other.func < one.func { other } else { one })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, value: u64) -> FoundSymbol {
        FoundSymbol { name: name.into(), version: None, default_version: true, value, size: 1, is_ifunc: false, is_global_dynamic: true }
    }

    fn chosen(role: Role, symbols: &[FoundSymbol]) -> Vec<(u64, Func)> {
        Wanted::new(&[]).choose(role, symbols).into_iter().map(|entry| (entry.value, entry.func)).collect()
    }

    #[test]
    fn the_table_of_roles() {
        let all = [symbol("malloc", 1), symbol("strlen", 2), symbol("index", 3)];
        let hidden = all.clone().map(|s| FoundSymbol { is_global_dynamic: false, ..s });
        assert_eq!(chosen(Role::Libc, &hidden), [(1, Func::malloc), (2, Func::strlen), (3, Func::strchr)]);
        assert_eq!(chosen(Role::DynamicLinker, &all), [(2, Func::strlen), (3, Func::strchr)]);
        assert_eq!(chosen(Role::Library, &all), [(1, Func::malloc)]);
        assert_eq!(chosen(Role::Library, &hidden), []);
        assert_eq!(chosen(Role::Executable, &all), [(1, Func::malloc)]);
        assert_eq!(chosen(Role::StaticExecutable, &hidden), [(1, Func::malloc), (2, Func::strlen)]);
    }

    #[test]
    fn allocators_by_name() {
        let wanted = |synonyms: &[&str]| Wanted::new(&synonyms.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let answers = |synonyms: &[&str]| {
            let wanted = wanted(synonyms);
            let of = |role, name| wanted.wants_allocator_of(role, name);
            [of(Role::Libc, Some("libc.so.6")), of(Role::Library, Some("libjemalloc.so.2")), of(Role::Executable, None)]
        };
        assert_eq!(answers(&[]), [true, true, true]);
        assert_eq!(answers(&["somalloc=nouserintercepts"]), [true, false, false]);
        assert_eq!(answers(&["somalloc=libjemalloc*"]), [true, true, false]);
        assert_eq!(answers(&["sothread=x", "somalloc=NONE"]), [true, false, true]);
    }

    #[test]
    fn undefined_symbols_are_not_entry_points() {
        assert_eq!(chosen(Role::Libc, &[symbol("malloc", 0)]), []);
    }

    #[test]
    fn folded_operators_are_found() {
        let all = [symbol("_ZdlPvm", 5), symbol("_ZdaPv", 5), symbol("_Znwm", 6), symbol("_Znam", 7), symbol("_ZdlPv", 8)];
        assert_eq!(folded(&all).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn the_old_memcpy_may_overlap() {
        let old = FoundSymbol { version: Some("GLIBC_2.2.5".into()), default_version: false, ..symbol("memcpy", 1) };
        let new = FoundSymbol { is_ifunc: true, ..symbol("memcpy", 2) };
        let entries = Wanted::new(&[]).choose(Role::Libc, &[old, new]);
        assert_eq!(entries[0], Entry { value: 1, func: Func::memmove, is_resolver: false });
        assert_eq!(entries[1], Entry { value: 2, func: Func::memcpy, is_resolver: true });
        assert_eq!(chosen(Role::Libc, &[symbol("memcpy", 5), symbol("memmove", 5)]), [(5, Func::memmove)]);
    }

    #[test]
    fn roles_by_name() {
        let soname = |name: &str| {
            let mut layout = ElfLayout::default();
            layout.soname = Some(name.into());
            layout
        };
        let role = |path: &str, layout: &ElfLayout| Role::of(Path::new(path), layout, false);
        assert_eq!(role("/lib/libc-2.31.so", &soname("libc.so.6")), Role::Libc);
        assert_eq!(role("/lib/ld-linux-x86-64.so.2", &soname("ld-linux-x86-64.so.2")), Role::DynamicLinker);
        assert_eq!(role("/lib/ld-musl-x86_64.so.1", &ElfLayout::default()), Role::Libc);
        assert_eq!(role("/lib/libcrypt.so.1", &soname("libcrypt.so.1")), Role::Library);
    }
}
