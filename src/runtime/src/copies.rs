//! A run of copies begins (`translate::copies`): may all of it be touched, and where do its undefined bytes come from?
//!
//! The V bytes are moved by the run itself; the origin words are moved here, in front of it:
//!
//! ```text
//! source word   0, heap or static: the distance to it          0, or of another call's frame: the tag of the frame that it lies in
//!               a tag: the tag                                 a distance: the distance to the same place
//! ```
#![allow(unsafe_code, reason = "reads what the translator wrote, and shadow by address")]

use crate::{origin, owner};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::layout::V_DISTANCE;
use memcheck_rt::{access, context, origins};
use memcheck_translate::copies::SLOT_TARGET;
use memcheck_translate::slot;

/// Bytes that `access::is_plain` takes at a time.
const PIECE: u64 = 48;

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
        (i64::from(at) as u64, u64::from(len))
    });
    let ranges = ranges.map(|(at, len)| (from.wrapping_add(at), to.wrapping_add(at), len));
    let origins = crate::startup::config().track_origins != 0;
    for (from, to, len) in ranges.clone() {
        if !is_plain(ctx, from, len) || !is_plain(ctx, to, len) || origins && (from | to) & 3 != 0 {
            return region;
        }
    }
    if origins {
        for (from, to, len) in ranges {
            move_origins(ctx, from, to, len);
        }
    }
    ctx.scratch[slot::CONTINUE as usize]
}

fn is_plain(ctx: &ThreadContext, addr: u64, len: u64) -> bool {
    let sp = ctx.regs.gpr[RSP];
    let pieces = (0..len).step_by(PIECE as usize);
    origin::covered(addr.saturating_add(len)) && pieces.into_iter().all(|at| access::is_plain(ctx, sp, addr + at, PIECE.min(len - at)))
}

/// Origin words of what is undefined in the source; both ranges are aligned.
fn move_origins(ctx: &ThreadContext, from: u64, to: u64, len: u64) {
    let mut frame = owner::on_stack(ctx, from).then(|| Frame { tag: None, digest: None });
    let mut moved = false;
    for at in (0..len).step_by(4) {
        let (source, target) = (from + at, to + at);
        // SAFETY: V and origin words of plain memory.
        let (v, word) = unsafe { (*((source + V_DISTANCE) as *const u32), *origin::word(source)) };
        if v == 0 || source == target {
            continue;
        }
        let born = match &mut frame {
            Some(frame) => (word == 0 || frame.is_left_over(ctx, source)).then(|| frame.tag(ctx, source)),
            None if word == 0 => Some(distance(ctx, source, target)),
            None => None,
        };
        let new = match born {
            Some(born) => born,
            None if word & 3 != 0 => word,
            None => distance(ctx, source.wrapping_add(i64::from(word as i32) as u64), target),
        };
        // SAFETY: as above.
        unsafe { *origin::word(target) = new };
        moved = true;
    }
    if moved {
        origins::note(to, len);
        owner::note(ctx, to, len);
    }
}

/// The word at `target` for what comes from `place`: how far that is. Frames are gone soon, so there its tag.
fn distance(ctx: &ThreadContext, place: u64, target: u64) -> u32 {
    match i32::try_from(place.wrapping_sub(target) as i64) {
        Ok(distance) if distance != 0 && !owner::on_stack(ctx, place) => distance as u32,
        _ => origin::of_range(ctx, place, 1),
    }
}

/// The frame that the source lies in, as far as somebody has asked.
struct Frame {
    tag: Option<u32>,
    digest: Option<u64>,
}

impl Frame {
    fn tag(&mut self, ctx: &ThreadContext, addr: u64) -> u32 {
        *self.tag.get_or_insert_with(|| origin::of_frame(ctx, addr))
    }

    /// Does the word at `addr` belong to a call that has returned?
    fn is_left_over(&mut self, ctx: &ThreadContext, addr: u64) -> bool {
        owner::is_noted_elsewhere(addr, || *self.digest.get_or_insert_with(|| owner::digest(ctx, addr)))
    }
}
