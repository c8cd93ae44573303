//! Numbers to read: `cargo test --release -p memcheck-leak -- --ignored --nocapture speed`.

use super::*;
use crate::Kind;
use std::time::Instant;

/// A million blocks of 64 bytes: a list through half of them, the rest in lost trees.
#[test]
#[ignore = "prints timings"]
fn speed() {
    const N: u64 = 1_000_000;
    let mut p = Program::new(&[]);
    p.blocks = (0..N).map(|i| block(HEAP + 128 * i, 64)).collect();
    p.memory.regions.truncate(1);
    p.memory.map(HEAP, 128 * N as usize);
    let mut random = Random(7);
    let mut order: Vec<usize> = (0..N as usize / 2).collect();
    (1..order.len()).for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
    p.root(0, order[0], 0);
    let (_, bytes, v) = &mut p.memory.regions[1];
    let mut poke = |from: usize, word: usize, to: usize| {
        let at = 128 * from + 8 * word;
        bytes[at..at + 8].copy_from_slice(&(HEAP + 128 * to as u64).to_ne_bytes());
    };
    order.windows(2).for_each(|w| poke(w[0], 1, w[1]));
    let half = N as usize / 2;
    (0..half / 4).for_each(|i| (1..4).for_each(|k| poke(half + i, k, half + (i * 3 + k) % half)));
    v.chunks_mut(128).for_each(|slot| slot[64..].fill(0xff));
    for threads in [1, 2, 0] {
        p.options.threads = threads;
        let at = Instant::now();
        let states = p.search();
        let took = at.elapsed();
        let count = |k: Kind| states.iter().filter(|s| s.kind == k).count();
        println!(
            "{threads} threads: {took:?}, {} reachable, {} definite, {} indirect",
            count(Kind::Reachable),
            count(Kind::Definite),
            count(Kind::Indirect)
        );
        assert_eq!(count(Kind::Reachable), half);
    }
}
