//! Free space of one part of the code cache: all that lies behind what was made last, but for pieces that threads may still be in.
//!
//! ```text
//! begin                        at                               end
//! | made since the last renewal |   free   | kept |   free   ... |
//! ```
#![allow(unsafe_code, reason = "overwrites what was given back, for tests")]

use alloc::vec::Vec;

/// What is made next is shorter than this, so that it fits in front of a kept piece or behind it.
pub const LONGEST: u64 = 0x1_0000;

pub struct Room {
    begin: u64,
    at: u64,
    end: u64,
    /// Pieces that are kept, [start, end), the last one first.
    kept: Vec<(u64, u64)>,
    /// Bytes made since the last renewal.
    made: u64,
}

impl Room {
    pub const fn new(begin: u64, end: u64) -> Room {
        Room { begin, at: begin, end, kept: Vec::new(), made: 0 }
    }

    /// Begin anew, around pieces that must stay. `spoil`: whoever comes to what was given back shall stop there.
    pub fn renew(&mut self, kept: &[(u64, u64)], spoil: bool) {
        let here = |piece: &(u64, u64)| piece.0 < piece.1 && (self.begin..self.end).contains(&piece.0);
        let mut kept: Vec<(u64, u64)> = kept.iter().copied().filter(here).collect();
        kept.sort_unstable_by_key(|piece| core::cmp::Reverse(*piece));
        if spoil {
            self.spoil(&kept);
        }
        (self.at, self.kept, self.made) = (self.begin, kept, 0);
    }

    fn spoil(&self, kept: &[(u64, u64)]) {
        const INT3: u8 = 0xcc;
        let mut from = self.begin;
        for &(start, end) in kept.iter().rev().chain([&(self.at, self.at)]) {
            if from < start {
                // SAFETY: a part of the code cache in which nothing is kept.
                unsafe { core::ptr::write_bytes(from as *mut u8, INT3, (start - from) as usize) };
            }
            from = from.max(end);
        }
    }

    /// Where the next thing may be put.
    pub fn next(&mut self, align: u64) -> u64 {
        let mut at = self.at.next_multiple_of(align);
        while let Some(&(start, end)) = self.kept.last()
            && at + LONGEST > start
        {
            at = at.max(end.next_multiple_of(align));
            self.kept.pop();
        }
        self.at = at;
        at
    }

    /// Was there room for what was put there and ends here?
    #[must_use]
    pub fn take(&mut self, end: u64) -> bool {
        self.made += end - self.at;
        self.at = end;
        end <= self.kept.last().map_or(self.end, |&(start, _)| start)
    }

    pub fn made(&self) -> u64 {
        self.made
    }

    /// Is little left?
    pub fn is_short(&self, reserve: u64) -> bool {
        self.end.saturating_sub(self.at) < reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_left_out() {
        let mut room = Room::new(0x1000, 0x100_0000);
        let fill = |room: &mut Room| {
            let mut all = Vec::new();
            while !room.is_short(2 * LONGEST) {
                let at = room.next(16);
                assert!(at.is_multiple_of(16) && room.take(at + 1000));
                all.push((at, at + 1000));
            }
            all
        };
        let first = fill(&mut room);
        assert!(first.windows(2).all(|two| two[0].1 <= two[1].0));
        let kept = [first[700], first[3], first[4], first[9000]];
        room.renew(&kept, false);
        assert_eq!(room.made(), 0);
        let second = fill(&mut room);
        assert!(second.windows(2).all(|two| two[0].1 <= two[1].0));
        assert!(second.iter().all(|new| kept.iter().all(|old| new.1 <= old.0 || old.1 <= new.0)));
        assert!(second.len() > first.len() - 4 * (LONGEST as usize / 1000 + 3));
        room.renew(&[], false);
        assert_eq!(fill(&mut room), first);
    }
}
