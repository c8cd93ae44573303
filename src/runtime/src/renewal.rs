//! Giving translations back: when dead ones take too much room, or living ones too, all of them are forgotten and the code cache is filled from
//! its beginning again.
//!
//! Threads may be anywhere meanwhile: in a translation, on their way into one, in a system call that will return to one. So
//!
//! ```text
//! 1 forget     nothing leads to what was made any more: no table, no link, no cell. Only who is in it, or has its address in hand, can come there
//! 2 ask        the tracer looks at every thread once, for any word that may be such an address: registers, context, the runtime's stack
//! 3 keep       the translations around those addresses, and what these name themselves: a thread that was seen goes nowhere else
//! 4 begin anew around them
//! ```
//! A number that only looks like an address keeps a translation until the next time. What is kept is dead: threads leave it for new code.
//!
//! Addresses must not be hidden from 2: nobody keeps one, over a moment without the lock, anywhere else or in parts. Compilers do, and put a sum
//! off until it is used: [`whole`]. (The tracer knows about the offsets of `far`.)
//!
//! Deliberately absent: the order of age. What is still of use is made again when it is met, which costs less than to know what is.
#![allow(unsafe_code, reason = "reads the code cache")]

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use memcheck_abi::event::Trap;
use memcheck_abi::layout::{CODE_END, PROGRAM_END};
use memcheck_rt::report;
use memcheck_rt::sync::Guard;

use crate::cache::{CACHE, COLD_START, Cache, table_entry};
use crate::starts::Starts;
use crate::{far, startup, statistics};

/// Room that is left in every part: a process that shares its memory with a child of vfork cannot be asked, and goes on without.
const RESERVE: u64 = 4 << 20;
/// From so many bytes on, translations are given back if most of them are dead.
const MUCH: u64 = 64 << 20;
/// Bytes made until a thread that could not be looked at is asked for again.
const PAUSE: u64 = 1 << 20;
/// Nobody wants a cache this small but tests.
const LITTLE: u64 = 1 << 20;
/// Room for addresses, at first.
const WORDS: usize = 1024;

/// What is kept: pieces of the code cache, [start, end).
#[derive(Default)]
struct Kept {
    regions: BTreeSet<u32>,
    loops: BTreeSet<(u64, u64)>,
    pieces: Vec<(u64, u64)>,
    /// Where the cold code of dirty regions and loops begins.
    dirty: Vec<u64>,
}

/// The cache, with room for a few translations more. No address in the cache may be in hand that was found under an earlier lock and is not
/// in a register, the context or on the stack.
pub fn for_more() -> Guard<'static, Cache> {
    let mut cache = CACHE.lock();
    if cache.is_exhausted() {
        cache.renew();
    }
    cache
}

/// An address in the cache that is about to be used without the lock: all of it is known now.
pub fn whole(mut address: u64) -> u64 {
    // SAFETY: does nothing; the compiler neither sees through it nor moves it over the release of a lock.
    unsafe { core::arch::asm!("/* {} */", inout(reg) address, options(nostack, preserves_flags)) };
    address
}

impl Cache {
    fn is_exhausted(&self) -> bool {
        let made = self.made();
        let enough = startup::config().code_cache.min(1 << 30);
        made >= self.not_before
            && self.sharers == 0
            && (made >= enough
                || [&self.hot, &self.dirty_hot, &self.cold].into_iter().any(|room| room.is_short(RESERVE))
                || made >= MUCH && self.regions.dead() > self.regions.count() / 2)
    }

    fn made(&self) -> u64 {
        self.hot.made() + self.dirty_hot.made() + self.cold.made()
    }

    #[cold]
    fn renew(&mut self) {
        self.forget_all();
        let Some(addresses) = whereabouts() else {
            self.not_before = self.made() + PAUSE;
            return;
        };
        let kept = self.reachable(addresses);
        self.begin_anew(kept);
        statistics::RENEWALS.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing leads to any translation from now on.
    fn forget_all(&mut self) {
        for index in 0..self.regions.count() {
            let record = self.regions.get(index);
            if !record.alive {
                continue;
            }
            let pc = record.pc;
            self.unlink(index);
            if pc >= CODE_END {
                far::remove(pc);
            } else if table_entry(pc).load(Ordering::Relaxed) != 0 {
                table_entry(pc).store(0, Ordering::Release);
            }
        }
        self.pages.take(0, PROGRAM_END);
        self.starts = Starts::new();
        self.high.clear();
        self.originals.clear();
        self.copies.clear();
        self.dirty.clear();
        self.loops.clear();
        self.loop_code.clear();
        crate::dirty::forget();
        self.forget_cells();
    }

    /// What lies around these addresses, and what that names.
    fn reachable(&self, mut addresses: Vec<u64>) -> Kept {
        let mut routines: Vec<u64> = self.old_routines.clone();
        routines.extend(self.translator.iter().flat_map(|t| &t.routines).map(|routine| routine.1));
        routines.sort_unstable();
        let mut kept = Kept::default();
        while let Some(address) = addresses.pop() {
            let region = if address < COLD_START { self.regions.of_host(address) } else { self.regions.of_cold(address) };
            if let Some(index) = region {
                if !kept.regions.insert(index) {
                    continue;
                }
                let pieces = [self.regions.hot(index), self.regions.cold(index)];
                kept.pieces.extend(pieces);
                if crate::cache::is_dirty_code(pieces[0].0) {
                    kept.dirty.push(pieces[1].0);
                    pieces.iter().for_each(|&piece| self.named(piece, &routines, &mut addresses));
                }
            } else if let Some(&piece) = self.loop_pieces.iter().find(|&&(start, end)| (start..end).contains(&address))
                && kept.loops.insert(piece)
            {
                kept.pieces.push(piece);
                kept.dirty.push(piece.0);
                self.named(piece, &routines, &mut addresses);
            }
        }
        kept
    }

    /// Code made for dirty mode that this piece of it names: the dirty region that a loop or a run of copies goes back to, shared routines. (Links and
    /// cells name nothing any more.) Numbers that only look like it do no harm.
    fn named(&self, (start, end): (u64, u64), routines: &[u64], out: &mut Vec<u64>) {
        let is_one = |to: u64| {
            let region = || self.regions.of_host(to).is_some_and(|index| self.body(index) == to);
            if crate::cache::is_dirty_code(to) { region() } else { routines.binary_search(&to).is_ok() }
        };
        for at in start..end.saturating_sub(3) {
            // SAFETY: code of the cache, whose mapping does not end with it: the parts keep a reserve.
            let (rel, word) = unsafe { ((at as *const i32).read_unaligned(), (at as *const u64).read_unaligned()) };
            out.extend([(at + 4).wrapping_add(i64::from(rel) as u64), word].into_iter().filter(|&to| is_one(to)));
        }
    }

    fn begin_anew(&mut self, kept: Kept) {
        let Kept { regions, loops, mut pieces, dirty } = kept;
        pieces.sort_unstable();
        let stays = |at: u64| pieces.partition_point(|piece| piece.0 <= at).checked_sub(1).is_some_and(|i| at < pieces[i].1);
        self.regions = self.regions.only(&regions);
        self.loop_pieces = loops.into_iter().collect();
        self.probes.retain(|&at, _| stays(at));
        self.old_routines.retain(|&at| stays(at));
        if let Some(t) = &mut self.translator {
            self.old_routines.extend(t.routines.drain(..).map(|routine| routine.1).filter(|&at| stays(at)));
        }
        if let Some(plans) = &mut self.plans {
            plans.renew(&dirty);
        }
        for room in [&mut self.hot, &mut self.dirty_hot, &mut self.cold] {
            room.renew(&pieces, startup::config().code_cache < LITTLE);
        }
        self.not_before = 0;
    }
}

/// Addresses in the code cache that threads have in hand. None: there is a thread that cannot be asked.
fn whereabouts() -> Option<Vec<u64>> {
    let mut words = alloc::vec![0u64; WORDS];
    loop {
        let count = report::trap(Trap::Whereabouts, words.as_mut_ptr() as u64, words.len() as u64, 0, 0);
        if count == u64::MAX {
            return None;
        }
        if count as usize <= words.len() {
            words.truncate(count as usize);
            return Some(words);
        }
        words.resize(2 * count as usize, 0);
    }
}
