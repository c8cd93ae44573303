//! Lines and inlined functions, from DWARF 2 to 5.
//!
//! addr2line keeps the index of units, functions and line rows, each parsed when first needed. Added here: feeding it
//! sections from wherever they are (plain, compressed, dwz, split), and four facts it does not tell: the plain name of
//! an inlined function, the line a function begins at, a line for the code to which a compiler gave line 0
//! ("no particular place"): the last real line before it in the same function, and how much of a path the compiler calls
//! the name of the file: `library/alloc/src/vec/mod.rs` tells more than the fortieth `mod.rs`.
//!
//! Split DWARF: a unit's skeleton names a `.dwo` file; a `.dwp` beside the object or debug file packs all of them.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::{Context, Location, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{
    AbbreviationsCacheStrategy, AttributeValue, DebugInfoOffset, DebugTypeSignature, DebuggingInformationEntry, DwarfPackage, DwoId,
    EndianSlice, LineProgramHeader, LittleEndian, LocListIter, LocationLists, SectionId, UnitHeader, UnitOffset, UnitRef, UnitType,
};

use crate::demangle::text;
use crate::elf::Elf;
use crate::image;

/// A piece of a section that stays mapped (see `image`).
pub(crate) type Bytes = EndianSlice<'static, LittleEndian>;
pub(crate) type Entry = DebuggingInformationEntry<Bytes>;

/// DWARF of one object.
pub(crate) struct Dwarf {
    pub sections: Arc<gimli::Dwarf<Bytes>>,
    context: Context<Bytes>,
    package: Option<DwarfPackage<Bytes>>,
    /// Where the units begin, in .debug_info and in the dwz file's; sorted.
    unit_offsets: OnceCell<[Vec<usize>; 2]>,
    /// The file, for sections that are read later.
    file: &'static [u8],
    locations: OnceCell<LocationLists<Bytes>>,
    /// Of each path met so far, by line table: the length of what stands before the name of the file.
    directories: RefCell<HashMap<usize, HashMap<String, usize>>>,
}

/// One line of a stack, as DWARF tells it. Names are unescaped.
#[derive(Default, Debug)]
pub(crate) struct Place {
    /// As written in the source, without namespaces and parameters.
    pub name: Option<String>,
    /// Mangled name, if the language has one.
    pub linkage_name: Option<String>,
    pub source: Option<Source>,
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// Line of the declaration of the function.
    pub declared: Option<u32>,
}

/// A source file as the line table has it: the name may begin with directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub dir: Option<String>,
    pub name: String,
}

impl Dwarf {
    /// Read the index of `elf` (found at `path`); `alt` is its dwz companion. `None` if there is none or it is damaged
    /// beyond use.
    pub fn load(elf: &Elf<'static>, path: &Path, alt: Option<&Elf<'static>>) -> Option<Dwarf> {
        let mut dwarf = gimli::Dwarf::load(|id| index_section(elf, id)).ok()?;
        if let Some(alt) = alt {
            dwarf.load_sup(|id| index_section(alt, id)).ok()?;
        }
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        let sections = Arc::new(dwarf);
        let context = Context::from_arc_dwarf(sections.clone()).ok()?;
        Some(Dwarf {
            sections,
            context,
            package: open_package(path),
            unit_offsets: OnceCell::new(),
            file: elf.bytes,
            locations: OnceCell::new(),
            directories: RefCell::default(),
        })
    }

    /// The places `vaddr` belongs to, innermost first; the last is the function itself, the others are inlined in it.
    /// `function_start` helps with code that has no line of its own. Empty if nothing is known.
    pub fn places(&self, vaddr: u64, function_start: Option<u64>) -> Vec<Place> {
        let mut places = Vec::new();
        let Ok(mut frames) = self.finish(self.context.find_frames(vaddr)) else {
            return places;
        };
        // Inlining deeper than this is damage.
        const DEEPEST: usize = 1000;
        while let Ok(Some(frame)) = frames.next() {
            let mut place = Place::default();
            self.locate(vaddr, &mut place, frame.location);
            if let Some(offset) = frame.dw_die_offset {
                self.describe_function(vaddr, offset, &mut place);
            }
            if place.name.is_none() && place.linkage_name.is_none() {
                place.linkage_name = frame.function.map(|function| text(function.name.slice()).into_owned());
            }
            places.push(place);
            if places.len() > DEEPEST {
                break;
            }
        }
        if let Some(innermost) = places.first_mut()
            && innermost.line.is_none()
            && let Some(start) = function_start
        {
            self.borrow_previous_line(start, vaddr, innermost);
        }
        // Nothing before it either: what the compiler has added to that file, as a whole.
        for place in places.iter_mut().filter(|place| place.source.is_some()) {
            place.line = place.line.or(Some(0));
        }
        places
    }

    /// Line of the row that covers `vaddr`.
    pub fn line_at(&self, vaddr: u64) -> Option<u32> {
        self.context.find_location(vaddr).ok()??.line
    }

    /// Call `use_unit` with the unit that covers `vaddr` (of the .dwo file if it is split).
    pub fn with_unit<T>(&self, vaddr: u64, use_unit: impl FnOnce(UnitRef<'_, Bytes>) -> Option<T>) -> Option<T> {
        use_unit(self.finish(self.context.find_dwarf_and_unit(vaddr))?)
    }

    /// Call `visit` with the entry at `offset` and the ones it refers to as its origin or specification, until it
    /// returns false.
    pub fn follow(
        &self,
        unit: UnitRef<'_, Bytes>,
        offset: UnitOffset,
        visit: &mut dyn FnMut(UnitRef<'_, Bytes>, &Entry) -> bool,
    ) -> Option<()> {
        const LONGEST_CHAIN: usize = 16;
        self.follow_limited(unit, offset, visit, LONGEST_CHAIN)
    }

    fn follow_limited(
        &self,
        unit: UnitRef<'_, Bytes>,
        offset: UnitOffset,
        visit: &mut dyn FnMut(UnitRef<'_, Bytes>, &Entry) -> bool,
        links_left: usize,
    ) -> Option<()> {
        let entry = unit.unit.entry(offset).ok()?;
        if !visit(unit, &entry) || links_left == 0 {
            return Some(());
        }
        let next = entry.attr_value(gimli::DW_AT_abstract_origin).or_else(|| entry.attr_value(gimli::DW_AT_specification))?;
        self.resolve(unit, next, &mut |unit, offset| self.follow_limited(unit, offset, visit, links_left - 1))
    }

    /// Call `then` with the entry that a reference attribute points to, in whichever unit or file that is.
    pub fn resolve<T>(
        &self,
        unit: UnitRef<'_, Bytes>,
        reference: AttributeValue<Bytes>,
        then: &mut dyn FnMut(UnitRef<'_, Bytes>, UnitOffset) -> Option<T>,
    ) -> Option<T> {
        let (dwarf, offset, offsets) = match reference {
            AttributeValue::UnitRef(offset) => return then(unit, offset),
            // A .dwo file has one unit (and types), so a reference across units cannot be meant for it.
            AttributeValue::DebugInfoRef(offset) => {
                let is_alt = self.sections.sup().is_some_and(|sup| std::ptr::eq(sup, unit.dwarf));
                (unit.dwarf, offset, usize::from(is_alt))
            }
            AttributeValue::DebugInfoRefSup(offset) => (self.sections.sup()?, offset, 1),
            AttributeValue::DebugTypesRef(signature) => return self.resolve_type(unit, signature, then),
            _ => return None,
        };
        let starts = &self.unit_offsets.get_or_init(|| self.list_units())[offsets];
        let index = starts.partition_point(|&start| start <= offset.0).checked_sub(1)?;
        let header = dwarf.unit_header(DebugInfoOffset(*starts.get(index)?)).ok()?;
        let other = dwarf.unit(header).ok()?;
        let within = offset.to_unit_offset(&other.header)?;
        then(UnitRef::new(dwarf, &other), within)
    }

    /// A type with a unit of its own: DWARF 4 keeps these in a section of theirs, DWARF 5 among the others.
    fn resolve_type<T>(
        &self,
        unit: UnitRef<'_, Bytes>,
        signature: DebugTypeSignature,
        then: &mut dyn FnMut(UnitRef<'_, Bytes>, UnitOffset) -> Option<T>,
    ) -> Option<T> {
        let is_meant = |header: &UnitHeader<Bytes>| match header.type_() {
            UnitType::Type { type_signature, type_offset } | UnitType::SplitType { type_signature, type_offset } => {
                (type_signature == signature).then_some(type_offset)
            }
            _ => None,
        };
        let mut headers = unit.dwarf.units();
        let plain = std::iter::from_fn(|| headers.next().ok().flatten());
        let mut type_headers = unit.dwarf.type_units();
        let own = std::iter::from_fn(|| type_headers.next().ok().flatten());
        let (header, offset) = own.chain(plain).find_map(|header| is_meant(&header).map(|offset| (header, offset)))?;
        let other = unit.dwarf.unit(header).ok()?;
        then(UnitRef::new(unit.dwarf, &other), offset)
    }

    fn list_units(&self) -> [Vec<usize>; 2] {
        let list = |dwarf: &gimli::Dwarf<Bytes>| {
            let mut starts = Vec::new();
            let mut units = dwarf.units();
            while let Ok(Some(header)) = units.next() {
                starts.extend(header.debug_info_offset().map(|offset| offset.0));
            }
            starts
        };
        [list(&self.sections), self.sections.sup().map(list).unwrap_or_default()]
    }

    /// Call `use_unit` with the unit in the main file that stands for a split one.
    pub fn with_skeleton<T>(&self, id: DwoId, use_unit: impl FnOnce(UnitRef<'_, Bytes>) -> Option<T>) -> Option<T> {
        let mut headers = self.sections.units();
        while let Ok(Some(header)) = headers.next() {
            if let Ok(unit) = self.sections.unit(header)
                && unit.dwo_id == Some(id)
            {
                return use_unit(UnitRef::new(&self.sections, &unit));
            }
        }
        None
    }

    /// The list of places of a variable that moves. The lists of the main file are only read here.
    pub fn locations(&self, unit: UnitRef<'_, Bytes>, attribute: AttributeValue<Bytes>) -> Option<LocListIter<Bytes>> {
        if !std::ptr::eq(unit.dwarf, Arc::as_ptr(&self.sections)) {
            return unit.attr_locations(attribute).ok()?;
        }
        let lists = self.locations.get_or_init(|| {
            let elf = Elf::parse(self.file).ok();
            let load = |id: SectionId| {
                let found = elf.as_ref().and_then(|elf| section(elf, id.name()).ok());
                found.unwrap_or(EndianSlice::new(&[], LittleEndian))
            };
            LocationLists::new(load(SectionId::DebugLoc).into(), load(SectionId::DebugLocLists).into())
        });
        let offset = unit.attr_locations_offset(attribute).ok()??;
        lists.locations(offset, unit.encoding(), unit.low_pc, &unit.dwarf.debug_addr, unit.addr_base).ok()
    }

    /// Names and declaration of the function whose entry is at `offset` of the unit that covers `vaddr`.
    fn describe_function(&self, vaddr: u64, offset: UnitOffset, place: &mut Place) {
        self.with_unit(vaddr, |unit| {
            self.follow(unit, offset, &mut |unit, entry| {
                let string = |name| {
                    let value = unit.attr_string(entry.attr_value(name)?).ok()?;
                    Some(text(value.slice()).into_owned())
                };
                place.name = place.name.take().or_else(|| string(gimli::DW_AT_name));
                place.linkage_name = place
                    .linkage_name
                    .take()
                    .or_else(|| string(gimli::DW_AT_linkage_name))
                    .or_else(|| string(gimli::DW_AT_MIPS_linkage_name));
                place.declared = place.declared.or_else(|| {
                    let line = entry.attr_value(gimli::DW_AT_decl_line)?.udata_value()?;
                    u32::try_from(line).ok()
                });
                place.name.is_none() || place.linkage_name.is_none() || place.declared.is_none()
            })
        });
    }

    /// Line 0 means that the instruction belongs to no line; the nearest one before it is the best guess there is.
    fn borrow_previous_line(&self, function_start: u64, vaddr: u64, place: &mut Place) {
        // Bounded, because a symbol table can claim functions of any size.
        const MAX_ROWS: usize = 100_000;
        if function_start >= vaddr {
            return;
        }
        let Ok(rows) = self.context.find_location_range(function_start, vaddr) else {
            return;
        };
        let previous = rows.take(MAX_ROWS).filter(|(_, _, location)| location.line.is_some()).last();
        if let Some((_, _, location)) = previous {
            self.locate(vaddr, place, Some(location));
        }
    }

    /// Fill in where in the source the unit that covers `vaddr` says that `place` is.
    fn locate(&self, vaddr: u64, place: &mut Place, location: Option<Location<'_>>) {
        let Some(location) = location else { return };
        place.source = location.file.filter(|path| !path.is_empty()).map(|path| self.source(vaddr, path));
        place.line = location.line;
        place.column = location.column.filter(|&column| column != 0);
    }

    fn source(&self, vaddr: u64, path: &str) -> Source {
        let base = path.rfind('/').map_or(0, |slash| slash + 1);
        let directory = self.with_unit(vaddr, |unit| {
            let header = unit.line_program.as_ref()?.header();
            let mut tables = self.directories.borrow_mut();
            let known = tables.entry(header.offset().0).or_default();
            if let Some(&directory) = known.get(path) {
                return Some(directory);
            }
            let directory = directory_in_table(unit, header, path).unwrap_or(base);
            known.insert(path.to_owned(), directory);
            Some(directory)
        });
        Source::split(path, directory.unwrap_or(base))
    }

    /// Drive an addr2line lookup to its end, giving it the split files that it asks for.
    fn finish<L: LookupContinuation<Buf = Bytes>>(&self, mut lookup: LookupResult<L>) -> L::Output {
        loop {
            match lookup {
                LookupResult::Output(output) => return output,
                LookupResult::Load { load, continuation } => {
                    lookup = continuation.resume(self.load_split(&load));
                }
            }
        }
    }

    fn load_split(&self, load: &SplitDwarfLoad<Bytes>) -> Option<Arc<gimli::Dwarf<Bytes>>> {
        if let Some(package) = &self.package
            && let Ok(Some(unit)) = package.find_cu(load.dwo_id, &load.parent)
        {
            return Some(Arc::new(unit));
        }
        let path = |bytes: Option<Bytes>| bytes.map(|bytes| PathBuf::from(OsStr::from_bytes(bytes.slice())));
        let path = path(load.comp_dir).unwrap_or_default().join(path(load.path)?);
        let elf = Elf::parse(image::open(&path).ok()?.bytes).ok()?;
        let mut dwarf = gimli::Dwarf::load(|id| split_section(&elf, id)).ok()?;
        let header = dwarf.units().next().ok()??;
        let id = dwarf.unit(header).ok()?.dwo_id;
        dwarf.make_dwo(&load.parent);
        (id == Some(load.dwo_id)).then(|| Arc::new(dwarf))
    }
}

impl Source {
    /// `path` with so many bytes of directory before its name.
    fn split(path: &str, directory: usize) -> Source {
        let (dir, name) = path.split_at(directory);
        let dir = if dir.len() > 1 { dir.strip_suffix('/').unwrap_or(dir) } else { dir };
        Source { dir: (!dir.is_empty()).then(|| dir.to_owned()), name: name.to_owned() }
    }
}

/// The length of what the unit's line table has put before the name of the file at `path`, if directories are part of the name.
fn directory_in_table(unit: UnitRef<'_, Bytes>, header: &LineProgramHeader<Bytes>, path: &str) -> Option<usize> {
    let string = |value| Some(text(unit.attr_string(value).ok()?.slice()));
    header.file_names().iter().find_map(|file| {
        let name = string(file.path_name()).filter(|name| name.contains('/') && !name.starts_with('/'))?;
        let before = path.strip_suffix(&*name)?;
        let directory = string(file.directory(header)?)?;
        before.strip_suffix('/')?.ends_with(directory.trim_end_matches('/')).then_some(before.len())
    })
}

/// The `.dwp` of an object or of its debug file: the same name with `.dwp` after it.
fn open_package(path: &Path) -> Option<DwarfPackage<Bytes>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".dwp");
    let elf = Elf::parse(image::open(Path::new(&name)).ok()?.bytes).ok()?;
    DwarfPackage::load(|id| split_section(&elf, id), EndianSlice::new(&[], LittleEndian)).ok()
}

/// The sections that frames need. The others can be large, and inflating them is most of the cost of a first lookup.
fn index_section(elf: &Elf<'static>, id: SectionId) -> Result<Bytes, gimli::Error> {
    match id {
        SectionId::DebugLoc | SectionId::DebugLocLists | SectionId::DebugMacinfo | SectionId::DebugMacro | SectionId::DebugNames => {
            Ok(EndianSlice::new(&[], LittleEndian))
        }
        _ => section(elf, id.name()),
    }
}

/// Sections that are missing or damaged are empty: each is useful without the others.
fn section(elf: &Elf<'static>, name: &str) -> Result<Bytes, gimli::Error> {
    let data: &'static [u8] = match elf.inflated(name) {
        Some(Cow::Borrowed(data)) => data,
        Some(Cow::Owned(data)) => data.leak(),
        None => &[],
    };
    Ok(EndianSlice::new(data, LittleEndian))
}

fn split_section(elf: &Elf<'static>, id: SectionId) -> Result<Bytes, gimli::Error> {
    id.dwo_name().map_or(Ok(EndianSlice::new(&[], LittleEndian)), |name| section(elf, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_into_directory_and_name() {
        let split = |path: &str, directory| {
            let source = Source::split(path, directory);
            (source.dir.unwrap_or_default(), source.name)
        };
        assert_eq!(split("/a/b/c.c", 5), ("/a/b".into(), "c.c".into()));
        assert_eq!(split("/a/b/c.c", 3), ("/a".into(), "b/c.c".into()));
        assert_eq!(split("/c.c", 1), ("/".into(), "c.c".into()));
        assert_eq!(split("c.c", 0), ("".into(), "c.c".into()));
    }
}
