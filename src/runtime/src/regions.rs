//! What is known about every region in the code cache, and which one a host address lies in.
//!
//! A start-up makes tens of thousands of regions and asks for each of them when the first branch to it is linked, so records are small and
//! never move, and the search begins where the host address says:
//!
//! ```text
//! host address -> its KiB -> first region that begins there -> a few steps
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use memcheck_translate::InsnInfo;

/// A published region.
pub struct Record {
    pub host: u64,
    pub host_end: u64,
    pub pc: u64,
    pub start: u64,
    pub end: u64,
    pub info: &'static [Info],
    /// Branches that were linked to the body: (rel32, link stub it falls back to), from the start of the code cache on.
    pub incoming: Vec<(u32, u32)>,
    pub alive: bool,
    /// The code bytes, kept where they may change without notice.
    pub bytes: Option<Box<[u8]>>,
}

/// [`InsnInfo`] in little space: regions are short.
#[derive(Clone, Copy, Default)]
pub struct Info {
    pub host: u16,
    pub own: u16,
    pub spill: (u16, u16),
    pub pc: i16,
    pub spilled: u8,
    pub len: u8,
}

impl Info {
    fn of(wide: &InsnInfo) -> Info {
        let short = |offset: u32| u16::try_from(offset).unwrap_or(u16::MAX);
        Info {
            host: short(wide.host),
            own: short(wide.own),
            spill: (short(wide.spill.0), short(wide.spill.1)),
            pc: wide.pc as i16,
            spilled: wide.spilled,
            len: wide.len,
        }
    }
}

/// Records that are stored together.
const CHUNK: usize = 512;
/// Entries of [`Info`] that are allocated together: most of 64 KiB.
const INFOS: usize = 5400;
/// Bytes of code, as a power of two, for which the first region is remembered.
const GRANULE: u32 = 10;

pub struct Regions {
    chunks: Vec<Vec<Record>>,
    clean: Order,
    dirty: Order,
    /// Room for further entries.
    infos: &'static mut [Info],
}

/// Regions of one part of the cache, which are made in the order of their host addresses.
struct Order {
    base: u64,
    regions: Vec<u32>,
    /// By granule from `base` on: how many regions begin before it.
    before: Vec<u32>,
}

impl Order {
    const fn new(base: u64) -> Order {
        Order { base, regions: Vec::new(), before: Vec::new() }
    }

    fn granule(&self, host: u64) -> usize {
        (host.wrapping_sub(self.base) >> GRANULE) as usize
    }

    fn push(&mut self, host: u64, index: u32) {
        let granule = self.granule(host);
        if self.before.len() <= granule {
            self.before.resize(granule + 1, self.regions.len() as u32);
        }
        self.regions.push(index);
    }

    /// Those that may contain the host address.
    fn around(&self, host: u64) -> &[u32] {
        let granule = self.granule(host);
        let all = self.regions.len() as u32;
        let before = |granule: usize| self.before.get(granule).copied().unwrap_or(all) as usize;
        &self.regions[before(granule).saturating_sub(1)..before(granule.saturating_add(1))]
    }
}

impl Regions {
    /// The parts of the cache begin at these addresses, dirty code behind clean code.
    pub const fn new(clean: u64, dirty: u64) -> Regions {
        Regions { chunks: Vec::new(), clean: Order::new(clean), dirty: Order::new(dirty), infos: &mut [] }
    }

    /// Keep what is known of a region; its number. Host addresses only grow within a part.
    pub fn push(&mut self, record: Record) -> u32 {
        let index = self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len());
        if index.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.order(record.host).push(record.host, index as u32);
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(record);
        }
        index as u32
    }

    /// Keep these entries for ever.
    pub fn keep(&mut self, wide: &[InsnInfo]) -> &'static [Info] {
        if self.infos.len() < wide.len() {
            self.infos = alloc::vec![Info::default(); INFOS.max(wide.len())].leak();
        }
        let (kept, rest) = core::mem::take(&mut self.infos).split_at_mut(wide.len());
        self.infos = rest;
        for (short, wide) in kept.iter_mut().zip(wide) {
            *short = Info::of(wide);
        }
        kept
    }

    pub fn get(&self, index: usize) -> &Record {
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    pub fn get_mut(&mut self, index: usize) -> &mut Record {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    fn order(&mut self, host: u64) -> &mut Order {
        if host >= self.dirty.base { &mut self.dirty } else { &mut self.clean }
    }

    /// The region that this host address lies in.
    pub fn of_host(&self, host: u64) -> Option<usize> {
        let near = if host >= self.dirty.base { &self.dirty } else { &self.clean }.around(host);
        let at = near.partition_point(|&index| self.get(index as usize).host <= host).checked_sub(1)?;
        let index = near[at] as usize;
        (host < self.get(index).host_end).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(host: u64, len: u64) -> Record {
        Record { host, host_end: host + len, pc: host, start: 0, end: 0, info: &[], incoming: Vec::new(), alive: true, bytes: None }
    }

    #[test]
    fn every_host_address_finds_its_region() {
        const CLEAN: u64 = 0x1000_0000;
        const DIRTY: u64 = 0x2000_0000;
        let mut regions = Regions::new(CLEAN, DIRTY);
        assert_eq!(regions.of_host(CLEAN), None);
        let lengths = [5, 16, 100, 3000, 1024, 9, 5000, 40, 1];
        let (mut clean, mut dirty) = (CLEAN, DIRTY + 0x800);
        for i in 0..2000 {
            let (at, len) = (if i % 3 == 0 { &mut dirty } else { &mut clean }, lengths[i % lengths.len()]);
            assert_eq!(regions.push(record(*at, len)), i as u32);
            *at = (*at + len).next_multiple_of(16);
        }
        for i in 0..2000 {
            let (host, end) = (regions.get(i).host, regions.get(i).host_end);
            for inside in [host, (host + end) / 2, end - 1] {
                assert_eq!(regions.of_host(inside), Some(i));
            }
            if end % 16 != 0 {
                assert_eq!(regions.of_host(end), None, "between two regions");
            }
        }
        assert_eq!(regions.of_host(clean + 100_000), None);
        assert_eq!(regions.of_host(DIRTY), None);
        assert_eq!(regions.of_host(0), None);
    }

    #[test]
    fn entries_stay_what_they_were() {
        let mut regions = Regions::new(0, 1 << 40);
        let wide = |n: u32| InsnInfo { host: n, pc: -3, spilled: 0x81, len: 7, spill: (n + 1, n + 2), own: n + 3 };
        let kept: Vec<_> = (0..3000u32).map(|n| regions.keep(&[wide(n), wide(n + 9)])).collect();
        for (n, infos) in (0..).zip(&kept) {
            let first = infos[0];
            assert_eq!((first.host, first.own, first.spill, first.pc), (n, n + 3, (n + 1, n + 2), -3));
            assert_eq!((infos[1].host, infos[1].spilled, infos[1].len), (n + 9, 0x81, 7));
        }
    }
}
