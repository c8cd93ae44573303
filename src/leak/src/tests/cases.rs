use super::*;
use crate::Heuristic;
use crate::Kind::{self, Definite, Indirect, Outer, Possible, Reachable};

fn kinds(program: &Program) -> Vec<Kind> {
    program.search().iter().map(|s| s.kind).collect()
}

#[test]
fn start_interior_and_past_the_end() {
    let mut p = Program::new(&[16, 16, 16, 16, 0, 16]);
    p.root(0, 0, 0);
    p.root(1, 1, 15);
    p.root(2, 2, 16);
    p.root(4, 4, 0);
    p.registers.push(p.addr(5));
    assert_eq!(kinds(&p), [Reachable, Possible, Definite, Definite, Reachable, Reachable]);
}

#[test]
fn chains() {
    // 0 → 1 by start pointers; 2 by an interior one → 3; 4 lost → 5 inside; 6 raised by a second pointer.
    let mut p = Program::new(&[64; 8]);
    p.root(0, 0, 0);
    p.link(0, 3, 1, 0);
    p.root(1, 2, 20);
    p.link(2, 0, 3, 0);
    p.link(4, 7, 5, 33);
    p.root(2, 6, 1);
    p.link(1, 0, 6, 0);
    p.link(6, 1, 7, 0);
    assert_eq!(kinds(&p), [Reachable, Reachable, Possible, Possible, Definite, Indirect, Reachable, Reachable]);
}

#[test]
fn only_defined_aligned_words_inside_the_block_count() {
    let mut p = Program::new(&[60, 16, 16, 16, 16]);
    p.root(0, 0, 0);
    p.link(0, 0, 1, 0);
    p.memory.poke_v(p.addr(0) + 3, 1);
    p.memory.poke(p.addr(0) + 20, p.addr(2));
    p.link(0, 7, 3, 0); // the last word is only half inside
    p.link(0, 6, 4, 0);
    assert_eq!(kinds(&p), [Reachable, Definite, Definite, Definite, Reachable]);
}

#[test]
fn cliques_and_their_sums() {
    // 0 → 1 → 2; 3 ⇄ 4; 5 → 5; 7 → 6, 7 → 0: the later leader takes over the earlier one's clique.
    let mut p = Program::new(&[8, 16, 24, 32, 40, 48, 56, 64]);
    p.link(0, 0, 1, 0);
    p.link(1, 0, 2, 4);
    p.link(3, 0, 4, 0);
    p.link(4, 0, 3, 0);
    p.link(5, 0, 5, 8);
    p.link(7, 0, 6, 0);
    p.link(7, 1, 0, 0);
    let states = p.search();
    let kinds: Vec<_> = states.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Indirect, Indirect, Indirect, Definite, Indirect, Definite, Indirect, Definite]);
    let leaders: Vec<_> = states.iter().map(|s| s.leader).collect();
    assert_eq!(leaders, [7, 7, 7, 3, 3, 5, 7, 7]);
    let sums: Vec<_> = states.iter().map(|s| (s.indirect_bytes, s.indirect_blocks)).collect();
    assert_eq!(sums, [(0, 0), (0, 0), (0, 0), (40, 1), (0, 0), (0, 0), (0, 0), (8 + 16 + 24 + 56, 4)]);
}

#[test]
fn a_shared_block_belongs_to_the_first_leader() {
    let mut p = Program::new(&[8, 100, 8]);
    p.link(0, 0, 1, 0);
    p.link(2, 0, 1, 0);
    let states = p.search();
    assert_eq!(
        states.iter().map(|s| (s.kind, s.leader, s.indirect_bytes)).collect::<Vec<_>>(),
        [(Definite, 0, 100), (Indirect, 0, 0), (Definite, 2, 0)]
    );
}

#[test]
fn inner_blocks_replace_outer_ones() {
    let mut p = Program::new(&[1000]);
    let base = p.addr(0);
    let inner = |addr, size| LiveBlock { family: Family::Custom as u32, ..block(addr, size) };
    p.blocks = vec![block(base, 1000), inner(base + 100, 50), inner(base + 200, 50)];
    p.memory.poke(DATA, base + 200);
    p.memory.poke(base + 600, base + 100);
    assert_eq!(kinds(&p), [Outer, Definite, Reachable]);
    p.blocks = vec![inner(base, 1000), block(base, 1000), block(base, 8)];
    assert_eq!(kinds(&p), [Outer, Outer, Definite]);
}

fn heuristics(p: &Program) -> Vec<Option<Heuristic>> {
    let states = p.search();
    assert!(states.iter().all(|s| (s.kind == Reachable) == (s.heuristic.is_some()) || s.kind == Reachable));
    states.iter().map(|s| s.heuristic).collect()
}

#[test]
fn first_words_make_interior_pointers_good() {
    let mut p = Program::new(&[24 + 10 + 1, 8 + 40, 8 + 36, 24 + 10 + 2, 8 + 37, 64]);
    for (block, offset) in [(0, 24), (1, 8), (2, 8), (3, 24), (4, 8)] {
        p.root(block, block as usize, offset);
    }
    for (block, first, second) in [(0, 10, 10), (1, 40, 0), (2, 12, 0), (3, 10, 10), (4, 12, 0)] {
        p.memory.poke(p.addr(block), first);
        p.memory.poke(p.addr(block) + 8, second);
    }
    // What a block that is good by a heuristic holds is good as well, without one.
    p.link(1, 2, 5, 0);
    let (s, l, n) = (Some(Heuristic::StdString), Some(Heuristic::Length64), Some(Heuristic::NewArray));
    assert_eq!(heuristics(&p), [s, l, n, None, None, None]);
    assert_eq!(kinds(&p), [Reachable, Reachable, Reachable, Possible, Possible, Reachable]);
    p.root(100, 1, 0);
    assert_eq!(heuristics(&p), [s, None, n, None, None, None], "a start pointer needs no heuristic");
    p.options.heuristics = [false; 4];
    assert_eq!(kinds(&p), [Possible, Reachable, Possible, Possible, Possible, Reachable]);
}

#[test]
fn second_base_classes() {
    const TABLES: u64 = 0x40_0000;
    const CODE: u64 = 0x50_0000;
    let mut p = Program::new(&[64; 5]);
    p.memory.map(TABLES, 8192);
    p.options.tables = vec![Root { start: TABLES, end: TABLES + 8192 }];
    p.options.code = vec![Root { start: CODE, end: CODE + 4096 }];
    let entries = [(0, CODE), (8, 0), (16, CODE + 64), (24, 77), (256, CODE), (264, 78), (2000, CODE), (4096, CODE), (4104, CODE)];
    entries.iter().for_each(|&(at, value)| p.memory.poke(TABLES + at, value));
    // good + good, good + bad entry, one function only, bad base, unaligned
    let rows = [(0, 4096, 16), (0, 256, 16), (0, 2000, 16), (256, 0, 16), (0, 4096, 17)];
    for (i, &(base, second, offset)) in rows.iter().enumerate() {
        p.memory.poke(p.addr(i), TABLES + base);
        p.memory.poke(p.addr(i) + 16, TABLES + second);
        p.root(i as u64, i, offset);
    }
    assert_eq!(heuristics(&p), [Some(Heuristic::MultipleInheritance), None, None, None, None]);
    assert_eq!(kinds(&p), [Reachable, Possible, Possible, Possible, Possible]);
}

/// Blocks and roots that cross the pieces of the scan, pages that cannot be read, blocks that are not mapped at all.
#[test]
fn large_and_unreadable_memory() {
    let mut p = Program::new(&[3_000_000, 100, 100, 100, 100]);
    p.root(0, 0, 0);
    for (word, to) in [(0u64, 1), (32_768, 2), (374_999, 3)] {
        p.link(0, word, to, 0);
    }
    assert_eq!(kinds(&p), [Reachable, Reachable, Reachable, Reachable, Definite]);
    let gone = LiveBlock { addr: 0x100_0000_0000, size: 1 << 20, ..p.blocks[0] };
    p.blocks.push(gone);
    p.blocks.push(LiveBlock { addr: 0x200_0000_0000, size: 1 << 27, ..gone });
    p.blocks.push(LiveBlock { addr: u64::MAX - 100, size: u64::MAX, ..gone });
    let region = p.memory.regions.pop().expect("the heap");
    let hole = 1_000_000 & !4095;
    p.memory.regions.push((region.0, region.1[..hole].to_vec(), region.2[..hole].to_vec()));
    p.memory.regions.push((region.0 + hole as u64 + 4096, region.1[hole + 4096..].to_vec(), region.2[hole + 4096..].to_vec()));
    assert_eq!(kinds(&p), [Reachable, Reachable, Reachable, Reachable, Definite, Definite, Definite, Outer]);
}

#[test]
fn nothing_at_all() {
    let p = Program::new(&[]);
    assert!(p.search().is_empty());
}
