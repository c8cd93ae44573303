//! What is known about every region in the code cache, and which one a host address lies in.
//!
//! A start-up makes tens of thousands of regions and asks for each of them when the first branch to it is linked, so records are small and
//! never move, and the search begins where the host address says:
//!
//! ```text
//! host address -> its KiB -> first region that begins there -> a few steps
//! ```

use crate::chunks::{Bytes, Chunks};
use crate::places;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use memcheck_translate::{InsnInfo, Place, Region};

/// A published region.
pub struct Record {
    /// The program's code: [pc, end).
    pub pc: u64,
    /// From the start of the code cache on.
    host: u32,
    length: u32,
    code_length: u16,
    pub alive: bool,
    places: u32,
    /// The first of the branches that were linked to the body.
    incoming: u32,
    /// The next region that begins in the same page.
    next: u32,
}

impl Record {
    pub fn end(&self) -> u64 {
        self.pc + u64::from(self.code_length)
    }
}

/// A branch that was linked: its rel32 and the stub that it falls back to, from the start of the code cache on; and the next one.
#[derive(Clone, Copy)]
struct Branch {
    patch: u32,
    stub: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Bytes of code, as a power of two, for which the first region is remembered.
const GRANULE: u32 = 10;

pub struct Regions {
    base: u64,
    records: Chunks<Record>,
    clean: Order,
    dirty: Order,
    places: Bytes,
    branches: Chunks<Branch>,
    /// The first branch that is not in use any more.
    free_branch: u32,
    dead: u32,
    /// Those of before the last renewal: dead, but threads may be in them.
    kept: Vec<u32>,
    /// The code bytes of regions, kept where they may change without notice.
    code: BTreeMap<u32, Box<[u8]>>,
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
        Regions {
            base: clean,
            records: Chunks::new(),
            clean: Order::new(clean),
            dirty: Order::new(dirty),
            places: Bytes::new(),
            branches: Chunks::new(),
            free_branch: NONE,
            dead: 0,
            kept: Vec::new(),
            code: BTreeMap::new(),
        }
    }

    /// Keep what is known of a region that lies at `place`; its number. Host addresses only grow within a part.
    pub fn push(&mut self, region: &Region, place: Place, code: Option<Box<[u8]>>) -> u32 {
        let host = place.hot;
        let cold = ((place.cold - self.base) as u32, region.cold.len() as u32);
        let index = self.records.push(Record {
            pc: region.start,
            host: (host - self.base) as u32,
            length: region.code.len() as u32,
            code_length: (region.end - region.start) as u16,
            alive: true,
            places: places::keep(&mut self.places, cold, &region.info),
            incoming: NONE,
            next: NONE,
        });
        self.order(host).push(host, index);
        if let Some(code) = code {
            self.code.insert(index, code);
        }
        index
    }

    /// These regions alone, dead.
    pub fn only(&self, kept: &BTreeSet<u32>) -> Regions {
        let mut only = Regions::new(self.clean.base, self.dirty.base);
        for &index in kept {
            let (old, infos) = (self.get(index), self.places(index).collect::<Vec<_>>());
            let places = places::keep(&mut only.places, places::cold(self.places.from(old.places)), &infos);
            let record = Record { alive: false, places, incoming: NONE, next: NONE, ..*old };
            only.kept.push(only.records.push(record));
        }
        only.dead = only.count();
        only
    }

    pub fn count(&self) -> u32 {
        self.records.len() as u32
    }

    /// How many are dead.
    pub fn dead(&self) -> u32 {
        self.dead
    }

    pub fn get(&self, index: u32) -> &Record {
        self.records.get(index)
    }

    /// The next region that begins in the same page.
    pub fn next(&self, index: u32) -> Option<u32> {
        Some(self.records.get(index).next).filter(|&next| next != NONE)
    }

    pub fn set_next(&mut self, index: u32, next: Option<u32>) {
        self.records.get_mut(index).next = next.unwrap_or(NONE);
    }

    pub fn host(&self, index: u32) -> u64 {
        self.base + u64::from(self.records.get(index).host)
    }

    fn host_end(&self, index: u32) -> u64 {
        self.host(index) + u64::from(self.records.get(index).length)
    }

    /// Its code, and its cold code: [start, end).
    pub fn hot(&self, index: u32) -> (u64, u64) {
        (self.host(index), self.host_end(index))
    }

    pub fn cold(&self, index: u32) -> (u64, u64) {
        let (start, length) = places::cold(self.places.from(self.records.get(index).places));
        let start = self.base + u64::from(start);
        (start, start + u64::from(length))
    }

    /// Where its instructions lie.
    pub fn places(&self, index: u32) -> impl Iterator<Item = InsnInfo> + '_ {
        places::read(self.places.from(self.records.get(index).places))
    }

    /// Its code as it was translated, if that was kept.
    pub fn code(&self, index: u32) -> Option<&[u8]> {
        self.code.get(&index).map(|code| &**code)
    }

    /// Remember a branch that was linked to the body.
    pub fn add_incoming(&mut self, index: u32, patch: u64, stub: u64) {
        let next = self.records.get(index).incoming;
        let branch = Branch { patch: (patch - self.base) as u32, stub: (stub - self.base) as u32, next };
        let at = match self.free_branch {
            NONE => self.branches.push(branch),
            free => {
                self.free_branch = self.branches.get(free).next;
                *self.branches.get_mut(free) = branch;
                free
            }
        };
        self.records.get_mut(index).incoming = at;
    }

    /// The region is dead; what to do with the branches to it.
    pub fn kill(&mut self, index: u32, mut unlink: impl FnMut(u64, u64)) {
        self.code.remove(&index);
        let record = self.records.get_mut(index);
        self.dead += u32::from(core::mem::replace(&mut record.alive, false));
        let mut at = core::mem::replace(&mut record.incoming, NONE);
        while at != NONE {
            let Branch { patch, stub, next } = *self.branches.get(at);
            unlink(self.base + u64::from(patch), self.base + u64::from(stub));
            self.branches.get_mut(at).next = core::mem::replace(&mut self.free_branch, at);
            at = next;
        }
    }

    fn order(&mut self, host: u64) -> &mut Order {
        if host >= self.dirty.base { &mut self.dirty } else { &mut self.clean }
    }

    /// The region that this host address lies in.
    pub fn of_host(&self, host: u64) -> Option<u32> {
        let near = if host >= self.dirty.base { &self.dirty } else { &self.clean }.around(host);
        let at = near.partition_point(|&index| self.host(index) <= host).checked_sub(1);
        let found = at.map(|at| near[at]).filter(|&index| host < self.host_end(index));
        found.or_else(|| self.kept.iter().copied().find(|&index| self.host(index) <= host && host < self.host_end(index)))
    }

    /// The region whose cold code this host address lies in. Apart from kept ones, they were made in the order of their cold code.
    pub fn of_cold(&self, host: u64) -> Option<u32> {
        let is_in = |&index: &u32| (self.cold(index).0..self.cold(index).1).contains(&host);
        let (mut low, mut high) = (self.kept.len() as u32, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if self.cold(middle).0 <= host { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).filter(is_in).or_else(|| self.kept.iter().copied().find(is_in))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(length: usize) -> Region {
        let (code, end) = (alloc::vec![0; length], 0x40_0010);
        Region { code, cold: Vec::new(), body: 0, info: Vec::new(), exits: Vec::new(), start: 0x40_0000, end, calls: false }
    }

    #[test]
    fn every_host_address_finds_its_region() {
        const CLEAN: u64 = 0x1000_0000;
        const DIRTY: u64 = 0x2000_0000;
        const COLD: u64 = 0x3000_0000;
        let mut regions = Regions::new(CLEAN, DIRTY);
        assert_eq!(regions.of_host(CLEAN), None);
        let lengths = [5, 16, 100, 3000, 1024, 9, 5000, 40, 1];
        let (mut clean, mut dirty) = (CLEAN, DIRTY + 0x800);
        for i in 0..2000 {
            let (at, len) = (if i % 3 == 0 { &mut dirty } else { &mut clean }, lengths[i % lengths.len()]);
            assert_eq!(regions.push(&region(len), Place { hot: *at, cold: COLD + 8 * i as u64 }, None), i as u32);
            *at = (*at + len as u64).next_multiple_of(16);
        }
        for i in 0..2000 {
            let (host, end) = (regions.host(i), regions.host_end(i));
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
    fn branches_to_a_region_are_undone_once() {
        let mut regions = Regions::new(0x1000, 0x9000);
        let at = |hot| Place { hot, cold: 0xa000 };
        let (a, b) = (regions.push(&region(16), at(0x1000), Some(Box::from([1, 2]))), regions.push(&region(16), at(0x1010), None));
        for i in 0..10 {
            regions.add_incoming(if i % 2 == 0 { a } else { b }, 0x1100 + i, 0x1200 + i);
        }
        let undone = |regions: &mut Regions, index| {
            let mut all = Vec::new();
            regions.kill(index, |patch, stub| all.push((patch, stub)));
            all.sort_unstable();
            all
        };
        assert_eq!(regions.code(a), Some(&[1, 2][..]));
        assert_eq!(undone(&mut regions, a), [0, 2, 4, 6, 8].map(|i| (0x1100 + i, 0x1200 + i)));
        assert_eq!(undone(&mut regions, a), []);
        assert_eq!((regions.code(a), regions.get(a).alive, regions.get(b).alive), (None, false, true));
        // Their room is used again.
        let c = regions.push(&region(16), at(0x1020), None);
        (0..5).for_each(|i| regions.add_incoming(c, 0x1300 + i, 0x1400));
        assert_eq!((regions.branches.len(), undone(&mut regions, c).len(), undone(&mut regions, b).len()), (10, 5, 5));
    }

    #[test]
    fn kept_regions_are_found_and_dead() {
        let mut regions = Regions::new(0x1000, 0x2_0000);
        // Every third has no cold code.
        let cold = |i: u64| 0x4_0000 + (i - i.div_ceil(3)) * 10;
        for i in 0..1000 {
            let mut made = region(16);
            made.cold = alloc::vec![0; if i % 3 == 0 { 0 } else { 10 }];
            regions.push(&made, Place { hot: 0x1000 + 16 * i, cold: cold(i) }, None);
        }
        for i in (0..1000).filter(|i| i % 3 != 0) {
            assert_eq!([regions.of_cold(cold(i)), regions.of_cold(cold(i) + 9)], [Some(i as u32); 2]);
        }
        assert_eq!((regions.of_cold(cold(1) - 1), regions.of_cold(cold(1000))), (None, None));
        let mut regions = regions.only(&BTreeSet::from([7, 500]));
        assert_eq!((regions.count(), regions.dead(), regions.hot(1)), (2, 2, (0x1000 + 500 * 16, 0x1010 + 500 * 16)));
        regions.push(&region(16), Place { hot: 0x1000, cold: cold(0) }, None);
        let hosts = [0x1000, 0x1000 + 7 * 16, 0x1000 + 501 * 16 - 1, 0x1000 + 501 * 16];
        assert_eq!(hosts.map(|host| regions.of_host(host)), [Some(2), Some(0), Some(1), None]);
        assert_eq!([cold(7), cold(500), cold(1)].map(|host| regions.of_cold(host)), [Some(0), Some(1), None]);
        assert!(!regions.get(0).alive && regions.get(2).alive);
        regions.kill(2, |_, _| {});
        regions.kill(2, |_, _| {});
        assert_eq!(regions.dead(), 3);
    }
}
