//! Where the instructions of a region lie in its code: [`InsnInfo`] in few bytes, for every instruction that was ever translated is kept, and few
//! are asked for.
//!
//! ```text
//! a region      its cold code: start, length | number of entries | entry | entry ...
//! an entry      marks and length | host, from the entry before on | own, from host on  | spilled register, from, to
//!               1                  1                                1, if OWN            3, if SPILLED
//! ```
//! The program addresses of a region follow each other. What does not fit is written out after the mark WIDE.

use crate::chunks::Bytes;
use memcheck_translate::InsnInfo;

const LENGTH: u8 = 0x1f;
const OWN: u8 = 0x20;
const SPILLED: u8 = 0x40;
const WIDE: u8 = 0x80;
/// To the end of the region.
const TO_THE_END: u8 = 0xff;
const NOT_SPILLED: u8 = 0xff;

/// Bytes in front of the entries.
const HEAD: usize = 8;

/// Keep these entries and the place of the region's cold code; where they are.
pub fn keep(bytes: &mut Bytes, cold: (u32, u32), infos: &[InsnInfo]) -> u32 {
    bytes.push_all(|out| {
        out.extend([cold.0, cold.1].into_iter().flat_map(u32::to_le_bytes));
        out.push(infos.len().min(255) as u8);
        let mut before = InsnInfo::default();
        for info in infos.iter().take(255) {
            if !write_short(out, info, &before) {
                write_wide(out, info);
            }
            before = *info;
        }
    })
}

fn write_short(out: &mut impl Extend<u8>, info: &InsnInfo, before: &InsnInfo) -> bool {
    let (from, to) = info.spill;
    let spilled = info.spilled != NOT_SPILLED;
    let deltas = (u8::try_from(info.host - before.host), u8::try_from(info.own - info.host), u8::try_from(from.wrapping_sub(info.host)));
    let end = if to == u32::MAX { Some(TO_THE_END) } else { u8::try_from(to.wrapping_sub(info.host)).ok().filter(|&to| to < TO_THE_END) };
    let (Ok(host), Ok(own)) = (deltas.0, deltas.1) else { return false };
    if info.len > LENGTH || info.pc != before.pc + i32::from(before.len) {
        return false;
    }
    let mark = |mark, has| if has { mark } else { 0 };
    let head = [info.len | mark(OWN, own != 0) | mark(SPILLED, spilled), host];
    match (spilled, deltas.2, end) {
        (false, ..) => out.extend(head.into_iter().chain((own != 0).then_some(own))),
        (true, Ok(from), Some(to)) => out.extend(head.into_iter().chain((own != 0).then_some(own)).chain([info.spilled, from, to])),
        _ => return false,
    }
    true
}

fn write_wide(out: &mut impl Extend<u8>, info: &InsnInfo) {
    out.extend([WIDE, info.len, info.spilled]);
    for word in [info.host, info.own, info.spill.0, info.spill.1, info.pc as u32] {
        out.extend(word.to_le_bytes());
    }
}

/// Start and length of the cold code of the region whose entries begin at `bytes`.
pub fn cold(bytes: &[u8]) -> (u32, u32) {
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    (word(0), word(4))
}

/// The entries that begin at `bytes`.
pub fn read(bytes: &[u8]) -> impl Iterator<Item = InsnInfo> + '_ {
    let mut rest = bytes[HEAD..].iter().copied();
    let mut left = rest.next().unwrap_or(0);
    let mut before = InsnInfo::default();
    core::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        before = read_one(&mut rest, &before)?;
        Some(before)
    })
}

fn read_one(rest: &mut impl Iterator<Item = u8>, before: &InsnInfo) -> Option<InsnInfo> {
    let head = rest.next()?;
    if head & WIDE != 0 {
        let (len, spilled) = (rest.next()?, rest.next()?);
        let mut word = || Some(u32::from_le_bytes([rest.next()?, rest.next()?, rest.next()?, rest.next()?]));
        let (host, own, spill, pc) = (word()?, word()?, (word()?, word()?), word()? as i32);
        return Some(InsnInfo { host, pc, spilled, len, spill, own });
    }
    let host = before.host + u32::from(rest.next()?);
    let own = host + if head & OWN != 0 { u32::from(rest.next()?) } else { 0 };
    let mut info = InsnInfo { host, pc: before.pc + i32::from(before.len), spilled: NOT_SPILLED, len: head & LENGTH, spill: (0, 0), own };
    if head & SPILLED != 0 {
        let (register, from, to) = (rest.next()?, rest.next()?, rest.next()?);
        info.spilled = register;
        info.spill = (host + u32::from(from), if to == TO_THE_END { u32::MAX } else { host + u32::from(to) });
    }
    Some(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn same(a: &InsnInfo, b: &InsnInfo) -> bool {
        (a.host, a.pc, a.spilled, a.len, a.own) == (b.host, b.pc, b.spilled, b.len, b.own)
            && (a.spilled == NOT_SPILLED || a.spill == b.spill)
    }

    #[test]
    fn entries_stay_what_they_were() {
        let plain = |host, pc, len, own| InsnInfo { host, pc, spilled: NOT_SPILLED, len, spill: (0, 0), own };
        let spilled = |spill, host, pc| InsnInfo { host, pc, spilled: 0x81, len: 3, spill, own: host + 9 };
        let regions = [
            Vec::new(),
            Vec::from([
                plain(9, 0, 4, 9),
                plain(13, 4, 7, 30),
                spilled((50, 60), 40, 11),
                spilled((70, u32::MAX), 65, 14),
                plain(80, 17, 0, 80),
            ]),
            // Long ways, a request of 19 bytes, a jump back, a spill that ends far away.
            Vec::from([plain(9, 0, 19, 9), plain(500, 19, 2, 2000), plain(70_000, -40, 5, 70_001), spilled((70_010, 71_000), 70_005, -35)]),
        ];
        let mut bytes = Bytes::new();
        let kept: Vec<u32> = (0..9000).map(|i| keep(&mut bytes, (i as u32, 7), &regions[i % 3])).collect();
        for (i, &at) in kept.iter().enumerate() {
            assert_eq!(cold(bytes.from(at)), (i as u32, 7));
            let read: Vec<InsnInfo> = read(bytes.from(at)).collect();
            assert_eq!(read.len(), regions[i % 3].len());
            assert!(read.iter().zip(&regions[i % 3]).all(|(a, b)| same(a, b)), "{read:?}");
        }
        let start = bytes.push_all(|_| {});
        keep(&mut bytes, (1, 2), &regions[1]);
        assert_eq!(bytes.push_all(|_| {}) - start, 8 + 1 + 2 + 3 + 6 + 6 + 2);
    }
}
