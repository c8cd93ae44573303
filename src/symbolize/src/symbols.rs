//! Symbol tables: which function or variable an address belongs to.
//!
//! ```text
//!   .symtab of the debug file ┐                  ┌ functions: FUNC and IFUNC
//!   .symtab of the object     ├─ one name each ──┤ labels:    untyped symbols in code, asked last
//!   .dynsym of the object     ┘   per address    └ data:      OBJECT
//! ```
//!
//! Several names at one address are the rule in libc. The one shown is the one users know: the shortest, where a
//! version (`@@GLIBC_2.34`) does not count as length; among equals `name@@VERSION`, then `name@VERSION`, then the bare
//! name; then alphabetical order. So `write` wins over `__write` and `__GI___libc_write`, `malloc` over
//! `__libc_malloc`. Compared with Valgrind 3.19's choice for every address of glibc 2.36 that has several names
//! (1,856), this rule differs nowhere, and suppression files written for one tool match the other.
//!
//! A symbol of size 0 (hand-written assembly) reaches to the next symbol, at most to the end of its section.

use goblin::elf::section_header::{SHF_EXECINSTR, SHN_LORESERVE, SHN_UNDEF, SHN_XINDEX, SHT_DYNSYM, SHT_SYMTAB};
use goblin::elf::sym::{STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, Sym, Symtab};

use crate::elf::{CTX, Elf, c_string, half, slice, word};

/// A named range of addresses of one file (unrelocated).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub start: u64,
    pub end: u64,
    /// As in the file: mangled, possibly with a version, any bytes.
    pub name: &'a [u8],
}

/// All symbols of one object.
#[derive(Default)]
pub(crate) struct SymbolTable<'a> {
    functions: Ranges<'a>,
    labels: Ranges<'a>,
    data: Ranges<'a>,
}

/// Ranges sorted by start, starts unique. They may nest (a function inside another's extent).
#[derive(Default)]
struct Ranges<'a> {
    symbols: Vec<Symbol<'a>>,
    /// `reach[i]`: the highest end among `symbols[..=i]`, so that a search backwards knows when to stop.
    reach: Vec<u64>,
}

/// A symbol before one was chosen per address.
struct Candidate<'a> {
    symbol: Sym,
    name: &'a [u8],
    /// Where the section of the symbol ends; 0 if unknown.
    section_end: u64,
}

impl<'a> SymbolTable<'a> {
    /// Collect the symbols of `files`: the debug file and the object, in any order.
    pub fn build(files: &[&Elf<'a>]) -> SymbolTable<'a> {
        let (mut functions, mut labels, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for elf in files {
            for_each_symbol(elf, |symbol, name, _| {
                let Some(candidate) = Candidate::new(elf, symbol, name) else {
                    return;
                };
                match symbol.st_type() {
                    STT_FUNC | STT_GNU_IFUNC => functions.push(candidate),
                    STT_NOTYPE if candidate.is_code_label(elf) => labels.push(candidate),
                    STT_OBJECT => data.push(candidate),
                    _ => {}
                }
            });
        }
        let mut code_starts: Vec<u64> = functions.iter().chain(&labels).map(|c| c.symbol.st_value).collect();
        code_starts.sort_unstable();
        let mut data_starts: Vec<u64> = data.iter().map(|c| c.symbol.st_value).collect();
        data_starts.sort_unstable();
        SymbolTable {
            functions: Ranges::choose(functions, &code_starts),
            labels: Ranges::choose(labels, &code_starts),
            data: Ranges::choose(data, &data_starts),
        }
    }

    /// The function (or failing that, label) that covers `vaddr`.
    pub fn function(&self, vaddr: u64) -> Option<Symbol<'a>> {
        self.functions.find(vaddr).or_else(|| self.labels.find(vaddr))
    }

    /// The variable that covers `vaddr`.
    pub fn data(&self, vaddr: u64) -> Option<Symbol<'a>> {
        self.data.find(vaddr)
    }
}

impl<'a> Ranges<'a> {
    /// Keep the best name per address and give every range an end. `starts` are those of all symbols, sorted.
    fn choose(mut candidates: Vec<Candidate<'a>>, starts: &[u64]) -> Ranges<'a> {
        candidates.sort_unstable_by_key(|candidate| candidate.symbol.st_value);
        let mut symbols: Vec<Symbol<'a>> = Vec::with_capacity(candidates.len());
        for group in candidates.chunk_by(|a, b| a.symbol.st_value == b.symbol.st_value) {
            let Some(best) = group.iter().min_by(|a, b| preference(a.name).cmp(&preference(b.name))) else { continue };
            let start = best.symbol.st_value;
            let size = group.iter().map(|candidate| candidate.symbol.st_size).max().unwrap_or(0);
            let end = if size > 0 { start.saturating_add(size) } else { best.guess_end(starts) };
            symbols.push(Symbol { start, end, name: best.name });
        }
        symbols.shrink_to_fit();
        let mut highest = 0;
        let reach = symbols.iter().map(|symbol| {
            highest = symbol.end.max(highest);
            highest
        });
        Ranges { reach: reach.collect(), symbols }
    }

    /// The range with the highest start that covers `vaddr`.
    fn find(&self, vaddr: u64) -> Option<Symbol<'a>> {
        // Real tables nest two or three deep. The bound only matters for tables made up to be slow.
        const DEEPEST: usize = 1000;
        let after = self.symbols.partition_point(|symbol| symbol.start <= vaddr);
        (0..after)
            .rev()
            .take(DEEPEST)
            .take_while(|&index| self.reach[index] > vaddr)
            .map(|index| self.symbols[index])
            .find(|symbol| vaddr < symbol.end)
    }
}

impl<'a> Candidate<'a> {
    /// `None` for symbols that are not defined in this file at a place of their own.
    fn new(elf: &Elf<'a>, symbol: Sym, name: &'a [u8]) -> Option<Candidate<'a>> {
        if !is_defined(&symbol) || name.is_empty() {
            return None;
        }
        let section = elf.sections.get(symbol.st_shndx).map(|section| &section.header);
        let section_end = section.map_or(0, |header| header.sh_addr.saturating_add(header.sh_size));
        Some(Candidate { symbol, name, section_end })
    }

    /// Untyped symbols name code only if they lie in a code section and are not the assembler's own.
    fn is_code_label(&self, elf: &Elf<'a>) -> bool {
        let section = elf.sections.get(self.symbol.st_shndx);
        let in_code = section.is_some_and(|section| section.header.sh_flags & u64::from(SHF_EXECINSTR) != 0);
        in_code && !self.name.starts_with(b".") && !self.name.starts_with(b"$")
    }

    fn guess_end(&self, starts: &[u64]) -> u64 {
        let start = self.symbol.st_value;
        let next = starts.get(starts.partition_point(|&other| other <= start)).copied();
        let limit = if self.section_end > start { self.section_end } else { start.saturating_add(1) };
        next.map_or(limit, |next| next.min(limit))
    }
}

/// Defined in this file, at an address (not undefined, absolute or common).
pub(crate) fn is_defined(symbol: &Sym) -> bool {
    let section = symbol.st_shndx as u32;
    section != SHN_UNDEF && (section < SHN_LORESERVE || section == SHN_XINDEX)
}

/// Sort key: the smallest is the name that is shown. See the essay.
fn preference(name: &[u8]) -> (usize, u8, &[u8]) {
    let at = name.iter().position(|&byte| byte == b'@');
    let version_rank = match at {
        Some(at) if name.get(at + 1) == Some(&b'@') => 0,
        Some(_) => 1,
        None => 2,
    };
    (at.unwrap_or(name.len()), version_rank, name)
}

/// Which table a symbol was read from, and its index there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Static,
    Dynamic { index: usize },
}

/// Call `visit` with every entry of .symtab and .dynsym, names as they are in the file.
pub(crate) fn for_each_symbol<'a>(elf: &Elf<'a>, mut visit: impl FnMut(Sym, &'a [u8], Origin)) {
    let mut found_dynamic = false;
    for section in &elf.sections {
        let is_dynamic = section.header.sh_type == SHT_DYNSYM;
        if !is_dynamic && section.header.sh_type != SHT_SYMTAB {
            continue;
        }
        let strings = elf.sections.get(section.header.sh_link as usize).and_then(|names| elf.raw(names));
        let (Some(table), Some(strings)) = (elf.raw(section), strings) else {
            continue;
        };
        found_dynamic |= is_dynamic;
        visit_table(table, strings, is_dynamic, &mut visit);
    }
    if !found_dynamic && let Some((table, strings)) = dynamic_table(elf) {
        visit_table(table, strings, true, &mut visit);
    }
}

fn visit_table<'a>(table: &'a [u8], strings: &'a [u8], is_dynamic: bool, visit: &mut impl FnMut(Sym, &'a [u8], Origin)) {
    const SYMBOL_BYTES: usize = 24;
    let Ok(symbols) = Symtab::parse(table, 0, table.len() / SYMBOL_BYTES, CTX) else {
        return;
    };
    for (index, symbol) in symbols.iter().enumerate() {
        let origin = if is_dynamic { Origin::Dynamic { index } } else { Origin::Static };
        visit(symbol, c_string(strings, symbol.st_name as u64), origin);
    }
}

/// Dynamic symbols of a file without section headers: the dynamic segment says where they are but not how many;
/// the hash tables do.
fn dynamic_table<'a>(elf: &Elf<'a>) -> Option<(&'a [u8], &'a [u8])> {
    use goblin::elf::dynamic::{DT_GNU_HASH, DT_HASH, DT_SYMTAB};
    let symbols = elf.at_address(elf.dynamic(DT_SYMTAB)?)?;
    let count = match elf.dynamic(DT_HASH) {
        Some(hash) => half(elf.at_address(hash)?, 4)? as usize,
        None => gnu_hash_count(elf.at_address(elf.dynamic(DT_GNU_HASH)?)?)?,
    };
    let bytes = count.checked_mul(24)?.min(symbols.len());
    Some((slice(symbols, 0, bytes as u64)?, elf.dynamic_strings()?))
}

/// Number of symbols according to DT_GNU_HASH: {buckets, first symbol, bloom words, shift}, bloom, buckets, chains.
/// The last symbol is the end of the chain (lowest bit set) that starts at the highest bucket.
fn gnu_hash_count(table: &[u8]) -> Option<usize> {
    let buckets = half(table, 0)? as usize;
    let first = half(table, 4)? as usize;
    let bloom_words = half(table, 8)? as usize;
    let buckets_at = bloom_words.checked_mul(8)?.checked_add(16)?;
    let chains_at = buckets.checked_mul(4)?.checked_add(buckets_at)?;
    let entries = table.get(buckets_at..chains_at)?.chunks_exact(4);
    let mut last = entries.map(|entry| half(entry, 0).unwrap_or(0) as usize).max()?;
    if last < first {
        return Some(first);
    }
    while half(table, (last - first).checked_mul(4)?.checked_add(chains_at)?)? & 1 == 0 {
        last += 1;
    }
    Some(last + 1)
}

/// Versions of the dynamic symbols of one file (.gnu.version with .gnu.version_d).
#[derive(Default)]
pub(crate) struct Versions<'a> {
    by_symbol: &'a [u8],
    names: Vec<(u16, &'a [u8])>,
}

impl<'a> Versions<'a> {
    pub fn read(elf: &Elf<'a>) -> Versions<'a> {
        let data = |name| elf.section(name).and_then(|section| elf.raw(section)).unwrap_or_default();
        let strings = data(".dynstr");
        Versions { by_symbol: data(".gnu.version"), names: defined_versions(data(".gnu.version_d"), strings) }
    }

    /// Version of dynamic symbol `index`, and whether it is the one that new programs are linked with.
    pub fn of(&self, index: usize) -> Option<(&'a [u8], bool)> {
        const HIDDEN: u16 = 0x8000;
        let entry = self.by_symbol.get(index.checked_mul(2)?..)?.first_chunk::<2>()?;
        let entry = u16::from_le_bytes(*entry);
        let (_, name) = self.names.iter().find(|(number, _)| *number == entry & !HIDDEN)?;
        Some((name, entry & HIDDEN == 0))
    }
}

/// Chain of {version u16, flags u16, number u16, names u16, hash u32, first name u32, next u32}, offsets relative;
/// names are {string u32, next u32}, of which the first is the version itself.
fn defined_versions<'a>(table: &[u8], strings: &'a [u8]) -> Vec<(u16, &'a [u8])> {
    const BASE: u32 = 1;
    let mut found = Vec::new();
    let mut at = 0usize;
    // Each number is 15 bits, so a longer chain is damage (or a ring).
    while found.len() < 0x8000 {
        let Some(entry) = table.get(at..).and_then(|rest| rest.first_chunk::<20>()) else {
            break;
        };
        let low = word(entry, 0);
        let (flags, number) = ((low >> 16) as u32 & 0xffff, (low >> 32) as u16);
        let (name_at, next) = (half(entry, 12).unwrap_or(0), half(entry, 16).unwrap_or(0));
        if let Some(name) = half(table, at.saturating_add(name_at as usize))
            && flags & BASE == 0
        {
            found.push((number, c_string(strings, u64::from(name))));
        }
        if next == 0 {
            break;
        }
        at = at.saturating_add(next as usize);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(names: &[&'a str]) -> &'a str {
        names.iter().min_by_key(|name| preference(name.as_bytes())).expect("some")
    }

    #[test]
    fn the_name_users_know_wins() {
        assert_eq!(best(&["__GI___libc_write", "__write", "write", "__libc_write"]), "write");
        assert_eq!(best(&["__libc_malloc", "malloc", "__GI___libc_malloc"]), "malloc");
        assert_eq!(best(&["free", "cfree@GLIBC_2.2.5", "__libc_free"]), "free");
        assert_eq!(
            best(&["aio_write@GLIBC_2.2.5", "aio_write64@@GLIBC_2.34", "aio_write", "aio_write@@GLIBC_2.34"]),
            "aio_write@@GLIBC_2.34"
        );
        assert_eq!(best(&["isinff128_do_not_use", "__isinff128"]), "__isinff128");
    }

    fn candidate(start: u64, size: u64, name: &'static str, section_end: u64) -> Candidate<'static> {
        let symbol = Sym { st_name: 0, st_info: 0, st_other: 0, st_shndx: 1, st_value: start, st_size: size };
        Candidate { symbol, name: name.as_bytes(), section_end }
    }

    fn name_at<'a>(ranges: &Ranges<'a>, vaddr: u64) -> Option<&'a str> {
        ranges.find(vaddr).map(|symbol| std::str::from_utf8(symbol.name).expect("ascii"))
    }

    #[test]
    fn nested_and_sizeless_ranges_are_found() {
        let candidates = vec![
            candidate(100, 100, "outer", 400),
            candidate(120, 10, "inner", 400),
            candidate(300, 0, "assembly", 400),
            candidate(350, 0, "last", 400),
        ];
        let ranges = Ranges::choose(candidates, &[100, 120, 300, 350]);
        let expect = [
            (99, None),
            (100, Some("outer")),
            (125, Some("inner")),
            (130, Some("outer")),
            (199, Some("outer")),
            (200, None),
            (349, Some("assembly")),
            (399, Some("last")),
            (400, None),
        ];
        for (vaddr, name) in expect {
            assert_eq!(name_at(&ranges, vaddr), name, "at {vaddr}");
        }
    }

    #[test]
    fn a_ring_of_versions_ends() {
        let mut entry = vec![0u8; 20];
        entry[4] = 2;
        entry[16] = 20;
        let mut table = entry.clone();
        table.extend(&entry);
        assert_eq!(defined_versions(&table, b"\0").len(), 2, "the third is outside");
    }
}
