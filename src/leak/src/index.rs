//! From a word to the block it points to.
//!
//! Blocks come in clusters (slabs, arenas) with gaps of terabytes between them. Each cluster has a table with a cell per 2^shift bytes that holds
//! the first block at or behind the cell's start; a lookup is a cell and a few steps.

use crate::scan::Node;

/// A gap this long begins a new cluster.
const GAP: u64 = 16 << 20;
/// Cells per block at most, and cells that every cluster may have.
const CELLS_PER_BLOCK: u64 = 4;
const FREE_CELLS: u64 = 64;

struct Cluster {
    start: u64,
    end: u64,
    shift: u32,
    /// Where the cells of this cluster begin.
    cells: usize,
}

pub struct Index<'a> {
    nodes: &'a [Node],
    clusters: Vec<Cluster>,
    /// Per cell: number of the first block that ends behind the cell's start.
    cells: Vec<u32>,
    low: u64,
    high: u64,
}

impl<'a> Index<'a> {
    /// Of blocks that are sorted and do not overlap.
    pub fn new(nodes: &'a [Node]) -> Index<'a> {
        let low = nodes.first().map_or(0, |n| n.addr);
        let high = nodes.last().map_or(0, |n| n.end());
        let mut index = Index { nodes, clusters: Vec::new(), cells: Vec::new(), low, high };
        let mut first = 0;
        for last in 0..nodes.len() {
            if last + 1 == nodes.len() || nodes[last + 1].addr - nodes[last].end() >= GAP {
                index.add_cluster(first, last + 1);
                first = last + 1;
            }
        }
        index
    }

    fn add_cluster(&mut self, first: usize, end: usize) {
        let (start, stop) = (self.nodes[first].addr, self.nodes[end - 1].end());
        let most = (end - first) as u64 * CELLS_PER_BLOCK + FREE_CELLS;
        let mut shift = 4;
        while (stop - start) >> shift >= most {
            shift += 1;
        }
        self.clusters.push(Cluster { start, end: stop, shift, cells: self.cells.len() });
        let mut node = first;
        for cell in 0..=((stop - 1 - start) >> shift) {
            let at = start + (cell << shift);
            while self.nodes[node].end() <= at {
                node += 1;
            }
            self.cells.push(node as u32);
        }
    }

    /// The block that contains this address.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<u32> {
        if addr < self.low || addr >= self.high {
            return None;
        }
        let cluster = match &self.clusters[..] {
            [only] => only,
            many => &many[many.partition_point(|c| c.start <= addr) - 1],
        };
        if addr >= cluster.end {
            return None;
        }
        let mut node = self.cells[cluster.cells + ((addr - cluster.start) >> cluster.shift) as usize];
        while self.nodes[node as usize].end() <= addr {
            node += 1;
        }
        (self.nodes[node as usize].addr <= addr).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a linear search, with clusters far apart and blocks that touch.
    #[test]
    fn finds_what_a_linear_search_finds() {
        let mut nodes = Vec::new();
        let mut at = 0x1000;
        let mut random = crate::tests::Random(3);
        for _ in 0..500 {
            at += match random.below(60) {
                0 => 40 << 20,
                1 => 1 << 40,
                2..20 => 0,
                _ => random.below(300),
            };
            let limit = if random.below(20) == 0 { 100_000 } else { 50 };
            let size = random.below(limit);
            nodes.push(Node { addr: at, size, age: 0 });
            at += size.max(1);
        }
        let index = Index::new(&nodes);
        let linear = |a: u64| nodes.iter().position(|n| a >= n.addr && a < n.addr + n.size.max(1)).map(|i| i as u32);
        for node in &nodes {
            for addr in [node.addr - 1, node.addr, node.addr + 1, node.addr + node.size / 2, node.end() - 1, node.end(), node.end() + 3] {
                assert_eq!(index.find(addr), linear(addr), "{addr:#x}");
            }
        }
        assert_eq!(index.find(0), None);
        assert_eq!(index.find(u64::MAX), None);
        assert_eq!(Index::new(&[]).find(5), None);
    }
}
