//! Which pages of a large mapping were ever touched.
//!
//! Programs reserve gigabytes and use megabytes. A private page that is neither in memory nor swapped out was never written, so it holds no
//! pointer, and reading it would only cost time. `/proc/PID/pagemap` has eight bytes per page: bit 63 present, bit 62 swapped.
//! Source: the kernel's admin-guide/mm/pagemap.
//!
//! Shared mappings are searched whole: their pages can be in memory without being in this process's table.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memcheck_leak::Root;

const PAGE: u64 = 4096;
const ENTRY: u64 = 8;
const IN_USE: u64 = 0b11 << 62;
/// Entries read at once.
const CHUNK: u64 = 1 << 16;

pub struct Pages(File);

impl Pages {
    pub fn open(tid: i32) -> Option<Pages> {
        File::open(Path::new("/proc").join(tid.to_string()).join("pagemap")).ok().map(Pages)
    }

    /// The parts of `range` that may hold something. What cannot be found out counts as in use.
    pub fn in_use(&self, range: Root) -> Vec<Root> {
        let mut parts = Vec::new();
        let mut at = range.start / PAGE;
        let end = range.end.div_ceil(PAGE);
        let mut bytes = vec![0; (CHUNK * ENTRY) as usize];
        while at < end {
            let count = CHUNK.min(end - at);
            let wanted = &mut bytes[..(count * ENTRY) as usize];
            if self.0.read_exact_at(wanted, at * ENTRY).is_err() {
                wanted.fill(0xff);
            }
            runs(wanted, at, &mut parts);
            at += count;
        }
        let clip = |part: Root| Root { start: part.start.max(range.start), end: part.end.min(range.end) };
        parts.into_iter().map(clip).collect()
    }
}

/// Add the runs of pages in use among these entries, the first of which is for page number `first`.
fn runs(entries: &[u8], first: u64, parts: &mut Vec<Root>) {
    for (page, entry) in (first..).zip(entries.as_chunks::<8>().0) {
        if u64::from_ne_bytes(*entry) & IN_USE == 0 {
            continue;
        }
        let (start, end) = (page * PAGE, (page + 1) * PAGE);
        match parts.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => parts.push(Root { start, end }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_run() {
        let (present, swapped, untouched) = (1u64 << 63, 1u64 << 62, 1u64 << 55);
        let bytes = |entries: &[u64]| entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect::<Vec<u8>>();
        let mut parts = Vec::new();
        runs(&bytes(&[untouched, present, swapped, 0]), 0x10, &mut parts);
        runs(&bytes(&[present, 0]), 0x14, &mut parts);
        runs(&bytes(&[0, present]), 0x16, &mut parts);
        runs(&bytes(&[present]), 0x18, &mut parts);
        let expected = [(0x11, 0x13), (0x14, 0x15), (0x17, 0x19)].map(|(start, end)| Root { start: start * PAGE, end: end * PAGE });
        assert_eq!(parts, expected);
    }

    #[test]
    fn memory_of_this_process_is_in_use() {
        let Some(pages) = Pages::open(std::process::id() as i32) else { return };
        let data = vec![1u8; 1 << 20];
        let start = data.as_ptr() as u64;
        let range = Root { start, end: start + (1 << 20) };
        assert_eq!(pages.in_use(range), [range]);
    }
}
