use super::*;
use crate::entries::{calloc, free, malloc, malloc_usable_size, memalign, posix_memalign, realloc};
use memcheck_abi::event::ExitReport;
use std::collections::BTreeMap;

/// What the model knows of a block: size, the byte it is filled with, and how many leading bytes are filled (and defined).
#[derive(Clone, Copy)]
struct Known {
    size: u64,
    byte: u8,
    filled: u64,
}

struct Model {
    blocks: BTreeMap<u64, Known>,
    random: Random,
}

impl Model {
    fn check_new(&self, p: u64, size: u64, align: u64) {
        assert!(p != 0 && p.is_multiple_of(align), "{p:#x} for alignment {align}");
        let before = self.blocks.range(..=p).next_back();
        assert!(before.is_none_or(|(a, k)| a + k.size + 48 <= p), "overlaps the block before, or its red zone");
        let after = self.blocks.range(p..).next();
        assert!(after.is_none_or(|(&a, _)| p + size + 48 <= a), "overlaps the block after, or its red zone");
        assert_live(p, size);
        assert_eq!(malloc_usable_size(p), size);
    }

    fn check_old(&self, p: u64, known: Known) {
        let n = known.filled.min(known.size);
        assert!(bytes_mut(p, n).iter().all(|&b| b == known.byte), "contents of {p:#x}");
        assert_v(p, n, 0);
        assert_v(p + n, known.size - n, 0xff);
    }

    /// Use part of a block as a program would.
    fn fill(&mut self, p: u64, size: u64) -> Known {
        let byte = self.random.next() as u8;
        let filled = self.random.below(size + 1);
        bytes_mut(p, filled).fill(byte);
        shadow::fill_v(p, filled, 0);
        Known { size, byte, filled }
    }

    fn grow(&mut self) {
        let size = self.random.size();
        let align = 16 << if self.random.below(4) == 0 { self.random.below(9) } else { 0 };
        let (p, zeroed) = match self.random.below(4) {
            0 => (calloc(size, 1), true),
            1 => (memalign(align, size), false),
            _ => (malloc(size), false),
        };
        self.check_new(p, size, 16);
        assert!(zeroed || malloc_usable_size(p) == size);
        if zeroed {
            self.check_old(p, Known { size, byte: 0, filled: size });
        } else {
            assert_v(p, size, 0xff);
        }
        let known = self.fill(p, size);
        let known = if zeroed { Known { filled: known.filled, ..known } } else { known };
        if zeroed {
            bytes_mut(p + known.filled, size - known.filled).fill(1);
            shadow::fill_v(p + known.filled, size - known.filled, 0xff);
        }
        self.blocks.insert(p, known);
    }

    fn any(&mut self) -> Option<(u64, Known)> {
        let n = self.blocks.len();
        if n == 0 {
            return None;
        }
        let index = self.random.below(n as u64) as usize;
        self.blocks.iter().nth(index).map(|(&p, &k)| (p, k))
    }

    fn shrink(&mut self) {
        let Some((p, known)) = self.any() else { return };
        self.check_old(p, known);
        assert_live(p, known.size);
        self.blocks.remove(&p);
        free(p);
        assert_a(p - 24, known.size + 48, true);
        assert_v(p - 24, known.size + 48, 0xff);
    }

    fn change(&mut self) {
        let Some((p, known)) = self.any() else { return };
        let size = 1 + self.random.size();
        let q = realloc(p, size);
        self.blocks.remove(&p);
        assert!(p != q);
        self.check_new(q, size, 16);
        assert_a(p, known.size, true);
        let kept = Known { size, filled: known.filled.min(size), ..known };
        self.check_old(q, kept);
        self.blocks.insert(q, kept);
    }

    fn check_list(&self, others: usize) {
        let mut report = ExitReport::default();
        crate::report(&mut report);
        let list = crate::exit::listed(&report);
        assert!(list.is_sorted_by_key(|b| b.addr));
        let mine = list.iter().filter(|b| self.blocks.contains_key(&b.addr)).count();
        assert_eq!(mine, self.blocks.len());
        assert_eq!(list.len(), self.blocks.len() + others);
        assert!(list.iter().all(|b| self.blocks.get(&b.addr).is_none_or(|k| k.size == b.size && b.family == 1)));
    }
}

/// Random operations against a map of what should be there, invariants checked after every one.
#[test]
fn behaves_like_the_model() {
    let (_guard, _) = start();
    let mut report = ExitReport::default();
    crate::report(&mut report);
    let others = report.block_count as usize;
    let mut model = Model { blocks: BTreeMap::new(), random: Random(0x1234_5678_9abc) };
    for step in 0..6000 {
        match model.random.below(10) {
            0..5 => model.grow(),
            5..8 => model.shrink(),
            _ => model.change(),
        }
        if model.blocks.len() > 300 {
            for _ in 0..200 {
                model.shrink();
            }
        }
        if step % 1000 == 999 {
            model.check_list(others);
        }
    }
    while !model.blocks.is_empty() {
        model.shrink();
    }
    assert_eq!(memcheck_rt::report::host::drain().0, 0, "no errors");
}

#[test]
fn alignment_is_kept() {
    let (_guard, ctx) = start();
    for shift in 3..22 {
        let align = 1u64 << shift;
        let p = memalign(align, 100);
        assert!(p.is_multiple_of(align.max(16)));
        assert_live(p, 100);
        free(p);
        let mut out = 0u64;
        let at = core::ptr::from_mut(&mut out) as u64;
        ctx.stack_low = at & !0xffff;
        ctx.stack_high = ctx.stack_low + 0x20000;
        ctx.guest_rsp = at;
        let place = at;
        if place < memcheck_abi::layout::PROGRAM_END {
            assert_eq!(posix_memalign(place, align, 50), 0);
        }
    }
    assert_eq!(memalign(24, 8) % 32, 0, "odd alignments are rounded up");
    assert_eq!(posix_memalign(0, 24, 8), 22);
    assert_eq!(posix_memalign(0, 4, 8), 22);
}

#[test]
fn options() {
    let (_guard, _) = start();
    let mut other = config(20_000_000);
    (other.malloc_fill, other.free_fill, other.alignment, other.keep_stacks, other.redzone) = (0xa1, 0xf2, 64, 2, 16);
    crate::settings::set(&other);
    for size in [5, 100, 3000, 400_000] {
        let (p, zeros) = (malloc(size), calloc(1, size));
        assert!(p % 64 == 0 && zeros % 64 == 0);
        assert_live(p, size);
        assert_v(p, size, 0xff);
        assert!(bytes_mut(p, size).iter().all(|&b| b == 0xa1), "--malloc-fill");
        assert!(bytes_mut(zeros, size).iter().all(|&b| b == 0), "not for calloc");
        free(p);
        free(zeros);
        assert!(bytes_mut(p, size).iter().all(|&b| b == 0xf2), "--free-fill");
        let block = crate::find(p).expect("a block").1;
        assert!(block.alloc_stack == 0 && block.free_stack != 0, "--keep-stacktraces=free");
    }
    crate::settings::set(&config(20_000_000));
}

#[test]
fn posix_memalign_defines_its_result() {
    let (_guard, _) = start();
    let out = malloc(8);
    assert_v(out, 8, 0xff);
    assert_eq!(posix_memalign(out, 4096, 50), 0);
    assert_v(out, 8, 0);
    let p = u64::from_ne_bytes(bytes_mut(out, 8).try_into().expect("8 bytes"));
    assert!(p.is_multiple_of(4096) && malloc_usable_size(p) == 50);
    free(p);
    free(out);
    assert_eq!(posix_memalign(out, 16, 50), 0);
    let (n, e) = memcheck_rt::report::host::drain();
    assert_eq!((n, e.kind, e.size, e.addr), (1, memcheck_abi::event::Kind::InvalidWrite as u32, 8, out));
}

#[test]
fn huge_blocks_cost_little() {
    let (_guard, _) = start();
    for zero in [false, true, false] {
        let size = 3 * crate::paint::HUGE;
        let p = if zero { calloc(1, size) } else { malloc(size) };
        if p == 0 {
            return; // a machine that does not promise so much
        }
        assert_a(p - 24, 24, true);
        assert_a(p + size, 24, true);
        assert_v(p, 4096, if zero { 0 } else { 0xff });
        assert_v(p + size - 10, 10, if zero { 0 } else { 0xff });
        assert_v(p + size / 2, 4096, 0);
        assert_eq!(bytes_mut(p + size / 2, 16), [0; 16]);
        bytes_mut(p + size / 2, 16).fill(7);
        let p = realloc(p, size + 5000);
        assert_eq!(bytes_mut(p + size / 2, 16), [7; 16]);
        assert_v(p, 4096, if zero { 0 } else { 0xff });
        let size = size + 5000;
        free(p);
        assert_eq!(crate::find(p + 5).map(|f| f.1.size), Some(size));
        free(malloc(10)); // the quarantine lets go of it
    }
    assert_eq!(malloc(1 << 45), 0);
    assert_eq!(malloc(u64::MAX >> 1), 0);
    assert_eq!(calloc(1 << 33, 1 << 33), 0);
    assert_eq!(memcheck_rt::report::host::drain().0, 0, "exhaustion is not an error of the program");
}

/// An array that grows to many megabytes in fresh memory: contents and definedness go with it, however they are moved.
#[test]
fn long_blocks_grow() {
    let (_guard, _) = start();
    let mut size = 300_000;
    let mut p = malloc(size);
    let word = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fill = |p: u64, from: u64, to: u64| {
        for i in from / 8..to / 8 {
            // SAFETY: inside the block.
            unsafe { *((p + 8 * i) as *mut u64) = word(i) };
        }
        // Every third piece stays undefined.
        (from / 300_000..to / 300_000).filter(|piece| piece % 3 != 0).for_each(|piece| shadow::fill_v(p + 300_000 * piece, 300_000, 0));
    };
    fill(p, 0, size);
    for _ in 0..7 {
        let q = realloc(p, 2 * size);
        assert!(shadow::first_a(p, 16).is_some() && shadow::v(p) == 0xff && shadow::v(p + size - 1) == 0xff, "the old block is dead");
        fill(q, size, 2 * size);
        (p, size) = (q, 2 * size);
        for i in 0..size / 8 {
            // SAFETY: inside the block.
            assert_eq!(unsafe { *((p + 8 * i) as *const u64) }, word(i), "word {i} of {size}");
        }
        for piece in 0..size / 300_000 {
            let expected = if piece % 3 == 0 { 0xff } else { 0 };
            assert_eq!([0, 150_000, 299_999].map(|at| shadow::v(p + 300_000 * piece + at)), [expected; 3], "piece {piece} of {size}");
        }
        assert_eq!((shadow::first_a(p, size), shadow::a_clear(p + size)), (None, false));
    }
    free(p);
}
