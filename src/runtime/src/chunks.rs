//! Lists that only grow and whose entries never move: pieces of one size, allocated as they are needed. (A vector that grows leaves its old memory
//! behind, as large as all that it holds, and the runtime's memory is never given back.)

use alloc::vec::Vec;

/// Bytes that are allocated together.
const CHUNK: usize = 1 << 16;

pub struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Chunks<T> {
    const ENTRIES: usize = CHUNK / size_of::<T>();

    pub const fn new() -> Chunks<T> {
        Chunks { chunks: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * Self::ENTRIES + last.len())
    }

    /// The number of the new entry.
    pub fn push(&mut self, entry: T) -> u32 {
        let index = self.len();
        if index.is_multiple_of(Self::ENTRIES) {
            self.chunks.push(Vec::with_capacity(Self::ENTRIES));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(entry);
        }
        index as u32
    }

    pub fn get(&self, index: u32) -> &T {
        &self.chunks[index as usize / Self::ENTRIES][index as usize % Self::ENTRIES]
    }

    pub fn get_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / Self::ENTRIES][index as usize % Self::ENTRIES]
    }
}

/// Strings of bytes, each in one piece.
pub struct Bytes {
    chunks: Vec<Vec<u8>>,
}

impl Bytes {
    /// The longest string.
    const MOST: usize = 2048;

    pub const fn new() -> Bytes {
        Bytes { chunks: Vec::new() }
    }

    /// Keep what `write` appends, [`Bytes::MOST`] bytes at most; where it is.
    pub fn push_all(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> u32 {
        if self.chunks.last().is_none_or(|last| last.len() + Bytes::MOST > CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let number = self.chunks.len() - 1;
        let last = &mut self.chunks[number];
        let at = number * CHUNK + last.len();
        write(last);
        debug_assert!(last.len() <= CHUNK, "a longer string than fits");
        at as u32
    }

    /// The bytes from there on.
    pub fn from(&self, at: u32) -> &[u8] {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_numbers_and_places() {
        let mut chunks = Chunks::new();
        assert_eq!(chunks.push(7u64), 0);
        let first = core::ptr::from_ref(chunks.get(0));
        (1..30_000).for_each(|i| assert_eq!(chunks.push(i), i as u32));
        *chunks.get_mut(20_000) += 1;
        assert_eq!((chunks.len(), *chunks.get(0), *chunks.get(8192), *chunks.get(20_000)), (30_000, 7, 8192, 20_001));
        assert_eq!(first, core::ptr::from_ref(chunks.get(0)));
    }
}
