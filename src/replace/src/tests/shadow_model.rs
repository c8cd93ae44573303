//! V, A and the reports of copies and fills, against a model that goes byte by byte.

use super::{AREA, ONE, Random, read, reports, world, write};
use crate::{memory as m, string as s};
use memcheck_rt::shadow;

/// State of one byte.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Byte {
    v: u8,
    noaccess: bool,
}

const CLEAN: Byte = Byte { v: 0, noaccess: false };

fn state(addr: u64, n: u64) -> Vec<Byte> {
    (addr..addr + n).map(|a| Byte { v: shadow::v(a), noaccess: !shadow::a_clear(a) }).collect()
}

/// Paint the area with random runs of clean, undefined, partly defined and unaddressable bytes; mostly clean, like life.
fn paint(r: &mut Random) {
    shadow::make_defined(ONE, AREA);
    for _ in 0..r.below(4) {
        let at = ONE + r.below(AREA);
        let n = (1 + r.length(3000)).min(ONE + AREA - at);
        match r.below(4) {
            0 => shadow::make_noaccess(at, n),
            1 => (at..at + n).for_each(|a| shadow::set_v(a, r.next() as u8)),
            _ => shadow::make_undefined(at, n),
        }
        // Partly defined bytes must not lie in memory that A calls unaddressable with V = 0: the two maps belong together.
        for a in (at..at + n).filter(|&a| !shadow::a_clear(a)) {
            shadow::set_v(a, 0xff);
        }
    }
}

/// The model of a copy: (states after, first bad source, first bad destination), as offsets into the area.
fn copied(old: &[Byte], dst: usize, src: usize, n: usize) -> (Vec<Byte>, Option<usize>, Option<usize>) {
    let mut new = old.to_vec();
    for i in 0..n {
        if !old[dst + i].noaccess {
            new[dst + i] = if old[src + i].noaccess { CLEAN } else { old[src + i] };
        }
    }
    let bad = |base: usize| (base..base + n).find(|&i| old[i].noaccess);
    (new, bad(src), bad(dst))
}

#[test]
fn memmove_moves_shadow() {
    let _world = world();
    let mut r = Random(0x3141_5926);
    for round in 0..1500 {
        crate::vector::detect(round % 2 == 0);
        paint(&mut r);
        let n = r.length(AREA / 2);
        let dst = r.below(AREA - n + 1);
        let src = if r.below(2) == 0 { r.below(AREA - n + 1) } else { (dst + r.length(200)).min(AREA - n) };
        let (dst, src) = if r.below(2) == 0 { (src, dst) } else { (dst, src) };
        let data: Vec<u8> = (0..AREA).map(|i| (i * 7 + (i >> 8)) as u8).collect();
        write(ONE, &data);
        let before = state(ONE, AREA);
        let (after, bad_read, bad_write) = copied(&before, dst as usize, src as usize, n as usize);
        m::memmove(ONE + dst, ONE + src, n);
        let got = state(ONE, AREA);
        if let Some(i) = (0..AREA as usize).find(|&i| got[i] != after[i]) {
            panic!("move {dst:#x} <- {src:#x}, {n}: byte {i:#x} is {:?}, not {:?}", got[i], after[i]);
        }
        let mut expected = data.clone();
        expected.copy_within(src as usize..(src + n) as usize, dst as usize);
        assert!(read(ONE, AREA) == expected, "the data moves in any case");
        expect_some(bad_read.is_some() || bad_write.is_some());
    }
}

/// Words, halves and bytes are errors of their own: which ones is tested with [`crate::steps`].
#[track_caller]
fn expect_some(any: bool) {
    assert_eq!(reports().0 > 0, any);
}

#[test]
fn memset_defines() {
    let _world = world();
    let mut r = Random(0x2718_2818);
    for round in 0..1000 {
        crate::vector::detect(round % 2 == 0);
        paint(&mut r);
        let n = r.length(AREA / 2);
        let dst = r.below(AREA - n + 1);
        let before = state(ONE, AREA);
        m::memset(ONE + dst, 0x5a, n);
        let range = dst as usize..(dst + n) as usize;
        for (i, got) in state(ONE, AREA).into_iter().enumerate() {
            let touched = range.contains(&i) && !before[i].noaccess;
            assert_eq!(got, if touched { CLEAN } else { before[i] }, "byte {i:#x} of memset({dst:#x}, {n})");
        }
        assert!(read(ONE + dst, n).iter().all(|&b| b == 0x5a));
        expect_some(range.clone().any(|i| before[i].noaccess));
    }
}

/// strncpy: characters carry their V (if they surely are no terminators they need no report), the padding is defined.
#[test]
fn strncpy_moves_and_defines() {
    let _world = world();
    write(ONE, b"abcdef\0");
    shadow::make_undefined(ONE + 100, 20);
    shadow::set_v(ONE + 2, 0x01);
    s::strncpy(ONE + 100, ONE, 12);
    let v: Vec<u8> = (0..14).map(|i| shadow::v(ONE + 100 + i)).collect();
    assert_eq!(v, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(read(ONE + 100, 12), b"abcdef\0\0\0\0\0\0");
    super::silent();
}

/// Origin words follow undefined bytes; words of 0 are asked for at the source, once: at the last undefined byte of the first word.
#[test]
fn origins_follow() {
    use memcheck_abi::layout::ORIGIN_DISTANCE;
    let _world = world();
    // SAFETY: zero is a valid value of every field.
    let mut config: Box<memcheck_abi::config::Config> = unsafe { Box::new(std::mem::zeroed()) };
    (config.track_origins, config.undef_value_errors) = (1, 1);
    crate::init(&config);
    crate::set_origin_hooks(|_, _| (), |addr| (addr - ONE) as u32, |_, _| ());
    let word = |addr: u64| (addr + ORIGIN_DISTANCE) as *mut u32;
    shadow::make_undefined(ONE + 64, 16);
    // SAFETY: origin words of the test area are mapped.
    unsafe {
        *word(ONE + 72) = 77;
        m::memcpy(ONE + 1024, ONE + 60, 24);
        let got: Vec<u32> = (0..6).map(|i| *word(ONE + 1024 + 4 * i)).collect();
        assert_eq!(got, [0, 67, 67, 77, 67, 0]);
        *word(ONE + 72) = 0;
        (1024..1056).step_by(4).for_each(|i| *word(ONE + i) = 0);
    }
    config.track_origins = 0;
    crate::init(&config);
}
