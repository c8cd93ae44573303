//! Object files in memory: mapped whole, and then never unmapped.
//!
//! Names must stay printable after the program unloaded a library (the stacks that leak reports show may be hours
//! old), the DWARF reader keeps slices of the sections inside its caches, and clean file pages cost nothing when
//! memory is short. So a file that was looked at once stays mapped until the tool ends, which makes every section a
//! `&'static [u8]` and the reader's lifetimes vanish. The same file (device, inode, size, time) is mapped only once
//! per process, however many programs map it.
//!
//! Deliberately absent: a defence against a file that is *truncated in place* while we read it (SIGBUS). Linkers and
//! package managers replace files by renaming.
#![allow(unsafe_code, reason = "mapping a file is unsafe in memmap2: the file may change under the map")]

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;

/// What makes two paths the same file, and one path a different file after a rebuild.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// A file mapped for ever.
#[derive(Clone, Copy)]
pub(crate) struct Image {
    pub id: FileId,
    pub bytes: &'static [u8],
}

static MAPPED: Mutex<Option<HashMap<FileId, &'static [u8]>>> = Mutex::new(None);

/// Map `path` for the rest of the process. Fails on anything that is not a regular, readable file.
pub(crate) fn open(path: &Path) -> Result<Image> {
    let (file, id) = open_regular(path)?;
    let mut table = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let table = table.get_or_insert_default();
    if let Some(bytes) = table.get(&id) {
        return Ok(Image { id, bytes });
    }
    let map: &'static Mmap = Box::leak(Box::new(map(&file, path)?));
    table.insert(id, map);
    Ok(Image { id, bytes: map })
}

/// Map `path` for as long as the value lives: for one quick look.
pub(crate) fn open_briefly(path: &Path) -> Result<Mmap> {
    let (file, _) = open_regular(path)?;
    map(&file, path)
}

fn open_regular(path: &Path) -> Result<(File, FileId)> {
    // Asked first by name, because opening a FIFO or a device may block or have effects.
    let named = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if !named.is_file() {
        bail!("{}: not a regular file", path.display());
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let facts = file.metadata()?;
    let id = FileId { device: facts.dev(), inode: facts.ino(), bytes: facts.len(), modified: (facts.mtime(), facts.mtime_nsec()) };
    Ok((file, id))
}

fn map(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the map is private and read-only, and all access goes through bounds-checked slices of plain bytes, for
    // which any content is valid. What remains is a writer that changes or truncates the file; see the module essay.
    unsafe { Mmap::map(file) }.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_file_is_mapped_once() {
        let path = std::env::current_exe().expect("own path");
        let (first, second) = (open(&path).expect("first"), open(&path).expect("second"));
        assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr());
        assert_eq!(&first.bytes[..4], b"\x7fELF");
    }

    #[test]
    fn only_regular_files_are_opened() {
        assert!(open(Path::new("/")).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
        assert!(open_briefly(Path::new("/no/such/file")).is_err());
    }
}
