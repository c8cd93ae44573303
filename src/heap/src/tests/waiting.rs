use super::*;
use crate::entries::{free, malloc};
use memcheck_abi::event::Place;
use std::vec::Vec;

fn is_waiting(p: u64) -> bool {
    let cache = crate::cache::current(context::current()).expect("a cache");
    crate::map::slot_of(p).is_some_and(|s| {
        let freed = s.record.head().state() == crate::record::State::Quarantined;
        freed && (s.kind == crate::map::Kind::Large || crate::quarantine::holds(cache, s.record))
    })
}

/// Nothing waits any more.
fn empty_the_queue() {
    crate::settings::set(&config(0));
    free(malloc(1));
    crate::quarantine::flush(crate::cache::current(context::current()).expect("a cache"));
    free(malloc(1));
    malloc(1);
    crate::settings::set(&config(20_000_000));
}

/// A freed block stays until twenty million bytes, red zones included, were freed after it (a quarter less where free slots abound, as here),
/// and not much longer.
#[test]
fn first_in_first_out_up_to_the_volume() {
    let (_guard, _) = start();
    let size = 1000;
    context::current().regs.rip = 0x77_0000;
    let first: Vec<u64> = (0..100).map(|_| malloc(size)).collect();
    first.iter().for_each(|&p| {
        free(p);
    });
    context::current().regs.rip = 0x78_0000;
    // A slot that is used again waits again, but with other stacks.
    let waits =
        |p: u64| is_waiting(p) && crate::find(p).is_some_and(|f| memcheck_rt::depot::get(f.1.alloc_stack).next() == Some(0x77_0000));
    let mut freed = 0;
    while freed < 14_800_000 {
        free(malloc(size));
        freed += size + 48;
    }
    assert!(first.iter().all(|&p| waits(p)));
    while freed < 20_300_000 {
        free(malloc(size));
        freed += size + 48;
    }
    assert!(!first.iter().any(|&p| waits(p)));
}

#[test]
fn big_blocks_leave_first_and_giants_next() {
    let (_guard, _) = start();
    empty_the_queue();
    let small: Vec<u64> = (0..10_000).map(|_| malloc(800)).collect();
    small.iter().for_each(|&p| {
        free(p);
    });
    let big: Vec<u64> = (0..10).map(|_| malloc(4_000_000)).collect();
    big.iter().for_each(|&p| {
        free(p);
    });
    assert!(big.iter().all(|&p| is_waiting(p)), "nothing leaves by a free");
    let giant = malloc(25_000_000);
    assert!(big[..5].iter().all(|&p| !is_waiting(p)), "the oldest big blocks left at the next allocation");
    assert!(is_waiting(big[9]));
    assert!(small.iter().all(|&p| is_waiting(p)), "small ones stay");
    free(giant);
    assert_eq!(crate::find(giant + 9).map(|f| f.0), Some(Place::FreedBlock));
    free(malloc(1));
    assert!(!is_waiting(giant), "a block larger than the volume leaves next");
    assert!(is_waiting(big[9]), "before the others");
}

/// Address space is used again: the same work for ever needs a bounded number of units.
#[test]
fn memory_is_reused() {
    let (_guard, _) = start();
    let mut random = Random(77);
    let mut used = 0;
    for round in 0..30 {
        let mut blocks: Vec<u64> = Vec::new();
        for _ in 0..200 {
            blocks.push(malloc(random.size()));
            if blocks.len() > 50 {
                free(blocks.swap_remove(random.below(50) as usize));
            }
        }
        blocks.iter().for_each(|&p| {
            free(p);
        });
        if round == 9 {
            used = crate::spans::used_units();
        }
    }
    assert!(crate::spans::used_units() - used < used / 2 + 4000, "{used} units grew to {}", crate::spans::used_units());
}

/// The same if every phase of a program asks for another size.
#[test]
fn memory_is_reused_for_other_sizes() {
    let (_guard, _) = start();
    let phase = |size: u64| {
        let blocks: Vec<u64> = (0..(8 << 20) / size).map(|_| malloc(size)).collect();
        assert!(blocks.iter().all(|&p| crate::map::live_at(p).is_some_and(|block| block.size() == size)));
        blocks.iter().for_each(|&p| {
            free(p);
        });
    };
    (1..5).for_each(|i| phase(i * 1500));
    let used = crate::spans::used_units();
    (1..50).for_each(|i| phase(i * 170));
    let grown = (crate::spans::used_units() - used) * crate::layout::UNIT;
    assert!(grown < 60 << 20, "{grown} bytes");
}

/// Blocks of many megabytes are undefined, later inaccessible, without any memory for it; and defined when they are zero.
#[test]
fn long_blocks_are_painted_without_memory() {
    let (_guard, _) = start();
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
        text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
    };
    let size = (40 << 20) + 5;
    let all_v = |p: u64, value: u8| (0..size).step_by(4001).chain([size - 1]).all(|i| shadow::v(p + i) == value);
    let before = resident();
    let p = crate::entries::calloc(1, size);
    assert!(all_v(p, 0));
    free(p);
    let q = malloc(size);
    shadow::fill_v(q + 100_000, 3 << 20, 0);
    assert_eq!([q + 99_999, q + 100_000, q + 100_000 + (3 << 20)].map(shadow::v), [0xff, 0, 0xff]);
    free(q);
    // Looking at a page makes it count.
    let grown = resident().saturating_sub(before);
    assert!(grown < size / 2, "{grown} bytes");
    assert!(all_v(q, 0xff));
    assert_a(q, 5000, true);
    empty_the_queue();
    let r = crate::entries::calloc(1, size);
    assert!(all_v(r, 0));
    free(r);
    empty_the_queue();
}

/// A text that grows by a few bytes at a time: its last eight places are freed blocks, old ones are used again, and what was freed in earnest
/// still waits.
#[test]
fn replaced_blocks_drive_out_no_freed_ones() {
    let (_guard, _) = start();
    empty_the_queue();
    let freed = malloc(20_000);
    free(freed);
    let mut places = Vec::from([malloc(20_000)]);
    for i in 1..4000 {
        places.push(crate::entries::realloc(places[i - 1], 20_000 + i as u64));
    }
    assert!(is_waiting(freed));
    let live = places[3999];
    assert!(places[3999 - 8..3999].iter().all(|&p| is_waiting(p) && crate::find(p + 9).map(|f| f.0) == Some(Place::FreedBlock)));
    assert!(places.contains(&malloc(24_000)), "the places of old copies are free");
    free(live);
    empty_the_queue();
}
