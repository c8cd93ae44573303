//! Where in the user's own code a finding belongs, and its fingerprint.
//!
//! The place is the innermost frame with a source line whose file is the user's: not a system path and, if there is a source
//! root, inside it. Without such a frame it is the innermost one with a line.
//!
//! The fingerprint is the same for all formats and survives edits elsewhere: a hash of the rule id and, for up to five
//! innermost frames of user code, function name and base name of the file. No lines, addresses or sizes go in.

use std::path::{Path, PathBuf};

use crate::error::ErrorRecord;
use crate::frame::{Frame, Stack};

/// A line of source, ready for a report: `path` is relative to the root if it lies inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: String,
    pub is_relative: bool,
    pub line: u32,
    pub column: Option<u32>,
    pub function: Option<String>,
}

/// Directories whose sources are nobody's own.
const SYSTEM: [&str; 5] = ["/usr/", "/build/", "/rustc/", "/lib/", "/opt/"];
const FINGERPRINT_FRAMES: usize = 5;

/// Places findings in the tree below `root`.
#[derive(Clone, Debug, Default)]
pub struct Placer {
    /// Absolute; `None`: nothing is made relative.
    pub root: Option<PathBuf>,
}

impl Placer {
    /// Does the frame have a line in the user's own code?
    pub fn is_own(&self, frame: &Frame) -> bool {
        let (Some(path), Some(_)) = (frame.full_path(), frame.line) else {
            return false;
        };
        match &self.root {
            Some(root) => Path::new(&path).starts_with(root),
            None => path.starts_with('/') && !SYSTEM.iter().any(|system| path.starts_with(system)),
        }
    }

    fn place_of(&self, frame: &Frame) -> Option<Place> {
        let path = frame.full_path()?;
        let inside = self.root.as_ref().and_then(|root| Path::new(&path).strip_prefix(root).ok());
        Some(Place {
            path: inside.map_or_else(|| path.clone(), |inside| inside.to_string_lossy().into_owned()),
            is_relative: inside.is_some(),
            line: frame.line.filter(|&line| line > 0)?,
            column: frame.column,
            function: frame.function.as_deref().or(frame.raw_name.as_deref()).map(str::to_string),
        })
    }

    /// The place of a stack.
    pub fn place(&self, stack: &Stack) -> Option<Place> {
        let own = stack.0.iter().find(|frame| self.is_own(frame));
        own.and_then(|frame| self.place_of(frame)).or_else(|| stack.0.iter().find_map(|frame| self.place_of(frame)))
    }

    /// 16 hexadecimal digits.
    pub fn fingerprint(&self, record: &ErrorRecord) -> String {
        let mut hash = Fnv::new();
        hash.add(record.rule());
        let frames = &record.stack.0;
        let own: Vec<&Frame> = frames.iter().filter(|frame| self.is_own(frame)).take(FINGERPRINT_FRAMES).collect();
        let chosen = if own.is_empty() { frames.iter().take(FINGERPRINT_FRAMES).collect() } else { own };
        for frame in chosen {
            hash.add(frame.suppression_name().unwrap_or("???"));
            hash.add(frame.file_name().unwrap_or(""));
        }
        format!("{:016x}", hash.0)
    }
}

/// The FNV-1a hash, 64 bits: tiny, and the same for ever.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a text and its end, so that "ab","c" and "a","bc" differ.
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::{frame, library_frame};

    fn in_dir(frame: Frame, dir: &str) -> Frame {
        frame.with(|line| line.dir = Some(dir.into()))
    }

    #[test]
    fn the_users_own_frame_is_found() {
        let stack = Stack(vec![
            library_frame(1, "memcpy", "/l"),
            in_dir(frame(2, "copy", "c.h", 3), "/usr/include"),
            in_dir(frame(3, "fill", "table.c", 14), "/home/me/src"),
        ]);
        let rooted = Placer { root: Some("/home/me".into()) };
        let place = rooted.place(&stack).expect("has lines");
        assert_eq!((place.path.as_str(), place.is_relative, place.line), ("src/table.c", true, 14));
        let place = Placer::default().place(&stack).expect("has lines");
        assert_eq!((place.path.as_str(), place.is_relative), ("/home/me/src/table.c", false));
        assert_eq!(Placer::default().place(&Stack(vec![library_frame(1, "f", "/l")])), None);
    }

    #[test]
    fn fingerprints_ignore_lines_and_addresses() {
        let placer = Placer::default();
        let print =
            |addr, name: &str, line| placer.fingerprint(&ErrorRecord::invalid_read(4, 1, Stack(vec![frame(addr, name, "a.c", line)])));
        assert_eq!(print(1, "f", 10), print(2, "f", 11));
        assert_ne!(print(1, "f", 10), print(1, "g", 10));
        assert_eq!(print(1, "f", 10).len(), 16);
    }
}
