//! The vector and x87 part of the state, as an xsave image in the standard layout.

use crate::random::Random;
use memcheck_semantics::Wide;
use std::sync::OnceLock;

const LEGACY: usize = 512;
const X87: u64 = 1;
const SSE: u64 = 2;
/// Highest component number used: the upper halves, the mask registers, and the two AVX-512 parts.
const EXTENDED: [u32; 4] = [2, 5, 6, 7];
/// Offsets and sizes inside the legacy part.
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;

/// Offset and size of an extended component. Asked once: in a virtual machine the instruction takes longer than a whole program.
fn component(n: u32) -> (usize, usize) {
    static COMPONENTS: OnceLock<[(usize, usize); 8]> = OnceLock::new();
    let all = COMPONENTS.get_or_init(|| {
        core::array::from_fn(|n| {
            let leaf = std::arch::x86_64::__cpuid_count(0xd, n as u32);
            (leaf.ebx as usize, leaf.eax as usize)
        })
    });
    all[n as usize]
}

fn extended(components: u64) -> impl Iterator<Item = (u32, usize, usize)> {
    EXTENDED.into_iter().filter(move |&n| components >> n & 1 != 0).map(|n| {
        let (at, len) = component(n);
        (n, at, len)
    })
}

fn length(components: u64) -> usize {
    extended(components).map(|(_, at, len)| at + len).max().unwrap_or(0).max(LEGACY + 64)
}

/// Random registers; all exceptions masked.
pub fn random(random: &mut Random, components: u64) -> Vec<u8> {
    let mut image = vec![0; length(components)];
    let put = |image: &mut [u8], at: usize, value: u64| image[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let fcw = 0x7fu16 | random.pick(&[0u16, 0x200, 0x300, 0x300]) | random.pick(&[0u16, 0, 0x400, 0x800, 0xc00]);
    image[0..2].copy_from_slice(&fcw.to_le_bytes());
    let fsw = (random.below(8) as u16) << 11;
    image[2..4].copy_from_slice(&fsw.to_le_bytes());
    image[4] = random.word() as u8;
    let mxcsr = 0x1f80u32 | random.pick(&[0u32, 0, 0x2000, 0x4000, 0x6000, 0x8040]);
    image[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    for i in 0..8 {
        put(&mut image, ST + 16 * i, random.word() | 1 << 63);
        let exponent = 0x3fffu16.wrapping_add(random.between(-40, 40) as u16) | random.pick(&[0u16, 0x8000]);
        image[ST + 16 * i + 8..ST + 16 * i + 10].copy_from_slice(&exponent.to_le_bytes());
    }
    for i in 0..32 {
        put(&mut image, XMM + 8 * i, random.value());
    }
    put(&mut image, LEGACY, components);
    for (_, at, len) in extended(components) {
        for i in (0..len).step_by(8) {
            put(&mut image, at + i, random.value());
        }
    }
    image
}

/// The image with everything removed that does not belong to the program's state: addresses of x87 instructions, padding, and the
/// difference between a component in its initial state and one that says so.
pub fn normal(area: &[u8], components: u64) -> Vec<u8> {
    let mut image = area[..length(components)].to_vec();
    let word: [u8; 8] = image[LEGACY..LEGACY + 8].try_into().unwrap_or_default();
    let used = u64::from_le_bytes(word);
    if used & X87 == 0 {
        image[..24].fill(0);
        image[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        image[ST..XMM].fill(0);
    }
    if used & SSE == 0 {
        image[XMM..416].fill(0);
    }
    for (n, at, len) in extended(components) {
        if used >> n & 1 == 0 {
            image[at..at + len].fill(0);
        }
    }
    image[5..24].fill(0);
    image[28..32].fill(0);
    for i in 0..8 {
        image[ST + 16 * i + 10..ST + 16 * i + 16].fill(0);
    }
    image[416..LEGACY + 64].fill(0);
    image
}

/// Offsets of zmm30, zmm31 and k7, and their sizes. None where the processor has no AVX-512.
fn private(components: u64) -> Option<[(usize, usize); 4]> {
    (components >> 7 & 1 != 0).then(|| {
        let (zmm, masks) = (component(7).0, component(5).0);
        [(zmm + 14 * 64, 64), (zmm + 15 * 64, 64), (masks + 56, 8), (zmm + 13 * 64, 64)]
    })
}

/// Give the translator's own registers the values that it counts on.
pub fn set_private(area: &mut [u8], components: u64) {
    for ((at, len), value) in private(components).into_iter().flatten().zip([0, 0xff, 0x5a, 0xa5]) {
        area[at..at + len].fill(value);
    }
}

/// Do they still have them? (k7 and zmm29 are scratch.)
pub fn check_private(image: &[u8], components: u64) -> Result<(), String> {
    let fine = |(at, len): (usize, usize), value| image[at..at + len].iter().all(|&b| b == value);
    match private(components) {
        Some([zeros, ones, ..]) if !fine(zeros, 0) || !fine(ones, 0xff) => Err("the translator's own vector registers have changed".into()),
        _ => Ok(()),
    }
}

/// All registers that the translator may use, those of runs of copies, too.
pub fn copy_private(to: &mut [u8], from: &[u8], components: u64) {
    let copied = (components >> 7 & 1 != 0).then(|| (component(7).0 + 64, 15 * 64));
    for (at, len) in private(components).into_iter().flatten().chain(copied) {
        to[at..at + len].copy_from_slice(&from[at..at + len]);
    }
}

/// Name of the register around an offset.
pub fn name(at: usize, components: u64) -> String {
    match at {
        0..2 => "x87 control word".into(),
        2..4 => "x87 status word".into(),
        4..24 => "x87 tag word".into(),
        24..32 => "mxcsr".into(),
        ST..XMM => format!("st{}", (at - ST) / 16),
        XMM..416 => format!("xmm{}", (at - XMM) / 16),
        _ => match extended(components).find(|&(_, start, len)| at >= start && at < start + len) {
            Some((2, start, _)) => format!("ymm{} (upper half)", (at - start) / 16),
            Some((5, start, _)) => format!("k{}", (at - start) / 8),
            Some((6, start, _)) => format!("zmm{} (upper half)", (at - start) / 32),
            Some((7, start, _)) => format!("zmm{}", 16 + (at - start) / 64),
            _ => format!("vector state + {at:#x}"),
        },
    }
}

fn word(area: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(area[at..at + 8].try_into().unwrap_or_default())
}

/// All of a vector register, from an image made `normal`.
pub fn register(area: &[u8], components: u64, n: usize) -> Wide {
    let mut out = Wide::ZERO;
    let mut put = |to: usize, at: usize, words: usize| (0..words).for_each(|i| out.0[to + i] = word(area, at + 8 * i));
    if n >= 16 {
        if components >> 7 & 1 != 0 {
            put(0, component(7).0 + 64 * (n - 16), 8);
        }
        return out;
    }
    put(0, XMM + 16 * n, 2);
    if components >> 2 & 1 != 0 {
        put(2, component(2).0 + 16 * n, 2);
    }
    if components >> 6 & 1 != 0 {
        put(4, component(6).0 + 32 * n, 4);
    }
    out
}

pub fn mask(area: &[u8], components: u64, n: usize) -> u64 {
    if components >> 5 & 1 != 0 { word(area, component(5).0 + 8 * n) } else { 0 }
}

pub fn top(area: &[u8]) -> u8 {
    area[3] >> 3 & 7
}

/// The same physical registers with another top.
pub fn with_top(area: &[u8], top: u8) -> Vec<u8> {
    let mut turned = area.to_vec();
    turned[ST..XMM].rotate_left(16 * usize::from(top.wrapping_sub(self::top(area)) & 7));
    turned[3] = turned[3] & !0x38 | top << 3;
    turned
}

/// Significand of a physical x87 register; the image has them by their distance from the top.
pub fn physical(area: &[u8], n: usize) -> u64 {
    word(area, ST + 16 * (n.wrapping_sub(usize::from(top(area))) & 7))
}
