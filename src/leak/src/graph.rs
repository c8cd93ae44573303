//! Marking: from edges to states. Sequential, on our own memory.
//!
//! 1. Reachable: everything that start pointers lead to, from the roots on. Interior pointers that a heuristic accepts count as start pointers.
//! 2. Possible: everything that any pointers lead to from there.
//! 3. Cliques: the blocks that are left, the oldest first. Each that was not met yet becomes a
//!    leader, and everything it leads to is indirectly lost with it; an earlier leader that is met is demoted, with all that it leads.
//!
//! Heuristics, for an interior pointer p to a block [base, base + size):
//!
//! | name | condition |
//! |---|---|
//! | stdstring | p = base + 24, \[base + 8\] + 25 = size, \[base\] ≤ \[base + 8\] |
//! | length64 | p = base + 8, \[base\] = size − 8 > 0 |
//! | newarray | p = base + 8, \[base\] > 0 divides size − 8 |
//! | multipleinheritance | p aligned, \[p\] and \[base\] look like addresses of vtables |
//!
//! A vtable lies in a readable file mapping; of its first 20 words those that are not zero, up to the second, lie in code.

use crate::index::Index;
use crate::scan::{Interior, Node, Scanned, contains};
use crate::{BlockState, Heuristic, Kind, Memory, Options};
use std::collections::HashMap;

const TABLE_WORDS: u64 = 20;
const FUNCTIONS: usize = 2;

struct Marker<'a> {
    memory: &'a dyn Memory,
    nodes: &'a [Node],
    scanned: &'a Scanned,
    options: &'a Options,
    states: Vec<BlockState>,
    /// Not visited yet.
    unmet: Vec<bool>,
    stack: Vec<u32>,
    /// Targets of interior pointers from roots and reachable blocks.
    seeds: Vec<u32>,
    /// Is this the address of a vtable?
    tables: HashMap<u64, bool>,
}

pub fn mark(
    memory: &dyn Memory,
    nodes: &[Node],
    index: &Index,
    scanned: &Scanned,
    registers: &[u64],
    options: &Options,
) -> Vec<BlockState> {
    let nothing = BlockState { kind: Kind::Definite, leader: 0, indirect_bytes: 0, indirect_blocks: 0, heuristic: None };
    let mut states = vec![nothing; nodes.len()];
    states.iter_mut().zip(0..).for_each(|(s, i)| s.leader = i);
    let mut marker = Marker {
        memory,
        nodes,
        scanned,
        options,
        states,
        unmet: vec![true; nodes.len()],
        stack: Vec::new(),
        seeds: Vec::new(),
        tables: HashMap::new(),
    };
    marker.reachable(index, registers);
    marker.possible();
    marker.cliques();
    marker.states
}

impl Marker<'_> {
    fn reachable(&mut self, index: &Index, registers: &[u64]) {
        for &value in registers {
            if let Some(target) = index.find(value) {
                let offset = u32::try_from(value - self.nodes[target as usize].addr).unwrap_or(u32::MAX);
                if offset == 0 { self.follow(&[target], &[]) } else { self.follow(&[], &[Interior { target, offset }]) }
            }
        }
        let scanned = self.scanned;
        let (starts, interiors) = scanned.root_edges();
        self.follow(starts, interiors);
        while let Some(block) = self.stack.pop() {
            let (starts, interiors) = scanned.block_edges(block);
            self.follow(starts, interiors);
        }
    }

    /// Pointers found in reachable memory.
    fn follow(&mut self, starts: &[u32], interiors: &[Interior]) {
        for &target in starts {
            self.states[target as usize].heuristic = None;
            self.reach(target);
        }
        for &edge in interiors {
            let target = edge.target as usize;
            if !self.unmet[target] {
                continue;
            }
            match self.accepted(edge) {
                Some(heuristic) => {
                    self.states[target].heuristic = Some(heuristic);
                    self.reach(edge.target);
                }
                None => self.seeds.push(edge.target),
            }
        }
    }

    fn reach(&mut self, target: u32) {
        if std::mem::replace(&mut self.unmet[target as usize], false) {
            self.states[target as usize].kind = Kind::Reachable;
            self.stack.push(target);
        }
    }

    fn possible(&mut self) {
        let scanned = self.scanned;
        for seed in std::mem::take(&mut self.seeds) {
            self.suspect(seed);
        }
        while let Some(block) = self.stack.pop() {
            let (starts, interiors) = scanned.block_edges(block);
            starts.iter().for_each(|&t| self.suspect(t));
            interiors.iter().for_each(|e| self.suspect(e.target));
        }
    }

    fn suspect(&mut self, target: u32) {
        if std::mem::replace(&mut self.unmet[target as usize], false) {
            self.states[target as usize].kind = Kind::Possible;
            self.stack.push(target);
        }
    }

    fn cliques(&mut self) {
        let scanned = self.scanned;
        for leader in oldest_first(self.nodes, &self.unmet) {
            if !std::mem::replace(&mut self.unmet[leader as usize], false) {
                continue;
            }
            self.stack.push(leader);
            while let Some(block) = self.stack.pop() {
                let (starts, interiors) = scanned.block_edges(block);
                starts.iter().for_each(|&t| self.join(leader, t));
                interiors.iter().for_each(|e| self.join(leader, e.target));
            }
        }
        for block in 0..self.nodes.len() {
            let mut leader = self.states[block].leader;
            while self.states[leader as usize].leader != leader {
                leader = self.states[leader as usize].leader;
            }
            self.states[block].leader = leader;
        }
    }

    /// `target` is met on the way from `leader`.
    fn join(&mut self, leader: u32, target: u32) {
        let t = target as usize;
        let met = !std::mem::replace(&mut self.unmet[t], false);
        // Met before and not the leader of another clique: its place is settled.
        if met && (self.states[t].kind != Kind::Definite || target == leader) {
            return;
        }
        let (bytes, blocks) = (self.states[t].indirect_bytes, self.states[t].indirect_blocks);
        self.states[t] = BlockState { kind: Kind::Indirect, leader, indirect_bytes: 0, indirect_blocks: 0, heuristic: None };
        let sums = &mut self.states[leader as usize];
        sums.indirect_bytes += bytes + self.nodes[t].size;
        sums.indirect_blocks += blocks + 1;
        if !met {
            self.stack.push(target);
        }
    }

    fn accepted(&mut self, edge: Interior) -> Option<Heuristic> {
        let shape = self.scanned.shapes[edge.target as usize];
        let fits = |h: Heuristic, offset: u32| shape & 1 << h as u8 != 0 && edge.offset == offset;
        if shape == 0 {
            None
        } else if fits(Heuristic::StdString, 24) {
            Some(Heuristic::StdString)
        } else if fits(Heuristic::Length64, 8) {
            Some(Heuristic::Length64)
        } else if fits(Heuristic::NewArray, 8) {
            Some(Heuristic::NewArray)
        } else if shape & 1 << Heuristic::MultipleInheritance as u8 != 0 && self.has_tables(edge) {
            Some(Heuristic::MultipleInheritance)
        } else {
            None
        }
    }

    fn has_tables(&mut self, edge: Interior) -> bool {
        let base = self.nodes[edge.target as usize].addr;
        edge.offset.is_multiple_of(8)
            && edge.offset != u32::MAX
            && self.is_table_at(base + u64::from(edge.offset))
            && self.is_table_at(base)
    }

    /// Does the word at `addr` hold the address of a vtable?
    fn is_table_at(&mut self, addr: u64) -> bool {
        let Some(table) = word(self.memory, addr) else { return false };
        if !table.is_multiple_of(8) || table < 4096 || !contains(&self.options.tables, table) {
            return false;
        }
        if let Some(&known) = self.tables.get(&table) {
            return known;
        }
        let answer = self.is_table(table);
        self.tables.insert(table, answer);
        answer
    }

    fn is_table(&self, table: u64) -> bool {
        let mut functions = 0;
        for i in 0..TABLE_WORDS {
            match word(self.memory, table + 8 * i) {
                Some(0) => {}
                Some(entry) if contains(&self.options.code, entry) => functions += 1,
                _ => return false,
            }
            if functions == FUNCTIONS {
                return true;
            }
        }
        false
    }
}

/// The lost blocks in the order in which they lead. Who allocates from the bottom up, as Valgrind does, finds the oldest first in order of address;
/// where blocks lie apart by their size, the address says nothing.
fn oldest_first(nodes: &[Node], lost: &[bool]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..nodes.len() as u32).filter(|&i| lost[i as usize]).collect();
    order.sort_by_key(|&i| nodes[i as usize].age);
    order
}

/// The defined word at an address.
fn word(memory: &dyn Memory, addr: u64) -> Option<u64> {
    let (mut bytes, mut v) = ([0; 8], [0xff; 8]);
    let there = memory.read(addr, &mut bytes) == 8 && memory.v(addr, &mut v) == 8 && v == [0; 8];
    there.then(|| u64::from_ne_bytes(bytes))
}
