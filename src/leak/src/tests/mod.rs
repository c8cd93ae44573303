//! Small graphs with known answers ([`cases`]), and random ones against a naive search ([`reference`]).

mod cases;
mod reference;
mod speed;

use crate::{BlockState, Memory, Options, Root, search};
use memcheck_abi::event::{Family, LiveBlock};

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// Start, bytes, V bytes.
type Region = (u64, Vec<u8>, Vec<u8>);

/// Memory of a made-up program.
#[derive(Default)]
pub struct Fake {
    pub regions: Vec<Region>,
}

impl Fake {
    pub fn map(&mut self, start: u64, len: usize) {
        self.regions.push((start, vec![0; len], vec![0; len]));
    }

    fn region(&self, addr: u64) -> Option<(usize, &Region)> {
        let region = self.regions.iter().find(|r| addr >= r.0 && addr < r.0 + r.1.len() as u64)?;
        Some(((addr - region.0) as usize, region))
    }

    pub fn poke(&mut self, addr: u64, value: u64) {
        let region = self.regions.iter_mut().find(|r| addr >= r.0 && addr < r.0 + r.1.len() as u64).expect("mapped");
        let at = (addr - region.0) as usize;
        region.1[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    pub fn poke_v(&mut self, addr: u64, value: u8) {
        let region = self.regions.iter_mut().find(|r| addr >= r.0 && addr < r.0 + r.1.len() as u64).expect("mapped");
        region.2[(addr - region.0) as usize] = value;
    }

    pub fn peek(&self, addr: u64) -> Option<u64> {
        let (at, region) = self.region(addr)?;
        let word: [u8; 8] = region.1.get(at..at + 8)?.try_into().ok()?;
        region.2[at..at + 8].iter().all(|&v| v == 0).then(|| u64::from_ne_bytes(word))
    }
}

impl Memory for Fake {
    fn read(&self, addr: u64, out: &mut [u8]) -> usize {
        let Some((at, region)) = self.region(addr) else { return 0 };
        let n = out.len().min(region.1.len() - at);
        out[..n].copy_from_slice(&region.1[at..at + n]);
        n
    }

    fn v(&self, addr: u64, out: &mut [u8]) -> usize {
        let Some((at, region)) = self.region(addr) else { return 0 };
        let n = out.len().min(region.2.len() - at);
        out[..n].copy_from_slice(&region.2[at..at + n]);
        n
    }
}

pub fn block(addr: u64, size: u64) -> LiveBlock {
    LiveBlock { addr, size, stack: 1, family: Family::Malloc as u32, age: 0, unused: 0 }
}

pub const HEAP: u64 = 0x8_0000_0000;
pub const DATA: u64 = 0x10_0000;

/// A program with a page of data as its root and a heap.
pub struct Program {
    pub memory: Fake,
    pub blocks: Vec<LiveBlock>,
    pub registers: Vec<u64>,
    pub options: Options,
}

impl Program {
    /// Blocks of these sizes, 256 bytes apart at least.
    pub fn new(sizes: &[u64]) -> Program {
        let mut memory = Fake::default();
        memory.map(DATA, 4096);
        let mut at = HEAP;
        let blocks: Vec<_> = sizes
            .iter()
            .map(|&size| {
                let b = block(at, size);
                at = (at + size).next_multiple_of(256) + 256;
                b
            })
            .collect();
        memory.map(HEAP, (at - HEAP) as usize + 4096);
        Program { memory, blocks, registers: Vec::new(), options: Options { heuristics: [true; 4], threads: 2, ..Options::default() } }
    }

    pub fn addr(&self, block: usize) -> u64 {
        self.blocks[block].addr
    }

    /// Word `word` of block `from` points `offset` bytes into block `to`.
    pub fn link(&mut self, from: usize, word: u64, to: usize, offset: u64) {
        self.memory.poke(self.addr(from) + 8 * word, self.addr(to) + offset);
    }

    pub fn root(&mut self, word: u64, to: usize, offset: u64) {
        self.memory.poke(DATA + 8 * word, self.addr(to) + offset);
    }

    pub fn search(&self) -> Vec<BlockState> {
        search(&self.memory, &self.blocks, &[Root { start: DATA, end: DATA + 4096 }], &self.registers, &self.options)
    }
}
