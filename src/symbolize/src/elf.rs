//! One ELF file, read with suspicion: headers, sections, notes.
//!
//! goblin knows the layout of the structures; this file decides which to read, because reading all of them (as
//! `Elf::parse` does) costs milliseconds for a large library and fails as a whole when a part is damaged. Everything
//! here answers "not there" for damaged parts, and never reads outside the file. Only what this tool runs is
//! understood: 64-bit little-endian x86-64.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::{Decompress, FlushDecompress, Status};
use goblin::container::{Container, Ctx, Endian};
use goblin::elf::dynamic::{DT_FLAGS_1, DT_SONAME, DT_STRSZ, DT_STRTAB};
use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::section_header::{SHF_COMPRESSED, SHN_XINDEX, SHT_NOBITS, SHT_NOTE, SectionHeader};

use crate::image;

/// Class, byte order: the only ones there are on this machine.
pub(crate) const CTX: Ctx = Ctx { container: Container::Big, le: Endian::Little };

/// Never inflate one section beyond this: a bomb is not debug information.
const MAX_INFLATED_BYTES: u64 = 4 << 30;

/// Memory for an inflated section before anything of it has arrived.
const FIRST_GUESS_BYTES: u64 = 64 << 20;

/// `DF_1_PIE`, which goblin does not name.
const DF_1_PIE: u64 = 0x0800_0000;
const PAGE: u64 = 4096;

/// Headers of one file; `bytes` is the whole file.
pub(crate) struct Elf<'a> {
    pub bytes: &'a [u8],
    pub header: Header,
    pub segments: Vec<ProgramHeader>,
    pub sections: Vec<Section<'a>>,
}

/// A section header with its name found.
pub(crate) struct Section<'a> {
    pub name: &'a [u8],
    pub header: SectionHeader,
}

/// Where an ELF file wants to live and what it needs: all that is known without running it.
/// All addresses are the file's own (unrelocated).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ElfLayout {
    /// Lowest address of any PT_LOAD, rounded down to its page.
    pub lowest: u64,
    /// One past the highest address of any PT_LOAD, rounded up to a page.
    pub end: u64,
    pub entry: u64,
    /// Meant to be run and asks for no dynamic linker: ET_EXEC, or ET_DYN marked DF_1_PIE, without PT_INTERP.
    pub is_static: bool,
    pub soname: Option<String>,
    /// Executable PT_LOADs: offset and size in the file, ELF address.
    code: Vec<[u64; 3]>,
}

impl ElfLayout {
    /// Load bias of the object whose file is mapped executable from `offset` on at `start`. None: not as its headers say.
    ///
    /// Segments may share pages of the file (linkers that save space map such a page twice), so the offset alone is not enough.
    pub fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let first_page = |at: u64| at & !(PAGE - 1);
        let holds = |&&[from, size, _]: &&[u64; 3]| (first_page(from)..from.saturating_add(size)).contains(&offset);
        let begins = |&&[from, ..]: &&[u64; 3]| first_page(from) == offset;
        let [from, _, address] = self.code.iter().find(begins).or_else(|| self.code.iter().find(holds))?;
        Some(start.wrapping_sub(offset).wrapping_add(first_page(*from)).wrapping_sub(first_page(*address)))
    }
}

/// Read the layout of the file at `path`. Fails when it is not a 64-bit x86-64 ELF file with something to load.
pub fn elf_layout(path: &Path) -> Result<ElfLayout> {
    let map = image::open_briefly(path)?;
    let elf = Elf::parse(&map).with_context(|| path.display().to_string())?;
    elf.layout().with_context(|| path.display().to_string())
}

impl<'a> Elf<'a> {
    /// Headers only. Fails if this is not an ELF file of our kind; missing section headers are no failure.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>> {
        if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
            bail!("not a 64-bit little-endian ELF file");
        }
        let header = goblin::elf::Elf::parse_header(bytes).context("ELF header")?;
        if header.e_machine != EM_X86_64 {
            bail!("ELF file for another processor (e_machine {})", header.e_machine);
        }
        let segments = usize::try_from(header.e_phoff)
            .ok()
            .and_then(|at| ProgramHeader::parse(bytes, at, usize::from(header.e_phnum), CTX).ok())
            .unwrap_or_default();
        let sections = Section::parse_all(bytes, &header);
        Ok(Elf { bytes, header, segments, sections })
    }

    /// The first section of this name.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name.as_bytes())
    }

    /// Raw bytes of a section; `None` for NOBITS and for sections that point outside the file.
    pub fn raw(&self, section: &Section<'a>) -> Option<&'a [u8]> {
        if section.header.sh_type == SHT_NOBITS {
            return None;
        }
        slice(self.bytes, section.header.sh_offset, section.header.sh_size)
    }

    /// Bytes of the section `name`, inflated if it is compressed in either of the two ways in use.
    pub fn inflated(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        if let Some(section) = self.section(name) {
            let raw = self.raw(section)?;
            if section.header.sh_flags & u64::from(SHF_COMPRESSED) == 0 {
                return Some(Cow::Borrowed(raw));
            }
            return inflate(raw).map(Cow::Owned);
        }
        // The older way: another name, and "ZLIB" with a big-endian size in front.
        let old = self.section(&name.replacen(".debug_", ".zdebug_", 1))?;
        let raw = self.raw(old)?;
        let size = u64::from_be_bytes(raw.get(4..12)?.try_into().ok()?);
        if raw.get(..4)? != b"ZLIB" {
            return None;
        }
        inflate_zlib(raw.get(12..)?, size).map(Cow::Owned)
    }

    /// True if the file itself carries usable DWARF (stripped debug files keep the headers with NOBITS).
    pub fn has_dwarf(&self) -> bool {
        [".debug_info", ".zdebug_info"]
            .iter()
            .filter_map(|name| self.section(name))
            .any(|section| self.raw(section).is_some_and(|data| !data.is_empty()))
    }

    /// Contents of the build-id note, empty if there is none.
    pub fn build_id(&self) -> &'a [u8] {
        let from_sections =
            self.sections.iter().filter(|section| section.header.sh_type == SHT_NOTE).filter_map(|section| self.raw(section));
        let from_segments = self
            .segments
            .iter()
            .filter(|segment| segment.p_type == PT_NOTE)
            .filter_map(|segment| slice(self.bytes, segment.p_offset, segment.p_filesz));
        from_sections.chain(from_segments).find_map(gnu_build_id).unwrap_or_default()
    }

    /// Bytes that the file provides for the address `vaddr`, up to the end of its segment.
    pub fn at_address(&self, vaddr: u64) -> Option<&'a [u8]> {
        let segment = self.loads().find(|segment| vaddr >= segment.p_vaddr && vaddr - segment.p_vaddr < segment.p_filesz)?;
        let within = vaddr - segment.p_vaddr;
        slice(self.bytes, segment.p_offset.checked_add(within)?, segment.p_filesz - within)
    }

    pub fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.segments.iter().filter(|segment| segment.p_type == PT_LOAD)
    }

    /// The value of the first dynamic entry with this tag.
    pub fn dynamic(&self, tag: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.p_type == PT_DYNAMIC)?;
        let table = slice(self.bytes, segment.p_offset, segment.p_filesz)?;
        let entries = table.chunks_exact(16).map(|entry| (word(entry, 0), word(entry, 8)));
        entries.take_while(|&(found, _)| found != 0).find(|&(found, _)| found == tag).map(|(_, value)| value)
    }

    /// The dynamic string table.
    pub fn dynamic_strings(&self) -> Option<&'a [u8]> {
        let table = self.at_address(self.dynamic(DT_STRTAB)?)?;
        let size = usize::try_from(self.dynamic(DT_STRSZ)?).ok()?;
        Some(table.get(..size).unwrap_or(table))
    }

    fn layout(&self) -> Result<ElfLayout> {
        if !matches!(self.header.e_type, ET_EXEC | ET_DYN) {
            bail!("neither an executable nor a shared object (e_type {})", self.header.e_type);
        }
        let lowest = self.loads().map(|load| load.p_vaddr).min().context("nothing to load")?;
        let end = self.loads().map(|load| load.p_vaddr.saturating_add(load.p_memsz)).max().unwrap_or(lowest);
        let has_linker = self.segments.iter().any(|segment| segment.p_type == PT_INTERP);
        let is_program = self.header.e_type == ET_EXEC || self.dynamic(DT_FLAGS_1).is_some_and(|flags| flags & DF_1_PIE != 0);
        let soname = self
            .dynamic(DT_SONAME)
            .zip(self.dynamic_strings())
            .map(|(at, table)| String::from_utf8_lossy(c_string(table, at)).into_owned());
        Ok(ElfLayout {
            lowest: lowest & !(PAGE - 1),
            end: end.saturating_add(PAGE - 1) & !(PAGE - 1),
            entry: self.header.e_entry,
            is_static: is_program && !has_linker,
            soname,
            code: self.loads().filter(|load| load.p_flags & PF_X != 0).map(|load| [load.p_offset, load.p_filesz, load.p_vaddr]).collect(),
        })
    }
}

impl<'a> Section<'a> {
    fn parse_all(bytes: &'a [u8], header: &Header) -> Vec<Section<'a>> {
        let Ok(at) = usize::try_from(header.e_shoff) else {
            return Vec::new();
        };
        let Ok(headers) = SectionHeader::parse(bytes, at, usize::from(header.e_shnum), CTX) else {
            return Vec::new();
        };
        let names_index = match u32::from(header.e_shstrndx) {
            SHN_XINDEX => headers.first().map_or(0, |first| first.sh_link),
            index => index,
        };
        let names = headers.get(names_index as usize).and_then(|names| slice(bytes, names.sh_offset, names.sh_size)).unwrap_or_default();
        headers.into_iter().map(|header| Section { name: c_string(names, header.sh_name as u64), header }).collect()
    }
}

/// `bytes[offset..offset + size]`, or `None` if any of it is outside.
pub(crate) fn slice(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    bytes.get(start..end)
}

/// The bytes from `at` up to the next NUL or the end; empty if `at` is outside.
pub(crate) fn c_string(bytes: &[u8], at: u64) -> &[u8] {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    rest.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Little-endian word at `at`; 0 if it is outside, which callers exclude by chunking first.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Little-endian half word (32 bits) at `at`.
pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Walk the notes {name size, description size, type, name, description}, each padded to 4, for NT_GNU_BUILD_ID.
fn gnu_build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    while notes.len() >= 12 {
        let name_size = half(notes, 0)? as usize;
        let text_size = half(notes, 4)? as usize;
        let kind = half(notes, 8)?;
        let text_at = 12usize.checked_add(name_size)?.checked_next_multiple_of(4)?;
        let text_end = text_at.checked_add(text_size)?;
        let text = notes.get(text_at..text_end)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name_size) == Some(b"GNU\0") && !text.is_empty() {
            return Some(text);
        }
        notes = notes.get(text_end.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// Inflate a SHF_COMPRESSED section: a header {type u32, 0 u32, size u64, alignment u64}, then the stream.
fn inflate(raw: &[u8]) -> Option<Vec<u8>> {
    const ELFCOMPRESS_ZLIB: u32 = 1;
    const ELFCOMPRESS_ZSTD: u32 = 2;
    let kind = half(raw, 0)?;
    let size = word(raw.get(8..16)?, 0);
    let stream = raw.get(24..)?;
    match kind {
        ELFCOMPRESS_ZLIB => inflate_zlib(stream, size),
        ELFCOMPRESS_ZSTD => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(stream).ok()?;
            read_exactly(decoder, size)
        }
        _ => None,
    }
}

/// The whole stream at once: most of the time to the first report is this.
fn inflate_zlib(stream: &[u8], size: u64) -> Option<Vec<u8>> {
    if size > MAX_INFLATED_BYTES {
        return None;
    }
    // A little more than it should be shows where it ends.
    const SPARE_BYTES: u64 = 64;
    let mut out = Vec::with_capacity((size + SPARE_BYTES).min(FIRST_GUESS_BYTES) as usize);
    let mut inflater = Decompress::new(true);
    loop {
        let rest = stream.get(inflater.total_in() as usize..)?;
        let status = inflater.decompress_vec(rest, &mut out, FlushDecompress::Finish).ok()?;
        if status == Status::StreamEnd {
            return (out.len() as u64 == size).then_some(out);
        }
        // Either there was no room, or the stream is cut short.
        if out.len() < out.capacity() || out.len() as u64 >= size {
            return None;
        }
        out.reserve_exact((size + SPARE_BYTES - out.len() as u64).min(out.len() as u64) as usize);
    }
}

/// Read `size` bytes; less is damage. Memory grows with what arrives, not with what the header promises.
fn read_exactly(source: impl Read, size: u64) -> Option<Vec<u8>> {
    if size > MAX_INFLATED_BYTES {
        return None;
    }
    let mut out = Vec::with_capacity(size.min(FIRST_GUESS_BYTES) as usize);
    source.take(size).read_to_end(&mut out).ok()?;
    (out.len() as u64 == size).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_share_pages_of_the_file_are_told_apart() {
        // As lld and mold lay out small programs: everything in the first page of the file, which is mapped once for each segment.
        let small = ElfLayout { code: vec![[0x7d0, 0x2c0, 0x17d0]], ..ElfLayout::default() };
        assert_eq!(small.bias(0x400_1000, 0), Some(0x400_0000));
        let large = ElfLayout { code: vec![[0x1a7d0, 0x9000, 0x1b7d0]], ..ElfLayout::default() };
        assert_eq!(large.bias(0x401_b000, 0x1a000), Some(0x400_0000));
        assert_eq!(large.bias(0x401_d000, 0x1c000), Some(0x400_0000), "the rest of it");
        assert_eq!(large.bias(0x401_d000, 0), None, "mapped by somebody who does not follow the headers");
    }

    #[test]
    fn our_own_executable_has_a_layout() {
        let layout = elf_layout(&std::env::current_exe().expect("own path")).expect("layout");
        assert!(layout.lowest < layout.entry && layout.entry < layout.end, "{layout:?}");
        assert_eq!(layout.lowest % 4096, 0);
        assert_eq!(layout.end % 4096, 0);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let refused = |bytes: &[u8]| Elf::parse(bytes).map(|_| ()).expect_err("refused").to_string();
        assert!(refused(b"#!/bin/sh").contains("not a 64-bit"));
        assert!(refused(b"\x7fELF\x01\x01").contains("not a 64-bit"));
        assert!(refused(b"\x7fELF\x02\x01").contains("header"));
    }

    #[test]
    fn notes_are_walked_to_the_build_id() {
        let mut notes = Vec::new();
        for (kind, name, text) in [(1u32, &b"GNU\0"[..], &b"abcdef"[..]), (3, b"GNU\0", b"\x01\x02\x03")] {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((text.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(name);
            notes.extend(text);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(gnu_build_id(&notes), Some(&[1u8, 2, 3][..]));
        assert_eq!(gnu_build_id(&notes[..notes.len() - 2]), None, "cut short");
    }

    #[test]
    fn zstd_and_zlib_sections_inflate_and_bombs_do_not() {
        let text = b"the same words again, the same words again".repeat(20);
        let header = |kind: u32, size: u64| {
            let mut bytes = Vec::from(kind.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(size.to_le_bytes());
            bytes.extend([0; 8]);
            bytes
        };
        let mut zlib = header(1, text.len() as u64);
        let mut encoder = flate2::read::ZlibEncoder::new(&text[..], flate2::Compression::fast());
        encoder.read_to_end(&mut zlib).expect("compress");
        assert_eq!(inflate(&zlib).as_deref(), Some(&text[..]));

        let mut zstd = header(2, text.len() as u64);
        zstd.extend(ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest));
        assert_eq!(inflate(&zstd).as_deref(), Some(&text[..]));

        zlib[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(inflate(&zlib), None, "claims more than any section holds");
        zstd.truncate(40);
        assert_eq!(inflate(&zstd), None, "cut short");
    }
}
