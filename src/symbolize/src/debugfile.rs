//! Where the debug information of an object is, when it is not in the object.
//!
//! Tried in this order, the first that fits wins:
//!
//! | by | places |
//! |---|---|
//! | build id `xxyyyy…` | `EXTRA/.build-id/xx/yyyy….debug`, `/usr/lib/debug/.build-id/xx/yyyy….debug` |
//! | build id, fetched earlier by debuginfod | `$DEBUGINFOD_CACHE_PATH`, `$XDG_CACHE_HOME/debuginfod_client`, `~/.cache/debuginfod_client`: `<id>/debuginfo` |
//! | `.gnu_debuglink` (name and CRC) | beside the object, `.debug/` beside it, `EXTRA` and `/usr/lib/debug` followed by the object's directory, `EXTRA` itself |
//!
//! EXTRA is `--extra-debuginfo-path`. A candidate fits if its build id is the object's; where one of them has none, if
//! its checksum is the one in the debuglink. A debug file compressed by dwz names a further one in `.gnu_debugaltlink`.
//! Nothing is ever fetched over the network.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use flate2::Crc;

use crate::elf::{Elf, c_string, half};
use crate::image;

const SYSTEM_DEBUG_DIR: &str = "/usr/lib/debug";

/// The separate debug file of `object` (which was loaded from `path`), with the path it was found at.
pub(crate) fn find(object: &Elf<'_>, path: &Path, extra: Option<&Path>) -> Option<(PathBuf, Elf<'static>)> {
    let id = object.build_id();
    let by_id = id_paths(id, extra).into_iter().find_map(|candidate| open_with_id(&candidate, id));
    by_id.or_else(|| find_by_link(object, path, extra))
}

/// The file that dwz moved the common parts of `debug` to.
pub(crate) fn find_alt(debug: &Elf<'_>, path: &Path, extra: Option<&Path>) -> Option<(PathBuf, Elf<'static>)> {
    let link = debug.inflated(".gnu_debugaltlink")?;
    let name = c_string(&link, 0);
    let id = link.get(name.len() + 1..)?;
    let relative = PathBuf::from(OsStr::from_bytes(name));
    let beside = real_directory(path).join(&relative);
    let mut places = vec![beside];
    if let Some(file) = relative.file_name() {
        places.push(Path::new(SYSTEM_DEBUG_DIR).join(".dwz").join(file));
    }
    places.extend(id_paths(id, extra));
    places.into_iter().find_map(|candidate| open_with_id(&candidate, id))
}

fn find_by_link(object: &Elf<'_>, path: &Path, extra: Option<&Path>) -> Option<(PathBuf, Elf<'static>)> {
    let link = object.inflated(".gnu_debuglink")?;
    let name = c_string(&link, 0);
    // The checksum follows the name at the next multiple of 4.
    let checksum = half(&link, (name.len() + 1).next_multiple_of(4))?;
    let name = OsStr::from_bytes(name);
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        return None;
    }
    let directory = real_directory(path);
    let below = directory.strip_prefix("/").unwrap_or(&directory);
    let mut places = vec![directory.join(name), directory.join(".debug").join(name)];
    if let Some(extra) = extra {
        places.push(extra.join(below).join(name));
        places.push(extra.join(name));
    }
    places.push(Path::new(SYSTEM_DEBUG_DIR).join(below).join(name));
    places.into_iter().find_map(|candidate| open_linked(&candidate, object, checksum))
}

/// Directory of the file itself: links to libraries are common (`libfoo.so.1`), links to debug files are not.
fn real_directory(path: &Path) -> PathBuf {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real.parent().unwrap_or(Path::new("/")).to_path_buf()
}

/// All places a file with this build id may be at.
fn id_paths(id: &[u8], extra: Option<&Path>) -> Vec<PathBuf> {
    // One byte names the directory, and at least one must be left for the file.
    let Some((first, rest)) = id.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Vec::new();
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let file = format!(".build-id/{first:02x}/{}.debug", hex(rest));
    let system = Path::new(SYSTEM_DEBUG_DIR);
    let mut places: Vec<PathBuf> = extra.into_iter().chain([system]).map(|dir| dir.join(&file)).collect();
    places.extend(debuginfod_caches().into_iter().map(|cache| cache.join(hex(id)).join("debuginfo")));
    places
}

fn debuginfod_caches() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let client = Path::new("debuginfod_client");
    let explicit = variable("DEBUGINFOD_CACHE_PATH");
    let shared = variable("XDG_CACHE_HOME").map(|cache| cache.join(client));
    let home = variable("HOME").map(|home| home.join(".cache").join(client));
    explicit.into_iter().chain(shared).chain(home).collect()
}

fn open_with_id(path: &Path, id: &[u8]) -> Option<(PathBuf, Elf<'static>)> {
    let elf = Elf::parse(image::open(path).ok()?.bytes).ok()?;
    (!id.is_empty() && elf.build_id() == id).then(|| (path.to_path_buf(), elf))
}

fn open_linked(path: &Path, object: &Elf<'_>, checksum: u32) -> Option<(PathBuf, Elf<'static>)> {
    let elf = Elf::parse(image::open(path).ok()?.bytes).ok()?;
    let (wanted, found) = (object.build_id(), elf.build_id());
    let fits = if wanted.is_empty() || found.is_empty() {
        let mut crc = Crc::new();
        crc.update(elf.bytes);
        crc.sum() == checksum
    } else {
        wanted == found
    };
    // A file that names itself as its debug file helps nobody.
    let fits = fits && !std::ptr::eq(elf.bytes, object.bytes);
    fits.then(|| (path.to_path_buf(), elf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_become_paths() {
        let places = id_paths(&[0xab, 0x01, 0xff], Some(Path::new("/extra")));
        assert_eq!(places[0], Path::new("/extra/.build-id/ab/01ff.debug"));
        assert_eq!(places[1], Path::new("/usr/lib/debug/.build-id/ab/01ff.debug"));
        assert!(places[2..].iter().all(|place| place.ends_with("ab01ff/debuginfo")));
        assert!(id_paths(&[], None).is_empty());
        assert!(id_paths(&[1], None).is_empty());
    }
}
