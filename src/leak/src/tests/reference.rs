//! The definitions, written down as closures over a table of "points to", without a thought of speed.

use super::*;
use crate::{Heuristic, Kind};
use std::collections::BTreeSet;

type Pointers = Vec<(usize, u64)>;

/// Where the words of a range point: block and offset.
fn pointers(p: &Program, from: u64, to: u64) -> Pointers {
    let mut found = Vec::new();
    for at in (from..to).filter(|a| a % 8 == 0 && a + 8 <= to) {
        let Some(word) = p.memory.peek(at) else { continue };
        found.extend(p.blocks.iter().position(|b| word >= b.addr && word < b.addr + b.size.max(1)).map(|i| (i, word - p.blocks[i].addr)));
    }
    found
}

fn heuristic(p: &Program, block: usize, offset: u64) -> Option<Heuristic> {
    let (base, size) = (p.addr(block), p.blocks[block].size);
    let first = p.memory.peek(base).filter(|_| size >= 8)?;
    let second = p.memory.peek(base + 8).filter(|_| size >= 16);
    if offset == 24 && second.is_some_and(|cap| cap < size && 24 + cap + 1 == size && first <= cap) {
        return Some(Heuristic::StdString);
    }
    if offset == 8 && first > 0 && first == size - 8 {
        return Some(Heuristic::Length64);
    }
    (offset == 8 && first > 0 && (size - 8) % first == 0).then_some(Heuristic::NewArray)
}

/// Everything that `edges` lead to from `set`, `set` included.
fn closure(mut set: BTreeSet<usize>, edges: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
    loop {
        let more: BTreeSet<usize> = set.iter().flat_map(|&b| edges(b)).filter(|t| !set.contains(t)).collect();
        if more.is_empty() {
            return set;
        }
        set.extend(more);
    }
}

/// Who leads each lost block: in order of age, then address, blocks without an owner take all they lead to that has none, and leaders themselves.
fn owners(lost: &[bool], ages: &[u32], edges: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    const NOBODY: usize = usize::MAX;
    let mut owner = vec![NOBODY; lost.len()];
    let mut order: Vec<usize> = (0..lost.len()).filter(|&i| lost[i]).collect();
    order.sort_by_key(|&i| (ages[i], i));
    for leader in order {
        if owner[leader] != NOBODY {
            continue;
        }
        owner[leader] = leader;
        let mut fresh = BTreeSet::from([leader]);
        while let Some(block) = fresh.pop_first() {
            for target in edges(block) {
                if owner[target] == NOBODY {
                    fresh.insert(target);
                    owner[target] = leader;
                } else if owner[target] == target {
                    owner[target] = leader;
                }
            }
        }
    }
    owner
}

fn check(p: &Program) -> [usize; 4] {
    let from_roots = pointers(p, DATA, DATA + 4096);
    let from: Vec<Pointers> = p.blocks.iter().map(|b| pointers(p, b.addr, b.addr + b.size)).collect();
    let good = |list: &Pointers| list.iter().filter(|&&(b, o)| o == 0 || heuristic(p, b, o).is_some()).map(|e| e.0).collect::<Vec<_>>();
    let any = |list: &Pointers| list.iter().map(|e| e.0).collect::<Vec<_>>();
    let reachable = closure(good(&from_roots).into_iter().collect(), |b| good(&from[b]));
    let all = closure(reachable.iter().copied().chain(any(&from_roots)).collect(), |b| any(&from[b]));
    let states = p.search();
    let mut counts = [0; 4];
    let lost: Vec<bool> = (0..p.blocks.len()).map(|i| !all.contains(&i)).collect();
    let ages: Vec<u32> = p.blocks.iter().map(|b| b.age).collect();
    let owner = owners(&lost, &ages, |b| any(&from[b]).into_iter().filter(|&t| lost[t]).collect());
    for (i, state) in states.iter().enumerate() {
        let expected = if reachable.contains(&i) {
            Kind::Reachable
        } else if all.contains(&i) {
            Kind::Possible
        } else if owner[i] == i {
            Kind::Definite
        } else {
            Kind::Indirect
        };
        assert_eq!(state.kind, expected, "block {i}");
        counts[expected as usize] += 1;
        let directly = reachable.iter().flat_map(|&b| &from[b]).chain(&from_roots).any(|&(b, o)| b == i && o == 0);
        assert_eq!(state.heuristic.is_some(), expected == Kind::Reachable && !directly, "block {i}");
        if expected == Kind::Indirect {
            let leader = state.leader as usize;
            assert_eq!(states[leader].kind, Kind::Definite);
            assert!(closure([leader].into(), |b| any(&from[b])).contains(&i));
        } else {
            assert_eq!(state.leader as usize, i);
        }
        let pointed = (0..lost.len()).any(|j| lost[j] && j != i && any(&from[j]).contains(&i));
        assert!(pointed || !lost[i] || expected == Kind::Definite, "nothing points to a block that is indirectly lost");
    }
    for (i, state) in states.iter().enumerate() {
        let mine = || states.iter().zip(&p.blocks).filter(|(s, _)| s.kind == Kind::Indirect && s.leader == i as u32);
        assert_eq!((state.indirect_blocks, state.indirect_bytes), (mine().count() as u64, mine().map(|(_, b)| b.size).sum()));
    }
    counts
}

/// Random graphs of all densities: every kind must occur, and often.
#[test]
fn agrees_with_the_definitions() {
    let mut random = Random(99);
    let mut counts = [0; 4];
    for round in 0..400 {
        let n = 1 + random.below(40) as usize;
        let sizes: Vec<u64> = (0..n).map(|_| [0, 7, 8, 16, 35, 48, 64, 200][random.below(8) as usize]).collect();
        let mut p = Program::new(&sizes);
        p.blocks.iter_mut().for_each(|b| b.age = random.below(1 + round as u64 % 40) as u32);
        let links = random.below(3 * n as u64);
        for _ in 0..links {
            let (from, to) = (random.below(n as u64) as usize, random.below(n as u64) as usize);
            let offset = [0, 0, 0, 1, 8, 24, sizes[to]][random.below(7) as usize];
            if sizes[from] >= 8 {
                let word = random.below(sizes[from] / 8);
                p.link(from, word, to, offset);
                if random.below(10) == 0 {
                    p.memory.poke_v(p.addr(from) + 8 * word + random.below(8), 1);
                }
            }
        }
        for _ in 0..random.below(6) {
            let to = random.below(n as u64) as usize;
            p.root(random.below(512), to, [0, 0, 8, 24][random.below(4) as usize]);
        }
        for (block, &size) in sizes.iter().enumerate() {
            if size >= 16 && random.below(3) == 0 {
                let words = [(10, 10), (size - 8, 0), (4, 0), (0, 0)][random.below(4) as usize];
                p.memory.poke(p.addr(block), words.0);
                p.memory.poke(p.addr(block) + 8, words.1);
            }
        }
        p.options.threads = 1 + round % 3;
        check(&p).iter().zip(&mut counts).for_each(|(n, sum)| *sum += n);
    }
    assert!(counts.iter().all(|&n| n > 300), "{counts:?}");
}
