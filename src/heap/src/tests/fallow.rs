use super::*;
use crate::entries::{free, malloc};
use crate::fallow;
use memcheck_abi::layout::{A_BASE, v_of};
use std::vec::Vec;

/// Pages of the range that take memory of their own.
fn resident(at: u64, len: u64) -> usize {
    use std::io::{Read, Seek, SeekFrom};
    let mut map = std::fs::File::open("/proc/self/pagemap").expect("the kernel shows its pages");
    let mut entries = std::vec![0; (len / 4096 * 8) as usize];
    map.seek(SeekFrom::Start(at / 4096 * 8)).and_then(|_| map.read_exact(&mut entries)).expect("entries for all pages");
    const PRESENT: u64 = 1 << 63;
    const FILE: u64 = 1 << 61;
    let words = entries.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    words.filter(|word| word & (PRESENT | FILE) == PRESENT).count()
}

/// Shadow of freed blocks takes no memory, says what it said, and serves the next blocks.
#[test]
fn shadow_of_freed_memory_is_given_back() {
    let (_guard, _) = start();
    const SIZE: u64 = 3000;
    let blocks: Vec<u64> = (0..2000).map(|_| malloc(SIZE)).collect();
    let (low, high) = (*blocks.iter().min().expect("blocks"), *blocks.iter().max().expect("blocks") + SIZE);
    let pages = [(v_of(low), v_of(high)), (A_BASE + low / 8, A_BASE + high / 8)].map(|(from, to)| (from & !4095, (to - from) & !4095));
    for &p in &blocks {
        shadow::make_defined(p, SIZE);
    }
    let kept = blocks[1000];
    blocks.iter().filter(|&&p| p != kept).for_each(|&p| {
        free(p);
    });
    let before = pages.map(|(at, len)| resident(at, len));
    fallow::give_back();
    let after = pages.map(|(at, len)| resident(at, len));
    assert!(after[0] < before[0] / 4 && after[1] < before[1] / 2 + 2, "{before:?} pages, {after:?} are left");
    assert_v(kept, SIZE, 0);
    assert_a(kept, SIZE, false);
    blocks.iter().filter(|&&p| p != kept).for_each(|&p| {
        assert_v(p, SIZE, 0xff);
        assert_a(p, SIZE, true);
    });
    for _ in 0..20_000 {
        let p = malloc(SIZE);
        assert_v(p, SIZE, 0xff);
        shadow::make_defined(p, SIZE);
        assert_live(p, SIZE);
        free(p);
        assert_v(p, SIZE, 0xff);
    }
    assert_v(kept, SIZE, 0);
    free(kept);
}
