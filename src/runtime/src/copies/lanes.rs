//! Sixteen words of a copy at once. The private registers from zmm17 on are free in front of a run, and so are the mask registers below k7:
//! the program does not know that they are there.
#![allow(unsafe_code, reason = "vector instructions that the runtime is not compiled for, on shadow")]

use crate::owner::{self, DIGEST_BITS, ENTRIES};
use core::arch::asm;
use memcheck_abi::layout::{ORIGIN_DISTANCE, RETURN_MARK, SIGNAL_MARK, V_DISTANCE};

/// Words by their bits, the first one lowest.
pub type Words = u32;

const LANES: u64 = 16;
static COUNT: [u64; LANES as usize] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The first `n`.
pub fn first(n: u64) -> Words {
    (1 << n.min(LANES)) - 1
}

/// Is one of the words at `addr`, which is 8-aligned, the mark of a return address?
pub fn has_marks(addr: u64, words: Words) -> bool {
    let found: u32;
    // SAFETY: runs exist only where AVX-512 does; reads V bytes of the program's space.
    unsafe {
        asm!(
            "kmovw k1, {words:e}",
            "vmovdqu32 zmm17{{k1}}{{z}}, [{v}]",
            "vpbroadcastd zmm18, {first:e}",
            "vpbroadcastd zmm19, {second:e}",
            "vpcmpeqd k2, zmm17, zmm18",
            "vpcmpeqd k3, zmm17, zmm19",
            "korw k2, k2, k3",
            "kmovw {found:e}, k2",
            words = in(reg) words, v = in(reg) addr + V_DISTANCE,
            first = in(reg) RETURN_MARK as u32, second = in(reg) SIGNAL_MARK as u32, found = lateout(reg) found,
            options(nostack, readonly, preserves_flags),
        );
    }
    found != 0
}

/// Those of the origin words at `addr`, on the stack, that were noted for another call's frame than the one with this digest.
pub fn noted_elsewhere(addr: u64, words: Words, digest: u64) -> Words {
    let index = addr >> 2;
    let Some(entries) = entries(index) else {
        return (0..LANES).filter(|i| owner::is_noted_elsewhere(addr + 4 * i, || digest)).fold(0, |all, i| all | 1 << i) & words;
    };
    let found: u32;
    // SAFETY: AVX-512 is there; the entries lie in the table.
    unsafe {
        asm!(
            "vpbroadcastq zmm19, {index}",
            "vpbroadcastq zmm20, {digest}",
            "vpbroadcastq zmm21, {low}",
            "vmovdqu64 zmm17, [{entries}]",
            "vpaddq zmm18, zmm19, [{count}]",
            "vpsrlq zmm22, zmm17, {bits}",
            "vpcmpeqq k1, zmm22, zmm18",
            "vpandq zmm17, zmm17, zmm21",
            "vpcmpneqq k1{{k1}}, zmm17, zmm20",
            "vmovdqu64 zmm17, [{entries} + 64]",
            "vpaddq zmm18, zmm19, [{count} + 64]",
            "vpsrlq zmm22, zmm17, {bits}",
            "vpcmpeqq k2, zmm22, zmm18",
            "vpandq zmm17, zmm17, zmm21",
            "vpcmpneqq k2{{k2}}, zmm17, zmm20",
            "kunpckbw k1, k2, k1",
            "kmovw {found:e}, k1",
            index = in(reg) index, digest = in(reg) digest, low = in(reg) (1u64 << DIGEST_BITS) - 1, entries = in(reg) entries,
            count = in(reg) COUNT.as_ptr(), bits = const DIGEST_BITS, found = lateout(reg) found,
            options(nostack, readonly, preserves_flags),
        );
    }
    found & words
}

/// The origin words at `addr`, on the stack, belong to the call with this digest.
pub fn note(addr: u64, words: Words, digest: u64) {
    let index = addr >> 2;
    let Some(entries) = entries(index) else {
        return (0..LANES).filter(|i| words >> i & 1 != 0).for_each(|i| owner::note_word(addr + 4 * i, digest));
    };
    // SAFETY: as above.
    unsafe {
        asm!(
            "kmovw k1, {words:e}",
            "kshiftrw k2, k1, 8",
            "vpbroadcastq zmm19, {index}",
            "vpbroadcastq zmm20, {digest}",
            "vpaddq zmm17, zmm19, [{count}]",
            "vpaddq zmm18, zmm19, [{count} + 64]",
            "vpsllq zmm17, zmm17, {bits}",
            "vpsllq zmm18, zmm18, {bits}",
            "vporq zmm17, zmm17, zmm20",
            "vporq zmm18, zmm18, zmm20",
            "vmovdqu64 [{entries}]{{k1}}, zmm17",
            "vmovdqu64 [{entries} + 64]{{k2}}, zmm18",
            words = in(reg) words, index = in(reg) index, digest = in(reg) digest, entries = in(reg) entries,
            count = in(reg) COUNT.as_ptr(), bits = const DIGEST_BITS,
            options(nostack, preserves_flags),
        );
    }
}

/// Where sixteen entries of the table of owners begin, if they are neighbours.
fn entries(index: u64) -> Option<u64> {
    let at = index as usize % ENTRIES;
    (at + LANES as usize <= ENTRIES).then(|| owner::NOTED[at].as_ptr() as u64)
}

/// Distances that can be added to each other.
const NEAR: u32 = 1 << 30;

pub fn near(distance: u64) -> Option<i32> {
    i32::try_from(distance as i64).ok().filter(|distance| distance.unsigned_abs() < NEAR)
}

/// Origin words from `from` to `to` where V is not zero. `distance`: that of the source from the target; `born`: the tag of what was born
/// there, and the words that are not of its making. Were there any? None: a distance is too large, and nothing was written.
pub fn move_words(from: u64, to: u64, words: Words, distance: Option<i32>, born: Option<(u32, Words)>) -> Option<bool> {
    let never = if distance.is_none() { 2 * NEAR } else { 0 };
    let (tag, stale) = born.unwrap_or((0, 0));
    let (far, some): (u32, u32);
    // SAFETY: AVX-512 is there; V and origin words of plain memory.
    unsafe {
        asm!(
            "kmovw k1, {words:e}",
            "vmovdqu32 zmm17{{k1}}{{z}}, [{v}]",
            "vptestmd k1, zmm17, zmm17",
            "vmovdqu32 zmm18{{k1}}{{z}}, [{source}]",
            "kmovw k3, {stale:e}",
            "vpxord zmm18{{k3}}, zmm18, zmm18",
            // 0: of this place.
            "vptestnmd k2{{k1}}, zmm18, zmm18",
            "vpbroadcastd zmm18{{k2}}, {tag:e}",
            // No tag: a distance, to be in the middle half of all numbers.
            "vpbroadcastd zmm19, {kind:e}",
            "vptestnmd k2{{k1}}, zmm18, zmm19",
            "vpbroadcastd zmm20, {half:e}",
            "vpaddd zmm21, zmm18, zmm20",
            "vpbroadcastd zmm22, {never:e}",
            "vpord zmm21, zmm21, zmm22",
            "vpaddd zmm20, zmm20, zmm20",
            "vptestmd k3{{k2}}, zmm21, zmm20",
            "kmovw {far:e}, k3",
            "kmovw {some:e}, k1",
            "test {far:e}, {far:e}",
            "jnz 2f",
            "vpbroadcastd zmm19, {distance:e}",
            "vpaddd zmm18{{k2}}, zmm18, zmm19",
            "vmovdqu32 [{target}]{{k1}}, zmm18",
            "2:",
            words = in(reg) words, v = in(reg) from + V_DISTANCE, source = in(reg) from + ORIGIN_DISTANCE, stale = in(reg) stale,
            tag = in(reg) tag, kind = in(reg) 3u32, half = in(reg) NEAR, never = in(reg) never, distance = in(reg) distance.unwrap_or(0),
            target = in(reg) to + ORIGIN_DISTANCE,
            far = out(reg) far, some = out(reg) some,
            options(nostack),
        );
    }
    (far == 0).then_some(some != 0)
}
