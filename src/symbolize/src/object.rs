//! One ELF object and everything known about its addresses, each part read when it is first asked for.
//!
//! All addresses here are the file's own (unrelocated).
//!
//! The name of a frame comes from the symbol table if that covers the address, because those are the names linkers,
//! profilers and existing suppression files use (`write`, `foo.part.0`); DWARF names what has no symbol. Inlined
//! functions only exist in DWARF and carry their plain source name (`push_back`), as Valgrind prints them and as its
//! suppressions spell them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use goblin::elf::program_header::{PF_W, PF_X};
use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, SectionHeader};

use crate::debugfile;
use crate::demangle::{demangle, escape, text};
use crate::dwarf::{Dwarf, Place};
use crate::elf::Elf;
use crate::symbols::{Symbol, SymbolTable};
use crate::{Frame, Options, room};

/// A file that is or was mapped.
pub(crate) struct Object {
    pub path: PathBuf,
    /// Contents; empty if the file could not be opened.
    bytes: &'static [u8],
    elf: OnceCell<Option<Elf<'static>>>,
    debug: OnceCell<Option<(PathBuf, Elf<'static>)>>,
    symbols: OnceCell<SymbolTable<'static>>,
    dwarf: OnceCell<Option<Dwarf>>,
}

impl Object {
    pub fn new(path: &Path, bytes: &'static [u8]) -> Object {
        Object {
            path: path.to_path_buf(),
            bytes,
            elf: OnceCell::new(),
            debug: OnceCell::new(),
            symbols: OnceCell::new(),
            dwarf: OnceCell::new(),
        }
    }

    /// Innermost first; `addr` and `object` are left for the caller. Never empty.
    pub fn frames(&self, vaddr: u64, options: &Options) -> Vec<Frame> {
        let symbol = self.symbols(options).function(vaddr);
        let start = symbol.map(|symbol| symbol.start);
        let dwarf = self.dwarf(options).filter(|_| self.is_mapped(vaddr));
        let mut places = dwarf.map(|dwarf| dwarf.places(vaddr, start)).unwrap_or_default();
        if !options.inline {
            flatten(&mut places);
        }
        let outermost = places.pop().unwrap_or_default();
        let function_line = start.and_then(|start| dwarf?.line_at(start));
        let mut frames: Vec<Frame> = places.iter().map(|place| inlined_frame(place, options)).collect();
        frames.push(function_frame(&outermost, symbol, function_line, options));
        frames
    }

    /// The function at `vaddr` by the symbol tables alone, and whether debug information might say more. Only its raw name is known.
    pub fn outline(&self, vaddr: u64, options: &Options) -> (Frame, bool) {
        let symbol = self.symbols(options).function(vaddr);
        let raw_name = symbol.map(|symbol| escape(&text(symbol.name)).into_owned());
        let own = self.elf().is_some_and(Elf::has_dwarf);
        let has_more = own || self.debug(options).is_some_and(|(_, debug)| debug.has_dwarf());
        (Frame { raw_name, ..Frame::default() }, has_more && self.is_mapped(vaddr))
    }

    /// The instruction that makes room for the locals of the function around `vaddr`.
    pub fn room(&self, vaddr: u64, options: &Options) -> Option<u64> {
        let function = self.symbols(options).function(vaddr)?;
        let code = self.elf()?.at_address(function.start)?;
        let size = usize::try_from(function.end.checked_sub(function.start)?).ok()?;
        room::made(&code[..code.len().min(size)], function.start)
    }

    /// The variable at `vaddr`.
    pub fn data_symbol(&self, vaddr: u64, options: &Options) -> Option<Symbol<'static>> {
        self.symbols(options).data(vaddr)
    }

    /// What the linker put at `vaddr`: Text, Data, BSS, GOT or PLT. Read-only data has no name here.
    pub fn section(&self, vaddr: u64) -> Option<&'static str> {
        let elf = self.elf()?;
        if elf.sections.is_empty() {
            let load = elf.loads().find(|load| vaddr.wrapping_sub(load.p_vaddr) < load.p_memsz)?;
            let in_file = vaddr.wrapping_sub(load.p_vaddr) < load.p_filesz;
            return match (load.p_flags & PF_X != 0, load.p_flags & PF_W != 0) {
                (true, _) => Some("Text"),
                (false, true) => Some(if in_file { "Data" } else { "BSS" }),
                (false, false) => None,
            };
        }
        let covers =
            |header: &SectionHeader| header.sh_flags & u64::from(SHF_ALLOC) != 0 && vaddr.wrapping_sub(header.sh_addr) < header.sh_size;
        // .tbss is listed at addresses that belong to the sections after it.
        let section = elf.sections.iter().find(|s| covers(&s.header) && !s.name.starts_with(b".tbss"))?;
        Some(match section.name {
            name if name.starts_with(b".plt") || name == b".iplt" => "PLT",
            name if name.starts_with(b".got") => "GOT",
            _ if section.header.sh_flags & u64::from(SHF_EXECINSTR) != 0 => "Text",
            _ if section.header.sh_flags & u64::from(SHF_WRITE) == 0 => return None,
            _ if section.header.sh_type == SHT_NOBITS => "BSS",
            _ => "Data",
        })
    }

    pub fn dwarf(&self, options: &Options) -> Option<&Dwarf> {
        let load = || {
            let elf = self.elf()?;
            let (path, elf) = match self.debug(options) {
                _ if elf.has_dwarf() => (&self.path, elf),
                Some((path, debug)) => (path, debug),
                None => return None,
            };
            let alt = debugfile::find_alt(elf, path, options.extra_debug_dir.as_deref());
            Dwarf::load(elf, path, alt.as_ref().map(|(_, alt)| alt))
        };
        self.dwarf.get_or_init(load).as_ref()
    }

    fn symbols(&self, options: &Options) -> &SymbolTable<'static> {
        self.symbols.get_or_init(|| {
            let debug = self.debug(options).map(|(_, debug)| debug);
            let files: Vec<_> = debug.into_iter().chain(self.elf()).collect();
            SymbolTable::build(&files)
        })
    }

    fn elf(&self) -> Option<&Elf<'static>> {
        self.elf.get_or_init(|| Elf::parse(self.bytes).ok()).as_ref()
    }

    /// The separate debug file; not looked for if the object has both kinds of information itself.
    fn debug(&self, options: &Options) -> Option<&(PathBuf, Elf<'static>)> {
        let find = || {
            let elf = self.elf()?;
            if elf.has_dwarf() && elf.section(".symtab").is_some() {
                return None;
            }
            debugfile::find(elf, &self.path, options.extra_debug_dir.as_deref())
        };
        self.debug.get_or_init(find).as_ref()
    }

    /// Functions that the linker dropped keep DWARF ranges near address 0; only mapped addresses may be asked for.
    fn is_mapped(&self, vaddr: u64) -> bool {
        let in_load = |elf: &Elf<'_>| elf.loads().any(|load| vaddr.wrapping_sub(load.p_vaddr) < load.p_memsz);
        self.elf().is_some_and(in_load)
    }
}

/// Without inlining, all code belongs to the function around it, but keeps the line it was written in.
fn flatten(places: &mut Vec<Place>) {
    if places.len() < 2 {
        return;
    }
    let innermost = places.remove(0);
    if let Some(outermost) = places.pop() {
        places.clear();
        places.push(Place { source: innermost.source, line: innermost.line, column: innermost.column, ..outermost });
    }
}

fn inlined_frame(place: &Place, options: &Options) -> Frame {
    let name = place.name.as_deref().or(place.linkage_name.as_deref());
    Frame {
        function: name.map(|name| if options.demangle { demangle(name) } else { escape(name).into_owned() }),
        raw_name: name.map(|name| escape(name).into_owned()),
        inlined: true,
        function_line: place.declared,
        ..located(place)
    }
}

fn function_frame(place: &Place, symbol: Option<Symbol<'_>>, function_line: Option<u32>, options: &Options) -> Frame {
    let from_symbol = symbol.map(|symbol| text(symbol.name).into_owned());
    let raw = from_symbol.or_else(|| place.linkage_name.clone()).or_else(|| place.name.clone());
    let shown = raw.as_deref().map(|raw| if options.demangle { demangle(raw) } else { escape(raw).into_owned() });
    Frame {
        function: shown,
        raw_name: raw.map(|raw| escape(&raw).into_owned()),
        function_line: function_line.or(place.declared),
        ..located(place)
    }
}

/// A frame with the source position of `place` and nothing else.
fn located(place: &Place) -> Frame {
    let source = place.source.as_ref();
    let dir = source.and_then(|source| source.dir.as_deref()).map(|dir| escape(dir).into_owned());
    let file = source.map(|source| escape(&source.name).into_owned());
    Frame { file, dir, line: place.line, column: place.column, ..Frame::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dwarf::Source;

    fn place(name: &str, dir: Option<&str>, file: &str, line: u32) -> Place {
        let source = Source { dir: dir.map(str::to_owned), name: file.to_owned() };
        Place { name: Some(name.into()), source: Some(source), line: Some(line), ..Place::default() }
    }

    #[test]
    fn names_of_files_cannot_write_to_the_terminal() {
        let frame = located(&place("f", Some("/a\x1b"), "\x1bb.c", 1));
        assert_eq!((frame.dir.as_deref(), frame.file.as_deref()), (Some("/a\\u{1b}"), Some("\\u{1b}b.c")));
    }

    #[test]
    fn without_inlining_the_inner_line_stays() {
        let mut places = vec![place("inner", None, "a.h", 3), place("middle", None, "b.h", 4), place("outer", None, "c.c", 5)];
        flatten(&mut places);
        assert_eq!(places.len(), 1);
        assert_eq!((places[0].name.as_deref(), places[0].line), (Some("outer"), Some(3)));
    }

    #[test]
    fn an_object_that_cannot_be_read_still_has_a_frame() {
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n"] {
            let object = Object::new(Path::new("/gone"), bytes);
            let options = Options::default();
            assert_eq!(object.frames(0x1000, &options), [Frame::default()]);
            assert_eq!(object.section(0x1000), None);
            assert!(object.data_symbol(0x1000, &options).is_none());
        }
    }
}
