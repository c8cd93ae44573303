use super::*;
use crate::entries::{calloc, delete, delete_array, free, malloc, memalign, new, new_array, new_array_aligned, realloc};
use memcheck_abi::event::{ErrorEvent, Family, Kind, Place};
use memcheck_rt::callstack;
use memcheck_rt::{depot, report::host::drain};

fn one(kind: Kind) -> ErrorEvent {
    let (n, event) = drain();
    assert_eq!((n, event.kind), (1, kind as u32));
    event
}

fn frames(id: u32) -> u64 {
    depot::get(id).next().unwrap_or(0)
}

#[test]
fn double_free_names_both_stacks() {
    let (_guard, ctx) = start();
    ctx.regs.rip = 0x11;
    let p = malloc(30);
    ctx.regs.rip = 0x22;
    free(p);
    assert_eq!(drain().0, 0);
    ctx.regs.rip = 0x33;
    free(p);
    let e = one(Kind::InvalidFree);
    assert_eq!((e.addr, e.place, e.block.addr, e.block.size), (p, Place::FreedBlock as u32, p, 30));
    assert_eq!((frames(e.block.alloc_stack), frames(e.block.free_stack), e.stack[0]), (0x11, 0x22, 0x33));
}

#[test]
fn bad_pointers_change_nothing() {
    let (_guard, _) = start();
    let p = malloc(100);
    let before = crate::totals();
    for bad in [p + 4, p - 16, p + 100, 0x1234, 1 << 50, memcheck_abi::layout::HEAP_END - 8] {
        free(bad);
        let e = one(Kind::InvalidFree);
        assert_eq!(e.addr, bad);
        assert_eq!(e.place == Place::LiveBlock as u32, bad.abs_diff(p) < 200);
    }
    assert_eq!(realloc(p + 8, 20), 0);
    assert_eq!(one(Kind::InvalidFree).addr, p + 8);
    let after = crate::totals();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 7), "invalid frees count as frees, and a failed realloc as an allocation too");
    assert_live(p, 100);
    free(p);
    free(0);
    assert_eq!(crate::totals().1 - after.1, 1, "free(NULL) does not");
    assert_eq!(drain().0, 0);
}

#[test]
fn mismatch_matrix() {
    let (_guard, _) = start();
    type Make = fn() -> u64;
    type Drop = extern "C" fn(u64) -> u64;
    let rows: [(Make, Family); 6] = [
        (|| malloc(10), Family::Malloc),
        (|| calloc(2, 5), Family::Malloc),
        (|| memalign(64, 10), Family::Malloc),
        (|| new(10), Family::New),
        (|| new_array(10), Family::NewArray),
        (|| new_array_aligned(10, 128), Family::NewArray),
    ];
    let drops: [(Drop, Family); 3] = [(free, Family::Malloc), (delete, Family::New), (delete_array, Family::NewArray)];
    for (make, made) in rows {
        for (release, by) in drops {
            let p = make();
            release(p);
            let (n, e) = drain();
            assert_eq!(n, usize::from(made != by));
            if n == 1 {
                assert_eq!((e.kind, e.place, e.block.size), (Kind::MismatchedFree as u32, Place::LiveBlock as u32, 10));
            }
            assert_a(p, 10, true);
        }
    }
    let p = realloc(new(10), 20);
    one(Kind::MismatchedFree);
    free(p);
    assert_eq!(drain().0, 0, "the result of realloc is malloc's");
}

#[test]
fn negative_sizes_are_fishy() {
    let (_guard, _) = start();
    let minus = u64::MAX;
    let p = malloc(8);
    let calls: [(&str, &dyn Fn() -> u64); 6] = [
        ("malloc(size)", &|| malloc(minus)),
        ("calloc(nmemb)", &|| calloc(minus, 1)),
        ("calloc(size)", &|| calloc(1, minus)),
        ("realloc(size)", &|| realloc(p, minus)),
        ("memalign(size)", &|| memalign(16, minus)),
        ("__builtin_vec_new(size)", &|| new_array(minus)),
    ];
    for (name, call) in calls {
        assert_eq!(call(), 0);
        let e = one(Kind::Fishy);
        assert_eq!((&e.name[..name.len()], e.args[0]), (name.as_bytes(), minus));
    }
    assert_live(p, 8);
    free(p);
}

#[test]
fn realloc_corner_cases() {
    let (_guard, _) = start();
    let p = realloc(0, 40);
    assert_live(p, 40);
    assert_eq!(realloc(p, 0), 0);
    assert_a(p, 40, true);
    let (a, b) = (malloc(0), malloc(0));
    assert!(a != b && a % 16 == 0);
    assert_eq!(crate::find(a).map(|f| (f.0, f.1.addr)), Some((Place::LiveBlock, a)));
    free(a);
    free(b);
    assert_eq!(drain().0, 0);
}

/// Which block an address is described by.
#[test]
fn descriptions() {
    let (_guard, _) = start();
    let blocks: std::vec::Vec<u64> = (0..40).map(|_| malloc(1000)).collect();
    for &p in &blocks {
        for (offset, inside) in [(0u64, true), (999, true), (1000, false), (1023, false)] {
            let found = crate::find(p + offset).expect("a block");
            assert_eq!((found.0, found.1.addr), (Place::LiveBlock, p), "{offset} {inside}");
        }
        for before in [1, 24] {
            let found = crate::find(p - before).expect("a block");
            assert!(found.1.addr == p || found.1.addr + 1000 + 24 > p - before, "before {before}");
        }
    }
    free(blocks[7]);
    let found = crate::find(blocks[7] + 10).expect("a block");
    assert_eq!((found.0, found.1.addr), (Place::FreedBlock, blocks[7]));
    for large in [200_000u64, 5_000_000] {
        let p = malloc(large);
        for offset in [0, large - 1, large, large + 23] {
            assert_eq!(crate::find(p + offset).map(|f| f.1.addr), Some(p));
        }
        assert_eq!(crate::find(p - 20).map(|f| f.1.addr), Some(p));
        free(p);
        assert_eq!(crate::find(p + 77).map(|f| (f.0, f.1.addr)), Some((Place::FreedBlock, p)));
    }
    blocks.iter().for_each(|&p| {
        free(p);
    });
}

/// Each block keeps the stack of its own allocation, whatever the thread's memory of stacks holds.
#[test]
fn allocation_stacks() {
    let (_guard, ctx) = start();
    (ctx.stack_high, ctx.guest_rsp) = (0x0ff0_0010_0000, 0x0ff0_0000_0100);
    let mut random = Random(8);
    let blocks: std::vec::Vec<_> = (0..20_000)
        .map(|_| {
            ctx.regs.rip = 0x40_0000 + random.below(3);
            callstack::host::clear(ctx.guest_rsp, ctx.guest_rsp + 4096);
            let depth = random.below(15);
            let mut frames = std::vec![ctx.regs.rip];
            for i in 0..depth {
                let frame = 0x40_1000 + random.below(4);
                callstack::host::push(ctx.guest_rsp + 16 * (depth - i), frame);
                frames.insert(1, frame);
            }
            frames.truncate(12);
            (malloc(10), frames)
        })
        .collect();
    for (p, frames) in &blocks {
        let block = crate::find(*p).expect("a block").1;
        assert!(depot::get(block.alloc_stack).eq(frames.iter().copied()));
        free(*p);
    }
    callstack::host::clear(ctx.guest_rsp, ctx.guest_rsp + 4096);
}

#[test]
fn stack_addresses() {
    let (_guard, ctx) = start();
    (ctx.stack_low, ctx.stack_high, ctx.guest_rsp) = (0x0ff0_0000_0000, 0x0ff0_0001_0000, 0x0ff0_0000_8000);
    free(ctx.guest_rsp + 64);
    let e = one(Kind::InvalidFree);
    assert_eq!((e.place, e.place_thread), (Place::Stack as u32, 1));
    free(ctx.guest_rsp - 4096);
    let e = one(Kind::InvalidFree);
    assert_eq!((e.place, e.place_distance), (Place::BelowStack as u32, 4096));
}

#[test]
fn stacks_of_code_anywhere() {
    let low: std::vec::Vec<u64> = (0..5).map(|i| 0x40_2000 + i).collect();
    let high = [0x40_2000, 0x7f12_3456_7890, u64::from(u32::MAX) + 1];
    let (_guard, _) = start();
    for frames in [&low[..], &low[..4], &high, &high[..1]] {
        let id = depot::intern(frames);
        assert!(depot::get(id).eq(frames.iter().copied()));
        assert_eq!(depot::intern(frames), id, "stored once");
    }
    assert!(depot::get(0).next().is_none());
}

/// A walk over a tree, with stacks that are cut off at 12 frames and such that are not.
#[test]
fn stacks_with_common_callers() {
    fn walk(stack: &mut std::vec::Vec<u64>, depth: u64, all: &mut std::vec::Vec<std::vec::Vec<u64>>) {
        let cut: std::vec::Vec<u64> = stack.iter().rev().take(12).copied().collect();
        all.push(cut);
        for child in 0..if depth < 14 { 2 } else { 0 } {
            stack.push(0x50_0000 + depth * 256 + child);
            walk(stack, depth + 1, all);
            stack.pop();
        }
    }
    let (_guard, _) = start();
    let mut all = std::vec::Vec::new();
    walk(&mut std::vec![0x60_0000, 0x60_1000], 0, &mut all);
    let ids: std::vec::Vec<u32> = all.iter().map(|frames| depot::intern(frames)).collect();
    for (frames, &id) in all.iter().zip(&ids) {
        assert!(depot::get(id).eq(frames.iter().copied()));
        assert_eq!(depot::intern(frames), id, "stored once");
    }
}

#[test]
fn so_many_stacks_that_the_table_grows() {
    let (_guard, _) = start();
    let stack = |i: u64| [0x41_0000 + i, 0x42_0000, 0x43_0000 + i % 7];
    let ids: std::vec::Vec<u32> = (0..100_000).map(|i| depot::intern(&stack(i))).collect();
    for (i, &id) in (0..).zip(&ids) {
        assert_eq!(depot::intern(&stack(i)), id, "stored once");
        assert!(depot::get(id).eq(stack(i)));
    }
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..200_000).for_each(|i| assert!(depot::get(depot::intern(&stack(i))).eq(stack(i)))));
        }
    });
}
