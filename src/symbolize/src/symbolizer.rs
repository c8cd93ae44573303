//! From an address in the program to names: which object is mapped there, and what the object says.
//!
//! ```text
//!   address ── replaced function? ── mapped module? ── unloaded module? ── only the address
//!                                        │ address - bias
//!                                     Object (shared by all mappings of the same file) ── frames, cached per address
//! ```
//!
//! Unloaded modules are kept: stacks of allocations outlive the library that made them. Mapped ones are asked first,
//! then the one unloaded last.
//!
//! Deliberately absent: time. A stack recorded in a library, printed after another file was mapped at the same address,
//! gets the other file's names. Resolve stacks before their module goes if that matters.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::demangle::{demangle, escape, text};
use crate::image::{self, FileId};
use crate::object::Object;
use crate::variables::{self, Variable};
use crate::{DataSymbol, Frame, Options};

/// An object at a place in the program's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    pub path: PathBuf,
    /// Lowest mapped address.
    pub start: u64,
    /// One past the highest.
    pub end: u64,
    /// Runtime address minus ELF address.
    pub bias: u64,
    /// Index into `Symbolizer::objects`.
    object: usize,
}

/// A range of made-up addresses that stands for a function.
struct Synthetic {
    start: u64,
    end: u64,
    /// Innermost first.
    functions: Vec<String>,
    object: PathBuf,
}

/// Names for addresses of one traced process. See the module essay; everything is lazy.
pub struct Symbolizer {
    options: Options,
    objects: Vec<Object>,
    /// The id is absent for files that cannot be opened.
    by_file: HashMap<(PathBuf, Option<FileId>), usize>,
    /// Newest last.
    mapped: Vec<Module>,
    /// Newest last, extents as they were before any part went; no duplicates.
    unloaded: Vec<Module>,
    synthetic: Vec<Synthetic>,
    /// By object and ELF address, so that it stays true whatever is mapped where; `addr` of the frames is 0.
    frames: HashMap<(usize, u64), Vec<Frame>>,
}

impl Module {
    fn covers(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }
}

impl Symbolizer {
    pub fn new(options: Options) -> Symbolizer {
        Symbolizer {
            options,
            objects: Vec::new(),
            by_file: HashMap::new(),
            mapped: Vec::new(),
            unloaded: Vec::new(),
            synthetic: Vec::new(),
            frames: HashMap::new(),
        }
    }

    /// An ELF object was mapped: `path`, lowest mapped address, end, and load bias (runtime address minus ELF address).
    /// Calling it again for further pieces of the same mapping (same file and bias) extends the module. The file is
    /// opened now, so that it may be deleted later, and read when a name is needed; a file that cannot be opened still
    /// gives frames its path.
    pub fn add_module(&mut self, path: &Path, start: u64, end: u64, bias: u64) {
        let image = image::open(path).ok();
        let key = (path.to_path_buf(), image.map(|image| image.id));
        let objects = &mut self.objects;
        let object = *self.by_file.entry(key).or_insert_with(|| {
            objects.push(Object::new(path, image.map_or(&[], |image| image.bytes)));
            objects.len() - 1
        });
        self.place(object, start, end, bias);
    }

    /// The same for an object that has no file (the vDSO, a memfd): `bytes` are its contents in file layout.
    pub fn add_module_bytes(&mut self, name: &Path, bytes: Vec<u8>, start: u64, end: u64, bias: u64) {
        self.objects.push(Object::new(name, bytes.leak()));
        self.place(self.objects.len() - 1, start, end, bias);
    }

    fn place(&mut self, object: usize, start: u64, end: u64, bias: u64) {
        if start >= end {
            return;
        }
        if let Some(same) = self.mapped.iter_mut().find(|old| old.object == object && old.bias == bias) {
            same.start = same.start.min(start);
            same.end = same.end.max(end);
            return;
        }
        self.remove_range(start, end);
        let path = self.objects[object].path.clone();
        self.mapped.push(Module { path, start, end, bias, object });
    }

    /// `start..end` was unmapped or is used by something else now. What is known about it stays for old stacks.
    pub fn remove_range(&mut self, start: u64, end: u64) {
        let overlaps = |module: &Module| start < module.end && module.start < end;
        for module in self.mapped.iter().filter(|module| overlaps(module)) {
            let known =
                |old: &Module| old.object == module.object && old.bias == module.bias && old.start <= module.start && module.end <= old.end;
            if !self.unloaded.iter().any(known) {
                self.unloaded.push(module.clone());
            } else if let Some(at) = self.unloaded.iter().position(known) {
                self.unloaded[at..].rotate_left(1);
            }
        }
        self.mapped.retain_mut(|module| {
            if !overlaps(module) {
                return true;
            }
            // A hole in the middle stays part of the module: nobody else has a better name for it.
            match (start <= module.start, module.end <= end) {
                (true, true) => return false,
                (true, false) => module.start = end,
                (false, true) => module.end = start,
                (false, false) => {}
            }
            true
        });
    }

    /// Names for addresses that no object contains (replaced functions): `frames` gives these functions, innermost first, and the object.
    pub fn add_synthetic(&mut self, start: u64, end: u64, functions: &[&str], object: &Path) {
        self.synthetic.retain(|old| old.end <= start || end <= old.start);
        let functions = functions.iter().map(|&name| name.to_owned()).collect();
        self.synthetic.push(Synthetic { start, end, functions, object: object.to_path_buf() });
    }

    /// The module that `addr` lies in: a mapped one, or the last one that was there.
    pub fn module_at(&self, addr: u64) -> Option<&Module> {
        let newest_first = self.mapped.iter().rev().chain(self.unloaded.iter().rev());
        newest_first.into_iter().find(|module| module.covers(addr))
    }

    /// Modules mapped now, in the order they appeared.
    pub fn modules(&self) -> &[Module] {
        &self.mapped
    }

    /// What `addr` is: innermost (inlined) frame first, never empty; the last resort is a frame with only `addr`.
    /// The address is looked up as given: subtract 1 from return addresses before the call.
    pub fn frames(&mut self, addr: u64) -> Vec<Frame> {
        if let Some(made_up) = self.synthetic.iter().rev().find(|s| s.start <= addr && addr < s.end) {
            return self.synthetic_frames(addr, made_up);
        }
        let Some(module) = self.module_at(addr) else {
            return vec![Frame { addr, ..Frame::default() }];
        };
        let (index, vaddr) = (module.object, addr.wrapping_sub(module.bias));
        let (object, options) = (&self.objects[index], &self.options);
        let cached = self.frames.entry((index, vaddr)).or_insert_with(|| {
            let mut frames = object.frames(vaddr, options);
            frames.iter_mut().for_each(|frame| frame.object = Some(object.path.clone()));
            frames
        });
        cached.iter().map(|frame| Frame { addr, ..frame.clone() }).collect()
    }

    /// The function that has the code at `addr`, from the symbol tables alone: a raw name and an object. Where debug information might know
    /// more, a frame without name and marked `inlined` stands before it. Costs far less than [`Symbolizer::frames`].
    pub fn outline(&mut self, addr: u64) -> Vec<Frame> {
        if let Some(made_up) = self.synthetic.iter().rev().find(|s| s.start <= addr && addr < s.end) {
            return self.synthetic_frames(addr, made_up);
        }
        let Some(module) = self.module_at(addr) else {
            return vec![Frame { addr, ..Frame::default() }];
        };
        let object = &self.objects[module.object];
        let (frame, has_more) = object.outline(addr.wrapping_sub(module.bias), &self.options);
        let frame = Frame { addr, object: Some(object.path.clone()), ..frame };
        let open = Frame { raw_name: None, inlined: true, ..frame.clone() };
        has_more.then_some(open).into_iter().chain([frame]).collect()
    }

    /// The instruction that makes room for the locals of the function around `addr`.
    pub fn room(&self, addr: u64) -> Option<u64> {
        let module = self.module_at(addr)?;
        let room = self.objects[module.object].room(addr.wrapping_sub(module.bias), &self.options)?;
        Some(room.wrapping_add(module.bias))
    }

    fn synthetic_frames(&self, addr: u64, made_up: &Synthetic) -> Vec<Frame> {
        let frame = |(depth, raw): (usize, &String)| Frame {
            addr,
            function: Some(if self.options.demangle { demangle(raw) } else { escape(raw).into_owned() }),
            raw_name: Some(escape(raw).into_owned()),
            object: Some(made_up.object.clone()),
            inlined: depth + 1 < made_up.functions.len(),
            synthetic: true,
            ..Frame::default()
        };
        made_up.functions.iter().enumerate().map(frame).collect()
    }

    /// The variable that covers `addr`, by the symbol table.
    pub fn data_symbol(&mut self, addr: u64) -> Option<DataSymbol> {
        let module = self.module_at(addr)?;
        let vaddr = addr.wrapping_sub(module.bias);
        let object = &self.objects[module.object];
        let symbol = object.data_symbol(vaddr, &self.options)?;
        let raw = text(symbol.name);
        let raw_name = escape(&raw).into_owned();
        Some(DataSymbol {
            name: if self.options.demangle { demangle(&raw) } else { raw_name.clone() },
            raw_name,
            offset: vaddr - symbol.start,
            size: symbol.end - symbol.start,
            object: object.path.clone(),
        })
    }

    /// The kind of section `addr` lies in (`"Text"`, `"Data"`, `"BSS"`, `"GOT"`, `"PLT"`) and the object.
    pub fn section(&mut self, addr: u64) -> Option<(&'static str, PathBuf)> {
        let module = self.module_at(addr)?;
        let object = &self.objects[module.object];
        Some((object.section(addr.wrapping_sub(module.bias))?, object.path.clone()))
    }

    /// The local variable or parameter at `addr` of the function that runs at `pc`, in the frame with this canonical
    /// frame address (one past the return address). Needs debug information; reads the whole unit.
    pub fn local_variable(&mut self, pc: u64, cfa: u64, addr: u64) -> Option<Variable> {
        let module = self.module_at(pc)?;
        let dwarf = self.objects[module.object].dwarf(&self.options)?;
        variables::local(dwarf, pc.wrapping_sub(module.bias), cfa, addr)
    }

    /// The global or static variable at `addr`, with element or member. Needs debug information; reads all of it, so
    /// ask for one that `data_symbol` or `section` says is worth it.
    pub fn global_variable(&mut self, addr: u64) -> Option<Variable> {
        let module = self.module_at(addr)?;
        let dwarf = self.objects[module.object].dwarf(&self.options)?;
        variables::global(dwarf, addr.wrapping_sub(module.bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(modules: &[(&str, u64, u64)]) -> Symbolizer {
        let mut symbolizer = Symbolizer::new(Options::default());
        for &(path, start, end) in modules {
            symbolizer.add_module(Path::new(path), start, end, start);
        }
        symbolizer
    }

    fn object_at(symbolizer: &mut Symbolizer, addr: u64) -> Option<String> {
        let frames = symbolizer.frames(addr);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].addr, addr);
        frames[0].object.as_ref().map(|path| path.display().to_string())
    }

    #[test]
    fn it_can_move_between_threads() {
        fn is_send<T: Send>() {}
        is_send::<Symbolizer>();
    }

    #[test]
    fn modules_come_go_and_are_remembered() {
        let mut s = with(&[("/no/a.so", 0x1000, 0x5000), ("/no/b.so", 0x8000, 0x9000)]);
        assert_eq!(object_at(&mut s, 0x1000).as_deref(), Some("/no/a.so"));
        assert_eq!(object_at(&mut s, 0x4fff).as_deref(), Some("/no/a.so"));
        assert_eq!(object_at(&mut s, 0x5000), None);

        s.remove_range(0x1000, 0x2000);
        s.remove_range(0x2000, 0x5000);
        assert_eq!(s.modules().len(), 1);
        assert_eq!(object_at(&mut s, 0x1800).as_deref(), Some("/no/a.so"), "kept after unload");

        s.add_module(Path::new("/no/c.so"), 0x4000, 0x6000, 0x4000);
        assert_eq!(object_at(&mut s, 0x4800).as_deref(), Some("/no/c.so"), "mapped beats unloaded");
        assert_eq!(object_at(&mut s, 0x3800).as_deref(), Some("/no/a.so"));
    }

    #[test]
    fn loading_and_unloading_in_circles_does_not_grow() {
        let mut s = with(&[]);
        for round in 0..100 {
            let path = if round % 2 == 0 { "/no/a.so" } else { "/no/b.so" };
            s.add_module(Path::new(path), 0x1000, 0x3000, 0x1000);
            s.remove_range(0x1000, 0x3000);
            assert_eq!(object_at(&mut s, 0x1000).as_deref(), Some(path), "the last one that was there");
        }
        assert_eq!(s.unloaded.len(), 2);
        assert_eq!(s.objects.len(), 2);
    }

    #[test]
    fn pieces_of_one_mapping_are_one_module() {
        let mut s = with(&[]);
        let path = Path::new("/no/a.so");
        s.add_module(path, 0x1000, 0x2000, 0x1000);
        s.add_module(path, 0x3000, 0x5000, 0x1000);
        assert_eq!(s.modules().len(), 1);
        assert_eq!((s.modules()[0].start, s.modules()[0].end), (0x1000, 0x5000));
        s.add_module(path, 0x11000, 0x12000, 0x11000);
        assert_eq!(s.modules().len(), 2, "another bias is another module");
    }

    #[test]
    fn synthetic_names_come_first() {
        let mut s = with(&[("/no/a.so", 0x1000, 0x5000)]);
        s.add_synthetic(0x2000, 0x2001, &["_Znwm"], Path::new("/lib/libstdc++.so.6"));
        let frame = s.frames(0x2000).remove(0);
        assert_eq!(frame.function.as_deref(), Some("operator new(unsigned long)"));
        assert_eq!(frame.raw_name.as_deref(), Some("_Znwm"));
        assert_eq!(frame.object.as_deref(), Some(Path::new("/lib/libstdc++.so.6")));
        s.add_synthetic(0x2000, 0x2001, &["memalign", "posix_memalign"], Path::new("/lib/libc.so.6"));
        let names: Vec<_> = s.frames(0x2000).into_iter().map(|frame| (frame.function.unwrap_or_default(), frame.inlined)).collect();
        assert_eq!(names, [("memalign".to_owned(), true), ("posix_memalign".to_owned(), false)], "the newest names count");
        assert_eq!(object_at(&mut s, 0x2001).as_deref(), Some("/no/a.so"));
    }

    #[test]
    fn the_ends_of_the_address_space_are_harmless() {
        let mut s = with(&[("/proc/self/exe", 0, u64::MAX)]);
        for addr in [0, 1, u64::MAX - 1, u64::MAX, 1 << 63] {
            assert!(!s.frames(addr).is_empty());
            s.data_symbol(addr);
            s.section(addr);
        }
    }
}
