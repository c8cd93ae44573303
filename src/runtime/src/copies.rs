//! A run of copies begins (`translate::copies`): may all of it be touched, and where do its undefined bytes come from?
//!
//! The V bytes are moved by the run itself; the origin words are moved here, in front of it:
//!
//! ```text
//! source word   0, heap or static: the distance to it          0, or of another call's frame: the tag of the frame that it lies in
//!               a tag: the tag                                 a distance: the distance to the same place
//! ```
//! Ranges are taken 64 bytes at a time; what that does not fit is left to dirty code.
//!
//! - `lanes`     the vector instructions
#![allow(unsafe_code, reason = "reads what the translator wrote")]

mod lanes;

use crate::{dirty, origin, owner};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::layout::RED_ZONE;
use memcheck_rt::{access, context, origins, shadow};
use memcheck_translate::copies::SLOT_TARGET;
use memcheck_translate::slot;

/// Bytes taken at a time, and origin words.
const CHUNK: u64 = 64;

/// Where to go on: behind the entry, or in dirty code.
pub extern "C" fn prepare() -> u64 {
    let ctx = context::current();
    let header = ctx.scratch[slot::ARGUMENT as usize] as *const u8;
    let (from, to) = (ctx.scratch[slot::ADDRESS as usize], ctx.scratch[SLOT_TARGET as usize]);
    // SAFETY: the translator put it there: the address of the dirty region, the number of ranges, and as many of them.
    let (region, count) = unsafe { (header.cast::<u64>().read_unaligned(), header.add(8).cast::<u32>().read_unaligned()) };
    let ranges = (0..count as usize).map(|i| {
        // SAFETY: as above.
        let (at, len) = unsafe { header.add(12 + 8 * i).cast::<(i32, u32)>().read_unaligned() };
        let at = i64::from(at) as u64;
        (from.wrapping_add(at), to.wrapping_add(at), u64::from(len))
    });
    dirty::shadow_regs(ctx).dirty = 0;
    if !ranges.clone().all(|(from, to, len)| is_plain(ctx, from, len) && is_plain(ctx, to, len)) {
        return region;
    }
    let moved =
        crate::startup::config().track_origins == 0 || from == to || ranges.clone().all(|(from, to, len)| move_origins(ctx, from, to, len));
    if moved { ctx.scratch[slot::CONTINUE as usize] } else { region }
}

fn chunks(len: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..len).step_by(CHUNK as usize).map(move |at| (at, CHUNK.min(len - at)))
}

/// Whole words that are addressable, and no return address among them. Says no too often.
fn is_plain(ctx: &ThreadContext, addr: u64, len: u64) -> bool {
    /// Bytes that `access::is_plain` takes at a time.
    const PIECE: u64 = 48;
    let end = addr.saturating_add(len);
    if (addr | len) & 3 != 0 || !origin::covered(end.saturating_add(CHUNK)) {
        return false;
    }
    if addr & 7 != 0 {
        let piece = |at| access::is_plain(ctx, ctx.regs.gpr[RSP], addr + at, PIECE.min(len - at));
        return (0..len).step_by(PIECE as usize).all(piece);
    }
    let below_stack = addr < ctx.regs.gpr[RSP].wrapping_sub(RED_ZONE) && end > ctx.stack_low && addr < ctx.stack_high;
    !below_stack
        && chunks(len).all(|(at, n)| {
            let unused = shadow::a_bits(addr + at) << (CHUNK - n);
            unused == 0 && !lanes::has_marks(addr + at, lanes::first(n / 4))
        })
}

/// Origin words of what is undefined in the source. False: not as simple as that.
fn move_origins(ctx: &ThreadContext, from: u64, to: u64, len: u64) -> bool {
    let distance = lanes::near(from.wrapping_sub(to));
    let frame = owner::on_stack(ctx, from).then(|| owner::frame(ctx, from)).map(|(pc, digest)| (origin::of_frame(pc), digest));
    let mut moved = false;
    for (at, n) in chunks(len) {
        let words = lanes::first(n / 4);
        let born = frame.map(|(tag, digest)| (tag, lanes::noted_elsewhere(from + at, words, digest)));
        let some = lanes::move_words(from + at, to + at, words, distance, born).or_else(|| {
            // Too far for a distance: perhaps one tag fits all.
            let tag = born.is_none().then(|| origin::of_range(ctx, from + at, n as usize))?;
            lanes::move_words(from + at, to + at, words, distance, Some((tag, 0)))
        });
        match some {
            None => return false,
            Some(some) => moved |= some,
        }
    }
    if moved {
        origins::note(to, len);
        if owner::on_stack(ctx, to) {
            let digest = owner::digest(ctx, to);
            chunks(len).for_each(|(at, n)| lanes::note(to + at, lanes::first(n / 4), digest));
        }
    }
    true
}
